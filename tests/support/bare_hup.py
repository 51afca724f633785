"""How long a HUP without rotator takes until every listener serves the new pair, and only that one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tests.support import processes
from tests.support.client import served_leaf
from tests.support.nginx_server import ACTIVE, NginxServer, PairFiles, write_include


def bare_hup(
    server: NginxServer,
    include: Path,
    pair: PairFiles,
    leaf: bytes,
    targets: Sequence[tuple[str, str]],
    *,
    timeout: float = 60.0,
    poll: float = 0.001,
) -> float:
    """Seconds from just before the include's rename until every target is seen to serve the new leaf, and it only.

    That is: one HUP, then the old workers' titles every `poll` seconds until none of them accepts connections any
    more, then one fresh handshake with each (listener, name). The pair's files are written before the clock runs.
    """
    old = server.active_workers()
    begin = time.monotonic()
    write_include(include, pair)
    server.hup()
    while any(_still_active(worker) for worker in old):
        if time.monotonic() - begin > timeout:
            raise AssertionError(f"not converged within {timeout:g} s: {server.words()}")
        time.sleep(poll)
    for listener, name in targets:
        if served_leaf(listener, name) != leaf:
            raise AssertionError(f"no old worker is active, yet {name} at {listener} serves another leaf")
    return time.monotonic() - begin


def _still_active(worker: processes.Process) -> bool:
    now = processes.look(worker.pid)
    return now is not None and now.started == worker.started and now.title == ACTIVE
