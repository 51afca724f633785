"""The reader of PKCS#7 and PKCS#12 containers: one block in, its certificates and keys out as blocks.

A PKCS#12 file is taken apart here, and its encrypted parts are decrypted one at a time after a check of their cost. The
library would first derive every key that the file names, check an RSA key for seconds, and return one key of several.
The MAC is not verified, as other proofs replace it: a certificate has a signature, and a key must make one. The parts
have their names from RFC 7292 and RFC 2315.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from rotator.core.model import Secret
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import place
from rotator.x509 import der, pbe
from rotator.x509.der import DerError, Element
from rotator.x509.panics import BROKE_OFF, HINT, PanicError, contained
from rotator.x509.pem import PKCS7, PKCS12, Block

CONTAINER_LABELS = frozenset({PKCS7, PKCS12})
"""The labels of blocks that contain others."""

MAX_PARTS = 64
"""The most certificates and keys of one container."""

_MAX_DEPTH = 16
"""The deepest nesting of elements: it bounds the recursion on a crafted file."""
_MAX_ELEMENTS = 10_000
"""The most elements of a BER structure, each of which costs a call: it bounds the time on a crafted file."""

_DATA = "1.2.840.113549.1.7.1"
_ENCRYPTED_DATA = "1.2.840.113549.1.7.6"
_BAGS = "1.2.840.113549.1.12.10.1."
_KEY_BAG, _SHROUDED_BAG, _CERT_BAG, _SAFE_BAG = (_BAGS + end for end in ("1", "2", "3", "6"))
_X509_CERTIFICATE = "1.2.840.113549.1.9.22.1"
_DECOY = bytes.fromhex("302e020100300506032b657004220420") + bytes(32)
"""A public Ed25519 key (RFC 8410) that is no secret: the library stops to look for keys when it has found this one."""

_OTHER_FORM = "Convert it: openssl pkcs12 -in FILE -nodes -out all.pem"


class _RefusedError(Exception):
    """A container, or a part of it, is not read; the message is our own, without content."""

    def __init__(self, code: Code, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.hint = hint


@dataclass(slots=True)
class ContainerContents:
    """The certificates and keys of a container.

    Args:
        blocks: its certificates and keys; a key may still be encrypted.
        problems: the parts that could not be read.
        spent: the cost of deriving keys so far, in rounds of a hash.
    """

    blocks: list[Block] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    spent: int = 0


def unpack(block: Block, password: Secret | None, budget: int) -> ContainerContents:
    """The certificates and keys in a PKCS#7 or PKCS#12 block.

    Args:
        block: a block whose label is one of `CONTAINER_LABELS`.
        password: decrypts the encrypted parts; without one, the empty password is tried, as it is common.
        budget: the most rounds of a hash for deriving keys.

    Returns:
        The readable parts, and the problems: `parse-error`, `key-encrypted`, `bad-password`, `key-format`,
        `chain-too-long`. No content makes this function raise.
    """
    contents = ContainerContents()
    try:
        with contained():
            data = _definite(block.data)
            if block.label == PKCS7:
                _signed_data(data, block, contents)
            else:
                _Pkcs12Reader(block, password, budget, contents).read(data)
    except _RefusedError as refused:
        contents.problems.append(_problem(block, refused))
    except PanicError:
        reason = f"its content cannot be read: {BROKE_OFF}."
        contents.problems.append(_problem(block, _RefusedError(Code.PARSE_ERROR, reason, HINT)))
    except (DerError, IndexError):
        kind = "PKCS#7" if block.label == PKCS7 else "PKCS#12"
        reason = f"the {kind} structure is damaged, or of an unsupported kind."
        hint = "Copy the file again, or have it exported again as PEM."
        contents.problems.append(_problem(block, _RefusedError(Code.PARSE_ERROR, reason, hint)))
    return contents


def _problem(block: Block, refused: _RefusedError) -> Problem:
    message = f"{place(block.file, block.line)}: {refused.reason}"
    return Problem(refused.code, Severity.REJECT, message, refused.hint, block.file, block.line)


def _add(contents: ContainerContents, label: str, data: bytes, block: Block) -> None:
    if len(contents.blocks) >= MAX_PARTS:
        reason = f"it contains more than {MAX_PARTS} certificates and keys."
        raise _RefusedError(Code.CHAIN_TOO_LONG, reason, "Keep only the leaf, its chain and its key.")
    contents.blocks.append(Block(label, data, block.file, block.line))


# -- structure


def _definite(data: bytes) -> bytes:
    """The structure with definite lengths: CAs and Java tools also write PKCS#7 and PKCS#12 in BER."""
    return _rewritten(data, 0, len(data), [_MAX_ELEMENTS])[0] if data[1:2] == b"\x80" else data


