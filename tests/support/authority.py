"""A throw-away CA for the tests: keys, chains and pairs of every shape, made on the spot; nothing is read from disk."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Tweak = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
"""The reference time of tests that do not meet a real clock."""


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key, made once per test process for each number: RSA keys are slow to make."""
    return rsa.generate_private_key(65537, bits)


def new_key(kind: str = "ecdsa", number: int = 0) -> PrivateKey:
    """A key of `ecdsa` (P-256), `rsa` (2048; cached by number) or `ed25519`."""
    match kind:
        case "ecdsa":
            return ec.generate_private_key(ec.SECP256R1())
        case "rsa":
            return rsa_key(number)
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(kind)


def key_pem(key: PrivateKey, fmt: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, fmt, serialization.NoEncryption())


def encrypted(
    key: PrivateKey, password: bytes, fmt: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8
) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, fmt, serialization.BestAvailableEncryption(password))


def pem(*certs: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certs)


def der(*certs: x509.Certificate) -> tuple[bytes, ...]:
    return tuple(c.public_bytes(serialization.Encoding.DER) for c in certs)


@dataclass
class Issued:
    """A leaf with its key and the intermediates that belong to it."""

    key: PrivateKey
    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        return (self.leaf, *self.intermediates)

    @property
    def chain_pem(self) -> bytes:
        return pem(*self.chain)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        return der(*self.chain)


