"""Puts files into a drop as one delivery; what is delivered and what comes of it belong to the tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rotator.core.model import SourceFile
from rotator.sources.delivery import open_drop, write_drop
from rotator.sources.drop_rights import DropRights


def put(files: Sequence[SourceFile], directory: Path, rights: DropRights | None = None) -> tuple[Path, ...]:
    """The paths of the files after one delivery, by default for a store of this user's own."""
    with open_drop(directory, rights or DropRights(os.geteuid())) as drop:
        return write_drop(files, drop)
