"""Pairs for tests of the store and of the privileged step, straight from the throw-away CA; nothing is judged here."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from rotator.core.model import KeyType, Pair, Secret
from tests.support.authority import Issued


def pair_of(issued: Issued) -> Pair:
    """The pair as the rest of rotator would have made it of these files."""
    leaf = issued.leaf
    san = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(san, x509.SubjectAlternativeName)
    return Pair(
        key_type=_KINDS[type(issued.key).__name__],
        chain=issued.chain_der,
        key=Secret(issued.key_pem),
        subject=leaf.subject.rfc4514_string(),
        issuer=leaf.issuer.rfc4514_string(),
        serial=f"{leaf.serial_number:x}",
        names=tuple(str(name.value) for name in san),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        effective_not_after=min(c.not_valid_after_utc for c in issued.chain),
    )


_KINDS = {"ECPrivateKey": KeyType.ECDSA, "RSAPrivateKey": KeyType.RSA, "Ed25519PrivateKey": KeyType.ED25519}
