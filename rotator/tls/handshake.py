"""One TLS handshake and what it showed: the chain as sent, in a fresh session; whether it is right is not said here."""

from __future__ import annotations

import contextlib
import ipaddress
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
from OpenSSL._util import ffi as _ffi  # pyOpenSSL has no call of its own for signature algorithms
from OpenSSL._util import lib as _lib

from rotator.core.errors import RotatorError
from rotator.core.model import KeyType, Served, Target
from rotator.core.reasons import Reason

_SIGALGS = {
    KeyType.ECDSA: "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512",
    KeyType.RSA: "RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512",
    KeyType.ED25519: "ed25519",
}
"""With TLS 1.3 the client's signature algorithms decide which certificate is sent (RFC 8446, 4.4.2.2)."""
_CIPHERS = {
    KeyType.ECDSA: "aECDSA:!aNULL:!eNULL@SECLEVEL=0",
    KeyType.RSA: "aRSA:!aNULL:!eNULL@SECLEVEL=0",
    KeyType.ED25519: "aECDSA:!aNULL:!eNULL@SECLEVEL=0",
    None: "ALL:!aNULL:!eNULL@SECLEVEL=0",
}
"""Up to TLS 1.2 the cipher decides. The level is 0 because what is served is to be seen, whatever it is worth."""

AT_ONCE = 8
"""Handshakes at the same time."""

PIECE = 16 * 1024
"""Bytes that are read at a time."""

MAX_HANDSHAKE = 256 * 1024
"""Bytes of a server's side of a handshake: OpenSSL's clients take 100 KiB of certificates, and little else is sent."""

DECLINED = "the TLS handshake failed"
"""How the words begin where the other side, or OpenSSL on ours, broke it off by the protocol, as for want of a key."""


class Version(StrEnum):
    """The versions of TLS that clients of today speak."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


def probe(target: Target, within: float = 2.0) -> Served:
    """One new connection, one full handshake.

    Args:
        target: listener (`host:port`, `[v6]:port`, `unix:/path`), the name to ask for, and the kind of key.
        within: seconds for connecting and handshake together.

    Returns:
        The chain as sent; or the failure in words. Never raises for what the other side does.
    """
    return _ask(target, None, within)


def look(target: Target, version: Version, within: float, *, proxy_protocol: bool = False) -> Served:
    """As `probe`, with one version of TLS, of a server that may be anybody's.

    Args:
        target: as for `probe`.
        version: of TLS.
        within: seconds for connecting and handshake together.
        proxy_protocol: send a PROXY header (version 1) first.
    """
    return _ask(target, version, within, proxy_protocol=proxy_protocol)


def reach(listener: str, within: float) -> str:
    """The first address of a listener that takes a connection, as a listener with a number for a host.

    Args:
        listener: `host:port` (the host is looked up), `[v6]:port`, `unix:/path`.
        within: seconds for the look-up and all addresses together.

    Raises:
        RotatorError: `no-connection`, in words that tell an unknown name, a closed port and silence apart.
    """
    end = time.monotonic() + within
    addresses = [listener] if listener.startswith("unix:") else _look_up(listener, within)
    failures: list[str] = []
    for address in addresses:
        left = end - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            _connect(address, left).close()
        except (OSError, ValueError) as e:
            failures.append(f"{address}: {_connect_failure(e, within)}")
        else:
            return address
    hint = "Is the server running, and is this the right port? A firewall that drops packets shows as silence."
    raise RotatorError(Reason.NO_CONNECTION, f"No connection to {'; '.join(failures)}.", hint)


def _look_up(listener: str, within: float) -> list[str]:
    """The addresses of a host, looked up in a thread of its own: the resolver knows no deadline of ours."""
    host, _, port = listener.rpartition(":")
    bare = host.strip("[]")
    if is_ip(bare):
        return [listener]
    answers: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            answers.put(e)
        else:
            numbers = dict.fromkeys(str(address[4][0]) for address in found)
            answers.put([f"[{number}]:{port}" if ":" in number else f"{number}:{port}" for number in numbers])

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    hint = "Is the name right, and does this host's resolver answer?"
    try:
        answer = answers.get(timeout=within)
    except queue.Empty:
        raise RotatorError(Reason.NO_CONNECTION, f"No address for {bare} within {within:g} s.", hint) from None
    if isinstance(answer, list):
        return answer
    reason = (getattr(answer, "strerror", "") or "it is no host name").lower()
    raise RotatorError(Reason.NO_CONNECTION, f"No address for {bare}: {reason}.", hint) from answer


def probe_all(
    targets: Sequence[Target], within: float = 2.0, *, waiting: Callable[[], None] = lambda: None
) -> tuple[Served, ...]:
    """Probes every target, a few at a time; the answers come in the order asked.

    Args:
        targets: what to ask for.
        within: seconds for each handshake.
        waiting: called with each answer, so that the wait for a thousand silent listeners is seen to go on.
    """
    answers = []
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="probe") as pool:
        ask = pool.map if len(targets) > 2 else map  # a thread costs more than what it saves for two
        for served in ask(lambda target: probe(target, within), targets):
            answers.append(served)
            waiting()
    return tuple(answers)


def _ask(target: Target, version: Version | None, within: float, *, proxy_protocol: bool = False) -> Served:
    """What one handshake showed; what the other side can make us read, and for how long, is bounded."""
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
    """Sends the header of the PROXY protocol, version 1 (HAProxy, proxy-protocol.txt 2.1), for this very connection.

    Returns:
        Why it failed, in words; empty if it did not.
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
    """A handshake fed by hand, a piece at a time.

    Left alone with a socket, OpenSSL passes over HelloRequests without ever coming back to its caller, for as long as
    they keep coming (ssl/statem/statem_lib.c, tls_get_message_header).

    Returns:
        Why it failed, in words; empty if it did not.
    """
    late = f"connected, but no TLS handshake within {within:g} s"
    got = 0
    while True:
        failure = done = ""
        try:
            connection.do_handshake()
            done = "yes"
        except SSL.WantReadError:
            pass
        except SSL.Error as e:
            failure = f"{DECLINED}: {ssl_words(e)}"
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
        got += len(data)
        if not data:
            return "the connection was closed during the handshake (end of the stream)"
        if got > MAX_HANDSHAKE:
            return f"it sends more than {MAX_HANDSHAKE >> 10} KiB in a handshake, which no client reads"
        connection.bio_write(data)


def _wait(sock: socket.socket, what: int, end: float) -> bool:
    """Whether the socket became ready in time; poll(2), as select(2) takes no descriptor above 1023."""
    poll = select.poll()
    poll.register(sock, what)
    return bool(poll.poll(max(0.0, end - time.monotonic()) * 1000))


@cache
def _context(kind: KeyType | None, version: Version | None = None) -> SSL.Context:
    """A client that accepts whatever it is shown and never resumes: a ticket would hide a new certificate."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS[kind].encode())
    if version is not None:
        number = {Version.TLS_1_2: SSL.TLS1_2_VERSION, Version.TLS_1_3: SSL.TLS1_3_VERSION}[version]
        context.set_min_proto_version(number)
        context.set_max_proto_version(number)
    if kind is not None:
        done = _lib.SSL_CTX_set1_sigalgs_list(context._context, _ffi.new("char[]", _SIGALGS[kind].encode()))
        assert done == 1, f"OpenSSL does not know the signature algorithms of {kind}"  # noqa: S101
    return context


def ssl_words(e: Exception) -> str:
    """OpenSSL's reasons alone: no data of the connection or the key stands in them."""
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
