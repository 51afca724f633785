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

from rotator.apply import Applied, copies_path
from rotator.errors import RotatorError
from rotator.hands import Hands
from rotator.model import Code, Generation, Outcome, Problem, Result, Severity, Target, Workers
from rotator.outcome import (
    APPLY_HINTS,
    REFUSAL_HINT,
    ROLLED_BACK_HINT,
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
from rotator.prepare import Stop, Timer, prepare, targets
from rotator.proof import Proof, deadline, differs, expectation, prove, unchanged
from rotator.store import Lock
from rotator.trust import judge_chains

NO_RELOAD = Workers(master=1)
"""The workers of before, for a proof that follows no reload: none of them has to go."""


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
    for one in (r for r in ready if r.same or r.wanted.first):
        outcomes |= _guarded([one], hands, lock, _same_again if one.same else _first_time)
    if together := [r for r in ready if r.site.name not in outcomes]:
        outcomes |= _guarded(together, hands, lock, _exchange)  # 5 to 9
    for wanted in batch:
        write_down(wanted, outcomes[wanted.site.name], hands)
    return tuple(outcomes[wanted.site.name] for wanted in batch)


def plan(wanted: Wanted, hands: Hands) -> Outcome:
    """What `rotate` would do, without doing it: the pair is judged, the listeners and nginx are asked.

    Returns:
        The outcome that would end it before anything changes, or one with the reason `would-rotate`.
    """
    try:
        ready = prepare(wanted, hands, dry=True)
    except Stop as stop:
        return stop.outcome
    except RotatorError as e:
        return deferred_by(e, wanted, hands)
    proofs = ", ".join(map(str, targets(ready)))
    if ready.same:
        message = f"{ready.new.name} is this very pair and live already; a swap would prove it: {proofs}"
    elif wanted.first:
        message = f"the pair is fit; a swap would store it and name it in {ready.site.name}.conf, without a reload"
    else:
        step = f"store it, name it in {ready.site.name}.conf, send nginx one HUP"
        message = f"the pair is fit; a swap would {step} and prove: {proofs}"
    return outcome(ready, Result.UNCHANGED, hands, "would-rotate", message)


def write_down(wanted: Wanted, done: Outcome, hands: Hands) -> None:
    """The history, and the store's upkeep. What nginx serves is decided by then: a failure here is said, not raised."""
    try:
        hands.store.record(done, who=wanted.who, trigger=wanted.trigger)
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
    return _not_converged(ready, applied, proof, hands)


def _not_applied(ready: list[Ready], applied: Applied, hands: Hands) -> dict[str, Outcome]:
    """The includes could not all be written, or there was no master to tell: what changed goes back."""
    changed = [r for r in ready if r.previous and applied.live.get(r.site.name) == r.new.name]
    if changed:
        back = hands.apply(_previous(changed), hup=False)
        if back.error:
            return {r.site.name: stranded(r, hands, back.error, back.message) for r in ready}
    reason, words = applied.error, f"{applied.message}. Nothing was changed"
    hint = APPLY_HINTS.get(applied.error, "")
    if not applied.error:
        reason, hint = "nginx-down", "start nginx, then repeat the swap"
        words = "nginx ended before it could be told; its configuration names the old pair again"
    return {r.site.name: deferred(r, hands, reason, words, hint) for r in ready}


def _refused(ready: list[Ready], applied: Applied, before: Workers | None, hands: Hands) -> dict[str, Outcome]:
    """nginx goes on with its old configuration: the includes go back without a second HUP, and just that is proved."""
    wired = [r for r in ready if r.previous]
    expected = _merged(r.expected_before() for r in wired)
    with _Timers(ready, "rollback", hands):
        back = hands.apply(_previous(wired), hup=False) if wired else applied
        proof = unchanged(expected, before, hands) if before else prove(expected, before, hands, 0.0)
        if not proof.ok and not back.error:
            proof = _apply_previous(wired, hands)  # somebody else reloaded meanwhile; a reload settles it
    if back.error or not proof.ok:
        why = back.message or "; ".join(proof.reasons)
        return {r.site.name: stranded(r, hands, "nginx-refused", why, applied.words) for r in ready}
    outcomes: dict[str, Outcome] = {}
    guilty = {r.site.name for r in ready if any(_names_copy(r, word, hands) for word in applied.words)}
    for r in ready:
        r.proof = proof
        if r.site.name in guilty:
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, refusal(applied))
            outcomes[r.site.name] = rejected(r, (*r.problems, problem), hands, applied.words)
        elif guilty:
            outcomes |= _exchange([r], hands)  # another site of the batch was at fault
        else:
            words = f"{refusal(applied)}. The old pair is live as before"
            outcomes[r.site.name] = deferred(r, hands, "nginx-refused", words, REFUSAL_HINT, applied.words)
    return outcomes


def _not_converged(ready: list[Ready], applied: Applied, proof: Proof, hands: Hands) -> dict[str, Outcome]:
    """The previous generation is applied like any other, and proved; unless it would be refused by now."""
    outcomes: dict[str, Outcome] = {}
    why = "; ".join(proof.reasons) or "it was not proved in time"
    stay = [r for r in ready if _must_stay(r, proof, hands)]
    for r in stay:
        late = tuple(str(t) for t in r.expected() if t not in proof.seen)
        words = f"{r.new.name} stays, though not proved everywhere ({why}): the previous pair is not fit any more"
        outcomes[r.site.name] = outcome(r, Result.ROTATED, hands, "unproved", words, ROLLED_BACK_HINT, unproved=late)
    back = [r for r in ready if r not in stay]
    if not back:
        return outcomes
    hands.say("not proved in time: putting the previous pair back")
    with _Timers(back, "rollback", hands):
        previous = _apply_previous(back, hands)
    for r in back:
        r.proof = previous
        if not previous.ok:
            words = f"{why}; then, with the old pair: {'; '.join(previous.reasons)}"
            outcomes[r.site.name] = stranded(r, hands, "rollback-failed", words, applied.words)
        elif len(ready) > 1:
            outcomes |= _exchange([r], hands)  # one bad site must not hold up the others
        else:
            words = f"{r.new.name} was not proved: {why}. The old pair is back and proved on every listener"
            outcomes[r.site.name] = outcome(
                r, Result.ROLLED_BACK, hands, "not-proved", words, ROLLED_BACK_HINT, words=applied.words
            )
    return outcomes


