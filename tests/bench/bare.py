"""How long a bare HUP takes until nothing serves the old pair: the floor to compare rotator with, without rotator.

`python -m tests.bench.bare --nginx debian --blocks 1 --rounds 30` prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.support import processes
from tests.support.authority import CA
from tests.support.client import served_leaf
from tests.support.nginx_binaries import find_nginx
from tests.support.nginx_server import (
    ACTIVE,
    NginxServer,
    PairFiles,
    ServerBlock,
    include_line,
    write_include,
    write_pair,
)

NAME = "bench.example.test"


def bare_hup(
    server: NginxServer,
    include: Path,
    pair: PairFiles,
    leaf: bytes,
    targets: Sequence[tuple[str, str]],
    *,
    timeout: float = 60.0,
    poll: float = 0.001,
) -> float:
    """Seconds from just before the include's rename until every target is seen to serve the new leaf, and it only.

    That is: one HUP, then the old workers' titles every `poll` seconds until none of them accepts connections any
    more, then one fresh handshake with each (listener, name). The pair's files are written before the clock runs.
    """
    old = server.active_workers()
    begin = time.monotonic()
    write_include(include, pair)
    server.hup()
    while any(_still_active(worker) for worker in old):
        if time.monotonic() - begin > timeout:
            raise AssertionError(f"not converged within {timeout:g} s: {server.words()}")
        time.sleep(poll)
    for listener, name in targets:
        if served_leaf(listener, name) != leaf:
            raise AssertionError(f"no old worker is active, yet {name} at {listener} serves another leaf")
    return time.monotonic() - begin


def measure(binary: Path, *, blocks: int = 1, workers: int = 1, rounds: int = 10) -> list[float]:
    """A bare HUP again and again, on an nginx of its own with this many TLS server blocks."""
    ca = CA.root(at=datetime.now(UTC)).intermediate()
    with (
        tempfile.TemporaryDirectory(prefix="bare-") as directory,
        NginxServer(binary, Path(directory), worker_processes=workers, fillers=blocks - 1) as server,
    ):
        include, first = server.root / "site.conf", write_pair(server.root / "pairs" / "0", ca.issue(NAME))
        server.filler_pair = first
        listener = server.reserve_port()
        server.blocks.append(ServerBlock(NAME, (listener,), include_line(include)))
        write_include(include, first)
        server.start(timeout=60.0)
        seconds = []
        for number in range(1, rounds + 1):
            issued = ca.issue(NAME)
            pair = write_pair(server.root / "pairs" / str(number), issued)
            seconds.append(bare_hup(server, include, pair, issued.chain_der[0], [(listener, NAME)]))
        return seconds


def _still_active(worker: processes.Process) -> bool:
    now = processes.look(worker.pid)
    return now is not None and now.started == worker.started and now.title == ACTIVE


def main() -> None:
    parser = argparse.ArgumentParser(description="measure a bare HUP: the floor")
    parser.add_argument("--nginx", default="mainline", help="debian, mainline, or the path of a binary")
    parser.add_argument("--blocks", type=int, default=1, help="TLS server blocks")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    binary = find_nginx(options.nginx) if options.nginx in ("debian", "mainline") else Path(options.nginx)
    if binary is None:
        parser.error(f"no such nginx here: {options.nginx}")
    seconds = measure(binary, blocks=options.blocks, workers=options.workers, rounds=options.rounds)
    result = {**vars(options), "median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()}))


if __name__ == "__main__":
    main()
