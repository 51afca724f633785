"""Fixtures of the tests with a real nginx: its binary, a server on a temporary tree, a CA of today."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.authority import CA, pem
from tests.support.nginx_binaries import INSTALL, find_nginx
from tests.support.nginx_server import NginxServer


def require_nginx(kind: str) -> Path:
    """The binary, or a skip that says what to install; in CI, where a skip would hide that nothing ran, a failure."""
    binary = find_nginx(kind)
    if binary is None and os.environ.get("CI") == "true":
        pytest.fail(INSTALL[kind])
    if binary is None:
        pytest.skip(INSTALL[kind])
    return binary


@pytest.fixture
def nginx_binary(request: pytest.FixtureRequest) -> Path:
    """The system's nginx, or the mainline one where there is no other; a test marked `each_nginx` runs on both."""
    usual = "debian" if find_nginx("debian") or not find_nginx("mainline") else "mainline"
    return require_nginx(getattr(request, "param", usual))


@pytest.fixture
def nginx(nginx_binary: Path, tmp_path: Path) -> Iterator[NginxServer]:
    """A server that is not started yet; whatever the test did to it, it is ended afterwards.

    What nginx said is printed, so that it stands in the report of a failed test.
    """
    with NginxServer(nginx_binary, tmp_path / "nginx") as server:
        yield server
        print(server.words())


@pytest.fixture(scope="session")
def root_ca() -> CA:
    """A root of today: the end-to-end tests meet the real clock."""
    return CA.root(at=datetime.now(UTC))


@pytest.fixture(scope="session")
def issuing_ca(root_ca: CA) -> CA:
    """An intermediate of that root, which issues the leaves."""
    return root_ca.intermediate()


@pytest.fixture(scope="session")
def root_pem(root_ca: CA) -> str:
    """What a client has to trust."""
    return pem(root_ca.cert).decode()
