"""DER, PKCS#7 and PKCS#12: whatever a CA or an export wizard delivers becomes the one pair that is stored."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from rotator.core.model import Candidate, KeyType, Secret, SourceFile
from rotator.core.problems import Code, Severity
from rotator.validation.validate import Anchors, Verdict, public, validate_files
from rotator.x509 import der
from rotator.x509.keys import MAX_COST
from rotator.x509.pbe import _pkcs12_bytes
from rotator.x509.pem import PKCS7, PKCS12, Block
from rotator.x509.pkcs import MAX_PARTS, ContainerContents, unpack
from tests.support.authority import CA, NOW, Issued, der_pem, encrypted, key_pem, pem, rsa_key, wrap
from tests.support.cost import cost

NAME = "signal.example.cn"
ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)
RSA = ICA.issue(NAME, kind="rsa")
ANCHORS = Anchors.from_pem(pem(ROOT.cert), "roots.pem")
DER = serialization.Encoding.DER
TRIPLE = ("-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1")
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()
PASSWORD = Secret(b"open sesame")


def judge(*data: bytes, password: Secret | None = None, need_key: bool = True) -> Verdict:
    """The verdict on these files."""
    files = tuple(SourceFile(f"file{n}", one) for n, one in enumerate(data))
    return validate_files(Candidate(files, password), public([NAME]), ANCHORS, NOW, need_key=need_key)


def demand_good(verdict: Verdict, issued: Issued = GOOD) -> None:
    """Accepted, without a warning, and stored as it always is."""
    assert [(p.code, p.message) for p in verdict.problems] == []
    (pair,) = verdict.pairs
    assert pair.chain == issued.chain_der
    assert pair.key is not None
    assert pair.key.reveal() == issued.key_pem


def key_der(issued: Issued, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> bytes:
    return issued.key.private_bytes(DER, form, PLAIN)


def p7(*certificates: x509.Certificate, encoding: serialization.Encoding = DER) -> bytes:
    return pkcs7.serialize_certificates(list(certificates), encoding)


def p12(
    issued: Issued | None = GOOD,
    *others: x509.Certificate,
    password: bytes | None = b"open sesame",
    how: serialization.KeySerializationEncryption | None = None,
) -> bytes:
    best: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password) if password else PLAIN
    )
    return pkcs12.serialize_key_and_certificates(
        b"a friendly name",
        issued.key if issued else None,
        issued.leaf if issued else None,
        [*(issued.intermediates if issued else ()), *others],
        how or best,
    )


def rounds(number: int, old: pkcs12.PBES | None = None) -> serialization.KeySerializationEncryption:
    """An encryption of so many rounds."""
    builder = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(number)
    builder = builder.key_cert_algorithm(old or pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256())
    return builder.build(b"open sesame")


# -- DER


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, TRADITIONAL], ids=["pkcs8", "traditional"])
@pytest.mark.parametrize("issued", [GOOD, RSA], ids=["ecdsa", "rsa"])
def test_der_files_are_read_whatever_form_the_key_has(issued: Issued, form: serialization.PrivateFormat) -> None:
    demand_good(judge(*issued.chain_der, key_der(issued, form)), issued)


def test_an_encrypted_der_key_is_read_with_its_password() -> None:
    secret = serialization.BestAvailableEncryption(PASSWORD.reveal())
    key = GOOD.key.private_bytes(DER, serialization.PrivateFormat.PKCS8, secret)
    demand_good(judge(GOOD.chain_pem, key, password=PASSWORD))


def test_problems_of_a_binary_file_name_it_without_a_line() -> None:
    verdict = judge(*GOOD.chain_der, key_der(RSA))
    assert verdict.codes == (Code.KEY_MISMATCH,)
    assert all("line" not in p.message for p in verdict.problems)


# -- PKCS#7


@pytest.mark.parametrize("encoding", [DER, serialization.Encoding.PEM], ids=["der", "pem"])
def test_a_pkcs7_file_in_any_order_is_read_without_a_warning(encoding: serialization.Encoding) -> None:
    demand_good(judge(p7(ICA.cert, GOOD.leaf, encoding=encoding), GOOD.key_pem))


def test_a_pkcs7_bundle_beside_a_leaf_is_read() -> None:
    demand_good(judge(pem(GOOD.leaf), p7(ICA.cert), GOOD.key_pem))


def test_a_pkcs7_file_in_ber_is_read() -> None:
    demand_good(judge(indefinite(p7(GOOD.leaf, ICA.cert), depth=3), GOOD.key_pem))


def test_a_pkcs7_file_without_a_certificate_is_called_that() -> None:
    signed = wrap(0x30, b"\x02\x01\x01" + wrap(0x31, b"") + wrap(0x30, der.encoded_oid("1.2.840.113549.1.7.1")))
    data = wrap(0x30, der.encoded_oid(der.SIGNED_DATA) + wrap(0xA0, signed))
    assert judge(data, GOOD.key_pem).codes[0] == Code.CERT_MISSING


def indefinite(data: bytes, depth: int) -> bytes:
    """The same as BER: the outer structures without a length, as some CAs' tools and Java write them."""
    one = der.element(data, 0, len(data))
    if depth == 0 or not one.tag & 0x20:
        return data
    parts = b"".join(indefinite(der.whole(data, part), depth - 1) for part in der.children(data, one))
    return bytes((one.tag, 0x80)) + parts + b"\0\0"


