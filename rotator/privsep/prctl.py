"""The settings of this process that prctl(2) changes."""

from __future__ import annotations

import ctypes
import os

_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 1, 4, 38


def hide_memory() -> None:
    """Closes the memory and the descriptors of this process to other processes of its user, and prevents core dumps.

    A change of the user and an execve(2) both undo it.

    Raises:
        OSError: as the system says.
    """
    _prctl(_SET_DUMPABLE, 0)


def renounce_privileges() -> None:
    """Makes set-user-ID programs give this process and its children no rights (NoNewPrivileges= of systemd).

    Raises:
        OSError: as the system says.
    """
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)


def end_with_parent(number: int) -> None:
    """Has the kernel send this process a signal when its parent ends. A change of the user undoes it.

    Args:
        number: the number of the signal.

    Raises:
        OSError: as the system says.
    """
    _prctl(_SET_DEATH_SIGNAL, number)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
