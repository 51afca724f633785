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

from rotator.apply import Applied, copies_path
from rotator.errors import RotatorError
from rotator.hands import Hands
from rotator.locks import Lock
from rotator.model import Code, Generation, Outcome, Problem, Result, Severity, Target, Workers
from rotator.outcome import (
    APPLY_HINTS,
    NGINX_DOWN_HINT,
    REFUSAL_HINT,
    ROLLED_BACK_HINT,
    SILENT,
    SILENT_HINT,
    WIRED_HINT,
    Ready,
    Wanted,
    deferred,
    deferred_by,
    not_wired,
    outcome,
    refusal,
    rejected,
    stranded,
)
from rotator.prepare import Stop, Timer, prepare
from rotator.proof import NO_RELOAD, Proof, deadline, differs, expectation, prove, prove_together, unchanged
from rotator.trust import judge_chains


def rotate(batch: Sequence[Wanted], hands: Hands, lock: Lock) -> tuple[Outcome, ...]:
    """Puts what is wanted live, all sites with one reload, and proves it; or leaves, or puts back, what was live.

    Args:
        batch: at most one for each site.
        hands: the world.
        lock: the held rotation lock; what its last holder left in flight must be recovered first (`recover`).

    Returns:
        One outcome for each wanted, in their order. Each stands in the history already.
    """
    outcomes: dict[str, Outcome] = {}
    ready: list[Ready] = []
    for wanted in batch:
        try:
            ready.append(prepare(wanted, hands))  # 1 to 4
        except Stop as stop:
            outcomes[wanted.site.name] = stop.outcome
        except RotatorError as e:
            outcomes[wanted.site.name] = deferred_by(e, wanted, hands)
    _written_down(outcomes, (w for w in batch if w.site.name in outcomes), hands)  # the others in `_guarded`
    proved = prove_together({r.site.name: r.expected() for r in ready if r.same}, hands)
    for one in (r for r in ready if r.same or r.first or r.unwired):
        one.proof = proved.get(one.site.name, one.proof)
        step = _same_again if one.same else _first_time if one.first else _reload_unverified
        outcomes |= _guarded([one], hands, lock, step)
    if together := [r for r in ready if r.site.name not in outcomes]:
        outcomes |= _guarded(together, hands, lock, _exchange)  # 5 to 9
    return tuple(outcomes[wanted.site.name] for wanted in batch)


def write_down(wanted: Wanted, done: Outcome, hands: Hands) -> None:
    """The history, and the store's upkeep. What nginx serves is decided by then: a failure here is said, not raised.

    An entry with the date of a clock that is not believed is not made: the next look would believe it.
    """
    if done.reason == "clock-suspect":
        return
    try:
        told = hands.store.fingerprints(done.site, done.generation or done.live)
        hands.history.record(done, who=wanted.who, trigger=wanted.trigger, fingerprints=told)
        if done.result is Result.ROTATED:
            protect = frozenset({done.live, done.previous, hands.store.verified(done.site)})
            hands.store.prune(done.site, wanted.site.keep, protect)
    except RotatorError as e:
        hands.say(f"the outcome could not be written down: {e.message}")


# -- 5 to 9 -----------------------------------------------------------------------------------------------------------


def _exchange(ready: list[Ready], hands: Hands) -> dict[str, Outcome]:
    # 5. Apply.
    before = hands.nginx.workers()
    hands.say(f"reloading nginx for {', '.join(r.site.name for r in ready)}")
    with _Timers(ready, "apply", hands):
        applied = hands.apply({r.site.name: r.new.name for r in ready}, hup=True)
    if applied.error or applied.decision == "gone":
        return _not_applied(ready, applied, hands)
    for r in ready:
        r.uncertain = applied.uncertain

    # 6. Refused.
    if applied.decision == "refused":
        return _refused(ready, applied, before, hands)

    # 7. Prove.
    with _Timers(ready, "prove", hands):
        proof = prove(_merged(r.expected() for r in ready), before, hands, within(hands))
    for r in ready:
        r.proof = proof

    # 8. Converged.
    if proof.ok:
        return {r.site.name: _rotated(r, hands) for r in ready}

    # 9. Not converged.
    silent = applied.decision == "unknown" and _has_not_begun(before, hands)
    if silent and all(_can_return(r, hands) for r in ready):
        return _refused(ready, applied, before, hands)
    return _not_converged(ready, applied, proof, hands)


