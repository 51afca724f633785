"""Every table by kind of key has every kind; those of the privileged step are compared in `tests/privsep`."""

from __future__ import annotations

import ast
from pathlib import Path

from rotator.core.model import KeyType

ROTATOR = Path(__file__).parents[2] / "rotator"


def kinds_in(node: ast.Dict) -> set[str]:
    """The members of `KeyType` that are keys of a dict in the source."""
    keys = [key for key in node.keys if isinstance(key, ast.Attribute) and ast.unparse(key.value) == "KeyType"]
    return {key.attr for key in keys}


def tables() -> dict[str, set[str]]:
    """Every dict by kind of key, by its place."""
    return {
        f"{path.relative_to(ROTATOR)}:{node.lineno}": kinds
        for path in sorted(ROTATOR.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Dict) and len(kinds := kinds_in(node)) > 1
    }


def test_a_table_by_kind_of_key_has_every_kind() -> None:
    assert len(tables()) > 2  # the search finds them
    assert {place: kinds for place, kinds in tables().items() if kinds != set(KeyType.__members__)} == {}
