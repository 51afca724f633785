"""The README says what is so: its lines and commands work, its tables are those of the code, it is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rotator.cli import COMMANDS
from rotator.core.errors import Exit
from rotator.demo.scenarios import SCENARIOS
from tests.support.pages import MANUAL, PAGES, README, between, page, rows, section, words

TEXT = README.read_text()


def lines(mark: str) -> list[str]:
    """The lines between two marks, without the fence."""
    return [line for line in between(TEXT, mark).splitlines() if line and not line.startswith("```")]


def test_it_is_short_enough_to_be_read_once() -> None:
    assert len(TEXT.splitlines()) <= 300


def test_the_test_line_is_one_line() -> None:
    (line,) = lines("test line")
    assert line.endswith(".venv/bin/pytest")


def test_the_demo_line_is_one_line_that_installs_what_it_needs_and_runs_it() -> None:
    (line,) = lines("demo line")
    assert line.endswith(".venv/bin/pip install -e '.[demo]' && .venv/bin/rotator demo")


def test_the_demo_is_shown_with_its_acts() -> None:
    shown = re.findall(r"^\d  (.+)$", TEXT, re.MULTILINE)
    assert shown == [title for title, _ in SCENARIOS]


def test_both_lines_come_before_everything_else() -> None:
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert headings[0] == "Try it"
    assert "<!-- test line -->" in section(TEXT, "Try it")
    assert "<!-- demo line -->" in section(TEXT, "Try it")


def test_the_exit_statuses_are_the_codes() -> None:
    table = re.findall(r"^\| (\d+) \|", section(TEXT, "Commands"), re.MULTILINE)
    assert table == [str(int(status)) for status in Exit]


def test_every_command_is_listed() -> None:
    listed = re.findall(r"^\| `rotator (\w+)", section(TEXT, "Commands"), re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_every_guarantee_has_its_line() -> None:
    titles = re.findall(r"^## (.+)$", page("guarantees"), re.MULTILINE)
    assert re.findall(r"^- \[(.+?)\]", section(TEXT, "What it guarantees"), re.MULTILINE) == titles


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_of_the_manual_is_listed(path: Path) -> None:
    listed = [cells[0] for cells in rows(section(TEXT, "Where to read more"))]
    assert f"[{path.stem}]({MANUAL.relative_to(README.parent)}/{path.name})" in listed


def test_a_command_of_each_way_in_is_shown() -> None:
    shown = section(TEXT, "Three ways a renewal comes in")
    assert [
        word for word in ("rotator deliver", "rotator swap", "/var/lib/rotator/incoming/") if word not in shown
    ] == []


def test_no_code_is_explained_here_but_in_the_manual() -> None:
    assert set(words(TEXT)) & set(words(page("codes"))) == set()
