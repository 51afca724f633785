"""The reader of OCSP responses: bytes of files in, responses with their signers out (RFC 6960).

nginx staples such a file (`ssl_stapling_file`) and takes DER only; PEM is read here as well.
`rotator.validation.stapling` decides what a response says of a certificate.
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
"""The most bytes of a file of responses; one response has some 500, and 2 KiB with the certificate of its signer."""

MAX_SIGNERS = 8
"""The most certificates in a response that are tried as its signer; responders send one."""

MAX_ANSWERS = 32
"""The most answers about one certificate: each may cost the check of `MAX_SIGNERS` signatures."""

_BEGIN, _END = b"-----BEGIN OCSP RESPONSE-----", b"-----END OCSP RESPONSE-----"
_BLOCK = re.compile(re.escape(_BEGIN) + rb"\s*?\n([A-Za-z0-9+/=\s]*?)" + re.escape(_END))
AGAIN = "Fetch it again from the CA's responder, whole and as DER."
"""The next step for a response that cannot be used."""

_NONCE = "1.3.6.1.5.5.7.48.1.2"  # compared by the client that fetched the response (RFC 6960 4.4.1)
_UNDERSTOOD = frozenset({_NONCE})
_UNDERSTOOD_OF_ANSWERS = frozenset(
    {
        "1.3.6.1.5.5.7.48.1.3",  # CRL reference (RFC 6960 4.4.2)
        "1.3.6.1.5.5.7.48.1.6",  # archive cutoff (RFC 6960 4.4.4)
        "1.3.6.1.4.1.11129.2.4.5",  # signed certificate timestamps (RFC 6962 3.3)
        "2.5.29.21",  # reason code, as in a list's entry (RFC 6960 4.4.5)
        "2.5.29.24",  # invalidity date, as in a list's entry (RFC 6960 4.4.5)
    }
)
_CONTEXT_0, _CONTEXT_1 = 0xA0, 0xA1
_DIGESTS = frozenset({"sha1", "sha224", "sha256", "sha384", "sha512"})


@dataclass(frozen=True, slots=True)
class _Scheme:
    """The algorithm of a response's signature; the library has it for certificates and lists, but not for responses."""

    signature_hash_algorithm: hashes.HashAlgorithm | None
    signature_algorithm_parameters: padding.PSS | padding.PKCS1v15 | ec.ECDSA | None


def _pss(digest: hashes.HashAlgorithm, oid: str) -> tuple[bytes, _Scheme]:
    """The only allowed encoding of RSASSA-PSS with a digest, and its scheme (CA/B BR 7.1.3.2.1)."""
    sequence, null = der.SEQUENCE, b"\x05\x00"
    hash_algorithm = der.encode(sequence, der.encoded_oid(oid) + null)
    mask = der.encode(sequence, der.encoded_oid("1.2.840.113549.1.1.8") + hash_algorithm)  # MGF1
    salt_length = der.encode(der.INTEGER, bytes((digest.digest_size,)))
    fields = der.encode(0xA0, hash_algorithm) + der.encode(0xA1, mask) + der.encode(0xA2, salt_length)
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
"""The accepted signature algorithms. SHA-1 is missing: such signatures can be forged (CA/B BR 7.1.3.2.1)."""


@dataclass(frozen=True, slots=True)
class ResponseOutline:
    """The parts of a response that the library does not expose (RFC 6960 4.2.1).

    Args:
        algorithm: the DER of the signature algorithm.
        unknown_critical: the response's critical extension that is not understood, dotted; empty if there is none.
        answers: for each answer, its critical extension that is not understood, dotted; empty if there is none.
        certificates: the DER of the certificates in the response.
    """

    algorithm: bytes
    unknown_critical: str
    answers: tuple[str, ...]
    certificates: tuple[bytes, ...]


