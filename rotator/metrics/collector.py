"""The page that Prometheus reads, made from one snapshot; the only place that knows metric names or prometheus_client.

What is not known is left out: a 0 or a NaN would be taken for a fact. Value series carry the site and the listener
only; what changes with each renewal stands in one info series.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from rotator import __version__
from rotator.metrics.counters import (
    CODES,
    RELOAD_REASONS,
    SCAN_REASONS,
    STAGES,
    TRIGGERS,
    Counters,
    Histogram,
    Last,
)
from rotator.metrics.snapshot import InputState, SiteFacts, Snapshot

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

LONGEST_LABEL = 200
"""Characters of a label's value: some of it comes out of certificates."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Value = float | datetime | timedelta | None


def exposition(snapshot: Snapshot) -> bytes:
    """The page, in Prometheus' text format."""
    return generate_latest(_Snapshotted(snapshot))


def clean(text: str) -> str:
    """A label's value that any reader takes: no control character, no half of a surrogate pair, of bounded length."""
    return text[:LONGEST_LABEL] if text.isprintable() else _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)[:LONGEST_LABEL]


class _Snapshotted(Collector):
    """The one collector; it lives as long as one rendering.

    Args:
        snapshot: what is shown.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Every family that has a series."""
        sites = self._snapshot.sites or ()
        counters = self._snapshot.counters
        for families in (
            _certificates(sites),
            _served(sites),
            _swaps([site.name for site in sites], counters),
            _nginx(self._snapshot, counters),
            _inputs(self._snapshot, counters),
            _daemon(self._snapshot),
        ):
            for family in families:
                if family.metric.samples:
                    yield family.metric


class _Gauge:
    """A gauge; a value that is not known, or whose labels have been there before, adds nothing."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.metric = self._family(f"rotator_{name}", text, labels)
        self._seen: set[tuple[str, ...]] = set()

    def add(self, labels: Sequence[str], value: Value) -> None:
        """Adds a series."""
        number = _number(value)
        cleaned = tuple(map(clean, labels))
        if number is not None and cleaned not in self._seen:
            self._seen.add(cleaned)
            self.metric.add_metric(cleaned, number)

    @staticmethod
    def _family(name: str, text: str, labels: Sequence[str]) -> GaugeMetricFamily | CounterMetricFamily:
        return GaugeMetricFamily(name, text, labels=labels)


class _Counter(_Gauge):
    """A counter; given no time of creation, the library shows none."""

    @staticmethod
    def _family(name: str, text: str, labels: Sequence[str]) -> CounterMetricFamily:
        return CounterMetricFamily(name, text, labels=labels)


class _Histogram:
    """A histogram."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.metric = HistogramMetricFamily(f"rotator_{name}", text, labels=labels)

    def add(self, labels: Sequence[str], histogram: Histogram) -> None:
        """Adds its series."""
        self.metric.add_metric(labels, histogram.cumulative, histogram.total)


Families = Sequence[_Gauge | _Histogram]


def _number(value: Value) -> float | None:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return None if value is None or not math.isfinite(value) else float(value)


def _certificates(sites: Sequence[SiteFacts]) -> Families:
    keys = ("site", "key_type")
    begins = _Gauge(
        "certificate_not_before_timestamp_seconds", "When the certificate on disk begins to be valid.", keys
    )
    ends = _Gauge("certificate_not_after_timestamp_seconds", "When the certificate on disk ends.", keys)
    path = _Gauge(
        "certificate_chain_not_after_timestamp_seconds", "When the first certificate on the path on disk ends.", keys
    )
    info = _Gauge(
        "certificate_info", "Which certificate is on disk.", (*keys, "fingerprint_sha256", "serial", "issuer")
    )
    fit = _Gauge("live_accepted", "Whether what is live would be accepted now: not revoked, trusted, valid.", ("site",))
    for site in sites:
        fit.add((site.name,), site.live_accepted)
        for one in site.certificates:
            labels = (site.name, one.key_type)
            begins.add(labels, one.not_before)
            ends.add(labels, one.not_after)
            path.add(labels, one.chain_not_after)
            info.add((*labels, one.fingerprint, one.serial, one.issuer), 1)
    return begins, ends, path, info, fit


def _served(sites: Sequence[SiteFacts]) -> Families:
    keys = ("site", "listener", "key_type")
    begins = _Gauge(
        "served_certificate_not_before_timestamp_seconds", "When the certificate as served begins to be valid.", keys
    )
    ends = _Gauge("served_certificate_not_after_timestamp_seconds", "When the certificate as served ends.", keys)
    same = _Gauge(
        "served_certificate_matches_disk", "Whether the chain as served is the one on disk, for every name.", keys
    )
    success = _Gauge("served_probe_success", "Whether the last handshakes with the listener came about.", keys[:2])
    when = _Gauge("served_probe_timestamp_seconds", "When the last handshakes with the listener were made.", keys[:2])
    for site in sites:
        for one in site.served:
            labels = (site.name, one.listener, one.key_type)
            begins.add(labels, one.not_before)
            ends.add(labels, one.not_after)
            same.add(labels, one.matches)
        for probe in site.probes:
            success.add((site.name, probe.listener), probe.successful)
            when.add((site.name, probe.listener), probe.at)
    return begins, ends, same, success, when


