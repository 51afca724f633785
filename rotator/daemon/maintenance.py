"""Background work, one piece at a time: probing listeners, validating live pairs, recovering, tidying up.

A site that is not proved is *degraded*: it is recovered at once, and then probed with growing pauses. It is given
another reload only if nginx has visibly changed since, because each one costs nginx a generation of workers.
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
from rotator.rotation.observe import Observation, observe
from rotator.rotation.recover import recover
from rotator.rotation.restarts import RELOAD_AGAIN
from rotator.storage.locks import Lock
from rotator.validation.validate import validate_chains

PROBED_AT_ONCE = 20
"""Sites that one round of probing asks, and that are recovered together; further ones follow in the next rounds."""

GATHER_FOR = 2.0
"""Seconds that a degraded site waits for the sites that are being probed: one reload serves all of them."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """A site that is not proved.

    Args:
        due: monotonic time of the next probe.
        probes: how often it was probed since it is degraded.
        recoveries: how many recoveries were tried.
        recovered_at: monotonic time of the last of those.
        may_reload: whether the next probe may lead to a reload.
        reason: why it is degraded, as reported last; empty where what is served differs from what is live.
        reload_at: monotonic time from which a probe may lead to a reload in any case.
    """

    due: float
    probes: int = 0
    recoveries: int = 0
    recovered_at: float = float("-inf")
    may_reload: bool = True
    reason: str = ""
    reload_at: float = float("inf")


class Maintenance:
    """The state of every site apart from its drop.

    Args:
        runtime: the configuration.
        journal: where events are written.
        count: called with each outcome and its trigger.
    """

    def __init__(self, runtime: Runtime, journal: Journal, count: Callable[[Outcome, str], None]) -> None:
        self.runtime = runtime
        self.journal = journal
        self.degraded_sites: dict[str, Degraded] = {}
        self.facts: dict[str, SiteFacts] = {}
        """The facts that the last probe of each site showed."""
        self.live_problems: dict[str, tuple[Problem, ...]] = {}
        """The problems that the last validation found in each site's live generation."""
        self.reloaded = False
        """Whether the last piece of work reloaded nginx."""
        self._count = count
        self._to_probe: deque[str] = deque()
        self._to_validate: deque[str] = deque()
        self._to_prune: deque[str] = deque()
        self._check_history = False
        self._history_failure = ""
        self._rounds: deque[str] = deque(runtime.sites)

    def reconfigure(self, runtime: Runtime) -> None:
        """Takes over another configuration, and has every site probed and validated once."""
        self.runtime = runtime
        self._rounds = deque(runtime.sites)
        for name in {*self.degraded_sites, *self.facts, *self.live_problems} - runtime.sites.keys():
            self.degraded_sites.pop(name, None)
            self.facts.pop(name, None)
            self.live_problems.pop(name, None)
        self._to_probe, self._to_validate = deque(runtime.sites), deque(runtime.sites)

    # -- requests

    def probe(self) -> None:
        """Has the listeners of the next sites in turn probed."""
        if not self._to_probe:
            self._to_probe.extend(list(self._rounds)[:PROBED_AT_ONCE])
            self._rounds.rotate(-PROBED_AT_ONCE)

    def look_at(self, names: Collection[str]) -> None:
        """Has these sites probed and validated next, because a command has changed them."""
        for queue in (self._to_probe, self._to_validate):
            queue.extendleft(name for name in names if name not in queue)

    def validate_live(self) -> None:
        """Has everything live validated again: an intermediate may have expired, or a root been removed."""
        if not self._to_validate:
            self._to_validate.extend(self.runtime.sites)

    def tidy(self) -> None:
        """Has generations that are not needed deleted, and a history that has become long closed."""
        self._check_history = True
        if not self._to_prune:
            self._to_prune.extend(self.runtime.sites)

    def nginx_changed(self) -> None:
        """Lets every degraded site be reloaded again, because nginx has visibly changed without rotator.

        At once, except for a site whose last recovery is recent: an nginx that keeps changing must not be reloaded
        endlessly.
        """
        now = self.runtime.ports.clock.monotonic()
        for name, degraded in self.degraded_sites.items():
            due = max(now, degraded.recovered_at + backoff(degraded.recoveries))
            self.degraded_sites[name] = replace(degraded, due=due, may_reload=True)

    def due(self) -> float:
        """Monotonic time of the next piece of work."""
        return min((degraded.due for degraded in self.degraded_sites.values()), default=float("inf"))

    # -- one piece

    def step(self) -> bool:
        """Does one piece of work. Returns whether there is another one to be done at once."""
        self.reloaded = False
        now = self.runtime.ports.clock.monotonic()
        due = [name for name, degraded in self.degraded_sites.items() if degraded.due <= now]
        if due and not (self._to_probe and now < self.degraded_sites[due[0]].due + GATHER_FOR):
            self._check_degraded(due[0])
        elif self._to_probe:
            self._probe_site(self._to_probe.popleft())
        elif self._to_validate:
            self._validate_site(self._to_validate.popleft())
        elif self._to_prune:
            self._prune(self._to_prune.popleft())
        elif self._check_history:
            self._check_history = False
            self._tidy_history()
        return len(due) > 1 or bool(self._to_probe or self._to_validate or self._to_prune or self._check_history)

    # -- recovery

    def recover_all(self, lock: Lock) -> None:
        """Proves each site at a start, or records why it cannot be proved."""
        lock.settled([name for name in lock.interrupted if name not in self.runtime.sites])
        self._recover(list(self.runtime.sites.values()), lock, at_start=True)
        self._to_probe.extend(self.runtime.sites)

    def recover_interrupted(self, lock: Lock) -> None:
        """Recovers the sites that the last holder of the lock had in flight when it was killed."""
        lock.settled([name for name in lock.interrupted if name not in self.runtime.sites])
        self._recover([self.runtime.sites[name] for name in lock.interrupted], lock)

    def _recover(self, sites: Sequence[ManagedSite], lock: Lock, *, at_start: bool = False) -> None:
        requests = [managed.request("recover") for managed in sites]
        outcomes = recover(requests, self.runtime.ports, lock, at_start=at_start)
        for managed, outcome in zip(sites, outcomes, strict=True):
            self._note_recovery(managed, outcome)

    def _note_recovery(self, managed: ManagedSite, outcome: Outcome) -> None:
        self.reloaded = self.reloaded or bool(outcome.stages.get("apply"))
        name, now = managed.site.name, self.runtime.ports.clock.monotonic()
        before = self.degraded_sites.pop(name, None)
        if outcome.result in (Result.DEFERRED, Result.STRANDED):
            probes, recoveries = (before.probes, before.recoveries + 1) if before else (1, 1)
            waits = outcome.reason == Reason.RELOADED_BEFORE
            self.degraded_sites[name] = Degraded(
                now + backoff(probes),
                probes,
                recoveries,
                now,
                may_reload=False,
                reason=outcome.reason,
                reload_at=now + RELOAD_AGAIN.total_seconds() if waits else float("inf"),
            )
        if outcome.result is not Result.UNCHANGED and not (before and before.reason == outcome.reason):
            self.journal.outcome(outcome)
        self._count(outcome, "recover")
        self._check_history = True

    def note(self, managed: ManagedSite, outcome: Outcome) -> None:
        """Records the end of a rotation: whether the site is degraded from now on."""
        name, now = managed.site.name, self.runtime.ports.clock.monotonic()
        if outcome.result is Result.STRANDED:
            self.degraded_sites[name] = Degraded(now + backoff(1), 1, 1, now, may_reload=False, reason=outcome.reason)
        elif outcome.result in (Result.ROTATED, Result.UNCHANGED, Result.ROLLED_BACK):
            self.degraded_sites.pop(name, None)
        if name not in self._to_probe:
            self._to_probe.append(name)  # for the metrics
        self._check_history = True
        if outcome.result in (Result.ROTATED, Result.ROLLED_BACK) and name not in self._to_validate:
            self._to_validate.append(name)

    def _check_degraded(self, name: str) -> None:
        managed, degraded = self.runtime.sites[name], self.degraded_sites[name]
        ports = self.runtime.ports
        facts = self._observe(managed)
        if facts.well:
            self.degraded_sites.pop(name)
            self.journal.say("well", "every listener serves what is live again", NOTICE, site=name)
            return
        now, probes = ports.clock.monotonic(), degraded.probes + 1
        degraded = self.degraded_sites[name] = replace(degraded, due=now + backoff(probes), probes=probes)
        if not (degraded.may_reload or now >= degraded.reload_at or facts.served_everywhere):
            return
        try:
            with ports.locks.rotation(WHO, 0.3) as lock:
                self.recover_interrupted(lock)
                if name in self.degraded_sites:
                    self._recover([self.runtime.sites[site] for site in (name, *self._also_due(name))], lock)
        except RotatorError as e:
            self.degraded_sites[name] = replace(degraded, due=now + backoff(1), reason=e.code)
            if e.code not in (degraded.reason, Reason.LOCK_BUSY):
                self.journal.say(e.code, e.message, WARNING, site=name)

    def _also_due(self, name: str) -> list[str]:
        """Further sites that may be reloaded now: one reload serves all of them."""
        now = self.runtime.ports.clock.monotonic()
        also_due = [
            other
            for other, degraded in self.degraded_sites.items()
            if other != name and (degraded.may_reload or now >= degraded.reload_at) and degraded.due <= now
        ]
        return also_due[: PROBED_AT_ONCE - 1]

    # -- probing

    def _observe(self, managed: ManagedSite) -> Observation:
        facts = observe(managed.site, self.runtime.ports)
        self.facts[managed.site.name] = site_facts(facts, self.runtime.ports.clock.now())
        return facts

    def _probe_site(self, name: str) -> None:
        if name not in self.runtime.sites:
            return
        managed, ports = self.runtime.sites[name], self.runtime.ports
        facts = self._observe(managed)
        if (
            facts.well
            or name in self.degraded_sites
            or (facts.live is None and not facts.problem and not facts.verified)
        ):
            return
        now = ports.clock.monotonic()
        if facts.live and not facts.verified:  # the command that put it there has reported what nginx still needs
            self.degraded_sites[name] = Degraded(now + backoff(1), 1, 1, now, may_reload=False, reason=Reason.NOT_WIRED)
            return
        self.degraded_sites[name] = Degraded(now)
        differences = [f"{seen.served.target}: {seen.difference}" for seen in facts.seen if not seen.matches]
        difference = facts.problem or "; ".join(differences)
        self.journal.say("differs", difference or "what is live was not proved yet", WARNING, site=name)

    def _validate_site(self, name: str) -> None:
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
        problems = validate_chains(chains, managed.site.policy, managed.anchors, ports.clock.now())
        if [p.code for p in problems] != [p.code for p in self.live_problems.get(name, ())]:
            for problem in problems:
                event = "live-unfit" if problem.severity is Severity.REJECT else "live-warning"
                self.journal.say(event, f"{problem.message} [{problem.code}] {problem.hint}", WARNING, site=name)
        self.live_problems[name] = problems

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
        """Closes the history if it has become long; a failure is reported once."""
        ports, failure = self.runtime.ports, ""
        try:
            if ports.history.is_untidy():
                if oversized := ports.history.oversized():
                    self.journal.say("history-oversized", oversized, WARNING)
                with ports.locks.rotation(WHO, 0.0):
                    ports.history.tidy()
        except RotatorError as e:
            failure = e.code
            if e.code not in (self._history_failure, Reason.LOCK_BUSY):
                self.journal.say(e.code, f"the history could not be tidied up: {e.message}; {e.hint}", WARNING)
        self._history_failure = failure
