"""`rotator probe` against servers of every kind but good ones: what it says, how it ends, and that it does end."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from rotator.cli import probe as _imported  # noqa: F401 - now, so that no time limit counts what importing takes
from tests.support.authority import CA, Issued, new_key, pem
from tests.support.calls import Called, call
from tests.support.cost import pace
from tests.support.waiting import PATIENCE

NAME = "signal.example.cn"
WITHIN = 1.0
TODAY = datetime.now(UTC)
ROOT = CA.root(at=TODAY)
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)
LEAF_ONLY = Issued(GOOD.key, GOOD.leaf)

Handler = Callable[[socket.socket], None]


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    file = tmp_path / "roots.pem"
    file.write_bytes(pem(ROOT.cert))
    return file


@contextmanager
def server(handle: Handler) -> Iterator[str]:
    """A TCP server on loopback that does this with every connection, each in a thread; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()
        threads = []

        def one(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(0.5)
                try:
                    while not over.is_set():
                        handle(connection)
                except OSError:
                    pass

        def accept() -> None:
            listening.settimeout(0.05)
            while not over.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            accepting.join()
            for thread in threads:
                thread.join()


def speaks(tmp_path: Path, issued: Issued, **how: ssl.TLSVersion) -> Handler:
    """A handler that makes a handshake with this chain."""
    (tmp_path / "chain.pem").write_bytes(issued.chain_pem + issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem")
    for attribute, value in how.items():
        setattr(context, attribute, value)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)
        raise ConnectionResetError

    return handle


def probe(address: str, roots: Path, *more: str) -> Called:
    return call("probe", address, "--name", NAME, "--roots", roots, "--within", str(WITHIN), *more)


def bounded(address: str, roots: Path) -> Called:
    """A probe that ends, and whose own thread has not worked for longer than the limit and a second."""
    slow, begun, worked = pace(), time.monotonic(), time.thread_time()
    result = probe(address, roots)
    assert (time.thread_time() - worked) / slow < WITHIN + 1.0
    assert time.monotonic() - begun < WITHIN + PATIENCE
    return result


# -- what it says -----------------------------------------------------------------------------------------------------


def test_a_good_chain_is_accepted_with_its_expiry(tmp_path: Path, roots: Path) -> None:
    with server(speaks(tmp_path, GOOD)) as address:
        result = probe(address, roots)
    assert result.status == 0
    assert result.stdout.startswith(f"{NAME}: 2 certificates sent (ecdsa, TLS 1.2 and 1.3)\nACCEPT")
    assert f"good until {GOOD.leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}, 90.0 days from now" in result.stdout


def test_a_leaf_alone_is_refused_with_who_breaks_and_the_fix(tmp_path: Path, roots: Path) -> None:
    with server(speaks(tmp_path, LEAF_ONLY)) as address:
        result = probe(address, roots)
    assert result.status == 3
    assert "REJECT incomplete-chain: CN=signal.example.cn stands alone" in result.stdout
    assert "  [?] CN=Test Intermediate, key id " in result.stdout
    assert "  Who breaks: Chrome, OpenSSL, curl, " in result.stdout
    assert "  Fix: Add the CA's bundle" in result.stdout


def test_json_has_all_of_it(tmp_path: Path, roots: Path) -> None:
    with server(speaks(tmp_path, LEAF_ONLY)) as address:
        body = probe(address, roots, "--json").answer
    assert (body["verdict"], body["address"], body["codes"]) == ("reject", address, ["incomplete-chain"])
    (served,) = body["served"]
    assert (served["names"], served["versions"], served["key_type"]) == ([NAME], ["1.2", "1.3"], "ecdsa")
    assert served["clients"]["go"]["fate"] == "fails"
    assert served["missing_issuer"] == "CN=Test Intermediate"
    assert len(served["served_sha256"]) == 1
    assert body["effective_not_after"] == served["not_after"]


def test_a_version_of_tls_that_is_missing_is_told(tmp_path: Path, roots: Path) -> None:
    with server(speaks(tmp_path, GOOD, maximum_version=ssl.TLSVersion.TLSv1_2)) as address:
        result = probe(address, roots)
        body = probe(address, roots, "--json").answer
    assert result.status == 0
    assert "No handshake with TLS 1.3: the TLS handshake failed" in result.stdout
    assert [one["version"] for one in body["missing_versions"]] == ["1.3"]


def test_a_connection_that_is_lost_beside_good_ones_is_told(tmp_path: Path, roots: Path) -> None:
    whole = speaks(tmp_path, GOOD)
    turns = iter(range(1_000))

    def handle(connection: socket.socket) -> None:
        asks = connection.recv(1, socket.MSG_PEEK)  # nothing, where it was only to see who takes connections
        if not asks or next(turns) % 6 == 3:
            raise ConnectionResetError
        whole(connection)

    with server(handle) as address:
        result = probe(address, roots)
        body = probe(address, roots, "--json").answer
    assert result.status == 0
    assert "WARN 1 of 6 handshakes failed: the connection was closed during the handshake" in result.stdout
    assert [one["count"] for one in body["lost"]] == [1]


def test_a_kind_of_key_that_the_server_has_not_is_no_lost_handshake(tmp_path: Path, roots: Path) -> None:
    with server(speaks(tmp_path, GOOD)) as address:
        assert probe(address, roots, "--json").answer["lost"] == []


def test_each_name_is_asked_for_and_what_does_not_cover_it_is_refused(tmp_path: Path, roots: Path) -> None:
    with server(speaks(tmp_path, GOOD)) as address:
        result = probe(address, roots, "--name", "other.example.cn")
    assert result.status == 3
    assert "REJECT name-mismatch: CN=signal.example.cn does not cover other.example.cn" in result.stdout


def test_without_a_name_the_host_is_what_clients_ask_for(tmp_path: Path, roots: Path) -> None:
    with server(speaks(tmp_path, ICA.issue("127.0.0.1"))) as address:
        assert call("probe", address, "--roots", roots).status == 0
    with server(speaks(tmp_path, GOOD)) as address:
        assert call("probe", address, "--roots", roots, "--json").answer["codes"] == ["name-mismatch"]
        assert f"rotator probe {address} --name NAME" in call("probe", address, "--roots", roots).stderr


def test_a_first_certificate_that_cannot_be_read_is_refused_and_no_bug(tmp_path: Path, roots: Path) -> None:
    odd = ICA.issue(NAME, tweak=lambda b: b.add_extension(x509.UnrecognizedExtension(_OID, b"\x05\x00"), critical=True))
    with server(speaks(tmp_path, odd)) as address:
        result = probe(address, roots)
    assert result.status == 3
    assert "REJECT critical-extension" in result.stdout


_OID = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")

# -- no connection, no TLS --------------------------------------------------------------------------------------------


def test_a_closed_port_is_told_from_everything_else(roots: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        result = probe(address, roots)
        failed = probe(address, roots, "--json")
    assert result.status == 1
    assert f"No connection to {address}: connection refused." in result.stderr
    assert (failed.status, failed.answer["error"]["code"]) == (1, "no-connection")


def test_a_name_that_nobody_knows_is_told(roots: Path) -> None:
    result = call("probe", "nowhere.invalid", "--roots", roots)
    assert result.status == 1
    assert "No address for nowhere.invalid" in result.stderr


def test_a_server_without_tls_is_told_with_what_it_may_be(roots: Path) -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        raise ConnectionResetError

    with server(plain) as address:
        result = probe(address, roots)
    assert result.status == 1
    assert f"{address} accepts connections, but no client gets a certificate: the TLS handshake failed" in result.stderr
    assert "STARTTLS" in result.stderr


def test_roots_that_cannot_be_read_are_told_before_anything_is_connected_to(tmp_path: Path) -> None:
    result = call("probe", "127.0.0.1:1", "--roots", tmp_path / "none.pem")
    assert result.status == 1
    assert "none.pem" in result.stderr


@pytest.mark.parametrize("where", ["", "a b", "host:0", "host:70000", "host:port", "unix:relative", "[::1", "http://x"])
def test_what_is_no_address_is_a_matter_of_usage(where: str) -> None:
    assert call("probe", where).status == 2


@pytest.mark.parametrize("name", ["*.example.cn", "a b"])
def test_what_is_no_name_to_ask_for_is_a_matter_of_usage(name: str) -> None:
    assert call("probe", "127.0.0.1", "--name", name).status == 2


def test_a_unix_socket_needs_a_name() -> None:
    result = call("probe", "unix:/run/nowhere.sock")
    assert result.status == 2
    assert "--name" in result.stderr


def test_port_443_and_addresses_without_brackets_are_understood(roots: Path) -> None:
    for where, told in {"127.0.0.9": "127.0.0.9:443", "::1": "[::1]:443", "[::1]": "[::1]:443"}.items():
        result = probe(where, roots)
        assert result.status in (0, 1, 3)
        assert told in result.stderr


# -- hostile servers --------------------------------------------------------------------------------------------------


def silent(_connection: socket.socket) -> None:
    time.sleep(0.02)


def drip(connection: socket.socket) -> None:
    """A record of 16 KiB, a byte at a time."""
    connection.sendall(b"\x16\x03\x03\x40\x00" if connection.recv(1) == b"\x16" else b"\0")
    while True:
        connection.sendall(b"\x02")
        time.sleep(0.02)


def _record(body: bytes) -> bytes:
    return b"\x16\x03\x03" + struct.pack(">H", len(body)) + body


_HELLO = _record(b"\x02\0\0\x2d\x03\x03" + bytes(32) + b"\0" + b"\xc0\x2b" + b"\0" + b"\0\x05\xff\x01\0\x01\0")
"""A ServerHello of TLS 1.2 that chooses ECDHE-ECDSA-AES128-GCM-SHA256 and knows of safe renegotiation."""


def endless_chain(connection: socket.socket) -> None:
    """A Certificate message that announces 16 MiB, and records without end."""
    connection.recv(4096)
    connection.sendall(_HELLO + _record(b"\x0b\xff\xff\xff\xff\xff\xfc" + bytes(8000)))
    while True:
        connection.sendall(_record(bytes(16_000)) * 16)


def endless_hello_requests(connection: socket.socket) -> None:
    """Messages that a client has to pass over, as fast as they can be sent."""
    connection.recv(4096)
    connection.sendall(_HELLO)
    while True:
        connection.sendall(_record(b"\0\0\0\0" * 4000) * 16)


@pytest.mark.parametrize("handle", [silent, drip, endless_chain, endless_hello_requests])
def test_a_hostile_server_is_over_within_the_limit_and_a_second(handle: Handler, roots: Path) -> None:
    with server(handle) as address:
        result = bounded(address, roots)
    assert result.status == 1
    assert "no client gets a certificate" in result.stderr


def test_a_megabyte_of_certificates_is_no_certificate_to_any_client(tmp_path: Path, roots: Path) -> None:
    huge = x509.UnrecognizedExtension(_OID, bytes(1_000_000))
    fat = ROOT.intermediate("Fat", tweak=lambda b: b.add_extension(huge, critical=False))
    with server(speaks(tmp_path, fat.issue(NAME))) as address:
        result = bounded(address, roots)
    assert result.status == 1
    assert "excessive message size" in result.stderr


def test_a_tangle_of_authorities_that_differs_each_time_is_judged_in_time(tmp_path: Path, roots: Path) -> None:
    keys = {f"CA {number}": new_key() for number in range(10)}
    tops = [ROOT.intermediate(name, key=key, pathlen=None) for name, key in keys.items()]
    tangle = [a.intermediate(b.name, key=b.key, pathlen=None).cert for a in tops for b in tops if a is not b]
    leaf = tops[0].issue(NAME)
    handlers = []
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        sent = tuple(tangle[number:] + tangle[:number])
        handlers.append(speaks(tmp_path / str(number), Issued(leaf.key, leaf.leaf, sent)))
    turns = iter(range(1_000))

    def handle(connection: socket.socket) -> None:
        handlers[next(turns) % len(handlers)](connection)

    with server(handle) as address:
        result = bounded(address, roots)
    assert result.status == 3
    assert result.stdout.count("91 certificates sent") > 1


def test_a_port_that_drops_what_it_is_sent_is_told_as_silence_and_in_time(roots: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full, ExitStack() as crowd:
        address = full.getsockname()
        for _ in range(8):  # more than it has room for: the next one's SYN is dropped
            one = crowd.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(address)
        result = bounded(f"127.0.0.1:{address[1]}", roots)
    assert result.status == 1
    assert "no connection within 1 s" in result.stderr


def test_silence_is_told_as_silence(roots: Path) -> None:
    with server(silent) as address:
        result = probe(address, roots)
    assert "connected, but no TLS handshake within" in result.stderr
