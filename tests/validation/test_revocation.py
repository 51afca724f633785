"""Revocation lists: what is revoked is refused, what is not known is told, and OpenSSL says the same where it can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ReasonFlags
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto

from rotator.core.model import Candidate, Policy, SourceFile
from rotator.core.problems import Code, Severity
from rotator.validation.evidence import Evidence
from rotator.validation.validate import Anchors, Verdict, private_ca, public, validate_chains, validate_files
from rotator.x509 import der as tlv
from rotator.x509.crl import MAX_CRL, Revocations
from tests.support.authority import CA, NOW, Issued, der, der_pem, entry, new_key, pem, rewritten, wrap
from tests.support.cost import cost
from tests.support.extensions import instead, same_ca, usage, without
from tests.support.judging import judge
from tests.support.revocation_lists import List, ListBuilder, extended, other_issuer, pem_of, points, scoped

NAME = "signal.example.cn"
DAY = timedelta(days=1)
ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)
OTHER = ICA.issue(NAME)
OF_ROOT = ROOT.crl()
ANCHORS = Anchors.from_pem(pem(ROOT.cert), "roots.pem")


def read(*lists: List) -> Revocations:
    return Revocations.from_files([("crls.pem", pem_of(*lists))])


def looked_up(*lists: List, issued: Issued = GOOD, policy: Policy | None = None, anchors: Anchors = ANCHORS) -> Verdict:
    """The verdict on a pair beside these lists."""
    return judge(issued, policy=policy or public([NAME]), anchors=anchors.beside(Evidence(read(*lists))))


def openssl(issued: Issued, *lists: List, root: CA = ROOT) -> str:
    """What OpenSSL says of a leaf with CRL checks for it: empty if it accepts."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(root.cert))
    for one in lists:
        store.add_crl(one)
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.X509_STRICT)
    store.set_time(NOW.replace(tzinfo=None))
    chain = [crypto.X509.from_cryptography(c) for c in issued.intermediates]
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(issued.leaf), chain).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return ""


# --- what is revoked


def test_a_revoked_leaf_is_refused_with_reason_and_date() -> None:
    verdict = looked_up(ICA.crl(GOOD.leaf, number=77), OF_ROOT)
    assert verdict.codes == (Code.REVOKED,)
    (problem,) = (p for p in verdict.problems if p.code == Code.REVOKED)
    assert "revoked on 2026-11-22 07:00Z (keyCompromise)" in problem.message
    assert "number 77" in problem.message
    assert "crls.pem" in problem.message
    assert openssl(GOOD, ICA.crl(GOOD.leaf)) == "certificate revoked"


def test_a_leaf_that_no_list_names_is_accepted_without_a_word() -> None:
    assert looked_up(ICA.crl(OTHER.leaf), OF_ROOT).problems == ()
    assert openssl(GOOD, ICA.crl(OTHER.leaf)) == ""


def test_a_revoked_intermediate_is_refused() -> None:
    verdict = looked_up(ICA.crl(), ROOT.crl(ICA.cert))
    assert verdict.codes == (Code.REVOKED,)
    assert "CN=Test Intermediate was revoked" in verdict.problems[0].message


@pytest.mark.parametrize(
    "reason", [None, ReasonFlags.unspecified, ReasonFlags.certificate_hold, ReasonFlags.superseded]
)
def test_every_reason_refuses(reason: ReasonFlags | None) -> None:
    assert looked_up(ICA.crl(GOOD.leaf, reason=reason), OF_ROOT).codes == (Code.REVOKED,)


def test_an_entry_that_takes_a_certificate_off_the_list_does_not_refuse() -> None:
    assert looked_up(ICA.crl(GOOD.leaf, reason=ReasonFlags.remove_from_crl), OF_ROOT).problems == ()


