"""The passes of the daemon's loop, in virtual time on a simulated nginx: what it does and says, when, how often."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rotator.core.errors import RotatorError
from rotator.core.lifetime import critical_from
from rotator.core.model import Candidate, Result, SourceFile
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.daemon.status import status_line
from rotator.daemon.telemetry import input_state
from rotator.metrics import InputState, Registry
from rotator.rotation.pacing import LastReload, Limits
from rotator.sources.drop_directory import DropDirectories
from rotator.storage import generations
from rotator.storage.generations import Store
from rotator.storage.history import History
from rotator.storage.locks import Locks
from rotator.storage.records import Hold, Intent
from rotator.system.files import read_file
from rotator.validation.evidence import Evidence
from rotator.validation.intermediates import Pool
from rotator.x509.crl import Revocations
from tests.support.authority import NOW, Issued, encrypted, pem
from tests.support.hosts import LISTENERS
from tests.support.looping import Looping
from tests.support.powercut import StandIn, standing_in


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Looping]:
    yield from _started(Looping(tmp_path))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Looping]:
    yield from _started(Looping(tmp_path, ("example", "other")))


def _started(looping: Looping) -> Iterator[Looping]:
    yield looping
    print(looping.log.read_text())
    looping.close()


# -- drops


def test_a_fit_drop_is_live_and_proved_in_the_same_pass(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.drop(new)
    daemon.loop.tick()
    assert daemon.shows(new)
    assert daemon.decided() == ("rotated", "rotated")
    assert daemon.store.verified("example") == daemon.world.live("example")
    assert daemon.said("rotated example") == 1


def test_an_event_has_its_own_drop_looked_at_and_the_next_scan_all(two: Looping) -> None:
    told, untold = two.issue("example"), two.issue("other")
    two.drop(untold, "other")
    two.drop(told, "example")
    two.loop.tick({f"{two.incoming}/example/privkey.pem"})
    assert (two.shows(told, "example"), two.shows(untold, "other")) == (True, False)
    two.loop.scan.request_all()
    two.loop.tick(frozenset())
    assert two.shows(untold, "other")


def test_a_drop_that_is_due_is_looked_at_without_an_event(two: Looping) -> None:
    new = two.issue("other")
    two.write("fullchain.pem", new.chain_pem, "other")
    two.loop.tick({f"{two.incoming}/other/fullchain.pem"})
    two.write("privkey.pem", new.key_pem, "other")
    two.clock.sleep(10.0)  # the grace time is over
    two.loop.tick(frozenset())
    assert two.shows(new, "other")


def test_a_drop_is_decided_once(daemon: Looping) -> None:
    daemon.drop(daemon.issue())
    daemon.run_for(3600)
    assert (daemon.nginx.hups, daemon.said("rotated")) == (1, 1)


def test_an_idle_daemon_leaves_nginx_and_the_history_alone(daemon: Looping) -> None:
    before = daemon.history.entries()
    daemon.run_for(3600)
    assert (daemon.nginx.hups, daemon.history.entries()) == (0, before)


@pytest.mark.parametrize("first", ["fullchain.pem", "privkey.pem"])
def test_half_a_drop_settles_and_the_other_half_completes_it(daemon: Looping, first: str) -> None:
    new = daemon.issue()
    files = {"fullchain.pem": new.chain_pem, "privkey.pem": new.key_pem}
    daemon.write(first, files.pop(first))
    daemon.run_for(5)
    assert (daemon.decided(), daemon.said("settling example")) == (("", ""), 1)
    for name, data in files.items():
        daemon.write(name, data)
    daemon.tick()
    assert daemon.shows(new)
    assert daemon.said("rejected") == 0


def test_a_drop_that_stays_incomplete_is_rejected_once_after_the_grace_time(daemon: Looping) -> None:
    new = daemon.host.issue_by_another()
    daemon.write("fullchain.pem", pem(new.leaf))
    daemon.write("privkey.pem", new.key_pem)
    daemon.run_for(9)
    assert daemon.decided() == ("", "")
    daemon.run_for(3600)
    assert daemon.decided() == ("rejected", "incomplete-chain")
    assert daemon.said("rejected example", "incomplete-chain") == 1
    assert [e.result for e in daemon.history.entries("example", 1)] == ["rejected"]
    assert daemon.nginx.hups == 0


def test_every_write_begins_the_grace_time_anew(daemon: Looping) -> None:
    new = daemon.issue()
    path = daemon.write("fullchain.pem", new.chain_pem)
    daemon.tick()
    for byte in new.key_pem[:20]:
        with (path.parent / "privkey.pem").open("ab") as f:
            f.write(bytes([byte]))
        daemon.run_for(9)
    assert daemon.decided() == ("", "")
    daemon.write("privkey.pem", new.key_pem)
    daemon.tick()
    assert daemon.shows(new)


def test_a_drop_without_its_intermediate_is_completed_after_the_grace_time_from_an_earlier_generation(
    daemon: Looping,
) -> None:
    new = daemon.issue()
    daemon.write("fullchain.pem", pem(new.leaf))
    daemon.write("privkey.pem", new.key_pem)
    daemon.run_for(9)
    assert not daemon.shows(new)
    daemon.run_for(2)
    assert daemon.shows(new)
    assert daemon.said("settling example", "one in the pool") == 1
    (told,) = borrowed(daemon)
    assert "the stored generation 000001-" in told


def test_an_intermediate_that_arrives_within_the_grace_time_is_taken_from_the_drop(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.write("leaf.pem", pem(new.leaf))
    daemon.write("privkey.pem", new.key_pem)
    daemon.run_for(5)
    daemon.write("bundle.pem", pem(*new.intermediates))
    daemon.tick()
    assert daemon.shows(new)
    assert borrowed(daemon) == []


def test_a_drop_is_completed_from_the_pool_of_the_configuration(daemon: Looping) -> None:
    new = daemon.host.issue_by_another()
    daemon.pool = Pool.from_files([SourceFile("/pool/another.pem", pem(*new.intermediates))])
    daemon.loop.reconfigure(daemon.runtime())
    daemon.write("leaf.pem", pem(new.leaf))
    daemon.write("privkey.pem", new.key_pem)
    daemon.run_for(11)
    assert daemon.shows(new)
    (told,) = borrowed(daemon)
    assert "/pool/another.pem" in told


def test_a_drop_rejected_for_its_intermediate_is_taken_once_the_pool_has_it(daemon: Looping) -> None:
    new = daemon.host.issue_by_another()
    daemon.write("leaf.pem", pem(new.leaf))
    daemon.write("privkey.pem", new.key_pem)
    daemon.run_for(20)
    assert daemon.decided() == ("rejected", "incomplete-chain")
    daemon.pool = Pool.from_files([SourceFile("another.pem", pem(*new.intermediates))])
    daemon.loop.reconfigure(daemon.runtime())
    daemon.run_for(11)
    assert daemon.shows(new)


def borrowed(daemon: Looping) -> list[str]:
    """What the last outcome says it took from outside the drop."""
    problems = daemon.history.entries("example", 1)[0].problems
    return [p.message for p in problems if (p.code, p.severity) == ("incomplete-chain", "warn")]


def test_an_encrypted_key_is_opened_with_the_password_file_of_the_site(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.password_file = daemon.root / "password"
    daemon.password_file.write_bytes(b"open sesame\n")
    daemon.password_file.chmod(0o600)
    daemon.loop.reconfigure(daemon.runtime())
    daemon.write("fullchain.pem", new.chain_pem)
    daemon.write("privkey.pem", encrypted(new.key, b"open sesame"))
    daemon.tick()
    assert daemon.shows(new)
    (pair,) = daemon.store.load_pairs("example", daemon.store.names("example")[-1])
    assert pair.key is not None
    assert pair.key.reveal() == new.key_pem
    assert "sesame" not in daemon.log.read_text()


def test_a_rejected_drop_is_mended_by_the_missing_file(daemon: Looping) -> None:
    new = daemon.host.issue_by_another()
    daemon.write("fullchain.pem", pem(new.leaf))
    daemon.write("privkey.pem", new.key_pem)
    daemon.run_for(20)
    daemon.write("bundle.pem", pem(*new.intermediates))
    daemon.tick()
    assert daemon.shows(new)


def test_a_bad_drop_is_not_rejected_again_after_a_restart(daemon: Looping) -> None:
    daemon.write("fullchain.pem", b"garbage")
    daemon.run_for(20)
    daemon.restart()
    daemon.run_for(60)
    assert daemon.said("rejected") == 1


def test_a_bad_drop_that_was_rolled_back_reloads_nginx_no_second_time_over_a_restart(daemon: Looping) -> None:
    daemon.nginx.wire_wrongly(LISTENERS[1])
    daemon.drop(daemon.issue())
    daemon.run_for(60)
    assert daemon.decided() == ("rolled-back", "not-proved")
    hups = daemon.nginx.hups
    daemon.restart()
    daemon.run_for(3600)
    assert daemon.nginx.hups == hups


def test_another_policy_has_a_rejected_drop_judged_again(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.policy = replace(daemon.site().policy, names=("other.example.test",))
    daemon.loop.reconfigure(daemon.runtime())
    daemon.drop(new)
    daemon.run_for(20)
    assert daemon.decided() == ("rejected", "name-mismatch")
    daemon.policy = None
    daemon.loop.reconfigure(daemon.runtime())
    daemon.tick()
    assert daemon.shows(new)


def test_flat_files_are_a_drop_too(daemon: Looping) -> None:
    new = daemon.issue()
    (daemon.incoming / "example.crt").write_bytes(new.chain_pem)
    (daemon.incoming / "example.key").write_bytes(new.key_pem)
    daemon.tick()
    assert daemon.shows(new)


def test_what_lies_there_at_the_start_is_taken(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, start=False)
    new = daemon.issue()
    daemon.drop(new)
    daemon.restart()
    assert daemon.shows(new)
    daemon.close()


# -- dual sites


@pytest.fixture
def dual(daemon: Looping) -> Looping:
    for kind in ("ecdsa", "rsa"):
        daemon.drop(daemon.issue(kind=kind), prefix=f"{kind}-")
    daemon.tick()
    assert daemon.decided() == ("rotated", "rotated")
    shutil.rmtree(daemon.incoming / "example")
    daemon.run_for(60)
    daemon.nginx.hups = 0
    return daemon


@pytest.mark.parametrize("order", [("ecdsa", "rsa"), ("rsa", "ecdsa")])
def test_both_keys_of_a_dual_site_go_together_in_any_order(dual: Looping, order: tuple[str, str]) -> None:
    for kind in order:
        dual.drop(dual.issue(kind=kind), prefix=f"{kind}-")
        dual.run_for(1)
    assert (dual.nginx.hups, dual.said("rejected")) == (1, 0)
    assert len(dual.store.load("example", dual.world.live("example")).chains) == 2


def test_one_key_of_a_dual_site_goes_with_the_other_live_one_after_the_grace_time(dual: Looping) -> None:
    before = dual.store.load("example", dual.world.live("example"))
    dual.drop(dual.issue(kind="ecdsa"))
    dual.run_for(9)
    assert dual.nginx.hups == 0
    dual.run_for(3)
    after = dual.store.load("example", dual.world.live("example"))
    assert (after.chains.keys(), dual.nginx.hups) == (before.chains.keys(), 1)
    assert [kind for kind, chain in after.chains.items() if before.chains[kind] == chain] == ["rsa"]
    dual.run_for(3600)
    assert dual.nginx.hups == 1


# -- several sites


def test_twenty_drops_at_once_are_one_reload(tmp_path: Path) -> None:
    names = tuple(f"s{n:02d}" for n in range(20))
    daemon = Looping(tmp_path, names)
    renewals = {name: daemon.issue(name) for name in names}
    for name, new in renewals.items():
        daemon.drop(new, name)
    daemon.tick()
    assert daemon.nginx.hups == 1
    assert all(daemon.shows(new, name) for name, new in renewals.items())
    daemon.close()


def test_what_arrives_while_a_reload_is_proved_goes_together_in_the_next_one(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a", "b", "c"))
    b, c = daemon.issue("b"), daemon.issue("c")

    def arrive() -> None:
        daemon.drop(b, "b")
        daemon.drop(c, "c")

    daemon.nginx.during_handshakes = arrive
    daemon.drop(daemon.issue("a"), "a")
    daemon.run_for(1)
    assert daemon.nginx.hups == 2
    assert daemon.shows(b, "b")
    assert daemon.shows(c, "c")
    daemon.close()


def test_one_bad_site_of_a_batch_does_not_hold_up_the_other(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a", "b"))
    daemon.write("fullchain.pem", b"garbage", "a")
    new = daemon.issue("b")
    daemon.drop(new, "b")
    daemon.run_for(20)
    assert daemon.shows(new, "b")
    assert daemon.decided("a")[0] == "rejected"
    daemon.close()


# -- pacing


@pytest.fixture
def paced(tmp_path: Path) -> Iterator[Looping]:
    """Three sites, a reload every ten minutes at most."""
    yield from _started(Looping(tmp_path, ("a", "b", "c"), limits=Limits(min_reload_interval=600.0)))


@pytest.fixture
def budgeted(tmp_path: Path) -> Iterator[Looping]:
    """Three sites, a drain budget of two workers, and a reload has just left two that keep draining."""
    daemon = Looping(tmp_path, ("a", "b", "c"), limits=Limits(drain_budget=2))
    _drain(daemon)
    daemon.drop(daemon.issue("a"), "a")
    daemon.run_for(2)
    assert (daemon.decided("a")[0], daemon.nginx.hups, _draining(daemon)) == ("rotated", 1, 2)
    yield from _started(daemon)


def _draining(daemon: Looping) -> int:
    return sum(not worker.active for worker in daemon.nginx.workers_)


def _drain(daemon: Looping, left: int = 0) -> None:
    """The last clients of draining workers go, except for those of so many."""
    gone = [worker for worker in daemon.nginx.workers_ if not worker.active][left:]
    daemon.nginx.workers_ = [worker for worker in daemon.nginx.workers_ if worker not in gone]


def _line(daemon: Looping) -> str:
    return status_line(daemon.loop.states, daemon.loop.maintenance.degraded_sites)


def _deferred_inputs(daemon: Looping) -> list[str]:
    return [name for name, state in daemon.loop.states.items() if input_state(state) is InputState.DEFERRED]


def _close_to_its_end(daemon: Looping, name: str) -> None:
    """What is live there is in its critical rest, and nothing has been reloaded of late."""
    daemon.host.swap(daemon.site(name), daemon.host.issue(daemon.site(name), days=0.05))
    daemon.clock.sleep(600)
    _drain(daemon)
    daemon.nginx.hups = 0


def test_two_reloads_keep_their_distance_and_what_waited_goes_together(paced: Looping) -> None:
    for name in ("a", "b", "c"):
        paced.drop(paced.issue(name), name)
        paced.run_for(5)
    assert paced.nginx.hups == 1
    assert paced.decided("b") == paced.decided("c") == ("deferred", "min-reload-interval")
    paced.run_for(580)
    assert paced.nginx.hups == 1
    paced.run_for(15)
    assert paced.nginx.hups == 2
    assert {paced.decided(name)[0] for name in ("a", "b", "c")} == {"rotated"}


def test_what_waits_for_the_interval_is_told_once_and_shown_everywhere(paced: Looping) -> None:
    paced.drop(paced.issue("a"), "a")
    paced.tick()
    paced.drop(paced.issue("b"), "b")
    paced.run_for(500)
    assert paced.said("deferred b", "min_reload_interval is 600 s", "rotator swap b") == 1
    assert [e.reason for e in paced.history.entries("b")][-1:] == ["min-reload-interval"]
    assert "b waits (min-reload-interval)" in _line(paced)
    assert _deferred_inputs(paced) == ["b"]
    assert ("b", "drop") not in paced.loop.telemetry.counters.attempts


def test_the_written_next_try_is_when_it_goes(paced: Looping) -> None:
    paced.drop(paced.issue("a"), "a")
    paced.tick()
    paced.drop(paced.issue("b"), "b")
    paced.run_for(5)
    next_try = datetime.fromisoformat(paced.intent("b").next_try)
    paced.run_for((next_try - paced.clock.now()).total_seconds() - 2)
    assert paced.nginx.hups == 1
    paced.run_for(4)
    assert paced.nginx.hups == 2


def test_a_restart_forgets_no_reload_and_tells_nothing_anew(paced: Looping) -> None:
    paced.drop(paced.issue("a"), "a")
    paced.tick()
    paced.drop(paced.issue("b"), "b")
    paced.run_for(100)
    paced.restart()
    paced.drop(paced.issue("c"), "c")
    paced.run_for(400)
    assert (paced.nginx.hups, paced.said("deferred b"), paced.said("deferred c")) == (1, 1, 1)
    paced.run_for(110)
    assert paced.nginx.hups == 2
    assert {paced.decided(name)[0] for name in ("a", "b", "c")} == {"rotated"}


def test_a_reload_by_a_command_counts(paced: Looping) -> None:
    paced.by_hand(paced.issue("a"), "a")
    hups = paced.nginx.hups
    paced.clock.sleep(60)
    paced.drop(paced.issue("b"), "b")
    paced.run_for(500)
    assert (paced.nginx.hups, paced.decided("b")) == (hups, ("deferred", "min-reload-interval"))
    paced.run_for(60)
    assert paced.nginx.hups == hups + 1


def test_a_command_is_held_up_by_nothing(paced: Looping) -> None:
    paced.drop(paced.issue("a"), "a")
    paced.tick()
    new = paced.issue("b")
    assert paced.by_hand(new, "b").result is Result.ROTATED
    assert paced.shows(new, "b")


def test_a_reload_that_nginx_refused_paces_nobody(paced: Looping) -> None:
    paced.nginx.refuses = ("[emerg] unknown directive",)
    paced.drop(paced.issue("a"), "a")
    paced.run_for(8)
    assert paced.decided("a") == ("deferred", "nginx-refused")
    paced.nginx.refuses = ()
    paced.run_for(60)
    assert paced.decided("a") == ("rotated", "rotated")


def test_a_clock_that_is_set_back_holds_up_nobody_beyond_the_interval(paced: Looping) -> None:
    paced.drop(paced.issue("a"), "a")
    paced.tick()
    paced.drop(paced.issue("b"), "b")
    paced.run_for(5)
    paced.clock._start -= timedelta(minutes=50)
    paced.restart()
    paced.run_for(590)
    assert paced.nginx.hups == 1
    paced.run_for(20)
    assert paced.nginx.hups == 2


def test_a_shorter_interval_in_the_configuration_counts_at_once(paced: Looping) -> None:
    paced.drop(paced.issue("a"), "a")
    paced.tick()
    paced.drop(paced.issue("b"), "b")
    paced.run_for(30)
    paced.limits = Limits(min_reload_interval=10.0)
    paced.loop.reconfigure(paced.runtime())
    paced.tick()
    assert (paced.nginx.hups, paced.decided("b")[0]) == (2, "rotated")


def test_a_pair_that_is_live_already_takes_no_reload_and_does_not_wait(paced: Looping) -> None:
    new = paced.issue("a")
    paced.drop(new, "a")
    paced.run_for(5)
    paced.write("bundle.pem", pem(*new.intermediates), "a")
    paced.tick()
    assert (paced.nginx.hups, paced.decided("a")) == (1, ("unchanged", "same"))


def test_a_first_drop_takes_no_reload_and_does_not_wait(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a",), limits=Limits(600.0, 1), bare=True)
    daemon.nginx.workers_[0].active = False
    daemon.drop(daemon.issue("a"), "a")
    daemon.run_for(5)
    assert daemon.decided("a") == ("deferred", "not-wired")
    daemon.close()


@pytest.mark.parametrize("limits", [Limits(min_reload_interval=86400.0), Limits(drain_budget=1)])
def test_a_certificate_close_to_its_end_waits_for_nothing_and_takes_the_others_with_it(
    tmp_path: Path, limits: Limits
) -> None:
    daemon = Looping(tmp_path, ("a", "b", "c"), limits=limits)
    _close_to_its_end(daemon, "c")
    daemon.loop.last_reload = LastReload(daemon.history.last_reload_at())
    daemon.drop(daemon.issue("a"), "a")
    daemon.tick()
    b, c = daemon.issue("b"), daemon.issue("c")
    daemon.drop(b, "b")
    daemon.run_for(5)
    assert (daemon.nginx.hups, daemon.decided("b")[0]) == (1, "deferred")
    daemon.drop(c, "c")
    daemon.tick()
    assert daemon.nginx.hups == 2
    assert daemon.shows(b, "b")
    assert daemon.shows(c, "c")
    assert _deferred_inputs(daemon) == []
    daemon.close()


def test_as_many_draining_workers_as_the_budget_put_off_a_reload_until_there_are_fewer(budgeted: Looping) -> None:
    new = budgeted.issue("b")
    budgeted.drop(new, "b")
    budgeted.run_for(7200)
    assert (budgeted.nginx.hups, budgeted.decided("b")) == (1, ("deferred", "drain-budget"))
    _drain(budgeted, left=1)
    budgeted.run_for(1.5)
    assert budgeted.nginx.hups == 2
    assert budgeted.shows(new, "b")


def test_what_waits_for_draining_workers_is_told_once_and_shown_everywhere(budgeted: Looping) -> None:
    budgeted.drop(budgeted.issue("b"), "b")
    budgeted.run_for(3600)
    budgeted.restart()
    budgeted.run_for(3600)
    assert budgeted.said("deferred b", "2 workers", "drain_budget is 2", "worker_shutdown_timeout") == 1
    assert "b waits (drain-budget)" in _line(budgeted)
    assert _deferred_inputs(budgeted) == ["b"]
    assert budgeted.nginx.hups == 1


def test_draining_workers_hold_up_nobody_beyond_the_beginning_of_the_critical_rest(budgeted: Looping) -> None:
    budgeted.drop(budgeted.issue("b"), "b")
    budgeted.run_for(60)
    begins = datetime.fromisoformat(budgeted.intent("b").next_try)
    (life,) = budgeted.store.load("b", budgeted.world.live("b")).record.pairs
    assert begins == critical_from(life.not_before, life.effective_not_after)
    budgeted.clock.sleep((begins - budgeted.clock.now()).total_seconds() - 30)
    budgeted.run_for(25)
    assert budgeted.nginx.hups == 1
    budgeted.run_for(10)
    assert budgeted.nginx.hups == 2


def test_old_workers_that_end_at_once_are_no_reason_to_tell_anything(budgeted: Looping) -> None:
    _drain(budgeted)
    budgeted.drop(budgeted.issue("a"), "a")
    budgeted.tick()
    assert (budgeted.nginx.hups, _draining(budgeted)) == (2, 2)
    new = budgeted.issue("b")
    budgeted.drop(new, "b")
    budgeted.run_for(0.4)
    assert (budgeted.shows(new, "b"), _line(budgeted)) == (False, "3 sites, 1 not as wanted: b waits (drain-budget)")
    _drain(budgeted)
    budgeted.run_for(1)
    assert budgeted.shows(new, "b")
    assert budgeted.said("deferred") == 0


def test_what_waited_for_draining_workers_goes_together(budgeted: Looping) -> None:
    renewals = {name: budgeted.issue(name) for name in ("b", "c")}
    for name, new in renewals.items():
        budgeted.drop(new, name)
        budgeted.run_for(30)
    _drain(budgeted)
    budgeted.run_for(2)
    assert budgeted.nginx.hups == 2
    assert all(budgeted.shows(new, name) for name, new in renewals.items())


def test_a_recovery_is_not_held_up_by_draining_workers(budgeted: Looping) -> None:
    budgeted.nginx.dead.add(LISTENERS[0])
    budgeted.loop.maintenance.probe()
    budgeted.run_for(2)
    budgeted.nginx.dead.clear()
    assert budgeted.nginx.hups > 1


def test_a_new_drop_that_waits_for_the_same_is_told_again(budgeted: Looping) -> None:
    for _ in range(2):
        new = budgeted.issue("b")
        budgeted.drop(new, "b")
        budgeted.run_for(60)
    assert budgeted.said("deferred b") == 2
    _drain(budgeted)
    budgeted.run_for(2)
    assert budgeted.shows(new, "b")


# -- deferred


def test_a_stopped_nginx_defers_and_its_start_ends_the_wait(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.nginx.stop()
    daemon.drop(new)
    daemon.run_for(1000)
    assert daemon.decided() == ("deferred", "nginx-down")
    assert daemon.said("deferred example", "nothing could be proved") == 1
    daemon.nginx.start()
    daemon.run_for(2)
    assert daemon.shows(new)


def test_a_refusal_that_is_not_our_fault_is_tried_again_until_it_is_mended(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.nginx.refuses = ("[emerg] unknown directive",)
    daemon.drop(new)
    daemon.run_for(4)
    assert daemon.decided() == ("deferred", "nginx-refused")
    daemon.nginx.refuses = ()
    daemon.run_for(60)
    assert daemon.shows(new)


def test_the_pauses_between_tries_grow_to_ten_minutes(daemon: Looping) -> None:
    daemon.nginx.refuses = ("[emerg] unknown directive",)
    daemon.drop(daemon.issue())
    daemon.run_for(5 + 10 + 20 + 40 + 80 + 160 + 320 + 30)
    tries = daemon.nginx.hups
    assert 7 <= tries <= 9
    daemon.run_for(6000)
    assert daemon.nginx.hups - tries == 10


def test_what_is_deferred_is_still_so_after_a_restart(daemon: Looping) -> None:
    daemon.nginx.refuses = ("[emerg] unknown directive",)
    daemon.drop(daemon.issue())
    daemon.run_for(500)
    hups = daemon.nginx.hups
    daemon.restart()
    assert daemon.nginx.hups == hups
    daemon.run_for(600)
    assert daemon.nginx.hups > hups


def test_a_pair_that_begins_in_a_while_is_live_when_it_does(daemon: Looping) -> None:
    new = daemon.issue(later=1.5)
    daemon.drop(new)
    daemon.run_for(600)
    assert daemon.decided() == ("deferred", "not-yet-valid")
    daemon.run_for(1200)
    assert daemon.shows(new)
    assert daemon.said("deferred") == 1


def test_a_clock_that_stands_before_the_history_condemns_nothing(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.clock._start = NOW.replace(year=1970)
    daemon.drop(new)
    daemon.run_for(30)
    assert daemon.decided() == ("deferred", "clock-suspect")
    daemon.clock._start = NOW
    daemon.run_for(600)
    assert daemon.shows(new)


def test_an_unreadable_file_is_deferred_and_taken_when_it_can_be_read(
    daemon: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object, **__: object) -> Candidate:
        raise RotatorError(Code.PERMISSION, "fullchain.pem may not be read by this user", "setfacl …")

    new = daemon.issue()
    daemon.drop(new)
    with monkeypatch.context() as patch:
        patch.setattr(DropDirectories, "read", closed)
        daemon.run_for(3600)
        assert daemon.decided() == ("deferred", "permission")
        assert daemon.said("deferred example") == 1
    daemon.write("fullchain.pem", new.chain_pem).chmod(0o640)
    daemon.tick()
    assert daemon.shows(new)


def test_a_fifo_in_a_drop_blocks_nothing_and_is_told_once(daemon: Looping) -> None:
    (daemon.incoming / "example").mkdir()
    os.mkfifo(daemon.incoming / "example" / "fullchain.pem")
    daemon.run_for(3600)
    assert daemon.decided() == ("deferred", "io-error")
    assert daemon.said("deferred example", "a FIFO") == 1


# -- beside commands


def test_what_a_command_has_put_live_is_asked_for_at_the_next_look(daemon: Looping) -> None:
    daemon.run_for(30)
    done = daemon.by_hand(daemon.issue())
    daemon.tick()
    shown = daemon.loop.maintenance.facts["example"]
    (leaf,) = daemon.store.load("example", done.generation).record.pairs
    assert [one.fingerprint for one in shown.certificates] == [leaf.fingerprint]
    assert all(one.matches for one in shown.served)


def test_how_a_command_ended_is_shown_as_the_last_swap(daemon: Looping) -> None:
    bad = daemon.issue()
    daemon.world.nginx.wire_wrongly(LISTENERS[1])
    assert daemon.by_hand(bad).result is Result.ROLLED_BACK
    daemon.tick()
    counters = daemon.loop.telemetry.counters
    assert counters.swaps["example"].successful is False
    assert counters.attempts == {("example", "swap"): 1}
    assert counters.rollbacks == {"example": 1}


def test_a_command_that_failed_while_we_waited_for_it_is_not_shown_as_the_last_swap_after_ours(
    daemon: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, stranger = daemon.issue(), daemon.host.issuer.issue("other.example.test", not_before=daemon.clock.now())
    real = Locks.rotation

    def waited_for(self: Locks, who: str, *args: object) -> object:
        if who == "rotatord":
            monkeypatch.setattr(Locks, "rotation", real)
            assert daemon.by_hand(stranger).result is Result.REJECTED
        return real(self, who, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Locks, "rotation", waited_for)
    daemon.drop(new)
    daemon.run_for(30)
    assert daemon.shows(new)
    assert daemon.loop.telemetry.counters.swaps["example"].successful is True


def test_what_is_held_by_hand_is_not_installed_until_it_changes(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.drop(new)
    candidate = daemon.loop.runtime.sources["example"].read("example")
    assert candidate is not None
    daemon.store.write_intent("example", Intent("", "rotated", "", "", "", Hold("alice", "today", candidate.digest)))
    daemon.run_for(60)
    assert daemon.nginx.hups == 0
    assert daemon.said("held example", "alice") == 1
    newer = daemon.issue()
    daemon.drop(newer)
    daemon.tick()
    assert daemon.shows(newer)


def test_a_decision_of_a_newer_version_holds_the_drop_until_it_is_decided_by_hand(daemon: Looping) -> None:
    daemon.store.write_intent("example", Intent())
    newer = daemon.store.root / "sites/example/intent.json"
    newer.write_text('{"schema_version": 9, "decisions": [{"held": true}]}')
    daemon.drop(daemon.issue())
    daemon.run_for(60)
    daemon.drop(daemon.issue())
    daemon.run_for(60)
    assert daemon.nginx.hups == 0
    assert newer.read_text() == '{"schema_version": 9, "decisions": [{"held": true}]}'
    assert daemon.said("held example", "does not understand", "rotator swap example") >= 1


def test_a_decision_that_the_system_does_not_give_holds_the_drop_until_it_does(
    daemon: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> bytes:
        if path.name == "intent.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read_file(path)

    first, second = daemon.issue(), daemon.issue(later=1)
    daemon.drop(first)
    daemon.run_for(30)
    with monkeypatch.context() as broken:
        broken.setattr(generations, "read_file", fails)
        daemon.drop(second)
        daemon.run_for(60)
    assert (daemon.nginx.hups, daemon.said("held example", "does not understand")) == (1, 1)
    daemon.run_for(601)
    assert daemon.shows(second)


def test_a_start_says_which_decisions_a_newer_version_wrote(daemon: Looping) -> None:
    daemon.store.write_intent("example", Intent())
    file = daemon.store.root / "sites/example/intent.json"
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    daemon.restart()
    assert daemon.said("newer-record example", "schema_version 9; this one knows 1") == 1


def test_a_drop_that_waits_for_its_turn_says_what_a_command_has_put_live_meanwhile(
    paced: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand, real, calls = paced.issue("a", later=0.2), Locks.rotation, []
    paced.drop(paced.issue("a", later=0.4), "a")

    def held(self: Locks, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:  # a command that has the lock first, and decides nothing about the drop
            paced.by_hand(by_hand, "a")
        return real(self, *args)

    monkeypatch.setattr(Locks, "rotation", held)
    paced.run_for(1)
    (last,) = paced.history.entries("a", limit=1)
    assert (last.trigger, last.reason, last.live) == ("drop", "min-reload-interval", paced.world.live("a"))
    assert paced.shows(by_hand, "a")


def test_a_command_that_was_quicker_is_not_repeated(daemon: Looping, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.drop(daemon.issue())
    real = Locks.rotation

    def held(self: Locks, *args: object) -> object:
        daemon.store.write_intent("example", Intent("", "rotated", "", "", "", Hold("alice", "today", _digest(daemon))))
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Locks, "rotation", held)
    daemon.run_for(30)
    assert daemon.nginx.hups == 0


def _digest(daemon: Looping) -> str:
    candidate = daemon.loop.runtime.sources["example"].read("example")
    return candidate.digest if candidate else ""


def test_a_command_at_work_is_waited_for(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.drop(new)
    with daemon.locks.rotation("alice", 1.0):
        daemon.loop.tick()
        assert daemon.decided() == ("", "")
    daemon.run_for(1)
    assert daemon.shows(new)
    assert daemon.said("alice") >= 1


def test_a_lock_that_is_held_for_long_is_told_once_and_again_after_it_was_free(daemon: Looping) -> None:
    for times in (1, 2):
        daemon.drop(daemon.issue())
        with daemon.locks.rotation(f"alice{times}", 1.0):
            for _ in range(5):
                daemon.run_for(1)
            assert daemon.said("waiting for", f"(alice{times}, since") == 1
            assert daemon.loop.trouble == "lock-busy"
        daemon.run_for(2)
        assert daemon.loop.trouble is None


def test_what_a_command_left_in_flight_when_it_died_is_recovered_first(daemon: Looping) -> None:
    swapped = daemon.issue()
    done = daemon.by_hand(swapped)
    daemon.store.mark_verified("example", done.previous)
    with daemon.locks.rotation("alice", 1.0) as lock:
        lock.begin(["example"])
    (daemon.store.root / "lock.json").write_text('{"pid": 1, "in_flight": ["example"]}\n')
    new = daemon.issue()
    daemon.drop(new)
    daemon.tick()
    assert daemon.shows(new)
    assert [e.trigger for e in daemon.history.entries("example", 2)] == ["recover", "drop"]


# -- life


def test_a_start_proves_what_is_live_before_it_takes_a_drop(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, start=False)
    new = daemon.issue()
    done = daemon.by_hand(new)
    daemon.store.mark_verified("example", done.previous)
    daemon.loop.start(1.0)
    assert daemon.store.verified("example") == done.generation
    daemon.close()


MANY = tuple(f"site{number:02d}" for number in range(50))


def test_a_start_with_many_sites_takes_hardly_longer_than_with_one(tmp_path: Path) -> None:
    looping = Looping(tmp_path, MANY, start=False)
    begun = looping.clock.time
    looping.loop.start(1.0)
    assert looping.clock.time - begun < 1.0
    looping.close()


def test_one_site_that_is_not_served_holds_up_no_start_of_the_others(tmp_path: Path) -> None:
    looping = Looping(tmp_path, MANY, start=False)
    looping.world.store.mark_verified("site07", looping.host.swap(looping.site("site07"), looping.issue("site07")).live)
    looping.world.apply({"site07": looping.store.names("site07")[0]}, hup=False)
    begun = looping.clock.time
    looping.loop.start(1.0)
    assert looping.clock.time - begun < 2.0
    assert looping.shows(looping.host.first["site07"], "site07")
    assert looping.nginx.hups == 2  # the swap, and the one that site07 takes
    looping.close()


def test_many_drops_that_are_live_already_are_proved_together(tmp_path: Path) -> None:
    looping = Looping(tmp_path, MANY, settle=0.0)
    for name in MANY:
        looping.drop(looping.host.first[name], name)
    begun = looping.clock.time
    looping.loop.tick()
    assert looping.clock.time - begun < 3.0
    assert {looping.decided(name) for name in MANY} == {("unchanged", "same")}
    assert looping.nginx.hups == 0
    looping.close()


def test_a_start_with_nginx_stopped_proves_when_it_comes(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, start=False)
    daemon.nginx.stop()
    daemon.loop.start(1.0)
    daemon.run_for(1000)
    assert "is not proved (nginx-down)" in status_line(daemon.loop.states, daemon.loop.maintenance.degraded_sites)
    daemon.nginx.start()
    daemon.run_for(3)
    assert "all as wanted" in status_line(daemon.loop.states, daemon.loop.maintenance.degraded_sites)
    assert daemon.nginx.hups == 0
    daemon.close()


def test_a_dead_listener_and_each_change_of_nginx_cost_one_reload_for_all_sites_that_are_not_well(
    tmp_path: Path,
) -> None:
    daemon = Looping(tmp_path, ("a", "b", "c"))
    daemon.nginx.dead.add("127.0.0.1:1890")
    daemon.loop.maintenance.look_at(["a", "b", "c"])
    daemon.run_for(700)
    hups = daemon.nginx.hups
    assert hups == 1
    daemon.nginx.reload()
    daemon.run_for(700)
    assert set(daemon.loop.maintenance.degraded_sites) == {"a", "b", "c"}
    assert daemon.nginx.hups == hups + 1
    daemon.close()


def test_what_is_not_served_is_told_before_what_is_held(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, start=False)
    daemon.drop(daemon.issue())
    candidate = daemon.loop.runtime.sources["example"].read("example")
    assert candidate is not None
    daemon.store.write_intent("example", Intent(hold=Hold("alice", "today", candidate.digest)))
    daemon.nginx.stop()
    daemon.loop.start(1.0)
    daemon.settle_down()
    told = status_line(daemon.loop.states, daemon.loop.maintenance.degraded_sites)
    assert "is not proved (nginx-down), and is held by alice" in told
    daemon.close()


def test_a_start_waits_for_a_command_only_so_long(daemon: Looping) -> None:
    with daemon.locks.rotation("alice", 1.0), pytest.raises(RotatorError) as e:
        daemon.loop.start(0.0)
    assert e.value.code == "lock-busy"


def test_the_first_drop_of_a_site_is_stored_and_proved_when_nginx_is_wired(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, bare=True)
    new = daemon.issue()
    daemon.drop(new)
    daemon.run_for(300)
    assert daemon.decided() == ("deferred", "not-wired")
    assert (daemon.nginx.hups, daemon.said("deferred example", "not-wired")) == (0, 1)
    daemon.nginx.reload()
    daemon.run_for(2)
    assert daemon.decided() == ("rotated", "proved")
    assert daemon.nginx.hups == 0
    daemon.close()


def test_a_listener_that_serves_something_else_is_noticed_and_costs_one_reload(daemon: Looping) -> None:
    daemon.drop(daemon.issue())
    daemon.tick()
    daemon.nginx.dead.add(LISTENERS[0])
    hups = daemon.nginx.hups
    daemon.loop.maintenance.probe()
    daemon.run_for(3600)
    assert daemon.nginx.hups - hups <= 2  # one to mend it, one with the pair of before
    assert daemon.said("differs example", LISTENERS[0]) == 1
    daemon.nginx.dead.clear()
    daemon.run_for(601)
    assert daemon.said("well example") == 1


def test_a_root_that_is_removed_shows_in_what_is_live(daemon: Looping) -> None:
    from rotator.validation.validate import Anchors
    from tests.support.authority import CA

    other = Anchors.from_pem(pem(CA.root("Another").cert), "other roots")
    daemon.loop.reconfigure(daemon.runtime(anchors=other))
    daemon.run_for(60)
    assert daemon.said("live-unfit example", "incomplete-chain") == 1


# -- lists that are renewed


def lists(daemon: Looping, *revoked: Issued, number: int = 1) -> Evidence:
    """Revocation lists of the host's two authorities."""
    made = (daemon.host.issuer.crl(*(one.leaf for one in revoked), number=number), daemon.host.ca.crl(number=number))
    return Evidence(Revocations.from_files([("crls.pem", b"".join(one.public_bytes(Encoding.PEM) for one in made))]))


