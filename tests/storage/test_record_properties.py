"""The records of the store as properties: whatever their keys hold, reading and writing loses no key and no hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rotator.storage.entries import entry_object, read_entry
from rotator.storage.generations import Store
from rotator.storage.records import INTENT_VERSION, generation_object, intent_object, read_generation, read_intent
from rotator.system.files import json_bytes

texts = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates too: a file name may have them
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
unknown = st.dictionaries(texts.map(lambda text: f"x-{text}"), values, max_size=3)
times = st.datetimes().map(lambda at: at.isoformat(timespec="milliseconds") + "Z")
versions = st.integers(0, 9)


def objects(known: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these keys and unknown ones."""
    return st.builds(lambda more, own: more | own, unknown, st.fixed_dictionaries(known))


holds = objects({"by": texts, "since": texts, "digest": texts})
intents = objects(
    dict.fromkeys(("digest", "result", "reason", "policy", "next_try"), texts) | {"hold": st.none() | holds}
)
problems = objects(dict.fromkeys(("code", "severity", "message", "hint", "file"), texts) | {"line": st.integers()})
TEXTS = ("site", "result", "reason", "message", "hint", "generation", "previous", "live", "proof", "who", "trigger")
entries = objects(
    dict.fromkeys(TEXTS, texts)
    | {
        "at": times,
        "schema_version": st.integers(1, 9),
        "problems": st.lists(problems, max_size=2),
        "unproved": st.lists(texts, max_size=2),
        "nginx_words": st.lists(texts, max_size=2),
        "stages": st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
        "fingerprints": st.dictionaries(texts, texts, max_size=2),
    }
)
pairs = objects(
    dict.fromkeys(("fingerprint_sha256", "serial", "subject", "issuer"), texts)
    | {"names": st.lists(texts, max_size=2)}
    | dict.fromkeys(("not_before", "not_after", "effective_not_after"), times)
)
generations = objects(
    {
        "schema_version": st.integers(1, 9),
        "origin": st.lists(texts, max_size=2),
        "who": texts,
        "when": times,
        "digest": texts,
        "pairs": st.dictionaries(st.sampled_from(["ecdsa", "rsa", "ed25519"]), pairs, min_size=1),
    }
)
scribbled = st.dictionaries(
    st.sampled_from(["schema_version", "digest", "result", "reason", "policy", "next_try", "hold", "x"]), values
)
"""Decisions of which every key may have a value of any type, or be missing."""


@given(intents)
def test_a_decision_is_written_as_it_was_read(raw: dict[str, Any]) -> None:
    assert intent_object(read_intent(json_bytes(raw))) == raw | {"schema_version": INTENT_VERSION}


@given(intents, versions)
def test_a_decision_keeps_a_newer_version(raw: dict[str, Any], version: int) -> None:
    written = intent_object(read_intent(json_bytes(raw | {"schema_version": version})))
    assert written == raw | {"schema_version": max(version, INTENT_VERSION)}


@given(entries)
def test_an_entry_is_written_as_it_was_read(raw: dict[str, Any]) -> None:
    assert entry_object(read_entry(json_bytes(raw))) == raw


@given(generations)
def test_a_generation_is_written_as_it_was_read(raw: dict[str, Any]) -> None:
    assert generation_object(read_generation(json_bytes(raw))) == raw


@given(scribbled)
def test_a_record_with_a_hold_of_any_form_is_read_as_held(raw: dict[str, Any]) -> None:
    intent = read_intent(json_bytes(raw))
    assert intent.hold or raw.get("hold") is None


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_a_record_or_a_value_error(data: bytes) -> None:
    for read in (read_intent, read_entry, read_generation):
        try:
            read(data)
        except ValueError:
            continue


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(scribbled, texts)
def test_a_decision_that_is_written_again_has_its_hold_and_every_key(raw: dict[str, Any], policy: str) -> None:
    with TemporaryDirectory() as root:
        store, file = Store(Path(root)), Path(root, "sites/shop/intent.json")
        store.write_intent("shop", read_intent(b"{}"))
        file.write_bytes(json_bytes(raw))
        before = store.intent("shop")
        store.write_intent("shop", replace(before, policy=policy))
        after, written = store.intent("shop"), json.loads(file.read_bytes())
        assert after.hold == before.hold
        assert raw.keys() - {"schema_version"} <= written.keys()
        assert {key: written[key] for key in raw.keys() & {"x"}} == {key: raw[key] for key in raw.keys() & {"x"}}
