"""The entries of the history as types, with one reader and one writer; the rules of records are in `records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rotator.core.model import Outcome
from rotator.core.times import rfc3339_millis
from rotator.storage import fields
from rotator.storage.fields import Keys

ENTRY_VERSION = 1


@dataclass(frozen=True, slots=True)
class ProblemEntry:
    """One problem in an entry of the history: a newer version may have codes that this one does not know."""

    code: str = ""
    severity: str = ""
    message: str = ""
    recorded_hint: str = ""
    file: str = ""
    line: int = 0
    unknown: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of the history: an outcome, who caused it, and the leaves that it is about.

    The fields that are not listed are those of `Outcome`, with text for enumerations and seconds for durations.

    Args:
        site: the site's name; empty where the line has none.
        result: how it ended (`Result`; a newer version may have others).
        at: when, UTC; None where the line has no time.
        who: the user, or `rotatord`.
        recorded_hint: the hint at that time, for who reads the file. No command shows it as the next step, because the
            store's owner reads untrusted bytes, and a person pastes hints.
        trigger: `swap`, `rollback`, `drop`, `recover` …
        fingerprints: SHA-256 of the leaves, by kind of key.
        schema_version: of the line.
        unknown: keys of a newer version, kept as they are.
    """

    site: str = ""
    result: str = ""
    at: datetime | None = None
    reason: str = ""
    message: str = ""
    recorded_hint: str = ""
    problems: tuple[ProblemEntry, ...] = ()
    generation: str = ""
    previous: str = ""
    live: str = ""
    proof: str = ""
    unproved: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    nginx_words: tuple[str, ...] = ()
    who: str = ""
    trigger: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = field(default=ENTRY_VERSION, compare=False)
    unknown: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, outcome: Outcome, *, who: str, trigger: str, fingerprints: Mapping[str, str]) -> HistoryEntry:
        """The entry of an outcome.

        Args:
            outcome: the outcome.
            who: the user, or `rotatord`.
            trigger: what caused it.
            fingerprints: SHA-256 of the leaves that it is about, by kind of key.
        """
        problems = tuple(
            ProblemEntry(str(p.code), str(p.severity), p.message, p.hint, p.file, p.line) for p in outcome.problems
        )
        return cls(
            outcome.site,
            str(outcome.result),
            outcome.at,
            outcome.reason,
            outcome.message,
            outcome.hint,
            problems,
            outcome.generation,
            outcome.previous,
            outcome.live,
            outcome.proof,
            outcome.unproved,
            {stage: round(seconds, 6) for stage, seconds in outcome.stages.items()},
            outcome.nginx_words,
            who,
            trigger,
            dict(fingerprints),
        )


def read_entry(line: bytes) -> HistoryEntry:
    """One line of the history.

    Raises:
        ValueError: it is no JSON object, or its site is no text.
    """
    keys = Keys.of(line)
    version = keys.version(ENTRY_VERSION)
    entry = HistoryEntry(
        keys.take("site", fields.text, ""),
        keys.take("result", fields.text, ""),
        keys.take("at", fields.time, None),
        keys.take("reason", fields.text, ""),
        keys.take("message", fields.text, ""),
        keys.take("hint", fields.text, ""),
        keys.take("problems", _problems, ()),
        keys.take("generation", fields.text, ""),
        keys.take("previous", fields.text, ""),
        keys.take("live", fields.text, ""),
        keys.take("proof", fields.text, ""),
        keys.take("unproved", fields.texts, ()),
        keys.take("stages", fields.number_by_text, {}),
        keys.take("nginx_words", fields.texts, ()),
        keys.take("who", fields.text, ""),
        keys.take("trigger", fields.text, ""),
        keys.take("fingerprints", fields.text_by_text, {}),
        version,
        keys.unknown,
    )
    if "site" in keys.faulty:
        raise ValueError("its site is no text")
    return entry


def entry_object(entry: HistoryEntry) -> dict[str, object]:
    """The JSON object of a line of the history; `site` comes first, by which a reader knows a line unparsed."""
    problems = [
        {
            **p.unknown,
            "code": p.code,
            "severity": p.severity,
            "message": p.message,
            "hint": p.recorded_hint,
            "file": p.file,
            "line": p.line,
        }
        for p in entry.problems
    ]
    return {
        "site": entry.site,
        "schema_version": max(entry.schema_version, ENTRY_VERSION),
        "result": entry.result,
        "at": rfc3339_millis(entry.at) if entry.at else "",
        "reason": entry.reason,
        "message": entry.message,
        "hint": entry.recorded_hint,
        "problems": problems,
        "generation": entry.generation,
        "previous": entry.previous,
        "live": entry.live,
        "proof": entry.proof,
        "unproved": list(entry.unproved),
        "stages": dict(entry.stages),
        "nginx_words": list(entry.nginx_words),
        "who": entry.who,
        "trigger": entry.trigger,
        "fingerprints": dict(entry.fingerprints),
    } | {key: value for key, value in entry.unknown.items() if key not in _ENTRY_KEYS}


def _problems(value: list[Mapping[str, object]]) -> tuple[ProblemEntry, ...]:
    return tuple(map(_problem, value))


def _problem(raw: Mapping[str, object]) -> ProblemEntry:
    keys = Keys(raw)
    return ProblemEntry(
        keys.take("code", fields.text, ""),
        keys.take("severity", fields.text, ""),
        keys.take("message", fields.text, ""),
        keys.take("hint", fields.text, ""),
        keys.take("file", fields.text, ""),
        keys.take("line", fields.whole, 0),
        keys.unknown,
    )


_ENTRY_KEYS = frozenset(entry_object(HistoryEntry()))
