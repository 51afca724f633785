"""How the demo is told: a pleasure on a terminal, plain lines elsewhere; what is played is tested with a real nginx."""

from __future__ import annotations

import io
import sys

import pytest

from rotator.cli.demo import ConsoleReporter
from rotator.cli.output import Output
from rotator.demo.scenarios import Check, Scenario


class Screen(io.TextIOWrapper):
    """A terminal in memory."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._written = io.BytesIO()
        super().__init__(self._written, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return self._written.getvalue().decode(self.encoding)


def terminal(monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> Screen:
    """Makes stdout a terminal, from within the test: pytest puts its own in place before each."""
    shown = Screen(encoding)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", shown)
    return shown


GOOD, BAD = Check("it is served", passed=True), Check("it is served", passed=False, actual="another one is")


def test_what_held_is_ticked_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    ConsoleReporter(Output()).checked(GOOD)
    assert screen.text == "\x1b[32m   ✔ it is served\x1b[0m\n"


def test_what_did_not_hold_is_told_with_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    ConsoleReporter(Output()).checked(BAD)
    assert screen.text == "\x1b[31m   ✘ it is served; but another one is\x1b[0m\n"


def test_without_a_terminal_there_are_words_for_signs_and_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConsoleReporter(Output())
    reporter.checked(GOOD)
    reporter.checked(BAD)
    reporter.durations({"prove": 104.2})
    assert capsys.readouterr().out == (
        "   ok it is served\n   FAILED it is served; but another one is\n     prove      104.2 ms\n"
    )


def test_a_terminal_that_knows_no_such_sign_gets_the_word(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = terminal(monkeypatch, "ascii")
    ConsoleReporter(Output()).checked(GOOD)
    assert "ok it is served" in plain.text


def test_the_bars_of_the_stages_are_as_long_as_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    ConsoleReporter(Output()).durations({"apply": 25.0, "prove": 100.0, "store": 0.1})
    assert [line.count("▇") for line in screen.text.splitlines()] == [8, 32, 1]


def test_stages_that_took_no_time_at_all_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    ConsoleReporter(Output()).durations({"store": 0.0})
    assert "store" in screen.text


def test_a_wait_is_shown_on_a_terminal_and_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with ConsoleReporter(Output()).waiting("the daemon is working"):
        pass
    assert "the daemon is working" in screen.text
    assert screen.text.endswith("\x1b[2K")  # the line is erased


def test_beside_a_json_answer_everything_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConsoleReporter(Output(json=True))
    reporter.begin(Scenario(1, "A renewal goes live"))
    reporter.checked(GOOD)
    with reporter.waiting("the daemon is working"):
        pass
    told = capsys.readouterr()
    assert (told.out, "A renewal goes live" in told.err, "ok it is served" in told.err) == ("", True, True)


def test_an_act_in_which_nothing_was_checked_did_not_hold() -> None:
    assert not Scenario(1, "nothing").passed
    assert Scenario(1, "something", [GOOD]).passed
    assert not Scenario(1, "something", [GOOD, BAD]).passed
