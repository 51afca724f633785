"""`rotator swap` and `rotator rollback` at the moment at which the daemon takes a drop, on both real nginx."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.authority import CA
from tests.e2e.edge import Edge
from tests.e2e.nginx_server import NginxServer
from tests.e2e.running import ROOT, Running, running
from tests.faults.forked import deliver
from tests.waiting import wait_until

RACES = 10
"""On each nginx."""


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    extra = 'scan_interval = "500ms"\nsettle = "1s"\n'
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=extra)
    host.start()
    (host.incoming / "example").mkdir()
    return host


def _start(edge: Edge, *words: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        edge.command("--json", *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_swap_and_a_rollback_beside_the_daemon_end_as_both_tell_and_as_the_history_records(edge: Edge) -> None:
    noise = random.Random(5)
    with running(edge) as daemon:
        for number in range(RACES):
            dropped, by_hand = edge.issue(), edge.issue()
            before, logged = len(edge.history.entries("example")), len(daemon.lines)
            chain, key = edge.write_pair(by_hand)
            back = number % 2 == 1
            words = ["rollback", "example"] if back else ["swap", "example", "--cert", chain, "--key", key]
            command = _start(edge, *words)
            time.sleep(0.2 + noise.random() * 0.5)  # it takes as long until it asks for the lock
            digest = deliver(edge, dropped)
            out, err = command.communicate(timeout=60)
            told = json.loads(out)
            assert (command.returncode, told["result"]) == (0, "rotated"), err
            _wait_until_decided(edge, digest)

            daemon.tell(signal.SIGHUP)  # has the drop looked at anew
            wait_until(lambda n=logged: any("reloaded:" in line for line in daemon.lines[n:]), 20)  # type: ignore[misc]
            entries = edge.history.entries("example")[before:]
            mine = [e for e in entries if e["trigger"] == words[0]]
            assert [{k: e[k] for k in ("result", "reason", "live")} for e in mine] == [
                {k: told[k] for k in ("result", "reason", "live")}
            ]
            others = [e for e in entries if e["trigger"] != words[0]]
            assert [(e["trigger"], e["result"]) for e in others] in ([], [("drop", "rotated")]), others
            for entry in others:
                wait_until(lambda e=entry, n=logged: _is_logged(daemon, n, e), 10, f"the log tells of {entry}")  # type: ignore[misc]
            if entries[-1]["trigger"] == words[0]:
                # The operator was the last: what lies in the drop does not fight that.
                assert edge.live() == told["live"]
            else:
                # The drop came when the command was done: it is newer than the operator's word.
                assert edge.shown() == {dropped.chain_der}
            assert edge.store.verified("example") == edge.live()
        assert daemon.end() == 0
    assert not list(edge.state.rglob(".new-*"))


def _is_logged(daemon: Running, since: int, entry: dict[str, Any]) -> bool:
    return any("rotated example" in line and entry["live"] in line for line in daemon.lines[since:])


def _wait_until_decided(edge: Edge, digest: str) -> None:
    def decided() -> bool:
        intent = edge.store.intent("example")
        return intent.digest == digest or bool(intent.hold and intent.hold.digest == digest)

    wait_until(decided, 20, "what lies in the drop is decided or held")
