"""The metrics of an observed site: turns the facts of one observation into the values of a snapshot."""

from __future__ import annotations

from datetime import datetime

from rotator.core.model import Generation, KeyType
from rotator.metrics.snapshot import CertificateFacts, ProbeFacts, ServedFacts, SiteFacts
from rotator.rotation.observe import Observation, ObservedHandshake
from rotator.x509.parse import read_certificate

Validity = tuple[datetime, datetime]
"""notBefore and notAfter of a leaf, UTC."""


def site_facts(facts: Observation, at: datetime) -> SiteFacts:
    """A site's part of the snapshot, except for the state of its drop.

    Args:
        facts: the observation.
        at: the time of the observation, UTC.
    """
    listeners = dict.fromkeys(seen.served.target.listener for seen in facts.seen)
    return SiteFacts(
        facts.site.name,
        certificates(facts.live),
        _served(facts),
        tuple(
            ProbeFacts(
                listener,
                not any(seen.served.failure for seen in facts.seen if seen.served.target.listener == listener),
                at,
            )
            for listener in listeners
        ),
    )


def certificates(live: Generation | None) -> tuple[CertificateFacts, ...]:
    """The certificate of each pair of the live generation."""
    return tuple(
        CertificateFacts(
            pair.key_type,
            pair.not_before,
            pair.not_after,
            pair.effective_not_after,
            pair.fingerprint,
            pair.serial,
            pair.issuer,
        )
        for pair in (live.record.pairs if live else ())
    )


def _served(facts: Observation) -> tuple[ServedFacts, ...]:
    """One value for each listener and key type. Where a listener serves several leaves, the first to expire counts."""
    only = next(iter(facts.live.chains)) if facts.live and len(facts.live.chains) == 1 else None
    leaves: dict[bytes, tuple[KeyType | None, Validity | None]] = {}
    groups: dict[tuple[str, KeyType], list[tuple[Validity | None, ObservedHandshake]]] = {}
    for seen in facts.seen:
        if not seen.served.chain:
            continue  # a failed handshake is not a difference
        der = seen.served.chain[0]
        if der not in leaves:
            leaves[der] = _leaf(der)
        leaf_type, validity = leaves[der]
        key_type = seen.served.target.key_type or only or leaf_type
        if key_type is not None:
            groups.setdefault((seen.served.target.listener, key_type), []).append((validity, seen))
    served_facts = []
    for (listener, key_type), group in groups.items():
        validities = sorted((validity for validity, _ in group if validity), key=lambda validity: validity[1])
        matches = [seen.matches for _, seen in group if seen.matches is not None]
        not_before, not_after = validities[0] if validities else (None, None)
        served_facts.append(ServedFacts(listener, key_type, not_before, not_after, all(matches) if matches else None))
    return tuple(served_facts)


def _leaf(der: bytes) -> tuple[KeyType | None, Validity | None]:
    leaf, _ = read_certificate(der)
    return (leaf.key_type, (leaf.not_before, leaf.not_after)) if leaf else (None, None)
