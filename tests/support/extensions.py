"""Changes to certificates before they are signed, and authorities certified in unusual ways."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.authority import CA, Issued, PrivateKey, Tweak, new_key, wrap


def same_ca(other: CA, by: CA, **how: object) -> CA:
    """The same authority (name and key), certified by another one."""
    return by.intermediate(other.name, key=other.key, pathlen=None, **how)  # type: ignore[arg-type]


def self_signed(name: str, *, tweak: Tweak | None = None) -> Issued:
    key = new_key()
    ca = CA(name, key, CA.root(name, key=key).cert)
    return ca.issue(name, key=key, tweak=tweak)


def without(kind: type[x509.ExtensionType]) -> Tweak:
    """Take an extension out of the builder."""

    def tweak(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        kept = [e for e in builder._extensions if not isinstance(e.value, kind)]
        builder._extensions = kept
        return builder

    return tweak


def instead(value: x509.ExtensionType, *, critical: bool = True) -> Tweak:
    """Put an extension into the builder in the place of the one of its kind."""

    def tweak(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        return without(type(value))(builder).add_extension(value, critical=critical)

    return tweak


def also(value: x509.ExtensionType, *, critical: bool = False) -> Tweak:
    return lambda builder: builder.add_extension(value, critical=critical)


FEW_USES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def rolled_over(ca: CA, pathlen: int | None = None, *, named: bool = True) -> CA:
    """The same authority's new key, certified with its old one; `named` puts the old key's identifier in."""
    old = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    return ca.intermediate(ca.name, pathlen=pathlen, tweak=also(old) if named else None)


SHA256, SHA1 = (bytes.fromhex(f"300d06092a864886f70d0101{number}0500") for number in ("0b", "05"))
"""DER of RSA with a digest."""


def with_sha1(cert: x509.Certificate, signer: PrivateKey) -> x509.Certificate:
    """The same, signed in the way that clients no longer accept."""
    assert isinstance(signer, rsa.RSAPrivateKey)
    tbs = cert.tbs_certificate_bytes.replace(SHA256, SHA1)
    signature = wrap(0x03, b"\0" + signer.sign(tbs, padding.PKCS1v15(), hashes.SHA1()))
    return x509.load_der_x509_certificate(wrap(0x30, tbs + SHA1 + signature))


def usage(**on: bool) -> x509.KeyUsage:
    flags = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    more = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{flag: on.get(flag, False) for flag in (*flags, *more)})


STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])
