"""The rotation on both real nginx: every way that it can go, seen by a client that is not rotator's own probe."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rotator import bootstrap
from rotator.core.model import Result
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Request, Setup
from rotator.rotation.request import RotationRequest
from tests.support.authority import CA, Issued, der
from tests.support.client import fingerprint, held_connection, served_leaf
from tests.support.edge import Edge
from tests.support.hammer import Hammer
from tests.support.misbehave import changed_zone, taken_port, unknown_directive
from tests.support.nginx_server import NginxServer, ServerBlock, certificate_lines, write_pair
from tests.support.waiting import wait_until

pytestmark = pytest.mark.each_nginx


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca)
    host.start()
    return host


# -- renewals


def test_a_renewal_with_a_new_key_is_served_by_every_listener(edge: Edge) -> None:
    new = edge.issue()
    done = edge.swap("example", new)
    assert (done.result, done.proof) == (Result.ROTATED, "workers")
    assert edge.shown() == {new.chain_der}


def test_a_renewal_with_the_same_key_is_served_by_every_listener(edge: Edge) -> None:
    new = edge.issue(key=edge.first["example"].key)
    assert edge.swap("example", new).result is Result.ROTATED
    assert edge.shown() == {new.chain_der}


def test_a_new_intermediate_under_the_same_leaf_is_served(edge: Edge, root_ca: CA) -> None:
    again = root_ca.intermediate(key=edge.issuer.key)
    old = edge.first["example"]
    new = Issued(old.key, old.leaf, (again.cert,))
    assert edge.swap("example", new).result is Result.ROTATED
    assert edge.shown() == {new.chain_der}


def test_rsa_and_ecdsa_change_together_and_both_are_served(edge: Edge) -> None:
    ecdsa, rsa = edge.issue(kind="ecdsa"), edge.issue(kind="rsa")
    assert edge.swap("example", ecdsa, rsa).result is Result.ROTATED
    for address in edge.addresses:
        assert served_leaf(address, edge.name("example"), "ecdsa") == der(ecdsa.leaf)[0]
        assert served_leaf(address, edge.name("example"), "rsa") == der(rsa.leaf)[0]


def test_a_dual_site_on_tls_1_3_alone_is_proved_too(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA
) -> None:
    nginx.http_extra = ""
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca)
    edge.nginx.blocks = [replace(block, extra="ssl_protocols TLSv1.3;\n") for block in edge.nginx.blocks]
    edge.start()
    assert edge.swap("example", edge.issue(kind="ecdsa"), edge.issue(kind="rsa")).result is Result.ROTATED


def test_twenty_sites_go_with_one_reload(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> None:
    names = tuple(f"site{n:02d}" for n in range(20))
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, names)
    edge.start()
    counting = Counting(edge)
    new = {name: edge.issue(name) for name in names}
    done = edge.run(*(edge.wanted(name, new[name]) for name in names), ports=counting.ports)
    assert {o.result for o in done} == {Result.ROTATED}
    assert counting.hups == 1
    assert all(edge.shown(name) == {new[name].chain_der} for name in names)


def test_put_back_within_the_same_second_the_old_pair_is_served(edge: Edge) -> None:
    first = edge.live()
    for _ in range(3):
        edge.swap("example", edge.issue(key=edge.first["example"].key))
        done = edge.run(edge.wanted("example", generation=first))[0]
        assert done.result is Result.ROTATED
        assert edge.shown() == {edge.first["example"].chain_der}


# -- refused, wrongly wired, dead


def test_a_reload_refused_for_an_unrelated_fault_changes_nothing_and_quotes_nginx(edge: Edge) -> None:
    counting = Counting(edge)
    workers = edge.nginx.active_workers()
    with unknown_directive(edge.nginx) as word:
        done = edge.run(edge.wanted("example", edge.issue()), ports=counting.ports)[0]
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
    assert word in done.message
    assert counting.hups == 1
    assert edge.nginx.active_workers() == workers
    assert edge.shown() == {edge.first["example"].chain_der}


def test_a_refusal_that_no_test_of_nginx_shows_is_seen_all_the_same(edge: Edge) -> None:
    with changed_zone(edge.nginx):
        done = edge.swap("example", edge.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
    assert edge.shown() == {edge.first["example"].chain_der}


def test_a_port_that_another_process_holds_is_a_refusal_after_nginx_own_retries(edge: Edge) -> None:
    with taken_port(edge.nginx) as address:
        done = edge.swap("example", edge.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
    assert address in done.message
    assert edge.shown() == {edge.first["example"].chain_der}


def test_once_the_unrelated_fault_is_mended_the_same_swap_goes_through(edge: Edge) -> None:
    new = edge.issue()
    with unknown_directive(edge.nginx):
        edge.swap("example", new)
    assert edge.swap("example", new).result is Result.ROTATED
    assert edge.shown() == {new.chain_der}


def test_a_reload_refused_for_our_pair_rejects_it(edge: Edge) -> None:
    def spoil(generations: Mapping[str, str]) -> None:
        copy = edge.include_dir / "pairs/example" / generations["example"] / "privkey.pem"
        copy.write_bytes(edge.first["example"].key_pem)

    spoiling = Counting(edge, before_hup=spoil)
    done = edge.run(edge.wanted("example", edge.issue()), ports=spoiling.ports)[0]
    assert (done.result, done.reason) == (Result.REJECTED, "nginx-refused")
    assert edge.shown() == {edge.first["example"].chain_der}


def test_a_listener_that_keeps_the_old_pair_rolls_it_back_and_proves_that(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA
) -> None:
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, prove_within="1s")
    stale = nginx.reserve_port()
    edge.start()
    copies = write_pair(tmp_path / "copies", edge.first["example"])
    nginx.blocks.append(ServerBlock(edge.name("example"), (stale,), certificate_lines(copies)))
    nginx.write_config()
    nginx.reload_and_wait()
    edge.extra_listeners["example"] = (stale,)
    edge.write_config()
    done = edge.swap("example", edge.issue())
    assert (done.result, done.reason, done.proof) == (Result.ROLLED_BACK, "not-proved", "workers")
    assert stale in done.message
    assert edge.shown() == {edge.first["example"].chain_der}


def test_a_listener_dead_before_defers_without_a_reload(edge: Edge) -> None:
    dead = edge.nginx.reserve_port()
    edge.extra_listeners["example"] = (dead,)
    edge.write_config()
    counting = Counting(edge)
    done = edge.run(edge.wanted("example", edge.issue()), ports=counting.ports)[0]
    assert (done.result, done.reason, counting.hups) == (Result.DEFERRED, "listener", 0)
    assert dead in done.message


def test_with_nginx_stopped_it_is_deferred_and_a_cold_start_serves_the_old_pair(edge: Edge) -> None:
    edge.nginx.stop()
    done = edge.swap("example", edge.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-down")
    edge.nginx.start()
    assert edge.shown() == {edge.first["example"].chain_der}


def test_nginx_that_comes_back_gets_the_pair_with_the_same_swap(edge: Edge) -> None:
    new = edge.issue()
    edge.nginx.stop()
    edge.swap("example", new)
    edge.nginx.start()
    assert edge.swap("example", new).result is Result.ROTATED
    assert edge.shown() == {new.chain_der}


# -- somebody else's reload


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.09, 0.11, 0.15])
def test_a_foreign_reload_in_flight_never_makes_a_false_success(edge: Edge, delay: float) -> None:
    new = edge.issue()

    def foreign(_: Mapping[str, str]) -> None:
        edge.nginx.hup()
        end = time.monotonic() + delay  # a moment of ours, not a wait for luck: each delay is a case
        while time.monotonic() < end:
            pass

    done = edge.run(edge.wanted("example", new), ports=Counting(edge, before_hup=foreign).ports)[0]
    seen = edge.shown()
    assert done.result is Result.ROTATED
    assert seen == {new.chain_der}


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.02, 0.05, 0.09, 0.11])
def test_a_foreign_reload_right_after_ours_never_makes_a_false_success(edge: Edge, delay: float) -> None:
    new = edge.issue()

    def foreign(_: Mapping[str, str]) -> None:
        end = time.monotonic() + delay
        while time.monotonic() < end:
            pass
        edge.nginx.reload_cli()

    done = edge.run(edge.wanted("example", new), ports=Counting(edge, after_hup=foreign).ports)[0]
    assert done.result is Result.ROTATED
    assert edge.shown() == {new.chain_der}


# -- clients, all the while


def test_fifty_rotations_under_a_hammer_lose_no_handshake_and_never_show_an_old_leaf_afterwards(
    edge: Edge, root_pem: str, tmp_path: Path
) -> None:
    targets = [(address, edge.name("example")) for address in edge.addresses]
    old = fingerprint(edge.first["example"].chain_der[0])
    leaves, claims = {old}, []
    with Hammer(targets, root_pem, tmp_path, rate=150, max_seconds=110) as hammer:
        for _ in range(50):
            new = edge.issue()
            done = edge.swap("example", new)
            assert done.result is Result.ROTATED, done
            claims.append((time.monotonic(), old))
            old = fingerprint(new.chain_der[0])
            leaves.add(old)
        records = hammer.stop()
    assert records.failures == ()
    assert {r.leaf for r in records.all} <= leaves
    assert [r for when, leaf in claims for r in records.saw(leaf, opened_after=when)] == []
    assert len(records.all) > 500


# -- a store and a command line


def test_draining_workers_do_not_hold_up_the_proof(edge: Edge, root_pem: str) -> None:
    with held_connection(edge.addresses[0], edge.name("example"), root_pem):
        done = edge.swap("example", edge.issue())
        assert done.result is Result.ROTATED
        assert edge.nginx.draining_workers()


def test_a_binary_upgrade_in_flight_is_deferred(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA
) -> None:
    nginx.daemon = True
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca)
    edge.start()
    master = nginx.master_pid
    nginx.signal(signal.SIGUSR2)
    wait_until(
        lambda: Path(f"{nginx.pid_path}.oldbin").exists() and nginx.pid_path.exists() and nginx.master_pid != master
    )
    done = edge.swap("example", edge.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-upgrade")


def test_what_is_live_already_is_unchanged_and_costs_no_reload(edge: Edge) -> None:
    counting = Counting(edge)
    done = edge.run(edge.wanted("example", edge.first["example"]), ports=counting.ports)[0]
    assert (done.result, counting.hups) == (Result.UNCHANGED, 0)


def test_a_new_host_is_wired_step_by_step(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> None:
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca)
    copies = write_pair(tmp_path / "own", edge.issue())
    wired, nginx.blocks = nginx.blocks, [replace(b, certificates=certificate_lines(copies)) for b in nginx.blocks]
    nginx.start()
    new = edge.issue()
    first = edge.swap("example", new, first=True)
    assert (first.result, first.reason) == (Result.DEFERRED, "not-wired")
    nginx.blocks = wired
    nginx.write_config()
    done = edge.run(RotationRequest(edge.site(), edge.anchors))[0]
    assert (done.result, done.reason) == (Result.ROTATED, "rotated")
    assert edge.shown() == {new.chain_der}


def test_what_nginx_serves_from_its_own_files_proves_nothing(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA
) -> None:
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca)
    new = edge.issue()
    own = certificate_lines(write_pair(tmp_path / "own", new))
    nginx.blocks = [replace(b, certificates=own) for b in nginx.blocks]
    nginx.start()
    done = edge.swap("example", new, first=True)
    assert (done.result, done.reason) == (Result.DEFERRED, "not-wired")
    assert f"include {edge.include_dir}/example.conf;" in done.hint
    assert edge.store.verified("example") == ""


Look = Callable[[Mapping[str, str]], None]


class Counting:
    """The real privileged step, with the HUPs counted and something done just before or after one."""

    def __init__(self, edge: Edge, before_hup: Look | None = None, after_hup: Look | None = None) -> None:
        setup = bootstrap.make_setup(edge.config)
        self.hups = 0

        def hup(inner: Setup) -> tuple[int, str, tuple[str, ...]]:
            self.hups += 1
            if before_hup:
                before_hup(self._asked)
            done = privileged.hup_master(inner)
            if after_hup:
                after_hup(self._asked)
            return done

        told = hup

        def apply(generations: Mapping[str, str], *, hup: bool) -> Applied:
            self._asked = generations
            return privileged.apply(setup, Request(generations, hup), told)

        self.ports = replace(edge.ports, apply=apply)
