"""Runs a piece of a test as a user with no rights of its own; what it tries and what it finds belong to the test."""

from __future__ import annotations

import os
import pickle
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

NOBODY = 65534

T = TypeVar("T")


def forked(work: Callable[[], object]) -> int:
    """The pid of a child that does `work` and ends without a word; the caller waits for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking beside pytest's own threads
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def in_child(work: Callable[[], T]) -> T:
    """What `work` returns in a forked child, so that nothing it changes of the process lasts.

    An exception of `work` fails the test here, with its traceback.

    Args:
        work: returns something that can be pickled.
    """
    inlet, outlet = os.pipe()

    def answer() -> None:
        try:
            os.close(inlet)
            told: tuple[bool, object] = (True, work())
        except BaseException:
            told = (False, traceback.format_exc())
        with os.fdopen(outlet, "wb") as stream:
            pickle.dump(told, stream)

    child = forked(answer)
    os.close(outlet)
    with os.fdopen(inlet, "rb") as stream:
        worked, result = pickle.load(stream)
    os.waitpid(child, 0)
    if not worked:
        raise AssertionError(f"in the child:\n{result}")
    return result  # type: ignore[no-any-return]


def as_nobody(work: Callable[[], T], *, cwd: Path, uid: int = NOBODY, gid: int = NOBODY) -> T:
    """What `work` returns when root has given up its rights first; anybody else has none to give up.

    Args:
        work: returns something that can be pickled; the modules that it needs are imported already.
        cwd: the working directory; relative paths are found from there even if its parents are closed to the user.
        uid: the user that root becomes.
        gid: its group, the only one.
    """

    def with_less() -> T:
        os.chdir(cwd)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        return work()

    return in_child(with_less)
