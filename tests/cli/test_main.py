"""How every command line is taken apart, speaks and ends."""

from __future__ import annotations

import errno
import io
import json
import os
import pwd
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from rotator import __version__
from rotator.cli import COMMANDS, cli, output
from rotator.cli.context import Context, caller, pass_context
from rotator.cli.output import Output, as_json, clean
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import Secret
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.core.times import rfc3339
from tests.support.calls import call

THERE = [name for name, (place, _) in COMMANDS.items() if find_spec(place.split(":")[0])]
"""The commands whose module exists."""

EXPLAINED = [name for name in THERE if name != "check"]
"""Those that end their help with `group.epilog`."""

ROTATOR = [sys.executable, "-m", "rotator"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """`rotator probe-me`: does what the test puts into the list, and is given the context."""
    does: list[Any] = []

    @click.command()
    @pass_context
    def probe_me(context: Context) -> object:
        return does[0](context)

    module = ModuleType("rotator.cli.probe_me")
    module.probe_me = probe_me  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rotator.cli.probe_me", module)
    monkeypatch.setitem(COMMANDS, "probe-me", ("rotator.cli.probe_me:probe_me", "For the tests."))
    return does


def failing(error: BaseException) -> Any:
    def work(_: Context) -> None:
        raise error

    return work


# --- help


def test_the_help_shows_every_command_with_its_line() -> None:
    shown = call("--help").stdout
    assert [name for name, (_, line) in COMMANDS.items() if f"{name} " not in shown or line not in shown] == []


def test_the_help_imports_no_command_and_nothing_heavy() -> None:
    code = "import sys; from rotator.cli import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"cryptography", "OpenSSL", "rich", "idna", "tomllib", "tomlkit", "json", "difflib"}
    commands = {place.split(":")[0] for place, _ in COMMANDS.values()}
    assert set(run.stderr.split()) & (heavy | commands | {"rotator.config", "rotator.core.model"}) == set()


def test_a_call_without_a_command_shows_the_help_as_a_message() -> None:
    assert "Commands:" in call().stderr


def test_a_call_without_a_command_is_a_usage_error() -> None:
    assert call().status == Exit.USAGE


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_commands_help_has_an_example(name: str) -> None:
    shown = call(*(["config", "check"] if name == "config" else [name]), "--help").stdout
    assert re.search(rf"Examples?:\n    rotator {name}", shown)


@pytest.mark.parametrize("name", THERE)
def test_every_example_in_the_help_is_a_command_line_that_makes_sense(name: str, tmp_path: Path) -> None:
    shown = call(*(["config", "check"] if name == "config" else [name]), "--help").stdout
    lines = [line for line in shown.splitlines() if line.startswith("    rotator ")]
    assert lines
    for line in lines:
        words = shlex.split(line)[1:]
        with cli.make_context("rotator", words) as context:
            left = [*context._protected_args, *context.args]
            found, command, rest = cli.resolve_command(context, left)
            assert command is not None
            command.make_context(found, rest, parent=context)  # raises what a wrong line would be answered with


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_commands_help_tells_its_exit_statuses(name: str) -> None:
    shown = call(*(["config", "check"] if name == "config" else [name]), "--help").stdout
    assert re.search(r"Exit status:\n    0 ", shown)


@pytest.mark.parametrize("name", THERE)
@pytest.mark.parametrize("option", ["--json", "--plain", "--config", "--verbose"])
def test_every_command_takes_the_common_options(name: str, option: str) -> None:
    assert option in call(*(["config", "check"] if name == "config" else [name]), "--help").stdout


def test_the_version_is_one_line() -> None:
    assert call("--version").stdout == f"rotator {__version__}\n"


def test_the_module_can_be_run() -> None:
    run = subprocess.run([*ROTATOR, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"rotator {__version__}\n"


# --- usage errors


def test_an_unknown_command_is_a_usage_error() -> None:
    assert call("frobnicate").status == Exit.USAGE


def test_a_misspelt_command_gets_the_right_one_suggested() -> None:
    assert "did you mean 'deliver'?" in call("delivr").stderr


def test_a_usage_error_names_the_help_as_the_next_step() -> None:
    assert "  hint: rotator deliver --help\n" in call("deliver", "--frobnicate").stderr


def test_an_option_without_its_value_names_the_help_of_its_command() -> None:
    assert "  hint: rotator swap --help\n" in call("swap", "example.cn", "--cert").stderr


def test_a_usage_error_leaves_stdout_empty() -> None:
    assert call("deliver").stdout == ""


def test_a_usage_error_is_an_object_with_json() -> None:
    assert call("--json", "deliver").answer["error"]["code"] == "usage"


def test_json_behind_the_end_of_options_is_no_option() -> None:
    assert call("deliver", "--frobnicate", "--", "--json").stdout == ""


# --- errors and exit statuses


def test_an_error_is_told_with_its_next_step(command: list[Any]) -> None:
    command.append(failing(RotatorError(Reason.BUSY, "the lock is taken", "try again", Exit.BUSY)))
    assert call("probe-me").stderr == "error: the lock is taken\n  hint: try again\n"


def test_an_error_without_a_hint_has_no_hint_line(command: list[Any]) -> None:
    command.append(failing(RotatorError(Reason.BUSY, "the lock is taken")))
    assert call("probe-me").stderr == "error: the lock is taken\n"


def test_an_error_gives_its_exit_status(command: list[Any]) -> None:
    command.append(failing(RotatorError(Reason.BUSY, "the lock is taken", "", Exit.BUSY)))
    assert call("probe-me").status == Exit.BUSY


def test_an_error_is_an_object_with_json(command: list[Any]) -> None:
    command.append(failing(RotatorError(Reason.BUSY, "the lock is taken", "try again", Exit.BUSY)))
    told = {"code": "busy", "message": "the lock is taken", "hint": "try again", "exit": 7}
    assert call("probe-me", "--json").answer == {"schema_version": 1, "error": told}


def test_an_error_cannot_move_the_cursor(command: list[Any]) -> None:
    command.append(failing(RotatorError(Code.IO_ERROR, "\x1b[2J is no file", "\rrm it")))
    assert call("probe-me").stderr == "error: \\x1b[2J is no file\n  hint: \\rrm it\n"


def test_a_number_that_a_command_returns_is_the_exit_status(command: list[Any]) -> None:
    command.append(lambda _: Exit.DEFERRED)
    assert call("probe-me").status == Exit.DEFERRED


def test_a_command_that_returns_nothing_is_done(command: list[Any]) -> None:
    command.append(lambda _: None)
    assert call("probe-me").status == Exit.DONE


def test_a_bug_goes_up_with_its_traceback(command: list[Any]) -> None:
    command.append(failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        call("probe-me")


def test_an_interrupt_exits_as_the_shell_counts_it(command: list[Any]) -> None:
    command.append(failing(KeyboardInterrupt()))
    assert call("probe-me").status == 130


def test_an_interrupt_shows_no_traceback(command: list[Any]) -> None:
    command.append(failing(KeyboardInterrupt()))
    assert call("probe-me").stderr == "\n"


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run([*ROTATOR, "--version"], stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (141, b"")


def test_an_answer_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "w") as full:
        args = [*ROTATOR, "--json", "frobnicate"]
        run = subprocess.run(args, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, "error: the output cannot be written: No space left on device\n")


def test_a_closed_stdout_is_no_reason_to_fail() -> None:
    run = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *ROTATOR, "--json", "frobnicate"], capture_output=True, check=False
    )
    assert run.returncode == Exit.USAGE


# --- the context


def test_options_may_stand_before_a_command(command: list[Any]) -> None:
    seen: list[Context] = []
    command.append(seen.append)
    call("--json", "--plain", "-vv", "--config", "/x.toml", "probe-me")
    assert (seen[0].json, seen[0].plain, seen[0].verbose, str(seen[0].config_path)) == (True, True, 2, "/x.toml")


def test_json_before_a_command_reaches_an_option_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def own_json(as_json: bool) -> None:
        seen.append(as_json)

    module = ModuleType("rotator.cli.own_json")
    module.own_json = own_json  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rotator.cli.own_json", module)
    monkeypatch.setitem(COMMANDS, "own-json", ("rotator.cli.own_json:own_json", "For the tests."))
    call("--json", "own-json")
    assert seen == [True]


def test_options_may_stand_behind_a_command(command: list[Any]) -> None:
    seen: list[Context] = []
    command.append(seen.append)
    call("probe-me", "--json", "--plain", "-vv", "--config", "/x.toml")
    assert (seen[0].json, seen[0].plain, seen[0].verbose, str(seen[0].config_path)) == (True, True, 2, "/x.toml")


def test_the_default_configuration_lies_in_etc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROTATOR_CONFIG", raising=False)
    assert str(Context().config_path) == "/etc/rotator/rotator.toml"


def test_an_empty_environment_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROTATOR_CONFIG", "")
    assert str(Context().config_path) == "/etc/rotator/rotator.toml"


def test_root_is_told_apart_by_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert caller() == "alice"


def test_nobody_else_can_claim_to_come_through_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert caller() != "alice"


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> pwd.struct_passwd:
        raise KeyError

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert caller() == f"uid {os.getuid()}"


# --- output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Makes stdout a terminal, from within the test: pytest puts its own in place before each."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    Output().line("fine", "good")
    assert stream.getvalue() == "\x1b[32mfine\x1b[0m\n"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_no_colour_gets_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    stream = terminal(monkeypatch)
    monkeypatch.setenv(name, value)
    Output().line("fine", "good")
    assert stream.getvalue() == "fine\n"


def test_plain_has_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    Output(plain=True).line("fine", "good")
    assert stream.getvalue() == "fine\n"


def test_a_pipe_gets_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    Output().line("fine", "good")
    assert capsys.readouterr().out == "fine\n"


def test_a_terminal_gets_a_drawn_table(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    Output().table(["site"], [["shop"]])
    assert "─" in stream.getvalue()


def test_where_a_table_finds_no_room_each_cell_stands_whole_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    Output().table(["site", "on disk", "why"], [["shop", "000012-3f9a1c0de4b7", "it is served by every listener"]])
    told = ["\x1b[1mshop\x1b[0m", "  on disk  000012-3f9a1c0de4b7", "  why      it is served by every listener"]
    assert stream.getvalue().splitlines() == told


def test_a_drawn_table_takes_no_markup_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(monkeypatch)
    Output().table(["site"], [["[red]x[/red]"]])
    assert "[red]x[/red]" in stream.getvalue()


def test_a_pipe_gets_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["site", "until"], [["shop", "2026"], ["longer", "2027"]])
    assert capsys.readouterr().out == "SITE    UNTIL\nshop    2026\nlonger  2027\n"


def test_text_from_outside_cannot_clear_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["subject"], [["CN=\x1b[2J\n"]])
    assert "\x1b" not in capsys.readouterr().out


def test_messages_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Output().say("waiting")
    assert tuple(capsys.readouterr()) == ("", "waiting\n")


def test_details_are_silent_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    Output().detail("waiting")
    assert capsys.readouterr().err == ""


def test_details_show_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    Output(verbose=1).detail("waiting")
    assert capsys.readouterr().err == "waiting\n"


def test_a_line_that_the_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Output().line("straße")
    assert raw.getvalue() == b"stra\\xdfe\n"


def test_a_full_disk_behind_the_output_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(RotatorError, match="No space left"):
        Output().line("x")


def test_times_are_told_in_utc() -> None:
    assert rfc3339(datetime(2026, 11, 22, 13, tzinfo=timezone(timedelta(hours=1)))) == "2026-11-22T12:00:00Z"


def test_json_has_times_seconds_and_paths() -> None:
    value = {"at": datetime(2026, 1, 1, tzinfo=UTC), "for": timedelta(seconds=1.5), "file": Path("/x")}
    assert json.loads(as_json(value)) == {"at": "2026-01-01T00:00:00Z", "for": 1.5, "file": "/x"}


@pytest.mark.parametrize("value", [b"key", Secret(b"key"), object()])
def test_json_refuses_what_could_be_a_key(value: object) -> None:
    with pytest.raises(TypeError, match=r"no JSON for \w+$"):
        as_json({"x": value})


def test_line_feeds_stay_in_a_clean_text() -> None:
    assert clean("a\nb\tc\x07") == "a\nb\\tc\\x07"


def test_the_rules_stand_at_the_top_of_the_module() -> None:
    assert "stdout" in (output.__doc__ or "")


def test_the_group_is_what_main_runs() -> None:
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)
