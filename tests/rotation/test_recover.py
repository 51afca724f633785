"""Recovery through every state that a crash, a power cut or a stopped nginx can leave behind; nginx is simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import Result
from rotator.core.reasons import Reason
from rotator.nginx.pair_trial import NginxVerdict
from rotator.storage.locks import Lock
from tests.support.hosts import LISTENERS, Host, make_site


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def _name(host: Host, generation: str, *, hup: bool = False) -> None:
    host.world.apply({"example": generation}, hup=hup)


def _stored(host: Host) -> str:
    """A second generation that is stored, but neither named nor verified."""
    done = host.swap(host.sites[0], host.issue())
    host.world.store.mark_verified("example", done.previous)
    _name(host, done.previous, hup=True)
    host.world.clock.sleep(1.0)
    host.world.nginx.hups = 0
    return done.generation


def test_a_site_that_is_well_costs_nothing(host: Host) -> None:
    before = host.world.history.entries("example")
    (done,) = host.recover()
    assert (done.result, done.reason) == (Result.UNCHANGED, "verified")
    assert (host.world.nginx.hups, host.world.history.entries("example")) == (0, before)


def test_a_pair_that_is_served_but_was_not_verified_is_verified_without_a_reload(host: Host) -> None:
    new = _stored(host)
    _name(host, new, hup=True)
    host.world.clock.sleep(1.0)
    host.world.nginx.hups = 0
    (done,) = host.recover()
    assert (done.result, host.world.nginx.hups) == (Result.ROTATED, 0)
    assert host.world.store.verified("example") == new


def test_a_pair_that_is_named_but_not_served_gets_one_reload(host: Host) -> None:
    new = _stored(host)
    _name(host, new)
    (done,) = host.recover()
    assert (done.result, host.world.nginx.hups) == (Result.ROTATED, 1)
    assert host.world.store.verified("example") == new


def test_a_pair_that_no_reload_makes_served_goes_back_to_the_verified_one(host: Host) -> None:
    new, old = _stored(host), host.world.live("example")
    host.world.nginx.wire_wrongly(LISTENERS[1])
    _name(host, new)
    (done,) = host.recover()
    assert (done.result, host.world.live("example")) == (Result.ROLLED_BACK, old)


def test_a_pair_that_nginx_refuses_goes_back_to_the_verified_one(host: Host) -> None:
    new, old = _stored(host), host.world.live("example")
    host.world.nginx.refuses, host.world.nginx.refuses_if_named = ("cannot load certificate",), new
    _name(host, new)
    (done,) = host.recover()
    assert (done.result, host.world.live("example")) == (Result.ROLLED_BACK, old)


def test_when_not_even_the_verified_one_is_served_it_is_stranded(host: Host) -> None:
    new = _stored(host)
    _name(host, new)
    host.world.nginx.dead.update(LISTENERS)
    (done,) = host.recover()
    assert done.result is Result.STRANDED


def test_with_nginx_down_what_is_live_stays_if_its_test_passes(host: Host) -> None:
    new = _stored(host)
    _name(host, new)
    host.world.nginx.stop()
    (done,) = host.recover()
    assert (done.result, done.reason, host.world.live("example")) == (Result.DEFERRED, "nginx-down", new)


def test_with_nginx_down_what_its_test_refuses_by_name_goes_back(host: Host) -> None:
    new, old = _stored(host), host.world.live("example")
    _name(host, new)
    host.world.nginx.stop()
    path = f"{host.world.include_dir}/pairs/example/{new}/fullchain.pem"
    host.world.nginx.full_test_words = (f'cannot load certificate "{path}"',)
    (done,) = host.recover()
    assert (done.reason, host.world.live("example")) == ("nginx-down", old)


def test_with_nginx_down_for_an_unrelated_fault_what_is_live_stays(host: Host) -> None:
    new = _stored(host)
    _name(host, new)
    host.world.nginx.stop()
    host.world.nginx.full_test_words = ('unknown directive "bogus"',)
    host.recover()
    assert host.world.live("example") == new


def test_with_nginx_down_a_test_that_cannot_be_run_is_tried_once_and_changes_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, tuple(make_site(f"s{number:02d}") for number in range(5)))
    host.world.nginx.stop()
    live = [host.world.live(site.name) for site in host.sites]

    def full_test() -> NginxVerdict:
        host.world.nginx.full_tests += 1
        raise RotatorError(Reason.APPLY_UNIT, "root's program gave no answer in time")

    host.world.nginx.full_tests = 0
    host.world.nginx.full_test = full_test  # type: ignore[method-assign]  # as where the unit does not answer
    assert {done.reason for done in host.recover()} == {"nginx-down"}
    assert (host.world.nginx.full_tests, [host.world.live(site.name) for site in host.sites]) == (1, live)


def test_a_hundred_sites_that_are_well_are_proved_in_the_time_of_one(tmp_path: Path) -> None:
    host = Host(tmp_path, tuple(make_site(f"s{number:02d}") for number in range(100)))
    begun = host.world.clock.monotonic()
    assert {done.reason for done in host.recover()} == {"verified"}
    assert host.world.clock.monotonic() - begun < 1.0


def test_one_site_that_is_not_served_does_not_keep_the_others_from_being_proved_together(tmp_path: Path) -> None:
    host = Host(tmp_path, tuple(make_site(f"s{number:02d}") for number in range(20)))
    done = host.swap(host.sites[7], host.issue(host.sites[7]))
    host.world.apply({"s07": done.previous}, hup=False)
    host.world.nginx.hups, begun = 0, host.world.clock.monotonic()
    outcomes = {done.site: (done.result, done.reason) for done in host.recover()}
    assert outcomes.pop("s07") == (Result.ROTATED, "recovered")
    assert (set(outcomes.values()), host.world.nginx.hups) == ({(Result.UNCHANGED, "verified")}, 1)
    assert host.world.clock.monotonic() - begun < 3.0


def test_a_listener_that_is_dead_costs_one_reload_for_all_sites_that_it_keeps_from_being_proved(tmp_path: Path) -> None:
    host = Host(tmp_path, tuple(make_site(f"s{number:02d}") for number in range(20)))
    host.world.nginx.dead.add(LISTENERS[1])
    begun = host.world.clock.monotonic()
    outcomes = host.recover()
    assert {done.result for done in outcomes} == {Result.STRANDED}
    assert all("connection refused" in done.message for done in outcomes)
    assert host.world.nginx.hups == 1
    assert host.world.clock.monotonic() - begun < 20.0


def test_a_site_whose_include_was_missing_gets_a_reload_although_there_was_one(tmp_path: Path) -> None:
    host = Host(tmp_path, (make_site("a"), make_site("b")))
    done = host.swap(host.sites[0], host.issue(host.sites[0]))
    host.world.apply({"a": done.previous}, hup=False)
    (host.world.include_dir / "b.conf").unlink()
    host.world.nginx.hups = 0
    assert [done.result for done in host.recover()] == [Result.ROTATED, Result.ROTATED]
    assert host.world.nginx.hups == 2


def test_with_nginx_down_its_whole_configuration_is_tested_once_for_all_sites(tmp_path: Path) -> None:
    host = Host(tmp_path, tuple(make_site(f"s{number:02d}") for number in range(20)))
    host.world.nginx.stop()
    host.world.nginx.full_tests = 0
    assert {done.reason for done in host.recover()} == {"nginx-down"}
    assert host.world.nginx.full_tests == 1


def test_with_nginx_down_each_pair_that_its_test_refuses_by_name_goes_back(tmp_path: Path) -> None:
    host = Host(tmp_path, (make_site("a"), make_site("b")))
    bad = {}
    for site in host.sites:
        done = host.swap(site, host.issue(site))
        host.world.store.mark_verified(site.name, done.previous)
        bad[site.name] = done.generation
    host.world.nginx.stop()
    host.world.nginx.full_test_refuses = tuple(f"{host.world.include_dir}/pairs/{s}/{n}" for s, n in bad.items())
    host.recover()
    assert {site: host.world.live(site) for site in bad} == {site: host.world.store.verified(site) for site in bad}


def test_once_nginx_is_back_what_was_deferred_is_proved(host: Host) -> None:
    new = _stored(host)
    _name(host, new)
    host.world.nginx.stop()
    host.recover()
    host.world.nginx.start()
    (done,) = host.recover()
    assert (done.result, host.world.store.verified("example")) == (Result.ROTATED, new)


def test_a_site_that_was_never_verified_and_is_not_served_waits_without_a_reload(tmp_path: Path) -> None:
    host = Host(tmp_path, bare=True)
    host.swap(host.sites[0], host.issue(), first=True)
    host.world.nginx.sites = ()
    host.world.nginx.start()
    (done,) = host.recover()
    assert (done.result, done.reason, host.world.nginx.hups) == (Result.DEFERRED, "not-wired", 0)


def test_a_missing_include_is_written_again_from_the_verified_pair(host: Host) -> None:
    (host.world.include_dir / "example.conf").unlink()
    (done,) = host.recover()
    assert (done.result, host.world.live("example")) == (Result.ROTATED, host.world.store.verified("example"))


def test_a_site_without_any_pair_has_nothing_to_recover(tmp_path: Path) -> None:
    (done,) = Host(tmp_path, bare=True).recover()
    assert (done.result, done.reason) == (Result.UNCHANGED, "nothing")


def test_a_half_made_generation_is_swept(host: Host) -> None:
    stray = host.world.state / "sites/example/generations/.new-000009-aaaaaaaaaaaa"
    stray.mkdir()
    host.recover()
    assert not stray.exists()


def test_a_site_in_flight_when_its_rotation_died_is_proved_again_even_if_disk_and_verified_agree(host: Host) -> None:
    new = _stored(host)
    _name(host, new, hup=True)  # the way back had begun: nginx serves the new pair …
    host.world.clock.sleep(1.0)
    _name(host, host.world.store.verified("example"))  # … and only the include names the old one
    _interrupt(host, "example")
    host.world.nginx.hups = 0
    with host.world.locks.rotation("tester", 1.0) as lock:
        host._recover(lock)
    with host.world.locks.rotation("tester", 1.0) as lock:
        assert lock.interrupted == ()
    assert host.nginx_shows["example"] == host.first["example"].chain_der


def test_a_swap_of_another_site_recovers_what_was_interrupted_first(tmp_path: Path) -> None:
    host = Host(tmp_path, (make_site("a"), make_site("b")))
    new = host.issue(host.sites[0])
    done = host.swap(host.sites[0], new)
    host.world.store.mark_verified("a", done.previous)
    _interrupt(host, "a")
    host.swap(host.sites[1], host.issue(host.sites[1]))
    assert host.world.store.verified("a") == done.generation


def test_what_could_not_be_recovered_stays_noted(host: Host) -> None:
    _interrupt(host, "example")
    host.world.nginx.stop()
    with host.world.locks.rotation("tester", 1.0) as lock:
        host._recover(lock)
        assert lock.interrupted == ("example",)


def test_a_rotation_that_died_before_its_note_was_taken_back_stands_in_the_history_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "settled", _die)
        with pytest.raises(_Died):
            host.swap(host.sites[0], host.issue())
    for _ in range(2):
        _interrupt(host, "example")
        host.recover()
    live = host.world.live("example")
    told = [e.reason for e in host.world.history.entries("example") if e.live == live]
    assert told == ["rotated"]


def test_a_pair_that_was_asked_for_twice_is_not_told_again_when_the_next_rotation_dies(host: Host) -> None:
    new = host.issue()
    for _ in range(2):
        host.swap(host.sites[0], new)
    _interrupt(host, "example")
    host.recover()
    live = host.world.live("example")
    told = [e.reason for e in host.world.history.entries("example") if e.live == live]
    assert told == ["rotated", "same"]


def test_a_recovery_that_died_before_its_note_was_taken_back_stands_in_the_history_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = _stored(host)
    _name(host, new, hup=True)
    host.world.clock.sleep(1.0)
    before = len(host.world.history.entries("example"))
    _interrupt(host, "example")
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "settled", _die)
        with pytest.raises(_Died):
            host.recover()
    host.recover()
    assert [e.reason for e in host.world.history.entries("example")[before:]] == ["recovered"]


def _die(*_: object) -> None:
    raise _Died


def _interrupt(host: Host, site: str) -> None:
    """A holder of the lock that dies with this site in flight."""

    def die() -> None:
        with host.world.locks.rotation("tester", 1.0) as lock:
            lock.begin([site])
            raise _Died

    with pytest.raises(_Died):
        die()


class _Died(BaseException):
    pass
