"""The grammar of files: bytes in, blocks with their line numbers out; nothing inside a block is parsed here.

It is what OpenSSL's reader (PEM_read_bio, which nginx calls) takes, less everything that this reader takes silently
and wrongly: text that it skips although a human sees a block in it. RFC 7468 names the pieces. A binary file is one
block, called by the label that it would have as PEM, in line 0.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rotator.core.model import SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509 import der

MAX_FILE = 256 * 1024
"""Bytes that one file may hold."""

MAX_BLOCKS = 256
"""Blocks of a file that are looked at: eight times as many certificates as may be in it."""

CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
KEY_LABELS = frozenset({"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})
PKCS7, PKCS12 = "PKCS7", "PKCS12"
"""Labels of blocks that hold others; PKCS#12 has none in PEM, as it is always binary."""

_PKCS7_LABELS = frozenset({PKCS7, "CMS", "PKCS #7 SIGNED DATA"})
_TRUSTED = "TRUSTED CERTIFICATE"
_BINARY = {
    "certificate": "CERTIFICATE",
    "pkcs7": PKCS7,
    "pkcs12": PKCS12,
    "encrypted key": "ENCRYPTED PRIVATE KEY",
    "key": "PRIVATE KEY",
    "rsa key": "RSA PRIVATE KEY",
    "ec key": "EC PRIVATE KEY",
}