def _not_applied(ready: list[Ready], applied: Applied, hands: Hands) -> dict[str, Outcome]:
    """The includes could not all be written, or there was no master to tell: what changed goes back."""
    changed = [r for r in ready if r.previous and applied.live.get(r.site.name) == r.new.name]
    if changed:
        back = hands.apply(_previous(changed), hup=False)
        if back.error:
            words = f"{applied.message or 'nginx ended'}; then, on the way back: {back.message}"
            outcomes = {r.site.name: stranded(r, hands, back.error, words) for r in changed}
            return outcomes | _not_applied([r for r in ready if r.site.name not in outcomes], applied, hands)
    reason, words = applied.error, f"{applied.message}. Nothing was changed"
    hint = APPLY_HINTS.get(applied.error, "")
    if not applied.error:
        reason, hint = "nginx-down", NGINX_DOWN_HINT
        words = "nginx ended before it could be told; its configuration names the old pair again"
    return {r.site.name: deferred(r, hands, reason, words, hint) for r in ready}


def _refused(ready: list[Ready], applied: Applied, before: Workers | None, hands: Hands) -> dict[str, Outcome]:
    """nginx goes on with its old configuration: the includes go back without a second HUP, and just that is proved.

    A master that was silent reads the old ones whenever it comes to the first HUP.
    """
    silent = applied.decision == "unknown"
    reason = "nginx-silent" if silent else "nginx-refused"
    wired = [r for r in ready if r.previous]
    expected = _merged(r.expected_before() for r in wired)
    with _Timers(ready, "rollback", hands):
        back = hands.apply(_previous(wired), hup=False) if wired else applied
        proof = unchanged(expected, before, hands) if before else prove(expected, before, hands, 0.0)
        proofs = {r.site.name: proof for r in ready}
        if not proof.ok and not back.error:
            proofs |= _apply_previous(wired, hands)  # somebody else reloaded meanwhile; a reload settles it
    outcomes: dict[str, Outcome] = {}
    guilty = {r.site.name for r in ready if _is_named(r, applied, hands)}
    for r in ready:
        r.proof = proofs[r.site.name]
        if back.error or not r.proof.ok:
            why = back.message or "; ".join(r.proof.reasons)
            outcomes[r.site.name] = stranded(r, hands, reason, why, applied.words)
        elif r.site.name in guilty:
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, refusal(applied))
            outcomes[r.site.name] = rejected(r, (*r.problems, problem), hands, applied.words)
        elif guilty:
            outcomes |= _exchange([r], hands)  # another site of the batch was at fault
        else:
            words = f"{SILENT if silent else refusal(applied)}. The old pair is live as before"
            hint = SILENT_HINT if silent else REFUSAL_HINT
            outcomes[r.site.name] = deferred(r, hands, reason, words, hint, applied.words)
    return outcomes


def _not_converged(ready: list[Ready], applied: Applied, proof: Proof, hands: Hands) -> dict[str, Outcome]:
    """The previous generation is applied like any other, and proved; unless it would be refused by now."""
    why = "; ".join(proof.reasons) or "it was not proved in time"
    outcomes = {r.site.name: _stays(r, proof, why, hands) for r in ready if not _can_return(r, hands)}
    back = [r for r in ready if r.site.name not in outcomes]
    if not back:
        return outcomes
    hands.say("not proved in time: putting the previous pair back")
    with _Timers(back, "rollback", hands):
        proofs = _apply_previous(back, hands)
    for r in back:
        r.proof = proofs[r.site.name]
        if not r.proof.ok:
            words = f"{why}; then, with the old pair: {'; '.join(r.proof.reasons)}"
            outcomes[r.site.name] = stranded(r, hands, "rollback-failed", words, applied.words)
        elif len(ready) > 1:
            outcomes |= _exchange([r], hands)  # one bad site must not hold up the others
        else:
            words = f"{r.new.name} was not proved: {why}. The old pair is back and proved on every listener"
            outcomes[r.site.name] = outcome(
                r, Result.ROLLED_BACK, hands, "not-proved", words, ROLLED_BACK_HINT, words=applied.words
            )
    return outcomes


