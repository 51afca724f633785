"""How keys and certificates find each other, and that no byte of a key gets out."""

from __future__ import annotations

import base64
import re
import subprocess
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.core.model import Candidate, KeyType, Secret, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.validation import candidate as pair
from rotator.validation.candidate import MAX_CERTIFICATES, MAX_CHAIN, MAX_KEYS, KeyMatch, match_keys, read_candidate
from rotator.x509 import der, keys
from rotator.x509.keys import MAX_COST, Key, cost_of, read_key
from rotator.x509.pem import Block, read_blocks
from tests.support import authority
from tests.support.authority import CA, NOW, Issued, der_pem, key_pem, new_key, pem, rsa_key, wrap
from tests.support.cost import cost

ROOT = CA.root()
ICA = ROOT.intermediate()
EC = ICA.issue("a.example.com")
RSA = ICA.issue("a.example.com", kind="rsa")
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL


def candidate(*files: bytes | SourceFile) -> Candidate:
    return Candidate(tuple(f if isinstance(f, SourceFile) else SourceFile(f"{i}.pem", f) for i, f in enumerate(files)))


def paired(
    *files: bytes | SourceFile, need_key: bool = True, password: Secret | None = None
) -> tuple[tuple[KeyMatch, ...], tuple[Problem, ...]]:
    reading = read_candidate(replace(candidate(*files), password=password))
    matches, problems = match_keys(reading, ["a.example.com"], NOW, need_key=need_key)
    return matches, (*reading.problems, *problems)


def codes(problems: tuple[Problem, ...]) -> list[Code]:
    return [p.code for p in problems]


def key_of(data: bytes, password: Secret | None = None) -> Key | Problem:
    (block,), problems = read_blocks(SourceFile("key.pem", data))
    assert problems == ()
    return read_key(block, password)


def refused(data: bytes, password: Secret | None = None) -> Problem:
    problem = key_of(data, password)
    assert isinstance(problem, Problem)
    assert (problem.severity, problem.file, problem.line) == (Severity.REJECT, "key.pem", 1)
    assert problem.hint
    return problem


@pytest.mark.parametrize(
    "data",
    [
        EC.key_pem,
        key_pem(EC.key, TRADITIONAL),
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        + key_pem(EC.key, TRADITIONAL),
    ],
    ids=["pkcs8", "sec1", "sec1 with parameters"],
)
def test_every_pem_form_of_an_ecdsa_key_is_read(data: bytes) -> None:
    matches, problems = paired(EC.chain_pem, data)
    assert problems == ()
    assert matches[0].key is not None
    assert matches[0].key.secret.reveal() == EC.key_pem


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, TRADITIONAL], ids=["pkcs8", "pkcs1"])
def test_every_pem_form_of_an_rsa_key_is_read(form: serialization.PrivateFormat) -> None:
    matches, problems = paired(RSA.chain_pem, key_pem(RSA.key, form))
    assert problems == ()
    assert matches[0].key is not None
    assert matches[0].key.secret.reveal() == RSA.key_pem


def test_an_ed25519_key_is_read() -> None:
    issued = ICA.issue("a.example.com", kind="ed25519")
    matches, problems = paired(issued.chain_pem, issued.key_pem)
    assert problems == ()
    assert matches[0].leaf.key_type is KeyType.ED25519


def test_pairing_goes_by_the_key_whatever_the_files_are_called() -> None:
    other = ICA.issue("a.example.com")
    matches, problems = paired(
        SourceFile("privkey.pem", EC.chain_pem),
        SourceFile("cert.pem", EC.key_pem),
        SourceFile("old.pem", pem(other.leaf)),
    )
    assert problems == ()
    assert [m.leaf.raw for m in matches] == [EC.chain_der[0]]


def test_an_rsa_and_an_ecdsa_pair_in_one_candidate_both_find_their_key() -> None:
    matches, problems = paired(EC.key_pem, RSA.chain_pem, RSA.key_pem, EC.chain_pem)
    assert problems == ()
    assert {m.leaf.key_type: m.leaf.raw for m in matches} == {
        KeyType.ECDSA: EC.chain_der[0],
        KeyType.RSA: RSA.chain_der[0],
    }
    assert all(m.key is not None and m.key.proves(m.leaf) for m in matches)