@dataclass
class CA:
    """One certificate authority: `CA.root()` makes one, `.intermediate()` one below, `.issue()` a leaf."""

    name: str
    key: PrivateKey
    cert: x509.Certificate
    above: tuple[x509.Certificate, ...] = ()
    at: datetime = field(default=NOW)

    @classmethod
    def root(
        cls,
        name: str = "Test Root",
        *,
        at: datetime = NOW,
        days: int = 3650,
        key: PrivateKey | None = None,
        tweak: Tweak | None = None,
    ) -> CA:
        key = key or new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = _ca_builder(subject, subject, key, key, at - timedelta(days=30), at + timedelta(days=days), None, tweak)
        return cls(name, key, cert, (), at)

    def intermediate(
        self,
        name: str = "Test Intermediate",
        *,
        days: float = 1800,
        key: PrivateKey | None = None,
        pathlen: int | None = 0,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        tweak: Tweak | None = None,
    ) -> CA:
        """A CA below this one; `tweak` may change the certificate builder before it is signed."""
        key = key or new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = _ca_builder(
            subject,
            self.cert.subject,
            key,
            self.key,
            not_before or self.at - timedelta(days=20),
            not_after or self.at + timedelta(days=days),
            pathlen,
            tweak,
        )
        return CA(name, key, cert, (cert, *self.above), self.at)

    def issue(
        self,
        *names: str,
        kind: str = "ecdsa",
        key: PrivateKey | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        days: float = 90,
        cn: str | None = "",
        eku: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.SERVER_AUTH,),
        key_usage: bool = True,
        san: bool = True,
        tweak: Tweak | None = None,
    ) -> Issued:
        """A leaf for these names; `cn=""` takes the first name, None leaves the subject empty."""
        key = key or new_key(kind)
        begin = not_before or self.at - timedelta(hours=1)
        end = not_after or begin + timedelta(days=days)
        common = names[0] if cn == "" and names else cn
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(self.cert.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_aki(self.key), critical=False)
        )
        if san:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=not attributes
            )
        if key_usage:
            builder = builder.add_extension(_leaf_usage(), critical=True)
        if eku is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(eku)), critical=False)
        if tweak is not None:
            builder = tweak(builder)
        leaf = builder.sign(self.key, _hash(self.key))
        return Issued(key, leaf, self.above)

    def crl(
        self,
        *revoked: x509.Certificate | x509.RevokedCertificate,
        reason: x509.ReasonFlags | None = x509.ReasonFlags.key_compromise,
        begin: datetime | None = None,
        end: datetime | None = None,
        number: int | None = 1,
        key: PrivateKey | None = None,
        tweak: Callable[[x509.CertificateRevocationListBuilder], x509.CertificateRevocationListBuilder] | None = None,
    ) -> x509.CertificateRevocationList:
        """A revocation list; `key` signs it instead of the CA's own."""
        begin = begin or self.at - timedelta(days=1)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.cert.subject)
            .last_update(begin)
            .next_update(end or begin + timedelta(days=7))
            .add_extension(_aki(key or self.key), critical=False)
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for one in revoked:
            builder = builder.add_revoked_certificate(
                entry(one.serial_number, self.at - timedelta(hours=5), reason)
                if isinstance(one, x509.Certificate)
                else one
            )
        builder = tweak(builder) if tweak else builder
        signer = key or self.key
        return builder.sign(signer, _hash(signer))

    def responder(
        self, name: str = "Responder", *, key: PrivateKey | None = None, tweak: Tweak | None = None
    ) -> Issued:
        """A signer of OCSP responses that this CA has appointed."""
        begin, uses = self.at - timedelta(days=10), [ExtendedKeyUsageOID.OCSP_SIGNING]
        return self.issue(cn=name, key=key, not_before=begin, san=False, eku=uses, tweak=tweak)

    def ocsp(
        self,
        cert: x509.Certificate,
        *,
        revoked: x509.ReasonFlags | None = None,
        status: ocsp.OCSPCertStatus | None = None,
        begin: datetime | None = None,
        end: datetime | None = None,
        digest: hashes.HashAlgorithm | None = None,
        by: Issued | None = None,
        key: PrivateKey | None = None,
        sends: bool = True,
        named: ocsp.OCSPResponderEncoding = ocsp.OCSPResponderEncoding.HASH,
        tweak: Callable[[ocsp.OCSPResponseBuilder], ocsp.OCSPResponseBuilder] | None = None,
    ) -> bytes:
        """An OCSP response (DER) about a certificate of this CA: good, unless `revoked` or `status` say otherwise.

        Args:
            cert: which.
            revoked: the reason for which it was.
            status: its state.
            begin: thisUpdate, and producedAt; a day ago if None.
            end: nextUpdate; a week after `begin` if None.
            digest: of the certificate's identifier; SHA-1 if None, as most responders have it.
            by: the responder who signs, if not the CA itself.
            key: signs instead of the key of whom the response names; of the same kind.
            sends: whether the responder's certificate comes along.
            named: how the signer is named.
            tweak: may change the builder before it signs.
        """
        begin = begin or self.at - timedelta(days=1)
        status = ocsp.OCSPCertStatus.REVOKED if revoked else status or ocsp.OCSPCertStatus.GOOD
        gone = status is ocsp.OCSPCertStatus.REVOKED
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert,
                self.cert,
                digest or hashes.SHA1(),
                status,
                begin,
                end or begin + timedelta(days=7),
                self.at - timedelta(hours=5) if gone else None,
                revoked if gone else None,
            )
            .responder_id(named, by.leaf if by else self.cert)
        )
        if by and sends:
            builder = builder.certificates([by.leaf])
        builder = tweak(builder) if tweak else builder
        own = by.key if by else self.key
        data = builder.sign(own, _hash(own)).public_bytes(serialization.Encoding.DER)
        return rewritten_response(data, key or own, lambda parts: [parts[0], general_time(begin), *parts[2:]])


def entry(
    serial: int,
    at: datetime = NOW - timedelta(hours=5),
    reason: x509.ReasonFlags | None = None,
    *more: tuple[x509.ExtensionType, bool],
) -> x509.RevokedCertificate:
    """An entry of a revocation list; `more` are extensions, each with whether it is critical."""
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
    if reason is not None:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    for value, critical in more:
        builder = builder.add_extension(value, critical=critical)
    return builder.build()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _hash(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _aki(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(**on: bool) -> x509.KeyUsage:
    flags = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{flag: on.get(flag, False) for flag in flags})


def _leaf_usage() -> x509.KeyUsage:
    return _usage(digital_signature=True)


def _ca_builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: PrivateKey,
    signer: PrivateKey,
    begin: datetime,
    end: datetime,
    pathlen: int | None,
    tweak: Tweak | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=pathlen), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if subject != issuer:
        builder = builder.add_extension(_aki(signer), critical=False)
    if tweak is not None:
        builder = tweak(builder)
    return builder.sign(signer, _hash(signer))


