"""Recording: each decision about a drop is kept in memory, written to the store, counted, and reported in one line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.daemon.journal import ERROR
from rotator.daemon.loop_state import LoopState
from rotator.daemon.runtime import WHO, ManagedSite
from rotator.rotation.conclude import write_down
from rotator.rotation.decide import LONGEST_WAIT, Decided, Deferral, Moment, Wait, backoff
from rotator.rotation.outcomes import still_serves
from rotator.rotation.request import RotationRequest
from rotator.rotation.snapshot import SiteSnapshot
from rotator.storage.records import Intent

RETRY_BUSY = 0.5
"""Seconds until the next try after another rotation held the lock."""
LOOK_TWICE = 2.0
"""Seconds after which a drop that had just been changed is read once more: see `sources`."""


def record_outcome(loop: LoopState, managed: ManagedSite, digest: str, outcome: Outcome) -> None:
    """Records the outcome of a drop.

    Args:
        loop: the state of the loop.
        managed: the site.
        digest: of the drop's content.
        outcome: how its rotation ended.
    """
    state, now = loop.states[managed.site.name], loop.now()
    before = state.deferral if state.deferral and state.deferral.digest == digest else None
    next_try, state.deferral, state.due, state.validate_again = "", None, now.monotonic + LOOK_TWICE, False
    state.lives = None
    if outcome.result is Result.DEFERRED:
        tries = before.tries + 1 if before else 1
        state.due = now.monotonic + backoff(tries)
        state.deferral = Deferral(digest, state.due, tries, outcome.reason)
        state.decision = Wait(state.due, outcome.reason)
        next_try = (now.wall + timedelta(seconds=backoff(tries))).isoformat(timespec="seconds")
    else:
        state.decision = Decided()
    state.decided = Intent(digest, str(outcome.result), outcome.reason, managed.policy, next_try)
    write_intent(loop, managed.site.name, state.decided)
    if not (before and before.reason == outcome.reason and outcome.result is Result.DEFERRED):
        loop.journal.outcome(outcome)
    loop.report(outcome)
    loop.maintenance.note(managed, outcome)
    loop.runtime.ports.alive()


def record_decision(
    loop: LoopState,
    managed: ManagedSite,
    snapshot: SiteSnapshot,
    digest: str,
    result: Result,
    why: Wait | RotatorError,
) -> None:
    """Records a decision that needs no rotation.

    Args:
        loop: the state of the loop.
        managed: the site.
        snapshot: the site at the time of the decision.
        digest: of the drop's content.
        result: `rejected` or `deferred`.
        why: the fault of the drop, or the wait.
    """
    record_outcome(loop, managed, digest, _written_down(loop, managed, snapshot, digest, result, why))


def record_wait(loop: LoopState, managed: ManagedSite, snapshot: SiteSnapshot, digest: str, wait: Wait) -> None:
    """Records that a drop waits; the start of the wait is an outcome, and a later try is none.

    Args:
        loop: the state of the loop.
        managed: the site.
        snapshot: the site at the time of the decision.
        digest: of the drop's content.
        wait: until when, and why.
    """
    state = loop.states[managed.site.name]
    before = state.deferral if state.deferral and state.deferral.digest == digest else None
    state.due = wait.until
    if wait.message and not (before and before.reason == wait.reason):
        record_decision(loop, managed, snapshot, digest, Result.DEFERRED, wait)
        state.due = wait.until
    if state.deferral:
        tries = before.tries + 1 if before and wait.message else state.deferral.tries
        state.deferral = Deferral(digest, wait.until, tries, wait.reason)


def record_turn(loop: LoopState, managed: ManagedSite, snapshot: SiteSnapshot, digest: str, wait: Wait) -> None:
    """Records that a valid drop waits for its turn, with the time at which it goes live at the latest.

    It is due every ten minutes all the same, as clocks are set.

    Args:
        loop: the state of the loop.
        managed: the site.
        snapshot: the site at the time of the decision.
        digest: of the drop's content.
        wait: until when, and why; a wait without a message is too short to be recorded.
    """
    now, state = loop.now(), loop.states[managed.site.name]
    if not wait.message:
        state.due, state.decision = wait.until, wait
        return
    if not (state.deferral and (state.deferral.digest, state.deferral.reason) == (digest, wait.reason)):
        _report_wait(loop, managed, snapshot, digest, wait)
    state.due = min(wait.until, now.monotonic + LONGEST_WAIT)
    state.decision = Wait(state.due, wait.reason)
    state.deferral = Deferral(digest, state.due, 0, wait.reason)
    intent = _waiting(managed, digest, wait, now)
    if intent != state.decided:
        state.decided = intent
        write_intent(loop, managed.site.name, intent)


def record_rest(loop: LoopState, managed: ManagedSite, snapshot: SiteSnapshot, digest: str, wait: Wait) -> None:
    """Records that a drop rests because it was costly; a series of rests without a decision in between is one outcome.

    Args:
        loop: the state of the loop.
        managed: the site.
        snapshot: the site at the time of the decision.
        digest: of the drop's content.
        wait: until when, and why.
    """
    now, state = loop.now(), loop.states[managed.site.name]
    if not (state.deferral and state.deferral.reason == wait.reason):
        _report_wait(loop, managed, snapshot, digest, wait)
    state.due, state.deferral = wait.until, Deferral(digest, wait.until, 0, wait.reason)
    state.decided = _waiting(managed, digest, wait, now)
    write_intent(loop, managed.site.name, state.decided)


def write_intent(loop: LoopState, name: str, intent: Intent) -> None:
    """Writes a decision to the store. One that the disk does not take is valid in this process, and written later."""
    state = loop.states[name]
    try:
        loop.runtime.ports.store.write_intent(name, intent)
        state.unwritten = None
    except RotatorError as e:
        if state.unwritten is None:
            message = f"the decision could not be written down: {e.message}"
            loop.journal.say("not-written", message, ERROR, site=name)
        state.unwritten = intent
        state.due = min(state.due, loop.now().monotonic + backoff(1))


def record_trouble(loop: LoopState, error: RotatorError, names: Sequence[str]) -> None:
    """The lock or the store was unavailable; all of these sites are retried soon."""
    seconds = RETRY_BUSY if error.code == Reason.LOCK_BUSY else backoff(1)
    for name in names:
        loop.states[name].due = loop.now().monotonic + seconds
    if error.code not in (loop.trouble, Reason.LOCK_BUSY):
        message = f"{error.message}; {error.hint}" if error.hint else error.message
        loop.journal.say(error.code, message, ERROR)
    loop.trouble = error.code


def _report_wait(loop: LoopState, managed: ManagedSite, snapshot: SiteSnapshot, digest: str, wait: Wait) -> None:
    """Reports the start of a wait, which is an outcome."""
    outcome = _written_down(loop, managed, snapshot, digest, Result.DEFERRED, wait)
    loop.journal.outcome(outcome)
    loop.report(outcome)


def _waiting(managed: ManagedSite, digest: str, wait: Wait, now: Moment) -> Intent:
    """The decision that a drop waits, with the time of its next try on the wall clock."""
    next_try = (now.wall + timedelta(seconds=wait.until - now.monotonic)).isoformat(timespec="seconds")
    return Intent(digest, str(Result.DEFERRED), wait.reason, managed.policy, next_try)


def _written_down(
    loop: LoopState,
    managed: ManagedSite,
    snapshot: SiteSnapshot,
    digest: str,
    result: Result,
    why: Wait | RotatorError,
) -> Outcome:
    """The outcome of a decision that needs no rotation, with its entry in the history."""
    reason: Reason | Code = why.code if isinstance(why, RotatorError) else why.reason
    live, fault = snapshot.live, snapshot.fault
    meanwhile = fault.message if fault and live else still_serves(snapshot.generation)
    message = f"{why.message.rstrip('.')}. Nothing was changed: {meanwhile}"
    ports = loop.runtime.ports
    outcome = Outcome(managed.site.name, result, ports.clock.now(), reason, message, why.hint, previous=live, live=live)
    write_down(RotationRequest(managed.site, managed.anchors, who=WHO, trigger="drop"), outcome, ports, digest)
    return outcome