def test_a_key_in_the_chain_file_is_allowed_with_a_warning() -> None:
    matches, problems = paired(EC.key_pem + EC.chain_pem)
    assert [(p.code, p.severity, p.line) for p in problems] == [(Code.KEY_IN_CERT_FILE, Severity.WARN, 1)]
    assert matches[0].key is not None


def test_a_key_file_that_everybody_may_read_is_warned_about() -> None:
    _, problems = paired(EC.chain_pem, SourceFile("key.pem", EC.key_pem, 0o644))
    assert [(p.code, p.file) for p in problems] == [(Code.KEY_PERMISSIONS, "key.pem")]


def test_a_certificate_file_that_everybody_may_read_is_normal() -> None:
    _, problems = paired(SourceFile("chain.pem", EC.chain_pem, 0o644), SourceFile("key.pem", EC.key_pem, 0o640))
    assert problems == ()


def test_the_key_of_another_certificate_is_a_mismatch_that_names_both() -> None:
    _, problems = paired(EC.chain_pem, key_pem(new_key()))
    assert codes(problems) == [Code.KEY_MISMATCH]
    assert "CN=a.example.com (0.pem line 1)" in problems[0].message
    assert problems[0].file == "1.pem"


def test_a_key_of_another_kind_is_a_mismatch_that_says_so() -> None:
    _, problems = paired(EC.chain_pem, RSA.key_pem)
    assert codes(problems) == [Code.KEY_MISMATCH]
    assert "this RSA key" in problems[0].message
    assert "whose key is ECDSA" in problems[0].message


def test_more_keys_than_leaves_are_too_many() -> None:
    _, problems = paired(EC.chain_pem, EC.key_pem, key_pem(new_key()))
    assert codes(problems) == [Code.MULTIPLE_KEYS]
    assert problems[0].file == "2.pem"


def test_many_keys_are_refused_without_reading_them_all() -> None:
    _, problems = paired(EC.chain_pem, *(key_pem(new_key()) for _ in range(MAX_KEYS + 1)))
    assert [(p.file, p.line) for p in problems if "more than" in p.message] == [(f"{MAX_KEYS + 1}.pem", 1)]


def test_the_same_key_in_two_files_is_one_key() -> None:
    _, problems = paired(EC.chain_pem, EC.key_pem, key_pem(EC.key, TRADITIONAL))
    assert problems == ()


def test_two_pairs_of_one_kind_are_warned_about_and_the_newer_is_taken() -> None:
    old = ICA.issue("a.example.com", not_before=NOW.replace(year=2026, month=9))
    matches, problems = paired(old.chain_pem, old.key_pem, EC.chain_pem, EC.key_pem)
    assert [(p.code, p.severity) for p in problems] == [(Code.MULTIPLE_KEYS, Severity.WARN)]
    assert [m.leaf.raw for m in matches] == [EC.chain_der[0]]


def test_a_renewal_with_the_same_key_is_preferred_to_the_old_certificate() -> None:
    old = ICA.issue("a.example.com", key=EC.key, not_before=NOW.replace(month=9))
    matches, _ = paired(old.chain_pem, EC.chain_pem, EC.key_pem)
    assert matches[0].leaf.raw == EC.chain_der[0]


def test_a_missing_key_is_told() -> None:
    _, problems = paired(EC.chain_pem)
    assert codes(problems) == [Code.KEY_MISSING]


def test_a_missing_key_is_no_problem_where_none_is_asked_for() -> None:
    matches, problems = paired(EC.chain_pem, need_key=False)
    assert problems == ()
    assert matches[0].key is None


def test_half_a_dual_pair_lacks_a_key() -> None:
    _, problems = paired(EC.chain_pem, EC.key_pem, RSA.chain_pem)
    assert codes(problems) == [Code.KEY_MISSING]
    assert problems[0].file == "2.pem"


def test_a_missing_certificate_is_told() -> None:
    _, problems = paired(EC.key_pem)
    assert codes(problems) == [Code.CERT_MISSING]


def test_a_leaf_is_found_behind_its_bundle() -> None:
    matches, problems = paired(pem(*EC.intermediates, ROOT.cert), pem(EC.leaf), need_key=False)
    assert problems == ()
    assert [m.leaf.raw for m in matches] == [EC.chain_der[0]]


