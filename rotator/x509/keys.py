"""Private keys: a PEM block in, a bounded, usable key out, and its proof against a certificate; nothing is stored here.

No message, exception or `repr` made here holds a byte of a key. What a library says about a key is not passed on.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from rotator.core.model import KeyType, Secret
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import place
from rotator.x509 import der, pbe
from rotator.x509.certificate import CURVES, MAX_RSA_BITS, Certificate
from rotator.x509.panics import BROKE_OFF, HINT, PanicError, contained
from rotator.x509.pem import Block, encode_block

MAX_COST = 500_000
"""Rounds of a hash that decrypting all keys of a candidate may take: half a second (OpenSSL's default is 2,048)."""

MAX_UNSEEN = 1300
"""Octets of an encrypted key under a cipher that the library alone knows: an RSA key of 2048 bits has 1,220."""

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

# RFC 1421 as OpenSSL writes it. The library panics, past every handler, over a vector that is too short.
_OLD_STYLE = re.compile(
    r"Proc-Type: *4, *ENCRYPTED *\n"
    r"DEK-Info: *(?:AES-(?:128|192|256)-CBC, *[0-9A-Fa-f]{32}|DES(?:-EDE3)?-CBC, *[0-9A-Fa-f]{16}) *"
)

_OLD_LABELS = frozenset({"RSA PRIVATE KEY", "EC PRIVATE KEY"})

_ORDER_NEW = "Order the certificate with an ECDSA P-256 or RSA-2048 key."


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A private key that could be read.

    Args:
        kind: what it is.
        spki: DER of its public half.
        private: the key, for signing.
        secret: unencrypted PKCS#8 PEM, for storing.
        file: where it was found.
        line: 1-based line there.
    """

    kind: KeyType
    spki: bytes = field(repr=False)
    private: Private = field(repr=False)
    secret: Secret = field(repr=False)
    file: str
    line: int

    def proves(self, leaf: Certificate) -> bool:
        """Whether a signature made with this key verifies with the leaf's public key.

        Comparing moduli or points would pass a key whose private half is damaged.
        """
        message = b"rotator: does this key belong to this certificate?"
        try:
            public = leaf.loaded.public_key()
            if isinstance(self.private, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey):
                scheme = padding.PKCS1v15()
                public.verify(self.private.sign(message, scheme, hashes.SHA256()), message, scheme, hashes.SHA256())
            elif isinstance(self.private, ec.EllipticCurvePrivateKey) and isinstance(public, ec.EllipticCurvePublicKey):
                algorithm = ec.ECDSA(hashes.SHA256())
                public.verify(self.private.sign(message, algorithm), message, algorithm)
            elif isinstance(self.private, ed25519.Ed25519PrivateKey) and isinstance(public, ed25519.Ed25519PublicKey):
                public.verify(self.private.sign(message), message)
            else:
                return False
        except (InvalidSignature, InternalError, UnsupportedAlgorithm, ValueError, TypeError):
            return False  # OpenSSL has an internal error for numbers that no computation can use
        return True

    def fits(self, leaf: Certificate) -> bool:
        """Whether its public half is the leaf's, be it written differently (a compressed point, absent parameters)."""
        if self.spki == leaf.outline.spki:
            return True
        if self.kind is not leaf.key_type:
            return False
        try:
            public, own = leaf.loaded.public_key(), self.private.public_key()
        except (UnsupportedAlgorithm, ValueError):
            return False
        return public == own


class _RefusedError(Exception):
    """A key that cannot be used; says why in words of our own."""

    def __init__(self, code: Code, words: str, hint: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words
        self.hint = hint


def cost_of(block: Block, password: Secret | None) -> int:
    """What decrypting a key costs, in rounds of a hash; 0 for one that is not encrypted, or cannot be read."""
    if block.label != "ENCRYPTED PRIVATE KEY" or password is None:
        return 0
    try:
        algorithm, _ = der.encrypted_key(block.data)
        return max(0, pbe.cost(block.data, algorithm, password.reveal()))
    except der.DerError:
        return 0


def read_key(block: Block, password: Secret | None = None, budget: int = MAX_COST) -> Key | Problem:
    """Read a private key: PKCS#8, PKCS#1 or SEC1, encrypted or not.

    Args:
        block: a block whose label is one of `pem.KEY_LABELS`.
        password: for an encrypted one.
        budget: rounds of a hash that may be spent on decrypting it.

    Returns:
        The key, or the problem: `key-encrypted`, `bad-password`, `key-format`, `key-type`, `key-large`, `weak-key`,
        `key-invalid` or `parse-error`. Never raises, and never spends more than the budget.
    """
    try:
        with contained():
            return _read(block, password, budget)
    except PanicError:
        refused = _RefusedError(Code.PARSE_ERROR, f"the private key cannot be read: {BROKE_OFF}.", HINT)
    except _RefusedError as error:
        refused = error
    message = f"{place(block.file, block.line)}: {refused.words}"
    return Problem(refused.code, Severity.REJECT, message, refused.hint, block.file, block.line)


def _read(block: Block, password: Secret | None, budget: int) -> Key:
    if block.label == "ENCRYPTED PRIVATE KEY" or block.headers:
        _check_encrypted(block, password, budget)
        block = _opened(block, password.reveal() if password else b"")
    encrypted = block.label == "ENCRYPTED PRIVATE KEY" or bool(block.headers)
    if not encrypted:
        _check_header(block)
    private = _load(block, password if encrypted else None, encrypted=encrypted)
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = private.private_numbers()
        longest = max(numbers.p, numbers.q, numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp).bit_length()
        _check_rsa(private.key_size)
        if longest > private.key_size:
            raise _damaged()
        if not _agree(numbers):
            raise _damaged()
        kind = KeyType.RSA
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        if private.curve.name not in CURVES.values():
            words = f"a key on the curve {private.curve.name}, which browsers do not know."
            raise _RefusedError(Code.KEY_TYPE, words, _ORDER_NEW)
        kind = KeyType.ECDSA
    else:
        kind = KeyType.ED25519
    try:
        spki = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        secret = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _damaged() from None
    return Key(kind, spki, private, Secret(secret), block.file, block.line)


def _agree(numbers: rsa.RSAPrivateNumbers) -> bool:
    """Whether the parts of an RSA key belong together (RFC 8017 3.2), which costs microseconds; no prime is tested.

    OpenSSL signs with whichever half of a damaged key is whole, so a signature alone passes it; other libraries, a
    hardware module and the next program that reads the file do not.
    """
    p, q, public = numbers.p, numbers.q, numbers.public_numbers
    if p < 3 or q < 3 or p * q != public.n:
        return False
    of_p = public.e * numbers.d % (p - 1) == public.e * numbers.dmp1 % (p - 1) == 1
    of_q = public.e * numbers.d % (q - 1) == public.e * numbers.dmq1 % (q - 1) == 1
    return of_p and of_q and q * numbers.iqmp % p == 1


def _damaged() -> _RefusedError:
    return _RefusedError(
        Code.KEY_INVALID,
        "the private key is damaged: its parts contradict each other.",
        "Restore the key from where it was made; without it the certificate has to be issued again.",
    )


def _format(words: str) -> _RefusedError:
    hint = "Copy the key file again, whole; openssl pkey -in FILE -noout must read it."
    return _RefusedError(Code.KEY_FORMAT, words, hint)


def _check_rsa(bits: int) -> None:
    if bits > MAX_RSA_BITS:
        words = f"an RSA key of {bits} bits; more than {MAX_RSA_BITS} costs every handshake too much."
        raise _RefusedError(Code.KEY_LARGE, words, _ORDER_NEW)
    if bits < 1024:
        raise _RefusedError(Code.WEAK_KEY, f"an RSA key of {bits} bits can be broken.", _ORDER_NEW)


def _check_header(block: Block) -> None:
    """What the structure says, before anything is computed.

    Raises:
        _RefusedError: it is not what the label says, or is of a kind or size that is not taken.
    """
    try:
        if block.label == "RSA PRIVATE KEY":
            _check_rsa(der.rsa_private_bits(block.data))
        elif block.label == "EC PRIVATE KEY":
            outer = der.expect(der.element(block.data, 0, len(block.data)), der.SEQUENCE)
            parts = der.children(block.data, outer)
            der.nth(parts, 0, der.INTEGER), der.nth(parts, 1, der.OCTET_STRING)  # the library reads any kind there
        else:
            algorithm, inner = der.private_key_info(block.data)
            if algorithm == der.RSA:
                _check_rsa(der.rsa_private_bits(inner))
            elif algorithm == der.DSA:
                raise _RefusedError(Code.KEY_TYPE, "a DSA key, which no TLS client accepts.", _ORDER_NEW)
            elif algorithm not in (der.EC, der.ED25519):
                words = f"a key of a kind ({algorithm}) that browsers do not know."
                raise _RefusedError(Code.KEY_TYPE, words, _ORDER_NEW)
    except der.DerError:
        raise _format(f"the {block.label} block holds no key that can be read.") from None


def _check_encrypted(block: Block, password: Secret | None, budget: int) -> None:
    """Whether there is a password, and what it will cost to use it.

    Raises:
        _RefusedError: there is none, or it costs too much.
    """
    if password is None:
        raise _RefusedError(
            Code.KEY_ENCRYPTED,
            "the private key is encrypted, and there is no password for it.",
            "Name its password file (--password-file, or `password_file` of the site), or decrypt the key: "
            "openssl pkey -in FILE -out privkey.pem",
        )
    if block.headers:
        if not _OLD_STYLE.fullmatch("\n".join(block.headers)):
            raise _format("the encrypted key does not say how it is encrypted (DEK-Info), or in a way not known here.")
        if block.label not in _OLD_LABELS:
            raise _format(f"the header of an encrypted key in the old style stands in the block {block.label}.")
        return
    try:
        algorithm, _ = der.encrypted_key(block.data)
        cost = pbe.cost(block.data, algorithm, password.reveal())
    except der.DerError:
        raise _format("the encrypted key cannot be read.") from None
    if cost < 1:
        raise _format("the encrypted key asks for a number of rounds that cannot be.")
    if cost > budget:
        words = f"decrypting the keys takes more than {MAX_COST:,} rounds of a hash, or too much memory."
        hint = "Encrypt it with fewer: openssl pkcs8 -topk8 -iter 100000 -in FILE -out privkey.pem"
        raise _RefusedError(Code.KEY_FORMAT, words, hint)


def _opened(block: Block, secret: bytes) -> Block:
    """The key, decrypted but not looked into; the same block where the library alone can decrypt it.

    The library would read it at once, and computes the public half of a DSA key of any size: minutes for 200 KiB.

    Raises:
        _RefusedError: the password does not open it; or it is large and of a cipher that is not known here.
    """
    if block.headers:
        return block  # what is in there is an RSA key or one of a named curve, by its label
    try:
        algorithm, content = der.encrypted_key(block.data)
        held = block.data[content.body : content.end]
        for plain in pbe.decrypted(block.data, algorithm, secret, held):
            if der.what(plain) == "key":
                return Block("PRIVATE KEY", plain, block.file, block.line)
    except (der.DerError, IndexError):
        raise _format("the encrypted key cannot be read.") from None
    except pbe.UnknownSchemeError:
        if len(held) <= MAX_UNSEEN:
            return block
        words = "the key is encrypted in an unusual way, and too large for its kind to be seen beforehand."
        hint = "Encrypt it otherwise: openssl pkcs8 -topk8 -in FILE -out privkey.pem"
        raise _RefusedError(Code.KEY_FORMAT, words, hint) from None
    raise _wrong_password()


def _wrong_password() -> _RefusedError:
    words = "the password does not decrypt the key, or the key is damaged."
    return _RefusedError(Code.BAD_PASSWORD, words, "Check the password file.")


def _load(block: Block, password: Secret | None, *, encrypted: bool) -> Private:
    secret = password.reveal() if password else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if block.headers:
                found = serialization.load_pem_private_key(
                    encode_block(block), secret, unsafe_skip_rsa_key_validation=True
                )
            else:
                # its range of checks on an RSA key costs 45 ms at 2048 bits and seconds at 8192; `proves` catches more
                found = serialization.load_der_private_key(block.data, secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        words = "a key of a kind (explicit curve parameters, perhaps) that browsers do not know."
        raise _RefusedError(Code.KEY_TYPE, words, _ORDER_NEW) from None
    except (ValueError, TypeError, OverflowError, InternalError):
        if encrypted:
            raise _wrong_password() from None
        raise _damaged() from None
    if isinstance(found, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        return found
    raise _RefusedError(Code.KEY_TYPE, "a key of a kind that browsers do not know.", _ORDER_NEW)
