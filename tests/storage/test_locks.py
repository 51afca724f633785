"""The locks: one rotation and one daemon at a time, gone with their holder, and what a dead one leaves to the next."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotator.core.errors import Exit
from rotator.storage.held_lock import HeldLock
from rotator.storage.locks import Lock, Locks
from rotator.storage.notes import RotationNote
from rotator.system import lock_holders
from rotator.system.files import replace_file
from tests.support.failing import Fails, refusal
from tests.support.other_user import NOBODY, as_nobody, forked
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
    note = b'{"pid": 4242, "who": "ann", "since": "now"}\n'
    name = threading.Timer(0.02, replace_file, (locks.root / "lock.json", note, 0o640))
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
    assert (take(locks).interrupted, (locks.root / "lock.json").exists()) == ((), False)


def test_the_note_of_the_earlier_version_is_read_and_moved_out_of_the_lock_file(locks: Locks) -> None:
    (locks.root / "lock").write_bytes(b'{"in_flight": ["a"]}\nge-site-name"]}\n')
    (locks.root / "lock.json").write_bytes(b'{"in_flight": ["b"]}\n')
    assert take(locks).interrupted == ("a", "b")
    assert (locks.root / "lock").read_bytes() == b""
    assert take(locks).interrupted == ("a", "b")


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b'{"in_flight": 7}', b"torn {", 100_000 * b"["], ids=lambda data: data[:20]
)
def test_a_note_that_cannot_be_read_tells_nothing(locks: Locks, data: bytes) -> None:
    for name in ("lock", "lock.json"):
        (locks.root / name).write_bytes(data)
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
    assert (locks.daemon_pid(), (locks.root / "daemon.json").exists()) == (0, False)


def test_a_daemon_and_a_rotation_do_not_exclude_each_other(locks: Locks) -> None:
    with locks.daemon():
        take(locks)


# -- errors


def test_a_note_in_the_lock_that_cannot_be_written_is_told(locks: Locks) -> None:
    with locks.rotation("ann", 0.0) as lock, standing_in(Fails("write", errno.ENOSPC)):
        assert refusal(lambda: lock.begin(["a"])).code == "disk-full"


class TakesAPart(StandIn):
    """A disk that fills up: of each write it takes a page."""

    def write(self, fd: int, data: bytes) -> int:
        return os.write(fd, data[:4096])


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
    with standing_in(Fails("write", errno.EIO)):
        assert refusal(lambda: take(locks)).code == "io-error"


# -- the files


def modes(locks: Locks) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in locks.root.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_may_open_a_lock_and_the_group_may_read_the_notes(locks: Locks, umask: int) -> None:
    before = os.umask(umask)
    try:
        with locks.daemon(), locks.rotation("ann", 0.0):
            assert modes(locks) == {"lock": 0o600, "lock.json": 0o640, "daemon.lock": 0o600, "daemon.json": 0o640}
    finally:
        os.umask(before)


def test_a_daemon_closes_both_locks_of_an_earlier_version_to_other_users(locks: Locks) -> None:
    for name in ("lock", "daemon.lock"):
        (locks.root / name).touch()
        (locks.root / name).chmod(0o640)
    daemon(locks)
    assert set(modes(locks).values()) == {0o600}


def test_a_rotation_closes_a_lock_of_an_earlier_version_to_other_users(locks: Locks) -> None:
    (locks.root / "lock").touch()
    (locks.root / "lock").chmod(0o666)
    take(locks)
    assert modes(locks) == {"lock": 0o600}


@pytest.mark.parametrize("plant", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_something_else_in_place_of_a_lock_is_told_and_delays_nothing(
    locks: Locks, plant: Callable[[Path], object]
) -> None:
    plant(locks.root / "lock")
    assert refusal(lambda: take(locks)).code in ("io-error", "permission")


@pytest.mark.root
def test_a_lock_that_root_has_made_in_anothers_store_is_told_with_the_command(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    store = tmp_path / "store"
    store.mkdir()
    (store / "lock").touch(0o600)
    os.chown(store, NOBODY, NOBODY)
    error = as_nobody(lambda: refusal(lambda: take(Locks(Path("store")))).hint, cwd=tmp_path)
    assert "chown -h nobody store/lock" in error


# -- who holds it


def test_a_free_lock_has_no_holder(locks: Locks) -> None:
    assert locks.rotation_holder() is None
    take(locks)
    assert locks.rotation_holder() is None


def test_the_holder_of_the_lock_is_seen_with_what_it_has_in_flight(locks: Locks) -> None:
    with locks.rotation("ann", 0.0) as lock:
        lock.begin(["a"])
        held = locks.rotation_holder()
    assert held is not None
    assert (held.note.pid, held.note.who, held.note.in_flight) == (os.getpid(), "ann", ("a",))


def test_a_rotation_is_long_after_its_time_and_a_holder_without_a_note_at_once() -> None:
    begun = HeldLock(RotationNote(7, "ann", "2026-11-22T12:00:00.000Z"))
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert [begun.is_long(noon + timedelta(seconds=seconds), 60.0) for seconds in (59, 61)] == [False, True]
    assert HeldLock(RotationNote()).is_long(noon, 60.0)


@contextmanager
def stranger(path: Path, uid: int) -> Iterator[int]:
    """The pid of another user's process that holds a lock by a descriptor from the time when it could be opened."""
    inlet, outlet = os.pipe()

    def hold() -> None:
        os.close(inlet)
        fd = os.open(path, os.O_RDONLY)
        os.setresuid(uid, uid, uid)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(outlet, b"x")
        signal.pause()

    child = forked(hold)
    os.close(outlet)
    try:
        assert os.read(inlet, 1) == b"x"
        yield child
    finally:
        os.close(inlet)
        end(child)


