"""SCTs against a list of logs: signatures made here by RFC 6962, and the counting of browsers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from rotator.core.errors import RotatorError
from rotator.core.problems import Code, Severity
from rotator.validation.evidence import Evidence
from rotator.validation.sct import MAX_SCTS, Logs
from rotator.validation.validate import Anchors, Verdict, private_ca, public
from tests.support import transparency
from tests.support.authority import CA, NOW, Issued, pem, rsa_key
from tests.support.judging import judge
from tests.support.transparency import MADE, Keeper, Make, log_list, stamp

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
ROOT = CA.root()
ICA = ROOT.intermediate()
NAME = "signal.example.cn"
logged = partial(transparency.logged, by=ICA)
ANCHORS = Anchors.from_pem(pem(ROOT.cert), "roots.pem")


def logs(*keepers: Keeper) -> Logs:
    return Logs.from_json(log_list(*keepers), "log_list.json")


def checked(issued: Issued, known: Logs, *, own: bool = False) -> Verdict:
    policy = private_ca([NAME]) if own else replace(public([NAME]), lifetime_caps=False)
    return judge(issued, policy=policy, anchors=ANCHORS.beside(Evidence(logs=known)))


ONE, TWO, THREE = Keeper("first"), Keeper("second", "Two"), Keeper("third", "Three")
ALL = logs(ONE, TWO, THREE)


def test_two_scts_of_two_operators_are_enough_for_ninety_days() -> None:
    assert checked(logged(ONE, TWO), ALL).problems == ()


def test_without_a_list_of_logs_nothing_is_asked() -> None:
    assert judge(ICA.issue(NAME), anchors=ANCHORS).problems == ()


def test_a_private_ca_logs_nothing() -> None:
    assert checked(ICA.issue(NAME), ALL, own=True).problems == ()


@pytest.mark.parametrize(("length", "wanted"), [(180 * DAY, 2), (180 * DAY + SECOND, 3)])
def test_above_180_days_three_are_wanted(length: timedelta, wanted: int) -> None:
    days = (length - SECOND) / DAY  # the last second is one of validity
    assert checked(logged(ONE, TWO, days=days), ALL).codes == (() if wanted == 2 else (Code.SCT_MISSING,))
    assert checked(logged(ONE, TWO, THREE, days=days), ALL).problems == ()


@pytest.mark.parametrize("scts", [(), (ONE,), (ONE, ONE)])
def test_too_few_logs_are_refused(scts: Sequence[Keeper]) -> None:
    issued = logged(*scts) if scts else ICA.issue(NAME)
    verdict = checked(issued, ALL)
    assert verdict.codes == (Code.SCT_MISSING,)
    assert "browsers demand" in verdict.problems[0].message


def test_an_empty_list_of_scts_is_too_few() -> None:
    assert checked(logged(), ALL).codes == (Code.SCT_MISSING,)


def test_two_logs_of_one_operator_are_refused() -> None:
    also = Keeper("first again")
    assert checked(logged(ONE, also), logs(ONE, also, TWO)).codes == (Code.SCT_DIVERSITY,)


def test_the_operator_of_that_time_counts() -> None:
    """A log that was sold after the SCT was made is another operator's then, and one sold before is not."""
    later = Keeper("sold", previous=[("Two", MADE + DAY)])
    assert checked(logged(ONE, later), logs(ONE, later)).problems == ()
    before = Keeper("sold", previous=[("Two", MADE - DAY)])
    assert checked(logged(ONE, before), logs(ONE, before)).codes == (Code.SCT_DIVERSITY,)


def test_a_log_with_an_rsa_key_is_understood() -> None:
    old = Keeper("old", "Old", key=rsa_key(3))
    assert checked(logged(ONE, old), logs(ONE, old)).problems == ()


def test_tiled_logs_count_beside_another_and_are_refused_alone() -> None:
    tiles = [Keeper(n, n, tiled=True) for n in ("a", "b")]
    assert checked(logged(ONE, tiles[0]), logs(ONE, *tiles)).problems == ()
    assert checked(logged(*tiles), logs(ONE, *tiles)).codes == (Code.SCT_DIVERSITY,)


def test_an_sct_with_extensions_is_understood() -> None:
    """Tiled logs put the leaf's index there, and sign it."""
    tiled = Keeper("tiled", "Tiles", tiled=True)
    index = b"\0\0\5\1\2\3\4\5"
    issued = logged(ONE, lambda body, issuer: tiled.sct(body, issuer, extensions=index))
    assert checked(issued, logs(ONE, tiled)).problems == ()


