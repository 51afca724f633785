"""What OCSP responses from files say of a path, and whether must-staple is met; nothing is fetched or read here.

A response counts for a certificate where all of this holds:

 1. Subject: one of its answers names the certificate, by its number and the digests of its issuer's name and key
    (RFC 6960 4.1.1).
 2. Signer: the issuer, or one whose certificate this issuer signed for that use (id-kp-OCSPSigning) and that is
    valid (RFC 6960 4.2.2.2); the response says who, and the signature is that one's (RFC 6960 3.2).
 3. Form: no critical extension that is not understood (RFC 6960 4.4).
 4. Time: it has begun, says when it ends, and that is not over (RFC 6960 4.2.2.1, RFC 5019 4).

What an authentic response names as revoked is so even if that response is over. nginx staples a file as it lies there:
where a certificate demands an answer (must-staple, RFC 7633), clients end the handshake over one that does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from rotator.core.model import Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509.certificate import Certificate, about
from rotator.x509.ocsp import AGAIN, Response, Responses, SingleResponse

SKEW = timedelta(minutes=5)
"""How far a response may be ahead of this clock; `openssl ocsp` allows as much. None is given at its end."""

_FRESH = "Let whatever fetches the response run again, and reload nginx then: it reads the file only at that time."


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why an answer cannot be used.

    Args:
        words: they follow the name of the response.
        hint: the next step.
        authentic: whether it is the CA's own, so that a revocation in it is one.
        code: `ocsp-stale` where it is over.
    """

    reason: str
    hint: str = AGAIN
    authentic: bool = True
    code: Code = Code.REVOCATION_UNKNOWN


@dataclass(frozen=True, slots=True)
class OcspStatus:
    """What all responses together say of one certificate.

    Args:
        problems: `revoked`; or `ocsp-stale` and `revocation-unknown`, where nothing that counts is said.
        good: the response that says it is not revoked; None without one that counts.
        useless: why clients would refuse what there is about it; empty if they would not or there is nothing.
    """

    problems: tuple[Problem, ...] = ()
    good: Response | None = None
    useless: str = ""

    @property
    def revoked(self) -> bool:
        """Whether it is."""
        return any(p.code is Code.REVOKED for p in self.problems)


def statuses(
    served: Sequence[Certificate],
    authorities: Sequence[Certificate],
    responses: Responses,
    revoked: Callable[[Certificate, Certificate], bool],
    now: datetime,
) -> tuple[OcspStatus, ...]:
    """What the responses say of a leaf and its intermediates.

    Args:
        served: the leaf and its intermediates. nginx staples for the leaf alone, so nothing is missed of the others.
        authorities: the issuer of each of them.
        responses: those that were named.
        revoked: whether a signer's certificate, of this issuer, is known to be.
        now: the reference time, UTC.
    """
    return tuple(
        _look_up(certificate, issuer, responses, revoked, now, wanted=not place)
        for place, (certificate, issuer) in enumerate(zip(served, authorities, strict=False))
    )


def _look_up(
    certificate: Certificate,
    issuer: Certificate,
    responses: Responses,
    revoked: Callable[[Certificate, Certificate], bool],
    now: datetime,
    *,
    wanted: bool,
) -> OcspStatus:
    """One certificate in all responses."""
    held: list[tuple[Response, SingleResponse]] = []
    good: Response | None = None
    newest = datetime.min.replace(tzinfo=UTC)
    uncertain: list[Unusable] = []
    for response, answer in responses.about(certificate, issuer):
        unusable = _why_unusable(response, answer, issuer, revoked, now)
        if answer.status is OCSPCertStatus.REVOKED and (not unusable or unusable.authentic):
            if answer.reason != x509.ReasonFlags.certificate_hold.value:
                return OcspStatus((_told(certificate, response, answer),))
            held.append((response, answer))
        elif unusable:
            uncertain.append(
                Unusable(f"{response.title} {unusable.reason}", unusable.hint, unusable.authentic, unusable.code)
            )
        elif answer.begin > newest:  # good
            good, newest = response, answer.begin
    for response, answer in held:  # the one reason that can pass: a newer answer has lifted it
        if newest <= answer.begin:
            return OcspStatus((_told(certificate, response, answer),))
    if good or not wanted:
        return OcspStatus(good=good)
    problems = [
        about(certificate, one.code, f"may be revoked: {one.reason}", one.hint, Severity.WARN)
        for one in dict.fromkeys(uncertain)
    ]
    if not problems:
        reason = f"is the subject of no OCSP response in {responses.name}"
        address = _address(certificate) or f"the responder of {certificate.issuer or 'its issuer'}"
        hint = f"Fetch the one for it, as soon as it is issued, from {address}."
        problems.append(about(certificate, Code.REVOCATION_UNKNOWN, reason, hint, Severity.WARN))
    return OcspStatus(tuple(problems), None, uncertain[0].reason if uncertain else "")


def _address(certificate: Certificate) -> str:
    """Where a certificate says that its responder is (RFC 5280 4.2.2.1); empty if it does not."""
    for one in certificate.ext(x509.AuthorityInformationAccess) or ():
        location = one.access_location
        is_responder = one.access_method == AuthorityInformationAccessOID.OCSP
        if is_responder and isinstance(location, x509.UniformResourceIdentifier):
            return shown(location.value)
    return ""


