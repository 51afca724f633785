"""The decisions page: short records of one form, whose files and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.references import missing_places

PAGE = Path(__file__).parents[2] / "rotator" / "manual" / "decisions.md"

PARTS = ["Context", "Decision", "Consequences"]
MOST_WORDS = 220


def records() -> dict[str, str]:
    """Each record's text by its heading."""
    _, *found = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    return {title: text for title, _, text in (one.partition("\n") for one in found)}


def test_the_records_are_numbered_in_their_order() -> None:
    assert [title.partition(".")[0] for title in records()] == [str(n) for n in range(1, len(records()) + 1)]
    assert len(records()) >= 10


@pytest.mark.parametrize("title", records())
def test_a_record_has_context_decision_and_consequences_and_is_short(title: str) -> None:
    text = records()[title]
    assert re.findall(r"^\*\*(\w+)\.\*\* \S", text, re.MULTILINE) == PARTS
    assert len(text.split()) <= MOST_WORDS


def test_every_file_and_command_that_is_named_exists() -> None:
    assert missing_places(PAGE.read_text()) == set()
