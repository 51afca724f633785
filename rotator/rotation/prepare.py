"""Steps 1 to 4 of a rotation, before the first change that nginx sees: look, validate, ask, stage."""

from __future__ import annotations

from datetime import datetime, timedelta

from rotator.core.errors import RotatorError
from rotator.core.hints import command
from rotator.core.lifetime import is_critical
from rotator.core.model import Generation, Outcome, Provenance, Result, Target
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason
from rotator.rotation.next_steps import AGAIN, NGINX_DOWN_HINT
from rotator.rotation.outcomes import deferred, deferred_by, listener_hint, outcome_of, rejected, still_serves
from rotator.rotation.ports import Ports
from rotator.rotation.proof import HANDSHAKE_WITHIN, differs, expectation
from rotator.rotation.request import RotationRequest
from rotator.rotation.site_rotation import SiteRotation, Timer
from rotator.rotation.snapshot import SiteSnapshot, take_snapshot
from rotator.rotation.validate_candidate import validate_candidate
from rotator.validation.report import explain
from rotator.validation.validate import Verdict, validate_chains

STILL_VALIDATED = timedelta(seconds=30)
"""How long an earlier verdict is used instead of a new one: while a pass gathers its batch and prepares it. A costly
candidate would otherwise be validated twice, the second time uncharged (`fairness`)."""
CLOCK_TOLERANCE = timedelta(hours=1)
"""How far the clock may stand before the last entry of the history."""
TEST_HINT = f"See that `command` under [nginx] runs by hand with -t, and what this host is short of; {AGAIN}"


