"""The web server with real sockets: what it answers, and that no crowd of clients holds it up or makes it grow."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from rotator.core.errors import RotatorError
from rotator.metrics import http as module
from rotator.metrics.http import Server, serve
from tests.support.waiting import wait_until

BOUND = 60.0
"""Seconds for a good scrape beside any crowd: far above what it takes, far below the crowd's own patience."""


@dataclass
class Pages:
    """The pages of a daemon, with knobs."""

    content_type: str = "text/plain; version=0.0.4; charset=utf-8"
    body: bytes = b"rotator_managed_sites 1.0\n"
    is_ready: bool = False
    is_alive: bool = True
    broken: bool = False
    threads: set[str] = field(default_factory=set)

    def render(self) -> bytes:
        self.threads.add(threading.current_thread().name)
        if self.broken:
            raise LookupError("a bug")
        return self.body

    def alive(self) -> bool:
        return self.is_alive

    def ready(self) -> bool:
        return self.is_ready


@contextmanager
def running(pages: Pages | None = None) -> Iterator[Server]:
    pages = pages or Pages()
    server = serve("127.0.0.1:0", pages, pages)
    try:
        yield server
    finally:
        server.close()


def where(server: Server) -> tuple[str, int]:
    host, _, port = server.address.rpartition(":")
    return host.strip("[]"), int(port)


