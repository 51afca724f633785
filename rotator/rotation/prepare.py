"""Steps 1 to 4 of a rotation: everything that is asked, judged and stored before the first change nginx could see."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import TracebackType

from rotator.core.errors import RotatorError
from rotator.core.lifetime import is_critical
from rotator.core.model import Generation, Outcome, Pair, Provenance, Result, Target, pairs_digest
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason
from rotator.rotation.outcomes import (
    AGAIN,
    NGINX_DOWN_HINT,
    Ready,
    Wanted,
    deferred,
    deferred_by,
    outcome,
    rejected,
    still_serves,
)
from rotator.rotation.ports import Clock, Ports
from rotator.rotation.proof import HANDSHAKE_WITHIN, differs, expectation
from rotator.rotation.validate_candidate import judged
from rotator.validation.report import explain
from rotator.validation.validate import Verdict, validate_chains

STILL_JUDGED = timedelta(seconds=1)
"""How long a verdict is as good as one of now."""
CLOCK_TOLERANCE = timedelta(hours=1)
"""How far the clock may stand before the last entry of the history."""


TEST_HINT = f"See that `command` under [nginx] runs by hand with -t, and what this host is short of; {AGAIN}"


class Stop(Exception):  # noqa: N818 - no error: a rotation that ends before it began
    """Carries the outcome of a site that goes no further."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Timer:
    """Adds the seconds of its block to a stage."""

    def __init__(self, ready: Ready, stage: str, clock: Clock) -> None:
        self._stages, self._stage, self._clock = ready.stages, stage, clock

    def __enter__(self) -> None:
        self._began = self._clock.monotonic()

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self._stages[self._stage] = self._stages.get(self._stage, 0.0) + self._clock.monotonic() - self._began


def prepare(wanted: Wanted, ports: Ports, *, dry: bool = False) -> Ready:
    """Brings one site to the point where one rename and one HUP are missing.

    Args:
        wanted: what is wanted.
        ports: the world.
        dry: ask and judge, but leave nothing in the store.

    Returns:
        The site, with its stored generation (unless `dry`), or with `same` where it is live already.

    Raises:
        Stop: it ends here; with its outcome.
        RotatorError: a hand could not do its part; nothing was changed.
    """
    ready = Ready(wanted)
    name, now = wanted.site.name, ports.clock.now()

    # 1. Look.
    if not dry:
        ports.store.sweep(name)  # what a crash left half made
    live = ports.live(name)
    if live.problem:
        hint = f"Move that file away, then: rotator swap {name} --cert FILE --key FILE --first"
        raise RotatorError(Reason.INCLUDE_FOREIGN, live.problem, hint)
    ready.previous = _load_live(wanted, live.generation, ports) if live.generation else None
    ready.verified = ports.store.verified(name)
    if not wanted.force:
        _check_clock(ready, now, ports)

    # 2. Judge.
    with Timer(ready, "validate", ports.clock):
        ready.pairs, ready.problems = _judged(ready, now, ports)
    _stop_unfit(ready, now, ports)
    if ready.previous and name_digest(ready.previous.name) == pairs_digest(ready.pairs)[:12]:
        ready.same, ready.generation = True, ready.previous
        return ready
    if not ready.previous and not ready.first:
        words = f"{name} has no pair yet that nginx's configuration names; nothing was changed"
        hint = f"The first time, add --first: rotator swap {name} --cert FILE --key FILE --first"
        raise Stop(deferred(ready, ports, Reason.NOT_WIRED, words, hint))

    # 3. Ask, before anything changes.
    _ask_nginx(ready, ports)
    _stage(ready, now, ports, dry=dry)
    return ready


def plan(wanted: Wanted, ports: Ports) -> Outcome:
    """What `rotate` would do, without doing it: the pair is judged, the listeners and nginx are asked.

    Returns:
        The outcome that would end it before anything changes, or one with the reason `would-rotate`.
    """
    try:
        ready = prepare(wanted, ports, dry=True)
    except Stop as stop:
        return stop.outcome
    except RotatorError as e:
        return deferred_by(e, wanted, ports)
    proofs = ", ".join(map(str, targets(ready)))
    if ready.same:
        message = f"{ready.new.name} is this very pair and live already; a swap would prove it: {proofs}"
    elif ready.first:
        message = f"the pair is fit; a swap would store it and name it in {ready.site.name}.conf, without a reload"
    else:
        step = f"store it, name it in {ready.site.name}.conf, send nginx one HUP"
        message = f"the pair is fit; a swap would {step} and prove: {proofs}"
    return outcome(ready, Result.UNCHANGED, ports, Reason.WOULD_ROTATE, message)


