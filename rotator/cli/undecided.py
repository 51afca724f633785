"""Undecided drops, for `status`: since when, by the note of the daemon and by the drop itself."""

from __future__ import annotations

from datetime import UTC, datetime

from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.rotation.undecided import is_long
from rotator.sources.drop_source import DropSource
from rotator.storage.notes import DaemonNote
from rotator.storage.records import Intent


def is_undecided(source: DropSource, site: str, intent: Intent) -> bool | None:
    """Whether the drop holds content that neither a decision nor a hold is about; None if this user cannot read it.

    Args:
        source: of the site's renewals.
        site: the site's name.
        intent: the last decision.
    """
    if intent.reason == Code.PERMISSION:
        return None  # this user may read a file that the daemon cannot, and sees another content
    try:
        candidate = source.read(site)
    except RotatorError:
        return None
    if candidate is None or (intent.hold is not None and intent.hold.covers(candidate.digest, readable=True)):
        return False
    return candidate.digest != intent.digest


def long_undecided_since(
    source: DropSource, site: str, intent: Intent, note: DaemonNote, now: datetime, settle: float
) -> datetime | None:
    """Since when the content of the drop has waited for a decision, if that is long; None otherwise.

    Args:
        source: of the site's renewals.
        site: the site's name.
        intent: the last decision.
        note: of the running daemon, which knows drops that change all the time.
        now: UTC.
        settle: the grace time, in seconds.
    """
    undecided = is_undecided(source, site, intent)
    if undecided is False:
        return None
    times = [waiting.since for waiting in note.undecided if waiting.site == site and waiting.since]
    if undecided and (newest := source.look([site])[site].newest):
        times.append(datetime.fromtimestamp(newest / 1e9, UTC))
    return next((since for since in sorted(times) if is_long(since, now, settle)), None)
