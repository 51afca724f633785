"""The page of formats has every key of every format, each with its type, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.cli import manual
from rotator.cli.check import Report
from rotator.cli.formats import (
    CHECK_VERSION,
    PROBE_VERSION,
    awaited_answer,
    config_check_answer,
    config_reload_answer,
    delivery_answer,
    demo_answer,
    demo_renewal_answer,
    help_topic_answer,
    help_topics_answer,
    help_word_answer,
    history_answer,
    outcome_answer,
    site_answer,
    status_answer,
)
from rotator.cli.output import Output, as_json
from rotator.cli.probe import ProbeReport, ServedChain
from rotator.config import check
from rotator.core.errors import RotatorError
from rotator.core.model import (
    Generation,
    GenerationRecord,
    KeyType,
    Outcome,
    PairRecord,
    Policy,
    Provenance,
    Result,
    Served,
    Site,
    Target,
    Workers,
)
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason
from rotator.demo.runner import DemoResult
from rotator.demo.scenarios import Check, Scenario
from rotator.rotation.observe import Observation, ObservedHandshake
from rotator.storage.entries import HistoryEntry, entry_object
from rotator.storage.held_lock import HeldLock
from rotator.storage.notes import (
    DaemonNote,
    JobNote,
    RotationNote,
    UndecidedNote,
    daemon_note_object,
    rotation_note_object,
)
from rotator.storage.records import Hold, Intent, generation_object, intent_object
from rotator.system.files import json_bytes
from rotator.system.lock_holders import LockHolder
from rotator.tls.handshake import Version
from rotator.validation.validate import public, validate_served
from tests.support.authority import NOW, Issued
from tests.support.calls import SITE as SHOP
from tests.support.judging import ANCHORS, GOOD, NAME, judge

PAGE = Path(__file__).parents[2] / "rotator" / "manual" / "formats.md"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

MAPS = {"pairs", "stages", "fingerprints", "clients", "cells"}
"""Keys whose object has keys of its own, such as a kind of key."""
DETAILED_ELSEWHERE = {"deliver --wait --json": {"outcome"}, "status --json": {"sites[].last"}}
"""Keys whose object the page describes as an entry of another format."""


# -- one filled and one empty sample of each format

PROBLEM = Problem(Code.EXPIRED, Severity.WARN, "m", "h", "a.pem", 3)
DONE = Outcome(
    "shop",
    Result.DEFERRED,
    NOON,
    Reason.LISTENER,
    problems=(PROBLEM,),
    unproved=("x at y",),
    stages={"apply": 0.25},
    nginx_words=("nginx said",),
)
BARE = Outcome("shop", Result.UNCHANGED, NOON, Reason.SAME)
PAIR = PairRecord(KeyType.ECDSA, "ab", "1", "CN=s", "CN=i", ("s",), NOON, NOON, NOON)
RECORD = GenerationRecord((PAIR,), "d", Provenance(("a.pem",), "ann", NOON))
INTENT = Intent(
    "d", "deferred", "listener", "p", "2026-11-22T12:00:00Z", Hold("ann", "2026-11-22T12:00:00Z", "d"), "newer"
)
ENTRY = HistoryEntry.of(DONE, who="ann", trigger="swap", fingerprints={"ecdsa": "ab"})
SITE = Site("shop", ("s",), ("127.0.0.1:443",), Policy())
TARGET = Target("shop", "127.0.0.1:443", "s", KeyType.ECDSA)
FULL = Observation(
    SITE,
    Generation("shop", "000001-0123456789ab", {}, RECORD),
    "000001-0123456789ab",
    INTENT,
    (ObservedHandshake(Served(TARGET, failure="refused"), False, "refused"),),
    Workers(7),
    "unreadable",
)
EMPTY = Observation(SITE, None, "", Intent(), (ObservedHandshake(Served(Target("", "", "")), None),), None)
DOWN = Observation(SITE, None, "", Intent(), (), Workers(None))
JOBS = (
    JobNote("scan-drops", 15.0, "2026-11-22T12:00:00Z", "2026-11-22T12:00:15Z", "d"),
    JobNote("tidy-store", 86400.0, "", "", "d"),
)
RUNNING = DaemonNote(7, "2026-11-22T11:00:00Z", reported="2026-11-22T12:00:00Z", jobs=JOBS)
HELD = HeldLock(RotationNote(7, "ann", "2026-11-22T11:00:00Z", ("shop",)))
UNNOTED = HeldLock(RotationNote(), (LockHolder(9),))
CONFIG = Path("/etc/rotator/rotator.toml")
DROP = Path("/srv/incoming/shop")
PAGES = manual.load()
CHECKS = [Check("it is so", passed=True), Check("it is so", passed=False, actual="it is not")]
RUN = DemoResult("/usr/sbin/nginx", [Scenario(1, "t", CHECKS, {"apply": 250.0}), Scenario(2, "t")], 7, 1, 2.5)
REFUSED = judge(Issued(GOOD.key, GOOD.leaf), names=("other.test",))


def _probed(chain: tuple[bytes, ...], *, failing: bool) -> dict[str, object]:
    sent = ServedChain(chain, (NAME,), tuple(Version), validate_served(chain, public((NAME,)), ANCHORS, NOW))
    mute, missing, lost = (
        ((("n", "r"),), ((Version(next(iter(Version))), "r"),), (("r", 1),)) if failing else ((), (), ())
    )
    return {"schema_version": PROBE_VERSION, **ProbeReport("127.0.0.1:443", (sent,), mute, missing, 12, lost).body}


def _site(facts: Observation, last: HistoryEntry | None, *, changed: bool | None) -> dict[str, object]:
    span = (NOON, NOON + timedelta(days=90)) if facts.live else None
    daemon = RUNNING if facts.live else DaemonNote()
    lock = HELD if facts.live else UNNOTED if last is None and facts.seen else None
    return status_answer([site_answer(facts, last, span, NOON, changed=changed)], daemon, lock, NOON, 0)


SAMPLES: dict[str, list[object]] = {
    "intent.json": [intent_object(INTENT), intent_object(Intent())],
    "meta.json": [generation_object(RECORD)],
    "history.jsonl": [
        entry_object(ENTRY),
        entry_object(HistoryEntry.of(BARE, who="", trigger="", fingerprints={})),
    ],
    "lock.json": [rotation_note_object(HELD.note), rotation_note_object(replace(HELD.note, reloaded=NOON))],
    "daemon.json": [
        daemon_note_object(replace(RUNNING, undecided=(UndecidedNote("shop", NOON),))),
        daemon_note_object(DaemonNote(7, "2026-11-22T11:00:00Z")),
    ],
    "swap --json": [outcome_answer(DONE, 8), outcome_answer(BARE, 0)],
    "deliver --wait --json": [awaited_answer("shop", INTENT, ENTRY, 8), awaited_answer("shop", INTENT, None, 8)],
    "deliver --json": [
        delivery_answer("shop", DROP, [("a.pem", DROP / "a.pem", 9)], uid=0, made=True, dry_run=False),
        delivery_answer("shop", DROP, [], uid=0, made=False, dry_run=True),
    ],
    "history --json": [history_answer("shop", [ENTRY, HistoryEntry()])],
    "status --json": [
        _site(FULL, ENTRY, changed=True),
        _site(EMPTY, None, changed=None),
        _site(DOWN, None, changed=None),
    ],
    "check --json": [{"schema_version": CHECK_VERSION, **Report(one, "").body} for one in (REFUSED, judge(GOOD))],
    "probe --json": [
        _probed(GOOD.chain_der, failing=False),
        _probed((GOOD.chain_der[0],), failing=True),
    ],
    "config check --json": [
        config_check_answer(CONFIG, *check(SHOP, CONFIG), ["roots: …"], ["ct_logs: …"], ["incoming: …"]),
        config_check_answer(CONFIG, *check("settel = 1", CONFIG), (), (), ()),
    ],
    "config reload --json": [config_reload_answer(7, CONFIG, 1)],
    "help --json": [help_topics_answer(PAGES)],
    "help TOPIC --json": [help_topic_answer(page) for page in PAGES],
    "help WORD --json": [
        help_word_answer("expired", "", manual.entries_for("expired", PAGES), ()),
        help_word_answer("formats", "Usage: …", (), PAGES[0].sections),
    ],
    "demo --json": [demo_answer(RUN), demo_answer(DemoResult("/usr/sbin/nginx"))],
    "demo --renew --json": [demo_renewal_answer(DROP / "a.pem", DROP / "a.key", DROP)],
}


# -- the page


def sections() -> dict[str, dict[str, str]]:
    """The type of each key, by the heading of its format."""
    found = {}
    for part in PAGE.read_text().split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| .+ \|$", body, re.MULTILINE)
        assert len({key for key, _ in rows}) == len(rows), f"a key of {heading} stands there twice"
        found[heading.strip("`")] = dict(rows)
    return found


FORMATS = sections()
TYPES: dict[str, Callable[[object], bool]] = {
    "text": lambda value: isinstance(value, str),
    "time": lambda value: isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None,
    "whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "duration": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "true or false": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}


def keys(value: object, path: str, opaque: set[str]) -> Iterator[tuple[str, object]]:
    """Every key below a value with its value, as the page writes keys."""
    if isinstance(value, dict) and path not in opaque:
        several = path.rpartition(".")[2].removesuffix("[]") in MAPS
        for key, inner in value.items():
            inside = f"{path}.{'*' if several else key}".lstrip(".")
            if not (several and isinstance(inner, dict)):
                yield inside, inner
            yield from keys(inner, inside, opaque)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{path}[]", opaque)


def written(name: str) -> list[tuple[str, object]]:
    """Every key of the samples of a format, with its values."""
    opaque = DETAILED_ELSEWHERE.get(name, set())
    return [found for sample in SAMPLES[name] for found in keys(json.loads(as_json(sample)), "", opaque)]


def test_every_format_has_its_section() -> None:
    assert set(FORMATS) == {*SAMPLES, "An error"}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_has_every_key_of_a_format_and_no_other(name: str) -> None:
    assert {key for key, _ in written(name)} == set(FORMATS[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_every_value_has_the_type_that_the_page_gives_it(name: str) -> None:
    wrong = {
        key: value
        for key, value in written(name)
        if not any(TYPES[kind](value) for kind in re.split(r" or (?=null)", FORMATS[name][key]))
    }
    assert wrong == {}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_has_its_keys_whatever_their_values(name: str) -> None:
    tops = [set(json.loads(as_json(sample))) for sample in SAMPLES[name]]
    assert all(top == tops[0] for top in tops)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_has_a_version_that_the_page_names(name: str) -> None:
    row = re.search(r"\| `schema_version` \|.*this version writes (\d+) \|", _section(name))
    assert row
    assert {json.loads(as_json(sample))["schema_version"] for sample in SAMPLES[name]} == {int(row[1])}


def _section(name: str) -> str:
    return PAGE.read_text().partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]


def test_an_error_has_the_keys_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=True).error(RotatorError(Code.PERMISSION, "m", "h"))
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {key for key, _ in keys(answer, "", set())} == set(FORMATS["An error"])


def test_what_is_described_elsewhere_has_that_form() -> None:
    entry = {key.removeprefix("entries[].") for key in FORMATS["history --json"] if key.startswith("entries[].")}
    for name, path in (("deliver --wait --json", "outcome"), ("status --json", "sites[].last")):
        inner = json.loads(as_json(SAMPLES[name][0]))
        for part in path.removesuffix("[]").split("."):
            inner = inner[part.removesuffix("[]")]
            inner = inner[0] if part.endswith("[]") else inner
        assert {key for key, _ in keys(inner, "", set())} == entry


def test_a_line_of_the_history_begins_with_its_site() -> None:
    assert json_bytes(entry_object(ENTRY)).startswith(b'{"site": "shop"')
