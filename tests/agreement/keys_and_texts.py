"""Cases of keys, of how files are written, and of bytes that were damaged; certificates' contents stand elsewhere."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from tests.agreement.family import NAME, Case, Runtime, case, key_text
from tests.support.authority import der_pem, new_key, rsa_key, wrap
from tests.support.crafting import (
    BITS,
    NULL,
    OCTETS,
    AnyKey,
    Party,
    craft,
    integer,
    oid,
    sequence,
)

SEED = 20261124
_EC_OID = "1.2.840.10045.2.1"


def cases(runtime: Runtime) -> Iterator[Case]:
    yield from _kinds(runtime)
    yield from _other_keys(runtime)
    yield from _damaged_private_halves(runtime)
    yield from _dressings(runtime)
    yield from _damaged_bytes(runtime)
    yield from _much(runtime)


def _some_keys() -> dict[str, AnyKey]:
    curves: list[ec.EllipticCurve] = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1(), ec.SECP224R1(), ec.SECP256K1()]
    curves += [ec.BrainpoolP256R1(), ec.BrainpoolP384R1()]
    found: dict[str, AnyKey] = {f"EC {curve.name}": ec.generate_private_key(curve) for curve in curves}
    found |= {f"RSA {bits}": rsa_key(0, bits) for bits in (1024, 2047, 2048, 3072, 4096)}
    found["RSA with exponent 3"] = rsa.generate_private_key(3, 2048)
    found |= {"Ed25519": ed25519.Ed25519PrivateKey.generate(), "Ed448": ed448.Ed448PrivateKey.generate()}
    return found | {"DSA": dsa.generate_private_key(2048)}


def _kinds(runtime: Runtime) -> Iterator[Case]:
    for title, key in _some_keys().items():
        leaf = runtime.leaf(key=key)
        yield case(f"leaf with {title}", leaf)
        if title == "Ed25519":
            yield Case(f"leaf with {title}, private CA", leaf.chain_pem, key_text(key), leaf.root_pem, private=True)
        form = serialization.PrivateFormat.TraditionalOpenSSL
        if title[:2] in ("EC", "RS"):
            yield case(f"leaf with {title}, key in its old form", leaf, key=key_text(key, form))
        if title[:3] != "DSA":
            authority = craft(runtime.root, f"CA with {title}", ca=True, key=key)
            yield case(f"intermediate with {title}", runtime.leaf(authority))
    explicit = _Explicit()
    yield case("explicit curve parameters in the certificate", runtime.leaf(key=explicit.key, spki=explicit.spki))
    yield case("explicit curve parameters in the key", runtime.leaf(key=explicit.key), key=explicit.text)

    yield from _writings(runtime)


def _writings(runtime: Runtime) -> Iterator[Case]:
    """One key, written in ways that some clients do not read, or nobody does."""
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    x, y, odd = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big"), numbers.y & 1
    points = {"compressed": bytes((2 + odd,)) + x, "hybrid": bytes((6 + odd,)) + x + y}
    for title, point in points.items():
        spki = _spki(sequence(oid(_EC_OID), oid("1.2.840.10045.3.1.7")), point)
        yield case(f"leaf with a {title} point", runtime.leaf(key=key, spki=spki))
        authority = craft(runtime.root, f"CA with a {title} point", ca=True, key=key, spki=spki)
        yield case(f"intermediate with a {title} point", runtime.leaf(authority))
    public = rsa_key(0).public_key().public_numbers()
    bare = _spki(sequence(oid("1.2.840.113549.1.1.1")), sequence(integer(public.n), integer(public.e)))
    yield case("leaf with RSA without its NULL", runtime.leaf(key=rsa_key(0), spki=bare))
    authority = craft(runtime.root, "CA without its NULL", ca=True, key=rsa_key(0), spki=bare)
    yield case("intermediate with RSA without its NULL", runtime.leaf(authority))


def _spki(algorithm: bytes, content: bytes) -> bytes:
    return sequence(algorithm, wrap(BITS, b"\0" + content))


class _Explicit:
    """A P-256 key whose curve is written out instead of named (RFC 3279 2.3.5)."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        p = 2**256 - 2**224 + 2**192 + 2**96 - 1
        b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
        x = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
        y = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5
        n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        octets = [number.to_bytes(32, "big") for number in (p - 3, b, x, y)]
        curve = sequence(wrap(OCTETS, octets[0]), wrap(OCTETS, octets[1]))
        base = wrap(OCTETS, b"\4" + octets[2] + octets[3])
        prime = sequence(oid("1.2.840.10045.1.1"), integer(p))
        algorithm = sequence(oid(_EC_OID), sequence(integer(1), prime, curve, base, integer(n), integer(1)))
        point = _point(self.key)
        self.spki = sequence(algorithm, wrap(BITS, b"\0" + point))
        scalar = self.key.private_numbers().private_value
        self.text = _pkcs8(algorithm, _ec_private(scalar, point))


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _ec_private(scalar: int, point: bytes) -> bytes:
    public = wrap(0xA1, wrap(BITS, b"\0" + point))
    return sequence(integer(1), wrap(OCTETS, scalar.to_bytes(32, "big")), public)


