"""The passes of the daemon's loop, in virtual time on a simulated nginx: what it does and says, when, how often."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rotator import drops as drops_module
from rotator.daemon.status import status_line
from rotator.errors import RotatorError
from rotator.model import Candidate, Result, SourceFile
from rotator.pool import Pool
from rotator.store import Hold, Intent, Store
from tests.authority import NOW, encrypted, pem
from tests.looping import Looping
from tests.worlds import LISTENERS


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Looping]:
    yield from _started(Looping(tmp_path))


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


def test_a_drop_is_decided_once(daemon: Looping) -> None:
    daemon.drop(daemon.issue())
    daemon.run_for(3600)
    assert (daemon.nginx.hups, daemon.said("rotated")) == (1, 1)


def test_an_idle_daemon_leaves_nginx_and_the_history_alone(daemon: Looping) -> None:
    before = daemon.store.history()
    daemon.run_for(3600)
    assert (daemon.nginx.hups, daemon.store.history()) == (0, before)


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
    assert [e["result"] for e in daemon.store.history("example", 1)] == ["rejected"]
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
    daemon.loop.stand_on(daemon.ground())
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
    daemon.loop.stand_on(daemon.ground())
    daemon.run_for(11)
    assert daemon.shows(new)


def borrowed(daemon: Looping) -> list[str]:
    """What the last outcome says it took from outside the drop."""
    problems = daemon.store.history("example", 1)[0]["problems"]
    return [p["message"] for p in problems if (p["code"], p["severity"]) == ("incomplete-chain", "warn")]


def test_an_encrypted_key_is_opened_with_the_password_file_of_the_site(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.password_file = daemon.root / "password"
    daemon.password_file.write_bytes(b"open sesame\n")
    daemon.password_file.chmod(0o600)
    daemon.loop.stand_on(daemon.ground())
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
    daemon.loop.stand_on(daemon.ground())
    daemon.drop(new)
    daemon.run_for(20)
    assert daemon.decided() == ("rejected", "name-mismatch")
    daemon.policy = None
    daemon.loop.stand_on(daemon.ground())
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


def test_two_reloads_keep_their_distance(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a", "b", "c"), min_reload_interval=60.0)
    for name in ("a", "b", "c"):
        daemon.drop(daemon.issue(name), name)
        daemon.run_for(5)
    assert (daemon.nginx.hups, daemon.said("paced b") > 0) == (1, True)
    daemon.run_for(60)
    assert daemon.nginx.hups == 2
    assert {daemon.decided(name)[0] for name in ("a", "b", "c")} == {"rotated"}
    daemon.close()


def test_a_certificate_close_to_its_end_waits_for_no_pacing(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a", "b"), min_reload_interval=86400.0)
    daemon.host.swap(daemon.site("b"), daemon.host.issue(daemon.site("b"), days=0.05))
    daemon.clock.sleep(600)
    daemon.nginx.hups = 0
    daemon.drop(daemon.issue("a"), "a")
    daemon.tick()
    daemon.drop(daemon.issue("b"), "b")
    daemon.tick()
    assert daemon.nginx.hups == 2
    daemon.close()


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
        raise RotatorError("permission", "fullchain.pem may not be read by this user", "setfacl …")

    new = daemon.issue()
    daemon.drop(new)
    with monkeypatch.context() as patch:
        patch.setattr(drops_module, "read_place", closed)
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


def test_what_is_held_by_hand_is_not_installed_until_it_changes(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.drop(new)
    candidate = daemon.loop.ground.drops.read("example")
    assert candidate is not None
    daemon.store.write_intent("example", Intent("", "rotated", "", "", "", Hold("alice", "today", candidate.digest)))
    daemon.run_for(60)
    assert daemon.nginx.hups == 0
    assert daemon.said("held example", "alice") == 1
    newer = daemon.issue()
    daemon.drop(newer)
    daemon.tick()
    assert daemon.shows(newer)


def test_a_command_that_was_quicker_is_not_repeated(daemon: Looping, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.drop(daemon.issue())
    real = Store.rotation_lock

    def held(self: Store, *args: object) -> object:
        daemon.store.write_intent("example", Intent("", "rotated", "", "", "", Hold("alice", "today", _digest(daemon))))
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "rotation_lock", held)
    daemon.run_for(30)
    assert daemon.nginx.hups == 0


def _digest(daemon: Looping) -> str:
    candidate = daemon.loop.ground.drops.read("example")
    return candidate.digest if candidate else ""


def test_a_command_at_work_is_waited_for(daemon: Looping) -> None:
    new = daemon.issue()
    daemon.drop(new)
    with daemon.store.rotation_lock("alice", 1.0):
        daemon.loop.tick()
        assert daemon.decided() == ("", "")
    daemon.run_for(1)
    assert daemon.shows(new)
    assert daemon.said("alice") >= 1


def test_what_a_command_left_in_flight_when_it_died_is_recovered_first(daemon: Looping) -> None:
    swapped = daemon.issue()
    done = daemon.by_hand(swapped)
    daemon.store.mark_verified("example", done.previous)
    with daemon.store.rotation_lock("alice", 1.0) as lock:
        lock.begin(["example"])
    (daemon.store.root / "lock").write_text('{"pid": 1, "in_flight": ["example"]}\n')
    new = daemon.issue()
    daemon.drop(new)
    daemon.tick()
    assert daemon.shows(new)
    assert [e["trigger"] for e in daemon.store.history("example", 2)] == ["recover", "drop"]


# -- life


def test_a_start_proves_what_is_live_before_it_takes_a_drop(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, start=False)
    new = daemon.issue()
    done = daemon.by_hand(new)
    daemon.store.mark_verified("example", done.previous)
    daemon.loop.start(1.0)
    assert daemon.store.verified("example") == done.generation
    daemon.close()


def test_a_start_with_nginx_stopped_proves_when_it_comes(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, start=False)
    daemon.nginx.stop()
    daemon.loop.start(1.0)
    daemon.run_for(1000)
    assert "is not proved (nginx-down)" in status_line(daemon.loop.memories, daemon.loop.tending.cares)
    daemon.nginx.start()
    daemon.run_for(3)
    assert "all as wanted" in status_line(daemon.loop.memories, daemon.loop.tending.cares)
    assert daemon.nginx.hups == 0
    daemon.close()


def test_a_start_waits_for_a_command_only_so_long(daemon: Looping) -> None:
    with daemon.store.rotation_lock("alice", 1.0), pytest.raises(RotatorError) as e:
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
    daemon.loop.tending.probe()
    daemon.run_for(3600)
    assert daemon.nginx.hups - hups <= 2  # one to mend it, one with the pair of before
    assert daemon.said("differs example", LISTENERS[0]) == 1
    daemon.nginx.dead.clear()
    daemon.run_for(601)
    assert daemon.said("well example") == 1


def test_a_root_that_is_removed_shows_in_what_is_live(daemon: Looping) -> None:
    from rotator.trust import Anchors
    from tests.authority import CA

    other = Anchors.from_pem(pem(CA.root("Another").cert), "other roots")
    daemon.loop.stand_on(daemon.ground(anchors=other))
    daemon.run_for(60)
    assert daemon.said("live-unfit example", "incomplete-chain") == 1


def test_generations_beyond_the_number_kept_are_tidied_away(daemon: Looping) -> None:
    for _ in range(4):
        daemon.by_hand(daemon.issue())
    for ward in daemon.loop.ground.wards.values():
        daemon.loop.ground = replace(
            daemon.loop.ground, wards={"example": replace(ward, site=replace(ward.site, keep=2))}
        )
    daemon.loop.tending.ground = daemon.loop.ground
    daemon.loop.tending.tidy()
    daemon.tick()
    assert len(daemon.store.names("example")) == 2


def test_a_full_disk_is_no_verdict_and_heals_by_itself(daemon: Looping, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RotatorError("disk-full", "no space left", "free some")

    new = daemon.issue()
    daemon.drop(new)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "stage", full)
        patch.setattr(Store, "write_intent", full)
        patch.setattr(Store, "record", full)
        daemon.run_for(60)
        assert daemon.nginx.hups == 0
        assert daemon.said("not-written") == 1
    daemon.run_for(600)
    assert daemon.shows(new)
    assert daemon.decided() == ("rotated", "rotated")


def test_a_lost_drop_directory_is_told_once_and_heals_by_itself(daemon: Looping) -> None:
    daemon.drop(daemon.issue())
    daemon.tick()
    daemon.incoming.rename(daemon.root / "away")
    daemon.run_for(100)
    assert daemon.said("drop-lost example") == 1
    assert "cannot be looked at" in status_line(daemon.loop.memories, daemon.loop.tending.cares)
    daemon.incoming.mkdir()
    new = daemon.issue()
    daemon.drop(new)
    daemon.run_for(16)
    assert daemon.shows(new)
    assert daemon.said("drop-back example") == 1


def test_the_outcome_feeds_the_counters(daemon: Looping) -> None:
    daemon.drop(daemon.issue())
    daemon.tick()
    counters = daemon.loop.measuring.counters
    assert counters.attempts == {("example", "drop"): 1}
    assert counters.swaps["example"].successful


def test_another_configuration_forgets_a_site_that_is_gone(tmp_path: Path) -> None:
    daemon = Looping(tmp_path, ("a", "b"))
    daemon.host.sites = (daemon.site("a"),)
    daemon.loop.stand_on(daemon.ground())
    daemon.run_for(60)
    assert set(daemon.loop.memories) == {"a"}
    assert set(daemon.loop.tending.seen) == {"a"}
    daemon.close()


@pytest.mark.parametrize("result", [r for r in Result if r is not Result.DEFERRED])
def test_no_decided_drop_is_read_for_ever(daemon: Looping, result: Result) -> None:
    daemon.drop(daemon.issue())
    ward = daemon.loop.ground.wards["example"]
    daemon.store.write_intent("example", Intent(_digest(daemon), str(result), "", ward.policy))
    daemon.run_for(10)
    assert daemon.loop.memories["example"].due > daemon.clock.time or _young(daemon)
    assert daemon.nginx.hups == 0


def _young(daemon: Looping) -> bool:
    """The files' times are real, so in a quick test they stay young."""
    return daemon.loop.ground.drops.look()["example"].young