def test_a_hold_lasts_until_a_newer_list_has_lifted_it() -> None:
    hold = ICA.crl(GOOD.leaf, reason=ReasonFlags.certificate_hold, begin=NOW - 2 * DAY, number=5)
    older, newer = ICA.crl(begin=NOW - 3 * DAY, number=4), ICA.crl(begin=NOW - DAY, number=6)
    for lists in ((hold,), (hold, older), (older, hold)):
        assert looked_up(*lists, OF_ROOT).codes == (Code.REVOKED,)
    for lists in ((hold, newer), (newer, hold)):
        assert looked_up(*lists, OF_ROOT).problems == ()
    same = ICA.crl(begin=NOW - 2 * DAY, number=5)
    for lists in ((hold, same), (same, hold)):
        assert looked_up(*lists, OF_ROOT).codes == (Code.REVOKED,)
    for_ever = ICA.crl(GOOD.leaf, begin=NOW - 2 * DAY, number=5)
    assert looked_up(for_ever, newer, OF_ROOT).codes == (Code.REVOKED,)


DELTA = extended(x509.DeltaCRLIndicator(5), critical=True)


def test_what_a_delta_names_is_revoked() -> None:
    delta = ICA.crl(GOOD.leaf, number=6, tweak=DELTA)
    assert looked_up(ICA.crl(number=5), delta, OF_ROOT).codes == (Code.REVOKED,)
    assert looked_up(delta, OF_ROOT).codes == (Code.REVOKED,)
    assert looked_up(ICA.crl(number=5), ICA.crl(OTHER.leaf, number=6, tweak=DELTA), OF_ROOT).problems == ()


def test_a_newer_delta_may_lift_a_hold() -> None:
    hold = ICA.crl(GOOD.leaf, reason=ReasonFlags.certificate_hold, begin=NOW - 2 * DAY, number=5)
    for age, codes in ((1, ()), (3, (Code.REVOKED,))):
        lifts = {"reason": ReasonFlags.remove_from_crl, "begin": NOW - age * DAY, "number": 8 - age, "tweak": DELTA}
        delta = ICA.crl(GOOD.leaf, **lifts)  # type: ignore[arg-type]  # spelt out above
        for lists in ((hold, delta), (delta, hold)):
            assert looked_up(*lists, OF_ROOT).codes == codes


def test_a_negative_number_is_looked_up_without_harm() -> None:
    data = rewritten(GOOD.leaf, ICA.key, lambda tbs: [tbs[0], b"\2\1\x80", *tbs[2:]])
    candidate = Candidate((SourceFile("chain.pem", der_pem(data) + pem(ICA.cert)),))
    beside = ANCHORS.beside(Evidence(read(ICA.crl(OTHER.leaf), OF_ROOT)))
    assert validate_files(candidate, public([NAME]), beside, NOW, need_key=False).codes == (Code.BAD_SERIAL,)


def test_the_same_number_of_another_ca_is_another_certificate() -> None:
    stranger = CA.root("Stranger").crl(entry(GOOD.leaf.serial_number))
    assert looked_up(ICA.crl(), stranger, OF_ROOT).problems == ()


def test_what_a_list_that_is_over_names_stays_revoked() -> None:
    old = ICA.crl(GOOD.leaf, begin=NOW - 30 * DAY, end=NOW - DAY)
    assert looked_up(old, OF_ROOT).codes == (Code.REVOKED,)


@pytest.mark.parametrize("gone", [0, 1])
def test_a_path_around_a_revoked_intermediate_is_served(gone: int) -> None:
    second = CA.root("Second Root")
    anchors = Anchors.from_pem(pem(ROOT.cert, second.cert), "roots.pem")

    def served(*lists: List) -> Verdict:
        return looked_up(ICA.crl(), *lists, issued=issued, anchors=anchors)

    while True:  # of two paths as good as each other, the fingerprint decides which is taken: it shall be the one to go
        twins = ((ROOT, ICA.cert), (second, same_ca(ICA, second).cert))
        issued = replace(GOOD, intermediates=tuple(cert for _, cert in twins))
        if served(ROOT.crl(), second.crl()).pairs[0].chain[1:] == der(twins[gone][1]):
            break
    verdict = served(*(root.crl(*[cert] * (number == gone)) for number, (root, cert) in enumerate(twins)))
    assert verdict.accepted
    assert verdict.pairs[0].chain[1:] == der(twins[1 - gone][1])
    assert served(*(root.crl(cert) for root, cert in twins)).codes == (Code.REVOKED,)


