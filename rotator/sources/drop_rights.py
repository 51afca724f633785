"""The rights of drops: to whom a drop may belong, who may rename it away, and the command that corrects it.

Users who may write to `incoming` can make a directory with the name of a site. Without the sticky bit they can also
rename the drop of another site away and put their own in its place. A drop therefore belongs to root, to the owner of
`incoming`, to the store's owner, or to the user that the configuration names (`drop_owner`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rotator.core.hints import command
from rotator.system.users import group_id, group_name, is_hidden, user_id, user_name

DIRECTORY_MODE = 0o2770
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class DropRights:
    """To whom a drop belongs, and the files that are delivered into it.

    Args:
        store_owner: the user of the store, who reads the drop; None where this user cannot see the store.
        named_owner: the user that the configuration allows as the drop's owner; empty for none.
        group: the group that may write to the drop; empty for the group of `incoming`.
    """

    store_owner: int | None = None
    named_owner: str = ""
    group: str = ""

    def trusts(self, uid: int, incoming_owner: int) -> bool:
        """Whether a drop may belong to a user.

        A user namespace shows one number for every user that it does not map. A named owner cannot be recognised there,
        so that number passes for it.

        Args:
            uid: the owner of the drop.
            incoming_owner: the owner of the directory above it.
        """
        named = user_id(self.named_owner) if self.named_owner else None
        return uid in (0, incoming_owner, self.store_owner, named) or (named is not None and is_hidden(uid))


def unsafe_drops(incoming: Path, rights: Mapping[str, DropRights]) -> Iterator[str]:
    """The rights of `incoming` and of drops that are not as they should be, each with the command that corrects them.

    A directory that does not exist, or that this user cannot see, has no faults.

    Args:
        incoming: the directory of the drops.
        rights: the rights of each site's drop, by the site's name.
    """
    with suppress(OSError):
        above = incoming.stat()
        yield from _faults_of_incoming(incoming, above)
        for site, drop_rights in rights.items():
            with suppress(OSError):
                directory = incoming / site
                status = directory.lstat()
                if stat.S_ISDIR(status.st_mode):
                    yield from _faults_of_drop(directory, status, above.st_uid, drop_rights)


def _faults_of_incoming(incoming: Path, status: os.stat_result) -> Iterator[str]:
    if status.st_mode & OTHERS_MAY_WRITE and not status.st_mode & stat.S_ISVTX:
        yield (
            f"{incoming} has no sticky bit, so that each user who may write there can replace the drop of any site: "
            f"{command('chmod +t', incoming)}"
        )


def _faults_of_drop(directory: Path, status: os.stat_result, incoming_owner: int, rights: DropRights) -> Iterator[str]:
    if not rights.trusts(status.st_uid, incoming_owner):
        yield f"{foreign_owner(directory, status.st_uid)}: {move_away(directory)}"
        return
    if status.st_mode & stat.S_IWOTH:
        yield f"every user of this host may write to the drop {directory}: {command('chmod o-rwx', directory)}"
    wanted = group_id(rights.group) if rights.group else None
    if wanted is not None and status.st_mode & stat.S_IWGRP and status.st_gid != wanted:
        yield (
            f"the group {group_name(status.st_gid)} may write to the drop {directory}, "
            f"and the configuration names {rights.group}: {command('chgrp -h', rights.group, directory)}"
        )


def foreign_owner(directory: Path, uid: int) -> str:
    """The message about a drop that belongs to a user to whom it may not belong."""
    owner = "another user" if is_hidden(uid) else user_name(uid)
    return (
        f"the drop {directory} belongs to {owner}, who is neither root, nor the owner of {directory.parent}, "
        "nor the drop_owner of the configuration"
    )


def command_to_make(owner: str, mode: str, directory: Path) -> str:
    """The command by which root makes a directory where other users may write.

    It fails if the name is taken. `install -d` would give the target of another user's link away.

    Args:
        owner: the user and the group, with a colon between them.
        mode: its mode, in octal digits.
        directory: its path.
    """
    return f"{command('mkdir -m', mode, directory)} && {command('chown -h', owner, directory)}"


def move_away(directory: Path) -> str:
    """The command that makes room for a drop with the right owner; it follows no link of the drop's owner."""
    return command("mv -T", directory, f"{directory}.foreign")
