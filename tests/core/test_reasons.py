"""The enumeration of reasons: complete, described, and the same words as in the stand-alone privileged step."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

from rotator.core import reasons
from rotator.core.problems import Code
from rotator.core.reasons import Reason, reason_of
from tests.support.apply_words import words_of_apply


def test_no_word_is_both_a_reason_and_a_code() -> None:
    assert set(map(str, Reason)) & set(map(str, Code)) == set()


def test_every_reason_is_followed_by_one_line_that_says_what_it_means() -> None:
    (body,) = (node.body for node in _tree(reasons.__file__).body if isinstance(node, ast.ClassDef))
    described = [
        member.targets[0].id
        for member, text in pairwise(body)
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and "\n" not in str(text.value.value)
    ]
    assert described == [reason.name for reason in Reason]


@pytest.mark.parametrize("member", [*Reason, *Code])
def test_a_word_that_was_written_down_is_read_again_as_its_member(member: Reason | Code) -> None:
    assert reason_of(str(member)) is member


def test_the_word_of_another_version_is_read_as_other() -> None:
    assert reason_of("never-heard-of") is Reason.OTHER


def test_every_word_of_the_privileged_step_is_in_the_enumerations() -> None:
    words = set(words_of_apply())
    assert {"bad-request", "disk-full", "too-large", "signal-permission"} <= words  # the walk finds them
    assert {word for word in words if reason_of(word) is Reason.OTHER} == set()


def _tree(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text())
