"""The proof, and that it is one: each rule is taken away in turn, and the case that it is there for fools the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.core.model import KeyType, Outcome, Policy, Result, Served, Site, Target, Workers
from rotator.rotation import proof, rotate
from rotator.rotation.ports import Ports
from rotator.rotation.proof import Expected, Proof, deadline, differs, expectation
from tests.support.authority import CA
from tests.support.hosts import LISTENERS, Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def _swap_is_true(host: Host, done: Outcome) -> bool:
    """Whether what the outcome says is so: after `rotated`, no worker that accepts connections has the old pair."""
    new = host.world.store.load("example", done.generation).chains[KeyType.ECDSA]
    shown = [w.loaded["example"][KeyType.ECDSA] for w in host.world.nginx.workers_ if w.active]
    return done.result is not Result.ROTATED or all(chain == new for chain in shown)


# -- each scenario is told right by the whole rule …


def test_while_old_and_new_workers_both_accept_nothing_is_proved(host: Host) -> None:
    assert _swap_is_true(host, host.swap(host.sites[0], host.issue()))


def _foreign_reload_during_the_handshakes(host: Host) -> Outcome:
    """Somebody's reload, which had read the old include before we changed it, lands between two handshakes."""
    nginx = host.world.nginx
    stale = nginx.snapshot()

    def foreign() -> None:
        nginx.reload(stale)

    def look(generations: Mapping[str, str], hup: bool) -> None:
        host.world.clock.at(0.2, lambda: None)
        nginx.during_handshakes = foreign

    nginx.newest_answers = False
    host.world.before_apply = look
    return host.swap(host.sites[0], host.issue())


def test_workers_that_appear_during_the_handshakes_are_not_overlooked(host: Host) -> None:
    assert _swap_is_true(host, _foreign_reload_during_the_handshakes(host))


def _two_foreign_reloads(host: Host) -> Outcome:
    """Two deploy hooks reload nginx while we begin: as many workers as we saw before are then of two generations."""
    nginx, clock = host.world.nginx, host.world.clock

    def look(generations: Mapping[str, str], hup: bool) -> None:
        host.world.before_apply = lambda generations, hup: None
        nginx.reload(nginx.snapshot())  # the second, which reads the old include while the first is settling
        clock.sleep(nginx.overlap)

    nginx.reload()  # the first
    host.world.before_apply = look
    return host.swap(host.sites[0], host.issue())


def test_as_many_workers_as_before_are_not_one_set_if_they_are_of_two_reloads(host: Host) -> None:
    assert _swap_is_true(host, _two_foreign_reloads(host))


def test_two_generations_of_workers_are_not_one_set_because_a_slow_master_leaves_them_so_for_long(host: Host) -> None:
    nginx = host.world.nginx

    def look(generations: Mapping[str, str], hup: bool) -> None:
        host.world.before_apply = lambda generations, hup: None
        nginx.reload(nginx.snapshot())
        host.world.clock.sleep(nginx.overlap)
        nginx.overlap = 0.5

    host.world.before_apply = look
    assert _swap_is_true(host, host.swap(host.sites[0], host.issue()))


def test_a_worker_that_was_started_again_later_does_not_hinder_the_proof_of_what_is_live(host: Host) -> None:
    host.world.clock.sleep(60)
    host.world.nginx.respawn()
    assert host.swap(host.sites[0], host.first["example"]).reason == "same"


def _leaf_without_its_intermediate(host: Host) -> Outcome:
    """A listener whose block names another file with the same new leaf, alone."""
    real = host.world.nginx.probe

    def leaf_only(targets: Sequence[Target], within: float) -> tuple[Served, ...]:
        served = real(targets, within)
        live, verified = host.world.live("example"), host.world.store.verified("example")
        return tuple(Served(s.target, s.chain[:1]) if live != verified else s for s in served)

    host.world.nginx.probe = leaf_only  # type: ignore[method-assign]
    return host.swap(host.sites[0], host.issue())


def test_the_right_leaf_with_a_short_chain_is_not_the_stored_chain(host: Host) -> None:
    assert _leaf_without_its_intermediate(host).result is Result.ROLLED_BACK


