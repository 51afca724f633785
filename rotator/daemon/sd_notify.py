"""What the service manager is told: ready, reloading, stopping, status, still working; nothing is decided here.

A daemon must not wait for its manager and must not fall over it, so nothing here blocks or raises. What the manager
could not take because its queue was full is told again with the next message, save a watchdog ping, which is only
true at its moment. Without a manager (no NOTIFY_SOCKET) nothing is done. Meant for one thread: the loop's.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping

import sdnotify  # type: ignore[import-untyped]

LONGEST = 1024
"""Bytes of a status line; systemd refuses a datagram of more than 4096."""

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Notifier:
    """The way to the service manager.

    Args:
        environ: where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID stand; None for the process's own.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._connection: _Connection | None = None
        self._unsent: dict[str, str] = {}
        self.watchdog_every = _watchdog_every(environ)
        """Seconds between two pings, half of what the manager allows; None where it does not watch this process."""

    def ready(self, status: str = "") -> None:
        """Says that the start, or a reload, is done, also one that failed; with the status in the same message."""
        self._tell("READY=1", status)

    def status(self, text: str) -> None:
        """Sets the line that `systemctl status` shows."""
        self._tell("", text)

    def reloading(self) -> None:
        """Says that a reload begins; `ready` has to follow."""
        # In one message, or the manager could not tell which reload it is about (sd_notify(3)).
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Says that the end has begun."""
        self._tell("STOPPING=1")

    def starting(self, seconds: float) -> None:
        """Says that the start goes on, and wants to be heard of again within so many seconds.

        It lasts longer than the unit's TimeoutStartSec= then, for as long as this is said (sd_notify(3)). Like a ping
        of the watchdog it is true at its moment only.
        """
        self._deliver(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def watchdog(self) -> None:
        """Says that the loop is still working."""
        if self._deliver("WATCHDOG=1"):
            self._catch_up()

    def close(self) -> None:
        """Lets go of the socket; what is told afterwards opens it again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _tell(self, state: str, status: str = "") -> None:
        if not self._address:
            return
        parts = [state] if state else []
        if status or not state:  # an empty status by itself clears the line
            parts.append(f"STATUS={_line(status)}")
        kind = state.partition("=")[0]
        self._unsent.pop(kind, None)  # to the end: the order in which things became true
        self._unsent[kind] = "\n".join(parts)
        self._catch_up()

    def _catch_up(self) -> None:
        for kind in list(self._unsent):
            if not self._deliver(self._unsent[kind]):
                return
            del self._unsent[kind]

    def _deliver(self, message: str) -> bool:
        """Whether the manager has it now. A manager that was restarted has a new socket: that is tried once."""
        if not self._address:
            return False
        for _ in range(2):
            try:
                self._connection = self._connection or _Connection(self._address)
                # `notify` encodes as Latin-1, which has one character for each byte: so these bytes go out as they are.
                self._connection.notify(message.encode("utf-8", "replace").decode("latin-1"))
            except BlockingIOError:
                return False
            except OSError:
                self.close()
            else:
                return True
        return False


class _Connection(sdnotify.SystemdNotifier):  # type: ignore[misc]
    """A connection that does not block, whose errors are shown, and whose socket is closed if there is none.

    Args:
        address: as `connect` takes it.

    Raises:
        OSError: nobody listens there.
    """

    def __init__(self, address: str) -> None:
        # Not the parent's: it leaves the socket of a failed connection open, and a blocking one to be waited on.
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
    """NOTIFY_SOCKET as `connect` takes it; empty where it is no AF_UNIX address."""
    if written.startswith("@"):
        return "\0" + written[1:]  # an abstract one
    return written if written.startswith("/") else ""


def _watchdog_every(environ: Mapping[str, str]) -> float | None:
    """Half of WATCHDOG_USEC in seconds, as sd_watchdog_enabled(3) advises; None if it is not meant for us."""
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
