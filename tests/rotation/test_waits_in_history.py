"""The history of a site that waits: one entry when the wait begins, and another one only when something changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import Result
from rotator.core.problems import Code
from rotator.rotation.conclude import LATEST_ENTRIES
from rotator.sources.drop_directory import DropDirectories
from tests.support.hosts import LISTENERS
from tests.support.looping import Looping

SIX_HOURS = 6 * 3600.0 + 600


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Looping]:
    looping = Looping(tmp_path)
    yield looping
    looping.close()


def entries(daemon: Looping, trigger: str = "drop") -> list[tuple[str, str]]:
    """The result and the reason of each entry that the daemon made for this trigger."""
    return [(e.result, e.reason) for e in daemon.history.entries("example") if e.trigger == trigger]


def tries(daemon: Looping) -> int:
    """How often the daemon has tried the drop."""
    return daemon.loop.telemetry.counters.attempts["example", "drop"]


def test_43_tries_in_six_hours_of_a_stopped_nginx_are_one_entry(daemon: Looping) -> None:
    daemon.nginx.stop()
    daemon.drop(daemon.issue())
    daemon.run_for(SIX_HOURS)
    assert tries(daemon) == 43
    assert entries(daemon) == [("deferred", "nginx-down")]


def test_restarts_of_the_daemon_begin_no_other_wait(daemon: Looping) -> None:
    daemon.nginx.stop()
    daemon.drop(daemon.issue())
    for _ in range(LATEST_ENTRIES):
        daemon.run_for(700)
        daemon.restart()
    daemon.run_for(700)
    assert entries(daemon) == [("deferred", "nginx-down")]
    assert entries(daemon, "recover") == [("deferred", "nginx-down")]


def test_the_entry_after_the_wait_says_how_it_ended(daemon: Looping) -> None:
    daemon.nginx.stop()
    daemon.drop(daemon.issue())
    daemon.run_for(SIX_HOURS)
    daemon.nginx.start()
    daemon.run_for(5)
    assert entries(daemon) == [("deferred", "nginx-down"), ("rotated", "rotated")]


def test_another_reason_is_another_entry(daemon: Looping) -> None:
    daemon.nginx.stop()
    daemon.drop(daemon.issue())
    daemon.run_for(700)
    daemon.nginx.dead.add(LISTENERS[0])
    daemon.nginx.start()
    daemon.run_for(700)
    assert entries(daemon) == [("deferred", "nginx-down"), ("deferred", "listener")]


def test_another_listener_that_does_not_serve_is_another_entry(daemon: Looping) -> None:
    daemon.nginx.dead.add(LISTENERS[0])
    daemon.drop(daemon.issue())
    daemon.run_for(700)
    daemon.nginx.dead.add(LISTENERS[1])
    daemon.run_for(1400)
    assert entries(daemon) == [("deferred", "listener")] * 2


def test_another_drop_that_waits_for_the_same_reason_is_another_entry(daemon: Looping) -> None:
    daemon.nginx.stop()
    for _ in range(2):
        daemon.drop(daemon.issue())
        daemon.run_for(700)
    assert entries(daemon) == [("deferred", "nginx-down")] * 2


def test_another_drop_that_is_valid_from_the_same_moment_is_another_entry(daemon: Looping) -> None:
    for issued in (daemon.issue(later=1.4), daemon.issue(later=1.4)):
        daemon.drop(issued)
        daemon.run_for(12)
        assert daemon.decided() == ("deferred", "not-yet-valid")
    assert entries(daemon) == [("deferred", "not-yet-valid")] * 2


def test_another_drop_that_cannot_be_read_is_another_entry(daemon: Looping, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RotatorError(Code.IO_ERROR, "the disk does not answer")

    monkeypatch.setattr(DropDirectories, "read", fails)
    for _ in range(2):
        daemon.drop(daemon.issue())
        daemon.run_for(700)
    assert entries(daemon) == [("deferred", "io-error")] * 2


def test_a_second_wait_for_the_same_reason_is_another_entry(daemon: Looping) -> None:
    for _ in range(2):
        daemon.nginx.stop()
        daemon.drop(daemon.issue())
        daemon.run_for(700)
        daemon.nginx.start()
        daemon.run_for(5)
    assert entries(daemon) == [("deferred", "nginx-down"), ("rotated", "rotated")] * 2


def test_a_recovery_of_the_site_meanwhile_begins_no_other_wait(daemon: Looping) -> None:
    daemon.nginx.dead.add(LISTENERS[0])
    daemon.drop(daemon.issue())
    daemon.run_for(700)
    assert entries(daemon, "recover") == [("stranded", "not-proved")]
    assert entries(daemon) == [("deferred", "listener")]


def test_every_try_by_a_person_is_an_entry(daemon: Looping) -> None:
    daemon.nginx.stop()
    new = daemon.issue()
    assert [daemon.by_hand(new).result for _ in range(3)] == [Result.DEFERRED] * 3
    assert entries(daemon, "swap")[-3:] == [("deferred", "nginx-down")] * 3
