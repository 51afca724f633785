"""Two hundred rotations while SIGTERM, SIGHUP and SIGKILL strike at any moment, and a supervisor starts it again."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support.authority import CA, Issued, pem
from tests.support.client import fingerprint
from tests.support.edge import Edge
from tests.support.forked import Life, deliver, host, life, strays
from tests.support.hammer import Hammer
from tests.support.other_user import in_children
from tests.support.tiers import Size
from tests.support.waiting import wait_until

HOSTS, ROTATIONS = 4, 25
"""Rotations on each host: a hundred with each nginx, at the same time because they are mostly spent waiting for it."""
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
EXITS = {signal.SIGTERM: 0, signal.SIGKILL: -9}


class Supervisor:
    """Starts the daemon, and starts it again when it has ended, as the service manager does.

    Args:
        edge: the host.
    """

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.stack = ExitStack()
        self.ends: Counter[int] = Counter()
        self.life = self._start()

    def _start(self) -> Life:
        self.stack = ExitStack()
        return self.stack.enter_context(life(self.edge))

    def strike(self, number: signal.Signals) -> None:
        """Sends a signal; if it ends the daemon, that was as it should, and another one is started."""
        if number is signal.SIGHUP:
            self.life.wait_for("starting:")  # the service manager lets nobody reload what has not started
        self.life.tell(number)
        if number is signal.SIGHUP:
            assert not self.life.is_over(), f"SIGHUP ended it: {self.life.words}"
            return
        status = self.life.end(number)
        self.ends[status] += 1
        # Before its handlers stand, a process knows no SIGTERM; the service manager takes that for an end as well.
        assert status == EXITS[number] or (status == -number and not self.life.said("starting:")), status
        self.stack.close()
        self.life = self._start()


def _is_decided(edge: Edge, digest: str) -> bool:
    intent = edge.store.intent("example")
    return intent.digest == digest and intent.result in ("rotated", "unchanged")


def _rotations(
    binary: Path, root: Path, issuing_ca: CA, root_ca: CA, seed: str, count: int
) -> tuple[Counter[int], int]:
    """All rotations of one host. Returns how the daemons ended, and how many connections there were meanwhile."""
    with host(binary, root, issuing_ca, root_ca, listeners=2, extra='settle = "1s"\n') as edge:
        noise = random.Random(seed)
        waited: list[Issued] = []
        targets = [(address, edge.name("example")) for address in edge.addresses]
        hammer = Hammer(targets, pem(root_ca.cert).decode(), root, rate=15, threads=2, max_seconds=1100)
        with hammer:
            supervisor = Supervisor(edge)
            with ExitStack() as last:
                last.callback(lambda: supervisor.stack.close())
                for number in range(count):
                    new = edge.issue()
                    digest = deliver(edge, new)
                    time.sleep(noise.random() * 0.45)  # the moment is to be any
                    supervisor.strike(noise.choice(SIGNALS))
                    if number == count - 1 or noise.random() < 0.7:  # the others may be superseded
                        wait_until(lambda digest=digest: _is_decided(edge, digest), 30, f"drop {number} is decided")  # type: ignore[misc]
                        waited.append(new)
                supervisor.life.wait_for("ready:")
                assert supervisor.life.end() == 0
            records = hammer.stop()

        assert edge.shown() == {waited[-1].chain_der}
        assert edge.store.verified("example") == edge.live()
        assert strays(edge) == []

        lines = (edge.state / "history.jsonl").read_bytes().splitlines()
        history = edge.history.entries("example")
        assert len(lines) == len(history), "a line of the history is torn"
        assert {e.result for e in history} <= {"rotated", "unchanged", "deferred"}, history
        told = Counter(e.live for e in history if e.result == "rotated")
        assert [one for one, count in told.items() if count > 1] == [], "told twice"
        went_live = {f for e in history if e.result == "rotated" for f in e.fingerprints.values()}
        for new in waited:
            assert fingerprint(new.chain_der[0]) in went_live, "a drop that was decided is not in the history"
        assert records.failures == ()
        return supervisor.ends, len(records.all)


@pytest.mark.soak
@pytest.mark.each_nginx
@pytest.mark.timeout(1200)
def test_a_hundred_rotations_under_random_signals_all_end_proved_and_no_client_notices(
    nginx_binary: Path, tmp_path: Path, issuing_ca: CA, root_ca: CA, size: Size
) -> None:
    hosts = [tmp_path / str(number) for number in range(size.count(HOSTS, 2))]
    count = size.count(ROTATIONS, 6)
    works = [
        partial(_rotations, nginx_binary, top, issuing_ca, root_ca, f"{size.seed} {top.name}", count) for top in hosts
    ]
    found = in_children(works)
    ends = sum((one for one, _ in found), Counter())
    assert sum(connections for _, connections in found) > size.count(400, 40)
    if size.whole:  # a few rotations need not meet every signal
        assert ends[-9] > 10
        assert ends[0] > 10
