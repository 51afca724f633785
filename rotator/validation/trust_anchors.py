"""The trust anchors of a verdict: a file of roots, parsed once, together with the evidence beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cryptography.x509.verification import Store

from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code, Severity
from rotator.core.text import shown
from rotator.validation.evidence import Evidence
from rotator.x509.certificate import Certificate
from rotator.x509.panics import BROKE_OFF, HINT, PanicError, contained
from rotator.x509.parse import read_certificate
from rotator.x509.pem import CERTIFICATE_LABELS, parse_text

MAX_STORE = 1024 * 1024
"""The most bytes of a file of roots; the system's has about 220 KiB, and reading 1 MiB takes half a second."""


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """The trusted roots and the other evidence of a verdict.

    Args:
        name: the origin of the roots, for messages.
        digest: SHA-256 (hex) of the file, as `sha256sum` prints it.
        certificates: the roots in the order of the file, without duplicates.
        store: the roots in the library's form.
        by_subject: the roots by the DER of their subject.
        raws: the DER of the roots.
        evidence: revocation lists, OCSP responses, logs, compromised keys.
    """

    name: str
    digest: str
    certificates: tuple[Certificate, ...] = field(repr=False)
    store: Store = field(repr=False)
    by_subject: Mapping[bytes, Sequence[Certificate]] = field(repr=False)
    raws: frozenset[bytes] = field(repr=False)
    evidence: Evidence = field(default_factory=Evidence, repr=False)

    def beside(self, evidence: Evidence) -> Anchors:
        """The same roots with this evidence."""
        return replace(self, evidence=evidence)

    @classmethod
    def from_pem(cls, data: bytes, name: str) -> Anchors:
        """Reads a file of roots.

        Args:
            data: PEM; blocks other than certificates are ignored.
            name: its name for messages.

        Raises:
            RotatorError: `store-empty` if it has no readable certificate, `too-large`, or `parse-error` with the line
                of a fault in its grammar: with half of the roots, valid certificates would be refused.
        """
        title = shown(name)
        if len(data) > MAX_STORE:
            raise RotatorError(Code.TOO_LARGE, f"{title} holds more than {MAX_STORE >> 20} MiB.", exit=Exit.REJECTED)
        blocks, problems = parse_text(data, title)
        refusals = [p for p in problems if p.severity is Severity.REJECT]
        if refusals and b"-----BEGIN " in data:  # a file without any block is reported below as `store-empty`
            raise RotatorError(Code.PARSE_ERROR, refusals[0].message, refusals[0].hint, exit=Exit.REJECTED)
        roots: dict[bytes, Certificate] = {}
        for block in blocks:
            if block.label in CERTIFICATE_LABELS:
                certificate, _ = read_certificate(block.data, title, block.line)
                if certificate is not None:
                    roots.setdefault(certificate.raw, certificate)
        if not roots:
            hint = "Name a PEM file with the root certificates that clients trust."
            certificates = sum(block.label in CERTIFICATE_LABELS for block in blocks)
            message = f"{title} holds no root certificate" + (" that can be read." if certificates else ".")
            raise RotatorError(Code.STORE_EMPTY, message, hint, exit=Exit.REJECTED)
        by_subject: dict[bytes, list[Certificate]] = {}
        for certificate in roots.values():
            by_subject.setdefault(certificate.outline.subject, []).append(certificate)
        try:
            with contained():
                # only our own rules apply to a path to a root that the library cannot read in its original form
                store = Store([c.loaded for c in roots.values() if c.strict] or [c.loaded for c in roots.values()])
        except PanicError as error:
            message = f"{title} cannot be read: {BROKE_OFF}."
            raise RotatorError(Code.PARSE_ERROR, message, HINT, exit=Exit.REJECTED) from error
        return cls(
            name=title,
            digest=hashlib.sha256(data).hexdigest(),
            certificates=tuple(roots.values()),
            store=store,
            by_subject=by_subject,
            raws=frozenset(roots),
        )