def targets(ready: Ready) -> tuple[Target, ...]:
    """What a prepared rotation has to prove."""
    if ready.generation:
        return tuple(ready.expected())
    chains = {pair.key_type: pair.chain for pair in ready.pairs}
    return tuple(expectation(ready.site, Generation(ready.site.name, "", chains)))


def name_digest(generation: str) -> str:
    """The digest in the name of a generation."""
    return generation.partition("-")[2]


def _load_live(wanted: Wanted, generation: str, ports: Ports) -> Generation | None:
    """What is live, to compare with and to go back to; None where the store has lost it and that is accepted."""
    try:
        return ports.store.load(wanted.site.name, generation)
    except RotatorError as e:
        if e.code not in (Reason.NO_GENERATION, Reason.STORE_DAMAGED):
            raise
        if wanted.first:
            return None
        words = f"nginx's include names {generation}, which the store has lost, so there is no way back: {e.message}"
        name = wanted.site.name
        hint = f"To begin anew: rotator swap {name} --cert FILE --key FILE --first, then: rotator swap {name}"
        raise RotatorError(e.code, words, hint) from e


def _stop_unfit(ready: Ready, now: datetime, ports: Ports) -> None:
    """Ends it for a pair that is refused; one that is only not valid yet is a matter of waiting."""
    bad = [p for p in ready.problems if p.severity is Severity.REJECT]
    if not bad:
        return
    if any(p.code is not Code.NOT_YET_VALID for p in bad):
        raise Stop(rejected(ready, ready.problems, ports))
    words = f"{bad[0].message.rstrip('.')}. Nothing was changed: {still_serves(ready.previous)}"
    raise Stop(outcome(ready, Result.DEFERRED, ports, bad[0].code, words, bad[0].hint))


def _judged(ready: Ready, now: datetime, ports: Ports) -> tuple[tuple[Pair, ...], tuple[Problem, ...]]:
    wanted, site = ready.wanted, ready.site
    if wanted.generation:
        pairs = ports.store.load_pairs(site.name, wanted.generation)
        return pairs, validate_chains([p.chain for p in pairs], site.policy, wanted.anchors, now)
    if wanted.candidate is not None:
        chains = tuple(ready.previous.chains.values()) if ready.previous else ()
        if verdict := _just_judged(wanted, chains, now):
            ready.stages["validate"] = wanted.judged.seconds if wanted.judged else 0.0  # the timer adds its own
        else:
            verdict = judged(wanted.candidate, wanted, ports.store, now, chains)
        ready.explanation = () if verdict.accepted else tuple(explain(verdict))
        return verdict.pairs, verdict.problems
    if ready.previous is None:
        words = "there is no new pair to install, and nginx's include names none"
        raise RotatorError(Reason.NOTHING_TO_DO, words, f"rotator swap {site.name} --cert FILE --key FILE --first")
    return ports.store.load_pairs(site.name, ready.previous.name), ()


def _just_judged(wanted: Wanted, live: tuple[tuple[bytes, ...], ...], now: datetime) -> Verdict | None:
    """A verdict of this very second on the same question."""
    judged = wanted.judged
    if judged is None or wanted.force or judged.live != live or not timedelta(0) <= now - judged.at < STILL_JUDGED:
        return None
    return judged.verdict


def _check_clock(ready: Ready, now: datetime, ports: Ports) -> None:
    """A clock that stands before what is known to have happened says nothing true about validity."""
    live = ready.previous.record.pairs if ready.previous else ()
    known = [(pair.not_before, "the live certificate is valid only from") for pair in live]
    if last := ports.history.last_entry_at():
        known.append((last - CLOCK_TOLERANCE, "something was written down an hour after"))
    for when, what in known:
        if now < when:
            raise RotatorError(
                Reason.CLOCK_SUSPECT,
                f"the clock says {now:%Y-%m-%d %H:%M} UTC, but {what} {when:%Y-%m-%d %H:%M} UTC",
                "Set the clock (timedatectl); no verdict about validity is acted on until then. If it is right now "
                f"and was ahead before: rotator swap {ready.site.name} --force",
            )


