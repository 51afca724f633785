"""The web server of the metrics and the health checks: small, in one thread, with hard limits.

A client is not trusted to send, to read or to disconnect. One thread serves all connections and never waits for one of
them. Each connection has a time limit for its request and for the answer. The number of connections is limited: when
the limit is reached, a new client replaces the one that has been idle for longest. Therefore any number of slow clients
costs one thread and a bounded amount of memory, and a client that keeps reading is still served.
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
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.metrics.host_names import HostNames, own_names

MAX_CONNECTIONS = 64
"""The most connections that are open at the same time."""
MAX_REQUEST = 8 * 1024
"""The most bytes of a request, up to and including the empty line."""
REQUEST_WITHIN = 5.0
"""The seconds that a client has for its request, from the connection on."""
ANSWER_WITHIN = 30.0
"""The seconds that a client has to read the answer."""
LINGER_WITHIN = 1.0
"""The seconds after the answer in which the client may close. Closing before it does could discard unread data."""
CLOSE_WITHIN = 5.0
"""The seconds that `Server.close` waits for the thread, which may be rendering a page."""
PAUSE = 0.2
"""The seconds without new connections after the system had no descriptor for one."""

_BACKLOG = 128
_SEND_SIZE = 256 * 1024
_ACCEPTED_PER_ROUND = 16
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.[0-9]\r?\Z")
_END = re.compile(rb"\r?\n\r?\n")
_PLAIN = "text/plain; charset=utf-8"
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_log = logging.getLogger(__name__)


class Page(Protocol):
    """The page at `/metrics`; it is rendered in the server's thread."""

    content_type: str

    def render(self) -> bytes:
        """The body."""


class Health(Protocol):
    """The answers of `/healthz` and `/readyz`; called in the server's thread, so each must return at once."""

    def alive(self) -> bool:
        """Whether the loop is working."""

    def ready(self) -> bool:
        """Whether the first pass over all sites is complete."""


def serve(
    listen: str, page: Page, health: Health, hosts: Iterable[str] = (), passed: socket.socket | None = None
) -> Server:
    """Starts a server.

    Args:
        listen: `host:port` or `[v6]:port`; port 0 lets the system choose.
        page: the page at `/metrics`.
        health: the answers of `/healthz` and `/readyz`.
        hosts: names under which it is asked for, beside those of this host.
        passed: a listening socket to serve instead of `listen`; it stays open when the server ends.

    Raises:
        RotatorError: `address-in-use`, `permission` or `io-error`. No socket is left open, so the call may be repeated.
    """
    host, _, port = listen.rpartition(":")
    names = HostNames({host, *hosts, *own_names()})
    try:
        if passed is not None:
            return Server(passed.dup(), page, health, names)
        addresses = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            return Server(listener, page, health, names)
        except OSError:
            listener.close()
            raise
    except OSError as e:
        raise _not_listening(listen, e) from e


def _not_listening(listen: str, e: OSError) -> RotatorError:
    message = f"metrics cannot be served at {listen}: {e.strerror or e}"
    if e.errno == errno.EADDRINUSE:
        port = listen.rpartition(":")[2]
        hint = (
            f"Find the program that listens there (ss -ltnp 'sport = :{int(port):d}'), or change listen under [metrics]"
        )
        return RotatorError(Reason.ADDRESS_IN_USE, message, hint)
    if e.errno in (errno.EACCES, errno.EPERM):
        return RotatorError(Code.PERMISSION, message, "Choose a port above 1023: listen under [metrics]")
    return RotatorError(Code.IO_ERROR, message, "Set listen under [metrics] to an address of this host")


class _Phase(Enum):
    REQUEST = auto()
    ANSWER = auto()
    LINGER = auto()


@dataclass(slots=True, eq=False)
class _Connection:
    """One client.

    Args:
        socket: its socket, non-blocking.
        deadline: when the phase must have ended, in seconds of the monotonic clock.
        active_at: when the client last sent or read some bytes, in seconds of the monotonic clock.
        phase: the phase that it is in.
        request: the bytes of its request so far.
        answer: the parts of the answer that are not sent yet.
    """

    socket: socket.socket
    deadline: float
    active_at: float
    phase: _Phase = _Phase.REQUEST
    request: bytearray = field(default_factory=bytearray)
    answer: list[memoryview] = field(default_factory=list)


