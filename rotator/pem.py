"""The PEM grammar: bytes of a file in, its blocks with their line numbers out; nothing inside a block is parsed here.

It is what OpenSSL's reader (PEM_read_bio, which nginx calls) takes, less everything that this reader takes silently
and wrongly: text that it skips although a human sees a block in it. RFC 7468 names the pieces.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rotator import der
from rotator.model import Code, Problem, Severity, SourceFile

MAX_FILE = 256 * 1024
"""Bytes that one file may hold."""

CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
KEY_LABELS = frozenset({"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})

# Blocks that stand in such files by custom, that nginx passes over, and that change nothing for a client.
_HARMLESS = frozenset(
    {"EC PARAMETERS", "DH PARAMETERS", "X509 CRL", "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST", "PUBLIC KEY"}
)
_CONVERT = {
    "TRUSTED CERTIFICATE": (
        Code.PARSE_ERROR,
        "an OpenSSL TRUSTED CERTIFICATE, which carries trust settings with it",
        "convert it: openssl x509 -in {file} -out cert.pem",
    ),
    "PKCS7": (
        Code.PARSE_ERROR,
        "a PKCS#7 block",
        "convert it: openssl pkcs7 -print_certs -in {file} -out chain.pem",
    ),
    "CMS": (Code.PARSE_ERROR, "a CMS block", "convert it: openssl pkcs7 -print_certs -in {file} -out chain.pem"),
    "OPENSSH PRIVATE KEY": (
        Code.KEY_FORMAT,
        "a key in OpenSSH's own format",
        "convert a copy: ssh-keygen -p -m PKCS8 -f {file}",
    ),
    "DSA PRIVATE KEY": (
        Code.KEY_TYPE,
        "a DSA key, which no TLS client accepts",
        "order the certificate with an ECDSA key",
    ),
}
_BINARY = {
    "certificate": (
        Code.PARSE_ERROR,
        "a DER certificate",
        "convert it: openssl x509 -inform der -in {file} -out cert.pem",
    ),
    "key": (Code.KEY_FORMAT, "a DER private key", "convert it: openssl pkey -inform der -in {file} -out key.pem"),
    "encrypted key": (
        Code.KEY_FORMAT,
        "an encrypted DER private key",
        "convert it: openssl pkey -inform der -in {file} -out key.pem",
    ),
    "pkcs12": (
        Code.PARSE_ERROR,
        "a PKCS#12 (.p12, .pfx) file",
        "convert it: openssl pkcs12 -in {file} -nodes -out all.pem",
    ),
    "pkcs7": (
        Code.PARSE_ERROR,
        "a DER PKCS#7 (.p7b) file",
        "convert it: openssl pkcs7 -inform der -print_certs -in {file} -out chain.pem",
    ),
}
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]*)-----")
_END = re.compile(rb"-----END ([A-Z0-9][A-Z0-9 ]*)-----")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:")
_WHITE = bytes(range(33))


@dataclass(frozen=True, slots=True)
class Block:
    """One PEM block.

    Args:
        label: as between BEGIN and the dashes.
        data: the decoded content, kept out of `repr` because it may be a key.
        file: the file that it stands in.
        line: 1-based line of its BEGIN.
        headers: the RFC 1421 header lines of an encrypted key in the old style; empty otherwise.
    """

    label: str
    data: bytes = field(repr=False)
    file: str
    line: int
    headers: tuple[str, ...] = ()


@dataclass
class _Open:
    """The block that is being read."""

    label: str
    line: int
    body: list[bytes] = field(default_factory=list, repr=False)
    headers: list[str] = field(default_factory=list)
    in_headers: bool = False


class _RefusedError(Exception):
    """The file cannot be read any further; carries the problem, never content."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def shown(text: str, limit: int = 200) -> str:
    """Text from outside for a message: what would break the line or move the cursor is escaped, the rest cut."""
    if text.isprintable() and len(text) <= limit:
        return text
    clean = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in text
    )
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def encode_chain(chain: Sequence[bytes]) -> bytes:
    """DER certificates as canonical PEM: CERTIFICATE blocks only, 64 columns, LF (RFC 7468 section 2)."""
    lines: list[bytes] = []
    for certificate in chain:
        text = base64.b64encode(certificate)
        lines.append(b"-----BEGIN CERTIFICATE-----\n")
        lines += [text[i : i + 64] + b"\n" for i in range(0, len(text), 64)]
        lines.append(b"-----END CERTIFICATE-----\n")
    return b"".join(lines)