def _rewritten(data: bytes, at: int, end: int, left: list[int], depth: int = 0) -> tuple[bytes, int]:
    """One element of BER as DER, and the offset of the next; octet strings in parts are joined (X.690 8.7.3).

    Args:
        data: the whole structure.
        at: the offset of the element.
        end: the offset at which it must have ended.
        left: one number, the elements that may still be read; it is counted down.
        depth: the nesting so far.
    """
    left[0] -= 1
    if depth > _MAX_DEPTH or at + 2 > end or left[0] < 0:
        raise DerError("is nested too deeply, or ends too early")
    tag = data[at]
    if data[at + 1] != 0x80:
        definite = der.element(data, at, end)
        if not tag & 0x20:
            return der.whole(data, definite), definite.end
        at, stop, after = definite.body, definite.end, definite.end
        original = data[at:stop]
    else:
        if not tag & 0x20:
            raise DerError("has an impossible length")
        at, stop, after = at + 2, end, -1
        original = b""
    parts: list[bytes] = []
    while at < stop and (after >= 0 or data[at : at + 2] != b"\0\0"):
        part, at = _rewritten(data, at, stop, left, depth + 1)
        parts.append(part)
    if original and b"".join(parts) == original:
        return der.whole(data, definite), definite.end  # unchanged bytes, so that signatures inside stay valid
    if after < 0:
        if data[at : at + 2] != b"\0\0":
            raise DerError("ends too early")
        after = at + 2
    if tag in (der.OCTET_STRING | 0x20, 0xA0) and parts and all(part[0] == der.OCTET_STRING for part in parts):
        joined = b"".join(part[der.element(part, 0, len(part)).body :] for part in parts)
        if tag == der.OCTET_STRING | 0x20:
            return der.encode(der.OCTET_STRING, joined), after
        if len(parts) > 1:  # the [0] IMPLICIT OCTET STRING of encrypted content (RFC 2315 10.1)
            return der.encode(0x80, joined), after
    return der.encode(tag, b"".join(parts)), after


def _sequence(data: bytes) -> list[Element]:
    return der.children(data, der.expect(der.element(data, 0, len(data)), der.SEQUENCE))


def _content(data: bytes, info: Element) -> tuple[str, bytes]:
    """The content type (dotted) and the content of a ContentInfo (RFC 2315 section 7)."""
    parts = der.children(data, der.expect(info, der.SEQUENCE))
    inner = der.children(data, der.nth(parts, 1, 0xA0))[0]
    return der.dotted(data, der.nth(parts, 0, der.OID)), der.whole(data, inner)


def _octets(data: bytes) -> bytes:
    string = der.expect(der.element(data, 0, len(data)), der.OCTET_STRING)
    return data[string.body : string.end]


def _signed_data(data: bytes, block: Block, contents: ContainerContents) -> None:
    """Adds the certificates of a SignedData; their order has no meaning (RFC 2315 section 9.1)."""
    kind, signed = _content(data, der.element(data, 0, len(data)))
    if kind != der.SIGNED_DATA:
        raise DerError("is no SignedData")
    for part in _sequence(signed):
        if part.tag == 0xA0:
            for certificate in der.children(signed, part):
                if certificate.tag == der.SEQUENCE:
                    _add(contents, "CERTIFICATE", der.whole(signed, certificate), block)
    if not contents.blocks:
        reason = "the PKCS#7 structure holds no certificate."
        raise _RefusedError(Code.CERT_MISSING, reason, "Fetch the certificates from the CA as PEM.")


