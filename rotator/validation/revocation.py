"""The revocation status of a path's certificates, from revocation lists in files (RFC 5280 sections 5 and 6.3.3).

A list counts for a certificate if all of this holds:

 1. Issuer: the issuer of the certificate made it. Its signature is by a key of the path, or of a trusted root with the
    same name, and that key may sign lists.
 2. Scope: its issuingDistributionPoint includes this kind of certificate and this distribution point.
 3. Form: neither the list nor an entry has a critical extension that is not understood.
 4. Time: it has begun, and its nextUpdate is not past.

An entry in an authentic list revokes even if the list is out of date or a delta; a missing entry in such a list proves
nothing. Deltas are not combined with their base, as a file can as well contain the complete list. The lists are read by
`rotator.x509.crl`; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from rotator.core.hints import shell_word
from rotator.core.model import Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509.certificate import Certificate, about, colons
from rotator.x509.crl import AGAIN, Crl, CrlEntry, Revocations

MAX_POINTS = 64
"""The most distribution points of a certificate that are compared with the scope of a list; CAs write one or two."""

NONE_NAMED = "was to be looked up in revocation lists (require_crls), but none were named"
"""The clause about a certificate if lists are demanded and none are named."""

_ALL_REASONS = frozenset(x509.ReasonFlags) - {x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl}


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the status of a certificate is not known.

    Args:
        code: the code of the problem.
        reason: a clause.
        hint: the next step.
        severity: whether it refuses; None if no answer is needed.
    """

    code: Code
    reason: str
    hint: str
    severity: Severity | None


@dataclass(frozen=True, slots=True)
class Unusable:
    """The reason for which a list cannot answer.

    Args:
        reason: a clause after the name of the list.
        authentic: whether the CA made the list and it can be read, so that its entries still revoke.
        breach: whether the CA breaks the rules for public CAs. This refuses, as no other copy of the file can correct
            it; all other faults are local to this host, so they do not refuse a renewal by themselves.
    """

    reason: str
    authentic: bool = True
    breach: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class StatusQuery:
    """The question whether the certificates of a path are revoked.

    Args:
        served: the leaf and its intermediates.
        authorities: the issuer of each of them, the trusted root last; empty for a path that reaches no root. The
            status of the root itself is not asked.
        roots: all trusted roots, any of which may have signed a list.
        policy: the profile, and whether an answer is demanded.
        now: the reference time, UTC.
    """

    served: Sequence[Certificate]
    authorities: Sequence[Certificate]
    roots: Sequence[Certificate]
    policy: Policy
    now: datetime

    @property
    def pairs(self) -> Iterable[tuple[Certificate, Certificate]]:
        """Each certificate with its issuer."""
        return zip(self.served, self.authorities, strict=False)


def problems_of(
    query: StatusQuery, revocations: Revocations, known: Collection[bytes] = frozenset()
) -> tuple[Problem, ...]:
    """The problems of a leaf and its intermediates according to the lists.

    Args:
        query: the certificates of the path.
        revocations: the lists.
        known: the DER of certificates that other evidence shows not to be revoked, so that they need no list.

    Returns:
        `revoked`; or, if the status is unknown, `crl-stale`, `crl-unusable` or `revocation-unknown`.
    """
    problems: list[Problem] = []
    for certificate, issuer in query.pairs:
        problems += _look_up(certificate, issuer, query, revocations, needed=certificate.raw not in known)
    return tuple(problems)


def revoked_among(query: StatusQuery, revocations: Revocations) -> frozenset[bytes]:
    """The DER of the certificates that a list revokes."""
    return frozenset(
        certificate.raw
        for certificate, issuer in query.pairs
        if any(p.code is Code.REVOKED for p in _look_up(certificate, issuer, query, revocations))
    )


def _look_up(
    certificate: Certificate, issuer: Certificate, query: StatusQuery, revocations: Revocations, *, needed: bool = True
) -> list[Problem]:
    """The problems of one certificate according to all lists; if no answer is needed, only refusals."""
    policy, now = query.policy, query.now
    keys = (issuer, *query.authorities, *query.roots)
    covered_reasons: frozenset[x509.ReasonFlags] = frozenset()
    on_hold: list[tuple[Crl, CrlEntry]] = []
    newest = (datetime.min.replace(tzinfo=UTC), 0)
    doubts: list[Doubt] = []
    demanded = (Severity.REJECT if policy.require_crls else Severity.WARN) if needed else None
    for crl in revocations.lists:
        if not _includes(crl, certificate):
            continue
        unusable = _why_unusable(crl, keys, policy, now)
        if unusable:
            reason = f"{_title(crl)} {unusable.reason}"
            doubts.append(Doubt(Code.CRL_UNUSABLE, reason, AGAIN, Severity.REJECT if unusable.breach else demanded))
        entry = crl.entry(certificate.outline.serial) if not unusable or unusable.authentic else None
        if entry is not None and entry.lifted:
            newest = max(newest, _age(crl)) if crl.delta else newest
            entry = None
        if entry is not None and entry.reason == x509.ReasonFlags.certificate_hold.value:
            on_hold.append((crl, entry))
            continue
        if entry is not None:
            return [_revoked(certificate, crl, entry)]
        end = crl.loaded.next_update_utc
        if end is not None and end < now and not unusable:
            reason = f"{_title(crl)} was due to be replaced on {end:%Y-%m-%d %H:%M}Z"
            hint = "Run the job that fetches the lists; until then a newer revocation would not be noticed."
            doubts.append(Doubt(Code.CRL_STALE, reason, hint, demanded))
        elif not unusable:
            reasons = crl.scope.only_some_reasons if crl.scope else None
            covered_reasons |= _ALL_REASONS if reasons is None else reasons & _ALL_REASONS
            newest = max(newest, _age(crl)) if reasons is None else newest
    for crl, entry in on_hold:  # a hold ends when a newer list no longer has the certificate (RFC 5280 5.3.1)
        if newest <= _age(crl):
            return [_revoked(certificate, crl, entry)]
    if covered_reasons >= _ALL_REASONS:
        return []
    problems = [
        about(certificate, doubt.code, f"may be revoked: {doubt.reason}", doubt.hint, doubt.severity)
        for doubt in dict.fromkeys(doubts)
        if doubt.severity
    ]
    if not problems and demanded:
        problems.append(_unknown(certificate, revocations.name, demanded, partly=bool(covered_reasons)))
    return problems


