"""The end of a rotation: the verified mark, the history entry, and the targets that are still to be proved."""

from __future__ import annotations

from itertools import islice

from rotator.core.errors import RotatorError
from rotator.core.model import Generation, Outcome, Result, has_reloaded
from rotator.core.problems import Severity
from rotator.core.reasons import Reason
from rotator.rotation import pacing
from rotator.rotation.outcomes import outcome_of
from rotator.rotation.ports import Ports
from rotator.rotation.proof import deadline, differs, expectation
from rotator.rotation.request import RotationRequest
from rotator.rotation.site_rotation import SiteRotation
from rotator.validation.validate import validate_chains

RETRIED = frozenset({"drop", "recover"})
"""The triggers with which the daemon tries again automatically."""
LATEST_ENTRIES = 20
"""The number of newest entries of a site that are searched for the same wait."""


def write_down(request: RotationRequest, outcome: Outcome, ports: Ports, digest: str = "") -> None:
    """Writes the history, and prunes the store. What nginx serves is decided by then: a failure here is only reported.

    Two outcomes get no entry. The date of a suspect clock would make the next check trust it. And a site that still
    waits for the same reason, try after try, would push the history of what happened out of its files.

    Args:
        request: the request that it ends.
        outcome: the outcome.
        ports: the store and the history.
        digest: of the drop's content, where the request has no candidate.
    """
    if outcome.reason == Reason.CLOCK_SUSPECT:
        return
    try:
        if _still_waits(request, outcome, ports, request.candidate.digest if request.candidate else digest):
            return
        fingerprints = ports.store.fingerprints(outcome.site, outcome.generation or outcome.live)
        ports.history.record(outcome, who=request.who, trigger=request.trigger, fingerprints=fingerprints)
        if outcome.result is Result.ROTATED:
            protect = frozenset({outcome.live, outcome.previous, ports.store.verified(outcome.site)})
            ports.store.prune(outcome.site, request.site.keep, protect)
    except RotatorError as e:
        ports.say(f"the outcome could not be written down: {e.message}")


def _still_waits(request: RotationRequest, outcome: Outcome, ports: Ports, digest: str) -> bool:
    """Whether the daemon has only tried again, and the history has an equal entry of this wait already.

    A wait begins with another drop, another reason or message, another live generation, or a reload. It ends with
    every outcome that is not deferred, and with every command. The history and `intent.json` outlive the process, so
    a restart begins no wait.
    """
    if request.trigger not in RETRIED or outcome.result is not Result.DEFERRED:
        return False
    if has_reloaded(outcome.result, outcome.reason, outcome.stages):
        return False
    if digest and ports.store.intent(outcome.site).digest != digest:
        return False
    other = RETRIED - {request.trigger}  # a renewal and a recovery of one site wait independently of each other
    latest = islice(ports.history.newest_first(outcome.site), LATEST_ENTRIES)
    last = next((entry for entry in latest if entry.trigger not in other), None)
    if last is None or last.trigger != request.trigger:
        return False
    if (last.generation, last.live) != (outcome.generation, outcome.live):
        return False
    counts_down = outcome.reason in pacing.REASONS  # those messages count down the seconds that are left
    same_message = counts_down or last.message == outcome.message
    return (last.result, last.reason) == (outcome.result, outcome.reason) and same_message


def is_valid_now(generation: Generation, request: RotationRequest, ports: Ports) -> bool:
    """Whether a stored generation would be accepted now, so that it may be put back."""
    chains = tuple(generation.chains.values())
    problems = validate_chains(chains, request.site.policy, request.anchors, ports.clock.now())
    return not any(p.severity is Severity.REJECT for p in problems)


def record_proof(rotation: SiteRotation, ports: Ports) -> str:
    """Marks the new generation as verified. It was proved, even if a full disk prevents the mark.

    Returns:
        A clause for the outcome's message about what the disk did not confirm; empty if it confirmed everything.
    """
    caveat = ""
    if rotation.uncertain:
        caveat = "; the disk did not confirm that its include names it, which may not survive a power cut"
    try:
        ports.store.mark_verified(rotation.site.name, rotation.new.name)
    except RotatorError as e:
        caveat += f"; the mark of this proof could not be written, so the next command proves it again ({e.message})"
    return caveat


def rotated(rotation: SiteRotation, ports: Ports) -> Outcome:
    """The outcome of a proved pair, with its mark in the store."""
    caveat = record_proof(rotation, ports)
    unproved = _exempt_and_unproved(rotation, ports)
    message = f"{rotation.new.name} is served by every listener"
    if unproved:
        message = (
            f"{rotation.new.name} is served, but these listeners did not serve the old pair either and are not proved"
        )
    return outcome_of(rotation, Result.ROTATED, ports, Reason.ROTATED, message + caveat, unproved=unproved)


def _exempt_and_unproved(rotation: SiteRotation, ports: Ports) -> tuple[str, ...]:
    """The exempt targets that do not show the new chain even now, in words."""
    expected = expectation(rotation.site, rotation.new.chains)
    exempt = {t: chain for t, chain in expected.items() if (t.listener, t.name) in rotation.exempt}
    served = ports.probe(tuple(exempt), 1.0) if exempt else ()
    return tuple(f"{s.target}: {differs(s, exempt[s.target])}" for s in served if s.chain != exempt[s.target])


def seconds_to_prove(ports: Ports) -> float:
    """The seconds that the next proof may take."""
    return deadline(ports.prove_within, ports.history.last_reload_seconds())
