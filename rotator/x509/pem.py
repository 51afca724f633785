"""The reader of input files: bytes in, PEM blocks with their line numbers out (RFC 7468).

The grammar is that of OpenSSL's reader (PEM_read_bio, which nginx calls), without the text that OpenSSL skips in
silence although a person sees a block in it. A binary file is one block in line 0, with the label of its PEM form.
The content of a block is parsed by other modules.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rotator.core.hints import command
from rotator.core.model import MAX_FILE, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509 import der

MAX_BLOCKS = 256
"""The most blocks of a file that are read; `candidate.MAX_CHAIN` limits the certificates among them further."""

CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
KEY_LABELS = frozenset({"PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})
PKCS7, PKCS12 = "PKCS7", "PKCS12"
"""The labels of containers; PKCS#12 has no PEM form, so its label is our own."""

TRUSTED = "TRUSTED CERTIFICATE"
"""The label of OpenSSL's own form: a certificate, and after it in the same block the uses that it is trusted for."""

_PKCS7_LABELS = frozenset({PKCS7, "CMS", "PKCS #7 SIGNED DATA"})
_BINARY = {
    "certificate": "CERTIFICATE",
    "pkcs7": PKCS7,
    "pkcs12": PKCS12,
    "encrypted key": "ENCRYPTED PRIVATE KEY",
    "key": "PRIVATE KEY",
    "rsa key": "RSA PRIVATE KEY",
    "ec key": "EC PRIVATE KEY",
}

