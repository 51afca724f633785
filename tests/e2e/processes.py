"""What /proc says about processes and listening sockets, for the tests; nothing of rotator here, and no signals."""

from __future__ import annotations

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
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
        title = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in b"ZX":
        return None
    words = title.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), words)


def everything() -> list[Process]:
    """All processes that this user can see."""
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return [process for process in map(look, pids) if process is not None]


def in_session(session: int) -> list[Process]:
    """All processes of a session: nginx's master, the masters of its upgrades, and their workers."""
    return [process for process in everything() if process.session == session]


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
