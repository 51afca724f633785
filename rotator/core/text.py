"""Text from outside made safe for messages, terminals and labels: the one place that escapes or replaces characters."""

from __future__ import annotations

import re

_UNFIT_FOR_LABELS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def place(file: str, line: int) -> str:
    """A file and its line, for a message; a binary file has no lines."""
    return f"{file} line {line}" if line else file


def escaped(text: str, keep: str = "") -> str:
    """The text with every character escaped that would break the line, move the cursor or not encode.

    Args:
        text: any text.
        keep: characters that stay as they are, such as a line feed.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in text
    )


def shown(text: str, limit: int = 200) -> str:
    """The escaped text for a message, cut to a number of characters."""
    clean = escaped(text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def shown_name(name: str) -> str:
    """A file name for a message, escaped and whole; two quotation marks for an empty one."""
    return escaped(name) or '""'


def label(text: str, limit: int) -> str:
    """The text as the value of a metric's label: control characters and lone surrogates replaced, cut to a length."""
    return (text if text.isprintable() else _UNFIT_FOR_LABELS.sub("\N{REPLACEMENT CHARACTER}", text))[:limit]
