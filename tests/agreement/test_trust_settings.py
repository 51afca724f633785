"""A `TRUSTED CERTIFICATE` is a root for TLS servers exactly where OpenSSL takes it for one."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.validation.validate import Anchors, validate_chains
from rotator.validation.validate import public as public_policy
from rotator.x509 import der as asn1
from tests.support.authority import CA, NOW, der, der_pem, pem, wrap

pytestmark = pytest.mark.contract

NAME = "signal.example.cn"
ROOT = CA.root()
LEAF = ROOT.intermediate().issue(NAME)
(DER,) = der(ROOT.cert)

USES = {
    "server": "1.3.6.1.5.5.7.3.1",
    "client": "1.3.6.1.5.5.7.3.2",
    "email": "1.3.6.1.5.5.7.3.4",
    "any": "2.5.29.37.0",
}
LISTS: Sequence[tuple[str, ...] | None] = (
    None,
    (),
    *itertools.chain.from_iterable(itertools.combinations(USES, size) for size in (1, 2)),
)


def listed(tag: int, uses: Sequence[str] | None) -> bytes:
    return b"" if uses is None else wrap(tag, b"".join(wrap(0x06, oid(USES[use])) for use in uses))


def oid(dotted: str) -> bytes:
    encoded = asn1.encoded_oid(dotted)
    return encoded[2:] if encoded[:1] == b"\x06" else encoded


def settings(trusted: Sequence[str] | None, rejected: Sequence[str] | None, more: bytes = b"") -> bytes:
    """An X509_CERT_AUX."""
    return wrap(0x30, listed(0x30, trusted) + listed(0xA0, rejected) + more)


def openssl_accepts(roots: bytes, directory: Path) -> bool:
    """The verdict of `openssl verify` on the chain of a TLS server."""
    for name, data in (("roots", roots), ("leaf", pem(LEAF.leaf)), ("upper", pem(*LEAF.intermediates))):
        (directory / name).write_bytes(data)
    only = ("-purpose", "sslserver", "-no-CApath", "-no-CAstore", "-attime", str(int(NOW.timestamp())))
    command = ["openssl", "verify", *only, "-CAfile", "roots", "-untrusted", "upper", "leaf"]
    return subprocess.run(command, cwd=directory, capture_output=True).returncode == 0


def rotator_accepts(roots: bytes) -> bool:
    try:
        anchors = Anchors.from_pem(roots, "roots.pem")
    except RotatorError:
        return False
    problems = validate_chains([LEAF.chain_der], public_policy([NAME]), anchors, NOW)
    assert {problem.code for problem in problems} <= {Code.UNTRUSTED_ROOT}
    return not problems


@pytest.mark.parametrize("trusted", LISTS, ids=str)
def test_any_combination_of_uses_is_judged_as_openssl_judges_it(
    trusted: tuple[str, ...] | None, tmp_path: Path
) -> None:
    bystander = pem(CA.root("Bystander").cert)
    for rejected in LISTS:
        block = der_pem(DER + settings(trusted, rejected), label="TRUSTED CERTIFICATE")
        expected = openssl_accepts(bystander + block, tmp_path)
        assert rotator_accepts(block) is expected, (trusted, rejected)
        assert rotator_accepts(bystander + block) is expected, (trusted, rejected)


ODD = {
    "no settings": (b"", True),
    "empty settings": (settings(None, None), True),
    "an alias and a key id": (settings(["server"], ["client"], wrap(0x0C, b"x") + wrap(0x04, b"y")), True),
    "other algorithms": (settings(None, None, wrap(0xA1, b"")), True),
    "bytes after the settings": (settings(["server"], None) + b"\0\0", True),
    "cut off": (settings(["server"], None)[:-1], False),
    "no sequence": (wrap(0x31, b""), False),
    "a use that is no identifier": (wrap(0x30, wrap(0x30, wrap(0x0C, b"x"))), False),
    "lists in the wrong order": (wrap(0x30, listed(0xA0, ["client"]) + listed(0x30, ["server"])), False),
    "a list twice": (wrap(0x30, listed(0x30, ["server"]) * 2), False),
    "an unknown part": (settings(["server"], None, wrap(0xA7, b"")), False),
}


@pytest.mark.parametrize("what", ODD)
def test_settings_that_openssl_cannot_read_make_no_root(what: str, tmp_path: Path) -> None:
    data, accepted = ODD[what]
    block = der_pem(DER + data, label="TRUSTED CERTIFICATE")
    assert openssl_accepts(block, tmp_path) is accepted
    assert rotator_accepts(block) is accepted


@pytest.mark.parametrize("label", ["CERTIFICATE", "X509 CERTIFICATE"])
def test_settings_after_a_certificate_of_another_label_count_for_nothing(label: str, tmp_path: Path) -> None:
    block = der_pem(DER + settings(None, ["server"]), label=label)
    assert openssl_accepts(block, tmp_path)
    assert rotator_accepts(block)
