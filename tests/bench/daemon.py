"""The daemon beside a bare HUP and beside an inotifywait loop, in one run; and what it costs while nothing happens.

    python -m tests.bench.daemon                          # all of it, about 25 minutes, on a machine with nothing to do
    python -m tests.bench.daemon --only rotation --nginx debian --sites 1 --blocks 1 --rounds 10
    python -m tests.bench.daemon --only standing --idle 60

It needs inotifywait (apt-get install inotify-tools), which is the comparison's and not rotator's.

Rotation: in each round the three go one after the other on the same nginx. Each time is taken by the bench's own
prover, without a hook in rotator, and ends where the same is true for all three: no worker of before accepts
connections, and after that a fresh handshake with the listener shows the new leaf. It begins

- for the bare HUP just before the rename of the include, with the new files in their place already: the floor;
- for `rotator run`, a process of its own, just before the rename that gives the drop its last file: so it holds what it
  takes to hear of the drop, to judge it, to store it, to have nginx test it, and to copy it for nginx;
- for the loop (`contest._LOOP`: copy both files, `nginx -t -q && nginx -s reload`) just before the same rename.

`told` is the same for rotator up to the moment that its own history gives: it has itself proved every listener and
noted that on the disk by then. `stages` are what it says of itself. `more` is the difference of a round to its own bare
HUP. With 1,000 sites, one changes; each of the others has two files in its drop that are decided already.

Standing: with 1,000 sites each is live and served by a server block of its own. `idle` is utime + stime of all threads
from /proc over `--idle` seconds (the probes of every minute are in it), as a share of one core. `ready` is from just
before exec to READY=1 at a socket of the bench's own. Commands are timed from fork to exit, as medians.

Standard output has one line of JSON for each measurement (seconds as milliseconds, with the load of the machine), then
the tables. A shared machine is noisy: within one run the ratios and the differences can be relied on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import standing
from tests.bench.contest import Contest, Times
from tests.bench.hosts import daemon, host, inotifywait
from tests.support.nginx_binaries import find_nginx

Measured = dict[str, object]


def rotation(binary: Path, *, sites: int, blocks: int, rounds: int) -> Measured:
    """The three contenders, in milliseconds."""
    with host(binary, sites=sites, blocks=blocks) as edge, daemon(edge) as running:
        times = Contest(edge, running).run(rounds)
    found: Measured = {
        "bench": "rotation",
        "nginx": version(binary),
        "sites": sites,
        "blocks": blocks,
        "rounds": rounds,
    }
    for name in ("bare", "rotator", "loop", "told"):
        found |= _summary(name, getattr(times, name))
    found |= _summary("more", _differences(times))
    stages = {stage: _ms(statistics.median(one.get(stage, 0.0) for one in times.stages)) for stage in times.stages[0]}
    return found | {"stages_p50": stages} | _load()


def standing_costs(binary: Path, *, sites: int, idle: float, times: int) -> Measured:
    """What it costs while nothing changes."""
    with host(binary, sites=sites, blocks=None) as edge:
        found: Measured = {"bench": "standing", "nginx": version(binary), "sites": sites, "idle_seconds": idle}
        found["ready_ms"] = _ms(standing.ready_after(edge, times))
        found["help_ms"] = _ms(standing.command(edge, "--help", times=2 * times))
        found["status_ms"] = _ms(standing.command(edge, "status", times=times))
        with daemon(edge) as running:
            found["idle_percent"] = round(100 * standing.idle_share(running, idle), 3)
            found |= {f"{name}_mb": round(mb, 1) for name, mb in standing.memory(running).items()}
    return found | _load()


def tables(found: Sequence[Measured]) -> Iterator[str]:
    """The lines that a README shows."""
    rotations = [one for one in found if one["bench"] == "rotation"]
    costs = [one for one in found if one["bench"] == "standing"]
    if rotations:
        yield "From the drop's last byte until every listener is proved, milliseconds, p50 (p95):"
        yield ""
        yield "| nginx | server blocks | sites | bare HUP | rotator | inotifywait loop |"
        yield "|---|--:|--:|--:|--:|--:|"
        for one in rotations:
            cells = (f"{one[f'{name}_p50']:.0f} ({one[f'{name}_p95']:.0f})" for name in ("bare", "rotator", "loop"))
            yield f"| {one['nginx']} | {one['blocks']} | {one['sites']:,} | {' | '.join(cells)} |"
        yield ""
    if costs:
        yield f"| while nothing changes | {' | '.join(_sites(one) for one in costs)} |"
        yield f"|---|{'--:|' * len(costs)}"
        for words, name, form in (
            ("resident memory, MB", "rss_mb", ".0f"),
            ("proportional memory (PSS), MB", "pss_mb", ".0f"),
            ("processor, % of one core", "idle_percent", ".2f"),
            ("from start to READY, ms", "ready_ms", ",.0f"),
            ("`rotator status`, ms", "status_ms", ",.0f"),
            ("`rotator --help`, ms", "help_ms", ",.0f"),
        ):
            yield f"| {words} | {' | '.join(format(one[name], form) for one in costs)} |"
        yield ""
    yield f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load {_loads(found)}."


def version(binary: Path) -> str:
    """The number that nginx tells of itself."""
    return subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition("/")[2]


def _sites(one: Measured) -> str:
    return f"{one['sites']:,} site{'s' * (one['sites'] != 1)}"


def _summary(name: str, seconds: Sequence[float]) -> Measured:
    return {f"{name}_p50": _ms(statistics.median(seconds)), f"{name}_p95": _ms(_p95(seconds))}


def _differences(times: Times) -> list[float]:
    return [ours - floor for floor, ours in zip(times.bare, times.rotator, strict=True)]


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _load() -> Measured:
    return {"load": round(os.getloadavg()[0], 2)}


def _loads(found: Sequence[Measured]) -> str:
    loads = [float(str(one["load"])) for one in found]
    return f"{min(loads):.1f} to {max(loads):.1f}"


def main() -> None:
    """Measures, and prints a line for each measurement as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["rotation", "standing"], help="one half of it")
    parser.add_argument("--nginx", nargs="+", default=["debian", "mainline"], help="debian, mainline or a path")
    parser.add_argument("--blocks", nargs="+", type=int, default=[1, 300], help="TLS server blocks, for rotation")
    parser.add_argument("--sites", nargs="+", type=int, default=[1, 1000])
    parser.add_argument("--rounds", type=int, default=30, help="of each rotation")
    parser.add_argument("--idle", type=float, default=120.0, help="seconds; at least 60, as each minute has its probes")
    parser.add_argument("--times", type=int, default=5, help="starts, and calls of a command")
    args = parser.parse_args()
    binaries = {name: find_nginx(name) or Path(name) for name in args.nginx}
    if missing := [name for name, path in binaries.items() if not path.exists()]:
        parser.error(f"no such nginx here: {', '.join(missing)}")
    found: list[Measured] = []
    if args.only != "standing":
        inotifywait()
        for binary in binaries.values():
            for sites in args.sites:
                for blocks in args.blocks:
                    found.append(rotation(binary, sites=sites, blocks=blocks, rounds=args.rounds))
                    print(json.dumps(found[-1]), flush=True)
    if args.only != "rotation":
        binary = next(iter(binaries.values()))
        for sites in args.sites:
            found.append(standing_costs(binary, sites=sites, idle=args.idle, times=args.times))
            print(json.dumps(found[-1]), flush=True)
    print()
    print("\n".join(tables(found)))


if __name__ == "__main__":
    main()
