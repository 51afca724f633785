"""What was observed of a site, as its metrics show it; nothing is asked of the world and nothing is rendered here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from rotator.core.model import Generation, KeyType
from rotator.metrics.snapshot import CertificateFacts, ProbeFacts, ServedFacts, SiteFacts
from rotator.rotation.observe import Facts, Seen
from rotator.rotation.outcomes import meta_time
from rotator.x509.parse import read_certificate

Span = tuple[datetime, datetime]
"""notBefore and notAfter of a leaf."""


def site_facts(facts: Facts, at: datetime) -> SiteFacts:
    """A site's part of the snapshot, without what has become of its drop.

    Args:
        facts: as they were observed.
        at: when, UTC.
    """
    listeners = dict.fromkeys(one.served.target.listener for one in facts.seen)
    return SiteFacts(
        facts.site.name,
        certificates(facts.live),
        _served(facts),
        tuple(
            ProbeFacts(
                listener,
                not any(one.served.failure for one in facts.seen if one.served.target.listener == listener),
                at,
            )
            for listener in listeners
        ),
    )


def certificates(live: Generation | None) -> tuple[CertificateFacts, ...]:
    """What meta.json tells of each pair of the live generation; what it does not tell properly is left out."""
    found = []
    for kind, told in _told(live).items():
        try:
            found.append(
                CertificateFacts(
                    KeyType(kind),
                    meta_time(told, "not_before"),
                    meta_time(told, "not_after"),
                    meta_time(told, "effective_not_after"),
                    str(told["fingerprint_sha256"]),
                    str(told["serial"]),
                    str(told["issuer"]),
                )
            )
        except (KeyError, ValueError):
            continue
    return tuple(found)


def _told(live: Generation | None) -> Mapping[str, Mapping[str, object]]:
    pairs = live.meta.get("pairs") if live else None
    return {k: p for k, p in pairs.items() if isinstance(p, dict)} if isinstance(pairs, dict) else {}


def _served(facts: Facts) -> tuple[ServedFacts, ...]:
    """Where a listener shows several names, the leaf that ends first stands for all."""
    only = next(iter(facts.live.chains)) if facts.live and len(facts.live.chains) == 1 else None
    leaves: dict[bytes, tuple[KeyType | None, Span | None]] = {}
    groups: dict[tuple[str, KeyType], list[tuple[Span | None, Seen]]] = {}
    for seen in facts.seen:
        if not seen.served.chain:
            continue  # a handshake that failed shows nothing, not something else
        der = seen.served.chain[0]
        if der not in leaves:
            leaves[der] = _leaf(der)
        shown, span = leaves[der]
        kind = seen.served.target.key_type or only or shown
        if kind is not None:
            groups.setdefault((seen.served.target.listener, kind), []).append((span, seen))
    found = []
    for (listener, kind), group in groups.items():
        spans = sorted((span for span, _ in group if span), key=lambda span: span[1])
        matches = [seen.matches for _, seen in group if seen.matches is not None]
        not_before, not_after = spans[0] if spans else (None, None)
        found.append(ServedFacts(listener, kind, not_before, not_after, all(matches) if matches else None))
    return tuple(found)


def _leaf(der: bytes) -> tuple[KeyType | None, Span | None]:
    leaf, _ = read_certificate(der)
    return (leaf.key_type, (leaf.not_before, leaf.not_after)) if leaf else (None, None)
