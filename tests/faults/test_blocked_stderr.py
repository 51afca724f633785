"""A journal that has gone, or that nobody reads any more: swaps go on, and the daemon ends as it should."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.authority import CA
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.running import ROOT
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra='settle = "1s"\n')
    host.start()
    (host.incoming / "example").mkdir()
    return host


@contextmanager
def _speaking_into(edge: Edge, stderr: int, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        edge.command("run"),
        stdin=subprocess.DEVNULL,
        stdout=stderr,
        stderr=stderr,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **env},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _fill(fd: int) -> None:
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(fd, True)


@pytest.mark.parametrize("how", ["full pipe", "closed pipe", "full journal", "closed journal"])
def test_swaps_go_on_when_nobody_takes_what_is_said(edge: Edge, how: str) -> None:
    kept: list[socket.socket] = []
    if "pipe" in how:
        reader, writer = os.pipe()
    else:
        ours, theirs = socket.socketpair()
        kept.append(ours)
        reader, writer = ours.fileno(), theirs.detach()
    if "full" in how:
        _fill(writer)
    elif kept:
        kept.pop().close()
    else:
        os.close(reader)
    at = os.fstat(writer)
    env = {"JOURNAL_STREAM": f"{at.st_dev}:{at.st_ino}"} if "journal" in how else {}
    try:
        with _speaking_into(edge, writer, env) as process:
            for _ in range(3):
                new = edge.issue()
                edge.write_pair(new, edge.incoming / "example")

                def is_served(new=new) -> bool:  # type: ignore[no-untyped-def]
                    assert process.poll() is None, "it ended"
                    return edge.shown() == {new.chain_der} and edge.store.verified("example") == edge.live()

                wait_until(is_served, 20, "the drop is served")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
    finally:
        os.close(writer)
        if how == "full pipe":
            os.close(reader)
        for one in kept:
            one.close()
