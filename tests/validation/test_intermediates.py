"""The pool of intermediates: what it holds, what it offers, and when a candidate is completed from it."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, SourceFile
from rotator.core.problems import Code, Severity
from rotator.validation.intermediates import MAX_OFFERED, Pool
from rotator.validation.report import explain
from rotator.validation.validate import Anchors, Verdict, public, validate_files
from rotator.x509.parse import read_certificate
from tests.support.authority import CA, NOW, Issued, der, new_key, pem
from tests.support.extensions import FEW_USES, instead, rolled_over, same_ca

NAME = "signal.example.cn"
DAY = timedelta(days=1)
ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)
ANCHORS = Anchors.from_pem(pem(ROOT.cert), "roots.pem")


def pool(*certificates: x509.Certificate) -> Pool:
    return Pool.from_files([SourceFile(f"/pool/{n}.pem", pem(one)) for n, one in enumerate(certificates)])


def judge(issued: Issued, *given: x509.Certificate, having: Pool) -> Verdict:
    """The verdict on a leaf with these certificates beside it."""
    files = (SourceFile("leaf.pem", pem(issued.leaf, *given)), SourceFile("key.pem", issued.key_pem))
    return validate_files(Candidate(files), public([NAME]), ANCHORS, NOW, pool=having)


def test_a_missing_intermediate_is_taken_from_the_pool_and_told() -> None:
    verdict = judge(GOOD, having=pool(ICA.cert))
    assert verdict.accepted
    assert verdict.borrowed
    assert verdict.pairs[0].chain == GOOD.chain_der
    (problem,) = verdict.problems
    assert (problem.code, problem.severity) == (Code.INCOMPLETE_CHAIN, Severity.WARN)
    assert problem.message == "CN=Test Intermediate was not in these files; it is taken from /pool/0.pem."
    assert explain(verdict)[0].startswith("WARN incomplete-chain: CN=Test Intermediate was not in these files")


def test_what_a_ca_issued_to_itself_when_it_changed_its_key_is_taken_from_the_pool() -> None:
    old = ROOT.intermediate("Renewed", pathlen=None)
    new = rolled_over(old)
    verdict = judge(new.issue(NAME), having=pool(old.cert, new.cert, ROOT.cert))
    assert verdict.accepted
    assert verdict.pairs[0].chain[1:] == der(new.cert, old.cert)


def test_two_missing_intermediates_are_taken_from_the_pool() -> None:
    lower = ROOT.intermediate("Upper", pathlen=1).intermediate("Lower")
    issued = lower.issue(NAME)
    verdict = judge(issued, having=pool(*reversed(lower.above)))
    assert verdict.pairs[0].chain == issued.chain_der
    assert verdict.warnings == (Code.INCOMPLETE_CHAIN,)
    assert len(verdict.problems) == 2


def test_what_was_delivered_comes_before_the_pool() -> None:
    longer = same_ca(ICA, ROOT, not_after=ICA.cert.not_valid_after_utc + DAY)
    verdict = judge(GOOD, ICA.cert, having=pool(longer.cert))
    assert not verdict.borrowed
    assert verdict.problems == ()
    assert verdict.pairs[0].chain == GOOD.chain_der


def test_an_expired_intermediate_is_replaced_by_that_of_the_pool() -> None:
    old = same_ca(ICA, ROOT, not_after=NOW - DAY)
    verdict = judge(GOOD, old.cert, having=pool(ICA.cert))
    assert verdict.accepted
    assert verdict.pairs[0].chain == GOOD.chain_der
    assert set(verdict.warnings) == {Code.INCOMPLETE_CHAIN, Code.EXPIRED_EXTRA}


@pytest.mark.parametrize(
    "unfit",
    [
        ROOT.intermediate(),
        same_ca(ICA, ROOT, not_after=NOW - DAY),
        same_ca(ICA, CA.root("Elsewhere")),
        ROOT.intermediate(key=ICA.key, tweak=instead(FEW_USES)),
        ROOT.intermediate(
            key=ICA.key,
            tweak=instead(x509.SubjectKeyIdentifier.from_public_key(new_key().public_key()), critical=False),
        ),
    ],
    ids=["another key", "expired", "another root", "no right to sign", "another key identifier"],
)
def test_what_does_not_fit_in_every_respect_is_not_taken(unfit: CA) -> None:
    verdict = judge(GOOD, having=pool(unfit.cert))
    assert verdict.codes == (Code.INCOMPLETE_CHAIN,)
    assert not verdict.borrowed
    assert verdict.pairs[0].chain == GOOD.chain_der[:1]
    assert verdict.missing_issuer == "CN=Test Intermediate"


def test_a_pool_never_makes_anything_trusted() -> None:
    other = CA.root("Other")
    issued = other.intermediate("Other Two").issue(NAME)
    having = Pool.of(c for c in (read_certificate(raw)[0] for raw in der(*issued.intermediates, other.cert)) if c)
    assert Code.INCOMPLETE_CHAIN in judge(issued, having=having).codes


def test_a_leaf_that_is_bad_itself_is_told_alone_once_its_chain_is_completed() -> None:
    issued = ICA.issue("else.example.cn")
    assert judge(issued, having=pool(ICA.cert)).codes == (Code.NAME_MISMATCH,)


def test_leaves_and_roots_are_left_out_of_a_pool() -> None:
    held = pool(GOOD.leaf, ROOT.cert, ICA.cert)
    assert [c.raw for listed in held.by_subject.values() for c in listed] == [*der(ICA.cert)]


def test_every_form_of_file_serves_as_a_pool() -> None:
    raw = der(ICA.cert)[0]
    bundle = pkcs7.serialize_certificates([ICA.cert], serialization.Encoding.DER)
    digests = {Pool.from_files([SourceFile("x", data)]).digest for data in (pem(ICA.cert), raw, bundle)}
    assert digests == {hashlib.sha256(hashlib.sha256(raw).digest()).hexdigest()}


def test_a_damaged_file_of_a_pool_is_no_hindrance() -> None:
    held = Pool.from_files([SourceFile("bad", b"-----BEGIN CERT"), SourceFile("good", pem(ICA.cert))])
    assert judge(GOOD, having=held).accepted


def test_a_pool_of_more_certificates_than_are_read_is_refused_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rotator.validation.intermediates.MAX_POOL", 2)
    assert pool(ICA.cert, ROOT.cert).digest
    with pytest.raises(RotatorError, match="more than 2 certificates, counted up to /pool/2") as error:
        pool(ICA.cert, ROOT.cert, GOOD.leaf)
    assert error.value.code == Code.TOO_LARGE


def test_the_digest_does_not_depend_on_order_or_names() -> None:
    other = ROOT.intermediate("Other")
    assert pool(ICA.cert, other.cert).digest == pool(other.cert, ICA.cert).digest
    assert pool(ICA.cert).digest != pool(other.cert).digest
    assert Pool().digest == pool().digest == ""


def test_two_pools_are_one() -> None:
    other = ROOT.intermediate("Other")
    assert (pool(ICA.cert) | pool(other.cert)).digest == pool(ICA.cert, other.cert).digest
    assert (pool(ICA.cert) | Pool()).digest == (Pool() | pool(ICA.cert)).digest == pool(ICA.cert).digest


def test_a_pool_full_of_namesakes_offers_a_bounded_number() -> None:
    held = pool(*(ROOT.intermediate().cert for _ in range(MAX_OFFERED + 9)))
    leaf, _ = read_certificate(der(GOOD.leaf)[0])
    assert leaf is not None
    assert len(held.offered_to([leaf])) == MAX_OFFERED
