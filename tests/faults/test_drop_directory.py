"""A drop directory that is unmounted, mounted over, closed or replaced by a link under a running daemon."""

from __future__ import annotations

import ctypes
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.authority import CA, Issued
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.running import Running, running
from tests.support.waiting import PATIENCE, wait_until

SCAN = 0.5
SOON = 20 * SCAN
"""One scan period, and what a busy machine makes of it."""
CLONE_NEWNS, PR_CAPBSET_DROP = 0x00020000, 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
MS_REC, MS_PRIVATE = 0x4000, 1 << 18

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    extra = f'scan_interval = "{SCAN * 1000:.0f}ms"\nsettle = "1s"\n'
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=extra)
    host.start()
    (host.incoming / "example").mkdir()
    return host


def _with_mounts_of_its_own() -> None:
    """Called in the child: what is mounted for it is mounted for nobody else, and gone with it."""
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no mount namespace")


def _bound_by_modes() -> None:
    """Called in the child: root without the right to pass over the modes of files, as a service's user is."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "the capability cannot be dropped")


def _mount(daemon: Running, *words: str | Path) -> None:
    enter = ["nsenter", "--target", str(daemon.process.pid), "--mount", "--"]
    subprocess.run([*enter, *map(str, words)], check=True, capture_output=True)


def _as_seen_by(daemon: Running, path: Path) -> Path:
    return Path(f"/proc/{daemon.process.pid}/root{path}")


def _is_counted(edge: Edge) -> bool:
    """Whether the page tells that a place could not be looked at."""
    try:
        with urllib.request.urlopen(f"http://{edge.metrics}/metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
    except OSError:
        return False
    errors = [line for line in text.splitlines() if line.startswith("rotator_scan_errors_total{")]
    return any(float(line.split()[-1]) for line in errors)


def _is_served(edge: Edge, new: Issued) -> None:
    wait_until(lambda: edge.shown() == {new.chain_der}, 20, "the renewal is served")


@pytest.mark.root
def test_a_file_system_that_is_mounted_over_the_drops_is_told_and_its_end_heals_it(edge: Edge) -> None:
    above, below = edge.issue(), edge.issue()
    with running(edge, before=_with_mounts_of_its_own) as daemon:
        daemon.wait_for("metrics:")  # it has looked once: what it never saw, it does not miss
        _mount(daemon, "mount", "-t", "tmpfs", "none", edge.incoming)
        daemon.wait_for("drop-lost example", timeout=SOON)
        wait_until(lambda: _is_counted(edge), SOON)
        drop = _as_seen_by(daemon, edge.incoming / "example")
        drop.mkdir()
        daemon.wait_for("drop-back example", timeout=SOON)
        edge.write_pair(above, drop)
        _is_served(edge, above)
        _mount(daemon, "umount", edge.incoming)
        edge.write_pair(below, edge.incoming / "example")
        _is_served(edge, below)
        assert daemon.end() == 0


@pytest.mark.root
def test_drops_on_a_file_system_that_is_unmounted_are_told_and_taken_when_it_is_back(edge: Edge) -> None:
    first, second = edge.issue(), edge.issue()
    disk = edge.root / "disk"
    disk.mkdir()
    edge.write_pair(first, disk / "example")
    with running(edge, before=_with_mounts_of_its_own) as daemon:
        _mount(daemon, "mount", "--bind", disk, edge.incoming)
        _is_served(edge, first)
        (edge.incoming / "example").rmdir()  # below the mount nothing is left
        _mount(daemon, "umount", edge.incoming)
        daemon.wait_for("drop-lost example", timeout=SOON)
        wait_until(lambda: _is_counted(edge), SOON)
        edge.write_pair(second, disk / "example")
        _mount(daemon, "mount", "--bind", disk, edge.incoming)
        daemon.wait_for("drop-back example", timeout=SOON)
        _is_served(edge, second)
        assert daemon.end() == 0


@pytest.mark.root
@pytest.mark.parametrize("which", ["incoming", "incoming/example"])
def test_a_directory_that_nobody_may_look_into_is_told_and_heals_when_it_is_opened(edge: Edge, which: str) -> None:
    new = edge.issue()
    where = edge.root / which
    with running(edge, before=_bound_by_modes) as daemon:
        where.chmod(0)
        daemon.wait_for("drop-lost example", "Permission denied", timeout=SOON)
        wait_until(lambda: _is_counted(edge), SOON)
        where.chmod(0o755)
        daemon.wait_for("drop-back example", timeout=SOON)
        edge.write_pair(new, edge.incoming / "example")
        _is_served(edge, new)
        assert daemon.end() == 0


PUT: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda drop, elsewhere: drop.symlink_to(elsewhere),
    "no directory": lambda drop, elsewhere: drop.write_bytes((elsewhere / "fullchain.pem").read_bytes()),
}


@pytest.mark.parametrize("what", PUT)
def test_what_is_put_in_the_place_of_a_drop_is_not_taken_and_it_heals_when_it_is_a_directory_again(
    edge: Edge, what: str
) -> None:
    planted, new = edge.issue(), edge.issue()
    drop, elsewhere = edge.incoming / "example", edge.root / "elsewhere"
    edge.write_pair(planted, elsewhere)
    with running(edge) as daemon:
        drop.rmdir()
        PUT[what](drop, elsewhere)
        daemon.wait_for("drop-lost example", what, timeout=SOON)
        wait_until(lambda: _is_counted(edge), SOON)
        drop.unlink()
        drop.mkdir()
        daemon.wait_for("drop-back example", timeout=SOON)
        assert edge.shown() == {edge.first["example"].chain_der}
        edge.write_pair(new, drop)
        _is_served(edge, new)
        assert daemon.end() == 0