def encode_block(block: Block) -> bytes:
    """A block as PEM again, with its headers: the only form in which a library decrypts a key of the old style."""
    text = base64.b64encode(block.data)
    label = block.label.encode("ascii")
    head = "".join(line + "\n" for line in block.headers).encode("ascii", "replace") + (b"\n" if block.headers else b"")
    body = b"".join(text[i : i + 64] + b"\n" for i in range(0, len(text), 64))
    return b"-----BEGIN " + label + b"-----\n" + head + body + b"-----END " + label + b"-----\n"


def read_blocks(source: SourceFile) -> tuple[tuple[Block, ...], tuple[Problem, ...]]:
    """The blocks of a file that matter (certificates and keys) and what is wrong with it.

    Args:
        source: the file as it was read.

    Returns:
        The blocks before the first fault of grammar, and the problems: with a fault of grammar the rest of the file
        is not looked at, as where its blocks begin is no longer certain. Never raises.
    """
    name = shown(source.name)
    data = source.data
    if len(data) > MAX_FILE:
        return (), (_problem(Code.TOO_LARGE, name, 0, f"{name} holds more than {MAX_FILE // 1024} KiB.", ""),)
    if not data.strip(_WHITE):
        hint = "Write the file again; a copy that was cut off leaves one like this."
        return (), (_problem(Code.EMPTY_FILE, name, 0, f"{name} is empty.", hint),)
    kind = der.what(data) if data[:1] == b"\x30" else ""
    if kind:
        code, words, hint = _BINARY[kind]
        return (), (_problem(code, name, 0, f"{name} is {words}; PEM is read here.", hint.format(file=name)),)
    return parse_text(data, name)


def parse_text(data: bytes, name: str) -> tuple[tuple[Block, ...], tuple[Problem, ...]]:
    """The blocks of PEM text of any size, as `read_blocks` has them.

    Args:
        data: the text.
        name: what to call it, fit to be shown.
    """
    blocks: list[Block] = []
    problems: list[Problem] = []
    try:
        data = _decoded(data, name, problems)
        _read(data, name, blocks, problems)
    except _RefusedError as refused:
        problems.append(refused.problem)
    return tuple(blocks), tuple(problems)


def _problem(
    code: Code, name: str, line: int, message: str, hint: str, severity: Severity = Severity.REJECT
) -> Problem:
    return Problem(code, severity, message, hint, name, line)


def _decoded(data: bytes, name: str, problems: list[Problem]) -> bytes:
    """The data without a harmless mark at its front.

    Raises:
        _RefusedError: `encoding`: OpenSSL would not see what an editor shows.
    """
    hint = "Save it as plain ASCII or UTF-8 without a byte order mark."
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _RefusedError(_problem(Code.ENCODING, name, 1, f"{name} is UTF-16, which nginx cannot read.", hint))
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(b"\n", 0, zero) + 1
        words = f"{name} line {line} holds a NUL byte: binary, UTF-16, or damaged by a full disk or a lost write."
        raise _RefusedError(_problem(Code.ENCODING, name, line, words, hint))
    if data[:3] != b"\xef\xbb\xbf":
        return data
    first = data[3:].split(b"\n", 1)[0]
    if first.lstrip(_WHITE)[:5] == b"-----":
        words = f"{name} begins with a byte order mark, so nginx does not see the block in line 1."
        raise _RefusedError(_problem(Code.ENCODING, name, 1, words, hint))
    words = f"{name} begins with a byte order mark (before a comment, where it does no harm)."
    problems.append(_problem(Code.ENCODING, name, 1, words, hint, Severity.WARN))
    return data[3:]


def _read(data: bytes, name: str, blocks: list[Block], problems: list[Problem]) -> None:
    block: _Open | None = None
    lines = data.split(b"\n")
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip(_WHITE)
        if block is None:
            block = _outside(line, name, number, last=number == len(lines))
        elif line[:5] == b"-----":
            _close(block, line, name, number, blocks, problems)
            block = None
        else:
            _inside(block, line, name, number)
    if block is not None:
        words = f"{name} ends inside the {block.label} block that begins in line {block.line}: half-written or cut off."
        raise _RefusedError(_problem(Code.PARSE_ERROR, name, block.line, words, "Copy the file again, whole."))


def _grammar(name: str, line: int, words: str, hint: str = "Copy the file again, unchanged.") -> _RefusedError:
    return _RefusedError(_problem(Code.PARSE_ERROR, name, line, f"{name} line {line}: {words}", hint))


