"""The JSON answers of the commands with their versions; `rotator/manual/formats.md` lists every key.

Programs rely on them for years, so they are independent of the records on the disk and of the types in the code. A key
may be added; no key is removed or changes its meaning. Each answer has a version of its own, which rises with a new
key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rotator.core.errors import Exit
from rotator.core.lifetime import share_of_life_left
from rotator.core.model import Outcome
from rotator.core.problems import Problem
from rotator.core.times import rfc3339_millis
from rotator.rotation.next_steps import next_step

if TYPE_CHECKING:  # `rotator check` does not need these imports
    from pathlib import Path

    from rotator.cli.manual import Entry, Page, Section
    from rotator.config import Config, Mistake
    from rotator.demo.runner import DemoResult
    from rotator.rotation.observe import Observation
    from rotator.storage.entries import HistoryEntry
    from rotator.storage.held_lock import HeldLock
    from rotator.storage.notes import DaemonNote, RotationNote
    from rotator.storage.records import Intent

OUTCOME_VERSION = 1
HISTORY_VERSION = 1
AWAITED_VERSION = 1
STATUS_VERSION = 3
CHECK_VERSION = 1
PROBE_VERSION = 1
DELIVERY_VERSION = 1
CONFIG_CHECK_VERSION = 3
CONFIG_RELOAD_VERSION = 1
HELP_VERSION = 1
DEMO_VERSION = 2
DEMO_RENEWAL_VERSION = 1


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
        "hint": next_step(entry.reason, entry.site),
        "problems": [
            {
                "code": problem.code,
                "severity": problem.severity,
                "message": problem.message,
                "hint": next_step(problem.code, entry.site),
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
    sites: Sequence[Mapping[str, object]],
    daemon: DaemonNote,
    lock: HeldLock[RotationNote] | None,
    at: datetime,
    exit: int,
) -> dict[str, object]:
    """The answer of `status`.

    Args:
        sites: a `site_answer` each.
        daemon: the note of the running daemon; an empty one if none is running.
        lock: the rotation lock, if it is held.
        at: the time of the observation, UTC.
        exit: the exit status.
    """
    return {
        "schema_version": STATUS_VERSION,
        "at": at,
        "sites": list(sites),
        "daemon": daemon_answer(daemon) if daemon.pid else None,
        "lock": lock_answer(lock) if lock else None,
        "exit": exit,
    }


def lock_answer(lock: HeldLock[RotationNote]) -> dict[str, object]:
    """The held rotation lock in the answer of `status`."""
    note = lock.note
    return {
        "holder": str(lock),
        "pid": note.pid or None,
        "who": note.who or None,
        "since": note.since or None,
        "sites": list(note.in_flight),
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
    undecided_since: datetime | None = None,
) -> dict[str, object]:
    """One site in the answer of `status`.

    Args:
        facts: as they were observed.
        last: the newest entry of its history.
        span: notBefore and effective expiry of the live pair that expires first; None without one.
        now: the time of the observation, UTC.
        changed: whether the content of the drop differs from the held content; None if unknown or not held.
        undecided_since: since when the content of the drop waits for a decision, UTC, if that is long.
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
            "undecided_since": undecided_since,
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


def delivery_answer(
    site: str, drop: Path, files: Sequence[tuple[str, Path, int]], *, uid: int, made: bool, dry_run: bool
) -> dict[str, object]:
    """The answer of `deliver` without `--wait`.

    Args:
        site: the site's name.
        drop: the drop of the site.
        files: the name, the path in the drop and the size in bytes of each file.
        uid: the user who owns the files in the drop.
        made: whether the drop did not exist before.
        dry_run: whether nothing was written.
    """
    return {
        "schema_version": DELIVERY_VERSION,
        "site": site,
        "drop": drop,
        "dry_run": dry_run,
        "uid": uid,
        "made_drop": made,
        "files": [{"from": name, "to": target, "bytes": size} for name, target, size in files],
    }


