"""One value of the configuration each: from what TOML gave to what it means; no key or table is known here.

Every reader takes the raw value and returns the meant one, or raises `BadValueError` with words for whoever wrote it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from rotator.core.model import KeyType

T = TypeVar("T")

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SITE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+@-]+")
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,245}\.service")
_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")


class BadValueError(Exception):
    """A value that cannot be meant.

    Args:
        message: what is wrong with it.
        hint: what to write instead; empty where there is no telling.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def quoted(value: object) -> str:
    """A value as the file may have it, short enough and safe for one line of a message."""
    if isinstance(value, str):
        clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)
        return f'"{clean}"' if len(clean) <= 80 else f'"{clean[:80]}…"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**18:  # Python refuses to write out the largest
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
    """A reader of whole numbers of some unit between two bounds, both allowed."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValueError(f"{quoted(value)} is not a whole number", f"write a number of {unit}, without quotes")
        if not least <= value <= most:
            raise BadValueError(f"{quoted(value)} {unit} are not between {least} and {most}")
        return value

    return read


def duration(least: float, most: float) -> Callable[[object], float]:
    """A reader of times such as "500ms", "15s", "2m" or "1h", between two bounds in seconds, both allowed."""

    def read(value: object) -> float:
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise BadValueError(
                f"{quoted(value)} is not a time", 'write a number and a unit, such as "500ms", "15s", "2m", "1h"'
            )
        seconds = float(found[1]) * _UNITS[found[2]]
        if not least <= seconds <= most:
            raise BadValueError(f"{quoted(value)} is not between {in_words(least)} and {in_words(most)}")
        return seconds

    return read


def in_words(seconds: float) -> str:
    """A time as the configuration writes it, in the largest unit that leaves a whole number."""
    for unit, size in reversed(_UNITS.items()):
        count = seconds / size
        if count >= 1 and math.isclose(count, round(count)):
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def choice(*words: str) -> Callable[[object], str]:
    """A reader of one of these words."""

    def read(value: object) -> str:
        if value not in words:
            raise BadValueError(
                f"{quoted(value)} is not known here", "write " + " or ".join(f'"{word}"' for word in words)
            )
        return str(value)

    return read


def optional(read: Callable[[object], T], word: str = "") -> Callable[[object], T | None]:
    """The same reader, where one word (by default the empty string) means none."""

    def read_optional(value: object) -> T | None:
        return None if value == word else read(value)

    return read_optional


def array(read: Callable[[object], T], *, least: int = 0) -> Callable[[object], tuple[T, ...]]:
    """A reader of an array of that, without the same twice; it raises `BadElementsError` for all wrong elements."""

    def read_array(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise BadValueError(f"{quoted(value)} is not an array", f"write it in brackets: [{quoted(value)}]")
        if len(value) < least:
            raise BadValueError("holds nothing")
        got: dict[T, None] = {}
        wrong: dict[int, BadValueError] = {}
        for index, element in enumerate(value):
            try:
                one = read(element)
                if one in got:
                    raise BadValueError(f"{quoted(element)} stands there twice", "leave one of them")
                got[one] = None
            except BadValueError as error:
                wrong[index] = error
        if wrong:
            raise BadElementsError(wrong)
        return tuple(got)

    return read_array


class BadElementsError(BadValueError):
    """Elements of an array cannot be meant; `wrong` tells of each, by its index."""

    def __init__(self, wrong: Mapping[int, BadValueError]) -> None:
        super().__init__(f"{len(wrong)} elements are wrong")
        self.wrong = wrong


def command(value: object) -> tuple[str, ...]:
    """A program and its arguments, as an array: no shell is asked to split a string."""
    if isinstance(value, str):
        parts = ", ".join(quoted(word) for word in value.split())
        raise BadValueError(f"{quoted(value)} is a string, and no shell splits it", f"write it as an array: [{parts}]")
    if not isinstance(value, list) or not value:
        raise BadValueError(f"{quoted(value)} is not an array of a program and its arguments", 'write ["nginx"]')
    words = tuple(text(word) for word in value)
    if not words[0]:
        raise BadValueError("the program has no name", 'write ["nginx"]')
    return words


def path(value: object) -> Path:
    """An absolute path without `..`."""
    written = text(value)
    if not written.startswith("/"):
        raise BadValueError(f"{quoted(written)} is not an absolute path", "begin it with a slash")
    if ".." in written.split("/"):
        raise BadValueError(f'{quoted(written)} holds ".."', "write where it leads")
    return Path("/" + written.lstrip("/"))


def plain_path(value: object) -> Path:
    """An absolute path of characters that nginx reads as they stand in its configuration."""
    found = path(value)
    strange = sorted(set(_PLAIN_PATH.sub("", str(found))))
    if strange:
        raise BadValueError(
            f"{quoted(value)} holds {', '.join(quoted(c) for c in strange)}: nginx expands $, splits at spaces and ;",
            "use letters, digits and . _ / + @ - only",
        )
    if found.name in ("", "conf.d", "sites-enabled"):
        raise BadValueError(
            f"{quoted(value)} is no directory for rotator alone: nginx includes all that stands there, in every block",
            'use a directory of its own, such as "/etc/nginx/rotator"',
        )
    return found


def site_name(value: object) -> str:
    """A site's name: it becomes the name of directories and files, so its grammar is strict."""
    written = text(value)
    if not _SITE.fullmatch(written):
        raise BadValueError(
            f"{quoted(written)} is no name for a site: at most 64 of a-z 0-9 . _ -, the first a letter or a digit",
            f"call it {quoted(suggestion)}" if _SITE.fullmatch(suggestion := _as_site_name(written)) else "",
        )
    if ".." in written or written.endswith((".", ".conf")) or written == "pairs":
        raise BadValueError(
            f"{quoted(written)} would mix with rotator's own files",
            'write no "..", no ".conf" or "." at its end, and not "pairs"',
        )
    return written


def _as_site_name(written: str) -> str:
    return re.sub(r"\.{2,}", ".", re.sub(r"[^a-z0-9._-]+", "-", written.lower())).strip("-._")


def unit(value: object) -> str:
    """The name of a service unit of systemd."""
    written = text(value)
    if not _UNIT.fullmatch(written):
        raise BadValueError(f"{quoted(written)} is no service unit", 'write it like "nginx.service"')
    return written


def group(value: object) -> str:
    """The name of a group; whether this host has it is not looked up."""
    written = text(value)
    if not _GROUP.fullmatch(written):
        raise BadValueError(f"{quoted(written)} is no name of a group", 'write it like "www-data"')
    return written


def key_type(value: object) -> KeyType:
    """A kind of key."""
    return KeyType(choice(*KeyType)(value))