@dataclass(slots=True)
class _Pkcs12Reader:
    """The reader of one PKCS#12 file (RFC 7292).

    Args:
        block: the container.
        password: decrypts its parts; None if there is no password.
        budget: the most rounds of a hash for deriving keys.
        contents: the result so far.
    """

    block: Block
    password: Secret | None
    budget: int
    contents: ContainerContents

    def read(self, data: bytes) -> None:
        """Adds the certificates and keys of its bags, in the order of the file."""
        parts = _sequence(data)
        if len(parts) > 2:
            self._check_mac(data, parts[2])
        kind, inner = _content(data, der.nth(parts, 1, der.SEQUENCE))
        if kind != _DATA:
            raise DerError("is protected by a public key")
        safe = _octets(inner)
        for info in _sequence(safe):
            kind, content = _content(safe, info)
            if kind == _DATA:
                self._bags(_octets(content), 0)
            elif kind == _ENCRYPTED_DATA:
                self._encrypted(der.whole(safe, info), content, 0)
            else:
                raise DerError("is protected by a public key")

    def _check_mac(self, data: bytes, mac: Element) -> None:
        """Refuses a file whose MAC has an excessive iteration count, although the MAC itself is not computed."""
        parts = der.children(data, der.expect(mac, der.SEQUENCE))
        algorithm = der.nth(der.children(data, der.nth(parts, 0, der.SEQUENCE)), 0, der.SEQUENCE)
        rounds = der.integer(data, der.nth(parts, 2, der.INTEGER)) if len(parts) > 2 else 1
        described = der.children(data, algorithm)
        if len(described) > 1 and described[1].tag == der.SEQUENCE:
            rounds = der.derivation_cost(data, algorithm)  # PBMAC1 has the count in its parameters (RFC 9579)
        self._check_cost(rounds)

    def _check_cost(self, rounds: int) -> None:
        if not 0 < rounds <= self.budget - self.contents.spent:
            reason = "decrypting it takes more rounds of a hash than the limit."
            hint = "Export it again with fewer, such as: openssl pkcs12 -export -iter 10000 …"
            raise _RefusedError(Code.KEY_FORMAT, reason, hint)

    def _bags(self, data: bytes, depth: int) -> None:
        for bag in _sequence(data):
            parts = der.children(data, der.expect(bag, der.SEQUENCE))
            kind = der.dotted(data, der.nth(parts, 0, der.OID))
            value = der.whole(data, der.children(data, der.nth(parts, 1, 0xA0))[0])
            if kind == _KEY_BAG:
                _add(self.contents, "PRIVATE KEY", value, self.block)
            elif kind == _SHROUDED_BAG:
                self._shrouded(value)
            elif kind == _CERT_BAG:
                cert_bag = _sequence(value)
                if der.dotted(value, der.nth(cert_bag, 0, der.OID)) == _X509_CERTIFICATE:
                    wrapped = der.nth(der.children(value, der.nth(cert_bag, 1, 0xA0)), 0, der.OCTET_STRING)
                    _add(self.contents, "CERTIFICATE", value[wrapped.body : wrapped.end], self.block)
            elif kind == _SAFE_BAG and depth < _MAX_DEPTH:
                self._bags(value, depth + 1)

    def _shrouded(self, value: bytes) -> None:
        """Adds an encrypted PKCS#8 key as it is, for `keys.read_key`; under an empty password it is decrypted here."""
        if self.password is not None and self.password.reveal():
            _add(self.contents, "ENCRYPTED PRIVATE KEY", value, self.block)
            return
        parts = _sequence(value)
        algorithm, content = der.nth(parts, 0, der.SEQUENCE), der.nth(parts, 1, der.OCTET_STRING)
        for plain in self._decrypted(value, algorithm, value[content.body : content.end]):
            if der.structure_kind(plain) == "key":
                _add(self.contents, "PRIVATE KEY", plain, self.block)
                return
        raise self._undecryptable()

    def _encrypted(self, info: bytes, content: bytes, depth: int) -> None:
        """Adds the certificates and keys of bags that are encrypted together."""
        parts = der.children(content, der.nth(_sequence(content), 1, der.SEQUENCE))
        algorithm = der.nth(parts, 1, der.SEQUENCE)
        if pbe.is_rc2(content, algorithm):
            self._through_library(info, der.derivation_cost(content, algorithm))
            return
        encrypted = der.nth(parts, 2, 0x80)
        for plain in self._decrypted(content, algorithm, content[encrypted.body : encrypted.end]):
            if plain[:1] == b"\x30":
                self._bags(_definite(plain), depth)
                return
        raise self._undecryptable()

    def _decrypted(self, data: bytes, algorithm: Element, encrypted: bytes) -> Iterator[bytes]:
        secret = self.password.reveal() if self.password else b""
        cost = pbe.cost(data, algorithm, secret)
        self._check_cost(cost)
        self.contents.spent += cost
        try:
            yield from pbe.decrypted(data, algorithm, secret, encrypted)
        except pbe.UnknownSchemeError:
            raise _unsupported() from None

    def _through_library(self, info: bytes, cost: int) -> None:
        """Adds the certificates of one ContentInfo, which the library decrypts as a PKCS#12 file of its own.

        A key nested in it would cost an unknown time, so a public key is put before it: OpenSSL derives nothing for a
        second key (p12_kiss.c, parse_bag). No common tool writes keys there. An empty password is refused, as it has
        two encodings (RFC 7292 B.1) and OpenSSL distinguishes them by the MAC, which this file lacks.
        """
        secret = self.password.reveal() if self.password else b""
        if self.password is not None and not secret:
            reason = "its certificates are encrypted with an old cipher (RC2) and the empty password."
            raise _RefusedError(Code.KEY_FORMAT, reason, _OTHER_FORM)
        if not secret:
            raise self._undecryptable()
        self._check_cost(cost)
        self.contents.spent += cost
        bag = der.encode(der.SEQUENCE, der.encoded_oid(_KEY_BAG) + der.encode(0xA0, _DECOY))
        safe = der.encode(der.SEQUENCE, _info(der.encode(der.SEQUENCE, bag)) + info)
        whole = der.encode(der.SEQUENCE, b"\x02\x01\x03" + _info(safe))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = pkcs12.load_pkcs12(whole, secret)
                certificates = list(_certificates(loaded))
        except UnsupportedAlgorithm:
            raise _unsupported() from None
        except (ValueError, TypeError, OverflowError, InternalError):
            raise self._undecryptable() from None
        for data in certificates:
            _add(self.contents, "CERTIFICATE", data, self.block)

    def _undecryptable(self) -> _RefusedError:
        if self.password is None:
            reason = "it is encrypted, and there is no password for it."
            hint = "Name its password file (--password-file, or `password_file` of the site)."
            return _RefusedError(Code.KEY_ENCRYPTED, reason, hint)
        reason = "the password does not decrypt it, or it is damaged."
        return _RefusedError(Code.BAD_PASSWORD, reason, "Check the password file.")


def _unsupported() -> _RefusedError:
    return _RefusedError(Code.KEY_FORMAT, "it is encrypted in an unsupported way.", _OTHER_FORM)


def _info(content: bytes) -> bytes:
    """A ContentInfo of these bytes (RFC 2315 section 7)."""
    octets = der.encode(der.OCTET_STRING, content)
    return der.encode(der.SEQUENCE, der.encoded_oid(_DATA) + der.encode(0xA0, octets))


def _certificates(loaded: pkcs12.PKCS12KeyAndCertificates) -> Iterator[bytes]:
    for entry in (loaded.cert, *loaded.additional_certs):
        if entry is not None:
            yield entry.certificate.public_bytes(serialization.Encoding.DER)
