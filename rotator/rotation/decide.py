"""The rules for a decision about one site's drop, as one pure function.

In this order:

 1. The drop is empty: there is nothing to do.
 2. An operator holds its content: it waits until the content changes.
 3. It was decided before, by the same policy: the decision stands, over restarts too.
 4. It was deferred: it waits for its next try. It was costly to decide: it rests (`fairness`).
 5. It cannot be read. If it did not change during the grace time it is refused; if the fault is the environment's, it
    is deferred.
 6. It is valid: it goes at once. Only one that needs something from elsewhere (a kind of key that is live, or an
    intermediate from the pool) waits for the grace time, in case another process is still writing the rest.
 7. It will be valid within the hour, and nothing else is wrong: it waits for that.
 8. It is invalid: a half-written drop looks the same, so it is refused only after the grace time; then once, loudly.
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
"""Seconds until the first new try of a deferred drop."""
LONGEST_WAIT = 600.0
"""Seconds at which the doubling of the waits ends."""
AHEAD = timedelta(hours=1)
"""How far in the future a certificate may begin to be waited for: clocks differ, and some CAs date forward."""
ENVIRONMENT = frozenset({Code.IO_ERROR, Code.PERMISSION})
"""The faults in reading that are not the files' own."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The content of a drop.

    Args:
        digest: of the candidate, or of the look at an unreadable drop; empty for an empty drop.
        changed: monotonic time at which it was last seen to have changed.
        validate: gives the verdict on it; called only if it matters.
        error: why it could not be read; None if it could.
    """

    digest: str
    changed: float
    validate: Callable[[], Verdict] = Verdict
    error: RotatorError | None = None


@dataclass(frozen=True, slots=True)
class Deferral:
    """A drop that waits for its next try.

    Args:
        digest: of the drop's content.
        due: monotonic time of the next try.
        tries: the number of tries so far.
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
    """The previous decision still applies."""


@dataclass(frozen=True, slots=True)
class Held:
    """An operator holds it."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Settling:
    """Another process may still be writing it.

    Args:
        until: monotonic time at which the grace time ends.
        why: its fault so far, in a word or a few.
    """

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """It is at fault, and did not change during the grace time.

    Args:
        error: why it cannot be read; None where the validation refuses it.
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
        reason: why, as a word.
        message: what it waits for; empty if that was reported when the wait began.
        hint: the next step.
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
    rest: Wait | None = None,
) -> Decision:
    """The decision about a drop.

    Args:
        drop: its content.
        intent: the last decision.
        policy: digest of policy and roots, as they are now.
        now: on both clocks.
        settle: the grace time, in seconds.
        live: the kinds of key that are live.
        deferral: its wait for the next try; None if there is none.
        rest: its rest after costly decisions; None if there is none.
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
    if rest and now.monotonic < rest.until:
        return rest  # 4
    quiet = now.monotonic >= drop.changed + settle
    if drop.error:
        return _unreadable(drop, drop.error, now, settle, deferral, quiet=quiet)  # 5
    verdict = drop.validate()
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
            seconds = min(
                (begins - now.wall).total_seconds(), LONGEST_WAIT
            )  # it is decided again by then, as the clock may be set
            message = f"it is valid only from {begins:%Y-%m-%d %H:%M:%S} UTC, and is put live then"
            return Wait(now.monotonic + seconds, Code.NOT_YET_VALID, message)
    if not quiet:  # 8
        return Settling(drop.changed + settle, verdict.codes[0] if verdict.codes else Code.CERT_MISSING)
    return Refuse()


def backoff(tries: int) -> float:
    """Seconds until the next try, by the number of tries so far: 5, 10, 20 … 600."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(max(0, tries - 1), 10))


def resumed_wait(intent: Intent, now: Moment) -> Deferral | None:
    """The rest of a wait that an earlier process recorded, `LONGEST_WAIT` at most, whatever the clock says."""
    if intent.result != Result.DEFERRED or not intent.digest:
        return None
    try:
        left = (datetime.fromisoformat(intent.next_try) - now.wall).total_seconds()
    except (ValueError, TypeError):
        left = 0.0  # a command that defers records none, so the drop is due
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
