"""An edge host in a temporary tree: a real nginx, rotator's configuration and store, a CA of today; no tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rotator import bootstrap, config
from rotator.core.model import Outcome, Site
from rotator.privsep.apply import read_live
from rotator.rotation.ports import Ports
from rotator.rotation.recover import recover
from rotator.rotation.request import RotationRequest
from rotator.rotation.rotate import rotate
from rotator.storage.generations import Store
from rotator.storage.history import History
from rotator.storage.locks import Locks
from rotator.validation.validate import Anchors
from tests.support.authority import CA, Issued, pem
from tests.support.client import served_chain
from tests.support.hosts import candidate_of
from tests.support.nginx_server import NginxServer, ServerBlock, include_line


@dataclass
class Edge:
    """A host with some sites, each with one name and its listeners; `start()` brings the first pairs live.

    Args:
        nginx: not started yet.
        root: its tree.
        issuer: who issues the leaves.
        sites: names of the sites; a site `a` serves `a.example.test`.
        listeners: how many listeners each site has; all share them.
        prove_within: seconds for a proof.
        daemon_extra: more lines for the top of rotator's configuration.
        apply: how the privileged step is made.
        nginx_extra: more lines for its table of nginx.
    """

    nginx: NginxServer
    root: Path
    issuer: CA
    root_ca: CA
    sites: tuple[str, ...] = ("example",)
    listeners: int = 2
    prove_within: str = "auto"
    extra_listeners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    daemon_extra: str = ""
    apply: str = "direct"
    nginx_extra: str = ""

    def __post_init__(self) -> None:
        self.state = self.root / "state"
        self.include_dir = self.root / "include"
        self.incoming = self.root / "incoming"
        self.state.mkdir(mode=0o750, parents=True)
        self.include_dir.mkdir(mode=0o755)
        self.incoming.mkdir()
        self.sockets = self.root / "run"
        self.addresses = tuple(self.nginx.reserve_port() for _ in range(self.listeners))
        self.metrics = self.nginx.reserve_port()
        self.roots = self.root / "roots.pem"
        self.roots.write_bytes(pem(self.root_ca.cert))
        self.anchors = Anchors.from_pem(self.roots.read_bytes(), str(self.roots))
        self.nginx.blocks = [
            ServerBlock(self.name(site), self.addresses, include_line(self.include_dir / f"{site}.conf"))
            for site in self.sites
        ]
        self.config_path = self.root / "rotator.toml"
        self.first: dict[str, Issued] = {}
        self.write_config()

    # -- configuration

    def name(self, site: str) -> str:
        return f"{site}.example.test"

    def write_config(self) -> None:
        """rotator's configuration, as the attributes say now."""
        quoted = ", ".join(f'"{word}"' for word in self.nginx.command)
        within = f'"{self.prove_within}"'
        text = (
            f'state_dir = "{self.state}"\nincoming = "{self.incoming}"\n{self.daemon_extra}\n'
            f"[nginx]\ncommand = [{quoted}]\n"
            f'include_dir = "{self.include_dir}"\napply = "{self.apply}"\nsocket_dir = "{self.sockets}"\n'
            f'pid_file = "{self.nginx.pid_path}"\n'
            f'error_log = "{self.nginx.error_log_path}"\nprove_within = {within}\n{self.nginx_extra}\n\n'
            f'[metrics]\nlisten = "{self.metrics}"\n\n'
            f'[defaults]\nroots = "{self.roots}"\npolicy = "private-ca"\n'
        )
        for site in self.sites:
            listeners = ", ".join(f'"{a}"' for a in (*self.addresses, *self.extra_listeners.get(site, ())))
            text += f'\n[[site]]\nname = "{site}"\nnames = ["{self.name(site)}"]\nlisteners = [{listeners}]\n'
        self.config_path.write_text(text)
        self.config = config.load(self.config_path)

    def site(self, name: str = "example") -> Site:
        return self.config.site(name).site

    # -- life

    def start(self) -> None:
        """First pairs live and proved, nginx running."""
        for site in self.sites:
            self.first[site] = self.issue(site)
            done = self.swap(site, self.first[site], first=True)
            assert done.reason == "not-wired", done
        self.nginx.start()
        for done in self.run(*(RotationRequest(self.site(s), self.anchors) for s in self.sites)):
            assert done.reason == "proved", done

    def issue(self, site: str = "example", **how: object) -> Issued:
        """A leaf of now; each later one is a little younger."""
        begin = datetime.now(UTC) - timedelta(hours=1)
        return self.issuer.issue(self.name(site), not_before=begin, **how)  # type: ignore[arg-type]

    def issue_by_another(self, site: str = "example") -> Issued:
        """A leaf of an intermediate that no stored generation has."""
        begin = datetime.now(UTC) - timedelta(hours=1)
        return self.root_ca.intermediate().issue(self.name(site), not_before=begin)

    # -- the rotation in this process

    @property
    def ports(self) -> Ports:
        return bootstrap.make_ports(self.config, bootstrap.direct(bootstrap.make_setup(self.config)))

    @property
    def store(self) -> Store:
        return Store(self.state)

    @property
    def history(self) -> History:
        return History(self.state)

    @property
    def locks(self) -> Locks:
        return Locks(self.state)

    def wanted(self, site: str, *issued: Issued, first: bool = False, generation: str = "") -> RotationRequest:
        candidate = candidate_of(*issued) if issued else None
        return RotationRequest(self.site(site), self.anchors, candidate, generation, first, who="tester")

    def run(self, *batch: RotationRequest, ports: Ports | None = None) -> tuple[Outcome, ...]:
        ports = ports or self.ports
        with ports.locks.rotation("tester", 60.0) as lock:
            late = [RotationRequest(self.site(s), self.anchors) for s in lock.interrupted]
            if late:
                recover(late, ports, lock)
            return rotate(batch, ports, lock)

    def swap(self, site: str, *issued: Issued, first: bool = False) -> Outcome:
        return self.run(self.wanted(site, *issued, first=first))[0]

    def live(self, site: str = "example") -> str:
        return read_live(str(self.include_dir), site).generation

    # -- the rotation as a command

    def write_pair(self, issued: Issued, where: Path | None = None) -> tuple[Path, Path]:
        """Chain and key as files, for a command line."""
        where = where or self.root / "renewal"
        where.mkdir(exist_ok=True)
        chain, key = where / "fullchain.pem", where / "privkey.pem"
        chain.write_bytes(issued.chain_pem)
        key.touch(0o600)
        key.write_bytes(issued.key_pem)
        return chain, key

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "rotator", "--config", str(self.config_path), *map(str, words)]

    def cli(
        self, *words: str | Path, timeout: float = 240, before: Callable[[], None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs rotator as a user would."""
        return subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            preexec_fn=before,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"},
        )

    # -- what clients see

    def shown(self, site: str = "example") -> set[tuple[bytes, ...]]:
        """The chains that an independent client is shown, over all listeners."""
        return {tuple(served_chain(address, self.name(site))) for address in self.addresses}
