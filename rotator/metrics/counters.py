"""What has been counted since the start, as immutable values; nothing is rendered or read from the world here.

Every reason, stage and code that can be known beforehand is counted under its own word, any other one under `other`, so
that a label never takes more values than stand here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate
from types import MappingProxyType
from typing import Any, TypeVar

from rotator.core.model import Outcome, Result
from rotator.core.problems import Code
from rotator.rotation.pacing import REASONS

OTHER = "other"
STAGES = ("detect", "validate", "test", "store", "apply", "prove")
"""The stages of a swap, in their order."""
TRIGGERS = ("drop", "recover", "rollback", "swap", OTHER)
"""What causes a swap."""
CODES = (*map(str, Code), OTHER)
"""Why an input is rejected."""
RELOAD_REASONS = (
    *("refused", "gone", "not-proved", "permission", "signal-permission", "disk-full", "io-error"),
    *("apply-unit", "apply-denied", "apply-lost", "no-result-dir", OTHER),
)
"""Why a reload of nginx failed."""
SCAN_REASONS = ("missing", "permission", "io-error", OTHER)
"""Why a place where renewals arrive could not be read."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histograms, in seconds."""

WAITING = frozenset({"not-yet-valid", "lock-busy", "settling", "would-rotate"}) | REASONS
"""Reasons of `deferred` for which it is too early only: no attempt was made, and none has failed."""

