"""The signal and what came of it, told by the real nginx: accepted, refused in its own words, gone."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rotator.core.model import Provenance
from rotator.privsep import apply as module
from rotator.privsep.apply import Applied, Request, Setup, apply, hup_master, read_children
from rotator.storage.generations import Store
from rotator.x509 import der
from tests.support import misbehave
from tests.support.authority import CA, der_pem, wrap
from tests.support.crafting import integer, oid, sequence
from tests.support.nginx_server import NginxServer, ServerBlock, include_line
from tests.support.pairs import pair_of


@dataclass
class Host:
    """A running nginx that includes what apply writes, and a store."""

    nginx: NginxServer
    setup: Setup
    ca: CA

    def store(self) -> str:
        staged = Store(Path(self.setup.state_dir)).stage("site", [pair_of(self.ca.issue("site.test"))], Provenance())
        staged.flush()
        return staged.commit().name

    def apply(self, generation: str, *, hup: bool = True) -> Applied:
        return apply(self.setup, Request({"site": generation}, hup))

    def hup(self) -> tuple[int, str, tuple[str, ...]]:
        return hup_master(self.setup)


pytestmark = pytest.mark.each_nginx


@pytest.fixture
def host(nginx: NginxServer, issuing_ca: CA, tmp_path: Path) -> Host:
    (tmp_path / "state").mkdir()
    setup = Setup(
        str(tmp_path / "state"),
        str(tmp_path / "etc"),
        str(nginx.pid_path),
        str(nginx.error_log_path),
        frozenset({"site"}),
    )
    host = Host(nginx, setup, issuing_ca)
    host.apply(host.store(), hup=False)
    listener = nginx.reserve_port()
    nginx.blocks.append(ServerBlock("site.test", (listener,), include_line(tmp_path / "etc" / "site.conf")))
    nginx.start()
    return host


def test_a_good_reload_is_accepted_by_the_master_that_the_pid_file_names(host: Host) -> None:
    done = host.apply(host.store())
    assert (done.decision, done.signalled, done.words) == ("accepted", host.nginx.master_pid, ())


def test_what_was_accepted_starts_new_workers(host: Host) -> None:
    before = host.nginx.active_workers()
    host.apply(host.store())
    host.nginx.wait_reloaded(before)


def test_reload_after_reload_is_accepted(host: Host) -> None:
    assert [host.hup()[1] for _ in range(8)] == ["accepted"] * 8


def test_a_broken_configuration_is_refused_in_nginx_own_words(host: Host) -> None:
    with misbehave.unknown_directive(host.nginx) as word:
        done = host.apply(host.store())
    assert (done.decision, done.error) == ("refused", "")
    assert any(word in line for line in done.words)


def test_a_refusal_starts_no_worker(host: Host) -> None:
    before = host.nginx.active_workers()
    with misbehave.unknown_directive(host.nginx):
        host.apply(host.store())
    assert host.nginx.active_workers() == before


def test_a_pair_that_nginx_cannot_load_is_refused_with_the_name_of_the_copy(host: Host) -> None:
    name = host.store()
    key = Path(host.setup.state_dir) / "sites/site/generations" / name / "privkey.pem"
    key.write_bytes(pair_key(host))
    done = host.apply(name)
    assert done.decision == "refused"
    assert any(f"{host.setup.include_dir}/pairs/site/{name}" in line for line in done.words)


def pair_key(host: Host) -> bytes:
    """The key of some other pair."""
    return host.ca.issue("other.test").key_pem


def test_a_key_that_would_hang_nginx_is_not_given_to_it(host: Host) -> None:
    name = host.store()
    key = Path(host.setup.state_dir) / "sites/site/generations" / name / "privkey.pem"
    number = integer((1 << 29_999) | 1)
    dsa = sequence(oid(der.DSA), sequence(number, number, number))
    key.write_bytes(der_pem(sequence(integer(0), dsa, wrap(der.OCTET_STRING, number)), label="PRIVATE KEY"))
    done = host.apply(name)
    assert (done.error, done.signalled, done.live) == ("too-large", 0, done.before)
    assert host.hup()[1] == "accepted"


def test_a_changed_zone_which_nginx_tells_in_its_log_only_is_refused(host: Host) -> None:
    with misbehave.changed_zone(host.nginx) as zone:
        done = host.apply(host.store())
    assert done.decision == "refused"
    assert any(zone in line for line in done.words)


def test_a_port_that_another_holds_is_refused_when_nginx_has_given_up(host: Host) -> None:
    with misbehave.taken_port(host.nginx):
        done = host.apply(host.store())
    assert done.decision == "refused"
    assert any("bind() to" in line for line in done.words)


def test_after_a_refusal_the_next_good_reload_is_accepted(host: Host) -> None:
    with misbehave.unknown_directive(host.nginx):
        host.hup()
    assert host.hup()[1:] == ("accepted", ())


def test_a_refusal_is_seen_without_the_log(host: Host) -> None:
    host.setup = replace(host.setup, error_log="")
    with misbehave.unknown_directive(host.nginx):
        assert host.hup()[1:] == ("refused", ())


def test_a_refusal_takes_a_fraction_of_a_second_to_be_seen(host: Host) -> None:
    with misbehave.unknown_directive(host.nginx):
        begun = time.monotonic()
        assert host.hup()[1] == "refused"
    assert time.monotonic() - begun < host.setup.watch_for / 2


def test_a_log_that_is_rotated_away_costs_only_the_words(host: Host) -> None:
    log = host.nginx.error_log_path
    with misbehave.unknown_directive(host.nginx):
        log.rename(log.with_suffix(".1"))
        assert host.hup()[1:] == ("refused", ())


def test_an_nginx_that_is_stopped_is_gone(host: Host) -> None:
    host.nginx.stop()
    assert host.hup() == (0, "gone", ())


def test_a_master_that_is_killed_meanwhile_is_gone(host: Host) -> None:
    pid = host.nginx.master_pid
    os.kill(pid, signal.SIGSTOP)
    children = read_children(pid)
    os.kill(pid, signal.SIGKILL)
    assert module._watch(pid, children, 5.0, lambda: None) == "gone"


def test_a_master_that_does_not_answer_is_unknown_when_the_time_is_over(host: Host) -> None:
    host.setup = replace(host.setup, watch_for=0.02)
    os.kill(host.nginx.master_pid, signal.SIGSTOP)
    try:
        assert host.hup()[1] == "unknown"
    finally:
        os.kill(host.nginx.master_pid, signal.SIGCONT)


def test_without_hup_nginx_serves_on_undisturbed(host: Host) -> None:
    before = host.nginx.active_workers()
    host.apply(host.store(), hup=False)
    assert host.nginx.active_workers() == before


def test_nginx_starts_cold_with_what_was_applied(host: Host) -> None:
    host.apply(host.store(), hup=False)
    host.nginx.stop()
    host.nginx.start()
    assert host.nginx.running()
