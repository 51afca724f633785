"""What stands on the disk, as typed records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hold:
    """A hand-made decision that what lies in the drop is not to be installed until it changes.

    Args:
        by: the user who made it.
        since: when, RFC 3339.
        digest: the candidate that it is about; empty for whatever lies there.
    """

    by: str
    since: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """What has been decided for a site.

    Args:
        digest: of the candidate last decided on.
        result: how that ended (`Result`).
        reason: the outcome's word.
        policy: digest of policy and roots at that time.
        next_try: RFC 3339; empty if none is due.
        hold: see `Hold`.
    """

    digest: str = ""
    result: str = ""
    reason: str = ""
    policy: str = ""
    next_try: str = ""
    hold: Hold | None = None
