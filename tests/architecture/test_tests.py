"""The shape of the tests: what they share stands in tests/support, and no test file is imported by another file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def files() -> dict[Path, ast.Module]:
    """Every file of the tests."""
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for path in sorted((ROOT / "tests").rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of the tests that a file imports, each under its whole name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == "tests")


def test_no_test_file_is_imported() -> None:
    assert {
        str(file): name
        for file, tree in files().items()
        for name in imported(tree)
        if any(part.startswith("test_") for part in name.split("."))
        and (ROOT / Path(*name.split("."))).with_suffix(".py").is_file()
    } == {}


def test_tests_import_what_they_share_from_their_own_package_or_from_support() -> None:
    assert {
        str(file): name
        for file, tree in files().items()
        for name in imported(tree)
        if name not in ("tests", "tests.support") and name.split(".")[1] not in ("support", file.parts[1])
    } == {}


def test_what_is_shared_imports_no_package_of_tests() -> None:
    assert {
        str(file): name
        for file, tree in files().items()
        if file.parts[1] == "support"
        for name in imported(tree)
        if name != "tests" and name.split(".")[1] != "support"
    } == {}
