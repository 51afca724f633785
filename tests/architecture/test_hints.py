"""Every hint in the source is written alike: a sentence with a capital, or a command as it is typed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROTATOR = Path(__file__).parents[2] / "rotator"
COMMANDS = ("chmod", "df", "findmnt", "fuser", "journalctl", "nginx", "rotator", "systemctl")
WHERE = {"RotatorError": 2, "_refuse": 2, "_failed": 1, "_refused": 1, "Problem": 3}
"""Calls that take a hint, and which of their arguments it is."""


def _begin(node: ast.expr) -> str:
    """The text that the expression begins with, as far as the source has it."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=[first, *_]):
            return _begin(first)
        case ast.BinOp(left=left):
            return _begin(left)
    return ""


def _hints(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                found = [one.value for one in keywords if one.arg == "hint"]
                if name in WHERE:
                    found += args[WHERE[name] : WHERE[name] + 1]
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.lower().endswith(("hint", "hints")):
                found = list(value.values) if isinstance(value, ast.Dict) else [value]
            case ast.Assign(targets=[ast.Attribute(attr="hint")], value=value):
                found = [value]
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                pairs = zip(names, values, strict=False)
                found = [value for name, value in pairs if ast.unparse(name).endswith("hint")]
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict(values=values)) if name.endswith("HINTS"):
                found = values
            case _:
                continue
        for value in found:
            branches = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            for one in branches:
                if begin := _begin(one).strip():
                    yield one.lineno, begin


def test_a_hint_is_a_sentence_or_a_command() -> None:
    found = [
        (path.relative_to(ROTATOR).as_posix(), line, begin)
        for path in sorted(ROTATOR.rglob("*.py"))
        if path.parent.name != "config"  # those end a sentence: what is wrong, then "; " and the hint
        for line, begin in _hints(ast.parse(path.read_text()))
    ]
    assert len(found) > 150  # the walk finds them
    wrong = [one for one in found if one[2][0].islower() and one[2].split()[0] not in COMMANDS]
    assert wrong == []
