"""What the loop has to know of one drop to decide about it: its memory, what lies there, what the order would be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rotator import judging
from rotator.daemon.ground import Ground, Ward
from rotator.drops import Look, Signature
from rotator.errors import RotatorError
from rotator.model import Candidate, KeyType, SourceFile, is_critical
from rotator.outcome import Wanted, meta_pairs, meta_time, still_serves
from rotator.pem import encode_chain
from rotator.reconcile import Decision, Deferral, Moment, Nothing
from rotator.store import Intent
from rotator.trust import Verdict

Chains = Mapping[KeyType, tuple[bytes, ...]]


@dataclass(slots=True)
class Memory:
    """What the loop knows of one site's drop; lost with the process, and found again.

    Args:
        signature: as it looked last; None before the first look.
        changed: monotonic time of its last change.
        due: monotonic time at which it is to be decided about again.
        decision: the last one.
        deferral: see `reconcile`.
        decided: what was decided last.
        unwritten: a decision that the disk did not take.
        problem: why it could not be looked at, as told last.
    """

    signature: Signature | None = None
    changed: float = 0.0
    due: float = 0.0
    decision: Decision = field(default_factory=Nothing)
    deferral: Deferral | None = None
    decided: Intent = field(default_factory=Intent)
    unwritten: Intent | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """A drop that is to be put live, or refused by the rotation's own judge.

    Args:
        ward: whose.
        digest: of what lies there.
        wanted: for `rotate`.
        intent: what was decided last when this was ordered: another one means that somebody else was quicker.
        reloads: whether it is meant to reload nginx.
    """

    ward: Ward
    digest: str
    wanted: Wanted
    intent: Intent
    reloads: bool


def read(ground: Ground, name: str, look: Look) -> tuple[Candidate | None, RotatorError | None]:
    """What lies in a drop, or why it cannot be read; neither if nothing lies there."""
    if not look.signature:
        return None, None  # that a directory is lost is told elsewhere
    try:
        return ground.drops.read(name), None
    except RotatorError as error:
        return None, error


def digest_of(candidate: Candidate | None, look: Look, error: RotatorError | None) -> str:
    """The candidate's; for a drop that cannot be read one that changes when anything there does."""
    if candidate:
        return candidate.digest
    return "unread-" + hashlib.sha256(repr((look.signature, error.code)).encode()).hexdigest() if error else ""


def live_chains(ground: Ground, name: str) -> Chains:
    """What is live, by kind of key; nothing where that cannot be read: the rotation says why."""
    live = ground.hands.live(name).generation
    try:
        return ground.hands.store.load(name, live).chains if live else {}
    except RotatorError:
        return {}


def judged(ground: Ground, candidate: Candidate | None, ward: Ward, now: Moment, live: Chains) -> Verdict:
    """What the judge says of a candidate."""
    if candidate is None:
        return Verdict()
    return judging.judged(candidate, ward.wanted("drop"), ground.hands.store, now.wall, tuple(live.values()))


def completed(
    ground: Ground, candidate: Candidate, lacking: frozenset[KeyType], ward: Ward, now: Moment, live: Chains
) -> Candidate:
    """With the live pairs of the kinds that were not delivered, if those are still fit: both are served on."""
    name, files = ward.site.name, list(candidate.files)
    generation = ground.hands.live(name).generation
    for pair in ground.hands.store.load_pairs(name, generation) if lacking else ():
        if pair.key_type in lacking and pair.key:
            files.append(SourceFile(f"{generation}/{pair.key_type}-fullchain.pem", encode_chain(pair.chain)))
            files.append(SourceFile(f"{generation}/{pair.key_type}-privkey.pem", pair.key.reveal()))
    whole = replace(candidate, files=tuple(files))
    return whole if lacking and judged(ground, whole, ward, now, live).accepted else candidate


def order(ground: Ground, ward: Ward, digest: str, candidate: Candidate, intent: Intent, *, reloads: bool) -> Order:
    """To put a candidate live, or to have the rotation refuse it."""
    wanted = replace(
        ward.wanted("drop"),
        candidate=candidate,
        first=not ground.hands.store.verified(ward.site.name),
        origin=tuple(source.name for source in candidate.files),
    )
    return Order(ward, digest, wanted, intent, reloads)


def is_close_to_its_end(ground: Ground, name: str, now: Moment) -> bool:
    """Whether what is live is in the critical rest of its life."""
    try:
        live = ground.hands.live(name).generation
        pairs = meta_pairs(ground.hands.store.load(name, live)) if live else ()
    except RotatorError:
        return False
    return any(is_critical(meta_time(p, "not_before"), meta_time(p, "not_after"), now.wall) for p in pairs)


def serves(ground: Ground, name: str) -> str:
    """What nginx goes on serving, in words."""
    live = ground.hands.live(name).generation
    try:
        return still_serves(ground.hands.store.load(name, live) if live else None)
    except RotatorError as e:
        return e.message
