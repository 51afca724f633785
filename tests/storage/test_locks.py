"""The locks: one rotation and one daemon at a time, gone with their holder, and what a dead one leaves to the next."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rotator.core.errors import Exit
from rotator.storage import locks as locks_module
from rotator.storage.locks import Lock, Locks
from tests.support.failing import Fails, refusal
from tests.support.other_user import forked
from tests.support.powercut import StandIn, standing_in
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def locks(tmp_path: Path) -> Locks:
    return Locks(tmp_path)


def held_by_child(locks: Locks, work: Callable[[Lock], object] = lambda lock: None) -> int:
    """The pid of a process that holds the lock until it is killed."""
    inlet, outlet = os.pipe()

    def hold() -> None:
        os.close(inlet)
        with locks.rotation("ann", 1.0) as lock:
            work(lock)
            os.write(outlet, b"x")
            signal.pause()

    child = forked(hold)
    os.close(outlet)
    assert os.read(inlet, 1) == b"x"
    os.close(inlet)
    return child


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@contextmanager
def holder(locks: Locks) -> Iterator[int]:
    child = held_by_child(locks)
    try:
        yield child
    finally:
        end(child)


def take(locks: Locks, within: float = 0.0) -> Lock:
    with locks.rotation("ben", within) as lock:
        return lock


def test_a_second_holder_is_refused_and_told_who_holds_it(locks: Locks) -> None:
    with holder(locks) as child:
        error = refusal(lambda: take(locks))
    assert (error.code, error.exit) == ("lock-busy", Exit.BUSY)
    assert f"pid {child} (ann, since 20" in error.message


def test_a_holder_that_has_just_come_and_has_no_name_yet_is_told_by_its_name(locks: Locks) -> None:
    take(locks)
    fd = os.open(locks.root / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    name = threading.Timer(0.02, os.pwrite, (fd, b'{"pid": 4242, "who": "ann", "since": "now"}\n', 0))
    name.start()
    try:
        assert "pid 4242 (ann, since now)" in refusal(lambda: take(locks)).message
    finally:
        name.join()
        os.close(fd)


def test_a_holder_that_never_gives_a_name_keeps_nobody_for_long(locks: Locks) -> None:
    take(locks)
    fd = os.open(locks.root / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    begin = time.monotonic()
    try:
        assert refusal(lambda: take(locks)).code == "lock-busy"
    finally:
        os.close(fd)
    assert time.monotonic() - begin < PATIENCE


def test_the_lock_excludes_also_within_one_process(locks: Locks) -> None:
    with locks.rotation("ann", 0.0):
        assert refusal(lambda: take(locks)).code == "lock-busy"


def test_the_lock_is_free_after_its_block(locks: Locks) -> None:
    take(locks)
    take(locks)


def test_the_lock_is_free_after_an_error_in_its_block(locks: Locks) -> None:
    with contextlib.suppress(KeyError), locks.rotation("ann", 0.0):
        raise KeyError
    take(locks)


def test_the_lock_is_free_after_its_block_although_a_child_was_forked_in_it(locks: Locks) -> None:
    with locks.rotation("ann", 0.0):
        child = forked(signal.pause)
    try:
        take(locks)
    finally:
        end(child)


def test_the_lock_dies_with_a_killed_holder(locks: Locks) -> None:
    end(held_by_child(locks))
    take(locks)


def test_whoever_waits_gets_the_lock_when_it_is_free(locks: Locks) -> None:
    told: list[str] = []
    with holder(locks) as child:
        waiter = threading.Thread(target=lambda: wait_for(locks, told))
        waiter.start()
        wait_until(lambda: told, what="the waiter is told")
    waiter.join(5)
    assert (told[0].startswith(f"pid {child} (ann"), told[1:]) == (True, ["got it"])


def wait_for(locks: Locks, told: list[str]) -> None:
    with locks.rotation("ben", 5.0, told.append):
        told.append("got it")


def test_whoever_waits_gives_up_in_time(locks: Locks) -> None:
    with holder(locks):
        begin = time.monotonic()
        error = refusal(lambda: take(locks, within=0.1))
        assert (error.code, 0.1 <= time.monotonic() - begin < PATIENCE) == ("lock-busy", True)


def test_what_a_dead_holder_had_in_flight_is_told_to_the_next(locks: Locks) -> None:
    end(held_by_child(locks, lambda lock: lock.begin(["b", "a"])))
    assert take(locks).interrupted == ("a", "b")


def test_what_a_dead_holder_had_settled_is_not_told(locks: Locks) -> None:
    def work(lock: Lock) -> None:
        lock.begin(["a", "b"])
        lock.settled(["a"])

    end(held_by_child(locks, work))
    assert take(locks).interrupted == ("b",)


def test_what_an_error_left_in_flight_is_told_to_the_next(locks: Locks) -> None:
    with contextlib.suppress(KeyError), locks.rotation("ann", 0.0) as lock:
        lock.begin(["a"])
        raise KeyError
    assert take(locks).interrupted == ("a",)


def test_what_was_interrupted_stays_so_until_it_is_settled(locks: Locks) -> None:
    end(held_by_child(locks, lambda lock: lock.begin(["a", "b"])))
    with locks.rotation("ben", 0.0) as lock:
        lock.settled(["a"])
    assert take(locks).interrupted == ("b",)


def test_after_all_is_settled_nothing_is_told(locks: Locks) -> None:
    with locks.rotation("ann", 0.0) as lock:
        lock.begin(["a"])
        lock.settled(["a"])
    assert (take(locks).interrupted, (locks.root / "lock").read_bytes()) == ((), b"")


def test_a_note_that_was_overwritten_by_a_shorter_one_and_not_cut_is_read(locks: Locks) -> None:
    (locks.root / "lock").write_bytes(b'{"in_flight": ["a"]}\nge-site-name"]}\n')
    assert take(locks).interrupted == ("a",)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b'{"in_flight": 7}', b"torn {", 100_000 * b"["], ids=lambda data: data[:20]
)
def test_a_note_that_cannot_be_read_tells_nothing(locks: Locks, data: bytes) -> None:
    (locks.root / "lock").write_bytes(data)
    assert take(locks).interrupted == ()


def test_the_lock_file_is_permanent(locks: Locks) -> None:
    take(locks)
    inode = (locks.root / "lock").stat().st_ino
    take(locks)
    assert (locks.root / "lock").stat().st_ino == inode


def test_a_lock_file_that_is_a_link_is_not_followed(locks: Locks, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (locks.root / "lock").symlink_to(tmp_path / "target")
    assert refusal(lambda: take(locks)).code == "io-error"
    assert (tmp_path / "target").read_text() == "precious"


# -- the daemon's


def daemon(locks: Locks) -> None:
    with locks.daemon():
        pass


def test_a_second_daemon_is_refused_and_told_of_the_first(locks: Locks) -> None:
    with locks.daemon():
        error = refusal(lambda: daemon(locks))
        assert locks.daemon_pid() == os.getpid()
    assert (error.code, error.exit, f"pid {os.getpid()}, since 20" in error.message) == (
        "daemon-running",
        Exit.BUSY,
        True,
    )


def test_without_a_daemon_there_is_no_pid(locks: Locks) -> None:
    assert locks.daemon_pid() == 0
    daemon(locks)
    assert (locks.daemon_pid(), (locks.root / "daemon.lock").read_bytes()) == (0, b"")


def test_a_daemon_and_a_rotation_do_not_exclude_each_other(locks: Locks) -> None:
    with locks.daemon():
        take(locks)


# -- errors


def test_a_note_in_the_lock_that_cannot_be_written_is_told(locks: Locks) -> None:
    with locks.rotation("ann", 0.0) as lock, standing_in(Fails("pwrite", errno.ENOSPC)):
        assert refusal(lambda: lock.begin(["a"])).code == "disk-full"


class TakesAPart(StandIn):
    """A disk that fills up: of each write it takes a page."""

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        return os.pwrite(fd, data[:4096], at)


def test_a_note_of_which_the_disk_takes_a_part_at_a_time_is_written_whole(locks: Locks) -> None:
    sites = tuple(f"site{number:04d}" for number in range(1000))

    def die() -> None:
        with locks.rotation("ann", 0.0) as lock, standing_in(TakesAPart()):
            lock.begin(sites)
            raise KeyError

    with pytest.raises(KeyError):
        die()
    assert take(locks).interrupted == sites


def test_a_lock_that_cannot_be_noted_in_is_not_given(locks: Locks) -> None:
    with standing_in(Fails("pwrite", errno.EIO)):
        assert refusal(lambda: take(locks)).code == "io-error"


def test_a_note_that_is_being_written_in_this_moment_is_read_again(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = locks_module._first_bytes
    parts = iter([b'{"schema_version": 1, "pi2026-11', b""])
    monkeypatch.setattr(locks_module, "_first_bytes", lambda fd: next(parts, None) or whole(fd))
    with locks.daemon():
        assert locks.daemon_pid() == os.getpid()
