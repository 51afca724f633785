"""Passes beside hostile drops, in virtual time: which drop is decided when, what goes live, and what is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.daemon.telemetry import input_state
from rotator.metrics import InputState
from rotator.rotation.fairness import GATHER_FOR, LARGE, REST
from rotator.rotation.validate_candidate import validate_candidate
from rotator.validation.validate import Anchors, Verdict
from tests.support.authority import CA, pem
from tests.support.hosts import LISTENERS
from tests.support.looping import Looping

DEAREST = 0.93
"""Seconds of CPU time of the most expensive input that the readers accept."""
CHEAP = 0.02
"""Seconds of CPU time of a usual renewal."""
LOOK = 0.005
"""Seconds of CPU time that it takes to read a drop and its last decision."""
SLOW = 0.1
"""Seconds of a decision on a busy host."""
HOSTILE = tuple(f"hostile{number:02}" for number in range(30))


def slowed(looping: Looping) -> Callable[..., Verdict]:
    """A validation that takes its time."""

    def validate(*given: Any) -> Verdict:
        looping.clock.sleep(SLOW)
        return validate_candidate(*given)

    return validate


class Costly:
    """A loop in which each validation takes CPU time, as much as its site's drop is said to.

    Args:
        looping: the loop.
        monkeypatch: replaces the validation.
    """

    def __init__(self, looping: Looping, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looping, self.cpu = looping, 0.0
        self.events: list[str] = []
        """The validated sites, and `alive` for each sign of life, in their order."""

        def validate(candidate: Any, request: Any, *rest: Any) -> Any:
            site = request.site.name
            seconds = DEAREST if site.startswith("hostile") else CHEAP
            self.events.append(site)
            self.cpu += seconds
            looping.clock.sleep(seconds)
            return validate_candidate(candidate, request, *rest)

        monkeypatch.setattr("rotator.daemon.deciding.validate_candidate", validate)
        loop = looping.loop
        loop.cpu_time = lambda: self.cpu
        ports = replace(loop.runtime.ports, alive=lambda: self.events.append("alive"))
        loop.runtime = replace(loop.runtime, ports=ports)

    @property
    def validated(self) -> list[str]:
        """The validated sites, in their order."""
        return [event for event in self.events if event != "alive"]

    def change(self, *sites: str) -> None:
        """Writes other bytes, which are no renewal, into these drops."""
        for site in sites:
            self.looping.write("fullchain.pem", f"junk {len(self.events)}".encode(), site)

    def until_validated(self, site: str) -> list[str]:
        """Passes until the drop of this site has been validated; the hostile drops change all the time.

        Returns:
            The sites that were validated before it.
        """
        start = len(self.validated)
        while site not in self.validated[start:]:
            due = self.looping.loop.tick()
            self.looping.clock.sleep(max(0.01, min(1.0, due - self.looping.clock.time)))
            self.change(*HOSTILE)
        return self.validated[start:][: self.validated[start:].index(site)]


@pytest.fixture
def costly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Costly]:
    looping = Looping(tmp_path, ("honest", *HOSTILE))
    yield Costly(looping, monkeypatch)
    print(looping.log.read_text())
    looping.close()


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Costly]:
    looping = Looping(tmp_path, (HOSTILE[0],))
    yield Costly(looping, monkeypatch)
    print(looping.log.read_text())
    looping.close()


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Costly]:
    looping = Looping(tmp_path, tuple(f"site{number:02}" for number in range(40)))
    yield Costly(looping, monkeypatch)
    print(looping.log.read_text())
    looping.close()


# -- signs of life


def test_there_is_a_sign_of_life_between_any_two_decisions(costly: Costly) -> None:
    costly.change(*HOSTILE)
    costly.looping.run_for(60.0)
    pairs = zip(costly.events, costly.events[1:], strict=False)
    assert set(HOSTILE) <= set(costly.validated)
    assert [pair for pair in pairs if "alive" not in pair] == []


def test_a_pass_ends_after_a_few_costly_decisions_and_the_next_goes_on(costly: Costly) -> None:
    costly.change(*HOSTILE)
    due = costly.looping.loop.tick()
    assert 1 <= len(costly.validated) <= 3
    assert due <= costly.looping.clock.time


def test_a_recovery_gives_a_sign_of_life_for_each_site(many: Costly) -> None:
    loop = many.looping.loop
    loop.maintenance.runtime = loop.runtime
    before = len(many.events)
    loop.start(1.0)
    assert many.events[before:].count("alive") >= 40


# -- an honest renewal


def test_a_renewal_beside_a_backlog_of_hostile_drops_is_decided_after_three_of_them_at_most(costly: Costly) -> None:
    costly.change(*HOSTILE)
    costly.looping.loop.tick()
    costly.looping.drop(new := costly.looping.issue("honest"), "honest")
    assert len(costly.until_validated("honest")) <= 3
    costly.looping.loop.tick()
    assert costly.looping.shows(new, "honest")


def test_a_renewal_beside_drops_that_were_costly_before_is_decided_after_three_of_them_at_most(costly: Costly) -> None:
    costly.change(*HOSTILE)
    for _ in range(60):
        costly.looping.loop.tick()
        costly.looping.clock.sleep(0.5)
        costly.change(*HOSTILE)
    costly.looping.drop(costly.looping.issue("honest"), "honest")
    assert len(costly.until_validated("honest")) <= 3


def test_a_renewal_that_came_before_a_start_does_not_wait_for_large_drops(tmp_path: Path) -> None:
    sites = tuple(f"site{number:02}" for number in range(12))
    looping = Looping(tmp_path, sites)
    for site in sites[:-1]:
        looping.write("fullchain.pem", b"x" * LARGE, site)
    looping.drop(new := looping.issue(sites[-1]), sites[-1])
    looping.loop = looping._loop()
    looping.loop.start(1.0)
    looping.loop.cpu_time = iter(range(1000)).__next__
    looping.loop.tick()
    assert looping.loop.decisions < len(sites)
    assert looping.shows(new, sites[-1])
    looping.close()


def test_what_is_ready_goes_live_before_the_costly_ones_are_decided(costly: Costly) -> None:
    costly.change(*HOSTILE)
    for _ in range(60):
        costly.looping.loop.tick()
        costly.looping.clock.sleep(0.5)
        costly.change(*HOSTILE)
    costly.looping.drop(new := costly.looping.issue("honest"), "honest")
    costly.until_validated("honest")
    assert costly.looping.shows(new, "honest")
    assert costly.validated[-1] == "honest"


def test_a_costly_drop_of_an_owner_who_delivers_for_many_sites_is_charged_to_the_drop_alone(costly: Costly) -> None:
    costly.change(HOSTILE[0])
    costly.looping.loop.tick()
    assert costly.looping.loop.states[HOSTILE[0]].account.spent >= DEAREST
    assert costly.looping.loop.accounts == {}


def test_a_costly_drop_of_another_owner_delays_all_drops_of_that_owner(costly: Costly) -> None:
    costly.looping.loop.delivering_owners = frozenset()
    costly.change(HOSTILE[0])
    costly.looping.loop.tick()
    (account,) = costly.looping.loop.accounts.values()
    assert account.spent >= DEAREST


def test_no_drop_is_validated_again_when_its_batch_is_prepared(many: Costly, monkeypatch: pytest.MonkeyPatch) -> None:
    looping = many.looping
    again: list[tuple[Any, ...]] = []
    slow = slowed(looping)

    def validate_again(*given: Any) -> Verdict:
        again.append(given)
        return slow(*given)

    monkeypatch.setattr("rotator.daemon.deciding.validate_candidate", slow)
    monkeypatch.setattr("rotator.rotation.prepare.validate_candidate", validate_again)
    for site in looping.sites:
        looping.drop(looping.issue(site), site)
    looping.loop.tick()
    assert looping.said("rotated") >= GATHER_FOR / SLOW
    assert again == []


def test_many_renewals_at_once_go_live_with_one_reload(many: Costly) -> None:
    looping = many.looping
    new = {site: looping.issue(site) for site in looping.sites}
    for site, issued in new.items():
        looping.drop(issued, site)
    looping.loop.tick()
    assert len(new) * CHEAP < GATHER_FOR
    assert looping.nginx.hups == 1
    assert all(looping.shows(issued, site) for site, issued in new.items())


def test_a_site_that_is_close_to_its_end_is_decided_first_when_all_are_due(many: Costly) -> None:
    looping = many.looping
    short = looping.host.issue(looping.site("site20"), days=1)
    looping.by_hand(short, "site20")
    for site in looping.sites:
        looping.drop(looping.issue(site), site)
    looping.settle_down()
    looping.by_hand(looping.host.issue(looping.site("site20"), days=1, later=1), "site20")
    looping.clock.sleep(23 * 3600.0)
    for site in looping.sites:
        looping.drop(looping.issue(site, later=2), site)
    before = len(many.validated)
    looping.loop.tick()
    assert many.validated[before] == "site20"


# -- what waits shows


def is_undecided(looping: Looping, site: str) -> bool:
    return looping.loop.states[site].undecided_since is not None


def test_a_costly_drop_that_changes_again_waits_and_is_reported_once(one: Costly) -> None:
    site, looping = HOSTILE[0], one.looping
    one.change(site)
    looping.loop.tick()
    for _ in range(5):
        looping.clock.sleep(0.5)
        one.change(site)
        looping.loop.tick()
    assert one.validated == [site]
    assert looping.decided(site) == ("deferred", "costly")
    assert looping.intent(site).next_try
    assert looping.said("deferred", "costly") == 1
    assert input_state(looping.loop.states[site]) is InputState.DEFERRED


def test_a_look_at_a_costly_drop_that_has_changed_does_not_end_its_rest(one: Costly) -> None:
    site, looping = HOSTILE[0], one.looping

    def cpu_time() -> float:
        one.cpu += LOOK
        return one.cpu

    looping.loop.cpu_time = cpu_time
    one.change(site)
    looping.loop.tick()
    for _ in range(10):
        looping.clock.sleep(0.5)
        one.change(site)
        looping.loop.tick()
    assert one.validated == [site]


def test_a_costly_drop_is_decided_after_its_rest(one: Costly) -> None:
    site, looping = HOSTILE[0], one.looping
    one.change(site)
    looping.loop.tick()
    looping.clock.sleep(0.5)
    looping.drop(new := looping.issue(site), site)
    looping.run_for(4 * REST * DEAREST)
    assert looping.shows(new, site)
    assert looping.decided(site) == ("rotated", "rotated")


def test_a_costly_drop_that_becomes_empty_waits_for_nothing(one: Costly) -> None:
    site, looping = HOSTILE[0], one.looping
    one.change(site)
    looping.loop.tick()
    one.change(site)
    looping.loop.tick()
    (looping.incoming / site / "fullchain.pem").unlink()
    looping.loop.tick()
    assert input_state(looping.loop.states[site]) is None


def test_a_drop_is_undecided_from_its_first_look_until_its_decision(one: Costly) -> None:
    site, looping = HOSTILE[0], one.looping
    begun = looping.clock.now()
    one.change(site)
    looping.loop.tick()
    looping.clock.sleep(5.0)
    one.change(site)
    looping.loop.tick()
    since = looping.loop.states[site].undecided_since
    assert since is not None
    assert timedelta(0) <= since - begun < timedelta(seconds=2)
    looping.run_for(60.0)
    assert looping.decided(site)[0] == "rejected"
    assert not is_undecided(looping, site)


def test_a_drop_that_waits_for_the_lock_is_undecided_meanwhile(tmp_path: Path) -> None:
    looping = Looping(tmp_path)
    with looping.locks.rotation("somebody", 1.0):
        looping.drop(looping.issue())
        looping.loop.tick()
        assert is_undecided(looping, "example")
    looping.run_for(5.0)
    assert not is_undecided(looping, "example")
    looping.close()


def test_a_drop_that_waits_for_a_listener_is_undecided_meanwhile(tmp_path: Path) -> None:
    looping = Looping(tmp_path)
    looping.nginx.dead.add(LISTENERS[0])
    looping.drop(looping.issue())
    looping.loop.tick()
    assert is_undecided(looping, "example")
    looping.close()


def test_renewed_roots_have_all_drops_decided_in_bounded_passes(costly: Costly) -> None:
    looping = costly.looping
    for site in HOSTILE:
        looping.drop(looping.issue(site), site)
    looping.run_for(120.0)
    before = len(costly.validated)
    more = Anchors.from_pem(pem(looping.host.ca.cert) + pem(CA.root("Another").cert), "more roots")
    looping.loop.renew(replace(looping.runtime(anchors=more), ports=looping.loop.runtime.ports))
    looping.loop.tick()
    assert len(costly.validated) - before <= 3
