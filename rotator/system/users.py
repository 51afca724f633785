"""The names of the host's users."""

from __future__ import annotations

import os
import pwd


def user_name(uid: int | None = None) -> str:
    """What the host calls this user; without a number, the one that this process is."""
    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
