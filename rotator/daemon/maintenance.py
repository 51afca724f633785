"""What is not urgent, a piece at a time: proving what is served, judging what is live again, recovering, tidying up.

A site that is not well is *in care*: it is recovered at once, and then looked at with growing pauses. It is given
another reload only if nginx has visibly become another since, because each one costs nginx a generation of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result
from rotator.core.problems import Problem, Severity
from rotator.core.reasons import Reason
from rotator.daemon.journal import NOTICE, WARNING, Journal
from rotator.daemon.runtime import WHO, ManagedSite, Runtime
from rotator.metrics import SiteFacts, site_facts
from rotator.rotation.decide import backoff
from rotator.rotation.observe import Facts, observe
from rotator.rotation.recover import recover
from rotator.storage.locks import Lock
from rotator.validation.validate import validate_chains

PROBED_AT_ONCE = 20
"""Sites that one round of probing asks, and that are recovered together; a thousand of them have their turn."""


GATHER_FOR = 2.0
"""Seconds that a site which is not well waits for those that are just being asked: one reload is for all of them."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """A site that is not well.

    Args:
        due: monotonic time of the next look at it.
        looks: how many there were.
        recoveries: how many of them tried to mend it.
        tried_at: monotonic time of the last of those.
        may_reload: whether the next look may cost a reload.
        told: what was said of it last.
    """

    due: float
    looks: int = 0
    recoveries: int = 0
    tried_at: float = float("-inf")
    may_reload: bool = True
    told: str = ""


class Maintenance:
    """What is known of the sites beside their drops.

    Args:
        runtime: the configuration.
        journal: where it is told.
        told: called with each outcome and its trigger.
    """

    def __init__(self, runtime: Runtime, journal: Journal, told: Callable[[Outcome, str], None]) -> None:
        self.runtime = runtime
        self.journal = journal
        self.degraded_sites: dict[str, Degraded] = {}
        self.seen: dict[str, SiteFacts] = {}
        """What the last look at each site showed."""
        self.judged: dict[str, tuple[Problem, ...]] = {}
        """What the judge says of what is live."""
        self.reloaded = False
        """Whether the last piece reloaded nginx."""
        self._told = told
        self._probes: deque[str] = deque()
        self._judgements: deque[str] = deque()
        self._prunes: deque[str] = deque()
        self._history_grew = False
        self._history_trouble = ""
        self._turn: deque[str] = deque(runtime.sites)

    def reconfigure(self, runtime: Runtime) -> None:
        """Another configuration: everything is asked and judged once."""
        self.runtime = runtime
        self._turn = deque(runtime.sites)
        for gone in {*self.degraded_sites, *self.seen, *self.judged} - runtime.sites.keys():
            for known in (self.degraded_sites, self.seen, self.judged):
                known.pop(gone, None)
        self._probes, self._judgements = deque(runtime.sites), deque(runtime.sites)

    # -- what is asked for

    def probe(self) -> None:
        """Has the next sites in turn asked what they serve."""
        if not self._probes:
            self._probes.extend(list(self._turn)[:PROBED_AT_ONCE])
            self._turn.rotate(-PROBED_AT_ONCE)

    def look_at(self, names: Collection[str]) -> None:
        """Has these sites asked next what they serve, and judged: somebody else has changed them."""
        for turn in (self._probes, self._judgements):
            turn.extendleft(name for name in names if name not in turn)

    def judge(self) -> None:
        """Has everything live judged again: an intermediate may have expired, a root been removed."""
        if not self._judgements:
            self._judgements.extend(self.runtime.sites)

    def tidy(self) -> None:
        """Has generations that are not needed deleted, and a history that has become long closed."""
        self._history_grew = True
        if not self._prunes:
            self._prunes.extend(self.runtime.sites)

    def nginx_changed(self) -> None:
        """nginx has visibly become another, and not by us: everything in care is worth a reload again.

        At once, unless one was spent on it just before: an nginx that changes for ever must not be reloaded for ever.
        """
        now = self.runtime.ports.clock.monotonic()
        for name, degraded in self.degraded_sites.items():
            due = max(now, degraded.tried_at + backoff(degraded.recoveries))
            self.degraded_sites[name] = replace(degraded, due=due, may_reload=True)

    def due(self) -> float:
        """Monotonic time at which something is to be done."""
        return min((degraded.due for degraded in self.degraded_sites.values()), default=float("inf"))

    # -- one piece

    def step(self) -> bool:
        """Does one piece. Returns whether there is another one to be done at once."""
        self.reloaded = False
        now = self.runtime.ports.clock.monotonic()
        late = [name for name, degraded in self.degraded_sites.items() if degraded.due <= now]
        if late and not (self._probes and now < self.degraded_sites[late[0]].due + GATHER_FOR):
            self._maintain(late[0])
        elif self._probes:
            self._observe(self._probes.popleft())
        elif self._judgements:
            self._judge(self._judgements.popleft())
        elif self._prunes:
            self._prune(self._prunes.popleft())
        elif self._history_grew:
            self._history_grew = False
            self._tidy_history()
        return len(late) > 1 or bool(self._probes or self._judgements or self._prunes or self._history_grew)

    # -- recovery

    def recover_all(self, lock: Lock) -> None:
        """What a start does: each site is proved, or it is known why not."""
        lock.settled([name for name in lock.interrupted if name not in self.runtime.sites])
        self._recover(list(self.runtime.sites.values()), lock)
        self._probes.extend(self.runtime.sites)

    def recover_interrupted(self, lock: Lock) -> None:
        """What the last holder of the lock left in flight when it died comes before anything else."""
        lock.settled([name for name in lock.interrupted if name not in self.runtime.sites])
        self._recover([self.runtime.sites[name] for name in lock.interrupted], lock)

    def _recover(self, sites: Sequence[ManagedSite], lock: Lock) -> None:
        outcomes = recover([managed.request("recover") for managed in sites], self.runtime.ports, lock)
        for managed, done in zip(sites, outcomes, strict=True):
            self._note_recovery(managed, done)

    def _note_recovery(self, managed: ManagedSite, done: Outcome) -> None:
        self.reloaded = self.reloaded or bool(done.stages.get("apply"))
        name, now = managed.site.name, self.runtime.ports.clock.monotonic()
        before = self.degraded_sites.pop(name, None)
        if done.result in (Result.DEFERRED, Result.STRANDED):
            count = before.recoveries + 1 if before else 1
            due = now + backoff(before.looks if before else 1)
            self.degraded_sites[name] = Degraded(
                due, before.looks if before else 1, count, now, may_reload=False, told=done.reason
            )
        if done.result is not Result.UNCHANGED and not (before and before.told == done.reason):
            self.journal.outcome(done)
        self._told(done, "recover")
        self._history_grew = True

    def note(self, managed: ManagedSite, done: Outcome) -> None:
        """How a rotation ended: whether the site is in care from now on."""
        name, now = managed.site.name, self.runtime.ports.clock.monotonic()
        if done.result is Result.STRANDED:
            self.degraded_sites[name] = Degraded(now + backoff(1), 1, 1, now, may_reload=False, told=done.reason)
        elif done.result in (Result.ROTATED, Result.UNCHANGED, Result.ROLLED_BACK):
            self.degraded_sites.pop(name, None)
        if name not in self._probes:
            self._probes.append(name)  # for the metrics
        self._history_grew = True
        if done.result in (Result.ROTATED, Result.ROLLED_BACK) and name not in self._judgements:
            self._judgements.append(name)

    def _maintain(self, name: str) -> None:
        managed, degraded = self.runtime.sites[name], self.degraded_sites[name]
        ports = self.runtime.ports
        facts = self._look(managed)
        if facts.well:
            self.degraded_sites.pop(name)
            self.journal.say("well", "every listener serves what is live again", NOTICE, site=name)
            return
        now, looks = ports.clock.monotonic(), degraded.looks + 1
        degraded = self.degraded_sites[name] = replace(degraded, due=now + backoff(looks), looks=looks)
        if not (degraded.may_reload or facts.served_everywhere):
            return
        try:
            with ports.locks.rotation(WHO, 0.3) as lock:
                self.recover_interrupted(lock)
                if name in self.degraded_sites:
                    self._recover([self.runtime.sites[one] for one in (name, *self._late_beside(name))], lock)
        except RotatorError as e:
            self.degraded_sites[name] = replace(degraded, due=now + backoff(1), told=e.code)
            if e.code not in (degraded.told, Reason.LOCK_BUSY):
                self.journal.say(e.code, e.message, WARNING, site=name)

    def _late_beside(self, name: str) -> list[str]:
        """Others that are worth a reload now: one does for all of them, and each one costs nginx the same."""
        now = self.runtime.ports.clock.monotonic()
        late = [
            one
            for one, degraded in self.degraded_sites.items()
            if one != name and degraded.may_reload and degraded.due <= now
        ]
        return late[: PROBED_AT_ONCE - 1]

    # -- looking

    def _look(self, managed: ManagedSite) -> Facts:
        facts = observe(managed.site, self.runtime.ports)
        self.seen[managed.site.name] = site_facts(facts, self.runtime.ports.clock.now())
        return facts

    def _observe(self, name: str) -> None:
        if name not in self.runtime.sites:
            return
        managed, ports = self.runtime.sites[name], self.runtime.ports
        facts = self._look(managed)
        if (
            facts.well
            or name in self.degraded_sites
            or (facts.live is None and not facts.problem and not facts.verified)
        ):
            return
        now = ports.clock.monotonic()
        if facts.live and not facts.verified:  # whoever put it there has told what nginx still needs
            self.degraded_sites[name] = Degraded(now + backoff(1), 1, 1, now, may_reload=False, told=Reason.NOT_WIRED)
            return
        self.degraded_sites[name] = Degraded(now)
        words = facts.problem or "; ".join(f"{s.served.target}: {s.difference}" for s in facts.seen if not s.matches)
        self.journal.say("differs", words or "what is live was not proved yet", WARNING, site=name)

    def _judge(self, name: str) -> None:
        ports = self.runtime.ports
        managed = self.runtime.sites.get(name)
        live = ports.live(name).generation if managed else ""
        if not live or managed is None:
            return
        try:
            chains = tuple(ports.store.load(name, live).chains.values())
        except RotatorError as e:
            self.journal.say(e.code, e.message, WARNING, site=name)
            return
        found = validate_chains(chains, managed.site.policy, managed.anchors, ports.clock.now())
        if [p.code for p in found] != [p.code for p in self.judged.get(name, ())]:
            for problem in found:
                word = "live-unfit" if problem.severity is Severity.REJECT else "live-warning"
                self.journal.say(word, f"{problem.message} [{problem.code}] {problem.hint}", WARNING, site=name)
        self.judged[name] = found

    def _prune(self, name: str) -> None:
        ports = self.runtime.ports
        managed = self.runtime.sites.get(name)
        if managed is None:
            return
        try:
            if len(ports.store.names(name)) <= managed.site.keep:
                return
            with ports.locks.rotation(WHO, 0.0) as lock:
                if not lock.interrupted:
                    protect = frozenset({ports.live(name).generation, ports.store.verified(name)})
                    ports.store.prune(name, managed.site.keep, protect)
        except RotatorError as e:
            if e.code != Reason.LOCK_BUSY:
                self.journal.say(e.code, e.message, WARNING, site=name)

    def _tidy_history(self) -> None:
        """Closes the history if it has become long; what keeps it from that is told once."""
        ports, trouble = self.runtime.ports, ""
        try:
            if ports.history.is_untidy():
                with ports.locks.rotation(WHO, 0.0):
                    ports.history.tidy()
        except RotatorError as e:
            trouble = e.code
            if e.code not in (self._history_trouble, Reason.LOCK_BUSY):
                self.journal.say(e.code, f"the history could not be tidied up: {e.message}; {e.hint}", WARNING)
        self._history_trouble = trouble
