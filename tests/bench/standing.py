"""What a daemon and the commands cost while nothing changes: memory, idle processor time, starts; no rotation here."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import time
from pathlib import Path

from tests.bench.hosts import Started, daemon, environment, rotator
from tests.support.edge import Edge


def ready_after(edge: Edge, times: int) -> float:
    """Median of the seconds from exec to READY=1; the first start, which compiles the modules, apart."""
    found = []
    for _ in range(times + 1):
        with daemon(edge) as running:
            found.append(running.ready_after)
    return statistics.median(found[1:])


def memory(running: Started) -> dict[str, float]:
    """MB of the process: VmRSS, its peak, and PSS, where what is shared with others counts in part."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    rollup = Path(f"/proc/{running.process.pid}/smaps_rollup").read_text()
    return {"rss": _mb(status, "VmRSS"), "peak": _mb(status, "VmHWM"), "pss": _mb(rollup, "Pss")}


def idle_share(running: Started, seconds: float) -> float:
    """Share of one core that all its threads take, over so many seconds in which nothing happens."""
    running.settle(quiet=3.0)
    ticks, begun = running.ticks, time.monotonic()
    time.sleep(seconds)
    return (running.ticks - ticks) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begun)


def command(edge: Edge, *words: str, times: int) -> float:
    """Median of the seconds that a command takes, from fork to exit; the first call, which warms the caches, apart."""
    found = []
    for _ in range(times + 1):
        begun = time.monotonic()
        done = subprocess.run(
            rotator(edge, *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=environment(),
            check=False,
        )
        found.append(time.monotonic() - begun)
        assert done.returncode == 0, done.stdout + done.stderr
    return statistics.median(found[1:])


def _mb(text: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found, text
    return int(found[1]) / 1024
