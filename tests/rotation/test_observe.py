"""What is wanted, on disk and served, side by side for one site and for many; nginx is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.core.model import Served, Target
from rotator.rotation.observe import observe, observe_all
from tests.support.hosts import LISTENERS, Host, make_site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, tuple(make_site(name) for name in ("a", "b", "c")))


def test_a_site_that_is_served_everywhere_is_well(host: Host) -> None:
    facts = observe(host.sites[0], host.world.ports)
    assert (facts.well, len(facts.seen)) == (True, len(LISTENERS))


def test_many_sites_are_asked_in_one_round_and_each_is_told_its_own(host: Host) -> None:
    done = host.swap(host.sites[1], host.issue(host.sites[1]))
    host.world.apply({"b": done.previous}, hup=False)
    (host.world.include_dir / "c.conf").write_text("nonsense;\n")
    rounds = []

    def probe(targets: Sequence[Target], within: float) -> tuple[Served, ...]:
        rounds.append(len(targets))
        return host.world.ports.probe(targets, within)

    a, b, c = observe_all(host.sites, replace(host.world.ports, probe=probe))
    assert rounds == [3 * len(LISTENERS)]
    assert [facts.site.name for facts in (a, b, c)] == ["a", "b", "c"]
    assert a == observe(host.sites[0], host.world.ports)
    assert (a.well, [one.difference for one in b.seen]) == (True, ["shows another certificate"] * len(LISTENERS))
    assert (c.live, {one.matches for one in c.seen}) == (None, {None})
    assert "c.conf:1 is not a line that rotator writes" in c.problem


def test_a_listener_that_does_not_answer_is_told_in_words(host: Host) -> None:
    host.world.nginx.dead.add(LISTENERS[0])
    facts = observe(host.sites[0], host.world.ports)
    told = {one.served.target.listener: one.difference for one in facts.seen}
    assert told[LISTENERS[0]]
    assert told[LISTENERS[1]] == ""
