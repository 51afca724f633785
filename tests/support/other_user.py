"""Runs a piece of a test as a user with no rights of its own; what it tries and what it finds belong to the test."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
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
    return in_children([work])[0]


def in_children(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each of these returns, all of them at the same time, each in a forked child.

    The first one that fails ends the others, and fails the test here, with its traceback. None outlives this call.
    """
    left: dict[int, int] = {}
    found: list[T] = []
    try:
        for work in works:
            inlet, outlet = os.pipe()
            left[forked(lambda work=work, inlet=inlet, outlet=outlet: _answer(work, inlet, outlet))] = inlet  # type: ignore[misc]
            os.close(outlet)
        for child, inlet in tuple(left.items()):
            with os.fdopen(inlet, "rb") as stream:
                worked, result = pickle.load(stream)
            os.waitpid(child, 0)
            del left[child]
            if not worked:
                raise AssertionError(f"in the child:\n{result}")
            found.append(result)
    finally:
        for child in left:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        for child, inlet in left.items():
            with suppress(OSError):
                os.close(inlet)
            os.waitpid(child, 0)
    return found


def _answer(work: Callable[[], object], inlet: int, outlet: int) -> None:
    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit("it was told to end")  # so that what it has started is ended as well

    os.close(inlet)
    signal.signal(signal.SIGTERM, end)
    try:
        told: tuple[bool, object] = (True, work())
    except BaseException:
        told = (False, traceback.format_exc())
    with suppress(BrokenPipeError), os.fdopen(outlet, "wb") as stream:
        pickle.dump(told, stream)


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
