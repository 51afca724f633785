"""What libraries say reaches the journal, and no flood of it does."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest

from rotator.daemon.journal import Journal
from rotator.daemon.library_log import MOST, WITHIN, LibraryLog


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_flood_of_warnings_is_a_few_lines_and_a_count(written: Path, capfd: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    with written.open("wb", buffering=0) as file, LibraryLog(Journal(file.fileno(), {}), lambda: now[0]):
        for number in range(5_000):
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                logging.captureWarnings(True)
                warnings.warn(f"table {number}\n" * 100, stacklevel=1)
                logging.getLogger("some.library").warning("line %d", number)
        now[0] += WITHIN
        logging.getLogger("some.library").error("the next one")
    lines = written.read_text().splitlines()
    assert len(lines) == MOST + 1
    assert f"some.library: the next one ({10_000 - MOST} lines before this one were left out)" in lines[-1]
    assert capfd.readouterr().err == ""


def test_what_is_no_warning_is_not_written(written: Path) -> None:
    with written.open("wb", buffering=0) as file, LibraryLog(Journal(file.fileno(), {})):
        logging.getLogger("some.library").info("a detail")
    assert written.read_text() == ""
