"""The locks of a state directory: one rotation at a time on this host, and one daemon.

`lock` and `daemon.lock` are permanent files, locked with flock(2), so that a lock ends with its holder. The note in
them is for people, and for the next holder after a crash.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.core.text import escaped
from rotator.core.times import rfc3339_millis
from rotator.storage.errors import translated
from rotator.storage.notes import (
    DaemonNote,
    JobNote,
    RotationNote,
    UndecidedNote,
    daemon_note_object,
    read_daemon_note,
    read_rotation_note,
    rotation_note_object,
)
from rotator.system.files import json_bytes, lock_file

NO_NOTE_FOR = 0.1
"""Seconds for which a lock may be held without a note: its holder has just taken it, or is about to release it."""
NOTE_READS = 10
"""Reads of the daemon's note, which it writes once a minute: a read in that moment shows parts of two notes."""
MAX_NOTE = 1024 * 1024
"""Bytes of a lock file that are read."""
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(slots=True)
class Lock:
    """The held rotation lock.

    Args:
        interrupted: sites that the last holder had in flight when it died, until `settled`.
        reloaded: when a recovery of sites that are still interrupted or in flight has had nginx reloaded, UTC.
    """

    _fd: int
    _path: Path
    _who: str
    interrupted: tuple[str, ...] = ()
    in_flight: tuple[str, ...] = field(default=())
    reloaded: datetime | None = None

    def begin(self, sites: Sequence[str], *, reloaded: datetime | None = None) -> None:
        """Notes which sites are between their old and their new generation, for the next holder after a crash.

        Args:
            sites: their names.
            reloaded: when a recovery has nginx reloaded for them, UTC: now; None where the reload is no recovery.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`; as for `settled`.
        """
        self.in_flight, self.reloaded = tuple(sites), reloaded or self.reloaded
        self._write()

    def settled(self, sites: Sequence[str]) -> None:
        """Removes sites from both notes: they are proved again, with the new or the previous pair."""
        self.in_flight = tuple(s for s in self.in_flight if s not in sites)
        self.interrupted = tuple(s for s in self.interrupted if s not in sites)
        self._write()

    def _write(self) -> None:
        # No fsync: after a power cut nginx starts from the disk, so what it serves is what its include names.
        sites = tuple(sorted({*self.in_flight, *self.interrupted}))
        self.reloaded = self.reloaded if sites else None
        note = RotationNote(os.getpid(), self._who, rfc3339_millis(datetime.now(UTC)), sites, self.reloaded)
        with translated(self._path.parent, self._path):
            _replace_note(self._fd, rotation_note_object(note))


@dataclass(slots=True)
class DaemonLock:
    """The held lock of the one daemon, and its note."""

    _fd: int
    _path: Path
    _note: DaemonNote

    def complete_note(
        self,
        *,
        config: str,
        loads: int,
        refused: str,
        reported: str,
        jobs: Sequence[JobNote],
        undecided: Sequence[UndecidedNote] = (),
    ) -> None:
        """Completes the note, for `daemon_note`; see `DaemonNote`.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`; the earlier note stays then.
        """
        self._write(
            replace(
                self._note,
                config=config,
                loads=loads,
                refused=refused,
                reported=reported,
                jobs=tuple(jobs),
                undecided=tuple(undecided),
            )
        )

    def _write(self, note: DaemonNote) -> None:
        with translated(self._path.parent, self._path):
            _replace_note(self._fd, daemon_note_object(note))
        self._note = note


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
            waiting: called once with the holder, if the lock is held.

        Raises:
            RotatorError: `lock-busy` (exit 7) with the holder's pid; or `disk-full`, `permission` or `io-error`.
        """
        path = self.root / "lock"
        with translated(self.root, path):
            fd = os.open(path, _OPEN, 0o640)
        try:
            with translated(self.root, path):
                _acquire(fd, within, waiting)
                earlier = read_rotation_note(_first_bytes(fd))
            lock = Lock(fd, path, who, earlier.in_flight, reloaded=earlier.reloaded)
            lock._write()
            yield lock
            if not lock.interrupted and not lock.in_flight:
                with contextlib.suppress(OSError):  # a note that stays names no site in flight
                    os.ftruncate(fd, 0)
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)  # at once, also if a child has been forked meanwhile
            os.close(fd)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[DaemonLock]:
        """One daemon for each state directory; the lock ends with the process, however that ends.

        Raises:
            RotatorError: `daemon-running` (exit 7) with the other one's pid.
        """
        path = self.root / "daemon.lock"
        with translated(self.root, path):
            fd = os.open(path, _OPEN, 0o640)
        try:
            with translated(self.root, path):
                if not lock_file(fd, 0.2):  # `daemon_note` of another process may hold it for an instant
                    note = read_daemon_note(_first_bytes(fd))
                    raise RotatorError(
                        Reason.DAEMON_RUNNING,
                        f"a daemon is running for {self.root} already: pid {note.pid or '?'}, "
                        f"since {escaped(note.since) or '?'}",
                        "Stop that one first: systemctl stop rotator; or see its state: rotator status",
                        Exit.BUSY,
                    )
            lock = DaemonLock(fd, path, DaemonNote(os.getpid(), rfc3339_millis(datetime.now(UTC))))
            lock._write(lock._note)
            yield lock
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def daemon_pid(self) -> int:
        """The pid of the daemon that runs for this state directory; 0 if none does or it cannot be read."""
        return self.daemon_note().pid

    def daemon_note(self) -> DaemonNote:
        """The note of the running daemon; an empty one if none runs or it cannot be read."""
        try:
            fd = os.open(self.root / "daemon.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return DaemonNote()
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _whole_daemon_note(fd)
        finally:
            os.close(fd)
        return DaemonNote()


def _acquire(fd: int, within: float, waiting: Callable[[str], None] | None) -> None:
    note_deadline = time.monotonic() + NO_NOTE_FOR
    while not lock_file(fd, 0.0):
        if _holder(fd).pid or time.monotonic() >= note_deadline:
            break
        time.sleep(0.002)
    else:
        return
    if waiting:
        waiting(str(_holder(fd)))
    if not lock_file(fd, within):
        raise RotatorError(
            Reason.LOCK_BUSY,
            f"another rotation is running on this host: {_holder(fd)}",
            "Wait for it, or look at it with `rotator status`; the lock ends with its holder",
            Exit.BUSY,
        )


def _whole_daemon_note(fd: int) -> DaemonNote:
    """The note of a running daemon, read again if the daemon has been writing it in the same moment."""
    note = DaemonNote()
    for _ in range(NOTE_READS):
        note = read_daemon_note(_first_bytes(fd))
        if note.pid:
            break
        time.sleep(0.005)
    return note


def _holder(fd: int) -> RotationNote:
    return read_rotation_note(_first_bytes(fd))


def _first_bytes(fd: int) -> bytes:
    return os.pread(fd, MAX_NOTE, 0)


def _replace_note(fd: int, note: dict[str, object]) -> None:
    """Writes a note over the earlier one, of which the first line is read: killed in between, it leaves a whole one."""
    data, written = json_bytes(note), 0
    while written < len(data):  # a full disk may accept a part, and reports an error only for the rest
        written += os.pwrite(fd, data[written:], written)
    os.ftruncate(fd, len(data))
