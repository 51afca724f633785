"""A batch larger than one request: one reload for all, and what a kill or a fault between two requests leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rotator.core.model import Outcome, Result
from rotator.privsep import apply as privileged
from rotator.privsep import socket_client
from rotator.privsep.apply import PREPARE, Applied, Request
from rotator.privsep.socket_client import apply_in_parts, parts_of
from tests.support.authority import Issued
from tests.support.hosts import Host, make_site
from tests.support.simulator import World

SITES = ("a", "b", "c")
REQUESTS = 2 * len(SITES)
"""One `prepare` and one `apply` for each site."""


class _Died(BaseException):
    pass


class Wire:
    """The privileged step by requests of one site each.

    Args:
        world: the host.
        dies_at: the number of the request before which the process dies.
        fails_at: the number of the request for which the disk is full.
    """

    def __init__(self, world: World, *, dies_at: int = -1, fails_at: int = -1) -> None:
        self._world, self._dies_at, self._fails_at = world, dies_at, fails_at
        self.asked = 0

    def __call__(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        return apply_in_parts(generations, self._ask, hup=hup)

    def _ask(self, request: Request) -> Applied:
        number, self.asked = self.asked, self.asked + 1
        if number == self._dies_at:
            raise _Died
        if number == self._fails_at:
            live = {site: self._world.live(site) for site in request.generations}
            return Applied(live, live, "disk-full", "the disk is full")
        setup, received = self._world.setup, privileged.parse_request(privileged.encode(request))
        if received.word == PREPARE:
            done = privileged.prepare(setup, received)
        else:
            done = privileged.apply(setup, received, self._world.nginx.hup)
        return privileged.parse_applied(privileged.encode(done))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(socket_client, "parts_of", lambda generations: parts_of(generations, room=1))
    return Host(tmp_path, tuple(make_site(name) for name in SITES))


def rotate(host: Host, wire: Wire, new: Mapping[str, Issued]) -> tuple[Outcome, ...]:
    """One batch of all sites."""
    host.world.apply = wire  # type: ignore[method-assign]
    host.world.nginx.hups = 0
    return host.run(*(host.wanted(site, new[site.name]) for site in host.sites))


def issued(host: Host) -> dict[str, Issued]:
    return {site.name: host.issue(site) for site in host.sites}


def chains(pairs: Mapping[str, Issued]) -> dict[str, tuple[bytes, ...]]:
    return {site: pair.chain_der for site, pair in pairs.items()}


def test_a_batch_in_several_requests_costs_one_reload(host: Host) -> None:
    new, wire = issued(host), Wire(host.world)
    done = rotate(host, wire, new)
    assert [outcome.result for outcome in done] == [Result.ROTATED] * len(SITES)
    assert (wire.asked, host.world.nginx.hups, host.nginx_shows) == (REQUESTS, 1, chains(new))


@pytest.mark.parametrize("number", range(REQUESTS + 1))
def test_killed_between_two_requests_each_site_is_whole_and_the_next_holder_proves_it(host: Host, number: int) -> None:
    old, new = chains(host.first), issued(host)
    if number < REQUESTS:
        with pytest.raises(_Died):
            rotate(host, Wire(host.world, dies_at=number), new)
        renamed = max(number - len(SITES), 0)
        assert host.world.nginx.hups == 0
        host.world.nginx.start()  # a cold start at the worst moment
        mixed = dict(list(chains(new).items())[:renamed] + list(old.items())[renamed:])
        assert host.nginx_shows == mixed
    done = rotate(host, Wire(host.world), new)
    assert {outcome.result for outcome in done} <= {Result.ROTATED, Result.UNCHANGED}
    assert host.nginx_shows == chains(new)
    for site in SITES:
        assert host.world.store.verified(site) == host.world.live(site)
    with host.world.locks.rotation("tester", 1.0) as lock:
        assert lock.interrupted == ()


@pytest.mark.parametrize("number", range(REQUESTS))
def test_killed_between_two_requests_a_running_nginx_serves_one_set_until_the_recovery(host: Host, number: int) -> None:
    new = issued(host)
    with pytest.raises(_Died):
        rotate(host, Wire(host.world, dies_at=number), new)
    assert host.nginx_shows == chains(host.first)
    host.world.apply = Wire(host.world)  # type: ignore[method-assign]
    with host.world.locks.rotation("tester", 1.0) as lock:
        host._recover(lock)
    renamed = max(number - len(SITES), 0)
    assert host.nginx_shows == dict(list(chains(new).items())[:renamed] + list(chains(host.first).items())[renamed:])
    assert host.world.nginx.hups == min(renamed, 1)


@pytest.mark.parametrize("number", range(REQUESTS))
def test_a_request_that_fails_leaves_every_site_as_it_was_without_a_reload(host: Host, number: int) -> None:
    old = {site: host.world.live(site) for site in SITES}
    done = rotate(host, Wire(host.world, fails_at=number), issued(host))
    assert [(outcome.result, outcome.reason) for outcome in done] == [(Result.DEFERRED, "disk-full")] * len(SITES)
    assert {site: host.world.live(site) for site in SITES} == old
    assert (host.world.nginx.hups, host.nginx_shows) == (0, chains(host.first))
