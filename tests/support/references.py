"""What a page says about the code: the files, functions and commands that it names, and which of them do not exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

_PLACE = re.compile(
    r"(?<![\w/.-])((?:[\w.-]+/)*[\w.-]+\.(?:py|toml|md|service|rules|conf|socket|path))(?:::?([A-Za-z_][\w.]*))?"
)
_FOLDER = re.compile(r"(?<![\w/.-])((?:rotator|tests|systemd)(?:/[\w-]+)*)/(?![\w.*])")
_COMMAND = re.compile(r"python -m (tests[\w.]*)")


def missing_places(text: str) -> set[str]:
    """The files, folders, functions and modules in code marks or blocks of a page that do not exist.

    A place is `path/to/file.py`, `path/to/file.py:function`, `path/to/file.py:Class.method` or `path::test`, from the
    root of the repository or below `rotator/`; a folder ends with a slash. `NAME` in capitals stands for a new file.

    Args:
        text: the Markdown of the page.
    """
    missing = set()
    for code in _codes(text):
        for path, name in _PLACE.findall(code):
            if _is_new(path):
                continue
            file = next((base / path for base in (ROOT, ROOT / "rotator") if (base / path).is_file()), None)
            if file is None or (name and name not in defined(file)):
                missing.add(f"{path}:{name}" if name else path)
        missing |= {folder for folder in _FOLDER.findall(code) if not (ROOT / folder).is_dir()}
        missing |= {module for module in _COMMAND.findall(code) if not _is_module(module)}
    return missing


def named_places(text: str) -> list[tuple[str, str]]:
    """Each (file, function) that a page names, in the order of the page."""
    return [place for code in _codes(text) for place in _PLACE.findall(code) if not _is_new(place[0])]


@cache
def defined(file: Path) -> frozenset[str]:
    """Every name that a module defines: functions, classes, methods as `Class.method`, and values at the top."""
    if file.suffix != ".py":
        return frozenset()
    tree = ast.parse(file.read_text())
    names = set(_names(tree.body))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for name in _names(node.body)}
    return frozenset(names)


def _codes(text: str) -> list[str]:
    """The content of every code block and code mark."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*blocks, *re.findall(r"`([^`]+)`", rest)]


def _names(body: list[ast.stmt]) -> list[str]:
    names = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return names


def _is_new(path: str) -> bool:
    return bool(re.search(r"(?:^|/|_)[A-Z]{3,}\b(?!\w*/)", path)) and not (ROOT / path).exists()


def _is_module(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()