@pytest.mark.root
def test_a_stranger_who_has_opened_the_lock_before_is_named_and_an_old_note_is_not(locks: Locks) -> None:
    end(held_by_child(locks, lambda lock: lock.begin(["a"])))
    with stranger(locks.root / "lock", NOBODY) as child:
        error = refusal(lambda: take(locks))
        held = locks.rotation_holder()
    assert (error.exit, f"pid {child} (user nobody, program " in error.message) == (Exit.BUSY, True)
    assert f"fuser -v {locks.root}/lock" in error.hint
    assert held is not None
    assert (held.note.pid, str(held).endswith("without a note")) == (0, True)


@pytest.mark.root
def test_a_stranger_who_keeps_the_daemon_from_starting_is_named_and_is_no_daemon(locks: Locks) -> None:
    daemon(locks)
    with stranger(locks.root / "daemon.lock", NOBODY) as child:
        error = refusal(lambda: daemon(locks))
        assert locks.daemon_pid() == 0
    assert (error.code, error.exit, f"held by pid {child} (user nobody" in error.message) == (
        "lock-busy",
        Exit.BUSY,
        True,
    )


@pytest.mark.root
def test_a_member_of_the_group_sees_the_holders_and_can_hold_no_lock(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, 0, NOBODY)
    store.chmod(0o2750)  # every file gets the group
    locks = Locks(store)

    def member() -> tuple[int, int, list[str]]:
        seen = Locks(Path("store"))
        held = seen.rotation_holder()
        denied = []
        for name in ("lock", "daemon.lock"):
            try:
                os.close(os.open(seen.root / name, os.O_RDONLY))
            except PermissionError:
                denied.append(name)
        return seen.daemon_pid(), held.note.pid if held else 0, denied

    with locks.daemon(), locks.rotation("ann", 0.0):
        told = as_nobody(member, cwd=tmp_path)
    assert told == (os.getpid(), os.getpid(), ["lock", "daemon.lock"])
    assert as_nobody(member, cwd=tmp_path)[:2] == (0, 0)


def test_an_earlier_version_that_still_runs_is_seen_by_its_note_in_the_lock_file(locks: Locks) -> None:
    for name in ("lock", "daemon.lock"):
        (locks.root / name).write_bytes(b'{"pid": 4242, "who": "ann", "since": "2026-11-22T12:00:00Z"}\n')
    files = [os.open(locks.root / name, os.O_RDWR) for name in ("lock", "daemon.lock")]
    try:
        for fd in files:
            fcntl.flock(fd, fcntl.LOCK_EX)
        held = locks.rotation_holder()
        assert (held.note.pid if held else 0, locks.daemon_pid()) == (4242, 4242)
        assert "pid 4242, since 2026" in refusal(lambda: daemon(locks)).message
        assert "pid 4242 (ann, since 2026" in refusal(lambda: take(locks)).message
    finally:
        for fd in files:
            os.close(fd)


def test_where_the_kernel_shows_no_locks_the_holder_is_seen_by_a_try(
    locks: Locks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lock_holders, "LOCKS", tmp_path / "nothing")
    with locks.rotation("ann", 0.0), locks.daemon():
        held = locks.rotation_holder()
        assert (held.note.pid if held else 0, locks.daemon_pid()) == (os.getpid(), os.getpid())
    assert (locks.rotation_holder(), locks.daemon_pid()) == (None, 0)
