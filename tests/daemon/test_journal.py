"""The daemon's log: one line for each event, with the journal's priorities or a time; and that it never blocks."""

from __future__ import annotations

import os
import pty
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rotator.core.model import Outcome, Result
from rotator.core.reasons import Reason
from rotator.daemon.journal import ERROR, LONGEST, NOTICE, Journal, message_id
from tests.support.waiting import PATIENCE

AT = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def _journal_socket() -> tuple[socket.socket, socket.socket, dict[str, str]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    at = os.fstat(theirs.fileno())
    return ours, theirs, {"JOURNAL_STREAM": f"{at.st_dev}:{at.st_ino}"}


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """The journal's own socket."""
    monkeypatch.chdir(tmp_path)  # the name alone fits into an address, the whole path may not
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.bind("native")
        way.settimeout(5)
        yield way


def _fields(way: socket.socket) -> dict[str, str]:
    lines = (line.partition("=") for line in way.recv(65536).decode().splitlines())
    return {key: value for key, _, value in lines}


def test_a_line_that_is_too_long_is_cut_between_two_characters(pipe: tuple[int, int]) -> None:
    for begin in ("", "x"):
        Journal(pipe[1], {}).say("event", begin + "证" * LONGEST)
        line = os.read(pipe[0], 65536).decode("utf-8")
        assert (len(line.encode()) <= LONGEST + 1, line.endswith("证\n")) == (True, True)


def test_the_journal_is_given_the_line_and_fields_to_search_by(native: socket.socket) -> None:
    ours, theirs, environment = _journal_socket()
    with ours, theirs:
        Journal(theirs.fileno(), environment, "native").say("settling", "not complete yet", NOTICE, site="shop")
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)
    fields = _fields(native)
    assert fields.pop("MESSAGE_ID") == message_id("settling")
    assert fields == {
        "MESSAGE": "settling shop: not complete yet",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "rotator",
        "ROTATOR_EVENT": "settling",
        "ROTATOR_SITE": "shop",
    }


def test_no_line_feed_makes_another_field(native: socket.socket) -> None:
    ours, theirs, environment = _journal_socket()
    with ours, theirs:
        Journal(theirs.fileno(), environment, "native").say("x", "one\nPRIORITY=0\u2028UNIT=sshd\x0bA=b\rC=d")
    assert set(_fields(native)) == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "MESSAGE_ID", "ROTATOR_EVENT"}


def test_the_id_of_an_event_never_changes() -> None:
    assert message_id("rotated") == "eb108bb0b2d7576b8432316667be95c5"


def test_a_journal_that_takes_no_more_holds_up_nobody_and_stderr_is_told(native: socket.socket) -> None:
    ours, theirs, environment = _journal_socket()
    with ours, theirs:
        journal = Journal(theirs.fileno(), environment, "native")
        begun = time.monotonic()
        for _ in range(500):
            journal.say("x", "y" * 1000)
        assert time.monotonic() - begun < PATIENCE
        assert ours.recv(1000).startswith(b"<6>x: yyy")


def test_without_the_journals_socket_a_line_has_a_priority_and_no_time() -> None:
    ours, theirs, environment = _journal_socket()
    with ours, theirs:
        Journal(theirs.fileno(), environment, "/nowhere").say("reload-failed", "it is wrong", ERROR)
        assert ours.recv(1000) == b"<3>reload-failed: it is wrong\n"


def test_another_stream_than_the_journals_gets_no_priority(pipe: tuple[int, int]) -> None:
    Journal(pipe[1], {"JOURNAL_STREAM": "1:2"}).say("ready", "all well")
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ready: all well\n", os.read(pipe[0], 1000))


def test_on_a_terminal_a_line_is_plain() -> None:
    ours, theirs = pty.openpty()
    try:
        Journal(theirs, {}).say("ready", "all well", site="shop")
        assert os.read(ours, 1000).strip() == b"ready shop: all well"
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("result", "priority"),
    [("unchanged", 6), ("rotated", 5), ("deferred", 4), ("rejected", 3), ("rolled-back", 3), ("stranded", 2)],
)
def test_an_outcome_is_one_line_that_begins_with_its_word(result: str, priority: int) -> None:
    ours, theirs, environment = _journal_socket()
    with ours, theirs:
        done = Outcome("shop", Result(result), AT, Reason.LISTENER, "first line\nsecond line.", "do this")
        Journal(theirs.fileno(), environment, "/nowhere").outcome(done)
        line = ours.recv(1000).decode()
    assert line.startswith(f"<{priority}>{result} shop: first line; second line [listener]")
    assert line.count("\n") == 1
    assert ("next: do this" in line) is (result != "rotated")


def test_control_characters_are_escaped(pipe: tuple[int, int]) -> None:
    Journal(pipe[1], {}).say("x", "\x1b[31mred\x07\x00")
    assert b"\\x1b[31mred\\x07\\x00" in os.read(pipe[0], 1000)


def test_nobody_who_reads_holds_up_nobody_and_what_was_lost_is_told(pipe: tuple[int, int]) -> None:
    journal = Journal(pipe[1], {})
    begun = time.monotonic()
    for _ in range(200):
        journal.say("x", "y" * 1000)
    assert time.monotonic() - begun < PATIENCE
    assert journal.lost > 0
    os.set_blocking(pipe[0], False)
    while True:
        try:
            os.read(pipe[0], 65536)
        except BlockingIOError:
            break
    journal.say("x", "again")
    assert b"lines before this one could not be written" in os.read(pipe[0], 65536)


def test_a_closed_stream_is_harmless() -> None:
    journal = Journal(987, {})
    journal.say("x", "y")
    assert journal.lost == 1


def test_a_long_line_is_cut(pipe: tuple[int, int]) -> None:
    Journal(pipe[1], {}).say("x", "é" * 5000)
    assert len(os.read(pipe[0], 65536)) < 4096
