"""A small HTTP server with hard bounds, in one thread, for metrics and health; what they say comes from others.

Whoever connects is not trusted to send, to read or to go away. One thread serves all connections without waiting for
any of them; each has so many seconds for its request and for taking the answer; there is room for so many of them, and
when it is full, whoever has stood still for longest makes room for who comes. So a crowd of slow clients costs one
thread and a bounded memory, and a client that reads on is served beside it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from rotator.core.errors import RotatorError

MAX_CONNECTIONS = 64
"""Connections that are open at once."""
MAX_REQUEST = 8 * 1024
"""Bytes of a request up to the empty line."""
REQUEST_WITHIN = 5.0
"""Seconds from connecting to the end of the request."""
ANSWER_WITHIN = 30.0
"""Seconds for taking the answer."""
LINGER_WITHIN = 1.0
"""Seconds after the answer for the client to close. Closing first would destroy what it has not read yet."""
CLOSE_WITHIN = 5.0
"""Seconds that the end of the thread is waited for: one page may just be being made."""
PAUSE = 0.2
"""Seconds without new connections after the system had no descriptor for one."""

_BACKLOG = 128
_PIECE = 256 * 1024
_AT_ONCE = 16
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.[0-9]\r?\Z")
_END = re.compile(rb"\r?\n\r?\n")
_PLAIN = "text/plain; charset=utf-8"
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_log = logging.getLogger(__name__)


class Page(Protocol):
    """What `/metrics` shows; called in the server's thread."""

    content_type: str

    def render(self) -> bytes:
        """The body."""


class Health(Protocol):
    """What `/healthz` and `/readyz` ask, in the server's thread: it must answer at once."""

    def alive(self) -> bool:
        """Whether the loop is working."""

    def ready(self) -> bool:
        """Whether the first reconcile is done."""


def serve(listen: str, page: Page, health: Health) -> Server:
    """Begins to listen and to answer.

    Args:
        listen: `host:port` or `[v6]:port`; port 0 lets the system choose.
        page: what `/metrics` shows.
        health: what `/healthz` and `/readyz` ask.

    Raises:
        RotatorError: `address-in-use`, `permission` or `io-error`; nothing is left open, and it may be tried again.
    """
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            return Server(listener, page, health)
        except OSError:
            listener.close()
            raise
    except OSError as e:
        raise _not_listening(listen, e) from e


def _not_listening(listen: str, e: OSError) -> RotatorError:
    told = f"metrics cannot be served at {listen}: {e.strerror or e}"
    if e.errno == errno.EADDRINUSE:
        hint = f"See who listens there (ss -ltnp 'sport = :{listen.rpartition(':')[2]}'), or set listen under [metrics]"
        return RotatorError("address-in-use", told, hint)
    if e.errno in (errno.EACCES, errno.EPERM):
        return RotatorError("permission", told, "Take a port above 1023: listen under [metrics]")
    return RotatorError("io-error", told, "Set listen under [metrics] to an address of this host")


class _Phase(Enum):
    REQUEST = auto()
    ANSWER = auto()
    LINGER = auto()


@dataclass(slots=True, eq=False)
class _Connection:
    """One client.

    Args:
        socket: its own, non-blocking.
        deadline: when the phase has to be over, monotonic.
        moved: when it last sent or took something, monotonic.
    """

    socket: socket.socket
    deadline: float
    moved: float
    phase: _Phase = _Phase.REQUEST
    request: bytearray = field(default_factory=bytearray)
    answer: list[memoryview] = field(default_factory=list)


