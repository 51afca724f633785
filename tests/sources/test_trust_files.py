"""Trust files as they are on a host: the roots that its distribution ships, and the root stores of browsers."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rotator.config import system_roots
from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.sources.trust_files import MAX_FILES, read_root_stores, read_roots, read_shipped
from tests.support.authority import CA, pem
from tests.support.root_stores import Listed, chrome, fingerprint, report

SHIPPED, LOCAL = CA.root("Shipped"), CA.root("Local")


def debian(directory: Path) -> tuple[Path, Path]:
    """A host on which somebody has added a root: the merged file, and the directory of the package."""
    shipped = directory / "mozilla"
    shipped.mkdir()
    (shipped / "Shipped.crt").write_bytes(pem(SHIPPED.cert))
    merged = directory / "ca-certificates.crt"
    merged.write_bytes(pem(SHIPPED.cert, LOCAL.cert))
    return merged, shipped


def fedora(directory: Path) -> tuple[Path, Path]:
    """The same where the package has one file of p11-kit."""
    shipped = directory / "ca-bundle.trust.p11-kit"
    head = b'# p11-kit\n[p11-kit-object-v1]\nlabel: "Shipped"\ntrusted: true\n'
    shipped.write_bytes(head + pem(SHIPPED.cert) + b'\n[p11-kit-object-v1]\nvalue: "%30"\n')
    merged = directory / "tls-ca-bundle.pem"
    merged.write_bytes(pem(SHIPPED.cert, LOCAL.cert))
    return merged, shipped


@pytest.mark.parametrize("make", [debian, fedora])
def test_a_root_that_was_added_on_the_host_is_told_from_those_of_the_distribution(make: object, tmp_path: Path) -> None:
    assert callable(make)
    merged, shipped = make(tmp_path)
    origins = read_roots(merged, shipped, whole=True).origins
    assert origins.shipped == {fingerprint(SHIPPED.cert)}
    assert origins.local == {fingerprint(LOCAL.cert)}
    assert read_roots(merged, shipped, whole=False).origins.local == frozenset()


def test_where_the_distribution_is_not_known_nothing_is_said_of_any_root(tmp_path: Path) -> None:
    merged, shipped = debian(tmp_path)
    assert read_roots(merged).origins.digest == ""
    assert read_roots(merged, tmp_path / "absent", whole=True).origins.digest == ""
    (shipped / "Shipped.crt").unlink()
    assert read_roots(merged, shipped, whole=True).origins.digest == ""


@pytest.mark.parametrize("damage", ["a fifo", "a link to nowhere", "base64 that is none", "too many files"])
def test_a_damaged_directory_of_the_distribution_hangs_nothing_and_accuses_no_root(damage: str, tmp_path: Path) -> None:
    merged, shipped = debian(tmp_path)
    match damage:
        case "a fifo":
            (shipped / "Shipped.crt").unlink()
            os.mkfifo(shipped / "Shipped.crt")
        case "a link to nowhere":
            (shipped / "Shipped.crt").unlink()
            (shipped / "Shipped.crt").symlink_to("absent")
        case "base64 that is none":
            (shipped / "Other.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n")
        case _:
            for number in range(MAX_FILES):
                (shipped / f"{number}.crt").touch()
    assert read_roots(merged, shipped, whole=True).origins.local == frozenset()


@pytest.mark.contract
def test_this_hosts_own_shipped_roots_are_found() -> None:
    place = system_roots.shipped_roots()
    assert place is not None
    roots = read_roots(system_roots.system_roots(), place, whole=True)
    assert len(read_shipped(place)) >= len(roots.origins.shipped) > 50
    assert roots.origins.shipped | roots.origins.local == {root.fingerprint for root in roots.certificates}


def test_the_files_of_a_directory_are_one_root_store_each_with_its_time(tmp_path: Path) -> None:
    (tmp_path / "mozilla.csv").write_bytes(report(Listed(SHIPPED)))
    (tmp_path / "chrome.textproto").write_bytes(chrome((SHIPPED, [])))
    (tmp_path / ".mozilla.csv.new").write_bytes(b"half")
    written = datetime(2026, 10, 1, tzinfo=UTC)
    for name in ("mozilla.csv", "chrome.textproto"):
        os.utime(tmp_path / name, (written.timestamp(), written.timestamp()))
    stores = read_root_stores(tmp_path).stores
    assert [(store.client, store.written) for store in stores] == [("Chrome", written), ("Firefox", written)]


@pytest.mark.parametrize("make", [lambda path: None, os.mkdir, os.mkfifo], ids=["absent", "empty", "a fifo"])
def test_a_root_store_that_is_no_file_is_named(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "store")
    with pytest.raises(RotatorError) as caught:
        read_root_stores(tmp_path / "store")
    assert caught.value.code in (Code.IO_ERROR, Code.ROOT_STORE_STALE)
    assert str(tmp_path / "store") in caught.value.message
    assert caught.value.hint
