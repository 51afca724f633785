"""The demo's own clients, by the standard library's TLS alone: strict, and on purpose independent of rotator's."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE = 10.0
"""Seconds that a client waits for nginx."""
REST = 0.015
"""Seconds between two connections of the crowd."""


class Client:
    """A strict client of one name.

    Args:
        name: which.
        roots: what it trusts, as PEM; nothing else.
    """

    def __init__(self, name: str, roots: bytes) -> None:
        self.name = name
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.verify_flags |= ssl.VERIFY_X509_STRICT
        self.context.load_verify_locations(cadata=roots.decode())

    def connect(self, listener: str) -> ssl.SSLSocket:
        """A fresh connection with a new session; that it comes about proves chain, key, name and dates.

        Raises:
            OSError: it did not, `ssl.SSLError` included.
        """
        host, port = listener.rsplit(":", 1)
        raw = socket.create_connection((host, int(port)), PATIENCE)
        try:
            return self.context.wrap_socket(raw, server_hostname=self.name)
        except BaseException:
            raw.close()
            raise

    def leaf(self, listener: str) -> str:
        """SHA-256 of the leaf that is served there, in lower-case hex; or why there is none."""
        try:
            with self.connect(listener) as connection:
                return _fingerprint(connection)
        except OSError as e:
            return f"no handshake: {e}"

    def complaint(self, chain: Path, key: Path) -> str:
        """What this client says to a server that sends exactly these certificates; empty if it takes them."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(chain, key)
        ways = ssl.MemoryBIO(), ssl.MemoryBIO()
        theirs = server.wrap_bio(*ways, server_side=True)
        ours = self.context.wrap_bio(ways[1], ways[0], server_hostname=self.name)
        try:
            for end in (ours, theirs, ours, theirs):
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        except ssl.SSLCertVerificationError as e:
            return e.verify_message
        return ""

    def hold(self, listener: str) -> ssl.SSLSocket:
        """A connection in the middle of its request, as a websocket is for its whole life."""
        connection = self.connect(listener)
        connection.sendall(self._request()[:-2])
        return connection

    def finish(self, connection: ssl.SSLSocket) -> bool:
        """Ends a held request. Returns whether it was answered."""
        with connection, suppress(OSError):
            connection.sendall(b"\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
        return False

    def ask(self, listener: str) -> str:
        """One whole request on a fresh connection. Returns the leaf's SHA-256.

        Raises:
            OSError: it was not answered with 200.
        """
        with self.connect(listener) as connection:
            connection.sendall(self._request())
            if not connection.recv(64).startswith(b"HTTP/1.1 200"):
                raise ConnectionError("the connection was closed without an answer")
            return _fingerprint(connection)

    def _request(self) -> bytes:
        return f"GET / HTTP/1.1\r\nHost: {self.name}\r\nConnection: close\r\n\r\n".encode()


class Crowd:
    """Clients that come one after the other, at each listener in turn, until `stop`.

    Args:
        client: what each of them is.
        listeners: where they go.
    """

    def __init__(self, client: Client, listeners: Sequence[str]) -> None:
        self._client, self._listeners = client, tuple(listeners)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._come, name="demo-clients", daemon=True)
        self.answered = 0
        """Requests that were answered."""
        self.failures: list[str] = []
        """One line for each that was not."""
        self.first_seen: dict[tuple[str, str], float] = {}
        """When (listener, leaf) was served first, in seconds since the epoch."""

    def start(self) -> None:
        """Lets them come."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when the last one has gone."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(2 * PATIENCE)

    def _come(self) -> None:
        while not self._stopped.is_set():
            for listener in self._listeners:
                begun = time.time()
                try:
                    leaf = self._client.ask(listener)
                except OSError as e:
                    self.failures.append(f"{time.strftime('%H:%M:%S', time.localtime(begun))} {listener}: {e}")
                else:
                    self.answered += 1
                    self.first_seen.setdefault((listener, leaf), time.time())
            self._stopped.wait(REST)


def _fingerprint(connection: ssl.SSLSocket) -> str:
    return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