def test_no_path_that_is_refused_itself_is_taken_around_a_revoked_intermediate() -> None:
    second = CA.root("Second Root")
    old = same_ca(ICA, second, not_after=NOW - DAY)
    issued = replace(GOOD, intermediates=(ICA.cert, old.cert))
    anchors = Anchors.from_pem(pem(ROOT.cert, second.cert), "roots.pem")
    verdict = looked_up(ICA.crl(), ROOT.crl(ICA.cert), second.crl(), issued=issued, anchors=anchors)
    assert verdict.codes == (Code.REVOKED,)
    assert verdict.pairs[0].chain[1:] == der(ICA.cert)


def test_one_of_two_lists_is_enough_to_revoke() -> None:
    assert looked_up(ICA.crl(number=1), ICA.crl(GOOD.leaf, number=2), OF_ROOT).codes == (Code.REVOKED,)


def test_what_is_live_is_looked_up_too() -> None:
    anchors = ANCHORS.beside(Evidence(read(ICA.crl(GOOD.leaf), OF_ROOT)))
    problems = validate_chains([GOOD.chain_der], public([NAME]), anchors, NOW)
    assert [(p.code, p.severity) for p in problems] == [(Code.REVOKED, Severity.REJECT)]


# --- what is not known: it warns, and refuses where an answer is demanded

SHORT = [NOW - 30 * DAY, NOW - timedelta(seconds=1)]
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
UNKNOWNS: dict[str, tuple[List, Code]] = {
    "of another CA": (CA.root("Stranger").crl(), Code.REVOCATION_UNKNOWN),
    "that is over": (ICA.crl(begin=SHORT[0], end=SHORT[1]), Code.CRL_STALE),
    "that has not begun": (ICA.crl(begin=NOW + DAY), Code.CRL_UNUSABLE),
    "signed with another key": (ICA.crl(GOOD.leaf, key=new_key()), Code.CRL_UNUSABLE),
    "that is a delta": (ICA.crl(tweak=extended(x509.DeltaCRLIndicator(1), critical=True)), Code.CRL_UNUSABLE),
    "with something critical that is unknown": (
        ICA.crl(GOOD.leaf, tweak=extended(UNKNOWN, critical=True)),
        Code.CRL_UNUSABLE,
    ),
    "with an entry that has something critical and unknown": (
        ICA.crl(entry(7, NOW, None, (UNKNOWN, True))),
        Code.CRL_UNUSABLE,
    ),
    "of authorities only": (ICA.crl(tweak=scoped(only_contains_ca_certs=True)), Code.REVOCATION_UNKNOWN),
    "of attribute certificates only": (
        ICA.crl(tweak=scoped(only_contains_attribute_certs=True)),
        Code.REVOCATION_UNKNOWN,
    ),
    "of some reasons only": (
        ICA.crl(tweak=scoped(only_some_reasons=frozenset({ReasonFlags.key_compromise}))),
        Code.REVOCATION_UNKNOWN,
    ),
    "of another distribution point": (
        ICA.crl(tweak=scoped(full_name=[x509.UniformResourceIdentifier("http://crl.example/9.crl")])),
        Code.REVOCATION_UNKNOWN,
    ),
}


@pytest.mark.parametrize("what", UNKNOWNS)
def test_a_list_that_gives_no_answer_warns(what: str) -> None:
    one, code = UNKNOWNS[what]
    verdict = looked_up(one, OF_ROOT)
    assert verdict.accepted
    assert verdict.warnings == (code,)
    assert all(p.hint for p in verdict.problems)


