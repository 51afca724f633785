"""nginx's processes as /proc shows them, at one look; nothing here waits, signals or judges."""

from __future__ import annotations

import os
from pathlib import Path

from rotator.core.model import Workers

_WORKER = b"nginx: worker process"
_DRAINING = b"nginx: worker process is shutting down"
_HELPERS = (b"nginx: cache manager process", b"nginx: cache loader process")
_MASTER = b"nginx: master process"


def look(pid_file: Path) -> Workers | None:
    """All workers that this host's nginx has now.

    Args:
        pid_file: the file that nginx's `pid` directive names.

    Returns:
        The workers (`master=None` where nginx is not running), or None where it cannot be seen: /proc mounted with
        hidepid, or a pid file that this user may not read.
    """
    # During a binary upgrade (USR2) the pid file is renamed to .oldbin; that master keeps its workers, and they keep
    # serving the old pair, while a signal reaches the new master only.
    try:
        old, pid = _read_pid(Path(f"{pid_file}.oldbin")), _read_pid(pid_file)
    except PermissionError:
        return None
    old = old if old is not None and (_title(old) or b"").startswith(_MASTER) else None
    title = _title(pid) if pid is not None else b""
    if pid is not None and title is None and _exists(pid):
        return None
    master = pid if title is not None and title.startswith(_MASTER) else None
    masters = [m for m in (master, old) if m is not None]
    if not masters:
        return Workers(master=None)
    looks = [_workers(m, masters) for m in masters]
    # An old master that was told to go waits for its last client, maybe for days; all that matters has happened then.
    upgrading = old is not None and (master is None or bool(looks[-1][0]))
    active = frozenset[tuple[int, int]]().union(*(look[0] for look in looks))
    draining = frozenset[tuple[int, int]]().union(*(look[1] for look in looks))
    return Workers(master or old, active, draining, upgrading)


def _workers(master: int, masters: list[int]) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]:
    active, draining = set(), set()
    for pid in _children(master):
        title, started = _title(pid), _start_time(pid)
        if title is None or started is None or title.startswith(_HELPERS) or pid in masters:
            continue
        if title.startswith(_DRAINING):
            draining.add((pid, started))
        elif title.startswith((_WORKER, _MASTER)):
            active.add((pid, started))  # a child that was forked this instant still has its parent's title
    return frozenset(active), frozenset(draining)


def _children(pid: int) -> frozenset[int]:
    """A single read may skip a child while a sibling exits (proc(5)), so two equal reads are asked for."""
    last: frozenset[int] | None = None
    union: frozenset[int] = frozenset()
    for _ in range(5):
        try:
            now = frozenset(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()))
        except OSError:
            return union
        if now == last:
            return now
        last, union = now, union | now
    return union


def _title(pid: int) -> bytes | None:
    """The process title; None where there is no such process to see, or it is a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() or None
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Start time in clock ticks since boot (proc(5), field 22): tells a process from a later one with its pid."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.close(os.pidfd_open(pid))
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _read_pid(pid_file: Path) -> int | None:
    """The pid in a file; None where there is none (`nginx -t` by root leaves an empty one when nginx is stopped)."""
    try:
        fd = os.open(pid_file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO in its place must not stop us
    except PermissionError:
        raise
    except OSError:
        return None
    try:
        text = os.read(fd, 32).strip()
    except OSError:
        return None
    finally:
        os.close(fd)
    return int(text) if text.isdigit() and 0 < int(text) < 2**31 else None
