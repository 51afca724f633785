"""Tests of the harness itself: the real nginx starts, serves, reloads, misbehaves on demand and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.authority import CA
from tests.e2e.client import ask, served_chain, verified_connect
from tests.e2e.nginx_server import NginxServer, ServerBlock, include_line, write_include, write_pair

NAME = "signal.example.test"


@pytest.fixture
def include(nginx: NginxServer) -> Path:
    return nginx.root / "rotator" / "site.conf"


def with_site(nginx: NginxServer, include: Path, ca: CA, *listeners: str) -> tuple[bytes, ...]:
    """A site's first pair, its include and its block; the chain that it will serve."""
    issued = ca.issue(NAME)
    write_include(include, write_pair(nginx.root / "pairs" / "1", issued))
    nginx.blocks.append(ServerBlock(NAME, listeners or (nginx.reserve_port(),), include_line(include)))
    return issued.chain_der


def test_a_server_serves_the_included_pair_on_tcp_and_unix_listeners(
    nginx: NginxServer, include: Path, issuing_ca: CA, root_pem: str
) -> None:
    listeners = (nginx.reserve_port(), nginx.unix_listener())
    chain = with_site(nginx, include, issuing_ca, *listeners)
    nginx.start()
    for listener in listeners:
        assert served_chain(listener, NAME) == chain
        with verified_connect(listener, NAME, root_pem) as connection:
            assert ask(connection, NAME) == "HTTP/1.1 200 OK"
