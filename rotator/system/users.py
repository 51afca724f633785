"""The names and numbers of the host's users and groups."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

OVERFLOW_UID = 65534
"""The user that a user namespace shows in place of each user that it does not map; also Debian's user nobody."""


def user_name(uid: int | None = None) -> str:
    """The name of a user on this host, or `uid` and the number where the host has no name for it.

    Args:
        uid: the user's number; None for the user of this process.
    """
    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def group_name(gid: int) -> str:
    """The name of a group on this host, or `gid` and the number where the host has no name for it."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def user_id(name: str) -> int | None:
    """The number of a user; None where the host has no such user."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group_id(name: str) -> int | None:
    """The number of a group; None where the host has no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def is_hidden(uid: int) -> bool:
    """Whether a number may stand for any user: the overflow user in a user namespace (`PrivateUsers=` of systemd)."""
    if uid != OVERFLOW_UID:
        return False
    try:
        mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    except (OSError, ValueError, IndexError):
        return False
    return mapped <= OVERFLOW_UID
