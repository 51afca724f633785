"""Waiting for what the daemon makes of a drop: it reads what the daemon has written down, and asks nobody."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from rotator.cli.context import Context
from rotator.cli.rotation import EXITS
from rotator.config import SiteConfig
from rotator.drop import undisturbed
from rotator.drops import Place, read_place
from rotator.errors import Exit, RotatorError
from rotator.history import History
from rotator.locks import Locks
from rotator.model import Result
from rotator.store import Intent, Store
from rotator.wiring import demand_state_dir

LOOK_EVERY = 0.05
"""Seconds between two looks at what was decided."""
LOOK_AGAIN_EVERY = 1.0
"""Seconds between two looks at whether the drop is still the same."""
TELL_EVERY = 5.0
"""Seconds between two lines of progress."""


def await_outcome(context: Context, one: SiteConfig, within: float) -> int:
    """Waits until the daemon has decided about what lies in the drop now, and tells how it ended.

    Args:
        context: this call.
        one: whose drop.
        within: seconds to wait.

    Returns:
        The exit status of the outcome; `deferred` for what is held, or not decided in time.

    Raises:
        RotatorError: `no-daemon`: there is none that could decide; `superseded`: something else lies there by now; or
            the drop or the store cannot be read.
    """
    name, output, root = one.site.name, context.output, context.config.state_dir
    store, locks, history = Store(root), Locks(root), History(root)
    demand_state_dir(root)
    place = Place(name, context.config.drop(one), one.source is not None)

    def digest_now() -> str:
        with undisturbed(place.directory):
            candidate = read_place(place, context.config.incoming, [other.site.name for other in context.config.sites])
        return candidate.digest if candidate else ""

    def is_superseded() -> bool:
        try:
            return digest_now() != digest
        except RotatorError:
            return False  # somebody writes there just now; the next look tells

    digest = digest_now()
    store.names(name)  # says so at once if the store may not be read
    begun = told = looked = time.monotonic()
    while True:
        intent = store.intent(name)
        if intent.digest == digest:
            return _tell(context, name, intent, history)
        if intent.hold and intent.hold.digest == digest:
            words = f"what lies in the drop is held by {intent.hold.by} since {intent.hold.since}"
            raise RotatorError("held", words, f"rotator swap {name} ends the hold", Exit.DEFERRED)
        now = time.monotonic()
        if not locks.daemon_pid():
            words = f"the files lie in {place.directory}, but no daemon is running that would take them"
            raise RotatorError("no-daemon", words, f"systemctl start rotator, or: rotator swap {name}")
        if now - begun >= within:
            words = f"the files lie in {place.directory}; the daemon has not decided about them within {within:g} s"
            raise RotatorError("not-decided", words, f"rotator status {name} shows what it waits for", Exit.DEFERRED)
        if now - looked >= LOOK_AGAIN_EVERY:
            looked = now
            if is_superseded():
                words = f"what was delivered does not lie in {place.directory} any more, or not alone"
                hint = f"somebody else has delivered too: rotator status {name}; rotator history {name}"
                raise RotatorError("superseded", words, hint, Exit.DEFERRED)
        if now - told >= TELL_EVERY:
            told = now
            output.say(f"waiting for the daemon ({now - begun:.0f} s): {name} is not decided yet")
        time.sleep(LOOK_EVERY)


def _tell(context: Context, name: str, intent: Intent, history: History) -> int:
    """What was decided, with what the history tells of it."""
    output, last = context.output, _last(name, intent, history)
    code = Exit.DIFFERS if last.get("unproved") else EXITS[Result(intent.result)]
    if output.json:
        decided = {"site": name, "result": intent.result, "reason": intent.reason}
        output.data({**decided, "outcome": last or None, "exit": int(code)})
        return code
    word = intent.result.replace("-", " ").upper()
    output.line(f"{word} {name}: {last.get('message') or intent.reason}", "good" if code is Exit.DONE else "bad")
    for target in last.get("unproved", ()):
        output.line(f"  not proved: {target}", "warn")
    if last.get("hint"):
        output.line(f"  next: {last['hint']}")
    return code


def _last(name: str, intent: Intent, history: History) -> dict[str, Any]:
    ended = (intent.result, intent.reason)
    return next((e for e in islice(history.newest_first(name), 5) if (e.get("result"), e.get("reason")) == ended), {})
