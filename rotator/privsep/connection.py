"""A connection to one of root's programs: it is made at its first use, held, and made again once it has ended."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from json import loads
from pathlib import Path
from typing import NoReturn, TypeVar

from rotator.core.errors import RotatorError
from rotator.core.hints import command
from rotator.core.reasons import Reason, reason_of
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Request, VersionError

GREETING_WITHIN = 10.0
"""The seconds in which root's program greets. It starts in 0.1 s; a loaded host takes longer."""
ANSWER_WITHIN = 150.0
"""The seconds for one answer: 80 for nginx's decision while its master is busy, 30 for another request of the host."""
ALIVE_EVERY = 1.0
"""The seconds between two calls of `waiting` during a wait."""
PROGRAM = "/usr/local/libexec/rotator-apply"
INSTALL = f"install -D -m 0755 rotator/privsep/apply.py {PROGRAM}"
"""The command that installs root's program, from the directory of a release."""

Answer = TypeVar("Answer")


class _EndedError(Exception):
    """The other side has closed the connection."""


class Connection:
    """One connection to root's program.

    Args:
        path: the socket.
        unit: the name of its units, without `.socket` or `@.service`.
    """

    def __init__(self, path: Path, unit: str) -> None:
        self._path, self._unit = path, unit
        self._socket: socket.socket | None = None

    def greet(self, waiting: Callable[[], None]) -> None:
        """Connects, if that is necessary, and reads the greeting.

        So a program that is missing, refuses this user or has another version shows before anything is requested.

        Args:
            waiting: called every second during the wait.

        Raises:
            RotatorError: `apply-unit`, `apply-denied`, `apply-version`, or the reason that the program gives.
        """
        if self._socket is not None and not _is_readable(self._socket):  # no data is due, so this would be its end
            return
        self.close()
        self._socket = self._connect()
        try:
            self._check_greeting(self._receive(GREETING_WITHIN, waiting))
        except _EndedError:
            self.close()
            message = (
                f"{self._path}: the connection was closed without a greeting. Either {self._unit}.socket has as many "
                f"connections as its MaxConnections= allows, or {PROGRAM} is of an older release"
            )
            raise RotatorError(Reason.APPLY_UNIT, message, f"{self._log_hint()}; of this release: {INSTALL}") from None
        except (ValueError, OSError) as e:
            self.close()
            self._fail(f"{self._path}: the greeting is not that of {PROGRAM}: {e}", e)
        except BaseException:
            self.close()
            raise

    def ask(self, request: Request, parse: Callable[[bytes], Answer], waiting: Callable[[], None]) -> Answer:
        """The answer to one request.

        Args:
            request: the request.
            parse: reads the answer's line.
            waiting: called every second during the wait.

        Raises:
            RotatorError: the errors of `greet`, and nothing was requested; `apply-unit` or `apply-version` if the
                request has no answer that this rotator understands, and it is unknown whether it was carried out.
        """
        line = privileged.encode(request)
        self.greet(waiting)
        try:
            try:
                self._send(line, waiting)
            except BrokenPipeError:  # it ended just now, and has received nothing
                self.close()
                self.greet(waiting)
                self._send(line, waiting)
            return parse(self._receive(ANSWER_WITHIN, waiting))
        except BaseException as e:
            self.close()  # a late answer must not be taken for that to another request
            if isinstance(e, VersionError):
                message = f"{PROGRAM} has changed its version within a connection: {e}"
                raise RotatorError(Reason.APPLY_VERSION, message, INSTALL) from e
            if isinstance(e, ValueError):
                self._fail(f"{PROGRAM} gave an answer that this rotator does not understand", e)
            if isinstance(e, _EndedError | OSError):
                self._fail(f"{PROGRAM} ended before it gave an answer", e)
            raise

    def close(self) -> None:
        """Ends the connection, and with it root's program."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def refusal(self, reason: str, message: str) -> RotatorError:
        """The error of a request, or of a connection, that root's program refuses for a reason of its own."""
        return RotatorError(reason_of(reason), message, self._log_hint())

    # -- the connection

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.setblocking(False)
            connection.connect(str(self._path))
        except OSError as e:
            connection.close()
            if isinstance(e, FileNotFoundError | ConnectionRefusedError):
                message = f"{self._path}: {self._unit}.socket is not installed, or not started"
                hint = f"Install its units and start it: {command('systemctl enable --now', f'{self._unit}.socket')}"
                raise RotatorError(Reason.APPLY_UNIT, message, hint) from e
            if isinstance(e, PermissionError):
                message = f"{self._path}: only the user rotator and root may connect"
                unit = command("systemctl cat", f"{self._unit}.socket")
                hint = f"Repeat it as one of them; the unit says who may: {unit}"
                raise RotatorError(Reason.APPLY_DENIED, message, hint) from e
            self._fail(f"{self._path}: {e.strerror or e}", e)
        return connection

    def _check_greeting(self, line: bytes) -> None:
        greeting: object = None
        with suppress(ValueError, RecursionError):
            greeting = loads(line)
        match greeting:
            case {"version": int(version)} if version != privileged.VERSION:
                raise _version_error(version)
            case {"version": int(), "error": str(reason), "message": str(message)}:
                raise self.refusal(reason, message)
            case {"version": int()}:
                return
        self._fail(f"{self._path}: the greeting is not that of {PROGRAM}: {line[:80]!r}")

    # -- lines

    def _send(self, line: bytes, waiting: Callable[[], None]) -> None:
        left, end = memoryview(line), time.monotonic() + GREETING_WITHIN
        while left:
            self._wait(select.POLLOUT, end, waiting)
            with suppress(BlockingIOError):
                left = left[self._held.send(left) :]

    def _receive(self, within: float, waiting: Callable[[], None]) -> bytes:
        """One line."""
        data, end = b"", time.monotonic() + within
        while not data.endswith(b"\n"):
            self._wait(select.POLLIN, end, waiting)
            with suppress(BlockingIOError):
                try:
                    part = self._held.recv(privileged.MAX_ANSWER)
                except ConnectionResetError:
                    part = b""
                if not part:
                    raise _EndedError
                data += part
            if len(data) > privileged.MAX_ANSWER:
                raise ValueError(f"an answer of more than {privileged.MAX_ANSWER} bytes")
        return data

    def _wait(self, events: int, end: float, waiting: Callable[[], None]) -> None:
        poll = select.poll()
        poll.register(self._held, events)
        while not poll.poll(1000 * max(min(ALIVE_EVERY, end - time.monotonic()), 0.0)):
            if time.monotonic() >= end:
                self._fail(f"{PROGRAM} gave no answer in time")
            waiting()

    @property
    def _held(self) -> socket.socket:
        assert self._socket is not None, "used before `greet`"  # noqa: S101 - a bug, not an input
        return self._socket

    # -- errors

    def _log_hint(self) -> str:
        log = command("journalctl -n 20 -u", f"{self._unit}@*")
        return f"See its log: {log}; and: {command('systemctl status', f'{self._unit}.socket')}"

    def _fail(self, message: str, cause: BaseException | None = None) -> NoReturn:
        raise RotatorError(Reason.APPLY_UNIT, message, self._log_hint()) from cause


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _version_error(theirs: int) -> RotatorError:
    """The error of a program of another version: which side is older, and the commands that mend it."""
    ours = privileged.VERSION
    if theirs < ours:
        message = f"{PROGRAM} is older than this rotator: its requests have version {theirs}, those of rotator {ours}"
        hint = f"Install that of this release: {INSTALL}; then: systemctl restart rotator"
        return RotatorError(Reason.APPLY_VERSION, message, hint)
    message = f"this rotator is older than {PROGRAM}: its requests have version {ours}, those of the program {theirs}"
    hint = "If the new release is installed, start it: systemctl restart rotator; if not, install both from one release"
    return RotatorError(Reason.APPLY_VERSION, message, hint)
