"""The one error that crosses module borders, and the exit statuses; no behaviour lives here and nothing is imported."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of every `rotator` command."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    REJECTED = 3
    ROLLED_BACK = 4
    STRANDED = 5
    DIFFERS = 6
    BUSY = 7
    DEFERRED = 8
    CONFIG = 78


class RotatorError(Exception):
    """Something that the outside world did, told in words for the person on call.

    A hand raises it `from` the foreign error at the edge; `rotate` turns it into an outcome and the command line
    into an exit status. A bug is never a RotatorError.

    Args:
        code: a stable kebab-case word, the same in messages, metric labels and JSON.
        message: what failed, naming the file (and line) or address. Never holds a byte of a key.
        hint: the next step for the person who reads it; empty where there is none.
        exit: the exit status if nothing between here and the command line handles it.
    """

    def __init__(self, code: str, message: str, hint: str = "", exit: Exit = Exit.FAILURE) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.exit = exit

    def __str__(self) -> str:
        return self.message