def _stays(ready: Ready, proof: Proof, why: str, hands: Hands) -> Outcome:
    """Never back to a pair that would be refused now; the new one stays, and nobody is told that it was proved."""
    if not any(target.site == ready.site.name for target in proof.seen):
        words = f"{why}; {ready.new.name} stays named all the same, as the previous pair is not fit any more"
        return stranded(ready, hands, "not-proved", words)
    late = tuple(str(t) for t in ready.expected() if t not in proof.seen) or proof.reasons
    words = f"{ready.new.name} stays, though not proved everywhere ({why}): the previous pair is not fit any more"
    return outcome(ready, Result.ROTATED, hands, "unproved", words, ROLLED_BACK_HINT, unproved=late)


def _apply_previous(ready: list[Ready], hands: Hands) -> dict[str, Proof]:
    """Rollback is the same call in the other direction. One site that cannot be proved does not speak for the others.

    A master that refuses this reload too has no other one on its way: what its workers show then is what they keep.
    """
    before, left = hands.nginx.workers(), within(hands)
    applied = hands.apply(_previous(ready), hup=True)
    if applied.error:
        return {r.site.name: Proof(ok=False, reasons=(applied.message,)) for r in ready}
    if applied.decision in ("refused", "gone"):
        before, left = NO_RELOAD, 0.0
    proof = prove(_merged(r.expected_before() for r in ready), before, hands, left)
    proofs = {r.site.name: proof for r in ready}
    if len(ready) > 1 and not proof.ok:
        good = [r for r in ready if proof.seen.issuperset(r.expected_before())]
        proofs |= {r.site.name: prove(r.expected_before(), before, hands, 0.0) for r in good}
    if applied.decision == "refused":
        told = refusal(applied)
        proofs = {s: p if p.ok else replace(p, reasons=(told, *p.reasons)) for s, p in proofs.items()}
    return proofs


def _has_not_begun(before: Workers | None, hands: Hands) -> bool:
    """Whether a reload has changed nothing: then the new pair was not tried, and nothing speaks against it."""
    look = hands.nginx.workers()
    return look is not None and before is not None and (look.master, look.active) == (before.master, before.active)


def _can_return(ready: Ready, hands: Hands) -> bool:
    return ready.previous is not None and fit_to_return(ready.previous, ready.wanted, hands)


def fit_to_return(generation: Generation, wanted: Wanted, hands: Hands) -> bool:
    """Whether a stored generation would be accepted now, so that it may be put back."""
    chains = tuple(generation.chains.values())
    problems = judge_chains(chains, wanted.site.policy, wanted.anchors, hands.clock.now())
    return not any(p.severity is Severity.REJECT for p in problems)


def noted(ready: Ready, hands: Hands) -> str:
    """Notes that the new generation was proved, which no full disk makes untrue; words to add where that failed."""
    words = "; the disk did not confirm that its include names it, which may not survive a power cut"
    told = words if ready.uncertain else ""
    try:
        hands.store.mark_verified(ready.site.name, ready.new.name)
    except RotatorError as e:
        told += f"; this could not be noted, and is proved again by the next command ({e.message})"
    return told


def _rotated(ready: Ready, hands: Hands) -> Outcome:
    told = noted(ready, hands)
    late = _exempt_and_late(ready, hands)
    words = f"{ready.new.name} is served by every listener"
    if late:
        words = f"{ready.new.name} is served, but these listeners did not serve the old pair either and are not proved"
    return outcome(ready, Result.ROTATED, hands, "rotated", words + told, unproved=late)


