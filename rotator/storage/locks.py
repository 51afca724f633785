"""The locks of a state directory: one rotation at a time on this host, one daemon; not what is done under them.

`lock` and `daemon.lock` are permanent files, locked with flock(2), so that a lock dies with its holder; who holds one
stands in it only for people and for whoever comes after a crash.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.system.files import from_json, in_words, json_bytes, lock_file, stamp

NAMELESS_FOR = 0.1
"""Seconds for which a lock may be held without a name in it: its holder has just come, or is about to go."""
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(slots=True)
class Lock:
    """The held rotation lock.

    Args:
        interrupted: sites that the last holder had in flight when it died, until `settled`.
    """

    _fd: int
    _path: Path
    _who: str
    interrupted: tuple[str, ...] = ()
    in_flight: tuple[str, ...] = field(default=())

    def begin(self, sites: Sequence[str]) -> None:
        """Notes which sites are between their old and their new generation, for whoever comes after a crash.

        Raises:
            RotatorError: what the disk said; as for `settled`.
        """
        self.in_flight = tuple(sites)
        self._write()

    def settled(self, sites: Sequence[str]) -> None:
        """Takes sites out of both notes: they are proved again, one way or the other."""
        self.in_flight = tuple(s for s in self.in_flight if s not in sites)
        self.interrupted = tuple(s for s in self.interrupted if s not in sites)
        self._write()

    def _write(self) -> None:
        # No fsync: after a power cut nginx starts from the disk, so what it serves is what its include names.
        note = {"pid": os.getpid(), "who": self._who, "since": stamp(datetime.now(UTC))}
        with in_words(self._path.parent, self._path):
            _replace_note(self._fd, note | {"in_flight": sorted({*self.in_flight, *self.interrupted})})


@dataclass(slots=True)
class DaemonLock:
    """The held lock of the one daemon, and what it tells of itself there."""

    _fd: int
    _path: Path
    _note: dict[str, object]

    def tell(self, **facts: object) -> None:
        """Adds to the note, for `daemon_note`.

        Raises:
            RotatorError: what the disk said; the note of before stands then.
        """
        with in_words(self._path.parent, self._path):
            _replace_note(self._fd, self._note | facts)
        self._note |= facts


class Locks:
    """The locks of one state directory.

    Args:
        root: the state directory; it must exist and belong to the user who calls.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def rotation(self, who: str, within: float, waiting: Callable[[str], None] | None = None) -> Iterator[Lock]:
        """One rotation (apply to proof) at a time on this host.

        Args:
            who: the user, for the message that others get.
            within: seconds to wait for it.
            waiting: told once who holds it, if it has to be waited for.

        Raises:
            RotatorError: `lock-busy` (exit 7) with the holder's pid; or what the disk said.
        """
        path = self.root / "lock"
        with in_words(self.root, path):
            fd = os.open(path, _OPEN, 0o640)
        try:
            with in_words(self.root, path):
                _acquire(fd, within, waiting)
                left = _note(fd).get("in_flight", [])
            lock = Lock(fd, path, who, tuple(str(s) for s in left) if isinstance(left, list) else ())
            lock._write()
            yield lock
            if not lock.interrupted and not lock.in_flight:
                with contextlib.suppress(OSError):  # a note that stays names nobody in flight
                    os.ftruncate(fd, 0)
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)  # at once, also if a child has been forked meanwhile
            os.close(fd)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[DaemonLock]:
        """One daemon for each state directory; held for its whole life, and gone with it however it ends.

        Raises:
            RotatorError: `daemon-running` (exit 7) with the other one's pid.
        """
        path = self.root / "daemon.lock"
        with in_words(self.root, path):
            fd = os.open(path, _OPEN, 0o640)
        try:
            with in_words(self.root, path):
                if not lock_file(fd, 0.2):  # `daemon_pid` of another process may hold it for an instant
                    note = _note(fd)
                    raise RotatorError(
                        Reason.DAEMON_RUNNING,
                        f"a daemon is running for {self.root} already: pid {note.get('pid', '?')}, "
                        f"since {note.get('since', '?')}",
                        "Stop that one first: systemctl stop rotator; or see what it does: rotator status",
                        Exit.BUSY,
                    )
            lock = DaemonLock(fd, path, {"pid": os.getpid(), "since": stamp(datetime.now(UTC))})
            lock.tell()
            yield lock
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def daemon_pid(self) -> int:
        """The pid of the daemon that runs for this state directory; 0 if none does or it cannot be told."""
        pid = self.daemon_note().get("pid", 0)
        return pid if isinstance(pid, int) else 0

    def daemon_note(self) -> dict[str, Any]:
        """What the daemon that runs tells of itself; nothing if none does or it cannot be told.

        `pid`, `since`, and once it is ready `config` (the file that it reads), `loads` (how often it has read that)
        and `refused` (why it did not take what it read last; empty if it did).
        """
        try:
            fd = os.open(self.root / "daemon.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return {}
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _note(fd)
        finally:
            os.close(fd)
        return {}


def _acquire(fd: int, within: float, waiting: Callable[[str], None] | None) -> None:
    nameless = time.monotonic() + NAMELESS_FOR
    while not lock_file(fd, 0.0):
        if _note(fd) or time.monotonic() >= nameless:
            break
        time.sleep(0.002)
    else:
        return
    if waiting:
        waiting(_holder(fd))
    if not lock_file(fd, within):
        raise RotatorError(
            Reason.LOCK_BUSY,
            f"another rotation is running on this host: {_holder(fd)}",
            "Wait for it, or look at it with `rotator status`; the lock ends by itself with its holder",
            Exit.BUSY,
        )


def _holder(fd: int) -> str:
    note = _note(fd)
    return f"pid {note.get('pid', '?')} ({note.get('who', '?')}, since {note.get('since', '?')})"


def _note(fd: int) -> dict[str, Any]:
    try:
        found = from_json(os.pread(fd, 1024 * 1024, 0).partition(b"\n")[0])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _replace_note(fd: int, note: dict[str, object]) -> None:
    """Over the note of before, of which `_note` reads the first line only: killed in between, it leaves a whole one."""
    data, done = json_bytes(note), 0
    while done < len(data):  # a full disk may take a part, and says so only when it is asked to take the rest
        done += os.pwrite(fd, data[done:], done)
    os.ftruncate(fd, len(data))