def _pkcs8(algorithm: bytes, inner: bytes) -> bytes:
    return der_pem(sequence(integer(0), algorithm, wrap(OCTETS, inner)), label="PRIVATE KEY")


def _other_keys(runtime: Runtime) -> Iterator[Case]:
    keys: dict[str, AnyKey] = {
        "ECDSA": new_key(),
        "RSA": rsa_key(0),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    }
    strangers: dict[str, AnyKey] = {"ECDSA": new_key(), "RSA": rsa_key(1), "Ed25519": new_key("ed25519")}
    strangers["P-384"] = ec.generate_private_key(ec.SECP384R1())
    for kind, key in keys.items():
        for other, stranger in strangers.items():
            title = f"{other} key of somebody else beside a certificate of {kind}"
            yield case(title, runtime.leaf(key=key), key=key_text(stranger))
    yield case("the key of the intermediate", runtime.leaf(), key=key_text(runtime.ca.key))


def _damaged_private_halves(runtime: Runtime) -> Iterator[Case]:
    dice = random.Random(SEED)
    rsa_numbers = rsa_key(0).private_numbers()
    public = rsa_numbers.public_numbers
    parts = [rsa_numbers.d, rsa_numbers.p, rsa_numbers.q, rsa_numbers.dmp1, rsa_numbers.dmq1, rsa_numbers.iqmp]
    leaf = runtime.leaf(key=rsa_key(0))
    places = {"d": [0], "p": [1], "q": [2], "dmp1": [3], "dmq1": [4], "iqmp": [5], "d and dmp1": [0, 3]}
    for title, touched in places.items():
        for turn in range(4):
            spoilt = list(parts)
            for index in touched:
                spoilt[index] ^= 1 << dice.randrange(1, 900)
            inner = sequence(integer(0), integer(public.n), integer(public.e), *map(integer, spoilt))
            text = _pkcs8(sequence(oid("1.2.840.113549.1.1.1"), NULL), inner)
            yield case(f"RSA key with {title} damaged, {turn}", leaf, key=text)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = runtime.leaf(key=key)
    named = sequence(oid(_EC_OID), oid("1.2.840.10045.3.1.7"))
    scalar = key.private_numbers().private_value
    for number in range(6):
        inner = _ec_private((scalar ^ 1 << dice.randrange(240)) if number else 1, _point(key))
        yield case(f"scalar damaged beside its point, {number}", leaf, key=_pkcs8(named, inner))
    stranger = _ec_private(scalar, _point(ec.generate_private_key(ec.SECP256R1())))
    yield case("scalar right, point of somebody else", leaf, key=_pkcs8(named, stranger))