def ask(server: Server, path: str, method: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
    """Status, body and headers."""
    with closing(http.client.HTTPConnection(*where(server), timeout=BOUND)) as client:
        client.request(method, path)
        answer = client.getresponse()
        return answer.status, answer.read(), answer.headers


def talk(server: Server, request: bytes) -> bytes:
    """Everything that comes back for these bytes, until the server is done."""
    with closing(connect(server)) as client:
        client.sendall(request)
        return everything(client)


def connect(server: Server, receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    client.settimeout(BOUND)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(where(server))
    return client


def everything(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def is_closed(client: socket.socket) -> bool:
    """Whether the server has closed this connection, which has sent nothing that would be answered."""
    client.setblocking(False)
    try:
        return client.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def open_connections(server: Server) -> int:
    return len(server._connections)


# -- what it answers --------------------------------------------------------------------------------------------------


def test_the_metrics_are_shown() -> None:
    pages = Pages()
    with running(pages) as server:
        status, body, headers = ask(server, "/metrics")
        assert (status, body) == (200, pages.body)
        assert headers["Content-Type"] == pages.content_type
        assert ask(server, "/metrics?name[]=rotator_managed_sites")[1] == pages.body


def test_health_is_shown_as_it_is_now() -> None:
    pages = Pages()
    with running(pages) as server:
        assert ask(server, "/healthz")[:2] == (200, b"alive\n")
        assert ask(server, "/readyz")[:2] == (503, b"not ready\n")
        pages.is_ready, pages.is_alive = True, False
        assert ask(server, "/readyz")[:2] == (200, b"ready\n")
        assert ask(server, "/healthz")[:2] == (503, b"not alive\n")


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/METRICS", "/../metrics", "//metrics", "/healthz/x"])
def test_there_is_nothing_else(path: str) -> None:
    with running() as server:
        status, body, _ = ask(server, path)
        assert status == 404
        assert b"/metrics" in body, "it says what there is"


def test_head_has_the_headers_of_get_without_its_body() -> None:
    pages = Pages()
    with running(pages) as server:
        answer = talk(server, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n")
        assert b"Content-Length: %d\r\n" % len(pages.body) in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(method: str) -> None:
    with running() as server:
        status, _, headers = ask(server, "/metrics", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "line",
    [b"", b"GET", b"GET /metrics", b"\x16\x03\x01", b"GET /a b HTTP/1.1", b"get /metrics HTTP/1.1", b"GET / HTTP/2.0"],
)
def test_what_is_no_request_is_told_so(line: bytes) -> None:
    with running() as server:
        assert talk(server, line + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_request_is_bounded() -> None:
    with running() as server:
        longest = b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (module.MAX_REQUEST - 30) + b"\r\n\r\n"
        assert len(longest) == module.MAX_REQUEST
        assert talk(server, longest).startswith(b"HTTP/1.1 200 ")
        assert talk(server, longest.replace(b"X:", b"X: more")).startswith(b"HTTP/1.1 431 ")


def test_an_answer_arrives_although_more_was_sent_than_was_asked_for() -> None:
    with running() as server:
        answer = talk(server, b"POST /metrics HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert answer.startswith(b"HTTP/1.1 405 ")


def test_a_request_may_come_byte_by_byte() -> None:
    with running() as server, closing(connect(server)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /healthz HTTP/1.1\nHost: localhost\n\n":
            client.sendall(bytes([byte]))
        assert everything(client).endswith(b"alive\n")


def test_a_page_of_many_megabytes_arrives_whole() -> None:
    pages = Pages(body=os.urandom(1024) * 6 * 1024)
    with running(pages) as server:
        assert ask(server, "/metrics")[1] == pages.body


def test_a_page_that_fails_is_told_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    pages = Pages(broken=True)
    with running(pages) as server:
        for _ in range(3):
            assert ask(server, "/metrics")[0] == 500
        assert ask(server, "/healthz")[0] == 200
        pages.broken = False
        assert ask(server, "/metrics")[:2] == (200, pages.body)
    assert [record.getMessage() for record in caplog.records] == ["/metrics cannot be rendered"]
    assert "LookupError: a bug" in caplog.text


def test_an_address_of_the_newer_kind() -> None:
    pages = Pages()
    try:
        server = serve("[::1]:0", pages, pages)
    except RotatorError as e:
        pytest.skip(f"this host has no IPv6: {e}")
    with closing(server):
        assert server.address.startswith("[::1]:")
        assert ask(server, "/healthz")[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/"])
def test_a_page_of_another_name_cannot_read_the_metrics_through_a_browser(path: str) -> None:
    with running() as server:
        answer = talk(server, f"GET {path} HTTP/1.1\r\nHost: rebound.example.org:9847\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
        assert b"rotator_managed_sites" not in answer
        assert b'hosts = ["rebound.example.org"]' in answer, "it says how to allow the name"


def test_what_is_no_name_is_not_repeated() -> None:
    with running() as server:
        answer = talk(server, b'GET /metrics HTTP/1.1\r\nHost: x"]<script>\r\n\r\n')
        assert answer.startswith(b"HTTP/1.1 421 ")
        assert b"script" not in answer


def test_a_name_of_the_configuration_is_answered() -> None:
    pages = Pages()
    with closing(serve("127.0.0.1:0", pages, pages, ["metrics.example.cn"])) as server:
        asked = b"GET /metrics HTTP/1.1\r\nHost: metrics.example.cn:9847\r\n\r\n"
        assert talk(server, asked).startswith(b"HTTP/1.1 200 ")


def test_a_passed_socket_is_served_and_outlives_the_server() -> None:
    pages = Pages()
    with closing(socket.create_server(("127.0.0.1", 0))) as passed:
        passed.setblocking(False)
        for _ in range(2):  # a connection that comes between two servers waits in the socket's queue
            waiting = socket.create_connection(passed.getsockname(), timeout=BOUND)
            with closing(waiting), closing(serve("127.0.0.1:9", pages, pages, passed=passed)) as server:
                assert server.address == f"127.0.0.1:{passed.getsockname()[1]}"
                waiting.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
                assert everything(waiting).endswith(b"alive\n")


# -- beginning and end ------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told_and_can_be_had_later() -> None:
    pages = Pages()
    with running() as first:
        taken = first.address
        with pytest.raises(RotatorError) as caught:
            serve(taken, pages, pages)
        assert caught.value.code == "address-in-use"
        assert taken in caught.value.message
        assert f":{taken.rpartition(':')[2]}" in caught.value.hint
        assert ask(first, "/healthz")[0] == 200
    with closing(serve(taken, pages, pages)) as second:
        assert ask(second, "/healthz")[0] == 200


@pytest.mark.parametrize("listen", ["192.0.2.1:9847", "no-such-host.invalid:9847"])
def test_an_address_that_this_host_does_not_have_is_told(listen: str) -> None:
    with pytest.raises(RotatorError) as caught:
        serve(listen, Pages(), Pages())
    assert caught.value.code == "io-error"
    assert listen in caught.value.message


def test_its_end_leaves_no_thread_and_no_descriptor_and_waits_for_no_client() -> None:
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    pages = Pages(body=b"x" * 4 * 1024 * 1024)
    with ExitStack() as clients, running(pages) as server:
        silent = clients.enter_context(closing(connect(server)))
        deaf = clients.enter_context(closing(connect(server, receive_buffer=4096)))
        deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        wait_until(lambda: pages.threads, what="the page to be asked for")
        wait_until(lambda: open_connections(server) == 2)
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < BOUND
        assert set(threading.enumerate()) == threads
        assert wait_until(lambda: is_closed(silent))  # and closing it again, as is done here, does no harm
    assert len(os.listdir("/proc/self/fd")) == descriptors


# -- clients that are slow, many, or both -----------------------------------------------------------------------------


def test_who_does_not_ask_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_WITHIN", 0.1)
    with running() as server, closing(connect(server)) as client:
        client.sendall(b"GET /metr")
        assert wait_until(lambda: is_closed(client))


def test_a_trickle_does_not_extend_the_time_for_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_WITHIN", 0.2)
    with running() as server, closing(connect(server)) as client:

        def gave_up() -> bool:
            with suppress(OSError):
                client.setblocking(True)
                client.sendall(b"x")
            return is_closed(client)

        assert wait_until(gave_up)


def test_who_does_not_take_the_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_WITHIN", 0.2)
    pages = Pages(body=b"x" * 16 * 1024 * 1024)
    with running(pages) as server, closing(connect(server, receive_buffer=4096)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        wait_until(lambda: pages.threads, what="the page to be asked for")
        wait_until(lambda: open_connections(server) == 0)


def test_who_does_not_close_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_WITHIN", 0.1)
    with running() as server, closing(connect(server)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert everything(client).endswith(b"alive\n")
        wait_until(lambda: open_connections(server) == 0)


def test_five_hundred_slow_scrapers_delay_no_scrape_and_add_no_thread() -> None:
    pages = Pages(body=b"x" * 2 * 1024 * 1024)
    with running(pages) as server, ExitStack() as crowd:
        ask(server, "/healthz")
        threads = threading.active_count()
        most = slowest = 0.0
        for number in range(500):
            client = crowd.enter_context(closing(connect(server, receive_buffer=4096)))
            with suppress(ConnectionError):  # room was made for another one already
                match number % 3:
                    case 0:
                        pass  # says nothing
                    case 1:
                        client.sendall(b"GET /metrics HT")  # never says all
                    case 2:
                        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")  # never listens
            if number % 50 == 49:
                began = time.monotonic()
                assert ask(server, "/metrics")[:2] == (200, pages.body)
                assert ask(server, "/readyz")[0] == 503
                slowest = max(slowest, time.monotonic() - began)
                most = max(most, open_connections(server))
                assert threading.active_count() == threads
        assert slowest < BOUND
        assert 0 < most <= module.MAX_CONNECTIONS
        assert pages.threads == {"rotator-web"}


def test_a_crowd_that_comes_again_and_again_cannot_keep_a_scrape_out() -> None:
    pages = Pages(body=b"x" * 256 * 1024)
    over = threading.Event()
    with running(pages) as server:

        def come_again() -> None:
            while not over.is_set():
                with suppress(OSError), ExitStack() as open_:
                    for _ in range(module.MAX_CONNECTIONS):
                        open_.enter_context(closing(connect(server)))

        def scrape() -> bool:
            """Whether the page came back; a client that sends nothing for long, on a busy host, is replaced."""
            with suppress(OSError, http.client.HTTPException):
                return ask(server, "/metrics")[:2] == (200, pages.body)
            return False

        crowd = [threading.Thread(target=come_again) for _ in range(2)]
        for one in crowd:
            one.start()
        try:
            assert [scrape() for _ in range(10)].count(True) >= 8
        finally:
            over.set()
            for one in crowd:
                one.join(BOUND)


def test_without_a_free_descriptor_it_rests_and_goes_on_when_there_is_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running() as server, closing(socket.socket()) as client:
        client.settimeout(BOUND)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            client.connect(where(server))  # the kernel takes it, the server cannot
            client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            wait_until(lambda: server._paused_until)
            used = time.process_time()
            time.sleep(0.5)
            used = time.process_time() - used
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert everything(client).endswith(b"alive\n")
    assert used < 0.25, "it asked again and again for what was not there"
