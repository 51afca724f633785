"""What a rotation leaves behind when it ends: the verified mark, the history entry, and what was not proved."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from rotator.core.errors import RotatorError
from rotator.core.model import Generation, Outcome, Result, has_reloaded
from rotator.core.problems import Severity
from rotator.core.reasons import Reason
from rotator.privsep.apply import Applied, copies_path
from rotator.rotation import pacing
from rotator.rotation.outcomes import (
    Ready,
    Wanted,
    outcome,
)
from rotator.rotation.ports import Ports
from rotator.rotation.proof import deadline, differs, expectation
from rotator.validation.validate import validate_chains

RETRIED = frozenset({"drop", "recover"})
"""The triggers with which the daemon tries again by itself."""
LATEST_ENTRIES = 20
"""The newest entries of a site among which the same wait is looked for."""


def write_down(wanted: Wanted, done: Outcome, ports: Ports) -> None:
    """Writes the history, and prunes the store. What nginx serves is decided by then: a failure here is only reported.

    Two outcomes get no entry. The date of a suspect clock would make the next check trust it. And a site that still
    waits for the same reason, try after try, would push the history of what happened out of its files.
    """
    if done.reason == Reason.CLOCK_SUSPECT:
        return
    try:
        if _still_waits(wanted, done, ports):
            return
        told = ports.store.fingerprints(done.site, done.generation or done.live)
        ports.history.record(done, who=wanted.who, trigger=wanted.trigger, fingerprints=told)
        if done.result is Result.ROTATED:
            protect = frozenset({done.live, done.previous, ports.store.verified(done.site)})
            ports.store.prune(done.site, wanted.site.keep, protect)
    except RotatorError as e:
        ports.say(f"the outcome could not be written down: {e.message}")


def _still_waits(wanted: Wanted, done: Outcome, ports: Ports) -> bool:
    """Whether the daemon has only tried again, and the history has an equal entry of this wait already.

    A wait begins with another drop, another reason or message, another live generation, or a reload. It ends with
    every outcome that is not deferred, and with every command. The history and `intent.json` outlive the process, so
    a restart begins no wait.
    """
    if wanted.trigger not in RETRIED or done.result is not Result.DEFERRED:
        return False
    if has_reloaded(done.result, done.reason, done.stages):
        return False
    if wanted.candidate and ports.store.intent(done.site).digest != wanted.candidate.digest:
        return False
    other = RETRIED - {wanted.trigger}  # a renewal and a recovery of one site wait independently of each other
    latest = islice(ports.history.newest_first(done.site), LATEST_ENTRIES)
    last = next((entry for entry in latest if entry.trigger not in other), None)
    if last is None or (last.trigger, last.generation, last.live) != (wanted.trigger, done.generation, done.live):
        return False
    counts_down = done.reason in pacing.REASONS  # those messages count down the seconds that are left
    return (last.result, last.reason) == (done.result, done.reason) and (counts_down or last.message == done.message)


def fit_to_return(generation: Generation, wanted: Wanted, ports: Ports) -> bool:
    """Whether a stored generation would be accepted now, so that it may be put back."""
    chains = tuple(generation.chains.values())
    problems = validate_chains(chains, wanted.site.policy, wanted.anchors, ports.clock.now())
    return not any(p.severity is Severity.REJECT for p in problems)


def noted(ready: Ready, ports: Ports) -> str:
    """Notes that the new generation was proved, which no full disk makes untrue; words to add where that failed."""
    words = "; the disk did not confirm that its include names it, which may not survive a power cut"
    told = words if ready.uncertain else ""
    try:
        ports.store.mark_verified(ready.site.name, ready.new.name)
    except RotatorError as e:
        told += f"; this could not be noted, and is proved again by the next command ({e.message})"
    return told


def rotated(ready: Ready, ports: Ports) -> Outcome:
    """The outcome of a pair that was proved, with its mark in the store."""
    told = noted(ready, ports)
    late = _exempt_and_late(ready, ports)
    words = f"{ready.new.name} is served by every listener"
    if late:
        words = f"{ready.new.name} is served, but these listeners did not serve the old pair either and are not proved"
    return outcome(ready, Result.ROTATED, ports, Reason.ROTATED, words + told, unproved=late)


def _exempt_and_late(ready: Ready, ports: Ports) -> tuple[str, ...]:
    """Exempt targets that do not show the new chain even now, in words."""
    every = expectation(ready.site, ready.new)
    asked = {t: chain for t, chain in every.items() if (t.listener, t.name) in ready.exempt}
    served = ports.probe(tuple(asked), 1.0) if asked else ()
    return tuple(f"{s.target}: {differs(s, asked[s.target])}" for s in served if s.chain != asked[s.target])


def within(ports: Ports) -> float:
    """Seconds that the next proof may take."""
    return deadline(ports.prove_within, ports.history.last_reload_seconds())


def previous_names(ready: Iterable[Ready]) -> dict[str, str]:
    """The generation that each site goes back to, by name of the site."""
    return {r.site.name: r.previous.name for r in ready if r.previous}


def is_named(ready: Ready, applied: Applied, ports: Ports) -> bool:
    """Whether nginx's words name a file of this site's new generation."""
    ours = copies_path(ports.include_dir, ready.site.name, ready.new.name)
    return any(ours in word for word in applied.words)
