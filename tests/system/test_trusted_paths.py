"""Which paths count as root's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rotator.system import trusted_paths
from rotator.system.trusted_paths import faults_of, is_root
from tests.support.other_user import NOBODY

pytestmark = pytest.mark.root


@pytest.fixture
def file(top: Path) -> Path:
    made = top / "a" / "b" / "file"
    made.parent.mkdir(parents=True)
    made.touch(0o644)
    return made


def paths(file: Path) -> list[str]:
    return [fault.path for fault in faults_of(str(file))]


def test_a_file_of_root_below_directories_of_root_has_no_fault(file: Path) -> None:
    assert paths(file) == []


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_a_fault(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert paths(file) == [str(file)]


def test_a_file_of_another_user_is_a_fault(file: Path) -> None:
    os.chown(file, NOBODY, 0)
    assert paths(file) == [str(file)]


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_directory_on_the_way_that_others_may_write_is_a_fault(file: Path, mode: int) -> None:
    file.parent.parent.chmod(mode)
    assert paths(file) == [str(file.parent.parent)]


def test_a_working_directory_that_has_been_removed_hides_no_fault(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.chmod(0o666)
    (tmp_path / "removed").mkdir()
    monkeypatch.chdir(tmp_path / "removed")
    (tmp_path / "removed").rmdir()
    assert paths(file) == [str(file)]


def test_a_directory_of_another_user_on_the_way_is_a_fault(file: Path) -> None:
    os.chown(file.parent.parent, NOBODY, 0)
    assert paths(file) == [str(file.parent.parent)]


def test_a_sticky_directory_is_a_fault_for_a_file_in_it(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert paths(file) == [str(file.parent)]


def test_a_sticky_directory_is_no_fault_for_a_directory_of_root_in_it(file: Path) -> None:
    file.parent.parent.chmod(0o1777)
    assert paths(file) == []


def test_a_sticky_directory_is_a_fault_for_a_link_in_it(file: Path, top: Path) -> None:
    shared = top / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "link").symlink_to(file.parent)
    assert paths(shared / "link" / "file") == [str(shared)]


def test_a_sticky_directory_of_another_user_is_a_fault(file: Path) -> None:
    os.chown(file.parent.parent, NOBODY, 0)
    file.parent.parent.chmod(0o1777)
    assert paths(file) == [str(file.parent.parent)]


@pytest.mark.parametrize("relative", [False, True])
def test_the_target_of_a_link_and_its_directories_count(file: Path, top: Path, relative: bool) -> None:
    (top / "link").symlink_to("a/b/file" if relative else file)
    file.parent.chmod(0o777)
    assert paths(top / "link") == [str(file.parent)]


def test_the_directory_of_a_link_counts(file: Path, top: Path) -> None:
    (top / "links").mkdir()
    (top / "links" / "link").symlink_to(file)
    (top / "links").chmod(0o777)
    assert paths(top / "links" / "link") == [str(top / "links")]


def test_a_link_to_a_directory_on_the_way_is_followed(file: Path, top: Path) -> None:
    (top / "link").symlink_to("a/../a/b")
    os.chown(file, NOBODY, 0)
    assert paths(top / "link" / "file") == [str(file)]


def test_a_circle_of_links_is_an_error(top: Path) -> None:
    (top / "link").symlink_to("link")
    with pytest.raises(OSError, match="too many symbolic links"):
        faults_of(str(top / "link"))


def test_a_missing_file_has_the_faults_of_its_directories(file: Path) -> None:
    file.parent.chmod(0o777)
    assert paths(file.parent / "missing" / "further") == [str(file.parent)]


def test_a_path_of_the_working_directory_counts_with_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    os.chown(file.parent, NOBODY, 0)
    assert paths(Path("file")) == [str(file.parent)]


def test_another_user_can_be_trusted_like_root(file: Path) -> None:
    os.chown(file, NOBODY, 0)
    assert faults_of(str(file), user=NOBODY) == []


@pytest.mark.parametrize(
    ("mapping", "may_be_root"),
    [
        ("0 0 4294967295\n", False),  # the namespace of the host
        ("0 0 1\n998 998 1\n", False),  # PrivateUsers=yes in a system service
        ("998 998 1\n", True),  # unshare --user --map-user=998
        ("0 1000 1\n", True),  # unshare --map-root-user by an ordinary user
    ],
)
def test_the_overflow_user_may_be_root_where_root_is_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapping: str, may_be_root: bool
) -> None:
    (tmp_path / "uid_map").write_text(mapping)
    monkeypatch.setattr(trusted_paths, "UID_MAP_FILE", str(tmp_path / "uid_map"))
    assert (is_root(65534), is_root(0), is_root(1000)) == (may_be_root, True, False)
