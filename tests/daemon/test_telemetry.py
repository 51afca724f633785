"""The daemon's page: that it is served, and served again; what it shows is tested with the metrics."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator

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
