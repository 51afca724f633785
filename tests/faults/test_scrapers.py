"""Five hundred clients of the metrics page that send nothing, send slowly or read nothing, while a drop arrives."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.authority import CA
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.running import running
from tests.support.waiting import PATIENCE, wait_until

CROWD = 500


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra='settle = "1s"\n')
    host.start()
    (host.incoming / "example").mkdir()
    return host


@contextmanager
def _crowd(address: str) -> Iterator[list[socket.socket]]:
    """A third sends nothing, a third half a request, a third asks for a page and never reads it."""
    host, _, port = address.rpartition(":")
    clients: list[socket.socket] = []
    try:
        for number in range(CROWD):
            one = socket.socket()
            clients.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            one.settimeout(20)
            one.connect((host, int(port)))
            one.setblocking(False)
            _send(one, (b"", b"GET /me", b"GET /metrics HTTP/1.1\r\n\r\n")[number % 3])
        yield clients
    finally:
        for one in clients:
            one.close()


def _send(client: socket.socket, data: bytes) -> None:
    try:
        client.send(data)
    except OSError:
        return  # it has been shown the door


def _threads(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Threads:")))


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _is_scraped(edge: Edge) -> bool:
    try:
        with urllib.request.urlopen(f"http://{edge.metrics}/metrics", timeout=PATIENCE) as answer:
            return b"rotator_swap_attempts_total" in answer.read()
    except OSError:
        return False


@pytest.mark.soak
def test_a_crowd_of_slow_scrapers_holds_up_no_rotation_and_costs_a_bounded_number_of_threads_and_descriptors(
    edge: Edge,
) -> None:
    first, second = edge.issue(), edge.issue()
    with running(edge) as daemon:
        pid = daemon.process.pid
        edge.write_pair(first, edge.incoming / "example")
        wait_until(lambda: edge.shown() == {first.chain_der} and _is_scraped(edge), 20, "it serves, and is scraped")
        threads, descriptors = _threads(pid), _descriptors(pid)
        most_threads = most_descriptors = 0
        with _crowd(edge.metrics) as clients:
            edge.write_pair(second, edge.incoming / "example")

            def is_served() -> bool:
                nonlocal most_threads, most_descriptors
                for one in clients[1::3]:
                    _send(one, b"t")  # a byte at a time
                most_threads = max(most_threads, _threads(pid))
                most_descriptors = max(most_descriptors, _descriptors(pid))
                return edge.store.verified("example") == edge.live() and edge.shown() == {second.chain_der}

            wait_until(is_served, 20, "the drop is served all the same")
            wait_until(lambda: daemon.said("rotated example", "000003"), 20)
        wait_until(lambda: _is_scraped(edge), 20, "it is scraped when the crowd has gone")
        wait_until(lambda: _threads(pid) <= threads, 10, "no thread stays")
        wait_until(lambda: _descriptors(pid) <= descriptors + 2, 10, "no descriptor stays")
        assert daemon.end() == 0
    # A rotation has threads and descriptors of its own for its handshakes; a crowd of five hundred would show.
    assert most_threads < threads + 20
    assert most_descriptors < descriptors + CROWD // 5
