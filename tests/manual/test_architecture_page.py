"""The architecture page shows the layers, the way of a renewal and the files of each recipe as they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.references import ROOT, defined, missing_places, named_places

PAGE = ROOT / "rotator" / "manual" / "architecture.md"
TEXT = PAGE.read_text()

RECIPES = {
    *("A validation code", "A reason of an outcome", "A metric", "A command", "A key type", "A source of drops"),
    *("A size limit", "A history field", "Another reload mechanism", "A periodic job", "A manual topic"),
    *("A configuration option", "A command that root runs"),
}


def block(mark: str) -> list[str]:
    """The lines of the block between two marks."""
    text = TEXT.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- /{mark} -->")[0]
    return [line for line in text.splitlines() if line and not line.startswith("```")]


def shown_layers() -> dict[str, str]:
    """Each package or module of the first block with its line."""
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in block("layers"))


def layers() -> list[str]:
    """The packages of the architecture test, from the lowest layer up."""
    tree = ast.parse((ROOT / "tests" / "architecture" / "test_layers.py").read_text())
    values = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    ]
    return " ".join(values[0]).split()


def recipes() -> dict[str, str]:
    """Each recipe's text by its heading."""
    _, *parts = re.split(r"^### ", TEXT.partition("\n## Recipes\n")[2], flags=re.MULTILINE)
    return {title: text for title, _, text in (part.partition("\n") for part in parts)}


def way() -> list[tuple[int, str, str]]:
    """Each step of the second block: its depth, its file and its function."""
    found = [re.match(r"( *)(\S+\.py):(\S+)", line) for line in block("way")]
    return [(len(step[1]) // 2, step[2], step[3]) for step in found if step]


def callers() -> list[tuple[str, str, str]]:
    """For each step of the way: the file that the picture has call it, its own file, and its function."""
    chain: list[str] = []
    found = []
    for depth, file, function in way():
        del chain[depth:]
        if chain:
            found.append((chain[-1], file, function))
        chain.append(file)
    return found


def package_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def test_the_layers_are_those_of_the_architecture_test() -> None:
    assert list(shown_layers()) == layers()


def test_every_package_that_exists_has_its_line() -> None:
    packages = {path.parent.name for path in (ROOT / "rotator").glob("*/__init__.py")}
    assert packages <= shown_layers().keys()


def test_every_file_function_and_test_that_is_named_exists() -> None:
    assert missing_places(TEXT) == set()
    assert len(named_places(TEXT)) > 80  # the search finds them


def test_every_line_of_the_way_is_a_step() -> None:
    assert len(way()) == len(block("way")) > 20


def test_no_step_of_the_way_goes_up() -> None:
    rank = {package: number for number, package in enumerate(layers())}
    up = [
        (above, below, function)
        for above, below, function in callers()
        if rank[package_of(below)] > rank[package_of(above)]
    ]
    assert up == []


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_recipe_names_files_and_what_fails_until_it_is_done(recipe: str) -> None:
    text = recipes()[recipe]
    assert len(named_places(text)) > 1
    assert re.search(r"\bfails? until\b", " ".join(text.split()), re.IGNORECASE)


def test_there_is_no_recipe_that_is_not_listed_here() -> None:
    assert recipes().keys() == RECIPES


# -- that these tests would notice ------------------------------------------------------------------------------------


def test_a_place_that_does_not_exist_is_seen() -> None:
    wrong = "`core/model.py:Outcme` `core/modle.py` `tests/nowhere/` `python -m tests.gone`"
    assert missing_places(wrong) == {"core/model.py:Outcme", "core/modle.py", "tests/nowhere", "tests.gone"}
    assert missing_places("`core/model.py:Outcome` `tests/manual/` `cli/NAME.py`") == set()


def test_methods_and_values_count_as_defined() -> None:
    names = defined(ROOT / "rotator" / "storage" / "locks.py")
    assert {"Locks", "Locks.rotation", "NO_NOTE_FOR"} <= names
    assert defined(Path(__file__)) >= {"RECIPES", "way"}
