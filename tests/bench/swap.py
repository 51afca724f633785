"""How long a swap takes until every listener is proved, beside a bare HUP with the same proof, in one run.

    python -m tests.bench.swap --nginx debian --blocks 1 --rounds 30

Each round does both, one after the other, on the same nginx: the bare one (two files written beforehand, one rename of
the include, one HUP, the same proof) and rotator's (judge, store, test, apply, prove). What is compared is from the
call to the moment at which the proof holds. Milliseconds; a shared machine is noisy, so look at the differences.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rotator.core.model import KeyType, Result
from rotator.rotation.proof import expectation, prove
from rotator.storage.generations import Store
from tests.support.authority import CA, Issued, new_key, rsa_key
from tests.support.edge import Edge
from tests.support.nginx_binaries import find_nginx
from tests.support.nginx_server import NginxServer, write_include, write_pair


class _Stopwatch(Store):
    """A store that notes when the proof was there: the next thing that happens then is that it is marked."""

    proved_at = 0.0

    def mark_verified(self, site: str, name: str) -> None:
        self.proved_at = time.monotonic()
        super().mark_verified(site, name)


@contextmanager
def host(binary: Path, blocks: int) -> Iterator[Edge]:
    """An edge host with one site and `blocks` TLS server blocks in all."""
    root = CA.root(at=datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as top:
        nginx = NginxServer(binary, Path(top) / "n", fillers=blocks - 1)
        nginx.filler_pair = write_pair(Path(top) / "fillers", root.intermediate().issue("filler.example.test"))
        with nginx:
            edge = Edge(nginx, Path(top) / "e", root.intermediate(), root, listeners=1)
            edge.start()
            yield edge


def bare(edge: Edge, new: Issued, round_: int) -> float:
    """Seconds from the rename of the include to the proof."""
    site = edge.site()
    files = write_pair(edge.root / f"bare-{round_}", new)
    include = edge.include_dir / "example.conf"
    kept, ports = include.read_text(), edge.ports
    expected = expectation(site, {KeyType.ECDSA: new.chain_der})
    before = ports.nginx.workers()
    began = time.monotonic()
    write_include(include, files)
    os.kill(edge.nginx.master_pid, 1)
    proof = prove(expected, before, ports, 30.0)
    took = time.monotonic() - began
    assert proof.ok, proof
    include.write_text(kept)
    edge.nginx.reload_and_wait()
    return took


def rotated(edge: Edge, new: Issued) -> tuple[float, dict[str, float]]:
    """Seconds from the call to the proof, and by stage."""
    store = _Stopwatch(edge.state)
    ports = replace(edge.ports, store=store)
    wanted = edge.wanted("example", new)
    began = time.monotonic()
    (done,) = edge.run(wanted, ports=ports)
    assert done.result is Result.ROTATED, done
    return store.proved_at - began, dict(done.stages)


def measure(binary: Path, *, blocks: int, rounds: int, kind: str) -> dict[str, object]:
    """Medians and 95th percentiles in milliseconds."""
    plain, ours, stages = [], [], []
    with host(binary, blocks) as edge:
        for round_ in range(rounds + 1):
            key = rsa_key(round_ % 5) if kind == "rsa" else new_key(kind)
            alone = bare(edge, edge.issue(key=key), round_)
            whole, by_stage = rotated(edge, edge.issue(key=key))
            if round_:  # the first warms the caches
                plain.append(alone)
                ours.append(whole)
                stages.append(by_stage)
    more = [b - a for a, b in zip(plain, ours, strict=True)]
    return {
        "nginx": str(binary),
        "blocks": blocks,
        "rounds": rounds,
        "kind": kind,
        "bare_p50": _ms(statistics.median(plain)),
        "bare_p95": _ms(_p95(plain)),
        "swap_p50": _ms(statistics.median(ours)),
        "swap_p95": _ms(_p95(ours)),
        "more_p50": _ms(statistics.median(more)),
        "more_p95": _ms(_p95(more)),
        "stages_p50": {stage: _ms(statistics.median(s[stage] for s in stages)) for stage in stages[0]},
    }


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def main() -> None:
    """Prints one line of JSON for each nginx and number of blocks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--nginx", nargs="+", default=["debian", "mainline"], help="debian, mainline or a path")
    parser.add_argument("--blocks", nargs="+", type=int, default=[1, 300])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--kind", choices=["ecdsa", "rsa"], default="ecdsa")
    args = parser.parse_args()
    for name in args.nginx:
        binary = find_nginx(name) or Path(name)
        for blocks in args.blocks:
            answer = measure(binary, blocks=blocks, rounds=args.rounds, kind=args.kind)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
