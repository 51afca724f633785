"""The rotation itself, in the order of its promise; every effect is in a port that is passed in.

`rotate` puts a batch of renewed pairs live with one reload:

 1. Look: what does each site's include name, what was verified last, is the clock to be trusted?
 2. Validate each candidate as a strict client would; compare it with what is live.
 3. Ask nginx and every listener before anything changes: a listener that does not serve the live pair now could prove
    nothing later.
 4. Stage: write the pair, let this nginx test it alone, rehearse a handshake, flush, name it a generation.
 5. Apply: one rename of an include for each site, one HUP for all.
 6. If nginx refuses, it is asked why; then the includes go back without another HUP, and it is proved that nothing
    changed.
 7. Prove that every listener serves exactly the new chain and that no old worker accepts connections.
 8. Converged: mark it verified. It is rotated.
 9. Not converged: apply the previous generation in the same way and prove that. A batch is then tried one by one.

Between 4 and 5, three kinds of sites leave the batch (`first_time`): a pair that is live already is only proved; the
first pair of a site is named without a reload; a pair without a proved predecessor has no way back.

A failure of a port becomes an outcome here and in no other place. A fault of the environment defers; it never condemns
a pair. Steps 1 to 4 are in `prepare`, the rule of the proof in `proof`, the message of each outcome in `outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result, Workers
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason, reason_of
from rotator.privsep.apply import Applied
from rotator.rotation.conclude import is_valid_now, rotated, seconds_to_prove, write_down
from rotator.rotation.first_time import install_first, prove_live, reload_unverified
from rotator.rotation.next_steps import (
    APPLY_HINTS,
    NGINX_DOWN_HINT,
    REFUSAL_HINT,
    ROLLED_BACK_HINT,
    SILENT,
    SILENT_HINT,
)
from rotator.rotation.outcomes import deferred, deferred_by, outcome_of, rejected, stranded
from rotator.rotation.ports import Ports
from rotator.rotation.prepare import EarlyOutcome, prepare
from rotator.rotation.proof import NO_RELOAD, Proof, prove, prove_together, unchanged
from rotator.rotation.refusal import Refusal, explain_refusal
from rotator.rotation.request import RotationRequest
from rotator.rotation.site_rotation import SiteRotation, Timer, apply_new, apply_previous, merged
from rotator.rotation.snapshot import take_snapshot
from rotator.storage.locks import Lock


def rotate(batch: Sequence[RotationRequest], ports: Ports, lock: Lock) -> tuple[Outcome, ...]:
    """Puts the requested pairs live, all sites with one reload, and proves them; or leaves or restores what was live.

    Args:
        batch: at most one request for each site.
        ports: the world.
        lock: the held rotation lock; what its last holder left in flight must be recovered first (`recover`).

    Returns:
        One outcome for each request, in their order. Each is in the history already.
    """
    outcomes: dict[str, Outcome] = {}
    prepared: list[SiteRotation] = []
    for request in batch:
        ports.alive()
        snapshot = take_snapshot(request.site.name, ports)
        try:
            prepared.append(prepare(request, snapshot, ports))  # 1 to 4
        except EarlyOutcome as early:
            outcomes[request.site.name] = early.outcome
        except RotatorError as e:
            outcomes[request.site.name] = deferred_by(e, request, snapshot.live, ports.clock.now())
    ended = [request for request in batch if request.site.name in outcomes]
    _write_down(outcomes, ended, ports)  # `_run_with_note` does it for the others

    # Between 4 and 5: the sites that need no swap.
    proofs = prove_together({r.site.name: r.expected() for r in prepared if r.already_live}, ports)
    for rotation in (r for r in prepared if r.already_live or r.first or r.unwired):
        rotation.proof = proofs.get(rotation.site.name, rotation.proof)
        step = prove_live if rotation.already_live else install_first if rotation.first else reload_unverified
        outcomes |= _run_with_note([rotation], ports, lock, _for_batch(step))

    if to_swap := [r for r in prepared if r.site.name not in outcomes]:
        outcomes |= _run_with_note(to_swap, ports, lock, _swap)  # 5 to 9
    return tuple(outcomes[request.site.name] for request in batch)


# -- 5 to 9 -----------------------------------------------------------------------------------------------------------


def _swap(rotations: list[SiteRotation], ports: Ports) -> dict[str, Outcome]:
    # 5. Apply.
    before = ports.nginx.workers()
    ports.say(f"reloading nginx for {', '.join(r.site.name for r in rotations)}")
    with Timer(rotations, "apply", ports.clock):
        applied = apply_new(rotations, ports, hup=True)
    if applied.error or applied.decision == "gone":
        return _not_applied(rotations, applied, ports)

    # 6. Refused.
    if applied.decision == "refused":
        return _refused(rotations, applied, before, ports)

    # 7. Prove.
    with Timer(rotations, "prove", ports.clock):
        proof = prove(merged(r.expected() for r in rotations), before, ports, seconds_to_prove(ports))
    for rotation in rotations:
        rotation.proof = proof

    # 8. Converged.
    if proof.ok:
        return {r.site.name: rotated(r, ports) for r in rotations}

    # 9. Not converged.
    silent = applied.decision == "unknown" and _has_not_begun(before, ports)
    if silent and all(_can_go_back(r, ports) for r in rotations):
        return _refused(rotations, applied, before, ports)
    return _not_converged(rotations, applied, proof, ports)


def _not_applied(rotations: list[SiteRotation], applied: Applied, ports: Ports) -> dict[str, Outcome]:
    """The includes could not all be written, or there was no master to signal: each changed one is restored."""
    changed = [r for r in rotations if r.previous and applied.live.get(r.site.name) == r.new.name]
    if changed:
        back = apply_previous(changed, ports, hup=False)
        if back.error:
            message = f"{applied.message or 'nginx ended'}; then, on the way back: {back.message}"
            outcomes = {r.site.name: stranded(r, ports, reason_of(back.error), message) for r in changed}
            return outcomes | _not_applied([r for r in rotations if r.site.name not in outcomes], applied, ports)
    reason: Reason | Code = Reason.NGINX_DOWN
    message = "nginx ended before it could be signalled; its configuration names the old pair again"
    hint = NGINX_DOWN_HINT
    if applied.error:
        reason, message = reason_of(applied.error), f"{applied.message}. Nothing was changed"
        hint = applied.hint or APPLY_HINTS.get(reason, "")
    return {r.site.name: deferred(r, ports, reason, message, hint) for r in rotations}


def _refused(
    rotations: list[SiteRotation], applied: Applied, before: Workers | None, ports: Ports
) -> dict[str, Outcome]:
    """nginx goes on with its old configuration: the includes go back without a second HUP, and just that is proved.

    A master that was silent reads the old includes when it handles the first HUP.
    """
    silent = applied.decision == "unknown"
    reason: Reason | Code = Reason.NGINX_SILENT if silent else Code.NGINX_REFUSED
    why_refused = Refusal(applied.words) if silent else explain_refusal(applied, ports)
    wired = [r for r in rotations if r.previous]
    expected = merged(r.expected_before() for r in wired)
    with Timer(rotations, "rollback", ports.clock):
        back = apply_previous(wired, ports, hup=False) if wired else applied
        proof = unchanged(expected, before, ports) if before else prove(expected, before, ports, 0.0)
        proofs = {r.site.name: proof for r in rotations}
        if not proof.ok and not back.error:
            proofs |= _roll_back(wired, ports)  # another process reloaded nginx meanwhile; one more reload settles it
    outcomes: dict[str, Outcome] = {}
    blamed = {r.site.name for r in rotations if why_refused.blames(r, ports)}
    nginx_words = why_refused.nginx_words
    for rotation in rotations:
        name = rotation.site.name
        rotation.proof = proofs[name]
        if back.error or not rotation.proof.ok:
            why = back.message or "; ".join(rotation.proof.reasons)
            outcomes[name] = stranded(rotation, ports, reason, why, nginx_words)
        elif name in blamed:
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, why_refused.message)
            outcomes[name] = rejected(rotation, (*rotation.problems, problem), ports, nginx_words)
        elif blamed:
            outcomes |= _swap([rotation], ports)  # another site of the batch was at fault
        else:
            message = f"{SILENT if silent else why_refused.message}. The old pair is live as before"
            hint = SILENT_HINT if silent else REFUSAL_HINT
            outcomes[name] = deferred(rotation, ports, reason, message, hint, nginx_words)
    return outcomes


def _not_converged(rotations: list[SiteRotation], applied: Applied, proof: Proof, ports: Ports) -> dict[str, Outcome]:
    """The previous generation is applied like any other, and proved; unless it would be refused by now."""
    why = "; ".join(proof.reasons) or "it was not proved in time"
    outcomes = {r.site.name: _keep_new(r, proof, why, ports) for r in rotations if not _can_go_back(r, ports)}
    back = [r for r in rotations if r.site.name not in outcomes]
    if not back:
        return outcomes
    ports.say("not proved in time: putting the previous pair back")
    with Timer(back, "rollback", ports.clock):
        proofs = _roll_back(back, ports)
    for rotation in back:
        name = rotation.site.name
        rotation.proof = proofs[name]
        if not rotation.proof.ok:
            message = f"{why}; then, with the old pair: {'; '.join(rotation.proof.reasons)}"
            outcomes[name] = stranded(rotation, ports, Reason.ROLLBACK_FAILED, message, applied.words)
        elif len(rotations) > 1:
            outcomes |= _swap([rotation], ports)  # one bad site must not hold up the others
        else:
            message = f"{rotation.new.name} was not proved: {why}. The old pair is back and proved on every listener"
            outcomes[name] = outcome_of(
                rotation,
                Result.ROLLED_BACK,
                ports,
                Reason.NOT_PROVED,
                message,
                ROLLED_BACK_HINT,
                nginx_words=applied.words,
            )
    return outcomes


def _keep_new(rotation: SiteRotation, proof: Proof, why: str, ports: Ports) -> Outcome:
    """The new pair stays where the previous one would be refused now, and the outcome says that it is not proved."""
    if not any(target.site == rotation.site.name for target in proof.seen):
        message = f"{why}; {rotation.new.name} stays named all the same, as the previous pair is no longer valid"
        return stranded(rotation, ports, Reason.NOT_PROVED, message)
    unproved = tuple(str(t) for t in rotation.expected() if t not in proof.seen) or proof.reasons
    message = f"{rotation.new.name} stays, though not proved everywhere ({why}): the previous pair is no longer valid"
    return outcome_of(rotation, Result.ROTATED, ports, Reason.UNPROVED, message, ROLLED_BACK_HINT, unproved=unproved)


def _roll_back(rotations: list[SiteRotation], ports: Ports) -> dict[str, Proof]:
    """Applies the previous generations, and proves them. One site that cannot be proved does not decide for the others.

    A master that refuses this reload too has no other one on its way: what its workers show then is what they keep.
    """
    before, seconds = ports.nginx.workers(), seconds_to_prove(ports)
    applied = apply_previous(rotations, ports, hup=True)
    if applied.error:
        return {r.site.name: Proof(ok=False, reasons=(applied.message,)) for r in rotations}
    if applied.decision in ("refused", "gone"):
        before, seconds = NO_RELOAD, 0.0
    proof = prove(merged(r.expected_before() for r in rotations), before, ports, seconds)
    proofs = {r.site.name: proof for r in rotations}
    if len(rotations) > 1 and not proof.ok:
        served = [r for r in rotations if proof.seen.issuperset(r.expected_before())]
        proofs |= {r.site.name: prove(r.expected_before(), before, ports, 0.0) for r in served}
    if applied.decision == "refused":
        reason = Refusal(applied.words).message
        proofs = {s: p if p.ok else replace(p, reasons=(reason, *p.reasons)) for s, p in proofs.items()}
    return proofs


def _has_not_begun(before: Workers | None, ports: Ports) -> bool:
    """Whether a reload has changed nothing: then the new pair was not tried, and nothing speaks against it."""
    now = ports.nginx.workers()
    return now is not None and before is not None and (now.master, now.active) == (before.master, before.active)


def _can_go_back(rotation: SiteRotation, ports: Ports) -> bool:
    return rotation.previous is not None and is_valid_now(rotation.previous, rotation.request, ports)


# -- the lock's note and the history ----------------------------------------------------------------------------------


def _for_batch(step: Callable[[SiteRotation, Ports], Outcome]) -> _Step:
    """A step of one site as a step of a batch."""
    return lambda rotations, ports: {r.site.name: step(r, ports) for r in rotations}


def _run_with_note(rotations: list[SiteRotation], ports: Ports, lock: Lock, step: _Step) -> dict[str, Outcome]:
    """Runs a step that changes what nginx reads, with a note in the lock for the next holder in case of a crash.

    The history has the outcome before the note is taken back: no crash leaves a pair live without an entry. The note
    stays where it is unknown what nginx serves: after a crash or Ctrl-C, of a site that is stranded, and where nginx
    ended. Then the next holder recovers.
    """
    requests = [r.request for r in rotations]
    ports.alive()
    try:
        lock.begin([*lock.in_flight, *(r.site.name for r in rotations)])
    except RotatorError as e:
        now = ports.clock.now()
        return _write_down({r.site.name: deferred_by(e, r.request, r.live, now) for r in rotations}, requests, ports)
    try:
        outcomes = step(rotations, ports)
    except RotatorError as e:
        outcomes = {r.site.name: stranded(r, ports, e.code, e.message) for r in rotations}
    _write_down(outcomes, requests, ports)
    unsettled = {s for s, o in outcomes.items() if o.result is Result.STRANDED or o.reason == Reason.NGINX_DOWN}
    try:
        lock.settled([site for site in outcomes if site not in unsettled])
    except RotatorError as e:
        ports.say(f"the lock's note could not be removed, so the next command proves the same again: {e.message}")
    return outcomes


def _write_down(outcomes: dict[str, Outcome], requests: Iterable[RotationRequest], ports: Ports) -> dict[str, Outcome]:
    for request in requests:
        write_down(request, outcomes[request.site.name], ports)
        ports.alive()
    return outcomes


_Step = Callable[[list[SiteRotation], Ports], dict[str, Outcome]]
