"""A small reader and writer of DER (X.690) that works before the library does, or in its place.

Three tasks need it. One extension that is not DER (an explicit `critical FALSE`, as real CAs have written) makes all
extensions of a certificate unreadable to a strict library, while clients read them. The size of a key and the cost of
its encryption must be known before the library spends the time. And a diagnosis names the faulty extension.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

SEQUENCE = 0x30
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OID = 0x06
BOOLEAN = 0x01

RSA = "1.2.840.113549.1.1.1"
RSA_PSS = "1.2.840.113549.1.1.10"
EC = "1.2.840.10045.2.1"
ED25519 = "1.3.101.112"
DSA = "1.2.840.10040.4.1"

SIGNED_DATA = "1.2.840.113549.1.7.2"

_PBES2 = "1.2.840.113549.1.5.13"
_PBMAC1 = "1.2.840.113549.1.5.14"
_PBKDF2 = "1.2.840.113549.1.5.12"
_SCRYPT = "1.3.6.1.4.1.11591.4.11"
_MAX_CHILDREN = 20_000
"""The most elements in a constructed one, far above any real one: it bounds the work on a crafted structure."""
_MAX_OID = 64
"""The most octets of an object identifier; those of X.509 have about 10."""
_MAX_SCRYPT_MEMORY = 32 << 20
"""The most bytes of memory for scrypt: OpenSSL's default limit (SCRYPT_MAX_MEM in its scrypt.c)."""
TOO_EXPENSIVE = 1 << 64
"""A cost above every limit on the derivation of a key."""


class DerError(ValueError):
    """The bytes do not have the expected structure; the message never quotes content."""


class Element(NamedTuple):
    """One tag-length-value: `data[start:end]` is the whole element, `data[body:end]` its content."""

    tag: int
    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class RawExtension:
    """An extension whose value is not parsed.

    Args:
        oid: its object identifier, dotted.
        critical: whether it is marked critical.
        value: the DER inside the OCTET STRING.
    """

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class CertificateOutline:
    """The outer structure of a certificate (RFC 5280 section 4.1).

    Args:
        end: the offset at which the certificate ends; the bytes after it are trailing data.
        version: 1, 2 or 3; an absurd number is cut to the range from -98 to 100, as messages show it.
        serial: the serial number, which may be zero, negative or too long.
        algorithms_agree: whether the signed part names the same signature algorithm as the outer structure.
        issuer: the DER of the issuer's name.
        subject: the DER of the subject's name.
        spki: the DER of the SubjectPublicKeyInfo.
        tbs: the signed part (TBSCertificate).
        signature: the signature over the signed part.
        extensions: the extensions in the order of the certificate.
    """

    end: int
    version: int
    serial: int
    algorithms_agree: bool
    issuer: bytes
    subject: bytes
    spki: bytes
    tbs: bytes
    signature: bytes
    extensions: tuple[RawExtension, ...]


@dataclass(frozen=True, slots=True)
class PublicKeyOutline:
    """The type and size of a public key, from its SubjectPublicKeyInfo and before any computation with it.

    Args:
        algorithm: the object identifier of the key type, dotted.
        bits: the bits of an RSA modulus; 0 for other types.
        exponent: the RSA exponent, or 0; -1 stands for more than 64 bits (OpenSSL refuses those above 3072 bits).
        curve: the object identifier of a named curve, dotted; empty for other types and for explicit parameters.
        modulus: the RSA modulus, or 0.
    """

    algorithm: str
    bits: int = 0
    exponent: int = 0
    curve: str = ""
    modulus: int = field(default=0, repr=False)


def element(data: bytes, at: int, end: int) -> Element:
    """The element that begins at offset `at` and ends at `end` or before it.

    Raises:
        DerError: it ends later; or it has a long tag, an indefinite length, or a length of more than four octets.
    """
    if at + 2 > end:
        raise DerError("ends too early")
    tag, length, body = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise DerError("has an unexpected tag")
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or body + count > end:
            raise DerError("has an impossible length")
        length = int.from_bytes(data[body : body + count], "big")
        body += count
    if body + length > end:
        raise DerError("ends too early")
    return Element(tag, at, body, body + length)


