"""The rotation through every outcome, on a simulated nginx; the store and the privileged step are the real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import Result, Served, Target
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason
from rotator.privsep.apply import Applied, Setup
from rotator.rotation.prepare import STILL_VALIDATED, plan
from rotator.rotation.request import RotationRequest, Validation
from rotator.rotation.rotate import rotate
from rotator.storage.locks import Lock
from rotator.validation.validate import Verdict
from tests.support.authority import CA
from tests.support.hosts import LISTENERS, Host, candidate_of, make_site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def three(tmp_path: Path) -> Host:
    return Host(tmp_path, (make_site("a"), make_site("b"), make_site("c")))


# -- the good way


def test_a_renewal_is_rotated_when_every_listener_serves_it(host: Host) -> None:
    new = host.issue()
    done = host.swap(host.sites[0], new)
    assert (done.result, done.reason, done.proof) == (Result.ROTATED, "rotated", "workers")
    assert host.nginx_shows["example"] == new.chain_der


def test_a_rotation_costs_one_reload(host: Host) -> None:
    host.swap(host.sites[0], host.issue())
    assert host.world.nginx.hups == 1


def test_when_rotated_is_reported_no_old_worker_accepts_connections(host: Host) -> None:
    before = {w.pid for w in host.world.nginx.workers_}
    host.swap(host.sites[0], host.issue())
    assert not {w.pid for w in host.world.nginx.workers_ if w.active} & before


def test_when_rotated_is_reported_the_generation_is_verified_and_live(host: Host) -> None:
    done = host.swap(host.sites[0], host.issue())
    assert host.world.store.verified("example") == host.world.live("example") == done.generation


def test_a_batch_goes_with_one_reload(three: Host) -> None:
    new = {s.name: three.issue(s) for s in three.sites}
    done = three.run(*(three.wanted(s, new[s.name]) for s in three.sites))
    assert [o.result for o in done] == [Result.ROTATED] * 3
    assert three.world.nginx.hups == 1
    assert three.nginx_shows == {name: issued.chain_der for name, issued in new.items()}


def test_a_chain_that_changed_under_the_same_leaf_is_a_change(host: Host) -> None:
    issuer_again = host.ca.intermediate(key=host.issuer.key)
    same_leaf = type(host.first["example"])(host.first["example"].key, host.first["example"].leaf, (issuer_again.cert,))
    done = host.swap(host.sites[0], same_leaf)
    assert done.result is Result.ROTATED
    assert host.nginx_shows["example"] == same_leaf.chain_der


def test_rsa_and_ecdsa_change_together(tmp_path: Path) -> None:
    host = Host(tmp_path)
    pairs = host.issue(kind="ecdsa"), host.issue(kind="rsa")
    done = host.swap(host.sites[0], *pairs)
    assert done.result is Result.ROTATED
    loaded = host.world.nginx.workers_[-1].loaded["example"]
    assert {str(kind): chain for kind, chain in loaded.items()} == {
        "ecdsa": pairs[0].chain_der,
        "rsa": pairs[1].chain_der,
    }


def test_a_site_goes_from_two_kinds_of_key_to_one_and_another_and_each_way_back(host: Host) -> None:
    site, names = host.sites[0], []
    for pairs in ((host.issue(kind="rsa"),), (host.issue(), host.issue(kind="rsa")), (host.issue(),)):
        done = host.swap(site, *pairs)
        assert done.result is Result.ROTATED
        names.append(done.generation)
    for name in reversed(names[:-1]):
        assert host.run(RotationRequest(site, host.anchors, generation=name))[0].result is Result.ROTATED


@pytest.mark.parametrize("two_first", [True, False])
def test_a_change_of_the_kinds_of_key_that_is_not_proved_goes_back_whole(tmp_path: Path, two_first: bool) -> None:
    host = Host(tmp_path)
    one, two = (host.issue(),), (host.issue(), host.issue(kind="rsa"))
    before = host.swap(host.sites[0], *(two if two_first else one))
    host.world.nginx.wire_wrongly(LISTENERS[1])
    done = host.swap(host.sites[0], *(one if two_first else two))
    assert (done.result, done.live) == (Result.ROLLED_BACK, before.generation)


def test_the_stages_are_told_in_seconds(host: Host) -> None:
    done = host.swap(host.sites[0], host.issue())
    assert set(done.stages) == {"validate", "store", "test", "apply", "prove"}
    assert 0.1 <= done.stages["prove"] < 1.0


def test_every_outcome_stands_in_the_history_with_who_and_fingerprint(host: Host) -> None:
    new = host.issue()
    host.swap(host.sites[0], new)
    entry = host.world.history.entries("example")[-1]
    assert (entry.result, entry.who, entry.trigger) == ("rotated", "tester", "swap")
    assert set(entry.fingerprints) == {"ecdsa"}


def test_old_generations_are_pruned_but_never_what_is_live_verified_or_previous(tmp_path: Path) -> None:
    host = Host(tmp_path, (make_site(keep=1),))
    for _ in range(4):
        last = host.swap(host.sites[0], host.issue())
    assert set(host.world.store.names("example")) == {last.generation, last.previous}


# -- nothing is changed


def test_the_same_pair_again_changes_nothing_and_reloads_nothing(host: Host) -> None:
    done = host.swap(host.sites[0], host.first["example"])
    assert (done.result, done.reason) == (Result.UNCHANGED, "same")
    assert host.world.nginx.hups == 0


def test_an_unfit_pair_is_rejected_with_all_its_problems_and_touches_nothing(host: Host) -> None:
    live = host.world.live("example")
    other = CA.root("Elsewhere").intermediate().issue("other.example.test")
    done = host.swap(host.sites[0], other)
    assert done.result is Result.REJECTED
    assert {p.code for p in done.problems} >= {Code.NAME_MISMATCH}
    assert host.world.live("example") == live
    assert not host.world.applied


def test_a_recent_verdict_on_the_same_question_is_not_asked_for_again(host: Host) -> None:
    said = _validation(host)
    assert host.run(replace(_good(host), validation=said))[0].reason == Code.KEY_MISMATCH


@pytest.mark.parametrize("what", ["older", "later", "of another live pair", "with force"])
def test_a_verdict_on_any_other_question_is_asked_for_again(host: Host, what: str) -> None:
    said = _validation(host)
    changed = {
        "older": replace(said, at=said.at - STILL_VALIDATED),
        "later": replace(said, at=said.at + timedelta(seconds=1)),
        "of another live pair": replace(said, live=((b"another",),)),
        "with force": said,
    }[what]
    wanted = replace(_good(host), validation=changed, force=what == "with force")
    assert host.run(wanted)[0].result is Result.ROTATED


def test_what_judging_took_is_told_also_where_it_was_done_a_moment_before(host: Host) -> None:
    said = replace(_validation(host), seconds=0.25)
    (done,) = host.run(replace(_good(host), validation=said))
    assert 0.25 <= done.stages["validate"] < 0.5


def _good(host: Host) -> RotationRequest:
    return host.wanted(host.sites[0], host.issue())


def _validation(host: Host) -> Validation:
    """A refusal, as if it had been said of the live pair's successor just now."""
    refused = Verdict(problems=(Problem(Code.KEY_MISMATCH, Severity.REJECT, "no"),))
    return Validation(refused, (host.first["example"].chain_der,), host.world.clock.now())


