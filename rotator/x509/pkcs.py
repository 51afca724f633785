"""PKCS#7 and PKCS#12: a file that holds several things in, those things out as blocks; nothing is judged here.

A PKCS#12 file is taken apart here and its encrypted parts are decrypted one at a time, after their cost was seen: the
library, given the whole, would first derive whatever keys the file asks for, check an RSA key for seconds, and show
one key of several. Its MAC is not asked for, as what it protects is proved otherwise: a certificate
is signed, and a key has to make a signature. RFC 7292 and RFC 2315 name the parts.
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
"""Blocks that hold others."""

MAX_PARTS = 64
"""Certificates and keys that one container may hold."""

_MAX_DEPTH = 16
_MAX_PIECES = 10_000

_DATA = "1.2.840.113549.1.7.1"
_ENCRYPTED_DATA = "1.2.840.113549.1.7.6"
_BAGS = "1.2.840.113549.1.12.10.1."
_KEY_BAG, _SHROUDED_BAG, _CERT_BAG, _SAFE_BAG = (_BAGS + end for end in ("1", "2", "3", "6"))
_X509_CERTIFICATE = "1.2.840.113549.1.9.22.1"
_DECOY = bytes.fromhex("302e020100300506032b657004220420") + bytes(32)
"""An Ed25519 key of nobody (RFC 8410): the library looks for one key, and for none any more when it has found this."""

_OTHER_FORM = "Convert it: openssl pkcs12 -in FILE -nodes -out all.pem"


class _RefusedError(Exception):
    """A container, or a part of it, that is not read; says why in words of our own."""

    def __init__(self, code: Code, words: str, hint: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words
        self.hint = hint


@dataclass(slots=True)
class ContainerContents:
    """What a container holds.

    Args:
        blocks: its certificates and keys; a key may still be encrypted.
        problems: why something in it could not be read.
        spent: what deriving keys has cost, in rounds of a hash.
    """

    blocks: list[Block] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    spent: int = 0


def unpack(block: Block, password: Secret | None, budget: int) -> ContainerContents:
    """The certificates and keys in a PKCS#7 or PKCS#12 block.

    Args:
        block: a block whose label is one of `CONTAINER_LABELS`.
        password: for what is encrypted; without one, the empty password is tried, as it is common.
        budget: rounds of a hash that may be spent on deriving keys.

    Returns:
        What could be read, and the problems: `parse-error`, `key-encrypted`, `bad-password`, `key-format`,
        `chain-too-long`. Never raises.
    """
    found = ContainerContents()
    try:
        with contained():
            data = _definite(block.data)
            if block.label == PKCS7:
                _signed_data(data, block, found)
            else:
                _Pkcs12Reader(block, password, budget, found).unseal(data)
    except _RefusedError as refused:
        found.problems.append(_problem(block, refused))
    except PanicError:
        words = f"what is in there cannot be read: {BROKE_OFF}."
        found.problems.append(_problem(block, _RefusedError(Code.PARSE_ERROR, words, HINT)))
    except (DerError, IndexError):
        kind = "PKCS#7" if block.label == PKCS7 else "PKCS#12"
        words = f"the {kind} structure is damaged, or of a kind that is not read here."
        hint = "Copy the file again, or have it exported again as PEM."
        found.problems.append(_problem(block, _RefusedError(Code.PARSE_ERROR, words, hint)))
    return found


def _problem(block: Block, refused: _RefusedError) -> Problem:
    message = f"{place(block.file, block.line)}: {refused.words}"
    return Problem(refused.code, Severity.REJECT, message, refused.hint, block.file, block.line)


def _add(found: ContainerContents, label: str, data: bytes, block: Block) -> None:
    if len(found.blocks) >= MAX_PARTS:
        words = f"more than {MAX_PARTS} certificates and keys are in there."
        raise _RefusedError(Code.CHAIN_TOO_LONG, words, "Leave the leaf, its chain and its key.")
    found.blocks.append(Block(label, data, block.file, block.line))


# -- structure


def _definite(data: bytes) -> bytes:
    """The same structure with lengths written out: CAs and Java tools write PKCS#7 and PKCS#12 as BER too."""
    return _rewritten(data, 0, len(data), [_MAX_PIECES])[0] if data[1:2] == b"\x80" else data


