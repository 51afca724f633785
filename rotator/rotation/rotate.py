"""The rotation itself, in the order of its promise; every effect is in a hand that is passed in, none happens here.

`rotate` puts a batch of renewed pairs live with one reload:

 1. Look: what does each site's include name, what was verified last, is the clock to be trusted?
 2. Judge each candidate as a strict client would; compare it with what is live.
 3. Ask nginx and every listener before anything changes: one that does not serve the live pair proves nothing later.
 4. Stage: write the pair, let this nginx test it alone, rehearse a handshake, flush, name it a generation.
 5. Apply: one rename of an include for each site, one HUP for all.
 6. If nginx refuses, the includes go back without another HUP, and it is proved that nothing changed.
 7. Prove that every listener serves exactly the new chain and that no old worker accepts connections.
 8. Converged: mark it verified. It is rotated.
 9. Not converged: apply the previous generation in the same way and prove that. A batch is then tried one by one.

Whatever a hand could not do becomes an outcome here and nowhere else. An environment's fault defers, it never condemns.
Steps 1 to 4 stand in `prepare`, the rule of the proof in `proof`, the words of each ending in `outcome`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result, Target, Workers
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason, reason_of
from rotator.privsep.apply import Applied
from rotator.rotation.conclude import fit_to_return, is_named, previous_names, rotated, within, write_down
from rotator.rotation.first_time import first_time, reload_unverified, same_again
from rotator.rotation.outcomes import (
    APPLY_HINTS,
    NGINX_DOWN_HINT,
    REFUSAL_HINT,
    ROLLED_BACK_HINT,
    SILENT,
    SILENT_HINT,
    Ready,
    Wanted,
    deferred,
    deferred_by,
    outcome,
    refusal,
    rejected,
    stranded,
)
from rotator.rotation.ports import Ports
from rotator.rotation.prepare import Stop, Timer, prepare
from rotator.rotation.proof import NO_RELOAD, Proof, prove, prove_together, unchanged
from rotator.storage.locks import Lock


def rotate(batch: Sequence[Wanted], ports: Ports, lock: Lock) -> tuple[Outcome, ...]:
    """Puts what is wanted live, all sites with one reload, and proves it; or leaves, or puts back, what was live.

    Args:
        batch: at most one for each site.
        ports: the world.
        lock: the held rotation lock; what its last holder left in flight must be recovered first (`recover`).

    Returns:
        One outcome for each wanted, in their order. Each stands in the history already.
    """
    outcomes: dict[str, Outcome] = {}
    ready: list[Ready] = []
    for wanted in batch:
        try:
            ready.append(prepare(wanted, ports))  # 1 to 4
        except Stop as stop:
            outcomes[wanted.site.name] = stop.outcome
        except RotatorError as e:
            outcomes[wanted.site.name] = deferred_by(e, wanted, ports)
    _written_down(outcomes, (w for w in batch if w.site.name in outcomes), ports)  # the others in `_guarded`
    proved = prove_together({r.site.name: r.expected() for r in ready if r.same}, ports)
    for one in (r for r in ready if r.same or r.first or r.unwired):
        one.proof = proved.get(one.site.name, one.proof)
        step = same_again if one.same else first_time if one.first else reload_unverified
        outcomes |= _guarded([one], ports, lock, step)
    if together := [r for r in ready if r.site.name not in outcomes]:
        outcomes |= _guarded(together, ports, lock, _exchange)  # 5 to 9
    return tuple(outcomes[wanted.site.name] for wanted in batch)


# -- 5 to 9 -----------------------------------------------------------------------------------------------------------


def _exchange(ready: list[Ready], ports: Ports) -> dict[str, Outcome]:
    # 5. Apply.
    before = ports.nginx.workers()
    ports.say(f"reloading nginx for {', '.join(r.site.name for r in ready)}")
    with _Timers(ready, "apply", ports):
        applied = ports.apply({r.site.name: r.new.name for r in ready}, hup=True)
    if applied.error or applied.decision == "gone":
        return _not_applied(ready, applied, ports)
    for r in ready:
        r.uncertain = applied.uncertain

    # 6. Refused.
    if applied.decision == "refused":
        return _refused(ready, applied, before, ports)

    # 7. Prove.
    with _Timers(ready, "prove", ports):
        proof = prove(_merged(r.expected() for r in ready), before, ports, within(ports))
    for r in ready:
        r.proof = proof

    # 8. Converged.
    if proof.ok:
        return {r.site.name: rotated(r, ports) for r in ready}

    # 9. Not converged.
    silent = applied.decision == "unknown" and _has_not_begun(before, ports)
    if silent and all(_can_return(r, ports) for r in ready):
        return _refused(ready, applied, before, ports)
    return _not_converged(ready, applied, proof, ports)


def _not_applied(ready: list[Ready], applied: Applied, ports: Ports) -> dict[str, Outcome]:
    """The includes could not all be written, or there was no master to tell: what changed goes back."""
    changed = [r for r in ready if r.previous and applied.live.get(r.site.name) == r.new.name]
    if changed:
        back = ports.apply(previous_names(changed), hup=False)
        if back.error:
            words = f"{applied.message or 'nginx ended'}; then, on the way back: {back.message}"
            outcomes = {r.site.name: stranded(r, ports, reason_of(back.error), words) for r in changed}
            return outcomes | _not_applied([r for r in ready if r.site.name not in outcomes], applied, ports)
    reason: Reason | Code = Reason.NGINX_DOWN
    words, hint = (
        "nginx ended before it could be signalled; its configuration names the old pair again",
        NGINX_DOWN_HINT,
    )
    if applied.error:
        reason, words = reason_of(applied.error), f"{applied.message}. Nothing was changed"
        hint = APPLY_HINTS.get(reason, "")
    return {r.site.name: deferred(r, ports, reason, words, hint) for r in ready}


def _refused(ready: list[Ready], applied: Applied, before: Workers | None, ports: Ports) -> dict[str, Outcome]:
    """nginx goes on with its old configuration: the includes go back without a second HUP, and just that is proved.

    A master that was silent reads the old ones whenever it comes to the first HUP.
    """
    silent = applied.decision == "unknown"
    reason: Reason | Code = Reason.NGINX_SILENT if silent else Code.NGINX_REFUSED
    wired = [r for r in ready if r.previous]
    expected = _merged(r.expected_before() for r in wired)
    with _Timers(ready, "rollback", ports):
        back = ports.apply(previous_names(wired), hup=False) if wired else applied
        proof = unchanged(expected, before, ports) if before else prove(expected, before, ports, 0.0)
        proofs = {r.site.name: proof for r in ready}
        if not proof.ok and not back.error:
            proofs |= _apply_previous(wired, ports)  # somebody else reloaded meanwhile; a reload settles it
    outcomes: dict[str, Outcome] = {}
    guilty = {r.site.name for r in ready if is_named(r, applied, ports)}
    for r in ready:
        r.proof = proofs[r.site.name]
        if back.error or not r.proof.ok:
            why = back.message or "; ".join(r.proof.reasons)
            outcomes[r.site.name] = stranded(r, ports, reason, why, applied.words)
        elif r.site.name in guilty:
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, refusal(applied))
            outcomes[r.site.name] = rejected(r, (*r.problems, problem), ports, applied.words)
        elif guilty:
            outcomes |= _exchange([r], ports)  # another site of the batch was at fault
        else:
            words = f"{SILENT if silent else refusal(applied)}. The old pair is live as before"
            hint = SILENT_HINT if silent else REFUSAL_HINT
            outcomes[r.site.name] = deferred(r, ports, reason, words, hint, applied.words)
    return outcomes


def _not_converged(ready: list[Ready], applied: Applied, proof: Proof, ports: Ports) -> dict[str, Outcome]:
    """The previous generation is applied like any other, and proved; unless it would be refused by now."""
    why = "; ".join(proof.reasons) or "it was not proved in time"
    outcomes = {r.site.name: _stays(r, proof, why, ports) for r in ready if not _can_return(r, ports)}
    back = [r for r in ready if r.site.name not in outcomes]
    if not back:
        return outcomes
    ports.say("not proved in time: putting the previous pair back")
    with _Timers(back, "rollback", ports):
        proofs = _apply_previous(back, ports)
    for r in back:
        r.proof = proofs[r.site.name]
        if not r.proof.ok:
            words = f"{why}; then, with the old pair: {'; '.join(r.proof.reasons)}"
            outcomes[r.site.name] = stranded(r, ports, Reason.ROLLBACK_FAILED, words, applied.words)
        elif len(ready) > 1:
            outcomes |= _exchange([r], ports)  # one bad site must not hold up the others
        else:
            words = f"{r.new.name} was not proved: {why}. The old pair is back and proved on every listener"
            outcomes[r.site.name] = outcome(
                r, Result.ROLLED_BACK, ports, Reason.NOT_PROVED, words, ROLLED_BACK_HINT, words=applied.words
            )
    return outcomes


def _stays(ready: Ready, proof: Proof, why: str, ports: Ports) -> Outcome:
    """Never back to a pair that would be refused now; the new one stays, and nobody is told that it was proved."""
    if not any(target.site == ready.site.name for target in proof.seen):
        words = f"{why}; {ready.new.name} stays named all the same, as the previous pair is not fit any more"
        return stranded(ready, ports, Reason.NOT_PROVED, words)
    late = tuple(str(t) for t in ready.expected() if t not in proof.seen) or proof.reasons
    words = f"{ready.new.name} stays, though not proved everywhere ({why}): the previous pair is not fit any more"
    return outcome(ready, Result.ROTATED, ports, Reason.UNPROVED, words, ROLLED_BACK_HINT, unproved=late)


def _apply_previous(ready: list[Ready], ports: Ports) -> dict[str, Proof]:
    """Rollback is the same call in the other direction. One site that cannot be proved does not speak for the others.

    A master that refuses this reload too has no other one on its way: what its workers show then is what they keep.
    """
    before, left = ports.nginx.workers(), within(ports)
    applied = ports.apply(previous_names(ready), hup=True)
    if applied.error:
        return {r.site.name: Proof(ok=False, reasons=(applied.message,)) for r in ready}
    if applied.decision in ("refused", "gone"):
        before, left = NO_RELOAD, 0.0
    proof = prove(_merged(r.expected_before() for r in ready), before, ports, left)
    proofs = {r.site.name: proof for r in ready}
    if len(ready) > 1 and not proof.ok:
        good = [r for r in ready if proof.seen.issuperset(r.expected_before())]
        proofs |= {r.site.name: prove(r.expected_before(), before, ports, 0.0) for r in good}
    if applied.decision == "refused":
        told = refusal(applied)
        proofs = {s: p if p.ok else replace(p, reasons=(told, *p.reasons)) for s, p in proofs.items()}
    return proofs


def _has_not_begun(before: Workers | None, ports: Ports) -> bool:
    """Whether a reload has changed nothing: then the new pair was not tried, and nothing speaks against it."""
    look = ports.nginx.workers()
    return look is not None and before is not None and (look.master, look.active) == (before.master, before.active)


def _can_return(ready: Ready, ports: Ports) -> bool:
    return ready.previous is not None and fit_to_return(ready.previous, ready.wanted, ports)


# -- what is live already, and the first time -------------------------------------------------------------------------


# -- small things -----------------------------------------------------------------------------------------------------


def _guarded(ready: list[Ready], ports: Ports, lock: Lock, step: _Step) -> dict[str, Outcome]:
    """Runs a step that changes what nginx reads, noted in the lock for whoever comes after a crash.

    The history has the outcome before the note is taken back: no crash leaves a pair live that no entry tells of. The
    note stays where nobody knows what nginx serves: after a crash or Ctrl-C, of a site that is stranded, and where
    nginx ended. Then the next holder recovers.
    """
    try:
        lock.begin([*lock.in_flight, *(r.site.name for r in ready)])
    except RotatorError as e:
        outcomes = {r.site.name: deferred_by(e, r.wanted, ports) for r in ready}
        return _written_down(outcomes, (r.wanted for r in ready), ports)
    try:
        outcomes = step(ready, ports)
    except RotatorError as e:
        outcomes = {r.site.name: stranded(r, ports, e.code, e.message) for r in ready}
    _written_down(outcomes, (r.wanted for r in ready), ports)
    try:
        lock.settled(
            [s for s, o in outcomes.items() if o.result is not Result.STRANDED and o.reason != Reason.NGINX_DOWN]
        )
    except RotatorError as e:
        ports.say(f"the lock's note could not be taken back, so the next command proves the same again: {e.message}")
    return outcomes


def _written_down(outcomes: dict[str, Outcome], batch: Iterable[Wanted], ports: Ports) -> dict[str, Outcome]:
    for wanted in batch:
        write_down(wanted, outcomes[wanted.site.name], ports)
    return outcomes


def _merged(parts: Iterable[Mapping[Target, tuple[bytes, ...]]]) -> dict[Target, tuple[bytes, ...]]:
    return {target: chain for part in parts for target, chain in part.items()}


class _Timers:
    """A `Timer` for each site of a batch."""

    def __init__(self, ready: list[Ready], stage: str, ports: Ports) -> None:
        self._timers = [Timer(r, stage, ports.clock) for r in ready]

    def __enter__(self) -> None:
        for timer in self._timers:
            timer.__enter__()

    def __exit__(self, *why: object) -> None:
        for timer in self._timers:
            timer.__exit__(None, None, None)


_Step = Callable[[list[Ready], Ports], dict[str, Outcome]]
