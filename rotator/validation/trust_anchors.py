"""The trust anchors of a verdict: a file of roots, parsed once, together with the evidence beside them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cryptography.x509.verification import Store

from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command
from rotator.core.problems import Code, Severity
from rotator.core.text import place, shown
from rotator.validation.evidence import Evidence
from rotator.validation.root_store import Origins
from rotator.x509.certificate import Certificate
from rotator.x509.panics import BROKE_OFF, HINT, PanicError, contained
from rotator.x509.parse import read_certificate
from rotator.x509.pem import CERTIFICATE_LABELS, TRUSTED, Block, parse_text
from rotator.x509.trust_settings import server_objection

MAX_STORE = 1024 * 1024
"""The most bytes of a file of roots; the system's has about 220 KiB, and reading 1 MiB takes half a second."""

_P11_KIT = re.compile(rb"^\s*\[p11-kit-object-v1\]", re.MULTILINE)
"""The line that begins an object in p11-kit's own format, in which other lines say whether the object is trusted."""


@dataclass(frozen=True, slots=True, eq=False)
class Excluded:
    """A certificate of a file of roots that is no root for TLS servers by the file's own words.

    Args:
        certificate: the certificate.
        reason: the reason, as a clause.
    """

    certificate: Certificate = field(repr=False)
    reason: str

    @property
    def clause(self) -> str:
        """The reason with the place of the certificate in the file."""
        return f"{self.reason} in {place(self.certificate.file, self.certificate.line)}"


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
        excluded: the certificates of the file that are no roots for TLS servers, by the DER of their subject.
        origins: the roots that the distribution ships, and those of this host alone.
        evidence: revocation lists, OCSP responses, logs, compromised keys, root stores of browsers.
    """

    name: str
    digest: str
    certificates: tuple[Certificate, ...] = field(repr=False)
    store: Store = field(repr=False)
    by_subject: Mapping[bytes, Sequence[Certificate]] = field(repr=False)
    raws: frozenset[bytes] = field(repr=False)
    excluded: Mapping[bytes, Sequence[Excluded]] = field(default_factory=dict, repr=False)
    origins: Origins = field(default_factory=Origins, repr=False)
    evidence: Evidence = field(default_factory=Evidence, repr=False)

    def shipped_as(self, fingerprints: Collection[str], *, whole: bool) -> Anchors:
        """The same roots with their origins.

        Args:
            fingerprints: the SHA-256 (hex) of each root that the distribution ships.
            whole: whether these roots are the system's own, so that a root that is not shipped is one of this host.
        """
        shipped = frozenset(root.fingerprint for root in self.certificates if root.fingerprint in fingerprints)
        others = frozenset(root.fingerprint for root in self.certificates) - shipped
        return replace(self, origins=Origins(shipped, others if whole else frozenset()))

    def beside(self, evidence: Evidence) -> Anchors:
        """The same roots with this evidence."""
        return replace(self, evidence=evidence)

    @classmethod
    def from_pem(cls, data: bytes, name: str) -> Anchors:
        """Reads a file of roots.

        A `TRUSTED CERTIFICATE` block counts as OpenSSL counts it for TLS servers: see `rotator.x509.trust_settings`.
        If several blocks hold one certificate, one that excludes it is enough.

        Args:
            data: PEM; blocks other than certificates are ignored.
            name: its name for messages.

        Raises:
            RotatorError: `store-empty` if it has no root for TLS servers, `too-large`, or `parse-error` with the line
                of a fault in its grammar: with half of the roots, valid certificates would be refused.
        """
        title = shown(name)
        if len(data) > MAX_STORE:
            raise RotatorError(Code.TOO_LARGE, f"{title} holds more than {MAX_STORE >> 20} MiB.", exit=Exit.REJECTED)
        if match := _P11_KIT.search(data):
            line = data.count(b"\n", 0, match.end()) + 1
            message = f"{title} line {line}: this is a file of p11-kit, in which a certificate may be a distrusted one."
            hint = "Extract the roots for TLS servers: trust extract --format=pem-bundle --filter=ca-anchors "
            raise RotatorError(Code.PARSE_ERROR, message, f"{hint}--purpose=server-auth roots.pem", exit=Exit.REJECTED)
        blocks, problems = parse_text(data, title)
        refusals = [p for p in problems if p.severity is Severity.REJECT]
        if refusals and b"-----BEGIN " in data:  # a file without any block is reported below as `store-empty`
            raise RotatorError(Code.PARSE_ERROR, refusals[0].message, refusals[0].hint, exit=Exit.REJECTED)
        blocks = tuple(block for block in blocks if block.label in CERTIFICATE_LABELS | {TRUSTED})
        roots, excluded = _roots(blocks, title)
        if not roots:
            raise _without_roots(name, blocks, list(excluded.values()))
        by_subject: dict[bytes, list[Certificate]] = {}
        for certificate in roots.values():
            by_subject.setdefault(certificate.outline.subject, []).append(certificate)
        excluded_by_subject: dict[bytes, list[Excluded]] = {}
        for other in excluded.values():
            excluded_by_subject.setdefault(other.certificate.outline.subject, []).append(other)
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
            excluded=excluded_by_subject,
        )


def _roots(blocks: Sequence[Block], title: str) -> tuple[dict[bytes, Certificate], dict[bytes, Excluded]]:
    """The roots for TLS servers and the other certificates of a file, by their DER and in the order of the file."""
    roots: dict[bytes, Certificate] = {}
    excluded: dict[bytes, Excluded] = {}
    for block in blocks:
        certificate, _ = read_certificate(block.data, title, block.line)
        if certificate is None:
            continue
        settings = block.data[len(certificate.raw) :] if block.label == TRUSTED else b""
        if reason := server_objection(settings):
            excluded.setdefault(certificate.raw, Excluded(certificate, reason))
        else:
            roots.setdefault(certificate.raw, certificate)
    return {raw: root for raw, root in roots.items() if raw not in excluded}, excluded


def _without_roots(name: str, blocks: Sequence[Block], excluded: Sequence[Excluded]) -> RotatorError:
    """The error of a file without any root for TLS servers."""
    title, hint = shown(name), "Name a PEM file with the root certificates that clients trust."
    message = f"{title} holds no root certificate"
    if excluded:
        first = excluded[0]
        line = place(title, first.certificate.line)
        message += f" for TLS servers: the first of {len(excluded)} ({line}) {first.reason}."
        hint += f" This removes the settings of the first: {command('openssl x509 -out root.pem -in', name)}"
    else:
        message += " that can be read." if blocks else "."
    return RotatorError(Code.STORE_EMPTY, message, hint, exit=Exit.REJECTED)
