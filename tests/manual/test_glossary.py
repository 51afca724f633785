"""The glossary explains every word that a user meets, once, in alphabetical order and in few words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import pytest

from rotator.core.model import KeyType, Result
from rotator.core.problems import Severity
from rotator.metrics import InputState

PAGE = Path(__file__).parents[2] / "rotator" / "manual" / "glossary.md"

DESIGN = {
    *("site", "drop", "candidate", "pair", "policy", "problem", "generation", "live", "verified", "apply", "probe"),
    *("served", "outcome", "reason"),
}
"""The words that all of rotator is written in."""

PROOFS = ("workers", "handshake-only")
"""The kinds of proof, as `--json` shows them."""

MOST_SENTENCES = 3


def rows() -> list[tuple[str, str]]:
    """Each word with its explanation, in the order of the page."""
    return re.findall(r"^\| \*\*([^*|]+)\*\* \| (.+) \|$", PAGE.read_text(), re.MULTILINE)


def explained() -> list[str]:
    return [word for word, _ in rows()]


def missing(words: Iterable[str]) -> set[str]:
    return set(words) - set(explained())


@pytest.mark.parametrize("kind", [Result, InputState, Severity, KeyType])
def test_every_member_of_an_enumeration_that_users_meet_is_explained(kind: type[Enum]) -> None:
    assert missing(str(member.value) for member in kind) == set()


def test_every_word_of_the_design_is_explained() -> None:
    assert missing(DESIGN) == set()


def test_both_kinds_of_proof_are_explained() -> None:
    assert missing(PROOFS) == set()


def test_each_word_is_explained_once_in_alphabetical_order() -> None:
    assert [word.casefold() for word in explained()] == sorted({word.casefold() for word in explained()})


def test_every_row_is_a_bold_word_with_its_explanation() -> None:
    """Only such rows are found by `rotator help WORD`."""
    table = re.findall(r"^\| (?!word \|)", PAGE.read_text(), re.MULTILINE)
    assert len(rows()) == len(table) > 0


def test_an_explanation_is_short_and_whole() -> None:
    sentences = {word: re.findall(r"[.!?](?= |\Z)", text) for word, text in rows()}
    assert {word for word, text in rows() if not text.endswith(".")} == set()
    assert {word: len(ends) for word, ends in sentences.items() if len(ends) > MOST_SENTENCES} == {}


@pytest.mark.parametrize(("kind", "mark"), [(Result, "outcome"), (InputState, "state of a drop")])
def test_a_word_says_whether_it_is_an_outcome_or_the_state_of_a_drop(kind: type[Enum], mark: str) -> None:
    texts = dict(rows())
    assert {str(m.value) for m in kind if mark not in texts[str(m.value)].partition(")")[0]} == set()