def _refused(host: Host) -> int:
    host.world.nginx.refuses = ('unknown directive "bogus"',)
    host.swap(host.sites[0], host.issue())
    return host.world.nginx.hups


def test_after_a_refusal_the_way_back_sends_no_signal(host: Host) -> None:
    assert _refused(host) == 1


# -- … and told wrong without the rule that it is there for


def test_negative_control_without_the_worker_check_the_overlap_fools_the_proof(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "_unsettled", lambda look, old, same_for: "")
    assert not _swap_is_true(host, host.swap(host.sites[0], host.issue()))


def test_negative_control_without_the_look_at_their_starts_as_many_workers_as_before_fool_the_proof(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "APART", 1_000_000)
    assert not _swap_is_true(host, _two_foreign_reloads(host))


def test_negative_control_without_the_second_look_a_foreign_reload_fools_the_proof(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = host.world.nginx.workers
    answers: list[Workers | None] = []

    def first_look_only(expected: Expected, ports: Ports, kind: str) -> Proof:
        before = real()
        found = handshakes(expected, ports, kind)
        answers.append(before)  # what the second look would have to show for the set to be the same
        return found

    handshakes = proof._handshakes
    monkeypatch.setattr(proof, "_handshakes", first_look_only)
    monkeypatch.setattr(host.world.nginx, "workers", lambda: answers.pop() if answers else real())
    assert not _swap_is_true(host, _foreign_reload_during_the_handshakes(host))


def test_negative_control_without_the_byte_comparison_a_short_chain_passes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_leaf(expected: Expected, ports: Ports, kind: str) -> Proof:
        served = ports.probe(tuple(expected), 2.0)
        return Proof(all(s.chain[:1] == expected[s.target][:1] for s in served), kind, (), frozenset(expected))

    monkeypatch.setattr(proof, "_handshakes", by_leaf)
    assert _leaf_without_its_intermediate(host).result is Result.ROTATED


def test_negative_control_without_the_way_back_without_a_signal_nginx_is_told_twice(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotate, "unchanged", lambda expected, before, ports: Proof(ok=False))
    assert _refused(host) == 2


# -- its parts


def test_every_listener_name_and_kind_of_key_is_expected() -> None:
    site = Site("s", ("a.test", "b.test"), LISTENERS, Policy())
    expected = expectation(site, {KeyType.ECDSA: (b"e",), KeyType.RSA: (b"r",)})
    assert len(expected) == 2 * 2 * 2


def test_a_site_with_one_kind_of_key_is_asked_for_whatever_is_served() -> None:
    site = Site("s", ("a.test",), LISTENERS[:1], Policy())
    assert list(expectation(site, {KeyType.RSA: (b"r",)})) == [Target("s", LISTENERS[0], "a.test", None)]


def test_a_wildcard_is_proved_with_its_concrete_name() -> None:
    site = replace(Site("s", ("*.a.test",), LISTENERS[:1], Policy()), probe_names=("x.a.test",))
    assert [t.name for t in expectation(site, {KeyType.RSA: (b"r",)})] == ["x.a.test"]


@pytest.mark.parametrize(
    ("configured", "last", "seconds"), [(None, 0.0, 7.5), (None, 0.11, 7.5), (None, 10.0, 32.5), (3.0, 10.0, 3.0)]
)
def test_the_deadline_scales_with_the_last_reload(configured: float | None, last: float, seconds: float) -> None:
    assert deadline(configured, last) == seconds


def test_a_failed_handshake_is_told_in_its_own_words() -> None:
    assert differs(Served(Target("s", "l", "n"), failure="connection refused"), (b"x",)) == "connection refused"


def test_another_leaf_is_told_as_another_certificate() -> None:
    assert differs(Served(Target("s", "l", "n"), (b"y",)), (b"x",)) == "shows another certificate"


def test_a_foreign_ca_s_leaf_is_never_taken_for_ours(host: Host) -> None:
    other = CA.root("Elsewhere").intermediate().issue(host.sites[0].names[0])
    host.world.nginx.wire_wrongly(LISTENERS[0])
    host.world.nginx._stuck_at[LISTENERS[0]] = {"example": {KeyType.ECDSA: other.chain_der}}
    assert host.swap(host.sites[0], host.issue()).reason == "listener"
