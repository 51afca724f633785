"""The parsers of single values: paths, times, numbers, names.

Each parser takes a value as TOML gave it and returns the parsed value, or raises `BadValueError` with a message for
the author of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from rotator.core.model import KeyType
from rotator.core.names import SITE, SITE_CHARACTERS
from rotator.core.text import escaped

T = TypeVar("T")

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+@-]+")
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,245}\.service")
_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")


class BadValueError(Exception):
    """A value that its key may not have.

    Args:
        message: what is wrong with it.
        hint: what to write instead; empty if that is unknown.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def quoted(value: object) -> str:
    """A value as the file writes it, shortened and escaped to fit into one line of a message."""
    if isinstance(value, str):
        clean = escaped(value)
        return f'"{clean}"' if len(clean) <= 80 else f'"{clean[:80]}…"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**18:  # Python refuses to convert very long ones to text
        return "a number of that size"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return str(value)


def text(value: object) -> str:
    """A string of printable characters; may be empty."""
    if not isinstance(value, str):
        raise BadValueError(f"{quoted(value)} is not a string", "write it in double quotes")
    if not value.isprintable():
        raise BadValueError(f"{quoted(value)} holds control characters")
    return value


def boolean(value: object) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise BadValueError(f"{quoted(value)} is neither true nor false", "write true or false, without quotes")
    return value


def whole(least: int, most: int, unit: str) -> Callable[[object], int]:
    """A parser of whole numbers.

    Args:
        least: the smallest number that is allowed.
        most: the largest number that is allowed.
        unit: the unit, in the plural, for messages.
    """

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValueError(f"{quoted(value)} is not a whole number", "write a number, without quotes")
        if not least <= value <= most:
            raise BadValueError(f"{quoted(value)} is out of range: {least} to {most} {unit}")
        return value

    return read


def duration(least: float, most: float) -> Callable[[object], float]:
    """A parser of times such as "500ms", "15s", "2m" or "1h"; it returns seconds.

    Args:
        least: the shortest time that is allowed, in seconds.
        most: the longest time that is allowed, in seconds.
    """

    def read(value: object) -> float:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise BadValueError(
                f"{quoted(value)} is not a time", 'write a number and a unit, such as "500ms", "15s", "2m", "1h"'
            )
        seconds = float(match[1]) * _UNITS[match[2]]
        if not least <= seconds <= most:
            raise BadValueError(f"{quoted(value)} is not between {as_duration(least)} and {as_duration(most)}")
        return seconds

    return read


def as_duration(seconds: float) -> str:
    """A time as the configuration writes it, in the largest unit that gives a whole number."""
    for unit, size in reversed(_UNITS.items()):
        count = seconds / size
        if count >= 1 and math.isclose(count, round(count)):
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def choice(*choices: str, removed: str = "", hint: str = "") -> Callable[[object], str]:
    """A parser of one of these words.

    Args:
        choices: the words.
        removed: a word of earlier releases.
        hint: what to do instead of writing that word.
    """

    def read(value: object) -> str:
        if removed and value == removed:
            raise BadValueError(f"{quoted(removed)} was removed in this release", hint)
        if value not in choices:
            raise BadValueError(
                f"{quoted(value)} is not one of the possible values",
                "write " + " or ".join(map(quoted, choices)),
            )
        return str(value)

    return read


def optional(read: Callable[[object], T], none: str = "") -> Callable[[object], T | None]:
    """A parser that returns None for one string, and the value of another parser for everything else.

    Args:
        read: the other parser.
        none: the string that means None.
    """

    def read_optional(value: object) -> T | None:
        return None if value == none else read(value)

    return read_optional


