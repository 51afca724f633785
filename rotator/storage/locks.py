"""The locks of a state directory: one rotation at a time on this host, and one daemon.

`lock` and `daemon.lock` are permanent files, locked with flock(2), so that a lock ends with its holder. flock(2) needs
no right to write, so their mode is 0600: another user who could open one could hold it. The note of the holder is in a
file of its own, `lock.json` or `daemon.json`, which the group may read. It is for people, and for the next holder after
a crash.
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
from rotator.core.hints import command
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.core.text import escaped
from rotator.core.times import rfc3339_millis
from rotator.storage.errors import translated
from rotator.storage.held_lock import HeldLock, held_lock
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
from rotator.system.files import MAX_READ, NotRegularError, json_bytes, lock_file, open_lock, read_file, replace_file
from rotator.system.lock_holders import show_holders
from rotator.system.users import user_name

NO_NOTE_FOR = 0.1
"""Seconds for which a lock may be held without a note: its holder has just taken it, or is about to release it."""
NOTE_MODE = 0o640


@dataclass(slots=True)
class Lock:
    """The held rotation lock.

    Args:
        interrupted: sites that the last holder had in flight when it died, until `settled`.
        reloaded: when a recovery of sites that are still interrupted or in flight has had nginx reloaded, UTC.
    """

    _note_path: Path
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
        with translated(self._note_path.parent, self._note_path):
            replace_file(self._note_path, json_bytes(rotation_note_object(note)), NOTE_MODE)


@dataclass(slots=True)
class DaemonLock:
    """The held lock of the one daemon, and its note."""

    _note_path: Path
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
        with translated(self._note_path.parent, self._note_path):
            replace_file(self._note_path, json_bytes(daemon_note_object(note)), NOTE_MODE)
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
        path, note_path = self.root / "lock", self.root / "lock.json"
        fd = self._opened(path)
        try:
            with translated(self.root, path):
                self._acquire(fd, within, waiting)
                notes = [read_rotation_note(data) for data in (_content(note_path), _content_of(fd))]
            interrupted = tuple(sorted({site for note in notes for site in note.in_flight}))
            reloaded = max((note.reloaded for note in notes if note.reloaded), default=None)
            lock = Lock(note_path, who, interrupted, reloaded=reloaded)
            lock._write()
            with contextlib.suppress(OSError):  # the note of rotator 0.1, which is in the new one now
                os.ftruncate(fd, 0)
            yield lock
            if not lock.interrupted and not lock.in_flight:
                with contextlib.suppress(OSError):  # a note that stays names no site in flight
                    os.unlink(note_path)
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)  # at once, also if a child has been forked meanwhile
            os.close(fd)

    def rotation_holder(self, *, settled: bool = False) -> HeldLock[RotationNote] | None:
        """The process that holds the rotation lock at this moment; None if it is free, or this user cannot see it.

        Args:
            settled: whether a holder without a note gets the time to write one, or to release the lock.
        """
        deadline = time.monotonic() + (NO_NOTE_FOR if settled else 0.0)
        while True:
            held = held_lock(self.root / "lock", self.root / "lock.json", read_rotation_note)
            if held is None or held.note.pid or time.monotonic() >= deadline:
                return held
            time.sleep(0.005)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[DaemonLock]:
        """One daemon for each state directory; the lock ends with the process, however that ends.

        Raises:
            RotatorError: `daemon-running` (exit 7) with the other one's pid.
        """
        path, note_path = self.root / "daemon.lock", self.root / "daemon.json"
        os.close(self._opened(self.root / "lock"))  # an earlier version has made it readable for the group
        fd = self._opened(path)
        try:
            with translated(self.root, path):
                if not lock_file(fd, 0.2):  # `daemon_note` of another process may hold it for an instant
                    raise self._daemon_lock_busy(path)
                with contextlib.suppress(OSError):  # the note of rotator 0.1
                    os.ftruncate(fd, 0)
            lock = DaemonLock(note_path, DaemonNote(os.getpid(), rfc3339_millis(datetime.now(UTC))))
            lock._write(lock._note)
            yield lock
            with contextlib.suppress(OSError):
                os.unlink(note_path)
        finally:
            os.close(fd)

    def daemon_pid(self) -> int:
        """The pid of the daemon that runs for this state directory; 0 if none does or it cannot be read."""
        return self.daemon_note().pid

    def daemon_note(self) -> DaemonNote:
        """The note of the running daemon; an empty one if none runs or it cannot be read."""
        held = held_lock(self.root / "daemon.lock", self.root / "daemon.json", read_daemon_note)
        return held.note if held else DaemonNote()

    def _opened(self, path: Path) -> int:
        """The descriptor of a lock file.

        Raises:
            RotatorError: `permission`, with the command that corrects the owner; `disk-full` or `io-error`.
        """
        with translated(self.root, path):
            try:
                return open_lock(path)
            except PermissionError as e:
                if self.root.stat().st_uid != os.geteuid():
                    raise
                hint = f"Give it back, as root: {command('chown -h', user_name(), path)}"
                message = f"{path} does not belong to the owner of {self.root}"
                raise RotatorError(Code.PERMISSION, message, hint) from e

    def _acquire(self, fd: int, within: float, waiting: Callable[[str], None] | None) -> None:
        note_deadline = time.monotonic() + NO_NOTE_FOR
        while not lock_file(fd, 0.0):
            held = self.rotation_holder()
            if (held and held.note.pid) or time.monotonic() >= note_deadline:
                break
            time.sleep(0.002)
        else:
            return
        if waiting:
            waiting(str(self.rotation_holder() or "the last holder"))
        if not lock_file(fd, within):
            held = self.rotation_holder()
            message = f"the lock of rotations is held by {held or 'another process'}"
            hint = "Wait for it, or look at it with `rotator status`; the lock ends with its holder"
            if held and not held.note.pid:
                hint = f"The lock ends with that process; see who it is: {show_holders(self.root / 'lock')}"
            raise RotatorError(Reason.LOCK_BUSY, message, hint, Exit.BUSY)

    def _daemon_lock_busy(self, path: Path) -> RotatorError:
        held = held_lock(path, self.root / "daemon.json", read_daemon_note)
        if held is None or held.note.pid:
            running = f"pid {held.note.pid}, since {escaped(held.note.since) or '?'}" if held else "it has just ended"
            message = f"a daemon is running for {self.root} already: {running}"
            hint = "Stop that one first: systemctl stop rotator; or see its state: rotator status"
            return RotatorError(Reason.DAEMON_RUNNING, message, hint, Exit.BUSY)
        message = f"{path} is held by {held}"
        hint = f"The daemon can start when that process has ended; see who it is: {show_holders(path)}"
        return RotatorError(Reason.LOCK_BUSY, message, hint, Exit.BUSY)


def _content(path: Path) -> bytes:
    """The content of a note; empty without a file."""
    try:
        return read_file(path)
    except (FileNotFoundError, NotRegularError):
        return b""


def _content_of(fd: int) -> bytes:
    """The note that rotator 0.1 writes into the lock file itself."""
    return os.pread(fd, MAX_READ, 0)