class Server:
    """A running server; `serve` makes it.

    Args:
        listener: listening, non-blocking; it belongs to the server from here on.
        page: see `serve`.
        health: see `serve`.
    """

    def __init__(self, listener: socket.socket, page: Page, health: Health) -> None:
        self._listener, self._page, self._health = listener, page, health
        host, port = listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        """Where it listens, with the port that the system chose if it was to."""
        self._connections: set[_Connection] = set()
        self._paused_until = 0.0
        self._failing = False
        self._closing = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)
        # A daemon thread: a crash of the loop must end the process, not leave its metrics behind.
        self._thread = threading.Thread(target=self._run, name="rotator-web", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as e:  # the one way in which Python tells of a limit on threads
            for one in (self._selector, self._wake, self._woken):
                one.close()
            raise OSError(errno.EAGAIN, "no thread can be started") from e

    def close(self) -> None:
        """Closes every connection and ends the thread; returns when both are gone, which takes no client's consent.

        May be called again.
        """
        self._closing.set()
        with contextlib.suppress(OSError):
            self._wake.send(b".")
        self._thread.join(CLOSE_WITHIN)
        self._wake.close()

    def is_alive(self) -> bool:
        """Whether it answers; not after `close`, nor after a bug that has ended its thread."""
        return self._thread.is_alive()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                for key, _ in self._selector.select(self._patience()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.data, _Connection) and key.data in self._connections:
                        self._serve(key.data)
                self._expire()
        finally:
            for connection in tuple(self._connections):
                self._drop(connection)
            self._selector.close()
            self._listener.close()
            self._woken.close()

    def _patience(self) -> float | None:
        """Seconds until something is due without an event."""
        due = [connection.deadline for connection in self._connections]
        if self._paused_until:
            due.append(self._paused_until)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in [c for c in self._connections if c.deadline <= now]:
            self._drop(connection)
        if self._paused_until and self._paused_until <= now:
            self._paused_until = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):  # then the others have their turn
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in _SCARCE:
                    self._pause()
                    return
                continue  # it has gone already
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)  # or the kernel keeps megabytes for each
            if len(self._connections) >= MAX_CONNECTIONS:
                self._make_room()
            now = time.monotonic()
            connection = _Connection(client, now + REQUEST_WITHIN, now)
            self._connections.add(connection)
            self._selector.register(client, selectors.EVENT_READ, connection)

    def _pause(self) -> None:
        """No descriptor for who is waiting: one is given back, and the listener is left alone for a moment, or it would
        be ready for ever and this thread never rest.
        """
        self._make_room()
        self._selector.unregister(self._listener)
        self._paused_until = time.monotonic() + PAUSE

    def _make_room(self) -> None:
        """Drops who has been answered, or else who has stood still for longest."""
        if self._connections:
            self._drop(min(self._connections, key=lambda c: (c.phase is not _Phase.LINGER, c.moved)))

    def _drop(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.socket)
        connection.socket.close()

    def _serve(self, connection: _Connection) -> None:
        try:
            if connection.phase is _Phase.ANSWER:
                self._send(connection)
            else:
                self._receive(connection)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(connection)

    def _receive(self, connection: _Connection) -> None:
        data = connection.socket.recv(MAX_REQUEST)
        if not data:
            self._drop(connection)
            return
        if connection.phase is _Phase.LINGER:
            return  # thrown away: one request to a connection
        connection.moved = time.monotonic()
        connection.request += data
        end = _END.search(connection.request)
        if end is not None and end.end() <= MAX_REQUEST:
            line, _, _ = bytes(connection.request[: end.start()]).partition(b"\n")
            head, body = self._answer(line)
        elif len(connection.request) >= MAX_REQUEST:
            head, body = _answered(431, "the request is too large\n")
        else:
            return
        connection.request.clear()
        connection.answer = [memoryview(head), memoryview(body)]
        connection.phase = _Phase.ANSWER
        connection.deadline = time.monotonic() + ANSWER_WITHIN
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        sent = connection.socket.sendmsg([part[:_PIECE] for part in connection.answer])
        connection.moved = time.monotonic()
        while connection.answer and sent >= len(connection.answer[0]):
            sent -= len(connection.answer.pop(0))
        if connection.answer:
            connection.answer[0] = connection.answer[0][sent:]
            return
        connection.socket.shutdown(socket.SHUT_WR)
        connection.phase = _Phase.LINGER
        connection.deadline = connection.moved + LINGER_WITHIN
        self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    # -- what is answered ------------------------------------------------------------------------------------------

    def _answer(self, line: bytes) -> tuple[bytes, bytes]:
        """Head and body for the first line of a request."""
        request = _REQUEST.match(line)
        if request is None:
            return _answered(400, "this is no HTTP request\n")
        method, path = request[1], request[2].partition(b"?")[0]
        if path not in (b"/metrics", b"/healthz", b"/readyz"):
            head, body = _answered(404, "here are: /metrics, /healthz, /readyz\n")
        elif method not in (b"GET", b"HEAD"):
            head, body = _answered(405, "GET and HEAD only\n", "Allow: GET, HEAD\r\n")
        else:
            head, body = self._content(path)
        return head, b"" if method == b"HEAD" else body

    def _content(self, path: bytes) -> tuple[bytes, bytes]:
        try:
            if path == b"/metrics":
                answer = _answered(200, self._page.render(), kind=self._page.content_type)
            elif path == b"/healthz":
                answer = _answered(200, "alive\n") if self._health.alive() else _answered(503, "not alive\n")
            else:
                answer = _answered(200, "ready\n") if self._health.ready() else _answered(503, "not ready\n")
        except Exception:
            # A bug, but one of the pages': the other pages and the rotations go on, and the scrape shows it as down.
            if not self._failing:  # once, not at each scrape
                _log.exception("%s cannot be shown", path.decode())
            self._failing = True
            return _answered(500, "the log tells why this cannot be shown\n")
        self._failing = False
        return answer


def _answered(status: int, body: str | bytes, more: str = "", kind: str = _PLAIN) -> tuple[bytes, bytes]:
    content = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"Connection: close\r\n{more}\r\n"
    )
    return head.encode("ascii"), content
