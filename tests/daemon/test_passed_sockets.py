"""Sockets of the service manager: taken by their name, and nothing else is taken for one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rotator.daemon.passed_sockets import FIRST_FD, NotListeningError, take_listener
from tests.support.other_user import in_child


def _environ(names: str, count: str = "", pid: str = "") -> dict[str, str]:
    number = count or str(len(names.split(":")))
    return {"LISTEN_PID": pid or str(os.getpid()), "LISTEN_FDS": number, "LISTEN_FDNAMES": names, "HOME": "/"}


def _passing(*sockets: socket.socket | int) -> None:
    """Puts these where a service manager puts them; in a child, because the test's own descriptors are there."""
    held = [os.dup(one if isinstance(one, int) else one.fileno()) for one in sockets]
    spare = [os.dup2(fd, 200 + number) for number, fd in enumerate(held)]
    for number, fd in enumerate(spare):
        os.dup2(fd, FIRST_FD + number, inheritable=True)


def _listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_the_listener_with_the_name_is_taken_and_the_environment_is_cleared() -> None:
    with closing(_listening()) as other, closing(_listening()) as mine:

        def take() -> tuple[object, ...]:
            _passing(other, mine)
            environ = _environ("other:metrics", pid=str(os.getpid()))
            taken = take_listener("metrics", environ)
            assert taken is not None
            return taken.getsockname(), taken.getblocking(), os.get_inheritable(taken.fileno()), environ

        assert in_child(take) == (mine.getsockname(), False, False, {"HOME": "/"})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        _environ("other"),
        _environ("metrics", pid="1"),
        _environ("metrics", count="x"),
        _environ("metrics", count="-1"),
        _environ("metrics", count="99999999"),
        _environ("metrics", count="0"),
    ],
)
def test_without_one_for_this_process_there_is_none(environ: dict[str, str]) -> None:
    assert take_listener("metrics", dict(environ)) is None


@pytest.mark.parametrize("kind", ["a file", "a connected pair", "not listening", "datagrams", "unix"])
def test_what_is_no_listening_socket_is_refused(kind: str, tmp_path: Path) -> None:
    def refused() -> str:
        match kind:
            case "a file":
                _passing(os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR))
            case "a connected pair":
                _passing(socket.socketpair()[0])
            case "not listening":
                _passing(socket.socket())
            case "datagrams":
                _passing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            case "unix":
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(tmp_path / "socket"))
                listener.listen()
                _passing(listener)
        with pytest.raises(NotListeningError) as caught:
            take_listener("metrics", _environ("metrics", pid=str(os.getpid())))
        return str(caught.value)

    assert "no " in in_child(refused)


def test_a_program_that_is_started_later_does_not_inherit_it() -> None:
    with closing(_listening()) as mine:

        def inherited() -> str:
            _passing(mine)
            taken = take_listener("metrics", _environ("metrics", pid=str(os.getpid())))
            assert taken is not None
            look = f"import os; print(os.path.exists('/proc/self/fd/{taken.fileno()}'))"
            done = subprocess.run(
                [sys.executable, "-c", look], capture_output=True, text=True, check=True, close_fds=False
            )
            return done.stdout.strip()

        assert in_child(inherited) == "False"