# -- PKCS#12


def test_a_pkcs12_file_is_read_with_its_password() -> None:
    demand_good(judge(p12(), password=PASSWORD))


def test_a_pkcs12_file_of_the_older_kind_is_read() -> None:
    demand_good(judge(p12(how=rounds(2048, pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)), password=PASSWORD))


def test_a_pkcs12_file_with_an_rsa_key_is_read() -> None:
    demand_good(judge(p12(RSA), password=PASSWORD), RSA)


def test_a_pkcs12_file_that_is_not_encrypted_needs_no_password() -> None:
    demand_good(judge(p12(password=None)))


def test_a_pkcs12_file_with_a_sent_root_is_repaired_with_a_warning() -> None:
    verdict = judge(p12(GOOD, ROOT.cert), password=PASSWORD)
    assert verdict.accepted
    assert verdict.warnings == (Code.ROOT_INCLUDED,)
    assert verdict.pairs[0].chain == GOOD.chain_der


def test_a_pkcs12_file_of_certificates_alone_serves_beside_a_key() -> None:
    demand_good(judge(p12(None, GOOD.leaf, ICA.cert), GOOD.key_pem, password=PASSWORD))


def test_the_two_pairs_of_a_dual_site_may_come_in_two_pkcs12_files() -> None:
    verdict = judge(p12(), p12(RSA), password=PASSWORD)
    assert verdict.accepted
    assert [pair.key_type for pair in verdict.pairs] == [KeyType.ECDSA, KeyType.RSA]


def test_a_pkcs12_file_without_its_password_asks_for_it() -> None:
    verdict = judge(p12())
    assert verdict.codes == (Code.KEY_ENCRYPTED,)
    assert "password" in verdict.problems[0].hint


@pytest.mark.parametrize("data", [p12(), encrypted(GOOD.key, b"open sesame")], ids=["pkcs12", "pkcs8"])
def test_a_wrong_password_is_called_that(data: bytes) -> None:
    assert judge(GOOD.chain_pem, data, password=Secret(b"wrong")).codes == (Code.BAD_PASSWORD,)


