"""A terminal of its own for a program, as a shell of root has one; what runs in it belongs to the tests."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.other_user import forked
from tests.support.waiting import PATIENCE, wait_until


class Terminal:
    """The far side of a terminal, in whose session one program runs.

    Args:
        fd: what a person would read and type on.
        pid: the program, which leads its session.
    """

    def __init__(self, fd: int, pid: int) -> None:
        self.fd, self.pid = fd, pid
        self.shown = b""
        self.status: int | None = None

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def look(self) -> bytes:
        """Everything that has been shown so far."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                part = os.read(self.fd, 65536)
            except OSError:  # the program has closed it
                break
            if not part:
                break
            self.shown += part
        return self.shown

    def wait_for(self, text: bytes) -> bytes:
        wait_until(lambda: text in self.look() or self.has_ended(), PATIENCE / 10, f"{text!r} in {self.shown!r}")
        assert text in self.look(), self.shown
        return self.shown

    def number_after(self, word: str) -> int:
        """The number that stands behind a word on the terminal."""
        pattern = re.compile(rf"{word} (-?\d+)\r".encode())
        wait_until(lambda: pattern.search(self.look()) or self.has_ended(), PATIENCE / 10, f"{word} in {self.shown!r}")
        match = pattern.search(self.shown)
        assert match, self.shown
        return int(match[1])

    def has_ended(self) -> bool:
        if self.status is None:
            gone, status = os.waitpid(self.pid, os.WNOHANG)
            if gone:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def end(self) -> int:
        """The exit status of the program, when it has ended by itself."""
        wait_until(lambda: (self.look(), self.has_ended())[1], PATIENCE / 10, "the program ends")
        self.look()
        assert self.status is not None
        return self.status


@contextmanager
def terminal(program: Callable[[], int], *, columns: int = 200) -> Iterator[Terminal]:
    """A terminal in whose session a forked child runs `program`; gone afterwards with everything in it.

    Args:
        program: its result becomes the exit status.
        columns: how wide the terminal is.
    """
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def run() -> None:
        os.close(near)
        os.setsid()
        fcntl.ioctl(far, termios.TIOCSCTTY, 0)
        for number in (0, 1, 2):
            os.dup2(far, number)
        if far > 2:
            os.close(far)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False, encoding="utf-8") for number in (1, 2))
        code = 70
        try:
            code = program()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    one = Terminal(near, forked(run))
    os.close(far)
    try:
        yield one
    finally:
        if not one.has_ended():
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        os.close(near)


def is_gone(pid: int) -> bool:
    """Whether no such process is left, or only its exit status."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in "ZX"
    return True


def state_of(pid: int) -> str:
    """The state of a process as ps shows it: R, S, T and so on."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def wait_forever() -> int:
    """Waits far longer than any test."""
    time.sleep(10 * PATIENCE)
    return 0
