"""What counts as a root in a file of roots, and what is said of the rest."""

from __future__ import annotations

import pytest

from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.validation.report import explain
from rotator.validation.validate import Anchors
from tests.support.authority import CA, NOW, der, der_pem, key_pem, new_key, pem, wrap
from tests.support.judging import GOOD, ICA, ROOT, judge
from tests.support.revocation_lists import pem_of

SERVER = bytes.fromhex("06082b06010505070301")
EMAIL = bytes.fromhex("06082b06010505070304")
REJECTED = wrap(0x30, wrap(0xA0, SERVER))
FOR_EMAIL = wrap(0x30, wrap(0x30, EMAIL))
FOR_SERVERS = wrap(0x30, wrap(0x30, SERVER))
DAMAGED = wrap(0x30, wrap(0x30, SERVER))[:-1]
OTHER = CA.root("Other Root")


def trusted(ca: CA, settings: bytes) -> bytes:
    return der_pem(der(ca.cert)[0] + settings, label="TRUSTED CERTIFICATE")


def refused(data: bytes) -> RotatorError:
    with pytest.raises(RotatorError) as caught:
        Anchors.from_pem(data, "roots.pem")
    return caught.value


def test_several_trusted_certificates_for_servers_are_roots() -> None:
    anchors = Anchors.from_pem(trusted(ROOT, FOR_SERVERS) + pem(OTHER.cert) + trusted(ICA, b""), "roots.pem")
    assert anchors.raws == set(der(ROOT.cert, OTHER.cert, ICA.cert))
    assert anchors.excluded == {}


SAID = {
    "rejected": (REJECTED, "is marked as rejected for TLS servers"),
    "for another use": (FOR_EMAIL, "is marked as trusted for other uses than TLS servers"),
    "damaged": (DAMAGED, "has trust settings that cannot be read"),
}


@pytest.mark.parametrize("what", SAID)
def test_a_chain_to_a_certificate_that_is_no_root_for_servers_is_refused_with_its_line(what: str) -> None:
    settings, reason = SAID[what]
    anchors = Anchors.from_pem(pem(OTHER.cert) + trusted(ROOT, settings), "roots.pem")
    verdict = judge(GOOD, anchors=anchors)
    assert verdict.codes == (Code.UNTRUSTED_ROOT,)
    (problem,) = verdict.problems
    assert reason in problem.message
    line = pem(OTHER.cert).count(b"\n") + 1
    assert (problem.file, problem.line) == ("roots.pem", line)
    assert f"roots.pem line {line}" in "\n".join(explain(verdict))


def test_a_sent_certificate_that_is_no_root_for_servers_is_refused_alike() -> None:
    anchors = Anchors.from_pem(pem(OTHER.cert) + trusted(ROOT, REJECTED), "roots.pem")
    sent = GOOD.__class__(GOOD.key, GOOD.leaf, (*GOOD.intermediates, ROOT.cert))
    assert judge(sent, anchors=anchors).codes == (Code.UNTRUSTED_ROOT,)


@pytest.mark.parametrize("what", SAID)
def test_a_file_in_which_no_certificate_is_a_root_for_servers_is_refused_with_the_reason(what: str) -> None:
    settings, reason = SAID[what]
    error = refused(b"# mine\n" + trusted(ROOT, settings))
    assert error.code == Code.STORE_EMPTY
    assert "roots.pem line 2" in error.message
    assert reason in error.message
    assert error.hint


@pytest.mark.parametrize("order", [1, -1])
def test_a_block_that_rejects_a_certificate_weighs_more_than_one_that_trusts_it(order: int) -> None:
    blocks = [pem(ROOT.cert), trusted(ROOT, REJECTED)][::order]
    anchors = Anchors.from_pem(b"".join(blocks) + pem(OTHER.cert), "roots.pem")
    assert anchors.raws == set(der(OTHER.cert))
    assert judge(GOOD, anchors=anchors).codes == (Code.UNTRUSTED_ROOT,)


def test_a_certificate_that_is_no_root_for_servers_is_no_root_for_the_library_either() -> None:
    anchors = Anchors.from_pem(trusted(ROOT, REJECTED) + pem(OTHER.cert), "roots.pem")
    assert [c.raw for c in anchors.certificates] == list(der(OTHER.cert))
    assert anchors.by_subject.keys() == {OTHER.cert.subject.public_bytes()}


@pytest.mark.parametrize("word", ["trusted: true", "x-distrusted: true", "trusted: false"])
def test_a_file_of_p11_kit_is_refused_because_it_holds_distrusted_certificates_too(word: str) -> None:
    error = refused(b"# p11-kit\n[p11-kit-object-v1]\nclass: x-certificate\n" + word.encode() + b"\n" + pem(ROOT.cert))
    assert error.code == Code.PARSE_ERROR
    assert "roots.pem line 2" in error.message
    assert "trust extract" in error.hint


def test_keys_and_lists_in_a_file_of_roots_are_passed_over() -> None:
    beside = key_pem(new_key()) + pem_of(ICA.crl())
    assert Anchors.from_pem(beside + pem(ROOT.cert) + beside, "roots.pem").raws == set(der(ROOT.cert))


@pytest.mark.parametrize("label", ["NEW CERTIFICATE", "OLD CERTIFICATE", "TRUSTED X509 CERTIFICATE"])
def test_a_certificate_under_a_label_that_is_no_certificates_refuses_the_file(label: str) -> None:
    error = refused(pem(ROOT.cert) + der_pem(der(OTHER.cert)[0], label=label))
    assert error.code == Code.PARSE_ERROR
    assert label in error.message


def test_an_expired_root_of_the_file_proves_nothing() -> None:
    old = CA.root("Old Root", days=-1)
    issued = old.intermediate().issue("signal.example.cn")
    anchors = Anchors.from_pem(pem(old.cert), "roots.pem")
    assert judge(issued, anchors=anchors, now=NOW).codes == (Code.EXPIRED_ROOT,)