def test_a_certificate_that_stands_twice_in_a_file_is_kept_once_with_a_warning() -> None:
    reading = read_candidate(candidate(EC.chain_pem + pem(EC.leaf)))
    assert [c.raw for c in reading.certificates] == list(EC.chain_der)
    assert [(p.code, p.severity) for p in reading.problems] == [(Code.DUPLICATE_CERT, Severity.WARN)]


def test_a_certificate_that_stands_in_two_files_is_normal() -> None:
    reading = read_candidate(candidate(pem(EC.leaf), EC.chain_pem))
    assert reading.problems == ()


def test_too_many_certificates_are_refused_and_the_first_are_read() -> None:
    many = pem(*(ICA.issue(f"{i}.example.com", key=EC.key).leaf for i in range(MAX_CHAIN + 1)))
    reading = read_candidate(candidate(many))
    assert codes(reading.problems) == [Code.CHAIN_TOO_LONG]
    assert len(reading.certificates) == MAX_CHAIN


def test_too_many_certificates_in_all_files_are_told_at_the_first_that_is_not_read() -> None:
    leaves = [ICA.issue(f"{i}.example.com", key=EC.key).leaf for i in range(MAX_CERTIFICATES + 1)]
    size = MAX_CHAIN - 1
    files = [leaves[at : at + size] for at in range(0, len(leaves), size)]
    reading = read_candidate(candidate(*(pem(*file) for file in files)))
    assert len(reading.certificates) == MAX_CERTIFICATES
    line = pem(*files[-1][:-1]).count(b"\n") + 1
    told = [(p.code, p.file, p.line) for p in reading.problems]
    assert told == [(Code.CHAIN_TOO_LONG, f"{len(files) - 1}.pem", line)]


def test_bytes_after_a_certificate_inside_its_block_are_left_out_with_a_warning() -> None:
    reading = read_candidate(candidate(der_pem(EC.chain_der[0] + b"\0\0")))
    assert [c.raw for c in reading.certificates] == [EC.chain_der[0]]
    assert [(p.code, p.severity) for p in reading.problems] == [(Code.TRAILING_DATA, Severity.WARN)]


def test_a_block_that_holds_no_certificate_is_refused_with_its_line() -> None:
    reading = read_candidate(candidate(EC.chain_pem + der_pem(b"0\x03\x02\x01\x01")))
    assert [(p.code, p.line) for p in reading.problems] == [(Code.PARSE_ERROR, EC.chain_pem.count(b"\n") + 1)]


def test_a_damaged_leaf_is_told_without_judging_its_issuer_as_if_it_were_the_leaf() -> None:
    matches, problems = paired(der_pem(EC.chain_der[0][:-40]) + pem(ICA.cert), EC.key_pem)
    assert matches == ()
    assert codes(problems) == [Code.PARSE_ERROR]


def encrypted() -> bytes:
    return EC.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_an_encrypted_key_is_told_without_a_password() -> None:
    assert refused(encrypted()).code == Code.KEY_ENCRYPTED


def test_an_encrypted_key_is_not_also_missing() -> None:
    _, problems = paired(EC.chain_pem, encrypted())
    assert codes(problems) == [Code.KEY_ENCRYPTED]


def test_an_encrypted_key_is_read_with_its_password_and_kept_decrypted() -> None:
    key = key_of(encrypted(), Secret(b"secret"))
    assert isinstance(key, Key)
    assert key.secret.reveal() == EC.key_pem


def test_an_old_style_encrypted_key_is_read_with_its_password() -> None:
    text = RSA.key.private_bytes(
        serialization.Encoding.PEM, TRADITIONAL, serialization.BestAvailableEncryption(b"secret")
    )
    assert refused(text).code == Code.KEY_ENCRYPTED
    assert refused(text, Secret(b"wrong")).code == Code.BAD_PASSWORD
    assert isinstance(key_of(text, Secret(b"secret")), Key)


def test_a_wrong_password_is_told() -> None:
    assert refused(encrypted(), Secret(b"wrong")).code == Code.BAD_PASSWORD


