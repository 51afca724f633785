"""The snapshot: everything that the metrics show at one moment, as immutable values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from rotator.core.model import KeyType, Workers
from rotator.metrics.counters import Counters, LastResult


class InputState(StrEnum):
    """The state of a site's drop."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SETTLING = "settling"
    DEFERRED = "deferred"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """One certificate that nginx's configuration names.

    Args:
        key_type: its key type.
        not_before: notBefore of the leaf, UTC.
        not_after: notAfter of the leaf, UTC.
        chain_not_after: the earliest notAfter on its path, UTC.
        fingerprint: the SHA-256 of the leaf in lower-case hexadecimal.
        serial: the serial number of the leaf in lower-case hexadecimal.
        issuer: the name of the leaf's issuer.
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
    """The certificate that a listener served in handshakes with one key type.

    Args:
        listener: its address.
        key_type: the key type that is expected there.
        not_before: notBefore of the leaf that expires first, UTC; None if it cannot be parsed.
        not_after: notAfter of the same leaf, UTC; None if it cannot be parsed.
        matches: whether the served chain is the one on disk, for every name; None if the disk has none.
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
        successful: whether all of them were completed, with any certificate.
        at: the time of the handshakes, UTC.
    """

    listener: str
    successful: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """One site; an empty or None value means that the fact is unknown.

    Args:
        name: the name of the site.
        certificates: the live certificates on disk, one for each key type.
        served: the served certificates, one for each listener and key type.
        probes: the last handshakes, one for each listener.
        input: the state of its drop; None if the drop is empty.
        live_accepted: whether the live certificates would be accepted now by policy, roots and lists.
        undecided_since: since when the content of its drop waits for a decision, UTC; None if it does not.
    """

    name: str
    certificates: tuple[CertificateFacts, ...] = ()
    served: tuple[ServedFacts, ...] = ()
    probes: tuple[ProbeFacts, ...] = ()
    input: InputState | None = None
    live_accepted: bool | None = None
    undecided_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the metrics show at one moment; a value of None is unknown and is not shown.

    Args:
        sites: every site of the configuration in force; None before one was loaded.
        workers: the worker processes of nginx.
        watcher_up: whether the system reports changes of the drops by events.
        scanned_at: when all drops were last scanned without an error, UTC.
        scan_interval: the time between two scans without an event.
        config: the result of the last load of the configuration.
        counters: the counts since the start.
    """

    sites: tuple[SiteFacts, ...] | None = None
    workers: Workers | None = None
    watcher_up: bool | None = None
    scanned_at: datetime | None = None
    scan_interval: timedelta | None = None
    config: LastResult = field(default_factory=LastResult)
    counters: Counters = field(default_factory=Counters)
