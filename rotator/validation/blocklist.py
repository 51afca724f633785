"""Keys that are known to others: a file of their hashes in, whether a certificate has one of them out.

A line is the SHA-256 of a SubjectPublicKeyInfo in hexadecimal, as `openssl pkey -pubout -outform der | sha256sum` and
collections such as pwnedkeys.com have it, or in base64, as keys are pinned (`sha256//…=`); `#` begins a comment. What
else is on the line, such as a file name, is passed over.
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
"""Bytes that a blocklist may hold: about 250,000 keys."""

MAX_LINES = 1_000_000
"""Lines of it, comments and empty ones among them."""

_HEX = rb"[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31}"
_BASE64 = rb"(?:sha256/{1,2})?([A-Za-z0-9+/]{43}=)"
_HASH = rb"(?:%s|%s)" % (_HEX, _BASE64)
_LINES = re.compile(rb"(?:[ \t]*+(?:%s(?:[ \t,;][^\n]*+)?+)?+(?:#[^\n]*+)?+\r?+(?:\n|\Z))*+" % _HASH)
_AT_ITS_BEGIN = re.compile(rb"^[ \t]*+(?:(%s)|%s)" % (_HEX, _BASE64), re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class Blocklist:
    """Keys that must not be used.

    Args:
        name: the file that they came from.
        digest: its SHA-256 (hex).
        hashes: SHA-256 of each SubjectPublicKeyInfo.
    """

    name: str
    digest: str
    hashes: frozenset[bytes] = field(repr=False)

    @classmethod
    def from_text(cls, data: bytes, name: str) -> Blocklist:
        """Read a blocklist; an empty one is one.

        Raises:
            RotatorError: `parse-error` with the line that is no hash, or `too-large`.
        """
        title = shown(name)
        if len(data) > MAX_BLOCKLIST:
            message = f"{title} holds more than {MAX_BLOCKLIST >> 20} MiB."
            raise RotatorError(Code.TOO_LARGE, message, "Leave the keys of your own field in it.", Exit.REJECTED)
        if data.count(b"\n") > MAX_LINES:
            message = f"{title} has more than {MAX_LINES:,} lines."
            raise RotatorError(Code.TOO_LARGE, message, "Leave the keys of your own field in it.", Exit.REJECTED)
        read = _LINES.match(data)
        end = read.end() if read else 0
        if end < len(data):
            line = data.count(b"\n", 0, end) + 1
            message = f"{title} line {line}: this is no SHA-256 of a public key in hexadecimal or base64."
            hint = "Write 64 hexadecimal digits: openssl x509 -noout -pubkey | openssl pkey -pubin -outform der"
            raise RotatorError(Code.PARSE_ERROR, message, f"{hint} | sha256sum", Exit.REJECTED)
        found = (
            bytes.fromhex(one[1].replace(b":", b"").decode()) if one[1] else base64.b64decode(one[2])
            for one in _AT_ITS_BEGIN.finditer(data)
        )
        return cls(title, hashlib.sha256(data).hexdigest(), frozenset(found))


def problems_of(certificates: Sequence[Certificate], blocklist: Blocklist) -> tuple[Problem, ...]:
    """`compromised-key` for each certificate whose key is on the list; the trusted root is not asked about."""
    problems = []
    for number, certificate in enumerate(certificates):
        found = hashlib.sha256(certificate.outline.spki).digest()
        if found in blocklist.hashes:
            message = f"has a key that is known to others ({found.hex()[:16]}… is in {blocklist.name})"
            hint = (
                "Make a new key and order the certificate with it, at once: whoever has the key can pose as this host."
            )
            hint = hint if number == 0 else "Ask the CA for another chain."
            problems.append(about(certificate, Code.COMPROMISED_KEY, message, hint))
    return tuple(problems)
