"""The filter between an unprivileged process and root's terminal: lets plain text and a few colours through.

A terminal executes what it reads: sequences move its cursor, change its title, answer with typed text or write files.
So every control character is escaped, except line feeds, tabs, and the exact sequences of the colours and styles that
rotator's own output uses. Nothing else is parsed here.
"""

from __future__ import annotations

import re

from rotator.core.text import escaped

RESET = "\x1b[0m"
_STYLE = "(?:[0-4]|3[0-79]|9[0-7])"
"""The end of all styles; bold, faint, italic, underlined; a colour of the text. Hidden text and others are missing."""
_COLOUR = re.compile(rf"(\x1b\[{_STYLE}(?:;{_STYLE}){{0,3}}m)")
_INCOMPLETE = re.compile(r"\x1b(?:\[[0-9;]{0,11})?\Z")


class TerminalFilter:
    """The filter of one stream.

    Args:
        colours: whether the stream is a terminal, on which colours are allowed.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._rest = ""
        self._coloured = False

    def feed(self, text: str) -> str:
        """The harmless form of the next part of the text. A sequence at its end that is incomplete waits for the rest.

        Args:
            text: any text.
        """
        text, self._rest = self._rest + text, ""
        if not self._colours:
            return _plain(text)
        if incomplete := _INCOMPLETE.search(text):
            text, self._rest = text[: incomplete.start()], incomplete[0]
        parts = _COLOUR.split(text)  # every second part is a colour
        for colour in parts[1::2]:
            self._coloured = colour != RESET
        return "".join(part if number % 2 else _plain(part) for number, part in enumerate(parts))

    def end(self) -> str:
        """The rest of the text. The colours of the terminal are the usual ones afterwards."""
        rest, self._rest = _plain(self._rest), ""
        return rest + (RESET if self._coloured else "")


def _plain(text: str) -> str:
    return "\n".join(escaped(line, keep="\t") for line in text.split("\n"))
