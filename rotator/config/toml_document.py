"""A TOML document: its values, and the line of each key, table and array element.

The standard library's parser gives the values; the privileged step reads the same file with it, so both get the same
values. That parser does not give the lines. In a text that it accepts, a few kinds of tokens are enough to find where
keys, headers and array elements begin, so a second parser is not needed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

KeyPath = tuple[str | int, ...]
"""A place in the document, as keys and array indices from the top: `("site", 0, "names", 2)`."""

_TOKEN = re.compile(
    r'''(?P<string>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')'''
    r"""|(?P<comment>\#[^\n]*)|(?P<newline>\n)|(?P<mark>[\[\]{},=])|(?P<blank>[ \t\r]+)|"""
    r"""(?P<bare>[^\s\[\]{},=#"']+|.)""",
    re.DOTALL,
)
_BARE = re.compile(r"\s*[A-Za-z0-9_-]+\s*")
_TABLE, _PART = re.compile(r"\(('[^()]*')\s*,?\)"), re.compile(r"'([^']*)'")
"""The parser's messages name a table by the tuple of its keys."""
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|(end of document))\)\Z")
"""The end of the parser's messages."""


class TomlSyntaxError(Exception):
    """The text is not valid TOML.

    Args:
        line: the line of the error, counted from 1.
        message: what is wrong.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a text and their lines.

    Args:
        values: the tables as the standard library's parser returns them.
    """

    values: Mapping[str, Any]
    _lines: Mapping[KeyPath, int] = field(repr=False)

    def line(self, where: KeyPath) -> int:
        """The line of a key, table or array element, counted from 1; without one, the line of its closest parent."""
        for length in range(len(where), 0, -1):
            line = self._lines.get(where[:length])
            if line is not None:
                return line
        return 1


def parse(text: str) -> Document:
    """The document of a text.

    Raises:
        TomlSyntaxError: the text is not valid TOML.
    """
    text = text.removeprefix("\ufeff")  # the byte order mark, which some editors put first
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise TomlSyntaxError(1, "is nested too deeply") from None
    except ValueError as error:
        message = str(error)
        line = 1
        if position := _POSITION.search(message):
            line = int(position[1]) if position[1] else text.rstrip("\n").count("\n") + 1
            message = message[: position.start()]
        message = _TABLE.sub(lambda table: f"[{'.'.join(_PART.findall(table[1]))}]", message)
        raise TomlSyntaxError(line, message[:1].lower() + message[1:]) from None
    return Document(values, dict(_located(text)))


def _located(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Every key and header, and every element of an array that is the value of a key, each with its line."""
    table: KeyPath = ()
    arrays: dict[KeyPath, int] = {}
    seen: set[KeyPath] = set()
    for line, statement in _statements(text):
        first = statement[0][1]
        if first == "[":
            raw = "".join(part for _, part in statement).strip()
            double = raw.startswith("[[")
            table = _resolved(_keys(raw[2:-2] if double else raw[1:-1]), arrays, new=double)
            where = table
        else:
            tokens = [part for _, part in statement]
            equals = tokens.index("=")
            where = table + _keys("".join(tokens[:equals]))
            for number, element_line in enumerate(_elements(statement[equals + 1 :])):
                yield (*where, number), element_line
        for length in range(len(where) + 1):  # a dotted key or header also creates its parent tables
            if where[:length] not in seen:
                seen.add(where[:length])
                yield where[:length], line


def _statements(text: str) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Each header or `key = value` without comments, with its line; its tokens are pairs of a line and a text."""
    statement: list[tuple[int, str]] = []
    depth = 0
    line = 1
    for match in _TOKEN.finditer(text):
        kind, part = match.lastgroup, match[0]
        if kind == "mark":
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part, 0)
        if kind == "newline" and depth == 0:
            if statement:
                yield statement[0][0], statement
            statement = []
        elif kind not in ("comment", "newline") and (statement or kind != "blank"):
            statement.append((line, part))
        line += part.count("\n")
    if statement:
        yield statement[0][0], statement


def _elements(value: list[tuple[int, str]]) -> Iterator[int]:
    """The line of each element, if the value is an array."""
    depth = 0
    expects_element = False
    for line, part in value:
        if part.isspace():
            continue
        if expects_element and part != "]":
            expects_element = False
            yield line
        if part in ("[", "{"):
            depth += 1
            expects_element = depth == 1 and part == "["
        elif part in ("]", "}"):
            depth -= 1
        elif part == "," and depth == 1:
            expects_element = True
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


def _resolved(parts: tuple[str, ...], arrays: dict[KeyPath, int], *, new: bool) -> KeyPath:
    """The place of a header. An array of tables in its path means the array's last element.

    Args:
        parts: the keys of the header.
        arrays: the index of the last element of each array of tables; updated in place.
        new: whether the header adds an element, as `[[site]]` does.
    """
    where: KeyPath = ()
    for number, part in enumerate(parts, 1):
        where = (*where, part)
        if new and number == len(parts):
            arrays[where] = arrays.get(where, -1) + 1
        if where in arrays:
            where = (*where, arrays[where])
    return where
