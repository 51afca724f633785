"""The probe: one fresh TLS handshake with a listener, and the chain that the listener sent."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import cache

from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi  # pyOpenSSL has no public call for signature algorithms
from OpenSSL._util import lib as _lib

from rotator.core.errors import RotatorError
from rotator.core.model import KeyType, Served, Target
from rotator.core.reasons import Reason

_SIGALGS = {
    KeyType.ECDSA: "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512",
    KeyType.RSA: "RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512",
    KeyType.ED25519: "ed25519",
}
"""The signature algorithms that make a server send this type of key in TLS 1.3 (RFC 8446, 4.4.2.2)."""
_CIPHERS = {
    KeyType.ECDSA: "aECDSA:!aNULL:!eNULL@SECLEVEL=0",
    KeyType.RSA: "aRSA:!aNULL:!eNULL@SECLEVEL=0",
    KeyType.ED25519: "aECDSA:!aNULL:!eNULL@SECLEVEL=0",
    None: "ALL:!aNULL:!eNULL@SECLEVEL=0",
}
"""The ciphers that make a server send this type of key up to TLS 1.2. Security level 0 shows weak certificates too."""

AT_ONCE = 8
"""The number of concurrent handshakes."""

PIECE = 16 * 1024
"""The most bytes of one read: a TLS record has at most 16 KiB of data (RFC 8446, 5.1)."""

MAX_HANDSHAKE = 256 * 1024
"""The most bytes of a server in one handshake: OpenSSL's clients accept 100 KiB of certificates; the rest is small."""

HANDSHAKE_FAILED = "the TLS handshake failed"
"""The start of the failure when one side ended the handshake by the protocol, for example for lack of a fitting key."""