def test_a_rejection_says_what_nginx_still_serves_and_until_when(host: Host) -> None:
    other = host.issuer.issue("other.example.test")
    done = host.swap(host.sites[0], other)
    assert f"nginx still serves {host.world.live('example')}" in done.message


def test_a_pair_older_than_the_live_one_needs_force(host: Host) -> None:
    old = host.issue(later=-48, days=80)
    assert host.swap(host.sites[0], old).reason == "downgrade"
    assert host.swap(host.sites[0], old, force=True).result is Result.ROTATED


def test_a_pair_that_this_nginx_does_not_take_is_rejected_with_its_words(host: Host) -> None:
    host.world.nginx.refused_candidates = ('SSL_CTX_use_PrivateKey("privkey.pem") failed',)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.REJECTED, "nginx-refused")
    assert done.nginx_words == ('SSL_CTX_use_PrivateKey("privkey.pem") failed',)
    assert host.world.nginx.hups == 0


def test_a_pair_that_completes_no_handshake_is_rejected(host: Host) -> None:
    host.world.rehearsal = "no shared cipher"
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.REJECTED, "handshake-failed")
    assert host.world.nginx.hups == 0


def test_a_rejected_pair_leaves_nothing_in_the_store(host: Host) -> None:
    before = sorted(p.name for p in (host.world.state / "sites/example/generations").iterdir())
    host.world.nginx.refused_candidates = ('cannot load certificate "fullchain.pem"',)
    host.swap(host.sites[0], host.issue())
    assert sorted(p.name for p in (host.world.state / "sites/example/generations").iterdir()) == before


def test_a_dry_run_says_what_would_happen_and_changes_nothing(host: Host) -> None:
    before = sorted(str(p) for p in host.root.rglob("*"))
    done = plan(host.wanted(host.sites[0], host.issue()), host.world.ports)
    assert (done.reason, "one HUP" in done.message) == ("would-rotate", True)
    assert sorted(str(p) for p in host.root.rglob("*")) == before


