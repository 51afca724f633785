"""Drops that are costly to decide, on a real nginx: the daemon gives signs of life, and an honest renewal is served."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotator.storage.notes import UndecidedNote
from tests.support.authority import CA
from tests.support.crafting import craft, san
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.renewals import is_served
from tests.support.running import running
from tests.support.waiting import wait_until

HOSTILE = tuple(f"hostile{number}" for number in range(8))
CERTIFICATES, NAMES = 14, 55_000
"""As many certificates and alternative names as the readers accept: half a second of CPU time."""


@dataclass
class Manager:
    """A service manager that reads the daemon's CPU time at each sign of life.

    Args:
        socket: where it listens.
        pid: the daemon.
        cpu: seconds of CPU time of the daemon at each sign of life.
    """

    socket: socket.socket
    pid: int = 0
    cpu: list[float] = field(default_factory=list)

    def listen(self) -> None:
        """Takes every message until the socket is closed."""
        while message := self.socket.recv(4096):
            if message == b"WATCHDOG=1" and self.pid:
                fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
                self.cpu.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))


@contextmanager
def listening(path: Path) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(path))
        manager = Manager(end)
        thread = threading.Thread(target=manager.listen)
        thread.start()
        yield manager
        end.shutdown(socket.SHUT_RD)
        thread.join()


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    extra = 'scan_interval = "1s"\nsettle = "1s"\n'
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, ("honest", *HOSTILE), listeners=1, daemon_extra=extra)
    host.start()
    for site in host.sites:
        (host.incoming / site).mkdir()
    return host


@pytest.fixture(scope="module")
def costly() -> list[bytes]:
    """The files of a costly drop."""
    authority = craft(craft(None, "Root", ca=True), "Authority", ca=True)
    names = san(*[(2, b"a")] * NAMES)
    return [craft(authority, "a", extensions={"san": names}).chain_pem for _ in range(CERTIFICATES)]


def attack(edge: Edge, costly: list[bytes]) -> None:
    """Puts the costly files into each hostile drop."""
    for site in HOSTILE:
        for number, data in enumerate(costly):
            (edge.incoming / site / f"{number}.pem").write_bytes(data)


def change(edge: Edge, number: int) -> None:
    """Other content in each hostile drop, as costly as before."""
    for site in HOSTILE:
        (edge.incoming / site / "more.pem").write_bytes(b"%d" % number)


def test_no_two_costly_drops_are_decided_between_two_signs_of_life(
    edge: Edge, tmp_path: Path, costly: list[bytes]
) -> None:
    attack(edge, costly)
    with listening(tmp_path / "notify") as manager:
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000"}
        with running(edge, ready=False, env=env) as daemon:
            manager.pid = daemon.process.pid
            for site in HOSTILE:
                daemon.wait_for(f"rejected {site}", timeout=120)
            manager.pid = 0
    spent = manager.cpu[-1] - manager.cpu[0]
    longest = max(after - before for before, after in zip(manager.cpu, manager.cpu[1:], strict=False))
    assert longest < 2.5 * spent / (2 * len(HOSTILE)), "each drop is validated twice: at once, and after its grace time"


def test_an_honest_renewal_is_served_while_hostile_drops_change_all_the_time(edge: Edge, costly: list[bytes]) -> None:
    attack(edge, costly)
    stop = threading.Event()

    def change_often() -> None:
        number = 0
        while not stop.wait(0.2):
            number += 1
            change(edge, number)

    attacker = threading.Thread(target=change_often)
    with running(edge) as daemon:
        attacker.start()
        try:
            daemon.wait_for("deferred hostile", "costly", timeout=60)
            new = edge.issue("honest")
            edge.write_pair(new, edge.incoming / "honest")
            is_served(edge, new, "honest")
            wait_until(lambda: edge.store.intent("honest").result == "rotated", 20, "it is decided")
        finally:
            stop.set()
            attacker.join()
        assert daemon.end() == 0


def test_status_reports_a_drop_that_has_long_been_undecided_and_exits_8(edge: Edge) -> None:
    edge.write_pair(edge.issue("honest"), edge.incoming / "honest")
    waiting = UndecidedNote("honest", datetime.now(UTC) - timedelta(minutes=20))
    with edge.locks.daemon() as lock:
        lock.complete_note(config="", loads=1, refused="", reported="", jobs=(), undecided=(waiting,))
        table, answer = edge.cli("status"), edge.cli("status", "--json")
    assert (table.returncode, answer.returncode) == (8, 8)
    assert "UNDECIDED: honest: the content of the drop waits for a decision since" in table.stderr
    sites = {site["site"]: site["wanted"]["undecided_since"] for site in json.loads(answer.stdout)["sites"]}
    assert sites.pop("honest") is not None
    assert set(sites.values()) == {None}
