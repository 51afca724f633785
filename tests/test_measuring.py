"""The daemon's page: that it is served, and served again; what it shows is tested with the metrics."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator

import pytest

from rotator.daemon import measuring as module
from rotator.daemon.journal import Journal
from rotator.daemon.measuring import Measuring

ANY_PORT = "127.0.0.1:0"


@pytest.fixture
def measuring() -> Iterator[Measuring]:
    with open(os.devnull, "wb") as nowhere:
        one = Measuring(Journal(nowhere.fileno()))
        yield one
        one.close()


def _is_shown(measuring: Measuring) -> bool:
    assert measuring._server is not None
    with urllib.request.urlopen(f"http://{measuring._server.address}/metrics", timeout=5) as answer:
        return b"rotator_build_info" in answer.read()


def test_a_page_that_is_served_is_left_alone(measuring: Measuring) -> None:
    measuring.listen(ANY_PORT)
    server = measuring._server
    measuring.listen(ANY_PORT)
    assert measuring._server is server
    assert _is_shown(measuring)


def test_a_page_whose_thread_has_ended_is_served_again(measuring: Measuring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTEN_AGAIN", 0.0)
    measuring.listen(ANY_PORT)
    assert measuring._server is not None
    measuring._server.close()
    measuring.listen(ANY_PORT)
    assert _is_shown(measuring)
