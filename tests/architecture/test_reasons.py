"""Why something ended is a member of an enumeration wherever it is made or compared, never a string of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from rotator.core.problems import Code
from rotator.core.reasons import Reason

ROTATOR = Path(__file__).parents[2] / "rotator"
ELSEWHERE = ("privsep/apply.py", "core/reasons.py", "core/problems.py")
"""Where the words are strings: the stand-alone step and the enumerations themselves."""

TAKES = {"RotatorError": 0, "Outcome": 3, "Deferral": 3, "Wait": 1, "outcome": 3, "deferred": 2, "stranded": 2}
"""Calls that take a reason, and which of their arguments it is."""
HYPHENATED = {str(member) for member in (*Reason, *Code) if "-" in member}
"""Words that cannot be anything else."""


def _literals(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(word)) if word:
            yield word
        case ast.IfExp(body=one, orelse=other):
            yield from (*_literals(one), *_literals(other))
        case ast.Tuple(elts=several) | ast.Set(elts=several) | ast.List(elts=several):
            for one in several:
                yield from _literals(one)


def strings_for_reasons(tree: ast.AST) -> list[tuple[int, str]]:
    """String literals where a reason belongs, with their lines."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        places: list[ast.AST] = []
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args, keywords=keywords):
                places += [one.value for one in keywords if one.arg in ("reason", "code")]
                if name in TAKES:
                    places += args[TAKES[name] : TAKES[name] + 1]
            case ast.Compare(left=ast.Attribute(attr="reason" | "code"), comparators=comparators):
                places += comparators
            case ast.Constant(value=str(word)) if word in HYPHENATED:
                places.append(node)
        found += [(getattr(node, "lineno", 0), word) for place in places for word in _literals(place)]
    return found


def test_no_reason_is_a_string_of_its_own() -> None:
    found = {
        path.relative_to(ROTATOR).as_posix(): bad
        for path in sorted(ROTATOR.rglob("*.py"))
        if path.relative_to(ROTATOR).as_posix() not in ELSEWHERE
        if (bad := [one for one in strings_for_reasons(ast.parse(path.read_text())) if one[1] not in OF_OCSP])
    }
    assert found == {}


OF_OCSP = {"unspecified"}
"""A revocation's own reason (RFC 5280 5.3.1), which is none of ours."""


def test_a_string_is_seen_wherever_a_reason_belongs() -> None:
    code = """
raise RotatorError("busy" if late else "held", words)
if e.code in ("busy", Reason.HELD) or done.reason == "same": ...
Entry(reason="rotated")
HINTS = {"nginx-down": "Start nginx"}
"""
    assert {word for _, word in strings_for_reasons(ast.parse(code))} == {
        *("busy", "held", "same", "rotated", "nginx-down"),
    }
