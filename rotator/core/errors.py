"""The one error that crosses module borders, and the exit statuses of the command line."""

from __future__ import annotations

from enum import IntEnum

from rotator.core.problems import Code
from rotator.core.reasons import Reason


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
    """A failure of the outside world (file, network, nginx, input), described for the person on call.

    An adapter raises it `from` the foreign error; `rotate` turns it into an outcome, and the command line turns it into
    an exit status. A bug is never a RotatorError.

    Args:
        code: why, as a word that is the same in messages, metric labels and JSON.
        message: what failed, with the file (and line) or the address. It never contains a byte of a key.
        hint: the next step for the reader; empty if there is none.
        exit: the exit status of the command if no caller handles the error.
    """

    def __init__(self, code: Reason | Code, message: str, hint: str = "", exit: Exit = Exit.FAILURE) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.exit = exit

    def __str__(self) -> str:
        return self.message