def _outside(line: bytes, name: str, number: int, *, last: bool) -> _Open | None:
    """A line between blocks: a comment, an attribute, or a BEGIN."""
    found = _BEGIN.fullmatch(line)
    if found:
        return _Open(found[1].decode("ascii"), number)
    if b"\r" in line and b"-----" in line:
        words = "lines end in a carriage return alone, which OpenSSL takes for one long line."
        raise _grammar(name, number, words, "Convert its line ends to LF (as dos2unix -c mac does).")
    if b"-----BEGIN" in line or b"-----END" in line:
        if line[:1] in (b" ", b"\t"):
            words = "the block is indented, so OpenSSL passes over it in silence."
            raise _grammar(name, number, words, "Remove the spaces before it.")
        if line[:8] == b"-----END" and b"-----BEGIN" in line:
            words = "END and BEGIN stand in one line: files were joined without a line end between them."
            raise _grammar(name, number, words, "Put a line end between the two.")
        raise _grammar(name, number, "a BEGIN or END marker that is no marker by itself.")
    if line[:5] == b"-----" or (last and line[:1] == b"-"):
        raise _grammar(name, number, "a marker that is cut off or misspelt.")
    return None


def _inside(block: _Open, line: bytes, name: str, number: int) -> None:
    """A line of a block: a header, or base64."""
    if block.in_headers:
        if not line:
            block.in_headers = False
        elif _HEADER.match(line) or line[:1] in (b" ", b"\t"):
            block.headers.append(line.decode("ascii", "replace"))
        else:
            raise _grammar(name, number, "a header of an encrypted key that is not followed by an empty line.")
        return
    if not block.body and not block.headers and _HEADER.match(line):
        block.in_headers = True
        block.headers.append(line.decode("ascii", "replace"))
        return
    if _BASE64.fullmatch(line):
        if block.body and block.body[-1][-1:] == b"=":
            raise _grammar(name, number, f"more data after the end of the {block.label} block's data.")
        block.body.append(line)
        return
    if b"\r" in line:
        words = "a carriage return inside a line of a block."
    elif not line:
        words = f"an empty line inside the {block.label} block that begins in line {block.line}."
    elif line[:1] in (b" ", b"\t"):
        words = f"an indented line inside the {block.label} block that begins in line {block.line}."
    elif b"-----" in line:
        words = f"a marker glued to the data of the {block.label} block that begins in line {block.line}."
    else:
        words = f"what stands there is not base64 (the {block.label} block begins in line {block.line})."
    raise _grammar(name, number, words)


def _close(block: _Open, line: bytes, name: str, number: int, blocks: list[Block], problems: list[Problem]) -> None:
    """The line that ends a block, or should."""
    found = _END.fullmatch(line)
    if found is None:
        if b"-----BEGIN" in line and line[:8] == b"-----END":
            words = "END and BEGIN stand in one line: files were joined without a line end between them."
            raise _grammar(name, number, words, "Put a line end between the two.")
        if line[:10] == b"-----BEGIN":
            words = f"a block begins while the {block.label} block of line {block.line} has not ended: half-written."
            raise _grammar(name, number, words)
        raise _grammar(name, number, f"the END of the {block.label} block of line {block.line} is cut off or misspelt.")
    if found[1].decode("ascii") != block.label:
        words = f"END {found[1].decode('ascii')[:40]} closes the {block.label} block that begins in line {block.line}."
        raise _grammar(name, number, words)
    if block.in_headers:
        raise _grammar(name, number, "a header of an encrypted key that is not followed by an empty line.")
    _keep(block, name, blocks, problems)


def _keep(block: _Open, name: str, blocks: list[Block], problems: list[Problem]) -> None:
    if block.label in _HARMLESS:
        return
    if block.label in _CONVERT:
        code, words, hint = _CONVERT[block.label]
        message = f"{name} line {block.line} is {words}."
        problems.append(_problem(code, name, block.line, message, hint.format(file=name)))
        return
    if block.label not in CERTIFICATE_LABELS | KEY_LABELS:
        message = f"{name} line {block.line}: a {shown(block.label, 40)} block does not belong in this file."
        problems.append(_problem(Code.PARSE_ERROR, name, block.line, message, "Take it out."))
        return
    try:
        content = binascii.a2b_base64(b"".join(block.body), strict_mode=True)
    except binascii.Error:
        content = b""
    if not content:
        words = f"the {block.label} block that begins there is empty or its base64 is damaged."
        raise _grammar(name, block.line, words)
    blocks.append(Block(block.label, content, name, block.line, tuple(block.headers)))
