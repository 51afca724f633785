"""What a rotation leaves behind when it ends: the verified mark, the history entry, and what was not proved."""

from __future__ import annotations

from collections.abc import Iterable

from rotator.core.errors import RotatorError
from rotator.core.model import Generation, Outcome, Result
from rotator.core.problems import Severity
from rotator.core.reasons import Reason
from rotator.privsep.apply import Applied, copies_path
from rotator.rotation.outcomes import (
    Ready,
    Wanted,
    outcome,
)
from rotator.rotation.ports import Ports
from rotator.rotation.proof import deadline, differs, expectation
from rotator.validation.validate import validate_chains


def write_down(wanted: Wanted, done: Outcome, ports: Ports) -> None:
    """The history, and the store's upkeep. What nginx serves is decided by then: a failure here is said, not raised.

    An entry with the date of a clock that is not believed is not made: the next look would believe it.
    """
    if done.reason == Reason.CLOCK_SUSPECT:
        return
    try:
        told = ports.store.fingerprints(done.site, done.generation or done.live)
        ports.history.record(done, who=wanted.who, trigger=wanted.trigger, fingerprints=told)
        if done.result is Result.ROTATED:
            protect = frozenset({done.live, done.previous, ports.store.verified(done.site)})
            ports.store.prune(done.site, wanted.site.keep, protect)
    except RotatorError as e:
        ports.say(f"the outcome could not be written down: {e.message}")


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
