"""The wait of `rotator deliver --wait`: watches the daemon's decision about a drop in the store and the history."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from rotator import bootstrap
from rotator.cli.context import Context
from rotator.cli.formats import awaited_answer
from rotator.cli.rotation import EXITS
from rotator.config import SiteConfig
from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command
from rotator.core.model import Candidate, Result, SourceFile
from rotator.core.problems import Severity
from rotator.core.reasons import Reason
from rotator.core.text import escaped
from rotator.rotation.next_steps import next_step
from rotator.storage.entries import HistoryEntry, ProblemEntry
from rotator.storage.generations import Store, demand_state_dir
from rotator.storage.history import History
from rotator.storage.locks import Locks
from rotator.storage.records import Intent
from rotator.validation.candidate import read_candidate

POLL_EVERY = 0.05
"""The seconds between two reads of the decision."""
RECHECK_EVERY = 1.0
"""The seconds between two checks that the drop is unchanged."""
PROGRESS_EVERY = 5.0
"""The seconds between two lines of progress."""


def await_outcome(context: Context, site_config: SiteConfig, within: float, delivered: Sequence[SourceFile]) -> int:
    """Waits until the daemon has decided about the current content of a drop, and shows the outcome.

    Args:
        context: the call of the command.
        site_config: the site of the drop.
        within: the seconds to wait.
        delivered: the delivered files; the drop may have others, too.

    Returns:
        The exit status of the outcome.

    Raises:
        RotatorError: `no-daemon`: no daemon is running; `not-decided`: the time is up; `held`: the drop is held;
            `superseded`: the drop has changed meanwhile; `not-taken`: the daemon preferred another pair of the drop; or
            the drop or the store cannot be read.
    """
    name, output, root = site_config.site.name, context.output, context.config.state_dir
    store, locks, history = Store(root), Locks(root), History(root)
    demand_state_dir(root)
    source = bootstrap.drop_source(context.config, replace(site_config, password_file=None))
    directory = context.config.drop(site_config)

    def read_current() -> Candidate:
        return source.read(name, await_delivery=True) or Candidate(())

    def is_superseded() -> bool:
        try:
            return read_current().digest != digest
        except RotatorError:
            return False  # another writer is writing; the next check shows the result

    candidate = read_current()
    digest = candidate.digest
    store.names(name)  # fails now if this user may not read the store
    begun = reported_at = checked_at = time.monotonic()
    while True:
        intent = store.intent(name)
        if intent.digest == digest:
            entry = _entry_of(name, intent, history)
            if candidate.files and not _is_live(entry, Candidate(tuple(delivered), candidate.password)):
                message = f"another pair than the delivered one is live for {name}: {directory} had a better one"
                hint = f"Remove the unwanted files there, and deliver again: {command('ls -la', directory)}"
                reason = escaped(entry.message if entry else intent.reason)
                raise RotatorError(Reason.NOT_TAKEN, f"{message} ({reason})", hint, Exit.REJECTED)
            return _show_decision(context, name, intent, entry)
        if intent.hold and intent.hold.covers(digest, readable=True):
            message = f"the content of the drop is {intent.hold}"
            hint = f"Install the content of the drop, which ends the hold: {command('rotator swap', name)}"
            raise RotatorError(Reason.HELD, message, hint, Exit.DEFERRED)
        now = time.monotonic()
        if not locks.daemon_pid():
            message = f"the files are in {directory}, but no daemon is running that would put them live"
            raise RotatorError(
                Reason.NO_DAEMON, message, f"systemctl start rotator, or: {command('rotator swap', name)}"
            )
        if now - begun >= within:
            message = f"the files are in {directory}; the daemon has not decided about them within {within:g} s"
            hint = f"See the reason: {command('rotator status', name)}"
            raise RotatorError(Reason.NOT_DECIDED, message, hint, Exit.DEFERRED)
        if now - checked_at >= RECHECK_EVERY:
            checked_at = now
            if is_superseded():
                message = f"the delivered files are no longer in {directory}, or not the only ones"
                see = f"{command('rotator status', name)}; {command('rotator history', name)}"
                hint = f"Another delivery has changed it: {see}"
                raise RotatorError(Reason.SUPERSEDED, message, hint, Exit.DEFERRED)
        if now - reported_at >= PROGRESS_EVERY:
            reported_at = now
            output.say(f"waiting for the daemon ({now - begun:.0f} s): {name} is not decided yet")
        time.sleep(POLL_EVERY)


def _is_live(entry: HistoryEntry | None, delivered: Candidate) -> bool:
    """Whether a certificate of the delivered files is live now; also if they hold no certificate."""
    if entry is None or entry.result not in (Result.ROTATED, Result.UNCHANGED) or not entry.fingerprints:
        return True
    live = set(entry.fingerprints.values())
    own = {hashlib.sha256(certificate.raw).hexdigest() for certificate in read_candidate(delivered).certificates}
    return not own or not own.isdisjoint(live)


def _show_decision(context: Context, name: str, intent: Intent, entry: HistoryEntry | None) -> int:
    """Shows a decision with its entry of the history. Returns its exit status."""
    output = context.output
    code = Exit.DIFFERS if entry and entry.unproved else EXITS.get(intent.result, Exit.DEFERRED)
    if output.json:
        output.data(awaited_answer(name, intent, entry, int(code)))
        return code
    title = escaped(intent.result).replace("-", " ").upper()
    message = entry.message if entry else ""
    output.line(f"{title} {name}: {escaped(message or intent.reason)}", "good" if code is Exit.DONE else "bad")
    if entry is None:
        return code
    for target in entry.unproved:
        output.line(f"  not proved: {escaped(target)}", "warn")
    if code is not Exit.DONE and (step := next_step(entry.reason, name)):
        output.line(f"  next: {step}")
    for problem in entry.problems:
        _show_problem(context, problem, entry)
    return code


def _show_problem(context: Context, problem: ProblemEntry, entry: HistoryEntry) -> None:
    """Shows a problem, unless the message of the outcome has it already."""
    refuses = problem.severity == Severity.REJECT
    if refuses and entry.message.startswith(problem.message.rstrip(".")):
        return
    problem_text = escaped(f"{problem.code}: {problem.message}")
    context.output.line(f"  {'also' if refuses else 'warning'} {problem_text}", "warn")
    if refuses and (step := next_step(problem.code, entry.site)):
        context.output.line(f"    next: {step}")


def _entry_of(name: str, intent: Intent, history: History) -> HistoryEntry | None:
    """The entry of the history that belongs to a decision; None if the last five entries do not have it."""
    decision = (intent.result, intent.reason)
    return next(
        (entry for entry in islice(history.newest_first(name), 5) if (entry.result, entry.reason) == decision), None
    )