# -- deferred: the environment is at fault


def test_with_nginx_stopped_it_is_deferred_and_nothing_is_changed(host: Host) -> None:
    host.world.nginx.stop()
    live = host.world.live("example")
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-down")
    assert host.world.live("example") == live


def test_a_listener_dead_before_defers_without_a_reload(host: Host) -> None:
    host.world.nginx.dead.add(LISTENERS[1])
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "listener")
    assert LISTENERS[1] in done.message
    assert host.world.nginx.hups == 0


def test_a_dead_listener_has_no_veto_when_the_live_pair_is_close_to_its_end(host: Host) -> None:
    host.world.nginx.dead.add(LISTENERS[1])
    host.world.clock.sleep(timedelta(days=82).total_seconds())
    done = host.swap(host.sites[0], host.issue())
    assert done.result is Result.ROTATED
    assert [LISTENERS[1] in words for words in done.unproved] == [True]


def test_a_pair_is_as_close_to_its_end_as_the_intermediate_that_ends_first(host: Host) -> None:
    good, host.issuer = host.issuer, host.ca.intermediate("Short", not_after=host.world.clock.now() + timedelta(days=9))
    assert host.swap(host.sites[0], host.issue()).result is Result.ROTATED
    host.issuer = good
    host.world.nginx.dead.add(LISTENERS[1])
    host.world.clock.sleep(timedelta(days=8.5).total_seconds())
    assert host.swap(host.sites[0], host.issue()).result is Result.ROTATED


def test_with_every_listener_dead_even_a_critical_pair_is_deferred(host: Host) -> None:
    host.world.nginx.dead.update(LISTENERS)
    host.world.clock.sleep(timedelta(days=82).total_seconds())
    assert host.swap(host.sites[0], host.issue()).reason == "listener"


def test_a_binary_upgrade_in_flight_defers_without_a_reload(host: Host) -> None:
    host.world.nginx.upgrading = True
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-upgrade")
    assert host.world.nginx.hups == 0


def test_a_clock_before_the_last_entry_of_the_history_is_suspect(host: Host) -> None:
    new = host.issue()
    host.world.clock.sleep(-7200)
    assert host.swap(host.sites[0], new).reason == "clock-suspect"


def test_a_clock_before_the_live_pair_began_is_suspect(host: Host) -> None:
    (host.world.state / "history.jsonl").unlink()
    new = host.issue()
    host.world.clock.sleep(-7200)
    assert host.swap(host.sites[0], new).reason == "clock-suspect"


def test_a_full_disk_defers_with_its_name(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RotatorError(Reason.DISK_FULL, "/state: No space left on device")

    monkeypatch.setattr(host.world.store, "stage", full)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "disk-full")


def test_an_include_that_rotator_did_not_write_is_left_alone(host: Host) -> None:
    include = host.world.include_dir / "example.conf"
    include.write_text("ssl_certificate /etc/ssl/own.pem;\n")
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "include-foreign")
    assert include.read_text() == "ssl_certificate /etc/ssl/own.pem;\n"


def test_a_privileged_step_without_an_answer_strands_the_site_with_what_its_include_names_now(host: Host) -> None:
    real = host.world.apply

    def lost(generations: Mapping[str, str], *, hup: bool) -> Applied:
        real(generations, hup=False)
        raise RotatorError(Reason.APPLY_LOST, "the unit changed nginx's include, but gave no answer")

    ports, before = replace(host.world.ports, apply=lost), host.world.live("example")
    with host.world.locks.rotation("tester", 1.0) as lock:
        (done,) = rotate([host.wanted(host.sites[0], host.issue())], ports, lock)
    assert (done.result, done.reason) == (Result.STRANDED, "apply-lost")
    assert (done.live, done.previous) == (done.generation, before)
    assert done.live == host.world.live("example") != before


# -- refused by nginx


def test_a_refused_reload_goes_back_without_another_one(host: Host) -> None:
    live = host.world.live("example")
    host.world.nginx.refuses = ('unknown directive "bogus" in /etc/nginx/nginx.conf:7',)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
    assert host.world.nginx.hups == 1
    assert host.world.live("example") == live


def test_a_refused_reload_quotes_nginx(host: Host) -> None:
    host.world.nginx.refuses = ('unknown directive "bogus" in /etc/nginx/nginx.conf:7',)
    done = host.swap(host.sites[0], host.issue())
    assert 'unknown directive "bogus" in /etc/nginx/nginx.conf:7' in done.message


