"""The snapshot of a site: everything that is known of it at one moment, and why something is not known."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core.model import KeyType
from rotator.core.reasons import Reason
from rotator.rotation.snapshot import SiteSnapshot, take_snapshot
from rotator.storage.records import Intent
from tests.support.hosts import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def snapshot(host: Host) -> SiteSnapshot:
    return take_snapshot("example", host.world.ports)


def stored(host: Host) -> Path:
    """The directory of the live generation in the store."""
    return host.world.store.root / "sites" / "example" / "generations" / host.world.live("example")


def test_it_has_what_is_live_verified_and_decided(host: Host) -> None:
    host.world.store.write_intent("example", Intent("digest", "rotated", "rotated", "policy"))
    found = snapshot(host)
    assert found.live == found.verified == host.world.live("example")
    assert found.chains == {KeyType.ECDSA: host.first["example"].chain_der}
    assert found.intent.digest == "digest"
    assert (found.is_verified, found.fault) == (True, None)


def test_it_has_the_life_of_each_live_chain(host: Host) -> None:
    ((begin, end),) = snapshot(host).lives
    leaf = host.first["example"].leaf
    assert (begin, end) == (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    assert end - begin >= timedelta(days=89)


def test_of_a_new_site_nothing_is_known_and_nothing_is_wrong(tmp_path: Path) -> None:
    assert snapshot(Host(tmp_path, bare=True)) == SiteSnapshot("example")


def test_a_generation_that_the_store_has_lost_is_a_fault_and_the_name_is_known(host: Host) -> None:
    live = host.world.live("example")
    shutil.rmtree(stored(host))
    found = snapshot(host)
    assert (found.live, found.generation, found.chains, found.lives) == (live, None, {}, ())
    assert found.fault is not None
    assert found.fault.code is Reason.NO_GENERATION


def test_a_damaged_generation_is_a_fault(host: Host) -> None:
    (stored(host) / "fullchain.pem").write_bytes(b"")
    found = snapshot(host)
    assert found.fault is not None
    assert found.fault.code is Reason.STORE_DAMAGED


def test_a_foreign_file_in_the_place_of_the_include_is_a_fault_with_the_next_step(host: Host) -> None:
    (Path(host.world.ports.include_dir) / "example.conf").write_text("access_log off;\n")
    found = snapshot(host)
    assert (found.live, found.generation) == ("", None)
    assert found.fault is not None
    assert found.fault.code is Reason.INCLUDE_FOREIGN
    assert found.fault.hint.startswith("Move that file away, then: rotator swap example")
