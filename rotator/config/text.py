"""TOML text to values, and where in the text each of them stands; what the keys mean is not known here.

The standard library's parser gives the values (root's step reads the same file with it, so both see the same), but not
their lines. A text that it accepts needs no second parser: a handful of tokens tells where keys, headers and array
elements begin.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Where = tuple[str | int, ...]
"""Keys and array indices from the top, e.g. `("site", 0, "names", 2)`."""

_TOKEN = re.compile(
    r'''(?P<string>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')'''
    r"""|(?P<comment>\#[^\n]*)|(?P<newline>\n)|(?P<mark>[\[\]{},=])|(?P<blank>[ \t\r]+)|"""
    r"""(?P<bare>[^\s\[\]{},=#"']+|.)""",
    re.DOTALL,
)
_BARE = re.compile(r"\s*[A-Za-z0-9_-]+\s*")
_TABLE, _PART = re.compile(r"\(('[^()]*')\s*,?\)"), re.compile(r"'([^']*)'")
"""How the parser's messages name a table: as a tuple of its keys."""
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|(end of document))\)\Z")


class NotTomlError(Exception):
    """The text is no TOML; `line` is 1-based."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a text, and their lines."""

    values: Mapping[str, Any]
    _lines: Mapping[Where, int] = field(repr=False)

    def line(self, where: Where) -> int:
        """The 1-based line of a key, table or array element; of what holds it, where it has none of its own."""
        for length in range(len(where), 0, -1):
            found = self._lines.get(where[:length])
            if found is not None:
                return found
        return 1


def parse(text: str) -> Document:
    """The document.

    Raises:
        NotTomlError: it is no TOML.
    """
    text = text.removeprefix("\ufeff")  # some editors begin a file with it
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise NotTomlError(1, "is nested too deeply") from None
    except ValueError as error:
        message = str(error)
        line = 1
        if place := _PLACE.search(message):
            line = int(place[1]) if place[1] else text.rstrip("\n").count("\n") + 1
            message = message[: place.start()]
        message = _TABLE.sub(lambda found: f"[{'.'.join(_PART.findall(found[1]))}]", message)
        raise NotTomlError(line, message[:1].lower() + message[1:]) from None
    return Document(values, dict(_located(text)))


def _located(text: str) -> Iterator[tuple[Where, int]]:
    """Every key, header and element of an array that is a key's value, with its line."""
    table: Where = ()
    arrays: dict[Where, int] = {}
    seen: set[Where] = set()
    for line, statement in _statements(text):
        first = statement[0][1]
        if first == "[":
            raw = "".join(word for _, word in statement).strip()
            double = raw.startswith("[[")
            table = _resolved(_keys(raw[2:-2] if double else raw[1:-1]), arrays, new=double)
            where = table
        else:
            words = [word for _, word in statement]
            equals = words.index("=")
            where = table + _keys("".join(words[:equals]))
            for number, at in enumerate(_elements(statement[equals + 1 :])):
                yield (*where, number), at
        for length in range(len(where) + 1):  # a dotted key or header makes the tables above it
            if where[:length] not in seen:
                seen.add(where[:length])
                yield where[:length], line


def _statements(text: str) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Each header or `key = value`, comments left out, with its line; a token is its own line and its text."""
    statement: list[tuple[int, str]] = []
    depth = 0
    line = 1
    for token in _TOKEN.finditer(text):
        kind, word = token.lastgroup, token[0]
        if kind == "mark":
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(word, 0)
        if kind == "newline" and depth == 0:
            if statement:
                yield statement[0][0], statement
            statement = []
        elif kind not in ("comment", "newline") and (statement or kind != "blank"):
            statement.append((line, word))
        line += word.count("\n")
    if statement:
        yield statement[0][0], statement


def _elements(value: list[tuple[int, str]]) -> Iterator[int]:
    """The line of each element, if the value is an array."""
    depth = 0
    awaited = False
    for line, word in value:
        if word.isspace():
            continue
        if awaited and word != "]":
            awaited = False
            yield line
        if word in ("[", "{"):
            depth += 1
            awaited = depth == 1 and word == "["
        elif word in ("]", "}"):
            depth -= 1
        elif word == "," and depth == 1:
            awaited = True
        if depth == 0:
            return


def _keys(raw: str) -> tuple[str, ...]:
    """The parts of a dotted key, quoted or not."""
    if _BARE.fullmatch(raw):
        return (raw.strip(),)
    parts: list[str] = []
    inner: Any = tomllib.loads(f"{raw}=0")
    while isinstance(inner, dict):
        name, inner = next(iter(inner.items()))
        parts.append(name)
    return tuple(parts)


def _resolved(parts: tuple[str, ...], arrays: dict[Where, int], *, new: bool) -> Where:
    """A header's place: an array of tables on the way means its latest element; `new` opens another one."""
    where: Where = ()
    for number, part in enumerate(parts, 1):
        where = (*where, part)
        if new and number == len(parts):
            arrays[where] = arrays.get(where, -1) + 1
        if where in arrays:
            where = (*where, arrays[where])
    return where
