"""OCSP responses from files (RFC 6960): bytes in, responses out, and who signed them; what they mean is `stapling`'s.

A response is for nginx to staple (`ssl_stapling_file`), which takes DER; what is wrapped as PEM is read as well.
"""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.x509 import ocsp
from cryptography.x509.oid import SignatureAlgorithmOID

from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509 import der
from rotator.x509.certificate import Certificate, SignatureScheme
from rotator.x509.panics import contained
from rotator.x509.parse import read_certificate

MAX_RESPONSES = 256 * 1024
"""Bytes that a file of responses may hold; one has some 500, and 2 KiB with the certificate of its signer."""

MAX_SIGNERS = 8
"""Certificates beside a response that are tried; responders send one."""

MAX_ANSWERS = 32
"""Answers about one certificate that are looked at: each may cost the check of as many signatures as it has signers."""

_BEGIN, _END = b"-----BEGIN OCSP RESPONSE-----", b"-----END OCSP RESPONSE-----"
_BLOCK = re.compile(re.escape(_BEGIN) + rb"\s*?\n([A-Za-z0-9+/=\s]*?)" + re.escape(_END))
AGAIN = "Fetch it again from the CA's responder, whole and as DER."
"""The next step for a response that cannot be used."""

_NONCE = "1.3.6.1.5.5.7.48.1.2"  # of a question that is not known here: whoever asked has compared it (RFC 6960 4.4.1)
_UNDERSTOOD = frozenset({_NONCE})
_UNDERSTOOD_OF_ANSWERS = frozenset(
    {
        "1.3.6.1.5.5.7.48.1.3",  # the list that it comes from (RFC 6960 4.4.2)
        "1.3.6.1.5.5.7.48.1.6",  # how long the responder remembers what has expired (RFC 6960 4.4.4)
        "1.3.6.1.4.1.11129.2.4.5",  # SCTs (RFC 6962 3.3)
        "2.5.29.21",  # the reason, as an entry of a list has it (RFC 6960 4.4.5)
        "2.5.29.24",  # since when the key may be known to others (the same)
    }
)
_CONTEXT_0, _CONTEXT_1 = 0xA0, 0xA1
_DIGESTS = frozenset({"sha1", "sha224", "sha256", "sha384", "sha512"})


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How a response was signed; the library knows certificates and lists in this way, but not responses."""

    signature_hash_algorithm: hashes.HashAlgorithm | None
    signature_algorithm_parameters: padding.PSS | padding.PKCS1v15 | ec.ECDSA | None


def _pss(digest: hashes.HashAlgorithm, oid: str) -> tuple[bytes, _Scheme]:
    """The one encoding that RSASSA-PSS may have with a digest (CA/B BR 7.1.3.2.1)."""
    sequence, null = der.SEQUENCE, b"\x05\x00"
    hashed = der.encode(sequence, der.encoded_oid(oid) + null)
    masked = der.encode(sequence, der.encoded_oid("1.2.840.113549.1.1.8") + hashed)
    salt = der.encode(der.INTEGER, bytes((digest.digest_size,)))
    fields = der.encode(0xA0, hashed) + der.encode(0xA1, masked) + der.encode(0xA2, salt)
    scheme = _Scheme(digest, padding.PSS(padding.MGF1(digest), digest.digest_size))
    return der.encode(sequence, der.encoded_oid(der.RSA_PSS) + der.encode(sequence, fields)), scheme


_PSS: Mapping[bytes, _Scheme] = dict(
    (
        _pss(hashes.SHA256(), "2.16.840.1.101.3.4.2.1"),
        _pss(hashes.SHA384(), "2.16.840.1.101.3.4.2.2"),
        _pss(hashes.SHA512(), "2.16.840.1.101.3.4.2.3"),
    )
)
_SCHEMES: Mapping[str, _Scheme] = {
    SignatureAlgorithmOID.RSA_WITH_SHA256.dotted_string: _Scheme(hashes.SHA256(), padding.PKCS1v15()),
    SignatureAlgorithmOID.RSA_WITH_SHA384.dotted_string: _Scheme(hashes.SHA384(), padding.PKCS1v15()),
    SignatureAlgorithmOID.RSA_WITH_SHA512.dotted_string: _Scheme(hashes.SHA512(), padding.PKCS1v15()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA256.dotted_string: _Scheme(hashes.SHA256(), ec.ECDSA(hashes.SHA256())),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384.dotted_string: _Scheme(hashes.SHA384(), ec.ECDSA(hashes.SHA384())),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512.dotted_string: _Scheme(hashes.SHA512(), ec.ECDSA(hashes.SHA512())),
    SignatureAlgorithmOID.ED25519.dotted_string: _Scheme(None, None),
}
"""What a response may be signed with. With SHA-1 none is any more (CA/B BR 7.1.3.2.1): anybody could forge it."""


@dataclass(frozen=True, slots=True)
class ResponseOutline:
    """What the library does not say of a response (RFC 6960 4.2.1).

    Args:
        algorithm: DER of how it is signed.
        unknown_critical: the critical extension of the whole that is not understood, dotted; empty if none is there.
        answers: the same of each of its answers.
        certificates: DER of those that were sent along.
    """

    algorithm: bytes
    unknown_critical: str
    answers: tuple[str, ...]
    certificates: tuple[bytes, ...]


def response_outline(data: bytes) -> ResponseOutline:
    """The outline of a successful response.

    Raises:
        DerError: the bytes are none.
    """
    outer = der.children(data, der.expect(der.element(data, 0, len(data)), der.SEQUENCE))
    wrapped = der.nth(der.children(data, der.nth(outer, 1, _CONTEXT_0)), 0, der.SEQUENCE)
    octets = der.nth(der.children(data, wrapped), 1, der.OCTET_STRING)
    parts = der.children(data, der.expect(der.element(data, octets.body, octets.end), der.SEQUENCE))
    inner = der.children(data, der.nth(parts, 0, der.SEQUENCE))
    skip = 1 if inner and inner[0].tag == _CONTEXT_0 else 0  # its version
    answers = der.children(data, der.nth(inner, skip + 2, der.SEQUENCE))  # after the responder and the time
    sent = der.children(data, der.nth(der.children(data, parts[3]), 0, der.SEQUENCE)) if len(parts) > 3 else []
    return ResponseOutline(
        algorithm=der.whole(data, der.nth(parts, 1, der.SEQUENCE)),
        unknown_critical=_strange(data, inner[skip + 3 :], _UNDERSTOOD),
        answers=tuple(
            _strange(data, der.children(data, der.expect(one, der.SEQUENCE))[3:], _UNDERSTOOD_OF_ANSWERS)
            for one in answers
        ),
        certificates=tuple(der.whole(data, one) for one in sent),
    )


def _strange(data: bytes, parts: Sequence[der.Element], understood: frozenset[str]) -> str:
    """The first critical extension, among the optional parts [1], that is not understood."""
    for part in parts:
        if part.tag == _CONTEXT_1:
            for one in der.children(data, der.nth(der.children(data, part), 0, der.SEQUENCE)):
                extension = der.raw_extension(data, one)
                if extension.critical and extension.oid not in understood:
                    return extension.oid
    return ""


@dataclass(frozen=True, slots=True)
class SingleResponse:
    """What a response says of one certificate (SingleResponse, RFC 6960 4.2.1).

    Args:
        serial: of the certificate.
        algorithm: the digest of the next two, as `hashlib` calls it.
        name_hash: of the name of its issuer.
        key_hash: of the key of its issuer.
        status: good, revoked or unknown.
        revoked_at: when, where it is revoked, UTC.
        reason: why, in the words of RFC 5280 section 5.3.1; empty where nothing is said.
        begin: when this was known to be so, UTC.
        end: when something newer will be known, UTC; None where that is not said.
        unknown_critical: a critical extension that is not understood, dotted; empty if there is none.
    """

    serial: int
    algorithm: str
    name_hash: bytes
    key_hash: bytes
    status: ocsp.OCSPCertStatus
    revoked_at: datetime | None
    reason: str
    begin: datetime
    end: datetime | None
    unknown_critical: str

    def is_about(self, certificate: Certificate, issuer: Certificate) -> bool:
        """Whether this certificate of this issuer is meant (CertID, RFC 6960 4.1.1)."""
        return (
            self.serial == certificate.outline.serial
            and self.name_hash == _digest(self.algorithm, certificate.outline.issuer)
            and self.key_hash == _digest(self.algorithm, issuer.key_bits)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """One response that has been read, not judged.

    Args:
        file: where it was found.
        binary: whether it stands there as DER, as nginx takes it.
        loaded: as the library has it.
        outline: its outline.
        produced: when it was signed, UTC.
        responder: who signed it, by name; None where that is said by the hash of a key.
        answers: those whose digest is known, in its order.
    """

    file: str
    binary: bool
    loaded: ocsp.OCSPResponse = field(repr=False)
    outline: ResponseOutline = field(repr=False)
    produced: datetime
    responder: x509.Name | None
    answers: tuple[SingleResponse, ...]
    _signers: dict[tuple[bytes, bytes], Certificate | None] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """What to call it in a message."""
        return f"the OCSP response in {self.file}"

    @property
    def algorithm(self) -> str:
        """How it is signed, dotted."""
        return self.loaded.signature_algorithm_oid.dotted_string

    @property
    def scheme(self) -> SignatureScheme | None:
        """The same, as the library has it; None where that is nothing to rely on."""
        return _PSS.get(self.outline.algorithm) or _SCHEMES.get(self.algorithm)

    def signer(self, issuer: Certificate) -> Certificate | None:
        """Whose key made its signature, who calls himself so in it: the issuer, or one whose certificate came along.

        Whether that one may is not asked. Computed once for each issuer, as it is asked of often.
        """
        if issuer.logical not in self._signers:
            sent = [read_certificate(raw, self.file)[0] for raw in self.outline.certificates[:MAX_SIGNERS]]
            named = [one for one in (issuer, *sent) if one is not None and self._names(one)]
            self._signers[issuer.logical] = next((one for one in named if self._signed_by(one)), None)
        return self._signers[issuer.logical]

    def _names(self, signer: Certificate) -> bool:
        """Whether its ResponderID is this one's name, or the SHA-1 of this one's key (RFC 6960 4.2.1)."""
        if self.loaded.responder_key_hash is not None:
            return self.loaded.responder_key_hash == _digest("sha1", signer.key_bits)
        return self.responder == signer.subject_name

    def _signed_by(self, signer: Certificate) -> bool:
        scheme = self.scheme
        return scheme is not None and signer.verifies(self.loaded.signature, self.loaded.tbs_response_bytes, scheme)


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """All responses that were named.

    Args:
        name: where they came from, for messages.
        digest: SHA-256 (hex) over their files.
        by_serial: each answer with its response, by the serial number of the certificate.
        faults: what could not be read of them, or is no answer: `revocation-unknown`.
    """

    name: str
    digest: str
    by_serial: Mapping[int, Sequence[tuple[Response, SingleResponse]]] = field(repr=False)
    faults: tuple[Problem, ...] = ()

    def about(self, certificate: Certificate, issuer: Certificate) -> list[tuple[Response, SingleResponse]]:
        """The answers that are about a certificate, whoever gave them."""
        answers = self.by_serial.get(certificate.outline.serial, ())
        return [(response, answer) for response, answer in answers if answer.is_about(certificate, issuer)]

    @classmethod
    def from_files(cls, files: Iterable[tuple[str, bytes]], name: str = "") -> Responses:
        """Read files of responses, DER or PEM; never raises for what they hold.

        Args:
            files: name and content of each.
            name: what to call them together; the files' names without one.
        """
        whole = hashlib.sha256()
        by_serial: dict[int, list[tuple[Response, SingleResponse]]] = {}
        faults: list[Problem] = []
        titles: list[str] = []
        for file, data in files:
            titles.append(shown(file))
            found, words = _read_all(data, shown(file))
            for response in found:
                for answer in response.answers:
                    known = by_serial.setdefault(answer.serial, [])
                    if len(known) < MAX_ANSWERS:
                        known.append((response, answer))
                    else:
                        words = words or f"holds an answer beyond the {MAX_ANSWERS} about one certificate that are read"
            if words:
                message = f"{shown(file)} {words}."
                faults.append(Problem(Code.REVOCATION_UNKNOWN, Severity.WARN, message, AGAIN, shown(file)))
            whole.update(hashlib.sha256(data).digest())
        name = name or ", ".join(titles)
        return cls(name, whole.hexdigest(), by_serial, tuple(faults))


def _digest(algorithm: str, data: bytes) -> bytes:
    """A digest that finds what is meant; what is relied on is signed."""
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def _read_all(data: bytes, title: str) -> tuple[list[Response], str]:
    """The responses of a file as far as they can be read, and what is wrong with the rest; empty if nothing."""
    if len(data) > MAX_RESPONSES:
        return [], f"holds more than {MAX_RESPONSES >> 10} KiB"
    words, blocks = "", [data]
    if b"-----BEGIN " in data:
        found = _BLOCK.findall(data)
        if not found or len(found) != data.count(_BEGIN):
            words = "holds no OCSP response, or one that is cut off"
        blocks = [b"".join(block.split()) for block in found]
    responses = []
    for block in blocks:
        try:
            with contained():
                raw = data if block is data else base64.b64decode(block, validate=True)
                loaded = ocsp.load_der_ocsp_response(raw)
                if loaded.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:  # RFC 6960 2.3
                    responses.append(_read(raw, loaded, title, binary=block is data))
                else:
                    said = loaded.response_status.name.lower().replace("_", " ")
                    words = f"holds no answer: the responder said {said}"
        except (LookupError, ValueError, TypeError, OverflowError):  # a panic, DerError, binascii.Error are ValueErrors
            words = "holds something that is no OCSP response, or one that is damaged or cut off"
    return responses, words


def _read(data: bytes, loaded: ocsp.OCSPResponse, title: str, *, binary: bool) -> Response:
    outline = response_outline(data)
    answers = []
    for single, strange in zip(loaded.responses, outline.answers, strict=True):
        try:
            algorithm = single.hash_algorithm.name
        except UnsupportedAlgorithm:
            continue  # of whichever certificate: a client that does not know the digest passes it over, too
        if algorithm not in _DIGESTS:
            continue
        reason = single.revocation_reason
        answers.append(
            SingleResponse(
                serial=single.serial_number,
                algorithm=algorithm,
                name_hash=single.issuer_name_hash,
                key_hash=single.issuer_key_hash,
                status=single.certificate_status,
                revoked_at=single.revocation_time_utc,
                reason=reason.value if reason else "",
                begin=single.this_update_utc,
                end=single.next_update_utc,
                unknown_critical=strange or outline.unknown_critical,
            )
        )
    with warnings.catch_warnings():  # of names that the library means to refuse one day
        warnings.simplefilter("ignore")
        responder = loaded.responder_name
    return Response(title, binary, loaded, outline, loaded.produced_at_utc, responder, tuple(answers))
