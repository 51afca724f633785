"""Certificates that no builder makes: every field of RFC 5280 4.1 is written by hand here; what they are for is not."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypedDict, Unpack

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.authority import der_pem, new_key, wrap

AnyKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | dsa.DSAPrivateKey
)
Signer = Callable[[bytes], bytes]

SEQUENCE, SET, INTEGER, BITS, OCTETS, OID, NULL, BOOL, UTF8 = 0x30, 0x31, 0x02, 0x03, 0x04, 0x06, b"\x05\0", 1, 0x0C
_serials = itertools.count(0x1000)


def oid(dotted: str) -> bytes:
    """An object identifier."""
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for number in (first * 40 + second, *rest):
        octets = [number & 0x7F]
        while number := number >> 7:
            octets.append(0x80 | number & 0x7F)
        content += bytes(reversed(octets))
    return wrap(OID, content)


def sequence(*parts: bytes) -> bytes:
    return wrap(SEQUENCE, b"".join(parts))


def integer(number: int) -> bytes:
    return wrap(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def name(common: str = "", *more: tuple[str, int, str]) -> bytes:
    """A distinguished name: `more` are (OID, tag of the string, text) of what stands before the common name."""
    parts = [*more, *([("2.5.4.3", UTF8, common)] if common else [])]
    return sequence(*(wrap(SET, sequence(oid(kind), wrap(tag, text.encode()))) for kind, tag, text in parts))


def utc(at: datetime) -> bytes:
    return wrap(0x17, f"{at:%y%m%d%H%M%SZ}".encode())


def generalized(at: datetime, form: str = "%Y%m%d%H%M%SZ") -> bytes:
    return wrap(0x18, at.strftime(form).encode())


def spki_of(key: AnyKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(spki: bytes) -> bytes:
    return hashlib.sha1(spki).digest()


def extension(value: x509.ExtensionType, *, critical: bool = False) -> bytes:
    """An extension that the library can write."""
    return raw_extension(value.oid.dotted_string, value.public_bytes(), critical=critical)


def raw_extension(dotted: str, value: bytes, *, critical: bool = False) -> bytes:
    """An extension of any value."""
    return sequence(oid(dotted), wrap(BOOL, b"\xff") if critical else b"", wrap(OCTETS, value))


def usage(bits: int, *, critical: bool = True) -> bytes:
    """Key usage by its first octet: 0x80 digitalSignature, 0x20 keyEncipherment, 0x04 keyCertSign, 0x02 cRLSign."""
    unused = (bits & -bits).bit_length() - 1 if bits else 0
    return raw_extension("2.5.29.15", wrap(BITS, bytes((unused, bits)) if bits else b"\0"), critical=critical)


def basic(*, ca: bool, pathlen: int | None = None, critical: bool = True) -> bytes:
    return extension(x509.BasicConstraints(ca, pathlen), critical=critical)


def general(*entries: tuple[int, bytes]) -> bytes:
    """GeneralNames by context tag: 1 mail, 2 DNS, 4 directory (explicit), 6 URI, 7 IP."""
    return sequence(*(wrap((0xA0 if tag in (0, 4) else 0x80) | tag, value) for tag, value in entries))


def san(*entries: tuple[int, bytes], critical: bool = False) -> bytes:
    return raw_extension("2.5.29.17", general(*entries), critical=critical)


def dns_san(*names: str, critical: bool = False) -> bytes:
    return san(*((2, one.encode()) for one in names), critical=critical)


def purposes(*which: str, critical: bool = False) -> bytes:
    return raw_extension("2.5.29.37", sequence(*map(oid, which)), critical=critical)


def constraints(
    permitted: Iterable[tuple[int, bytes]] = (), excluded: Iterable[tuple[int, bytes]] = (), *, critical: bool = True
) -> bytes:
    """Name constraints of general names by tag, as `general` takes them."""

    def trees(tag: int, entries: Iterable[tuple[int, bytes]]) -> bytes:
        found = [sequence(wrap((0xA0 if kind in (0, 4) else 0x80) | kind, value)) for kind, value in entries]
        return wrap(tag, b"".join(found)) if found else b""

    return raw_extension("2.5.29.30", sequence(trees(0xA0, permitted), trees(0xA1, excluded)), critical=critical)


SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH.dotted_string
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string
ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE.dotted_string

_RSA = {"sha1": 5, "sha224": 14, "sha256": 11, "sha384": 12, "sha512": 13, "md5": 4}
_ECDSA = {"sha1": "1", "sha224": "3.1", "sha256": "3.2", "sha384": "3.3", "sha512": "3.4"}
_HASHES: Mapping[str, Callable[[], hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


def signing(key: AnyKey, digest: str = "sha256") -> tuple[bytes, Signer]:
    """The AlgorithmIdentifier and the call that signs with it."""
    algorithm = _HASHES[digest]()
    if isinstance(key, rsa.RSAPrivateKey):
        return (
            sequence(oid(f"1.2.840.113549.1.1.{_RSA[digest]}"), NULL),
            lambda data: key.sign(data, padding.PKCS1v15(), algorithm),
        )
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return sequence(oid(f"1.2.840.10045.4.{_ECDSA[digest]}")), lambda data: key.sign(data, ec.ECDSA(algorithm))
    if isinstance(key, dsa.DSAPrivateKey):
        return sequence(oid("2.16.840.1.101.3.4.3.2")), lambda data: key.sign(data, hashes.SHA256())
    return sequence(oid("1.3.101.112" if isinstance(key, ed25519.Ed25519PrivateKey) else "1.3.101.113")), key.sign


def pss(key: rsa.RSAPrivateKey, digest: str = "sha256", salt: int = 32) -> tuple[bytes, Signer]:
    """The same for RSASSA-PSS (RFC 4055)."""
    algorithm = _HASHES[digest]()
    number = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2"}[digest]
    hashed = sequence(oid(number), NULL)
    mask = sequence(oid("1.2.840.113549.1.1.8"), hashed)
    options = sequence(wrap(0xA0, hashed), wrap(0xA1, mask), wrap(0xA2, integer(salt)))
    scheme = padding.PSS(padding.MGF1(algorithm), salt)
    return sequence(oid("1.2.840.113549.1.1.10"), options), lambda data: key.sign(data, scheme, algorithm)


@dataclass(frozen=True)
class Party:
    """Somebody with a key and a certificate.

    Args:
        der: the certificate.
        key: its key.
        subject: DER of its name.
        spki: DER of its public key.
        above: the certificates above it, without the root.
        root: that root.
    """

    der: bytes = field(repr=False)
    key: AnyKey = field(repr=False)
    subject: bytes
    spki: bytes = field(repr=False)
    above: tuple[bytes, ...] = field(repr=False)
    root: bytes = field(repr=False)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """What a server sends: this one and what is above it, without a root."""
        return () if self.der == self.root else (self.der, *self.above)

    @property
    def chain_pem(self) -> bytes:
        return der_pem(*self.chain)

    @property
    def root_pem(self) -> bytes:
        return der_pem(self.root)


class Unusual(TypedDict, total=False):
    """What a certificate says otherwise than it usually does.

    `extensions` go by `basic`, `usage`, `ski`, `aki`, `san`, `eku` or any other word: DER, or None to leave one out.
    `serial`, `version` (empty: version 1), `begin`, `end`, `inner` (the algorithm in the signed part), `spki`,
    `raw_subject` and `raw_issuer` are DER; `signed` is the algorithm outside and what signs; `spoil` changes the
    signature.
    """

    extensions: Mapping[str, bytes | None]
    serial: bytes
    version: bytes
    begin: bytes
    end: bytes
    inner: bytes
    signed: tuple[bytes, Signer]
    spki: bytes
    raw_subject: bytes
    raw_issuer: bytes
    spoil: Callable[[bytes], bytes]


VERSION_3 = b"\xa0\x03\x02\x01\x02"
DAY = timedelta(days=1)


def craft(
    issuer: Party | None,
    common: str,
    *,
    key: AnyKey | None = None,
    ca: bool = False,
    pathlen: int | None = None,
    names: Iterable[str] = (),
    days: int = 60,
    **unusual: Unpack[Unusual],
) -> Party:
    """A certificate signed by `issuer`, or by itself.

    Args:
        issuer: who signs.
        common: its common name; without one the subject is empty.
        key: its key; a new P-256 one by default.
        ca: whether it is an authority.
        pathlen: of an authority.
        names: DNS names of a leaf.
        days: how long it is valid from now on.
        unusual: as `Unusual` says.
    """
    key = key or new_key()
    spki = unusual.get("spki") or spki_of(key)
    subject = unusual.get("raw_subject", name(common))
    signer = issuer.key if issuer else key
    issued_by = issuer.subject if issuer else subject
    algorithm, sign = unusual.get("signed") or signing(signer)
    now = datetime.now(UTC)
    written = _usual(issuer, spki, ca=ca, pathlen=pathlen, names=tuple(names), subject=subject)
    written.update(unusual.get("extensions", {}))
    listed = [one for one in written.values() if one]
    tbs = sequence(
        unusual.get("version", VERSION_3),
        unusual.get("serial", integer(next(_serials) << 64 | 1)),
        unusual.get("inner", algorithm),
        unusual.get("raw_issuer", issued_by),
        sequence(unusual.get("begin", utc(now - DAY)), unusual.get("end", utc(now + days * DAY))),
        subject,
        spki,
        wrap(0xA3, sequence(*listed)) if listed else b"",
    )
    signature = unusual.get("spoil", bytes)(sign(tbs))
    certificate = sequence(tbs, algorithm, wrap(BITS, b"\0" + signature))
    if issuer is None:
        return Party(certificate, key, subject, spki, (), certificate)
    return Party(certificate, key, subject, spki, issuer.chain, issuer.root)


def _usual(
    issuer: Party | None, spki: bytes, *, ca: bool, pathlen: int | None, names: tuple[str, ...], subject: bytes
) -> dict[str, bytes | None]:
    usual: dict[str, bytes | None] = {
        "basic": basic(ca=ca, pathlen=pathlen),
        "usage": usage(0x06 if ca else 0x80),
        "ski": raw_extension("2.5.29.14", wrap(OCTETS, key_id(spki))),
    }
    if issuer is not None:
        usual["aki"] = aki(key_id(issuer.spki))
    if not ca:
        usual["eku"] = purposes(SERVER_AUTH)
    if names:
        usual["san"] = dns_san(*names, critical=subject == name())
    return usual


def aki(identifier: bytes | None, *, serial: int | None = None, issuer: bytes | None = None) -> bytes:
    """An authority key identifier of these parts."""
    parts = wrap(0x80, identifier) if identifier is not None else b""
    parts += wrap(0xA1, wrap(0xA4, issuer)) if issuer is not None else b""
    parts += b"\x82" + integer(serial)[1:] if serial is not None else b""
    return raw_extension("2.5.29.35", sequence(parts))