def _apply_previous(ready: list[Ready], hands: Hands) -> Proof:
    """Rollback is the same call in the other direction."""
    before = hands.nginx.workers()
    applied = hands.apply(_previous(ready), hup=True)
    if applied.error:
        return Proof(ok=False, reasons=(applied.message,))
    if applied.decision in ("refused", "gone"):
        return Proof(ok=False, reasons=(refusal(applied) if applied.words else "nginx is not running",))
    return prove(_merged(r.expected_before() for r in ready), before, hands, within(hands))


def _must_stay(ready: Ready, proof: Proof, hands: Hands) -> bool:
    """Never back to a pair that would be refused now while the new one is fit and served somewhere."""
    if ready.previous is None:
        return True
    served = any(t.site == ready.site.name for t in proof.seen)
    return served and not fit_to_return(ready.previous, ready.wanted, hands)


def fit_to_return(generation: Generation, wanted: Wanted, hands: Hands) -> bool:
    """Whether a stored generation would be accepted now, so that it may be put back."""
    chains = tuple(generation.chains.values())
    problems = judge_chains(chains, wanted.site.policy, wanted.anchors, hands.clock.now())
    return not any(p.severity is Severity.REJECT for p in problems)


def _rotated(ready: Ready, hands: Hands) -> Outcome:
    hands.store.mark_verified(ready.site.name, ready.new.name)
    late = _exempt_and_late(ready, hands)
    words = f"{ready.new.name} is served by every listener"
    if late:
        words = f"{ready.new.name} is served, but these listeners did not serve the old pair either and are not proved"
    return outcome(ready, Result.ROTATED, hands, "rotated", words, unproved=late)


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
    with Timer(one, "prove", hands.clock):
        one.proof = prove(one.expected(), NO_RELOAD, hands, 0.0)
    if one.proof.ok and one.verified == name:
        words = f"{name} is this very pair: it is live, and every listener serves it"
        return {one.site.name: outcome(one, Result.UNCHANGED, hands, "same", words)}
    if one.proof.ok:
        hands.store.mark_verified(one.site.name, name)
        words = f"{name} was live already; now every listener was seen serving it"
        return {one.site.name: outcome(one, Result.ROTATED, hands, "proved", words)}
    workers = hands.nginx.workers()
    if workers is not None and workers.master is None:
        return {
            one.site.name: deferred(
                one, hands, "nginx-down", f"{name} is live, but nginx is not running", "start nginx"
            )
        }
    if not one.verified and not one.wanted.first:
        return _reload_unverified(one, hands)
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


def _reload_unverified(one: Ready, hands: Hands) -> dict[str, Outcome]:
    """A pair that is named but never was proved: a reload may be all it takes; there is nothing to go back to."""
    before = hands.nginx.workers()
    hands.say(f"reloading nginx for {one.site.name}")
    with Timer(one, "apply", hands.clock):
        applied = hands.apply({one.site.name: one.new.name}, hup=True)
    if applied.error:
        done = deferred(one, hands, applied.error, applied.message, APPLY_HINTS.get(applied.error, ""))
    elif applied.decision == "refused":
        done = deferred(one, hands, "nginx-refused", refusal(applied), REFUSAL_HINT, applied.words)
    else:
        with Timer(one, "prove", hands.clock):
            one.proof = prove(one.expected(), before, hands, within(hands))
        done = _rotated(one, hands) if one.proof.ok else not_wired(one, hands)
    return {one.site.name: done}


def _first_time(ready: list[Ready], hands: Hands) -> dict[str, Outcome]:
    """Stores and names the pair without a reload: nginx's own configuration has to name the include first.

    An include that did not stand there before cannot have been read yet, so a handshake that shows this very pair shows
    the files that nginx was given by others, and proves nothing.
    """
    (one,) = ready
    applied = hands.apply({one.site.name: one.new.name}, hup=False)
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
    return deadline(hands.prove_within, hands.store.last_reload_seconds())


def _guarded(ready: list[Ready], hands: Hands, lock: Lock, step: _Step) -> dict[str, Outcome]:
    """Runs a step that changes what nginx reads, noted in the lock for whoever comes after a crash."""
    names = [r.site.name for r in ready]
    lock.begin(names)
    try:
        outcomes = step(ready, hands)
    except RotatorError as e:
        outcomes = {r.site.name: stranded(r, hands, e.code, e.message) for r in ready}
    lock.settled(names)  # not after a crash or Ctrl-C: then the note stays, and the next holder recovers
    return outcomes


def _previous(ready: Iterable[Ready]) -> dict[str, str]:
    return {r.site.name: r.previous.name for r in ready if r.previous}


def _merged(parts: Iterable[Mapping[Target, tuple[bytes, ...]]]) -> dict[Target, tuple[bytes, ...]]:
    return {target: chain for part in parts for target, chain in part.items()}


def _names_copy(ready: Ready, word: str, hands: Hands) -> bool:
    """Whether nginx's words name a file of this site's new generation."""
    return copies_path(hands.include_dir, ready.site.name, ready.new.name) in word


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
