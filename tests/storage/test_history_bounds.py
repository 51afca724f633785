"""A history that somebody has filled with anything is read in bounded memory and time, and reported."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rotator.core.model import Outcome, Result
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason
from rotator.storage.history import History
from rotator.storage.lines import MAX_LINE, MAX_TAIL

GIB = 1 << 30
MEMORY = 512 << 20
"""Bytes of address space that a reader may use; Python with these modules has about 100 MiB."""

READS = {
    "all entries": "list(h.entries())",
    "those of one site": "list(h.entries('site', 20))",
    "the latest of two sites": "h.latest(['site', 'other'])",
    "the clock's last entry": "h.last_entry_at()",
    "the last reload": "h.last_reload_at(), h.last_reload_seconds()",
    "what was appended": "h.entries_since((*at, begin))",
}


def _record(history: History, site: str = "site", **more: object) -> None:
    outcome = Outcome(site, Result.ROTATED, datetime(2026, 12, 1, tzinfo=UTC), Reason.ROTATED, **more)  # type: ignore[arg-type]  # of one test
    history.record(outcome, who="tester", trigger="swap", fingerprints={})


def _in_little_memory(root: Path, code: str, begin: int = 0) -> subprocess.CompletedProcess[str]:
    script = (
        "import os, pathlib\nfrom rotator.storage.history import History\n"
        f"root = pathlib.Path({str(root)!r})\nh, begin = History(root), {begin}\n"
        "status = os.stat(root / 'history.jsonl')\nat = status.st_dev, status.st_ino\n"
        f"{code}\n"
    )

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limited,
    )


@pytest.mark.parametrize("code", READS.values(), ids=READS)
@pytest.mark.parametrize("name", ["history.jsonl", "history-000001.jsonl"])
def test_a_hole_of_three_gibibytes_is_read_in_little_memory(tmp_path: Path, name: str, code: str) -> None:
    _record(History(tmp_path))
    path = tmp_path / name
    path.touch()
    os.truncate(path, 3 * GIB)
    done = _in_little_memory(tmp_path, code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("code", READS.values(), ids=READS)
def test_a_line_of_many_mebibytes_is_left_out_and_the_entries_around_it_are_read(tmp_path: Path, code: str) -> None:
    history = History(tmp_path)
    _record(history, "first")
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"site": "site", "message": "' + b"x" * (4 * MAX_LINE) + b'"}\n')
    _record(history, "last")
    assert [entry.site for entry in history.entries()] == ["first", "last"]
    done = _in_little_memory(tmp_path, code)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_appended_behind_a_hole_is_read_when_it_comes(tmp_path: Path) -> None:
    history = History(tmp_path)
    _record(history, "first")
    position, _ = history.entries_since((0, 0, 0))
    os.truncate(tmp_path / "history.jsonl", 3 * GIB)
    position, entries = history.entries_since(position)
    assert entries == ()
    _record(history, "second")
    _, entries = history.entries_since(position)
    assert [entry.site for entry in entries] == ["second"]


def test_the_end_of_a_large_file_is_read_and_its_size_is_reported(tmp_path: Path) -> None:
    history = History(tmp_path)
    with (tmp_path / "history.jsonl").open("xb") as file:
        file.truncate(3 * GIB)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    _record(history, "last")
    assert [entry.site for entry in history.entries()] == ["last"]
    assert f"history.jsonl has {(tmp_path / 'history.jsonl').stat().st_size} bytes" in history.oversized()
    assert f"only the last {MAX_TAIL >> 20} MiB" in history.oversized()


def test_an_ordinary_history_is_not_reported(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.oversized() == ""
    _record(history)
    assert history.oversized() == ""


def test_an_outcome_with_very_many_problems_is_written_as_a_line_that_is_read_back(tmp_path: Path) -> None:
    problems = tuple(Problem(Code.PARSE_ERROR, Severity.REJECT, "x" * 300, line=n) for n in range(10_000))
    history = History(tmp_path)
    _record(history, problems=problems)
    [entry] = history.entries()
    assert (tmp_path / "history.jsonl").stat().st_size <= MAX_LINE
    assert [problem.line for problem in entry.problems[:3]] == [0, 1, 2]
