"""Fixtures of the fault tests: those of the end-to-end tests, under the same names; no tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nginx_fixtures import issuing_ca, nginx, nginx_binary, root_ca, root_pem

__all__ = ["issuing_ca", "nginx", "nginx_binary", "root_ca", "root_pem"]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory that costs no flush to a disk, where there is one: for what is done thousands of times over."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else tmp_path) as path:
        yield Path(path)