# --- what does not count


def flipped(keeper: Keeper) -> Make:
    return lambda body, issuer: keeper.sct(body + b"\0", issuer)


WRONG: dict[str, Make] = {
    "of another certificate": flipped(TWO),
    "under another issuer": lambda body, _: TWO.sct(body, ROOT.cert),
    "of tomorrow": lambda body, issuer: TWO.sct(body, issuer, NOW + DAY),
    "of no year at all": lambda body, issuer: TWO.sct(body, issuer)[:33] + b"\xff" * 8 + TWO.sct(body, issuer)[41:],
    "signed with another key": lambda body, issuer: (
        TWO.sct(body, issuer)[:1] + hashlib.sha256(TWO.spki).digest() + THREE.sct(body, issuer)[33:]
    ),
    "with another time": lambda body, issuer: (
        lambda one: one[:33] + (int.from_bytes(one[33:41], "big") + 1).to_bytes(8, "big") + one[41:]
    )(TWO.sct(body, issuer)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_sct_refuses_where_the_others_do_not_do(what: str) -> None:
    verdict = checked(logged(ONE, WRONG[what]), ALL)
    assert set(verdict.codes) == {Code.SCT_MISSING, Code.SCT_INVALID}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_sct_beside_enough_others_warns_as_browsers_pass_over_it(what: str) -> None:
    verdict = checked(logged(ONE, THREE, WRONG[what]), ALL)
    assert verdict.accepted
    assert verdict.warnings == (Code.SCT_INVALID,)


UNCOUNTED = {
    "of an unknown log": Keeper("stranger", "Stranger"),
    "of a pending log": Keeper("pending", "Two", "pending"),
    "of a rejected log": Keeper("rejected", "Two", "rejected"),
    "of a log that was retired before": Keeper("retired", "Two", "retired", MADE),
    "of a log for another year": Keeper("next year", "Two", interval=(NOW + 300 * DAY, NOW + 600 * DAY)),
}


@pytest.mark.parametrize("what", UNCOUNTED)
def test_an_sct_that_does_not_count_is_told(what: str) -> None:
    keeper = UNCOUNTED[what]
    known = ALL if "unknown" in what else logs(ONE, THREE, keeper)
    verdict = checked(logged(ONE, keeper), known)
    assert (verdict.codes, verdict.warnings) == ((Code.SCT_MISSING,), (Code.SCT_UNVERIFIED,))
    assert verdict.problems[0].message.endswith("SCTs that count of 1 log (first); browsers demand 2.")
    assert verdict.problems[1].hint == "If the list of logs is old, fetch it again."
    enough = checked(logged(ONE, THREE, keeper), known)
    assert (enough.codes, enough.warnings) == ((), (Code.SCT_UNVERIFIED,))
    assert enough.problems[0].hint == ""


@pytest.mark.parametrize("state", ["qualified", "usable", "readonly"])
def test_logs_in_these_states_count(state: str) -> None:
    keeper = Keeper("log", "Two", state)
    assert checked(logged(ONE, keeper), logs(ONE, keeper)).problems == ()


def test_a_log_that_was_retired_afterwards_counts_beside_one_that_is_accepted_now() -> None:
    retired = [Keeper(n, n, "retired", MADE + SECOND) for n in ("a", "b")]
    assert checked(logged(ONE, retired[0]), logs(ONE, *retired)).problems == ()
    verdict = checked(logged(*retired), logs(ONE, *retired))
    assert verdict.codes == (Code.SCT_MISSING,)
    assert (
        "SCTs that count of 2 logs (a, b); browsers demand 2, one of them accepted now." in verdict.problems[0].message
    )


def test_the_interval_of_a_log_is_that_of_the_end_of_certificates() -> None:
    end = logged(ONE).leaf.not_valid_after_utc
    fits = Keeper("fits", "Two", interval=(end, end + SECOND))
    assert checked(logged(ONE, fits), logs(ONE, fits)).problems == ()
    over = Keeper("over", "Two", interval=(end - DAY, end))
    assert checked(logged(ONE, over), logs(ONE, over)).codes == (Code.SCT_MISSING,)


def test_a_list_of_scts_that_cannot_be_read_refuses() -> None:
    value = x509.UnrecognizedExtension(ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS, b"\x04\x03\x00\x09x")
    issued = ICA.issue(NAME, tweak=lambda builder: builder.add_extension(value, critical=False))
    assert checked(issued, ALL).codes == (Code.SCT_INVALID,)


def test_of_many_scts_only_the_first_are_checked() -> None:
    verdict = checked(logged(ONE, TWO, *[flipped(THREE)] * 200), ALL)
    assert verdict.warnings == (Code.SCT_INVALID,)
    assert verdict.problems[0].message.count("third: the signature is wrong") == MAX_SCTS - 2


# --- the list itself

LIST = {"operators": [{"name": "One", "logs": [ONE.entry]}]}


def altered(**values: object) -> bytes:
    return json.dumps({"operators": [{"name": "One", "logs": [ONE.entry | values]}]}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"operators": []}',
        b'{"operators": [{"logs": []}]}',
        b'{"operators": [{"name": "x", "logs": [{}]}]}',
        altered(key="AAAA"),
        altered(log_id=base64.b64encode(bytes(32)).decode()),
        altered(state={"usable": {"timestamp": "soon"}}),
        altered(state={"usable": 5}),
        altered(state=[["usable"]]),
        altered(state=[1 << 70]),
        altered(state=[[]]),
        altered(state="usable"),
        altered(state={"usable": {"timestamp": "0001-01-01T00:00:00+14:00"}}),
        altered(temporal_interval={"start_inclusive": "2026-01-01T00:00:00Z"}),
    ],
)
def test_a_file_that_is_no_list_of_logs_is_refused(data: bytes) -> None:
    with pytest.raises(RotatorError) as error:
        Logs.from_json(data, "log_list.json")
    assert error.value.code == Code.PARSE_ERROR
    assert "log_list.json" in error.value.message


