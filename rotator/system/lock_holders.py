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
        user: its user; empty where this process cannot see it, or it has ended and left the lock to a child.
        program: the name of its program, which it can choose itself; empty as for `user`.
    """

    pid: int
    user: str = ""
    program: str = ""

    def __str__(self) -> str:
        seen = f'user {self.user}, program "{shown(self.program, 40)}"' if self.user else "it cannot be looked at"
        return f"pid {self.pid} ({seen})"


def lock_holders(status: os.stat_result) -> tuple[LockHolder, ...]:
    """The processes that hold a flock(2) of a file; none where the kernel shows none to this process.

    Args:
        status: of the file, which identifies it; the file need not be readable.
    """
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return ()
    locks = [fields for line in lines if len(fields := line.split()) == 8 and fields[1] == "FLOCK"]
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:"
    places = [fields[5] for fields in locks]
    # Some file systems (Btrfs, overlays) show another device number in stat(2) than here.
    is_same = device + str(status.st_ino) in places
    suffix = device + str(status.st_ino) if is_same else f":{status.st_ino}"
    pids = {int(fields[4]) for fields in locks if fields[5].endswith(suffix)}
    return tuple(_holder(pid) for pid in sorted(pids))


def holders_text(path: Path, holders: tuple[LockHolder, ...]) -> str:
    """The holders in words; without any, the command that shows them."""
    return ", ".join(map(str, holders)) or f"a process that cannot be seen from here; see: {show_holders(path)}"


def show_holders(path: Path) -> str:
    """The command that shows which processes have a file open; as root it shows those of all users."""
    return command("fuser -v", path)


def _holder(pid: int) -> LockHolder:
    process = Path("/proc") / str(pid)
    try:
        uid = process.stat().st_uid
        return LockHolder(pid, user_name(uid), (process / "comm").read_text(errors="replace").rstrip("\n"))
    except OSError:
        return LockHolder(pid)
