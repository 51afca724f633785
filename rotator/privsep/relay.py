"""The half of a command that keeps root's rights: it copies the other half's output, and passes signals on to it.

It reads nothing of the output but its characters, which a filter makes harmless for a terminal. It may answer requests
of the other half, one at a time; it is the caller who says how.
"""

from __future__ import annotations

import codecs
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import TextIO

from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.privsep.terminal_filter import TerminalFilter

PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
"""The signals that the other half gets, too: it has no terminal that could send them."""
JOB_CONTROL = (signal.SIGTSTP, signal.SIGCONT)
"""The signals by which a shell stops and continues both halves."""
MAX_MESSAGE = 64 * 1024
"""The most bytes of one request."""
STUCK_AFTER = 1.0
"""The seconds for which a signal waits for the other half's end, if it comes while the output is not taken."""
_PART = 64 * 1024
_MOST_AT_END = 64
"""The most parts that are copied after the other half has ended: a pipe holds fewer."""

Answer = Callable[[bytes], bytes]


class _Copy:
    """One pipe of the other half, copied to a stream of this process.

    Args:
        fd: the reading end of the pipe; closed at its end.
        stream: the stream; None if the caller of the program has closed it.
    """

    def __init__(self, fd: int, stream: TextIO | None) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.failure: OSError | None = None
        self._is_writing = False
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._filter = TerminalFilter(colours=stream is not None and stream.isatty())

    def copy(self) -> bool:
        """Copies one part. Returns whether there may be more; if not, the pipe is closed."""
        try:
            data = os.read(self.fd, _PART)
        except BlockingIOError:
            return True
        self._write(self._filter.feed(self._decoder.decode(data, final=not data)))
        if data and not self.failure:
            return True
        self.close()
        return False

    def finish(self) -> None:
        """Copies what is in the pipe when the other half has ended; another process may still hold the pipe open."""
        poll = select.poll()  # select(2) takes no descriptor above 1023
        if self.fd >= 0:
            poll.register(self.fd, select.POLLIN)
        parts = 0
        while self.fd >= 0 and parts < _MOST_AT_END and poll.poll(0):
            parts += 1
            self.copy()
        self.close()

    def close(self) -> None:
        """Closes the pipe, so that the other half cannot write to it any longer."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self._write(self._filter.end())

    def is_stuck(self) -> bool:
        """Whether a write waits for the reader of the stream."""
        if not self._is_writing or self._stream is None:
            return False
        poll = select.poll()
        try:
            poll.register(self._stream.fileno(), select.POLLOUT)
        except (OSError, ValueError):  # no file, or closed
            return False
        return not poll.poll(0)

    def _write(self, text: str) -> None:
        if not text or self.failure or self._stream is None:
            return
        self._is_writing = True
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except OSError as e:
            self.failure = e
        finally:
            self._is_writing = False


def relay(
    child: int, stdout: int, stderr: int, connection: socket.socket, mask: Iterable[int], answer: Answer | None
) -> int:
    """Copies the output of a child, answers its requests, and passes signals on to it, until it ends.

    Args:
        child: the pid of the child.
        stdout: the pipe that is its standard output.
        stderr: the pipe that is its standard error.
        connection: the connection on which it sends requests.
        mask: the signals that are blocked after the handlers are there; the caller has blocked `PASSED_ON` and
            `JOB_CONTROL`.
        answer: the answer to a request, or ValueError for an invalid one, which ends the connection; None if no request
            is allowed.

    Returns:
        The exit status of the child; 128 plus the number of the signal that has ended it.

    Raises:
        BrokenPipeError: the reader of stdout has ended.
        RotatorError: `io-error`: stdout cannot be written.
    """
    process = os.pidfd_open(child)
    output, messages = _Copy(stdout, sys.stdout), _Copy(stderr, sys.stderr)
    handlers = _install_handlers(process, (output, messages))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        _serve(process, (output, messages), connection, answer)
    finally:
        connection.close()  # before the wait, because the child may be waiting for an answer
        _, status = os.waitpid(child, 0)
        output.finish()
        messages.finish()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(process)
    if isinstance(output.failure, BrokenPipeError):
        raise output.failure
    if output.failure:
        hint = "The command itself is complete. Check the disk to which its output goes."
        message = f"the output cannot be written: {output.failure.strerror}"
        raise RotatorError(Code.IO_ERROR, message, hint) from output.failure
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _serve(process: int, copies: tuple[_Copy, _Copy], connection: socket.socket, answer: Answer | None) -> None:
    """Copies and answers until the process has ended."""
    poll = select.poll()
    by_fd = {copy.fd: copy for copy in copies}
    for fd in (process, connection.fileno(), *by_fd):
        poll.register(fd, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        for fd in ready:
            if fd in by_fd:
                if not by_fd[fd].copy():
                    poll.unregister(fd)
            elif fd == connection.fileno() and not _answer_one(connection, answer):
                poll.unregister(fd)
                connection.close()
        if process in ready:
            return


def _answer_one(connection: socket.socket, answer: Answer | None) -> bool:
    """Answers one request. Returns False if the connection is of no further use."""
    try:
        message = connection.recv(MAX_MESSAGE)
        if not message or answer is None:
            return False
        connection.send(answer(message))
    except (OSError, ValueError):
        return False  # the child has ended or sent an invalid request; nothing further is answered
    return True


def _install_handlers(process: int, copies: tuple[_Copy, _Copy]) -> dict[int, signal._HANDLER]:
    """Passes signals on to the child. A signal that this process ignores is ignored by the child, too (nohup).

    If the signal ends the child while the reader of the output takes nothing, this process ends at once, as it would
    otherwise wait for that reader without limit.
    """

    def send(number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(process, number)

    def pass_on(number: int, _: FrameType | None) -> None:
        send(number)
        if any(copy.is_stuck() for copy in copies) and _has_ended(process, STUCK_AFTER):
            os._exit(128 + number)

    def stop(_number: int, _: FrameType | None) -> None:
        # The kernel discards SIGTSTP for the child, because no process of its session could continue it.
        send(signal.SIGSTOP)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # returns when the shell continues this process
        signal.signal(signal.SIGTSTP, stop)
        send(signal.SIGCONT)

    wanted: dict[int, signal._HANDLER] = dict.fromkeys((*PASSED_ON, signal.SIGCONT), pass_on)
    wanted[signal.SIGTSTP] = stop
    return {
        number: signal.signal(number, handler)
        for number, handler in wanted.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }


def _has_ended(process: int, within: float) -> bool:
    """Whether a process ends within so many seconds."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(1000 * within))
