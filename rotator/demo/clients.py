"""The demo's strict TLS clients. They use the standard library alone, so that they are independent of rotator."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

TIMEOUT = 10.0
"""The seconds that a client waits for nginx."""
PAUSE = 0.015
"""The seconds between two rounds of the clients in the background."""


class Client:
    """A strict client of one host name.

    Args:
        name: the host name.
        roots: the only roots that it trusts, as PEM.
    """

    def __init__(self, name: str, roots: bytes) -> None:
        self.name = name
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.verify_flags |= ssl.VERIFY_X509_STRICT
        self.context.load_verify_locations(cadata=roots.decode())

    def connect(self, listener: str) -> ssl.SSLSocket:
        """A new connection with a new TLS session. Its success proves chain, key, name and dates.

        Raises:
            OSError: the connection or the handshake failed (`ssl.SSLError` is an OSError).
        """
        host, port = listener.rsplit(":", 1)
        raw = socket.create_connection((host, int(port)), TIMEOUT)
        try:
            return self.context.wrap_socket(raw, server_hostname=self.name)
        except BaseException:
            raw.close()
            raise

    def leaf(self, listener: str) -> str:
        """The SHA-256 of the served leaf in lower-case hexadecimal, or the error of the handshake."""
        try:
            with self.connect(listener) as connection:
                return _fingerprint(connection)
        except OSError as e:
            return f"no handshake: {e}"

    def complaint(self, chain: Path, key: Path) -> str:
        """This client's error about a server that sends exactly these certificates; empty if it accepts them."""
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(chain, key)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_context.wrap_bio(to_server, to_client, server_side=True)
        client = self.context.wrap_bio(to_client, to_server, server_hostname=self.name)
        try:
            for peer in (client, server, client, server):
                with suppress(ssl.SSLWantReadError):
                    peer.do_handshake()
        except ssl.SSLCertVerificationError as e:
            return e.verify_message
        return ""

    def hold(self, listener: str) -> ssl.SSLSocket:
        """A connection with an unfinished request, which stays open like a websocket."""
        connection = self.connect(listener)
        connection.sendall(self._request()[:-2])
        return connection

    def finish(self, connection: ssl.SSLSocket) -> bool:
        """Completes the request of `hold`. Returns whether it was answered."""
        with connection, suppress(OSError):
            connection.sendall(b"\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
        return False

    def ask(self, listener: str) -> str:
        """Makes one request on a new connection. Returns the SHA-256 of the leaf.

        Raises:
            OSError: the answer is not 200, or there is none.
        """
        with self.connect(listener) as connection:
            connection.sendall(self._request())
            if not connection.recv(64).startswith(b"HTTP/1.1 200"):
                raise ConnectionError("the connection was closed without an answer")
            return _fingerprint(connection)

    def _request(self) -> bytes:
        return f"GET / HTTP/1.1\r\nHost: {self.name}\r\nConnection: close\r\n\r\n".encode()


class ClientLoad:
    """Clients in the background: one connection after the other, to each listener in turn, until `stop`.

    Args:
        client: makes the connections.
        listeners: the addresses.
    """

    def __init__(self, client: Client, listeners: Sequence[str]) -> None:
        self._client, self._listeners = client, tuple(listeners)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-clients", daemon=True)
        self.answered = 0
        """The number of requests that were answered."""
        self.failures: list[str] = []
        """One line for each request that failed."""
        self.first_seen: dict[tuple[str, str], float] = {}
        """When a (listener, leaf) was first served, in seconds since the epoch."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and waits for its last connection."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(2 * TIMEOUT)

    def _run(self) -> None:
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
            self._stopped.wait(PAUSE)


def _fingerprint(connection: ssl.SSLSocket) -> str:
    return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