def _age(crl: Crl) -> tuple[datetime, int]:
    return crl.loaded.last_update_utc, crl.number or 0


def _title(crl: Crl) -> str:
    return f"the list of {crl.issuer} in {crl.file}"


def _revoked(certificate: Certificate, crl: Crl, entry: CrlEntry) -> Problem:
    why = f" ({entry.reason})" if entry.reason and entry.reason != "unspecified" else ""
    number = f" (number {crl.number})" if crl.number is not None else ""
    reason = f"was revoked on {entry.at:%Y-%m-%d %H:%M}Z{why}, says the list of {crl.issuer}{number} in {crl.file}"
    hint = "Have it issued again, with a new key if the old one may be known to others."
    return about(certificate, Code.REVOKED, reason, hint)


def _unknown(certificate: Certificate, source: str, severity: Severity, *, partly: bool) -> Problem:
    """The problem of a certificate without an answer.

    Args:
        certificate: the certificate.
        source: the origin of the lists; empty if none were named.
        severity: whether it refuses.
        partly: whether lists for some reasons of revocation answer.
    """
    reason = f"is not covered by any revocation list in {source}" if source else NONE_NAMED
    reason += ": whether it is revoked is not known"
    reason += " for every reason" if partly else ""
    hint = "Fetch the list of its issuer"
    urls = [url for point in _points(certificate) for url in _urls(point.full_name)]
    hint += f": {shell_word(urls[0])}" if urls else "."
    hint += "" if source else " Then name it (--crls, or `crls` of the site)."
    return about(certificate, Code.REVOCATION_UNKNOWN, reason, hint, severity)


def _why_unusable(crl: Crl, keys: Sequence[Certificate], policy: Policy, now: datetime) -> Unusable | None:
    """The reason for which a list cannot answer; None if it can."""
    namesakes = [key for key in keys if key.outline.subject == crl.outline.issuer]
    signers = [key for key in namesakes if crl.signed_by(key)]
    if not namesakes:
        return Unusable("is signed by an authority whose certificate is missing here", authentic=False)
    if not signers:
        reason = f"is not signed with that CA's key ({colons(namesakes[0].key_id) or '?'})"
        return Unusable(reason, authentic=False)
    if crl.fault or crl.unknown_critical:
        return Unusable(crl.fault or crl.unknown_critical, authentic=False)
    if crl.delta:
        return Unusable("is a delta, which cannot show that a certificate is not revoked; the complete list is needed")
    usages = [key.ext(x509.KeyUsage) for key in signers]
    if all(usage is not None and not usage.crl_sign for usage in usages):
        reason = "is signed by a CA that may not sign such lists (keyUsage lacks cRLSign; RFC 5280 6.3.3 f)"
        return Unusable(reason, breach=policy.binds_public)
    if crl.breach and (policy.binds_public or not crl.lenient):
        return Unusable(crl.breach, breach=policy.binds_public)
    begin = crl.loaded.last_update_utc
    if begin > now:
        return Unusable(f"does not begin before {begin:%Y-%m-%d %H:%M}Z; is this host's clock right?")
    return None


# -- scope


def _points(certificate: Certificate) -> Sequence[x509.DistributionPoint]:
    return list(certificate.ext(x509.CRLDistributionPoints) or ())[:MAX_POINTS]


def _urls(names: Iterable[x509.GeneralName] | None) -> list[str]:
    return [shown(name.value) for name in names or () if isinstance(name, x509.UniformResourceIdentifier)]


def _includes(crl: Crl, certificate: Certificate) -> bool:
    """Whether a list covers a certificate, by issuer and scope (RFC 5280 6.3.3 b)."""
    if crl.outline.issuer != certificate.outline.issuer:
        return False
    scope = crl.scope
    if scope is None:
        return True
    if scope.only_contains_attribute_certs:
        return False
    if scope.only_contains_user_certs if certificate.is_ca else scope.only_contains_ca_certs:
        return False
    points = [point for point in _points(certificate) if not point.crl_issuer or _names_issuer(point, crl)]
    names = _names(scope.full_name, scope.relative_name, crl)
    return not names or any(
        names & _names(point.full_name or point.crl_issuer, point.relative_name, crl) for point in points
    )


def _names_issuer(point: x509.DistributionPoint, crl: Crl) -> bool:
    """Whether a distribution point names this list's issuer (cRLIssuer)."""
    names = [name for name in point.crl_issuer or () if isinstance(name, x509.DirectoryName)]
    return any(name.value.public_bytes() == crl.outline.issuer for name in names)


def _names(
    full: Iterable[x509.GeneralName] | None, relative: x509.RelativeDistinguishedName | None, crl: Crl
) -> frozenset[x509.GeneralName]:
    """The names of a distribution point; a relative name is completed by the issuer's (RFC 5280 4.2.1.13)."""
    if relative is not None:
        return frozenset({x509.DirectoryName(x509.Name([*crl.loaded.issuer.rdns, relative]))})
    return frozenset(full or ())
