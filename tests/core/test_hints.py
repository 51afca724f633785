"""A command of a hint: any name in it is one word for a shell, no option, and printable."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.hints import command, shell_word

HOSTILE = [
    "a;id>x.zip.pem",
    "$(id)",
    "`id`",
    "a b",
    "it's",
    'say "hi"',
    "-rf",
    "--help",
    "=ls",
    "~root",
    "*",
    "!!",
    "#x",
    "a\nid",
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\udcff\udcfe.pem",
    "evil\u202emep.exe",
    "a\u200bb",
    "back\\slash",
    "new\nline's $(id)\\",
]
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


def _bash_words(line: str) -> list[bytes]:
    """The words that bash makes of a line, as bytes."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    return done.stdout.split(b"\0")[:-1]


@pytest.mark.parametrize("name", HOSTILE)
def test_bash_reads_a_hostile_name_as_the_one_word_that_names_the_file(name: str) -> None:
    [word] = _bash_words(shell_word(name))
    assert os.path.normpath(word) == os.path.normpath(os.fsencode(name))
    assert not word.startswith(b"-")


@pytest.mark.parametrize("shell", [path for path in map(shutil.which, ("dash", "bash", "sh")) if path])
@pytest.mark.parametrize("name", HOSTILE)
def test_every_shell_reads_a_hostile_name_as_one_word_and_runs_nothing(shell: str, name: str, tmp_path: Path) -> None:
    script = f"set -- {command('ls -la', name)}; printf %s $#"
    done = subprocess.run([shell, "-c", script], capture_output=True, cwd=tmp_path, check=True, text=True)
    assert (done.stdout, done.stderr) == ("3", "")
    assert list(tmp_path.iterdir()) == []


@given(NAMES)
def test_a_printed_word_is_printable_and_one_word_for_shlex(name: str) -> None:
    word = shell_word(name)
    assert word.isprintable()
    assert len(shlex.split(word)) == 1
    assert not shlex.split(word)[0].startswith("-")


def test_an_ordinary_path_stays_as_it_is() -> None:
    assert command("ls -la", Path("/var/lib/rotator/incoming/shop")) == "ls -la /var/lib/rotator/incoming/shop"
    assert command("rotator swap", "example.cn") == "rotator swap example.cn"


def test_a_path_with_a_space_is_quoted_and_a_leading_dash_is_no_option() -> None:
    assert command("cp", "my file", "-x") == "cp 'my file' ./-x"


def test_a_byte_that_is_not_utf8_is_written_as_its_octal_escape() -> None:
    assert command("rm", "/in/\udcff'") == r"rm $'/in/\377\047'"


def test_an_empty_name_is_an_empty_word() -> None:
    assert command("ls", "") == "ls ''"
