"""The collector: renders a snapshot as the page that Prometheus reads. All metric names are defined here.

An unknown value is left out, because a 0 or a NaN would pass for a fact. The labels of a value are the site, the
listener and the key type; the facts that change with each renewal are the labels of one info metric.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from rotator import __version__
from rotator.core.text import label
from rotator.metrics.counters import (
    CODES,
    RELOAD_REASONS,
    SCAN_REASONS,
    STAGES,
    TRIGGERS,
    Counters,
    Histogram,
    LastResult,
)
from rotator.metrics.snapshot import InputState, SiteFacts, Snapshot

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

LONGEST_LABEL = 200
"""The most characters of a label's value; certificates supply some of these values."""

Value = float | datetime | timedelta | None


def exposition(snapshot: Snapshot) -> bytes:
    """The page, in Prometheus' text format."""
    return generate_latest(_SnapshotCollector(snapshot))


class _SnapshotCollector(Collector):
    """The collector for one rendering.

    Args:
        snapshot: the values to show.
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
    """A gauge. An unknown value, and a second value with the same labels, is ignored."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.metric = self._family(f"rotator_{name}", text, labels)
        self._seen: set[tuple[str, ...]] = set()

    def add(self, labels: Sequence[str], value: Value) -> None:
        """Adds a series."""
        number = _number(value)
        cleaned = tuple(label(value, LONGEST_LABEL) for value in labels)
        if number is not None and cleaned not in self._seen:
            self._seen.add(cleaned)
            self.metric.add_metric(cleaned, number)

    @staticmethod
    def _family(name: str, text: str, labels: Sequence[str]) -> GaugeMetricFamily | CounterMetricFamily:
        return GaugeMetricFamily(name, text, labels=labels)


class _Counter(_Gauge):
    """A counter. Without a creation time, the library renders no `_created` series."""

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
    not_before = _Gauge(
        "certificate_not_before_timestamp_seconds", "When the validity of the certificate on disk begins.", keys
    )
    not_after = _Gauge("certificate_not_after_timestamp_seconds", "When the certificate on disk expires.", keys)
    chain_not_after = _Gauge(
        "certificate_chain_not_after_timestamp_seconds",
        "When the first certificate of the path on disk expires.",
        keys,
    )
    info = _Gauge("certificate_info", "The certificate on disk.", (*keys, "fingerprint_sha256", "serial", "issuer"))
    accepted = _Gauge(
        "live_accepted", "Whether the live certificates would be accepted now: valid, trusted, not revoked.", ("site",)
    )
    for site in sites:
        accepted.add((site.name,), site.live_accepted)
        for certificate in site.certificates:
            labels = (site.name, certificate.key_type)
            not_before.add(labels, certificate.not_before)
            not_after.add(labels, certificate.not_after)
            chain_not_after.add(labels, certificate.chain_not_after)
            info.add((*labels, certificate.fingerprint, certificate.serial, certificate.issuer), 1)
    return not_before, not_after, chain_not_after, info, accepted


def _served(sites: Sequence[SiteFacts]) -> Families:
    keys = ("site", "listener", "key_type")
    not_before = _Gauge(
        "served_certificate_not_before_timestamp_seconds", "When the validity of the served certificate begins.", keys
    )
    not_after = _Gauge("served_certificate_not_after_timestamp_seconds", "When the served certificate expires.", keys)
    matches = _Gauge(
        "served_certificate_matches_disk", "Whether the served chain is the one on disk, for every name.", keys
    )
    success = _Gauge("served_probe_success", "Whether the last handshakes with the listener succeeded.", keys[:2])
    probed_at = _Gauge(
        "served_probe_timestamp_seconds", "When the last handshakes with the listener were made.", keys[:2]
    )
    for site in sites:
        for served in site.served:
            labels = (site.name, served.listener, served.key_type)
            not_before.add(labels, served.not_before)
            not_after.add(labels, served.not_after)
            matches.add(labels, served.matches)
        for probe in site.probes:
            success.add((site.name, probe.listener), probe.successful)
            probed_at.add((site.name, probe.listener), probe.at)
    return not_before, not_after, matches, success, probed_at


