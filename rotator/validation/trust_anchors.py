"""Trust anchors, parsed once and asked often, with the evidence shown beside them; no certificate is judged here."""

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
"""Bytes that a file of roots may hold; the system's has about 220 KiB, and each MiB takes half a second."""


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """The roots that a verdict trusts, and what else it is shown: the same files stand behind every verdict on a site.

    Args:
        name: where they came from, for messages.
        digest: SHA-256 (hex) of the file, as `sha256sum` prints it.
        certificates: the roots, each once, in the order of the file.
        store: the roots as the library takes them.
        by_subject: the roots by DER of their subject.
        raws: DER of the roots.
        evidence: revocation lists, OCSP responses, logs, known keys.
    """

    name: str
    digest: str
    certificates: tuple[Certificate, ...] = field(repr=False)
    store: Store = field(repr=False)
    by_subject: Mapping[bytes, Sequence[Certificate]] = field(repr=False)
    raws: frozenset[bytes] = field(repr=False)
    evidence: Evidence = field(default_factory=Evidence, repr=False)

    def beside(self, evidence: Evidence) -> Anchors:
        """The same roots beside this evidence."""
        return replace(self, evidence=evidence)

    @classmethod
    def from_pem(cls, data: bytes, name: str) -> Anchors:
        """Read a file of roots.

        Args:
            data: PEM; anything but certificates in it is passed over.
            name: what to call it in messages.

        Raises:
            RotatorError: `store-empty` if it holds no certificate that can be read, `too-large`, or `parse-error`
                with the line where its grammar fails: half a trust store would refuse what was accepted yesterday.
        """
        title = shown(name)
        if len(data) > MAX_STORE:
            raise RotatorError(Code.TOO_LARGE, f"{title} holds more than {MAX_STORE >> 20} MiB.", exit=Exit.REJECTED)
        blocks, problems = parse_text(data, title)
        refusals = [p for p in problems if p.severity is Severity.REJECT]
        if refusals and b"-----BEGIN " in data:  # without any block it is no PEM at all, which is told below
            raise RotatorError(Code.PARSE_ERROR, refusals[0].message, refusals[0].hint, exit=Exit.REJECTED)
        found: dict[bytes, Certificate] = {}
        for block in blocks:
            if block.label in CERTIFICATE_LABELS:
                certificate, _ = read_certificate(block.data, title, block.line)
                if certificate is not None:
                    found.setdefault(certificate.raw, certificate)
        if not found:
            hint = "Name a PEM file with the root certificates that clients trust."
            certificates = sum(block.label in CERTIFICATE_LABELS for block in blocks)
            message = f"{title} holds no root certificate" + (" that can be read." if certificates else ".")
            raise RotatorError(Code.STORE_EMPTY, message, hint, exit=Exit.REJECTED)
        by_subject: dict[bytes, list[Certificate]] = {}
        for certificate in found.values():
            by_subject.setdefault(certificate.outline.subject, []).append(certificate)
        try:
            with contained():
                # a root that the library reads as a copy only is judged by our own rules: it has no place in there
                store = Store([c.loaded for c in found.values() if c.strict] or [c.loaded for c in found.values()])
        except PanicError as error:
            message = f"{title} cannot be read: {BROKE_OFF}."
            raise RotatorError(Code.PARSE_ERROR, message, HINT, exit=Exit.REJECTED) from error
        return cls(
            name=title,
            digest=hashlib.sha256(data).hexdigest(),
            certificates=tuple(found.values()),
            store=store,
            by_subject=by_subject,
            raws=frozenset(found),
        )
