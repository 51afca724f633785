"""What holds for all tests; no fixtures."""

from __future__ import annotations

import os

import pytest

os.environ.pop("PYTHONUNBUFFERED", None)  # it hides what a command does when its output cannot be written


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that only root can do are skipped for others, who can call them by themselves."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: sudo .venv/bin/pytest -m root")
