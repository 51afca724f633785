"""Deciding: chooses what to do about one site's drop, by its content, the site and the last decision."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cache

from rotator.core.errors import RotatorError
from rotator.core.hints import command
from rotator.core.model import Candidate, Result
from rotator.core.reasons import Reason
from rotator.daemon.journal import NOTICE
from rotator.daemon.loop_state import LoopState
from rotator.daemon.recording import (
    LOOK_TWICE,
    record_decision,
    record_rest,
    record_trouble,
    record_wait,
    write_intent,
)
from rotator.daemon.runtime import ManagedSite, Runtime
from rotator.rotation import fairness
from rotator.rotation.decide import (
    LONGEST_WAIT,
    Decided,
    Drop,
    Held,
    Moment,
    Nothing,
    Refuse,
    Rotate,
    Settling,
    Wait,
    decide,
)
from rotator.rotation.request import RotationRequest, Validation
from rotator.rotation.snapshot import SiteSnapshot, take_snapshot
from rotator.rotation.validate_candidate import validate_candidate
from rotator.sources.drop_source import DropLook
from rotator.storage.records import ANYTHING, Intent
from rotator.validation.validate import Verdict

NEVER = math.inf


@dataclass(frozen=True, slots=True)
class PlannedRotation:
    """A drop that is to be put live, or to be refused by the rotation.

    Args:
        managed: the site.
        snapshot: the site at the time of the decision; another intent under the lock means another decision meanwhile.
        digest: of the drop's content.
        request: for `rotate`.
        reloads: whether it takes a reload of nginx.
        ready: whether it is to be put live; otherwise the rotation refuses it.
    """

    managed: ManagedSite
    snapshot: SiteSnapshot
    digest: str
    request: RotationRequest
    reloads: bool
    ready: bool = True

    @property
    def site(self) -> str:
        """The site's name."""
        return self.managed.site.name


def plan_rotation(loop: LoopState, name: str) -> PlannedRotation | None:
    """Decides about a site's drop, and records it. A store that fails for one site does not hold up the others.

    The CPU time of the decision is charged to the drop and to the owners of its files.

    Args:
        loop: the state of the loop.
        name: the site's name.

    Returns:
        The rotation that the drop asks for; None if it asks for none.
    """
    begun = loop.cpu_time()
    loop.decisions += 1
    try:
        return _decide(loop, name)
    except RotatorError as e:
        record_trouble(loop, e, [name])
        return None
    finally:
        _charge(loop, name, loop.cpu_time() - begun)
        loop.runtime.ports.alive()


def _decide(loop: LoopState, name: str) -> PlannedRotation | None:
    managed, state, look, now = loop.runtime.sites[name], loop.states[name], loop.scan.looks[name], loop.now()
    if state.unwritten:
        write_intent(loop, name, state.unwritten)
    rest = _rest(state.account, now, name)
    if rest and look.signature and state.is_reported_as_resting:
        state.due = rest.until  # its content is not even read until then
        return None
    snapshot = _snapshot(loop, name, look)
    candidate, error = _read(loop.runtime, name, look)
    digest = _digest(candidate, look, error)

    @cache
    def validation() -> Validation:
        return _validate(loop.runtime, candidate, managed, snapshot, now)

    drop = Drop(digest, state.changed, lambda: validation().verdict, error)
    if _still_stands(drop, managed, snapshot):
        write_intent(loop, name, replace(snapshot.intent, policy=managed.policy))
        intent = state.unwritten or replace(snapshot.intent, policy=managed.policy)
        snapshot = replace(snapshot, intent=intent)
    known = replace(snapshot.intent, digest="") if state.validate_again else snapshot.intent
    live, settle = frozenset(snapshot.chains), loop.runtime.settle
    decision = decide(drop, known, managed.policy, now, settle, live=live, deferral=state.deferral, rest=rest)
    is_new = type(decision) is not type(state.decision)
    state.decision, state.due, state.decided = decision, NEVER, snapshot.intent
    match decision:
        case Settling(until=until, why=why):
            state.due = until
            if is_new:
                message = f"not complete yet ({why}); another process may still be writing it"
                loop.journal.say("settling", message, site=name)
        case Wait(reason=Reason.COSTLY, message=str(message)) if message:
            record_rest(loop, managed, snapshot, digest, decision)
        case Wait():
            record_wait(loop, managed, snapshot, digest, decision)
        case Refuse(error=RotatorError() as fault):
            record_decision(loop, managed, snapshot, digest, Result.REJECTED, fault)
        case Refuse() if candidate:
            return _planned(managed, snapshot, digest, candidate, validation(), reloads=False, ready=False)
        case Rotate() if candidate:
            reloads = not _is_live(validation().verdict, snapshot)
            return _planned(managed, snapshot, digest, candidate, validation(), reloads=reloads)
        case Nothing() | Decided() | Held():
            state.deferral = None
            if look.young:
                state.due = now.monotonic + LOOK_TWICE
            elif isinstance(decision, Held) and decision.hold.digest == ANYTHING:
                state.due = now.monotonic + LONGEST_WAIT  # its file may be readable again by then
            if isinstance(decision, Held) and is_new:
                message = f"the content of the drop is {decision.hold}; this ends it: {command('rotator swap', name)}"
                loop.journal.say("held", message, NOTICE, site=name)
    return None


