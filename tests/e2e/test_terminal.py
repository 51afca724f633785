"""Root's commands on a terminal, with a real nginx: what runs beside the terminal, and what a person sees."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.authority import CA
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.other_user import NOBODY
from tests.support.running import ROOT
from tests.support.terminal import terminal

pytestmark = [pytest.mark.root, pytest.mark.contract, pytest.mark.timeout(240)]

SPY = """#!/bin/sh
case " $* " in *" -t "*)
  {
    (exec 3<>/dev/tty) 2>/dev/null && echo terminal opened
    for fd in /proc/$$/fd/*; do readlink "$fd"; done
    cut -d ' ' -f 5-7 /proc/$$/stat
    tr '\\0' '\\n' </proc/$$/environ
  } >>"$(dirname "$0")/seen/log"
esac
exec "$(dirname "$0")/real-nginx" "$@"
"""


@pytest.fixture
def edge(nginx_binary: Path, issuing_ca: CA, root_ca: CA) -> Iterator[Edge]:
    """An edge host of root's whose store belongs to another user; each `nginx -t` notes what it has."""
    top = Path(tempfile.mkdtemp(prefix="rotator-terminal-", dir="/var/lib"))
    top.chmod(0o755)
    try:
        shutil.copy(nginx_binary, top / "real-nginx")
        (top / "seen").mkdir()
        (top / "seen").chmod(0o777)
        spy = top / "nginx-binary"
        spy.write_text(SPY)
        spy.chmod(0o755)
        with NginxServer(spy, top / "nginx") as nginx:
            host = Edge(nginx, top / "edge", issuing_ca, root_ca, listeners=1)
            os.chown(host.state, NOBODY, NOBODY)
            first = host.first["example"] = host.issue()
            chain, key = host.write_pair(first)
            assert host.cli("swap", "example", "--cert", chain, "--key", key, "--first").returncode == 8
            nginx.start()
            assert host.cli("swap", "example").returncode == 0
            yield host
    finally:
        shutil.rmtree(top)


def on_terminal(edge: Edge, *words: str | Path) -> tuple[int, str]:
    """The exit status of a command in a terminal of root's, and what the terminal shows."""

    def program() -> int:
        os.chdir("/")
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm", "A_SECRET": "of root"}
        os.execve(edge.command()[0], edge.command(*words), environment)

    with terminal(program, columns=150) as one:
        return one.end(), one.shown.decode()


def test_no_nginx_of_a_swap_by_root_has_roots_terminal_or_its_session(edge: Edge) -> None:
    (edge.root.parent / "seen" / "log").unlink()
    chain, key = edge.write_pair(edge.issue())
    status, shown = on_terminal(edge, "swap", "example", "--cert", chain, "--key", key)
    seen = (edge.root.parent / "seen" / "log").read_text()
    assert (status, "ROTATED" in shown) == (0, True), shown
    assert "terminal opened" not in seen
    assert ("/dev/pts" in seen, "/dev/ptmx" in seen, "A_SECRET" in seen) == (False, False, False), seen
    groups = [line.split() for line in seen.splitlines() if len(line.split()) == 3 and line.split()[2] == "0"]
    assert groups, seen
    assert all(group == session for group, session, _ in groups)


def test_a_swap_by_root_shows_its_colours_and_its_progress(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    _, shown = on_terminal(edge, "swap", "example", "--cert", chain, "--key", key)
    assert ("\x1b[32mROTATED example" in shown, "reloading nginx for example" in shown) == (True, True), shown


@pytest.mark.parametrize("command", ["status", "history"])
def test_root_gets_a_drawn_table_as_wide_as_the_terminal(edge: Edge, command: str) -> None:
    words = ["status"] if command == "status" else ["history", "example"]
    status, shown = on_terminal(edge, *words)
    assert (status, "─" in shown or "\x1b[1m" in shown, "Traceback" in shown) == (0, True, False), shown


def test_json_on_a_terminal_is_that_of_a_pipe(edge: Edge) -> None:
    _, shown = on_terminal(edge, "--json", "history", "example")
    assert json.loads(shown) == json.loads(edge.cli("--json", "history", "example").stdout)


def test_an_error_of_root_is_red_and_whole(edge: Edge) -> None:
    status, shown = on_terminal(edge, "history", "unknown")
    assert (status, "\x1b[31merror:\x1b[0m" in shown, "hint:" in shown) == (2, True, True)


def test_a_signal_from_the_terminal_ends_a_swap_that_waits(edge: Edge) -> None:
    import fcntl

    with (edge.state / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def program() -> int:
            os.chdir("/")
            environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm"}
            words = edge.command("swap", "example", "--wait", "200")
            os.execve(words[0], words, environment)

        with terminal(program) as one:
            one.wait_for(b"waiting for")
            one.type(b"\x03")
            assert one.end() == 130
