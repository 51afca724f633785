"""The one entrance to validation: a candidate, completed from the pool and from the stored generations."""

from __future__ import annotations

from datetime import datetime

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, Pair
from rotator.core.problems import Code
from rotator.rotation.request import RotationRequest
from rotator.rotation.snapshot import SiteSnapshot
from rotator.storage.generations import Store
from rotator.validation.intermediates import Pool
from rotator.validation.validate import Verdict, validate_files

REPAIRABLE = frozenset(
    {
        Code.AKI_MISMATCH,
        Code.BAD_SIGNATURE,
        Code.CHAIN_TOO_LONG,
        Code.EXPIRED_INTERMEDIATE,
        Code.EXPIRED_ROOT,
        Code.INCOMPLETE_CHAIN,
        Code.NOT_YET_VALID,
        Code.UNTRUSTED_ROOT,
    }
)
"""The codes that another intermediate can remove."""


def validate_candidate(
    candidate: Candidate, request: RotationRequest, snapshot: SiteSnapshot, store: Store, now: datetime
) -> Verdict:
    """The verdict on a candidate.

    Only if a chain is refused or a live pair could not be kept, the stored generations of the site are read for an
    intermediate that completes its chain.

    Args:
        candidate: the files.
        request: the site, its roots and its pool.
        snapshot: what is live, to be compared with and, as far as `keep_kinds` says so, to be kept.
        store: holds the site's generations.
        now: the reference time, UTC.

    Raises:
        RotatorError: the candidate lacks a live kind of key, and the live pair cannot be read.
    """
    keep, unreadable = _live_pairs(request, snapshot, store)
    live = tuple(snapshot.chains.values())

    def verdict_with(pool: Pool) -> Verdict:
        policy, anchors, force = request.site.policy, request.anchors, request.force
        return validate_files(candidate, policy, anchors, now, live=live, keep=keep, force=force, pool=pool)

    verdict = verdict_with(request.pool)
    kinds = {pair.key_type for pair in verdict.pairs}
    is_one_lost = verdict.accepted and any(pair.key_type not in kinds for pair in keep)
    if is_one_lost or (not verdict.accepted and REPAIRABLE & set(verdict.codes)):
        stored = stored_intermediates(store, request.site.name)
        verdict = verdict_with(request.pool | stored) if stored.by_subject else verdict
    if unreadable and verdict.accepted and not snapshot.chains.keys() <= kinds:
        raise unreadable
    return verdict


def _live_pairs(
    request: RotationRequest, snapshot: SiteSnapshot, store: Store
) -> tuple[tuple[Pair, ...], RotatorError | None]:
    """The live pairs of a site with several kinds of key, or why they cannot be read."""
    if not request.keep_kinds or snapshot.generation is None or len(snapshot.chains) < 2:
        return (), None
    try:
        return store.pairs_of(snapshot.generation), None
    except RotatorError as e:
        return (), e


def stored_intermediates(store: Store, site: str) -> Pool:
    """The intermediates of a site's stored generations; an unreadable generation offers none."""
    chains: list[tuple[str, tuple[bytes, ...]]] = []
    for name in store.names(site):
        try:
            generation = store.load(site, name)
        except RotatorError:
            continue
        chains += [(f"the stored generation {name}", chain) for chain in generation.chains.values()]
    return Pool.from_chains(chains)