class Server:
    """A running server; `serve` starts one.

    Args:
        listener: a listening, non-blocking socket, which the server closes at its end.
        page: see `serve`.
        health: see `serve`.
        names: the names under which it answers.
    """

    def __init__(self, listener: socket.socket, page: Page, health: Health, names: HostNames) -> None:
        self._listener, self._page, self._health, self._names = listener, page, health, names
        host, port = listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        """The address that it listens at, with the port that the system chose for port 0."""
        self._connections: set[_Connection] = set()
        self._paused_until = 0.0
        self._failing = False
        self._closing = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)
        # A daemon thread, so that a crash of the loop ends the process together with its metrics.
        self._thread = threading.Thread(target=self._run, name="rotator-web", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as e:  # Python raises it when the system has no thread left
            for resource in (self._selector, self._wake, self._woken):
                resource.close()
            raise OSError(errno.EAGAIN, "no thread can be started") from e

    def close(self) -> None:
        """Closes every connection, ends the thread and waits for its end. May be called again."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._wake.send(b".")
        self._thread.join(CLOSE_WITHIN)
        self._wake.close()

    def is_alive(self) -> bool:
        """Whether the thread is running: until `close`, or until a bug ends it."""
        return self._thread.is_alive()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                for key, _ in self._selector.select(self._seconds_to_deadline()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.data, _Connection) and key.data in self._connections:
                        self._serve(key.data)
                self._expire()
        finally:
            for connection in tuple(self._connections):
                self._close(connection)
            self._selector.close()
            self._listener.close()
            self._woken.close()

    def _seconds_to_deadline(self) -> float | None:
        """The seconds until the next deadline; None if there is none."""
        deadlines = [connection.deadline for connection in self._connections]
        if self._paused_until:
            deadlines.append(self._paused_until)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in [c for c in self._connections if c.deadline <= now]:
            self._close(connection)
        if self._paused_until and self._paused_until <= now:
            self._paused_until = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_PER_ROUND):  # then the open connections are served
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in _SCARCE:
                    self._pause()
                    return
                continue  # the client has disconnected already
            client.setblocking(False)
            client.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_SIZE
            )  # by default the kernel buffers megabytes
            if len(self._connections) >= MAX_CONNECTIONS:
                self._make_room()
            now = time.monotonic()
            connection = _Connection(client, now + REQUEST_WITHIN, now)
            self._connections.add(connection)
            self._selector.register(client, selectors.EVENT_READ, connection)

    def _pause(self) -> None:
        """Closes one connection and ignores the listener for a moment, because the system has no descriptor left.

        The listener stays readable while a client waits, so without the pause this thread would never sleep.
        """
        self._make_room()
        self._selector.unregister(self._listener)
        self._paused_until = time.monotonic() + PAUSE

    def _make_room(self) -> None:
        """Closes a connection that has its answer, or otherwise the one that has been idle for longest."""
        if self._connections:
            self._close(min(self._connections, key=lambda c: (c.phase is not _Phase.LINGER, c.active_at)))

    def _close(self, connection: _Connection) -> None:
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
            self._close(connection)

    def _receive(self, connection: _Connection) -> None:
        data = connection.socket.recv(MAX_REQUEST)
        if not data:
            self._close(connection)
            return
        if connection.phase is _Phase.LINGER:
            return  # ignored: a connection has one request
        connection.active_at = time.monotonic()
        connection.request += data
        end = _END.search(connection.request)
        if end is not None and end.end() <= MAX_REQUEST:
            head, body = self._answer(bytes(connection.request[: end.start()]))
        elif len(connection.request) >= MAX_REQUEST:
            head, body = _response(431, "the request is too large\n")
        else:
            return
        connection.request.clear()
        connection.answer = [memoryview(head), memoryview(body)]
        connection.phase = _Phase.ANSWER
        connection.deadline = time.monotonic() + ANSWER_WITHIN
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        sent = connection.socket.sendmsg([part[:_SEND_SIZE] for part in connection.answer])
        connection.active_at = time.monotonic()
        while connection.answer and sent >= len(connection.answer[0]):
            sent -= len(connection.answer.pop(0))
        if connection.answer:
            connection.answer[0] = connection.answer[0][sent:]
            return
        connection.socket.shutdown(socket.SHUT_WR)
        connection.phase = _Phase.LINGER
        connection.deadline = connection.active_at + LINGER_WITHIN
        self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    # -- the answers -----------------------------------------------------------------------------------------------

    def _answer(self, asked: bytes) -> tuple[bytes, bytes]:
        """The head and the body that answer a request line with its headers."""
        request = _REQUEST.match(asked.partition(b"\n")[0])
        if request is None:
            return _response(400, "this is not an HTTP request\n")
        refused = self._names.refused(asked)
        if refused is not None:
            return _response(421, _misdirected(refused))
        method, path = request[1], request[2].partition(b"?")[0]
        if path not in (b"/metrics", b"/healthz", b"/readyz"):
            head, body = _response(404, "the pages are /metrics, /healthz and /readyz\n")
        elif method not in (b"GET", b"HEAD"):
            head, body = _response(405, "only GET and HEAD are allowed\n", "Allow: GET, HEAD\r\n")
        else:
            head, body = self._content(path)
        return head, b"" if method == b"HEAD" else body

    def _content(self, path: bytes) -> tuple[bytes, bytes]:
        try:
            if path == b"/metrics":
                answer = _response(200, self._page.render(), kind=self._page.content_type)
            elif path == b"/healthz":
                answer = _response(200, "alive\n") if self._health.alive() else _response(503, "not alive\n")
            else:
                answer = _response(200, "ready\n") if self._health.ready() else _response(503, "not ready\n")
        except Exception:
            # A bug in a page must not stop the other pages or the rotations; Prometheus shows this host as down.
            if not self._failing:  # logged once, not at each scrape
                _log.exception("%s cannot be rendered", path.decode())
            self._failing = True
            return _response(500, "this page cannot be rendered; the log shows the error\n")
        self._failing = False
        return answer


def _misdirected(name: str) -> str:
    """The answer to a request for a host of another name (RFC 9110 section 15.5.20)."""
    body = "this page is served under the names and addresses of this host only\n"
    if name:
        body += f'to serve it as {name}, too, write in rotator.toml under [metrics]: hosts = ["{name}"]\n'
    return body


def _response(status: int, body: str | bytes, more: str = "", kind: str = _PLAIN) -> tuple[bytes, bytes]:
    content = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nServer: rotator\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"Connection: close\r\n{more}\r\n"
    )
    return head.encode("ascii"), content
