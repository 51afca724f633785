"""A delivery of one kind of key for a site that serves two: the live pair of the other kind stays beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core.model import KeyType, Pair, Secret
from rotator.core.problems import Code
from rotator.validation.intermediates import Pool
from rotator.validation.validate import Verdict, public, validate_files
from tests.support.authority import CA, NOW, Issued, der, pem
from tests.support.judging import ANCHORS, GOOD, ICA, NAME, ROOT, files, judge

DAY = timedelta(days=1)
OLD_ECDSA = ICA.issue(NAME, not_before=NOW - 60 * DAY)
OLD_RSA = ICA.issue(NAME, kind="rsa", not_before=NOW - 60 * DAY)


class Sealed(Secret):
    """A key that nothing may look at."""

    def reveal(self) -> bytes:
        raise AssertionError("a key was revealed")


def pair_of(issued: Issued) -> Pair:
    """The stored pair, with a key that nothing may look at."""
    (pair,) = judge(issued).pairs
    return replace(pair, key=Sealed(b"secret"))


def delivered(new: Issued, *live: Issued, keep: tuple[Pair, ...] | None = None) -> Verdict:
    """The verdict on a delivery beside these live pairs."""
    candidate = files(("chain.pem", new.chain_pem), ("key.pem", new.key_pem))
    keep = tuple(pair_of(issued) for issued in live) if keep is None else keep
    return validate_files(candidate, public([NAME]), ANCHORS, NOW, live=[i.chain_der for i in live], keep=keep)


def test_the_live_pair_of_a_kind_that_was_not_delivered_is_kept_with_its_key_unseen() -> None:
    verdict = delivered(GOOD, OLD_ECDSA, OLD_RSA)
    assert verdict.accepted
    assert [pair.chain for pair in verdict.pairs] == [GOOD.chain_der, OLD_RSA.chain_der]
    assert isinstance(verdict.pairs[1].key, Sealed)
    assert verdict.kept == (KeyType.RSA,)


def test_a_kept_kind_is_no_change_of_the_kinds_that_are_served() -> None:
    assert delivered(GOOD, OLD_ECDSA, OLD_RSA).warnings == ()


def test_the_pairs_stand_in_the_order_of_their_kinds_whichever_was_delivered() -> None:
    verdict = delivered(ICA.issue(NAME, kind="rsa"), OLD_ECDSA, OLD_RSA)
    assert [pair.key_type for pair in verdict.pairs] == [KeyType.ECDSA, KeyType.RSA]
    assert verdict.kept == (KeyType.ECDSA,)


def test_a_kind_that_was_delivered_is_not_kept() -> None:
    verdict = delivered(GOOD, OLD_ECDSA, keep=(pair_of(OLD_ECDSA),))
    assert [pair.chain for pair in verdict.pairs] == [GOOD.chain_der]
    assert verdict.kept == ()


@pytest.mark.parametrize(
    "unfit",
    [
        ICA.issue(NAME, kind="rsa", not_before=NOW - 99 * DAY, not_after=NOW - DAY),
        ICA.issue("other.example.test", kind="rsa"),
    ],
    ids=["expired", "of another name"],
)
def test_a_live_pair_that_is_no_longer_valid_goes_and_that_is_a_warning(unfit: Issued) -> None:
    verdict = delivered(GOOD, OLD_ECDSA, keep=(replace(pair_of(OLD_RSA), chain=unfit.chain_der),))
    assert verdict.accepted
    assert verdict.kept == ()
    gone = delivered(GOOD, OLD_ECDSA, OLD_RSA, keep=())
    assert gone.accepted
    assert Code.KEY_TYPE_CHANGE in gone.warnings


def test_a_live_pair_that_cannot_be_read_is_not_kept() -> None:
    verdict = delivered(GOOD, OLD_ECDSA, keep=(replace(pair_of(OLD_RSA), chain=(b"junk",)),))
    assert (verdict.accepted, verdict.kept) == (True, ())


def test_beside_files_without_a_pair_nothing_is_kept() -> None:
    verdict = validate_files(files(("notes.txt", b"hello")), public([NAME]), ANCHORS, NOW, keep=(pair_of(OLD_RSA),))
    assert (verdict.pairs, verdict.kept, verdict.accepted) == ((), (), False)


def test_a_refused_delivery_is_refused_whatever_is_kept() -> None:
    expired = ICA.issue(NAME, not_before=NOW - 99 * DAY, not_after=NOW - DAY)
    assert Code.EXPIRED in delivered(expired, OLD_ECDSA, OLD_RSA).codes


# -- a kept chain is built again


def kept_with(chain: tuple[bytes, ...], *more: tuple[str, bytes], pool: Pool | None = None) -> Verdict:
    """The verdict on a new ECDSA pair beside a live RSA pair with this chain."""
    keep = (pair_of(OLD_ECDSA), replace(pair_of(OLD_RSA), chain=chain))
    candidate = files(("chain.pem", GOOD.chain_pem), ("key.pem", GOOD.key_pem), *more)
    live = [OLD_ECDSA.chain_der, chain]
    return validate_files(candidate, public([NAME]), ANCHORS, NOW, live=live, keep=keep, pool=pool)


EXPIRED_ICA = ROOT.intermediate(key=ICA.key, not_before=NOW - 20 * DAY, not_after=NOW - DAY)
FOREIGN_ICA = CA.root("Another Root").intermediate(key=ICA.key)
WITH_EXPIRED = (OLD_RSA.chain_der[0], *der(EXPIRED_ICA.cert))
WITH_FOREIGN = (OLD_RSA.chain_der[0], *der(FOREIGN_ICA.cert))


@pytest.mark.parametrize("chain", [WITH_EXPIRED, WITH_FOREIGN], ids=["expired", "of a root that is not trusted"])
def test_a_kept_pair_takes_the_delivered_intermediate_in_place_of_its_own(chain: tuple[bytes, ...]) -> None:
    verdict = kept_with(chain)
    assert (verdict.accepted, verdict.warnings, verdict.kept) == (True, (), (KeyType.RSA,))
    assert verdict.pairs[1].chain == OLD_RSA.chain_der


def test_a_kept_pair_is_served_without_the_certificates_that_have_expired() -> None:
    verdict = kept_with((*OLD_RSA.chain_der, *der(EXPIRED_ICA.cert)))
    assert verdict.pairs[1].chain == OLD_RSA.chain_der


def test_a_kept_pair_ends_with_the_path_that_it_gets() -> None:
    assert kept_with(WITH_EXPIRED).effective_not_after == OLD_RSA.leaf.not_valid_after_utc


def test_a_kept_pair_takes_an_intermediate_of_the_pool() -> None:
    other = ROOT.intermediate("Second").issue(NAME, kind="rsa", not_before=NOW - 60 * DAY)
    pool = Pool.from_chains([("the pool", other.chain_der)])
    verdict = kept_with(other.chain_der[:1], pool=pool)
    assert (verdict.kept, verdict.pairs[1].chain) == ((KeyType.RSA,), other.chain_der)
    assert kept_with(other.chain_der[:1]).kept == ()


def test_a_delivered_intermediate_that_the_kept_pair_needs_is_not_reported_as_unused() -> None:
    second = ROOT.intermediate("Second")
    other = second.issue(NAME, kind="rsa", not_before=NOW - 60 * DAY)
    assert kept_with(other.chain_der[:1], ("second.pem", pem(second.cert))).warnings == ()