def openssl(tmp_path: Path, *arguments: str) -> bytes:
    """What this host's OpenSSL exports of the good pair."""
    (tmp_path / "all.pem").write_bytes(GOOD.chain_pem + GOOD.key_pem)
    command = ["openssl", "pkcs12", "-export", "-in", "all.pem", "-out", "x.p12", "-name", "x", *arguments]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return (tmp_path / "x.p12").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-legacy",),
        ("-legacy", "-certpbe", "PBE-SHA1-RC2-128"),
        ("-nomac",),
        ("-keypbe", "NONE", "-certpbe", "NONE"),
    ],
    ids=["default", "rc2 and 3des", "rc2 of 128 bits", "without a mac", "plain"],
)
def test_whatever_openssl_exports_is_read(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    demand_good(judge(openssl(tmp_path, *arguments, "-passout", "pass:open sesame"), password=PASSWORD))


@pytest.mark.parametrize("password", [None, Secret(b"")], ids=["none known", "empty"])
@pytest.mark.parametrize("older", [(), TRIPLE], ids=["default", "3des"])
def test_the_empty_password_is_tried(tmp_path: Path, password: Secret | None, older: tuple[str, ...]) -> None:
    demand_good(judge(openssl(tmp_path, *older, "-passout", "pass:"), password=password))


@pytest.mark.parametrize(
    ("password", "code"), [(None, Code.KEY_ENCRYPTED), (Secret(b""), Code.KEY_FORMAT)], ids=["none known", "empty"]
)
def test_rc2_is_not_opened_with_the_empty_password(tmp_path: Path, password: Secret | None, code: Code) -> None:
    assert judge(openssl(tmp_path, "-legacy", "-passout", "pass:"), password=password).codes[0] == code


@pytest.mark.parametrize("bits", ["128", "192", "256"])
def test_every_size_of_aes_is_read(tmp_path: Path, bits: str) -> None:
    how = f"aes-{bits}-cbc"
    data = openssl(tmp_path, "-certpbe", how, "-keypbe", how, "-passout", "pass:open sesame")
    demand_good(judge(data, password=PASSWORD))


def test_the_older_kind_is_read_from_openssl_too(tmp_path: Path) -> None:
    demand_good(judge(openssl(tmp_path, *TRIPLE, "-passout", "pass:open sesame"), password=PASSWORD))


@pytest.mark.parametrize("old", [False, True], ids=["aes", "3des"])
def test_a_password_beyond_ascii_opens_a_pkcs12_file(*, old: bool) -> None:
    secret = "Sésam öffne dich".encode()
    builder = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(2000)
    kind = pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC if old else pkcs12.PBES.PBESv2SHA256AndAES256CBC
    demand_good(judge(p12(how=builder.key_cert_algorithm(kind).build(secret)), password=Secret(secret)))


def test_what_a_nested_key_costs_is_seen_before_it_is_paid() -> None:
    key = wrap(0x30, algorithm(b"\x02\x04\x7f\xff\xff\xff") + wrap(0x04, b"\0" * 160))
    bag = wrap(0x30, der.encoded_oid("1.2.840.113549.1.12.10.1.2") + wrap(0xA0, key))
    data = sealed(wrap(0x30, bag))
    assert [b.label for b in unpacked(data).blocks] == ["ENCRYPTED PRIVATE KEY"]
    for password, code in ((PASSWORD, Code.KEY_FORMAT), (None, Code.KEY_ENCRYPTED)):
        verdict, seconds = cost(lambda password=password: judge(GOOD.chain_pem, data, password=password), below=0.2)  # type: ignore[misc]
        assert verdict.codes == (code,)
        assert seconds < 0.2


@pytest.mark.parametrize("derivation", ["rounds", "memory"])
def test_what_a_key_nested_under_rc2_costs_is_never_paid(derivation: str) -> None:
    """The library gets that part whole, as there is no RC2 of 40 bits to be had without its PKCS#12."""
    how = algorithm(b"\x02\x04\x7f\xff\xff\xff") if derivation == "rounds" else scrypt(1 << 20)
    key = wrap(0x30, how + wrap(0x04, b"\0" * 160))
    dear = wrap(0x30, der.encoded_oid("1.2.840.113549.1.12.10.1.2") + wrap(0xA0, key))
    held = [wrap(0x30, der.encoded_oid("1.2.840.113549.1.9.22.1") + wrap(0xA0, wrap(0x04, c))) for c in GOOD.chain_der]
    bags = [wrap(0x30, der.encoded_oid("1.2.840.113549.1.12.10.1.3") + wrap(0xA0, one)) for one in held]
    for order in ((dear, *bags), (*bags, dear)):
        data = sealed_with_rc2(wrap(0x30, b"".join(order)))
        verdict, seconds = cost(lambda data=data: judge(data, GOOD.key_pem, password=PASSWORD), below=0.2)  # type: ignore[misc]
        demand_good(verdict)
        assert seconds < 0.2


def scrypt(rounds: int) -> bytes:
    """PBES2 with scrypt of so many rounds at 1 KiB each, and AES-256."""
    numbers = wrap(0x04, b"salt") + wrap(0x02, rounds.to_bytes(4, "big")) + b"\x02\x01\x08\x02\x01\x01"
    kdf = wrap(0x30, der.encoded_oid("1.3.6.1.4.1.11591.4.11") + wrap(0x30, numbers))
    cipher = wrap(0x30, der.encoded_oid("2.16.840.1.101.3.4.1.42") + wrap(0x04, b"\0" * 16))
    return wrap(0x30, der.encoded_oid("1.2.840.113549.1.5.13") + wrap(0x30, kdf + cipher))


def sealed_with_rc2(bags: bytes) -> bytes:
    """A PKCS#12 file with these bags encrypted together under RC2 of 40 bits, as this host's OpenSSL does it."""
    secret = PASSWORD.reveal().decode().encode("utf-16-be") + b"\0\0"
    key, vector = (_pkcs12_bytes(purpose, secret, b"saltsalt", 1, size) for purpose, size in ((1, 5), (2, 8)))
    command = ["openssl", "enc", "-provider", "legacy", "-provider", "default", "-rc2-40-cbc"]
    command += ["-K", key.hex(), "-iv", vector.hex()]
    content = subprocess.run(command, input=bags, check=True, capture_output=True).stdout
    how = wrap(0x30, der.encoded_oid("1.2.840.113549.1.12.1.6") + wrap(0x30, wrap(0x04, b"saltsalt") + b"\x02\x01\x01"))
    return in_a_file(how, content)


def algorithm(rounds: bytes) -> bytes:
    """PBES2 with PBKDF2 of so many rounds (as DER), HMAC-SHA1 and AES-256."""
    kdf = wrap(0x30, der.encoded_oid("1.2.840.113549.1.5.12") + wrap(0x30, wrap(0x04, b"salt") + rounds))
    cipher = wrap(0x30, der.encoded_oid("2.16.840.1.101.3.4.1.42") + wrap(0x04, b"\0" * 16))
    return wrap(0x30, der.encoded_oid("1.2.840.113549.1.5.13") + wrap(0x30, kdf + cipher))


def sealed(bags: bytes) -> bytes:
    """A PKCS#12 file with these bags encrypted together."""
    key = hashlib.pbkdf2_hmac("sha1", PASSWORD.reveal(), b"salt", 1, 32)
    fill = 16 - len(bags) % 16
    encryptor = Cipher(AES(key), modes.CBC(b"\0" * 16)).encryptor()
    content = encryptor.update(bags + bytes((fill,)) * fill) + encryptor.finalize()
    return in_a_file(algorithm(b"\x02\x01\x01"), content)


def in_a_file(how: bytes, content: bytes) -> bytes:
    """A PKCS#12 file of one part that is encrypted so."""
    inner = der.encoded_oid("1.2.840.113549.1.7.1") + how + wrap(0x80, content)
    encrypted_data = wrap(0x30, b"\x02\x01\x00" + wrap(0x30, inner))
    info = wrap(0x30, der.encoded_oid("1.2.840.113549.1.7.6") + wrap(0xA0, encrypted_data))
    safe = wrap(0x30, der.encoded_oid("1.2.840.113549.1.7.1") + wrap(0xA0, wrap(0x04, wrap(0x30, info))))
    return wrap(0x30, b"\x02\x01\x03" + safe)


def test_a_pkcs12_file_in_ber_is_read(tmp_path: Path) -> None:
    demand_good(judge(indefinite(openssl(tmp_path, "-passout", "pass:open sesame"), 3), password=PASSWORD))


# -- bounds


def test_no_pkcs12_file_spends_more_than_the_bound(tmp_path: Path) -> None:
    for which in ("-iter", "-iter -nomac"):
        data = openssl(tmp_path, *which.split()[:1], "600000", *which.split()[1:], "-passout", "pass:open sesame")
        verdict, seconds = cost(lambda data=data: judge(data, password=PASSWORD), below=0.1)  # type: ignore[misc]
        assert verdict.codes[0] == Code.KEY_FORMAT
        assert "rounds" in verdict.problems[0].message
        assert seconds < 0.1


def test_a_mac_of_too_many_rounds_alone_is_refused_by_its_header() -> None:
    data = p12(password=None)
    outer = der.children(data, der.element(data, 0, len(data)))
    info = wrap(0x30, wrap(0x30, der.encoded_oid("2.16.840.1.101.3.4.2.1")) + wrap(0x04, b"\0" * 32))
    mac = wrap(0x30, info + wrap(0x04, b"salt") + b"\x02\x04\x7f\xff\xff\xff")
    changed = wrap(0x30, der.whole(data, outer[0]) + der.whole(data, outer[1]) + mac)
    assert judge(changed).codes == (Code.KEY_FORMAT,)


def test_the_rounds_of_a_pbmac1_are_read_where_they_are() -> None:
    data = p12(password=None)
    outer = der.children(data, der.element(data, 0, len(data)))
    pbkdf2 = wrap(0x30, wrap(0x04, b"salt") + b"\x02\x04\x7f\xff\xff\xff")
    kdf = wrap(0x30, der.encoded_oid("1.2.840.113549.1.5.12") + pbkdf2)
    scheme = wrap(0x30, der.encoded_oid("1.2.840.113549.2.9"))
    algorithm = wrap(0x30, der.encoded_oid("1.2.840.113549.1.5.14") + wrap(0x30, kdf + scheme))
    mac = wrap(0x30, wrap(0x30, algorithm + wrap(0x04, b"\0" * 32)) + wrap(0x04, b"salt") + b"\x02\x01\x01")
    assert judge(wrap(0x30, der.whole(data, outer[0]) + der.whole(data, outer[1]) + mac)).codes == (Code.KEY_FORMAT,)


def test_all_files_of_a_candidate_share_one_bound() -> None:
    share = MAX_COST // 4 + 1
    files = [p12(how=rounds(share)) for _ in range(3)]
    verdict, seconds = cost(lambda: judge(*files, password=PASSWORD), below=2.0)
    assert Code.KEY_FORMAT in verdict.codes
    assert seconds < 2


def test_a_container_of_too_many_parts_is_refused() -> None:
    found = unpacked(p7(*[GOOD.leaf] * (MAX_PARTS + 1)), PKCS7)
    assert [p.code for p in found.problems] == [Code.CHAIN_TOO_LONG]
    assert len(found.blocks) == MAX_PARTS


def test_an_rsa_key_of_8192_bits_in_a_pkcs12_file_is_not_checked_for_seconds() -> None:
    issued = ICA.issue(NAME, key=rsa_key(7, 4104))
    verdict, seconds = cost(lambda: judge(p12(issued), password=PASSWORD), below=0.3)
    assert verdict.accepted
    assert seconds < 0.3


def unpacked(data: bytes, label: str = PKCS12, password: Secret | None = PASSWORD) -> ContainerContents:
    return unpack(Block(label, data, "x", 0), password, MAX_COST)


@pytest.mark.parametrize("label", [PKCS7, PKCS12])
@pytest.mark.parametrize("step", range(3))
def test_a_damaged_container_is_a_problem_and_never_an_exception(label: str, step: int) -> None:
    data = p7(GOOD.leaf, ICA.cert) if label == PKCS7 else p12(how=rounds(1))
    for at in range(step, min(len(data), 1500), 3):
        for changed in (data[:at], data[:at] + bytes((data[at] ^ 0x81,)) + data[at + 1 :]):
            found = unpacked(changed, label)
            assert all(p.severity is Severity.REJECT and p.message.isprintable() for p in found.problems)


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x80" * 5000,
        b"\x30\x80" + b"\x05\x00" * 20_000 + b"\0\0",
        b"\x30\x80" * 10 + b"\0\0" * 9,
        b"\x24\x80\x04\x01x",
        b"\x30\x80\x30",
        b"\x04\x80",
    ],
)
def test_ber_that_never_ends_is_a_problem(data: bytes) -> None:
    assert [p.code for p in unpacked(data).problems] == [Code.PARSE_ERROR]


