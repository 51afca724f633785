"""The processes that hold a flock(2), as the kernel lists them in /proc/locks (proc_locks(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rotator.core.hints import command
from rotator.core.text import shown
from rotator.system.users import user_name

LOCKS = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class LockHolder:
    """One process that holds a lock.

    Args:
        pid: the process that took the lock.
        uid: its user; None where this process cannot see it, or it has ended and left the lock to a child.
        program: the name of its program, which it can choose itself; empty as for `uid`.
    """

    pid: int
    uid: int | None = None
    program: str = ""

    def __str__(self) -> str:
        if self.uid is None:
            return f"pid {self.pid}"
        return f'pid {self.pid} (user {user_name(self.uid)}, program "{shown(self.program, 40)}")'


def lock_holders(status: os.stat_result, *, any_device: bool = False) -> tuple[LockHolder, ...]:
    """The processes that hold a flock(2) of a file; none where the kernel shows none to this process.

    Args:
        status: of the file, which identifies it; the file need not be readable.
        any_device: whether the number of the inode is enough where no entry has the file's device: some file systems
            (Btrfs, overlays) show another device in stat(2). It is for a file whose lock is known to be held.
    """
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return ()
    locks = [fields for line in lines if len(fields := line.split()) == 8 and fields[1] == "FLOCK"]
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    pids = {int(fields[4]) for fields in locks if fields[5] == place}
    if not pids and any_device:
        pids = {int(fields[4]) for fields in locks if fields[5].endswith(f":{status.st_ino}")}
    return tuple(_holder(pid) for pid in sorted(pids))


def holders_text(holders: tuple[LockHolder, ...]) -> str:
    """The holders in words."""
    return ", ".join(map(str, holders)) or "a process that cannot be seen from here"


def show_holders(path: Path) -> str:
    """The command that shows which processes have a file open; as root it shows those of all users."""
    return command("fuser -v", path)


def _holder(pid: int) -> LockHolder:
    process = Path("/proc") / str(pid)
    try:
        uid = process.stat().st_uid
        return LockHolder(pid, uid, (process / "comm").read_text(errors="replace").rstrip("\n"))
    except OSError:
        return LockHolder(pid)