def test_an_iteration_count_above_the_bound_is_refused_before_it_is_paid_for() -> None:
    (block,), _ = read_blocks(SourceFile("key.pem", encrypted()))
    rounds = der.derivation_cost(block.data, der.encrypted_key(block.data)[0])
    dear = _with_rounds(block.data, rounds, MAX_COST + 1)
    assert cost_of(replace(block, data=dear), Secret(b"secret")) == MAX_COST + 1
    assert refused(der_pem(dear, label="ENCRYPTED PRIVATE KEY"), Secret(b"secret")).code == Code.KEY_FORMAT


def encrypted_with(kdf: bytes) -> bytes:
    """An encrypted key whose password is derived so."""
    cipher = wrap(0x30, der.encoded_oid("2.16.840.1.101.3.4.1.42") + wrap(0x04, b"0" * 16))
    algorithm = wrap(0x30, der.encoded_oid("1.2.840.113549.1.5.13") + wrap(0x30, kdf + cipher))
    return der_pem(wrap(0x30, algorithm + wrap(0x04, b"x" * 32)), label="ENCRYPTED PRIVATE KEY")


def whole(number: int) -> bytes:
    return wrap(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


@pytest.mark.parametrize(
    "numbers",
    [(-2, 8, 1), (2, -1, -1), (0, 8, 1), (1, 1, 1), (3, 8, 1), (2, 1, 500_000), (2, 1, 250_000), (1 << 40, 1, 1)],
)
def test_numbers_of_scrypt_that_cannot_be_or_cost_too_much_are_refused_by_the_header(numbers: tuple[int, ...]) -> None:
    parameters = wrap(0x30, wrap(0x04, b"salt") + b"".join(map(whole, numbers)))
    key = encrypted_with(wrap(0x30, der.encoded_oid("1.3.6.1.4.1.11591.4.11") + parameters))
    problem, seconds = cost(lambda: refused(key, Secret(b"x")), below=0.1)
    assert problem.code == Code.KEY_FORMAT
    assert seconds < 0.1


@pytest.mark.parametrize("rounds", [0, -1, -(1 << 40)])
def test_a_number_of_rounds_that_cannot_be_is_refused(rounds: int) -> None:
    parameters = wrap(0x30, wrap(0x04, b"salt") + whole(rounds))
    for salted in (encrypted_with(wrap(0x30, der.encoded_oid("1.2.840.113549.1.5.12") + parameters)), old(parameters)):
        assert refused(salted, Secret(b"x")).code == Code.KEY_FORMAT


def old(parameters: bytes) -> bytes:
    """An encrypted key of RFC 7292 appendix C, under triple DES."""
    algorithm = wrap(0x30, der.encoded_oid("1.2.840.113549.1.12.1.3") + parameters)
    return der_pem(wrap(0x30, algorithm + wrap(0x04, b"x" * 32)), label="ENCRYPTED PRIVATE KEY")


def test_more_certificates_than_a_chain_can_have_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "MAX_READ", 2000)
    files = [SourceFile(f"{n}.pem", pem(*[CA.root(f"Root {n}{m}").cert for m in range(3)])) for n in range(3)]
    reading = read_candidate(Candidate(tuple(files)))
    told = [(p.code, p.file) for p in reading.problems]
    assert told == [(Code.TOO_LARGE, "1.pem"), (Code.TOO_LARGE, "2.pem")]
    assert 3 <= len(reading.certificates) < 6


def test_a_key_under_a_cipher_that_the_library_alone_knows_is_read_up_to_the_size_of_usual_keys(tmp_path: Path) -> None:
    for size, code in ((2048, None), (4096, Code.KEY_FORMAT)):
        (tmp_path / "k.pem").write_bytes(key_pem(rsa_key(3, size)))
        command = ["openssl", "pkcs8", "-topk8", "-in", "k.pem", "-v1", "PBE-MD5-DES", "-passout", "pass:secret"]
        command += ["-provider", "legacy", "-provider", "default"]
        text = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
        if code is None:
            key = key_of(text, Secret(b"secret"))
            assert isinstance(key, Key)
            assert key.key_type is KeyType.RSA
        else:
            assert refused(text, Secret(b"secret")).code == code


