"""What the daemon measures of itself: counters, snapshots, health, the page; no loop and no metric names here.

Nothing here can hold up a rotation: a port that is taken is told once and tried again, and the page is made in the
server's thread from a value that never changes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from rotator import web
from rotator.apply import Applied
from rotator.daemon.intake import Memory
from rotator.daemon.journal import NOTICE, WARNING, Journal
from rotator.errors import RotatorError
from rotator.hands import ApplyHand, Clock
from rotator.metrics import Counters, InputState, Last, Registry, SiteFacts, Snapshot
from rotator.model import Outcome, Result, Workers
from rotator.reconcile import Held, Nothing, Rotate, Settling, Wait

LISTEN_AGAIN = 30.0
"""Seconds until a metrics port that was taken is tried again."""
STALLED_AFTER = 120.0
"""Seconds without a sign of life after which the loop counts as dead: longer than any proof sleeps."""


class Measuring:
    """Everything that is counted and shown.

    Args:
        journal: where a port that cannot be had is told.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.counters = Counters()
        self.config = Last()
        self.registry: Registry | None = None
        self._server: web.Server | None = None
        self._listen = ""
        self._listen_at = 0.0
        self._trouble = ""
        self._ready = False
        self._beat_at = time.monotonic()
        self._reload: Applied | None = None

    # -- health, in the server's thread

    def alive(self) -> bool:
        """Whether the loop gave a sign of life of late."""
        return time.monotonic() - self._beat_at < STALLED_AFTER

    def ready(self) -> bool:
        """Whether the first pass is done."""
        return self._ready

    def beat(self) -> None:
        """The loop's sign of life."""
        self._beat_at = time.monotonic()

    # -- the page

    def listen(self, address: str) -> None:
        """Serves the page there; called in each pass, and cheap when it is served already."""
        now = time.monotonic()
        if address == self._listen and (self._server or now < self._listen_at):
            return
        self.close()
        self._listen, self._listen_at = address, now + LISTEN_AGAIN
        self.registry = self.registry or Registry()
        try:
            self._server = web.serve(address, self.registry, self)
        except RotatorError as e:
            if e.message != self._trouble:
                self._trouble = e.message
                self.journal.say("metrics-down", f"{e.message}; {e.hint}", WARNING)
            return
        self._trouble = ""
        self.journal.say("metrics", f"served at http://{address}/metrics", NOTICE)

    def close(self) -> None:
        """Ends serving."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def publish(
        self,
        memories: Mapping[str, Memory],
        seen: Mapping[str, SiteFacts],
        *,
        workers: Workers | None,
        watcher_up: bool,
        overflows: int,
        scanned_at: datetime,
        scan_interval: float,
    ) -> None:
        """What is known after a pass.

        Args:
            memories: of every drop.
            seen: the last look at each site.
            workers: nginx's processes.
            watcher_up: whether file events are heard.
            overflows: how often some of them were lost.
            scanned_at: when the drops were looked at, UTC.
            scan_interval: seconds between two looks.
        """
        self._ready = True
        while self.counters.overflows < overflows:
            self.counters = self.counters.after_overflow()
        if self.registry is None:
            return
        sites = tuple(
            replace(seen.get(name) or SiteFacts(name), input=input_state(memory)) for name, memory in memories.items()
        )
        self.registry.publish(
            Snapshot(
                sites,
                workers,
                watcher_up,
                scanned_at,
                timedelta(seconds=scan_interval),
                self.config,
                self.counters,
            )
        )

    # -- counting

    def outcome(self, done: Outcome, trigger: str) -> None:
        """Counts how it ended for a site, and the reload that belongs to it."""
        seconds = None
        if done.result is Result.ROTATED and done.stages.get("apply"):
            seconds = done.stages["apply"] + done.stages.get("prove", 0.0)
        self._count_reload(done.at, proved=done.result in (Result.ROTATED, Result.ROLLED_BACK), seconds=seconds)
        self.counters = self.counters.after(done, trigger)

    def scan_error(self, reason: str) -> None:
        """Counts a place that could not be looked at."""
        self.counters = self.counters.after_scan_error(reason)

    def counting(self, apply: ApplyHand, clock: Clock) -> ApplyHand:
        """The privileged step, with each reload counted."""

        def counted(generations: Mapping[str, str], *, hup: bool) -> Applied:
            if hup:
                self._count_reload(clock.now(), proved=False)  # another reload follows: this one was not proved
            applied = apply(generations, hup=hup)
            if hup:
                self._reload = applied
            return applied

        return counted

    def _count_reload(self, at: datetime, *, proved: bool, seconds: float | None = None) -> None:
        applied, self._reload = self._reload, None
        if applied is None:
            return
        failure = applied.error or (applied.decision if applied.decision in ("refused", "gone") else "")
        self.counters = self.counters.after_reload(failure or ("" if proved else "not-proved"), at, seconds)


def input_state(memory: Memory) -> InputState | None:
    """What is shown of a drop; None if nothing lies there."""
    match memory.decision:
        case Nothing():
            return None
        case Held():
            return InputState.HELD
        case Settling():
            return InputState.SETTLING
        case Wait() | Rotate():
            return InputState.DEFERRED
    bad = (Result.REJECTED, Result.ROLLED_BACK, Result.STRANDED)
    return InputState.REJECTED if memory.decided.result in bad else InputState.ACCEPTED
