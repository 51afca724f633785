"""The table of the periodic jobs: their names, and what each of them does on a simulated host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.daemon.periodic_jobs import periodic_jobs
from tests.support.looping import Looping

called: list[str] = []


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Looping]:
    called.clear()
    looping = Looping(tmp_path, ("a", "b"))
    looping.settle_down()
    yield looping
    print(looping.log.read_text())
    looping.close()


class Jobs:
    """The jobs of a host's table by name."""

    def __init__(self, daemon: Looping) -> None:
        table = periodic_jobs(
            daemon.loop,
            reload_trust=lambda: called.append("reload-trust"),
            greet_root=lambda: called.append("greet-root"),
            report_alive=lambda: called.append("report-alive"),
            alive_every=30.0,
        )
        self.names = [job.name for job in table]
        self.by_name = {job.name: job for job in table}

    def run(self, name: str) -> None:
        self.by_name[name].run()


@pytest.fixture
def jobs(daemon: Looping) -> Jobs:
    return Jobs(daemon)


def test_every_job_has_a_name_of_its_own_and_one_line_of_description(jobs: Jobs) -> None:
    assert len(set(jobs.names)) == len(jobs.names)
    for name, job in jobs.by_name.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", name)
        assert re.fullmatch(r"[A-Z][^\n]{10,70}[^.]", job.description)


def test_the_drops_are_scanned_at_the_configured_interval(jobs: Jobs) -> None:
    assert jobs.by_name["scan-drops"].every == 15.0


def test_trust_is_read_again_before_what_is_live_is_validated_by_it(jobs: Jobs) -> None:
    assert jobs.names.index("reload-trust") < jobs.names.index("validate-live")


@pytest.mark.parametrize("name", ["report-alive", "reload-trust", "greet-root"])
def test_the_service_is_called(jobs: Jobs, name: str) -> None:
    jobs.run(name)
    assert called == [name]


def test_a_scan_finds_a_drop_whose_events_were_lost(daemon: Looping, jobs: Jobs) -> None:
    new = daemon.issue("a")
    daemon.drop(new, "a")
    daemon.loop.tick(frozenset())
    assert not daemon.shows(new, "a")
    jobs.run("scan-drops")
    daemon.loop.tick(frozenset())
    assert daemon.shows(new, "a")


def test_a_scan_finds_it_after_the_configuration_was_loaded_again(daemon: Looping, jobs: Jobs) -> None:
    daemon.loop.reconfigure(daemon.runtime())
    daemon.loop.tick(frozenset())
    new = daemon.issue("a")
    daemon.drop(new, "a")
    jobs.run("scan-drops")
    daemon.loop.tick(frozenset())
    assert daemon.shows(new, "a")


def test_probing_shows_again_what_each_site_serves(daemon: Looping, jobs: Jobs) -> None:
    daemon.loop.maintenance.facts.clear()
    jobs.run("probe-listeners")
    daemon.tick()
    assert daemon.loop.maintenance.facts.keys() == {"a", "b"}


def test_validating_finds_again_what_is_wrong_with_everything_live(daemon: Looping, jobs: Jobs) -> None:
    daemon.loop.maintenance.live_problems.clear()
    jobs.run("validate-live")
    daemon.tick()
    assert daemon.loop.maintenance.live_problems.keys() == {"a", "b"}


def test_tidying_deletes_generations_that_are_not_kept(daemon: Looping, jobs: Jobs) -> None:
    for _ in range(3):
        daemon.by_hand(daemon.issue("a"), "a")
    runtime = daemon.runtime()
    fewer = {name: replace(managed, site=replace(managed.site, keep=2)) for name, managed in runtime.sites.items()}
    daemon.loop.reconfigure(replace(runtime, sites=fewer))
    daemon.tick()
    assert len(daemon.store.names("a")) > 2
    jobs.run("tidy-store")
    daemon.tick()
    assert len(daemon.store.names("a")) == 2
