"""The service manager is told everything and can hold up nothing: real datagram sockets, full queues, restarts."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from rotator.daemon.sd_notify import LONGEST, Notifier
from tests.support.waiting import PATIENCE


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A manager's end of the notification socket."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as end:
        end.bind(address)
        end.settimeout(5)
        yield end


@contextmanager
def notifier(address: str, **environ: str) -> Iterator[Notifier]:
    one = Notifier({"NOTIFY_SOCKET": address, **environ})
    try:
        yield one
    finally:
        one.close()


def received(end: socket.socket) -> list[str]:
    """Every message that is waiting, each decoded strictly."""
    end.setblocking(False)
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(end.recv(65536).decode("utf-8"))
    return found


def fill(address: str) -> None:
    """Puts so many messages into the manager's queue that it takes no more."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as crowd:
        crowd.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                crowd.sendto(b"CROWD=1", address)


def test_every_state_is_one_message(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as end, notifier(address) as tell:
        tell.status("proving what is live")
        tell.ready("12 sites, all proved")
        tell.watchdog()
        tell.stopping()
        assert received(end) == [
            "STATUS=proving what is live",
            "READY=1\nSTATUS=12 sites, all proved",
            "WATCHDOG=1",
            "STOPPING=1",
        ]


def test_a_reload_tells_its_moment_in_the_same_message(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as end, notifier(address) as tell:
        before = time.monotonic_ns() // 1000
        tell.reloading()
        after = time.monotonic_ns() // 1000
        (message,) = received(end)
    reloading, _, moment = message.partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert before <= int(moment) <= after


def test_an_abstract_socket_is_reached() -> None:
    name = f"rotator-test-{secrets.token_hex(8)}"
    with manager("\0" + name) as end, notifier("@" + name) as tell:
        tell.ready()
        assert received(end) == ["READY=1"]


def test_a_start_that_goes_on_asks_for_more_time_and_is_not_told_again_later(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with notifier(address) as tell:
        tell.starting(90)
        with manager(address) as end:
            tell.starting(1.5)
            tell.ready()
            assert received(end) == ["EXTEND_TIMEOUT_USEC=1500000", "READY=1"]


def test_a_text_cannot_bring_in_another_state(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as end, notifier(address) as tell:
        tell.status("nginx said:\nREADY=1\r\nMAINPID=1\x00\x0b\x85\u2028end\n")
        assert received(end) == ["STATUS=nginx said: READY=1 MAINPID=1 end"]


def test_any_text_arrives_as_utf_8(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as end, notifier(address) as tell:
        tell.status("bücher.example → 证书")
        tell.status("a name that is no UTF-8: \udcff")
        tell.status("é" * LONGEST)
        assert received(end) == [
            "STATUS=bücher.example → 证书",
            "STATUS=a name that is no UTF-8: ?",
            "STATUS=" + "é" * (LONGEST // 2),
        ]


def test_an_empty_status_clears_the_line(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as end, notifier(address) as tell:
        tell.status("")
        assert received(end) == ["STATUS="]


def test_a_full_queue_holds_up_nothing_and_loses_no_state(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with manager(address) as end, notifier(address) as tell:
        fill(address)
        began = time.monotonic()
        for number in range(1000):
            tell.status(f"working at {number}")
            tell.watchdog()
        tell.ready()
        tell.status("done")
        assert time.monotonic() - began < PATIENCE, "a blocking socket would wait for ever"
        assert set(received(end)) == {"CROWD=1"}
        tell.watchdog()
        # The newest of each kind, in the order in which they were told; of the pings only the one of now.
        assert received(end) == ["WATCHDOG=1", "READY=1", "STATUS=done"]
        tell.watchdog()
        assert received(end) == ["WATCHDOG=1"]


def test_a_restarted_manager_is_found_again(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with notifier(address) as tell:
        with manager(address) as end:
            tell.ready()
            assert received(end) == ["READY=1"]
        tell.status("to a socket that nobody reads")
        os.unlink(address)
        tell.watchdog()
        tell.status("to no socket at all")
        with manager(address) as end:
            tell.watchdog()
            assert received(end) == ["WATCHDOG=1", "STATUS=to no socket at all"]


@pytest.mark.parametrize(
    "address",
    ["", "@", "/", "relative", "vsock:2:1234", "/nowhere/notify", "/" + "x" * 300, "/\udcff", "/a\0b"],
    ids=["none", "nameless", "directory", "relative", "vsock", "missing", "too-long", "no-utf-8", "nul"],
)
def test_without_a_manager_nothing_happens(address: str) -> None:
    with notifier(address) as tell:
        tell.reloading()
        tell.ready("well")
        tell.status("well")
        tell.watchdog()
        tell.stopping()


def test_descriptors_are_not_used_up_by_a_missing_manager() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with notifier("/nowhere/notify") as tell:
        for _ in range(50):
            tell.status("is anybody there?")
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_environment_is_the_process_s_own_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with manager(address) as end:
        tell = Notifier()
        tell.ready()
        assert received(end) == ["READY=1"]
        assert tell.watchdog_every == 1.5
        tell.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "me"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_has_to_be(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog_every == seconds
