"""The records of the store over versions: read by an older or a newer rotator, they lose no key and no hold."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rotator.core.model import KeyType, PairRecord, Provenance, Result
from rotator.rotation.decide import Drop, Held, Moment, Nothing, decide
from rotator.storage.entries import HistoryEntry, ProblemEntry, entry_object, read_entry
from rotator.storage.generations import Store
from rotator.storage.history import History
from rotator.storage.notes import (
    DaemonNote,
    RotationNote,
    daemon_note_object,
    read_daemon_note,
    read_rotation_note,
    rotation_note_object,
)
from rotator.storage.records import (
    ANYTHING,
    INTENT_VERSION,
    Hold,
    Intent,
    generation_object,
    intent_object,
    read_generation,
    read_intent,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NEWER = INTENT_VERSION + 8

# Literally as rotator 0.1.0 wrote them.
OLD_GENERATION = b"""{
 "origin": [
  "/srv/in/shop.pem"
 ],
 "who": "ann",
 "when": "2026-11-22T12:00:00.123456+00:00",
 "schema_version": 1,
 "digest": "3149ee1daa32b4257501133e36770ebe352c28852c5a2c62bd2b52168866baad",
 "pairs": {
  "ecdsa": {
   "fingerprint_sha256": "32d9a841b3868bd02e0e43947fc56fd927d7ecde66ae2c5eb04056c0abdda909",
   "serial": "2ee3c122a6112bb857d9ba0de4fbc208890bd806",
   "subject": "CN=shop.test",
   "issuer": "CN=Test Intermediate",
   "names": [
    "shop.test"
   ],
   "not_before": "2026-11-22T11:00:00.000Z",
   "not_after": "2027-02-20T11:00:00.000Z",
   "effective_not_after": "2027-02-20T11:00:00.000Z"
  }
 }
}
"""
OLD_INTENT = b"""{
 "digest": "dddddddd",
 "result": "rotated",
 "reason": "rotated",
 "policy": "pppppppp",
 "next_try": "",
 "hold": {
  "by": "ann",
  "since": "2026-11-22T12:00:00Z",
  "digest": "eeeeeeee"
 }
}
"""
OLD_ENTRY = (
    b'{"site": "shop", "result": "deferred", "at": "2026-11-22T12:00:00.000Z", "reason": "listener", '
    b'"message": "not every listener serves it", "hint": "see nginx", "problems": [{"code": "expired", '
    b'"severity": "warn", "message": "m", "hint": "h", "file": "a.pem", "line": 3}], '
    b'"generation": "000002-aaaaaaaaaaaa", "previous": "000001-bbbbbbbbbbbb", "live": "000001-bbbbbbbbbbbb", '
    b'"proof": "workers", "unproved": ["x at y"], "stages": {"apply": 0.25}, "nginx_words": ["nginx said"], '
    b'"retry_after": 5.0, "who": "ann", "trigger": "swap", "fingerprints": {"ecdsa": "ab"}}\n'
)

HOLD = Hold("ann", "2026-11-22T12:00:00Z", "eeeeeeee")
INTENT = Intent("dddddddd", "rotated", "rotated", "pppppppp", "", HOLD)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def put(store: Store, raw: object) -> None:
    """Puts the file of another version in the place of the decision."""
    store.write_intent("shop", Intent())
    (store.root / "sites/shop/intent.json").write_text(json.dumps(raw))


def on_disk(store: Store) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((store.root / "sites/shop/intent.json").read_text())
    return raw


def like(raw: dict[str, Any], **changes: object) -> bytes:
    return json.dumps(raw | changes).encode()


OLD = json.loads(OLD_INTENT)


# -- what the last version wrote


def test_a_generation_of_the_last_version_is_read_without_loss() -> None:
    record = read_generation(OLD_GENERATION)
    begin, end = datetime(2026, 11, 22, 11, tzinfo=UTC), datetime(2027, 2, 20, 11, tzinfo=UTC)
    fingerprint, serial = (
        "32d9a841b3868bd02e0e43947fc56fd927d7ecde66ae2c5eb04056c0abdda909",
        "2ee3c122a6112bb857d9ba0de4fbc208890bd806",
    )
    assert record.pairs == (
        PairRecord(
            KeyType.ECDSA, fingerprint, serial, "CN=shop.test", "CN=Test Intermediate", ("shop.test",), begin, end, end
        ),
    )
    assert record.provenance == Provenance(("/srv/in/shop.pem",), "ann", NOON.replace(microsecond=123456))
    assert record.digest.startswith("3149ee1d")
    assert not record.unknown


def test_a_decision_of_the_last_version_is_read_without_loss() -> None:
    intent = read_intent(OLD_INTENT)
    assert (intent, intent.schema_version, intent.caveat) == (INTENT, 0, "")
    assert intent_object(intent) == {"schema_version": INTENT_VERSION, **OLD}


def test_an_entry_of_the_last_version_is_read_without_loss() -> None:
    entry = read_entry(OLD_ENTRY)
    assert entry == HistoryEntry(
        "shop",
        "deferred",
        NOON,
        "listener",
        "not every listener serves it",
        "see nginx",
        (ProblemEntry("expired", "warn", "m", "h", "a.pem", 3),),
        "000002-aaaaaaaaaaaa",
        "000001-bbbbbbbbbbbb",
        "000001-bbbbbbbbbbbb",
        "workers",
        ("x at y",),
        {"apply": 0.25},
        ("nginx said",),
        "ann",
        "swap",
        {"ecdsa": "ab"},
    )
    assert (entry.schema_version, entry.unknown) == (0, {"retry_after": 5.0})  # a key that is no longer written
    assert entry_object(entry) == {"schema_version": 1, **json.loads(OLD_ENTRY)}


def test_the_history_of_the_last_version_goes_on(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_bytes(OLD_ENTRY)
    history = History(tmp_path)
    assert [entry.reason for entry in history.entries("shop")] == ["listener"]
    assert history.last_entry_at() == NOON


# -- what a newer version wrote


def test_a_generation_keeps_the_keys_that_are_not_known() -> None:
    raw = json.loads(OLD_GENERATION)
    raw |= {"schema_version": 9, "approved_by": ["ann"]}
    raw["pairs"]["ecdsa"]["log"] = {"id": 7}
    written = generation_object(read_generation(json.dumps(raw).encode()))
    assert (written["schema_version"], written["approved_by"]) == (9, ["ann"])
    assert written["pairs"] == raw["pairs"]


@pytest.mark.parametrize("missing", ["fingerprint_sha256", "names", "not_before", "effective_not_after"])
def test_a_generation_without_what_it_is_used_for_is_refused(missing: str) -> None:
    raw = json.loads(OLD_GENERATION)
    del raw["pairs"]["ecdsa"][missing]
    with pytest.raises(ValueError, match=r"its pairs cannot be read\Z"):
        read_generation(json.dumps(raw).encode())


def test_a_generation_of_a_newer_version_that_is_not_understood_names_both_versions() -> None:
    raw = json.loads(OLD_GENERATION) | {"schema_version": 9}
    raw["pairs"] = {"mldsa": raw["pairs"]["ecdsa"]}
    with pytest.raises(ValueError, match="schema_version 9, this rotator knows 1"):
        read_generation(json.dumps(raw).encode())


@pytest.mark.parametrize(
    "more",
    [
        {"ticket": "OPS-7"},
        {"ticket": 7},
        {"ticket": {"nested": [1, None]}},
        {"schema_version": NEWER},
        {"schema_version": NEWER, "ticket": None},
        {"schema_version": "9.1"},
        {"hold": {**OLD["hold"], "ticket": 7}},
        {"result": "paused", "schema_version": NEWER},
    ],
    ids=str,
)
def test_a_hold_outlives_what_is_not_known(more: dict[str, object]) -> None:
    assert read_intent(like(OLD, **more)).hold == HOLD


@pytest.mark.parametrize(
    "more", [{"schema_version": NEWER, "ticket": 7}, {"hold": {**OLD["hold"], "ticket": 7}}], ids=str
)
def test_a_decision_that_is_read_and_written_again_has_every_key(store: Store, more: dict[str, object]) -> None:
    put(store, OLD | more)
    store.write_intent("shop", replace(store.intent("shop"), policy="q"))
    assert on_disk(store) == {"schema_version": INTENT_VERSION} | OLD | more | {"policy": "q"}


def test_a_new_decision_keeps_the_keys_and_the_version_of_a_newer_one(store: Store) -> None:
    put(store, OLD | {"schema_version": NEWER, "ticket": 7})
    store.write_intent("shop", Intent("f", "rejected", "expired", "p"))
    assert on_disk(store) == {
        "schema_version": NEWER,
        "ticket": 7,
        "digest": "f",
        "result": "rejected",
        "reason": "expired",
        "policy": "p",
        "next_try": "",
        "hold": None,
    }


def test_who_reads_a_newer_decision_learns_of_its_version() -> None:
    assert (
        f"newer rotator (schema_version {NEWER}; this one knows" in read_intent(like(OLD, schema_version=NEWER)).caveat
    )


def test_a_key_of_this_version_needs_no_words() -> None:
    assert read_intent(like(OLD, schema_version=INTENT_VERSION, ticket=7)).caveat == ""


STRANGE = [
    {"schema_version": NEWER},
    {"schema_version": NEWER, "decision": {"hold": True}},
    {**OLD, "schema_version": NEWER, "digest": ["sha256", "d"]},
    {**OLD, "schema_version": NEWER, "hold": None, "policy": 5},
    {**OLD, "hold": "ann"},
    {**OLD, "hold": {"by": "ann", "since": 7, "digest": "e"}},
    {**OLD, "hold": {"by": "ann"}},
]
"""Decisions that are not understood, and may be a hold."""
NOT_UNDERSTOOD = [raw for raw in STRANGE if read_intent(json.dumps(raw).encode()).hold != HOLD]
"""Those of them of whose hold nothing is understood."""


def decided(intent: Intent, digest: str = "whatever") -> object:
    return decide(Drop(digest, 0.0), intent, "pppppppp", Moment(NOON, 100.0), 10.0)


@pytest.mark.parametrize("raw", STRANGE, ids=str)
def test_a_decision_that_is_not_understood_counts_as_a_hold(raw: dict[str, object]) -> None:
    intent = read_intent(json.dumps(raw).encode())
    assert decided(intent, "eeeeeeee") == Held(intent.hold or HOLD)
    assert "not understood: " in intent.caveat


@pytest.mark.parametrize("raw", NOT_UNDERSTOOD, ids=str)
def test_a_hold_that_is_not_understood_is_on_every_content_of_the_drop(raw: dict[str, object]) -> None:
    intent = read_intent(json.dumps(raw).encode())
    assert intent.hold == Hold("a decision that this version of rotator does not understand", "", ANYTHING)
    assert isinstance(decided(intent), Held)
    assert decided(intent, "") == Nothing()


@pytest.mark.parametrize("raw", NOT_UNDERSTOOD, ids=str)
def test_a_decision_that_is_not_understood_is_not_overwritten_in_passing(store: Store, raw: dict[str, object]) -> None:
    put(store, raw)
    store.write_intent("shop", replace(store.intent("shop"), policy="q"))
    assert on_disk(store) == raw


@pytest.mark.parametrize("raw", NOT_UNDERSTOOD, ids=str)
def test_a_decision_by_hand_ends_a_hold_that_is_not_understood(store: Store, raw: dict[str, object]) -> None:
    put(store, raw)
    store.write_intent("shop", Intent("f", "rotated", "rotated", "p"))
    after = store.intent("shop")
    assert (after, after.hold) == (Intent("f", "rotated", "rotated", "p"), None)
    assert {**on_disk(store), **{key: raw[key] for key in raw.keys() - OLD.keys()}} == on_disk(store)


def test_what_was_rolled_back_by_hand_stays_so_after_a_downgrade(store: Store) -> None:
    put(store, {**OLD, "schema_version": NEWER, "hold": {**OLD["hold"], "until": {"ticket": "closed"}}, "holds": 1})
    assert decided(store.intent("shop"), "eeeeeeee") == Held(HOLD)


def test_an_entry_of_a_newer_version_shows_what_is_understood() -> None:
    raw = json.loads(OLD_ENTRY) | {"schema_version": 9, "result": "paused", "stages": "none", "ticket": [7]}
    entry = read_entry(json.dumps(raw).encode())
    assert (entry.result, entry.reason, entry.stages, entry.schema_version) == ("paused", "listener", {}, 9)
    assert entry_object(entry)["ticket"] == [7]


def test_an_entry_says_whose_it_is_at_its_beginning() -> None:
    assert next(iter(entry_object(read_entry(OLD_ENTRY)))) == "site"


# -- holds


@pytest.mark.parametrize(
    ("hold", "digest", "readable", "covered"),
    [
        (Hold("ann", "", "d"), "d", True, True),
        (Hold("ann", "", "d"), "e", True, False),
        (Hold("ann", ""), "e", True, False),
        (Hold("ann", ""), "e", False, True),
        (Hold("ann", "", ANYTHING), "e", True, True),
        (Hold("ann", "", ANYTHING), "e", False, True),
    ],
)
def test_a_hold_is_about_one_content_an_unreadable_drop_or_everything(
    hold: Hold, digest: str, readable: bool, covered: bool
) -> None:
    assert hold.covers(digest, readable=readable) is covered


@pytest.mark.parametrize(
    ("hold", "words"), [(HOLD, "held by ann since 2026-11-22T12:00:00Z"), (Hold("ann", ""), "held by ann")]
)
def test_a_hold_reads_as_a_sentence_goes_on(hold: Hold, words: str) -> None:
    assert str(hold) == words


# -- notes


def test_a_note_comes_back_as_it_was_written() -> None:
    held, runs = RotationNote(7, "ann", "noon", ("a", "b")), DaemonNote(8, "noon", "/etc/rotator.toml", 2, "a mistake")
    assert read_rotation_note(json.dumps(rotation_note_object(held)).encode()) == held
    assert read_daemon_note(json.dumps(daemon_note_object(runs)).encode()) == runs


def test_a_note_of_the_last_version_is_read() -> None:
    assert read_daemon_note(b'{"pid": 8, "since": "noon", "config": "/c", "loads": 1, "refused": ""}\n') == DaemonNote(
        8, "noon", "/c", 1
    )


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"pid": "8"}', b"torn {"])
def test_what_is_no_note_is_an_empty_one(data: bytes) -> None:
    assert (read_daemon_note(data), read_rotation_note(data)) == (DaemonNote(), RotationNote())


def test_every_result_is_a_word_of_its_entry() -> None:
    assert [read_entry(json.dumps({"result": str(one)}).encode()).result for one in Result] == [
        str(one) for one in Result
    ]


def test_a_record_that_is_no_json_is_refused_in_words_for_people() -> None:
    with pytest.raises(ValueError, match=r"\Ait is no JSON text\Z"):
        read_generation(b'{"pairs": {')
