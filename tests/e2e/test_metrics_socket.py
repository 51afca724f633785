"""The port of the metrics page across a restart of the daemon, and beside a program that has taken it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.authority import CA
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.renewals import QUICK, is_served
from tests.support.running import ROOT, Running, running

PASS = (
    "import os, sys; fd, *command = sys.argv[1:]; os.dup2(int(fd), 3); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='metrics'); "
    "os.execvp(command[0], command)"
)


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=QUICK)
    host.start()
    (host.incoming / "example").mkdir()
    return host


@contextmanager
def _activated(edge: Edge, passed: socket.socket) -> Iterator[Running]:
    """A daemon that a service manager has passed this socket."""
    log = edge.root / f"activated-{len(list(edge.root.glob('activated-*')))}.log"
    fd = passed.fileno()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PASS, str(fd), *map(str, edge.command("run"))],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
            pass_fds=[fd],
        )
    daemon = Running(process, log)
    try:
        daemon.wait_for("ready:")
        yield daemon
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _page(address: str) -> bytes:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        body: bytes = answer.read()
        return body


def test_a_scrape_during_a_restart_waits_in_the_passed_socket_and_no_other_program_can_have_the_port(
    edge: Edge,
) -> None:
    host, _, port = edge.metrics.rpartition(":")
    with closing(socket.create_server((host, int(port)))) as passed:
        with _activated(edge, passed) as daemon:
            assert b"rotator_build_info" in _page(edge.metrics)
            assert daemon.end(signal.SIGTERM) == 0
        with pytest.raises(OSError, match="in use"):
            socket.create_server((host, int(port)))
        with closing(socket.create_connection((host, int(port)), timeout=60)) as waiting:
            waiting.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with _activated(edge, passed) as daemon:
                parts = list(iter(lambda: waiting.recv(65536), b""))
                assert b"rotator_build_info" in b"".join(parts)
                assert not daemon.said("metrics-differ")


def test_a_stranger_on_the_port_is_named_and_the_daemon_serves_nginx_all_the_same(edge: Edge) -> None:
    host, _, port = edge.metrics.rpartition(":")
    with closing(socket.create_server((host, int(port)))), running(edge) as daemon:
        daemon.wait_for("metrics-down", "in use by user", "a page there is not this daemon's", f"sport = :{port}")
        new = edge.issue()
        edge.write_pair(new, edge.incoming / "example")
        is_served(edge, new)
