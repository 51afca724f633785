"""Storms of file events, an overflow of inotify, thousands of foreign files: the good pair is served soon after."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.support.authority import CA
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.running import Running, running
from tests.support.tiers import Size
from tests.support.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
SOON = 10.0
"""Seconds after calm within which the pair is served."""
MEMORY = 64 * 1024
"""KiB by which a storm may make the daemon grow."""


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    # The look at intervals is of no help here: it comes too late.
    extra = 'scan_interval = "60s"\nsettle = "2s"\n'
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=extra)
    host.start()
    (host.incoming / "example").mkdir()
    return host


def _storm(path: Path, writes: int) -> None:
    """Each write is two events: one for the content, one for the closing."""
    for number in range(writes):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, b"%d" % number)
        os.close(fd)


def _resident(daemon: Running) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def _overflows(edge: Edge) -> float:
    try:
        with urllib.request.urlopen(f"http://{edge.metrics}/metrics", timeout=PATIENCE) as answer:
            found = re.search(rb"^rotator_watcher_overflows_total (\S+)$", answer.read(), re.MULTILINE)
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0


def test_a_pair_whose_events_were_lost_in_an_overflow_is_served_soon_after_and_the_overflow_is_counted(
    edge: Edge,
) -> None:
    new = edge.issue()
    with running(edge) as daemon:
        wait_until(lambda: daemon.said("metrics:"), 10)
        before = _resident(daemon)
        daemon.tell(signal.SIGSTOP)
        try:
            _storm(edge.incoming / "example" / ".storm", int(QUEUE.read_text()) // 2 + 1000)
            edge.write_pair(new, edge.incoming / "example")  # the queue is full: these events are lost
        finally:
            daemon.tell(signal.SIGCONT)
        wait_until(lambda: edge.shown() == {new.chain_der}, SOON, "the pair is served")
        wait_until(lambda: _overflows(edge) >= 1, SOON, "the overflow is counted")
        newer = edge.issue()
        edge.write_pair(newer, edge.incoming / "example")
        wait_until(lambda: edge.shown() == {newer.chain_der}, SOON, "the next one, whose events come, is served too")
        assert _resident(daemon) < before + MEMORY
        assert daemon.end() == 0


def test_a_pair_that_was_written_in_a_storm_of_a_hundred_thousand_writes_is_served_soon_after_it(
    edge: Edge, size: Size
) -> None:
    new = edge.issue()
    noise = edge.incoming / "example" / ".storm"
    with running(edge) as daemon:
        wait_until(lambda: daemon.said("metrics:"), 10)
        before = _resident(daemon)
        _storm(noise, size.count(50_000, 10_000))
        edge.write_pair(new, edge.incoming / "example")
        _storm(noise, size.count(50_000, 10_000))
        wait_until(lambda: edge.shown() == {new.chain_der}, SOON, "the pair is served")
        wait_until(lambda: daemon.said("rotated example"), SOON)
        assert _resident(daemon) < before + MEMORY
        assert daemon.end() == 0


def test_ten_thousand_foreign_files_hold_up_no_renewal(edge: Edge, size: Size) -> None:
    count = size.count(10_000, 3_000)
    first, second = edge.issue(), edge.issue()
    with running(edge) as daemon:
        wait_until(lambda: daemon.said("metrics:"), 10)
        before = _resident(daemon)
        for number in range(count):
            (edge.incoming / f"foreign-{number}.pem").touch()
        edge.write_pair(first, edge.incoming / "example")
        wait_until(lambda: edge.shown() == {first.chain_der}, SOON, "a renewal beside them is served")
        for number in range(count):
            (edge.incoming / "example" / f"{number}.pem").touch()
        daemon.wait_for("rejected example")  # so many files are no renewal
        for number in range(count):
            (edge.incoming / "example" / f"{number}.pem").unlink()
        edge.write_pair(second, edge.incoming / "example")
        wait_until(lambda: edge.shown() == {second.chain_der}, SOON, "the next one is, when they have gone")
        assert _resident(daemon) < before + MEMORY
        assert daemon.end() == 0
