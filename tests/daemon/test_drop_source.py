"""Another kind of source behind the port: the same loop takes renewals from memory, alone and beside directories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.daemon.scan import DropScan
from rotator.rotation.decide import Moment
from rotator.sources.drop_directory import DropDirectories, DropLocation
from tests.support.authority import NOW
from tests.support.looping import Looping
from tests.support.memory_source import MemorySource


@pytest.fixture
def source() -> MemorySource:
    return MemorySource(("vault",))


@pytest.fixture
def daemon(tmp_path: Path, source: MemorySource) -> Iterator[Looping]:
    looping = Looping(tmp_path, ("vault", "files"), sources={"vault": source})
    yield looping
    print(looping.log.read_text())
    looping.close()


def test_a_renewal_from_another_source_goes_live_in_the_same_pass(daemon: Looping, source: MemorySource) -> None:
    new = daemon.issue("vault")
    source.put("vault", new)
    daemon.tick()
    assert daemon.decided("vault") == ("rotated", "rotated")
    assert daemon.shows(new, "vault")


def test_a_renewal_from_another_source_is_decided_once(daemon: Looping, source: MemorySource) -> None:
    source.put("vault", daemon.issue("vault"))
    daemon.tick()
    reads, hups = source.reads, daemon.nginx.hups
    daemon.run_for(3600)
    assert (source.reads - reads, daemon.nginx.hups) == (1, hups)  # read once more after the decision


def test_a_bad_renewal_from_another_source_is_rejected_and_changes_nothing(
    daemon: Looping, source: MemorySource
) -> None:
    good, other = daemon.issue("vault"), daemon.issue("vault")
    source.put("vault", replace(good, key=other.key))
    daemon.run_for(60)
    assert daemon.decided("vault")[0] == "rejected"
    assert daemon.nginx.hups == 0


def test_a_source_that_fails_is_reported_once_and_heals(daemon: Looping, source: MemorySource) -> None:
    source.failure = RotatorError(Code.IO_ERROR, "the secrets store does not answer", "See its log")
    daemon.run_for(120)
    assert daemon.said("drop-lost vault", "the secrets store does not answer; See its log") == 1
    source.failure = None
    new = daemon.issue("vault")
    source.put("vault", new)
    daemon.tick()
    assert daemon.said("drop-back vault") == 1
    assert daemon.shows(new, "vault")


def test_a_site_with_a_directory_and_a_site_with_another_source_share_one_reload(
    daemon: Looping, source: MemorySource
) -> None:
    from_store, from_files = daemon.issue("vault"), daemon.issue("files")
    source.put("vault", from_store)
    daemon.drop(from_files, "files")
    daemon.tick()
    assert daemon.shows(from_store, "vault")
    assert daemon.shows(from_files, "files")
    assert daemon.nginx.hups == 1


# -- the scan of several sources


@pytest.fixture
def scan(tmp_path: Path, source: MemorySource) -> DropScan:
    incoming = tmp_path / "incoming"
    (incoming / "files").mkdir(parents=True)
    directories = DropDirectories(incoming, [DropLocation("files", incoming / "files")])
    scan = DropScan({"vault": source, "files": directories}, Moment(NOW, 100.0))
    scan.look(None, (), Moment(NOW, 100.0))
    return scan


def test_a_scan_of_everything_looks_at_every_source(scan: DropScan) -> None:
    assert scan.looks.keys() == {"vault", "files"}


def test_a_file_event_leads_to_the_source_that_knows_the_path(
    scan: DropScan, source: MemorySource, tmp_path: Path
) -> None:
    source.versions["vault"] = 1
    assert scan.look({f"{tmp_path}/incoming/files/x.pem"}, (), Moment(NOW, 101.0)).keys() == {"files"}


def test_a_file_event_of_an_unknown_path_has_every_source_looked_at(scan: DropScan) -> None:
    assert scan.look({"/elsewhere/x.pem"}, (), Moment(NOW, 101.0)).keys() == {"vault", "files"}


def test_a_source_without_directories_is_looked_at_when_a_scan_of_everything_is_requested(
    scan: DropScan, source: MemorySource
) -> None:
    source.versions["vault"] = 1
    assert scan.look((), (), Moment(NOW, 115.0)) == {}
    scan.request_all()
    assert scan.look((), (), Moment(NOW, 115.0))["vault"].signature


def test_a_drop_that_is_due_is_looked_at_in_its_own_source_alone(scan: DropScan) -> None:
    assert scan.look((), ("vault",), Moment(NOW, 101.0)).keys() == {"vault"}


def test_the_directories_to_watch_are_those_of_all_sources(
    scan: DropScan, source: MemorySource, tmp_path: Path
) -> None:
    source.directories = {tmp_path: (1, 2)}
    incoming = tmp_path / "incoming"
    assert scan.directories.keys() == {tmp_path, incoming, incoming / "files"}