def _rewritten(data: bytes, at: int, end: int, left: list[int], depth: int = 0) -> tuple[bytes, int]:
    """One element of BER as DER, and where the next begins; octet strings in pieces are joined (X.690 8.7.3)."""
    left[0] -= 1
    if depth > _MAX_DEPTH or at + 2 > end or left[0] < 0:
        raise DerError("is nested too deeply, or ends too early")
    tag = data[at]
    if data[at + 1] != 0x80:
        one = der.element(data, at, end)
        if not tag & 0x20:
            return der.whole(data, one), one.end
        at, stop, after = one.body, one.end, one.end
        before = data[at:stop]
    else:
        if not tag & 0x20:
            raise DerError("has a length that cannot be")
        at, stop, after = at + 2, end, -1
        before = b""
    parts: list[bytes] = []
    while at < stop and (after >= 0 or data[at : at + 2] != b"\0\0"):
        part, at = _rewritten(data, at, stop, left, depth + 1)
        parts.append(part)
    if before and b"".join(parts) == before:
        return der.whole(data, one), one.end  # as it stands, so that what is signed in there stays so
    if after < 0:
        if data[at : at + 2] != b"\0\0":
            raise DerError("ends too early")
        after = at + 2
    if tag in (der.OCTET_STRING | 0x20, 0xA0) and parts and all(part[0] == der.OCTET_STRING for part in parts):
        joined = b"".join(part[der.element(part, 0, len(part)).body :] for part in parts)
        if tag == der.OCTET_STRING | 0x20:
            return der.encode(der.OCTET_STRING, joined), after
        if len(parts) > 1:  # [0] IMPLICIT OCTET STRING, as encrypted content has it
            return der.encode(0x80, joined), after
    return der.encode(tag, b"".join(parts)), after


def _sequence(data: bytes) -> list[Element]:
    return der.children(data, der.expect(der.element(data, 0, len(data)), der.SEQUENCE))


def _content(data: bytes, info: Element) -> tuple[str, bytes]:
    """Kind and content of a ContentInfo."""
    parts = der.children(data, der.expect(info, der.SEQUENCE))
    inner = der.children(data, der.nth(parts, 1, 0xA0))[0]
    return der.dotted(data, der.nth(parts, 0, der.OID)), der.whole(data, inner)


def _octets(data: bytes) -> bytes:
    string = der.expect(der.element(data, 0, len(data)), der.OCTET_STRING)
    return data[string.body : string.end]


def _signed_data(data: bytes, block: Block, found: ContainerContents) -> None:
    """The certificates of a SignedData, in its order, which means nothing (RFC 2315 section 9.1)."""
    kind, signed = _content(data, der.element(data, 0, len(data)))
    if kind != der.SIGNED_DATA:
        raise DerError("is none")
    for part in _sequence(signed):
        if part.tag == 0xA0:
            for certificate in der.children(signed, part):
                if certificate.tag == der.SEQUENCE:
                    _add(found, "CERTIFICATE", der.whole(signed, certificate), block)
    if not found.blocks:
        words = "the PKCS#7 structure holds no certificate."
        raise _RefusedError(Code.CERT_MISSING, words, "Fetch the certificates from the CA as PEM.")