def response_outline(data: bytes) -> ResponseOutline:
    """The outline of a successful response.

    Raises:
        DerError: the bytes are no successful response.
    """
    outer = der.children(data, der.expect(der.element(data, 0, len(data)), der.SEQUENCE))
    wrapped = der.nth(der.children(data, der.nth(outer, 1, _CONTEXT_0)), 0, der.SEQUENCE)
    octets = der.nth(der.children(data, wrapped), 1, der.OCTET_STRING)
    parts = der.children(data, der.expect(der.element(data, octets.body, octets.end), der.SEQUENCE))
    inner = der.children(data, der.nth(parts, 0, der.SEQUENCE))
    skip = 1 if inner and inner[0].tag == _CONTEXT_0 else 0  # the version is optional
    answers = der.children(data, der.nth(inner, skip + 2, der.SEQUENCE))  # after responderID and producedAt
    included = der.children(data, der.nth(der.children(data, parts[3]), 0, der.SEQUENCE)) if len(parts) > 3 else []
    return ResponseOutline(
        algorithm=der.whole(data, der.nth(parts, 1, der.SEQUENCE)),
        unknown_critical=_unknown_critical(data, inner[skip + 3 :], _UNDERSTOOD),
        answers=tuple(
            _unknown_critical(data, der.children(data, der.expect(answer, der.SEQUENCE))[3:], _UNDERSTOOD_OF_ANSWERS)
            for answer in answers
        ),
        certificates=tuple(der.whole(data, certificate) for certificate in included),
    )


def _unknown_critical(data: bytes, parts: Sequence[der.Element], understood: frozenset[str]) -> str:
    """The first critical extension that is not understood, dotted; extensions are in the optional part [1]."""
    for part in parts:
        if part.tag == _CONTEXT_1:
            for element in der.children(data, der.nth(der.children(data, part), 0, der.SEQUENCE)):
                extension = der.raw_extension(data, element)
                if extension.critical and extension.oid not in understood:
                    return extension.oid
    return ""


@dataclass(frozen=True, slots=True)
class SingleResponse:
    """A response's answer about one certificate (SingleResponse, RFC 6960 4.2.1).

    Args:
        serial: the serial number of the certificate.
        algorithm: the digest of the two hashes, by its name in `hashlib`.
        name_hash: the hash of the issuer's name.
        key_hash: the hash of the issuer's key.
        status: good, revoked or unknown.
        revoked_at: the time of revocation, UTC; None if it is not revoked.
        reason: the reason as RFC 5280 section 5.3.1 spells it; empty if none is given.
        begin: thisUpdate, the time at which the status was known to be correct, UTC.
        end: nextUpdate, the time at which a newer answer is available, UTC; None if not given.
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
        """Whether the answer is about this certificate of this issuer (CertID, RFC 6960 4.1.1)."""
        return (
            self.serial == certificate.outline.serial
            and self.name_hash == _digest(self.algorithm, certificate.outline.issuer)
            and self.key_hash == _digest(self.algorithm, issuer.key_bits)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """One response that has been read; `rotator.validation.stapling` evaluates it.

    Args:
        file: the file that contains it.
        binary: whether the file is DER, the form that nginx takes.
        loaded: the library's object.
        outline: the parts that the library does not expose.
        produced: producedAt, the time of the signature, UTC.
        responder: the name of the signer; None if the response names the hash of the signer's key.
        answers: the answers with a supported digest, in their order.
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
        """Its name in messages."""
        return f"the OCSP response in {self.file}"

    @property
    def algorithm(self) -> str:
        """The object identifier of its signature algorithm, dotted."""
        return self.loaded.signature_algorithm_oid.dotted_string

    @property
    def scheme(self) -> SignatureScheme | None:
        """Its signature algorithm for verification; None if the algorithm is not accepted."""
        return _PSS.get(self.outline.algorithm) or _SCHEMES.get(self.algorithm)

    def signer(self, issuer: Certificate) -> Certificate | None:
        """The certificate that made its signature and fits its ResponderID: the issuer's, or one in the response.

        The caller checks whether the signer is authorised. The answer for each issuer is kept.
        """
        if issuer.logical not in self._signers:
            included = [read_certificate(raw, self.file)[0] for raw in self.outline.certificates[:MAX_SIGNERS]]
            candidates = [c for c in (issuer, *included) if c is not None and self._names(c)]
            self._signers[issuer.logical] = next((c for c in candidates if self._signed_by(c)), None)
        return self._signers[issuer.logical]

    def _names(self, signer: Certificate) -> bool:
        """Whether its ResponderID is the signer's name, or the SHA-1 of the signer's key (RFC 6960 4.2.1)."""
        if self.loaded.responder_key_hash is not None:
            return self.loaded.responder_key_hash == _digest("sha1", signer.key_bits)
        return self.responder == signer.subject_name

    def _signed_by(self, signer: Certificate) -> bool:
        scheme = self.scheme
        return scheme is not None and signer.verifies(self.loaded.signature, self.loaded.tbs_response_bytes, scheme)


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """The OCSP responses that the configuration or the command line names.

    Args:
        name: their origin, for messages.
        digest: SHA-256 (hex) over the files.
        by_serial: each answer with its response, by the serial number of the certificate.
        faults: `revocation-unknown` for each file that could not be read as a whole, or that has no answer.
    """

    name: str
    digest: str
    by_serial: Mapping[int, Sequence[tuple[Response, SingleResponse]]] = field(repr=False)
    faults: tuple[Problem, ...] = ()

    def about(self, certificate: Certificate, issuer: Certificate) -> list[tuple[Response, SingleResponse]]:
        """The answers about a certificate, from any signer."""
        answers = self.by_serial.get(certificate.outline.serial, ())
        return [(response, answer) for response, answer in answers if answer.is_about(certificate, issuer)]

    @classmethod
    def from_files(cls, files: Iterable[tuple[str, bytes]], name: str = "") -> Responses:
        """Reads files of responses, DER or PEM. No content makes this function raise.

        Args:
            files: the name and the content of each.
            name: the name for all of them in messages; by default the names of the files.
        """
        sha256 = hashlib.sha256()
        by_serial: dict[int, list[tuple[Response, SingleResponse]]] = {}
        faults: list[Problem] = []
        titles: list[str] = []
        for file, data in files:
            titles.append(shown(file))
            responses, fault = _read_all(data, shown(file))
            for response in responses:
                for answer in response.answers:
                    same_serial = by_serial.setdefault(answer.serial, [])
                    if len(same_serial) < MAX_ANSWERS:
                        same_serial.append((response, answer))
                    else:
                        fault = fault or f"holds more than {MAX_ANSWERS} answers about one certificate"
            if fault:
                message = f"{shown(file)} {fault}."
                faults.append(Problem(Code.REVOCATION_UNKNOWN, Severity.WARN, message, AGAIN, shown(file)))
            sha256.update(hashlib.sha256(data).digest())
        name = name or ", ".join(titles)
        return cls(name, sha256.hexdigest(), by_serial, tuple(faults))


