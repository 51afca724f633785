"""The schedule of the periodic jobs (APScheduler): when each of them is due, ran last and runs next.

The scheduler's thread only notes that a job is due and wakes the loop; the loop runs it in its next pass. APScheduler
goes by the wall clock. Two things keep the jobs running when that clock is set:

- A job's next run is counted from now, not from its last run: after a jump ahead each job runs once, not once for each
  interval that was skipped.
- A job that is late by the monotonic clock is due all the same, and the whole schedule is computed again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rotator.daemon.wake import Wake
from rotator.rotation.ports import Clock

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler  # type: ignore[import-untyped]  # it has no annotations

LATE_AFTER = 5.0
"""Seconds after which a job that the scheduler has not announced is late; for a short interval, half of it."""

_logger = logging.getLogger("apscheduler")
_logger.addHandler(logging.NullHandler())  # its lines would go to stderr past the journal's form
_logger.propagate = False


@dataclass(frozen=True, slots=True)
class PeriodicJob:
    """A job that the loop does again and again.

    Args:
        name: a stable kebab-case name.
        every: seconds between two runs.
        run: does it, or has the maintenance do it piece by piece.
        description: what it does, in one line.
    """

    name: str
    every: float
    run: Callable[[], object]
    description: str


@dataclass(frozen=True, slots=True)
class JobTimes:
    """The schedule of one job.

    Args:
        job: the job.
        last: when it ran last, UTC; None before its first run.
        next: when it runs next, UTC; None while the scheduler is not running.
    """

    job: PeriodicJob
    last: datetime | None
    next: datetime | None


class JobScheduler:
    """Decides when each job is due.

    Args:
        wake: set when a job becomes due.
        jobs: all jobs, in the order in which they run when several are due.
        clock: the time.
    """

    def __init__(self, wake: Wake, jobs: Sequence[PeriodicJob], clock: Clock) -> None:
        self._wake, self._clock = wake, clock
        self._jobs = {job.name: job for job in jobs}
        self._due: set[str] = set()
        self._counted_from = dict.fromkeys(self._jobs, clock.monotonic())
        self._last: dict[str, datetime] = {}
        self._scheduler: BackgroundScheduler | None = None

    def start(self) -> None:
        """Starts the scheduler's thread; each job runs for the first time after its interval."""
        from apscheduler.executors.debug import DebugExecutor  # type: ignore[import-untyped]  # it has no annotations
        from apscheduler.schedulers.background import BackgroundScheduler

        self._scheduler = BackgroundScheduler(
            executors={"default": DebugExecutor()},  # runs `_note` in the scheduler's own thread
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
            daemon=True,
        )
        self._counted_from = dict.fromkeys(self._jobs, self._clock.monotonic())
        for job in self._jobs.values():
            self._scheduler.add_job(self._note, _from_now(job.every), (job.name,), id=job.name, name=job.description)
        self._scheduler.start()

    def take(self) -> list[PeriodicJob]:
        """The jobs that are due now, in the order of the table; they count as run."""
        now = self._clock.monotonic()
        late = {name for name in self._jobs if now >= self._late_at(name)}
        due = late | self._due.copy()
        for name in due:
            self._due.discard(name)
            self._counted_from[name] = now
            self._last[name] = self._clock.now()
        if late:
            self._compute_again()
        return [job for name, job in self._jobs.items() if name in due]

    def late_at(self) -> float:
        """Monotonic time at which the first job is late: until then the loop may wait to be woken."""
        return min((self._late_at(name) for name in self._jobs), default=math.inf)

    def change_interval(self, name: str, every: float) -> None:
        """Another interval for a job. Its next run is counted from now.

        Args:
            name: the job's name.
            every: seconds between two runs.
        """
        job = self._jobs[name]
        if job.every == every:
            return
        self._jobs[name] = PeriodicJob(name, every, job.run, job.description)
        self._counted_from[name] = self._clock.monotonic()
        if self._scheduler is not None:
            self._scheduler.reschedule_job(name, trigger=_from_now(every))

    def times(self) -> tuple[JobTimes, ...]:
        """The schedule of every job, in the order of the table."""
        scheduled = {job.id: job.next_run_time for job in self._scheduler.get_jobs()} if self._scheduler else {}
        return tuple(JobTimes(job, self._last.get(name), scheduled.get(name)) for name, job in self._jobs.items())

    def close(self) -> None:
        """Ends the scheduler's thread."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)

    def _note(self, name: str) -> None:
        """Called in the scheduler's thread."""
        self._due.add(name)
        self._wake.set()

    def _late_at(self, name: str) -> float:
        every = self._jobs[name].every
        return self._counted_from[name] + every + min(every / 2, LATE_AFTER)

    def _compute_again(self) -> None:
        """Sets the next run of every job by the monotonic clock: the wall clock was set."""
        if self._scheduler is None:
            return
        wall, now = self._clock.now(), self._clock.monotonic()
        for name, job in self._jobs.items():
            left = max(0.0, self._counted_from[name] + job.every - now)
            self._scheduler.modify_job(name, next_run_time=wall + timedelta(seconds=left))


def _from_now(every: float) -> object:
    """A trigger whose next time is counted from now: it has no backlog after the wall clock was set ahead."""
    from apscheduler.triggers.base import BaseTrigger  # type: ignore[import-untyped]  # it has no annotations

    class FromNow(BaseTrigger):  # type: ignore[misc]  # APScheduler is not typed
        """Fires `every` seconds after the moment at which that is asked."""

        def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
            return now + timedelta(seconds=every)

    return FromNow()
