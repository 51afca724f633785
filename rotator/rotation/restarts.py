"""The pacing of reloads over restarts: when a start may reload nginx for a live pair whose proof is missing.

A reload has nginx read the includes once more. Where an earlier start has just made one for the same live pair, and
nothing else on the disk has changed, another one would not help: a listener is dead, or a server block names other
files. A process that ends and starts again many times would cost nginx a generation of workers each time. So the next
reload for the same pair waits for `RELOAD_AGAIN` seconds, and twice as long after each further one, whatever number of
processes has started meanwhile. The proof without a reload is made at every start.

The evidence outlives the process: the entries of the history, and for a process that was killed before it wrote one the
note in the rotation lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from rotator.core.model import Result, has_reloaded
from rotator.storage.entries import HistoryEntry

RELOAD_AGAIN = timedelta(minutes=1)
"""How long the second reload of a start for the same live pair waits."""
LONGEST = timedelta(minutes=10)
"""The time at which the doubling of this wait ends."""


def reload_due(live: str, entries: Iterable[HistoryEntry], noted: datetime | None, now: datetime) -> datetime | None:
    """When a start may reload nginx for a live pair that is not proved; None if it may now.

    Args:
        live: the generation that the include names.
        entries: the newest entries of the site's history, newest first.
        noted: when a recovery that did not end has had nginx reloaded for this pair, UTC; None if there was none.
        now: UTC.
    """
    times = [noted] if noted else []
    for entry in entries:
        if entry.live != live:
            break
        if entry.trigger == "recover" and entry.at and has_reloaded(entry.result, entry.reason, entry.stages):
            times.append(entry.at)
        if entry.result in (Result.ROTATED, Result.UNCHANGED):
            break
    times = [at for at in times if at <= now]  # the clock has been set since the others
    if not times:
        return None
    wait = min(LONGEST, RELOAD_AGAIN * 2 ** min(len(times) - 1, 10))
    due = max(times) + wait
    return due if now < due else None
