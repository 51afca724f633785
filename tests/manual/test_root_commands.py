"""The commands of the manual that root pastes are safe in directories to which other users may write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rotator

MANUAL = Path(rotator.__file__).parent / "manual"
PAGES = sorted(MANUAL.glob("*.md"))
FOLLOWING = re.compile(
    r"^(?:install -d|chmod|chown (?!-h)|chgrp (?!-h)|setfacl|mkdir -p) .*/var/lib/rotator/incoming/\S", re.M
)
"""A command that changes the target of a link that a member of the group has put in the place of a drop."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_command_of_root_follows_a_link_in_the_place_of_a_drop(page: Path) -> None:
    assert FOLLOWING.findall(page.read_text()) == []


def test_a_command_that_follows_a_link_is_found() -> None:
    assert FOLLOWING.findall("install -d -o rotator -m 2770 /var/lib/rotator/incoming/example.cn\n")