@pytest.mark.parametrize("what", UNKNOWNS)
def test_where_an_answer_is_demanded_a_list_that_gives_none_refuses(what: str) -> None:
    one, code = UNKNOWNS[what]
    assert looked_up(one, OF_ROOT, policy=replace(public([NAME]), require_crls=True)).codes == (code,)


@pytest.mark.parametrize("what", UNKNOWNS)
def test_openssl_takes_none_of_these_lists_for_an_answer_either(what: str) -> None:
    assert openssl(GOOD, UNKNOWNS[what][0]) not in ("", "certificate revoked")


def test_where_an_answer_is_demanded_and_no_list_is_named_nothing_is_accepted() -> None:
    demanding = replace(public([NAME]), require_crls=True)
    issued = ICA.issue(NAME, tweak=instead(points("http://crl.example/7.crl"), critical=False))
    verdict = judge(issued, policy=demanding, anchors=ANCHORS)
    assert verdict.codes == (Code.REVOCATION_UNKNOWN,)
    assert [p.message.partition(" was to be")[0] for p in verdict.problems] == [f"CN={NAME}", "CN=Test Intermediate"]
    assert "http://crl.example/7.crl" in verdict.problems[0].hint


def test_a_good_list_beside_a_bad_one_is_an_answer() -> None:
    assert looked_up(ICA.crl(begin=SHORT[0], end=SHORT[1]), ICA.crl(), OF_ROOT).problems == ()


def test_lists_of_all_reasons_together_are_an_answer() -> None:
    some = frozenset({ReasonFlags.key_compromise, ReasonFlags.ca_compromise})
    rest = frozenset(ReasonFlags) - some - {ReasonFlags.unspecified, ReasonFlags.remove_from_crl}
    parts = [ICA.crl(tweak=scoped(only_some_reasons=one)) for one in (some, rest)]
    assert looked_up(*parts, OF_ROOT).problems == ()


def test_an_intermediate_without_a_list_is_told_by_its_name() -> None:
    verdict = looked_up(ICA.crl())
    assert verdict.warnings == (Code.REVOCATION_UNKNOWN,)
    assert verdict.problems[0].message.startswith("CN=Test Intermediate is not covered")


def test_a_list_is_good_up_to_its_last_second() -> None:
    assert looked_up(ICA.crl(end=NOW), OF_ROOT).problems == ()
    assert looked_up(ICA.crl(end=NOW - timedelta(seconds=1)), OF_ROOT).warnings == (Code.CRL_STALE,)


def test_the_hint_names_the_address_of_the_list() -> None:
    issued = ICA.issue(NAME, tweak=instead(points("http://crl.example/7.crl"), critical=False))
    verdict = looked_up(OF_ROOT, issued=issued)
    assert "http://crl.example/7.crl" in verdict.problems[0].hint


# --- what the CA itself does against the rules

SIGNS_NO_LISTS = ROOT.intermediate("No Lists", tweak=instead(usage(key_cert_sign=True)))


def no_number(ca: CA, *revoked: x509.Certificate) -> List:
    return ca.crl(*revoked, number=None)


def critical_number(ca: CA, *revoked: x509.Certificate) -> List:
    return ca.crl(*revoked, number=None, tweak=extended(x509.CRLNumber(1), critical=True))


@pytest.mark.parametrize("make", [no_number, critical_number])
def test_a_public_ca_whose_list_breaks_the_rules_is_refused(make: Callable[..., List]) -> None:
    assert looked_up(make(ICA), OF_ROOT).codes == (Code.CRL_UNUSABLE,)
    assert looked_up(make(ICA, GOOD.leaf), OF_ROOT).codes == (Code.REVOKED,)


def test_a_private_ca_may_leave_out_the_number_as_its_tools_do() -> None:
    own = private_ca([NAME])
    assert looked_up(no_number(ICA), OF_ROOT, policy=own).problems == ()
    assert looked_up(no_number(ICA, GOOD.leaf), OF_ROOT, policy=own).codes == (Code.REVOKED,)
    assert looked_up(critical_number(ICA), OF_ROOT, policy=own).warnings == (Code.CRL_UNUSABLE,)


