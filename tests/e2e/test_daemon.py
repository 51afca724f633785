"""The daemon as its host meets it, on both real nginx: drops in, proved certificates out, or nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.authority import CA, Issued
from tests.e2e.edge import Edge
from tests.e2e.nginx_server import NginxServer
from tests.e2e.running import running
from tests.waiting import wait_until


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=QUICK)
    host.start()
    (host.incoming / "example").mkdir()
    return host


QUICK = 'scan_interval = "200ms"\nsettle = "700ms"\n'


def _is_served(edge: Edge, new: Issued, site: str = "example") -> None:
    wait_until(lambda: edge.shown(site) == {new.chain_der}, 20, f"{site} serves the renewal")


def _is_decided(edge: Edge, result: str, reason: str = "", site: str = "example") -> None:
    def seen() -> bool:
        intent = edge.store.intent(site)
        return intent.result == result and (not reason or intent.reason == reason)

    wait_until(seen, 20, f"{site} is {result} {reason}: {edge.store.intent(site)}")


def test_a_renewal_that_is_dropped_is_served_by_every_listener(edge: Edge) -> None:
    new = edge.issue()
    with running(edge) as daemon:
        edge.write_pair(new, edge.incoming / "example")
        _is_served(edge, new)
        daemon.wait_for("rotated example")
        assert daemon.end() == 0
    assert edge.store.verified("example") == edge.live()