def test_a_list_that_is_too_large_is_not_read() -> None:
    with pytest.raises(RotatorError) as error:
        Logs.from_json(b" " * (5 << 20), "log_list.json")
    assert error.value.code == Code.TOO_LARGE


def test_a_state_that_nobody_knows_is_told_without_moving_the_cursor() -> None:
    odd = Logs.from_json(altered(state={"\x1b[2J": {"timestamp": stamp(NOW)}}), "log_list.json")
    verdict = checked(logged(ONE, TWO), odd)
    assert Code.SCT_UNVERIFIED in verdict.warnings
    assert all(p.message.isprintable() for p in verdict.problems)


@pytest.mark.parametrize(
    ("lacks", "found", "words"),
    [
        ("state", {}, "first: the log is in an unknown state"),
        ("state", {"state": {"retired": {}}}, "first: the log was retired earlier"),
        ("description", {"state": {"rejected": {}}, "url": "https://log.example/1/"}, "https://log.example/1/: the"),
        (
            "description",
            {"state": {"rejected": {}}},
            f"{hashlib.sha256(ONE.spki).hexdigest()[:16]}: the log is rejected",
        ),
    ],
    ids=["unknown state", "retired", "rejected, named by its address", "rejected, named by its key"],
)
def test_a_log_of_which_the_list_says_less_does_not_count_and_is_told(
    lacks: str, found: dict[str, object], words: str
) -> None:
    entry = {key: value for key, value in ONE.entry.items() if key != lacks} | found
    bare = json.dumps({"operators": [{"name": "One", "logs": [entry]}]})
    verdict = checked(logged(ONE), Logs.from_json(bare.encode(), "log_list.json"))
    assert verdict.codes == (Code.SCT_MISSING,)
    assert f"do not count ({words}" in verdict.problems[1].message


def test_an_sct_of_this_very_moment_counts() -> None:
    assert checked(logged(ONE, lambda body, issuer: TWO.sct(body, issuer, NOW)), ALL).problems == ()


def test_the_digest_is_that_of_the_file() -> None:
    data = json.dumps(LIST).encode()
    assert Logs.from_json(data, "x").digest == hashlib.sha256(data).hexdigest()


def test_every_refusal_says_what_to_do() -> None:
    also = Keeper("first again")
    for issued in (ICA.issue(NAME), logged(ONE), logged(ONE, also), logged(ONE, flipped(TWO))):
        verdict = checked(issued, logs(ONE, also, TWO))
        assert verdict.codes
        assert all(p.hint for p in verdict.problems if p.severity is Severity.REJECT)


def test_a_date_of_the_list_is_read_in_its_zone() -> None:
    moved = json.dumps({"operators": [{"name": "One", "logs": [
        ONE.entry | {"state": {"retired": {"timestamp": "2026-11-22T18:00:00+08:00"}}}]}]})  # fmt: skip
    (log,) = Logs.from_json(moved.encode(), "x").by_id.values()
    assert log.in_state_since == datetime(2026, 11, 22, 10, tzinfo=UTC)