def test_a_ca_that_may_not_sign_lists_is_refused() -> None:
    issued = SIGNS_NO_LISTS.issue(NAME)
    verdict = looked_up(SIGNS_NO_LISTS.crl(), OF_ROOT, issued=issued)
    assert verdict.codes == (Code.CRL_UNUSABLE,)
    assert "cRLSign" in verdict.problems[0].message
    assert openssl(issued, SIGNS_NO_LISTS.crl()) != ""


def test_a_root_without_key_usage_may_sign_lists() -> None:
    bare = CA.root("No Usage", tweak=without(x509.KeyUsage))
    issued = bare.issue(NAME)
    anchors = Anchors.from_pem(pem(bare.cert), "roots.pem")
    verdict = looked_up(bare.crl(), issued=issued, anchors=anchors)
    assert verdict.accepted
    assert verdict.warnings == (Code.BAD_KEY_USAGE,), "of the root itself, for the strictest clients"
    assert looked_up(bare.crl(issued.leaf), issued=issued, anchors=anchors).codes == (Code.REVOKED,)


# --- parts of a list, and lists for others


def test_a_list_in_parts_is_asked_for_the_part_of_the_certificate() -> None:
    issued = ICA.issue(NAME, tweak=instead(points("http://crl.example/7.crl"), critical=False))
    part = {n: scoped(full_name=[x509.UniformResourceIdentifier(f"http://crl.example/{n}.crl")]) for n in (6, 7)}
    sixth = ICA.crl(entry(issued.leaf.serial_number), tweak=part[6])
    assert looked_up(sixth, ICA.crl(tweak=part[7]), OF_ROOT, issued=issued).problems == ()
    assert looked_up(sixth, OF_ROOT, issued=issued).warnings == (Code.REVOCATION_UNKNOWN,)
    seventh = ICA.crl(issued.leaf, tweak=part[7])
    assert looked_up(seventh, OF_ROOT, issued=issued).codes == (Code.REVOKED,)
    assert openssl(issued, seventh) == "certificate revoked"
    assert openssl(issued, sixth) not in ("", "certificate revoked")


def test_a_list_of_end_entities_says_nothing_of_authorities() -> None:
    users = scoped(only_contains_user_certs=True)
    assert looked_up(ICA.crl(GOOD.leaf, tweak=users), OF_ROOT).codes == (Code.REVOKED,)
    assert looked_up(ICA.crl(), ROOT.crl(ICA.cert, tweak=users)).warnings == (Code.REVOCATION_UNKNOWN,)


@pytest.mark.parametrize("ca", [ICA, ROOT], ids=["of the certificate's issuer", "of another authority"])
def test_an_indirect_list_is_reported_as_unusable_and_is_no_answer(ca: CA) -> None:
    """The Baseline Requirements forbid it (7.2.2.1), and its entries may be of certificates of any issuer."""
    issued = ICA.issue(NAME, tweak=instead(points(issuer=ca.cert.subject), critical=False))
    indirect = ca.crl(
        entry(issued.leaf.serial_number, NOW - DAY, None, other_issuer(ICA)), tweak=scoped(indirect_crl=True)
    )
    lists = read(indirect, OF_ROOT)
    (fault,) = lists.faults
    assert fault.code is Code.CRL_UNUSABLE
    assert fault.message.startswith("crls.pem holds an indirect revocation list, which rotator does not use")
    assert "the certificate's own issuer" in fault.hint
    assert looked_up(indirect, OF_ROOT, issued=issued).warnings == (Code.REVOCATION_UNKNOWN,)
    demanding = replace(public([NAME]), require_crls=True)
    assert looked_up(indirect, OF_ROOT, issued=issued, policy=demanding).codes == (Code.REVOCATION_UNKNOWN,)
    assert openssl(issued, indirect) not in ("", "certificate revoked")


