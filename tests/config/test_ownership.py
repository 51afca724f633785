"""Who may change the configuration and the program that it has root run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rotator.config import load
from rotator.core.errors import RotatorError
from tests.support.calls import call, host
from tests.support.other_user import NOBODY, as_nobody

pytestmark = pytest.mark.root


@pytest.fixture
def config(top: Path) -> Path:
    """A configuration with an nginx program of its own."""
    made = host(top)
    program = top / "bin" / "nginx"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ntouch " + str(top / "ran") + "\n")
    program.chmod(0o755)
    made.write_text(made.read_text().replace("[nginx]\n", f'[nginx]\ncommand = ["{program}"]\n'))
    return made


def spoil(config: Path, what: str) -> tuple[Path, str]:
    """Lets others change something. Returns what, and the command that mends it."""
    program = config.parent / "bin" / "nginx"
    match what:
        case "file-mode":
            config.chmod(0o664)
            return config, f"chmod go-w {config}"
        case "file-owner":
            os.chown(config, NOBODY, 0)
            return config, f"chown root: {config}"
        case "directory-mode":
            config.parent.chmod(0o777)
            return config.parent, f"chmod go-w {config.parent}"
        case "sticky-directory":
            config.parent.chmod(0o1777)
            return config.parent, f"move it out of {config.parent}"
        case "program-mode":
            program.chmod(0o775)
            return program, f"chmod go-w {program}"
        case _:
            os.chown(program.parent, NOBODY, 0)
            return program.parent, f"chown root: {program.parent}"


SPOILED = ["file-mode", "file-owner", "directory-mode", "sticky-directory", "program-mode", "program-directory"]


@pytest.mark.parametrize("what", SPOILED)
def test_root_refuses_a_configuration_or_a_program_that_others_can_change(config: Path, what: str) -> None:
    spoiled, mending = spoil(config, what)
    with pytest.raises(RotatorError) as caught:
        load(config)
    message = caught.value.message
    assert (caught.value.exit, str(spoiled) in message, mending in message) == (78, True, True)


@pytest.mark.parametrize("what", SPOILED)
def test_config_check_reports_it_with_the_command_that_mends_it(config: Path, what: str) -> None:
    _, mending = spoil(config, what)
    done = call("--json", "--config", config, "config", "check")
    hints = [mistake["hint"] for mistake in done.answer["mistakes"]]
    assert (done.status, done.answer["ok"], mending in " ".join(hints)) == (78, False, True)


def test_config_check_names_the_line_of_the_program(config: Path) -> None:
    spoil(config, "program-mode")
    line = config.read_text().splitlines().index("[nginx]") + 2
    assert f"{config}:{line}: nginx.command:" in call("--config", config, "config", "check").stdout


@pytest.mark.parametrize("what", SPOILED)
@pytest.mark.parametrize("command", [["status"], ["history", "shop"], ["swap", "shop"], ["run"], ["config", "reload"]])
def test_no_command_of_root_uses_it_or_runs_the_program(config: Path, what: str, command: list[str]) -> None:
    spoil(config, what)
    assert (call("--config", config, *command).status, (config.parent / "ran").exists()) == (78, False)


def test_a_path_in_the_mending_command_is_quoted(top: Path) -> None:
    hostile = top / "a;id>x"
    hostile.mkdir()
    config = host(hostile)
    config.chmod(0o666)
    with pytest.raises(RotatorError) as caught:
        load(config)
    assert f"chmod go-w '{config}'" in caught.value.message


def test_roots_that_others_can_change_are_a_note(config: Path) -> None:
    roots = config.parent / "roots.pem"
    roots.write_text("")
    roots.chmod(0o666)
    config.write_text(config.read_text() + f'roots = "{roots}"\n')
    done = call("--config", config, "config", "check")
    assert (done.status, f"chmod go-w {roots}" in done.stderr) == (0, True)


def test_another_user_may_use_a_configuration_of_root(config: Path) -> None:
    assert as_nobody(lambda: load(config).path, cwd=config.parent) == config


def test_another_user_may_use_a_configuration_of_its_own_that_its_group_can_change(config: Path) -> None:
    os.chown(config, NOBODY, NOBODY)
    config.chmod(0o664)
    assert as_nobody(lambda: load(config).path, cwd=config.parent) == config


def test_another_user_refuses_the_configuration_of_a_third(config: Path) -> None:
    os.chown(config, 64813, 64813)

    def attempt() -> tuple[int, bool]:
        try:
            load(config)
        except RotatorError as e:
            return int(e.exit), f"chown root: {config}" in e.message
        return 0, False

    assert as_nobody(attempt, cwd=config.parent) == (78, True)
