"""The rule for a drop whose content has waited for a decision for long, whatever it waits for, as a pure function.

Usually a decision takes a second, and at most the grace time of an incomplete drop. What takes far longer shows that
something keeps the daemon from it: a lock that another process holds, drops that are costly to decide, a drop that
changes all the time, a daemon that does not run.
"""

from __future__ import annotations

from datetime import datetime, timedelta

LONG = timedelta(minutes=5)
"""The wait that counts as long, at least."""
GRACE_TIMES = 3
"""The number of grace times that a wait must have lasted, too."""


def is_long(since: datetime, now: datetime, settle: float) -> bool:
    """Whether a drop that waits since then has waited for long.

    Args:
        since: UTC.
        now: UTC.
        settle: the grace time, in seconds.
    """
    return now - since >= max(LONG, timedelta(seconds=GRACE_TIMES * settle))