class Version(StrEnum):
    """The TLS versions of present clients."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


def probe(target: Target, within: float = 2.0) -> Served:
    """The result of one new connection with one full handshake.

    Args:
        target: the listener (`host:port`, `[v6]:port`, `unix:/path`), the server name, and the type of key.
        within: the seconds for connection and handshake together.

    Returns:
        The chain as sent, or the failure. No behaviour of the server makes this function raise.
    """
    return _handshake(target, None, within)


def probe_version(target: Target, version: Version, within: float, *, proxy_protocol: bool = False) -> Served:
    """As `probe`, with one version of TLS.

    Args:
        target: as for `probe`; the server may be on any host.
        version: the version of TLS.
        within: the seconds for connection and handshake together.
        proxy_protocol: whether a PROXY header (version 1) is sent first.
    """
    return _handshake(target, version, within, proxy_protocol=proxy_protocol)


def reachable_address(listener: str, within: float) -> str:
    """The first address of a listener that accepts a connection, as a listener with a numeric host.

    Args:
        listener: `host:port` (the host is looked up), `[v6]:port`, `unix:/path`.
        within: the seconds for the look-up and all addresses together.

    Raises:
        RotatorError: `no-connection`; its message distinguishes an unknown name, a closed port and a silent host.
    """
    end = time.monotonic() + within
    addresses = [listener] if listener.startswith("unix:") else _look_up(listener, within)
    failures: list[str] = []
    for address in addresses:
        remaining = end - time.monotonic()
        try:
            if remaining <= 0:
                raise TimeoutError
            _connect(address, remaining).close()
        except (OSError, ValueError) as e:
            failures.append(f"{address}: {_connect_failure(e, within)}")
        else:
            return address
    hint = "Is the server running, and is this the right port? A firewall that drops packets shows as silence."
    if listener.startswith("unix:"):
        hint = (
            f"Is the server running? This process has the uid {os.geteuid():d} (`rotator probe` by root works as "
            "`nobody`), which must be allowed to write to the socket and to enter each directory above it."
        )
    raise RotatorError(Reason.NO_CONNECTION, f"No connection to {'; '.join(failures)}.", hint)


def _look_up(listener: str, within: float) -> list[str]:
    """The addresses of a host. A thread looks them up, as the resolver has no deadline.

    Raises:
        RotatorError: `no-connection`: there is no address, or none in time.
    """
    host, _, port = listener.rpartition(":")
    bare = host.strip("[]")
    if is_ip(bare):
        return [listener]
    results: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            entries = socket.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            results.put(e)
        else:
            addresses = dict.fromkeys(str(entry[4][0]) for entry in entries)
            results.put([f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in addresses])

    threading.Thread(target=resolve, name="resolver", daemon=True).start()
    hint = "Is the name right, and does this host's resolver answer?"
    try:
        result = results.get(timeout=within)
    except queue.Empty:
        raise RotatorError(Reason.NO_CONNECTION, f"No address for {bare} within {within:g} s.", hint) from None
    if isinstance(result, list):
        return result
    reason = (getattr(result, "strerror", "") or "it is no host name").lower()
    raise RotatorError(Reason.NO_CONNECTION, f"No address for {bare}: {reason}.", hint) from result


def probe_all(
    targets: Sequence[Target], within: float = 2.0, *, waiting: Callable[[], None] = lambda: None
) -> tuple[Served, ...]:
    """Probes every target, `AT_ONCE` at a time; the results are in the order of the targets.

    Args:
        targets: the listeners, names and key types to probe.
        within: the seconds for each handshake.
        waiting: is called after each result, so that the caller can show progress, such as to a watchdog.
    """
    results = []
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="probe") as pool:
        apply = pool.map if len(targets) > 2 else map  # for two targets, threads cost more than they save
        for served in apply(lambda target: probe(target, within), targets):
            results.append(served)
            waiting()
    return tuple(results)


def _handshake(target: Target, version: Version | None, within: float, *, proxy_protocol: bool = False) -> Served:
    """The result of one handshake; the time and the bytes that the server can cost are limited."""
    end = time.monotonic() + within
    try:
        sock = _connect(target.listener, within)
    except (OSError, ValueError) as e:
        return Served(target, failure=_connect_failure(e, within))
    connection = SSL.Connection(_context(target.key_type, version))
    try:
        if not is_ip(target.name):
            connection.set_tlsext_host_name(target.name.encode("ascii"))
        connection.set_connect_state()
        failure = (proxy_protocol and _announce(sock)) or _pump(connection, sock, end, within)
        if failure:
            return Served(target, failure=failure)
        chain = connection.get_peer_cert_chain(as_cryptography=False) or []
        return Served(target, tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, c) for c in chain))
    finally:
        sock.close()


def _connect(listener: str, within: float) -> socket.socket:
    if listener.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(within)
            sock.connect(listener.removeprefix("unix:"))
        except BaseException:
            sock.close()
            raise
        return sock
    host, _, port = listener.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=within)


def _announce(sock: socket.socket) -> str:
    """Sends the header of the PROXY protocol, version 1 (HAProxy, proxy-protocol.txt 2.1), for this connection.

    Returns:
        The failure; empty if there is none.
    """
    try:
        header = "PROXY UNKNOWN\r\n"
        if sock.family != socket.AF_UNIX:
            family = "TCP6" if sock.family == socket.AF_INET6 else "TCP4"
            (source, source_port, *_), (destination, port, *_) = sock.getsockname(), sock.getpeername()
            header = f"PROXY {family} {source} {destination} {source_port} {port}\r\n"
        sock.sendall(header.encode("ascii"))
    except OSError as e:
        return f"the connection was closed at once ({(e.strerror or 'no reason given').lower()})"
    return ""


def _connect_failure(e: Exception, within: float) -> str:
    if isinstance(e, TimeoutError):
        return f"no connection within {within:g} s"
    if isinstance(e, PermissionError):
        return "connecting is not permitted (a sandbox such as IPAddressDeny=, a firewall, or the socket's mode)"
    if isinstance(e, OSError):
        return (e.strerror or "the address is not known").lower()
    return "not an address"


def _pump(connection: SSL.Connection, sock: socket.socket, end: float, within: float) -> str:
    """Completes a handshake by copying bytes between the socket and OpenSSL's memory buffers.

    With a socket of its own, OpenSSL skips HelloRequests without returning to its caller, as long as the server sends
    them (ssl/statem/statem_lib.c, tls_get_message_header); so the deadline would have no effect.

    Returns:
        The failure; empty if there is none.
    """
    late = f"connected, but no TLS handshake within {within:g} s"
    received = 0
    while True:
        failure, done = "", False
        try:
            connection.do_handshake()
            done = True
        except SSL.WantReadError:
            pass
        except SSL.Error as e:
            failure = f"{HANDSHAKE_FAILED}: {ssl_reasons(e)}"
        try:
            with contextlib.suppress(SSL.WantReadError):
                while True:
                    sock.settimeout(max(0.001, end - time.monotonic()))
                    sock.sendall(connection.bio_read(PIECE))
            if failure or done:
                return failure
            if time.monotonic() >= end or not _wait(sock, select.POLLIN, end):
                return late
            data = sock.recv(PIECE)
        except TimeoutError:
            return failure or late
        except OSError as e:
            reason = (e.strerror or "no reason given").lower()
            return failure or f"the connection was closed during the handshake ({reason})"
        received += len(data)
        if not data:
            return "the connection was closed during the handshake (end of the stream)"
        if received > MAX_HANDSHAKE:
            return f"it sends more than {MAX_HANDSHAKE >> 10} KiB in a handshake, which no client accepts"
        connection.bio_write(data)


def _wait(sock: socket.socket, event: int, end: float) -> bool:
    """Whether the socket became ready in time; poll(2) is used, as select(2) takes no descriptor above 1023."""
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(max(0.0, end - time.monotonic()) * 1000))


@cache
def _context(key_type: KeyType | None, version: Version | None = None) -> SSL.Context:
    """A client that accepts every certificate and never resumes a session, which would hide a new certificate."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS[key_type].encode())
    if version is not None:
        number = {Version.TLS_1_2: SSL.TLS1_2_VERSION, Version.TLS_1_3: SSL.TLS1_3_VERSION}[version]
        context.set_min_proto_version(number)
        context.set_max_proto_version(number)
    if key_type is not None:
        accepted = _lib.SSL_CTX_set1_sigalgs_list(context._context, _ffi.new("char[]", _SIGALGS[key_type].encode()))
        assert accepted == 1, f"OpenSSL lacks the signature algorithms of {key_type}"  # noqa: S101 - a bug, not an input
    return context


def ssl_reasons(e: Exception) -> str:
    """OpenSSL's reasons of an error; they contain no data of the connection or the key."""
    if isinstance(e, SSL.Error) and e.args and isinstance(e.args[0], list):
        return "; ".join(str(reason[-1]) for reason in e.args[0]) or "no reason given"
    return type(e).__name__


def is_ip(name: str) -> bool:
    """Whether a name is an IP address, which is never sent as a server name (RFC 6066, section 3)."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
