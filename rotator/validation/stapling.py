"""The revocation status of a path's certificates, from OCSP responses in files, and the demands of must-staple.

A response counts for a certificate if all of this holds:

 1. Subject: one of its answers names the certificate by its serial number and the hashes of its issuer's name and key
    (RFC 6960 4.1.1).
 2. Signer: the issuer, or a responder whose certificate this issuer signed for that use (id-kp-OCSPSigning) and that is
    valid (RFC 6960 4.2.2.2). The response names its signer, and the signature is by the signer's key (RFC 6960 3.2).
 3. Form: no critical extension that is not understood (RFC 6960 4.4).
 4. Time: it has begun, and its nextUpdate is present and not past (RFC 6960 4.2.2.1, RFC 5019 4).

An authentic answer revokes even if it is out of date. nginx staples a file without a check, and clients end the
handshake over a stapled answer that does not count if the certificate demands one (must-staple, RFC 7633).
The responses are read by `rotator.x509.ocsp`; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from rotator.core.hints import shell_word
from rotator.core.model import Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509.certificate import Certificate, about
from rotator.x509.ocsp import AGAIN, Response, Responses, SingleResponse

SKEW = timedelta(minutes=5)
"""The tolerance for a start in the future, as in `openssl ocsp`; the end has no tolerance."""

_FETCH_AND_RELOAD = "Run the job that fetches the response, then reload nginx: it reads the file only on a reload."


@dataclass(frozen=True, slots=True)
class Unusable:
    """The reason for which an answer does not count.

    Args:
        reason: a clause after the name of the response.
        hint: the next step.
        authentic: whether the CA made the response, so that a revocation in it still counts.
        code: `ocsp-stale` for an expired answer, otherwise `revocation-unknown`.
    """

    reason: str
    hint: str = AGAIN
    authentic: bool = True
    code: Code = Code.REVOCATION_UNKNOWN


@dataclass(frozen=True, slots=True)
class OcspStatus:
    """The status of one certificate according to all responses together.

    Args:
        problems: `revoked`; or `ocsp-stale` and `revocation-unknown` if no answer counts.
        good: the response with a good answer that counts; None if there is none.
        useless: the reason for which clients refuse the stapled answer; empty if they do not, or if there is none.
    """

    problems: tuple[Problem, ...] = ()
    good: Response | None = None
    useless: str = ""

    @property
    def revoked(self) -> bool:
        """Whether a response revokes the certificate."""
        return any(p.code is Code.REVOKED for p in self.problems)


def statuses(
    served: Sequence[Certificate],
    authorities: Sequence[Certificate],
    responses: Responses,
    revoked: Callable[[Certificate, Certificate], bool],
    now: datetime,
) -> tuple[OcspStatus, ...]:
    """The status of a leaf and of each of its intermediates.

    Args:
        served: the leaf and its intermediates. nginx staples for the leaf alone, so only the leaf's answer is missed.
        authorities: the issuer of each of them.
        responses: the responses.
        revoked: tells whether the certificate of a signer, with its issuer, is known to be revoked.
        now: the reference time, UTC.
    """
    return tuple(
        _look_up(certificate, issuer, responses, revoked, now, needed=number == 0)
        for number, (certificate, issuer) in enumerate(zip(served, authorities, strict=False))
    )


def _look_up(
    certificate: Certificate,
    issuer: Certificate,
    responses: Responses,
    revoked: Callable[[Certificate, Certificate], bool],
    now: datetime,
    *,
    needed: bool,
) -> OcspStatus:
    """The status of one certificate; only if an answer is needed, a missing one is a problem."""
    on_hold: list[tuple[Response, SingleResponse]] = []
    good: Response | None = None
    newest = datetime.min.replace(tzinfo=UTC)
    doubts: list[Unusable] = []
    for response, answer in responses.about(certificate, issuer):
        unusable = _why_unusable(response, answer, issuer, revoked, now)
        if answer.status is OCSPCertStatus.REVOKED and (not unusable or unusable.authentic):
            if answer.reason != x509.ReasonFlags.certificate_hold.value:
                return OcspStatus((_revoked(certificate, response, answer),))
            on_hold.append((response, answer))
        elif unusable:
            doubts.append(replace(unusable, reason=f"{response.title} {unusable.reason}"))
        elif answer.begin > newest:  # its status is good
            good, newest = response, answer.begin
    for response, answer in on_hold:  # a newer answer ends a hold (RFC 5280 5.3.1)
        if newest <= answer.begin:
            return OcspStatus((_revoked(certificate, response, answer),))
    if good or not needed:
        return OcspStatus(good=good)
    problems = [
        about(certificate, doubt.code, f"may be revoked: {doubt.reason}", doubt.hint, Severity.WARN)
        for doubt in dict.fromkeys(doubts)
    ]
    if not problems:
        reason = f"is the subject of no OCSP response in {responses.name}"
        url = _responder_url(certificate)
        address = shell_word(url) if url else "the responder of its issuer."
        hint = f"Fetch its response, as soon as there is one, from {address}"
        problems.append(about(certificate, Code.REVOCATION_UNKNOWN, reason, hint, Severity.WARN))
    return OcspStatus(tuple(problems), None, doubts[0].reason if doubts else "")


def _responder_url(certificate: Certificate) -> str:
    """The address of the responder that a certificate names (RFC 5280 4.2.2.1); empty if it names none."""
    for description in certificate.ext(x509.AuthorityInformationAccess) or ():
        location = description.access_location
        is_responder = description.access_method == AuthorityInformationAccessOID.OCSP
        if is_responder and isinstance(location, x509.UniformResourceIdentifier):
            return shown(location.value)
    return ""


def _revoked(certificate: Certificate, response: Response, answer: SingleResponse) -> Problem:
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
    """The reason for which an answer does not count; None if it counts and is good or revoked."""
    if response.scheme is None:
        return Unusable(f"is signed with an algorithm that is not secure ({response.algorithm})", authentic=False)
    signer = response.signer(issuer)
    if signer is None:
        return Unusable("is signed neither by its issuer nor by the responder that it names", authentic=False)
    responder = None if signer.logical == issuer.logical else signer
    if responder and (fault := _not_authorised(responder, issuer, response.produced)):
        return Unusable(f"is signed by {responder.title}, {fault} (RFC 6960 4.2.2.2)", authentic=False)
    if responder and revoked(responder, issuer):
        return Unusable(f"is signed by {responder.title}, whose certificate was revoked", authentic=False)
    if answer.unknown_critical:
        reason = f"has a critical extension that is not understood ({answer.unknown_critical}; RFC 6960 4.4)"
        return Unusable(reason, authentic=False)
    begin = max(answer.begin, response.produced)
    if begin > now + SKEW:
        reason = f"does not begin before {begin:%Y-%m-%d %H:%M}Z; is this host's clock right?"
        return Unusable(reason, "Compare the time: timedatectl")
    if answer.end is None:
        reason = "has no nextUpdate, so clients accept it only directly from the responder (RFC 5019 4)"
        return Unusable(reason, "Ask the CA for responses with nextUpdate: only those can be stapled from a file.")
    if answer.end < now:
        reason = f"was due to be replaced on {answer.end:%Y-%m-%d %H:%M}Z"
        return Unusable(reason, _FETCH_AND_RELOAD, code=Code.OCSP_STALE)
    if responder and now > responder.not_after:
        reason = f"is signed by {responder.title}, whose certificate expired on {responder.not_after:%Y-%m-%d %H:%M}Z"
        return Unusable(reason, _FETCH_AND_RELOAD)
    if answer.status is OCSPCertStatus.UNKNOWN:
        reason = "says that the responder does not know this certificate"
        return Unusable(reason, "A new certificate may take its CA some minutes; fetch the response again then.")
    return None


def _not_authorised(signer: Certificate, issuer: Certificate, produced: datetime) -> str:
    """The reason for which a signer may not answer for an issuer, as a clause after its name; empty if it may."""
    if signer.outline.issuer != issuer.outline.subject or not issuer.signed(signer):
        return "whose certificate is not by this issuer"
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
        return "whose certificate was not valid at that time"
    return ""


def must_staple(leaf: Certificate, policy: Policy, status: OcspStatus, source: str = "") -> tuple[Problem, ...]:
    """The refusal of a leaf that demands a stapled answer (RFC 7633) that nginx does not have for every handshake.

    Args:
        leaf: the leaf.
        policy: whether nginx is known to staple in another way.
        status: the leaf's status according to the responses.
        source: the origin of the responses; empty if none were named.
    """
    feature = leaf.ext(x509.TLSFeature)
    stapling = {x509.TLSFeatureType.status_request, x509.TLSFeatureType.status_request_v2}
    if feature is None or not stapling & set(feature) or status.revoked:
        return ()
    demand = "demands a stapled OCSP answer (must-staple), and"
    if status.useless:
        reason = f"{demand} clients would refuse every handshake with the present one: {status.useless}"
        return (about(leaf, Code.MUST_STAPLE, reason, status.problems[0].hint),)
    if policy.stapling or (status.good and status.good.binary):
        return ()
    if status.good:
        reason = f"{demand} nginx staples no PEM: {status.good.title} is good, but must be DER"
        return (about(leaf, Code.MUST_STAPLE, reason, "Save it as DER, as the responder sent it."),)
    reason = f"{demand} nginx does not promise one in every handshake"
    reason += f"; no response in {source} is for it" if source else ""
    hint = "Order it without must-staple; or let nginx staple the CA's response from a file (ssl_stapling_file), and "
    hint += "name that file: ocsp. If nginx staples in another way, say so: stapling = true."
    return (about(leaf, Code.MUST_STAPLE, reason, hint),)