def _swaps(sites: Sequence[str], counters: Counters) -> Families:
    attempts = _Counter("swap_attempts_total", "Swaps that were begun.", ("site", "trigger"))
    failures = _Counter("swap_failures_total", "Swaps that failed, by the stage that they ended in.", ("site", "stage"))
    rollbacks = _Counter("rollbacks_total", "Swaps that had to go back.", ("site",))
    lost = _Counter("rollback_failures_total", "Rollbacks after which neither pair was proved.", ("site",))
    ok = _Gauge("last_swap_successful", "Whether the last swap succeeded.", ("site",))
    when = _Gauge("last_swap_success_timestamp_seconds", "When a swap last succeeded.", ("site",))
    took = _Histogram("swap_duration_seconds", "How long the stages of swaps took.", ("stage",))
    for site in sites:
        for trigger in TRIGGERS:
            attempts.add((site, trigger), counters.attempts.get((site, trigger), 0))
        for stage in STAGES:
            failures.add((site, stage), counters.failures.get((site, stage), 0))
        rollbacks.add((site,), counters.rollbacks.get(site, 0))
        lost.add((site,), counters.rollback_failures.get(site, 0))
        last = counters.swaps.get(site, Last())
        ok.add((site,), last.successful)
        when.add((site,), last.success_at)
    for stage in STAGES:
        took.add((stage,), counters.durations.get(stage, Histogram()))
    return attempts, failures, rollbacks, lost, ok, when, took


def _nginx(snapshot: Snapshot, counters: Counters) -> Families:
    reloads = _Counter("nginx_reloads_total", "Reloads of nginx that the daemon made or tried.")
    failures = _Counter("nginx_reload_failures_total", "Reloads of nginx that failed.", ("reason",))
    ok = _Gauge("nginx_last_reload_successful", "Whether the last reload of nginx succeeded.")
    when = _Gauge("nginx_last_reload_success_timestamp_seconds", "When a reload of nginx last succeeded.")
    took = _Histogram("nginx_reload_duration_seconds", "How long reloads of nginx took.")
    workers = _Gauge(
        "nginx_worker_processes",
        "Workers of nginx: those that accept connections, and old ones that only finish theirs.",
        ("generation",),
    )
    reloads.add((), counters.reloads)
    for reason in RELOAD_REASONS:
        failures.add((reason,), counters.reload_failures.get(reason, 0))
    ok.add((), counters.reload.successful)
    when.add((), counters.reload.success_at)
    took.add((), counters.reload_duration)
    if snapshot.workers is not None:
        workers.add(("current",), len(snapshot.workers.active))
        workers.add(("old",), len(snapshot.workers.draining))
    return reloads, failures, ok, when, took, workers


def _inputs(snapshot: Snapshot, counters: Counters) -> Families:
    inputs = _Gauge("inputs", "Drops by what has become of that which lies there.", ("state",))
    rejected = _Counter(
        "inputs_rejected_total", "Inputs that were rejected, by the code of the worst problem.", ["code"]
    )
    up = _Gauge("watcher_up", "Whether changes of the drops are told by events.")
    overflows = _Counter("watcher_overflows_total", "Times that events were lost.")
    when = _Gauge("scan_last_success_timestamp_seconds", "When all drops could last be looked at.")
    interval = _Gauge("scan_interval_seconds", "How often the drops are looked at without an event.")
    errors = _Counter("scan_errors_total", "Times that a drop could no longer be looked at.", ("reason",))
    if snapshot.sites is not None:
        states = [site.input for site in snapshot.sites]
        for state in InputState:
            inputs.add((state,), states.count(state))
    for code in CODES:
        rejected.add((code,), counters.rejected.get(code, 0))
    up.add((), snapshot.watcher_up)
    overflows.add((), counters.overflows)
    when.add((), snapshot.scanned_at)
    interval.add((), snapshot.scan_interval)
    for reason in SCAN_REASONS:
        errors.add((reason,), counters.scan_errors.get(reason, 0))
    return inputs, rejected, up, overflows, when, interval, errors


def _daemon(snapshot: Snapshot) -> Families:
    managed = _Gauge("sites", "Sites of the configuration in force.")
    ok = _Gauge("config_last_reload_successful", "Whether the configuration was last read without a mistake.")
    when = _Gauge(
        "config_last_reload_success_timestamp_seconds", "When the configuration was last read without a mistake."
    )
    build = _Gauge("build_info", "What is running.", ("version", "python"))
    managed.add((), None if snapshot.sites is None else len(snapshot.sites))
    ok.add((), snapshot.config.successful)
    when.add((), snapshot.config.success_at)
    build.add((__version__, platform.python_version()), 1)
    return managed, ok, when, build
