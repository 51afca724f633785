"""Directories for tests of root; what is put into them belongs to the tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_directory() -> Iterator[Path]:
    """A directory of root's alone that every user can reach, below no directory that others may write to."""
    made = Path(tempfile.mkdtemp(prefix="rotator-test-", dir="/var/lib"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)