# Blocks that are common in such files, that nginx ignores, and that change nothing for a client.
_HARMLESS = frozenset(
    {"EC PARAMETERS", "DH PARAMETERS", "X509 CRL", "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST", "PUBLIC KEY"}
)
_CONVERT = {
    "OPENSSH PRIVATE KEY": (
        Code.KEY_FORMAT,
        "a key in OpenSSH's own format",
        "Convert a copy: ssh-keygen -p -m PKCS8 -f FILE",
    ),
    "DSA PRIVATE KEY": (
        Code.KEY_TYPE,
        "a DSA key, which no TLS client accepts",
        "Order the certificate with an ECDSA key.",
    ),
}
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9][A-Z0-9# ]*)-----")
_END = re.compile(rb"-----END ([A-Z0-9][A-Z0-9# ]*)-----")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:")
_WHITE = bytes(range(33))
_DATA = re.compile(rb"(?:[A-Za-z0-9+/]+[\x00-\x09\x0b-\x20]*\n)*+(?:[A-Za-z0-9+/]*={1,2}[\x00-\x09\x0b-\x20]*\n)?+")
_MAX_HEADERS = 8
"""The most header lines of a block; OpenSSL writes two (Proc-Type, DEK-Info)."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Block:
    """One PEM block.

    Args:
        label: the text between BEGIN and the dashes.
        data: the decoded content; it does not show in `repr`, as it may be a key.
        file: the file that contains it.
        line: the 1-based line of its BEGIN; 0 in a binary file.
        headers: the RFC 1421 header lines of an encrypted key in the old style; empty otherwise.
    """

    label: str
    data: bytes = field(repr=False)
    file: str
    line: int
    headers: tuple[str, ...] = ()


class _RefusedError(Exception):
    """The rest of the file cannot be read; the exception has the problem, never content."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def encode_chain(chain: Sequence[bytes]) -> bytes:
    """DER certificates as canonical PEM: CERTIFICATE blocks only, 64 columns, LF (RFC 7468 section 2)."""
    return b"".join(encode_block(Block("CERTIFICATE", certificate, "", 0)) for certificate in chain)


def encode_block(block: Block) -> bytes:
    """A block as PEM with its headers: the only form in which the library decrypts a key in the old style."""
    text = base64.b64encode(block.data)
    label = block.label.encode("ascii")
    head = "".join(line + "\n" for line in block.headers).encode("ascii", "replace") + (b"\n" if block.headers else b"")
    body = b"".join(text[i : i + 64] + b"\n" for i in range(0, len(text), 64))
    return b"-----BEGIN " + label + b"-----\n" + head + body + b"-----END " + label + b"-----\n"


def read_blocks(source: SourceFile) -> tuple[tuple[Block, ...], tuple[Problem, ...]]:
    """The relevant blocks of a file, and its problems.

    Args:
        source: the file.

    Returns:
        The blocks (certificates, keys, PKCS#7, PKCS#12) before the first fault of grammar, and the problems. The rest
        of the file after a fault of grammar is ignored, as the start of its blocks is no longer certain. No content
        makes this function raise.
    """
    name = shown(source.name)
    data = source.data
    if len(data) > MAX_FILE:
        return (), (_problem(Code.TOO_LARGE, name, 0, f"{name} holds more than {MAX_FILE // 1024} KiB.", ""),)
    if not data.strip(_WHITE):
        hint = "Write the file again; an interrupted copy leaves such a file."
        return (), (_problem(Code.EMPTY_FILE, name, 0, f"{name} is empty.", hint),)
    if data[:1] == b"\x30":
        kind = der.structure_kind(data)
        if kind:
            return (Block(_BINARY[kind], data, name, 0),), ()
        if data[1:2] >= b"\x80":  # this octet is a length of DER, not a letter
            message = f"{name} is a binary file that is cut off, or holds no certificate and no key."
            return (), (_problem(Code.PARSE_ERROR, name, 0, message, "Copy the file again, whole."),)
    blocks, problems = parse_text(data, name, MAX_BLOCKS)
    return _without_settings(blocks, problems)


def parse_text(data: bytes, name: str, most: int = 0) -> tuple[tuple[Block, ...], tuple[Problem, ...]]:
    """The relevant blocks of PEM text of any size, and its problems, as in `read_blocks`.

    Blocks of the label `TRUSTED` keep it, because a file of roots uses the settings after the certificate.

    Args:
        data: the text.
        name: its printable name for messages.
        most: the number of blocks and problems after which the rest is ignored; 0 for no such limit.
    """
    blocks: list[Block] = []
    problems: list[Problem] = []
    try:
        data = _decoded(data, name, problems)
        _read(data, name, blocks, problems, most)
    except _RefusedError as refused:
        problems.append(refused.problem)
    return tuple(blocks), tuple(problems)


def _without_settings(
    blocks: tuple[Block, ...], problems: tuple[Problem, ...]
) -> tuple[tuple[Block, ...], tuple[Problem, ...]]:
    """The blocks as nginx reads them: it takes a `TRUSTED` block for the first certificate of a file only.

    The settings after the certificate in such a block are left out when the certificate is read.
    """
    kept: list[Block] = []
    more: list[Problem] = []
    for block in blocks:
        if block.label == TRUSTED and any(earlier.label in CERTIFICATE_LABELS for earlier in kept):
            place = f"{block.file} line {block.line}"
            message = f"{place} is a {TRUSTED}, which nginx ignores unless it is the first of its file."
            hint = f"Convert it: {command('openssl x509 -out cert.pem -in', block.file)}"
            more.append(_problem(Code.PARSE_ERROR, block.file, block.line, message, hint))
        else:
            kept.append(replace(block, label="CERTIFICATE") if block.label == TRUSTED else block)
    return tuple(kept), (*more, *problems)


def _problem(
    code: Code, name: str, line: int, message: str, hint: str, severity: Severity = Severity.REJECT
) -> Problem:
    return Problem(code, severity, message, hint, name, line)


def _decoded(data: bytes, name: str, problems: list[Problem]) -> bytes:
    """The data without a byte order mark at its start.

    Raises:
        _RefusedError: `encoding`: OpenSSL does not read the text that an editor shows; or `parse-error`: an archive.
    """
    hint = "Save it as plain ASCII or UTF-8."
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        hint += " It can be converted: iconv -f utf-16 -t ascii OLD > NEW"
        raise _RefusedError(_problem(Code.ENCODING, name, 1, f"{name} is UTF-16, which nginx cannot read.", hint))
    if data[:4] == b"PK\x03\x04":
        hint = f"Unpack it and deliver the files inside: {command('unzip', name)}"
        raise _RefusedError(_problem(Code.PARSE_ERROR, name, 0, f"{name} is a zip archive.", hint))
    zero = data.find(b"\0")
    if zero >= 0:
        line = data.count(b"\n", 0, zero) + 1
        message = f"{name} line {line} holds a NUL byte: binary, UTF-16, or damaged by a full disk or a lost write."
        raise _RefusedError(_problem(Code.ENCODING, name, line, message, hint))
    if data[:3] != _BYTE_ORDER_MARK:
        return data
    problems.append(_marked(name, 1, before_block=data[3:8] == b"-----"))
    return data[3:]


def _without_mark(name: str, number: int) -> str:
    """The command that removes the byte order mark at the beginning of a line."""
    edit = rf"sed -i '{number:d}s/^\xEF\xBB\xBF//'"
    return f"Remove the mark: {command(edit, name)}"


def _marked(name: str, number: int, *, before_block: bool) -> Problem:
    """The warning of a byte order mark where OpenSSL 3.0 and later skip it: before the first line that it reads."""
    message = f"{name} line {number} begins with a byte order mark, as Windows editors write it; it is not stored."
    if before_block:
        message += " nginx with an OpenSSL before 3.0, and other programs, would not see the block there."
    return _problem(Code.ENCODING, name, number, message, _without_mark(name, number), Severity.WARN)


def _read(data: bytes, name: str, blocks: list[Block], problems: list[Problem], most: int) -> None:
    """Walks from marker to marker, so that long text between blocks costs little: its lines are not read one by one."""
    at, number, ended = 0, 1, -1
    while (mark := data.find(b"-----", at)) >= 0:
        start = data.rfind(b"\n", 0, mark) + 1
        number += data.count(b"\n", at, start)
        line, at = _line(data, start)
        if start == ended and line[:3] == _BYTE_ORDER_MARK:
            line = line[3:]
            problems.append(_marked(name, number, before_block=True))
        label = _outside(line, name, number)
        number += 1
        if label:
            at, number = _block(data, at, name, number, label, blocks, problems)
            ended = at
            if most and len(blocks) + len(problems) > most:
                message = f"{name} line {number}: after {most} blocks the rest of the file is ignored."
                hint = "Keep only one certificate, the intermediates of its chain, and its key."
                raise _RefusedError(_problem(Code.TOO_LARGE, name, number, message, hint))
    last = data[max(at, data.rfind(b"\n") + 1) :]
    if last[:1] == b"-":
        raise _grammar(name, data.count(b"\n") + 1, "a marker that is cut off.")


def _line(data: bytes, start: int) -> tuple[bytes, int]:
    """The line at an offset, without white space at its end (as OpenSSL reads it), and the offset of the next line."""
    end = data.find(b"\n", start)
    end = len(data) if end < 0 else end
    return data[start:end].rstrip(_WHITE), end + 1


def _grammar(name: str, line: int, reason: str, hint: str = "Copy the file again, unchanged.") -> _RefusedError:
    return _RefusedError(_problem(Code.PARSE_ERROR, name, line, f"{name} line {line}: {reason}", hint))


def _glued(name: str, number: int) -> _RefusedError:
    reason = "END and BEGIN are in one line: files were joined without a line end between them."
    return _grammar(name, number, reason, "Put a line end between the two.")


def _outside(line: bytes, name: str, number: int) -> str:
    """The label of the block that a line outside of blocks begins; empty if the line is a comment."""
    begin = _BEGIN.fullmatch(line)
    if begin:
        return begin[1].decode("ascii")
    if b"\r" in line:
        reason = "lines end in a carriage return alone, which OpenSSL takes for one long line."
        raise _grammar(name, number, reason, "Convert its line ends to LF (as dos2unix -c mac does).")
    if b"-----BEGIN" in line or b"-----END" in line:
        if line[:1] in (b" ", b"\t"):
            reason = "the block is indented, so OpenSSL ignores it in silence."
            raise _grammar(name, number, reason, "Remove the spaces before it.")
        if line[:8] == b"-----END" and b"-----BEGIN" in line:
            raise _glued(name, number)
        if line[:3] == _BYTE_ORDER_MARK:
            message = f"{name} line {number} begins with a byte order mark, so OpenSSL ignores the block in silence."
            hint = _without_mark(name, number)
            raise _RefusedError(_problem(Code.ENCODING, name, number, message, hint))
        raise _grammar(name, number, "a BEGIN or END marker that is not alone in its line.")
    if line[:5] == b"-----":
        raise _grammar(name, number, "a marker that is cut off or misspelt.")
    return ""


def _block(
    data: bytes, at: int, name: str, number: int, label: str, blocks: list[Block], problems: list[Problem]
) -> tuple[int, int]:
    """Reads a block from the line after its BEGIN; returns the offset and the number of the line after its END."""
    begin = number - 1
    headers: list[str] = []
    line, after = _line(data, at)
    while _HEADER.match(line) and len(headers) < _MAX_HEADERS:
        headers.append(line.decode("ascii", "replace"))
        at, number = after, number + 1
        line, after = _line(data, at)
    if headers:
        if line:
            raise _grammar(name, number, "the empty line after the headers of an encrypted key is missing.")
        at, number = after, number + 1
    lines = _DATA.match(data, at)
    body = lines[0] if lines else b""
    at, number = at + len(body), number + body.count(b"\n")
    line, after = _line(data, at)
    if at >= len(data) or (after > len(data) and _BASE64.fullmatch(line)):
        message = f"{name} ends inside the {label} block that begins in line {begin}: half-written or cut off."
        raise _RefusedError(_problem(Code.PARSE_ERROR, name, begin, message, "Copy the file again, whole."))
    if line[:5] != b"-----":
        raise _inside(line, name, number, label, begin)
    _close(line, name, number, label, begin)
    _keep(label, begin, tuple(headers), body, name, blocks, problems)
    return after, number + 1


def _inside(line: bytes, name: str, number: int, label: str, begin: int) -> _RefusedError:
    """The error of a line inside a block that is no base64 data."""
    block = f"the {label} block that begins in line {begin}"
    if b"\r" in line:
        reason = "a carriage return inside a line of a block."
    elif not line:
        reason = f"an empty line inside {block}."
    elif line[:1] in (b" ", b"\t"):
        reason = f"an indented line inside {block}."
    elif b"-----" in line:
        reason = f"a marker glued to the data of {block}."
    elif _BASE64.fullmatch(line):
        reason = f"more data after the padding of {block}."
    else:
        reason = f"this is not base64 ({block[4:]})."
    return _grammar(name, number, reason)


def _close(line: bytes, name: str, number: int, label: str, begin: int) -> None:
    """Checks the line that ends a block.

    Raises:
        _RefusedError: it is no END line of this block's label.
    """
    end = _END.fullmatch(line)
    if end is None:
        if line[:8] == b"-----END" and b"-----BEGIN" in line:
            raise _glued(name, number)
        if line[:10] == b"-----BEGIN":
            reason = f"a block begins while the {label} block of line {begin} has not ended: half-written."
            raise _grammar(name, number, reason)
        raise _grammar(name, number, f"the END of the {label} block of line {begin} is cut off or misspelt.")
    if end[1].decode("ascii") != label:
        reason = f"END {end[1].decode('ascii')[:40]} closes the {label} block that begins in line {begin}."
        raise _grammar(name, number, reason)


def _keep(
    label: str,
    begin: int,
    headers: tuple[str, ...],
    body: bytes,
    name: str,
    blocks: list[Block],
    problems: list[Problem],
) -> None:
    """Decodes a relevant block and keeps it; reports a block that does not belong in such a file."""
    if label in _HARMLESS:
        return
    if label in _CONVERT:
        code, description, hint = _CONVERT[label]
        message = f"{name} line {begin} is {description}."
        problems.append(_problem(code, name, begin, message, hint))
        return
    if label in _PKCS7_LABELS:
        label = PKCS7
    elif label not in CERTIFICATE_LABELS | KEY_LABELS | {TRUSTED}:
        message = f"{name} line {begin}: a {shown(label, 40)} block does not belong in this file."
        problems.append(_problem(Code.PARSE_ERROR, name, begin, message, "Remove it."))
        return
    if headers and label in CERTIFICATE_LABELS | {TRUSTED}:
        reason = f"this {label} block has a header ({shown(headers[0], 40)}), which nginx does not read."
        raise _grammar(name, begin, reason, "Remove the lines between its BEGIN and its base64.")
    text = body.translate(None, _WHITE)
    try:
        # the library accepts padding after whole groups of four, OpenSSL does not
        content = binascii.a2b_base64(text, strict_mode=True) if len(text) % 4 == 0 else b""
    except binascii.Error:
        content = b""
    if not content:
        raise _grammar(name, begin, f"this {label} block is empty or its base64 is damaged.")
    blocks.append(Block(label, content, name, begin, headers))
