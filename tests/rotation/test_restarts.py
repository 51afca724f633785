"""Starts in quick succession: each one makes the proof, and nginx is reloaded once for a pair that stays unproved."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core.model import Outcome, Result, Served, Target
from rotator.core.reasons import Reason
from rotator.rotation.ports import Ports
from rotator.rotation.recover import recover
from rotator.rotation.request import RotationRequest
from rotator.rotation.restarts import LONGEST, RELOAD_AGAIN, reload_due
from rotator.storage.entries import HistoryEntry
from tests.support.authority import NOW
from tests.support.hosts import LISTENERS, Host

LIVE = "000002-live"
MINUTE = timedelta(minutes=1)


def tried(ago: timedelta, live: str = LIVE, result: Result = Result.STRANDED) -> HistoryEntry:
    """The entry of a recovery that reloaded nginx."""
    return HistoryEntry("example", result, NOW - ago, live=live, stages={"apply": 0.02}, trigger="recover")


# -- the rule


def test_the_first_reload_does_not_wait() -> None:
    assert reload_due(LIVE, [], None, NOW) is None


def test_the_second_reload_for_the_same_pair_waits_a_minute() -> None:
    assert reload_due(LIVE, [tried(timedelta(seconds=20))], None, NOW) == NOW + timedelta(seconds=40)
    assert reload_due(LIVE, [tried(RELOAD_AGAIN)], None, NOW) is None


def test_each_further_reload_waits_twice_as_long_and_ten_minutes_at_most() -> None:
    tries = [tried(n * timedelta(seconds=1)) for n in range(20)]
    assert reload_due(LIVE, tries[:2], None, NOW) == NOW + 2 * MINUTE
    assert reload_due(LIVE, tries, None, NOW) == NOW + LONGEST


def test_another_live_pair_does_not_wait() -> None:
    assert reload_due("000003-other", [tried(timedelta(0))], None, NOW) is None


def test_a_proof_ends_the_doubling() -> None:
    proved = HistoryEntry("example", Result.ROTATED, NOW, live=LIVE, trigger="drop")
    assert reload_due(LIVE, [proved, tried(timedelta(0))], None, NOW) is None


def test_the_reload_of_a_process_that_was_killed_counts_too() -> None:
    assert reload_due(LIVE, [], NOW, NOW) == NOW + RELOAD_AGAIN


def test_a_time_that_is_still_to_come_is_ignored() -> None:
    assert reload_due(LIVE, [tried(-MINUTE)], NOW + MINUTE, NOW) is None


# -- starts


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Its last listener is dead, so what is live cannot be proved."""
    host = Host(tmp_path, prove_within=0.1)
    host.world.nginx.dead.add(LISTENERS[-1])
    return host


def start(host: Host, ports: Ports | None = None) -> Outcome:
    with host.world.locks.rotation("rotatord", 1.0) as lock:
        request = RotationRequest(host.sites[0], host.anchors, who="rotatord", trigger="recover")
        return recover([request], ports or host.world.ports, lock, at_start=True)[0]


class Killed(BaseException):
    """The process ends here."""


def start_killed_after_a_reload(host: Host) -> None:
    """A process that ends in the first handshakes after its reload, before it can write anything down."""
    ports, hups = host.world.ports, host.world.nginx.hups

    def probe(targets: Sequence[Target], within: float) -> tuple[Served, ...]:
        if host.world.nginx.hups > hups:
            raise Killed
        return ports.probe(targets, within)

    with suppress(Killed):
        start(host, replace(ports, probe=probe))


def test_nineteen_starts_in_twelve_seconds_reload_nginx_once(host: Host) -> None:
    outcomes = []
    for _ in range(19):
        outcomes.append(start(host))
        host.world.clock.sleep(0.2)
    assert host.world.nginx.hups == 1
    assert outcomes[0].result is Result.STRANDED
    assert {(o.result, o.reason) for o in outcomes[1:]} == {(Result.DEFERRED, Reason.RELOADED_BEFORE)}
    assert LISTENERS[-1] in outcomes[-1].message


def test_starts_that_are_killed_during_the_proof_reload_nginx_once(host: Host) -> None:
    for _ in range(19):
        start_killed_after_a_reload(host)
    assert host.world.nginx.hups == 1


def test_the_reload_is_tried_again_after_its_wait(host: Host) -> None:
    start(host)
    host.world.clock.sleep(RELOAD_AGAIN.total_seconds() + 1)
    assert start(host).result is Result.STRANDED
    assert host.world.nginx.hups == 2


def test_a_start_proves_the_pair_without_a_reload_as_soon_as_it_is_served(host: Host) -> None:
    start(host)
    host.world.nginx.dead.clear()
    assert start(host).reason in (Reason.VERIFIED, Reason.RECOVERED)
    assert host.world.nginx.hups == 1


def test_the_waits_of_many_starts_are_one_entry_of_the_history(host: Host) -> None:
    for _ in range(19):
        start(host)
    reasons = [entry.reason for entry in host.world.history.entries("example")]
    assert reasons.count(Reason.RELOADED_BEFORE) == 1
