"""Asking root's oneshots: what becomes of a request where the system around it fails; `systemctl` is a stand-in."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rotator.privsep.apply import TEST_REQUEST, TEST_RESULT, Setup
from rotator.privsep.unit_client import UnitClient
from tests.support.failing import refusal
from tests.support.other_user import as_nobody

ANSWERS = f"""\
#!/bin/sh
id=$(sed 's/.*"id": "\\([0-9a-f]*\\)".*/\\1/' "$STATE/{TEST_REQUEST}")
printf '{{"id": "%s", "ok": true, "words": []}}' "$id" >"$RESULTS/{TEST_RESULT}"
"""


@pytest.fixture
def oneshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UnitClient:
    """Oneshots that answer well, whoever asks."""
    for name in ("state", "results", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin/systemctl").write_text(ANSWERS)
    (tmp_path / "bin/systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path / "state"))
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    return _oneshots(tmp_path / "state", tmp_path / "results")


def _oneshots(state: Path, results: Path) -> UnitClient:
    return UnitClient(Setup(str(state), "/etc/nginx/rotator", "", "", frozenset(), result_dir=str(results)))


def test_a_request_is_taken_back_when_it_was_answered(oneshots: UnitClient, tmp_path: Path) -> None:
    assert oneshots.test().ok
    assert list((tmp_path / "state").iterdir()) == []


def test_a_request_that_cannot_be_taken_back_does_not_hide_its_answer(
    oneshots: UnitClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == TEST_REQUEST:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert oneshots.test().ok


@pytest.mark.root
def test_a_place_for_answers_that_may_not_be_looked_at_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "results").mkdir(parents=True)
    closed.chmod(0o700)
    told = as_nobody(lambda: refusal(_oneshots(tmp_path, closed / "results").test).code, cwd=tmp_path)
    assert told == "no-result-dir"
