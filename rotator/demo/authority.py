"""The demo's throw-away CA: a root, two intermediates and new leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey

CA_DAYS = 30
LEAF_DAYS = 7
"""The lifetimes in days: a demo still works after a weekend, and its CA is worthless soon after."""


@dataclass(frozen=True, slots=True)
class IssuedPair:
    """A leaf, its intermediate and its key, each as PEM.

    Args:
        leaf: the certificate alone.
        bundle: the intermediate that issued it.
        key: the private key, which `repr` leaves out.
    """

    leaf: bytes
    bundle: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"IssuedPair({self.fingerprint[:16]})"

    @property
    def fullchain(self) -> bytes:
        """The leaf and the intermediate in one file, as ACME clients write it."""
        return self.leaf + self.bundle

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the leaf in lower-case hexadecimal."""
        return x509.load_pem_x509_certificate(self.leaf).fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True, slots=True)
class Issuer:
    """An intermediate that issues leaves.

    Args:
        certificate: its certificate.
        key: its private key.
    """

    certificate: x509.Certificate
    key: Key

    def issue(self, names: Sequence[str]) -> IssuedPair:
        """A leaf for these names with a new key."""
        key, begin = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC) - timedelta(minutes=5)
        builder = _certificate(names[0], self.certificate.subject, key, begin, begin + timedelta(days=LEAF_DAYS))
        leaf = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return IssuedPair(_pem(leaf), _pem(self.certificate), _key_pem(key))

    def save(self, directory: Path) -> None:
        """Writes the intermediate and its key into a new directory, for `load`."""
        directory.mkdir(mode=0o700)
        (directory / "issuing.pem").write_bytes(_pem(self.certificate))
        (directory / "issuing.key").touch(0o600)
        (directory / "issuing.key").write_bytes(_key_pem(self.key))


def load(directory: Path) -> Issuer:
    """The intermediate that `Issuer.save` wrote.

    Raises:
        OSError: the files cannot be read.
        ValueError: the files do not hold an intermediate of the demo.
    """
    key = serialization.load_pem_private_key((directory / "issuing.key").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not that of a demo's CA")  # noqa: TRY004 - a wrong file, not a wrong type
    return Issuer(x509.load_pem_x509_certificate((directory / "issuing.pem").read_bytes()), key)


def create_authority() -> tuple[bytes, Issuer, Issuer]:
    """A new CA: its root as PEM, its current intermediate, and the intermediate that it uses later."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    root = _authority("rotator demo root", None, key, key, now)
    issuers = []
    for name in ("rotator demo issuing CA 1", "rotator demo issuing CA 2"):
        issuer_key = ec.generate_private_key(ec.SECP256R1())
        issuers.append(Issuer(_authority(name, root.subject, issuer_key, key, now), issuer_key))
    return _pem(root), issuers[0], issuers[1]


def _authority(name: str, issuer: x509.Name | None, key: Key, signer: Key, now: datetime) -> x509.Certificate:
    begin = now - timedelta(hours=1)
    builder = _certificate(name, issuer, key, begin, begin + timedelta(days=CA_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0 if issuer else None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    if issuer:
        authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(authority_key_id, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _certificate(
    name: str, issuer: x509.Name | None, key: Key, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
