"""The demo's host on a system that is short of something: told in words, and nothing is left."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from rotator.demo import host as module
from rotator.demo.host import Host
from tests.support.failing import refusal


def _enter() -> None:
    with Host("/bin/false"):
        pass


def _no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_room_for_its_directory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", _no_room)
    error = refusal(_enter)
    assert (error.code, "No space left" in error.message, "TMPDIR" in error.hint) == ("demo-failed", True, True)


def test_no_room_for_its_processes_is_told_and_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "Group", _no_room)
    assert refusal(_enter).code == "demo-failed"
    assert list(tmp_path.iterdir()) == []
