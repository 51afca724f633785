"""Messages to the service manager, by sd_notify(3): ready, reloading, stopping, status, and that the loop works.

A daemon must neither wait for its manager nor fail because of it, so nothing here blocks or raises. A message that the
manager could not take because its queue was full is sent again before the next one, except a ping of the watchdog,
which is true at its moment only. Without a manager (no NOTIFY_SOCKET) nothing is sent. For the thread of the loop only.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping

import sdnotify  # type: ignore[import-untyped]  # it has no annotations

LONGEST = 1024
"""Bytes of a status line; systemd refuses a datagram of more than 4096."""

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Notifier:
    """The connection to the service manager.

    Args:
        environ: has NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; None for the environment of the process.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._connection: _Connection | None = None
        self._unsent: dict[str, str] = {}
        self.watchdog_every = _watchdog_every(environ)
        """Seconds between two pings, half of what the manager allows; None if it does not watch this process."""

    def ready(self, status: str = "") -> None:
        """Reports that the start or a reload is done, also a reload that failed.

        Args:
            status: the status line, in the same message; empty to leave it as it is.
        """
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        """Sets the status line, which `systemctl status` shows."""
        self._send("", text)

    def reloading(self) -> None:
        """Reports that a reload begins; `ready` has to follow."""
        # Both in one message: the time tells the manager which reload it is about (sd_notify(3)).
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Reports that the daemon is about to end."""
        self._send("STOPPING=1")

    def starting(self, seconds: float) -> None:
        """Reports that the start goes on, which extends the unit's TimeoutStartSec= (sd_notify(3)).

        Like a ping of the watchdog it is true at its moment only.

        Args:
            seconds: until when the next report, or `ready`, follows.
        """
        self._deliver(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def watchdog(self) -> None:
        """Reports that the loop works."""
        if self._deliver("WATCHDOG=1"):
            self._catch_up()

    def close(self) -> None:
        """Closes the socket; a later message opens it again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _send(self, state: str, status: str = "") -> None:
        if not self._address:
            return
        parts = [state] if state else []
        if status or not state:  # an empty status by itself clears the line
            parts.append(f"STATUS={_line(status)}")
        kind = state.partition("=")[0]
        self._unsent.pop(kind, None)  # last again: messages keep the order of what they report
        self._unsent[kind] = "\n".join(parts)
        self._catch_up()

    def _catch_up(self) -> None:
        for kind in list(self._unsent):
            if not self._deliver(self._unsent[kind]):
                return
            del self._unsent[kind]

    def _deliver(self, message: str) -> bool:
        """Whether the manager has taken the message. After a restart of the manager its new socket is tried once."""
        if not self._address:
            return False
        for _ in range(2):
            try:
                self._connection = self._connection or _Connection(self._address)
                # `notify` encodes as Latin-1, one character for each byte: the UTF-8 bytes are sent as they are.
                self._connection.notify(message.encode("utf-8", "replace").decode("latin-1"))
            except BlockingIOError:
                return False
            except OSError:
                self.close()
            else:
                return True
        return False


class _Connection(sdnotify.SystemdNotifier):  # type: ignore[misc]  # as above
    """A connection that does not block and shows its errors.

    Args:
        address: as `connect` takes it.

    Raises:
        OSError: no process listens at the address.
    """

    def __init__(self, address: str) -> None:
        # Instead of the constructor of sdnotify, whose socket blocks, and stays open after a failed connection.
        self.debug = True
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.socket.connect(address)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the socket."""
        with contextlib.suppress(OSError):
            self.socket.close()


def _address(written: str) -> str:
    """NOTIFY_SOCKET as `connect` takes it; empty if it is not an AF_UNIX address."""
    if written.startswith("@"):
        return "\0" + written[1:]  # an abstract address
    return written if written.startswith("/") else ""


def _watchdog_every(environ: Mapping[str, str]) -> float | None:
    """Half of WATCHDOG_USEC in seconds, as sd_watchdog_enabled(3) advises; None if it is meant for another process."""
    try:
        limit = int(environ.get("WATCHDOG_USEC", "")) / 1_000_000
        pid = int(environ.get("WATCHDOG_PID", "") or os.getpid())
    except ValueError:
        return None
    return limit / 2 if limit > 0 and pid == os.getpid() else None


def _line(text: str) -> str:
    """The text on one line: a line break would begin another assignment, such as a false READY=1."""
    whole = _BREAKS.sub(" ", text).strip().encode("utf-8", "replace")
    return whole[:LONGEST].decode("utf-8", "ignore")
