"""One pass of the daemon: look at every drop, decide, and put what is fit live together; no thread, no waiting here.

A pass reads the disk anew and acts on what it finds, so that losing every event costs time and never correctness:

 1. Look: which drops have changed, and has nginx become another since something was deferred? Where events tell which
    drops these may be, the others are looked at when the scan interval is over.
 2. Decide each drop that changed or is due (`reconcile`).
 3. Put everything that is fit and whose turn it is (`pacing`) live, in one batch, under the host's lock; whatever
    arrives meanwhile goes with the next.
 4. Write down what was decided, and tell it in one line.
 5. Do a little of what is not urgent: prove, judge again, tidy up (`tending`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result, has_reloaded
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.daemon import drop_state
from rotator.daemon.drop_state import DropState, RotationRequest
from rotator.daemon.journal import ERROR, NOTICE, WARNING, Journal
from rotator.daemon.maintenance import Maintenance
from rotator.daemon.nginx_watch import NginxWatch
from rotator.daemon.runtime import WHO, ManagedSite, Runtime
from rotator.daemon.scan import DropScan
from rotator.daemon.telemetry import Telemetry
from rotator.rotation import pacing
from rotator.rotation.decide import (
    LONGEST_WAIT,
    Decided,
    Deferral,
    Drop,
    Held,
    Moment,
    Nothing,
    Refuse,
    Rotate,
    Settling,
    Wait,
    backoff,
    decide,
    resumed,
)
from rotator.rotation.pacing import LastReload, Limits, ReadyDrop
from rotator.rotation.prepare import CLOCK_TOLERANCE
from rotator.rotation.rotate import rotate
from rotator.storage.history import NEVER as NEVER_READ
from rotator.storage.records import Intent

LOCK_WITHIN = 0.3
"""Seconds to wait for another rotation before the pass goes on without."""
LOCK_AGAIN = 0.5
"""Seconds until the next try then."""
NGINX_LOOK_EVERY = 1.0
"""Seconds between two looks at nginx while something waits for it."""
YOUNG_FOR = 2.0
"""Seconds after which a drop that had just been changed is read once more: see `drops`."""
MAINTAIN_FOR = 1.0
"""Seconds that a pass spends at most on what is not urgent, and less if an event comes."""
NEVER = math.inf


class Loop:
    """The state between two passes.

    Args:
        runtime: the configuration.
        journal: where outcomes are told.
        telemetry: what counts the outcomes; None for one of its own.
        urgent: whether an event has come meanwhile.
    """

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        telemetry: Telemetry | None = None,
        urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        self.urgent = urgent
        self.telemetry = telemetry or Telemetry(journal)
        self.runtime = runtime
        self.journal = journal
        self.maintenance = Maintenance(runtime, journal, self.telemetry.outcome)
        self.states: dict[str, DropState] = {name: DropState() for name in runtime.sites}
        self.idle = True
        """Whether the last pass found nothing to put live."""
        self.last_reload = LastReload()
        self._nginx_watch = NginxWatch()
        self._noted = self._now()
        self._trouble = ""
        self._history_position = NEVER_READ
        self.scan = DropScan(runtime.sources, self._noted)

    # -- life

    def start(self, lock_within: float) -> None:
        """What a start has to bring in order before anything is taken from a drop.

        Args:
            lock_within: seconds to wait for another rotation.

        Raises:
            RotatorError: the store cannot be used, or `lock-busy`.
        """
        with self.runtime.ports.locks.rotation(WHO, lock_within, self._waiting) as lock:
            self.maintenance.recover_all(lock)
        now = self._now()
        for name, state in self.states.items():
            state.deferral = resumed(self.runtime.ports.store.intent(name), now)
            state.look_again(pacing.REASONS, now.monotonic)
        self._nginx_watch.note(self.runtime.ports)

    def reconfigure(self, runtime: Runtime) -> None:
        """Another configuration from now on; every drop is looked at anew, and every listener asked."""
        self.runtime, self.scan = runtime, DropScan(runtime.sources, self._now())
        self.states = {name: self.states.get(name, DropState()) for name in runtime.sites}
        for state in self.states.values():
            state.signature, state.due = None, 0.0
            state.look_again(pacing.REASONS, 0.0)
        self.maintenance.reconfigure(runtime)

    def renew(self, runtime: Runtime) -> None:
        """Other roots or lists under the same configuration: decided drops are asked again, if anything is different.

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
            touched: the files and directories in which something has happened; None if that is not known.

        Returns:
            The monotonic time at which the next is due even if nothing wakes it.
        """
        self._look(touched)
        self._look_at_clock()
        self._look_at_nginx()
        self._note_commands()
        now = self._now().monotonic
        due = [name for name, state in self.states.items() if state.due <= now]
        requests = [request for name in due if (request := self._request(name))]
        self.idle = not requests
        if requests:
            self._put_live(requests)
        return self._next(more=self._maintain())

    def _maintain(self) -> bool:
        """As much of what is not urgent as fits before something else comes. Returns whether more is left."""
        end = self._now().monotonic + MAINTAIN_FOR
        while True:
            more = self.maintenance.step()
            if self.maintenance.reloaded:
                self._nginx_watch.note(self.runtime.ports)
            if not more or self.urgent() or self._now().monotonic >= end:
                return more

    def _look(self, touched: Collection[str] | None) -> None:
        now = self._now()
        due = {name for name, state in self.states.items() if state.due <= now.monotonic}
        for name, look in self.scan.look(touched, due, now).items():
            if self.states[name].note(look, now.monotonic):
                words = f"{look.problem}; {look.hint}" if look.problem else "the drop can be looked at again"
                if look.reason:
                    self.telemetry.scan_error(look.reason)
                self.journal.say("drop-lost" if look.problem else "drop-back", words, WARNING, site=name)

    def _look_at_clock(self) -> None:
        """A clock that was set since the last pass: what it had refused or made wait is judged by the new time."""
        now, before = self._now(), self._noted
        self._noted = now
        step = (now.wall - before.wall).total_seconds() - (now.monotonic - before.monotonic)
        if abs(step) < CLOCK_TOLERANCE.total_seconds():
            return
        words = f"it was set by {timedelta(seconds=round(step))}; what was refused or waits is judged by the new time"
        self.journal.say("clock-set", words, WARNING)
        for state in self.states.values():
            state.judge_again(now.monotonic)

    def _look_at_nginx(self) -> None:
        """What waits for nginx is due as soon as nginx has visibly become another."""
        now = self._now().monotonic
        waiting = [m for m in self.states.values() if m.deferral and m.deferral.reason not in _NOT_NGINX]
        idle = not (waiting or self.maintenance.degraded_sites) or now < self._nginx_watch.at + NGINX_LOOK_EVERY
        if idle:
            return
        changed = self._nginx_watch.note(self.runtime.ports)
        room = pacing.has_room(self._nginx_watch.workers, self.runtime.limits)
        for state in waiting:
            if changed:
                state.look_again(None, now)
            elif room:
                state.look_again({Reason.DRAIN_BUDGET}, now)
        if changed:
            self.maintenance.nginx_changed()

    def _note_commands(self) -> None:
        """What commands have done beside us: the page is to show it soon, and not when its turn comes."""
        self._history_position, entries = self.runtime.ports.history.news(self._history_position)
        known = [entry for entry in entries if entry.site in self.runtime.sites]
        if theirs := [entry for entry in known if entry.who != WHO]:
            self.maintenance.look_at({entry.site for entry in theirs})
            counted = self.telemetry.counters.after_commands(theirs)
            self.telemetry.counters = counted.with_last_swaps(known)  # the last swap may be ours all the same

    # -- deciding

    def _request(self, name: str) -> RotationRequest | None:
        """What a drop asks for; a store that cannot be read for one site must not hold up the others."""
        try:
            return self._consider(name)
        except RotatorError as e:
            self._in_trouble(e, [name])
            return None

    def _consider(self, name: str) -> RotationRequest | None:
        managed, state, look, now = (
            self.runtime.sites[name],
            self.states[name],
            self.scan.looks[name],
            self._now(),
        )
        if state.unwritten:
            self._write(name, state, state.unwritten)
        intent = state.unwritten or self.runtime.ports.store.intent(name)
        candidate, error = drop_state.read(self.runtime, name, look)
        digest = drop_state.digest_of(candidate, look, error)
        live = drop_state.live_chains(self.runtime, name) if candidate else {}
        judged = cache(partial(drop_state.judged, self.runtime, candidate, managed, now, live))
        drop = Drop(digest, state.changed, lambda: judged().verdict, error)
        if drop_state.stands(intent, drop, managed, live):
            self._write(name, state, replace(intent, policy=managed.policy))
            intent = state.unwritten or replace(intent, policy=managed.policy)
        known = replace(intent, digest="") if state.anew else intent
        decision = decide(
            drop, known, managed.policy, now, self.runtime.settle, live=frozenset(live), deferral=state.deferral
        )
        first = type(decision) is not type(state.decision)
        state.decision, state.due, state.decided = decision, NEVER, intent
        match decision:
            case Settling(until=until, why=why):
                state.due = until
                if first:
                    self.journal.say("settling", f"not complete yet ({why}); it may still be being written", site=name)
            case Wait():
                self._wait(managed, digest, decision, state)
            case Refuse(error=RotatorError() as fault):
                self._conclude_unread(managed, digest, Result.REJECTED, fault.code, fault.message, fault.hint)
            case Refuse() if candidate:
                return drop_state.request(
                    self.runtime, managed, digest, candidate, intent, reloads=False, judged=judged()
                )
            case Rotate(lacking=lacking) if candidate:
                whole = drop_state.completed(self.runtime, candidate, lacking, managed, now, live)
                same = not lacking and drop_state.is_live(self.runtime, name, judged().verdict, live)
                again = judged() if whole is candidate else None
                return drop_state.request(self.runtime, managed, digest, whole, intent, reloads=not same, judged=again)
            case Nothing() | Decided() | Held():
                state.deferral = None
                if look.young:
                    state.due = now.monotonic + YOUNG_FOR
                if isinstance(decision, Held) and first:
                    words = f"the content of the drop is {decision.hold}; this ends it: rotator swap {name}"
                    self.journal.say("held", words, NOTICE, site=name)
        return None

    # -- pacing

    def _in_turn(self, requests: Sequence[RotationRequest]) -> list[RotationRequest]:
        """Those that may go now. If nginx is reloaded for one of them, whatever waited for its turn goes with it."""
        go = self._paced(requests)
        if any(request.reloads for request in go):
            asked, now = {request.managed.site.name for request in requests}, self._now().monotonic
            for name, state in self.states.items():
                if name in asked or not state.look_again(pacing.REASONS, now):
                    continue
                if request := self._request(name):
                    state.due = now + LOCK_AGAIN
                    go.append(request)
        return go

    def _paced(self, requests: Sequence[RotationRequest]) -> list[RotationRequest]:
        now, limits = self._now(), self.runtime.limits
        if limits == Limits():
            return list(requests)
        self.last_reload = self.last_reload.looked_up(self.runtime.ports.history.last_reload_at(), now)
        names = [request.managed.site.name for request in requests]
        urgency = [drop_state.critical_in(self.runtime, name, now) for name in names]
        asks = [ReadyDrop(name, o.reloads, left) for name, o, left in zip(names, requests, urgency, strict=True)]
        waits = pacing.turns(asks, self.last_reload, self._nginx_watch.workers, limits, now)
        go = []
        for request, wait in zip(requests, waits, strict=True):
            if wait is None:
                go.append(request)
            else:
                self._hold_up(request, wait)
        return go

    def _hold_up(self, request: RotationRequest, wait: Wait) -> None:
        """It waits for its turn: told when it begins to, and written down with the time at which it goes at the latest.

        It is looked at every ten minutes all the same: clocks are set.
        """
        name, now, candidate = request.managed.site.name, self._now(), request.wanted.candidate
        state = self.states[name]
        if not wait.message:
            state.due, state.decision = wait.until, wait
            return
        again = state.deferral and (state.deferral.digest, state.deferral.reason) == (request.digest, wait.reason)
        if not again:
            done = drop_state.record_outcome(
                self.runtime, request.managed, Result.DEFERRED, wait.reason, wait.message, wait.hint, candidate
            )
            self.journal.outcome(done)
            self.telemetry.outcome(done, "drop")
        state.due = min(wait.until, now.monotonic + LONGEST_WAIT)
        state.decision = Wait(state.due, wait.reason)
        state.deferral = Deferral(request.digest, state.due, 0, wait.reason)
        latest = (now.wall + timedelta(seconds=wait.until - now.monotonic)).isoformat(timespec="seconds")
        intent = Intent(request.digest, str(Result.DEFERRED), wait.reason, request.managed.policy, latest)
        if intent != state.decided:
            state.decided = intent
            self._write(name, state, intent)

    # -- acting

    def _put_live(self, requests: Sequence[RotationRequest]) -> None:
        ports = self.runtime.ports
        for request in requests:  # until it is decided, it is due
            self.states[request.managed.site.name].due = self._now().monotonic + LOCK_AGAIN
        try:
            with ports.locks.rotation(WHO, LOCK_WITHIN, self._waiting) as lock:
                self.maintenance.recover_interrupted(lock)
                self._nginx_watch.note(self.runtime.ports)
                mine = self._in_turn([o for o in requests if self._still_mine(o)])
                done = rotate([o.wanted for o in mine], ports, lock) if mine else ()
                for request, outcome in zip(mine, done, strict=True):
                    self._conclude(request.managed, request.digest, outcome)
                if any(has_reloaded(outcome.result, outcome.reason, outcome.stages) for outcome in done):
                    self.last_reload = LastReload(ports.history.last_reload_at(), self._now().monotonic)
                if any(outcome.stages.get("apply") for outcome in done):
                    self._nginx_watch.note(self.runtime.ports)
        except RotatorError as e:
            self._in_trouble(e, [o.managed.site.name for o in requests])
        else:
            self._trouble = ""

    def _still_mine(self, request: RotationRequest) -> bool:
        """Whether nobody has decided about it since: a command may have had the lock before us."""
        name = request.managed.site.name
        if (self.states[name].unwritten or self.runtime.ports.store.intent(name)) == request.intent:
            return True
        self.states[name].due = self._now().monotonic
        return False

    def _conclude(self, managed: ManagedSite, digest: str, done: Outcome) -> None:
        """Remembers, writes down and tells what was decided about a drop."""
        state, now = self.states[managed.site.name], self._now()
        again = state.deferral if state.deferral and state.deferral.digest == digest else None
        next_try, state.deferral, state.due, state.anew = "", None, now.monotonic + YOUNG_FOR, False
        if done.result is Result.DEFERRED:
            tries = again.tries + 1 if again else 1
            state.due = now.monotonic + backoff(tries)
            state.deferral = Deferral(digest, state.due, tries, done.reason)
            state.decision = Wait(state.due, done.reason)
            next_try = (now.wall + timedelta(seconds=backoff(tries))).isoformat(timespec="seconds")
        else:
            state.decision = Decided()
        intent = Intent(digest, str(done.result), done.reason, managed.policy, next_try)
        state.decided = intent
        self._write(managed.site.name, state, intent)
        if not (again and again.reason == done.reason and done.result is Result.DEFERRED):
            self.journal.outcome(done)
        self.telemetry.outcome(done, "drop")
        self.maintenance.note(managed, done)

    def _write(self, name: str, state: DropState, intent: Intent) -> None:
        try:
            self.runtime.ports.store.write_intent(name, intent)
            state.unwritten = None
        except RotatorError as e:
            if state.unwritten is None:
                words = f"the decision could not be written down: {e.message}"
                self.journal.say("not-written", words, ERROR, site=name)
            state.unwritten = intent  # it stands as long as this process lives, and is written when the disk takes it
            state.due = min(state.due, self._now().monotonic + backoff(1))

    def _wait(self, managed: ManagedSite, digest: str, wait: Wait, state: DropState) -> None:
        again = state.deferral if state.deferral and state.deferral.digest == digest else None
        state.due = wait.until
        if wait.message and not (again and again.reason == wait.reason):
            self._conclude_unread(managed, digest, Result.DEFERRED, wait.reason, wait.message, wait.hint)
            state.due = wait.until
        if state.deferral:
            tries = again.tries + 1 if again and wait.message else state.deferral.tries
            state.deferral = Deferral(digest, wait.until, tries, wait.reason)

    def _conclude_unread(
        self, managed: ManagedSite, digest: str, result: Result, reason: Reason | Code, message: str, hint: str
    ) -> None:
        """A decision that needs no rotation."""
        self._conclude(managed, digest, drop_state.record_outcome(self.runtime, managed, result, reason, message, hint))

    # -- what is wrong around it

    def _waiting(self, holder: str) -> None:
        self.journal.say(Reason.LOCK_BUSY, f"waiting for {holder}")

    def _in_trouble(self, e: RotatorError, names: Sequence[str]) -> None:
        """The lock or the store was not to be had: everything that was to go is due again a little later."""
        again = LOCK_AGAIN if e.code == Reason.LOCK_BUSY else backoff(1)
        for name in names:
            self.states[name].due = self._now().monotonic + again
        if e.code not in (self._trouble, Reason.LOCK_BUSY):
            self.journal.say(e.code, f"{e.message}; {e.hint}" if e.hint else e.message, ERROR)
        self._trouble = e.code

    def _now(self) -> Moment:
        clock = self.runtime.ports.clock
        return Moment(clock.now(), clock.monotonic())

    def _next(self, *, more: bool) -> float:
        now = self._now().monotonic
        if more:
            return now
        due = min((m.due for m in self.states.values()), default=NEVER)
        waits = self.maintenance.degraded_sites or any(
            m.deferral and m.deferral.reason not in _NOT_NGINX for m in self.states.values()
        )
        look = NGINX_LOOK_EVERY if waits else NEVER
        return min(due, now + look, self.maintenance.due())


_NOT_NGINX = frozenset({Code.IO_ERROR, Code.PERMISSION, Code.NOT_YET_VALID, Reason.MIN_RELOAD_INTERVAL})
"""Reasons to wait that nginx has no part in."""
