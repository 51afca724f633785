"""An observer of what is served, by the standard library's TLS alone; independent of rotator's own probe on purpose."""

from __future__ import annotations

import hashlib
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from tests.support.waiting import PATIENCE

KeyKind = Literal["ecdsa", "rsa"]

_CIPHERS = {"ecdsa": "aECDSA", "rsa": "aRSA"}


def dial(listener: str, timeout: float = PATIENCE) -> socket.socket:
    """A connection to `host:port`, `[v6]:port` or `unix:/path`."""
    if not listener.startswith("unix:"):
        host, port = listener.rsplit(":", 1)
        return socket.create_connection((host.strip("[]"), int(port)), timeout)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(listener[5:])
    except BaseException:
        connection.close()
        raise
    return connection


def accepts(listener: str, timeout: float = 10.0) -> bool:
    """Whether a connection to this listener is taken."""
    try:
        dial(listener, timeout).close()
    except OSError:
        return False
    return True


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, lower-case hex."""
    return hashlib.sha256(der).hexdigest()


def served_chain(
    listener: str, name: str, key_type: KeyKind | None = None, timeout: float = PATIENCE
) -> tuple[bytes, ...]:
    """The DER certificates as sent, leaf first, of one fresh handshake that trusts anything.

    With a key type, of a server that has two: TLS 1.2 and only the cipher suites that this kind can sign.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if key_type is not None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS[key_type])
    with dial(listener, timeout) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
        return _chain_of(tls)


def served_leaf(listener: str, name: str, key_type: KeyKind | None = None, timeout: float = PATIENCE) -> bytes:
    """The DER leaf of one fresh handshake that trusts anything."""
    return served_chain(listener, name, key_type, timeout)[0]


def strict_context(root_pem: str) -> ssl.SSLContext:
    """A client that trusts these roots only, demands a complete chain and RFC 5280, and checks the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=root_pem)
    return context


def verified_connect(listener: str, name: str, root_pem: str, timeout: float = PATIENCE) -> ssl.SSLSocket:
    """A connection whose handshake a strict client has accepted; the caller closes it.

    That it completes proves that the chain belongs to its key, leads to the root, and covers the name.
    """
    raw = dial(listener, timeout)
    try:
        return strict_context(root_pem).wrap_socket(raw, server_hostname=name)
    except BaseException:
        raw.close()
        raise


def leaf_of(connection: ssl.SSLSocket) -> bytes:
    """The DER leaf that this connection was given."""
    leaf = connection.getpeercert(binary_form=True)
    if leaf is None:
        raise AssertionError("a handshake without a certificate")
    return leaf


class HeldConnection:
    """A client in the middle of its request, as a slow upload or a websocket is: it keeps its worker alive."""

    def __init__(self, connection: ssl.SSLSocket, name: str) -> None:
        self.connection = connection
        self.leaf = leaf_of(connection)
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n".encode())

    def finish(self) -> str:
        """Send the rest of the request; the status line of the answer."""
        self.connection.sendall(b"\r\n")
        return answer_of(self.connection)


@contextmanager
def held_connection(listener: str, name: str, root_pem: str) -> Iterator[HeldConnection]:
    """Hold a verified connection open, with a request half sent, until the end of the block."""
    with verified_connect(listener, name, root_pem) as connection:
        yield HeldConnection(connection, name)


def ask(connection: ssl.SSLSocket, name: str) -> str:
    """One whole HTTP request on this connection; the status line of the answer."""
    connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
    return answer_of(connection)


def answer_of(connection: ssl.SSLSocket) -> str:
    """Read to the end; the status line, empty if there was none."""
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer.split(b"\r\n", 1)[0].decode("latin-1")


if sys.version_info >= (3, 13):

    def _chain_of(tls: ssl.SSLSocket) -> tuple[bytes, ...]:
        return tuple(tls.get_unverified_chain())

else:

    def _chain_of(tls: ssl.SSLSocket) -> tuple[bytes, ...]:
        # Before 3.13 the same call exists, one object deeper and with certificates as objects.
        inner = getattr(tls, "_sslobj")  # noqa: B009 - the stubs do not know it
        return tuple(ssl.PEM_cert_to_DER_cert(cert.public_bytes()) for cert in inner.get_unverified_chain())
