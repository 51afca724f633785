"""How long a bare HUP takes until nothing serves the old pair: the floor to compare rotator with, without rotator.

`python -m tests.bench.bare --nginx debian --blocks 1 --rounds 30` prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.support.authority import CA
from tests.support.bare_hup import bare_hup
from tests.support.nginx_binaries import find_nginx
from tests.support.nginx_server import (
    NginxServer,
    ServerBlock,
    include_line,
    write_include,
    write_pair,
)

NAME = "bench.example.test"


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