def rewritten(cert: x509.Certificate, signer: PrivateKey, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """DER of a certificate that no builder makes: the parts of its signed structure changed, then signed again.

    Args:
        cert: what to start from; signed with ECDSA and SHA-256.
        signer: the ECDSA key of its issuer.
        change: gets version, serial, algorithm, issuer, validity, subject, key and extensions as DER; gives them back.
    """
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    data = cert.public_bytes(serialization.Encoding.DER)
    _, outer, _ = _tlv(data, 0)
    _, body, tbs_end = _tlv(data, outer)
    parts, at = [], body
    while at < tbs_end:
        _, _, part_end = _tlv(data, at)
        parts.append(data[at:part_end])
        at = part_end
    tbs = wrap(0x30, b"".join(change(parts)))
    _, _, algorithm_end = _tlv(data, tbs_end)
    signature = signer.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return wrap(0x30, tbs + data[tbs_end:algorithm_end] + wrap(0x03, b"\0" + signature))


def general_time(at: datetime) -> bytes:
    """DER of a time, as OCSP responses have it."""
    return wrap(0x18, f"{at:%Y%m%d%H%M%SZ}".encode())


def rewritten_response(
    data: bytes,
    signer: PrivateKey,
    change: Callable[[list[bytes]], list[bytes]],
    sign: Callable[[bytes], bytes] | None = None,
    algorithm: bytes = b"",
) -> bytes:
    """An OCSP response that no builder makes: the parts of its signed structure changed, then signed again.

    Args:
        data: what to start from; of version 1, which is not written.
        signer: the key that signs.
        change: gets responder, producedAt, answers and extensions as DER; gives them back.
        sign: how, if not with SHA-256 in the usual way of the key.
        algorithm: DER of its identifier, if it is another than before.
    """

    def usual(body: bytes) -> bytes:
        match signer:
            case ec.EllipticCurvePrivateKey():
                return signer.sign(body, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey():
                return signer.sign(body, padding.PKCS1v15(), hashes.SHA256())
        return signer.sign(body)

    _, basic, _ = _tlv(data, data.index(b"\x04", data.index(_BASIC) + len(_BASIC)))
    first, rest = _pieces(data, basic)[0], _pieces(data, basic)[1:]
    tbs = wrap(0x30, b"".join(change(_pieces(first, 0))))
    signature = wrap(0x03, b"\0" + (sign or usual)(tbs))
    response = wrap(0x30, b"".join((tbs, algorithm or rest[0], signature, *rest[2:])))
    return wrap(0x30, b"\x0a\x01\x00" + wrap(0xA0, wrap(0x30, _BASIC + wrap(0x04, response))))


_BASIC = b"\x06\x09\x2b\x06\x01\x05\x05\x07\x30\x01\x01"
"""id-pkix-ocsp-basic."""


def _pieces(data: bytes, start: int) -> list[bytes]:
    """The elements in the element at a place."""
    _, at, end = _tlv(data, start)
    found = []
    while at < end:
        _, _, stop = _tlv(data, at)
        found.append(data[at:stop])
        at = stop
    return found


def with_extensions(cert: x509.Certificate, signer: PrivateKey, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """DER of the certificate with its list of extensions (each as DER) changed, signed again."""

    def changed(parts: list[bytes]) -> list[bytes]:
        _, listed, _ = _tlv(parts[-1], 0)
        _, at, end = _tlv(parts[-1], listed)
        extensions = []
        while at < end:
            _, _, part_end = _tlv(parts[-1], at)
            extensions.append(parts[-1][at:part_end])
            at = part_end
        return [*parts[:-1], wrap(0xA3, wrap(0x30, b"".join(change(extensions))))]

    return rewritten(cert, signer, changed)


def der_pem(*certificates: bytes, label: str = "CERTIFICATE") -> bytes:
    """DER as PEM blocks."""
    lines = []
    for data in certificates:
        text = base64.encodebytes(data).replace(b"\n", b"")
        body = b"".join(text[i : i + 64] + b"\n" for i in range(0, len(text), 64))
        lines.append(b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label.encode(), body, label.encode()))
    return b"".join(lines)


def wrap(tag: int, content: bytes) -> bytes:
    """A DER element."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def _tlv(data: bytes, at: int) -> tuple[int, int, int]:
    """Start, body and end of the element at a place."""
    length, body = data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[body : body + count], "big")
        body += count
    return at, body, body + length
