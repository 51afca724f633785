"""A candidate judged with all that this host has at hand for it: the pool, and what the site has stored before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate
from rotator.core.problems import Code
from rotator.rotation.outcomes import Wanted
from rotator.storage.generations import Store
from rotator.validation.intermediates import Pool
from rotator.validation.validate import Verdict, examine

MENDABLE = frozenset(
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
"""What another intermediate can mend."""


def judged(
    candidate: Candidate, wanted: Wanted, store: Store, now: datetime, live: Sequence[tuple[bytes, ...]]
) -> Verdict:
    """What the judge says of a candidate.

    Only if a chain is refused, the stored generations of the site are read for an intermediate that mends it.

    Args:
        candidate: the files.
        wanted: the site, its roots and its pool.
        store: where its generations are.
        now: the reference time, UTC.
        live: DER chains that are live, to be compared with.
    """
    verdict = _asked(candidate, wanted, wanted.pool, now, live)
    if verdict.accepted or not MENDABLE & set(verdict.codes):
        return verdict
    earlier = stored(store, wanted.site.name)
    return _asked(candidate, wanted, wanted.pool | earlier, now, live) if earlier.by_subject else verdict


def _asked(
    candidate: Candidate, wanted: Wanted, pool: Pool, now: datetime, live: Sequence[tuple[bytes, ...]]
) -> Verdict:
    policy, anchors = wanted.site.policy, wanted.anchors
    return examine(candidate, policy, anchors, now, live=live, force=wanted.force, pool=pool)


def stored(store: Store, site: str) -> Pool:
    """The intermediates of a site's stored generations; one that cannot be read offers none."""
    chains: list[tuple[str, tuple[bytes, ...]]] = []
    for name in store.names(site):
        try:
            held = store.load(site, name).chains.values()
        except RotatorError:
            continue
        chains += [(f"the stored generation {name}", chain) for chain in held]
    return Pool.from_chains(chains)
