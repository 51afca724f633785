"""OCSP responses: revoked refuses, useless warns, must-staple takes a good one only, and OpenSSL says the same."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ReasonFlags, ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.core.model import Policy
from rotator.core.problems import Code, Severity
from rotator.validation.evidence import Evidence
from rotator.validation.stapling import SKEW
from rotator.validation.validate import Anchors, Verdict, public, validate_chains
from rotator.x509 import der
from rotator.x509.crl import Revocations
from rotator.x509.ocsp import MAX_ANSWERS, MAX_RESPONSES, MAX_SIGNERS, Responses
from tests.support.authority import CA, NOW, Issued, general_time, new_key, pem, rewritten_response, rsa_key, wrap
from tests.support.authority import der as chain_der
from tests.support.cost import cost
from tests.support.extensions import SHA1, STAPLE, also, instead, same_ca, usage, with_sha1, without
from tests.support.judging import judge
from tests.support.revocation_lists import pem_of

NAME = "signal.example.cn"
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)
OTHER = ICA.issue(NAME)
DEMANDING = ICA.issue(NAME, tweak=also(STAPLE))
RESPONDER = ICA.responder()
ANCHORS = Anchors.from_pem(pem(ROOT.cert), "roots.pem")
STATUS = ocsp.OCSPCertStatus
STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def read(*responses: bytes) -> Responses:
    return Responses.from_files([(f"staple{number}.der", data) for number, data in enumerate(responses)], "staples")


def looked_up(
    *responses: bytes,
    issued: Issued = GOOD,
    now: datetime = NOW,
    policy: Policy | None = None,
    lists: Revocations | None = None,
    anchors: Anchors = ANCHORS,
) -> Verdict:
    """The verdict on a pair beside these responses."""
    beside = anchors.beside(Evidence(lists, responses=read(*responses)))
    return judge(issued, now=now, policy=policy or public([NAME]), anchors=beside)


def together(*responses: bytes) -> bytes:
    """One response with the answers of all of them."""
    all_answers = b"".join(answers_of(one) for one in responses)
    return rewritten_response(responses[0], ICA.key, lambda tbs: [*tbs[:2], wrap(0x30, all_answers), *tbs[3:]])


def answers_of(response: bytes) -> bytes:
    """DER of the answers, one after the other."""
    found: list[bytes] = []

    def look(tbs: list[bytes]) -> list[bytes]:
        found.append(tbs[2])
        return tbs

    rewritten_response(response, ICA.key, look)
    size = 2 + (found[0][1] & 0x7F if found[0][1] & 0x80 else 0)
    return found[0][size:]


def openssl(tmp_path: Path, response: bytes, issued: Issued, *options: str) -> str:
    """What OpenSSL says of a response about a leaf, by the real clock."""
    (tmp_path / "r.der").write_bytes(response)
    (tmp_path / "issuer.pem").write_bytes(pem(issued.intermediates[0]))
    (tmp_path / "leaf.pem").write_bytes(pem(issued.leaf))
    command = ["openssl", "ocsp", "-respin", "r.der", "-issuer", "issuer.pem", *options, "-cert", "leaf.pem"]
    command += ["-CAfile", "root.pem", "-verify_other", "issuer.pem", "-no_nonce"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_response_of_a_responder_whose_name_cannot_be_read_is_told_as_damaged() -> None:
    name = wrap(0x30, wrap(0x31, wrap(0x30, b"\x06\x03\x55\x04\x03" + wrap(0x13, b"\0*"))))  # no PrintableString
    odd = rewritten_response(ICA.ocsp(GOOD.leaf), ICA.key, lambda tbs: [wrap(0xA1, name), *tbs[1:]])
    assert [(p.code, p.file) for p in read(odd).faults] == [(Code.REVOCATION_UNKNOWN, "staple0.der")]
    assert looked_up(odd).warnings == (Code.REVOCATION_UNKNOWN,)


def test_more_answers_about_one_certificate_than_are_read_are_reported() -> None:
    good = ICA.ocsp(GOOD.leaf)
    assert read(*[good] * MAX_ANSWERS).faults == ()
    many = read(*[good] * (MAX_ANSWERS + 2), ICA.ocsp(OTHER.leaf))
    assert [p.file for p in many.faults] == [f"staple{MAX_ANSWERS}.der", f"staple{MAX_ANSWERS + 1}.der"]
    assert "more than 32 answers about one certificate" in many.faults[0].message
    assert [len(known) for known in many.by_serial.values()] == [MAX_ANSWERS, 1]


# --- what it says


def test_a_good_and_current_response_is_accepted_without_a_word() -> None:
    assert looked_up(ICA.ocsp(GOOD.leaf)).problems == ()


@pytest.mark.parametrize("reason", [ReasonFlags.unspecified, ReasonFlags.key_compromise, ReasonFlags.certificate_hold])
def test_a_revoked_leaf_is_refused(reason: ReasonFlags) -> None:
    assert looked_up(ICA.ocsp(GOOD.leaf, revoked=reason)).codes == (Code.REVOKED,)


def test_a_revocation_is_told_with_reason_date_and_file() -> None:
    verdict = looked_up(ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise))
    message = verdict.problems[0].message
    assert "was revoked on 2026-11-22 07:00Z (keyCompromise), says the OCSP response in staple0.der" in message


@pytest.mark.parametrize("reason", [None, ReasonFlags.unspecified])
def test_a_revocation_without_a_reason_is_one(reason: ReasonFlags | None) -> None:
    verdict = looked_up(ICA.ocsp(GOOD.leaf, status=STATUS.REVOKED, revoked=reason))
    assert verdict.codes == (Code.REVOKED,)
    assert "07:00Z, says" in verdict.problems[0].message


def test_what_a_response_that_is_over_names_stays_revoked() -> None:
    old = ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.superseded, begin=NOW - 30 * DAY, end=NOW - 20 * DAY)
    assert looked_up(old).codes == (Code.REVOKED,)
    assert looked_up(old, ICA.ocsp(GOOD.leaf)).codes == (Code.REVOKED,)


def test_a_hold_lasts_until_a_newer_response_has_lifted_it() -> None:
    hold = ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.certificate_hold, begin=NOW - 2 * DAY)
    older, newer = ICA.ocsp(GOOD.leaf, begin=NOW - 3 * DAY), ICA.ocsp(GOOD.leaf, begin=NOW - DAY)
    for responses in ((hold,), (hold, older), (older, hold)):
        assert looked_up(*responses).codes == (Code.REVOKED,)
    for responses in ((hold, newer), (newer, hold)):
        assert looked_up(*responses).problems == ()
    of_the_same_moment = ICA.ocsp(GOOD.leaf, begin=NOW - 2 * DAY)
    for responses in ((hold, of_the_same_moment), (of_the_same_moment, hold)):
        assert looked_up(*responses).codes == (Code.REVOKED,)


def test_a_response_that_is_over_warns() -> None:
    over = ICA.ocsp(GOOD.leaf, begin=NOW - 7 * DAY, end=NOW - SECOND)
    verdict = looked_up(over)
    assert verdict.accepted
    assert verdict.warnings == (Code.OCSP_STALE,)
    assert "was due to be replaced on 2026-11-22 11:59Z" in verdict.problems[0].message
    assert "reload nginx" in verdict.problems[0].hint


def test_a_response_is_good_up_to_its_last_second() -> None:
    assert looked_up(ICA.ocsp(GOOD.leaf, end=NOW)).problems == ()


def test_a_response_may_be_ahead_of_this_clock_by_a_little() -> None:
    assert looked_up(ICA.ocsp(GOOD.leaf, begin=NOW + SKEW)).problems == ()
    verdict = looked_up(ICA.ocsp(GOOD.leaf, begin=NOW + SKEW + SECOND))
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert "does not begin before 2026-11-22 12:05Z" in verdict.problems[0].message


def test_a_response_from_the_future_does_not_count() -> None:
    tomorrow = rewritten_response(ICA.ocsp(GOOD.leaf), ICA.key, lambda tbs: [tbs[0], general_time(NOW + DAY), *tbs[2:]])
    assert looked_up(tomorrow).warnings == (Code.REVOCATION_UNKNOWN,)


def test_a_good_response_beside_a_bad_one_is_an_answer() -> None:
    over = ICA.ocsp(GOOD.leaf, begin=NOW - 9 * DAY, end=NOW - DAY)
    for responses in ((over, ICA.ocsp(GOOD.leaf)), (ICA.ocsp(GOOD.leaf), over)):
        assert looked_up(*responses).problems == ()


def test_what_is_live_is_looked_up_too() -> None:
    anchors = ANCHORS.beside(Evidence(responses=read(ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise))))
    problems = validate_chains([GOOD.chain_der], public([NAME]), anchors, NOW)
    assert [(p.code, p.severity) for p in problems] == [(Code.REVOKED, Severity.REJECT)]


# --- whom it is about


@pytest.mark.parametrize(
    "digest", [hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda d: d.name
)
def test_a_certificate_may_be_named_by_any_digest(digest: hashes.HashAlgorithm) -> None:
    revoked = ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise, digest=digest)
    assert looked_up(revoked).codes == (Code.REVOKED,)


@pytest.mark.parametrize("what", ["name_hash", "key_hash"])
def test_the_same_number_of_another_ca_is_another_certificate(what: str) -> None:
    data = ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise)
    ((_, answer),) = read(data).by_serial[GOOD.leaf.serial_number]
    digest = getattr(answer, what)
    other = rewritten_response(data, ICA.key, lambda tbs: [*tbs[:2], tbs[2].replace(digest, bytes(20)), *tbs[3:]])
    verdict = looked_up(other)
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert "is the subject of no OCSP response in staples" in verdict.problems[0].message


def same_name(ca: CA) -> CA:
    """Another CA of this name."""
    return ROOT.intermediate(ca.name)


OCSP, ISSUERS = AuthorityInformationAccessOID.OCSP, AuthorityInformationAccessOID.CA_ISSUERS
THERE, ELSEWHERE = (x509.UniformResourceIdentifier(f"http://{host}.example/7") for host in ("ocsp", "ca"))


@pytest.mark.parametrize(
    ("access", "where"),
    [
        ([(OCSP, THERE)], "http://ocsp.example/7"),
        ([(ISSUERS, ELSEWHERE), (OCSP, x509.DirectoryName(ROOT.cert.subject)), (OCSP, THERE)], "http://ocsp.example/7"),
        ([(ISSUERS, ELSEWHERE)], "the responder of its issuer."),
    ],
    ids=["its address", "behind others", "none"],
)
def test_the_hint_names_where_the_response_is_to_be_had(
    access: list[tuple[x509.ObjectIdentifier, x509.GeneralName]], where: str
) -> None:
    named = x509.AuthorityInformationAccess([x509.AccessDescription(*one) for one in access])
    verdict = looked_up(issued=ICA.issue(NAME, tweak=also(named)))
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert verdict.problems[0].hint == f"Fetch its response, as soon as there is one, from {where}"


def test_one_of_several_answers_is_enough() -> None:
    both = together(ICA.ocsp(OTHER.leaf), ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise))
    assert looked_up(both).codes == (Code.REVOKED,)
    assert looked_up(both, issued=OTHER).problems == ()


def test_a_revoked_intermediate_is_refused_and_one_that_nobody_asked_for_is_not_missed() -> None:
    verdict = looked_up(ICA.ocsp(GOOD.leaf), ROOT.ocsp(ICA.cert, revoked=ReasonFlags.ca_compromise))
    assert verdict.codes == (Code.REVOKED,)
    assert verdict.problems[0].message.startswith("CN=Test Intermediate was revoked")
    over = ROOT.ocsp(ICA.cert, begin=NOW - 9 * DAY, end=NOW - DAY)
    assert looked_up(ICA.ocsp(GOOD.leaf), over).problems == ()


@pytest.mark.parametrize("lists", [None, Revocations.from_files([("crls.pem", pem_of(ICA.crl(), ROOT.crl()))])])
def test_a_path_around_a_revoked_intermediate_is_served(lists: Revocations | None) -> None:
    second = CA.root("Second Root")
    twins = ((ROOT, ICA.cert), (second, same_ca(ICA, second).cert))
    issued = replace(GOOD, intermediates=tuple(cert for _, cert in twins))
    anchors = Anchors.from_pem(pem(ROOT.cert, second.cert), "roots.pem")
    for (issuer, gone), (_, left) in (twins, twins[::-1]):  # one of them is the path that is taken otherwise
        revoked = issuer.ocsp(gone, revoked=ReasonFlags.ca_compromise)
        verdict = looked_up(ICA.ocsp(GOOD.leaf), revoked, issued=issued, anchors=anchors, lists=lists)
        assert verdict.accepted
        assert verdict.pairs[0].chain[1:] == chain_der(left)


# --- who may sign it


@pytest.mark.parametrize("named", list(ocsp.OCSPResponderEncoding))
def test_the_issuer_or_a_responder_whom_it_appointed_may_sign(named: ocsp.OCSPResponderEncoding) -> None:
    for by in (None, RESPONDER):
        revoked = ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise, by=by, named=named)
        assert looked_up(revoked).codes == (Code.REVOKED,)


def test_a_responder_need_not_say_how_its_key_is_used() -> None:
    by = ICA.responder(tweak=without(x509.KeyUsage))
    assert looked_up(ICA.ocsp(GOOD.leaf, by=by)).problems == ()


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_responder_may_have_a_key_of_another_kind(kind: str) -> None:
    by = ICA.responder(key=new_key(kind))
    assert looked_up(ICA.ocsp(GOOD.leaf, by=by)).problems == ()


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda d: d.name)
def test_a_responder_may_sign_with_rsassa_pss_as_the_baseline_requirements_write_it(
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512,
) -> None:
    key = rsa_key(3)
    scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest, rsa_padding=scheme)
    written = request.public_bytes(Encoding.DER)
    algorithm = identifier(written, request.tbs_certrequest_bytes)
    by = ICA.responder(key=key)
    data = ICA.ocsp(GOOD.leaf, by=by)
    again = rewritten_response(data, key, list, lambda body: key.sign(body, scheme, digest), algorithm)
    assert looked_up(again).problems == ()
    broken = rewritten_response(data, key, list, lambda body: key.sign(body + b"x", scheme, digest), algorithm)
    assert looked_up(broken).warnings == (Code.REVOCATION_UNKNOWN,)


def identifier(whole: bytes, signed: bytes) -> bytes:
    """The algorithm that stands behind what is signed."""
    tail = whole.partition(signed)[2]
    return tail[: 2 + tail[1]]


EXPIRED = ICA.issue(
    cn="Old", san=False, eku=[ExtendedKeyUsageOID.OCSP_SIGNING], not_before=NOW - 9 * DAY, not_after=NOW - SECOND
)
UNAUTHENTIC: dict[str, tuple[dict[str, object], str]] = {
    "signed with another key": ({"key": new_key()}, "neither by its issuer nor"),
    "signed by a responder who does not come along": ({"by": RESPONDER, "sends": False}, "neither by its issuer nor"),
    "signed by a responder of another CA": (
        {"by": CA.root("Else").responder()},
        "whose certificate is not by this issuer",
    ),
    "signed by one whom the root appointed": ({"by": ROOT.responder()}, "whose certificate is not by this issuer"),
    "signed by one of the issuer's name": (
        {"by": same_name(ICA).responder()},
        "whose certificate is not by this issuer",
    ),
    "signed by one of this key's, but under another name": (
        {"by": CA("Else", ICA.key, CA.root("Else", key=ICA.key).cert).responder()},
        "whose certificate is not by this issuer",
    ),
    "that names the issuer and is signed by his responder": (
        {"key": RESPONDER.key, "tweak": lambda builder: builder.certificates([RESPONDER.leaf])},
        "neither by its issuer nor",
    ),
    "signed by a leaf": ({"by": OTHER}, "is not for signing OCSP responses"),
    "signed by one for no purpose": (
        {"by": ICA.issue(cn="None", san=False, eku=None)},
        "is not for signing OCSP responses",
    ),
    "signed by one for anything": (
        {"by": ICA.issue(cn="Any", san=False, eku=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])},
        "is not for signing OCSP responses",
    ),
    "signed by one who may not sign": (
        {"by": ICA.responder(tweak=instead(usage(key_encipherment=True)))},
        "whose certificate is not for signing",
    ),
    "signed by one with something critical and unknown": (
        {"by": ICA.responder(tweak=also(STRANGE, critical=True))},
        "critical",
    ),
    "signed before the responder was appointed": (
        {"by": ICA.issue(cn="New", san=False, eku=[ExtendedKeyUsageOID.OCSP_SIGNING])},
        "whose certificate was not valid at that time",
    ),
    "with something critical and unknown": (
        {"tweak": lambda builder: builder.add_extension(STRANGE, critical=True)},
        "critical extension that is not understood (1.2.3.4",
    ),
}


def made(what: str, **values: object) -> bytes:
    """Such a response."""
    fields = UNAUTHENTIC[what][0] | values
    return ICA.ocsp(GOOD.leaf, **fields)  # type: ignore[arg-type]  # spelt out above


@pytest.mark.parametrize("what", UNAUTHENTIC)
def test_a_response_of_somebody_else_warns_and_neither_accepts_nor_revokes(what: str) -> None:
    words = UNAUTHENTIC[what][1]
    for revoked in (None, ReasonFlags.key_compromise):
        verdict = looked_up(made(what, revoked=revoked))
        assert (verdict.codes, verdict.warnings) == ((), (Code.REVOCATION_UNKNOWN,))
        assert words in verdict.problems[0].message
        assert verdict.problems[0].hint


def test_a_responder_whose_certificate_is_over_is_no_answer_but_his_revocations_stand() -> None:
    assert looked_up(ICA.ocsp(GOOD.leaf, by=EXPIRED)).warnings == (Code.REVOCATION_UNKNOWN,)
    revoked = ICA.ocsp(GOOD.leaf, by=EXPIRED, revoked=ReasonFlags.key_compromise)
    assert looked_up(revoked).codes == (Code.REVOKED,)


def test_a_responder_on_a_revocation_list_is_not_believed() -> None:
    lists = Revocations.from_files([("crls.pem", pem_of(ICA.crl(RESPONDER.leaf), ROOT.crl()))])
    verdict = looked_up(ICA.ocsp(GOOD.leaf, by=RESPONDER), lists=lists)
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert "CN=Responder, whose certificate was revoked" in verdict.problems[0].message


def test_a_responder_who_was_appointed_with_sha_1_is_not_believed() -> None:
    key = rsa_key(2)
    ca = ROOT.intermediate("Old Habits", key=key)
    issued, by = ca.issue(NAME), ca.responder()
    assert looked_up(ca.ocsp(issued.leaf, by=by), issued=issued).problems == ()
    verdict = looked_up(ca.ocsp(issued.leaf, by=replace(by, leaf=with_sha1(by.leaf, key))), issued=issued)
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert "whose certificate is signed with SHA1" in verdict.problems[0].message


def test_a_response_signed_with_sha_1_is_worth_nothing() -> None:
    key = rsa_key(3)
    by = ICA.responder(key=key)
    data = rewritten_response(
        ICA.ocsp(GOOD.leaf, by=by, revoked=ReasonFlags.key_compromise),
        key,
        list,
        lambda body: key.sign(body, padding.PKCS1v15(), hashes.SHA1()),
        SHA1,
    )
    verdict = looked_up(data)
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert "1.2.840.113549.1.1.5" in verdict.problems[0].message


# --- what gives no answer


def test_a_certificate_that_the_responder_does_not_know_warns() -> None:
    verdict = looked_up(ICA.ocsp(GOOD.leaf, status=STATUS.UNKNOWN))
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert "does not know this certificate" in verdict.problems[0].message


def test_a_response_without_an_end_cannot_be_stapled_from_a_file() -> None:
    endless = without_end(ICA.ocsp(GOOD.leaf))
    verdict = looked_up(endless)
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert "RFC 5019 4" in verdict.problems[0].message


def without_end(data: bytes) -> bytes:
    """The same without nextUpdate, which stands at the end of its only answer."""
    answer = answers_of(data)
    ending = wrap(0xA0, general_time(NOW + 6 * DAY))
    assert answer.endswith(ending)
    body = answer[2:] if answer[1] < 0x80 else answer[3:]
    shorter = wrap(0x30, wrap(0x30, body[: -len(ending)]))
    return rewritten_response(data, ICA.key, lambda tbs: [*tbs[:2], shorter])


def answer_extended(data: bytes, oid: str, *, critical: bool) -> bytes:
    """The same with an extension at its only answer."""
    answer = answers_of(data)
    body = answer[2:] if answer[1] < 0x80 else answer[3:]
    extension = wrap(0x30, der.encoded_oid(oid) + (b"\x01\x01\xff" if critical else b"") + wrap(0x04, b"\x05\x00"))
    longer = wrap(0x30, wrap(0x30, body + wrap(0xA1, wrap(0x30, extension))))
    return rewritten_response(data, ICA.key, lambda tbs: [*tbs[:2], longer])


def test_an_answer_with_something_critical_and_unknown_does_not_count() -> None:
    good = ICA.ocsp(GOOD.leaf)
    assert looked_up(answer_extended(good, "1.2.3.4", critical=True)).warnings == (Code.REVOCATION_UNKNOWN,)
    assert looked_up(answer_extended(good, "1.2.3.4", critical=False)).problems == ()
    assert looked_up(answer_extended(good, "1.3.6.1.5.5.7.48.1.6", critical=True)).problems == ()


# --- must-staple


STALE = ICA.ocsp(DEMANDING.leaf, begin=NOW - 9 * DAY, end=NOW - DAY)


def test_must_staple_is_met_by_a_good_response() -> None:
    assert looked_up(ICA.ocsp(DEMANDING.leaf), issued=DEMANDING).problems == ()


@pytest.mark.parametrize("stapling", [False, True])
@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (STALE, "was due to be replaced on 2026-11-21"),
        (ICA.ocsp(DEMANDING.leaf, status=STATUS.UNKNOWN), "does not know this certificate"),
        (ICA.ocsp(DEMANDING.leaf, key=new_key()), "neither by its issuer"),
    ],
    ids=["over", "unknown", "forged"],
)
def test_must_staple_is_refused_where_clients_would_refuse_what_there_is_to_staple(
    response: bytes, reason: str, stapling: bool
) -> None:
    verdict = looked_up(response, issued=DEMANDING, policy=replace(public([NAME]), stapling=stapling))
    assert verdict.codes == (Code.MUST_STAPLE,)
    assert reason in verdict.problems[0].message
    assert verdict.problems[0].hint == verdict.problems[1].hint


def test_must_staple_without_a_response_for_it_is_a_matter_of_the_policy() -> None:
    verdict = looked_up(ICA.ocsp(GOOD.leaf), issued=DEMANDING)
    assert verdict.codes == (Code.MUST_STAPLE,)
    assert "no response in staples is for it" in verdict.problems[0].message
    assert looked_up(ICA.ocsp(GOOD.leaf), issued=DEMANDING, policy=replace(public([NAME]), stapling=True)).accepted


def test_must_staple_is_not_met_by_what_nginx_cannot_read() -> None:
    verdict = looked_up(armoured(ICA.ocsp(DEMANDING.leaf)), issued=DEMANDING)
    assert verdict.codes == (Code.MUST_STAPLE,)
    assert "must be DER" in verdict.problems[0].message


def test_what_is_revoked_is_told_once() -> None:
    revoked = ICA.ocsp(DEMANDING.leaf, revoked=ReasonFlags.key_compromise)
    assert looked_up(revoked, issued=DEMANDING).codes == (Code.REVOKED,)


# --- beside revocation lists


def test_a_good_response_stands_for_the_list_that_does_not_cover_the_leaf() -> None:
    lists = Revocations.from_files([("crls.pem", pem_of(ROOT.crl()))])
    demanding = replace(public([NAME]), require_crls=True)
    assert looked_up(ICA.ocsp(GOOD.leaf), lists=lists, policy=demanding).problems == ()
    over = ICA.ocsp(GOOD.leaf, begin=NOW - 9 * DAY, end=NOW - DAY)
    assert looked_up(over, lists=lists, policy=demanding).codes == (Code.REVOCATION_UNKNOWN,)


def test_a_good_response_does_not_outweigh_a_list_that_names_the_leaf() -> None:
    lists = Revocations.from_files([("crls.pem", pem_of(ICA.crl(GOOD.leaf), ROOT.crl()))])
    assert looked_up(ICA.ocsp(GOOD.leaf), lists=lists).codes == (Code.REVOKED,)


def test_a_good_response_lifts_no_hold_of_a_list_that_is_over() -> None:
    old = ICA.crl(begin=NOW - 30 * DAY, end=NOW - DAY, number=9)
    hold = ICA.crl(GOOD.leaf, reason=ReasonFlags.certificate_hold, begin=NOW - 31 * DAY, number=8)
    lists = Revocations.from_files([("crls.pem", pem_of(old, hold, ROOT.crl()))])
    assert looked_up(ICA.ocsp(GOOD.leaf), lists=lists).codes == (Code.REVOKED,)


def test_a_good_response_does_not_hide_what_a_public_ca_does_against_the_rules() -> None:
    lists = Revocations.from_files([("crls.pem", pem_of(ICA.crl(number=None), ROOT.crl()))])
    assert looked_up(ICA.ocsp(GOOD.leaf), lists=lists).codes == (Code.CRL_UNUSABLE,)


# --- files


def armoured(*responses: bytes) -> bytes:
    return b"".join(
        b"-----BEGIN OCSP RESPONSE-----\n" + base64.encodebytes(one) + b"-----END OCSP RESPONSE-----\n"
        for one in responses
    )


def test_pem_is_read_too_and_several_in_a_file() -> None:
    both = armoured(ICA.ocsp(OTHER.leaf), ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise))
    assert looked_up(both.replace(b"\n", b"\r\n")).codes == (Code.REVOKED,)


ONE = ICA.ocsp(GOOD.leaf, by=RESPONDER)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        pem(ROOT.cert),
        armoured(ONE)[:-30],
        armoured(ONE) + armoured(ONE)[:200],
        armoured(ONE).replace(b"MI", b"M!", 1),
        ONE + b"\0",
        b"\0" * (1 << 20),
        ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER),
    ],
    ids=[
        "empty",
        "garbage",
        "a certificate",
        "cut off",
        "half a second one",
        "no base64",
        "long",
        "large",
        "try later",
    ],
)
def test_a_file_that_holds_no_answer_is_told(data: bytes) -> None:
    (fault,) = Responses.from_files([("staple.der", data)]).faults
    assert (fault.code, fault.severity) == (Code.REVOCATION_UNKNOWN, Severity.WARN)
    assert fault.message.startswith("staple.der holds ")
    assert fault.hint


def test_the_status_of_an_unsuccessful_response_is_reported() -> None:
    for status in set(ocsp.OCSPResponseStatus) - {ocsp.OCSPResponseStatus.SUCCESSFUL}:
        data = ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
        (fault,) = Responses.from_files([("staple.der", data)]).faults
        assert f"the status of the response is {status.name.lower().replace('_', ' ')}." in fault.message


def test_a_response_cut_off_anywhere_is_told_and_says_nothing() -> None:
    for size in range(len(ONE)):
        cut = Responses.from_files([("staple.der", ONE[:size])])
        assert (len(cut.faults), dict(cut.by_serial)) == (1, {}), size


def test_what_can_be_read_of_a_file_counts() -> None:
    cut = armoured(ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise)) + armoured(ONE)[:-40]
    assert looked_up(cut).codes == (Code.REVOKED,)
    assert len(read(cut).faults) == 1


def test_another_content_is_another_digest() -> None:
    first, second = (Evidence(responses=read(ICA.ocsp(one.leaf))).digest for one in (GOOD, OTHER))
    assert len({first, second, Evidence().digest}) == 3


BASES = [
    ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise, by=RESPONDER),
    together(ICA.ocsp(OTHER.leaf), ICA.ocsp(GOOD.leaf)),
    answer_extended(ICA.ocsp(GOOD.leaf), "1.3.6.1.5.5.7.48.1.6", critical=True),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BASES), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_octet_of_a_response_makes_it_raise(base: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(base)
    for place, value in changes:
        data[place % len(data)] = value
    verdict = looked_up(bytes(data))
    assert set(verdict.codes) <= {Code.REVOKED}
    assert set(verdict.warnings) <= {Code.REVOCATION_UNKNOWN, Code.OCSP_STALE}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([0, 1, 2]), st.integers(0), st.integers(0, 255))
def test_no_octet_of_an_authentic_response_makes_it_raise(which: int, place: int, value: int) -> None:
    base = (ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise), *BASES[1:])[which]

    def changed(tbs: list[bytes]) -> list[bytes]:
        body = bytearray(b"".join(tbs))
        body[place % len(body)] = value
        return [bytes(body)]

    verdict = looked_up(rewritten_response(base, ICA.key, changed))
    assert set(verdict.codes) <= {Code.REVOKED}
    assert set(verdict.warnings) <= {Code.REVOCATION_UNKNOWN, Code.OCSP_STALE}


def test_thousands_of_answers_are_gone_through_in_well_under_a_second() -> None:
    own = answers_of(ICA.ocsp(GOOD.leaf, revoked=ReasonFlags.key_compromise))
    filler = answers_of(ICA.ocsp(OTHER.leaf))
    many = filler * (MAX_RESPONSES // len(filler) - 10) + own
    data = rewritten_response(ICA.ocsp(GOOD.leaf), ICA.key, lambda tbs: [*tbs[:2], wrap(0x30, many)])
    assert MAX_RESPONSES - 4096 < len(data) <= MAX_RESPONSES
    too_many = rewritten_response(data, ICA.key, lambda tbs: [*tbs[:2], wrap(0x30, many + filler * 50)])
    assert "holds more than 256 KiB" in read(too_many).faults[0].message
    assert read(too_many).by_serial == {}
    (revoked, other), seconds = cost(lambda: (looked_up(data), looked_up(data, issued=OTHER)), below=1.0)
    assert revoked.codes == (Code.REVOKED,)
    assert other.problems == ()
    assert seconds < 1


@pytest.mark.parametrize(
    ("place", "codes"),
    [(MAX_SIGNERS - 1, ()), (MAX_SIGNERS, (Code.REVOCATION_UNKNOWN,)), (300, (Code.REVOCATION_UNKNOWN,))],
)
def test_of_the_certificates_beside_a_response_only_the_first_few_are_tried(
    place: int, codes: tuple[Code, ...]
) -> None:
    sent = [OTHER.leaf] * place + [RESPONDER.leaf]
    data = ICA.ocsp(GOOD.leaf, by=RESPONDER, tweak=lambda builder: with_certificates(builder, sent))
    assert looked_up(data).warnings == codes


def with_certificates(builder: ocsp.OCSPResponseBuilder, sent: list[x509.Certificate]) -> ocsp.OCSPResponseBuilder:
    builder._certs = sent
    return builder


# --- OpenSSL says the same


REAL_ROOT = CA.root(at=datetime.now(UTC).replace(microsecond=0))
REAL = REAL_ROOT.intermediate()
REAL_LEAF = REAL.issue(NAME)
REAL_RESPONDER = REAL.responder()
REAL_NOW = REAL.at
REAL_ANCHORS = Anchors.from_pem(pem(REAL_ROOT.cert), "roots.pem")
SAMPLES: dict[str, tuple[Callable[[], bytes], list[str], tuple[Code, ...]]] = {
    "good, of the issuer": (lambda: REAL.ocsp(REAL_LEAF.leaf), ["Response verify OK", "leaf.pem: good"], ()),
    "good, of a responder": (
        lambda: REAL.ocsp(REAL_LEAF.leaf, by=REAL_RESPONDER),
        ["Response verify OK", "leaf.pem: good"],
        (),
    ),
    "revoked": (
        lambda: REAL.ocsp(REAL_LEAF.leaf, revoked=ReasonFlags.superseded),
        ["Response verify OK", "leaf.pem: revoked", "Reason: superseded"],
        (Code.REVOKED,),
    ),
    "unknown": (
        lambda: REAL.ocsp(REAL_LEAF.leaf, status=STATUS.UNKNOWN),
        ["Response verify OK", "leaf.pem: unknown"],
        (Code.REVOCATION_UNKNOWN,),
    ),
    "over": (
        lambda: REAL.ocsp(REAL_LEAF.leaf, begin=REAL_NOW - 9 * DAY, end=REAL_NOW - DAY),
        ["Response verify OK", "status expired"],
        (Code.OCSP_STALE,),
    ),
    "not begun": (
        lambda: REAL.ocsp(REAL_LEAF.leaf, begin=REAL_NOW + DAY),
        ["Response verify OK", "status not yet valid"],
        (Code.REVOCATION_UNKNOWN,),
    ),
    "of another certificate": (
        lambda: REAL.ocsp(REAL.issue(NAME).leaf),
        ["No Status found"],
        (Code.REVOCATION_UNKNOWN,),
    ),
    "forged": (
        lambda: REAL.ocsp(REAL_LEAF.leaf, key=new_key()),
        ["Response Verify Failure"],
        (Code.REVOCATION_UNKNOWN,),
    ),
    "of a responder whom the root appointed": (
        lambda: REAL.ocsp(REAL_LEAF.leaf, by=REAL_ROOT.responder()),
        ["Response Verify Failure"],
        (Code.REVOCATION_UNKNOWN,),
    ),
    "of a leaf": (
        lambda: REAL.ocsp(REAL_LEAF.leaf, by=REAL.issue(NAME)),
        ["Response Verify Failure"],
        (Code.REVOCATION_UNKNOWN,),
    ),
}


@pytest.mark.parametrize("what", SAMPLES)
def test_openssl_says_the_same(what: str, tmp_path: Path) -> None:
    make, says, codes = SAMPLES[what]
    (tmp_path / "root.pem").write_bytes(pem(REAL_ROOT.cert))
    data = make()
    said = openssl(tmp_path, data, REAL_LEAF)
    assert [words for words in says if words not in said] == [], said
    verdict = looked_up(data, issued=REAL_LEAF, now=REAL_NOW, anchors=REAL_ANCHORS)
    assert tuple(p.code for p in verdict.problems) == codes
