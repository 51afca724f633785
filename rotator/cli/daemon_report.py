"""The part of `rotator status --verbose` about the running daemon: its periodic jobs, as it last reported them."""

from __future__ import annotations

from rotator.cli.output import Output
from rotator.core.text import escaped
from rotator.storage.notes import DaemonNote, JobNote

COLUMNS = ("job", "every", "last run", "next run", "what it does")


def show_daemon(note: DaemonNote, output: Output) -> None:
    """Shows the daemon and a table of its periodic jobs.

    Args:
        note: the daemon's note; an empty one if none is running.
        output: where it is shown.
    """
    output.line()
    if not note.pid:
        output.line("daemon   none is running, so no periodic job runs: systemctl start rotator", "warn")
        return
    at = f"its jobs as reported at {_second(note.reported)}" if note.jobs else "it has not reported its jobs yet"
    output.line(f"daemon   pid {note.pid}, running since {_second(note.since)}; {at}")
    if note.jobs:
        output.table(COLUMNS, [_row(job) for job in note.jobs])


def _row(job: JobNote) -> tuple[str, ...]:
    columns = (job.name, _interval(job.every), _second(job.last), _second(job.next), job.description)
    return tuple(map(escaped, columns))


def _interval(seconds: float) -> str:
    """Seconds in the largest unit that divides them: 15 s, 1 min, 24 h."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def _second(at: str) -> str:
    """A time of the note without its milliseconds."""
    return f"{escaped(at[:19])}Z" if at else "-"
