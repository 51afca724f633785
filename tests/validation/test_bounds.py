"""What an input may cost: every one is refused within a second and 64 MB, in seconds of processor."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.x509 import ocsp

from rotator.core.model import MAX_FILE
from rotator.validation.blocklist import MAX_BLOCKLIST
from rotator.validation.root_store_formats import MAX_LINES, MAX_ROOT_STORE, MAX_ROOTS
from rotator.validation.sct import MAX_LIST
from rotator.validation.trust_anchors import MAX_STORE
from rotator.x509.crl import MAX_CRL
from rotator.x509.ocsp import MAX_RESPONSES
from tests.support.authority import der_pem, rewritten_response, wrap
from tests.support.crafting import (
    NULL,
    OCTETS,
    Party,
    constraints,
    craft,
    general,
    integer,
    name,
    oid,
    raw_extension,
    san,
    sequence,
    signing,
    utc,
)
from tests.support.measuring import Measured, Measuring

NAME = "signal.example.test"
FILES = 16
SECONDS, MEGABYTES = 1.0, 64.0

ATTEMPTS = 3
"""Measurements of an input that seems to cost too much, on a machine that others use too."""

ROOT = craft(None, "Root", ca=True)
AUTHORITY = craft(ROOT, "Authority", ca=True)


def full(block: bytes) -> list[bytes]:
    """As many files of as many blocks as are read."""
    return [block * (MAX_FILE // len(block))] * FILES


def block(data: bytes, label: str = "CERTIFICATE") -> bytes:
    return der_pem(data, label=label)


def nested(size: int) -> bytes:
    inner = b""
    while len(inner) < size:
        inner = wrap(0x30, inner)
    return inner


def spki(bits: int, exponent: int = 65537) -> bytes:
    modulus = random.Random(bits).getrandbits(bits) | 1 << (bits - 1) | 1
    return sequence(
        sequence(oid("1.2.840.113549.1.1.1"), NULL), wrap(3, b"\0" + sequence(integer(modulus), integer(exponent)))
    )


def encrypted(*derivation: bytes) -> bytes:
    scheme = sequence(oid("2.16.840.1.101.3.4.1.42"), wrap(OCTETS, b"0" * 16))
    algorithm = sequence(oid("1.2.840.113549.1.5.13"), sequence(sequence(*derivation), scheme))
    return block(sequence(algorithm, wrap(OCTETS, b"x" * 64)), "ENCRYPTED PRIVATE KEY")


def pbkdf2(rounds: int) -> bytes:
    return encrypted(oid("1.2.840.113549.1.5.12"), sequence(wrap(OCTETS, b"saltsalt"), integer(rounds)))


def scrypt(n: int, r: int) -> bytes:
    numbers = sequence(wrap(OCTETS, b"saltsalt"), integer(n), integer(r), integer(1))
    return encrypted(oid("1.3.6.1.4.1.11591.4.11"), numbers)


def dsa_structure(bits: int) -> bytes:
    """A PKCS#8 key whose public half the library computes, if it gets that far: g to the x, modulo p."""
    chance = random.Random(bits)
    p, x = (chance.getrandbits(bits) | 1 << (bits - 1) | 1 for _ in range(2))
    algorithm = sequence(oid("1.2.840.10040.4.1"), sequence(integer(p), integer(x), integer(p // 3)))
    return sequence(integer(0), algorithm, wrap(OCTETS, integer(x)))


def dsa_key(bits: int) -> bytes:
    """The same, encrypted with the password that the judge has."""
    key = hashlib.pbkdf2_hmac("sha1", b"guess", b"saltsalt", 1, 32)
    plain = dsa_structure(bits)
    fill = 16 - len(plain) % 16
    encryptor = Cipher(AES(key), modes.CBC(b"0" * 16)).encryptor()
    content = encryptor.update(plain + bytes((fill,)) * fill) + encryptor.finalize()
    kdf = sequence(oid("1.2.840.113549.1.5.12"), sequence(wrap(OCTETS, b"saltsalt"), integer(1)))
    scheme = sequence(oid("2.16.840.1.101.3.4.1.42"), wrap(OCTETS, b"0" * 16))
    algorithm = sequence(oid("1.2.840.113549.1.5.13"), sequence(kdf, scheme))
    return block(sequence(algorithm, wrap(OCTETS, content)), "ENCRYPTED PRIVATE KEY")


def old_pkcs12(rounds: int) -> bytes:
    """A PKCS#12 file under triple DES, which opens with nothing."""
    parameters = sequence(wrap(OCTETS, b"saltsalt"), integer(rounds))
    algorithm = sequence(oid("1.2.840.113549.1.12.1.3"), parameters)
    content = sequence(oid("1.2.840.113549.1.7.1"), algorithm, wrap(0x80, b"x" * 64))
    info = sequence(oid("1.2.840.113549.1.7.6"), wrap(0xA0, sequence(integer(0), content)))
    safe = sequence(oid("1.2.840.113549.1.7.1"), wrap(0xA0, wrap(OCTETS, sequence(info))))
    return sequence(integer(3), safe)


def below(party: Party) -> bytes:
    return der_pem(craft(party, NAME, names=(NAME,)).der) + der_pem(party.der)


def many_names(count: int) -> list[str]:
    return [NAME, *(f"host-{number}.example.test" for number in range(count))]


def product() -> list[bytes]:
    limits = [(2, f"domain-{number}.test".encode()) for number in range(4000)]
    limited = craft(ROOT, "Limited", ca=True, extensions={"limits": constraints([*limits, (2, b"example.test")])})
    return [der_pem(craft(limited, NAME, names=many_names(4000)).der), der_pem(limited.der)]


def mesh() -> list[bytes]:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(10)]
    pairs = [(a, b) for a in range(10) for b in range(10) if a != b]
    crossed = [craft(craft(ROOT, f"CA {a}", ca=True, key=keys[a]), f"CA {b}", ca=True, key=keys[b]) for a, b in pairs]
    files = [b"".join(der_pem(one.der) for one in crossed[at : at + 30]) for at in range(0, 90, 30)]
    return [der_pem(craft(crossed[0], NAME, names=(NAME,)).der), *files]


MANY = sequence(*[wrap(0x31, sequence(oid("2.5.4.11"), wrap(0x0C, b"xxxx"))) for _ in range(12_000)])
"""A distinguished name."""

NASTY: dict[str, Callable[[], list[bytes]]] = {
    "blocks of junk": lambda: full(block(b"\x30\x03\x02\x01\x01")),
    "tiny blocks of no use": lambda: full(b"-----BEGIN X-----\n-----END X-----\n"),
    "tiny blocks that are passed over": lambda: full(b"-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n"),
    "blocks to be converted": lambda: full(b"-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n"),
    "keys of junk": lambda: full(block(b"\x30\x03\x02\x01\x01", "PRIVATE KEY")),
    "one certificate over and over": lambda: full(der_pem(AUTHORITY.der)),
    "lines of one character": lambda: full(b"-----BEGIN CERTIFICATE-----\n" + b"Q\n" * 100_000),
    "half blocks": lambda: full(b"-----BEGIN CERTIFICATE-----\n"),
    "NUL octets": lambda: [bytes(MAX_FILE)] * FILES,
    "random octets": lambda: [random.Random(n).randbytes(MAX_FILE) for n in range(FILES)],
    "structures without end": lambda: [block(nested(150_000))] * FILES,
    "structures without end in an extension": lambda: [
        craft(AUTHORITY, NAME, extensions={"more": raw_extension("2.5.29.32", nested(150_000))}).chain_pem
    ],
    "90,000 parts": lambda: [block(wrap(0x30, b"\5\0" * 90_000))] * FILES,
    "7,000 names": lambda: [craft(AUTHORITY, NAME, names=many_names(7000)).chain_pem],
    "as many in each file": lambda: [der_pem(craft(AUTHORITY, NAME, names=many_names(7000)).der) for _ in range(FILES)],
    "8,000 extensions": lambda: [
        craft(
            AUTHORITY, NAME, extensions={f"{n}": raw_extension(f"1.3.6.1.4.1.9.{n}", b"\5\0") for n in range(8000)}
        ).chain_pem
    ],
    "subjects of 12,000 parts": lambda: [craft(AUTHORITY, NAME, names=(NAME,), raw_subject=MANY).chain_pem] * 14,
    "as many in each of 14 certificates": lambda: [
        craft(AUTHORITY, NAME, names=(NAME,), raw_subject=MANY).chain_pem for _ in range(14)
    ],
    "as many as alternative name of 14 certificates": lambda: [
        craft(AUTHORITY, NAME, extensions={"san": san((2, NAME.encode()), (4, MANY))}).chain_pem for _ in range(14)
    ],
    "55,000 short names in each of 14 certificates": lambda: [
        craft(AUTHORITY, NAME, extensions={"san": san((2, NAME.encode()), *[(2, b"a")] * 55_000)}).chain_pem
        for _ in range(14)
    ],
    "names times constraints": product,
    "every authority certified by every other": mesh,
    "an RSA leaf of 16,384 bits": lambda: [craft(AUTHORITY, NAME, names=(NAME,), spki=spki(16384)).chain_pem],
    "an RSA authority of 400,000 bits": lambda: [below(craft(ROOT, "Big", ca=True, spki=spki(400_000)))],
    "an RSA authority with an exponent of 8,192 bits": lambda: [
        below(craft(ROOT, "Big", ca=True, spki=spki(8192, (1 << 8191) | 1)))
    ],
    "a key of 2^31 rounds": lambda: [der_pem(AUTHORITY.der), pbkdf2(2**31 - 1)],
    "four keys of as many rounds as are spent": lambda: [pbkdf2(490_000 + n) for n in range(4)],
    "a key of much memory": lambda: [der_pem(AUTHORITY.der), scrypt(2**17, 7)],
    "keys of as much memory as is spent": lambda: [scrypt(2**14, 15 - n) for n in range(4)],
    "an encrypted DSA key of 40,000 bits": lambda: [dsa_key(40_000)],
    "a DSA key under the label of an EC key": lambda: [block(dsa_structure(40_000), "EC PRIVATE KEY")],
    "an old PKCS#12 file under the empty password": lambda: [old_pkcs12(490_000)],
    "base64 in one line": lambda: [base64.b64encode(bytes(MAX_FILE // 2))] * FILES,
}


EMPTY_PASSWORD = {"an old PKCS#12 file under the empty password"}


@pytest.fixture(scope="module")
def measuring() -> Iterator[Measuring]:
    with Measuring() as warm:
        yield warm


def cheapest(measure: Callable[[], Measured]) -> Measured:
    """The first measurement within the bound; or the last one, if none is."""
    for _ in range(ATTEMPTS):
        found = measure()
        if found.seconds < SECONDS:
            break
    return found


@pytest.mark.parametrize("what", NASTY)
def test_any_input_is_refused_within_a_second_and_64_megabytes(what: str, measuring: Measuring) -> None:
    good = [craft(AUTHORITY, NAME, names=(NAME,)).chain_pem]
    files = NASTY[what]()
    assert len(files) <= FILES
    assert all(len(data) <= MAX_FILE for data in files)
    password = b"" if what in EMPTY_PASSWORD else b"guess"
    found = cheapest(lambda: measuring.measure("drop", ROOT.root_pem, good, files, password))
    assert not found.accepted
    assert found.seconds < SECONDS
    assert found.megabytes < MEGABYTES
    assert found.problems < 5000


# -- what stands beside the roots

NOW = datetime.now(UTC)
AT = utc(NOW - timedelta(days=2))
LEAF = craft(AUTHORITY, NAME, names=(NAME,), days=30)
UNNAMED = "revocation-unknown"
"""What is told of the authority, of which no list speaks."""


def listed(entries: Iterable[bytes], party: Party = AUTHORITY) -> bytes:
    """A revocation list of these entries."""
    algorithm, sign = signing(party.key)
    number = raw_extension("2.5.29.20", b"\x02\x01\x01")
    extensions = wrap(0xA0, sequence(number))
    dates = utc(NOW - timedelta(days=1)), utc(NOW + timedelta(days=6))
    tbs = sequence(b"\x02\x01\x01", algorithm, party.subject, *dates, sequence(*entries), extensions)
    return sequence(tbs, algorithm, wrap(3, b"\0" + sign(tbs)))


def entry(serial: bytes, *extensions: bytes) -> bytes:
    return sequence(wrap(2, serial), AT, sequence(*extensions) if extensions else b"")


def filled(size: int, one: bytes) -> list[bytes]:
    return [one] * ((size - 1000) // len(one))


def numbered(count: int) -> Iterable[bytes]:
    """Entries as a large CA writes them: random numbers of 16 octets, most of them without a reason."""
    chance = random.Random(count)
    return (entry(b"\x01" + chance.randbytes(15)) for _ in range(count))


def issuers(count: int) -> Iterable[bytes]:
    """Entries that each name another issuer."""
    for number in range(count):
        named = general((4, name(f"CA {number}")))
        yield entry(b"\x05", raw_extension("2.5.29.29", named, critical=True))


REASON = raw_extension("2.5.29.21", b"\x0a\x01\x04", critical=True)


def stapled(count: int) -> bytes:
    """An OCSP response of so many answers."""
    leaf, authority = (x509.load_der_x509_certificate(one.der) for one in (LEAF, AUTHORITY))
    good, key = ocsp.OCSPCertStatus.GOOD, AUTHORITY.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = ocsp.OCSPResponseBuilder().add_response(
        leaf, authority, hashes.SHA1(), good, NOW - timedelta(days=1), NOW + timedelta(days=1), None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, authority)
    data = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def repeated(parts: list[bytes]) -> list[bytes]:
        return [*parts[:2], sequence(*[parts[2][2:]] * count), *parts[3:]]

    return rewritten_response(data, key, repeated)


def many_staples() -> bytes:
    one = der_pem(stapled(1), label="OCSP RESPONSE")
    return one * (MAX_RESPONSES // len(one))


UNLISTED = "local-root"
TRUSTED_OBJECT = b"CKA_CLASS CK_OBJECT_CLASS CKO_CERTIFICATE\n"
REPORT = b'"SHA-256 Fingerprint","Trust Bits"\n'


def octets(lines: int, name: bytes = b"CKA_VALUE", number: int = 0) -> bytes:
    begin = b"".join(b"\\%03o" % octet for octet in number.to_bytes(2, "big"))
    return name + b" MULTILINE_OCTAL\n" + (begin + b"\\377" * 14 + b"\n") * lines + b"END\n"


def store(objects: bytes) -> bytes:
    """certdata.txt with one trusted root that is not ours, and these lines after it."""
    trusted = b"CKA_CLASS CK_OBJECT_CLASS CKO_NSS_TRUST\nCKA_TRUST_SERVER_AUTH CK_TRUST CKT_NSS_TRUSTED_DELEGATOR\n"
    return b"BEGINDATA\n" + trusted + TRUSTED_OBJECT + octets(1) + objects


LONG: dict[str, tuple[str, Callable[[], bytes], list[str]]] = {
    "a list of 400,000": ("revocations", lambda: listed(numbered(400_000)), [UNNAMED]),
    "a list of 300,000 as PEM": (
        "revocations",
        lambda: der_pem(listed(numbered(300_000)), label="X509 CRL"),
        [UNNAMED],
    ),
    "a list as long as is read": ("revocations", lambda: listed(filled(MAX_CRL, entry(b"\5"))), [UNNAMED]),
    "a list that is all critical": ("revocations", lambda: listed(filled(MAX_CRL, entry(b"\5", REASON))), [UNNAMED]),
    "a list that names an issuer for each entry": (
        "revocations",
        lambda: listed(issuers(40_000)),
        ["crl-unusable", UNNAMED],
    ),
    "as many roots as are read": (
        "roots",
        lambda: (ROOT.root_pem + craft(None, "Another", ca=True).root_pem * 10_000)[:MAX_STORE].rpartition(
            b"-----BEGIN"
        )[0],
        [],
    ),
    "roots of 12,000-part names": (
        "roots",
        lambda: ROOT.root_pem + b"".join(craft(None, "", ca=True, raw_subject=MANY).root_pem for _ in range(2)),
        [],
    ),
    "too many roots": ("roots", lambda: ROOT.root_pem * 10_000, ["too-large"]),
    "a blocklist of as many as are read": (
        "blocked",
        lambda: b"".join(b"%064x\n" % number for number in range(MAX_BLOCKLIST // 65)),
        [],
    ),
    "a blocklist of lines": ("blocked", lambda: b"\n" * MAX_BLOCKLIST, ["too-large"]),
    "a blocklist of a million comments": ("blocked", lambda: b"#0123456789\n" * 1_000_000, []),
    "structures for logs": ("logs", lambda: b'{"operators":[' + b"[]," * (MAX_LIST // 3 - 9) + b"0]}", ["parse-error"]),
    "operators without logs": (
        "logs",
        lambda: b'{"operators":[' + b",".join([b'{"name":""}'] * (MAX_LIST // 12 - 9)) + b"]}",
        ["parse-error"],
    ),
    "a root store of one long value": ("root_stores", lambda: store(octets(MAX_ROOT_STORE // 66)), [UNLISTED]),
    "a root store of as many roots as are read": (
        "root_stores",
        lambda: store(
            b"".join(
                TRUSTED_OBJECT + octets(1, b"CKA_VALUE", number) + b"CKA_CLASS CK_OBJECT_CLASS CKO_NSS_TRUST\n"
                b"CKA_TRUST_SERVER_AUTH CK_TRUST CKT_NSS_TRUSTED_DELEGATOR\n"
                for number in range(MAX_ROOTS - 1)
            )
        ),
        [UNLISTED],
    ),
    "a root store of lines": ("root_stores", lambda: b"BEGINDATA" + b"\n" * (MAX_ROOT_STORE - 9), ["parse-error"]),
    "a root store of as many lines as are read": (
        "root_stores",
        lambda: store((b"CKA_X " + b"y" * 30 + b"\n") * (MAX_LINES - 20)),
        [UNLISTED],
    ),
    "a report of commas": ("root_stores", lambda: REPORT + b"," * (MAX_ROOT_STORE - len(REPORT)), ["parse-error"]),
    "a report of commas between texts": (
        "root_stores",
        lambda: REPORT + (b'"\n"' + b"," * 80) * (MAX_ROOT_STORE // 84),
        ["parse-error"],
    ),
    "a textproto of words": (
        "root_stores",
        lambda: b"trust_anchors{}" + b"a:1 " * (MAX_ROOT_STORE // 4 - 9),
        ["parse-error"],
    ),
    "a textproto of comments": (
        "root_stores",
        lambda: b"trust_anchors{}" + b"#" * (MAX_ROOT_STORE - 99) + b'"',
        ["parse-error"],
    ),
    "a response of 2,000 answers": ("responses", lambda: stapled(2000), []),
    "as many responses as are read": ("responses", many_staples, []),
}


@pytest.mark.parametrize("what", LONG)
def test_what_stands_beside_the_roots_costs_less_than_a_second_and_64_megabytes(
    what: str, measuring: Measuring, tmp_path: Path
) -> None:
    kind, make, expected = LONG[what]
    few, many = tmp_path / "few", tmp_path / "many"
    usual = {"revocations": listed([entry(b"\5")]), "responses": stapled(1), "roots": ROOT.root_pem}
    usual["root_stores"] = store(b"")
    few.write_bytes(usual.get(kind, b"{}"))
    many.write_bytes(make())
    found = cheapest(lambda: measuring.measure("beside", ROOT.root_pem, LEAF.chain_pem, kind, few, many))
    assert list(found.codes) == expected
    assert found.seconds < SECONDS
    assert found.megabytes < MEGABYTES
