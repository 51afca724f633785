"""Password-based decryption of private keys and of the parts of a PKCS#12 file (RFC 8018, RFC 7292 appendix B).

The library parses everything that it decrypts at once: all keys nested in a PKCS#12 file, or a key type whose public
half it computes at any size. This module only decrypts, so that the caller can check the cost of the content before
the library parses it. The ciphers and hashes are the library's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from rotator.x509 import der
from rotator.x509.der import DerError, Element

_PBES2 = "1.2.840.113549.1.5.13"
_PBKDF2 = "1.2.840.113549.1.5.12"
_SCRYPT = "1.3.6.1.4.1.11591.4.11"
_3DES_CBC = "1.2.840.113549.3.7"
_AES_CBC = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}
_PRF = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.8": "sha224",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
_SHA1_3DES = "1.2.840.113549.1.12.1.3"
_SHA1_RC2 = frozenset({"1.2.840.113549.1.12.1.5", "1.2.840.113549.1.12.1.6"})
_SCRYPT_MEMORY = 64 << 20
"""The limit in bytes for `hashlib.scrypt`; `der.derivation_cost` has refused more than half of it before."""


class UnknownSchemeError(Exception):
    """The encryption scheme is not supported here."""


def is_rc2(data: bytes, algorithm: Element) -> bool:
    """Whether the scheme is RC2, with which older Windows, Java and OpenSSL encrypt certificates.

    RC2 is not decrypted here.

    Raises:
        DerError: the element is no AlgorithmIdentifier.
    """
    return der.dotted(data, der.nth(der.children(data, algorithm), 0, der.OID)) in _SHA1_RC2


def cost(data: bytes, algorithm: Element, secret: bytes) -> int:
    """The cost of `decrypted`, in rounds of a hash (see `der.derivation_cost`).

    Args:
        data: the bytes that contain the algorithm.
        algorithm: the AlgorithmIdentifier.
        secret: the password; an empty one costs twice as much if the scheme encodes it in two ways.

    Raises:
        DerError: the algorithm is damaged, or its cost is unknown.
    """
    scheme = der.dotted(data, der.nth(der.children(data, algorithm), 0, der.OID))
    return der.derivation_cost(data, algorithm) * (len(_as_bmp(secret)) if scheme == _SHA1_3DES else 1)


def decrypted(data: bytes, algorithm: Element, secret: bytes, encrypted: bytes) -> Iterator[bytes]:
    """The decrypted bytes, once for each encoding of the password whose padding is right.

    Correct padding is weak evidence: about one wrong password in 256 yields noise with correct padding.

    Args:
        data: the bytes that contain the algorithm.
        algorithm: the AlgorithmIdentifier; the caller has checked its `cost`.
        secret: the password, UTF-8.
        encrypted: the encrypted bytes.

    Raises:
        DerError: the algorithm is damaged.
        UnknownSchemeError: the scheme is not supported here.
    """
    described = der.children(data, der.expect(algorithm, der.SEQUENCE))
    scheme = der.dotted(data, der.nth(described, 0, der.OID))
    parameters = der.children(data, der.nth(described, 1, der.SEQUENCE))
    if scheme == _PBES2:
        ciphers = [_pbes2(data, parameters, secret)]
    elif scheme == _SHA1_3DES:
        salt = _octets(data, der.nth(parameters, 0, der.OCTET_STRING))
        rounds = der.integer(data, der.nth(parameters, 1, der.INTEGER))
        ciphers = [_pkcs12_3des(encoded, salt, rounds) for encoded in _as_bmp(secret)]
    else:
        raise UnknownSchemeError
    for cipher in ciphers:
        size = 16 if isinstance(cipher.algorithm, AES) else 8
        if not encrypted or len(encrypted) % size:
            raise DerError("has an impossible length")
        decryptor = cipher.decryptor()
        plain = decryptor.update(encrypted) + decryptor.finalize()
        if 1 <= plain[-1] <= size and plain.endswith(plain[-1:] * plain[-1]):
            yield plain[: -plain[-1]]


Combined = Cipher[modes.CBC]


def _octets(data: bytes, part: Element) -> bytes:
    return data[part.body : part.end]


def _pbes2(data: bytes, parameters: list[Element], secret: bytes) -> Combined:
    scheme = der.children(data, der.nth(parameters, 1, der.SEQUENCE))
    name = der.dotted(data, der.nth(scheme, 0, der.OID))
    length = 24 if name == _3DES_CBC else _AES_CBC.get(name)
    if length is None:
        raise UnknownSchemeError
    vector = _octets(data, der.nth(scheme, 1, der.OCTET_STRING))
    if len(vector) != (8 if name == _3DES_CBC else 16):
        raise DerError("has an impossible initialization vector")
    key = _derived(data, der.nth(parameters, 0, der.SEQUENCE), secret, length)
    return Cipher(TripleDES(key) if name == _3DES_CBC else AES(key), modes.CBC(vector))


def _derived(data: bytes, derivation: Element, secret: bytes, length: int) -> bytes:
    described = der.children(data, derivation)
    name = der.dotted(data, der.nth(described, 0, der.OID))
    parameters = der.children(data, der.nth(described, 1, der.SEQUENCE))
    salt = _octets(data, der.nth(parameters, 0, der.OCTET_STRING))
    if name == _SCRYPT:
        rounds, size, lanes = (der.integer(data, der.nth(parameters, index, der.INTEGER)) for index in (1, 2, 3))
        try:
            return hashlib.scrypt(secret, salt=salt, n=rounds, r=size, p=lanes, maxmem=_SCRYPT_MEMORY, dklen=length)
        except ValueError:
            raise DerError("has impossible numbers") from None
    if name != _PBKDF2:
        raise UnknownSchemeError
    prf = "sha1"
    if parameters[-1].tag == der.SEQUENCE:
        named = der.dotted(data, der.nth(der.children(data, parameters[-1]), 0, der.OID))
        if named not in _PRF:
            raise UnknownSchemeError
        prf = _PRF[named]
    rounds = der.integer(data, der.nth(parameters, 1, der.INTEGER))
    return hashlib.pbkdf2_hmac(prf, secret, salt, rounds, length)


# -- RFC 7292 appendix B, with SHA-1


def _as_bmp(secret: bytes) -> list[bytes]:
    """The encodings of a password as a BMPString with two zero octets (RFC 7292 B.1); an empty one has two."""
    try:
        text = secret.decode("utf-8").encode("utf-16-be")
    except UnicodeDecodeError:
        text = secret.decode("latin-1").encode("utf-16-be")
    return [text + b"\0\0"] if secret else [b"\0\0", b""]


def _pkcs12_3des(secret: bytes, salt: bytes, rounds: int) -> Combined:
    key, vector = _pkcs12_bytes(1, secret, salt, rounds, 24), _pkcs12_bytes(2, secret, salt, rounds, 8)
    return Cipher(TripleDES(key), modes.CBC(vector))


def _filled(data: bytes) -> bytes:
    """The bytes repeated up to a whole number of 64-octet blocks."""
    size = -(-len(data) // 64) * 64
    return (data * (size // len(data) + 1))[:size] if data else b""


def _pkcs12_bytes(purpose: int, secret: bytes, salt: bytes, rounds: int, length: int) -> bytes:
    """Key or vector octets derived from a password (RFC 7292 B.2).

    Args:
        purpose: 1 for a key, 2 for an initialization vector (B.3).
        secret: the encoded password.
        salt: the salt.
        rounds: the iteration count.
        length: the octets to derive.
    """
    salt_and_secret = _filled(salt) + _filled(secret)
    derived = b""
    while True:
        block = bytes((purpose,)) * 64 + salt_and_secret
        for _ in range(rounds):
            block = hashlib.sha1(block, usedforsecurity=False).digest()
        derived += block
        if len(derived) >= length:
            return derived[:length]
        addend = int.from_bytes(_filled(block)[:64], "big") + 1
        parts = (salt_and_secret[i : i + 64] for i in range(0, len(salt_and_secret), 64))
        sums = ((int.from_bytes(part, "big") + addend) % (1 << 512) for part in parts)
        salt_and_secret = b"".join(total.to_bytes(64, "big") for total in sums)
