"""A parsed X.509 certificate: its fields, its names, its key, and the signatures that its key made.

`rotator.x509.parse` reads it, and `rotator.validation` validates it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

import cryptography.hazmat.backends.openssl.backend  # noqa: F401 - imported before privileges drop: see `privsep.fork`
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
"""The most bits of an RSA modulus; a larger key is never used for a computation."""

MIN_RSA_BITS = 512
"""The fewest bits of an RSA modulus; OpenSSL generates no smaller ones (RSA_MIN_MODULUS_BITS)."""

CURVES = {"1.2.840.10045.3.1.7": "secp256r1", "1.3.132.0.34": "secp384r1", "1.3.132.0.35": "secp521r1"}
"""The curves that TLS clients of the web support (CA/B BR 6.1.5), with OpenSSL's names."""

_SHORT = {
    "2.5.4.5": "serialNumber",
    "2.5.4.15": "businessCategory",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionL",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionST",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionC",
}

_NETSCAPE_CERT_TYPE = "2.16.840.1.113730.1.1"
_POINT_FORMS = {b"\2": "compressed", b"\3": "compressed", b"\6": "hybrid", b"\7": "hybrid"}
"""The first octet of a curve point that is not written in the uncompressed form (SEC 1 2.3.3)."""

E = TypeVar("E", bound=x509.ExtensionType)


