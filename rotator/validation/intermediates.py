"""The pool of this host's intermediates, from which a chain is completed that lacks one.

The pool is no trust store: its certificates count only on a path to a trusted root. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rotator.core.errors import Exit, RotatorError
from rotator.core.model import SourceFile
from rotator.core.problems import Code
from rotator.core.text import shown
from rotator.x509.certificate import Certificate
from rotator.x509.parse import read_certificate
from rotator.x509.pem import CERTIFICATE_LABELS, read_blocks
from rotator.x509.pkcs import CONTAINER_LABELS, unpack

MAX_POOL = 4_096
"""The most certificates of a pool's files; the public CAs of the web have some 2,000 intermediates in use."""

MAX_OFFERED = 32
"""The most certificates that a pool offers for one candidate."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Intermediates by the name of their subject.

    Args:
        by_subject: the certificates by the DER of their subject.
        digest: SHA-256 (hex) over all of them, in the order of their fingerprints; empty for an empty pool.
    """

    by_subject: Mapping[bytes, Sequence[Certificate]] = field(default_factory=dict, repr=False)
    digest: str = ""

    @classmethod
    def of(cls, certificates: Iterable[Certificate]) -> Pool:
        """A pool of the intermediates among these certificates; leaves and roots are left out.

        The certificate that a CA issues to itself for its new key is an intermediate, as another key signed it.
        """
        intermediates: dict[bytes, Certificate] = {}
        for certificate in certificates:
            root = certificate.self_issued and certificate.signed(certificate)
            if certificate.is_ca and not root:
                intermediates.setdefault(certificate.raw, certificate)
        by_subject: dict[bytes, list[Certificate]] = {}
        sha256 = hashlib.sha256()
        for certificate in sorted(intermediates.values(), key=lambda c: c.fingerprint):
            by_subject.setdefault(certificate.outline.subject, []).append(certificate)
            sha256.update(bytes.fromhex(certificate.fingerprint))
        return cls(by_subject, sha256.hexdigest() if intermediates else "")

    @classmethod
    def from_files(cls, files: Iterable[SourceFile]) -> Pool:
        """A pool of the intermediates in these files (PEM, DER or PKCS#7); other content is ignored.

        The readable part of a damaged file counts, as a certificate is used only if it fits the chain by name, key,
        signature and as a CA.

        Raises:
            RotatorError: `too-large`: with a part of the pool, only some chains could be completed.
        """
        certificates: list[Certificate] = []
        for source in files:
            for block in read_blocks(source)[0]:
                inner = unpack(block, None, 0).blocks if block.label in CONTAINER_LABELS else [block]
                read = (read_certificate(b.data, b.file, b.line)[0] for b in inner if b.label in CERTIFICATE_LABELS)
                certificates += [certificate for certificate in read if certificate is not None]
            if len(certificates) > MAX_POOL:
                message = f"There are more than {MAX_POOL:,} certificates, counted up to {shown(source.name)}."
                hint = "Keep only the intermediates of the CAs that issue for this host."
                raise RotatorError(Code.TOO_LARGE, message, hint, Exit.REJECTED)
        return cls.of(certificates)

    @classmethod
    def from_chains(cls, chains: Iterable[tuple[str, Sequence[bytes]]]) -> Pool:
        """A pool of the intermediates of stored chains.

        Args:
            chains: for each chain its place for messages, and its certificates as DER, leaf first.
        """
        return cls.of(
            certificate
            for where, chain in chains
            for raw in chain[1:]
            if (certificate := read_certificate(raw, where)[0]) is not None
        )

    def __or__(self, other: Pool) -> Pool:
        """The union of two pools; a certificate in both is taken from this one."""
        if not (self.by_subject and other.by_subject):
            return self if self.by_subject else other
        both = (self.by_subject, other.by_subject)
        return Pool.of(c for pool in both for listed in pool.values() for c in listed)

    def offered_to(self, certificates: Sequence[Certificate]) -> list[Certificate]:
        """The certificates with the name of an issuer of these, or of an offered one; at most `MAX_OFFERED`.

        The path builder checks whether they signed.
        """
        offered: dict[bytes, Certificate] = {}
        known = {c.raw for c in certificates}
        issuers = [c.outline.issuer for c in certificates]
        looked_up: set[bytes] = set()
        while issuers and len(offered) < MAX_OFFERED:
            name = issuers.pop(0)
            if name in looked_up:
                continue
            looked_up.add(name)
            for certificate in self.by_subject.get(name, ()):
                if certificate.raw not in known and len(offered) < MAX_OFFERED:
                    offered[certificate.raw] = certificate
                    issuers.append(certificate.outline.issuer)
        return list(offered.values())
