"""What the story needs of the world, as types: each hand can be the real one or a simulated one; no code here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rotator.apply import Applied, Live
from rotator.history import History
from rotator.locks import Locks
from rotator.model import Pair, Served, Target, Workers
from rotator.nginx.candidate import Verdict
from rotator.store import Store


class PendingTest(Protocol):
    """A started `nginx -t`."""

    def verdict(self) -> Verdict:
        """Waits for its answer."""


class NginxHand(Protocol):
    """What is asked of nginx."""

    def workers(self) -> Workers | None:
        """Its processes at one look; None where they cannot be seen."""

    def test_candidate(self, directory: Path, files: Sequence[tuple[str, str]]) -> PendingTest:
        """Starts a test of these (chain, key) files alone."""

    def full_test(self) -> Verdict:
        """A test of its whole configuration."""


class ApplyHand(Protocol):
    """The privileged step."""

    def __call__(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        """Makes the includes name these generations; then one HUP, or none."""


class Clock(Protocol):
    """Time, and waiting for it."""

    def now(self) -> datetime:
        """UTC."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    def sleep(self, seconds: float) -> None:
        """Waits."""


@dataclass(frozen=True, slots=True)
class Hands:
    """All hands together.

    Args:
        store: the store on disk.
        history: the audit trail beside it.
        locks: one rotation, one daemon.
        apply: the privileged step.
        live: what a site's include names now.
        nginx: what is asked of nginx.
        probe: handshakes with these targets, each within so many seconds.
        rehearse: a handshake in memory with a pair; why it failed, or nothing.
        clock: time.
        prove_within: seconds for the proof, or None for max(5 s, 3 × the last reload) + nginx's own bind retries.
        include_dir: where the includes stand, for messages.
        say: told what is going on, for a person who waits.
        proved: told how each proof ended: whether everything expected is served.
    """

    store: Store
    history: History
    locks: Locks
    apply: ApplyHand
    live: Callable[[str], Live]
    nginx: NginxHand
    probe: Callable[[Sequence[Target], float], tuple[Served, ...]]
    rehearse: Callable[[Pair, str], str]
    clock: Clock
    include_dir: str
    prove_within: float | None = None
    say: Callable[[str], None] = lambda _: None
    proved: Callable[[bool], None] = lambda _: None
