"""What to do with what lies in one site's drop: every rule of deciding, as a pure function; nothing is read or done.

In this order:

 1. Nothing lies there: nothing to do.
 2. It is held by hand: it waits until it changes.
 3. It was decided before, by the same policy: decided is decided, over restarts too.
 4. It was deferred: it waits for its next try.
 5. It cannot be read. Quiet for the grace time it is refused; if the fault is the environment's, it is deferred.
 6. It is fit: it goes at once. Only one that needs something from elsewhere (a kind of key which is live, or an
    intermediate from the pool) waits for the grace time, in case the rest is still being written.
 7. It will be valid within the hour, and nothing else is wrong: it waits for that.
 8. It is refused: half-written looks the same, so only after the grace time; then once, and loudly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rotator.core.errors import RotatorError
from rotator.core.model import KeyType, Result
from rotator.core.problems import Code
from rotator.core.reasons import Reason, reason_of
from rotator.storage.records import Hold, Intent
from rotator.validation.validate import Verdict

FIRST_WAIT = 5.0
"""Seconds until the first new try of what was deferred."""
LONGEST_WAIT = 600.0
"""Seconds that doubling ends at."""
AHEAD = timedelta(hours=1)
"""How far a certificate's beginning may lie ahead to be waited for: clocks differ, and some CAs date forward."""
ENVIRONMENT = frozenset({Code.IO_ERROR, Code.PERMISSION})
"""Faults in reading that are not the files' own."""


@dataclass(frozen=True, slots=True)
class Drop:
    """What lies in a drop.

    Args:
        digest: of the candidate, or of how it looks where it cannot be read; empty if nothing lies there.
        changed: monotonic time at which it was last seen to have changed.
        judge: what the judge says of it, asked only if it matters.
        error: why it could not be read.
    """

    digest: str
    changed: float
    judge: Callable[[], Verdict] = Verdict
    error: RotatorError | None = None


@dataclass(frozen=True, slots=True)
class Deferral:
    """A drop that waits for its next try.

    Args:
        digest: which.
        due: monotonic time of the next try.
        tries: how many there were.
        reason: why it waits.
    """

    digest: str
    due: float
    tries: int
    reason: Reason | Code


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks.

    Args:
        wall: UTC.
        monotonic: seconds that never jump.
    """

    wall: datetime
    monotonic: float


@dataclass(frozen=True, slots=True)
class Nothing:
    """The drop is empty."""


@dataclass(frozen=True, slots=True)
class Decided:
    """It was decided before."""


@dataclass(frozen=True, slots=True)
class Held:
    """It is held by hand."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Settling:
    """It may still be being written.

    Args:
        until: monotonic time at which the grace time ends.
        why: what is wrong with it so far, in a word.
    """

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """It is at fault, and it was quiet for long enough.

    Args:
        error: why it cannot be read; None where the judge refuses it.
    """

    error: RotatorError | None = None


@dataclass(frozen=True, slots=True)
class Rotate:
    """It is valid."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Something else has to come first.

    Args:
        until: monotonic time of the next try.
        reason: a stable word.
        message: what it waits for; empty if that was told when it began to wait.
        hint: what helps.
    """

    until: float
    reason: Reason | Code
    message: str = ""
    hint: str = ""


Decision = Nothing | Decided | Held | Settling | Refuse | Rotate | Wait


def decide(
    drop: Drop,
    intent: Intent,
    policy: str,
    now: Moment,
    settle: float,
    *,
    live: frozenset[KeyType] = frozenset(),
    deferral: Deferral | None = None,
) -> Decision:
    """What to do with a drop.

    Args:
        drop: what lies there.
        intent: what was decided last.
        policy: digest of policy and roots, as they are now.
        now: on both clocks.
        settle: the grace time, in seconds.
        live: the kinds of key that are live.
        deferral: what it waits for, if it was deferred in this run.
    """
    if not drop.digest:
        return Nothing()  # 1
    if intent.hold and intent.hold.covers(drop.digest, readable=drop.error is None):
        return Held(intent.hold)  # 2
    if intent.digest == drop.digest and intent.policy == policy:
        if intent.result != Result.DEFERRED:
            return Decided()  # 3
        if deferral and deferral.digest == drop.digest and now.monotonic < deferral.due:
            return Wait(deferral.due, deferral.reason)  # 4
    quiet = now.monotonic >= drop.changed + settle
    if drop.error:
        return _unreadable(drop, drop.error, now, settle, deferral, quiet=quiet)  # 5
    verdict = drop.judge()
    if verdict.accepted:  # 6
        delivered = {pair.key_type for pair in verdict.pairs}.difference(verdict.kept)
        lacking = live - delivered if len(live) > 1 else frozenset()
        if lacking and not quiet:
            return Settling(drop.changed + settle, f"no {' or '.join(sorted(lacking))} key yet")
        if verdict.borrowed and not quiet:
            return Settling(drop.changed + settle, "no intermediate yet, but one in the pool")
        return Rotate()
    if verdict.codes == (Code.NOT_YET_VALID,):  # 7
        begins = max((pair.not_before for pair in verdict.pairs), default=now.wall)
        if now.wall < begins <= now.wall + AHEAD:
            seconds = min((begins - now.wall).total_seconds(), LONGEST_WAIT)  # clocks are set: it looks again
            words = f"it is valid only from {begins:%Y-%m-%d %H:%M:%S} UTC, and is put live then"
            return Wait(now.monotonic + seconds, Code.NOT_YET_VALID, words)
    if not quiet:  # 8
        return Settling(drop.changed + settle, verdict.codes[0] if verdict.codes else Code.CERT_MISSING)
    return Refuse()


def backoff(tries: int) -> float:
    """Seconds until the next try after so many: 5, 10, 20 … 600."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(max(0, tries - 1), 10))


def resumed(intent: Intent, now: Moment) -> Deferral | None:
    """What a run before this one left deferred. A wait is never longer than it could have been, whatever the clock."""
    if intent.result != Result.DEFERRED or not intent.digest:
        return None
    try:
        left = (datetime.fromisoformat(intent.next_try) - now.wall).total_seconds()
    except (ValueError, TypeError):
        left = 0.0  # a try by hand leaves none: it is due
    return Deferral(intent.digest, now.monotonic + min(max(0.0, left), LONGEST_WAIT), 1, reason_of(intent.reason))


def _unreadable(
    drop: Drop, error: RotatorError, now: Moment, settle: float, deferral: Deferral | None, *, quiet: bool
) -> Decision:
    if not quiet:
        return Settling(drop.changed + settle, error.code)
    if error.code not in ENVIRONMENT:
        return Refuse(error)
    tries = deferral.tries + 1 if deferral and deferral.digest == drop.digest else 1
    return Wait(now.monotonic + backoff(tries), error.code, error.message, error.hint)
