"""The reader of private keys: a PEM block in, a usable key of bounded cost out, and its proof against a certificate.

No message, exception or `repr` of this module contains a byte of a key. The library's own messages about a key are
dropped.
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
"""The most rounds of a hash for decrypting all keys of a candidate: half a second (OpenSSL's default is 2,048)."""

MAX_UNSEEN = 1300
"""The most octets of an encrypted key that only the library can decrypt: an RSA key of 2048 bits has 1,220."""

MIN_RSA_BITS = 1024
"""The fewest bits of an RSA key that is read: RSA-768 was factored in 2009. The policy may demand more of the leaf."""

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

# RFC 1421 as OpenSSL writes it. On a vector that is too short, the library panics, past every handler of errors.
_OLD_STYLE = re.compile(
    r"Proc-Type: *4, *ENCRYPTED *\n"
    r"DEK-Info: *(?:AES-(?:128|192|256)-CBC, *[0-9A-Fa-f]{32}|DES(?:-EDE3)?-CBC, *[0-9A-Fa-f]{16}) *"
)

_OLD_LABELS = frozenset({"RSA PRIVATE KEY", "EC PRIVATE KEY"})

_ORDER_NEW = "Order the certificate with an ECDSA P-256 or RSA-2048 key."


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A private key that was read, and its place in a file.

    Args:
        key_type: its type.
        spki: the DER of its public half.
        private: the key, for signing.
        secret: the key as unencrypted PKCS#8 PEM, for storing.
        file: the file that contains it.
        line: its 1-based line in that file; 0 in a binary file.
    """

    key_type: KeyType
    spki: bytes = field(repr=False)
    private: Private = field(repr=False)
    secret: Secret = field(repr=False)
    file: str
    line: int

    def proves(self, leaf: Certificate) -> bool:
        """Whether the leaf's public key verifies a signature of this key.

        A comparison of moduli or points would accept a key whose private half is damaged.
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
            return False  # an internal error of OpenSSL is its answer to numbers that no computation can use
        return True

    def fits(self, leaf: Certificate) -> bool:
        """Whether its public half equals the leaf's, also in another encoding (compressed point, absent parameters)."""
        if self.spki == leaf.outline.spki:
            return True
        if self.key_type is not leaf.key_type:
            return False
        try:
            public, own = leaf.loaded.public_key(), self.private.public_key()
        except (UnsupportedAlgorithm, ValueError):
            return False
        return public == own


class _RefusedError(Exception):
    """A key that cannot be used, with a message of our own: no text of the library about a key is passed on."""

    def __init__(self, code: Code, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.hint = hint


def cost_of(block: Block, password: Secret | None) -> int:
    """The cost of decrypting a key, in rounds of a hash; 0 if it is not encrypted or cannot be read."""
    if block.label != "ENCRYPTED PRIVATE KEY" or password is None:
        return 0
    try:
        algorithm, _ = der.encrypted_key(block.data)
        return max(0, pbe.cost(block.data, algorithm, password.reveal()))
    except der.DerError:
        return 0


def read_key(block: Block, password: Secret | None = None, budget: int = MAX_COST) -> Key | Problem:
    """Reads a private key: PKCS#8, PKCS#1 or SEC1, encrypted or not.

    Args:
        block: a block whose label is one of `pem.KEY_LABELS`.
        password: decrypts an encrypted key.
        budget: the most rounds of a hash for decrypting it.

    Returns:
        The key, or the problem: `key-encrypted`, `bad-password`, `key-format`, `key-type`, `key-large`, `weak-key`,
        `key-invalid` or `parse-error`. No content makes this function raise or spend more than the budget.
    """
    try:
        with contained():
            return _read(block, password, budget)
    except PanicError:
        refused = _RefusedError(Code.PARSE_ERROR, f"the private key cannot be read: {BROKE_OFF}.", HINT)
    except _RefusedError as error:
        refused = error
    message = f"{place(block.file, block.line)}: {refused.reason}"
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
        if not _consistent(numbers):
            raise _damaged()
        key_type = KeyType.RSA
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        if private.curve.name not in CURVES.values():
            reason = f"a key on the curve {private.curve.name}, which browsers do not support."
            raise _RefusedError(Code.KEY_TYPE, reason, _ORDER_NEW)
        key_type = KeyType.ECDSA
    else:
        key_type = KeyType.ED25519
    try:
        spki = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        secret = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _damaged() from None
    return Key(key_type, spki, private, Secret(secret), block.file, block.line)


def _consistent(numbers: rsa.RSAPrivateNumbers) -> bool:
    """Whether the numbers of an RSA key fit together (RFC 8017 3.2); this costs microseconds, as no prime is tested.

    OpenSSL signs with the intact half of a damaged key, so a signature alone would accept the key; other libraries and
    hardware modules refuse it.
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
        "Restore the key from its origin, or have the certificate issued again for a new key.",
    )


def _unreadable(reason: str) -> _RefusedError:
    hint = "Copy the key file again, whole; openssl pkey -in FILE -noout must read it."
    return _RefusedError(Code.KEY_FORMAT, reason, hint)


def _check_rsa(bits: int) -> None:
    if bits > MAX_RSA_BITS:
        reason = f"an RSA key of {bits} bits; more than {MAX_RSA_BITS} bits make every handshake too slow."
        raise _RefusedError(Code.KEY_LARGE, reason, _ORDER_NEW)
    if bits < MIN_RSA_BITS:
        raise _RefusedError(Code.WEAK_KEY, f"an RSA key of {bits} bits can be broken.", _ORDER_NEW)


def _check_header(block: Block) -> None:
    """Checks the type and size of an unencrypted key from its structure, before any computation with it.

    Raises:
        _RefusedError: the structure does not fit the label, or the type or size is not accepted.
    """
    try:
        if block.label == "RSA PRIVATE KEY":
            _check_rsa(der.rsa_private_bits(block.data))
        elif block.label == "EC PRIVATE KEY":
            outer = der.expect(der.element(block.data, 0, len(block.data)), der.SEQUENCE)
            parts = der.children(block.data, outer)
            der.nth(parts, 0, der.INTEGER), der.nth(parts, 1, der.OCTET_STRING)  # the library accepts any key type here
        else:
            algorithm, inner = der.private_key_info(block.data)
            if algorithm == der.RSA:
                _check_rsa(der.rsa_private_bits(inner))
            elif algorithm == der.DSA:
                raise _RefusedError(Code.KEY_TYPE, "a DSA key, which no TLS client accepts.", _ORDER_NEW)
            elif algorithm not in (der.EC, der.ED25519):
                reason = f"a key of a type ({algorithm}) that browsers do not support."
                raise _RefusedError(Code.KEY_TYPE, reason, _ORDER_NEW)
    except der.DerError:
        raise _unreadable(f"the {block.label} block holds no readable key.") from None


def _check_encrypted(block: Block, password: Secret | None, budget: int) -> None:
    """Checks that there is a password and that decrypting with it stays within the budget.

    Raises:
        _RefusedError: there is no password, or decrypting costs too much.
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
            raise _unreadable("the header of the encrypted key (DEK-Info) names no cipher, or an unsupported one.")
        if block.label not in _OLD_LABELS:
            raise _unreadable(f"the {block.label} block has the header of an encrypted key in the old style.")
        return
    try:
        algorithm, _ = der.encrypted_key(block.data)
        cost = pbe.cost(block.data, algorithm, password.reveal())
    except der.DerError:
        raise _unreadable("the encrypted key cannot be read.") from None
    if cost < 1:
        raise _unreadable("the encrypted key names an impossible number of rounds.")
    if cost > budget:
        reason = f"decrypting the keys takes more than {MAX_COST:,} rounds of a hash, or too much memory."
        hint = "Encrypt it with fewer: openssl pkcs8 -topk8 -iter 100000 -in FILE -out privkey.pem"
        raise _RefusedError(Code.KEY_FORMAT, reason, hint)


def _opened(block: Block, secret: bytes) -> Block:
    """The decrypted but unparsed key; the same block if only the library can decrypt it.

    The library would parse it at once, and it computes the public half of a DSA key of any size: minutes for 200 KiB.

    Raises:
        _RefusedError: the password does not decrypt it; or it is large and its cipher is not supported here.
    """
    if block.headers:
        return block  # by its label, it contains an RSA key or a key on a named curve
    try:
        algorithm, content = der.encrypted_key(block.data)
        encrypted = block.data[content.body : content.end]
        for plain in pbe.decrypted(block.data, algorithm, secret, encrypted):
            if der.structure_kind(plain) == "key":
                return Block("PRIVATE KEY", plain, block.file, block.line)
    except (der.DerError, IndexError):
        raise _unreadable("the encrypted key cannot be read.") from None
    except pbe.UnknownSchemeError:
        if len(encrypted) <= MAX_UNSEEN:
            return block
        reason = "the key is encrypted with an unusual cipher, and too large to be decrypted before its type is known."
        hint = "Encrypt it with the usual cipher: openssl pkcs8 -topk8 -in FILE -out privkey.pem"
        raise _RefusedError(Code.KEY_FORMAT, reason, hint) from None
    raise _wrong_password()


def _wrong_password() -> _RefusedError:
    reason = "the password does not decrypt the key, or the key is damaged."
    return _RefusedError(Code.BAD_PASSWORD, reason, "Check the password file.")


def _load(block: Block, password: Secret | None, *, encrypted: bool) -> Private:
    secret = password.reveal() if password else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if block.headers:
                private = serialization.load_pem_private_key(
                    encode_block(block), secret, unsafe_skip_rsa_key_validation=True
                )
            else:
                # the library's checks of an RSA key take 45 ms at 2048 bits and seconds at 8192; `proves` finds more
                private = serialization.load_der_private_key(block.data, secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        reason = "a key of a type that browsers do not support (perhaps with explicit curve parameters)."
        raise _RefusedError(Code.KEY_TYPE, reason, _ORDER_NEW) from None
    except (ValueError, TypeError, OverflowError, InternalError):
        if encrypted:
            raise _wrong_password() from None
        raise _damaged() from None
    if isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        return private
    raise _RefusedError(Code.KEY_TYPE, "a key of a type that browsers do not support.", _ORDER_NEW)
