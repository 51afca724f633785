"""What a run of the tests has left behind: processes with their listeners, and mounts."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.support import processes

VARIABLE = "ROTATOR_TEST_RUN"
"""Every process that a test starts inherits this variable, whose value names the run."""


def mark() -> str:
    """Names the run, for this process and for all that are started by it. Returns the name."""
    return os.environ.setdefault(VARIABLE, secrets.token_hex(8))


PLACES = (tempfile.gettempdir(), "/dev/shm")
"""Where tests have their files. What is mounted elsewhere meanwhile is not theirs."""


def mounts() -> frozenset[str]:
    """The mount points below these places, in this mount namespace."""
    points = [line.split()[4] for line in (processes.PROC / "self" / "mountinfo").read_text().splitlines()]
    return frozenset(point for point in points if point.startswith(tuple(f"{place}/" for place in PLACES)))


def left(run: str, *, spared: Collection[int], mounted: Collection[str]) -> list[str]:
    """What is there and should not be, one line for each.

    Args:
        run: the name of the run.
        spared: the processes that run the tests themselves.
        mounted: the mount points that were there at the start.
    """
    return [*_running(run, spared), *(f"mount {point}" for point in sorted(mounts() - set(mounted)))]


def _running(run: str, spared: Collection[int]) -> Iterator[str]:
    listening = processes.listening()
    for one in processes.everything():
        if one.pid in spared or one.pid == os.getpid() or not _belongs(one.pid, run):
            continue
        addresses = sorted(listening[inode] for inode in processes.sockets_of([one.pid]) & listening.keys())
        yield f"process {one.pid} {one.title}" + (f", listening on {', '.join(addresses)}" if addresses else "")


def _belongs(pid: int, run: str) -> bool:
    try:
        return f"{VARIABLE}={run}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
