"""What really happens to a case: nginx's own test of its files, and a strict client at an nginx that serves them."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rotator.nginx.pair_trial import CandidateTest, NginxVerdict
from tests.support.client import dial, strict_context
from tests.support.nginx_server import NginxServer, PairFiles, ServerBlock, certificate_lines

TOGETHER = 4
"""Tests of nginx that run at a time."""


@dataclass(frozen=True)
class Served:
    """One pair of files to be served.

    Args:
        title: unique.
        chain: PEM.
        key: PEM.
        roots: what the client trusts, PEM.
        host: what the client asks for.
    """

    title: str
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    roots: bytes = field(repr=False)
    host: str


def nginx_says(binary: Path, root: Path, all_served: Sequence[Served]) -> dict[str, NginxVerdict]:
    """What `nginx -t` says of each, by title."""
    root.mkdir()
    found: dict[str, NginxVerdict] = {}
    running: list[tuple[str, CandidateTest]] = []
    for number, served in enumerate(all_served):
        directory = root / str(number)
        _written(directory, served)
        running.append((served.title, CandidateTest(str(binary), directory, [("chain.pem", "key.pem")])))
        if len(running) == TOGETHER:
            title, test = running.pop(0)
            found[title] = test.verdict()
    return found | {title: test.verdict() for title, test in running}


def _written(directory: Path, served: Served) -> PairFiles:
    directory.mkdir()
    files = PairFiles(directory / "chain.pem", directory / "key.pem")
    files.chain.write_bytes(served.chain)
    files.key.touch(0o600)
    files.key.write_bytes(served.key)
    return files


@contextmanager
def serving(binary: Path, root: Path, all_served: Iterable[Served]) -> Iterator[Mapping[str, str]]:
    """One nginx that serves each at a socket of its own; the sockets' addresses by title."""
    with NginxServer(binary, root) as nginx:
        listeners = {}
        for number, served in enumerate(all_served):
            pair = _written(root / str(number), served)
            listener = listeners[served.title] = nginx.unix_listener(str(number))
            nginx.blocks.append(ServerBlock("_", (listener,), certificate_lines(pair)))
        nginx.start(timeout=30)
        yield listeners


def client_says(listener: str, served: Served, *, strict: bool = True) -> str:
    """Why a client does not complete a handshake; empty if it does.

    Strict: Python's own since 3.13 (RFC 5280 by OpenSSL, trusted certificates may end a path wherever they stand).
    """
    try:
        context = strict_context(served.roots.decode("ascii"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~(0 if strict else ssl.VERIFY_X509_STRICT)
    except ssl.SSLError as error:
        return f"roots: {error}"
    try:
        with dial(listener) as raw, context.wrap_socket(raw, server_hostname=served.host):
            return ""
    except (ssl.SSLError, OSError) as error:
        return str(error) or type(error).__name__


def clients_say(listeners: Mapping[str, str], all_served: Iterable[Served]) -> dict[str, str]:
    """The same of all, by title."""
    return {served.title: client_says(listeners[served.title], served) for served in all_served}
