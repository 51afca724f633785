"""To whom a drop may belong, and which rights are reported with the command that corrects them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rotator.sources.drop_rights import DropRights, command_to_make, unsafe_drops
from rotator.system import users

STRANGER, OWNER, ABOVE = 64001, 64002, 64003


@pytest.mark.parametrize(
    ("uid", "trusted"), [(0, True), (OWNER, True), (ABOVE, True), (STRANGER, False), (users.OVERFLOW_UID, False)]
)
def test_a_drop_belongs_to_root_the_store_or_the_owner_of_incoming(uid: int, trusted: bool) -> None:
    assert DropRights(OWNER).trusts(uid, ABOVE) is trusted


def test_a_drop_belongs_to_the_user_that_the_configuration_names() -> None:
    assert DropRights(OWNER, "daemon").trusts(users.user_id("daemon") or 0, ABOVE)


def test_a_name_that_the_host_does_not_have_is_no_owner() -> None:
    assert not DropRights(OWNER, "no-such-user").trusts(STRANGER, ABOVE)


@pytest.mark.parametrize("hidden", [True, False], ids=["in a user namespace", "outside"])
def test_the_number_of_unmapped_users_passes_for_the_named_one_in_a_user_namespace_only(
    monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    monkeypatch.setattr("rotator.sources.drop_rights.is_hidden", lambda uid: hidden and uid == users.OVERFLOW_UID)
    rights = DropRights(OWNER, "daemon"), DropRights(OWNER)
    assert [each.trusts(users.OVERFLOW_UID, ABOVE) for each in rights] == [hidden, False]


def test_outside_of_a_user_namespace_no_number_is_hidden() -> None:
    assert not users.is_hidden(users.OVERFLOW_UID)


def faults(incoming: Path, rights: DropRights | None = None) -> list[str]:
    return list(unsafe_drops(incoming, {"shop": rights or DropRights(os.geteuid())}))


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    top = tmp_path / "in coming"
    (top / "shop").mkdir(parents=True)
    (top / "shop").chmod(0o2770)
    top.chmod(0o3770)
    return top


def test_rights_as_they_should_be_have_no_faults(incoming: Path) -> None:
    assert faults(incoming) == []


def test_an_incoming_directory_that_its_owner_alone_may_write_to_needs_no_sticky_bit(incoming: Path) -> None:
    incoming.chmod(0o755)
    assert faults(incoming) == []


@pytest.mark.parametrize("mode", [0o2770, 0o777])
def test_an_incoming_directory_of_several_writers_needs_the_sticky_bit(incoming: Path, mode: int) -> None:
    incoming.chmod(mode)
    assert [fault.rpartition(": ")[2] for fault in faults(incoming)] == [f"chmod +t '{incoming}'"]


def test_a_drop_that_every_user_may_write_to_is_reported(incoming: Path) -> None:
    (incoming / "shop").chmod(0o777)
    assert [fault.rpartition(": ")[2] for fault in faults(incoming)] == [f"chmod o-rwx '{incoming}/shop'"]


@pytest.mark.root
def test_a_drop_of_a_stranger_is_reported_with_the_command_that_moves_it_away(incoming: Path) -> None:
    os.chown(incoming / "shop", STRANGER, STRANGER)
    (fault,) = faults(incoming)
    assert fault.startswith(f"the drop {incoming}/shop belongs to uid {STRANGER}, who is neither root")
    assert fault.endswith(f": mv -T '{incoming}/shop' '{incoming}/shop.foreign'")


@pytest.mark.root
def test_a_drop_with_another_group_than_the_configured_one_is_reported(incoming: Path) -> None:
    os.chown(incoming / "shop", -1, STRANGER)
    (fault,) = faults(incoming, DropRights(0, group="daemon"))
    assert fault.endswith(f"the configuration names daemon: chgrp -h daemon '{incoming}/shop'")


def test_what_does_not_exist_has_no_faults(tmp_path: Path) -> None:
    assert faults(tmp_path / "incoming") == []


def test_the_command_that_makes_a_drop_gives_no_target_of_a_link_away(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir(0o700)
    (tmp_path / "shop").symlink_to(tmp_path / "etc")
    done = subprocess.run(
        ["/bin/sh", "-c", command_to_make(f"{os.geteuid()}:{os.getegid()}", "2770", tmp_path / "shop")]
    )
    assert (done.returncode, (tmp_path / "etc").stat().st_mode & 0o7777) == (1, 0o700)


def test_the_command_that_makes_a_drop_gives_it_its_owner_and_mode(tmp_path: Path) -> None:
    owner = f"{os.geteuid()}:{os.getegid()}"
    subprocess.run(["/bin/sh", "-c", command_to_make(owner, "2770", tmp_path / "shop")], check=True)
    status = (tmp_path / "shop").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (os.geteuid(), os.getegid(), 0o2770)
