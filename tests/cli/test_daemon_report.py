"""What `rotator status --verbose` says about the running daemon and its periodic jobs."""

from __future__ import annotations

import pytest

from rotator.cli.daemon_report import show_daemon
from rotator.cli.output import Output
from rotator.storage.notes import DaemonNote, JobNote

SCAN = JobNote("scan-drops", 15.0, "2026-11-22T12:00:00.123Z", "2026-11-22T12:00:15.123Z", "Look at every drop")
TIDY = JobNote("tidy-store", 86400.0, "", "2026-11-23T11:00:00.000Z", "Delete old generations")
NOTE = DaemonNote(7, "2026-11-22T11:00:00.000Z", reported="2026-11-22T12:00:01.000Z", jobs=(SCAN, TIDY))


def shown(capsys: pytest.CaptureFixture[str], note: DaemonNote) -> list[list[str]]:
    """The words of each line."""
    show_daemon(note, Output(plain=True))
    return [line.split() for line in capsys.readouterr().out.splitlines() if line]


def test_each_job_has_a_line_with_its_interval_and_its_times(capsys: pytest.CaptureFixture[str]) -> None:
    _, columns, scan, tidy = shown(capsys, NOTE)
    assert columns == ["JOB", "EVERY", "LAST", "RUN", "NEXT", "RUN", "WHAT", "IT", "DOES"]
    assert scan[:5] == ["scan-drops", "15", "s", "2026-11-22T12:00:00Z", "2026-11-22T12:00:15Z"]
    assert tidy[:5] == ["tidy-store", "24", "h", "-", "2026-11-23T11:00:00Z"]


def test_the_time_of_the_report_stands_above(capsys: pytest.CaptureFixture[str]) -> None:
    (line, *_) = shown(capsys, NOTE)
    assert line[:3] == ["daemon", "pid", "7,"]
    assert line[-3:] == ["reported", "at", "2026-11-22T12:00:01Z"]


def test_a_daemon_that_has_just_started_has_reported_nothing_yet(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = shown(capsys, DaemonNote(7, "2026-11-22T11:00:00.000Z"))
    assert " ".join(line).endswith("it has not reported its jobs yet")


def test_without_a_daemon_it_is_said_with_the_command_that_starts_one(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = shown(capsys, DaemonNote())
    assert " ".join(line) == "daemon none is running, so no periodic job runs: systemctl start rotator"
