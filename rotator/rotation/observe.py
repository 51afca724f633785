"""The three facts of a site, side by side: what is wanted, what is on the disk, what is served; nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rotator.core.errors import RotatorError
from rotator.core.model import Generation, KeyType, Served, Site, Target, Workers
from rotator.rotation.ports import Ports
from rotator.rotation.proof import HANDSHAKE_WITHIN, differs, expectation
from rotator.storage.records import Intent


@dataclass(frozen=True, slots=True)
class Seen:
    """One handshake beside what it should have shown.

    Args:
        served: what it showed.
        matches: whether that is the live chain, byte for byte; None where nothing is live.
        words: what is different; empty if nothing is.
    """

    served: Served
    matches: bool | None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so, now.

    Args:
        site: which.
        live: the generation that nginx's include names.
        verified: name of the generation last proved; empty if none.
        intent: what was decided last, and a hold.
        seen: one for each listener, name and kind of key.
        workers: nginx's processes; None where they cannot be seen.
        problem: why the disk could not be read, in words; empty if it could.
    """

    site: Site
    live: Generation | None
    verified: str
    intent: Intent
    seen: tuple[Seen, ...]
    workers: Workers | None
    problem: str = ""

    @property
    def served_everywhere(self) -> bool:
        """Whether every listener serves what is live."""
        return bool(self.seen) and all(one.matches for one in self.seen)

    @property
    def well(self) -> bool:
        """Whether wanted, disk and served agree."""
        return self.live is not None and self.live.name == self.verified and self.served_everywhere


def observe(site: Site, ports: Ports) -> Facts:
    """Reads the disk and asks every listener once. Never raises for what is wrong: that is what it is to show."""
    return observe_all([site], ports)[0]


def observe_all(sites: Sequence[Site], ports: Ports) -> tuple[Facts, ...]:
    """The same for many sites, with their listeners asked side by side."""
    found = [_on_disk(site, ports) for site in sites]
    targets = [target for disk in found for target in disk.targets]
    served = {one.target: one for one in ports.probe(targets, HANDSHAKE_WITHIN)}
    workers = ports.nginx.workers()
    return tuple(
        Facts(
            site,
            disk.live,
            ports.store.verified(site.name),
            ports.store.intent(site.name),
            tuple(_beside(served[target], disk.expected.get(target)) for target in disk.targets),
            workers,
            disk.problem,
        )
        for site, disk in zip(sites, found, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Disk:
    live: Generation | None
    problem: str
    expected: Mapping[Target, tuple[bytes, ...]]
    targets: tuple[Target, ...]


def _on_disk(site: Site, ports: Ports) -> _Disk:
    live, problem = ports.live(site.name), ""
    generation = None
    if live.problem:
        problem = live.problem
    elif live.generation:
        try:
            generation = ports.store.load(site.name, live.generation)
        except RotatorError as e:
            problem = e.message
    expected = expectation(site, generation) if generation else {}
    anything = Generation(site.name, "", {KeyType.ECDSA: ()})  # with one kind of key, whichever is served is shown
    return _Disk(generation, problem, expected, tuple(expected or expectation(site, anything)))


def _beside(served: Served, chain: tuple[bytes, ...] | None) -> Seen:
    matches = None if chain is None else served.chain == chain
    words = served.failure or ("" if matches or chain is None else differs(served, chain))
    return Seen(served, matches, words)
