"""The root stores of browsers: what they distrust is refused although the host's own roots have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rotator.core.errors import RotatorError
from rotator.core.problems import Code, Problem, Severity
from rotator.validation.evidence import Evidence
from rotator.validation.root_store import MAX_AGE, RootStores
from rotator.validation.root_store_formats import MAX_NESTING, MAX_ROOT_STORE, read_store
from rotator.validation.validate import Anchors, Verdict, private_ca, public
from tests.support.authority import CA, NOW, Issued, pem
from tests.support.extensions import same_ca
from tests.support.judging import GOOD, ICA, NAME, ROOT, judge
from tests.support.root_stores import COLUMNS, Listed, certdata, chrome, fingerprint, report
from tests.support.transparency import Keeper, logged

DAY = timedelta(days=1)
BEFORE = NOW - 2 * DAY
"""A date of distrust before the leaf was issued."""
AHEAD = NOW + 2 * DAY
OTHER = CA.root("Another Root")


def anchored(*files: bytes, roots: bytes = pem(ROOT.cert), written: datetime = NOW) -> Anchors:
    stores = RootStores(tuple(read_store(data, f"store-{number}", written) for number, data in enumerate(files)))
    return Anchors.from_pem(roots, "roots.pem").beside(Evidence(root_stores=stores))


def judged(*files: bytes, issued: Issued = GOOD, **more: object) -> Verdict:
    return judge(issued, anchors=anchored(*files), **more)  # type: ignore[arg-type]  # the keywords of `judge`


def refusals(verdict: Verdict) -> list[Problem]:
    return [p for p in verdict.problems if p.severity is Severity.REJECT]


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


FORMS: dict[str, Callable[[Listed], bytes]] = {
    "certdata": lambda one: certdata(one, Listed(OTHER)),
    "certdata without hashes": lambda one: certdata(one, Listed(OTHER), by_hash=False),
    "certdata with the date in the trust object": lambda one: certdata(replace(one, on_trust=True), Listed(OTHER)),
    "report": lambda one: report(one, Listed(OTHER)),
    "report with few columns": lambda one: report(one, Listed(OTHER), columns=COLUMNS[2:5]),
    "chrome": lambda one: chrome(
        (one.ca, [f"sct_not_after_sec: {seconds(one.end)}"] if one.end else []),
        (OTHER, []),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_leaf_issued_after_the_date_of_distrust_is_refused(form: str) -> None:
    verdict = judged(FORMS[form](Listed(ROOT, end=BEFORE)))
    assert verdict.codes == (Code.DISTRUSTED_ROOT,)
    client = "Chrome" if form == "chrome" else "Firefox"
    assert client in verdict.problems[0].message
    assert "store-0" in verdict.problems[0].message


@pytest.mark.parametrize("form", FORMS)
def test_a_leaf_issued_before_the_date_is_accepted_with_a_word_about_its_renewal(form: str) -> None:
    verdict = judged(FORMS[form](Listed(ROOT, end=AHEAD)))
    assert (verdict.codes, verdict.warnings) == ((), (Code.DISTRUST_AHEAD,))


@pytest.mark.parametrize("form", FORMS)
def test_a_root_without_such_a_date_is_accepted_without_a_word(form: str) -> None:
    verdict = judged(FORMS[form](Listed(ROOT)))
    assert verdict.problems == ()


@pytest.mark.parametrize("make", [certdata, report])
def test_a_root_that_is_not_trusted_for_servers_is_distrusted(make: Callable[..., bytes]) -> None:
    verdict = judged(make(Listed(ROOT, server=False), Listed(OTHER)))
    assert verdict.codes == (Code.DISTRUSTED_ROOT,)
    assert "not trusted for TLS servers by Firefox" in verdict.problems[0].message


@pytest.mark.parametrize("moved", [timedelta(0), timedelta(seconds=-1)])
def test_the_second_of_the_date_still_counts(moved: timedelta) -> None:
    begin = NOW - timedelta(hours=1)
    verdict = judged(certdata(Listed(ROOT, end=begin + moved)))
    assert (verdict.codes == ()) is (moved == timedelta(0))


def test_the_whole_day_of_the_report_still_counts() -> None:
    issued = ICA.issue(NAME, not_before=datetime(2026, 11, 21, 23, 59, 59, tzinfo=UTC))
    assert judged(report(Listed(ROOT, end=NOW - DAY)), issued=issued).codes == ()
    issued = ICA.issue(NAME, not_before=datetime(2026, 11, 22, tzinfo=UTC))
    assert judged(report(Listed(ROOT, end=NOW - DAY)), issued=issued).codes == (Code.DISTRUSTED_ROOT,)


@pytest.mark.parametrize("form", ["certdata", "report", "chrome"])
def test_the_policy_for_a_private_ca_asks_no_root_store(form: str) -> None:
    assert judged(FORMS[form](Listed(ROOT, end=BEFORE)), policy=private_ca([NAME])).problems == ()


def test_chrome_goes_by_the_earliest_sct_and_firefox_by_both() -> None:
    early, late = Keeper("early"), Keeper("late", "Two")
    backdated = logged(
        lambda body, ca: early.sct(body, ca, at=NOW - 5 * DAY),
        lambda body, ca: late.sct(body, ca, at=NOW - timedelta(hours=1)),
        by=ICA,
    )
    limit = NOW - 3 * DAY
    assert judged(chrome((ROOT, [f"sct_not_after_sec: {seconds(limit)}"])), issued=backdated).codes == ()
    assert judged(certdata(Listed(ROOT, end=limit)), issued=backdated).codes == (Code.DISTRUSTED_ROOT,)
    postlogged = logged(lambda body, ca: early.sct(body, ca, at=NOW - timedelta(minutes=1)), by=ICA)
    limit = NOW - timedelta(minutes=30)
    assert judged(certdata(Listed(ROOT, end=limit)), issued=postlogged).codes == (Code.DISTRUSTED_ROOT,)


PAST, FUTURE = seconds(NOW - 9 * DAY), seconds(NOW + 9 * DAY)
SETS: dict[str, tuple[list[str], bool]] = {
    "one of two that holds": ([f"sct_not_after_sec: {PAST}", f"sct_not_after_sec: {FUTURE}"], True),
    "none of two that holds": ([f"sct_not_after_sec: {PAST}", f"sct_all_after_sec: {FUTURE}"], False),
    "all SCTs later": ([f"sct_all_after_sec: {PAST}"], True),
    "an old Chrome only": (['max_version_exclusive: "139"'], False),
    "a new Chrome": (['min_version: "139"'], True),
    "distrusted since a version": (
        [f'sct_not_after_sec: {PAST}\n min_version: "139"', 'max_version_exclusive: "139"'],
        False,
    ),
    "both bounds in one": ([f"sct_not_after_sec: {FUTURE} sct_all_after_sec: {PAST}"], True),
    "issued too late": ([f"validity_starts_not_after_sec: {PAST}"], False),
    "issued too early": ([f"validity_starts_after_sec: {FUTURE}"], False),
    "issued late enough": ([f"validity_starts_after_sec: {PAST}"], True),
    "its own domain": ([f'permitted_dns_names: "{NAME}"'], True),
    "a domain above": (['permitted_dns_names: ["test", "example.cn"]'], True),
    "another domain": (['permitted_dns_names: "ample.cn"'], False),
    "something else": ([f"index_not_after: {PAST}"], True),
}


@pytest.mark.parametrize("what", SETS)
def test_of_chromes_constraints_one_set_has_to_hold_as_a_whole(what: str) -> None:
    sets, accepted = SETS[what]
    assert (judged(chrome((ROOT, sets))).codes == ()) is accepted


def test_mozillas_constraints_on_names_hold() -> None:
    assert judged(report(Listed(ROOT, names=(".cn",)))).codes == ()
    assert judged(report(Listed(ROOT, names=(".tr", ".org")))).codes == (Code.DISTRUSTED_ROOT,)


def test_an_additional_certificate_is_a_root_only_if_it_is_marked() -> None:
    own = fingerprint(ROOT.cert)
    for mark, listed in (("true", True), ("false", False)):
        more = f'additional_certs {{ sha256_hex: "{own}" tls_trust_anchor: {mark} }}'
        verdict = judged(chrome((OTHER, [])) + more.encode())
        assert (Code.LOCAL_ROOT not in verdict.warnings) is listed


def cross_signed() -> tuple[Issued, CA]:
    """A leaf whose intermediate has two issuers, with both certificates of it."""
    second = CA.root("Second Root")
    issued = ICA.issue(NAME)
    return replace(issued, intermediates=(*issued.intermediates, same_ca(ICA, second).cert)), second


@pytest.mark.parametrize("order", [1, -1])
def test_another_path_to_a_root_that_is_not_distrusted_is_taken(order: int) -> None:
    issued, second = cross_signed()
    issued = replace(issued, intermediates=issued.intermediates[::order])
    roots = pem(ROOT.cert, second.cert)
    store = certdata(Listed(ROOT, end=BEFORE), Listed(second))
    verdict = judge(issued, anchors=anchored(store, roots=roots))
    assert verdict.codes == ()
    store = certdata(Listed(ROOT, end=BEFORE), Listed(second, end=BEFORE))
    assert judge(issued, anchors=anchored(store, roots=roots)).codes == (Code.DISTRUSTED_ROOT,)


def test_each_browser_that_distrusts_is_named() -> None:
    verdict = judged(report(Listed(ROOT, end=BEFORE)), chrome((ROOT, [f"sct_not_after_sec: {PAST}"])))
    assert [p.message.count("Chrome") for p in refusals(verdict)] == [0, 1]


def test_a_root_of_one_store_that_another_lacks_is_distrusted_by_the_other() -> None:
    verdict = judged(report(Listed(ROOT)), chrome((OTHER, [])))
    assert verdict.codes == (Code.DISTRUSTED_ROOT,)
    assert "not among the roots that Chrome trusts" in verdict.problems[0].message


def test_a_root_of_no_store_is_a_local_one_and_the_policy_may_refuse_it() -> None:
    verdict = judged(report(Listed(OTHER)))
    assert (verdict.codes, verdict.warnings) == ((), (Code.LOCAL_ROOT,))
    strict = replace(public([NAME]), allow_local_roots=False)
    assert judged(report(Listed(OTHER)), policy=strict).codes == (Code.LOCAL_ROOT,)


def test_a_root_of_no_store_that_the_distribution_ships_was_removed_by_the_browser() -> None:
    anchors = anchored(report(Listed(OTHER))).shipped_as([fingerprint(ROOT.cert)], whole=True)
    assert judge(GOOD, anchors=anchors).codes == (Code.DISTRUSTED_ROOT,)


def test_a_root_that_the_system_has_and_its_distribution_does_not_ship_is_a_local_one() -> None:
    anchors = Anchors.from_pem(pem(ROOT.cert, OTHER.cert), "roots.pem")
    shipped = [fingerprint(OTHER.cert)]
    verdict = judge(GOOD, anchors=anchors.shipped_as(shipped, whole=True))
    assert (verdict.codes, verdict.warnings) == ((), (Code.LOCAL_ROOT,))
    assert judge(GOOD, anchors=anchors.shipped_as(shipped, whole=False)).problems == ()
    assert judge(GOOD, anchors=anchors.shipped_as([fingerprint(ROOT.cert)], whole=True)).problems == ()
    assert judge(GOOD, anchors=anchors.shipped_as(shipped, whole=True), policy=private_ca([NAME])).problems == ()


def test_a_path_to_a_root_of_the_public_web_is_preferred_to_one_that_ends_on_this_host() -> None:
    issued, second = cross_signed()
    anchors = Anchors.from_pem(pem(ROOT.cert, second.cert), "roots.pem")
    for public_root in (ROOT, second):
        verdict = judge(issued, anchors=anchors.shipped_as([fingerprint(public_root.cert)], whole=True))
        assert Code.LOCAL_ROOT not in verdict.warnings


def test_an_old_file_warns_and_a_file_of_its_age_does_not() -> None:
    for age, stale in ((MAX_AGE, False), (MAX_AGE + timedelta(seconds=1), True)):
        verdict = judge(GOOD, anchors=anchored(report(Listed(ROOT)), written=NOW - age))
        assert (verdict.codes, verdict.warnings) == ((), (Code.ROOT_STORE_STALE,) * stale)


def test_the_digest_changes_with_the_content_and_with_the_day_of_the_file() -> None:
    def digest(data: bytes, written: datetime) -> str:
        return RootStores((read_store(data, "store", written),)).digest

    one, other = report(Listed(ROOT)), report(Listed(ROOT, end=BEFORE))
    assert len({digest(one, NOW), digest(other, NOW), digest(one, NOW + DAY)}) == 3
    assert digest(one, NOW) == digest(one, NOW + timedelta(minutes=1))


GOOD_CERTDATA, GOOD_REPORT, GOOD_CHROME = certdata(Listed(ROOT, end=BEFORE)), report(Listed(ROOT)), chrome((ROOT, []))
TRUNCATED: Sequence[tuple[str, bytes]] = (
    ("nothing", b""),
    ("a web page", b"<html>Not found</html>"),
    ("roots", pem(ROOT.cert)),
    ("certdata, cut off in a value", GOOD_CERTDATA[: GOOD_CERTDATA.index(b"CKA_VALUE") + 60]),
    ("certdata without a value", GOOD_CERTDATA.replace(b"CKA_VALUE", b"CKA_OTHER")),
    ("certdata with another line", GOOD_CERTDATA + b"<html>\n"),
    ("certdata with a bad octet", GOOD_CERTDATA.replace(b"MULTILINE_OCTAL\n\\", b"MULTILINE_OCTAL\n\\9")),
    ("certdata with a date that is none", certdata(Listed(ROOT, end=BEFORE)).replace(b"\\132\nEND", b"\\133\nEND")),
    ("certdata without a trusted root", certdata(Listed(ROOT, server=False))),
    ("report, cut off in a text", GOOD_REPORT[:-40]),
    ("report, cut off in a line", GOOD_REPORT + b'"Owner"\n'),
    ("report with a line too long", GOOD_REPORT.rstrip(b"\n") + b",more\n"),
    ("report with a date that is none", report(Listed(ROOT, end=BEFORE)).replace(b"2026.11", b"2026.13")),
    ("report that is not UTF-8", GOOD_REPORT + b"\xff\n"),
    ("report without a trusted root", report(Listed(ROOT, server=False))),
    ("chrome, cut off", GOOD_CHROME.rstrip()[:-1]),
    ("chrome with too many signs", GOOD_CHROME + b"}"),
    ("chrome with a hash that is none", GOOD_CHROME.replace(b'sha256_hex: "', b'sha256_hex: "0')),
    ("chrome with a root without a hash", GOOD_CHROME + b"trust_anchors { crs_root_id: 3 }"),
    ("chrome with a time that is none", chrome((ROOT, ["sct_not_after_sec: soon"]))),
    ("chrome with a time beyond all", chrome((ROOT, ["sct_not_after_sec: 9999999999999999999"]))),
    ("chrome, deep", b"trust_anchors {" + b"a {" * (MAX_NESTING + 1) + b"}" * (MAX_NESTING + 2)),
    ("chrome with a text without an end", GOOD_CHROME + b'trust_anchors { sha256_hex: "'),
)


@pytest.mark.parametrize(("what", "data"), TRUNCATED, ids=[what for what, _ in TRUNCATED])
def test_a_damaged_file_is_refused_and_says_where_to_fetch_it(what: str, data: bytes) -> None:
    with pytest.raises(RotatorError) as caught:
        read_store(data, "store", NOW)
    assert caught.value.code == Code.PARSE_ERROR
    assert caught.value.message.startswith("store ")
    assert caught.value.hint.startswith("Fetch it again")


def test_a_file_that_is_too_large_is_not_read() -> None:
    with pytest.raises(RotatorError) as caught:
        read_store(b"#" * (MAX_ROOT_STORE + 1), "store", NOW)
    assert caught.value.code == Code.TOO_LARGE


def test_line_ends_of_windows_and_a_byte_order_mark_are_read() -> None:
    end = BEFORE
    for data in (certdata(Listed(ROOT, end=end)), b"\xef\xbb\xbf" + report(Listed(ROOT, end=end))):
        assert judged(data.replace(b"\n", b"\r\n")).codes == (Code.DISTRUSTED_ROOT,)
    assert judged(chrome((ROOT, [f"sct_not_after_sec: {PAST}"])).replace(b"\n", b"\r\n")).codes == (
        Code.DISTRUSTED_ROOT,
    )
