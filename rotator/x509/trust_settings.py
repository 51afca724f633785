"""The trust settings that OpenSSL writes after a certificate in a `TRUSTED CERTIFICATE` block (X509_CERT_AUX).

    X509_CERT_AUX ::= SEQUENCE {
        trust   SEQUENCE OF OBJECT IDENTIFIER                OPTIONAL,
        reject  [0] IMPLICIT SEQUENCE OF OBJECT IDENTIFIER   OPTIONAL,
        alias   UTF8String                                   OPTIONAL,
        keyid   OCTET STRING                                 OPTIONAL,
        other   [1] IMPLICIT SEQUENCE OF AlgorithmIdentifier OPTIONAL }

The structure is in OpenSSL's crypto/x509/x_x509a.c, the rule in X509_check_trust of crypto/x509/x509_trust.c.
"""

from __future__ import annotations

from cryptography.x509.oid import ExtendedKeyUsageOID

from rotator.x509 import der

_SERVER_USES = frozenset(
    oid.dotted_string for oid in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
)
_TRUST, _REJECT, _OTHER = der.SEQUENCE, 0xA0, 0xA1
_ORDER = (_TRUST, _REJECT, 0x0C, der.OCTET_STRING, _OTHER)


def server_objection(settings: bytes) -> str:
    """The reason for which a certificate with these settings is no root for TLS servers, as a clause.

    A rejected use weighs more than a trusted one, and a list of trusted uses excludes all other uses, even an empty
    list. `anyExtendedKeyUsage` stands for TLS servers, too.

    Args:
        settings: the bytes after the certificate in its block.

    Returns:
        The clause; empty if the certificate is a root for TLS servers.
    """
    if not settings:
        return ""
    try:
        trusted, rejected = _uses(settings)
    except der.DerError as error:
        return f"has trust settings that cannot be read (its block {error} after the certificate)"
    if rejected & _SERVER_USES:
        return "is marked as rejected for TLS servers"
    if trusted is not None and not trusted & _SERVER_USES:
        return "is marked as trusted for other uses than TLS servers"
    return ""


def _uses(settings: bytes) -> tuple[frozenset[str] | None, frozenset[str]]:
    """The trusted uses, None without a list of them, and the rejected uses.

    Raises:
        DerError: the bytes do not begin with an X509_CERT_AUX.
    """
    outer = der.expect(der.element(settings, 0, len(settings)), der.SEQUENCE)
    parts = der.children(settings, outer)
    places = [_ORDER.index(part.tag) if part.tag in _ORDER else -1 for part in parts]
    if -1 in places or places != sorted(set(places)):
        raise der.DerError("has another structure than expected")
    lists = {
        part.tag: frozenset(der.dotted(settings, use) for use in der.children(settings, part))
        for part in parts
        if part.tag in (_TRUST, _REJECT)
    }
    return lists.get(_TRUST), lists.get(_REJECT, frozenset())
