"""Leaves with one fault each, made when they are asked for, and the code that each of them has."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from rotator.core.problems import Code
from tests.support.authority import NOW, Issued, rewritten, rsa_key, wrap
from tests.support.extensions import STAPLE, also, instead, usage, without
from tests.support.judging import GOOD, ICA, NAME, ROOT

DAY = timedelta(days=1)


SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


NO_LIMIT = x509.NameConstraints([x509.DNSName("example.cn")], None)


def alternative(*names: str) -> x509.SubjectAlternativeName:
    """Entries as they stand, also those that the builder would not take."""
    return x509.SubjectAlternativeName([x509.DNSName(n) for n in names])


REFUSED: dict[str, tuple[Callable[[], Issued], Code]] = {
    "for clients only": (lambda: ICA.issue(NAME, eku=[CLIENT]), Code.BAD_EKU),
    "for any purpose": (lambda: ICA.issue(NAME, eku=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), Code.BAD_EKU),
    "that cannot sign": (lambda: ICA.issue(NAME, tweak=instead(usage(key_encipherment=True))), Code.BAD_KEY_USAGE),
    "that signs certificates": (
        lambda: ICA.issue(NAME, tweak=instead(usage(digital_signature=True, key_cert_sign=True))),
        Code.BAD_KEY_USAGE,
    ),
    "that is a CA": (
        lambda: ROOT.issue(NAME, tweak=instead(x509.BasicConstraints(ca=True, path_length=None))),
        Code.CA_LEAF,
    ),
    "without names": (lambda: ICA.issue(NAME, san=False), Code.NO_SAN),
    "with a star for a part of a label": (lambda: ICA.issue(NAME, "f*.example.cn"), Code.BAD_SAN),
    "with a star for everything": (lambda: ICA.issue(NAME, "*"), Code.BAD_SAN),
    "with a name that begins with a dot": (lambda: ICA.issue(NAME, ".example.cn"), Code.BAD_SAN),
    "with an address among the DNS names": (
        lambda: ICA.issue(NAME, tweak=instead(alternative(NAME, "192.0.2.1"), critical=False)),
        Code.BAD_SAN,
    ),
    "with a network among its names": (
        lambda: ICA.issue(
            NAME,
            tweak=instead(
                x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_network("192.0.2.0/24"))]),
                critical=False,
            ),
        ),
        Code.BAD_SAN,
    ),
    "with names that are not critical without a subject": (
        lambda: ICA.issue(NAME, cn=None, tweak=instead(alternative(NAME), critical=False)),
        Code.BAD_SAN,
    ),
    "with an unknown critical extension": (
        lambda: ICA.issue(
            NAME, tweak=also(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), critical=True)
        ),
        Code.CRITICAL_EXTENSION,
    ),
    "with a critical key identifier": (
        lambda: ICA.issue(NAME, tweak=instead(x509.SubjectKeyIdentifier(b"1"), critical=True)),
        Code.CRITICAL_EXTENSION,
    ),
    "that must be stapled": (lambda: ICA.issue(NAME, tweak=also(STAPLE)), Code.MUST_STAPLE),
    "that is a precertificate": (
        lambda: ICA.issue(NAME, tweak=also(x509.PrecertPoison(), critical=True)),
        Code.PRECERTIFICATE,
    ),
    "with name constraints": (lambda: ICA.issue(NAME, tweak=also(NO_LIMIT)), Code.NAME_CONSTRAINTS),
    "without the key id of its issuer": (
        lambda: ICA.issue(NAME, tweak=without(x509.AuthorityKeyIdentifier)),
        Code.NO_AKI,
    ),
    "with an RSA key of 1024 bits": (lambda: ICA.issue(NAME, key=rsa_key(9, 1024)), Code.WEAK_KEY),
    "with a key on P-224": (lambda: ICA.issue(NAME, key=ec.generate_private_key(ec.SECP224R1())), Code.KEY_TYPE),
    "with an Ed25519 key": (lambda: ICA.issue(NAME, kind="ed25519"), Code.KEY_TYPE),
    "for 201 days": (lambda: ICA.issue(NAME, days=201), Code.TOO_LONG),
    "that has expired": (lambda: ICA.issue(NAME, not_before=NOW - 9 * DAY, not_after=NOW - DAY), Code.EXPIRED),
    "of tomorrow": (lambda: ICA.issue(NAME, not_before=NOW + DAY), Code.NOT_YET_VALID),
}


WARNED: dict[str, tuple[Callable[[], Issued], Code]] = {
    "without a purpose": (lambda: ICA.issue(NAME, eku=None), Code.NO_EKU),
    "without a key usage": (lambda: ICA.issue(NAME, key_usage=False), Code.NO_KEY_USAGE),
    "for clients too": (lambda: ICA.issue(NAME, eku=[SERVER, CLIENT]), Code.CLIENT_AUTH_EKU),
    "with a small exponent": (lambda: ICA.issue(NAME, key=rsa.generate_private_key(3, 2048)), Code.SMALL_EXPONENT),
    "with a large key": (lambda: ICA.issue(NAME, key=rsa_key(5, 4104)), Code.KEY_LARGE),
    "with a common name of its own": (lambda: ICA.issue(NAME, cn="www.example.cn"), Code.CN_NOT_IN_SAN),
}


def parts(index: int, value: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda tbs: [*tbs[:index], value, *tbs[index + 1 :]]


def times(begin: str, end: str) -> bytes:
    return wrap(0x30, wrap(0x17, begin.encode()) + wrap(0x17, end.encode()))


def twice(extensions: list[bytes]) -> list[bytes]:
    return [*extensions, extensions[-1]]


NO_POINT = wrap(0x30, bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107") + wrap(0x03, b"\0\4" + b"\1" * 64))
"""A SubjectPublicKeyInfo of P-256 whose coordinates do not fulfil the equation of the curve."""


def negative_modulus() -> bytes:
    """A SubjectPublicKeyInfo of RSA whose modulus is below zero."""
    modulus = (-rsa_key(0).public_key().public_numbers().n).to_bytes(257, "big", signed=True)
    numbers = wrap(0x30, wrap(0x02, modulus) + b"\2\3\1\0\1")
    return wrap(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + wrap(0x03, b"\0" + numbers))


ODD: dict[str, tuple[Callable[[list[bytes]], list[bytes]], Code]] = {
    "of version 1": (lambda tbs: tbs[1:-1], Code.BAD_VERSION),
    "of version 2": (parts(0, b"\xa0\x03\x02\x01\x01"), Code.BAD_VERSION),
    "of version 7": (parts(0, b"\xa0\x03\x02\x01\x06"), Code.BAD_VERSION),
    "with the serial number 0": (parts(1, b"\x02\x01\x00"), Code.BAD_SERIAL),
    "with a negative serial number": (parts(1, b"\x02\x01\x80"), Code.BAD_SERIAL),
    "with a serial number of 21 octets": (parts(1, wrap(0x02, b"\1" * 21)), Code.BAD_SERIAL),
    "with a public key that is no point of its curve": (parts(6, NO_POINT), Code.KEY_INVALID),
    "with a negative modulus": (lambda tbs: parts(6, negative_modulus())(tbs), Code.KEY_INVALID),
    "that ends before it begins": (parts(4, times("261201000000Z", "261101000000Z")), Code.BAD_VALIDITY),
    "with dates that are none": (parts(4, times("269901000000Z", "271101000000Z")), Code.PARSE_ERROR),
    "with two signature algorithms": (parts(2, bytes.fromhex("300a06082a8648ce3d040303")), Code.BAD_SIGNATURE),
    "without an issuer": (parts(3, b"\x30\x00"), Code.PARSE_ERROR),
    "with a subject that is damaged": (parts(5, b"\x30\x02\x00\x00"), Code.PARSE_ERROR),
}


def sha1_leaf() -> Issued:
    """A leaf with the signature algorithm of SHA-1, which no library signs with any more."""
    algorithm = bytes.fromhex("300906072a8648ce3d0401")
    data = rewritten(GOOD.leaf, ICA.key, parts(2, algorithm))
    old = bytes.fromhex("300a06082a8648ce3d040302")
    at = data.rindex(old)
    body = data[4:at] + algorithm + data[at + len(old) :]
    return Issued(GOOD.key, x509.load_der_x509_certificate(wrap(0x30, body)), GOOD.intermediates)
