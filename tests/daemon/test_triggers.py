"""What wakes the loop: events of real directories, duties, signals; and that their loss is harmless."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rotator.daemon.triggers import MOST_TOUCHED, MOST_WATCHES, PeriodicJobs, Throttle, Wake, Watcher
from rotator.sources.drop_directory import DropDirectories, DropLocation
from tests.support.waiting import wait_until


@pytest.fixture
def wake() -> Iterator[Wake]:
    it = Wake()
    yield it
    it.close()


@pytest.fixture
def watcher(wake: Wake, tmp_path: Path) -> Iterator[Watcher]:
    it = Watcher(wake, told.append)
    told.clear()
    (tmp_path / "a").mkdir()
    it.watch({tmp_path}, directories(tmp_path))
    assert wake.wait(5)  # what happened before the watch
    yield it
    it.close()


told: list[str] = []


def directories(top: Path) -> Mapping[Path, tuple[int, int]]:
    """As the look at the drops finds them."""
    drops = DropDirectories(top, [DropLocation("a", top / "a")])
    drops.look()
    return drops.directories


def quiet(wake: Wake) -> bool:
    """Whether nothing comes for a while after what has come."""
    while wake.wait(0.3):
        pass
    return not wake.wait(0.2)


# -- Wake


def test_nothing_wakes_nobody(wake: Wake) -> None:
    begun = time.monotonic()
    assert not wake.wait(0.05)
    assert time.monotonic() - begun >= 0.045


def test_many_settings_are_one_wake(wake: Wake) -> None:
    for _ in range(1000):
        wake.set()
    assert wake.wait(0)
    assert not wake.wait(0)


def test_another_thread_ends_the_wait(wake: Wake) -> None:
    thread = threading.Timer(0.05, wake.set)
    thread.start()
    assert wake.wait(5)
    thread.join()


def test_a_signal_handler_ends_the_wait(wake: Wake) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: wake.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert wake.wait(5)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_setting_one_that_is_closed_is_harmless() -> None:
    wake = Wake()
    wake.close()
    wake.set()
    wake.close()


# -- Watcher


@pytest.mark.parametrize("way", ["create", "write", "rename", "delete", "mkdir", "flat"])
def test_a_change_in_a_drop_wakes(watcher: Watcher, wake: Wake, tmp_path: Path, way: str) -> None:
    path = tmp_path / "a" / "chain.pem"
    if way in ("write", "rename", "delete"):
        path.write_bytes(b"x")
        assert quiet(wake)
    match way:
        case "create":
            path.write_bytes(b"x")
        case "write":
            with path.open("ab") as f:
                f.write(b"y")
        case "rename":
            path.rename(path.with_name("other.pem"))
        case "delete":
            path.unlink()
        case "mkdir":
            (tmp_path / "b").mkdir()
        case "flat":
            (tmp_path / "a.crt").write_bytes(b"x")
    assert wake.wait(5)


def test_what_was_touched_is_told_once(watcher: Watcher, wake: Wake, tmp_path: Path) -> None:
    watcher.touched()
    (tmp_path / "a" / "new").write_bytes(b"x")
    (tmp_path / "a" / "new").rename(tmp_path / "a" / "chain.pem")
    assert quiet(wake)
    assert watcher.touched() == frozenset({f"{tmp_path}/a/new", f"{tmp_path}/a/chain.pem"})
    assert watcher.touched() == frozenset()


def test_what_was_touched_before_a_watch_was_new_is_not_known(watcher: Watcher) -> None:
    assert watcher.touched() is None


def test_what_was_touched_is_not_known_once_events_were_lost(watcher: Watcher) -> None:
    watcher.touched()
    logging.getLogger("watchdog").warning("Queue overflow occurred")
    assert watcher.touched() is None
    assert watcher.touched() == frozenset()


def test_what_was_touched_is_not_known_where_it_is_much(watcher: Watcher, wake: Wake, tmp_path: Path) -> None:
    watcher.touched()
    for number in range(MOST_TOUCHED + 1):
        (tmp_path / "a" / f"{number}").touch()
    assert quiet(wake)
    assert watcher.touched() is None


def test_what_was_touched_is_not_known_while_nothing_can_be_watched(
    wake: Wake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    watcher = Watcher(wake)
    with monkeypatch.context() as patch:
        patch.setattr("watchdog.observers.api.BaseObserver.schedule", none_left)
        watcher.watch({tmp_path}, directories(tmp_path))
    assert watcher.trouble
    assert [watcher.touched() for _ in range(2)] == [None, None]
    watcher.close()


def test_a_drop_that_is_made_later_is_watched_too(watcher: Watcher, wake: Wake, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert quiet(wake)
    (tmp_path / "b" / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)


def test_our_own_reading_wakes_nobody(watcher: Watcher, wake: Wake, tmp_path: Path) -> None:
    path = tmp_path / "a" / "chain.pem"
    path.write_bytes(b"x")
    assert quiet(wake)
    for _ in range(10):
        path.read_bytes()
        os.listdir(path.parent)
        directories(tmp_path)
    assert not wake.wait(0.3)


def test_watching_what_is_watched_costs_nothing(watcher: Watcher, wake: Wake, tmp_path: Path) -> None:
    for _ in range(10):
        watcher.watch({tmp_path}, directories(tmp_path))
    assert (watcher.rearmed, wake.wait(0)) == (0, False)


def test_a_drop_that_became_another_directory_is_watched_anew(watcher: Watcher, wake: Wake, tmp_path: Path) -> None:
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    (tmp_path / "a").mkdir()
    watcher.watch({tmp_path}, directories(tmp_path))
    assert watcher.rearmed == 1
    assert quiet(wake)
    (tmp_path / "a" / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)


def test_an_incoming_directory_that_went_and_came_back_is_watched_anew(
    watcher: Watcher, wake: Wake, tmp_path: Path
) -> None:
    top = tmp_path / "a"
    watcher.watch({top}, {top: (1, 1)})
    top.rmdir()
    watcher.watch({top}, {})
    top.mkdir()
    watcher.watch({top}, {top: (1, 2)})
    assert quiet(wake)
    (top / "x.pem").write_bytes(b"x")
    assert wake.wait(5)


def test_a_watcher_that_died_is_replaced(watcher: Watcher, wake: Wake, tmp_path: Path) -> None:
    assert watcher._observer is not None
    watcher._observer.stop()
    watcher._observer.join(5)
    watcher.watch({tmp_path}, directories(tmp_path))
    assert quiet(wake)
    (tmp_path / "a" / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)


def test_what_cannot_be_watched_is_told_once_and_raises_nothing(wake: Wake, tmp_path: Path) -> None:
    watcher = Watcher(wake, told.append)
    told.clear()
    gone = tmp_path / "gone"
    for number in range(3):
        watcher.watch({gone}, {gone: (0, number)})
    assert len(told) == 1
    gone.mkdir()
    watcher.watch({gone}, {gone: (9, 9)})
    assert told[1:] == [""]
    watcher.close()


def test_what_cannot_be_watched_is_tried_again_after_a_while_and_keeps_nobody_awake(wake: Wake, tmp_path: Path) -> None:
    now = [100.0]
    watcher = Watcher(wake, told.append, lambda: now[0])
    gone = tmp_path / "gone"
    homes = {gone: (0, 0)}
    watcher.watch({gone}, homes)
    assert wake.wait(0)
    for _ in range(20):
        now[0] += 1.0
        watcher.watch({gone}, homes)
    assert (watcher.rearmed, wake.wait(0)) == (4, False)
    gone.mkdir()
    now[0] += 5.0
    watcher.watch({gone}, homes)
    assert (watcher.trouble, quiet(wake)) == ("", True)
    (gone / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)
    watcher.close()


def test_more_directories_than_can_be_watched_are_left_to_the_look(wake: Wake, tmp_path: Path) -> None:
    watcher = Watcher(wake)
    top = tmp_path / "incoming"
    top.mkdir()
    many = {top: (0, 0)}
    for number in range(MOST_WATCHES + 10):
        one = tmp_path / f"source{number}"
        one.mkdir()
        many[one] = (0, number)
    watcher.watch({top}, many)
    assert watcher._observer is not None
    assert len(watcher._observer.emitters) == MOST_WATCHES + 1
    watcher.close()


def test_nothing_is_left_after_the_end(wake: Wake, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    watcher = Watcher(wake)
    watcher.watch({tmp_path}, directories(tmp_path))
    watcher.close()
    wait_until(lambda: set(threading.enumerate()) <= before, 5)


def test_an_overflow_of_the_queue_is_counted_and_wakes(watcher: Watcher, wake: Wake) -> None:
    assert quiet(wake)
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    assert (watcher.overflows.count, wake.wait(0)) == (1, True)


def test_after_a_storm_the_next_change_is_seen(tmp_path: Path, wake: Wake) -> None:
    (tmp_path / "a").mkdir()
    watcher = Watcher(wake)
    watcher.watch({tmp_path}, directories(tmp_path))
    path = tmp_path / "a" / "x.pem"
    for _ in range(5_000):
        path.write_bytes(b"x")
    assert quiet(wake)
    path.write_bytes(b"y")
    assert wake.wait(5)
    watcher.close()


def test_the_libraries_say_nothing_past_the_journal() -> None:
    assert not logging.getLogger("watchdog").propagate
    assert not logging.getLogger("apscheduler").propagate


# -- Duties


def test_a_duty_becomes_due_and_is_taken_once(wake: Wake) -> None:
    jobs = PeriodicJobs(wake, {"probe": 0.05})
    jobs.start()
    try:
        assert wake.wait(5)
        assert jobs.take() == {"probe"}
    finally:
        jobs.close()
    wait_until(lambda: not [t for t in threading.enumerate() if "APScheduler" in t.name], 5)


def test_a_duty_that_the_scheduler_forgot_is_due_by_the_clock_that_never_jumps(wake: Wake) -> None:
    now = [0.0]
    jobs = PeriodicJobs(wake, {"probe": 60.0, "judge": 3600.0}, lambda: now[0])
    now[0] = 80.0
    assert jobs.take() == set()
    now[0] = 91.0
    assert jobs.take() == {"probe"}
    assert jobs.take() == set()


# -- restraint


def test_the_few_passes_of_a_drop_are_not_paused_however_dear_each_is() -> None:
    throttle, now = Throttle(), 100.0
    for _ in range(8):
        assert throttle.pause(now, now + 0.03) == 0.0
        now += 0.05


def test_a_storm_of_events_is_left_a_quarter_of_a_core() -> None:
    throttle, now, busy = Throttle(), 100.0, 0.0
    while now < 160.0:
        pause = throttle.pause(now, now + 0.03)
        now, busy = now + 0.03 + pause, busy + 0.03
    assert 0.2 < busy / 60.0 < 0.27


def test_when_a_storm_is_over_the_next_drop_does_not_wait() -> None:
    throttle, now = Throttle(), 100.0
    for _ in range(100):
        now += 0.03 + throttle.pause(now, now + 0.03)
    assert throttle.pause(now, now + 0.03) > 0.0
    now += 5.0
    assert [throttle.pause(now + n, now + n + 0.03) for n in range(5)] == [0.0] * 5
