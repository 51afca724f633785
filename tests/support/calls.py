"""Calls the command line in this process and keeps what it said; which commands are called belongs to the tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from rotator.cli import cli

SITE = '[[site]]\nname = "shop"\nnames = ["shop.example.org"]\nlisteners = ["127.0.0.1:443"]\n'


@dataclass(frozen=True)
class Called:
    """How one call ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value


def call(*args: str | Path, env: dict[str, str | None] | None = None) -> Called:
    """Runs `rotator ARGS`; a bug's exception goes through."""
    result = CliRunner().invoke(cli, [str(arg) for arg in args], env=env, catch_exceptions=False)
    return Called(result.exit_code, result.stdout, result.stderr)


def host(top: Path, text: str = SITE) -> Path:
    """A configuration whose directories lie below `top`, with an incoming directory; the path of the file."""
    (top / "incoming").mkdir()
    file = top / "rotator.toml"
    head = f'state_dir = "{top}/state"\nincoming = "{top}/incoming"\n[nginx]\ninclude_dir = "{top}/nginx"\n'
    file.write_text(head + text)
    return file
