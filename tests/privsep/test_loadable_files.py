"""What root gives nginx to load: the keys and chains of every legitimate pair, and nothing that could hang nginx."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, x25519
from hypothesis import given
from hypothesis import strategies as st

from rotator.privsep import apply as module
from rotator.privsep.apply import check_chain, check_key
from rotator.validation import candidate
from rotator.x509 import certificate, der
from rotator.x509.keys import Key, read_key
from rotator.x509.pem import Block
from tests.support.authority import CA, PrivateKey, der_pem, key_pem, new_key, rsa_key, wrap
from tests.support.crafting import NULL, integer, oid, sequence

PKCS8 = serialization.PrivateFormat.PKCS8
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
ANY_KEY = new_key()
CHAIN = CA.root().intermediate().issue("site.test").chain_pem


def key_of(data: bytes) -> bytes:
    return der_pem(data, label="PRIVATE KEY")


def refused(check: Callable[[str, bytes], None], data: bytes) -> str:
    """The message with which a file is refused."""
    with pytest.raises(module._RequestError) as caught:
        check("file.pem", data)
    assert (caught.value.reason, "file.pem" in caught.value.message) == ("store-unsafe", True)
    return caught.value.message


def reason(check: Callable[[str, bytes], None], data: bytes) -> str:
    """The word with which a file is refused; empty if it passes."""
    try:
        check("file.pem", data)
    except module._RequestError as e:
        return e.reason if e.message.isprintable() else "a message that cannot be printed"
    return ""


def odd(bits: int) -> int:
    return 1 << bits - 1 | 1


def rsa_structure(bits: int, **other: int) -> bytes:
    """A PKCS#8 structure with an RSA key whose numbers have the lengths of a real one."""
    half = bits // 2
    lengths = {"n": bits, "e": 17, "d": bits - 1} | dict.fromkeys(("p", "q", "dp", "dq", "qi"), half) | other
    numbers = b"".join(integer(odd(length)) for length in lengths.values())
    inner = sequence(integer(0), numbers)
    return sequence(integer(0), sequence(oid(der.RSA), NULL), wrap(der.OCTET_STRING, inner))


def dsa_structure(bits: int) -> bytes:
    parameters = sequence(integer(odd(bits)), integer(odd(bits - 1)), integer(odd(bits - 1)))
    key = wrap(der.OCTET_STRING, integer(odd(bits - 1)))
    return sequence(integer(0), sequence(oid(der.DSA), parameters), key)


def ec_structure(
    parameters: bytes, inner: bytes = b"", scalar: bytes = b"\1" * 32, algorithm: str = der.EC, version: int = 1
) -> bytes:
    key = sequence(integer(version), wrap(der.OCTET_STRING, scalar), inner)
    return sequence(integer(0), sequence(oid(algorithm), parameters), wrap(der.OCTET_STRING, key))


P256, P384 = oid("1.2.840.10045.3.1.7"), oid("1.3.132.0.34")
EXPLICIT = sequence(integer(1), sequence(oid("1.2.840.10045.1.1"), integer(odd(256))))
POINT = wrap(0xA1, wrap(der.BIT_STRING, b"\0\4" + b"\1" * 64))


# -- what passes


@pytest.mark.parametrize(
    "key",
    [
        *(pytest.param(ec.generate_private_key(curve), id=name) for name, curve in CURVES.items()),
        *(pytest.param(rsa_key(3, bits), id=f"RSA {bits}") for bits in (1024, 2048, 3072, 4096)),
        pytest.param(new_key("ed25519"), id="Ed25519"),
    ],
)
def test_a_key_of_each_kind_that_the_store_writes_passes(key: PrivateKey) -> None:
    read = read_key(
        Block("PRIVATE KEY", key.private_bytes(serialization.Encoding.DER, PKCS8, serialization.NoEncryption()), "k", 1)
    )
    assert isinstance(read, Key)
    check_key("privkey.pem", read.secret.reveal())


def test_the_largest_rsa_key_of_a_policy_passes_and_is_far_below_the_limit_of_the_file() -> None:
    data = key_of(rsa_structure(certificate.MAX_RSA_BITS))
    check_key("privkey.pem", data)
    assert len(data) < module.MAX_KEY / 2


def test_the_bounds_are_those_of_the_validation() -> None:
    assert module.MAX_RSA_BITS == certificate.MAX_RSA_BITS
    assert [[(der.OID, der.encoded_oid(curve)[2:])] for curve in certificate.CURVES] == module._CURVES
    assert module.MAX_CHAIN == candidate.MAX_CHAIN


