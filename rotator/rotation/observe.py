"""Observation: the three facts of a site side by side: what is wanted, what is on the disk, what is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rotator.core.model import Generation, KeyType, Served, Site, Workers
from rotator.rotation.ports import Ports
from rotator.rotation.proof import HANDSHAKE_WITHIN, differs, expectation
from rotator.rotation.snapshot import take_snapshot
from rotator.storage.records import Intent


@dataclass(frozen=True, slots=True)
class ObservedHandshake:
    """One handshake, compared with the live chain.

    Args:
        served: what it showed.
        matches: whether that is the live chain, byte for byte; None where nothing is live.
        difference: what is different, in words; empty if nothing is.
    """

    served: Served
    matches: bool | None
    difference: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The observation of a site at one moment.

    Args:
        site: the site.
        live: the generation that nginx's include names.
        verified: name of the generation last proved; empty if none.
        intent: the last decision, and a hold.
        seen: one for each listener, name and kind of key.
        workers: nginx's processes; None where they cannot be seen.
        problem: why the disk could not be read; empty if it could.
    """

    site: Site
    live: Generation | None
    verified: str
    intent: Intent
    seen: tuple[ObservedHandshake, ...]
    workers: Workers | None
    problem: str = ""

    @property
    def served_everywhere(self) -> bool:
        """Whether every listener serves what is live."""
        return bool(self.seen) and all(handshake.matches for handshake in self.seen)

    @property
    def well(self) -> bool:
        """Whether wanted, disk and served agree."""
        return self.live is not None and self.live.name == self.verified and self.served_everywhere


def observe(site: Site, ports: Ports) -> Observation:
    """Reads the disk and asks every listener once. It never raises for a fault of the site."""
    return observe_all([site], ports)[0]


def observe_all(sites: Sequence[Site], ports: Ports) -> tuple[Observation, ...]:
    """The same for many sites; their listeners are probed concurrently."""
    snapshots = [take_snapshot(site.name, ports) for site in sites]
    expected = [expectation(site, snapshot.chains) for site, snapshot in zip(sites, snapshots, strict=True)]
    # For a site without a live pair, each handshake lets the server choose the kind of key.
    targets_of_sites = [
        tuple(e or expectation(site, {KeyType.ECDSA: ()})) for e, site in zip(expected, sites, strict=True)
    ]
    handshakes = ports.probe([target for targets in targets_of_sites for target in targets], HANDSHAKE_WITHIN)
    served = {handshake.target: handshake for handshake in handshakes}
    workers = ports.nginx.workers()
    return tuple(
        Observation(
            site,
            snapshot.generation,
            snapshot.verified,
            snapshot.intent,
            tuple(_compared(served[target], chains.get(target)) for target in targets),
            workers,
            snapshot.fault.message if snapshot.fault else "",
        )
        for site, snapshot, chains, targets in zip(sites, snapshots, expected, targets_of_sites, strict=True)
    )


def _compared(served: Served, chain: tuple[bytes, ...] | None) -> ObservedHandshake:
    matches = None if chain is None else served.chain == chain
    difference = served.failure or ("" if matches or chain is None else differs(served, chain))
    return ObservedHandshake(served, matches, difference)
