"""Root's program reads only a configuration that no other user can change or replace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rotator.privsep.apply import read_setup
from tests.support.other_user import NOBODY
from tests.support.places import own_directory

pytestmark = pytest.mark.root


@pytest.fixture
def config() -> Iterator[Path]:
    with own_directory() as top:
        made = top / "etc" / "rotator" / "rotator.toml"
        made.parent.mkdir(parents=True)
        made.write_text("")
        yield made


def test_a_configuration_below_directories_of_root_is_read(config: Path) -> None:
    assert read_setup(str(config)).sites == frozenset()


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write_is_refused(config: Path, mode: int) -> None:
    config.parent.chmod(mode)
    with pytest.raises(ValueError, match=f"can change its directory {config.parent}$"):
        read_setup(str(config))


def test_a_directory_of_another_user_further_up_is_refused(config: Path) -> None:
    os.chown(config.parent.parent, NOBODY, 0)
    with pytest.raises(ValueError, match=f"can change its directory {config.parent.parent}$"):
        read_setup(str(config))


def test_a_directory_of_root_in_a_sticky_one_is_allowed(config: Path) -> None:
    config.parent.parent.chmod(0o1777)
    assert read_setup(str(config)).sites == frozenset()


@pytest.mark.parametrize("relative", [False, True])
def test_the_directory_of_a_link_and_its_target_count(config: Path, relative: bool) -> None:
    top = config.parents[2]
    (top / "link").symlink_to("etc/../etc/rotator" if relative else config.parent)
    assert read_setup(str(top / "link" / config.name)).sites == frozenset()
    config.parent.chmod(0o777)
    with pytest.raises(ValueError, match=f"can change its directory {config.parent}$"):
        read_setup(str(top / "link" / config.name))


def test_a_directory_of_others_in_which_a_link_stands_is_refused(config: Path) -> None:
    shared = config.parents[2] / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link").symlink_to(config.parent)
    with pytest.raises(ValueError, match=f"can change its directory {shared}$"):
        read_setup(str(shared / "link" / config.name))
