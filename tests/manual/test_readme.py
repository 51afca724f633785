"""The README says what is so: its tests exist, its tables are those of the code; how it reads is not judged here."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import click

from rotator.cli import COMMANDS, cli
from rotator.cli.context import Context
from rotator.config import check
from rotator.core.errors import Exit
from rotator.core.problems import Code
from rotator.demo.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def between(mark: str) -> str:
    """The text between two marks."""
    return README.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- /{mark} -->")[0]


def section(heading: str) -> str:
    """The text under a heading."""
    return README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def codes(text: str) -> list[str]:
    """The first cells that are code."""
    return re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)


def test_every_promise_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README)
    promises = re.findall(r"^\*\*[^*]+\*\*", section("What it promises"), re.MULTILINE)
    assert len(named) > 2 * len(promises) > 0
    missing = []
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text())
        if test not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{test}")
    assert missing == []


def test_every_code_is_explained_once() -> None:
    assert sorted(codes(between("codes"))) == sorted(Code)


def test_the_exit_statuses_are_the_codes() -> None:
    table = re.findall(r"^\| (\d+) \|", section("Commands"), re.MULTILINE)
    assert table == [str(int(status)) for status in Exit]


def test_every_command_is_listed() -> None:
    listed = re.findall(r"^\| `rotator (\w+)", section("Commands"), re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_the_least_configuration_loads() -> None:
    text = re.findall(r"```toml\n(.*?)```", section("Configuration"), re.DOTALL)
    assert len(text) == 1
    _, mistakes = check(text[0], "rotator.toml")
    assert (tomllib.loads(text[0])["site"][0]["name"], mistakes) == ("example.cn", ())


def test_the_test_line_is_one_line() -> None:
    (line,) = lines("test line")
    assert line.endswith(".venv/bin/pytest")


def test_the_demo_line_is_one_line_that_installs_what_it_needs_and_runs_it() -> None:
    (line,) = lines("demo line")
    assert line.endswith(".venv/bin/pip install -e '.[demo]' && .venv/bin/rotator demo")


def test_the_demo_is_shown_with_its_acts() -> None:
    shown = re.findall(r"^\d  (.+)$", README, re.MULTILINE)
    assert shown == [title for title, _ in SCENARIOS]


def test_both_lines_come_before_everything_else() -> None:
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert headings[0] == "Two lines"
    assert "<!-- test line -->" in section("Two lines")
    assert "<!-- demo line -->" in section("Two lines")


def test_every_command_that_is_shown_makes_sense() -> None:
    """As far as it can be seen without a host: the command and its options exist."""
    shown = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    found = re.findall(r"(?:^|&& |')rotator ((?:[^&'|#\n])+)", shown, re.MULTILINE)
    assert len(found) > 10
    for words in found:
        name, *rest = words.split()
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, words
        if not isinstance(command, click.Group):
            command.make_context(name, rest, parent=click.Context(cli, obj=Context()))


def test_the_units_that_are_installed_are_there() -> None:
    named = re.findall(r"\bsystemd/(rotator\S*)", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)))
    assert named
    assert [name for name in named if not (ROOT / "systemd" / name).is_file()] == []


def lines(mark: str) -> list[str]:
    """The lines between two marks, without the fence."""
    return [line for line in between(mark).splitlines() if line and not line.startswith("```")]