def _blame(host: Host, site: str) -> None:
    """nginx refuses whatever new generation of this site its include names, and names the file."""

    def look(generations: Mapping[str, str], hup: bool) -> None:
        if hup and site in generations and generations[site] != host.world.store.verified(site):
            path = f"{host.world.include_dir}/pairs/{site}/{generations[site]}/fullchain.pem"
            host.world.nginx.refuses = (f'cannot load certificate "{path}"',)
            host.world.nginx.refuses_if_named = generations[site]

    host.world.before_apply = look


def test_a_reload_refused_for_our_file_rejects_the_pair(host: Host) -> None:
    _blame(host, "example")
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.REJECTED, "nginx-refused")
    assert host.world.nginx.hups == 1


def test_in_a_batch_only_the_site_that_nginx_names_is_rejected(three: Host) -> None:
    _blame(three, "b")
    done = three.run(*(three.wanted(s, three.issue(s)) for s in three.sites))
    assert [o.result for o in done] == [Result.ROTATED, Result.REJECTED, Result.ROTATED]


def test_a_refusal_during_somebody_elses_reload_is_settled_by_a_reload_with_the_old_pair(host: Host) -> None:
    nginx = host.world.nginx
    nginx.refuses = ("unknown directive",)

    def look(generations: Mapping[str, str], hup: bool) -> None:
        if not hup:  # our way back: a foreign reload has just read the new include and replaced the workers
            nginx.refuses = ()
            nginx.reload()
            host.world.clock.sleep(0.2)

    host.world.before_apply = look
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
    assert host.nginx_shows["example"] == host.first["example"].chain_der


# -- rolled back, stranded


def test_a_listener_that_keeps_the_old_pair_rolls_it_all_back(host: Host) -> None:
    host.world.nginx.wire_wrongly(LISTENERS[1])
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason, done.proof) == (Result.ROLLED_BACK, "not-proved", "workers")
    assert LISTENERS[1] in done.message
    assert host.nginx_shows["example"] == host.first["example"].chain_der


def test_after_a_rollback_the_old_generation_is_live_and_verified(host: Host) -> None:
    live = host.world.live("example")
    host.world.nginx.wire_wrongly(LISTENERS[1])
    host.swap(host.sites[0], host.issue())
    assert host.world.live("example") == host.world.store.verified("example") == live


def test_an_ignored_reload_is_never_called_proved(host: Host) -> None:
    host.world.nginx.ignores_reload = True
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-silent")
    assert host.world.live("example") == host.world.store.verified("example") == done.previous
    assert host.world.nginx.hups == 1, "a master that does not answer is told once"


def test_an_ignored_reload_speaks_against_no_pair_of_a_batch(tmp_path: Path) -> None:
    sites = (make_site("a"), make_site("b"))
    host = Host(tmp_path, sites)
    host.world.nginx.ignores_reload = True
    done = host.run(*(host.wanted(s, host.issue(s)) for s in sites))
    assert [(o.result, o.reason) for o in done] == [(Result.DEFERRED, "nginx-silent")] * 2
    host.world.nginx.ignores_reload = False
    done = host.run(*(host.wanted(s, host.issue(s)) for s in sites))
    assert [o.result for o in done] == [Result.ROTATED] * 2


def test_a_slow_nginx_is_waited_for(host: Host) -> None:
    host.world.nginx.serves_old_for = 3.0
    assert host.swap(host.sites[0], host.issue()).result is Result.ROTATED


def test_the_wait_is_bounded_by_the_configured_time(tmp_path: Path) -> None:
    host = Host(tmp_path, prove_within=2.0)
    host.world.nginx.serves_old_for = 3.0
    began = host.world.clock.time
    assert host.swap(host.sites[0], host.issue()).result is Result.ROLLED_BACK
    assert host.world.clock.time - began < 8.0


def test_one_badly_wired_site_of_a_batch_does_not_hold_up_the_others(tmp_path: Path) -> None:
    sites = (make_site("a"), make_site("b", listeners=("127.0.0.1:8883",)), make_site("c"))
    host = Host(tmp_path, sites)
    host.world.nginx.wire_wrongly("127.0.0.1:8883")
    done = host.run(*(host.wanted(s, host.issue(s)) for s in sites))
    assert [o.result for o in done] == [Result.ROTATED, Result.ROLLED_BACK, Result.ROTATED]


def test_nothing_goes_back_to_a_pair_that_is_not_fit_any_more(host: Host) -> None:
    host.world.clock.sleep(timedelta(days=91).total_seconds())
    host.world.nginx.wire_wrongly(LISTENERS[1])
    new = host.issue()
    done = host.swap(host.sites[0], new)
    assert (done.result, done.reason) == (Result.ROTATED, "unproved")
    assert [LISTENERS[1] in words for words in done.unproved] == [True]
    assert host.nginx_shows["example"] == new.chain_der


