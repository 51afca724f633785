"""Commands in messages: shell lines that a person can paste whatever the names in them contain."""

from __future__ import annotations

import shlex
from typing import Protocol

_NOT_FIRST = ("-", "+", "=", "@")
"""What a program or a shell can read as more than a name where a word begins with it: options; "=ls" in zsh."""


class FilePath(Protocol):
    """A path as an object, such as `pathlib.Path`."""

    def __fspath__(self) -> str: ...


def command(line: str, *words: str | FilePath) -> str:
    """A shell command: its beginning as the source has it, then one quoted word for each name.

    Args:
        line: the program, its options and its fixed arguments; a constant of the source, never a name from outside.
        words: paths and other names, of any content. No word is read as an option.
    """
    return " ".join((line, *map(shell_word, words)))


def shell_word(name: str | FilePath) -> str:
    r"""A name as exactly one word of a shell: quoted where it has to be, never an option, always printable.

    A name that begins with a dash, "+", "=" or "@" gets "./" before it, so that no program reads it as an option. A
    name with control characters, direction marks, or bytes that are not UTF-8 is written as $'…' with octal escapes
    (POSIX.1-2024 section 2.2.4), which is one word for shells without that form, too.
    """
    text = name if isinstance(name, str) else name.__fspath__()
    if text.startswith(_NOT_FIRST):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    """One character between $' and '; a lone surrogate stands for the byte that the file system's name has."""
    if character.isprintable() and character not in "'\\":
        return character
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", errors))
