"""The counters: the counts since the daemon's start, as immutable values.

Every reason, stage and code of the lists below is counted under its own name and any other one as `other`, so that a
label has a fixed set of values. A test compares the lists with the enumerations of reasons and codes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import accumulate
from types import MappingProxyType
from typing import TypeVar

from rotator.core.model import Outcome, Result
from rotator.core.problems import Code
from rotator.core.reasons import Reason, reason_of
from rotator.rotation.pacing import REASONS as PACING
from rotator.storage.entries import HistoryEntry

OTHER = Reason.OTHER
STAGES = ("detect", "validate", "test", "store", "apply", "prove")
"""The stages of a swap, in their order."""
TRIGGERS = ("drop", "recover", "rollback", "swap", OTHER)
"""The causes of a swap."""
CODES: tuple[Reason | Code, ...] = (*Code, OTHER)
"""The reasons for which an input is rejected."""
RELOAD_REASONS: tuple[Reason | Code, ...] = (
    *(Reason.REFUSED, Reason.GONE, Reason.NOT_PROVED, Code.PERMISSION, Reason.SIGNAL_PERMISSION, Reason.DISK_FULL),
    *(Code.IO_ERROR, Reason.APPLY_UNIT, Reason.APPLY_DENIED, Reason.APPLY_LOST, Reason.APPLY_VERSION, OTHER),
)
"""The reasons for which a reload of nginx fails."""
RELOAD_OTHER: frozenset[Reason | Code] = frozenset(
    {
        Code.TOO_LARGE,
        Reason.APPLY_GONE,
        Reason.BAD_REQUEST,
        Reason.CONFIGURATION,
        Reason.COPY_DIFFERS,
        Reason.INCLUDE_DIR_UNSAFE,
        Reason.INCLUDE_FOREIGN,
        Reason.LOCK_BUSY,
        Reason.NOT_A_FILE,
        Reason.PID_FILE_UNSAFE,
        Reason.STORE_UNSAFE,
        OTHER,
    }
)
"""The refusals of the privileged step before it signals nginx; all of them are counted as `other`."""
SCAN_REASONS: tuple[Reason | Code, ...] = (Reason.MISSING, Code.PERMISSION, Code.IO_ERROR, OTHER)
"""The reasons for which a drop cannot be read."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""The upper bounds of the histograms' buckets, in seconds."""

WAITING: frozenset[Reason | Code] = PACING | {
    Code.NOT_YET_VALID,
    Reason.COSTLY,
    Reason.LOCK_BUSY,
    Reason.RELOADED_BEFORE,
    Reason.WOULD_ROTATE,
}
"""The reasons of `deferred` that only mean "too early": they count neither as an attempt nor as a failure."""

STAGE_OF: Mapping[Reason | Code, str] = {
    Reason.DISK_FULL: "store",
    Reason.STORE_DAMAGED: "store",
    Code.HANDSHAKE_FAILED: "test",
    Reason.LISTENER: "test",
    Reason.NGINX_DOWN: "test",
    Reason.NGINX_MISSING: "test",
    Reason.NGINX_TEST: "test",
    Reason.NGINX_UPGRADE: "test",
    Reason.NOT_WIRED: "test",
}
"""The stage in which an outcome with this reason ends. Such an outcome is made in the middle of the stage, so the stage
is not among those that it has timed."""
BY_TIMED_STAGE: frozenset[Reason] = frozenset(
    {
        *(Reason.APPLY_DENIED, Reason.APPLY_GONE, Reason.APPLY_LOST, Reason.APPLY_UNIT, Reason.APPLY_VERSION),
        Reason.BAD_REQUEST,
        *(Reason.CLOCK_SUSPECT, Reason.CONFIGURATION, Reason.COPY_DIFFERS, Reason.INCLUDE_DIR_UNSAFE),
        *(Reason.INCLUDE_FOREIGN, Reason.NGINX_SILENT, Reason.NOTHING_TO_DO, Reason.NOT_A_FILE, Reason.NOT_PROVED),
        *(Reason.NO_GENERATION, Reason.NO_STORE, Reason.ROLLBACK_FAILED),
        *(Reason.PID_FILE_UNSAFE, Reason.SIGNAL_PERMISSION, Reason.STORE_UNSAFE, OTHER),
    }
)
"""The reasons of outcomes that ended in the last stage that they have timed, or in `detect` if they have timed none."""
NO_FAILURE: frozenset[Reason] = frozenset(
    {
        *(Reason.NOTHING, Reason.PROVED, Reason.RECOVERED, Reason.ROTATED, Reason.SAME, Reason.UNPROVED),
        Reason.VERIFIED,
    }
)
"""The reasons of outcomes that are no failure; a rollback as `recovered` is counted by the stages that it has timed."""
NO_OUTCOME: frozenset[Reason] = frozenset(
    {
        *(Reason.ADDRESS_IN_USE, Reason.BUSY, Reason.DAEMON_RUNNING, Reason.DEMO_FAILED, Reason.DROP_FOREIGN),
        *(Reason.FAILURE, Reason.GONE),
        *(Reason.HELD, Reason.MISSING, Reason.NOT_DECIDED, Reason.NOT_TAKEN, Reason.NO_CONNECTION, Reason.NO_DAEMON),
        *(Reason.NO_DEMO, Reason.NO_DROP, Reason.NO_NGINX, Reason.NO_TLS, Reason.REFUSED, Reason.SUPERSEDED),
        *(Reason.USAGE, Reason.WRONG_USER),
    }
)
"""The reasons of commands, of a start or of a single reload; no swap ends with one of them."""

