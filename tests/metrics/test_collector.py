"""The metrics: names, types and labels as documented, nothing that is not known, nothing twice, nothing of the past."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rotator.core.model import KeyType, Outcome, Result, Site, Workers
from rotator.core.problems import Code
from rotator.core.reasons import Reason, reason_of
from rotator.core.text import label
from rotator.metrics import Counters, InputState, LastResult, Registry, SiteFacts, Snapshot, site_facts
from rotator.metrics.collector import LONGEST_LABEL
from rotator.metrics.counters import (
    BUCKETS,
    BY_TIMED_STAGE,
    CODES,
    NO_FAILURE,
    NO_OUTCOME,
    OTHER,
    RELOAD_OTHER,
    RELOAD_REASONS,
    SCAN_REASONS,
    STAGE_OF,
    STAGES,
    TRIGGERS,
    WAITING,
    Histogram,
)
from rotator.metrics.snapshot import CertificateFacts, ProbeFacts, ServedFacts
from rotator.privsep import connection, privilege_drop, socket_client
from rotator.rotation.observe import observe
from rotator.storage.entries import HistoryEntry
from tests.support.apply_words import words_of_apply
from tests.support.hosts import LISTENERS, Host, make_site

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=90)

SITE = {"site"}
DISK = {"site", "key_type"}
SERVED = {"site", "listener", "key_type"}
NOTHING: set[str] = set()

DOCUMENTED: dict[str, tuple[str, set[str]]] = {
    "certificate_not_before_timestamp_seconds": ("gauge", DISK),
    "certificate_not_after_timestamp_seconds": ("gauge", DISK),
    "certificate_chain_not_after_timestamp_seconds": ("gauge", DISK),
    "certificate_info": ("gauge", {*DISK, "fingerprint_sha256", "serial", "issuer"}),
    "live_accepted": ("gauge", SITE),
    "served_certificate_not_before_timestamp_seconds": ("gauge", SERVED),
    "served_certificate_not_after_timestamp_seconds": ("gauge", SERVED),
    "served_certificate_matches_disk": ("gauge", SERVED),
    "served_probe_success": ("gauge", {"site", "listener"}),
    "served_probe_timestamp_seconds": ("gauge", {"site", "listener"}),
    "swap_attempts_total": ("counter", {"site", "trigger"}),
    "swap_failures_total": ("counter", {"site", "stage"}),
    "last_swap_successful": ("gauge", SITE),
    "last_swap_success_timestamp_seconds": ("gauge", SITE),
    "swap_duration_seconds": ("histogram", {"stage"}),
    "rollbacks_total": ("counter", SITE),
    "rollback_failures_total": ("counter", SITE),
    "nginx_reloads_total": ("counter", NOTHING),
    "nginx_reload_failures_total": ("counter", {"reason"}),
    "nginx_last_reload_successful": ("gauge", NOTHING),
    "nginx_last_reload_success_timestamp_seconds": ("gauge", NOTHING),
    "nginx_reload_duration_seconds": ("histogram", NOTHING),
    "nginx_worker_processes": ("gauge", {"generation"}),
    "inputs": ("gauge", {"state"}),
    "input_undecided_since_timestamp_seconds": ("gauge", SITE),
    "inputs_rejected_total": ("counter", {"code"}),
    "watcher_up": ("gauge", NOTHING),
    "watcher_overflows_total": ("counter", NOTHING),
    "scan_last_success_timestamp_seconds": ("gauge", NOTHING),
    "scan_interval_seconds": ("gauge", NOTHING),
    "scan_errors_total": ("counter", {"reason"}),
    "sites": ("gauge", NOTHING),
    "config_last_reload_successful": ("gauge", NOTHING),
    "config_last_reload_success_timestamp_seconds": ("gauge", NOTHING),
    "build_info": ("gauge", {"version", "python"}),
}

ALWAYS = {
    "swap_duration_seconds",
    "nginx_reloads_total",
    "nginx_reload_failures_total",
    "nginx_reload_duration_seconds",
    "inputs_rejected_total",
    "watcher_overflows_total",
    "scan_errors_total",
    "build_info",
}
"""What is known before anything is."""


def outcome(result: Result, reason: Reason | Code = Reason.ROTATED, site: str = "example", **stages: float) -> Outcome:
    return Outcome(site, result, NOW, reason, stages=stages)


def facts(name: str = "example", issuer: str = "CN=Test CA") -> SiteFacts:
    """A site of which everything is known."""
    kinds = (KeyType.ECDSA, KeyType.RSA)
    return SiteFacts(
        name,
        tuple(CertificateFacts(kind, NOW, LATER, LATER, "ab" * 32, "1f", issuer) for kind in kinds),
        tuple(ServedFacts(listener, kind, NOW, LATER, True) for listener in LISTENERS for kind in kinds),
        tuple(ProbeFacts(listener, True, NOW) for listener in LISTENERS),
        InputState.ACCEPTED,
        live_accepted=True,
        undecided_since=NOW,
    )


def everything(*sites: SiteFacts) -> Snapshot:
    """A snapshot in which nothing is unknown."""
    counters = Counters().after_reload(None, NOW, 0.05)
    for site in sites:
        counters = counters.after(outcome(Result.ROTATED, site=site.name, validate=0.001, apply=0.02), "drop")
    return Snapshot(
        sites=sites,
        workers=Workers(1, frozenset({(2, 0), (3, 0)}), frozenset({(4, 0)})),
        watcher_up=True,
        scanned_at=NOW,
        scan_interval=timedelta(seconds=15),
        config=LastResult(True, NOW),
        counters=counters,
    )


def page(snapshot: Snapshot) -> str:
    registry = Registry()
    registry.publish(snapshot)
    return registry.render().decode("utf-8")


def series(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every series of a page, with its value; none may be there twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name.removeprefix("rotator_"), frozenset(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    return series(text).get((name, frozenset(labels.items())))


def types(text: str) -> dict[str, str]:
    lines = [line.split() for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(lines) == len({words[2] for words in lines}), "a family is there twice"
    return {words[2]: words[3] for words in lines}


# -- the page ---------------------------------------------------------------------------------------------------------


def test_names_types_and_labels_are_those_that_are_documented() -> None:
    text = page(everything(facts()))
    assert types(text) == {f"rotator_{name}": kind for name, (kind, _) in DOCUMENTED.items()}
    for name, labels in series(text):
        kind, known = DOCUMENTED.get(name, ("", NOTHING))
        if not kind:  # the parts of a histogram
            base, _, part = name.rpartition("_")
            known = DOCUMENTED[base][1] | ({"le"} if part == "bucket" else set())
        assert {label for label, _ in labels} == known, name


def test_what_is_not_known_is_not_there() -> None:
    assert set(types(page(Snapshot()))) == {f"rotator_{name}" for name in ALWAYS}
    text = Registry().render().decode()
    assert text == page(Snapshot()), "before anything is published"
    assert "NaN" not in text


def test_each_unknown_leaves_out_its_own_series_only() -> None:
    full = everything(facts())
    names = set(types(page(full)))

    def missing(**unknown: object) -> set[str]:
        return {n.removeprefix("rotator_") for n in names - set(types(page(dataclasses.replace(full, **unknown))))}  # type: ignore[arg-type]

    assert missing(workers=None) == {"nginx_worker_processes"}
    assert missing(watcher_up=None) == {"watcher_up"}
    assert missing(scanned_at=None) == {"scan_last_success_timestamp_seconds"}
    assert missing(scan_interval=None) == {"scan_interval_seconds"}
    assert missing(config=LastResult(False)) == {"config_last_reload_success_timestamp_seconds"}
    assert missing(sites=(SiteFacts("example"),)) == {
        name for name, (_, labels) in DOCUMENTED.items() if labels >= DISK or "listener" in labels
    } | {"live_accepted", "input_undecided_since_timestamp_seconds"}


def test_a_listener_that_shows_something_unreadable_has_no_dates() -> None:
    unread = SiteFacts("example", served=(ServedFacts("127.0.0.1:443", KeyType.RSA, None, None, False),))
    text = page(everything(unread))
    assert value(text, "served_certificate_matches_disk", site="example", listener="127.0.0.1:443", key_type="rsa") == 0
    assert "served_certificate_not_after" not in text


def test_every_reason_is_at_0_from_the_start() -> None:
    text = page(Snapshot(sites=(SiteFacts("example"),), scanned_at=NOW))
    at_zero = {(name, *sorted(labels)) for (name, labels), number in series(text).items() if number == 0}
    expected: set[tuple[str, *tuple[tuple[str, str], ...]]] = set()
    expected |= {("swap_attempts_total", ("site", "example"), ("trigger", t)) for t in TRIGGERS}
    expected |= {("swap_failures_total", ("site", "example"), ("stage", s)) for s in STAGES}
    expected |= {(f"{name}_total", ("site", "example")) for name in ("rollbacks", "rollback_failures")}
    expected |= {("inputs_rejected_total", ("code", code)) for code in CODES}
    expected |= {("nginx_reload_failures_total", ("reason", r)) for r in RELOAD_REASONS}
    expected |= {("scan_errors_total", ("reason", r)) for r in SCAN_REASONS}
    expected |= {("inputs", ("state", s)) for s in InputState}
    expected |= {("swap_duration_seconds_count", ("stage", s)) for s in STAGES}
    expected |= {("nginx_reloads_total",), ("watcher_overflows_total",), ("nginx_reload_duration_seconds_count",)}
    assert expected <= at_zero
    assert set(map(str, Code)) < set(CODES)


def test_a_site_that_is_gone_leaves_nothing() -> None:
    registry = Registry()
    both = everything(facts("stays"), facts("goes"))
    registry.publish(both)
    assert b"goes" in registry.render()
    registry.publish(dataclasses.replace(both, sites=(facts("stays"),)))
    assert b"goes" not in registry.render(), "although it was counted"
    assert value(registry.render().decode(), "sites") == 1


def test_nothing_is_there_twice() -> None:
    one = facts()
    doubled = dataclasses.replace(
        one, certificates=one.certificates * 2, served=one.served * 2, probes=(*one.probes, *one.probes)
    )
    assert page(everything(doubled, doubled)).count("rotator_certificate_info{") == 2
    lines = [line.rpartition(" ")[0] for line in page(everything(doubled, doubled)).splitlines() if line[0] != "#"]
    assert len(lines) == len(set(lines))


def test_any_text_in_a_label_leaves_a_page_that_can_be_read() -> None:
    evil = 'CN=a"b\\c\n\r\0\x1b[31m\x85\u2028\udcff\ud800 bücher 证书'
    text = page(everything(facts(issuer=evil)))
    issuers = {dict(labels)["issuer"] for name, labels in series(text) if name == "certificate_info"}
    assert issuers == {'CN=a"b\\c' + "\ufffd" * 3 + "\ufffd[31m" + "\ufffd" * 4 + " bücher 证书"}
    assert len(label("x" * 10_000, LONGEST_LABEL)) == LONGEST_LABEL


def test_no_series_tells_when_it_was_created() -> None:
    assert "_created" not in page(everything(facts()))


def test_the_values_are_those_of_the_snapshot() -> None:
    text = page(everything(facts(), SiteFacts("other", input=InputState.SETTLING), SiteFacts("empty")))
    disk = {"site": "example", "key_type": "rsa"}
    served = {**disk, "listener": LISTENERS[0]}
    assert value(text, "certificate_not_before_timestamp_seconds", **disk) == NOW.timestamp()
    assert value(text, "certificate_not_after_timestamp_seconds", **disk) == LATER.timestamp()
    assert value(text, "served_certificate_not_after_timestamp_seconds", **served) == LATER.timestamp()
    assert value(text, "served_certificate_matches_disk", **served) == 1
    assert value(text, "nginx_worker_processes", generation="current") == 2
    assert value(text, "nginx_worker_processes", generation="old") == 1
    assert [value(text, "inputs", state=s) for s in InputState] == [1, 0, 1, 0, 0]
    assert value(text, "sites") == 3
    assert value(text, "scan_interval_seconds") == 15
    assert value(text, "swap_attempts_total", site="example", trigger="drop") == 1
    assert value(text, "swap_duration_seconds_bucket", stage="apply", le="0.025") == 3
    assert value(text, "swap_duration_seconds_bucket", stage="apply", le="0.01") == 0
    assert value(text, "nginx_reload_duration_seconds_sum") == 0.05


def test_a_page_is_made_once_for_each_snapshot() -> None:
    registry = Registry()
    snapshot = everything(facts())
    registry.publish(snapshot)
    first = registry.render()
    assert registry.render() is first
    registry.publish(dataclasses.replace(snapshot))
    assert registry.render() is not first


def test_who_scrapes_while_another_publishes_sees_one_of_both() -> None:
    registry = Registry()
    snapshots = [everything(*(facts(f"{letter}{n}") for n in range(20))) for letter in "ab"]
    pages = {page(one) for one in snapshots}
    registry.publish(snapshots[0])
    over = threading.Event()

    def publish() -> None:
        while not over.is_set():
            for one in snapshots:
                registry.publish(one)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        seen = {registry.render().decode() for _ in range(30)}
    finally:
        over.set()
        publisher.join()
    assert seen <= pages


def test_promtool_finds_nothing_to_say() -> None:
    tool = shutil.which("promtool")
    if tool is None:
        message = "promtool is missing: apt-get install --no-install-recommends prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    for snapshot in (Snapshot(), everything(facts(), facts("other", issuer='CN="\n'))):
        found = subprocess.run(
            [tool, "check", "metrics"], input=page(snapshot), text=True, capture_output=True, timeout=60, check=False
        )
        assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


# -- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("done", "stage"),
    [
        (outcome(Result.REJECTED, Code.KEY_MISMATCH, validate=0.1), "validate"),
        (outcome(Result.REJECTED, Code.HANDSHAKE_FAILED, validate=0.1, store=0.1), "test"),
        (outcome(Result.REJECTED, Code.NGINX_REFUSED, validate=0.1, store=0.1, test=0.1), "test"),
        (outcome(Result.DEFERRED, Reason.LISTENER, validate=0.1, store=0.1), "test"),
        (outcome(Result.DEFERRED, Reason.DISK_FULL, validate=0.1, apply=0.1), "apply"),
        (outcome(Result.DEFERRED, Reason.NOT_WIRED, validate=0.1, prove=0.1), "prove"),
        (outcome(Result.REJECTED, Code.NGINX_REFUSED, validate=0.1, store=0.1, test=0.1, apply=1, rollback=1), "apply"),
        (outcome(Result.DEFERRED, Reason.NGINX_DOWN), "test"),
        (outcome(Result.DEFERRED, Reason.DISK_FULL), "store"),
        (outcome(Result.DEFERRED, Reason.INCLUDE_FOREIGN), "detect"),
        (outcome(Result.ROLLED_BACK, Reason.NOT_PROVED, validate=0.1, apply=0.1, prove=5, rollback=1), "prove"),
        (outcome(Result.STRANDED, Reason.ROLLBACK_FAILED, apply=0.1, prove=5, rollback=1), "prove"),
    ],
)
def test_a_failure_is_counted_where_it_happened(done: Outcome, stage: str) -> None:
    counters = Counters().after(done, "drop")
    assert dict(counters.attempts) == {("example", "drop"): 1}
    assert dict(counters.failures) == {("example", stage): 1}
    assert counters.swaps["example"] == LastResult(False)


def test_a_rotation_is_an_attempt_that_did_not_fail() -> None:
    counters = Counters().after(outcome(Result.ROTATED, Reason.ROTATED, detect=0.3, prove=0.02, rollback=1.0), "swap")
    assert dict(counters.attempts) == {("example", "swap"): 1}
    assert not counters.failures
    assert counters.swaps["example"] == LastResult(True, NOW)
    assert set(counters.durations) == {"detect", "prove"}


def test_a_rollback_is_counted_and_its_failure_too() -> None:
    back = Counters().after(outcome(Result.ROLLED_BACK), "drop")
    assert (dict(back.rollbacks), dict(back.rollback_failures)) == ({"example": 1}, {})
    stranded = back.after(outcome(Result.STRANDED), "drop")
    assert (dict(stranded.rollbacks), dict(stranded.rollback_failures)) == ({"example": 2}, {"example": 1})


def test_a_failure_keeps_the_time_of_the_last_success() -> None:
    counters = Counters().after(outcome(Result.ROTATED), "drop").after(outcome(Result.ROLLED_BACK), "drop")
    assert counters.swaps["example"] == LastResult(False, NOW)


def test_what_is_unchanged_is_no_attempt_and_ends_a_failure() -> None:
    unchanged = outcome(Result.UNCHANGED, Reason.SAME, prove=0.01)
    assert Counters().after(unchanged, "drop") == Counters()
    healed = Counters().after(outcome(Result.REJECTED, Code.EXPIRED), "drop").after(unchanged, "drop")
    assert healed.swaps["example"] == LastResult(True)
    assert dict(healed.attempts) == {("example", "drop"): 1}


def test_what_is_only_too_early_is_no_failure() -> None:
    assert Counters().after(outcome(Result.DEFERRED, Code.NOT_YET_VALID, validate=0.1), "drop") == Counters()


def test_a_rejected_input_is_counted_by_its_code() -> None:
    counters = Counters()
    for reason in (Code.EXPIRED, Code.EXPIRED, Reason.NOTHING_TO_DO):
        counters = counters.after(outcome(Result.REJECTED, reason), "drop")
    assert dict(counters.rejected) == {"expired": 2, OTHER: 1}


def test_an_unknown_word_makes_no_new_series() -> None:
    counters = Counters().after(outcome(Result.ROTATED), "whim").after_scan_error(Reason.HELD)
    counters = counters.after_reload(Reason.HELD, NOW)
    assert dict(counters.attempts) == {("example", OTHER): 1}
    assert dict(counters.scan_errors) == {OTHER: 1}
    assert dict(counters.reload_failures) == {OTHER: 1}


def test_every_reason_has_one_place_among_the_stages_of_swaps() -> None:
    places = [set(table) for table in (WAITING, STAGE_OF, BY_TIMED_STAGE, NO_FAILURE, NO_OUTCOME)]
    assert sorted(reason for place in places for reason in place if isinstance(reason, Reason)) == sorted(Reason)


def test_every_way_in_which_the_privileged_step_fails_has_a_label_or_is_meant_to_be_other() -> None:
    placed = {*RELOAD_REASONS, *RELOAD_OTHER}
    source = [member for module in (connection, socket_client, privilege_drop) for member in _members_raised_in(module)]
    assert set(source) >= {Reason.APPLY_DENIED, Reason.APPLY_GONE}  # the walk finds them
    assert set(map(reason_of, words_of_apply())) | set(source) <= placed
    assert {reason_of(decision) for decision in ("refused", "gone")} <= placed


def _members_raised_in(module: ModuleType) -> list[Reason | Code]:
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
    names = [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "RotatorError"]
    kinds = {"Reason": Reason, "Code": Code}  # an error of the system has a code that is looked up: see `system.faults`
    return [getattr(kinds[kind], name) for kind, _, name in (n.partition(".") for n in names) if kind in kinds]


def test_reloads_are_counted() -> None:
    counters = Counters().after_reload(None, NOW, 0.2).after_reload(Reason.REFUSED, LATER)
    assert counters.reloads == 2
    assert dict(counters.reload_failures) == {"refused": 1}
    assert counters.reload == LastResult(False, NOW)
    assert counters.reload_duration.total == 0.2


def test_counting_changes_nothing_that_is_there() -> None:
    before = Counters()
    before.after(outcome(Result.STRANDED, apply=1), "drop").after_reload(Reason.GONE, NOW, 1).after_overflows(3)
    before.after_scan_error(Reason.MISSING).with_last_swaps([]).only([])
    assert before == Counters()
    with pytest.raises(TypeError):
        before.attempts["example", "drop"] = 1  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.reloads = 1  # type: ignore[misc]


def test_a_restart_remembers_how_the_last_swap_ended() -> None:
    def entry(result: str, at: datetime | None, reason: str = "", site: str = "example") -> HistoryEntry:
        return HistoryEntry(site, result, at, reason)

    counters = Counters().with_last_swaps(
        [
            entry(Result.ROTATED, NOW),
            entry(Result.ROLLED_BACK, LATER),
            entry(Result.DEFERRED, LATER, "not-yet-valid"),
            entry(Result.DEFERRED, None),
            HistoryEntry("other"),
            entry("a word of tomorrow", NOW, site="other"),
            entry(Result.ROTATED, None, site="other"),
        ]
    )
    assert dict(counters.swaps) == {"example": LastResult(False, NOW)}
    assert not counters.attempts, "what was counted before the start is not counted again"


def test_what_a_command_did_is_counted_as_its_history_tells_it() -> None:
    entry = HistoryEntry(
        "example", "rolled-back", NOW, "not-proved", trigger="swap", stages={"apply": 0.1, "prove": 5.0}
    )
    newer = dataclasses.replace(entry, result="a word of tomorrow")
    counters = Counters().after_commands([entry, HistoryEntry("other"), newer, dataclasses.replace(entry, at=None)])
    assert dict(counters.attempts) == {("example", "swap"): 1}
    assert dict(counters.failures) == {("example", "prove"): 1}
    assert dict(counters.rollbacks) == {"example": 1}
    assert counters.durations["prove"].total == 5.0


def test_a_restart_remembers_that_what_is_live_was_proved_after_a_failure() -> None:
    def entry(result: Result) -> HistoryEntry:
        return HistoryEntry("example", result, LATER)

    failed = Counters(swaps={"example": LastResult(True, NOW)}).with_last_swaps([entry(Result.ROLLED_BACK)])
    assert dict(failed.swaps) == {"example": LastResult(False, NOW)}
    assert dict(failed.with_last_swaps([entry(Result.UNCHANGED)]).swaps) == {"example": LastResult(True, NOW)}
    assert dict(Counters().with_last_swaps([entry(Result.UNCHANGED)]).swaps) == {}, (
        "nobody knows when that was swapped in"
    )


def test_sites_that_are_gone_are_forgotten() -> None:
    counters = Counters()
    for site in ("stays", "goes"):
        counters = counters.after(outcome(Result.STRANDED, site=site), "drop")
    counters = counters.only(["stays"])
    for counted in (counters.attempts, counters.failures, counters.rollbacks, counters.rollback_failures):
        assert "goes" not in str(dict(counted))
        assert "stays" in str(dict(counted))
    assert set(counters.swaps) == {"stays"}


@pytest.mark.parametrize(("seconds", "bound"), [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (99.0, "+Inf")])
def test_an_observation_falls_into_its_bucket(seconds: float, bound: str) -> None:
    cumulative = Histogram().plus(seconds).cumulative
    assert next(name for name, count in cumulative if count) == bound
    assert cumulative[-1] == ("+Inf", 1.0)
    assert len(cumulative) == len(BUCKETS) + 1


# -- what is observed -------------------------------------------------------------------------------------------------


def gathered(host: Host, site: Site | None = None) -> SiteFacts:
    return site_facts(observe(site or host.sites[0], host.world.ports), NOW)


def test_a_site_that_is_well_is_shown_so(tmp_path: Path) -> None:
    host = Host(tmp_path)
    leaf = host.first["example"].leaf
    found = gathered(host)
    (disk,) = found.certificates
    assert (disk.key_type, disk.not_before, disk.not_after) == (
        KeyType.ECDSA,
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
    )
    assert disk.serial == f"{leaf.serial_number:x}"
    assert disk.chain_not_after == disk.not_after
    assert [one.listener for one in found.served] == list(LISTENERS)
    assert {(one.key_type, one.not_before, one.not_after, one.matches) for one in found.served} == {
        (KeyType.ECDSA, disk.not_before, disk.not_after, True)
    }
    assert found.probes == tuple(ProbeFacts(listener, True, NOW) for listener in LISTENERS)
    assert value(page(Snapshot(sites=(found,))), "sites") == 1


def test_what_a_listener_really_serves_is_shown(tmp_path: Path) -> None:
    host = Host(tmp_path, prove_within=0.1)
    old = gathered(host).certificates[0]
    host.world.clock.sleep(3600)
    host.swap(host.sites[0], host.issue(days=60))
    assert gathered(host).certificates[0].not_after != old.not_after
    host.world.nginx.wire_wrongly(LISTENERS[0])
    host.world.nginx.dead.add(LISTENERS[1])
    host.world.nginx._stuck_at[LISTENERS[0]]["example"] = {KeyType.ECDSA: host.first["example"].chain_der}
    found = gathered(host)
    (served,) = found.served
    assert (served.listener, served.not_after, served.matches) == (LISTENERS[0], old.not_after, False)
    assert [one.successful for one in found.probes] == [True, False]


def test_of_several_names_the_one_that_ends_first_stands_for_all(tmp_path: Path) -> None:
    host = Host(tmp_path)
    facts = observe(host.sites[0], host.world.ports)
    (first, *_) = facts.seen
    sooner = host.issue(days=10)
    target = dataclasses.replace(first.served.target, name="www.example.test")
    other = dataclasses.replace(
        first, served=dataclasses.replace(first.served, target=target, chain=sooner.chain_der), matches=False
    )
    served = site_facts(dataclasses.replace(facts, seen=(first, other)), NOW).served
    assert [(one.not_after, one.matches) for one in served] == [(sooner.leaf.not_valid_after_utc, False)]


def test_where_nothing_is_on_disk_what_is_served_matches_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, sites=(make_site(),), bare=True)
    host.world.nginx.start()
    found = gathered(host)
    assert found.certificates == ()
    assert {one.matches for one in found.served} <= {None}


def test_what_is_served_and_cannot_be_read_has_no_dates(tmp_path: Path) -> None:
    host = Host(tmp_path)
    facts = observe(host.sites[0], host.world.ports)
    first = facts.seen[0]
    noise = dataclasses.replace(first, served=dataclasses.replace(first.served, chain=(b"noise",)), matches=False)
    (served,) = site_facts(dataclasses.replace(facts, seen=(noise,)), NOW).served
    assert (served.key_type, served.not_before, served.not_after, served.matches) == (KeyType.ECDSA, None, None, False)