_STAGE_OF = {
    "disk-full": "store",
    "store-damaged": "store",
    "handshake-failed": "test",
    "listener": "test",
    "nginx-down": "test",
    "nginx-missing": "test",
    "nginx-upgrade": "test",
    "not-wired": "test",
}
"""The stage of an outcome that ended before anything was applied, by its reason: an outcome that is made in the middle
of a stage does not have it among those that it timed."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long.

    Args:
        counts: observations by bucket of `BUCKETS`, and last those beyond.
        total: the sum of all, in seconds.
    """

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    total: float = 0.0

    def plus(self, seconds: float) -> Histogram:
        """With one observation more."""
        slot = bisect_left(BUCKETS, seconds)
        counts = (*self.counts[:slot], self.counts[slot] + 1, *self.counts[slot + 1 :])
        return Histogram(counts, self.total + seconds)

    @property
    def cumulative(self) -> tuple[tuple[str, float], ...]:
        """(upper bound, observations up to it), the last bound being +Inf."""
        bounds = (*map(str, BUCKETS), "+Inf")
        return tuple((bound, float(n)) for bound, n in zip(bounds, accumulate(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class Last:
    """How something ended the last time.

    Args:
        successful: whether it succeeded; None if that is not known.
        success_at: when it last succeeded, UTC; None if that is not known.
    """

    successful: bool | None = None
    success_at: datetime | None = None

    def then(self, successful: bool, at: datetime | None) -> Last:  # noqa: FBT001 - the one thing it says
        """After it ended once more."""
        return Last(successful, at if successful else self.success_at)


def _nothing() -> Mapping[K, int]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything counted; each method gives another one.

    Args:
        attempts: swaps begun, by (site, trigger).
        failures: swaps failed, by (site, stage).
        rollbacks: swaps that had to go back, by site.
        rollback_failures: those of them after which neither pair was proved, by site.
        swaps: how the last swap of a site ended.
        rejected: inputs rejected, by code.
        durations: how long the stages of swaps took.
        reloads: times that nginx was told to reload.
        reload_failures: those that failed, by reason.
        reload: how the last one ended.
        reload_duration: how long they took.
        overflows: times that the watcher lost events.
        scan_errors: places that could not be read, by reason.
    """

    attempts: Mapping[tuple[str, str], int] = field(default_factory=_nothing)
    failures: Mapping[tuple[str, str], int] = field(default_factory=_nothing)
    rollbacks: Mapping[str, int] = field(default_factory=_nothing)
    rollback_failures: Mapping[str, int] = field(default_factory=_nothing)
    swaps: Mapping[str, Last] = field(default_factory=lambda: MappingProxyType({}))
    rejected: Mapping[str, int] = field(default_factory=_nothing)
    durations: Mapping[str, Histogram] = field(default_factory=lambda: MappingProxyType({}))
    reloads: int = 0
    reload_failures: Mapping[str, int] = field(default_factory=_nothing)
    reload: Last = Last()
    reload_duration: Histogram = Histogram()
    overflows: int = 0
    scan_errors: Mapping[str, int] = field(default_factory=_nothing)

    def after(self, outcome: Outcome, trigger: str) -> Counters:
        """With one outcome more.

        Args:
            outcome: how it ended. `unchanged` and what is only too early are no attempts.
            trigger: one of `TRIGGERS`.
        """
        site, result = outcome.site, outcome.result
        if result is Result.UNCHANGED:  # what is wanted is live and proved: no failure stands any more
            known = self.swaps.get(site)
            if known is None or known.successful is not False:
                return self
            return replace(self, swaps=_with(self.swaps, site, Last(True, known.success_at)))
        if result is Result.DEFERRED and outcome.reason in WAITING:
            return self
        done = result is Result.ROTATED
        went_back = result in (Result.ROLLED_BACK, Result.STRANDED)
        durations = dict(self.durations)
        for stage, seconds in outcome.stages.items():
            if stage in STAGES:
                durations[stage] = durations.get(stage, Histogram()).plus(seconds)
        return replace(
            self,
            attempts=_one_more(self.attempts, (site, _known(trigger, TRIGGERS))),
            failures=self.failures if done else _one_more(self.failures, (site, failed_stage(outcome))),
            rollbacks=_one_more(self.rollbacks, site) if went_back else self.rollbacks,
            rollback_failures=(
                _one_more(self.rollback_failures, site) if result is Result.STRANDED else self.rollback_failures
            ),
            swaps=_with(self.swaps, site, self.swaps.get(site, Last()).then(done, outcome.at)),
            rejected=(
                _one_more(self.rejected, _known(outcome.reason, CODES)) if result is Result.REJECTED else self.rejected
            ),
            durations=MappingProxyType(durations),
        )

    def after_reload(self, failure: str, at: datetime, seconds: float | None = None) -> Counters:
        """With one reload of nginx more.

        Args:
            failure: why it failed, one of `RELOAD_REASONS`; empty if it did not.
            at: when it ended, UTC.
            seconds: how long it took; None if that is not known.
        """
        failures = _one_more(self.reload_failures, _known(failure, RELOAD_REASONS)) if failure else self.reload_failures
        return replace(
            self,
            reloads=self.reloads + 1,
            reload_failures=failures,
            reload=self.reload.then(not failure, at),
            reload_duration=self.reload_duration if seconds is None else self.reload_duration.plus(seconds),
        )

    def after_overflows(self, count: int) -> Counters:
        """With so many times in all that the watcher lost events; never fewer than were counted."""
        return self if count <= self.overflows else replace(self, overflows=count)

    def after_scan_error(self, reason: str) -> Counters:
        """With one more place that could not be read.

        Args:
            reason: one of `SCAN_REASONS`.
        """
        return replace(self, scan_errors=_one_more(self.scan_errors, _known(reason, SCAN_REASONS)))

    def heard(self, entries: Iterable[Mapping[str, Any]]) -> Counters:
        """With what commands did beside the daemon.

        Args:
            entries: theirs, of the store's history, oldest first; those that cannot be read are passed over.
        """
        counters = self
        for entry in entries:
            try:
                stages = {str(stage): float(seconds) for stage, seconds in entry["stages"].items()}
                at = datetime.fromisoformat(entry["at"])
                done = Outcome(str(entry["site"]), Result(entry["result"]), at, str(entry["reason"]), stages=stages)
            except (AttributeError, KeyError, TypeError, ValueError):
                continue
            counters = counters.after(done, str(entry.get("trigger", "")))
        return counters

    def remembering(self, entries: Iterable[Mapping[str, object]]) -> Counters:
        """With what the history tells of each site's last swap, which a restart must not make unknown.

        Args:
            entries: of the store's history, oldest first; those that cannot be read are passed over.
        """
        swaps = dict(self.swaps)
        for entry in entries:
            try:
                site, result = str(entry["site"]), Result(str(entry["result"]))
                at = datetime.fromisoformat(str(entry["at"]))
            except (KeyError, ValueError):
                continue
            known, early = swaps.get(site, Last()), result is Result.DEFERRED and str(entry.get("reason")) in WAITING
            if result is Result.UNCHANGED and known.successful is False:
                swaps[site] = Last(True, known.success_at)  # as in `after`
            elif result is not Result.UNCHANGED and not early:
                swaps[site] = known.then(result is Result.ROTATED, at)
        return replace(self, swaps=MappingProxyType(swaps))

    def only(self, sites: Iterable[str]) -> Counters:
        """Without what was counted for any other site: a site that comes back begins anew."""
        keep = frozenset(sites)
        return replace(
            self,
            attempts=MappingProxyType({k: n for k, n in self.attempts.items() if k[0] in keep}),
            failures=MappingProxyType({k: n for k, n in self.failures.items() if k[0] in keep}),
            rollbacks=MappingProxyType({k: n for k, n in self.rollbacks.items() if k in keep}),
            rollback_failures=MappingProxyType({k: n for k, n in self.rollback_failures.items() if k in keep}),
            swaps=MappingProxyType({k: last for k, last in self.swaps.items() if k in keep}),
        )


def failed_stage(outcome: Outcome) -> str:
    """The stage that an outcome which is no success ended in."""
    if late := [stage for stage in ("prove", "apply") if stage in outcome.stages]:
        return late[0]
    timed = [stage for stage in outcome.stages if stage in STAGES]  # in the order in which they were begun
    return _STAGE_OF.get(outcome.reason) or (timed[-1] if timed else "detect")


def _known(word: str, words: tuple[str, ...]) -> str:
    return word if word in words else OTHER


def _one_more(counts: Mapping[K, int], key: K) -> Mapping[K, int]:
    return MappingProxyType({**counts, key: counts.get(key, 0) + 1})


def _with(lasts: Mapping[str, Last], site: str, last: Last) -> Mapping[str, Last]:
    return MappingProxyType({**lasts, site: last})
