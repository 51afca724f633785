"""Which user judges and parses what others have written, if root calls a command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.authority import CA
from tests.support.calls import call, host
from tests.support.nginx_server import write_pair
from tests.support.other_user import NOBODY

pytestmark = pytest.mark.root

OWNER = 64812
ROOT = Path(__file__).parents[2]


@pytest.fixture
def root_ca() -> CA:
    """A root of today."""
    return CA.root(at=datetime.now(UTC))


@pytest.fixture
def config(top: Path) -> Path:
    """A configuration whose store belongs to another user than root."""
    made = host(top)
    (top / "state" / "sites").mkdir(parents=True)
    for path in (top / "state", top / "state" / "sites"):
        os.chown(path, OWNER, OWNER)
    return made


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Has a function write to stderr which user calls it."""

    def watch(module: str, name: str) -> None:
        owner: Any = import_module(module)
        *classes, last = name.split(".")
        for one in classes:
            owner = getattr(owner, one)
        real = getattr(owner, last)

        def watched(*args: Any, **kwargs: Any) -> Any:
            print(f"{name} as {os.geteuid()}", file=sys.stderr)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, last, watched)

    return watch


@pytest.mark.parametrize("parser", ["validate_files", "read_candidate"])
def test_check_judges_files_as_nobody(top: Path, root_ca: CA, users: Callable[[str, str], None], parser: str) -> None:
    pair = root_ca.issue("a.example.test")
    chain = write_pair(top / "pair", pair).chain
    users("rotator.cli.check", parser)
    said = call("check", "--cert", chain, "--current", chain, "--roots", chain).stderr
    assert (f"{parser} as {NOBODY}" in said, f"{parser} as 0" in said) == (True, False)


def test_check_parses_roots_as_nobody(top: Path, root_ca: CA, users: Callable[[str, str], None]) -> None:
    chain = write_pair(top / "pair", root_ca.issue("a.example.test")).chain
    users("rotator.sources.trust_files", "Anchors.from_pem")
    said = call("check", "--cert", chain, "--roots", chain).stderr
    assert (f"as {NOBODY}" in said, "as 0" in said) == (True, False)


def test_check_reads_what_only_root_may_read(top: Path, root_ca: CA) -> None:
    closed = top / "closed"
    files = write_pair(closed, root_ca.issue("a.example.test"))
    chain, key = files.chain, files.key
    closed.chmod(0o700)
    (closed / "roots.pem").write_bytes(chain.read_bytes())
    done = call(
        *("--json", "check", "--cert", chain, "--key", key, "--roots", closed / "roots.pem", "--crls", closed),
        *("--blocklist", closed / "roots.pem", "--pool", closed),
    )
    codes = done.answer["codes"] + done.answer["warnings"]
    assert ("permission" in codes, "io-error" in codes) == (False, False)


def test_probe_shakes_hands_as_nobody(users: Callable[[str, str], None]) -> None:
    users("rotator.cli.probe", "reachable_address")
    said = call("probe", "127.0.0.1:1", "--name", "a.example.test").stderr
    assert (f"as {NOBODY}" in said, "as 0" in said) == (True, False)


@pytest.mark.parametrize(
    ("command", "module", "function"),
    [
        (["status"], "rotator.cli.status", "observe_all"),
        (["history", "shop"], "rotator.cli.history", "History.entries"),
        (["config", "reload"], "rotator.cli.config_reload", "Locks.daemon_note"),
    ],
)
def test_the_store_is_read_as_its_owner(
    config: Path, users: Callable[[str, str], None], command: list[str], module: str, function: str
) -> None:
    users(module, function)
    said = call("--config", config, *command).stderr
    assert (f"{function} as {OWNER}" in said, f"{function} as 0" in said) == (True, False)


def test_without_a_store_no_file_is_read_as_root(config: Path, users: Callable[[str, str], None]) -> None:
    shutil.rmtree(config.parent / "state")
    users("rotator.cli.status", "demand_state_dir")
    said = call("--config", config, "status").stderr
    assert (f"as {NOBODY}" in said, "no-store" in said or "No such file" in said) == (True, True)


# -- modules of strangers


def python(where: Path, *options: str, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-m", "rotator", "--version"],
        cwd=where,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def strangers(top: Path) -> Path:
    """A directory in which any user may put a module."""
    made = top / "strangers"
    made.mkdir()
    for name in ("click", "dataclasses"):
        (made / f"{name}.py").write_text("print('a module of a stranger')")
    made.chmod(0o777)
    return made


def test_root_runs_no_module_of_a_working_directory_of_others(strangers: Path) -> None:
    (strangers / "__future__.py").write_text("print('a module of a stranger')")
    done = python(strangers)
    assert (done.returncode, done.stdout, str(strangers) in done.stderr) == (1, "", True)


def test_root_runs_no_module_of_a_pythonpath_of_others(strangers: Path) -> None:
    done = python(Path("/"), path=f"{strangers}:{ROOT}")
    assert (done.returncode, done.stdout, str(strangers) in done.stderr) == (1, "", True)


@pytest.mark.parametrize("path", ["../strangers", "./../strangers/", "x/../../strangers/.", ""])
def test_root_runs_no_module_of_a_relative_pythonpath_of_others(top: Path, strangers: Path, path: str) -> None:
    here = top / "here" if path else strangers
    here.mkdir(exist_ok=True)
    done = python(here, "-P", path=f"{path}:{ROOT}")
    assert (done.returncode, done.stdout, str(strangers) in done.stderr) == (1, "", True)


def test_a_working_directory_that_has_been_removed_holds_no_module(top: Path) -> None:
    (top / "removed").mkdir()
    in_it = 'rmdir "$PWD" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", in_it, "sh", sys.executable, "-m", "rotator", "--version"],
        cwd=top / "removed", env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout[:8], done.stderr) == ("rotator ", "")


def test_the_working_directory_does_not_matter_where_python_ignores_it(strangers: Path) -> None:
    assert python(strangers, "-P").stdout.startswith("rotator ")


def test_a_working_directory_of_roots_alone_is_fine(top: Path) -> None:
    assert python(top).stdout.startswith("rotator ")


def test_a_hostile_name_of_a_directory_reaches_no_terminal(top: Path) -> None:
    hostile = top / "a\x1b]0;x\x07"
    hostile.mkdir()
    hostile.chmod(0o777)
    done = python(hostile)
    assert (done.returncode, "\x1b" in done.stderr) == (1, False)
