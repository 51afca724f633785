"""A chain as a server sends it, judged without any correction: its first certificate is the leaf."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509

from rotator.core.problems import Code, Severity
from rotator.validation.validate import Anchors, Verdict, public, validate_served
from tests.support.authority import CA, NOW, der, new_key, pem

NAME = "signal.example.cn"
ROOT = CA.root()
OLD_ROOT = CA.root("Old Root", at=NOW - timedelta(days=400), days=390)
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)


def judge(*sent: x509.Certificate, roots: tuple[CA, ...] = (ROOT,), name: str = NAME) -> Verdict:
    anchors = Anchors.from_pem(pem(*(root.cert for root in roots)), "roots.pem")
    return validate_served(der(*sent), public((name,)), anchors, NOW)


def test_a_whole_chain_is_accepted_and_needs_no_key() -> None:
    verdict = judge(*GOOD.chain)
    assert verdict.accepted
    assert verdict.problems == ()
    assert verdict.pairs[0].key is None


def test_a_leaf_alone_is_refused_and_what_is_missing_is_named() -> None:
    verdict = judge(GOOD.leaf)
    assert verdict.codes == (Code.INCOMPLETE_CHAIN,)
    assert verdict.missing_issuer == "CN=Test Intermediate"


def test_an_intermediate_before_the_leaf_is_what_clients_take_for_the_leaf() -> None:
    assert Code.CA_LEAF in judge(ICA.cert, GOOD.leaf).codes


def test_a_second_leaf_behind_the_first_is_not_judged_as_one() -> None:
    other = ICA.issue("other.example.cn")
    verdict = judge(GOOD.leaf, other.leaf, ICA.cert)
    assert (verdict.codes, verdict.warnings) == ((), (Code.UNUSED_CERT,))
    assert "sending it has no use" in verdict.problems[0].message


def test_the_wrong_order_is_reported_by_places_and_not_said_to_be_corrected() -> None:
    upper = ROOT.intermediate("Upper", pathlen=1)
    lower = upper.intermediate("Lower")
    verdict = judge(lower.issue(NAME).leaf, upper.cert, lower.cert)
    assert (verdict.codes, verdict.warnings) == ((), (Code.CHAIN_ORDER,))
    assert verdict.problems[0].message == (
        "CN=Upper (certificate 2) comes before CN=Lower (certificate 3), which it signed."
    )


def test_what_is_sent_twice_or_without_use_is_reported_and_harmless() -> None:
    verdict = judge(*GOOD.chain, ICA.cert, ROOT.cert)
    assert verdict.accepted
    assert set(verdict.warnings) == {Code.DUPLICATE_CERT, Code.ROOT_INCLUDED}


def test_a_path_that_only_some_clients_find_is_refused_as_nothing_corrects_it() -> None:
    key = new_key()
    good = ROOT.intermediate("Two-way", key=key)
    bad = OLD_ROOT.intermediate("Two-way", key=key, not_before=NOW - timedelta(days=300), days=800)
    verdict = judge(good.issue(NAME).leaf, bad.cert, good.cert, roots=(ROOT, OLD_ROOT))
    assert verdict.codes == (Code.ORDER_SENSITIVE,)
    assert "corrected" not in "".join(p.message for p in verdict.problems)


def test_of_what_is_sent_twice_the_first_place_counts() -> None:
    key = new_key()
    good = ROOT.intermediate("Two-way", key=key)
    bad = OLD_ROOT.intermediate("Two-way", key=key, not_before=NOW - timedelta(days=300), days=800)
    leaf = good.issue(NAME).leaf
    assert judge(leaf, good.cert, bad.cert, good.cert, roots=(ROOT, OLD_ROOT)).accepted
    assert not judge(leaf, bad.cert, good.cert, bad.cert, roots=(ROOT, OLD_ROOT)).accepted


def test_a_first_certificate_that_is_none_is_refused() -> None:
    anchors = Anchors.from_pem(pem(ROOT.cert), "roots.pem")
    verdict = validate_served((b"\x30\x03\x02\x01\x05", *der(ICA.cert)), public((NAME,)), anchors, NOW)
    assert not verdict.accepted
    assert [p.severity for p in verdict.problems] == [Severity.REJECT]


def test_where_an_expired_intermediate_could_be_fetched_anew_is_told() -> None:
    url = "http://ca.example/ica.crt"
    access = x509.AccessDescription(
        x509.oid.AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url)
    )
    aia = x509.AuthorityInformationAccess([access])
    over = ROOT.intermediate("Over", not_before=NOW - timedelta(days=90), not_after=NOW - timedelta(days=1))
    issued = over.issue(NAME, tweak=lambda builder: builder.add_extension(aia, critical=False))
    verdict = judge(*issued.chain)
    assert (verdict.codes, verdict.issuer_url) == ((Code.EXPIRED_INTERMEDIATE,), url)