def _snapshot(loop: LoopState, name: str, look: DropLook) -> SiteSnapshot:
    """The site now; for an empty drop the last decision is enough."""
    ports, unwritten = loop.runtime.ports, loop.states[name].unwritten
    if not look.signature:
        return SiteSnapshot(name, intent=unwritten or ports.store.intent(name))
    snapshot = take_snapshot(name, ports)
    return replace(snapshot, intent=unwritten) if unwritten else snapshot


def _read(runtime: Runtime, name: str, look: DropLook) -> tuple[Candidate | None, RotatorError | None]:
    """The content of a drop, or why it cannot be read; neither for an empty drop."""
    if not look.signature:
        return None, None  # a lost directory is reported by the look
    try:
        return runtime.sites[name].source.read(name), None
    except RotatorError as error:
        return None, error


def _digest(candidate: Candidate | None, look: DropLook, error: RotatorError | None) -> str:
    """The candidate's digest; for an unreadable drop, a digest of the last look and the error."""
    if candidate:
        return candidate.digest
    return "unread-" + hashlib.sha256(repr((look.signature, error.code)).encode()).hexdigest() if error else ""


def _validate(
    runtime: Runtime, candidate: Candidate | None, managed: ManagedSite, snapshot: SiteSnapshot, now: Moment
) -> Validation:
    verdict, clock, store = Verdict(), runtime.ports.clock, runtime.ports.store
    begun = clock.monotonic()
    if candidate is not None:
        verdict = validate_candidate(candidate, managed.request("drop"), snapshot, store, now.wall)
    return Validation(verdict, tuple(snapshot.chains.values()), now.wall, clock.monotonic() - begun)


def _still_stands(drop: Drop, managed: ManagedSite, snapshot: SiteSnapshot) -> bool:
    """Whether the last decision about a drop stands, although lists beside policy and roots were renewed.

    Lists are renewed every day. Not every site has to report the same decision again, and nginx is not reloaded again
    for a pair that it did not serve the last time.
    """
    intent: Intent = snapshot.intent
    same_policy = intent.policy.partition("+")[0] == managed.policy.partition("+")[0]
    if drop.error or intent.digest != drop.digest or intent.policy == managed.policy or not same_policy:
        return False
    verdict = drop.validate()
    match intent.result:
        case Result.ROLLED_BACK:
            return verdict.accepted
        case Result.REJECTED:
            return verdict.codes[:1] == (intent.reason,)
        case Result.ROTATED | Result.UNCHANGED:
            chains = snapshot.chains
            return verdict.accepted and all(chains.get(pair.key_type) == pair.chain for pair in verdict.pairs)
    return False


def _is_live(verdict: Verdict, snapshot: SiteSnapshot) -> bool:
    """Whether the accepted pairs are live and verified already, so that they take no reload."""
    chains = {pair.key_type: pair.chain for pair in verdict.pairs}
    return chains == dict(snapshot.chains) and snapshot.is_verified


def _planned(
    managed: ManagedSite,
    snapshot: SiteSnapshot,
    digest: str,
    candidate: Candidate,
    validation: Validation,
    *,
    reloads: bool,
    ready: bool = True,
) -> PlannedRotation:
    """The rotation of a candidate. The first pair of a site takes no reload."""
    first = not snapshot.verified
    request = replace(
        managed.request("drop"),
        candidate=candidate,
        first=first,
        origin=tuple(source.name for source in candidate.files),
        validation=validation,
    )
    return PlannedRotation(managed, snapshot, digest, request, reloads and not first, ready)


def _rest(account: fairness.Account, now: Moment, name: str) -> Wait | None:
    """The rest of a costly drop; None if it does not rest now."""
    if now.monotonic >= account.rests_until:
        return None
    seconds = account.rests_until - now.monotonic
    message = (
        f"its contents took {account.balance(now.monotonic):.1f} s of CPU time lately, so the drops of other sites are "
        f"decided first; it is validated in {seconds:.0f} s"
    )
    by_hand = f"A swap by hand does not wait: {command('rotator swap', name)}"
    return Wait(account.rests_until, Reason.COSTLY, message, by_hand)


def _charge(loop: LoopState, name: str, seconds: float) -> None:
    """Charges the CPU time of a decision to the drop, and to the owners of its files."""
    now, state = loop.now().monotonic, loop.states[name]
    state.account = state.account.charged(seconds, now)
    for owner in loop.scan.looks[name].owners - loop.delivering_owners:
        loop.accounts[owner] = loop.accounts.get(owner, fairness.Account()).charged(seconds, now)
