"""Text from outside made safe and short for a message; nothing is parsed here."""

from __future__ import annotations


def place(file: str, line: int) -> str:
    """Where something stands, for a message: a binary file has no lines."""
    return f"{file} line {line}" if line else file


def shown(text: str, limit: int = 200) -> str:
    """Text from outside for a message: what would break the line or move the cursor is escaped, the rest cut."""
    if text.isprintable() and len(text) <= limit:
        return text
    clean = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in text
    )
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