class SignatureScheme(Protocol):
    """The algorithm of a signature, in the form that the library has for certificates and revocation lists."""

    @property
    def signature_hash_algorithm(self) -> hashes.HashAlgorithm | None:
        """The digest; None if the algorithm has a fixed one."""

    @property
    def signature_algorithm_parameters(self) -> padding.PSS | padding.PKCS1v15 | ec.ECDSA | None:
        """The padding or the curve scheme; None if the algorithm has no parameters."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a certificate by itself; it becomes a problem if the certificate is used.

    Args:
        code: the kind of problem.
        reason: a clause that follows the certificate's title in a message.
    """

    code: Code
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """A certificate and its place in a file.

    Args:
        raw: its DER bytes, without any trailing data.
        loaded: the library's object, which may be of a copy in strict DER: use `ext` for extensions and `outline` for
            the signed bytes.
        outline: its outer structure.
        key: the type and size of its public key.
        subject: its subject for messages, `C=US, O=…, CN=…` in the order of the certificate.
        issuer: its issuer in the same form.
        not_before: UTC.
        not_after: UTC.
        extensions: the values of the readable extensions, by type.
        strict: whether a strict library reads all of it, so that the library's verdict can be asked.
        faults: its faults by itself.
        file: the file that contains it.
        line: its 1-based line in that file; 0 in a binary file.
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
        """Subject and key: two certificates with the same ones are one authority (cross-signed or renewed)."""
        return self.outline.subject, self.outline.spki

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are one name (RFC 5280 section 3.2)."""
        return self.outline.subject == self.outline.issuer

    @property
    def is_ca(self) -> bool:
        """Whether its basic constraints make it a CA."""
        constraints = self.ext(x509.BasicConstraints)
        return constraints is not None and constraints.ca

    @property
    def key_id(self) -> str:
        """Its subject key identifier, lower-case hex; empty without one."""
        value = self.ext(x509.SubjectKeyIdentifier)
        return value.digest.hex() if value else ""

    @property
    def authority_key_id(self) -> str:
        """Its authority key identifier, which names the key that signed it, lower-case hex; empty without one."""
        value = self.ext(x509.AuthorityKeyIdentifier)
        return value.key_identifier.hex() if value and value.key_identifier else ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its DER, lower-case hex."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The DNS entries of its subject alternative names, as written."""
        value = self.ext(x509.SubjectAlternativeName)
        return tuple(value.get_values_for_type(x509.DNSName)) if value else ()

    @property
    def ip_names(self) -> tuple[Address, ...]:
        """The IP addresses among its subject alternative names."""
        value = self.ext(x509.SubjectAlternativeName)
        entries = value.get_values_for_type(x509.IPAddress) if value else []
        return tuple(entry for entry in entries if isinstance(entry, Address))

    @property
    def covered_names(self) -> CoveredNames:
        """The names for which clients accept it."""
        return CoveredNames.of(self.dns_names, self.ip_names)

    @property
    def subject_name(self) -> x509.Name | None:
        """Its subject; None if the name is damaged, which is one of its faults."""
        try:
            return self.loaded.subject
        except ValueError:
            return None

    @property
    def issuer_name(self) -> x509.Name | None:
        """Its issuer; None if the name is damaged, which is one of its faults."""
        try:
            return self.loaded.issuer
        except ValueError:
            return None

    @property
    def issuing_organisation(self) -> str:
        """The organisation in its issuer's name; without one the whole name, as in `issuer`."""
        name = self.issuer_name
        organisations = name.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME) if name else ()
        return str(organisations[0].value) if organisations else self.issuer

    @property
    def common_names(self) -> tuple[str, ...]:
        """The common names of its subject; often there is none."""
        subject = self.subject_name
        attributes = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME) if subject else ()
        return tuple(str(attribute.value) for attribute in attributes)

    @property
    def title(self) -> str:
        """Its name in messages: the common name, the subject, the alternative names, or else the fingerprint."""
        common = self.common_names
        if len(common) == 1:
            return f"CN={shown(common[0], 100)}"
        if self.subject:
            return self.subject
        names = [*self.dns_names, *map(str, self.ip_names)]
        return shown(", ".join(names[:3])) if names else f"the certificate {self.fingerprint[:16]}"

    @property
    def key_type(self) -> KeyType | None:
        """The type of its key if TLS clients of the web support it; None otherwise."""
        if self.key.algorithm == der.EC:
            return KeyType.ECDSA if self.key.curve in CURVES else None
        return {der.RSA: KeyType.RSA, der.ED25519: KeyType.ED25519}.get(self.key.algorithm)

    @property
    def key_title(self) -> str:
        """The name of its key type in messages: OpenSSL's name of the curve, or else a dotted object identifier."""
        try:
            curve = ec.get_curve_for_oid(x509.ObjectIdentifier(self.key.curve or self.key.algorithm))
        except LookupError:
            return self.key.curve or self.key.algorithm
        return str(curve.name)

    @property
    def netscape_types(self) -> int | None:
        """The first octet of its nsCertType, Netscape's predecessor of extendedKeyUsage; None without one."""
        value = next((e.value for e in self.outline.extensions if e.oid == _NETSCAPE_CERT_TYPE), None)
        return value[3] if value and value[:1] == b"\x03" and len(value) >= 4 else None

    @property
    def key_bits(self) -> bytes:
        """The content of the public key's BIT STRING, which key identifiers and OCSP hash (RFC 6960 4.1.1)."""
        spki = self.outline.spki
        bits = der.nth(der.children(spki, der.element(spki, 0, len(spki))), 1, der.BIT_STRING)
        return spki[bits.body + 1 : bits.end]

    @property
    def usable_key(self) -> bool:
        """Whether signatures may be checked with its key: its type is known and the cost is bounded."""
        if self.key.algorithm == der.RSA:
            return MIN_RSA_BITS <= self.key.bits <= MAX_RSA_BITS and self.key.exponent >= 3
        return self.key.algorithm in (der.EC, der.ED25519)

    @property
    def key_fault(self) -> Fault | None:
        """The reason for which strict clients cannot read its public key, if any; for a known key type and size."""
        spki = self.outline.spki
        if self.key.algorithm == der.EC and (form := _POINT_FORMS.get(self.key_bits[:1])):
            reason = f"has a key whose point is written in {form} form, which Go and others do not read (RFC 5480 2.2)"
            return Fault(Code.KEY_TYPE, reason)
        described = der.children(spki, der.children(spki, der.element(spki, 0, len(spki)))[0])
        if self.key.algorithm == der.RSA and [part.tag for part in described[1:]] != [der.NULL]:
            reason = "has an RSA key without the NULL parameters of RFC 3279 2.3.1, which Go does not read"
            return Fault(Code.KEY_TYPE, reason)
        try:
            self.loaded.public_key()
        except (ValueError, UnsupportedAlgorithm):
            reason = "has a public key that cannot be used: it is damaged, or it is no point of its curve"
            return Fault(Code.KEY_INVALID, reason)
        return None

    @property
    def weak_signature(self) -> str:
        """The broken or unknown digest of its signature, for messages; empty if the digest is sound."""
        try:
            algorithm = self.loaded.signature_hash_algorithm
        except UnsupportedAlgorithm:
            return "an algorithm that clients no longer accept"
        except ValueError:  # RSASSA-PSS without parameters, whose defaults are not in use (RFC 4055 3.1)
            return "an algorithm whose parameters are missing or damaged"
        return algorithm.name.upper() if isinstance(algorithm, hashes.SHA1 | hashes.MD5 | hashes.SHA224) else ""

    def names_key_of(self, issuer: Certificate) -> bool:
        """Whether its authority key identifier fits this issuer (as OpenSSL's X509_check_akid checks it).

        Key identifier, serial number and the issuer's issuer are compared if present; of several names, the first.
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
        """Whether this certificate's key made the signature of `child`; the names are not compared."""
        return child.outline.algorithms_agree and self.verifies(
            child.outline.signature, child.outline.tbs, child.loaded
        )

    def verifies(self, signature: bytes, body: bytes | memoryview, scheme: SignatureScheme) -> bool:
        """Whether this certificate's key made a signature.

        Args:
            signature: the signature of a certificate, a revocation list or an OCSP response.
            body: the signed bytes.
            scheme: the algorithm of the signature.
        """
        if not self.usable_key:
            return False
        try:
            key = self.loaded.public_key()
            digest = scheme.signature_hash_algorithm
            parameters = scheme.signature_algorithm_parameters
            if isinstance(key, rsa.RSAPublicKey):
                if digest is None or parameters is None or isinstance(parameters, ec.ECDSA):
                    return False
                key.verify(signature, body, parameters, digest)  # type: ignore[arg-type]  # takes any buffer, as EC does
            elif isinstance(key, ec.EllipticCurvePublicKey):
                if digest is None or not isinstance(parameters, ec.ECDSA):
                    return False
                key.verify(signature, body, ec.ECDSA(digest))
            elif isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, body)
            else:
                return False
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False
        return True


def about(
    certificate: Certificate, code: Code, reason: str, hint: str = "", severity: Severity = Severity.REJECT
) -> Problem:
    """A problem of a certificate; its message is the certificate's title and the reason.

    Args:
        certificate: the certificate, whose file and line the problem gets.
        code: the kind of problem.
        reason: a clause that follows the title, such as `expired on …`.
        hint: the next step; empty if there is none.
        severity: whether the problem refuses or only warns.
    """
    return Problem(code, severity, f"{certificate.title} {reason}.", hint, certificate.file, certificate.line)


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
    """A key identifier in the form that people compare: `40:C2:BD:…`."""
    return ":".join(hexadecimal[i : i + 2] for i in range(0, len(hexadecimal), 2)).upper()