def _dressings(runtime: Runtime) -> Iterator[Case]:
    """How people and programs write the same files."""
    leaf = runtime.leaf()
    chain, key, roots = leaf.chain_pem, key_text(leaf.key), leaf.root_pem
    block, upper = der_pem(leaf.der), der_pem(runtime.ca.der)
    long_line = base64.b64encode(leaf.der)
    body = block.split(b"\n", 1)[1].rsplit(b"\n", 2)[0].replace(b"\n", b"")
    form = serialization.PrivateFormat.TraditionalOpenSSL
    old = key_text(leaf.key, form)
    parameters = der_pem(oid("1.2.840.10045.3.1.7"), label="EC PARAMETERS")
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"

    def columns(count: int) -> bytes:
        lines = b"".join(body[i : i + count] + b"\n" for i in range(0, len(body), count))
        return begin + b"\n" + lines + end + b"\n" + upper

    texts = {
        "CRLF": chain.replace(b"\n", b"\r\n"),
        "CR alone": chain.replace(b"\n", b"\r"),
        "text between": b"subject=CN = x\n" + block + b"issuer=CN = y\n\n" + upper + b"the end",
        "bag attributes": b"Bag Attributes\n    friendlyName: x\nKey Attributes: <No Attributes>\n" + chain,
        "byte order mark": b"\xef\xbb\xbf" + chain,
        "byte order mark before a comment": b"\xef\xbb\xbf# x\n" + chain,
        "byte order mark between its blocks": block + b"\xef\xbb\xbf" + upper,
        "byte order mark after a comment": b"# x\n\xef\xbb\xbf" + chain,
        "byte order mark after a comment between its blocks": block + b"# x\n\xef\xbb\xbf" + upper,
        "two byte order marks": b"\xef\xbb\xbf" * 2 + chain,
        "UTF-16": b"\xff\xfe" + chain.decode().encode("utf-16-le"),
        "indented": b"".join(b"  " + line for line in chain.splitlines(keepends=True)),
        "second block indented": block + b"".join(b" " + line for line in upper.splitlines(keepends=True)),
        "END and BEGIN glued": block.rstrip(b"\n") + upper,
        "no line end at the end": chain.rstrip(b"\n"),
        "trusted certificate": der_pem(leaf.der, label="TRUSTED CERTIFICATE") + upper,
        "trusted certificate with settings": der_pem(leaf.der + sequence(), label="TRUSTED CERTIFICATE") + upper,
        "X509 CERTIFICATE": der_pem(leaf.der, label="X509 CERTIFICATE") + upper,
        "lower-case label": chain.replace(b"CERTIFICATE", b"certificate"),
        "trailing garbage text": chain + b"\x80\x81 garbage \xff\n",
        "trailing dashes": chain + b"-----",
        "trailing half block": chain + upper[: len(upper) // 2],
        "NUL at the end": chain + b"\0\0\0",
        "NUL inside": chain[:100] + b"\0" + chain[101:],
        "one line of base64": begin + b"\n" + long_line + b"\n" + end + b"\n" + upper,
        "BEGIN twice": begin + b"\n" + chain,
        "empty line inside": block.replace(b"\nMII", b"\n\nMII", 1) + upper,
        "space inside a line": block[:60] + b" " + block[60:] + upper,
        "tab at line ends": chain.replace(b"\n", b"\t\n"),
        "certificate request beside": chain + der_pem(b"\x30\x00", label="CERTIFICATE REQUEST"),
        "empty block first": begin + b"\n" + end + b"\n" + chain,
        "DER octets after the certificate": der_pem(leaf.der + b"\0\0") + upper,
        "private key in the middle": block + key + upper,
        "encrypted style header": block.replace(b"-----\n", b"-----\nX-Note: hi\n\n", 1) + upper,
        "DER": leaf.der,
        "empty": b"",
        "white space": b" \n\n",
        "a web page": b"<html><body>404</body></html>\n",
    }
    texts |= {
        f"{count} columns": columns(count) for count in (1, 4, 63, 65, 76, 77, 252, 253, 254, 255, 256, 1000, 1022)
    }
    for title, text in texts.items():
        yield Case(f"chain written with {title}", text, key, roots)
    padded = b"# " + b"x" * 5000 + b"\n"
    keys = {
        "CRLF": key.replace(b"\n", b"\r\n"),
        "its old form": old,
        "EC PARAMETERS before": parameters + old,
        "EC PARAMETERS after": old + parameters,
        "text before": b"my key\n" + key,
        "long line before": padded + key,
        "byte order mark": b"\xef\xbb\xbf" + key,
        "byte order mark before a comment": b"\xef\xbb\xbf# x\n" + key,
        "byte order mark after a comment": b"# x\n\xef\xbb\xbf" + key,
        "NUL before": b"\0" + key,
        "half of it": key[: len(key) // 2],
        "certificate before": block + key,
        "another key after": key + key_text(new_key()),
        "the same key twice": key + key,
        "wrong label": key.replace(b"PRIVATE KEY", b"RSA PRIVATE KEY"),
        "no line end": key.rstrip(b"\n"),
        "encrypted": leaf.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        ),
        "octets after": der_pem(_unpem(key) + b"\0", label="PRIVATE KEY"),
    }
    for title, text in keys.items():
        yield Case(f"key written with {title}", chain, text, roots)
    yield Case("one file, key last", chain + key, chain + key, roots)
    yield Case("one file, key first", key + chain, key + chain, roots)


def _unpem(text: bytes) -> bytes:
    return base64.b64decode(b"".join(text.split(b"\n")[1:-2]))


def _damaged_bytes(runtime: Runtime) -> Iterator[Case]:
    """One octet changed or one range lost, at places that the seed decides."""
    dice = random.Random(SEED)
    leaf = runtime.leaf(key=rsa_key(0))
    chain, key = leaf.chain_pem, key_text(leaf.key)
    for number in range(40):
        spoilt = _flipped(leaf.der, dice)
        yield Case(f"octet of the leaf changed, {number}", der_pem(spoilt, runtime.ca.der), key, leaf.root_pem)
    for number in range(20):
        spoilt = _flipped(runtime.ca.der, dice)
        yield Case(f"octet of the intermediate changed, {number}", der_pem(leaf.der, spoilt), key, leaf.root_pem)
    for number in range(30):
        yield Case(f"octet of the chain file changed, {number}", _flipped(chain, dice), key, leaf.root_pem)
    for number in range(30):
        spoilt = _flipped(_unpem(key), dice)
        yield Case(f"octet of the key changed, {number}", chain, der_pem(spoilt, label="PRIVATE KEY"), leaf.root_pem)
    for number in range(20):
        yield Case(f"octet of the key file changed, {number}", chain, _flipped(key, dice), leaf.root_pem)
    for number in range(12):
        yield Case(f"chain file cut, {number}", chain[: dice.randrange(len(chain))], key, leaf.root_pem)
        start = dice.randrange(len(chain))
        lost = chain[:start] + chain[start + dice.randrange(1, 200) :]
        yield Case(f"range of the chain file lost, {number}", lost, key, leaf.root_pem)


def _flipped(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << dice.randrange(8),)) + data[at + 1 :]


def _much(runtime: Runtime) -> Iterator[Case]:
    """Handshakes above what OpenSSL's clients read (100 KiB), and just below."""
    for count in (900, 1300, 3700):
        names = [NAME, *(f"host-number-{number}.of-many.example.test" for number in range(count))]
        yield case(f"{count} more names", craft(runtime.ca, NAME, names=names))
    wide = craft(runtime.ca, NAME, names=[NAME, *(f"host-{number}.{'x' * 60}.example.test" for number in range(1500))])
    yield case("150 kB of names", wide)
    leaf = runtime.leaf()
    stuffing: list[Party] = [runtime.authority(f"Stuffing {number} {'x' * 3000}") for number in range(30)]
    yield case("120 kB of certificates that nobody needs", leaf, *(p.der for p in (runtime.ca, *stuffing)))
