"""File events of real directories: what wakes the loop, which paths it learns of, and what heals by itself."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, WatchDescriptor

from rotator.daemon.file_events import MOST_TOUCHED, WATCH_AGAIN, FileEvents
from rotator.daemon.wake import Wake
from rotator.sources.drop_directory import DropDirectories, DropLocation
from tests.support.waiting import wait_until


@pytest.fixture
def wake() -> Iterator[Wake]:
    it = Wake()
    yield it
    it.close()


@pytest.fixture
def file_events(wake: Wake, tmp_path: Path) -> Iterator[FileEvents]:
    it = FileEvents(wake, reports.append)
    reports.clear()
    (tmp_path / "a").mkdir()
    it.watch(directories(tmp_path))
    assert wake.wait(5)  # what happened before the watch
    yield it
    it.close()


reports: list[str] = []


def directories(top: Path) -> Mapping[Path, tuple[int, int]]:
    """As the look at the drops finds them."""
    drops = DropDirectories(top, [DropLocation("a", top / "a")])
    drops.look()
    return drops.directories


def overflow(file_events: FileEvents) -> None:
    """What the kernel says once it has dropped events."""
    assert file_events._watch is not None
    event = InotifyEvent(WatchDescriptor(-1), InotifyConstants.IN_Q_OVERFLOW, 0, b"")
    file_events._watch._inotify.handle_event(event)


def quiet(wake: Wake) -> bool:
    """Whether nothing comes for a while after what has come."""
    while wake.wait(0.3):
        pass
    return not wake.wait(0.2)


@pytest.mark.parametrize("way", ["create", "write", "rename", "delete", "mkdir", "flat"])
def test_a_change_in_a_drop_wakes(file_events: FileEvents, wake: Wake, tmp_path: Path, way: str) -> None:
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


def test_what_was_touched_is_reported_once(file_events: FileEvents, wake: Wake, tmp_path: Path) -> None:
    file_events.touched()
    (tmp_path / "a" / "new").write_bytes(b"x")
    (tmp_path / "a" / "new").rename(tmp_path / "a" / "chain.pem")
    assert quiet(wake)
    assert file_events.touched() == frozenset({f"{tmp_path}/a/new", f"{tmp_path}/a/chain.pem"})
    assert file_events.touched() == frozenset()


def test_what_was_touched_before_a_watch_was_new_is_not_known(file_events: FileEvents) -> None:
    assert file_events.touched() is None


def test_what_was_touched_is_not_known_once_events_were_lost(file_events: FileEvents) -> None:
    file_events.touched()
    overflow(file_events)
    assert file_events.touched() is None
    assert file_events.touched() == frozenset()


def test_what_was_touched_is_not_known_where_it_is_much(file_events: FileEvents, wake: Wake, tmp_path: Path) -> None:
    file_events.touched()
    for number in range(MOST_TOUCHED + 1):
        (tmp_path / "a" / f"{number}").touch()
    assert quiet(wake)
    assert file_events.touched() is None


def test_what_was_touched_is_not_known_while_nothing_can_be_watched(
    wake: Wake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    file_events = FileEvents(wake)
    with monkeypatch.context() as patch:
        patch.setattr("rotator.daemon.directory_watch.DirectoryWatch.add", none_left)
        file_events.watch(directories(tmp_path))
    assert file_events.trouble
    assert [file_events.touched() for _ in range(2)] == [None, None]
    file_events.close()


def test_a_drop_that_is_made_later_is_watched_too(file_events: FileEvents, wake: Wake, tmp_path: Path) -> None:
    file_events.touched()
    (tmp_path / "b").mkdir()
    assert wake.wait(5)
    assert file_events.touched() == frozenset({f"{tmp_path}/b"})
    seen = {**directories(tmp_path), tmp_path / "b": _mark(tmp_path / "b")}
    file_events.watch(seen)
    assert wake.wait(5)
    assert file_events.touched() == frozenset({f"{tmp_path}/b"})
    (tmp_path / "b" / "chain.pem").write_bytes(b"x")
    assert quiet(wake)
    assert file_events.touched() == frozenset({f"{tmp_path}/b/chain.pem"})


def _mark(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def test_what_is_made_inside_a_drop_is_not_followed(file_events: FileEvents, wake: Wake, tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir()
    assert quiet(wake)
    file_events.touched()
    (tmp_path / "a" / "deep" / "deeper").mkdir()
    (tmp_path / "a" / "deep" / "x.pem").write_bytes(b"x")
    assert not wake.wait(0.5)


def test_thousands_of_closed_directories_in_a_drop_cost_nothing_and_print_nothing(
    wake: Wake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    file_events = FileEvents(wake)
    for number in range(2_000):
        (tmp_path / "a" / f"{number}").mkdir(mode=0)
    file_events.watch(directories(tmp_path))
    for number in range(2_000, 4_000):
        (tmp_path / "a" / f"{number}").mkdir(mode=0)
    assert quiet(wake)
    assert file_events._watch is not None
    assert len(file_events._watch._watched) == 2
    file_events.close()
    assert capfd.readouterr() == ("", "")


def test_drops_that_this_user_may_not_read_are_left_to_the_look_and_print_nothing(
    wake: Wake, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    file_events = FileEvents(wake, reports.append, lambda: now[0])
    reports.clear()
    marks = {}
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        marks[tmp_path / name] = _mark(tmp_path / name)

    def closed(_fd: int, path: bytes, _mask: int) -> int:
        ctypes.set_errno(errno.EACCES)
        return -1

    with monkeypatch.context() as patch:
        patch.setattr("watchdog.observers.inotify_c.inotify_add_watch", closed)
        for _ in range(100):
            now[0] += WATCH_AGAIN
            file_events.watch(marks)
    assert quiet(wake)
    assert (file_events.trouble, reports, capfd.readouterr()) == ("", [], ("", ""))
    now[0] += WATCH_AGAIN
    file_events.watch(marks)
    assert quiet(wake)
    (tmp_path / "b" / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)
    file_events.close()


def test_a_thousand_drops_are_watched_with_one_thread(wake: Wake, tmp_path: Path) -> None:
    before = threading.active_count()
    file_events = FileEvents(wake)
    marks = {}
    for number in range(1_000):
        (tmp_path / f"{number}").mkdir()
        marks[tmp_path / f"{number}"] = _mark(tmp_path / f"{number}")
    file_events.watch(marks)
    assert threading.active_count() == before + 1
    assert quiet(wake)
    (tmp_path / "999" / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)
    file_events.close()


def test_reading_a_drop_does_not_wake_the_loop(file_events: FileEvents, wake: Wake, tmp_path: Path) -> None:
    path = tmp_path / "a" / "chain.pem"
    path.write_bytes(b"x")
    assert quiet(wake)
    for _ in range(10):
        path.read_bytes()
        os.listdir(path.parent)
        directories(tmp_path)
    assert not wake.wait(0.3)


def test_watching_what_is_watched_costs_nothing(file_events: FileEvents, wake: Wake, tmp_path: Path) -> None:
    for _ in range(10):
        file_events.watch(directories(tmp_path))
    assert (file_events.rearmed, wake.wait(0)) == (0, False)


def test_a_drop_that_was_replaced_is_watched_again(file_events: FileEvents, wake: Wake, tmp_path: Path) -> None:
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    (tmp_path / "a").mkdir()
    file_events.watch(directories(tmp_path))
    assert file_events.rearmed == 1
    assert quiet(wake)
    (tmp_path / "a" / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)


def test_an_incoming_directory_that_went_and_came_back_is_watched_again(
    file_events: FileEvents, wake: Wake, tmp_path: Path
) -> None:
    top = tmp_path / "a"
    file_events.watch({top: (1, 1)})
    top.rmdir()
    file_events.watch({})
    top.mkdir()
    file_events.watch({top: (1, 2)})
    assert quiet(wake)
    (top / "x.pem").write_bytes(b"x")
    assert wake.wait(5)


def test_a_watch_that_died_is_replaced(file_events: FileEvents, wake: Wake, tmp_path: Path) -> None:
    assert file_events._watch is not None
    file_events._watch.close()
    file_events._try_again_at = 0.0
    file_events.watch(directories(tmp_path))
    assert quiet(wake)
    (tmp_path / "a" / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)


def _none_left(*_args: object) -> None:
    raise OSError(errno.ENOSPC, "inotify watch limit reached")


def test_what_cannot_be_watched_is_reported_once_and_raises_nothing(
    wake: Wake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_events = FileEvents(wake, reports.append)
    reports.clear()
    with monkeypatch.context() as patch:
        patch.setattr("rotator.daemon.directory_watch.DirectoryWatch.add", _none_left)
        for number in range(3):
            file_events.watch({tmp_path: (0, number)})
    assert reports == ["inotify watch limit reached"]
    file_events.watch({tmp_path: (9, 9)})
    assert reports[1:] == [""]
    file_events.close()


def test_what_cannot_be_watched_is_tried_again_after_a_while_and_keeps_no_core_busy(
    wake: Wake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    file_events = FileEvents(wake, reports.append, lambda: now[0])
    marks = {tmp_path: _mark(tmp_path)}
    with monkeypatch.context() as patch:
        patch.setattr("rotator.daemon.directory_watch.DirectoryWatch.add", _none_left)
        file_events.watch(marks)
        assert wake.wait(0)
        for _ in range(20):
            now[0] += 1.0
            file_events.watch(marks)
    assert (file_events.rearmed, wake.wait(0)) == (4, False)
    now[0] += WATCH_AGAIN
    file_events.watch(marks)
    assert (file_events.trouble, quiet(wake)) == ("", True)
    (tmp_path / "chain.pem").write_bytes(b"x")
    assert wake.wait(5)
    file_events.close()


def test_nothing_is_left_after_the_end(wake: Wake, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    file_events = FileEvents(wake)
    file_events.watch(directories(tmp_path))
    file_events.close()
    wait_until(lambda: set(threading.enumerate()) <= before, 5)


def test_an_overflow_of_the_queue_is_counted_and_wakes(file_events: FileEvents, wake: Wake) -> None:
    assert quiet(wake)
    overflow(file_events)
    assert (file_events.overflows.count, wake.wait(0)) == (1, True)


def test_after_a_storm_the_next_change_is_seen(tmp_path: Path, wake: Wake) -> None:
    (tmp_path / "a").mkdir()
    file_events = FileEvents(wake)
    file_events.watch(directories(tmp_path))
    path = tmp_path / "a" / "x.pem"
    for _ in range(5_000):
        path.write_bytes(b"x")
    assert quiet(wake)
    path.write_bytes(b"y")
    assert wake.wait(5)
    file_events.close()


def test_watchdog_writes_nothing_past_the_journal() -> None:
    assert not logging.getLogger("watchdog").propagate