def _ask_nginx(ready: Ready, ports: Ports) -> None:
    """Defers if no reload could succeed now. The first include is written without nginx's help."""
    workers = ports.nginx.workers()
    if workers is None or ready.first:
        return
    if workers.upgrading:
        raise RotatorError(
            Reason.NGINX_UPGRADE,
            "a binary upgrade of nginx is in flight: a reload would reach its new master only",
            f"Finish it (QUIT to the old master) or take it back; {AGAIN}",
        )
    if workers.master is None:
        words = "nginx is not running (its pid file names no master), so nothing could be proved"
        raise RotatorError(Reason.NGINX_DOWN, words, NGINX_DOWN_HINT)


def _stage(ready: Ready, now: datetime, ports: Ports, *, dry: bool) -> None:
    """Step 4, with the questions to nginx and the listeners running side by side."""
    clock = ports.clock
    provenance = Provenance(ready.wanted.origin, ready.wanted.who, now)
    with Timer(ready, "store", clock):
        staged = ports.store.stage(ready.site.name, ready.pairs, provenance)
    try:
        with Timer(ready, "test", clock):
            pending = ports.nginx.test_candidate(staged.path, staged.files)
            try:
                _ask_listeners(ready, ports)
                _rehearse(ready, ports)
                if not dry:
                    staged.flush()
            finally:
                verdict = pending.verdict()  # never leaves the process behind
        if not verdict.ok:
            words = "; ".join(verdict.words) or "it gives no reason"
            if not any(name in word for word in verdict.words for pair in staged.files for name in pair):
                raise RotatorError(Reason.NGINX_TEST, f"nginx could not test the pair alone: {words}", TEST_HINT)
            told = f"this nginx does not take the pair, tested alone: {words}"
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, told)
            raise Stop(rejected(ready, (*ready.problems, problem), ports, verdict.words))
        if not dry:
            with Timer(ready, "store", clock):
                ready.generation = staged.commit()
    finally:
        if ready.generation is None:
            staged.discard()


def _ask_listeners(ready: Ready, ports: Ports) -> None:
    """Defers if a listener does not serve the live pair now.

    No veto has a listener where the live certificate is in its critical rest, or where the way is back, and may show
    already what it goes back to. A live pair that was never proved, and is not served, was never wired.
    """
    if ready.previous is None or ready.first:
        return
    expected = expectation(ready.site, ready.previous)
    served = ports.probe(tuple(expected), HANDSHAKE_WITHIN)
    back = {pair.chain for pair in ready.pairs} if ready.wanted.generation else set()
    bad = {s.target: differs(s, expected[s.target]) for s in served if s.chain not in {expected[s.target], *back}}
    ready.unwired = bool(bad) and not ready.verified
    if not bad or ready.unwired:
        return
    now = ports.clock.now()
    pairs = ready.previous.record.pairs
    critical = any(is_critical(pair.not_before, pair.effective_not_after, now) for pair in pairs)
    exempt = frozenset((target.listener, target.name) for target in bad)
    if (critical or ready.wanted.generation) and exempt != {(t.listener, t.name) for t in expected}:
        ready.exempt = exempt
        return
    told = "; ".join(f"{target} {words}" for target, words in bad.items())
    raise Stop(
        outcome(
            ready,
            Result.DEFERRED,
            ports,
            Reason.LISTENER,
            f"not every listener serves the live pair, before anything was changed: {told}",
            f"see that nginx listens there and that the server block has `include {ports.include_dir}/"
            f"{ready.site.name}.conf;` (then reload nginx), or correct the site's `listeners` and `names`; "
            f"{AGAIN}",
        )
    )


def _rehearse(ready: Ready, ports: Ports) -> None:
    for pair in ready.pairs:
        why = ports.rehearse(pair, (ready.site.probe_names or ready.site.names)[0])
        if why:
            problem = Problem(Code.HANDSHAKE_FAILED, Severity.REJECT, f"no client could use this pair: {why}")
            raise Stop(rejected(ready, (*ready.problems, problem), ports))
