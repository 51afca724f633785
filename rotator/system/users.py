"""The names of the host's users."""

from __future__ import annotations

import os
import pwd


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
