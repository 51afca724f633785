"""Every table by kind of key has every kind, in the privileged step too, which has its own copies."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import pytest

from rotator.core.model import KeyType
from rotator.privsep import apply as privileged
from rotator.storage.generations import pair_files

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


@pytest.mark.parametrize("count", range(2, len(KeyType) + 1))
def test_the_privileged_step_accepts_every_set_of_kinds_side_by_side(count: int) -> None:
    assert {layout for layout in privileged._LAYOUTS if len(layout) == count} == set(
        combinations(sorted(map(str, KeyType)), count)
    )


@pytest.mark.parametrize("kind", KeyType)
def test_the_privileged_step_reads_the_include_of_every_kind(kind: KeyType) -> None:
    for file in privileged.pair_files((str(kind),))[0]:
        line = f"ssl_certificate /etc/nginx/rotator/pairs/a/000001-0123456789ab/{file};"
        assert privileged._INCLUDE_LINE.match(line), file


@pytest.mark.parametrize("kind", KeyType)
def test_the_store_and_the_privileged_step_call_the_files_of_a_pair_alike(kind: KeyType) -> None:
    assert privileged.pair_files((str(kind),)) == (pair_files(kind, 2),)
    assert privileged.pair_files(()) == (pair_files(kind, 1),)
