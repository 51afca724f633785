"""The errors of the system as stable codes: the one table from errno to the word that messages and metrics show.

Each edge of the program adds its own message and hint. `privsep.apply` is one file of the standard library and has a
copy of this table; a test compares them.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from rotator.core.problems import Code
from rotator.core.reasons import Reason

CODES: Mapping[int, Reason | Code] = {
    errno.ENOSPC: Reason.DISK_FULL,
    errno.EDQUOT: Reason.DISK_FULL,
    errno.EACCES: Code.PERMISSION,
    errno.EPERM: Code.PERMISSION,
}
"""The code of each error that has one of its own; every other is an `io-error`."""


def code_of(error: OSError) -> Reason | Code:
    """The code of an error of the system."""
    return CODES.get(error.errno or 0, Code.IO_ERROR)


def message_of(error: OSError | ValueError) -> str:
    """The system's message for an error, or Python's if the error is not of the system."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
