"""The demo played to its end in a process of its own, and what it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PROMISED = 40.0
"""Seconds within which a newcomer has seen it all."""


def answer_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def play(top: Path, nginx: Path) -> tuple[int, dict[str, Any]]:
    """Plays it all. Returns the exit status and the answer."""
    top.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "rotator", "--json", "demo", "--nginx", str(nginx)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "TMPDIR": str(top)},
        check=False,
    )
    print(done.stderr)
    return done.returncode, answer_of(done)


def titles(answer: Mapping[str, Any], *, passed: bool) -> list[str]:
    return [scenario["title"] for scenario in answer["scenarios"] if scenario["passed"] is passed]