@pytest.mark.parametrize("label", ["PRIVATE KEY", "ENCRYPTED PRIVATE KEY"])
def test_the_header_of_the_old_style_belongs_to_keys_of_the_old_kinds_alone(label: str) -> None:
    old = authority.encrypted(new_key(), b"secret", serialization.PrivateFormat.TraditionalOpenSSL)
    assert isinstance(key_of(old, Secret(b"secret")), Key)
    assert refused(old.replace(b"EC PRIVATE KEY", label.encode()), Secret(b"secret")).code == Code.KEY_FORMAT


@pytest.mark.parametrize("kind", [new_key(), dsa.generate_private_key(1024)], ids=["ec", "dsa"])
def test_what_stands_under_the_label_of_an_ec_key_is_one(kind: ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey) -> None:
    data = kind.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert refused(der_pem(data, label="EC PRIVATE KEY")).code == Code.KEY_FORMAT


def _with_rounds(data: bytes, rounds: int, instead: int) -> bytes:
    """The structure of an encrypted key with another iteration count, its lengths put right."""

    def rebuilt(part: der.Element) -> bytes:
        if part.tag == der.SEQUENCE:
            return wrap(part.tag, b"".join(rebuilt(p) for p in der.children(data, part)))
        body = data[part.body : part.end]
        if part.tag == der.INTEGER and int.from_bytes(body, "big") == rounds:
            body = instead.to_bytes(4, "big")
        return wrap(part.tag, body)

    return rebuilt(der.element(data, 0, len(data)))


def test_scrypt_is_bounded_too() -> None:
    parameters = wrap(0x04, b"salt") + wrap(0x02, b"\x40\x00\x00") + wrap(0x02, b"\x08") + wrap(0x02, b"\x01")
    kdf = wrap(0x30, bytes.fromhex("06092b06010401da47040b") + wrap(0x30, parameters))
    algorithm = wrap(0x30, bytes.fromhex("06092a864886f70d01050d") + wrap(0x30, kdf + wrap(0x30, b"")))
    data = wrap(0x30, algorithm + wrap(0x04, b"x" * 16))
    assert der.derivation_cost(data, der.encrypted_key(data)[0]) == der.TOO_EXPENSIVE
    assert refused(der_pem(data, label="ENCRYPTED PRIVATE KEY"), Secret(b"x")).code == Code.KEY_FORMAT


