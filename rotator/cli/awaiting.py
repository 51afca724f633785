"""Waiting for what the daemon makes of a drop: it reads what the daemon has written down, and asks nobody."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from rotator import bootstrap
from rotator.cli.context import Context
from rotator.cli.formats import awaited_answer
from rotator.cli.output import more_about
from rotator.cli.rotation import EXITS
from rotator.config import SiteConfig
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import Candidate, Result, SourceFile
from rotator.core.problems import Severity
from rotator.core.reasons import Reason
from rotator.storage.entries import HistoryEntry, ProblemEntry
from rotator.storage.generations import Store, demand_state_dir
from rotator.storage.history import History
from rotator.storage.locks import Locks
from rotator.storage.records import Intent
from rotator.validation.candidate import read_candidate

LOOK_EVERY = 0.05
"""Seconds between two looks at what was decided."""
LOOK_AGAIN_EVERY = 1.0
"""Seconds between two looks at whether the drop is still the same."""
TELL_EVERY = 5.0
"""Seconds between two lines of progress."""


def await_outcome(context: Context, one: SiteConfig, within: float, delivered: Sequence[SourceFile]) -> int:
    """Waits until the daemon has decided about what lies in the drop now, and tells how it ended.

    Args:
        context: this call.
        one: whose drop.
        within: seconds to wait.
        delivered: the files that were put there; others may lie beside them.

    Returns:
        The exit status of the outcome; `deferred` for what is held, or not decided in time.

    Raises:
        RotatorError: `no-daemon`: there is none that could decide; `superseded`: something else lies there by now;
            `not-taken`: it took another pair that lies there; or the drop or the store cannot be read.
    """
    name, output, root = one.site.name, context.output, context.config.state_dir
    store, locks, history = Store(root), Locks(root), History(root)
    demand_state_dir(root)
    source, directory = (
        bootstrap.drop_source(context.config, replace(one, password_file=None)),
        context.config.drop(one),
    )

    def lying() -> Candidate:
        return source.read(name, await_delivery=True) or Candidate(())

    def is_superseded() -> bool:
        try:
            return lying().digest != digest
        except RotatorError:
            return False  # somebody writes there just now; the next look tells

    candidate = lying()
    digest = candidate.digest
    store.names(name)  # says so at once if the store may not be read
    begun = told = looked = time.monotonic()
    while True:
        intent = store.intent(name)
        if intent.digest == digest:
            last = _last(name, intent, history)
            if candidate.files and not _is_taken(last, Candidate(tuple(delivered), candidate.password)):
                words = f"{name} has another pair than the delivered one: {directory} held a better one beside it"
                hint = f"Remove there what is not wanted, and deliver again: ls -la {directory}"
                raise RotatorError(
                    Reason.NOT_TAKEN, f"{words} ({last.message if last else intent.reason})", hint, Exit.REJECTED
                )
            return _tell(context, name, intent, last)
        if intent.hold and intent.hold.covers(digest, readable=True):
            words = f"the content of the drop is {intent.hold}"
            raise RotatorError(Reason.HELD, words, f"rotator swap {name} ends the hold", Exit.DEFERRED)
        now = time.monotonic()
        if not locks.daemon_pid():
            words = f"the files lie in {directory}, but no daemon is running that would take them"
            raise RotatorError(Reason.NO_DAEMON, words, f"systemctl start rotator, or: rotator swap {name}")
        if now - begun >= within:
            words = f"the files lie in {directory}; the daemon has not decided about them within {within:g} s"
            raise RotatorError(
                Reason.NOT_DECIDED, words, f"rotator status {name} shows what it waits for", Exit.DEFERRED
            )
        if now - looked >= LOOK_AGAIN_EVERY:
            looked = now
            if is_superseded():
                words = f"what was delivered does not lie in {directory} any more, or not alone"
                hint = f"Somebody else has delivered too: rotator status {name}; rotator history {name}"
                raise RotatorError(Reason.SUPERSEDED, words, hint, Exit.DEFERRED)
        if now - told >= TELL_EVERY:
            told = now
            output.say(f"waiting for the daemon ({now - begun:.0f} s): {name} is not decided yet")
        time.sleep(LOOK_EVERY)


def _is_taken(last: HistoryEntry | None, delivered: Candidate) -> bool:
    """Whether what is live now is of the delivered files, as far as they hold certificates."""
    if last is None or last.result not in (Result.ROTATED, Result.UNCHANGED) or not last.fingerprints:
        return True
    live = set(last.fingerprints.values())
    own = {hashlib.sha256(one.raw).hexdigest() for one in read_candidate(delivered).certificates}
    return not own or not own.isdisjoint(live)


def _tell(context: Context, name: str, intent: Intent, last: HistoryEntry | None) -> int:
    """What was decided, with what the history tells of it."""
    output = context.output
    code = Exit.DIFFERS if last and last.unproved else EXITS.get(intent.result, Exit.DEFERRED)
    if output.json:
        output.data(awaited_answer(name, intent, last, int(code)))
        return code
    word = intent.result.replace("-", " ").upper()
    message = last.message if last else ""
    output.line(f"{word} {name}: {message or intent.reason}", "good" if code is Exit.DONE else "bad")
    if last is None:
        return code
    for target in last.unproved:
        output.line(f"  not proved: {target}", "warn")
    if last.hint:
        output.line(f"  next: {last.hint}")
    for problem in last.problems:
        _tell_problem(context, problem, last)
    if intent.result == Result.REJECTED:
        output.line(f"  {more_about(intent.reason)}", "faint")
    return code


def _tell_problem(context: Context, problem: ProblemEntry, last: HistoryEntry) -> None:
    """One that the outcome's own sentence does not tell already."""
    refuses = problem.severity == Severity.REJECT
    if refuses and last.message.startswith(problem.message.rstrip(".")):
        return
    context.output.line(f"  {'also' if refuses else 'warning'} {problem.code}: {problem.message}", "warn")
    if refuses and problem.hint:
        context.output.line(f"    next: {problem.hint}")


def _last(name: str, intent: Intent, history: History) -> HistoryEntry | None:
    ended = (intent.result, intent.reason)
    return next(
        (entry for entry in islice(history.newest_first(name), 5) if (entry.result, entry.reason) == ended), None
    )
