"""Root beside an unprivileged store: a child that lies, that is killed, and whom a signal to the command reaches."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rotator import bootstrap
from rotator.core.errors import RotatorError
from rotator.core.reasons import Reason
from rotator.privsep import privilege_drop
from rotator.privsep.apply import Applied, Setup
from rotator.privsep.socket_client import ApplyPort
from rotator.storage.generations import demand_state_dir
from tests.support.other_user import NOBODY, forked
from tests.support.terminal import state_of
from tests.support.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(20)]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)
    return Setup(str(state), str(tmp_path / "include"), str(tmp_path / "nginx.pid"), "", frozenset({"site"}))


def _run(setup: Setup, work: Callable[[ApplyPort], int]) -> int:
    def report(e: RotatorError) -> int:
        return 77

    return privilege_drop.run_as_owner(
        setup,
        demand_state_dir(setup.state_dir),
        bootstrap.direct(setup),
        lambda: None,
        lambda _, apply: work(apply),
        report,
    )


def test_the_exit_status_of_the_child_is_that_of_the_command(setup: Setup) -> None:
    assert _run(setup, lambda _: 8) == 8


def test_the_child_is_the_store_s_owner_and_the_step_is_done_by_root(setup: Setup) -> None:
    def work(apply: ApplyPort) -> int:
        assert os.geteuid() == NOBODY
        done = apply({"site": "000001-aaaaaaaaaaaa"}, hup=False)
        return 8 if done.error else 0  # there is no such generation, says the parent

    assert _run(setup, work) == 8


@pytest.mark.parametrize("uid", [NOBODY, 64813])
def test_the_child_has_no_group_of_root_s_whatever_group_the_store_is_of(setup: Setup, uid: int) -> None:
    os.chown(setup.state_dir, uid, 0)
    assert _run(setup, lambda _: 8 if 0 in {*os.getresgid(), *os.getgroups()} else 0) == 0


@pytest.mark.parametrize("message", [b"[]", b"nonsense", b'{"id": 1, "generations": [], "hup": 2}', b"{}"])
def test_a_child_that_talks_nonsense_gets_no_answer_and_ends(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, message: bytes
) -> None:
    def through(sock: socket.socket) -> ApplyPort:
        def lie(generations: object, *, hup: bool) -> Applied:
            sock.send(message)
            assert sock.recv(1024) == b""
            raise RotatorError(Reason.APPLY_GONE, "the process that keeps root is gone")

        return lie

    monkeypatch.setattr(privilege_drop, "_apply_by_parent", through)
    assert _run(setup, lambda apply: len(apply({}, hup=True).live)) == 77


def test_a_reader_that_has_gone_is_no_bug(setup: Setup, capfd: pytest.CaptureFixture[str]) -> None:
    def work(_: ApplyPort) -> int:
        raise BrokenPipeError

    assert _run(setup, work) == 128 + signal.SIGPIPE
    assert capfd.readouterr().err == ""


def test_a_signal_to_the_command_ends_it(setup: Setup) -> None:
    inlet, outlet = os.pipe()

    def work(_: ApplyPort) -> int:
        print("at work", flush=True)
        time.sleep(10 * PATIENCE)
        return 0

    def command_with_its_output_in_the_pipe() -> None:
        sys.stdout = os.fdopen(outlet, "w")
        os._exit(_run(setup, work))

    command = forked(command_with_its_output_in_the_pipe)
    os.read(inlet, 7)
    os.close(inlet)
    os.close(outlet)
    os.kill(command, signal.SIGTERM)
    began = time.monotonic()
    _, status = os.waitpid(command, 0)
    assert (os.waitstatus_to_exitcode(status), time.monotonic() - began < PATIENCE) == (128 + signal.SIGTERM, True)


def is_stuck(command: int, outlet: int) -> bool:
    """Whether a command sleeps beside a full pipe, a moment later."""
    time.sleep(0.01)
    poll = select.poll()
    poll.register(outlet, select.POLLOUT)
    return state_of(command) == "S" and not poll.poll(0)


def test_a_signal_ends_the_command_also_while_the_reader_of_its_output_takes_nothing(setup: Setup) -> None:
    inlet, outlet = os.pipe()

    def work(_: ApplyPort) -> int:
        while True:
            print("x" * 65536, flush=True)

    def command_with_its_output_in_the_pipe() -> None:
        sys.stdout = os.fdopen(outlet, "w")
        os._exit(_run(setup, work))

    command = forked(command_with_its_output_in_the_pipe)
    try:
        wait_until(lambda: all(is_stuck(command, outlet) for _ in range(20)), 10, "the output is stuck")
        os.kill(command, signal.SIGTERM)
        wait_until(lambda: state_of(command) == "Z", 10, "the command has ended")
    finally:
        os.kill(command, signal.SIGKILL)
        _, status = os.waitpid(command, 0)
        os.close(inlet)
        os.close(outlet)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
