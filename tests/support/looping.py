"""The daemon's loop on a simulated host: its passes are called by the test, in virtual time; no threads, no tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rotator import bootstrap
from rotator.core.model import Outcome, Policy, Site
from rotator.daemon.journal import Journal
from rotator.daemon.loop import Loop
from rotator.daemon.runtime import ManagedSite, Runtime
from rotator.daemon.telemetry import Telemetry
from rotator.rotation.pacing import Limits
from rotator.sources.drop_directory import DropDirectories, DropLocation
from rotator.sources.drop_source import DropSource
from rotator.storage.records import Intent
from rotator.validation.evidence import Evidence
from rotator.validation.intermediates import Pool
from rotator.validation.validate import Anchors
from tests.support.authority import Issued
from tests.support.hosts import Host, make_site


@dataclass
class Looping:
    """A host whose loop has started.

    Args:
        root: its tree.
        sites: their names.
        settle: grace time.
        limits: pacing.
        bare: nothing is live yet.
        pool: intermediates of the configuration.
        password_file: of every site.
        sources: the source of a site's renewals, where it is not a directory.
    """

    root: Path
    sites: tuple[str, ...] = ("example",)
    settle: float = 10.0
    limits: Limits = field(default_factory=Limits)
    bare: bool = False
    start: bool = True
    policy: Policy | None = field(default=None)
    pool: Pool = field(default_factory=Pool)
    password_file: Path | None = None
    sources: Mapping[str, DropSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host = Host(self.root, tuple(make_site(name) for name in self.sites), bare=self.bare)
        self.world, self.clock, self.nginx = self.host.world, self.host.world.clock, self.host.world.nginx
        if self.bare:
            self.nginx.start()
        self.store, self.history, self.locks = self.world.store, self.world.history, self.world.locks
        self.incoming = self.root / "incoming"
        self.incoming.mkdir()
        self.log = self.root / "log"
        self._fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.loop = self._loop()
        if self.start:
            self.loop.start(1.0)
            self.settle_down()

    def _loop(self) -> Loop:
        journal = Journal(self._fd)
        self.telemetry = Telemetry(journal)
        return Loop(self.runtime(), journal, self.telemetry)

    def close(self) -> None:
        os.close(self._fd)

    def runtime(self, *, anchors: Anchors | None = None) -> Runtime:
        """The configuration as the attributes say now."""
        sites = {}
        locations = [
            DropLocation(site.name, self.incoming / site.name, password_file=self.password_file)
            for site in self.host.sites
            if site.name not in self.sources
        ]
        directories = DropDirectories(self.incoming, locations)
        for site in self.host.sites:
            trusted = anchors or self.host.anchors
            told = replace(site, policy=self.policy) if self.policy else site
            source, policy = self.sources.get(site.name, directories), bootstrap.policy_of(told, trusted, self.pool)
            sites[site.name] = ManagedSite(told, trusted, policy, source, self.pool)
        return Runtime(sites, self.telemetry.counting(self.world.ports), self.settle, 15.0, self.limits)

    def renew(self, evidence: Evidence) -> None:
        """Other lists on the disk, read at the hourly duty; what is live is judged then."""
        self.host.anchors = self.host.anchors.beside(evidence)
        self.loop.renew(self.runtime())
        self.loop.maintenance.validate_live()

    def restart(self) -> None:
        """Another process on the same disk."""
        self.loop = self._loop()
        self.loop.start(1.0)
        self.settle_down()

    # -- time

    def tick(self) -> float:
        """One pass; what it asks for at once is done too, as the real loop does."""
        due = self.loop.tick()
        while due <= self.clock.time:
            due = self.loop.tick()
        return due

    def settle_down(self) -> None:
        """Passes until nothing is to be done at once."""
        self.tick()

    def run_for(self, seconds: float) -> None:
        """As many passes as fall into this time."""
        end = self.clock.time + seconds
        while self.clock.time < end:
            due = self.tick()
            next_scan = self.clock.time + 15.0
            self.clock.sleep(max(0.001, min(due, next_scan, end) - self.clock.time))
        self.tick()

    # -- drops

    def site(self, name: str = "example") -> Site:
        return next(site for site in self.host.sites if site.name == name)

    def issue(self, name: str = "example", *, kind: str = "ecdsa", later: float = 0) -> Issued:
        return self.host.issue(self.site(name), kind=kind, later=later)

    def drop(self, issued: Issued, name: str = "example", prefix: str = "") -> None:
        self.write(f"{prefix}fullchain.pem", issued.chain_pem, name)
        self.write(f"{prefix}privkey.pem", issued.key_pem, name)

    def write(self, file: str, data: bytes, name: str = "example") -> Path:
        path = self.incoming / name / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path

    # -- what came of it

    def intent(self, name: str = "example") -> Intent:
        return self.store.intent(name)

    def decided(self, name: str = "example") -> tuple[str, str]:
        found = self.intent(name)
        return found.result, found.reason

    def shows(self, issued: Issued, name: str = "example") -> bool:
        return self.host.nginx_shows[name] == issued.chain_der

    def said(self, *words: str) -> int:
        """How many lines of the log hold all of these."""
        return sum(all(word in line for word in words) for line in self.log.read_text().splitlines())

    def by_hand(self, issued: Issued, name: str = "example") -> Outcome:
        """A swap on the command line, beside the daemon."""
        return self.host.swap(self.site(name), issued)
