"""Ready-made hosts for the tests of whole renewals: sites, a CA, renewals and the calls that put them live."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rotator.core.model import Candidate, Outcome, Policy, Site, SourceFile
from rotator.rotation.recover import recover
from rotator.rotation.request import RotationRequest
from rotator.rotation.rotate import rotate
from rotator.storage.locks import Lock
from rotator.validation.validate import Anchors
from tests.support.authority import CA, Issued, pem
from tests.support.simulator import World

NAME = "signal.example.test"
LISTENERS = ("127.0.0.1:1890", "127.0.0.1:443")


def make_site(name: str = "example", *, listeners: tuple[str, ...] = LISTENERS, keep: int = 5) -> Site:
    host = NAME if name == "example" else f"{name}.example.test"
    return Site(name, (host,), listeners, Policy(names=(host,)), keep)


def candidate_of(*issued: Issued) -> Candidate:
    """A drop with a chain and a key file for each."""
    files = []
    for number, one in enumerate(issued):
        files.append(SourceFile(f"{number}-fullchain.pem", one.chain_pem))
        files.append(SourceFile(f"{number}-privkey.pem", one.key_pem))
    return Candidate(tuple(files))


@dataclass
class Host:
    """A world whose first pair is live and proved (unless `bare`), with the CA that issued it."""

    root: Path
    sites: tuple[Site, ...] = field(default_factory=lambda: (make_site(),))
    bare: bool = False
    prove_within: float | None = None

    def __post_init__(self) -> None:
        self.world = World(self.root, self.sites, prove_within=self.prove_within)
        self.ca = CA.root()
        self.issuer = self.ca.intermediate()
        self.anchors = Anchors.from_pem(pem(self.ca.cert), "test roots")
        self.first: dict[str, Issued] = {}
        if not self.bare:
            for site in self.sites:
                self.first[site.name] = self.issue(site)
                self.swap(site, self.first[site.name], first=True)
            self.world.nginx.start()
            for site in self.sites:
                self.run(RotationRequest(site, self.anchors))
            self.world.nginx.hups = self.world.nginx.tests = 0
            self.world.applied.clear()

    def issue(self, site: Site | None = None, *, kind: str = "ecdsa", days: float = 90, later: float = 0) -> Issued:
        """A leaf for a site, as it would be issued now (`later`: so many hours after)."""
        site = site or self.sites[0]
        begin = self.world.clock.now() - timedelta(hours=1) + timedelta(hours=later)
        return self.issuer.issue(*site.names, kind=kind, not_before=begin, days=days)

    def issue_by_another(self, site: Site | None = None) -> Issued:
        """A leaf of an intermediate that no stored generation has."""
        site = site or self.sites[0]
        begin = self.world.clock.now() - timedelta(hours=1)
        return self.ca.intermediate("Another").issue(*site.names, not_before=begin)

    def wanted(self, site: Site, *issued: Issued, first: bool = False, force: bool = False) -> RotationRequest:
        return RotationRequest(site, self.anchors, candidate_of(*issued), first=first, force=force, who="tester")

    def run(self, *batch: RotationRequest) -> tuple[Outcome, ...]:
        """The rotation under the lock, as a command would run it: what was interrupted is recovered first."""
        with self.world.locks.rotation("tester", 1.0) as lock:
            self._recover(lock)
            return rotate(batch, self.world.ports, lock)

    def swap(self, site: Site, *issued: Issued, first: bool = False, force: bool = False) -> Outcome:
        return self.run(self.wanted(site, *issued, first=first, force=force))[0]

    def recover(self, *names: str) -> tuple[Outcome, ...]:
        """What a start does."""
        with self.world.locks.rotation("tester", 1.0) as lock:
            sites = [s for s in self.sites if not names or s.name in names]
            return recover([RotationRequest(s, self.anchors) for s in sites], self.world.ports, lock)

    def _recover(self, lock: Lock) -> None:
        interrupted = [s for s in self.sites if s.name in lock.interrupted]
        if interrupted:
            recover([RotationRequest(s, self.anchors) for s in interrupted], self.world.ports, lock)

    @property
    def nginx_shows(self) -> dict[str, tuple[bytes, ...]]:
        """The leaf's chain that every active worker has loaded; fails where they differ."""
        shown: dict[str, tuple[bytes, ...]] = {}
        for worker in self.world.nginx.workers_:
            if worker.active:
                for site, chains in worker.loaded.items():
                    chain = next(iter(chains.values()))
                    assert shown.setdefault(site, chain) == chain, "active workers show different chains"
        return shown