def test_when_neither_pair_can_be_proved_it_is_stranded(host: Host) -> None:
    def look(generations: Mapping[str, str], hup: bool) -> None:
        if hup:
            host.world.nginx.dead.update(LISTENERS)

    host.world.before_apply = look
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.STRANDED, "rollback-failed")


def test_nginx_that_ends_before_it_is_told_is_deferred_with_the_old_pair_named(host: Host) -> None:
    live = host.world.live("example")
    host.world.before_apply = lambda generations, hup: host.world.nginx.stop()
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-down")
    assert host.world.live("example") == live


# -- what a lazy proof would get wrong


def test_a_new_worker_that_answers_first_proves_nothing_while_old_ones_accept(host: Host) -> None:
    host.world.nginx.overlap = 2.0  # for two seconds both serve, and each handshake meets a new worker
    done = host.swap(host.sites[0], host.issue())
    assert done.stages["prove"] >= 2.0


def test_workers_that_change_during_the_handshakes_make_them_worthless(host: Host) -> None:
    nginx = host.world.nginx
    nginx.newest_answers = False
    stale = nginx.snapshot()

    def foreign() -> None:
        nginx.reload(stale)  # somebody's reload that had read the old include before we changed it
        nginx.overlap = 0.1

    def look(generations: Mapping[str, str], hup: bool) -> None:
        nginx.during_handshakes = foreign
        host.world.before_apply = lambda generations, hup: None

    host.world.before_apply = look
    new = host.issue()
    done = host.swap(host.sites[0], new)
    host.world.clock.sleep(1.0)
    shown = host.nginx_shows["example"]
    assert (done.result, shown) != (Result.ROTATED, host.first["example"].chain_der)


def test_the_right_leaf_with_another_chain_is_not_served(host: Host) -> None:
    new = host.issue()
    real = host.world.nginx.probe
    asked = {"n": 0}

    def leaf_only(targets: Sequence[Target], within: float) -> tuple[Served, ...]:
        asked["n"] += 1
        served = real(targets, within)
        if asked["n"] == 1 or host.world.live("example") == host.world.store.verified("example"):
            return served
        return tuple(type(s)(s.target, s.chain[:1]) for s in served)

    host.world.nginx.probe = leaf_only  # type: ignore[method-assign]
    done = host.swap(host.sites[0], new)
    assert done.result is Result.ROLLED_BACK
    assert "right leaf with another chain" in done.message


def test_where_the_workers_cannot_be_seen_the_proof_is_weaker_and_says_so(host: Host) -> None:
    host.world.nginx.invisible = True
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.proof) == (Result.ROTATED, "handshake-only")
    assert done.stages["prove"] >= 1.0


def test_after_the_weaker_proof_no_old_worker_accepts_either(host: Host) -> None:
    host.world.nginx.invisible = True
    before = {w.pid for w in host.world.nginx.workers_}
    host.swap(host.sites[0], host.issue())
    assert not {w.pid for w in host.world.nginx.workers_ if w.active} & before


# -- the first time


def test_without_first_a_site_that_was_never_live_is_deferred_with_the_command(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "not-wired")
    assert "--first" in done.hint


