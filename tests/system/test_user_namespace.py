"""The owners of files as a real user namespace shows them: that of systemd's PrivateUsers=yes, and one without root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from rotator.config import load
from rotator.core.errors import RotatorError
from rotator.daemon.service import _check_owner
from rotator.sources.file_reader import read_password
from rotator.system.trusted_paths import is_root
from tests.support.calls import host
from tests.support.other_user import in_child
from tests.support.places import own_directory

pytestmark = pytest.mark.root

UID = 64814
THIRD = 64815
SYSTEMD = f"0 0 1\n{UID} {UID} 1\n"
WITHOUT_ROOT = f"{UID} {UID} 1\n"
CLONE_NEWUSER = 0x10000000

T = TypeVar("T")


@pytest.fixture
def config() -> Iterator[Path]:
    with own_directory() as top:
        made = host(top)
        (top / "state").mkdir()
        os.chown(top / "state", UID, UID)
        yield made


def in_namespace(mapping: str, work: Callable[[], T]) -> T:
    """What `work` returns for the user of a service in a user namespace with this mapping of users and groups."""
    libc = ctypes.CDLL(None, use_errno=True)

    def child() -> T:
        ready, go = os.pipe(), os.pipe()
        inner, outer = os.getpid(), os.fork()
        if outer == 0:
            os.read(ready[0], 1)
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{inner}/{name}").write_text(mapping)
            os.write(go[1], b"x")
            os._exit(0)
        assert libc.unshare(CLONE_NEWUSER) == 0
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os.waitpid(outer, 0)
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        return work()

    return in_child(child)


def load_error(config: Path) -> str:
    try:
        load(config)
    except RotatorError as e:
        return e.message
    return ""


@pytest.mark.parametrize("mapping", [SYSTEMD, WITHOUT_ROOT], ids=["PrivateUsers", "without-root"])
def test_a_configuration_of_root_is_used(config: Path, mapping: str) -> None:
    assert in_namespace(mapping, lambda: load_error(config)) == ""


@pytest.mark.parametrize("mapping", [SYSTEMD, WITHOUT_ROOT], ids=["PrivateUsers", "without-root"])
def test_the_state_directory_of_the_service_s_user_is_its_own(config: Path, mapping: str) -> None:
    def check() -> bool:
        _check_owner(config.parent / "state")
        return True

    assert in_namespace(mapping, check)


@pytest.mark.parametrize("mapping", [SYSTEMD, WITHOUT_ROOT], ids=["PrivateUsers", "without-root"])
def test_a_password_file_of_root_has_no_warning(config: Path, mapping: str) -> None:
    password = config.parent / "password"
    password.write_text("secret\n")
    os.chown(password, 0, UID)
    password.chmod(0o640)
    assert in_namespace(mapping, lambda: len(read_password(password)[1])) == 0


def test_with_private_users_the_owner_of_a_third_user_is_not_taken_for_root(config: Path) -> None:
    os.chown(config, THIRD, THIRD)
    seen = in_namespace(SYSTEMD, lambda: (config.stat().st_uid, is_root(config.stat().st_uid), load_error(config)))
    assert (seen[0], seen[1], "neither root nor the calling user" in seen[2]) == (65534, False, True)