def _exempt_and_late(ready: Ready, hands: Hands) -> tuple[str, ...]:
    """Exempt targets that do not show the new chain even now, in words."""
    every = expectation(ready.site, ready.new)
    asked = {t: chain for t, chain in every.items() if (t.listener, t.name) in ready.exempt}
    served = hands.probe(tuple(asked), 1.0) if asked else ()
    return tuple(f"{s.target}: {differs(s, asked[s.target])}" for s in served if s.chain != asked[s.target])


# -- what is live already, and the first time -------------------------------------------------------------------------


def _same_again(ready: list[Ready], hands: Hands) -> dict[str, Outcome]:
    """What is wanted is live already: prove it; only a pair that never was proved is worth a reload."""
    (one,) = ready
    name = one.new.name
    if not one.proof.ok:
        with Timer(one, "prove", hands.clock):
            one.proof = prove(one.expected(), NO_RELOAD, hands, 0.0)
    if one.proof.ok and one.verified == name:
        words = f"{name} is this very pair: it is live, and every listener serves it"
        return {one.site.name: outcome(one, Result.UNCHANGED, hands, "same", words)}
    if one.proof.ok and one.first and one.wanted.trigger == "swap":  # whoever says so has not wired it yet
        return {one.site.name: not_wired(one, hands)}
    if one.proof.ok:
        words = f"{name} was live already; now every listener was seen serving it{noted(one, hands)}"
        hint = "" if one.verified else WIRED_HINT.format(include=f"{hands.include_dir}/{one.site.name}.conf")
        return {one.site.name: outcome(one, Result.ROTATED, hands, "proved", words, hint)}
    workers = hands.nginx.workers()
    if workers is not None and workers.master is None:
        return {
            one.site.name: deferred(
                one, hands, "nginx-down", f"{name} is live, but nginx is not running", NGINX_DOWN_HINT
            )
        }
    if one.verified != name and not one.first:
        return _reload_unverified(ready, hands)
    if not one.verified:
        return {one.site.name: not_wired(one, hands)}
    return {
        one.site.name: deferred(
            one,
            hands,
            "listener",
            f"{name} is this very pair and live, but not every listener serves it: {'; '.join(one.proof.reasons)}",
            "see that the server block includes the site's file, then reload nginx; `rotator status` shows each one",
        )
    }


def _reload_unverified(ready: list[Ready], hands: Hands) -> dict[str, Outcome]:
    """Nothing was proved before, so there is nothing to go back to; a reload may be all that the new pair takes."""
    (one,) = ready
    before = hands.nginx.workers()
    hands.say(f"reloading nginx for {one.site.name}")
    with Timer(one, "apply", hands.clock):
        applied = hands.apply({one.site.name: one.new.name}, hup=True)
    one.uncertain = applied.uncertain
    if applied.error:
        done = deferred(one, hands, applied.error, applied.message, APPLY_HINTS.get(applied.error, ""))
    elif applied.decision == "gone":
        words = f"nginx ended before it could be told; it reads {one.new.name} when it starts"
        done = deferred(one, hands, "nginx-down", words, "Start nginx")
    elif applied.decision == "refused":
        done = _refused_unverified(one, applied, hands)
    else:
        with Timer(one, "prove", hands.clock):
            one.proof = prove(one.expected(), before, hands, within(hands))
        done = _rotated(one, hands) if one.proof.ok else not_wired(one, hands)
    return {one.site.name: done}


def _refused_unverified(one: Ready, applied: Applied, hands: Hands) -> Outcome:
    """nginx would not start with a pair that it names; the one that was named before it goes back into its place."""
    guilty = _is_named(one, applied, hands)
    if one.previous and one.previous.name != one.new.name:
        back = hands.apply(_previous([one]), hup=False)
        if back.error:
            return stranded(one, hands, back.error, f"{refusal(applied)}; {back.message}", applied.words)
        if guilty:
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, refusal(applied))
            return rejected(one, (*one.problems, problem), hands, applied.words)
    hint = f"Install another pair: rotator swap {one.site.name} --cert FILE --key FILE" if guilty else REFUSAL_HINT
    return deferred(one, hands, "nginx-refused", refusal(applied), hint, applied.words)


