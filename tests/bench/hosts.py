"""Hosts to measure on: a real nginx, a store and a configuration with one site or a thousand; nothing is timed here."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rotator.bootstrap import policy_of
from rotator.core.model import Provenance
from rotator.storage.records import Intent
from rotator.validation.validate import validate_files
from tests.support.authority import CA
from tests.support.edge import Edge
from tests.support.hosts import candidate_of
from tests.support.nginx_server import NginxServer, ServerBlock, include_line, write_pair

ROOT = Path(__file__).parents[2]
SITE = "example"

_compiled = tempfile.TemporaryDirectory(prefix="rotator-bench-pycache-")


@contextmanager
def host(binary: Path, *, sites: int = 1, blocks: int | None = 1) -> Iterator[Edge]:
    """An edge host whose site `example` is live, proved and served.

    Args:
        binary: which nginx.
        sites: how many sites rotator is configured with. Two files lie in the drop of each other one, decided already.
        blocks: how many TLS server blocks there are, of which only the first belongs to a site; None for one for each
            site, which then are all live, proved and served, with a pair each.
    """
    root = CA.root(at=datetime.now(UTC))
    names = (SITE, *(f"site{number:04d}" for number in range(1, sites)))
    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as top:
        nginx = NginxServer(binary, Path(top) / "n", fillers=(blocks or 1) - 1)
        nginx.filler_pair = write_pair(Path(top) / "fillers", root.intermediate().issue("filler.example.test"))
        with nginx:
            edge = Edge(nginx, Path(top) / "e", root.intermediate(), root, names, listeners=1)
            wired = names if blocks is None else (SITE,)
            nginx.blocks = [block for block in nginx.blocks if block.name in {edge.name(site) for site in wired}]
            _install(edge, wired)
            for site in names[1:]:
                _decided(edge, site)
            nginx.start(timeout=120.0)
            for site in wired:
                edge.store.mark_verified(site, edge.live(site))
            yield edge


def _install(edge: Edge, sites: Sequence[str]) -> None:
    """What `swap --first` does for each, without the questions to nginx, which a thousand times would take minutes."""
    stored, now = {}, datetime.now(UTC)
    for site in sites:
        edge.first[site] = edge.issue(site)
        verdict = validate_files(candidate_of(edge.first[site]), edge.site(site).policy, edge.anchors, now)
        assert verdict.accepted, verdict
        staged = edge.store.stage(site, verdict.pairs, Provenance(who="bench", when=now))
        staged.flush()
        stored[site] = staged.commit().name
    applied = edge.ports.apply(stored, hup=False)
    assert not applied.error, applied


def _decided(edge: Edge, site: str) -> None:
    """A renewal in the drop of a site, on which has been decided."""
    issued = edge.first.get(site) or edge.issue(site)
    drop = edge.incoming / site
    edge.write_pair(issued, drop)
    digest = edge_digest(edge, site)
    policy = policy_of(edge.site(site), edge.anchors)
    edge.store.write_intent(site, Intent(digest, "rotated", "rotated", policy))


def edge_digest(edge: Edge, site: str) -> str:
    """The digest of what lies in a site's drop, as the daemon reads it."""
    from rotator.sources.drop_directory import DropDirectories, DropLocation

    candidate = DropDirectories(edge.incoming, [DropLocation(site, edge.incoming / site)]).read(site)
    assert candidate is not None
    return candidate.digest


def own_block(edge: Edge, text: str) -> None:
    """Gives the server block of the site another certificate, and waits until nginx has reloaded."""
    first, *others = edge.nginx.blocks
    edge.nginx.blocks = [ServerBlock(first.name, first.listeners, text), *others]
    edge.nginx.write_config()
    edge.nginx.reload_and_wait(timeout=60.0)


def rotators_block(edge: Edge) -> str:
    """The line by which nginx is told of rotator's include."""
    return include_line(edge.include_dir / f"{SITE}.conf")


@dataclass
class Started:
    """A daemon.

    Args:
        process: `rotator run`.
        ready_after: seconds from just before its start until it has told its manager that it is ready.
        log: what it says.
    """

    process: subprocess.Popen[bytes]
    ready_after: float
    log: Path

    @property
    def ticks(self) -> int:
        """Clock ticks of processor time that all its threads have taken, in user and in system mode."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[11]) + int(fields[12])

    def settle(self, quiet: float = 0.2, within: float = 60.0) -> None:
        """Waits until it has taken no processor time for a while."""
        end, last, since = time.monotonic() + within, self.ticks, time.monotonic()
        while time.monotonic() - since < quiet:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
            if self.ticks != last:
                last, since = self.ticks, time.monotonic()


@contextmanager
def daemon(edge: Edge) -> Iterator[Started]:
    """`rotator run` in a process of its own, from its READY=1 on."""
    with (
        tempfile.TemporaryDirectory(prefix="notify-") as where,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(f"{where}/s")
        log = edge.root / "daemon.log"
        with log.open("ab") as out:
            begun = time.monotonic()
            process = subprocess.Popen(
                rotator(edge, "run"),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env=environment(NOTIFY_SOCKET=f"{where}/s"),
            )
        try:
            while b"READY=1" not in _next(manager, process, log):
                pass
            yield Started(process, time.monotonic() - begun, log)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)


def _next(manager: socket.socket, process: subprocess.Popen[bytes], log: Path) -> bytes:
    """The next thing that the manager is told."""
    ended, poll = os.pidfd_open(process.pid), select.poll()
    try:
        poll.register(manager, select.POLLIN)
        poll.register(ended, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(300_000)}
    finally:
        os.close(ended)
    assert manager.fileno() in ready, log.read_text()
    return manager.recv(4096)


def rotator(edge: Edge, *words: str) -> list[str]:
    """The command as a user types it."""
    script = Path(sys.executable).parent / "rotator"
    start = [str(script)] if script.exists() else [sys.executable, "-m", "rotator"]
    return [*start, "--config", str(edge.config_path), *words]


def environment(**more: str) -> Mapping[str, str]:
    """For a process that runs rotator: with compiled modules, as after an installation, from its second start on."""
    ours = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": _compiled.name, "NO_COLOR": "1", **more}
    return {name: word for name, word in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | ours


def inotifywait() -> str:
    """The program.

    Raises:
        SystemExit: it is not there; with what to install.
    """
    found = shutil.which("inotifywait")
    if not found:
        raise SystemExit("inotifywait is not there, which the comparison needs: apt-get install inotify-tools")
    return found