def _digest(algorithm: str, data: bytes) -> bytes:
    """A digest that only finds the certificate in question, so a weak one is harmless: the answer itself is signed."""
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def _read_all(data: bytes, title: str) -> tuple[list[Response], str]:
    """The readable responses of a file, and a clause about the rest; empty if nothing is wrong."""
    if len(data) > MAX_RESPONSES:
        return [], f"holds more than {MAX_RESPONSES >> 10} KiB"
    fault, blocks = "", [data]
    if b"-----BEGIN " in data:
        bodies = _BLOCK.findall(data)
        if not bodies or len(bodies) != data.count(_BEGIN):
            fault = "holds no OCSP response, or one that is cut off"
        blocks = [b"".join(body.split()) for body in bodies]
    responses = []
    for block in blocks:
        try:
            with contained():
                raw = data if block is data else base64.b64decode(block, validate=True)
                loaded = ocsp.load_der_ocsp_response(raw)
                if loaded.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:  # RFC 6960 2.3
                    responses.append(_read(raw, loaded, title, binary=block is data))
                else:
                    status = loaded.response_status.name.lower().replace("_", " ")
                    fault = f"holds no answer: the status of the response is {status}"
        except (LookupError, ValueError, TypeError, OverflowError):  # a panic, DerError, binascii.Error are ValueErrors
            fault = "holds something that is no OCSP response, or one that is damaged or cut off"
    return responses, fault


def _read(data: bytes, loaded: ocsp.OCSPResponse, title: str, *, binary: bool) -> Response:
    outline = response_outline(data)
    answers = []
    for single, unknown_critical in zip(loaded.responses, outline.answers, strict=True):
        try:
            algorithm = single.hash_algorithm.name
        except UnsupportedAlgorithm:
            continue  # clients that do not support the digest ignore the answer, too
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
                unknown_critical=unknown_critical or outline.unknown_critical,
            )
        )
    with warnings.catch_warnings():  # the library warns of names that a later version of it refuses
        warnings.simplefilter("ignore")
        responder = loaded.responder_name
    return Response(title, binary, loaded, outline, loaded.produced_at_utc, responder, tuple(answers))