# Blocks that stand in such files by custom, that nginx passes over, and that change nothing for a client.
_HARMLESS = frozenset(
    {"EC PARAMETERS", "DH PARAMETERS", "X509 CRL", "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST", "PUBLIC KEY"}
)
_CONVERT = {
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
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9][A-Z0-9# ]*)-----")
_END = re.compile(rb"-----END ([A-Z0-9][A-Z0-9# ]*)-----")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:")
_WHITE = bytes(range(33))
_DATA = re.compile(rb"(?:[A-Za-z0-9+/]+[\x00-\x09\x0b-\x20]*\n)*+(?:[A-Za-z0-9+/]*={1,2}[\x00-\x09\x0b-\x20]*\n)?+")
_MAX_HEADERS = 8
_MARK = b"\xef\xbb\xbf"
_NO_MARK = "Take the mark out: sed -i '{line}s/^\\xEF\\xBB\\xBF//' {file}"


@dataclass(frozen=True, slots=True)
class Block:
    """One PEM block.

    Args:
        label: as between BEGIN and the dashes.
        data: the decoded content, kept out of `repr` because it may be a key.
        file: the file that it stands in.
        line: 1-based line of its BEGIN; 0 in a binary file.
        headers: the RFC 1421 header lines of an encrypted key in the old style; empty otherwise.
    """

    label: str
    data: bytes = field(repr=False)
    file: str
    line: int
    headers: tuple[str, ...] = ()


class _RefusedError(Exception):
    """The file cannot be read any further; carries the problem, never content."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def encode_chain(chain: Sequence[bytes]) -> bytes:
    """DER certificates as canonical PEM: CERTIFICATE blocks only, 64 columns, LF (RFC 7468 section 2)."""
    return b"".join(encode_block(Block("CERTIFICATE", certificate, "", 0)) for certificate in chain)


def encode_block(block: Block) -> bytes:
    """A block as PEM again, with its headers: the only form in which a library decrypts a key of the old style."""
    text = base64.b64encode(block.data)
    label = block.label.encode("ascii")
    head = "".join(line + "\n" for line in block.headers).encode("ascii", "replace") + (b"\n" if block.headers else b"")
    body = b"".join(text[i : i + 64] + b"\n" for i in range(0, len(text), 64))
    return b"-----BEGIN " + label + b"-----\n" + head + body + b"-----END " + label + b"-----\n"


def read_blocks(source: SourceFile) -> tuple[tuple[Block, ...], tuple[Problem, ...]]:
    """The blocks of a file that matter and what is wrong with it.

    Args:
        source: the file as it was read.

    Returns:
        The blocks (certificates, keys, PKCS#7, PKCS#12) before the first fault of grammar, and the problems: with a
        fault of grammar the rest of the file is not looked at, as where its blocks begin is no longer certain. Never
        raises.
    """
    name = shown(source.name)
    data = source.data
    if len(data) > MAX_FILE:
        return (), (_problem(Code.TOO_LARGE, name, 0, f"{name} holds more than {MAX_FILE // 1024} KiB.", ""),)
    if not data.strip(_WHITE):
        hint = "Write the file again; a copy that was cut off leaves one like this."
        return (), (_problem(Code.EMPTY_FILE, name, 0, f"{name} is empty.", hint),)
    if data[:1] == b"\x30":
        kind = der.what(data)
        if kind:
            return (Block(_BINARY[kind], data, name, 0),), ()
        if data[1:2] >= b"\x80":  # a length of DER, and no letter
            words = f"{name} is a binary file that is cut off, or holds no certificate and no key."
            return (), (_problem(Code.PARSE_ERROR, name, 0, words, "Copy the file again, whole."),)
    return parse_text(data, name, MAX_BLOCKS)


def parse_text(data: bytes, name: str, most: int = 0) -> tuple[tuple[Block, ...], tuple[Problem, ...]]:
    """The blocks of PEM text of any size, as `read_blocks` has them.

    Args:
        data: the text.
        name: what to call it, fit to be shown.
        most: blocks and problems after which the rest is not looked at; 0 for no such bound.
    """
    blocks: list[Block] = []
    problems: list[Problem] = []
    try:
        data = _decoded(data, name, problems)
        _read(data, name, blocks, problems, most)
    except _RefusedError as refused:
        problems.append(refused.problem)
    return tuple(blocks), tuple(problems)


def _problem(
    code: Code, name: str, line: int, message: str, hint: str, severity: Severity = Severity.REJECT
) -> Problem:
    return Problem(code, severity, message, hint, name, line)


def _decoded(data: bytes, name: str, problems: list[Problem]) -> bytes:
    """The data without a byte order mark at its front.

    Raises:
        _RefusedError: `encoding`: OpenSSL would not see what an editor shows.
    """
    hint = "Save it as plain ASCII or UTF-8."
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        hint += " It can be converted: iconv -f utf-16 -t ascii OLD > NEW"
        raise _RefusedError(_problem(Code.ENCODING, name, 1, f"{name} is UTF-16, which nginx cannot read.", hint))
    if data[:4] == b"PK\x03\x04":
        hint = f"Unpack it, and take the files that are in it: unzip {name}"
        raise _RefusedError(_problem(Code.PARSE_ERROR, name, 0, f"{name} is a zip archive.", hint))
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(b"\n", 0, zero) + 1
        words = f"{name} line {line} holds a NUL byte: binary, UTF-16, or damaged by a full disk or a lost write."
        raise _RefusedError(_problem(Code.ENCODING, name, line, words, hint))
    if data[:3] != _MARK:
        return data
    problems.append(_marked(name, 1, before_block=data[3:8] == b"-----"))
    return data[3:]


def _marked(name: str, number: int, *, before_block: bool) -> Problem:
    """A byte order mark where OpenSSL 3.0 and later skip it: before the first line that is read for a block."""
    words = f"{name} line {number} begins with a byte order mark, as Windows editors write it; it is not stored."
    if before_block:
        words += " nginx with an OpenSSL before 3.0, and other programs, would not see the block there."
    return _problem(Code.ENCODING, name, number, words, _NO_MARK.format(file=name, line=number), Severity.WARN)


def _read(data: bytes, name: str, blocks: list[Block], problems: list[Problem], most: int) -> None:
    """Walk from marker to marker: what lies between blocks is never looked at line by line, so much of it is cheap."""
    at, number, ended = 0, 1, -1
    while (mark := data.find(b"-----", at)) >= 0:
        start = data.rfind(b"\n", 0, mark) + 1
        number += data.count(b"\n", at, start)
        line, at = _line(data, start)
        if start == ended and line[:3] == _MARK:
            line = line[3:]
            problems.append(_marked(name, number, before_block=True))
        label = _outside(line, name, number)
        number += 1
        if label:
            at, number = _block(data, at, name, number, label, blocks, problems)
            ended = at
            if most and len(blocks) + len(problems) > most:
                words = f"{name} line {number}: after {most} blocks the rest of the file is not looked at."
                hint = "Leave one certificate, the intermediates of its chain, and its key."
                raise _RefusedError(_problem(Code.TOO_LARGE, name, number, words, hint))
    last = data[max(at, data.rfind(b"\n") + 1) :]
    if last[:1] == b"-":
        raise _grammar(name, data.count(b"\n") + 1, "a marker that is cut off.")


def _line(data: bytes, start: int) -> tuple[bytes, int]:
    """The line that begins there, without white space at its end (as OpenSSL reads it), and where the next begins."""
    end = data.find(b"\n", start)
    end = len(data) if end < 0 else end
    return data[start:end].rstrip(_WHITE), end + 1


def _grammar(name: str, line: int, words: str, hint: str = "Copy the file again, unchanged.") -> _RefusedError:
    return _RefusedError(_problem(Code.PARSE_ERROR, name, line, f"{name} line {line}: {words}", hint))


def _glued(name: str, number: int) -> _RefusedError:
    words = "END and BEGIN stand in one line: files were joined without a line end between them."
    return _grammar(name, number, words, "Put a line end between the two.")


def _outside(line: bytes, name: str, number: int) -> str:
    """The label that a line between blocks begins a block of; empty if it is a comment."""
    found = _BEGIN.fullmatch(line)
    if found:
        return found[1].decode("ascii")
    if b"\r" in line:
        words = "lines end in a carriage return alone, which OpenSSL takes for one long line."
        raise _grammar(name, number, words, "Convert its line ends to LF (as dos2unix -c mac does).")
    if b"-----BEGIN" in line or b"-----END" in line:
        if line[:1] in (b" ", b"\t"):
            words = "the block is indented, so OpenSSL passes over it in silence."
            raise _grammar(name, number, words, "Remove the spaces before it.")
        if line[:8] == b"-----END" and b"-----BEGIN" in line:
            raise _glued(name, number)
        if line[:3] == _MARK:
            words = f"{name} line {number} begins with a byte order mark, so OpenSSL passes over the block in silence."
            raise _RefusedError(_problem(Code.ENCODING, name, number, words, _NO_MARK.format(file=name, line=number)))
        raise _grammar(name, number, "a BEGIN or END marker that is no marker by itself.")
    if line[:5] == b"-----":
        raise _grammar(name, number, "a marker that is cut off or misspelt.")
    return ""


def _block(
    data: bytes, at: int, name: str, number: int, label: str, blocks: list[Block], problems: list[Problem]
) -> tuple[int, int]:
    """Read a block from the line after its BEGIN; gives the place and number of the line after its END."""
    begin = number - 1
    headers: list[str] = []
    line, after = _line(data, at)
    while _HEADER.match(line) and len(headers) < _MAX_HEADERS:
        headers.append(line.decode("ascii", "replace"))
        at, number = after, number + 1
        line, after = _line(data, at)
    if headers:
        if line:
            raise _grammar(name, number, "a header of an encrypted key that is not followed by an empty line.")
        at, number = after, number + 1
    lines = _DATA.match(data, at)
    body = lines[0] if lines else b""
    at, number = at + len(body), number + body.count(b"\n")
    line, after = _line(data, at)
    if at >= len(data) or (after > len(data) and _BASE64.fullmatch(line)):
        words = f"{name} ends inside the {label} block that begins in line {begin}: half-written or cut off."
        raise _RefusedError(_problem(Code.PARSE_ERROR, name, begin, words, "Copy the file again, whole."))
    if line[:5] != b"-----":
        raise _inside(line, name, number, label, begin)
    _close(line, name, number, label, begin)
    _keep(label, begin, tuple(headers), body, name, blocks, problems)
    return after, number + 1


def _inside(line: bytes, name: str, number: int, label: str, begin: int) -> _RefusedError:
    """Why a line of a block is no data."""
    block = f"the {label} block that begins in line {begin}"
    if b"\r" in line:
        words = "a carriage return inside a line of a block."
    elif not line:
        words = f"an empty line inside {block}."
    elif line[:1] in (b" ", b"\t"):
        words = f"an indented line inside {block}."
    elif b"-----" in line:
        words = f"a marker glued to the data of {block}."
    elif _BASE64.fullmatch(line):
        words = f"more data after the end of that of {block}."
    else:
        words = f"what stands there is not base64 ({block[4:]})."
    return _grammar(name, number, words)


def _close(line: bytes, name: str, number: int, label: str, begin: int) -> None:
    """The line that ends a block, or should."""
    found = _END.fullmatch(line)
    if found is None:
        if line[:8] == b"-----END" and b"-----BEGIN" in line:
            raise _glued(name, number)
        if line[:10] == b"-----BEGIN":
            words = f"a block begins while the {label} block of line {begin} has not ended: half-written."
            raise _grammar(name, number, words)
        raise _grammar(name, number, f"the END of the {label} block of line {begin} is cut off or misspelt.")
    if found[1].decode("ascii") != label:
        words = f"END {found[1].decode('ascii')[:40]} closes the {label} block that begins in line {begin}."
        raise _grammar(name, number, words)


def _keep(
    label: str,
    begin: int,
    headers: tuple[str, ...],
    body: bytes,
    name: str,
    blocks: list[Block],
    problems: list[Problem],
) -> None:
    """Decode a block that matters; tell of one that does not belong there."""
    if label in _HARMLESS:
        return
    if label in _CONVERT:
        code, words, hint = _CONVERT[label]
        message = f"{name} line {begin} is {words}."
        problems.append(_problem(code, name, begin, message, hint.format(file=name)))
        return
    if label == _TRUSTED and any(block.label in CERTIFICATE_LABELS for block in blocks):
        message = f"{name} line {begin} is a {_TRUSTED}, which nginx passes over unless it is the first of its file."
        hint = f"Convert it: openssl x509 -in {name} -out cert.pem"
        problems.append(_problem(Code.PARSE_ERROR, name, begin, message, hint))
        return
    if label == _TRUSTED:
        label = "CERTIFICATE"  # what follows it in its block are trust settings, which are left out
    elif label in _PKCS7_LABELS:
        label = PKCS7
    elif label not in CERTIFICATE_LABELS | KEY_LABELS:
        message = f"{name} line {begin}: a {shown(label, 40)} block does not belong in this file."
        problems.append(_problem(Code.PARSE_ERROR, name, begin, message, "Take it out."))
        return
    if headers and label in CERTIFICATE_LABELS:
        words = (
            f"the {label} block that begins there has a header ({shown(headers[0], 40)}), which nginx does not read."
        )
        raise _grammar(name, begin, words, "Take out what stands between its BEGIN and its base64.")
    text = body.translate(None, _WHITE)
    try:
        # the library takes padding after whole groups of four, which OpenSSL does not
        content = binascii.a2b_base64(text, strict_mode=True) if len(text) % 4 == 0 else b""
    except binascii.Error:
        content = b""
    if not content:
        raise _grammar(name, begin, f"the {label} block that begins there is empty or its base64 is damaged.")
    blocks.append(Block(label, content, name, begin, headers))