@pytest.mark.parametrize("label", ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"])
def test_a_block_that_holds_no_key_is_a_matter_of_format(label: str) -> None:
    problem = refused(der_pem(b"\x04\x03abc", label=label))
    assert problem.code == Code.KEY_FORMAT


def test_an_rsa_key_above_the_bound_is_refused_by_its_header() -> None:
    numbers = [0, 1 << 16383 | 1, 65537, 3, 3, 3, 3, 3, 3]
    body = b"".join(wrap(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
    problem = refused(der_pem(wrap(0x30, body), label="RSA PRIVATE KEY"))
    assert problem.code == Code.KEY_LARGE
    assert "16384 bits" in problem.message


def test_an_rsa_key_with_a_number_longer_than_its_modulus_is_refused_by_its_header() -> None:
    numbers = [0, 1 << 2047 | 1, 65537, 1 << 100_000, 3, 3, 3, 3, 3]
    body = b"".join(wrap(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
    assert refused(der_pem(wrap(0x30, body), label="RSA PRIVATE KEY")).code == Code.KEY_FORMAT


def test_an_rsa_key_that_can_be_broken_is_weak() -> None:
    numbers = [0, 1 << 511 | 1, 65537, 3, 3, 3, 3, 3, 3]
    body = b"".join(wrap(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
    assert refused(der_pem(wrap(0x30, body), label="RSA PRIVATE KEY")).code == Code.WEAK_KEY


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.SECP224R1()),
        ed448.Ed448PrivateKey.generate(),
    ],
    ids=["secp256k1", "P-224", "Ed448"],
)
def test_a_key_that_browsers_do_not_know_is_refused_by_kind(
    key: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey,
) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert refused(text).code == Code.KEY_TYPE


def test_a_dsa_key_is_refused_by_kind() -> None:
    key = dsa.generate_private_key(1024)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert refused(text).code == Code.KEY_TYPE


def damaged_rsa(key: rsa.RSAPrivateKey) -> bytes:
    """A key whose public half is right and whose private numbers are not."""
    numbers = key.private_numbers()
    public = numbers.public_numbers
    values = [0, public.n, public.e, numbers.d ^ 4, numbers.p, numbers.q, numbers.dmp1 ^ 4, numbers.dmq1, numbers.iqmp]
    body = b"".join(wrap(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in values)
    return der_pem(wrap(0x30, body), label="RSA PRIVATE KEY")


def test_a_damaged_private_part_is_found_although_the_public_one_matches() -> None:
    key = rsa_key(0)
    issued = ICA.issue("a.example.com", key=key)
    _, problems = paired(issued.chain_pem, damaged_rsa(key))
    assert codes(problems) == [Code.KEY_INVALID]


@pytest.mark.parametrize("place", range(6), ids=["d", "p", "q", "dmp1", "dmq1", "iqmp"])
def test_one_damaged_part_of_an_rsa_key_is_found_although_openssl_still_signs(place: int) -> None:
    key = rsa_key(0)
    numbers = key.private_numbers()
    parts = [numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp]
    parts[place] ^= 2
    whole = [0, numbers.public_numbers.n, numbers.public_numbers.e, *parts]
    body = b"".join(wrap(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in whole)
    assert refused(der_pem(wrap(0x30, body), label="RSA PRIVATE KEY")).code == Code.KEY_INVALID


def test_a_damaged_ecdsa_scalar_is_found() -> None:
    (block,), _ = read_blocks(SourceFile("key.pem", key_pem(EC.key, TRADITIONAL)))
    data = bytearray(block.data)
    data[20] ^= 1
    problem = refused(der_pem(bytes(data), label="EC PRIVATE KEY"))
    assert problem.code == Code.KEY_INVALID


def test_a_key_is_proved_by_a_signature_and_not_with_another_certificate() -> None:
    key = key_of(EC.key_pem)
    reading = read_candidate(candidate(EC.chain_pem, RSA.chain_pem))
    assert isinstance(key, Key)
    assert [key.proves(c) for c in reading.certificates] == [True, False, False]


def secrets_of(issued: Issued) -> list[bytes]:
    """What must not show: the PEM lines of a key, and its DER and private number in every usual spelling."""
    text = key_pem(issued.key)
    data = base64.b64decode(b"".join(text.splitlines()[1:-1]))
    found = [line for line in text.splitlines()[1:-1] if len(line) > 8]
    if isinstance(issued.key, ec.EllipticCurvePrivateKey):
        number = issued.key.private_numbers().private_value
        found += [str(number).encode(), f"{number:x}".encode(), f"{number:X}".encode()]
    return [*found, data.hex().encode(), data[-24:].hex().encode(), repr(data[-8:])[2:-1].encode()]


def faulty(text: bytes) -> list[bytes]:
    """A key file broken in every way that is found at another place."""
    (block,), _ = read_blocks(SourceFile("k", text))
    return [
        text,
        text[: len(text) // 2],
        text.replace(b"\n", b"\r"),
        text.replace(b"END PRIVATE", b"END RSA PRIVATE"),
        b"\xef\xbb\xbf" + text,
        text.decode().encode("utf-16"),
        text + b"\0",
        text[:60] + b"\xff" + text[61:],
        text[:60] + b" " + text[60:],
        text.rstrip(b"\n") + text,
        block.data,
        der_pem(block.data[:-3], label="PRIVATE KEY"),
        der_pem(block.data, label="RSA PRIVATE KEY"),
        der_pem(block.data, label="EC PRIVATE KEY"),
        der_pem(block.data, label="ENCRYPTED PRIVATE KEY"),
        der_pem(block.data, label="CERTIFICATE"),
        der_pem(block.data, label="OPENSSH PRIVATE KEY"),
        text.replace(b"KEY-----\n", b"KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1),
    ]


def told(block: Block, password: Secret | None) -> list[str]:
    """What is said of a block that is taken for a key, and the traceback behind it."""
    said = [repr(block), repr(read_key(block, password))]
    try:
        keys._read(block, password, MAX_COST)
    except Exception:
        said.append(traceback.format_exc())
    return said


@pytest.mark.parametrize(
    "issued", [EC, RSA, ICA.issue("a.example.com", kind="ed25519")], ids=["ecdsa", "rsa", "ed25519"]
)
@pytest.mark.parametrize("password", [None, Secret(b"hunter2hunter2")], ids=["without", "with password"])
def test_no_byte_of_a_key_shows_in_a_message_a_repr_or_a_traceback(issued: Issued, password: Secret | None) -> None:
    seen: list[str] = []
    for data in faulty(issued.key_pem):
        source = candidate(issued.chain_pem, data)
        reading = read_candidate(replace(source, password=password))
        matches, problems = match_keys(reading, [], NOW)
        seen += [repr(source), repr(reading), repr(matches), repr(problems)]
        seen += [str(m.key.secret) for m in matches if m.key]
        seen += [found for block in read_blocks(SourceFile("k", data))[0] for found in told(block, password)]
    text = "\n".join(seen).encode()
    for secret in secrets_of(issued):
        assert secret not in text
    assert b"hunter2" not in text


@given(
    st.binary(max_size=300),
    st.sampled_from(["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]),
)
@settings(max_examples=200, deadline=None)
def test_random_bytes_as_a_key_give_a_problem_and_never_raise(data: bytes, label: str) -> None:
    assert isinstance(read_key(Block(label, data, "key.pem", 1), Secret(b"x")), Problem)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_key_with_a_changed_byte_never_raises_and_never_proves_another_certificate(data: st.DataObject) -> None:
    issued = data.draw(st.sampled_from([EC, RSA]))
    (block,), _ = read_blocks(SourceFile("key.pem", issued.key_pem))
    raw = bytearray(block.data)
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    matches, _ = paired(issued.chain_pem, der_pem(bytes(raw), label="PRIVATE KEY"))
    for found in matches:
        assert found.leaf.raw == issued.chain_der[0]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_certificate_with_a_changed_byte_never_raises(data: st.DataObject) -> None:
    raw = bytearray(EC.chain_der[0])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    paired(der_pem(bytes(raw)), EC.key_pem)


def test_a_key_type_is_known_for_every_kind_that_is_read() -> None:
    kinds = {
        k.key_type
        for k in map(key_of, (EC.key_pem, RSA.key_pem, key_pem(ed25519.Ed25519PrivateKey.generate())))
        if isinstance(k, Key)
    }
    assert kinds == set(KeyType)


def test_a_comment_that_speaks_of_a_private_key_is_none() -> None:
    matches, problems = paired(b"# the PRIVATE KEY is elsewhere\n" + EC.chain_pem)
    assert [m.key for m in matches] == [None]
    assert codes(problems) == [Code.KEY_MISSING]


def test_an_ed25519_key_of_a_wrong_length_is_damaged() -> None:
    inner = wrap(0x04, wrap(0x04, b"\1" * 31))
    data = wrap(0x30, b"\2\1\0" + wrap(0x30, der.encoded_oid(der.ED25519)) + inner)
    assert refused(der_pem(data, label="PRIVATE KEY")).code == Code.KEY_INVALID


@pytest.mark.parametrize(
    "info",
    [
        "AES-256-CBC,00",
        "AES-256-CBC," + "0" * 16,
        "DES-EDE3-CBC,",
        "RC4,00",
        "AES-256-CBC",
        "",
        "X\nDEK-Info: AES-256-CBC,00",
    ],
)
def test_an_encrypted_key_of_the_old_style_that_does_not_say_how_is_a_matter_of_format(info: str) -> None:
    text = authority.encrypted(EC.key, b"open sesame", TRADITIONAL)
    changed = re.sub(rb"DEK-Info: .*", b"DEK-Info: " + info.encode(), text)
    assert changed != text
    assert refused(changed, Secret(b"open sesame")).code == Code.KEY_FORMAT


def test_an_object_identifier_without_an_end_makes_no_message_without_one() -> None:
    data = wrap(0x30, b"\2\1\0" + wrap(0x30, wrap(0x06, b"\x2a" * 2000)) + wrap(0x04, b"x"))
    assert len(refused(der_pem(data, label="PRIVATE KEY")).message) < 200
