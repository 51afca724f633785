"""A panic of the library's Rust code refuses the file that it happened over, and ends nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import ocsp

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, Secret, SourceFile
from rotator.core.problems import Code, Severity
from rotator.tls import rehearsal
from rotator.validation import sct, trust_anchors, validate
from rotator.validation.validate import Verdict, public, validate_chains, validate_files, validate_served
from rotator.x509 import keys, parse, pbe
from rotator.x509.crl import Revocations
from rotator.x509.ocsp import Responses
from rotator.x509.panics import BROKE_OFF, PanicError, contained
from tests.support.authority import CA, NOW, encrypted, pem

NAME = "signal.example.cn"
ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)
ANCHORS = validate.Anchors.from_pem(pem(ROOT.cert), "roots.pem")
PASSWORD = Secret(b"open sesame")
SHORT_VECTOR = encrypted(GOOD.key, PASSWORD.reveal(), serialization.PrivateFormat.TraditionalOpenSSL)
SHORT_VECTOR = re.sub(rb"(DEK-Info: AES-256-CBC,[0-9A-Fa-f]{30})[0-9A-Fa-f]{2}", rb"\1", SHORT_VECTOR)
"""A key in the old style whose vector lacks one octet: the library's own reader panics over it."""


def panic(*_: object, **__: object) -> None:
    """A real panic of the library."""
    serialization.load_pem_private_key(SHORT_VECTOR, PASSWORD.reveal())


def judge(*data: bytes) -> Verdict:
    files = tuple(SourceFile(f"file{n}", one) for n, one in enumerate(data))
    return validate_files(Candidate(files, PASSWORD), public([NAME]), ANCHORS, NOW)


def test_a_panic_is_no_exception_and_is_made_one() -> None:
    with pytest.raises(BaseException, match="iv_len") as raised:
        panic()
    assert not isinstance(raised.value, Exception), "the library no longer panics over this: find another input"
    with pytest.raises(PanicError), contained():
        panic()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, ValueError])
def test_nothing_else_is_changed(kind: type[BaseException]) -> None:
    with pytest.raises(kind), contained():
        raise kind
    with pytest.raises(kind):
        _raising(kind)


def _raising(kind: type[BaseException]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "read_candidate", _raiser(kind))
        judge(GOOD.chain_pem, GOOD.key_pem)


def _raiser(kind: type[BaseException]) -> Callable[..., None]:
    def raising(*_: object) -> None:
        raise kind

    return raising


def test_a_key_that_the_library_panics_over_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_OLD_STYLE", re.compile(".*", re.DOTALL))  # what keeps this one from the library
    verdict = judge(GOOD.chain_pem, SHORT_VECTOR)
    assert Code.PARSE_ERROR in verdict.codes
    (problem,) = (p for p in verdict.problems if p.code == Code.PARSE_ERROR)
    assert problem.file == "file1"
    assert BROKE_OFF in problem.message
    assert problem.hint


def test_that_key_is_refused_by_its_header_as_things_are() -> None:
    assert judge(GOOD.chain_pem, SHORT_VECTOR).codes == (Code.KEY_FORMAT,)


def test_a_certificate_that_the_library_panics_over_is_refused_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "_load", panic)
    verdict = judge(GOOD.chain_pem, GOOD.key_pem)
    assert verdict.codes == (Code.PARSE_ERROR,)
    assert [p.line for p in verdict.problems] == [1, 1 + GOOD.chain_pem.split(b"END")[0].count(b"\n") + 1]
    assert all(BROKE_OFF in p.message for p in verdict.problems)


def test_a_container_that_the_library_panics_over_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    best = serialization.BestAvailableEncryption(PASSWORD.reveal())
    monkeypatch.setattr(pbe, "decrypted", panic)
    verdict = judge(pkcs12.serialize_key_and_certificates(None, GOOD.key, GOOD.leaf, [ICA.cert], best))
    assert verdict.codes == (Code.PARSE_ERROR,)
    assert verdict.problems[0].file == "file0"


@pytest.mark.parametrize("where", ["path_rules.PolicyBuilder", "validate.warnings_of", "path_builder.problems_of"])
def test_a_panic_while_it_is_judged_refuses(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(f"rotator.validation.{where}", panic)
    for problems in (
        judge(GOOD.chain_pem, GOOD.key_pem).problems,
        validate_served(GOOD.chain_der, public([NAME]), ANCHORS, NOW).problems,
        validate_chains([GOOD.chain_der], public([NAME]), ANCHORS, NOW),
    ):
        assert [(p.code, p.severity) for p in problems] == [(Code.PARSE_ERROR, Severity.REJECT)]
        assert BROKE_OFF in problems[0].message


def test_lists_and_responses_that_the_library_panics_over_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x509, "load_der_x509_crl", panic)
    monkeypatch.setattr(ocsp, "load_der_ocsp_response", panic)
    lists = Revocations.from_files([("x.crl", ICA.crl().public_bytes(serialization.Encoding.DER))])
    responses = Responses.from_files([("x.der", ICA.ocsp(GOOD.leaf))])
    assert [(p.code, p.file) for p in lists.faults] == [(Code.CRL_UNUSABLE, "x.crl")]
    assert [(p.code, p.file) for p in responses.faults] == [(Code.REVOCATION_UNKNOWN, "x.der")]


def test_a_list_of_logs_that_the_library_panics_over_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sct, "_log", panic)
    with pytest.raises(RotatorError) as error:
        sct.Logs.from_json(b'{"operators": [{"name": "x", "logs": [{}]}]}', "logs.json")
    assert error.value.code == Code.PARSE_ERROR


def test_roots_that_the_library_panics_over_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_anchors, "Store", panic)
    with pytest.raises(RotatorError) as error:
        validate.Anchors.from_pem(pem(ROOT.cert), "roots.pem")
    assert error.value.code == Code.PARSE_ERROR


def test_a_rehearsal_in_which_the_library_panics_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    (pair,) = judge(GOOD.chain_pem, GOOD.key_pem).pairs
    monkeypatch.setattr(rehearsal, "load_pem_private_key", panic)
    assert "does not take the pair" in rehearsal.rehearse(pair, NAME)