class EarlyOutcome(Exception):  # noqa: N818 - no error: a rotation that ends before it changes anything
    """Carries the outcome of a site whose rotation ends here."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def prepare(request: RotationRequest, snapshot: SiteSnapshot, ports: Ports, *, dry: bool = False) -> SiteRotation:
    """Brings one site to the point where only one rename and one HUP are missing.

    Args:
        request: what the site is to serve.
        snapshot: the site as it is, taken under the lock.
        ports: the world.
        dry: ask and validate, but leave nothing in the store.

    Returns:
        The site, with its stored generation (unless `dry`), or with `already_live`.

    Raises:
        EarlyOutcome: it ends here, with this outcome.
        RotatorError: a port failed; nothing was changed.
    """
    rotation = SiteRotation(request, snapshot)
    name, now = request.site.name, ports.clock.now()

    # 1. Look.
    if not dry:
        ports.store.sweep(name)  # what a crash left incomplete
    rotation.previous = _fallback(request, snapshot)
    if not request.force:
        _check_clock(rotation, now, ports)

    # 2. Validate.
    if request.candidate is None and not request.generation:
        return _keep_live(rotation)
    with Timer([rotation], "validate", ports.clock):
        _validate(rotation, now, ports)
    _end_if_invalid(rotation, ports)
    if rotation.previous and dict(rotation.previous.chains) == {pair.key_type: pair.chain for pair in rotation.pairs}:
        return _keep_live(rotation)
    if not rotation.previous and not rotation.first:
        message = f"{name} has no pair yet that nginx's configuration names; nothing was changed"
        hint = f"The first time, add --first: {command('rotator swap', name)} --cert FILE --key FILE --first"
        raise EarlyOutcome(deferred(rotation, ports, Reason.NOT_WIRED, message, hint))

    # 3. Ask, before anything changes.
    _ask_nginx(rotation, ports)
    _stage(rotation, now, ports, dry=dry)  # 4
    return rotation


def plan(request: RotationRequest, ports: Ports) -> Outcome:
    """The outcome that `rotate` would have. The pair is validated, nginx and the listeners are asked; nothing changes.

    Returns:
        The outcome that would end it before anything changes, or one with the reason `would-rotate`.
    """
    snapshot = take_snapshot(request.site.name, ports)
    try:
        rotation = prepare(request, snapshot, ports, dry=True)
    except EarlyOutcome as early:
        return early.outcome
    except RotatorError as e:
        return deferred_by(e, request, snapshot.live, ports.clock.now())
    proofs = ", ".join(map(str, targets(rotation)))
    if rotation.already_live:
        message = f"{rotation.new.name} is live already; a swap would prove it: {proofs}"
    elif rotation.first:
        message = f"the pair is valid; a swap would store it and name it in {rotation.site.name}.conf, without a reload"
    else:
        step = f"store it, name it in {rotation.site.name}.conf, send nginx one HUP"
        message = f"the pair is valid; a swap would {step} and prove: {proofs}"
    return outcome_of(rotation, Result.UNCHANGED, ports, Reason.WOULD_ROTATE, message)


def targets(rotation: SiteRotation) -> tuple[Target, ...]:
    """The targets that a prepared rotation has to prove."""
    if rotation.generation:
        return tuple(rotation.expected())
    return tuple(expectation(rotation.site, {pair.key_type: pair.chain for pair in rotation.pairs}))


def _fallback(request: RotationRequest, snapshot: SiteSnapshot) -> Generation | None:
    """The live generation, to compare with and to go back to; None if it is lost and `first` accepts that."""
    fault = snapshot.fault
    if fault is None:
        return snapshot.generation
    if fault.code not in (Reason.NO_GENERATION, Reason.STORE_DAMAGED):
        raise fault
    if request.first:
        return None
    name = request.site.name
    message = f"nginx's include names {snapshot.live}, which the store has lost, so there is no way back"
    swap = command("rotator swap", name)
    hint = f"To begin again: {swap} --cert FILE --key FILE --first, then: {swap}"
    raise RotatorError(fault.code, f"{message}: {fault.message}", hint) from fault


def _keep_live(rotation: SiteRotation) -> SiteRotation:
    """The rotation with the live generation in place of a new one."""
    if rotation.previous is None:
        name = rotation.site.name
        message = "there is no new pair to install, and nginx's include names none"
        hint = f"{command('rotator swap', name)} --cert FILE --key FILE --first"
        raise RotatorError(Reason.NOTHING_TO_DO, message, hint)
    rotation.already_live, rotation.generation = True, rotation.previous
    return rotation


def _validate(rotation: SiteRotation, now: datetime, ports: Ports) -> None:
    """Finds the pairs that are to go live, and their problems."""
    request, site = rotation.request, rotation.site
    if request.candidate is None:
        rotation.pairs = ports.store.load_pairs(site.name, request.generation)
        chains = [pair.chain for pair in rotation.pairs]
        rotation.problems = validate_chains(chains, site.policy, request.anchors, now)
        return
    verdict = _recent_verdict(rotation, now)
    if verdict is None:
        verdict = validate_candidate(request.candidate, request, rotation.snapshot, ports.store, now)
    elif request.validation:
        rotation.stages["validate"] = request.validation.seconds  # the timer adds its own
    rotation.explanation = () if verdict.accepted else tuple(explain(verdict))
    rotation.pairs, rotation.problems = verdict.pairs, verdict.problems


def _recent_verdict(rotation: SiteRotation, now: datetime) -> Verdict | None:
    """The recent verdict on the same candidate, if nothing that it depends on has changed."""
    validation, live = rotation.request.validation, tuple(rotation.snapshot.chains.values())
    if validation is None or rotation.request.force or validation.live != live:
        return None
    return validation.verdict if timedelta(0) <= now - validation.at < STILL_VALIDATED else None


def _end_if_invalid(rotation: SiteRotation, ports: Ports) -> None:
    """Ends the rotation of a pair that is refused; one that is only not valid yet has to wait."""
    refusals = [p for p in rotation.problems if p.severity is Severity.REJECT]
    if not refusals:
        return
    if any(p.code is not Code.NOT_YET_VALID for p in refusals):
        raise EarlyOutcome(rejected(rotation, rotation.problems, ports))
    message = f"{refusals[0].message.rstrip('.')}. Nothing was changed: {still_serves(rotation.previous)}"
    raise EarlyOutcome(outcome_of(rotation, Result.DEFERRED, ports, Code.NOT_YET_VALID, message, refusals[0].hint))


def _check_clock(rotation: SiteRotation, now: datetime, ports: Ports) -> None:
    """Defers if the clock stands before a known event, because every statement about validity would be wrong."""
    known = [(begin, "the live certificate is valid only from") for begin, _ in rotation.snapshot.lives]
    if last := ports.history.last_entry_at():
        known.append((last - CLOCK_TOLERANCE, "the history has an entry from an hour after"))
    for when, event in known:
        if now < when:
            raise RotatorError(
                Reason.CLOCK_SUSPECT,
                f"the clock says {now:%Y-%m-%d %H:%M} UTC, but {event} {when:%Y-%m-%d %H:%M} UTC",
                "Set the clock (timedatectl); no verdict about validity is acted on until then. If it is right now "
                f"and was ahead before: {command('rotator swap', rotation.site.name)} --force",
            )


def _ask_nginx(rotation: SiteRotation, ports: Ports) -> None:
    """Defers if no reload could succeed now. The first include is written without nginx's help."""
    workers = ports.nginx.workers()
    if workers is None or rotation.first:
        return
    if workers.upgrading:
        raise RotatorError(
            Reason.NGINX_UPGRADE,
            "a binary upgrade of nginx is in flight: a reload would reach its new master only",
            f"Finish it (QUIT to the old master) or undo it; {AGAIN}",
        )
    if workers.master is None:
        message = "nginx is not running (its pid file names no master), so nothing could be proved"
        raise RotatorError(Reason.NGINX_DOWN, message, NGINX_DOWN_HINT)