def test_the_first_pair_is_stored_and_named_and_the_line_for_nginx_is_told(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    done = host.swap(host.sites[0], host.issue(), first=True)
    assert (done.result, done.reason) == (Result.DEFERRED, "not-wired")
    assert f"include {host.world.include_dir}/example.conf;" in done.hint
    assert host.world.live("example") == done.generation


def test_the_first_pair_is_written_without_a_reload(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    host.world.nginx.start()
    host.swap(host.sites[0], host.issue(), first=True)
    assert host.world.nginx.hups == 0


def test_the_first_pair_said_again_is_no_proof_that_nginx_reads_the_include(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    first = host.issue()
    host.swap(host.sites[0], first, first=True)
    host.world.nginx.start()  # it shows this very pair, as one with files of its own would
    again = host.swap(host.sites[0], first, first=True)
    assert (again.result, again.reason, host.world.store.verified("example")) == (Result.DEFERRED, "not-wired", "")
    done = host.swap(host.sites[0], first)
    assert (done.reason, "nginx -T | grep" in done.hint) == ("proved", True)


def test_once_nginx_is_wired_the_first_pair_is_proved(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    host.swap(host.sites[0], host.issue(), first=True)
    host.world.nginx.start()
    done = host.run(RotationRequest(host.sites[0], host.anchors))[0]
    assert (done.result, done.reason) == (Result.ROTATED, "proved")


def test_a_named_pair_that_nginx_has_not_read_yet_gets_one_reload(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    host.world.nginx.start()
    host.swap(host.sites[0], host.issue(), first=True)
    done = host.run(RotationRequest(host.sites[0], host.anchors))[0]
    assert (done.result, host.world.nginx.hups) == (Result.ROTATED, 1)


# -- rollback by hand


def test_a_stored_generation_can_be_put_back(host: Host) -> None:
    first = host.world.live("example")
    host.swap(host.sites[0], host.issue())
    done = host.run(RotationRequest(host.sites[0], host.anchors, generation=first))[0]
    assert (done.result, done.live) == (Result.ROTATED, first)
    assert host.nginx_shows["example"] == host.first["example"].chain_der


def test_a_rollback_skips_the_comparison_with_live_and_nothing_else(host: Host) -> None:
    first = host.world.live("example")
    host.swap(host.sites[0], host.issue(later=12))
    host.world.clock.sleep(timedelta(days=91).total_seconds())
    done = host.run(RotationRequest(host.sites[0], host.anchors, generation=first))[0]
    assert (done.result, done.reason) == (Result.REJECTED, "expired")


# -- crashes: the same command again


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(8))
def test_killed_at_any_step_the_same_command_ends_proved(tmp_path: Path, step: int) -> None:
    host = Host(tmp_path)
    new = host.issue()
    site = host.sites[0]
    world, left = host.world, [step]

    def die_now() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise _Killed

    real_mark, real_record, real_hup, real_probe = (
        world.store.mark_verified, world.history.record, world.nginx.hup, world.nginx.probe,
    )  # fmt: skip

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            die_now()
            result = real(*args, **kwargs)
            die_now()
            return result

        return call

    world.nginx.hup = around(real_hup)  # type: ignore[method-assign]
    world.store.mark_verified = around(real_mark)  # type: ignore[method-assign]
    world.history.record = around(real_record)  # type: ignore[method-assign]
    world.nginx.probe = around(real_probe)  # type: ignore[method-assign]
    try:
        host.swap(site, new)
    except _Killed:
        pass
    finally:
        world.nginx.hup, world.nginx.probe = real_hup, real_probe  # type: ignore[method-assign]
        world.store.mark_verified, world.history.record = real_mark, real_record  # type: ignore[method-assign]
    done = host.swap(site, new)
    assert done.result in (Result.ROTATED, Result.UNCHANGED)
    world.clock.sleep(1.0)
    assert host.nginx_shows["example"] == new.chain_der
    assert world.store.verified("example") == world.live("example") == done.live


def test_a_rotation_needs_a_lock_that_it_can_write_its_sites_into(host: Host) -> None:
    seen = []

    def look(generations: Mapping[str, str], hup: bool) -> None:
        seen.append((host.world.state / "lock.json").read_text())

    host.world.before_apply = look
    host.swap(host.sites[0], host.issue())
    assert '"in_flight": ["example"]' in seen[0]
    assert not (host.world.state / "lock.json").exists()


def test_a_batch_with_one_unfit_pair_rotates_the_rest(three: Host) -> None:
    bad = three.issuer.issue("other.example.test")
    batch = [three.wanted(three.sites[0], three.issue(three.sites[0])), three.wanted(three.sites[1], bad)]
    done = three.run(*batch)
    assert [o.result for o in done] == [Result.ROTATED, Result.REJECTED]


def test_no_outcome_shows_a_byte_of_a_key(host: Host) -> None:
    new = host.issue()
    done = host.swap(host.sites[0], new)
    body = new.key_pem.splitlines()[1].decode()
    everything = repr(done) + repr(candidate_of(new)) + (host.world.state / "history.jsonl").read_text()
    assert body not in everything


def test_the_outcomes_come_in_the_order_asked(three: Host) -> None:
    batch = [three.wanted(s, three.issue(s)) for s in reversed(three.sites)]
    assert [o.site for o in three.run(*batch)] == ["c", "b", "a"]


def test_an_empty_batch_does_nothing(host: Host) -> None:
    with host.world.locks.rotation("tester", 1.0) as lock:
        assert rotate([], host.world.ports, lock) == ()
    assert host.world.nginx.hups == 0


# -- what goes wrong in the middle


def _fails(code: Reason | Code = Reason.DISK_FULL, times: int = 1_000) -> Callable[..., None]:
    left = [times]

    def fail(*_: object, **__: object) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise RotatorError(code, "/state: No space left on device", "Free some space")

    return fail


def test_a_disk_that_is_full_after_the_proof_does_not_make_the_proof_untrue(
    three: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(three.world.store, "mark_verified", _fails())
    done = three.run(*(three.wanted(s, three.issue(s)) for s in three.sites))
    assert [o.result for o in done] == [Result.ROTATED] * 3
    assert ["No space left" in o.message for o in done] == [True] * 3


def test_what_was_proved_but_not_noted_as_verified_is_proved_again_by_the_next_command(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(host.world.store, "mark_verified", _fails())
        done = host.swap(host.sites[0], host.issue())
    host.run(RotationRequest(host.sites[0], host.anchors))
    assert host.world.store.verified("example") == done.generation


@pytest.mark.parametrize("call", [1, 2], ids=["before", "after"])
def test_a_lock_that_cannot_be_written_into_hides_no_outcome(
    host: Host, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    real, calls = Lock._write, [0]

    def write(lock: Lock) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise RotatorError(Reason.DISK_FULL, "/state/lock: No space left on device")
        real(lock)

    with host.world.locks.rotation("tester", 1.0) as lock:
        monkeypatch.setattr(Lock, "_write", write)
        (done,) = rotate([host.wanted(host.sites[0], host.issue())], host.world.ports, lock)
    assert (done.result, done.reason, host.world.nginx.hups) == (
        (Result.DEFERRED, "disk-full", 0) if call == 1 else (Result.ROTATED, "rotated", 1)
    )


def test_an_include_whose_durability_is_uncertain_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real = host.world.apply

    def unsure(generations: Mapping[str, str], *, hup: bool) -> Applied:
        return replace(real(generations, hup=hup), uncertain=True)

    monkeypatch.setattr(host.world, "apply", unsure)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, "may not survive a power cut" in done.message) == (Result.ROTATED, True)


def test_what_is_stranded_is_recovered_by_the_same_command(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way back fails as the include cannot be written; once it can, the verified pair has to come back."""
    real, first = host.world.apply, host.world.live("example")
    host.world.nginx.wire_wrongly(LISTENERS[1])

    def no_way_back(generations: Mapping[str, str], *, hup: bool) -> Applied:
        if generations["example"] == first:
            return Applied({"example": host.world.live("example")}, {}, "disk-full", "the disk is full")
        return real(generations, hup=hup)

    new = host.issue()
    with monkeypatch.context() as full:
        full.setattr(host.world, "apply", no_way_back)
        done = host.swap(host.sites[0], new)
    assert (done.result, host.world.live("example") == first) == (Result.STRANDED, False)
    host.swap(host.sites[0], new)
    assert host.world.live("example") == first
    assert host.nginx_shows["example"] == host.first["example"].chain_der


def test_nginx_that_started_again_meanwhile_with_the_new_pair_gets_the_old_one_with_the_next_command(
    host: Host,
) -> None:
    nginx = host.world.nginx

    def restart(_: Setup) -> tuple[int, str, tuple[str, ...]]:
        nginx.start()  # it reads the new include …
        return 0, "gone", ()  # … and the master that was to be told is gone

    real, nginx.hup = nginx.hup, restart  # type: ignore[method-assign]
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-down")
    nginx.hup = real  # type: ignore[method-assign]
    new = host.issue()
    assert host.swap(host.sites[0], new).result is Result.ROTATED
    assert host.nginx_shows["example"] == new.chain_der


def test_a_worker_that_dies_during_a_refused_reload_strands_nobody(host: Host) -> None:
    host.world.nginx.refuses = ("unknown directive",)

    def look(generations: Mapping[str, str], hup: bool) -> None:
        if not hup:
            host.world.nginx.respawn()

    host.world.before_apply = look
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")


def test_a_listener_that_dies_strands_only_its_own_site(tmp_path: Path) -> None:
    sites = (make_site("a"), make_site("b", listeners=("127.0.0.1:8883",)), make_site("c"))
    host = Host(tmp_path, sites)

    def look(generations: Mapping[str, str], hup: bool) -> None:
        host.world.nginx.dead.add("127.0.0.1:8883")

    host.world.before_apply = look
    done = host.run(*(host.wanted(s, host.issue(s)) for s in sites))
    assert [o.result for o in done] == [Result.ROTATED, Result.STRANDED, Result.ROTATED]


def test_an_expired_pair_never_goes_back_because_nginx_does_not_react(host: Host) -> None:
    host.world.clock.sleep(timedelta(days=91).total_seconds())
    host.world.nginx.ignores_reload = True
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.live) == (Result.STRANDED, done.generation)
    assert "no longer valid" in done.message


def test_a_pair_that_stays_without_a_proof_never_looks_proved(host: Host) -> None:
    """Every handshake is right, but nginx's workers die and come again without an end."""
    host.world.clock.sleep(timedelta(days=91).total_seconds())
    real = host.world.nginx.probe

    def dying(targets: Sequence[Target], within: float) -> tuple[Served, ...]:
        host.world.nginx.respawn()
        return real(targets, within)

    host.world.nginx.probe = dying  # type: ignore[method-assign]
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason, bool(done.unproved)) == (Result.ROTATED, "unproved", True)


# -- the first time, by mistake


def test_first_said_of_a_site_that_is_proved_already_reloads_as_ever(host: Host) -> None:
    new = host.issue()
    done = host.swap(host.sites[0], new, first=True)
    assert (done.result, host.nginx_shows["example"]) == (Result.ROTATED, new.chain_der)


def test_a_renewal_of_a_site_that_nobody_wired_yet_waits_and_is_not_stranded(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    host.swap(host.sites[0], host.issue(), first=True)
    host.world.nginx.start()
    for listener in LISTENERS:
        host.world.nginx.stuck.add(listener)
        host.world.nginx._stuck_at[listener] = {"elsewhere": {}}
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason, done.live) == (Result.DEFERRED, "not-wired", done.generation)


def test_a_first_pair_that_is_wired_but_not_proved_yet_is_gone_back_to(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    first = host.issue()
    host.swap(host.sites[0], first, first=True)
    host.world.nginx.start()
    host.world.nginx.wire_wrongly(LISTENERS[1])
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, host.nginx_shows["example"]) == (Result.ROLLED_BACK, first.chain_der)


def test_a_reload_refused_for_a_pair_that_was_never_proved_leaves_the_one_before_named(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    first = host.swap(host.sites[0], host.issue(), first=True).generation
    host.world.nginx.start()
    host.world.nginx.dead.add(LISTENERS[1])
    _blame(host, "example")
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason, done.live) == (Result.REJECTED, "nginx-refused", first)


def test_a_first_pair_with_nginx_ending_before_it_is_told_waits_for_nginx(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    host.swap(host.sites[0], host.issue(), first=True)
    host.world.nginx.start()
    host.world.nginx.dead.update(LISTENERS)
    host.world.before_apply = lambda generations, hup: host.world.nginx.stop()
    assert host.run(RotationRequest(host.sites[0], host.anchors))[0].reason == "nginx-down"


# -- an environment's fault condemns no pair


@pytest.mark.parametrize("words", [(), ("socket() failed (24: Too many open files)",)])
def test_a_test_that_fails_without_naming_the_pair_defers_it(host: Host, words: tuple[str, ...]) -> None:
    host.world.nginx.refused_candidates = words or ("",)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-test")


def test_a_pair_that_is_not_valid_yet_is_deferred(host: Host) -> None:
    done = host.swap(host.sites[0], host.issue(later=25))
    assert (done.result, done.reason) == (Result.DEFERRED, "not-yet-valid")


def test_a_clock_that_stays_wrong_stays_suspect(host: Host) -> None:
    host.swap(host.sites[0], host.issue(later=-240), force=True)
    new = host.issue()
    host.world.clock.sleep(-timedelta(days=5).total_seconds())
    assert [host.swap(host.sites[0], new).reason for _ in range(2)] == ["clock-suspect"] * 2


def test_a_clock_that_was_ahead_once_can_be_believed_again_by_force(host: Host) -> None:
    host.world.clock.sleep(timedelta(days=30).total_seconds())
    host.swap(host.sites[0], host.first["example"])
    host.world.clock.sleep(-timedelta(days=30).total_seconds())
    new = host.issue()
    assert "--force" in host.swap(host.sites[0], new).hint
    assert host.swap(host.sites[0], host.first["example"], force=True).result is Result.UNCHANGED
    assert host.swap(host.sites[0], new).result is Result.ROTATED


# -- what the store has lost


def test_a_live_generation_that_the_store_has_lost_can_be_replaced(host: Host) -> None:
    shutil.rmtree(host.world.state / "sites")
    new = host.issue()
    assert "--first" in host.swap(host.sites[0], new).hint
    assert host.swap(host.sites[0], new, first=True).reason == "not-wired"
    assert host.swap(host.sites[0], new).result is Result.ROTATED
    assert host.nginx_shows["example"] == new.chain_der


# -- the way back to what is served


def test_a_rollback_to_the_pair_that_is_served_anyway_is_not_held_up(host: Host) -> None:
    first = host.world.live("example")
    new = host.swap(host.sites[0], host.issue()).generation
    host.run(RotationRequest(host.sites[0], host.anchors, generation=first))
    host.world.apply({"example": new}, hup=False)
    done = host.run(RotationRequest(host.sites[0], host.anchors, generation=first))[0]
    assert (done.result, done.unproved, done.live) == (Result.ROTATED, (), first)
