"""What a Tab offers: commands, options, sites, generations, files; and that it never fails and never says a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rotator.cli import COMMANDS
from tests.support.calls import SITE, host

TWO = SITE + '[[site]]\nname = "mail"\nnames = ["mail.example.org"]\nlisteners = ["127.0.0.1:443"]\n'
PROGRAM = "import sys; from rotator.cli import main; sys.argv = ['rotator']; main()"
HEAVY = {"cryptography", "OpenSSL", "rich", "apscheduler", "watchdog", "prometheus_client"}


def offered(*words: str, config: Path | str = "/nowhere", env: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """What bash is offered for the last of these words: (kind, word); its other output is empty."""
    done = _complete(PROGRAM, words, config, env)
    assert done.stderr == ""
    lines = [line.partition(",") for line in done.stdout.splitlines() if line]
    return [(kind, word) for kind, _, word in lines]


def _complete(
    program: str, words: tuple[str, ...], config: Path | str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    typed = {"COMP_WORDS": " ".join(("rotator", *words)), "COMP_CWORD": str(len(words))}
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            **typed,
            "_ROTATOR_COMPLETE": "bash_complete",
            "ROTATOR_CONFIG": str(config),
            **(env or {}),
        },
        check=True,
    )


def plain(*words: str) -> list[tuple[str, str]]:
    return [("plain", word) for word in words]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return host(tmp_path, TWO)


def test_a_command_is_offered_by_its_beginning() -> None:
    assert offered("st") == plain("status")


def test_every_command_is_offered_and_no_command_is_imported_for_it() -> None:
    program = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {PROGRAM}"
    done = _complete(program, ("",), "/nowhere")
    assert done.stdout.split() == [f"plain,{name}" for name in COMMANDS]
    loaded = set(done.stderr.split())
    assert loaded & (HEAVY | {place.partition(":")[0] for place, _ in COMMANDS.values()}) == set()


@pytest.mark.parametrize("command", ["swap", "rollback", "deliver", "status", "history"])
def test_a_site_is_offered_behind_each_command_that_takes_one(command: str, config: Path) -> None:
    assert offered(command, "", config=config) == plain("shop", "mail")


def test_a_site_is_offered_by_its_beginning(config: Path) -> None:
    assert offered("swap", "sh", config=config) == plain("shop")


def test_the_sites_are_those_of_the_configuration_that_stands_before(config: Path) -> None:
    assert offered("--config", str(config), "swap", "m") == plain("mail")


def test_generations_are_offered_newest_first_for_the_site_that_stands_before(config: Path, tmp_path: Path) -> None:
    for name in ("000001-aaaaaaaaaaaa", "000002-bbbbbbbbbbbb"):
        (tmp_path / "state" / "sites" / "shop" / "generations" / name).mkdir(parents=True)
    assert offered("rollback", "shop", "--to", "", config=config) == plain("000002-bbbbbbbbbbbb", "000001-aaaaaaaaaaaa")
    assert offered("rollback", "shop", "--to", "000001", config=config) == plain("000001-aaaaaaaaaaaa")
    assert offered("rollback", "mail", "--to", "", config=config) == []


@pytest.mark.parametrize(
    "words",
    [
        ("swap", "shop", "--cert", "full"),
        ("swap", "shop", "--key", "priv"),
        ("check", "--cert", "full"),
        ("deliver", "shop", "full"),
        ("--config", "rot"),
        ("demo", "--nginx", "/usr"),
    ],
)
def test_where_a_file_belongs_the_shell_is_asked_for_files(words: tuple[str, ...], config: Path) -> None:
    assert offered(*words, config=config) == [("file", words[-1])]


def test_where_a_directory_belongs_the_shell_is_asked_for_directories() -> None:
    assert offered("demo", "--renew", "/tmp") == [("dir", "/tmp")]


@pytest.mark.parametrize("text", [None, "nonsense", "[[site]]\nname = 3\n"], ids=["none", "no TOML", "wrong"])
def test_without_a_configuration_that_can_be_used_nothing_is_offered_and_nothing_said(
    text: str | None, tmp_path: Path
) -> None:
    config = tmp_path / "rotator.toml"
    if text is not None:
        config.write_text(text)
    assert offered("swap", "", config=config) == []
    assert offered("rollback", "shop", "--to", "", config=config) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_given_a_script_that_it_can_read(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "_ROTATOR_COMPLETE": f"{shell}_source"},
        check=True,
    )
    assert f"_ROTATOR_COMPLETE={shell}_complete" in done.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True)