def _stage(rotation: SiteRotation, now: datetime, ports: Ports, *, dry: bool) -> None:
    """Step 4; the listeners of step 3 are asked while nginx tests the pair."""
    request, clock = rotation.request, ports.clock
    provenance = Provenance(request.origin, request.who, now)
    with Timer([rotation], "store", clock):
        staged = ports.store.stage(rotation.site.name, rotation.pairs, provenance)
    try:
        with Timer([rotation], "test", clock):
            pending = ports.nginx.test_candidate(staged.path, staged.files)
            try:
                _ask_listeners(rotation, ports)  # 3, while nginx tests the pair
                _rehearse(rotation, ports)
                if not dry:
                    staged.flush()
            finally:
                test = pending.verdict()  # never leaves the process behind
        if not test.ok:
            nginx_words = "; ".join(test.messages) or "it gives no reason"
            if not test.blames(*(file for files in staged.files for file in files)):
                message = f"nginx could not test the pair alone: {nginx_words}"
                raise RotatorError(Reason.NGINX_TEST, message, TEST_HINT)
            message = f"this nginx does not take the pair, tested alone: {nginx_words}"
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, message)
            raise EarlyOutcome(rejected(rotation, (*rotation.problems, problem), ports, test.messages))
        if not dry:
            with Timer([rotation], "store", clock):
                rotation.generation = staged.commit()
    finally:
        if rotation.generation is None:
            staged.discard()


def _ask_listeners(rotation: SiteRotation, ports: Ports) -> None:
    """Defers if a listener does not serve the live pair now.

    A listener has no veto where the live certificate is in the critical rest of its life, or where the way is back, as
    it may show already what the site goes back to. A live pair that was never proved and is not served was never wired.
    """
    previous, request = rotation.previous, rotation.request
    if previous is None or rotation.first:
        return
    expected = expectation(rotation.site, previous.chains)
    served = ports.probe(tuple(expected), HANDSHAKE_WITHIN)
    back = {pair.chain for pair in rotation.pairs} if request.generation else set()
    wrong = {s.target: differs(s, expected[s.target]) for s in served if s.chain not in {expected[s.target], *back}}
    rotation.unwired = bool(wrong) and not rotation.verified
    if not wrong or rotation.unwired:
        return
    now = ports.clock.now()
    critical = any(is_critical(begin, end, now) for begin, end in rotation.snapshot.lives)
    exempt = frozenset((target.listener, target.name) for target in wrong)
    if (critical or request.generation) and exempt != {(t.listener, t.name) for t in expected}:
        rotation.exempt = exempt
        return
    listeners = "; ".join(f"{target} {difference}" for target, difference in wrong.items())
    raise EarlyOutcome(
        deferred(
            rotation,
            ports,
            Reason.LISTENER,
            f"not every listener serves the live pair, before anything was changed: {listeners}",
            listener_hint(rotation.site.name, ports.include_dir),
        )
    )


def _rehearse(rotation: SiteRotation, ports: Ports) -> None:
    """Refuses a pair with which no handshake in memory succeeds."""
    for pair in rotation.pairs:
        why = ports.rehearse(pair, (rotation.site.probe_names or rotation.site.names)[0])
        if why:
            problem = Problem(Code.HANDSHAKE_FAILED, Severity.REJECT, f"no client could use this pair: {why}")
            raise EarlyOutcome(rejected(rotation, (*rotation.problems, problem), ports))
