"""The notes of lock holders as types, each with one reader and one writer; the rules of records are in `records`.

A note is one line of JSON in `lock.json` or `daemon.json`, whose writer holds the lock. It lives as long as its writer,
so that only versions of rotator that run at the same time read each other's notes: a command and the daemon around an
upgrade. Rotator 0.1 writes its notes into the lock files themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rotator.core.text import escaped
from rotator.core.times import rfc3339_millis
from rotator.storage import fields
from rotator.storage.fields import Keys

NOTE_VERSION = 1


@dataclass(frozen=True, slots=True)
class RotationNote:
    """The note of the process that holds the rotation lock.

    Args:
        pid: the process; 0 where the file has no note.
        who: the user.
        since: since when it holds the lock, RFC 3339.
        in_flight: sites between their old and their new generation.
        reloaded: when a recovery of these sites has had nginx reloaded, UTC; None if none has.
    """

    pid: int = 0
    who: str = ""
    since: str = ""
    in_flight: tuple[str, ...] = ()
    reloaded: datetime | None = None

    def __str__(self) -> str:
        return f"pid {self.pid or '?'} ({escaped(self.who) or '?'}, since {escaped(self.since) or '?'})"


@dataclass(frozen=True, slots=True)
class JobNote:
    """The schedule of one periodic job of the daemon, at the time of the report.

    Args:
        name: its name.
        every: seconds between two runs.
        last: when it ran last, RFC 3339; empty before its first run.
        next: when it runs next, RFC 3339.
        description: what it does, in one line.
    """

    name: str
    every: float
    last: str
    next: str
    description: str


@dataclass(frozen=True, slots=True)
class UndecidedNote:
    """A drop that has waited for a decision for long, at the time of the report.

    Args:
        site: the site's name.
        since: since when it waits, UTC; None if that cannot be read.
    """

    site: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class DaemonNote:
    """The note of the running daemon.

    Args:
        pid: the process; 0 where the file has no note.
        since: since when it runs, RFC 3339.
        config: the configuration file that it reads; empty until it is ready.
        loads: how often it has read that file; 0 until it is ready.
        refused: why it refused the file that it read last; empty if it accepted it.
        reported: when the times of the jobs were written, RFC 3339; empty until it is ready.
        jobs: its periodic jobs.
        undecided: the drops that have waited for a decision for long.
    """

    pid: int = 0
    since: str = ""
    config: str = ""
    loads: int = 0
    refused: str = ""
    reported: str = ""
    jobs: tuple[JobNote, ...] = ()
    undecided: tuple[UndecidedNote, ...] = ()


def read_rotation_note(data: bytes) -> RotationNote:
    """The note in the first line of `lock.json`; an empty one where that is none."""
    keys = _keys(data)
    return RotationNote(
        keys.take("pid", fields.whole, 0),
        keys.take("who", fields.text, ""),
        keys.take("since", fields.text, ""),
        keys.take("in_flight", fields.texts, ()),
        keys.take("reloaded", fields.time, None),
    )


def read_daemon_note(data: bytes) -> DaemonNote:
    """The note in the first line of `daemon.json`; an empty one where that is none."""
    keys = _keys(data)
    return DaemonNote(
        keys.take("pid", fields.whole, 0),
        keys.take("since", fields.text, ""),
        keys.take("config", fields.text, ""),
        keys.take("loads", fields.whole, 0),
        keys.take("refused", fields.text, ""),
        keys.take("reported", fields.text, ""),
        keys.take("jobs", _jobs, ()),
        keys.take("undecided", _undecided, ()),
    )


def rotation_note_object(note: RotationNote) -> dict[str, object]:
    """The JSON object of `lock.json`."""
    return {
        "schema_version": NOTE_VERSION,
        "pid": note.pid,
        "who": note.who,
        "since": note.since,
        "in_flight": list(note.in_flight),
        "reloaded": rfc3339_millis(note.reloaded) if note.reloaded else None,
    }


def daemon_note_object(note: DaemonNote) -> dict[str, object]:
    """The JSON object of `daemon.json`."""
    return {
        "schema_version": NOTE_VERSION,
        "pid": note.pid,
        "since": note.since,
        "config": note.config,
        "loads": note.loads,
        "refused": note.refused,
        "reported": note.reported,
        "jobs": [
            {
                "name": job.name,
                "every": job.every,
                "last": job.last,
                "next": job.next,
                "description": job.description,
            }
            for job in note.jobs
        ],
        "undecided": [
            {"site": drop.site, "since": rfc3339_millis(drop.since) if drop.since else ""} for drop in note.undecided
        ],
    }


def _jobs(value: object) -> tuple[JobNote, ...]:
    """An array of jobs."""
    if not isinstance(value, list):
        raise TypeError("no array")
    return tuple(_job(Keys(job)) for job in value)


def _job(keys: Keys) -> JobNote:
    return JobNote(
        keys.take("name", fields.text, ""),
        keys.take("every", fields.number, 0.0),
        keys.take("last", fields.text, ""),
        keys.take("next", fields.text, ""),
        keys.take("description", fields.text, ""),
    )


def _undecided(value: object) -> tuple[UndecidedNote, ...]:
    """An array of undecided drops."""
    if not isinstance(value, list):
        raise TypeError("no array")
    drops = [Keys(drop) for drop in value]
    return tuple(UndecidedNote(d.take("site", fields.text, ""), d.take("since", fields.time, None)) for d in drops)


def _keys(data: bytes) -> Keys:
    try:
        return Keys.of(data.partition(b"\n")[0])
    except ValueError:
        return Keys({})
