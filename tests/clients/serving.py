"""What the clients meet: a CA's servers of three tempers, and an nginx with a listener for each case."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.clients.cases import Case, Repositories
from tests.support.authority import Issued
from tests.support.nginx_server import NginxServer, ServerBlock, certificate_lines, write_pair


@contextmanager
def repositories() -> Iterator[Repositories]:
    """A CA's server that answers, one that is not there, and one that accepts and says nothing."""
    published: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = published.get(self.path)
            self.send_response(200 if data else 404)
            self.send_header("Content-Type", "application/pkix-cert")
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        socket.socket() as refused,
        socket.create_server(("127.0.0.1", 0), backlog=64) as silent,
    ):
        refused.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield Repositories(
                f"http://127.0.0.1:{server.server_port}",
                f"http://127.0.0.1:{refused.getsockname()[1]}",
                f"http://127.0.0.1:{silent.getsockname()[1]}",
                published.__setitem__,
            )
        finally:
            server.shutdown()
            thread.join()


def serve(nginx: NginxServer, cases: tuple[Case, ...]) -> dict[str, int]:
    """Start nginx with a listener for each case; the port by the case's name."""
    ports = {}
    for case in cases:
        listener = nginx.reserve_port()
        ports[case.name] = int(listener.rpartition(":")[2])
        files = write_pair(nginx.root / str(ports[case.name]), Issued(case.issued.key, case.sent[0], case.sent[1:]))
        # or OpenSSL would not load what its clients are to refuse; and Prometheus's scrapes want an answer of theirs
        extra = "ssl_ciphers DEFAULT@SECLEVEL=0;\nlocation /metrics { return 200 'answered 1\\n'; }\n"
        nginx.blocks.append(ServerBlock(case.host, (listener,), certificate_lines(files), extra))
    nginx.start()
    return ports
