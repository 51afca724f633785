"""The session of a process that gives up root's rights: it has its own descriptors, and its parent has the terminal.

A process of the session of root's shell can type into root's terminal (TIOCSTI, tty_ioctl(4)) or read what root types,
whatever its user is. So a session of its own begins before anything else is done. What the output decides by the
terminal (colours, tables, their width) is recorded before, and the streams of the new session answer with it.
"""

from __future__ import annotations

import io
import os
import resource
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO

from rotator.privsep.prctl import hide_memory, renounce_privileges

KEPT_VARIABLES = frozenset(
    {"COLORTERM", "COLUMNS", "LANG", "LANGUAGE", "LINES", "NO_COLOR", "PATH", "TERM", "TZ", "FORCE_COLOR"}
)
"""The variables of the environment that stay, beside those of the locale (`LC_…`): others can hold secrets of root."""


@dataclass(frozen=True, slots=True)
class StreamTraits:
    """What a program asks about one of its output streams.

    Args:
        terminal: whether it is a terminal.
        encoding: its encoding.
    """

    terminal: bool
    encoding: str

    @classmethod
    def of(cls, stream: TextIO | None) -> StreamTraits | None:
        """The traits of a stream; None if the caller of the program has closed it."""
        return cls(stream.isatty(), stream.encoding or "ascii") if stream is not None else None


@dataclass(frozen=True, slots=True)
class CallerView:
    """What the caller of the command sees its output on.

    Args:
        stdout: the traits of stdout.
        stderr: the traits of stderr.
        size: the columns and lines of the terminal; None without one.
    """

    stdout: StreamTraits | None
    stderr: StreamTraits | None
    size: os.terminal_size | None

    @classmethod
    def now(cls) -> CallerView:
        """The view of the caller of this process."""
        size = None
        for fd in (0, 1, 2):
            with suppress(OSError):
                size = os.get_terminal_size(fd)
                break
        return cls(StreamTraits.of(sys.stdout), StreamTraits.of(sys.stderr), size)


class RelayedStream(io.TextIOWrapper):
    """A pipe to the parent, which answers as the stream does to which the parent copies it. It carries UTF-8.

    Args:
        fd: the descriptor of the pipe.
        traits: the traits of the parent's stream.
    """

    def __init__(self, fd: int, traits: StreamTraits) -> None:
        super().__init__(open(fd, "wb", closefd=False), encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - a descriptor, open until the process ends
        self._traits = traits

    def isatty(self) -> bool:
        """Whether the parent's stream is a terminal."""
        return self._traits.terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute, io a property
        """The encoding of the parent's stream."""
        return self._traits.encoding


def begin_session(stdout: int, stderr: int, connection: int, view: CallerView, keep: Collection[int] = ()) -> int:
    """Begins a session without a terminal, whose only descriptors are /dev/null, two pipes and one connection.

    Args:
        stdout: the pipe that becomes the standard output.
        stderr: the pipe that becomes the standard error.
        connection: the one other descriptor that stays; its number changes.
        view: the view of the caller, recorded by the parent.
        keep: further descriptors that stay, each above 2.

    Returns:
        The new descriptor of the connection.

    Raises:
        OSError: as the system says.
    """
    os.setsid()
    connection = _replace_descriptors(stdout, stderr, connection, keep)
    sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - as above
    sys.stdout = RelayedStream(1, view.stdout) if view.stdout else None  # a closed stream stays closed
    sys.stderr = RelayedStream(2, view.stderr) if view.stderr else None
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    environment = kept_environment(os.environ, view.size)
    os.environ.clear()
    os.environ.update(environment)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    renounce_privileges()
    hide_memory()
    return connection


def kept_environment(environment: Mapping[str, str], size: os.terminal_size | None) -> dict[str, str]:
    """The part of an environment that the output needs, with the size of the terminal.

    Args:
        environment: the whole environment.
        size: the size of the terminal; None without one.
    """
    sizes = {"COLUMNS": str(size.columns), "LINES": str(size.lines)} if size else {}
    kept = {name: value for name, value in environment.items() if name in KEPT_VARIABLES or name.startswith("LC_")}
    return {**sizes, **kept}


def _replace_descriptors(stdout: int, stderr: int, connection: int, keep: Collection[int]) -> int:
    """Puts /dev/null and the pipes in place of the three standard descriptors, and closes all others but these."""
    kept = [_above_standard(fd) for fd in (os.open(os.devnull, os.O_RDWR), stdout, stderr, connection)]
    for number, fd in enumerate(kept[:3]):
        os.dup2(fd, number, inheritable=True)
    with os.scandir("/proc/self/fd") as entries:
        others = {int(entry.name) for entry in entries} - {0, 1, 2, kept[3], *keep}
    for fd in others:
        with suppress(OSError):  # the descriptor of the list itself is closed already
            os.close(fd)
    return kept[3]


def _above_standard(fd: int) -> int:
    """A copy of a descriptor with a number above 2: a caller can have closed the standard ones."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
