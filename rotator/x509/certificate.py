"""One certificate that has been read: what it says and whom it signed; reading is `decode`'s, judging others'."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

import cryptography.hazmat.backends.openssl.backend  # noqa: F401 - the library would import it late: see `privilege`
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from rotator.core.model import KeyType
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509 import der
from rotator.x509.hostnames import Address, CoveredNames

MAX_RSA_BITS = 8192
"""Bits of an RSA modulus above which nothing is computed with a key."""

CURVES = {"1.2.840.10045.3.1.7": "secp256r1", "1.3.132.0.34": "secp384r1", "1.3.132.0.35": "secp521r1"}
"""Curves that TLS clients of the web know (CA/B BR 6.1.5), with the names that OpenSSL gives them."""

_SHORT = {
    "2.5.4.5": "serialNumber",
    "2.5.4.15": "businessCategory",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}

_POINT_FORMS = {b"\2": "compressed", b"\3": "compressed", b"\6": "hybrid", b"\7": "hybrid"}

E = TypeVar("E", bound=x509.ExtensionType)


class SignatureScheme(Protocol):
    """How something was signed, as the library says it of certificates and revocation lists."""

    @property
    def signature_hash_algorithm(self) -> hashes.HashAlgorithm | None:
        """The digest; None where the algorithm has its own."""

    @property
    def signature_algorithm_parameters(self) -> padding.PSS | padding.PKCS1v15 | ec.ECDSA | None:
        """What the digest is signed with; None where that needs no word."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a certificate itself; it counts if the certificate is used."""

    code: Code
    words: str


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """A certificate and where it was found.

    Args:
        raw: its bytes (DER), without anything after them.
        loaded: as the library has it, or a copy of it in strict DER: use `ext` for extensions and `shape` for what
            is signed.
        outline: its outline.
        key: what its public key says.
        subject: for messages: `C=US, O=…, CN=…` in the order of the certificate.
        issuer: the same of its issuer.
        not_before: UTC.
        not_after: UTC.
        extensions: the values of those that could be read, by type.
        strict: whether a strict library reads all of it, so that its verdict can be asked.
        faults: what is wrong with it by itself.
        file: where it was found.
        line: 1-based line there.
    """

    raw: bytes = field(repr=False)
    loaded: x509.Certificate = field(repr=False)
    outline: der.CertificateOutline = field(repr=False)
    key: der.PublicKeyOutline
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    extensions: Mapping[type, x509.ExtensionType] = field(repr=False)
    strict: bool = True
    faults: tuple[Fault, ...] = ()
    file: str = ""
    line: int = 0

    def ext(self, kind: type[E]) -> E | None:
        """The value of an extension, or None."""
        value = self.extensions.get(kind)
        return value if isinstance(value, kind) else None

    def critical(self, oid: x509.ObjectIdentifier) -> bool:
        """Whether it has the extension, marked critical."""
        return any(e.oid == oid.dotted_string and e.critical for e in self.outline.extensions)

    @property
    def logical(self) -> tuple[bytes, bytes]:
        """Name and key: what makes two certificates the same authority (a cross-signed or renewed one)."""
        return self.outline.subject, self.outline.spki

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are one name (RFC 5280 section 3.2)."""
        return self.outline.subject == self.outline.issuer

    @property
    def is_ca(self) -> bool:
        """Whether its basic constraints say so."""
        constraints = self.ext(x509.BasicConstraints)
        return constraints is not None and constraints.ca

    @property
    def key_id(self) -> str:
        """Its own key identifier, lower-case hex; empty without one."""
        value = self.ext(x509.SubjectKeyIdentifier)
        return value.digest.hex() if value else ""

    @property
    def authority_key_id(self) -> str:
        """The identifier of the key that signed it, lower-case hex; empty without one."""
        value = self.ext(x509.AuthorityKeyIdentifier)
        return value.key_identifier.hex() if value and value.key_identifier else ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole, lower-case hex."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The DNS entries of its alternative names, as written."""
        value = self.ext(x509.SubjectAlternativeName)
        return tuple(value.get_values_for_type(x509.DNSName)) if value else ()

    @property
    def ip_names(self) -> tuple[Address, ...]:
        """The IP entries of its alternative names."""
        value = self.ext(x509.SubjectAlternativeName)
        found = value.get_values_for_type(x509.IPAddress) if value else []
        return tuple(ip for ip in found if isinstance(ip, Address))

    @property
    def covered_names(self) -> CoveredNames:
        """The names that a client accepts it for."""
        return CoveredNames.of(self.dns_names, self.ip_names)

    @property
    def subject_name(self) -> x509.Name | None:
        """Its subject; None if it is damaged, which is one of its faults."""
        try:
            return self.loaded.subject
        except ValueError:
            return None

    @property
    def issuer_name(self) -> x509.Name | None:
        """The name of its issuer; None if it is damaged, which is one of its faults."""
        try:
            return self.loaded.issuer
        except ValueError:
            return None

    @property
    def issuing_organisation(self) -> str:
        """The organisation that its issuer belongs to; the issuer's whole name, as in `issuer`, where it names none."""
        name = self.issuer_name
        found = name.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME) if name else ()
        return str(found[0].value) if found else self.issuer

    @property
    def common_names(self) -> tuple[str, ...]:
        """The common names of its subject; often there is none."""
        subject = self.subject_name
        found = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME) if subject else ()
        return tuple(str(a.value) for a in found)

    @property
    def title(self) -> str:
        """What to call it in a message: its common name, subject or alternative names, or else its fingerprint."""
        common = self.common_names
        if len(common) == 1:
            return f"CN={shown(common[0], 100)}"
        if self.subject:
            return self.subject
        names = [*self.dns_names, *map(str, self.ip_names)]
        return shown(", ".join(names[:3])) if names else f"the certificate {self.fingerprint[:16]}"

    @property
    def key_type(self) -> KeyType | None:
        """The kind of its key, if it is one that TLS clients of the web can use; None otherwise."""
        if self.key.algorithm == der.EC:
            return KeyType.ECDSA if self.key.curve in CURVES else None
        return {der.RSA: KeyType.RSA, der.ED25519: KeyType.ED25519}.get(self.key.algorithm)

    @property
    def key_title(self) -> str:
        """What to call the kind of its key: the curve by the name that OpenSSL gives it, or else a dotted OID."""
        try:
            curve = ec.get_curve_for_oid(x509.ObjectIdentifier(self.key.curve or self.key.algorithm))
        except LookupError:
            return self.key.curve or self.key.algorithm
        return str(curve.name)

    @property
    def netscape_types(self) -> int | None:
        """The first octet of its nsCertType, the extendedKeyUsage of the nineties; None without one."""
        found = next((e.value for e in self.outline.extensions if e.oid == "2.16.840.1.113730.1.1"), None)
        return found[3] if found and found[:1] == b"\x03" and len(found) >= 4 else None

    @property
    def key_bits(self) -> bytes:
        """The public key as key identifiers and OCSP hash it: the BIT STRING's content (RFC 6960 4.1.1)."""
        spki = self.outline.spki
        bits = der.nth(der.children(spki, der.element(spki, 0, len(spki))), 1, der.BIT_STRING)
        return spki[bits.body + 1 : bits.end]

    @property
    def usable_key(self) -> bool:
        """Whether a signature may be checked against its key: of a known kind, and bounded in what that costs."""
        if self.key.algorithm == der.RSA:
            return 512 <= self.key.bits <= MAX_RSA_BITS and self.key.exponent >= 3
        return self.key.algorithm in (der.EC, der.ED25519)

    @property
    def key_fault(self) -> Fault | None:
        """Why strict clients cannot read its public key; None if they can. For a key of a known kind and size."""
        spki = self.outline.spki
        if self.key.algorithm == der.EC and (form := _POINT_FORMS.get(self.key_bits[:1])):
            words = f"has a key whose point is written in {form} form, which Go and others do not read (RFC 5480 2.2)"
            return Fault(Code.KEY_TYPE, words)
        described = der.children(spki, der.children(spki, der.element(spki, 0, len(spki)))[0])
        if self.key.algorithm == der.RSA and [part.tag for part in described[1:]] != [der.NULL]:
            words = "has an RSA key without the NULL that belongs to its kind, which Go does not read (RFC 3279 2.3.1)"
            return Fault(Code.KEY_TYPE, words)
        try:
            self.loaded.public_key()
        except (ValueError, UnsupportedAlgorithm):
            words = "has a public key that cannot be used: it is damaged, or no point of its curve"
            return Fault(Code.KEY_INVALID, words)
        return None

    @property
    def weak_signature(self) -> str:
        """The broken or unknown digest that it is signed with, in words; empty if the digest is sound."""
        try:
            algorithm = self.loaded.signature_hash_algorithm
        except UnsupportedAlgorithm:
            return "an algorithm that clients no longer take"
        except ValueError:  # RSASSA-PSS, which has no defaults that anybody uses (RFC 4055 3.1)
            return "an algorithm whose parameters are missing or damaged"
        return algorithm.name.upper() if isinstance(algorithm, hashes.SHA1 | hashes.MD5 | hashes.SHA224) else ""

    def names_key_of(self, issuer: Certificate) -> bool:
        """Whether its authority key identifier lets this issuer pass (OpenSSL, X509_check_akid).

        Key id, serial number and issuer's issuer are compared, each where it is there; of several names the first.
        """
        value = self.ext(x509.AuthorityKeyIdentifier)
        if value is None:
            return True
        own = issuer.key_id
        if value.key_identifier and own and value.key_identifier.hex() != own:
            return False
        if value.authority_cert_serial_number not in (None, issuer.outline.serial):
            return False
        names = [name.value for name in value.authority_cert_issuer or () if isinstance(name, x509.DirectoryName)]
        return not names or names[0] == issuer.issuer_name

    def signed(self, child: Certificate) -> bool:
        """Whether this certificate's key made the signature of another one (names are not compared)."""
        return child.outline.algorithms_agree and self.verifies(
            child.outline.signature, child.outline.tbs, child.loaded
        )

    def verifies(self, signature: bytes, body: bytes | memoryview, loaded: SignatureScheme) -> bool:
        """Whether this certificate's key made a signature.

        Args:
            signature: of a certificate, a revocation list or an OCSP response.
            body: what was signed.
            loaded: how it was signed.
        """
        if not self.usable_key:
            return False
        try:
            key = self.loaded.public_key()
            algorithm = loaded.signature_hash_algorithm
            scheme = loaded.signature_algorithm_parameters
            if isinstance(key, rsa.RSAPublicKey):
                if algorithm is None or scheme is None or isinstance(scheme, ec.ECDSA):
                    return False
                key.verify(signature, body, scheme, algorithm)  # type: ignore[arg-type]  # takes any buffer, as EC does
            elif isinstance(key, ec.EllipticCurvePublicKey):
                if algorithm is None or not isinstance(scheme, ec.ECDSA):
                    return False
                key.verify(signature, body, ec.ECDSA(algorithm))
            elif isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, body)
            else:
                return False
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False
        return True


def about(
    certificate: Certificate, code: Code, words: str, hint: str = "", severity: Severity = Severity.REJECT
) -> Problem:
    """A problem of a certificate: its title followed by the words, with the place that it was found in."""
    return Problem(code, severity, f"{certificate.title} {words}.", hint, certificate.file, certificate.line)


def name_text(name: x509.Name) -> str:
    """A distinguished name for messages, in the order of the certificate: `C=US, O=…, CN=…`."""
    return shown(
        ", ".join(
            f"{_SHORT.get(a.oid.dotted_string, a.rfc4514_attribute_name)}="
            f"{a.value if isinstance(a.value, str) else a.value.hex()}"
            for a in name
        ),
        300,
    )


def colons(hexadecimal: str) -> str:
    """A key identifier as people compare it: `40:C2:BD:…`."""
    return ":".join(hexadecimal[i : i + 2] for i in range(0, len(hexadecimal), 2)).upper()
