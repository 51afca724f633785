"""The passes of the daemon: look at every drop, decide, and put what is valid live together.

A pass reads the disk again and acts on what it finds, so that losing every event costs time and never correctness:

 1. Look: which drops have changed, and has nginx visibly changed since something was deferred? Where file events name
    the drops, the others are looked at when the scan interval has passed.
 2. Decide about each drop that changed or is due (`deciding`), in a fair order and for a bounded time (`due_drops`);
    the next pass goes on with the others.
 3. Put everything that is valid and whose turn it is (`turns`) live, in one batch, under the host's lock (`applying`);
    what arrives meanwhile goes with the next batch.
 4. Write each decision down, and report it in one line (`recording`).
 5. Do a little maintenance, which is not urgent: probe, validate again, tidy up (`maintenance`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta

from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.daemon.applying import put_live, report_holder
from rotator.daemon.deciding import NEVER
from rotator.daemon.drop_state import DropState
from rotator.daemon.due_drops import decide_due
from rotator.daemon.journal import WARNING, Journal
from rotator.daemon.loop_state import LoopState
from rotator.daemon.runtime import WHO, Runtime
from rotator.daemon.scan import DropScan
from rotator.daemon.telemetry import Telemetry
from rotator.rotation import pacing
from rotator.rotation.decide import resumed_wait
from rotator.rotation.prepare import CLOCK_TOLERANCE
from rotator.storage.history import UNREAD

NGINX_LOOK_EVERY = 1.0
"""Seconds between two looks at nginx while something waits for it."""
MAINTAIN_FOR = 1.0
"""Seconds that a pass spends on maintenance at most, and less if an event comes."""
NOT_NGINX = frozenset({Code.IO_ERROR, Code.PERMISSION, Code.NOT_YET_VALID, Reason.MIN_RELOAD_INTERVAL, Reason.COSTLY})
"""The reasons to wait in which nginx has no part."""


class Loop(LoopState):
    """The passes, and the state between two of them.

    Args:
        runtime: the configuration.
        journal: gets a line for each event.
        telemetry: counts the outcomes; None for one of its own.
        urgent: whether an event has come meanwhile.
    """

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        telemetry: Telemetry | None = None,
        urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(runtime, journal, telemetry)
        self.urgent = urgent
        self.idle = True
        """Whether the last pass put nothing live."""
        self._clocks = self.now()
        self._history_position = UNREAD

    # -- life

    def start(self, lock_within: float) -> None:
        """Recovers every site before any drop is acted on.

        Args:
            lock_within: seconds to wait for another rotation.

        Raises:
            RotatorError: the store cannot be used, or `lock-busy`.
        """
        with self.runtime.ports.locks.rotation(WHO, lock_within, lambda holder: report_holder(self, holder)) as lock:
            self.maintenance.recover_all(lock)
        now = self.now()
        for name, state in self.states.items():
            intent = self.runtime.ports.store.intent(name)
            if intent.caveat:
                self.journal.say("newer-record", intent.caveat, WARNING, site=name)
            state.deferral = resumed_wait(intent, now)
            state.end_wait(pacing.REASONS, now.monotonic)
        self.nginx_watch.note(self.runtime.ports)

    def reconfigure(self, runtime: Runtime) -> None:
        """Takes another configuration; every drop is looked at again, and every listener is probed."""
        self.runtime, self.scan = runtime, DropScan(runtime.sources, self.now())
        self.states = {name: self.states.get(name, DropState()) for name in runtime.sites}
        for state in self.states.values():
            state.signature, state.due = None, 0.0
            state.end_wait(pacing.REASONS, 0.0)
        self.maintenance.reconfigure(runtime)

    def renew(self, runtime: Runtime) -> None:
        """Takes other roots or lists under the same configuration; a drop whose site they concern is decided again.

        Nothing has changed in the drops, so no grace time begins.
        """
        before, self.runtime, self.maintenance.runtime = self.runtime, runtime, runtime
        for name, managed in runtime.sites.items():
            if managed.policy != before.sites[name].policy:
                self.states[name].due = 0.0

    # -- one pass

    def tick(self, touched: Collection[str] | None = None) -> float:
        """One pass.

        Args:
            touched: the paths of file events; None if they are not known.

        Returns:
            The monotonic time at which the next pass is due without an event.
        """
        self._look(touched)
        self._look_at_clock()
        self._look_at_nginx()
        self._look_at_commands()
        planned = decide_due(self)
        self.idle = not planned
        if planned:
            put_live(self, planned)
        more = self._maintain()
        now = self.now()
        for state in self.states.values():
            state.note_whether_undecided(now)
        return self._next(more=more)

    def _maintain(self) -> bool:
        """Does as much of the maintenance as fits before an event comes. Returns whether more is left."""
        now = self.now().monotonic
        end = now if any(state.due <= now for state in self.states.values()) else now + MAINTAIN_FOR
        while True:
            more = self.maintenance.step()
            self.runtime.ports.alive()
            if self.maintenance.reloaded:
                self.nginx_watch.note(self.runtime.ports)
            if not more or self.urgent() or self.now().monotonic >= end:
                return more

    def _look(self, touched: Collection[str] | None) -> None:
        now = self.now()
        due = {name for name, state in self.states.items() if state.due <= now.monotonic}
        for name, look in self.scan.look(touched, due, now).items():
            if self.states[name].record_look(look, now.monotonic):
                message = f"{look.problem}; {look.hint}" if look.problem else "the drop can be looked at again"
                if look.reason:
                    self.telemetry.scan_error(look.reason)
                self.journal.say("drop-lost" if look.problem else "drop-back", message, WARNING, site=name)

    def _look_at_clock(self) -> None:
        """If the clock was set since the last pass, validates refused and deferred drops at the new time."""
        now, before = self.now(), self._clocks
        self._clocks = now
        step = (now.wall - before.wall).total_seconds() - (now.monotonic - before.monotonic)
        if abs(step) < CLOCK_TOLERANCE.total_seconds():
            return
        by = timedelta(seconds=round(step))
        message = f"it was set by {by}; refused and waiting drops are validated at the new time"
        self.journal.say("clock-set", message, WARNING)
        for state in self.states.values():
            state.clock_was_set(now.monotonic)

    def _look_at_nginx(self) -> None:
        """Makes the drops due that wait for nginx, as soon as it has visibly changed."""
        now = self.now().monotonic
        waiting = [s for s in self.states.values() if s.deferral and s.deferral.reason not in NOT_NGINX]
        idle = not (waiting or self.maintenance.degraded_sites) or now < self.nginx_watch.at + NGINX_LOOK_EVERY
        if idle:
            return
        changed = self.nginx_watch.note(self.runtime.ports)
        room = pacing.has_room(self.nginx_watch.workers, self.runtime.limits)
        for state in waiting:
            if changed:
                state.end_wait(None, now)
            elif room:
                state.end_wait({Reason.DRAIN_BUDGET}, now)
        if changed:
            self.maintenance.nginx_changed()

    def _look_at_commands(self) -> None:
        """Has the sites that commands have changed probed soon, so that the metrics show the change at once."""
        self._history_position, entries = self.runtime.ports.history.entries_since(self._history_position)
        known = [entry for entry in entries if entry.site in self.runtime.sites]
        if by_commands := [entry for entry in known if entry.who != WHO]:
            self.maintenance.look_at({entry.site for entry in by_commands})
            for entry in by_commands:
                self.states[entry.site].lives = None
            counted = self.telemetry.counters.after_commands(by_commands)
            self.telemetry.counters = counted.with_last_swaps(known)  # the last swap may still be the daemon's own

    def _next(self, *, more: bool) -> float:
        now = self.now().monotonic
        if more:
            return now
        due = min((state.due for state in self.states.values()), default=NEVER)
        waits = self.maintenance.degraded_sites or any(
            state.deferral and state.deferral.reason not in NOT_NGINX for state in self.states.values()
        )
        look = NGINX_LOOK_EVERY if waits else NEVER
        return min(due, now + look, self.maintenance.due())
