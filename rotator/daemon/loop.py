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

from rotator import pacing
from rotator.daemon import intake
from rotator.daemon.cause import Cause
from rotator.daemon.ground import WHO, Ground, Ward
from rotator.daemon.intake import Memory, Order
from rotator.daemon.journal import ERROR, NOTICE, WARNING, Journal
from rotator.daemon.lookout import Lookout
from rotator.daemon.measuring import Measuring
from rotator.daemon.tending import Tending
from rotator.errors import RotatorError
from rotator.history import NEVER as NEVER_READ
from rotator.model import Outcome, Result, has_reloaded
from rotator.outcome import Wanted
from rotator.pacing import Ask, LastReload, Limits
from rotator.prepare import CLOCK_TOLERANCE
from rotator.reconcile import (
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
from rotator.rotate import rotate, write_down
from rotator.store import Intent

LOCK_WITHIN = 0.3
"""Seconds to wait for another rotation before the pass goes on without."""
LOCK_AGAIN = 0.5
"""Seconds until the next try then."""
CAUSE_EVERY = 1.0
"""Seconds between two looks at nginx while something waits for it."""
YOUNG_FOR = 2.0
"""Seconds after which a drop that had just been changed is read once more: see `drops`."""
TEND_FOR = 1.0
"""Seconds that a pass spends at most on what is not urgent, and less if an event comes."""
NEVER = math.inf


class Loop:
    """The state between two passes.

    Args:
        ground: the configuration.
        journal: where outcomes are told.
        measuring: what counts the outcomes; None for one of its own.
        urgent: whether an event has come meanwhile.
    """

    def __init__(
        self,
        ground: Ground,
        journal: Journal,
        measuring: Measuring | None = None,
        urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        self.urgent = urgent
        self.measuring = measuring or Measuring(journal)
        self.ground = ground
        self.journal = journal
        self.tending = Tending(ground, journal, self.measuring.outcome)
        self.memories: dict[str, Memory] = {name: Memory() for name in ground.wards}
        self.idle = True
        """Whether the last pass found nothing to put live."""
        self.last_reload = LastReload()
        self._cause = Cause()
        self._noted = self._now()
        self._trouble = ""
        self._heard = NEVER_READ
        self.lookout = Lookout(ground.drops, ground.scan_interval, self._noted)

    # -- life

    def start(self, lock_within: float) -> None:
        """What a start has to bring in order before anything is taken from a drop.

        Args:
            lock_within: seconds to wait for another rotation.

        Raises:
            RotatorError: the store cannot be used, or `lock-busy`.
        """
        with self.ground.hands.locks.rotation(WHO, lock_within, self._waiting) as lock:
            self.tending.recover_all(lock)
        now = self._now()
        for name, memory in self.memories.items():
            memory.deferral = resumed(self.ground.hands.store.intent(name), now)
            memory.look_again(pacing.REASONS, now.monotonic)
        self._cause.note(self.ground.hands)

    def stand_on(self, ground: Ground) -> None:
        """Another configuration from now on; every drop is looked at anew, and every listener asked."""
        self.ground, self.lookout = ground, Lookout(ground.drops, ground.scan_interval, self._now())
        self.memories = {name: self.memories.get(name, Memory()) for name in ground.wards}
        for memory in self.memories.values():
            memory.signature, memory.due = None, 0.0
            memory.look_again(pacing.REASONS, 0.0)
        self.tending.stand_on(ground)

    def renew(self, ground: Ground) -> None:
        """Other roots or lists under the same configuration: decided drops are asked again, if anything is different.

        Nothing has changed in the drops, so no grace time begins.
        """
        before, self.ground, self.tending.ground = self.ground, ground, ground
        for name, ward in ground.wards.items():
            if ward.policy != before.wards[name].policy:
                self.memories[name].due = 0.0

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
        self._heed_commands()
        now = self._now().monotonic
        due = [name for name, memory in self.memories.items() if memory.due <= now]
        orders = [order for name in due if (order := self._ordered(name))]
        self.idle = not orders
        if orders:
            self._put_live(orders)
        return self._next(more=self._tend())

    def _tend(self) -> bool:
        """As much of what is not urgent as fits before something else comes. Returns whether more is left."""
        end = self._now().monotonic + TEND_FOR
        while True:
            more = self.tending.step()
            if self.tending.reloaded:
                self._cause.note(self.ground.hands)
            if not more or self.urgent() or self._now().monotonic >= end:
                return more

    def _look(self, touched: Collection[str] | None) -> None:
        now = self._now()
        due = {name for name, memory in self.memories.items() if memory.due <= now.monotonic}
        for name, look in self.lookout.look(touched, due, now).items():
            if self.memories[name].note(look, now.monotonic):
                words = f"{look.problem}; {look.hint}" if look.problem else "the drop can be looked at again"
                if look.problem:
                    self.measuring.scan_error(look.reason)
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
        for memory in self.memories.values():
            memory.judge_again(now.monotonic)

    def _look_at_nginx(self) -> None:
        """What waits for nginx is due as soon as nginx has visibly become another."""
        now = self._now().monotonic
        waiting = [m for m in self.memories.values() if m.deferral and m.deferral.reason not in _NOT_NGINX]
        idle = not (waiting or self.tending.cares) or now < self._cause.at + CAUSE_EVERY
        if idle:
            return
        changed = self._cause.note(self.ground.hands)
        room = pacing.has_room(self._cause.workers, self.ground.limits)
        for memory in waiting:
            if changed:
                memory.look_again(None, now)
            elif room:
                memory.look_again({pacing.DRAIN_BUDGET}, now)
        if changed:
            self.tending.cause_changed()

    def _heed_commands(self) -> None:
        """What commands have done beside us: the page is to show it soon, and not when its turn comes."""
        self._heard, entries = self.ground.hands.history.news(self._heard)
        known = [one for one in entries if one.get("site") in self.ground.wards]
        if theirs := [one for one in known if one.get("who") != WHO]:
            self.tending.look_at({one["site"] for one in theirs})
            counted = self.measuring.counters.heard(theirs)
            self.measuring.counters = counted.remembering(known)  # the last swap may be ours all the same

    # -- deciding

    def _ordered(self, name: str) -> Order | None:
        """What a drop asks for; a store that cannot be read for one site must not hold up the others."""
        try:
            return self._consider(name)
        except RotatorError as e:
            self._in_trouble(e, [name])
            return None

    def _consider(self, name: str) -> Order | None:
        ward, memory, look, now = self.ground.wards[name], self.memories[name], self.lookout.last[name], self._now()
        if memory.unwritten:
            self._write(name, memory, memory.unwritten)
        intent = memory.unwritten or self.ground.hands.store.intent(name)
        candidate, error = intake.read(self.ground, name, look)
        digest = intake.digest_of(candidate, look, error)
        live = intake.live_chains(self.ground, name) if candidate else {}
        judged = cache(partial(intake.judged, self.ground, candidate, ward, now, live))
        drop = Drop(digest, memory.changed, lambda: judged().verdict, error)
        if intake.stands(intent, drop, ward, live):
            self._write(name, memory, replace(intent, policy=ward.policy))
            intent = memory.unwritten or replace(intent, policy=ward.policy)
        known = replace(intent, digest="") if memory.anew else intent
        decision = decide(
            drop, known, ward.policy, now, self.ground.settle, live=frozenset(live), deferral=memory.deferral
        )
        first = type(decision) is not type(memory.decision)
        memory.decision, memory.due, memory.decided = decision, NEVER, intent
        match decision:
            case Settling(until=until, why=why):
                memory.due = until
                if first:
                    self.journal.say("settling", f"not complete yet ({why}); it may still be being written", site=name)
            case Wait():
                self._wait(ward, digest, decision, memory)
            case Refuse(error=RotatorError() as fault):
                self._conclude_unread(ward, digest, Result.REJECTED, fault.code, fault.message, fault.hint)
            case Refuse() if candidate:
                return intake.order(self.ground, ward, digest, candidate, intent, reloads=False, judged=judged())
            case Rotate(lacking=lacking) if candidate:
                whole = intake.completed(self.ground, candidate, lacking, ward, now, live)
                same = not lacking and intake.is_live(self.ground, name, judged().verdict, live)
                again = judged() if whole is candidate else None
                return intake.order(self.ground, ward, digest, whole, intent, reloads=not same, judged=again)
            case Nothing() | Decided() | Held():
                memory.deferral = None
                if look.young:
                    memory.due = now.monotonic + YOUNG_FOR
                if isinstance(decision, Held) and first:
                    words = f"what lies in the drop is held by {decision.hold.by} since {decision.hold.since}"
                    self.journal.say("held", words, NOTICE, site=name)
        return None

    # -- pacing

    def _in_turn(self, orders: Sequence[Order]) -> list[Order]:
        """Those that may go now. If nginx is reloaded for one of them, whatever waited for its turn goes with it."""
        go = self._paced(orders)
        if any(order.reloads for order in go):
            asked, now = {order.ward.site.name for order in orders}, self._now().monotonic
            for name, memory in self.memories.items():
                if name in asked or not memory.look_again(pacing.REASONS, now):
                    continue
                if order := self._ordered(name):
                    memory.due = now + LOCK_AGAIN
                    go.append(order)
        return go

    def _paced(self, orders: Sequence[Order]) -> list[Order]:
        now, limits = self._now(), self.ground.limits
        if limits == Limits():
            return list(orders)
        self.last_reload = self.last_reload.looked_up(self.ground.hands.history.last_reload_at(), now)
        names = [order.ward.site.name for order in orders]
        urgency = [intake.critical_in(self.ground, name, now) for name in names]
        asks = [Ask(name, o.reloads, left) for name, o, left in zip(names, orders, urgency, strict=True)]
        waits = pacing.turns(asks, self.last_reload, self._cause.workers, limits, now)
        go = []
        for order, wait in zip(orders, waits, strict=True):
            if wait is None:
                go.append(order)
            else:
                self._hold_up(order, wait)
        return go

    def _hold_up(self, order: Order, wait: Wait) -> None:
        """It waits for its turn: told when it begins to, and written down with the time at which it goes at the latest.

        It is looked at every ten minutes all the same: clocks are set.
        """
        name, now = order.ward.site.name, self._now()
        memory = self.memories[name]
        if not wait.message:
            memory.due, memory.decision = wait.until, wait
            return
        again = memory.deferral and (memory.deferral.digest, memory.deferral.reason) == (order.digest, wait.reason)
        if not again:
            done = self._unread(order.ward, Result.DEFERRED, wait.reason, wait.message, wait.hint)
            self.journal.outcome(done)
            self.measuring.outcome(done, "drop")
        memory.due = min(wait.until, now.monotonic + LONGEST_WAIT)
        memory.decision = Wait(memory.due, wait.reason)
        memory.deferral = Deferral(order.digest, memory.due, 0, wait.reason)
        latest = (now.wall + timedelta(seconds=wait.until - now.monotonic)).isoformat(timespec="seconds")
        intent = Intent(order.digest, str(Result.DEFERRED), wait.reason, order.ward.policy, latest)
        if intent != memory.decided:
            memory.decided = intent
            self._write(name, memory, intent)

    # -- acting

    def _put_live(self, orders: Sequence[Order]) -> None:
        hands = self.ground.hands
        for order in orders:  # until it is decided, it is due
            self.memories[order.ward.site.name].due = self._now().monotonic + LOCK_AGAIN
        try:
            with hands.locks.rotation(WHO, LOCK_WITHIN, self._waiting) as lock:
                self.tending.recover_interrupted(lock)
                self._cause.note(self.ground.hands)
                mine = self._in_turn([o for o in orders if self._still_mine(o)])
                done = rotate([o.wanted for o in mine], hands, lock) if mine else ()
                for order, outcome in zip(mine, done, strict=True):
                    self._conclude(order.ward, order.digest, outcome)
                if any(has_reloaded(outcome.result, outcome.reason, outcome.stages) for outcome in done):
                    self.last_reload = LastReload(hands.history.last_reload_at(), self._now().monotonic)
                if any(outcome.stages.get("apply") for outcome in done):
                    self._cause.note(self.ground.hands)
        except RotatorError as e:
            self._in_trouble(e, [o.ward.site.name for o in orders])
        else:
            self._trouble = ""

    def _still_mine(self, order: Order) -> bool:
        """Whether nobody has decided about it since: a command may have had the lock before us."""
        name = order.ward.site.name
        if (self.memories[name].unwritten or self.ground.hands.store.intent(name)) == order.intent:
            return True
        self.memories[name].due = self._now().monotonic
        return False

    def _conclude(self, ward: Ward, digest: str, done: Outcome) -> None:
        """Remembers, writes down and tells what was decided about a drop."""
        memory, now = self.memories[ward.site.name], self._now()
        again = memory.deferral if memory.deferral and memory.deferral.digest == digest else None
        next_try, memory.deferral, memory.due, memory.anew = "", None, now.monotonic + YOUNG_FOR, False
        if done.result is Result.DEFERRED:
            tries = again.tries + 1 if again else 1
            memory.due = now.monotonic + backoff(tries)
            memory.deferral = Deferral(digest, memory.due, tries, done.reason)
            memory.decision = Wait(memory.due, done.reason)
            next_try = (now.wall + timedelta(seconds=backoff(tries))).isoformat(timespec="seconds")
        else:
            memory.decision = Decided()
        intent = Intent(digest, str(done.result), done.reason, ward.policy, next_try)
        memory.decided = intent
        self._write(ward.site.name, memory, intent)
        if not (again and again.reason == done.reason and done.result is Result.DEFERRED):
            self.journal.outcome(done)
        self.measuring.outcome(done, "drop")
        self.tending.note(ward, done)

    def _write(self, name: str, memory: Memory, intent: Intent) -> None:
        try:
            self.ground.hands.store.write_intent(name, intent)
            memory.unwritten = None
        except RotatorError as e:
            if memory.unwritten is None:
                self.journal.say(
                    "not-written", f"the decision could not be written down: {e.message}", ERROR, site=name
                )
            memory.unwritten = intent  # it stands as long as this process lives, and is written when the disk takes it
            memory.due = min(memory.due, self._now().monotonic + backoff(1))

    def _wait(self, ward: Ward, digest: str, wait: Wait, memory: Memory) -> None:
        again = memory.deferral if memory.deferral and memory.deferral.digest == digest else None
        memory.due = wait.until
        if wait.message and not (again and again.reason == wait.reason):
            self._conclude_unread(ward, digest, Result.DEFERRED, wait.reason, wait.message, wait.hint)
            memory.due = wait.until
        if memory.deferral:
            tries = again.tries + 1 if again and wait.message else memory.deferral.tries
            memory.deferral = Deferral(digest, wait.until, tries, wait.reason)

    def _conclude_unread(self, ward: Ward, digest: str, result: Result, reason: str, message: str, hint: str) -> None:
        """A decision that needs no rotation."""
        self._conclude(ward, digest, self._unread(ward, result, reason, message, hint))

    def _unread(self, ward: Ward, result: Result, reason: str, message: str, hint: str) -> Outcome:
        """The outcome of what needs no rotation, as it stands in the history."""
        hands, name = self.ground.hands, ward.site.name
        live = hands.live(name).generation
        words = f"{message.rstrip('.')}. Nothing was changed: {intake.serves(self.ground, name)}"
        done = Outcome(name, result, hands.clock.now(), reason, words, hint, previous=live, live=live)
        write_down(Wanted(ward.site, ward.anchors, who=WHO, trigger="drop"), done, hands)
        return done

    # -- what is wrong around it

    def _waiting(self, holder: str) -> None:
        self.journal.say("lock-busy", f"waiting for {holder}")

    def _in_trouble(self, e: RotatorError, names: Sequence[str]) -> None:
        """The lock or the store was not to be had: everything that was to go is due again a little later."""
        again = LOCK_AGAIN if e.code == "lock-busy" else backoff(1)
        for name in names:
            self.memories[name].due = self._now().monotonic + again
        if e.code not in (self._trouble, "lock-busy"):
            self.journal.say(e.code, f"{e.message}; {e.hint}" if e.hint else e.message, ERROR)
        self._trouble = e.code

    def _now(self) -> Moment:
        clock = self.ground.hands.clock
        return Moment(clock.now(), clock.monotonic())

    def _next(self, *, more: bool) -> float:
        now = self._now().monotonic
        if more:
            return now
        due = min((m.due for m in self.memories.values()), default=NEVER)
        waits = self.tending.cares or any(
            m.deferral and m.deferral.reason not in _NOT_NGINX for m in self.memories.values()
        )
        look = CAUSE_EVERY if waits else NEVER
        return min(due, self.lookout.due, now + look, self.tending.due())


_NOT_NGINX = frozenset({"io-error", "permission", "not-yet-valid", pacing.MIN_RELOAD_INTERVAL})
"""Reasons to wait that nginx has no part in."""
