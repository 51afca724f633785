"""How the tests are run: what runs when nothing is asked for, what the gate runs, and what stays together."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.support import leftovers
from tests.support.scheduling import TOGETHER, group_of
from tests.support.tiers import TIERS, Size, sample, tiers_of

ROOT = Path(__file__).parents[2]


def proofs() -> set[tuple[str, str]]:
    """File and name of each test that the README and the manual give as proof of what they promise."""
    pages = [ROOT / "README.md", *(ROOT / "rotator").rglob("*.md")]
    return {found for page in pages for found in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())}


def tier_of(path: str, name: str) -> str:
    """The tier of a test, by the marks of its file and its own."""
    tree = ast.parse((ROOT / path).read_text())
    marks = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign)]
    marks = [line for line in marks if line.startswith("pytestmark")]
    (test,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    marks += [ast.unparse(one) for one in test.decorator_list]
    return next((tier for tier in reversed(TIERS) if any(f"mark.{tier}" in line for line in marks)), "default")


def gate_lines() -> list[str]:
    """What the gate runs, without its comments."""
    return [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]


def test_the_gate_runs_every_tier_and_so_every_proof_of_a_promise() -> None:
    (line,) = [line for line in gate_lines() if line.startswith(".venv/bin/pytest")]
    assert line == '.venv/bin/pytest --tier contract,sample --seed "$seed"'
    assert 'eval "$test_line"' in gate_lines()  # the README's, which runs the default tier
    assert {tier_of(*proof) for proof in proofs()} <= {"default", "contract", "soak"}


def test_most_proofs_run_where_nothing_is_asked_for() -> None:
    tiers = [tier_of(*proof) for proof in proofs()]
    assert tiers.count("default") > 0.6 * len(tiers) > 12


def test_a_sample_has_one_case_of_each_test() -> None:
    assert sample({"a": "a", "b": "bc", "c": "cde"}, 1)[0] == "a"
    assert len(sample({"a": "a", "b": "bc", "c": "cde"}, 1)) == 3


@pytest.mark.parametrize(
    ("option", "arguments", "tiers"),
    [
        (None, ["tests"], {"default"}),
        (None, ["tests/faults"], {"default"}),
        (None, ["tests/faults/test_races.py"], set(TIERS)),
        (None, ["tests/faults/test_races.py::test_one"], set(TIERS)),
        ("contract,sample", ["tests"], {"contract", "sample"}),
        ("default", ["tests/faults/test_races.py"], {"default"}),
        ("all", ["tests"], set(TIERS)),
    ],
)
def test_what_is_named_runs_whatever_its_tier(option: str | None, arguments: list[str], tiers: Collection[str]) -> None:
    assert tiers_of(option, arguments) == tiers


def test_an_unknown_tier_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no tier is called fast; there are default, contract, soak, sample, all"):
        tiers_of("fast", [])


def test_a_sample_has_fewer_rounds() -> None:
    assert [Size(7, whole=whole).count(100, 5) for whole in (True, False)] == [100, 5]


def test_another_seed_takes_other_cases() -> None:
    assert {sample({"a test": "abcd"}, seed)[0] for seed in range(50)} == set("abcd")


def test_the_same_seed_takes_the_same_cases() -> None:
    assert [sample({"a test": "abcd"}, 5) for _ in range(9)] == [sample({"a test": "abcd"}, 5)] * 9


# -- what stays together in one worker


def test_the_files_whose_tests_stay_together_exist() -> None:
    assert [file for file in TOGETHER if not (ROOT / file).is_file()] == []


def test_tests_of_one_case_stay_together_and_those_of_another_do_not() -> None:
    file = "tests/e2e/test_demo_play.py"
    assert group_of(f"{file}::test_a[debian]") == group_of(f"{file}::test_b[debian]")
    assert group_of(f"{file}::test_a[debian]") != group_of(f"{file}::test_a[mainline]")
    assert group_of(f"{file}::test_a") != group_of(f"{file}::test_b")


def test_tests_of_one_file_stay_together() -> None:
    file = "tests/storage/test_crash_safety.py"
    assert group_of(f"{file}::test_a[x]") == group_of(f"{file}::test_b")


def test_other_tests_are_alone() -> None:
    assert group_of("tests/cli/test_main.py::test_a[x]") == "tests/cli/test_main.py::test_a[x]"


WRITES_THE_SEED = """
import os, pytest
@pytest.mark.parametrize("number", range(8))
def test_it(pytestconfig, tmp_path_factory, number):
    top = tmp_path_factory.getbasetemp().parent
    (top / os.environ["PYTEST_XDIST_WORKER"]).write_text(str(pytestconfig.option.seed))
    print(top)
"""


def test_all_workers_have_one_seed_where_none_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(WRITES_THE_SEED)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "2", "--dist", "each", "-c", "pyproject.toml"]
    options += ["--rootdir", str(tmp_path), "--basetemp", str(tmp_path / "run")]
    command = [sys.executable, "-m", "pytest", "-q", *options, str(tmp_path / "test_it.py")]
    inherited = (leftovers.VARIABLE, "PYTEST_")  # what names this run, and its worker
    env = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    seeds = [path.read_text() for path in (tmp_path / "run").glob("gw?") if path.is_file()]
    assert (done.returncode, len(seeds)) == (0, 2), done.stdout
    assert len(set(seeds)) == 1
