"""The schedule of the periodic jobs: each becomes due after its interval, whatever happens to the wall clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from rotator.daemon.scheduler import JobScheduler, PeriodicJob
from rotator.daemon.wake import Wake
from tests.support.simulator import SimClock
from tests.support.waiting import wait_until


@pytest.fixture
def wake() -> Iterator[Wake]:
    it = Wake()
    yield it
    it.close()


class WallClock:
    """The host's clock, whose wall time a test can set; APScheduler's `datetime.now` goes by it too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step = timedelta(0)
        clock = self

        class Datetime(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime will do
                return datetime.now(tz) + clock.step

        monkeypatch.setattr("apscheduler.schedulers.base.datetime", Datetime)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.step

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    return WallClock(monkeypatch)


Started = Callable[[float], JobScheduler]


@pytest.fixture
def started(wake: Wake, wall: WallClock) -> Iterator[Started]:
    """Starts a scheduler with the one job `scan`."""
    schedulers = []

    def start(every: float) -> JobScheduler:
        schedulers.append(JobScheduler(wake, [job("scan", every)], wall))
        schedulers[-1].start()
        return schedulers[-1]

    yield start
    for scheduler in schedulers:
        scheduler.close()


def job(name: str, every: float) -> PeriodicJob:
    return PeriodicJob(name, every, lambda: None, f"do {name}")


def names(scheduler: JobScheduler) -> list[str]:
    return [due.name for due in scheduler.take()]


# -- by the scheduler's thread


def test_a_job_that_is_due_wakes_the_loop_and_is_taken_once(started: Started, wake: Wake) -> None:
    scheduler = started(0.3)
    assert wake.wait(5)
    assert (names(scheduler), names(scheduler)) == (["scan"], [])


def test_the_next_run_is_shown_before_the_first_one(started: Started, wall: WallClock) -> None:
    (times,) = started(60.0).times()
    assert times.last is None
    assert times.next is not None
    assert timedelta(seconds=50) < times.next - wall.now() <= timedelta(seconds=60)


def test_the_last_run_is_shown_after_it(started: Started, wake: Wake, wall: WallClock) -> None:
    scheduler = started(0.3)
    assert wake.wait(5)
    scheduler.take()
    (times,) = scheduler.times()
    assert times.last is not None
    assert times.next is not None
    assert times.last <= wall.now() < times.next + timedelta(seconds=1)


def test_another_interval_counts_from_now(started: Started, wake: Wake, wall: WallClock) -> None:
    scheduler = started(3600.0)
    scheduler.change_interval("scan", 0.2)
    assert wake.wait(5)
    assert names(scheduler) == ["scan"]


def test_the_same_interval_again_moves_no_run(started: Started) -> None:
    scheduler = started(3600.0)
    before = scheduler.times()
    scheduler.change_interval("scan", 3600.0)
    assert scheduler.times() == before


def test_no_thread_is_left_after_the_end(started: Started) -> None:
    scheduler = started(60.0)
    scheduler.close()
    wait_until(lambda: not [t for t in threading.enumerate() if "APScheduler" in t.name], 5)
    assert [times.next for times in scheduler.times()] == [None]


# -- when the wall clock is set


def test_a_wall_clock_that_is_set_back_an_hour_stops_no_job(started: Started, wall: WallClock) -> None:
    scheduler = started(0.2)
    wall.step = timedelta(hours=-1)
    runs = 0
    end = time.monotonic() + 10
    while runs < 5 and time.monotonic() < end:
        runs += len(scheduler.take())
        time.sleep(0.01)
    assert runs == 5
    (times,) = scheduler.times()
    assert times.next is not None
    assert abs(times.next - wall.now()) < timedelta(seconds=5)


def test_a_wall_clock_that_is_set_ahead_thirty_days_leaves_no_backlog(
    started: Started, wake: Wake, wall: WallClock
) -> None:
    scheduler = started(0.2)
    wall.step = timedelta(days=30)
    begun = time.process_time()
    for _ in range(3):
        assert wake.wait(5)
        assert names(scheduler) == ["scan"]
    assert time.process_time() - begun < 1.0


# -- by the monotonic clock alone


@pytest.mark.parametrize(("every", "late_at"), [(1.0, 1.5), (60.0, 65.0), (3600.0, 3605.0)])
def test_a_job_that_the_scheduler_forgot_is_due_by_the_monotonic_clock(
    wake: Wake, every: float, late_at: float
) -> None:
    clock = SimClock()
    scheduler = JobScheduler(wake, [job("probe", every)], clock)
    assert scheduler.late_at() == late_at
    clock.sleep(late_at - 0.1)
    assert names(scheduler) == []
    clock.sleep(0.2)
    assert (names(scheduler), names(scheduler)) == (["probe"], [])


def test_jobs_that_are_due_together_run_in_the_order_of_the_table(wake: Wake) -> None:
    clock = SimClock()
    table = ["trust", "validate", "a", "b", "c"]
    scheduler = JobScheduler(wake, [job(name, 3600.0) for name in table], clock)
    clock.sleep(4000.0)
    assert names(scheduler) == table


def test_the_loop_waits_until_the_first_job_would_be_late(wake: Wake) -> None:
    clock = SimClock()
    scheduler = JobScheduler(wake, [job("probe", 60.0), job("scan", 15.0)], clock)
    assert scheduler.late_at() == 20.0
    clock.sleep(20.0)
    assert names(scheduler) == ["scan"]
    assert scheduler.late_at() == 40.0


def test_apscheduler_writes_nothing_past_the_journal() -> None:
    assert not logging.getLogger("apscheduler").propagate