def test_a_list_that_speaks_of_certificates_of_others_cannot_be_used() -> None:
    foreign = ICA.crl(entry(5, NOW, None, other_issuer(ROOT)))
    assert looked_up(foreign, OF_ROOT).warnings == (Code.CRL_UNUSABLE,)


def test_a_root_of_the_same_name_may_sign_the_list_with_its_new_key() -> None:
    renewed = CA.root("Test Root")
    anchors = Anchors.from_pem(pem(ROOT.cert, renewed.cert), "roots.pem")
    assert looked_up(ICA.crl(), renewed.crl(), anchors=anchors).problems == ()
    assert looked_up(ICA.crl(), renewed.crl()).warnings == (Code.CRL_UNUSABLE,)


def test_a_cross_signed_intermediate_has_one_list() -> None:
    twin = same_ca(ICA, ROOT)
    assert looked_up(twin.crl(GOOD.leaf), OF_ROOT).codes == (Code.REVOKED,)


# --- files


def test_der_and_pem_and_several_in_a_file_are_read() -> None:
    both = Revocations.from_files(
        [
            ("a.crl", ICA.crl().public_bytes(serialization.Encoding.DER)),
            ("b.pem", b"# of the root\r\n" + pem_of(OF_ROOT, ICA.crl()).replace(b"\n", b"\r\n")),
        ]
    )
    assert [one.file for one in both.lists] == ["a.crl", "b.pem", "b.pem"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        pem(ROOT.cert),
        pem_of(OF_ROOT)[:-30],
        pem_of(OF_ROOT) + pem_of(OF_ROOT)[:200],
        pem_of(OF_ROOT).replace(b"MI", b"M!", 1),
        OF_ROOT.public_bytes(serialization.Encoding.DER)[:-1],
        OF_ROOT.public_bytes(serialization.Encoding.DER) + b"\0",
        b"\0" * (MAX_CRL + 1),
    ],
    ids=["empty", "garbage", "a certificate", "cut off", "half a second one", "no base64", "short", "long", "large"],
)
def test_a_file_that_cannot_be_read_whole_is_told(data: bytes) -> None:
    (fault,) = Revocations.from_files([("crls.pem", data)]).faults
    assert fault.code == Code.CRL_UNUSABLE
    assert fault.message.startswith("crls.pem holds ")


def test_what_can_be_read_of_a_file_counts() -> None:
    cut = Revocations.from_files([("crls.pem", pem_of(ICA.crl(GOOD.leaf)) + pem_of(OF_ROOT)[:-40])])
    assert len(cut.faults) == 1
    assert judge(GOOD, anchors=ANCHORS.beside(Evidence(cut))).codes == (Code.REVOKED,)


def test_another_content_is_another_digest() -> None:
    assert read(OF_ROOT).digest != read(ROOT.crl(number=2)).digest


BASES = [
    ICA.crl(GOOD.leaf, OTHER.leaf),
    ICA.crl(entry(5, NOW, ReasonFlags.superseded), tweak=scoped(only_contains_user_certs=True)),
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(BASES), st.integers(0), st.integers(0, 255))
def test_no_octet_of_an_authentic_list_makes_it_raise(base: List, place: int, value: int) -> None:
    signed = base.tbs_certlist_bytes
    tail = base.public_bytes(serialization.Encoding.DER).partition(signed)[2]
    data = bytearray(signed)
    data[place % len(data)] = value
    algorithm = tail[: 2 + tail[1]]
    assert isinstance(ICA.key, ec.EllipticCurvePrivateKey)
    signature = wrap(0x03, b"\0" + ICA.key.sign(bytes(data), ec.ECDSA(hashes.SHA256())))
    again = Revocations.from_files([("x", wrap(0x30, bytes(data) + algorithm + signature))])
    verdict = judge(GOOD, anchors=ANCHORS.beside(Evidence(again)))
    assert set(verdict.codes) <= {Code.REVOKED, Code.CRL_UNUSABLE}


