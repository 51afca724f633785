"""The prose of the project: plain words in docstrings, messages, pages and configuration."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WORST = {
    r"whoever|whatever lies": "name the person or the thing",
    r"\banew\b": "again, from the beginning, or a new one",
    r"\bfor ever\b": "permanently, endlessly, or without end",
    r"\bno more\b(?! than)": "no longer",
    r"\bof before\b": "previous, or earlier",
    r"\bthat which\b|\bthose which\b": "what, or the noun itself",
    r"\bwhat lies\b|\blies there\b|\blie there\b|\blay there\b": "the content of the drop, the files",
    r"(?<!`)\bnobody\b(?!`)(?<!user nobody)(?<!^nobody)(?<!-[uR] nobody)": "no process, no user",
    r"\b(?:is|are|was|were|has been) over\b": "expired, has ended",
    r"\bto be had\b": "available",
    r"\bbe rid of\b": "uninstall, or remove",
    r"\bmakes? no sense\b": "invalid",
    r"\bnothing of rotator's\b": "not managed by rotator",
    r"\bvery pair\b": "the same pair",
    r"\bin care\b|\btended\b": "degraded, maintained",
}
"""Words that a second-language reader has to decode, as patterns, each with what to write in its place."""

NEGATION = re.compile(r"\b(?:no|not|nothing|never|nobody|none|nor|neither|without)\b", re.IGNORECASE)


@cache
def _texts(path: Path) -> tuple[tuple[int, str], ...]:
    """Prose with its line: of Python its docstrings, messages and comments; of everything else all of it."""
    text = path.read_text()
    lines = tuple(enumerate(text.splitlines(), 1))
    if path.suffix != ".py":
        return lines
    constants = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    texts = [(node.value, node.lineno) for node in constants if isinstance(node.value, str)]
    strings = [numbered for value, number in texts for numbered in enumerate(value.splitlines(), number)]
    comments = [(number, line.partition("#")[2]) for number, line in lines if "#" in line]
    return (*strings, *comments)


def _pages() -> list[Path]:
    """Everything that a person reads of the project itself."""
    return [
        *sorted((ROOT / "rotator").rglob("*.py")),
        *sorted((ROOT / "rotator").rglob("*.md")),
        *sorted(path for path in (ROOT / "systemd").iterdir() if path.is_file()),
        ROOT / "README.md",
        ROOT / "conf.example.toml",
    ]


@pytest.mark.parametrize("pattern", WORST, ids=[pattern.strip("\\b") for pattern in WORST])
def test_a_word_that_has_to_be_decoded_stands_nowhere(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _pages()
        for number, line in _texts(path)
        if re.search(pattern, line, re.IGNORECASE)
    ]
    assert found == [], WORST[pattern]


def test_the_first_line_of_a_module_says_what_it_is() -> None:
    """A package says behind `Never:` what must not live in it; that part may negate."""
    found = {}
    for path in sorted((ROOT / "rotator").rglob("*.py")):
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0].partition(" Never:")[0]
        if NEGATION.search(first):
            found[str(path.relative_to(ROOT))] = first
    assert found == {}