@dataclass(slots=True)
class _Pkcs12Reader:
    """A PKCS#12 file that is being opened."""

    block: Block
    password: Secret | None
    budget: int
    found: ContainerContents

    def unseal(self, data: bytes) -> None:
        """Its bags, in the order of the file."""
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
        """Its iterations are not spent, but a file that asks for so many is none to be trusted."""
        parts = der.children(data, der.expect(mac, der.SEQUENCE))
        algorithm = der.nth(der.children(data, der.nth(parts, 0, der.SEQUENCE)), 0, der.SEQUENCE)
        rounds = der.integer(data, der.nth(parts, 2, der.INTEGER)) if len(parts) > 2 else 1
        described = der.children(data, algorithm)
        if len(described) > 1 and described[1].tag == der.SEQUENCE:
            rounds = der.derivation_cost(data, algorithm)  # PBMAC1 (RFC 9579) has them there
        self._check_cost(rounds)

    def _check_cost(self, rounds: int) -> None:
        if not 0 < rounds <= self.budget - self.found.spent:
            words = "opening it takes more rounds of a hash than are spent here."
            hint = "Export it again with fewer, such as: openssl pkcs12 -export -iter 10000 …"
            raise _RefusedError(Code.KEY_FORMAT, words, hint)

    def _bags(self, data: bytes, depth: int) -> None:
        for bag in _sequence(data):
            parts = der.children(data, der.expect(bag, der.SEQUENCE))
            kind = der.dotted(data, der.nth(parts, 0, der.OID))
            value = der.whole(data, der.children(data, der.nth(parts, 1, 0xA0))[0])
            if kind == _KEY_BAG:
                _add(self.found, "PRIVATE KEY", value, self.block)
            elif kind == _SHROUDED_BAG:
                self._shrouded(value)
            elif kind == _CERT_BAG:
                held = _sequence(value)
                if der.dotted(value, der.nth(held, 0, der.OID)) == _X509_CERTIFICATE:
                    wrapped = der.nth(der.children(value, der.nth(held, 1, 0xA0)), 0, der.OCTET_STRING)
                    _add(self.found, "CERTIFICATE", value[wrapped.body : wrapped.end], self.block)
            elif kind == _SAFE_BAG and depth < _MAX_DEPTH:
                self._bags(value, depth + 1)

    def _shrouded(self, value: bytes) -> None:
        """An encrypted key is a PKCS#8 one, which is decrypted where keys are; but not under the empty password."""
        if self.password is not None and self.password.reveal():
            _add(self.found, "ENCRYPTED PRIVATE KEY", value, self.block)
            return
        parts = _sequence(value)
        algorithm, content = der.nth(parts, 0, der.SEQUENCE), der.nth(parts, 1, der.OCTET_STRING)
        for plain in self._decrypted(value, algorithm, value[content.body : content.end]):
            if der.what(plain) == "key":
                _add(self.found, "PRIVATE KEY", plain, self.block)
                return
        raise self._unopened()

    def _encrypted(self, info: bytes, content: bytes, depth: int) -> None:
        """Bags that are encrypted together."""
        parts = der.children(content, der.nth(_sequence(content), 1, der.SEQUENCE))
        algorithm = der.nth(parts, 1, der.SEQUENCE)
        if pbe.is_rc2(content, algorithm):
            self._through_library(info, der.derivation_cost(content, algorithm))
            return
        held = der.nth(parts, 2, 0x80)
        for plain in self._decrypted(content, algorithm, content[held.body : held.end]):
            if plain[:1] == b"\x30":
                self._bags(_definite(plain), depth)
                return
        raise self._unopened()

    def _decrypted(self, data: bytes, algorithm: Element, encrypted: bytes) -> Iterator[bytes]:
        secret = self.password.reveal() if self.password else b""
        cost = pbe.cost(data, algorithm, secret)
        self._check_cost(cost)
        self.found.spent += cost
        try:
            yield from pbe.decrypted(data, algorithm, secret, encrypted)
        except pbe.UnknownSchemeError:
            raise _unknown() from None

    def _through_library(self, info: bytes, cost: int) -> None:
        """Has the certificates of one ContentInfo decrypted and read, as a PKCS#12 file of its own.

        Whatever key is nested in there is left alone, as what that one costs shows only when it is paid: a key that
        everybody knows stands before it, and OpenSSL derives nothing for a second one (p12_kiss.c, parse_bag). Nobody
        writes keys there. It is not done under the empty password, of which there are two (RFC 7292 B.1): OpenSSL
        tells them apart by the MAC, which is not asked for here.
        """
        secret = self.password.reveal() if self.password else b""
        if self.password is not None and not secret:
            words = "its certificates are under an old cipher (RC2) and the empty password."
            raise _RefusedError(Code.KEY_FORMAT, words, _OTHER_FORM)
        if not secret:
            raise self._unopened()
        self._check_cost(cost)
        self.found.spent += cost
        bag = der.encode(der.SEQUENCE, der.encoded_oid(_KEY_BAG) + der.encode(0xA0, _DECOY))
        safe = der.encode(der.SEQUENCE, _info(der.encode(der.SEQUENCE, bag)) + info)
        whole = der.encode(der.SEQUENCE, b"\x02\x01\x03" + _info(safe))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened = pkcs12.load_pkcs12(whole, secret)
                certificates = list(_certificates(opened))
        except UnsupportedAlgorithm:
            raise _unknown() from None
        except (ValueError, TypeError, OverflowError, InternalError):
            raise self._unopened() from None
        for data in certificates:
            _add(self.found, "CERTIFICATE", data, self.block)

    def _unopened(self) -> _RefusedError:
        if self.password is None:
            words = "it is encrypted, and there is no password for it."
            hint = "Name its password file (--password-file, or `password_file` of the site)."
            return _RefusedError(Code.KEY_ENCRYPTED, words, hint)
        words = "the password does not open it, or it is damaged."
        return _RefusedError(Code.BAD_PASSWORD, words, "Check the password file.")


def _unknown() -> _RefusedError:
    return _RefusedError(Code.KEY_FORMAT, "it is encrypted in a way that is not known here.", _OTHER_FORM)


def _info(content: bytes) -> bytes:
    """A ContentInfo of these bytes (RFC 2315 section 7)."""
    octets = der.encode(der.OCTET_STRING, content)
    return der.encode(der.SEQUENCE, der.encoded_oid(_DATA) + der.encode(0xA0, octets))


def _certificates(opened: pkcs12.PKCS12KeyAndCertificates) -> Iterator[bytes]:
    for held in (opened.cert, *opened.additional_certs):
        if held is not None:
            yield held.certificate.public_bytes(serialization.Encoding.DER)
