"""The daemon's page: that it is served, and served again; what it shows is tested with the metrics."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rotator.daemon import telemetry as module
from rotator.daemon.journal import Journal
from rotator.daemon.telemetry import Telemetry

ANY_PORT = "127.0.0.1:0"


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    with open(os.devnull, "wb") as nowhere:
        one = Telemetry(Journal(nowhere.fileno()))
        yield one
        one.close()


def _is_shown(telemetry: Telemetry) -> bool:
    assert telemetry._server is not None
    with urllib.request.urlopen(f"http://{telemetry._server.address}/metrics", timeout=5) as answer:
        return b"rotator_build_info" in answer.read()


def test_a_page_that_is_served_is_left_alone(telemetry: Telemetry) -> None:
    telemetry.listen(ANY_PORT)
    server = telemetry._server
    telemetry.listen(ANY_PORT)
    assert telemetry._server is server
    assert _is_shown(telemetry)


def test_a_page_whose_thread_has_ended_is_served_again(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTEN_AGAIN", 0.0)
    telemetry.listen(ANY_PORT)
    assert telemetry._server is not None
    telemetry._server.close()
    telemetry.listen(ANY_PORT)
    assert _is_shown(telemetry)


def _said(written: Path) -> str:
    return written.read_text()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_port_of_another_program_is_reported_with_its_user_and_tried_again(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTEN_AGAIN", 0.0)
    monkeypatch.setattr(module, "listening_users", lambda _port: frozenset({4242}))
    with written.open("wb", buffering=0) as file:
        telemetry = Telemetry(Journal(file.fileno(), {}))
        with closing(socket.create_server(("127.0.0.1", 0))) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            for _ in range(3):
                telemetry.listen(address)
        trouble = f"metrics cannot be served at {address}: Address already in use by user uid 4242"
        assert telemetry.metrics_trouble == f"{trouble}; a page there is not this daemon's"
        assert _said(written).count("metrics-down") == 1
        telemetry.listen(address)
        assert telemetry.metrics_trouble == ""
        assert _is_shown(telemetry)
        telemetry.close()


def test_a_passed_socket_is_served_in_place_of_the_address(written: Path) -> None:
    with written.open("wb", buffering=0) as file, closing(socket.create_server(("127.0.0.1", 0))) as passed:
        passed.setblocking(False)
        address = f"127.0.0.1:{passed.getsockname()[1]}"
        telemetry = Telemetry(Journal(file.fileno(), {}), passed)
        telemetry.listen(address)
        assert _is_shown(telemetry)
        assert telemetry.metrics_trouble == ""
        telemetry.listen("127.0.0.1:9847")
        assert _is_shown(telemetry)
        assert telemetry.metrics_trouble.startswith(f"metrics are served at {address}, the address of rotator-metrics")
        assert "metrics-differ: " in _said(written)
        telemetry.close()


@pytest.mark.parametrize(
    ("served", "address", "differ"),
    [
        ("127.0.0.1:9847", "127.0.0.1:9847", False),
        ("[::1]:9847", "[::1]:9847", False),
        ("127.0.0.1:9847", "localhost:9847", False),
        ("127.0.0.1:9847", "127.0.0.1:9848", True),
        ("127.0.0.1:9847", "localhost:9848", True),
        ("0.0.0.0:9847", "127.0.0.1:9847", True),
        ("127.0.0.1:9847", "[::1]:9847", True),
    ],
)
def test_addresses_differ_as_far_as_that_is_known_without_a_look_up(served: str, address: str, differ: bool) -> None:
    assert module._differ(served, address) is differ