def config_check_answer(
    file: Path,
    config: Config | None,
    mistakes: Sequence[Mistake],
    missing: Sequence[str],
    without_effect: Sequence[str],
    unsafe: Sequence[str],
) -> dict[str, object]:
    """The answer of `config check`.

    Args:
        file: the configuration file.
        config: the configuration; None if it has a mistake.
        mistakes: in the order of the lines.
        missing: a note for each missing file that the configuration names.
        without_effect: a note for each setting that has no effect because of another one.
        unsafe: a note for each directory with rights that let other users replace or own a drop.
    """
    return {
        "schema_version": CONFIG_CHECK_VERSION,
        "ok": config is not None,
        "file": file,
        "mistakes": [
            {"line": mistake.line, "key": mistake.key, "message": mistake.message, "hint": mistake.hint}
            for mistake in mistakes
        ],
        "sites": [site_config.site.name for site_config in (config.sites if config else ())],
        "missing": list(missing),
        "without_effect": list(without_effect),
        "unsafe": list(unsafe),
    }


def config_reload_answer(pid: int, file: Path, sites: int) -> dict[str, object]:
    """The answer of `config reload`.

    Args:
        pid: the process of the daemon.
        file: the configuration file that is in force.
        sites: the number of its sites.
    """
    return {"schema_version": CONFIG_RELOAD_VERSION, "pid": pid, "config": file, "sites": sites}


def help_topics_answer(pages: Sequence[Page]) -> dict[str, object]:
    """The answer of `help` without an argument."""
    return {"schema_version": HELP_VERSION, "topics": [{"topic": page.name, "line": page.line} for page in pages]}


def help_topic_answer(page: Page) -> dict[str, object]:
    """The answer of `help TOPIC`."""
    return {"schema_version": HELP_VERSION, "topic": page.name, "line": page.line, "text": page.text}


def help_word_answer(word: str, usage: str, entries: Sequence[Entry], sections: Sequence[Section]) -> dict[str, object]:
    """The answer of `help WORD`.

    Args:
        word: the word.
        usage: the `--help` of the command with this name; empty if there is none.
        entries: the rows of the manual that explain it.
        sections: the sections whose heading has it.
    """
    from rotator.cli.manual import without_marks  # the other commands do not need the manual

    return {
        "schema_version": HELP_VERSION,
        "word": word,
        "command": usage or None,
        "entries": [
            {
                "words": list(entry.words),
                "topic": entry.page,
                "section": without_marks(entry.section),
                "cells": {title: without_marks(cell) for title, cell in entry.cells},
            }
            for entry in entries
        ],
        "sections": [{"topic": section.page, "section": section.title, "text": section.text} for section in sections],
    }


def demo_answer(result: DemoResult) -> dict[str, object]:
    """The answer of `demo`."""
    return {
        "schema_version": DEMO_VERSION,
        "passed": result.passed,
        "nginx": result.nginx,
        "seconds": round(result.seconds, 3),
        "connections": {"answered": result.answered, "failed": result.failed},
        "scenarios": [
            {
                "number": scenario.number,
                "title": scenario.title,
                "passed": scenario.passed,
                "seconds": round(scenario.seconds, 3),
                "stages": {stage: round(milliseconds / 1000, 6) for stage, milliseconds in scenario.stages.items()},
                "checks": [
                    {"what": check.what, "passed": check.passed, "found": check.actual or None}
                    for check in scenario.checks
                ],
            }
            for scenario in result.scenarios
        ],
        "exit": int(Exit.DONE if result.passed else Exit.FAILURE),
    }


def demo_renewal_answer(chain: Path, key: Path, drop: Path) -> dict[str, object]:
    """The answer of `demo --renew`.

    Args:
        chain: the file with the new chain.
        key: the file with its key.
        drop: the drop in which to put them.
    """
    return {"schema_version": DEMO_RENEWAL_VERSION, "cert": chain, "key": key, "drop": drop}