def test_a_live_certificate_that_is_revoked_shows_once(daemon: Looping) -> None:
    daemon.renew(lists(daemon))
    daemon.tick()
    assert daemon.said("live-unfit") == 0
    daemon.renew(lists(daemon, daemon.host.first["example"]))
    daemon.run_for(3600)
    daemon.renew(lists(daemon, daemon.host.first["example"], number=2))
    daemon.run_for(60)
    assert daemon.said("live-unfit example", "revoked") == 1
    assert daemon.nginx.hups == 0


def test_a_renewal_that_replaces_a_revoked_certificate_is_judged_at_once(daemon: Looping) -> None:
    daemon.renew(lists(daemon, daemon.host.first["example"]))
    daemon.tick()
    assert [p.code for p in daemon.loop.maintenance.live_problems["example"]] == ["revoked"]
    daemon.drop(daemon.issue())
    daemon.run_for(20)
    assert daemon.loop.maintenance.live_problems["example"] == ()


def test_a_drop_that_is_revoked_is_rejected(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.renew(lists(daemon, new))
    daemon.drop(new)
    daemon.run_for(20)
    assert daemon.decided() == ("rejected", "revoked")


def test_a_renewed_list_that_changes_no_verdict_is_no_event(daemon: Looping) -> None:
    good, revoked = daemon.issue(), daemon.issue(later=1)
    daemon.drop(good)
    daemon.tick()
    history, lines = daemon.history.entries(), len(daemon.log.read_text().splitlines())
    for number in range(1, 4):
        daemon.renew(lists(daemon, revoked, number=number))
        daemon.run_for(60)
    assert (daemon.history.entries(), len(daemon.log.read_text().splitlines())) == (history, lines)
    assert daemon.intent().policy == daemon.loop.runtime.sites["example"].policy


def test_a_renewed_list_does_not_tell_a_rejection_again(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.renew(lists(daemon, new))
    daemon.drop(new)
    daemon.run_for(20)
    daemon.renew(lists(daemon, new, number=2))
    daemon.run_for(20)
    daemon.restart()
    daemon.renew(lists(daemon, new, number=3))
    daemon.run_for(20)
    assert daemon.said("rejected example") == 1


def test_a_list_that_no_longer_names_it_lets_a_rejected_drop_go_live(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.renew(lists(daemon, new))
    daemon.drop(new)
    daemon.run_for(20)
    daemon.renew(lists(daemon, number=2))
    daemon.tick()
    assert daemon.shows(new)


def test_a_renewed_list_reloads_nginx_no_second_time_for_a_pair_that_was_rolled_back(daemon: Looping) -> None:
    daemon.nginx.wire_wrongly(LISTENERS[1])
    daemon.drop(daemon.issue())
    daemon.run_for(60)
    assert daemon.decided() == ("rolled-back", "not-proved")
    hups = daemon.nginx.hups
    daemon.renew(lists(daemon))
    daemon.run_for(600)
    assert daemon.nginx.hups == hups


def test_generations_beyond_the_number_kept_are_tidied_away(daemon: Looping) -> None:
    for _ in range(4):
        daemon.by_hand(daemon.issue())
    for managed in daemon.loop.runtime.sites.values():
        daemon.loop.runtime = replace(
            daemon.loop.runtime, sites={"example": replace(managed, site=replace(managed.site, keep=2))}
        )
    daemon.loop.maintenance.runtime = daemon.loop.runtime
    daemon.loop.maintenance.tidy()
    daemon.tick()
    assert len(daemon.store.names("example")) == 2


# -- the history's upkeep


class HistoryStays(StandIn):
    """The history cannot be renamed, as where an admin has made it append-only; everything else can."""

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if name == "rename" and str(args[0]).endswith("/history.jsonl"):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture
def chronicler(daemon: Looping) -> Looping:
    """A daemon whose history is long already."""
    daemon.world.history = History(daemon.store.root, close_at=1)
    daemon.loop.reconfigure(daemon.runtime())
    daemon.settle_down()
    return daemon


def closed(daemon: Looping) -> list[str]:
    return sorted(path.name for path in daemon.store.root.glob("history-*.jsonl"))


def test_a_history_that_became_long_is_closed_after_the_outcome_that_made_it_so(chronicler: Looping) -> None:
    before = chronicler.history.entries()
    assert closed(chronicler) == []
    new = chronicler.issue()
    chronicler.drop(new)
    chronicler.tick()
    assert chronicler.shows(new)
    assert closed(chronicler) == ["history-000001.jsonl"]
    assert [e.trigger for e in chronicler.history.entries()[len(before) :]] == ["drop"]


def test_a_store_that_cannot_be_listed_is_told_when_it_is_tidied_up_and_ends_nothing(daemon: Looping) -> None:
    home = daemon.store.root / "sites/example/generations"
    home.rename(home.with_name("away"))
    home.write_text("no directory")
    daemon.loop.maintenance.tidy()
    daemon.run_for(1)
    assert daemon.said("io-error example", "generations: Not a directory") == 1
    home.unlink()
    home.with_name("away").rename(home)
    new = daemon.issue()
    daemon.drop(new)
    daemon.run_for(30)
    assert daemon.shows(new)


def test_a_history_that_commands_made_long_is_closed_when_the_daemon_tidies_up(chronicler: Looping) -> None:
    chronicler.run_for(60)
    assert closed(chronicler) == []
    chronicler.loop.maintenance.tidy()
    chronicler.tick()
    assert closed(chronicler) == ["history-000001.jsonl"]


def test_a_history_is_not_closed_in_the_way_of_a_command(chronicler: Looping) -> None:
    with chronicler.locks.rotation("alice", 1.0):
        chronicler.loop.maintenance.tidy()
        chronicler.tick()
        assert (closed(chronicler), chronicler.said("tidied up")) == ([], 0)
    chronicler.loop.maintenance.tidy()
    chronicler.tick()
    assert closed(chronicler) == ["history-000001.jsonl"]


def test_a_history_that_cannot_be_closed_is_told_once_and_holds_no_rotation_up(chronicler: Looping) -> None:
    with standing_in(HistoryStays()):
        for _ in range(3):
            new = chronicler.issue()
            chronicler.drop(new)
            chronicler.run_for(60)
            assert chronicler.shows(new)
    assert chronicler.said("permission", "the history could not be tidied up") == 1
    assert [e.trigger for e in chronicler.history.entries("example", 3)] == ["drop"] * 3


# -- what is wrong around it


def test_a_full_disk_is_no_verdict_and_heals_by_itself(daemon: Looping, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RotatorError(Reason.DISK_FULL, "no space left", "free some")

    new = daemon.issue()
    daemon.drop(new)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "stage", full)
        patch.setattr(Store, "write_intent", full)
        patch.setattr(History, "record", full)
        daemon.run_for(60)
        assert daemon.nginx.hups == 0
        assert daemon.said("not-written") == 1
    daemon.run_for(600)
    assert daemon.shows(new)
    assert daemon.decided() == ("rotated", "rotated")


def _last_scan(daemon: Looping) -> float | None:
    """What the page shows after a pass."""
    daemon.telemetry.registry = daemon.telemetry.registry or Registry()
    daemon.telemetry.publish(
        daemon.loop.states,
        {},
        {},
        workers=None,
        watcher_up=True,
        overflows=0,
        scanned_at=daemon.loop.scan.at,
        scan_interval=15.0,
    )
    page = daemon.telemetry.registry.render().decode()
    found = re.search(r"^rotator_scan_last_success_timestamp_seconds (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else None


def test_a_look_that_met_a_lost_drop_directory_is_no_scan_that_succeeded(daemon: Looping) -> None:
    daemon.drop(daemon.issue())
    daemon.run_for(60)
    before = _last_scan(daemon)
    away = daemon.incoming / "example"
    away.rename(daemon.root / "away")
    daemon.run_for(60)
    assert before == _last_scan(daemon)
    (daemon.root / "away").rename(away)
    daemon.run_for(60)
    assert _last_scan(daemon) == daemon.clock.now().timestamp() != before


def test_a_lost_drop_directory_is_told_once_and_heals_by_itself(daemon: Looping) -> None:
    daemon.drop(daemon.issue())
    daemon.tick()
    daemon.incoming.rename(daemon.root / "away")
    daemon.run_for(100)
    assert daemon.said("drop-lost example") == 1
    assert "cannot be looked at" in status_line(daemon.loop.states, daemon.loop.maintenance.degraded_sites)
    daemon.incoming.mkdir()
    new = daemon.issue()
    daemon.drop(new)
    daemon.run_for(16)
    assert daemon.shows(new)
    assert daemon.said("drop-back example") == 1


def test_the_outcome_feeds_the_counters(daemon: Looping) -> None:
    daemon.drop(daemon.issue())
    daemon.tick()
    counters = daemon.loop.telemetry.counters
    assert counters.attempts == {("example", "drop"): 1}
    assert counters.swaps["example"].successful


def _counted(daemon: Looping) -> tuple[int, dict[str, int], bool | None]:
    """Reloads, those that failed by reason, and whether the last one succeeded."""
    counters = daemon.loop.telemetry.counters
    return counters.reloads, dict(counters.reload_failures), counters.reload.successful


def test_a_drop_that_is_refused_beside_one_that_is_put_live_is_no_failed_reload(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a", "b"))
    daemon.write("fullchain.pem", b"garbage", "a")
    daemon.run_for(9)
    daemon.drop(daemon.issue("b"), "b")
    daemon.clock.sleep(2)
    daemon.tick()
    assert (daemon.decided("a")[0], daemon.decided("b")[0]) == ("rejected", "rotated")
    assert _counted(daemon) == (1, {}, True)
    daemon.close()


def test_each_reload_of_a_batch_that_is_tried_one_by_one_is_counted_as_it_was_proved(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a", "b"))
    listener = "127.0.0.1:1890"
    for name in ("a", "b"):
        daemon.drop(daemon.issue(name), name)
    daemon.nginx.wire_wrongly(listener)
    daemon.tick()
    assert {daemon.decided(name)[0] for name in ("a", "b")} == {"rolled-back"}
    # the batch, its way back, then each site and its own way back: what goes back is proved each time
    assert _counted(daemon) == (daemon.nginx.hups, {"not-proved": daemon.nginx.hups // 2}, True)
    daemon.close()


def test_a_reload_that_nginx_refuses_is_counted_once_and_for_that(daemon: Looping) -> None:
    daemon.nginx.refuses = ('unknown directive "bogus"',)
    daemon.drop(daemon.issue())
    daemon.tick()
    assert _counted(daemon) == (1, {"refused": 1}, False)


def test_another_configuration_forgets_a_site_that_is_gone(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a", "b"))
    daemon.host.sites = (daemon.site("a"),)
    daemon.loop.reconfigure(daemon.runtime())
    daemon.run_for(60)
    assert set(daemon.loop.states) == {"a"}
    assert set(daemon.loop.maintenance.facts) == {"a"}
    daemon.close()


@pytest.mark.parametrize("result", [r for r in Result if r is not Result.DEFERRED])
def test_no_decided_drop_is_read_for_ever(daemon: Looping, result: Result) -> None:
    daemon.drop(daemon.issue())
    managed = daemon.loop.runtime.sites["example"]
    daemon.store.write_intent("example", Intent(_digest(daemon), str(result), "", managed.policy))
    daemon.run_for(10)
    assert daemon.loop.states["example"].due > daemon.clock.time or _young(daemon)
    assert daemon.nginx.hups == 0


def _young(daemon: Looping) -> bool:
    """The files' times are real, so in a quick test they stay young."""
    return daemon.loop.runtime.sources["example"].look()["example"].young
