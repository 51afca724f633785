"""What /proc says about processes and listening sockets, for the tests; nothing of rotator here, and no signals."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process at one look; (pid, started) is its identity, as pids are used again."""

    pid: int
    parent: int
    session: int
    started: int
    title: str


def look(pid: int) -> Process | None:
    """The process with this pid, or None if it is gone or only waits to be reaped."""
    return _look(str(pid), None)


def everything() -> list[Process]:
    """All processes that this user can see."""
    return _all(None)


def in_session(session: int) -> list[Process]:
    """All processes of a session: nginx's master, the masters of its upgrades, and their workers."""
    return _all(session)


def _all(session: int | None) -> list[Process]:
    found = (_look(entry, session) for entry in os.listdir(PROC) if entry.isdigit())
    return [process for process in found if process is not None]


def _look(pid: str, session: int | None) -> Process | None:
    """Plain calls, as tests look often: a polling test must not take the processor from the nginx it waits for."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read(4096)
        fields = stat[stat.rindex(b")") + 2 :].split(maxsplit=20)
        if fields[0] in b"ZX" or (session is not None and int(fields[3]) != session):
            return None
        with open(f"{PROC}/{pid}/cmdline", "rb", buffering=0) as file:
            title = file.read(65536)
    except (FileNotFoundError, ProcessLookupError):
        return None
    words = title.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(int(pid), int(fields[1]), int(fields[3]), int(fields[19]), words)


def sockets_of(pids: Iterable[int]) -> frozenset[int]:
    """The inodes of the sockets that these processes hold."""
    found = set()
    for pid in pids:
        try:
            for entry in (PROC / str(pid) / "fd").iterdir():
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    return frozenset(found)


def listening() -> dict[int, str]:
    """Every listening TCP and unix socket of this network namespace: inode, and address as the kernel prints it."""
    found = {}
    for table in ("tcp", "tcp6"):
        path = PROC / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if fields[3] == "0A":
                found[int(fields[9])] = fields[1]
    for line in (PROC / "net" / "unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if int(fields[3], 16) & 0x10000:  # __SO_ACCEPTCON
            found[int(fields[6])] = fields[7] if len(fields) > 7 else ""
    return found
