"""Changes to the files of a drop that hit what their readers look at: bytes, lines, PEM blocks, elements of DER."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.support.authority import wrap

Files = tuple[bytes, ...]

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----\r?\n?")
_LABELS = (
    b"CERTIFICATE",
    b"TRUSTED CERTIFICATE",
    b"X509 CERTIFICATE",
    b"PKCS7",
    b"PRIVATE KEY",
    b"ENCRYPTED PRIVATE KEY",
    b"RSA PRIVATE KEY",
    b"EC PRIVATE KEY",
    b"EC PARAMETERS",
    b"X509 CRL",
    b"NONSENSE",
)
_WORDS = (
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----",
    b"-----",
    b"Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"=",
    b"\x30\x80",
    b"\0\0",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x30\x00",
    b"\x05\x00",
    b"\x01\x01\x00",
    b"\x02\x01\x00",
    b"\x02\x04\x7f\xff\xff\xff",
    b"\xa0\x03\x02\x01\x02",
    b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02",
    b"*.",
    b"xn--",
    b"\xc0\xa8\x01\x01",
)


def mutated(files: Files, others: Sequence[Files], chance: random.Random) -> Files:
    """The files with a few changes; parts may come from other inputs."""
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        files = chance.choice(_WHOLE)(files, others, chance) if chance.random() < 0.15 else _one(files, others, chance)
    return tuple(data[: 300 * 1024] for data in files[:12])


def _one(files: Files, others: Sequence[Files], chance: random.Random) -> Files:
    if not files:
        return chance.choice(others)
    at = chance.randrange(len(files))
    source = chance.choice(others)
    other = chance.choice(source) if source else b""
    return (*files[:at], _changed(files[at], other, chance), *files[at + 1 :])


def _changed(data: bytes, other: bytes, chance: random.Random) -> bytes:
    blocks = list(_BLOCK.finditer(data))
    if blocks and chance.random() < 0.7:
        block = chance.choice(blocks)
        label, text = block[1], block[2]
        if chance.random() < 0.1:
            label = chance.choice(_LABELS)
        else:
            text = _lines(_binary(_decoded(text), _content(other), chance))
        block_now = b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, text, label)
        return data[: block.start()] + block_now + data[block.end() :]
    if data[:1] == b"{" and chance.random() < 0.8:
        return _json(data, chance)
    if not blocks and data[:1] == b"\x30":
        return _binary(data, _content(other), chance)
    return chance.choice(_BYTES)(data, other, chance)


def _content(data: bytes) -> bytes:
    """What is inside a file: the DER of its first block, or itself."""
    block = _BLOCK.search(data)
    return _decoded(block[2]) if block else data


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return text


def _lines(data: bytes) -> bytes:
    text = base64.b64encode(data)
    return b"".join(text[i : i + 64] + b"\n" for i in range(0, len(text), 64))


def _binary(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return _element(data, other, chance) if chance.random() < 0.7 else chance.choice(_BYTES)(data, other, chance)


# -- JSON

_ODD: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    1e300,
    1 << 70,
    "",
    "x",
    "\ud800",
    "2026-11-22T12:00:00",
    "AAAA",
    [],
    {},
    [[]],
    {"a": {}},
)


def _json(data: bytes, chance: random.Random) -> bytes:
    """One value somewhere inside changed, taken away, or put in twice."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return chance.choice(_BYTES)(data, data, chance)
    holders = [value for value in _values(whole) if value and isinstance(value, dict | list)]
    if not holders:
        return chance.choice(_BYTES)(data, data, chance)
    held: Any = chance.choice(holders)
    at: Any = chance.choice(list(held)) if isinstance(held, dict) else chance.randrange(len(held))
    kind = chance.randrange(4)
    if kind == 0:
        del held[at]
    elif kind == 1 and isinstance(held, list):
        held.append(held[at])
    elif kind == 2:
        held[at] = json.loads(json.dumps(chance.choice(list(_values(whole)))))
    else:
        held[at] = chance.choice(_ODD)
    return json.dumps(whole).encode()


def _values(value: object) -> Iterator[object]:
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from _values(one)


# -- DER


def _parts(data: bytes) -> list[tuple[int, bytes]] | None:
    """Tags and contents of the elements that fill these bytes; None if none do."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            return None
        tag, length, body = data[at], data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[body : body + count], "big")
            body += count
        if tag & 0x1F == 0x1F or body + length > len(data) or length == len(data):
            return None
        found.append((tag, data[body : body + length]))
        at = body + length
    return found


def _element(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """One element somewhere inside changed, with all lengths above it put right."""
    parts = _parts(data)
    if not parts:
        return chance.choice(_BYTES)(data, other, chance)
    at = chance.randrange(len(parts))
    tag, content = parts[at]
    inner = content[1:] if tag == 0x03 and content[:1] == b"\0" else content
    nested = _parts(inner) if tag & 0x20 or tag in (0x03, 0x04) else None
    if nested and chance.random() < 0.85:
        parts[at] = (tag, content[: len(content) - len(inner)] + _element(inner, other, chance))
    else:
        foreign = _some_element(other, chance)
        kind = chance.randrange(7)
        if kind == 0:
            del parts[at]
        elif kind == 1:
            parts.insert(at, parts[at])
        elif kind == 2:
            parts[at] = (
                chance.choice((tag ^ 0x20, 0x02, 0x03, 0x04, 0x05, 0x0C, 0x17, 0x30, 0x31, 0xA0, 0xA3)),
                content,
            )
        elif kind == 3 and foreign:
            parts[at] = foreign
        elif kind == 4:
            chance.shuffle(parts)
        elif kind == 5:
            parts[at] = (tag, b"")
        else:
            parts[at] = (tag, chance.choice(_BYTES)(content, other, chance))
    return b"".join(wrap(tag, content) for tag, content in parts)


def _some_element(data: bytes, chance: random.Random) -> tuple[int, bytes] | None:
    parts = _parts(data)
    found = None
    while parts:
        found = chance.choice(parts)
        parts = _parts(found[1]) if found[0] & 0x20 and chance.random() < 0.8 else None
    return found


# -- bytes


def _flipped(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]


def _set(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + bytes((chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))),)) + data[at + 1 :]


def _cut(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return chance.choice((data[:at], data[at:], data[:at] + data[at + chance.randrange(64) :]))


def _repeated(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    piece = data[at : at + chance.choice((1, 4, 64, 4096))]
    return data[:at] + piece * chance.choice((2, 2, 3, 50)) + data[at + len(piece) :]


def _inserted(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_WORDS) + data[at:]


def _spliced(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


_BYTES: Sequence[Callable[[bytes, bytes, random.Random], bytes]] = (
    _flipped,
    _set,
    _cut,
    _repeated,
    _inserted,
    _spliced,
)


# -- files


def _added(files: Files, others: Sequence[Files], chance: random.Random) -> Files:
    return (*files, *chance.choice(others)[:1])


def _removed(files: Files, _others: Sequence[Files], chance: random.Random) -> Files:
    at = chance.randrange(len(files) + 1)
    return files[:at] + files[at + 1 :]


def _joined(files: Files, _others: Sequence[Files], chance: random.Random) -> Files:
    order = list(files)
    chance.shuffle(order)
    return (b"".join(order[:2]), *order[2:])


def _shuffled(files: Files, _others: Sequence[Files], chance: random.Random) -> Files:
    order = list(files)
    chance.shuffle(order)
    return tuple(order)


_WHOLE: Sequence[Callable[[Files, Sequence[Files], random.Random], Files]] = (_added, _removed, _joined, _shuffled)
