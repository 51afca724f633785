"""Intermediates at hand on this host, for drops that lack one; nothing is fetched, and none of them is ever trusted."""

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
"""Certificates that the files of a pool may hold; the web's public CAs have some 2,000 intermediates in use."""

MAX_OFFERED = 32
"""Certificates that a pool offers for one candidate."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Intermediates by the name of their subject.

    Args:
        by_subject: the certificates by DER of their subject.
        digest: SHA-256 (hex) over all of them, in the order of their fingerprints; empty for none.
    """

    by_subject: Mapping[bytes, Sequence[Certificate]] = field(default_factory=dict, repr=False)
    digest: str = ""

    @classmethod
    def of(cls, certificates: Iterable[Certificate]) -> Pool:
        """A pool of the intermediates among these certificates; leaves and roots are left out.

        What a CA issued to itself when it changed its key is an intermediate: another key has signed it.
        """
        found: dict[bytes, Certificate] = {}
        for certificate in certificates:
            root = certificate.self_issued and certificate.signed(certificate)
            if certificate.is_ca and not root:
                found.setdefault(certificate.raw, certificate)
        by_subject: dict[bytes, list[Certificate]] = {}
        whole = hashlib.sha256()
        for certificate in sorted(found.values(), key=lambda c: c.fingerprint):
            by_subject.setdefault(certificate.outline.subject, []).append(certificate)
            whole.update(bytes.fromhex(certificate.fingerprint))
        return cls(by_subject, whole.hexdigest() if found else "")

    @classmethod
    def from_files(cls, files: Iterable[SourceFile]) -> Pool:
        """A pool of what lies in these files, PEM, DER or PKCS#7; what is no certificate is passed over.

        A file that is damaged offers what could be read of it: whatever is taken has to fit the chain that it is
        taken for, by name, key, signature and as a CA.

        Raises:
            RotatorError: `too-large`: a part of it would do for some chains and not for others.
        """
        certificates: list[Certificate] = []
        for source in files:
            for block in read_blocks(source)[0]:
                inner = unpack(block, None, 0).blocks if block.label in CONTAINER_LABELS else [block]
                read = (read_certificate(b.data, b.file, b.line)[0] for b in inner if b.label in CERTIFICATE_LABELS)
                certificates += [certificate for certificate in read if certificate is not None]
            if len(certificates) > MAX_POOL:
                message = f"There are more than {MAX_POOL:,} certificates, counted up to {shown(source.name)}."
                hint = "Leave the intermediates of the CAs that issue for this host there."
                raise RotatorError(Code.TOO_LARGE, message, hint, Exit.REJECTED)
        return cls.of(certificates)

    @classmethod
    def from_chains(cls, chains: Iterable[tuple[str, Sequence[bytes]]]) -> Pool:
        """A pool of the intermediates of stored chains.

        Args:
            chains: where each is stored, and its certificates as DER, leaf first.
        """
        return cls.of(
            certificate
            for where, chain in chains
            for raw in chain[1:]
            if (certificate := read_certificate(raw, where)[0]) is not None
        )

    def __or__(self, other: Pool) -> Pool:
        """What lies in either; of what lies in both, this one's."""
        if not (self.by_subject and other.by_subject):
            return self if self.by_subject else other
        both = (self.by_subject, other.by_subject)
        return Pool.of(c for pool in both for listed in pool.values() for c in listed)

    def offered_to(self, certificates: Sequence[Certificate]) -> list[Certificate]:
        """What has the name of an issuer of these certificates, or of one that is offered; each once, at most so many.

        Whether it signed is the explorer's question.
        """
        offered: dict[bytes, Certificate] = {}
        known = {c.raw for c in certificates}
        wanted = [c.outline.issuer for c in certificates]
        asked: set[bytes] = set()
        while wanted and len(offered) < MAX_OFFERED:
            name = wanted.pop(0)
            if name in asked:
                continue
            asked.add(name)
            for certificate in self.by_subject.get(name, ()):
                if certificate.raw not in known and len(offered) < MAX_OFFERED:
                    offered[certificate.raw] = certificate
                    wanted.append(certificate.outline.issuer)
        return list(offered.values())
