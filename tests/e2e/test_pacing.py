"""How reloads are paced on both real nginx: by workers that a client keeps draining, and by the time between two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.authority import CA
from tests.support.client import held_connection
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.renewals import QUICK, is_decided, is_served, page, rotations
from tests.support.running import Running, running
from tests.support.waiting import wait_until

Make = Callable[[str], Edge]


@pytest.fixture
def make(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Make:
    """A host with these lines in its table of nginx."""

    def made(lines: str) -> Edge:
        host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=QUICK, nginx_extra=lines)
        host.start()
        (host.incoming / "example").mkdir()
        return host

    return made


def _told(daemon: Running, *words: str) -> int:
    return sum(all(word in line for word in words) for line in daemon.lines)


def _wanted(edge: Edge) -> dict[str, object]:
    (site,) = json.loads(edge.cli("status", "--json").stdout)["sites"]
    found: dict[str, object] = site["wanted"]
    return found


@pytest.mark.each_nginx
def test_a_client_that_keeps_a_worker_draining_puts_off_the_next_reload_until_it_goes(
    make: Make, root_pem: str
) -> None:
    edge = make("drain_budget = 1")
    first, second = edge.issue(), edge.issue()
    drop = edge.incoming / "example"
    with running(edge) as daemon:
        with held_connection(edge.addresses[0], edge.name("example"), root_pem) as client:
            edge.write_pair(first, drop)
            is_decided(edge, "rotated")
            edge.write_pair(second, drop)
            is_decided(edge, "deferred", "drain-budget")
            wait_until(lambda: 'rotator_inputs{state="deferred"} 1.0' in page(edge), 10)
            assert 'rotator_nginx_worker_processes{generation="old"} 1.0' in page(edge)
            told = edge.cli("status", "example").stdout
            assert "drain-budget" in told
            assert "it goes live when fewer workers are draining" in told
            assert _wanted(edge)["next_try"]
            assert edge.shown() == {first.chain_der}
            assert client.finish().startswith("HTTP/1.1 ")
        is_served(edge, second)
        daemon.wait_for("rotated example", edge.live())
        assert _told(daemon, "deferred example", "1 worker of earlier reloads still drains") == 1
    assert rotations(edge) == 2


def test_swap_by_hand_waits_for_no_draining_worker(make: Make, root_pem: str) -> None:
    edge = make("drain_budget = 1")
    first, second = edge.issue(), edge.issue()
    drop = edge.incoming / "example"
    with running(edge), held_connection(edge.addresses[0], edge.name("example"), root_pem):
        edge.write_pair(first, drop)
        is_decided(edge, "rotated")
        edge.write_pair(second, drop)
        is_decided(edge, "deferred", "drain-budget")
        done = edge.cli("swap", "example")
        assert done.returncode == 0, done.stderr
        assert edge.shown() == {second.chain_der}
        assert len(edge.nginx.draining_workers()) == 1


def test_the_interval_counts_from_a_reload_by_a_command_and_goes_on_over_a_restart(make: Make) -> None:
    edge = make('min_reload_interval = "1h"')
    chain, key = edge.write_pair(edge.issue())
    assert edge.cli("swap", "example", "--cert", chain, "--key", key).returncode == 0
    live, renewal = edge.live(), edge.issue()
    edge.write_pair(renewal, edge.incoming / "example")
    for _ in range(2):
        with running(edge) as daemon:
            is_decided(edge, "deferred", "min-reload-interval")
            wait_until(lambda: 'rotator_inputs{state="deferred"} 1.0' in page(edge), 10)
            assert daemon.end() == 0
    assert edge.live() == live
    assert [e.reason for e in edge.history.entries("example")].count("min-reload-interval") == 1
    edge.nginx_extra = 'min_reload_interval = "0s"'
    edge.write_config()
    with running(edge):
        is_served(edge, renewal)


def test_deliver_that_waits_is_told_that_the_drop_waits_for_its_turn(make: Make) -> None:
    edge = make('min_reload_interval = "1h"')
    chain, key = edge.write_pair(edge.issue())
    assert edge.cli("swap", "example", "--cert", chain, "--key", key).returncode == 0
    chain, key = edge.write_pair(edge.issue())
    with running(edge):
        done = edge.cli("deliver", "--wait", "example", chain, key)
    assert (done.returncode, "min_reload_interval is 3600 s" in done.stdout) == (8, True), done.stderr
    assert "A swap by hand does not wait: rotator swap example" in done.stdout