def test_a_certificate_with_a_negative_number_is_refused_for_that_alone() -> None:
    """The library is not to be asked for such a number, which stands in the entry of another as well."""
    data = rewritten(GOOD.leaf, ICA.key, lambda parts: [parts[0], b"\x02\x01\xfb", *parts[2:]])
    odd = wrap(0x30, b"\x0a\x01\x04")
    lists = read(ICA.crl(entry(7, NOW, None, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), odd), False))))
    for policy in (public([NAME]), private_ca([NAME])):
        problems = validate_chains([(data, *der(ICA.cert))], policy, ANCHORS.beside(Evidence(lists)), NOW)
        assert {p.code for p in problems if p.severity is Severity.REJECT} == {Code.BAD_SERIAL}


def test_a_number_within_another_entry_is_no_entry() -> None:
    number = der_of(GOOD.leaf.serial_number)
    inside = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), number)
    assert looked_up(ICA.crl(entry(7, NOW, None, (inside, False))), OF_ROOT).problems == ()


def der_of(number: int) -> bytes:
    return wrap(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def test_an_issuer_with_an_empty_name_is_read_without_a_warning_of_the_library() -> None:
    listed = ICA.crl(GOOD.leaf)
    data = listed.public_bytes(serialization.Encoding.DER)
    old = ICA.cert.subject.public_bytes()
    empty = wrap(0x30, wrap(0x31, wrap(0x30, b"\x06\x03\x55\x04\x03" + wrap(0x0C, b""))))
    body = tlv.whole(data, tlv.children(data, tlv.element(data, 0, len(data)))[0])
    inner = b"".join(tlv.whole(body, one) for one in tlv.children(body, tlv.element(body, 0, len(body))))
    rest = data[data.index(body) + len(body) :]
    changed = wrap(0x30, wrap(0x30, inner.replace(old, empty, 1)) + rest)
    assert [one.issuer for one in Revocations.from_files([("x", changed)]).lists] == ["CN="]


@pytest.mark.parametrize("critical", [False, True])
def test_extensions_of_entries_that_are_understood_may_be_critical(*, critical: bool) -> None:
    known = ((x509.CRLReason(ReasonFlags.superseded), critical), (x509.InvalidityDate(NOW), critical))
    assert looked_up(ICA.crl(entry(7, NOW, None, *known)), OF_ROOT).problems == ()
    gone = ICA.crl(entry(GOOD.leaf.serial_number, NOW, None, *known))
    assert looked_up(gone, OF_ROOT).codes == (Code.REVOKED,)
    unknown = looked_up(ICA.crl(entry(7, NOW, None, *known, (UNKNOWN, True))), OF_ROOT)
    assert unknown.warnings == (Code.CRL_UNUSABLE,)
    assert "1.2.3.4" in unknown.problems[0].message


def test_what_looks_like_a_critical_extension_in_an_entry_and_is_none_changes_nothing() -> None:
    noise = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x04\x05\0\x01\x01\xff\x04")
    assert looked_up(ICA.crl(entry(7, NOW, None, (noise, False))), OF_ROOT).problems == ()


# --- time


def test_a_list_of_a_hundred_thousand_is_looked_up_in_well_under_a_second() -> None:
    entries = [entry((1 << 64) + number, NOW - DAY, ReasonFlags.superseded) for number in range(100_000)]

    def many(builder: ListBuilder) -> ListBuilder:
        builder._revoked_certificates = entries  # each `add_revoked_certificate` copies all those before
        return builder

    large = pem_of(ICA.crl(tweak=many))

    def looked_up_first() -> Anchors:
        anchors = ANCHORS.beside(Evidence(Revocations.from_files([("large.crl", large)])))
        assert judge(GOOD, anchors=anchors).accepted
        return anchors

    anchors, first = cost(looked_up_first, below=1.0)
    verdict, again = cost(lambda: judge(GOOD, anchors=anchors), below=0.2)
    assert verdict.accepted
    assert first < 1
    assert again < 0.2