def array(read: Callable[[object], T], *, least: int = 0) -> Callable[[object], tuple[T, ...]]:
    """A parser of an array without duplicates; it raises one `BadElementsError` for all wrong elements.

    Args:
        read: the parser of one element.
        least: the smallest number of elements that is allowed.
    """

    def read_array(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise BadValueError(f"{quoted(value)} is not an array", f"write it in brackets: [{quoted(value)}]")
        if len(value) < least:
            raise BadValueError("the array is empty", "write at least one element")
        parsed: dict[T, None] = {}
        errors: dict[int, BadValueError] = {}
        for index, element in enumerate(value):
            try:
                item = read(element)
                if item in parsed:
                    raise BadValueError(f"{quoted(element)} is in the array twice", "remove one of the two")
                parsed[item] = None
            except BadValueError as error:
                errors[index] = error
        if errors:
            raise BadElementsError(errors)
        return tuple(parsed)

    return read_array


class BadElementsError(BadValueError):
    """Wrong elements of an array.

    Args:
        errors: the error of each wrong element, by its index.
    """

    def __init__(self, errors: Mapping[int, BadValueError]) -> None:
        super().__init__(f"{len(errors)} elements are wrong")
        self.errors = errors


def command(value: object) -> tuple[str, ...]:
    """A program and its arguments as an array; rotator does not run a shell, which could split a string."""
    if isinstance(value, str):
        parts = ", ".join(quoted(part) for part in value.split())
        raise BadValueError(f"{quoted(value)} is a string, and no shell splits it", f"write it as an array: [{parts}]")
    if not isinstance(value, list) or not value:
        raise BadValueError(f"{quoted(value)} is not an array of a program and its arguments", 'write ["nginx"]')
    arguments = tuple(text(part) for part in value)
    if not arguments[0]:
        raise BadValueError("the name of the program is empty", 'write ["nginx"]')
    return arguments


def path(value: object) -> Path:
    """An absolute path without `..`."""
    written = text(value)
    if not written.startswith("/"):
        raise BadValueError(f"{quoted(written)} is not an absolute path", "begin it with a slash")
    if ".." in written.split("/"):
        raise BadValueError(f'{quoted(written)} has a ".." in it', "write the path without it")
    return Path("/" + written.lstrip("/"))


def plain_path(value: object) -> Path:
    """An absolute path of a directory for includes, with only characters that have no meaning to nginx."""
    directory = path(value)
    special = sorted(set(_PLAIN_PATH.sub("", str(directory))))
    if special:
        raise BadValueError(
            f"{quoted(value)} contains {', '.join(quoted(c) for c in special)}: "
            "nginx expands $ and splits at spaces and ;",
            "use letters, digits and . _ / + @ - only",
        )
    if directory.name in ("", "conf.d", "sites-enabled"):
        raise BadValueError(
            f"{quoted(value)} is not a directory for rotator alone: nginx includes every file of it in every block",
            'use a separate directory, such as "/etc/nginx/rotator"',
        )
    return directory


def site_name(value: object) -> str:
    """The name of a site. Directories and files get this name, so its grammar is strict."""
    written = text(value)
    if not SITE_CHARACTERS.match(written):
        raise BadValueError(
            f"{quoted(written)} is not a valid name of a site: at most 64 characters of a-z 0-9 . _ -, "
            "the first a letter or a digit",
            f"write {quoted(suggestion)}" if SITE.match(suggestion := _as_site_name(written)) else "",
        )
    if not SITE.match(written):
        raise BadValueError(
            f"{quoted(written)} conflicts with the names of rotator's own files",
            'choose another name: without "..", not "pairs", and without "." or ".conf" at its end',
        )
    return written


def _as_site_name(written: str) -> str:
    return re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9._-]+", "-", written.lower())).strip("-._")


def unit(value: object) -> str:
    """The name of a service unit of systemd."""
    written = text(value)
    if not _UNIT.fullmatch(written):
        raise BadValueError(f"{quoted(written)} is not a service unit", 'write it like "nginx.service"')
    return written


def group(value: object) -> str:
    """The name of a group of users. The host is not asked whether the group exists."""
    written = text(value)
    if not _GROUP.fullmatch(written):
        raise BadValueError(f"{quoted(written)} is not a valid name of a group", 'write it like "www-data"')
    return written


def key_type(value: object) -> KeyType:
    """A key type."""
    return KeyType(choice(*KeyType)(value))
