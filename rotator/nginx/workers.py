"""The processes of nginx at one moment, as /proc shows them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from rotator.core.model import Workers
from rotator.system.trusted_paths import is_root

_WORKER = b"nginx: worker process"
_DRAINING = b"nginx: worker process is shutting down"
_HELPERS = (b"nginx: cache manager process", b"nginx: cache loader process")
_MASTER = b"nginx: master process"


def look(pid_file: Path) -> Workers | None:
    """All current workers of this host's nginx.

    Args:
        pid_file: the file that nginx's `pid` directive names.

    Returns:
        The workers (`master=None` if nginx is not running). None if its processes are invisible: /proc is mounted with
        hidepid, or this user may not read the pid file; or another user may have written that file, or owns the
        process that it names, as every user may give a process the title of a master.
    """
    # During an upgrade of the binary (USR2) the pid file is renamed to .oldbin. The old master keeps its workers, which
    # still serve the old pair, while a signal to the new pid reaches the new master only.
    try:
        old, pid = _read_pid(Path(f"{pid_file}.oldbin")), _read_pid(pid_file)
    except PermissionError:
        return None
    old = old if old is not None and (_title(old) or b"").startswith(_MASTER) and _is_trusted(old) else None
    title = _title(pid) if pid is not None else b""
    if pid is not None and title is None and _exists(pid):
        return None
    master = pid if title is not None and title.startswith(_MASTER) else None
    if master is not None and not _is_trusted(master):
        return None
    masters = [m for m in (master, old) if m is not None]
    if not masters:
        return Workers(master=None)
    groups = [_workers_of(m, masters) for m in masters]
    # An old master without active workers only waits for its last clients, maybe for days; its upgrade is complete.
    upgrading = old is not None and (master is None or bool(groups[-1][0]))
    active = frozenset[tuple[int, int]]().union(*(group[0] for group in groups))
    draining = frozenset[tuple[int, int]]().union(*(group[1] for group in groups))
    return Workers(master or old, active, draining, upgrading)


def _workers_of(master: int, masters: list[int]) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]:
    """The active and the draining workers of one master, each as its pid and start time."""
    active, draining = set(), set()
    for pid in _children(master):
        title, started = _title(pid), _start_time(pid)
        if title is None or started is None or title.startswith(_HELPERS) or pid in masters:
            continue
        if title.startswith(_DRAINING):
            draining.add((pid, started))
        elif title.startswith((_WORKER, _MASTER)):
            active.add((pid, started))  # a child that was just forked still has the title of its parent
    return frozenset(active), frozenset(draining)


def _children(pid: int) -> frozenset[int]:
    """The children of a process. One read may miss a child while a sibling exits (proc(5)), so two must be equal."""
    previous: frozenset[int] | None = None
    union: frozenset[int] = frozenset()
    for _ in range(5):
        try:
            current = frozenset(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()))
        except OSError:
            return union
        if current == previous:
            return current
        previous, union = current, union | current
    return union


def _title(pid: int) -> bytes | None:
    """The title of a process; None if it does not exist, is invisible or is a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() or None
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """The start time in clock ticks since boot (proc(5), field 22); it differs for a later process with this pid."""
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


def _is_trusted(pid: int) -> bool:
    """Whether a process belongs to root or to the user of this process; True for one that has ended meanwhile."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return True
    uids = next((line.split()[1:3] for line in status.splitlines() if line.startswith(b"Uid:")), [])
    return all(_is_trusted_user(int(uid)) for uid in uids)


def _is_trusted_user(uid: int) -> bool:
    """Whether files and processes of this user are those of root or of the user of this process."""
    return uid == os.geteuid() or is_root(uid)


def _read_pid(pid_file: Path) -> int | None:
    """The pid in a file; None without a file or a pid (`nginx -t` by root leaves an empty file if nginx is stopped).

    Raises:
        PermissionError: this user may not read it; or another user may have written it.
    """
    try:
        # Like the privileged step: a FIFO does not block, and a link is not followed.
        fd = os.open(pid_file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError:
        return None
    try:
        text, status = os.read(fd, 32).strip(), os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    if not text.isdigit() or not 0 < int(text) < 2**31:
        return None
    if not _is_trusted_user(status.st_uid) or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "another user may have written it", str(pid_file))
    return int(text)
