"""What the metrics are made of: one immutable snapshot of all that is known; nothing is gathered or rendered here."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from rotator.core.model import KeyType, Workers
from rotator.metrics.counters import Counters, Last


class InputState(StrEnum):
    """What has become of that which lies in a site's drop."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SETTLING = "settling"
    DEFERRED = "deferred"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """One certificate that nginx's configuration names.

    Args:
        key_type: the kind of its key.
        not_before: the leaf's, UTC.
        not_after: the leaf's, UTC.
        chain_not_after: the earliest notAfter on its path, UTC.
        fingerprint: SHA-256 of the leaf, lower-case hex.
        serial: the leaf's, lower-case hex.
        issuer: the leaf's.
    """

    key_type: KeyType
    not_before: datetime
    not_after: datetime
    chain_not_after: datetime
    fingerprint: str
    serial: str
    issuer: str


@dataclass(frozen=True, slots=True)
class ServedFacts:
    """What handshakes with a listener showed, for one kind of key.

    Args:
        listener: its address.
        key_type: the kind of key that is expected there.
        not_before: of the leaf that ends first, UTC; None if it cannot be read.
        not_after: the same.
        matches: whether it is what is on disk, for every name; None if nothing is.
    """

    listener: str
    key_type: KeyType
    not_before: datetime | None
    not_after: datetime | None
    matches: bool | None


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """The last handshakes with a listener.

    Args:
        listener: its address.
        successful: whether every one of them came about, whatever it showed.
        at: when, UTC.
    """

    listener: str
    successful: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What is known of one site; empty or None is not known.

    Args:
        name: the site's.
        certificates: on disk, one for each kind of key.
        served: one for each listener and kind of key.
        probes: one for each listener.
        input: what has become of its drop; None if nothing lies there.
        live_accepted: whether what is live would be accepted now, by policy, roots and lists.
    """

    name: str
    certificates: tuple[CertificateFacts, ...] = ()
    served: tuple[ServedFacts, ...] = ()
    probes: tuple[ProbeFacts, ...] = ()
    input: InputState | None = None
    live_accepted: bool | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is known at one moment; None is not known, and is not shown.

    Args:
        sites: every site of the configuration in force; None before one was read.
        workers: nginx's processes.
        watcher_up: whether changes of the drops are told by events.
        scanned_at: when all drops could last be looked at, UTC.
        scan_interval: how often they are looked at anyway.
        config: how the last reading of the configuration ended.
        counters: what was counted since the start.
    """

    sites: tuple[SiteFacts, ...] | None = None
    workers: Workers | None = None
    watcher_up: bool | None = None
    scanned_at: datetime | None = None
    scan_interval: timedelta | None = None
    config: Last = field(default_factory=Last)
    counters: Counters = field(default_factory=Counters)