@pytest.mark.parametrize("inner", [b"", POINT, wrap(0xA0, P256), wrap(0xA0, P256) + POINT])
def test_a_key_on_a_named_curve_passes_with_and_without_its_optional_parts(inner: bytes) -> None:
    check_key("privkey.pem", key_of(ec_structure(P256, inner)))


@pytest.mark.parametrize("how_many", [1, 2, module.MAX_CHAIN])
def test_a_chain_passes(how_many: int) -> None:
    one = CHAIN[: CHAIN.index(b"-----END") + 26]
    check_chain("fullchain.pem", one * how_many)
    check_chain("fullchain.pem", CHAIN)


# -- keys that do not pass

KEYS = {
    "DSA": key_pem(dsa.generate_private_key(1024)),  # type: ignore[arg-type]  # no kind of key that rotator stores
    "DSA of a size that hangs nginx": key_of(dsa_structure(30_000)),
    "DSA of 16 KiB": key_of(dsa_structure(20_000)),
    "Ed448": key_pem(ed448.Ed448PrivateKey.generate()),  # type: ignore[arg-type]  # likewise
    "X25519": key_pem(x25519.X25519PrivateKey.generate()),  # type: ignore[arg-type]  # likewise
    "secp256k1": key_pem(ec.generate_private_key(ec.SECP256K1())),
    "RSA of more bits than the policy allows": key_of(rsa_structure(8193)),
    "RSA of the most bits that the file has room for": key_of(rsa_structure(20_000)),
    "RSA with a private exponent longer than its modulus": key_of(rsa_structure(2048, d=40_000)),
    "RSA with a prime longer than its modulus": key_of(rsa_structure(2048, p=2049)),
    "RSA with a public exponent longer than its modulus": key_of(rsa_structure(2048, e=3000)),
    "RSA of three primes": key_of(rsa_structure(2048, more=1024)),
    "RSA-PSS": key_of(sequence(integer(0), sequence(oid(der.RSA_PSS)), wrap(der.OCTET_STRING, b""))),
    "RSA without parameters": key_of(sequence(integer(0), sequence(oid(der.RSA)), wrap(der.OCTET_STRING, b""))),
    "explicit parameters": key_of(ec_structure(EXPLICIT)),
    "explicit parameters inside a named curve": key_of(ec_structure(P256, wrap(0xA0, EXPLICIT))),
    "another curve inside a named curve": key_of(ec_structure(P256, wrap(0xA0, P384))),
    "two curves inside": key_of(ec_structure(P256, wrap(0xA0, EXPLICIT) + wrap(0xA0, P256))),
    "a part after the point": key_of(ec_structure(P256, POINT + wrap(0xA2, P256))),
    "a long scalar": key_of(ec_structure(P256, scalar=b"\1" * 67)),
    "an ECPrivateKey of another version": key_of(ec_structure(P256, version=2)),
    "no curve": key_of(ec_structure(NULL)),
    "a curve with another algorithm": key_of(ec_structure(P256, algorithm="1.3.132.1.12")),
    "an Ed25519 key of another length": key_of(
        sequence(integer(0), sequence(oid(der.ED25519)), wrap(der.OCTET_STRING, wrap(der.OCTET_STRING, b"\1" * 31)))
    ),
    "attributes after the key": key_of(
        sequence(integer(0), sequence(oid(der.EC), P256), wrap(der.OCTET_STRING, b""), wrap(0xA0, b"\1" * 9000))
    ),
    "PKCS#1": key_pem(rsa_key(), serialization.PrivateFormat.TraditionalOpenSSL),
    "SEC1": key_pem(ANY_KEY, serialization.PrivateFormat.TraditionalOpenSSL),
    "encrypted": b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    "two keys": key_pem(ANY_KEY) * 2,
    "a certificate": CHAIN,
    "a certificate behind the key": key_pem(ANY_KEY) + CHAIN,
    "text before the key": b"a comment\n" + key_pem(ANY_KEY),
    "text behind the key": key_pem(ANY_KEY) + b"a comment\n",
    "an empty line behind the key": key_pem(ANY_KEY) + b"\n",
    "carriage returns": key_pem(ANY_KEY).replace(b"\n", b"\r\n"),
    "a byte order mark": b"\xef\xbb\xbf" + key_pem(ANY_KEY),
    "headers of RFC 1421": key_pem(ANY_KEY).replace(b"KEY-----\n", b"KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1),
    "a letter that is no base64": key_pem(ANY_KEY).replace(b"\nM", b"\n!M", 1),
    "a longer line": b"-----BEGIN PRIVATE KEY-----\n"
    + base64.b64encode(base64.b64decode(b"".join(key_pem(ANY_KEY).splitlines()[1:-1])))
    + b"\n-----END PRIVATE KEY-----\n",
    "an element behind the structure": key_of(rsa_structure(2048) + NULL),
    "a structure that is cut off": key_of(rsa_structure(2048)[:-1]),
    "an indefinite length": key_of(b"\x30\x80" + rsa_structure(2048)[4:] + b"\0\0"),
    "a length in too many octets": key_of(b"\x30\x83\0" + rsa_structure(2048)[2:]),
    "a length of more than all memory": key_of(b"\x30\x88" + b"\xff" * 8),
    "a tag of several octets": key_of(b"\x3f\x81\x01\x00"),
    "nothing in a block": b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
    "no block": b"\0" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("data", KEYS.values(), ids=KEYS)
def test_a_key_that_the_store_does_not_write_does_not_pass(data: bytes) -> None:
    message = refused(check_key, data)
    assert message.isprintable()


# -- chains that do not pass

CHAINS = {
    "a key behind the chain": CHAIN + key_pem(ANY_KEY),
    "a trusted certificate": CHAIN.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
    "parameters of DH": CHAIN + der_pem(b"\x30\0", label="DH PARAMETERS"),
    "text before": b"subject=site.test\n" + CHAIN,
    "text behind": CHAIN + b"\n",
    "text between": CHAIN.replace(b"-----END CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n\n", 1),
    "no line end": CHAIN[:-1],
    "a block that does not end": CHAIN + b"-----BEGIN CERTIFICATE-----\n",
    "too many": CHAIN * module.MAX_CHAIN,
    "not base64": CHAIN.replace(b"\nM", b"\n-M", 1),
    "another length than the block": der_pem(b"\x30\x03\x02\x01"),
    "an element behind the certificate": der_pem(b"\x30\0\x30\0"),
    "no SEQUENCE": der_pem(b"\x04\x01x"),
    "nothing in a block": der_pem(b""),
    "nothing": b"",
}


@pytest.mark.parametrize("data", CHAINS.values(), ids=CHAINS)
def test_a_chain_that_the_store_does_not_write_does_not_pass(data: bytes) -> None:
    assert refused(check_chain, data).isprintable()


def test_no_message_has_a_byte_of_the_key() -> None:
    text = key_pem(ANY_KEY)
    secret = text.splitlines()[1].decode()
    assert secret[:16] not in refused(check_key, text + b"x")


# -- any bytes


def elements() -> st.SearchStrategy[bytes]:
    """DER that is nearly right: elements in elements, some of them cut."""
    leaf = st.tuples(st.sampled_from([0x02, 0x03, 0x04, 0x05, 0x06, 0x30, 0xA0, 0x1F]), st.binary(max_size=12))
    oids = st.sampled_from([oid(der.RSA), oid(der.EC), oid(der.ED25519), P256, NULL, integer(0), integer(1)])
    nested = st.recursive(
        oids | leaf.map(lambda pair: wrap(*pair)),
        lambda inner: st.tuples(st.sampled_from([0x30, 0x04, 0xA0, 0xA1]), st.lists(inner, max_size=10)).map(
            lambda pair: wrap(pair[0], b"".join(pair[1]))
        ),
        max_leaves=30,
    )
    return st.tuples(nested, st.integers(0, 3)).map(lambda pair: pair[0][: len(pair[0]) - pair[1]])


@given(st.binary(max_size=400) | elements())
def test_any_structure_passes_or_is_refused_and_nothing_else_happens(data: bytes) -> None:
    for check, label in ((check_key, "PRIVATE KEY"), (check_chain, "CERTIFICATE")):
        assert reason(check, der_pem(data, label=label)) in ("", "store-unsafe")


@given(st.binary(max_size=300) | st.binary(min_size=1, max_size=100).map(lambda data: CHAIN[:500] + data + CHAIN[500:]))
def test_any_text_is_refused_without_another_error(data: bytes) -> None:
    for check in (check_key, check_chain):
        refused(check, data)


VALID = {name: key_of(data) for name, data in {"rsa": rsa_structure(1024), "ec": ec_structure(P256, POINT)}.items()}


@given(st.sampled_from(sorted(VALID)), st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_of_a_structure_never_raises_another_error(name: str, at: int, change: int) -> None:
    whole = bytearray(base64.b64decode(b"".join(VALID[name].splitlines()[1:-1])))
    whole[at % len(whole)] ^= change
    assert reason(check_key, key_of(bytes(whole))) in ("", "store-unsafe")


@given(st.binary(max_size=200))
def test_the_elements_that_are_read_are_exactly_the_bytes_that_were_given(data: bytes) -> None:
    try:
        read = module._elements(data)
    except ValueError:
        return
    assert b"".join(wrap(tag, content) for tag, content in read) == data