def _swaps(sites: Sequence[str], counters: Counters) -> Families:
    attempts = _Counter("swap_attempts_total", "Swaps that were begun.", ("site", "trigger"))
    failures = _Counter(
        "swap_failures_total", "Swaps that failed, by the stage in which they ended.", ("site", "stage")
    )
    rollbacks = _Counter("rollbacks_total", "Swaps that were rolled back.", ("site",))
    stranded = _Counter("rollback_failures_total", "Rollbacks after which neither pair was proved.", ("site",))
    successful = _Gauge("last_swap_successful", "Whether the last swap succeeded.", ("site",))
    success_at = _Gauge("last_swap_success_timestamp_seconds", "When a swap last succeeded.", ("site",))
    durations = _Histogram("swap_duration_seconds", "The durations of the stages of swaps.", ("stage",))
    for site in sites:
        for trigger in TRIGGERS:
            attempts.add((site, trigger), counters.attempts.get((site, trigger), 0))
        for stage in STAGES:
            failures.add((site, stage), counters.failures.get((site, stage), 0))
        rollbacks.add((site,), counters.rollbacks.get(site, 0))
        stranded.add((site,), counters.rollback_failures.get(site, 0))
        last = counters.swaps.get(site, LastResult())
        successful.add((site,), last.successful)
        success_at.add((site,), last.success_at)
    for stage in STAGES:
        durations.add((stage,), counters.durations.get(stage, Histogram()))
    return attempts, failures, rollbacks, stranded, successful, success_at, durations


def _nginx(snapshot: Snapshot, counters: Counters) -> Families:
    reloads = _Counter("nginx_reloads_total", "Reloads of nginx that the daemon made or tried to make.")
    failures = _Counter("nginx_reload_failures_total", "Reloads of nginx that failed, by reason.", ("reason",))
    successful = _Gauge("nginx_last_reload_successful", "Whether the last reload of nginx succeeded.")
    success_at = _Gauge("nginx_last_reload_success_timestamp_seconds", "When a reload of nginx last succeeded.")
    durations = _Histogram("nginx_reload_duration_seconds", "The durations of reloads of nginx.")
    workers = _Gauge(
        "nginx_worker_processes",
        "Workers of nginx: current ones accept connections, old ones only complete their last connections.",
        ("generation",),
    )
    reloads.add((), counters.reloads)
    for reason in RELOAD_REASONS:
        failures.add((reason,), counters.reload_failures.get(reason, 0))
    successful.add((), counters.reload.successful)
    success_at.add((), counters.reload.success_at)
    durations.add((), counters.reload_duration)
    if snapshot.workers is not None:
        workers.add(("current",), len(snapshot.workers.active))
        workers.add(("old",), len(snapshot.workers.draining))
    return reloads, failures, successful, success_at, durations, workers


def _inputs(snapshot: Snapshot, counters: Counters) -> Families:
    inputs = _Gauge("inputs", "Drops that are not empty, by their state.", ("state",))
    rejected = _Counter(
        "inputs_rejected_total", "Inputs that were rejected, by the code of the worst problem.", ["code"]
    )
    up = _Gauge("watcher_up", "Whether the system reports changes of the drops by events.")
    overflows = _Counter("watcher_overflows_total", "How often the watcher lost events.")
    scanned_at = _Gauge("scan_last_success_timestamp_seconds", "When all drops were last scanned without an error.")
    interval = _Gauge("scan_interval_seconds", "The time between two scans of the drops without an event.")
    errors = _Counter("scan_errors_total", "How often a drop became unreadable, by reason.", ("reason",))
    undecided = _Gauge(
        "input_undecided_since_timestamp_seconds",
        "Since when the content of the drop waits for a decision; absent while it does not.",
        ("site",),
    )
    for site in snapshot.sites or ():
        undecided.add((site.name,), site.undecided_since)
    if snapshot.sites is not None:
        states = [site.input for site in snapshot.sites]
        for state in InputState:
            inputs.add((state,), states.count(state))
    for code in CODES:
        rejected.add((code,), counters.rejected.get(code, 0))
    up.add((), snapshot.watcher_up)
    overflows.add((), counters.overflows)
    scanned_at.add((), snapshot.scanned_at)
    interval.add((), snapshot.scan_interval)
    for reason in SCAN_REASONS:
        errors.add((reason,), counters.scan_errors.get(reason, 0))
    return inputs, undecided, rejected, up, overflows, scanned_at, interval, errors


def _daemon(snapshot: Snapshot) -> Families:
    managed = _Gauge("sites", "Sites of the configuration in force.")
    successful = _Gauge("config_last_reload_successful", "Whether the last load of the configuration succeeded.")
    success_at = _Gauge(
        "config_last_reload_success_timestamp_seconds", "When a load of the configuration last succeeded."
    )
    build = _Gauge("build_info", "The versions of rotator and of Python.", ("version", "python"))
    managed.add((), None if snapshot.sites is None else len(snapshot.sites))
    successful.add((), snapshot.config.successful)
    success_at.add((), snapshot.config.success_at)
    build.add((__version__, platform.python_version()), 1)
    return managed, successful, success_at, build