def _first_time(ready: list[Ready], hands: Hands) -> dict[str, Outcome]:
    """Stores and names the pair without a reload: nginx's own configuration has to name the include first.

    An include that did not stand there before cannot have been read yet, so a handshake that shows this very pair shows
    the files that nginx was given by others, and proves nothing.
    """
    (one,) = ready
    applied = hands.apply({one.site.name: one.new.name}, hup=False)
    one.uncertain = applied.uncertain
    if applied.error:
        hint = APPLY_HINTS.get(applied.error, "")
        return {one.site.name: deferred(one, hands, applied.error, applied.message, hint)}
    with Timer(one, "prove", hands.clock):
        one.proof = prove(one.expected(), NO_RELOAD, hands, 0.0)
    read = one.proof.ok and one.previous is not None
    return {one.site.name: _rotated(one, hands) if read else not_wired(one, hands)}


# -- small things -----------------------------------------------------------------------------------------------------


def within(hands: Hands) -> float:
    """Seconds that the next proof may take."""
    return deadline(hands.prove_within, hands.history.last_reload_seconds())


def _guarded(ready: list[Ready], hands: Hands, lock: Lock, step: _Step) -> dict[str, Outcome]:
    """Runs a step that changes what nginx reads, noted in the lock for whoever comes after a crash.

    The history has the outcome before the note is taken back: no crash leaves a pair live that no entry tells of. The
    note stays where nobody knows what nginx serves: after a crash or Ctrl-C, of a site that is stranded, and where
    nginx ended. Then the next holder recovers.
    """
    try:
        lock.begin([*lock.in_flight, *(r.site.name for r in ready)])
    except RotatorError as e:
        outcomes = {r.site.name: deferred_by(e, r.wanted, hands) for r in ready}
        return _written_down(outcomes, (r.wanted for r in ready), hands)
    try:
        outcomes = step(ready, hands)
    except RotatorError as e:
        outcomes = {r.site.name: stranded(r, hands, e.code, e.message) for r in ready}
    _written_down(outcomes, (r.wanted for r in ready), hands)
    try:
        lock.settled([s for s, o in outcomes.items() if o.result is not Result.STRANDED and o.reason != "nginx-down"])
    except RotatorError as e:
        hands.say(f"the lock's note could not be taken back, so the next command proves the same again: {e.message}")
    return outcomes


def _written_down(outcomes: dict[str, Outcome], batch: Iterable[Wanted], hands: Hands) -> dict[str, Outcome]:
    for wanted in batch:
        write_down(wanted, outcomes[wanted.site.name], hands)
    return outcomes


def _previous(ready: Iterable[Ready]) -> dict[str, str]:
    return {r.site.name: r.previous.name for r in ready if r.previous}


def _merged(parts: Iterable[Mapping[Target, tuple[bytes, ...]]]) -> dict[Target, tuple[bytes, ...]]:
    return {target: chain for part in parts for target, chain in part.items()}


def _is_named(ready: Ready, applied: Applied, hands: Hands) -> bool:
    """Whether nginx's words name a file of this site's new generation."""
    ours = copies_path(hands.include_dir, ready.site.name, ready.new.name)
    return any(ours in word for word in applied.words)


class _Timers:
    """A `Timer` for each site of a batch."""

    def __init__(self, ready: list[Ready], stage: str, hands: Hands) -> None:
        self._timers = [Timer(r, stage, hands.clock) for r in ready]

    def __enter__(self) -> None:
        for timer in self._timers:
            timer.__enter__()

    def __exit__(self, *why: object) -> None:
        for timer in self._timers:
            timer.__exit__(None, None, None)


_Step = Callable[[list[Ready], Hands], dict[str, Outcome]]
