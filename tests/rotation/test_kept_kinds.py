"""A delivery of one kind of key for a site with two: what the store adds, so that the live pair of the other stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rotator.core.model import KeyType, Pair, Provenance
from rotator.rotation.request import RotationRequest
from rotator.rotation.snapshot import SiteSnapshot
from rotator.rotation.validate_candidate import validate_candidate
from rotator.storage.generations import Store
from rotator.validation.validate import Anchors, Verdict
from tests.support.authority import CA, NOW, der, pem
from tests.support.hosts import candidate_of, make_site
from tests.support.judging import judge

DAY = timedelta(days=1)
SITE = make_site()
NAME = SITE.names[0]
ROOT = CA.root()
ANCHORS = Anchors.from_pem(pem(ROOT.cert), "roots.pem")
ICA, SECOND = ROOT.intermediate(), ROOT.intermediate("Second")
EXPIRED = ROOT.intermediate("Second", key=SECOND.key, not_before=NOW - 20 * DAY, not_after=NOW - DAY)
OLD_ECDSA = ICA.issue(NAME, not_before=NOW - 60 * DAY)
OLD_RSA = SECOND.issue(NAME, kind="rsa", not_before=NOW - 60 * DAY)


def stored(store: Store, *pairs: Pair) -> str:
    """The name of a new generation."""
    staged = store.stage(SITE.name, pairs, Provenance((), "ann", NOW))
    staged.flush()
    return staged.commit().name


def verdict_on_ecdsa(store: Store, live: str) -> Verdict:
    """The verdict on a new ECDSA pair while this generation is live."""
    request = RotationRequest(SITE, ANCHORS, keep_kinds=True)
    snapshot = SiteSnapshot(SITE.name, live, store.load(SITE.name, live))
    return validate_candidate(candidate_of(ICA.issue(NAME)), request, snapshot, store, NOW)


def test_a_kept_pair_whose_intermediate_has_expired_takes_one_of_the_stored_generations(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (ecdsa,) = judge(OLD_ECDSA, names=[NAME], anchors=ANCHORS).pairs
    (rsa,) = judge(OLD_RSA, names=[NAME], anchors=ANCHORS).pairs
    with_expired = replace(rsa, chain=(rsa.chain[0], *der(EXPIRED.cert)))
    alone = stored(store, ecdsa, with_expired)
    assert verdict_on_ecdsa(store, alone).kept == ()
    stored(store, rsa)
    live = stored(store, ecdsa, with_expired)
    verdict = verdict_on_ecdsa(store, live)
    assert (verdict.kept, verdict.pairs[1].chain) == ((KeyType.RSA,), OLD_RSA.chain_der)
