"""The holder of a lock as another process sees it: from its note, or else from the kernel's list."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

from rotator.storage.notes import DaemonNote, RotationNote
from rotator.system.files import NotRegularError, read_file
from rotator.system.lock_holders import LockHolder, holders_text, lock_holders

N = TypeVar("N", RotationNote, DaemonNote)


@dataclass(frozen=True, slots=True)
class HeldLock(Generic[N]):
    """A lock that is held.

    Args:
        note: the note of the holder; an empty one if the holder has left none.
        processes: the holders that the kernel shows; none where it shows none to this process.
    """

    note: N
    processes: tuple[LockHolder, ...] = ()

    def __str__(self) -> str:
        if not self.note.pid:
            return f"{holders_text(self.processes)}, without a note"
        return str(self.note)

    def is_long(self, now: datetime, seconds: float) -> bool:
        """Whether it has been held for longer than a rotation takes; a holder without a note is no rotation.

        Args:
            now: the current time, UTC.
            seconds: the longest time of a rotation.
        """
        try:
            return now - datetime.fromisoformat(self.note.since) > timedelta(seconds=seconds)
        except (ValueError, TypeError):
            return True


def held_lock(path: Path, note_path: Path, read_note: Callable[[bytes], N]) -> HeldLock[N] | None:
    """The holder of a lock; None if the lock is free, or this user cannot see it.

    A note counts only while a process of the file's owner, or of root, holds the lock, as far as the kernel shows the
    holders: a note can be left by a process that was killed, and another user can hold a lock file that an earlier
    version of rotator has made readable.

    Args:
        path: the lock file; it need not be readable.
        note_path: the file with the note.
        read_note: reads a note; an empty one where the bytes are none.
    """
    try:
        status = path.lstat()
    except OSError:
        return None
    processes = lock_holders(status)
    if not processes:
        is_held = _is_held(path)
        if is_held is not False:
            processes = lock_holders(status, any_device=True)
        if is_held is None:  # this user may not open it, so that the inode's number alone could be that of another file
            processes = tuple(process for process in processes if process.uid == status.st_uid)
        if not is_held and not processes:
            return None
    if all(process.uid not in (None, 0, status.st_uid) for process in processes) and processes:
        return HeldLock(read_note(b""), processes)
    in_lock = read_note(_content(path))  # rotator 0.1 writes its note there, and later versions empty it
    return HeldLock(in_lock if in_lock.pid else read_note(_content(note_path)), processes)


def _is_held(path: Path) -> bool | None:
    """Whether a lock is held, by a try for a shared one; None if this user may not open the file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _content(path: Path) -> bytes:
    with suppress(OSError, NotRegularError):
        return read_file(path)
    return b""
