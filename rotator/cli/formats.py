"""The JSON answers about outcomes, each built in one place; `rotator/manual/formats.md` lists every key.

Programs rely on them for years, so they are independent of the records on the disk and of the types in the code. A key
may be added; no key is removed or changes its meaning. Each answer has a version of its own, which rises with a new
key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rotator.core.lifetime import share_of_life_left
from rotator.core.model import Outcome
from rotator.core.problems import Problem
from rotator.core.times import rfc3339_millis

if TYPE_CHECKING:  # `rotator check` does not need these imports
    from rotator.rotation.observe import Observation
    from rotator.storage.entries import HistoryEntry
    from rotator.storage.notes import DaemonNote
    from rotator.storage.records import Intent

OUTCOME_VERSION = 1
HISTORY_VERSION = 1
AWAITED_VERSION = 1
STATUS_VERSION = 2
CHECK_VERSION = 1
PROBE_VERSION = 1


def outcome_answer(outcome: Outcome, exit: int) -> dict[str, object]:
    """The answer of `swap` and `rollback`.

    Args:
        outcome: the outcome.
        exit: the exit status.
    """
    return {
        "schema_version": OUTCOME_VERSION,
        "site": outcome.site,
        "result": str(outcome.result),
        "at": rfc3339_millis(outcome.at),
        "reason": outcome.reason,
        "message": outcome.message,
        "hint": outcome.hint,
        "problems": [problem_answer(problem) for problem in outcome.problems],
        "generation": outcome.generation,
        "previous": outcome.previous,
        "live": outcome.live,
        "proof": outcome.proof,
        "unproved": list(outcome.unproved),
        "stages": {stage: round(seconds, 6) for stage, seconds in outcome.stages.items()},
        "nginx_words": list(outcome.nginx_words),
        "exit": exit,
    }


def problem_answer(problem: Problem) -> dict[str, object]:
    """One problem of an answer."""
    return {
        "code": str(problem.code),
        "severity": str(problem.severity),
        "message": problem.message,
        "hint": problem.hint,
        "file": problem.file,
        "line": problem.line,
    }


def entry_answer(entry: HistoryEntry) -> dict[str, object]:
    """One entry of the history, as `history`, `status` and `deliver --wait` show it."""
    return {
        "schema_version": HISTORY_VERSION,
        "site": entry.site,
        "result": entry.result,
        "at": rfc3339_millis(entry.at) if entry.at else None,
        "reason": entry.reason,
        "message": entry.message,
        "hint": entry.hint,
        "problems": [
            {
                "code": problem.code,
                "severity": problem.severity,
                "message": problem.message,
                "hint": problem.hint,
                "file": problem.file,
                "line": problem.line,
            }
            for problem in entry.problems
        ],
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
    }


def history_answer(site: str, entries: Sequence[HistoryEntry]) -> dict[str, object]:
    """The answer of `history`.

    Args:
        site: the site's name.
        entries: oldest first.
    """
    return {"schema_version": HISTORY_VERSION, "site": site, "entries": [entry_answer(entry) for entry in entries]}


def awaited_answer(site: str, intent: Intent, last: HistoryEntry | None, exit: int) -> dict[str, object]:
    """The answer of `deliver --wait`.

    Args:
        site: the site's name.
        intent: the decision.
        last: the entry of the history about it; None where it has none.
        exit: the exit status.
    """
    return {
        "schema_version": AWAITED_VERSION,
        "site": site,
        "result": intent.result,
        "reason": intent.reason,
        "outcome": entry_answer(last) if last else None,
        "exit": exit,
    }


def status_answer(
    sites: Sequence[Mapping[str, object]], daemon: DaemonNote, at: datetime, exit: int
) -> dict[str, object]:
    """The answer of `status`.

    Args:
        sites: a `site_answer` each.
        daemon: the note of the running daemon; an empty one if none is running.
        at: the time of the observation, UTC.
        exit: the exit status.
    """
    return {
        "schema_version": STATUS_VERSION,
        "at": at,
        "sites": list(sites),
        "daemon": daemon_answer(daemon) if daemon.pid else None,
        "exit": exit,
    }


def daemon_answer(note: DaemonNote) -> dict[str, object]:
    """The running daemon in the answer of `status`, as its note has it."""
    return {
        "pid": note.pid,
        "since": note.since or None,
        "reported": note.reported or None,
        "jobs": [
            {
                "name": job.name,
                "every": job.every,
                "last": job.last or None,
                "next": job.next or None,
                "description": job.description,
            }
            for job in note.jobs
        ],
    }


def site_answer(
    facts: Observation,
    last: HistoryEntry | None,
    span: tuple[datetime, datetime] | None,
    now: datetime,
    *,
    changed: bool | None,
) -> dict[str, object]:
    """One site in the answer of `status`.

    Args:
        facts: as they were observed.
        last: the newest entry of its history.
        span: notBefore and effective expiry of the live pair that expires first; None without one.
        now: the time of the observation, UTC.
        changed: whether the content of the drop differs from the held content; None if unknown or not held.
    """
    workers, hold = facts.workers, facts.intent.hold
    return {
        "site": facts.site.name,
        "names": list(facts.site.names),
        "well": facts.well,
        "wanted": {
            "result": facts.intent.result,
            "reason": facts.intent.reason,
            "next_try": facts.intent.next_try or None,
            "held_by": hold.by if hold else None,
            "held_since": hold.since or None if hold else None,
            "drop_changed_since": changed,
            "note": facts.intent.caveat or None,
        },
        "on_disk": {
            "generation": facts.live.name if facts.live else None,
            "verified": facts.verified or None,
            "problem": facts.problem or None,
            "fingerprints": [pair.fingerprint for pair in (facts.live.record.pairs if facts.live else ())],
            "not_after": span[1] if span else None,
            "seconds_left": (span[1] - now).total_seconds() if span else None,
            "share_of_life_left": round(share_of_life_left(*span, now), 4) if span else None,
        },
        "served": [
            {
                "listener": seen.served.target.listener,
                "name": seen.served.target.name,
                "key_type": seen.served.target.key_type,
                "matches_disk": seen.matches,
                "failure": seen.difference or None,
            }
            for seen in facts.seen
        ],
        "nginx": None
        if workers is None
        else {"master": workers.master, "active": len(workers.active), "draining": len(workers.draining)},
        "last": entry_answer(last) if last else None,
    }
