"""The ports: everything that a rotation needs from outside, as types, for real adapters and simulated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rotator.core.model import Pair, Served, Target, Workers
from rotator.nginx.pair_trial import NginxVerdict
from rotator.privsep.apply import Applied as Applied  # a part of the port, for those who wrap it
from rotator.privsep.apply import Live
from rotator.privsep.socket_client import ApplyPort
from rotator.storage.generations import Store
from rotator.storage.history import History
from rotator.storage.locks import Locks


class PendingTest(Protocol):
    """A started `nginx -t`."""

    def verdict(self) -> NginxVerdict:
        """Waits for its answer."""


class NginxPort(Protocol):
    """The questions that a rotation asks nginx."""

    def workers(self) -> Workers | None:
        """Its processes at one look; None where they cannot be seen."""

    def test_candidate(self, directory: Path, files: Sequence[tuple[str, str]]) -> PendingTest:
        """Starts a test of these (chain, key) files alone."""

    def full_test(self) -> NginxVerdict:
        """A test of its whole configuration."""


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> datetime:
        """UTC."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    def sleep(self, seconds: float) -> None:
        """Waits."""


@dataclass(frozen=True, slots=True)
class Ports:
    """All ports together.

    Args:
        store: the store on disk.
        history: the record of all outcomes.
        locks: one rotation, one daemon.
        apply: the privileged step.
        live: reads what a site's include names now.
        nginx: see `NginxPort`.
        probe: handshakes with these targets, each within so many seconds.
        rehearse: a handshake in memory with a pair; why it failed, or an empty string.
        clock: time.
        prove_within: seconds for the proof, or None for max(5 s, 3 × the last reload) + nginx's own bind retries.
        include_dir: the directory of the includes, for messages.
        say: shows progress to a person who waits.
        proved: gets the result of each proof: whether everything expected is served.
        alive: called between two pieces of bounded work, such as two sites of a batch: the process still works.
    """

    store: Store
    history: History
    locks: Locks
    apply: ApplyPort
    live: Callable[[str], Live]
    nginx: NginxPort
    probe: Callable[[Sequence[Target], float], tuple[Served, ...]]
    rehearse: Callable[[Pair, str], str]
    clock: Clock
    include_dir: str
    prove_within: float | None = None
    say: Callable[[str], None] = lambda _: None
    proved: Callable[[bool], None] = lambda _: None
    alive: Callable[[], None] = lambda: None