# -- text around them


def test_both_pairs_in_one_file_with_everything_that_people_leave_in_there() -> None:
    comment = b"Bag Attributes\n    localKeyID: 01\n    friendlyName: M\xc3\xbcller\nKey Attributes: <No Attributes>\n"
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    sec1 = key_pem(GOOD.key, TRADITIONAL)
    text = comment + RSA.key_pem + comment + pem(RSA.leaf) + GOOD.chain_pem + comment + parameters + sec1
    verdict = judge(text.replace(b"\n", b"\r\n"))
    assert verdict.accepted
    assert [(p.key_type, p.chain, p.key and p.key.reveal()) for p in verdict.pairs] == [
        (KeyType.ECDSA, GOOD.chain_der, GOOD.key_pem),
        (KeyType.RSA, RSA.chain_der, RSA.key_pem),
    ]
    assert verdict.warnings == (Code.KEY_IN_CERT_FILE,)


def test_an_encrypted_key_of_the_old_style_is_read_with_its_password() -> None:
    key = encrypted(GOOD.key, b"open sesame", TRADITIONAL)
    assert b"Proc-Type: 4,ENCRYPTED" in key
    demand_good(judge(GOOD.chain_pem, key, password=PASSWORD))
    assert judge(GOOD.chain_pem, key).codes == (Code.KEY_ENCRYPTED,)
    assert judge(GOOD.chain_pem, key, password=Secret(b"wrong")).codes == (Code.BAD_PASSWORD,)


def test_the_trust_settings_of_a_trusted_certificate_are_left_out() -> None:
    settings = wrap(0x30, wrap(0x30, der.encoded_oid("1.3.6.1.5.5.7.3.1")))
    text = der_pem(GOOD.chain_der[0] + settings, label="TRUSTED CERTIFICATE")
    verdict = judge(text, pem(ICA.cert), GOOD.key_pem)
    assert verdict.accepted
    assert verdict.warnings == (Code.TRAILING_DATA,)
    assert verdict.pairs[0].chain == GOOD.chain_der


def test_the_password_shows_in_no_representation() -> None:
    candidate = replace(Candidate((SourceFile("x", p12()),)), password=PASSWORD)
    assert "sesame" not in repr(candidate)


def test_the_password_is_no_part_of_the_digest() -> None:
    candidate = Candidate((SourceFile("x", b"y"),))
    assert replace(candidate, password=PASSWORD).digest == candidate.digest
