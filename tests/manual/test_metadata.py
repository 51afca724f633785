"""The metadata of the package says who made it and where it runs, and promises nothing that does not exist."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def versions() -> list[tuple[int, ...]]:
    """The versions of Python that the classifiers name."""
    prefix = "Programming Language :: Python :: 3."
    return [
        tuple(map(int, one.rpartition(" ")[2].split("."))) for one in PROJECT["classifiers"] if one.startswith(prefix)
    ]


def test_the_authors_are_named() -> None:
    assert PROJECT["authors"] == [{"name": "the rotator authors"}]


def test_no_licence_and_no_address_is_claimed_as_none_is_chosen() -> None:
    assert {"license", "license-files", "urls"} & PROJECT.keys() == set()
    assert [one for one in PROJECT["classifiers"] if one.startswith("License")] == []


def test_the_oldest_python_of_the_classifiers_is_the_one_that_is_required() -> None:
    assert f">={'.'.join(map(str, min(versions())))}" == PROJECT["requires-python"]


def test_classifiers_and_keywords_are_sorted_and_name_nothing_twice() -> None:
    for words in (PROJECT["keywords"], PROJECT["classifiers"]):
        assert words == sorted(set(words))