_RESULTS = frozenset(map(str, Result))
K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of durations.

    Args:
        counts: the number of observations in each bucket of `BUCKETS`, and last of those above all buckets.
        total: the sum of all observations, in seconds.
    """

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    total: float = 0.0

    def plus(self, seconds: float) -> Histogram:
        """The histogram with one more observation."""
        bucket = bisect_left(BUCKETS, seconds)
        counts = (*self.counts[:bucket], self.counts[bucket] + 1, *self.counts[bucket + 1 :])
        return Histogram(counts, self.total + seconds)

    @property
    def cumulative(self) -> tuple[tuple[str, float], ...]:
        """Each upper bound with the number of observations up to it; the last bound is +Inf."""
        bounds = (*map(str, BUCKETS), "+Inf")
        return tuple((bound, float(n)) for bound, n in zip(bounds, accumulate(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class LastResult:
    """The last result of a repeated action.

    Args:
        successful: whether it succeeded the last time; None if that is unknown.
        success_at: when it last succeeded, UTC; None if that is unknown.
    """

    successful: bool | None = None
    success_at: datetime | None = None

    def then(self, successful: bool, at: datetime | None) -> LastResult:  # noqa: FBT001 - its main argument
        """The last result after one more action.

        Args:
            successful: whether that succeeded.
            at: when it ended, UTC.
        """
        return LastResult(successful, at if successful else self.success_at)


def _no_counts() -> Mapping[K, int]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Counters:
    """All counts; each method returns a new object.

    Args:
        attempts: the swaps that were begun, by (site, trigger).
        failures: the swaps that failed, by (site, stage).
        rollbacks: the swaps that were rolled back, by site.
        rollback_failures: the rollbacks after which neither pair was proved, by site.
        swaps: the result of the last swap, by site.
        rejected: the inputs that were rejected, by code.
        durations: the durations of the stages of swaps, by stage.
        reloads: the reloads of nginx that were requested.
        reload_failures: the reloads that failed, by reason.
        reload: the result of the last reload.
        reload_duration: the durations of reloads.
        overflows: how often the watcher lost events.
        scan_errors: the drops that could not be read, by reason.
    """

    attempts: Mapping[tuple[str, str], int] = field(default_factory=_no_counts)
    failures: Mapping[tuple[str, str], int] = field(default_factory=_no_counts)
    rollbacks: Mapping[str, int] = field(default_factory=_no_counts)
    rollback_failures: Mapping[str, int] = field(default_factory=_no_counts)
    swaps: Mapping[str, LastResult] = field(default_factory=lambda: MappingProxyType({}))
    rejected: Mapping[str, int] = field(default_factory=_no_counts)
    durations: Mapping[str, Histogram] = field(default_factory=lambda: MappingProxyType({}))
    reloads: int = 0
    reload_failures: Mapping[str, int] = field(default_factory=_no_counts)
    reload: LastResult = LastResult()
    reload_duration: Histogram = Histogram()
    overflows: int = 0
    scan_errors: Mapping[str, int] = field(default_factory=_no_counts)

    def after(self, outcome: Outcome, trigger: str) -> Counters:
        """The counts with one more outcome.

        Args:
            outcome: the outcome. `unchanged`, and a deferral that only means "too early", are not attempts.
            trigger: one of `TRIGGERS`.
        """
        site, result = outcome.site, outcome.result
        if result is Result.UNCHANGED:  # the wanted pair is live and proved, so the last swap is no longer a failure
            known = self.swaps.get(site)
            if known is None or known.successful is not False:
                return self
            return replace(self, swaps=_with(self.swaps, site, LastResult(True, known.success_at)))
        if result is Result.DEFERRED and outcome.reason in WAITING:
            return self
        succeeded = result is Result.ROTATED
        went_back = result in (Result.ROLLED_BACK, Result.STRANDED)
        durations = dict(self.durations)
        for stage, seconds in outcome.stages.items():
            if stage in STAGES:
                durations[stage] = durations.get(stage, Histogram()).plus(seconds)
        return replace(
            self,
            attempts=_one_more(self.attempts, (site, _known(trigger, TRIGGERS))),
            failures=self.failures if succeeded else _one_more(self.failures, (site, failed_stage(outcome))),
            rollbacks=_one_more(self.rollbacks, site) if went_back else self.rollbacks,
            rollback_failures=(
                _one_more(self.rollback_failures, site) if result is Result.STRANDED else self.rollback_failures
            ),
            swaps=_with(self.swaps, site, self.swaps.get(site, LastResult()).then(succeeded, outcome.at)),
            rejected=(
                _one_more(self.rejected, _known(outcome.reason, CODES)) if result is Result.REJECTED else self.rejected
            ),
            durations=MappingProxyType(durations),
        )

    def after_reload(self, failure: Reason | Code | None, at: datetime, seconds: float | None = None) -> Counters:
        """The counts with one more reload of nginx.

        Args:
            failure: why it failed, in `RELOAD_REASONS` or `RELOAD_OTHER`; None if it succeeded.
            at: when it ended, UTC.
            seconds: how long it took; None if that is unknown.
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
        """The counts with the watcher's total of lost events; a smaller total than the current one has no effect."""
        return self if count <= self.overflows else replace(self, overflows=count)

    def after_scan_error(self, reason: Reason | Code) -> Counters:
        """The counts with one more drop that could not be read.

        Args:
            reason: one of `SCAN_REASONS`.
        """
        return replace(self, scan_errors=_one_more(self.scan_errors, _known(reason, SCAN_REASONS)))

    def after_commands(self, entries: Iterable[HistoryEntry]) -> Counters:
        """The counts with the outcomes of commands, which run outside the daemon.

        Args:
            entries: their entries in the store's history, oldest first; one without a time, or with the result of a
                newer version, is ignored.
        """
        counters = self
        for entry in entries:
            if entry.at and entry.result in _RESULTS:
                outcome = Outcome(
                    entry.site, Result(entry.result), entry.at, reason_of(entry.reason), stages=entry.stages
                )
                counters = counters.after(outcome, entry.trigger)
        return counters

    def with_last_swaps(self, entries: Iterable[HistoryEntry]) -> Counters:
        """The counts with the last swap of each site as the history has it, so that a restart does not forget it.

        Args:
            entries: entries of the store's history, oldest first; one without a time, or with the result of a newer
                version, is ignored.
        """
        swaps = dict(self.swaps)
        for entry in entries:
            if not entry.at or entry.result not in _RESULTS:
                continue
            known = swaps.get(entry.site, LastResult())
            early = entry.result == Result.DEFERRED and entry.reason in WAITING
            if entry.result == Result.UNCHANGED and known.successful is False:
                swaps[entry.site] = LastResult(True, known.success_at)  # as in `after`
            elif entry.result != Result.UNCHANGED and not early:
                swaps[entry.site] = known.then(entry.result == Result.ROTATED, entry.at)
        return replace(self, swaps=MappingProxyType(swaps))

    def only(self, sites: Iterable[str]) -> Counters:
        """The counts of these sites alone. A site that is removed and added again starts from zero."""
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
    """The stage in which an unsuccessful outcome ended."""
    if later_stages := [stage for stage in ("prove", "apply") if stage in outcome.stages]:
        return later_stages[0]
    timed = [stage for stage in outcome.stages if stage in STAGES]  # in the order in which they began
    return STAGE_OF.get(outcome.reason) or (timed[-1] if timed else "detect")


def _known(value: str, values: tuple[str, ...]) -> str:
    return value if value in values else OTHER


def _one_more(counts: Mapping[K, int], key: K) -> Mapping[K, int]:
    return MappingProxyType({**counts, key: counts.get(key, 0) + 1})


def _with(lasts: Mapping[str, LastResult], site: str, last: LastResult) -> Mapping[str, LastResult]:
    return MappingProxyType({**lasts, site: last})
