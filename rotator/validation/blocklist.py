"""The blocklist of compromised keys: a file of their hashes in, the certificates with such a key out.

A line has the SHA-256 of a SubjectPublicKeyInfo in hexadecimal, as `openssl pkey -pubout -outform der | sha256sum` and
collections such as pwnedkeys.com write it, or in base64, as pinned keys have it (`sha256//…=`). `#` begins a comment,
and other text after the hash, such as a file name, is ignored.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code, Problem
from rotator.core.text import shown
from rotator.x509.certificate import Certificate, about

MAX_BLOCKLIST = 16 * 1024 * 1024
"""The most bytes of a blocklist: about 250,000 keys."""

MAX_LINES = 1_000_000
"""The most lines of a blocklist, with comments and empty lines."""

_TOO_LARGE_HINT = "Keep only the keys that your own hosts and CAs may have used."

_HEX = rb"[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31}"
_BASE64 = rb"(?:sha256/{1,2})?([A-Za-z0-9+/]{43}=)"
_HASH = rb"(?:%s|%s)" % (_HEX, _BASE64)
_LINES = re.compile(rb"(?:[ \t]*+(?:%s(?:[ \t,;][^\n]*+)?+)?+(?:#[^\n]*+)?+\r?+(?:\n|\Z))*+" % _HASH)
_HASH_AT_LINE_START = re.compile(rb"^[ \t]*+(?:(%s)|%s)" % (_HEX, _BASE64), re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class Blocklist:
    """Keys that must not be used.

    Args:
        name: the file of the blocklist.
        digest: the SHA-256 (hex) of the file.
        hashes: the SHA-256 of each SubjectPublicKeyInfo.
    """

    name: str
    digest: str
    hashes: frozenset[bytes] = field(repr=False)

    @classmethod
    def from_text(cls, data: bytes, name: str) -> Blocklist:
        """Reads a blocklist; an empty file is valid.

        Args:
            data: the content of the file.
            name: its name for messages.

        Raises:
            RotatorError: `parse-error` with the first line that is no hash, or `too-large`.
        """
        title = shown(name)
        if len(data) > MAX_BLOCKLIST:
            message = f"{title} holds more than {MAX_BLOCKLIST >> 20} MiB."
            raise RotatorError(Code.TOO_LARGE, message, _TOO_LARGE_HINT, Exit.REJECTED)
        if data.count(b"\n") > MAX_LINES:
            message = f"{title} has more than {MAX_LINES:,} lines."
            raise RotatorError(Code.TOO_LARGE, message, _TOO_LARGE_HINT, Exit.REJECTED)
        valid_lines = _LINES.match(data)
        end = valid_lines.end() if valid_lines else 0
        if end < len(data):
            line = data.count(b"\n", 0, end) + 1
            message = f"{title} line {line}: this is no SHA-256 of a public key in hexadecimal or base64."
            hint = "Write 64 hexadecimal digits: openssl x509 -noout -pubkey | openssl pkey -pubin -outform der"
            raise RotatorError(Code.PARSE_ERROR, message, f"{hint} | sha256sum", Exit.REJECTED)
        hashes = (
            bytes.fromhex(match[1].replace(b":", b"").decode()) if match[1] else base64.b64decode(match[2])
            for match in _HASH_AT_LINE_START.finditer(data)
        )
        return cls(title, hashlib.sha256(data).hexdigest(), frozenset(hashes))


def problems_of(certificates: Sequence[Certificate], blocklist: Blocklist) -> tuple[Problem, ...]:
    """`compromised-key` for each certificate whose key is on the list.

    Args:
        certificates: the leaf and its intermediates, without the trusted root.
        blocklist: the compromised keys.
    """
    problems = []
    for number, certificate in enumerate(certificates):
        key_hash = hashlib.sha256(certificate.outline.spki).digest()
        if key_hash in blocklist.hashes:
            reason = f"has a key that is known to others ({key_hash.hex()[:16]}… is in {blocklist.name})"
            hint = "Make a new key and order the certificate with it at once: others can impersonate this host."
            hint = hint if number == 0 else "Ask the CA for another chain."
            problems.append(about(certificate, Code.COMPROMISED_KEY, reason, hint))
    return tuple(problems)
