"""Whether a path's certificates are revoked, as lists from files say; none is ever fetched, reading is `crl`'s.

A list counts for a certificate where all of this holds (RFC 5280 sections 5 and 6.3.3):

 1. Issuer: it comes from the certificate's issuer. Its signature is by a key of the path or of a trusted root of that
    name, which may sign such lists.
 2. Scope: its issuingDistributionPoint lets it speak of this kind of certificate and of this distribution point.
 3. Form: no critical extension that is not understood, in it or in any entry.
 4. Time: it has begun, and its nextUpdate is not over.

What an authentic list names as revoked is so even if that list is out of date, or a delta; that it does not name
something then says nothing. Deltas are not put together with their base: whoever keeps lists in files has complete
ones to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from rotator.core.model import Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509.certificate import Certificate, about, colons
from rotator.x509.crl import AGAIN, Crl, CrlEntry, Revocations

MAX_POINTS = 64
"""Distribution points of a certificate that are compared with the scope of each list; CAs write one or two."""

NONE_NAMED = "was to be looked up in revocation lists (require_crls), but none were named"
"""What is told of a certificate where lists are demanded and there are none."""

_ALL_REASONS = frozenset(x509.ReasonFlags) - {x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl}


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a list cannot be used for an answer.

    Args:
        words: they follow its name.
        authentic: whether it is the CA's own and can be read, so that what it names as revoked is so.
        breach: whether the CA itself acts against the rules for public ones, which refuses: no other copy of the file
            mends that. Whatever else is wrong with a list is the lack of this host, and no renewal shall fail for it.
    """

    reason: str
    authentic: bool = True
    breach: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class StatusQuery:
    """Whose state is asked for, by whom it could be told, and what is demanded.

    Args:
        served: the leaf and its intermediates.
        authorities: the issuer of each of them, the trusted root last, which is not looked up; empty for a path that
            does not reach one.
        roots: the trusted ones, any of which may have signed a list.
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
    """What the lists say of a leaf and its intermediates.

    Args:
        query: whose state is asked for.
        revocations: the lists.
        known: DER of those that something else shows not to be revoked, so that no list is needed for them.

    Returns:
        `revoked`; or, where a certificate's state is not known, `crl-stale`, `crl-unusable` or `revocation-unknown`.
    """
    problems: list[Problem] = []
    for certificate, issuer in query.pairs:
        problems += _look_up(certificate, issuer, query, revocations, needed=certificate.raw not in known)
    return tuple(problems)


def revoked_among(query: StatusQuery, revocations: Revocations) -> frozenset[bytes]:
    """DER of those that a list names."""
    return frozenset(
        certificate.raw
        for certificate, issuer in query.pairs
        if any(p.code is Code.REVOKED for p in _look_up(certificate, issuer, query, revocations))
    )


def _look_up(
    certificate: Certificate, issuer: Certificate, query: StatusQuery, revocations: Revocations, *, needed: bool = True
) -> list[Problem]:
    """One certificate in all lists; where no answer is needed, only what refuses in any case is told."""
    policy, now = query.policy, query.now
    keys = (issuer, *query.authorities, *query.roots)
    covered: frozenset[x509.ReasonFlags] = frozenset()
    held: list[tuple[Crl, CrlEntry]] = []
    newest = (datetime.min.replace(tzinfo=UTC), 0)
    uncertain: list[tuple[Code, str, str, Severity | None]] = []
    demanded = (Severity.REJECT if policy.require_crls else Severity.WARN) if needed else None
    for crl in revocations.lists:
        if not _speaks_of(crl, certificate):
            continue
        unusable = _why_unusable(crl, keys, policy, now)
        if unusable:
            reason = f"{_called(crl)} {unusable.reason}"
            uncertain.append((Code.CRL_UNUSABLE, reason, AGAIN, Severity.REJECT if unusable.breach else demanded))
        found = crl.entry(certificate.outline.serial) if not unusable or unusable.authentic else None
        if found is not None and found.lifted:
            newest = max(newest, _age(crl)) if crl.delta else newest
            found = None
        if found is not None and found.reason == x509.ReasonFlags.certificate_hold.value:
            held.append((crl, found))
            continue
        if found is not None:
            return [_told(certificate, crl, found)]
        end = crl.loaded.next_update_utc
        if end is not None and end < now and not unusable:
            reason = f"{_called(crl)} was due to be replaced on {end:%Y-%m-%d %H:%M}Z"
            hint = "Let whatever fetches the lists run again; until then a newer revocation would not be noticed."
            uncertain.append((Code.CRL_STALE, reason, hint, demanded))
        elif not unusable:
            reasons = crl.scope.only_some_reasons if crl.scope else None
            covered |= _ALL_REASONS if reasons is None else reasons & _ALL_REASONS
            newest = max(newest, _age(crl)) if reasons is None else newest
    for crl, found in held:  # the one reason that can pass: a newer list that does not name it has lifted it
        if newest <= _age(crl):
            return [_told(certificate, crl, found)]
    if covered >= _ALL_REASONS:
        return []
    problems = [
        about(certificate, code, f"may be revoked: {reason}", hint, severity)
        for code, reason, hint, severity in dict.fromkeys(uncertain)
        if severity
    ]
    if not problems and demanded:
        where = f"is not covered by any revocation list in {revocations.name}"
        reason = f"{where if revocations.name else NONE_NAMED}: whether it is revoked is not known"
        reason += " for every reason" if covered else ""
        hint = f"Fetch the list of {certificate.issuer or 'its issuer'}"
        points = [url for one in _points(certificate) for url in _urls(one.full_name)]
        hint += f": {points[0]}" if points else "."
        hint += "" if revocations.name else " Then name it (--crls, or `crls` of the site)."
        problems.append(about(certificate, Code.REVOCATION_UNKNOWN, reason, hint, demanded))
    return problems


def _age(crl: Crl) -> tuple[datetime, int]:
    return crl.loaded.last_update_utc, crl.number or 0


def _told(certificate: Certificate, crl: Crl, found: CrlEntry) -> Problem:
    why = f" ({found.reason})" if found.reason and found.reason != "unspecified" else ""
    number = f" (number {crl.number})" if crl.number is not None else ""
    reason = f"was revoked on {found.at:%Y-%m-%d %H:%M}Z{why}, says the list of {crl.issuer}{number} in {crl.file}"
    hint = "Have it issued again, with a new key if the old one may be known to others."
    return about(certificate, Code.REVOKED, reason, hint)


def _called(crl: Crl) -> str:
    return f"the list of {crl.issuer} in {crl.file}"


def _why_unusable(crl: Crl, keys: Sequence[Certificate], policy: Policy, now: datetime) -> Unusable | None:
    """Why a list cannot be used; None if it can be."""
    named = [key for key in keys if key.outline.subject == crl.outline.issuer]
    signers = [key for key in named if crl.signed_by(key)]
    if not named:
        return Unusable("is signed by an authority whose certificate is not at hand", authentic=False)
    if not signers:
        return Unusable(f"is not signed with that CA's key ({colons(named[0].key_id) or '?'})", authentic=False)
    if crl.fault or crl.unknown_critical:
        return Unusable(crl.fault or crl.unknown_critical, authentic=False)
    if crl.delta:
        return Unusable("is a delta: that it does not name something says nothing; the complete list is what is needed")
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


def _speaks_of(crl: Crl, certificate: Certificate) -> bool:
    """Whether a list is about a certificate, by issuer and scope (RFC 5280 6.3.3 b)."""
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
    return not names or any(names & _names(one.full_name or one.crl_issuer, one.relative_name, crl) for one in points)


def _names_issuer(point: x509.DistributionPoint, crl: Crl) -> bool:
    """Whether a distribution point lets this list's issuer speak (cRLIssuer)."""
    names = [name for name in point.crl_issuer or () if isinstance(name, x509.DirectoryName)]
    return any(name.value.public_bytes() == crl.outline.issuer for name in names)


def _names(
    full: Iterable[x509.GeneralName] | None, relative: x509.RelativeDistinguishedName | None, crl: Crl
) -> frozenset[x509.GeneralName]:
    """The names of a distribution point, a relative one completed (RFC 5280 4.2.1.13)."""
    if relative is not None:
        return frozenset({x509.DirectoryName(x509.Name([*crl.loaded.issuer.rdns, relative]))})
    return frozenset(full or ())
