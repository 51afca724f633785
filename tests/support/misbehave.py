"""Ways in which a real nginx and its surroundings go wrong, made on purpose; what must follow is said by the tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.nginx_server import NginxServer, PairFiles, ServerBlock, certificate_lines


@contextmanager
def unknown_directive(server: NginxServer) -> Iterator[str]:
    """The configuration is broken, far from any certificate, until the end of the block; the word nginx complains of.

    `-t`, `-s reload` and HUP all refuse.
    """
    before, word = server.main_extra, "no_such_directive"
    server.main_extra += f"\n{word} on;\n"
    server.write_config()
    try:
        yield word
    finally:
        server.main_extra = before
        server.write_config()


@contextmanager
def taken_port(server: NginxServer) -> Iterator[str]:
    """The configuration wants a port at which somebody else listens, until the end of the block; its address.

    `-t` passes; a HUP is refused after nginx has tried to bind five times, 0.5 s apart.
    """
    before, listener = server.http_extra, server.reserve_port()
    server.http_extra += f"\nserver {{ listen {listener}; return 204; }}\n"
    try:
        with silent_listener(listener):
            server.write_config()
            yield listener
    finally:
        server.http_extra = before
        server.write_config()


@contextmanager
def changed_zone(server: NginxServer) -> Iterator[str]:
    """An unrelated shared-memory zone has another key than in the running nginx, until the end of the block; its name.

    `-t` passes and `-s reload` exits 0; the reload is refused in the log only. The running nginx must have been
    started, or reloaded, with the zone as it was before.
    """
    before = server.zone_key
    server.zone_key = "$server_name"
    server.write_config()
    try:
        yield "unrelated"
    finally:
        server.zone_key = before
        server.write_config()


def corrupt_copy(pair: PairFiles, directory: Path) -> PairFiles:
    """A copy of a pair whose chain is cut in the middle of the leaf: nginx refuses it, and names the file."""
    copy = copy_of(pair, directory)
    whole = pair.chain.read_bytes()
    copy.chain.write_bytes(whole[: whole.index(b"-----END") // 2])
    return copy


def torn_copy(pair: PairFiles, other: PairFiles, directory: Path) -> PairFiles:
    """The chain of one pair with the key of another: nginx refuses it."""
    copy = copy_of(pair, directory)
    copy.key.write_bytes(other.key.read_bytes())
    return copy


def copy_of(pair: PairFiles, directory: Path) -> PairFiles:
    """The same bytes in another directory."""
    directory.mkdir(parents=True, exist_ok=True)
    copy = PairFiles(directory / pair.chain.name, directory / pair.key.name)
    copy.chain.write_bytes(pair.chain.read_bytes())
    copy.key.touch(0o600)
    copy.key.write_bytes(pair.key.read_bytes())
    return copy


def add_stale_listener(server: NginxServer, name: str, pair: PairFiles, listener: str = "") -> str:
    """Add a block that names copies of today's files, so that it goes on serving them whatever the include says.

    Returns its address. Nobody reloads here: do this before the start, or reload.
    """
    listener = listener or server.reserve_port()
    copy = copy_of(pair, server.root / "stale" / str(len(server.blocks)))
    server.blocks.append(ServerBlock(name, (listener,), certificate_lines(copy)))
    server.write_config()
    return listener


def dead_listener(server: NginxServer) -> str:
    """An address at which nobody listens, nor ever will while the server is ours: a connection is refused at once."""
    return server.reserve_port()


@contextmanager
def silent_listener(listener: str) -> Iterator[socket.socket]:
    """Somebody who takes every connection at this address and never says a word, until the end of the block."""
    if listener.startswith("unix:"):
        sock, address = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), listener[5:]
        try:
            with sock:
                sock.bind(address)
                sock.listen(1024)
                yield sock
        finally:
            Path(address).unlink(missing_ok=True)
        return
    host, port = listener.rsplit(":", 1)
    with socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), int(port)))
        sock.listen(1024)
        yield sock