def children(data: bytes, parent: Element) -> list[Element]:
    """The elements inside a constructed one.

    Raises:
        DerError: they do not fill it exactly, or they are too many.
    """
    parts: list[Element] = []
    at = parent.body
    while at < parent.end:
        if len(parts) >= _MAX_CHILDREN:
            raise DerError("has too many parts")
        part = element(data, at, parent.end)
        parts.append(part)
        at = part.end
    return parts


def expect(part: Element, tag: int) -> Element:
    """The same element if it has this tag.

    Raises:
        DerError: it has another tag.
    """
    if part.tag != tag:
        raise DerError("has another structure than expected")
    return part


def whole(data: bytes, part: Element) -> bytes:
    """An element with its tag and length."""
    return data[part.start : part.end]


def dotted(data: bytes, part: Element) -> str:
    """An object identifier in dotted notation.

    Raises:
        DerError: the element is no object identifier.
    """
    expect(part, OID)
    if part.end - part.body > _MAX_OID:
        raise DerError("has an impossible object identifier")
    numbers: list[int] = []
    value = 0
    for octet in data[part.body : part.end]:
        value = value << 7 | octet & 0x7F
        if value >> 160:
            raise DerError("has an impossible object identifier")
        if not octet & 0x80:
            numbers.append(value)
            value = 0
    if not numbers:
        raise DerError("has an empty object identifier")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def minimal(data: bytes, start: int, end: int) -> bool:
    """Whether every length between two offsets is written in the fewest octets, as DER demands (X.690 10.1).

    Raises:
        DerError: the bytes are no sequence of elements.
    """
    waiting = [(start, end)]
    while waiting:
        at, stop = waiting.pop()
        while at < stop:
            part = element(data, at, stop)
            size = part.end - part.body
            if part.body - part.start != (2 if size < 0x80 else 2 + (size.bit_length() + 7) // 8):
                return False
            if part.tag & 0x20:
                waiting.append((part.body, part.end))
            at = part.end
    return True


def encode(tag: int, content: bytes) -> bytes:
    """An element with this tag and content, its length written in the fewest octets."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def nth(parts: list[Element], index: int, tag: int) -> Element:
    """One of several elements, by its index and with this tag.

    Raises:
        DerError: there are fewer elements, or it has another tag.
    """
    if index >= len(parts):
        raise DerError("lacks a part")
    return expect(parts[index], tag)


def integer(data: bytes, part: Element) -> int:
    """The number in an INTEGER."""
    return int.from_bytes(data[part.body : part.end], "big", signed=True)


def raw_extension(data: bytes, part: Element) -> RawExtension:
    """The extension in an element (RFC 5280 section 4.1).

    Raises:
        DerError: the element is no extension.
    """
    pieces = children(data, expect(part, SEQUENCE))
    oid = dotted(data, nth(pieces, 0, OID))
    critical = False
    if len(pieces) == 3:
        flag = nth(pieces, 1, BOOLEAN)
        critical = any(data[flag.body : flag.end])
    value = nth(pieces, len(pieces) - 1, OCTET_STRING)
    return RawExtension(oid, critical, data[value.body : value.end])


def signed_parts(data: bytes) -> tuple[Element, list[Element], list[Element], int]:
    """The outer element, its parts, the parts of the signed structure, and the index of the serial number in those."""
    outer = expect(element(data, 0, len(data)), SEQUENCE)
    parts = children(data, outer)
    inner = children(data, nth(parts, 0, SEQUENCE))
    skip = 1 if inner and inner[0].tag == 0xA0 else 0
    return outer, parts, inner, skip


def certificate(data: bytes) -> CertificateOutline:
    """The outline of the certificate at the start of the bytes.

    Raises:
        DerError: the bytes do not begin with a certificate.
    """
    outer, parts, inner, skip = signed_parts(data)
    version = 1
    if skip:
        version += max(-99, min(integer(data, nth(children(data, inner[0]), 0, INTEGER)), 99))
    serial = nth(inner, skip, INTEGER)
    algorithm = nth(inner, skip + 1, SEQUENCE)
    issuer = nth(inner, skip + 2, SEQUENCE)
    subject = nth(inner, skip + 4, SEQUENCE)
    spki = nth(inner, skip + 5, SEQUENCE)
    signature = nth(parts, 2, BIT_STRING)
    extensions: tuple[RawExtension, ...] = ()
    if inner[-1].tag == 0xA3:
        listed = nth(children(data, inner[-1]), 0, SEQUENCE)
        extensions = tuple(raw_extension(data, part) for part in children(data, listed))
    return CertificateOutline(
        end=outer.end,
        version=version,
        serial=integer(data, serial),
        algorithms_agree=whole(data, algorithm) == whole(data, nth(parts, 1, SEQUENCE)),
        issuer=whole(data, issuer),
        subject=whole(data, subject),
        spki=whole(data, spki),
        tbs=whole(data, parts[0]),
        signature=data[signature.body + 1 : signature.end],
        extensions=extensions,
    )


def encoded_oid(oid: str) -> bytes:
    """The DER of an object identifier in dotted notation."""
    numbers = [int(n) for n in oid.split(".")]
    content = b""
    for number in (numbers[0] * 40 + numbers[1], *numbers[2:]):
        octets = [number & 0x7F]
        while number := number >> 7:
            octets.append(0x80 | number & 0x7F)
        content += bytes(reversed(octets))
    return encode(OID, content)


def public_key(spki: bytes) -> PublicKeyOutline:
    """The type and size of the key in a SubjectPublicKeyInfo.

    Raises:
        DerError: the bytes are no SubjectPublicKeyInfo.
    """
    parts = children(spki, expect(element(spki, 0, len(spki)), SEQUENCE))
    described = children(spki, nth(parts, 0, SEQUENCE))
    algorithm = dotted(spki, nth(described, 0, OID))
    if algorithm == EC and len(described) == 2 and described[1].tag == OID:
        return PublicKeyOutline(algorithm, curve=dotted(spki, described[1]))
    if algorithm not in (RSA, RSA_PSS):
        return PublicKeyOutline(algorithm)
    bits = nth(parts, 1, BIT_STRING)
    numbers = children(spki, expect(element(spki, bits.body + 1, bits.end), SEQUENCE))
    modulus, exponent = integer(spki, nth(numbers, 0, INTEGER)), integer(spki, nth(numbers, 1, INTEGER))
    exponent = -1 if exponent.bit_length() > 64 else exponent
    # a modulus that lacks the zero octet before its first bit reads as a negative number
    return PublicKeyOutline(algorithm, modulus.bit_length(), exponent, modulus=abs(modulus))


def bare_subtrees(constraints: bytes) -> bool:
    """Whether all subtrees of name constraints have only a name: no minimum and no maximum (RFC 5280 4.2.1.10)."""
    try:
        lists = children(constraints, expect(element(constraints, 0, len(constraints)), SEQUENCE))
        subtrees = [subtree for part in lists for subtree in children(constraints, part)]
        return all(element(constraints, subtree.body, subtree.end).end == subtree.end for subtree in subtrees)
    except DerError:
        return False


def rsa_private_bits(data: bytes) -> int:
    """The bits of the modulus of an RSAPrivateKey (RFC 8017 A.1.2).

    Raises:
        DerError: the bytes are no RSAPrivateKey; or it has more than two primes, or a number longer than its modulus
            (a signature could then take any time).
    """
    numbers = children(data, expect(element(data, 0, len(data)), SEQUENCE))
    if len(numbers) != 9:
        raise DerError("is not an RSA key of two primes")
    lengths = [integer(data, expect(number, INTEGER)).bit_length() for number in numbers]
    if max(lengths) > lengths[1]:
        raise DerError("has a number longer than its modulus")
    return lengths[1]


def private_key_info(data: bytes) -> tuple[str, bytes]:
    """The algorithm (dotted) and the inner key of an unencrypted PKCS#8 structure (RFC 5958).

    Raises:
        DerError: the bytes are no such structure.
    """
    parts = children(data, expect(element(data, 0, len(data)), SEQUENCE))
    nth(parts, 0, INTEGER)
    algorithm = dotted(data, nth(children(data, nth(parts, 1, SEQUENCE)), 0, OID))
    inner = nth(parts, 2, OCTET_STRING)
    return algorithm, data[inner.body : inner.end]


def encrypted_key(data: bytes) -> tuple[Element, Element]:
    """The algorithm and the content of an EncryptedPrivateKeyInfo (RFC 5958).

    Raises:
        DerError: the bytes are no such structure.
    """
    parts = children(data, expect(element(data, 0, len(data)), SEQUENCE))
    return nth(parts, 0, SEQUENCE), nth(parts, 1, OCTET_STRING)


def derivation_cost(data: bytes, algorithm: Element) -> int:
    """The cost of deriving a key from a password, in rounds of a hash; a damaged file may give zero or less.

    Args:
        data: the bytes that contain the algorithm.
        algorithm: an AlgorithmIdentifier: PBES2 or PBMAC1 (RFC 8018), PBES1, or a scheme of RFC 7292 appendix C.

    Raises:
        DerError: the algorithm is unknown or damaged.
    """
    described = children(data, expect(algorithm, SEQUENCE))
    oid = dotted(data, nth(described, 0, OID))
    parameters = children(data, nth(described, 1, SEQUENCE))
    if oid in (_PBES2, _PBMAC1):
        derivation = children(data, nth(parameters, 0, SEQUENCE))
        oid = dotted(data, nth(derivation, 0, OID))
        parameters = children(data, nth(derivation, 1, SEQUENCE))
        if oid == _SCRYPT:
            rounds, size, lanes = (integer(data, nth(parameters, index, INTEGER)) for index in (1, 2, 3))
            if min(rounds, size, lanes) < 1:
                raise DerError("has impossible numbers")
            if 128 * size * (rounds + lanes) > _MAX_SCRYPT_MEMORY:
                return TOO_EXPENSIVE  # it needs too much memory, whatever its time
            return rounds * size * lanes // 2 + 4 * size * lanes  # the second term: PBKDF2 for the lanes (RFC 7914 6)
        if oid != _PBKDF2:
            raise DerError("is encrypted in an unknown way")
    # the parameters of PBKDF2, PBES1 and the PKCS#12 schemes all begin with salt and iteration count
    return integer(data, nth(parameters, 1, INTEGER))


def structure_kind(data: bytes) -> str:
    """The kind of structure that binary bytes have, by their outermost elements; empty for an unknown one.

    Returns:
        `certificate`, `key` (PKCS#8), `rsa key` (PKCS#1), `ec key` (SEC1), `encrypted key`, `pkcs12`, `pkcs7` or empty.
    """
    try:
        if data[1:2] == b"\x80":  # BER with an indefinite length, which only PKCS#7 and PKCS#12 files use
            first = element(data, 2, len(data))
            if first.tag == OID and dotted(data, first) == SIGNED_DATA:
                return "pkcs7"
            return "pkcs12" if first.tag == INTEGER and integer(data, first) == 3 else ""
        parts = children(data, expect(element(data, 0, len(data)), SEQUENCE))
        tags = [part.tag for part in parts[:3]]
        if tags[:2] == [OID, 0xA0] and dotted(data, parts[0]) == SIGNED_DATA:
            return "pkcs7"
        if tags[:2] == [SEQUENCE, OCTET_STRING]:
            return "encrypted key"
        if tags == [SEQUENCE, SEQUENCE, BIT_STRING]:
            return "certificate"
        if tags[:1] == [INTEGER]:
            version = integer(data, parts[0])
            if version == 3 and tags[1:2] == [SEQUENCE]:
                return "pkcs12"
            kinds = {SEQUENCE: "key", INTEGER: "rsa key", OCTET_STRING: "ec key"}
            return kinds.get(tags[1], "") if version in (0, 1) and len(tags) > 1 else ""
    except DerError:
        pass
    return ""