def _told(certificate: Certificate, response: Response, answer: SingleResponse) -> Problem:
    why = f" ({answer.reason})" if answer.reason and answer.reason != "unspecified" else ""
    when = f" on {answer.revoked_at:%Y-%m-%d %H:%M}Z" if answer.revoked_at else ""
    reason = f"was revoked{when}{why}, says {response.title}, of {answer.begin:%Y-%m-%d %H:%M}Z"
    hint = "Have it issued again, with a new key if the old one may be known to others."
    return about(certificate, Code.REVOKED, reason, hint)


def _why_unusable(
    response: Response,
    answer: SingleResponse,
    issuer: Certificate,
    revoked: Callable[[Certificate, Certificate], bool],
    now: datetime,
) -> Unusable | None:
    """Why an answer cannot be used; None if it can be, and says good or revoked."""
    if response.scheme is None:
        return Unusable(f"is signed with an algorithm that nobody relies on ({response.algorithm})", authentic=False)
    signer = response.signer(issuer)
    if signer is None:
        return Unusable("is signed neither by its issuer nor by the responder that it names", authentic=False)
    delegate = None if signer.logical == issuer.logical else signer
    if delegate and (reason := _not_entitled(delegate, issuer, response.produced)):
        return Unusable(f"is signed by {delegate.title}, {reason} (RFC 6960 4.2.2.2)", authentic=False)
    if delegate and revoked(delegate, issuer):
        return Unusable(f"is signed by {delegate.title}, whose certificate was revoked", authentic=False)
    if answer.unknown_critical:
        reason = f"has a critical extension that is not understood ({answer.unknown_critical}; RFC 6960 4.4)"
        return Unusable(reason, authentic=False)
    begin = max(answer.begin, response.produced)
    if begin > now + SKEW:
        reason = f"does not begin before {begin:%Y-%m-%d %H:%M}Z; is this host's clock right?"
        return Unusable(reason, "Compare the time: timedatectl")
    if answer.end is None:
        reason = "does not say how long it is good, so clients take it from nobody but the responder (RFC 5019 4)"
        return Unusable(reason, "Ask the CA for responses with nextUpdate: only those can be stapled from a file.")
    if answer.end < now:
        return Unusable(f"was due to be replaced on {answer.end:%Y-%m-%d %H:%M}Z", _FRESH, code=Code.OCSP_STALE)
    if delegate and now > delegate.not_after:
        reason = f"is signed by {delegate.title}, whose certificate expired on {delegate.not_after:%Y-%m-%d %H:%M}Z"
        return Unusable(reason, _FRESH)
    if answer.status is OCSPCertStatus.UNKNOWN:
        reason = "says that the responder does not know this certificate"
        return Unusable(reason, "A new certificate may take its CA some minutes; fetch the response again then.")
    return None


def _not_entitled(signer: Certificate, issuer: Certificate, produced: datetime) -> str:
    """Why a signer other than the issuer may not speak for it, in words that follow his name; empty if he may."""
    if signer.outline.issuer != issuer.outline.subject or not issuer.signed(signer):
        return "whom this issuer did not appoint"
    purposes = signer.ext(x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        return "whose certificate is not for signing OCSP responses"
    usage = signer.ext(x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        return "whose certificate is not for signing"
    if signer.faults:
        return f"whose certificate {signer.faults[0].reason}"
    if signer.weak_signature:
        return f"whose certificate is signed with {signer.weak_signature}"
    if not signer.not_before <= produced <= signer.not_after:
        return "whose certificate was not valid then"
    return ""


def must_staple(leaf: Certificate, policy: Policy, status: OcspStatus, name: str = "") -> tuple[Problem, ...]:
    """Whether a leaf demands a stapled answer (RFC 7633) that nginx does not have for every handshake.

    Args:
        leaf: the leaf.
        policy: whether nginx is known to staple in another way.
        status: what the responses say of the leaf.
        name: where they are; empty if none were named.
    """
    feature = leaf.ext(x509.TLSFeature)
    stapling = {x509.TLSFeatureType.status_request, x509.TLSFeatureType.status_request_v2}
    if feature is None or not stapling & set(feature) or status.revoked:
        return ()
    demand = "demands a stapled OCSP answer (must-staple), and"
    if status.useless:
        reason = f"{demand} clients would refuse every handshake with what there is: {status.useless}"
        return (about(leaf, Code.MUST_STAPLE, reason, status.problems[0].hint),)
    if policy.stapling or (status.good and status.good.binary):
        return ()
    if status.good:
        reason = f"{demand} nginx staples no PEM: {status.good.title} is good, but has to be DER"
        return (about(leaf, Code.MUST_STAPLE, reason, "Save it as DER, as the responder sent it."),)
    reason = f"{demand} nginx does not promise one in every handshake"
    reason += f"; none in {name} is for it" if name else ""
    hint = "Order it without must-staple; or let nginx staple the CA's response from a file (ssl_stapling_file), and "
    hint += "name that one: ocsp; where nginx staples in another way, say so: stapling = true."
    return (about(leaf, Code.MUST_STAPLE, reason, hint),)
