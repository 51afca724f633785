"""What the loop has to know of one drop to decide about it: its memory, what lies there, what the order would be."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from rotator.core.errors import RotatorError
from rotator.core.lifetime import critical_from
from rotator.core.model import Candidate, KeyType, Outcome, Result, SourceFile
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.daemon.runtime import WHO, ManagedSite, Runtime
from rotator.rotation import validate_candidate
from rotator.rotation.conclude import write_down
from rotator.rotation.decide import Decided, Decision, Deferral, Drop, Moment, Nothing
from rotator.rotation.outcomes import Judged, Wanted, still_serves
from rotator.sources.drop_source import DropLook, Signature
from rotator.storage.records import Intent
from rotator.validation.validate import Verdict
from rotator.x509.pem import encode_chain

Chains = Mapping[KeyType, tuple[bytes, ...]]


@dataclass(slots=True)
class DropState:
    """What the loop knows of one site's drop; lost with the process, and found again.

    Args:
        signature: as it looked last; None before the first look.
        changed: monotonic time of its last change.
        due: monotonic time at which it is to be decided about again.
        decision: the last one.
        deferral: see `reconcile`.
        decided: what was decided last.
        unwritten: a decision that the disk did not take.
        problem: why it could not be looked at, as told last.
        anew: it is judged again although it was decided, as the clock by which it was refused has been set.
    """

    signature: Signature | None = None
    changed: float = 0.0
    due: float = 0.0
    decision: Decision = field(default_factory=Nothing)
    deferral: Deferral | None = None
    decided: Intent = field(default_factory=Intent)
    unwritten: Intent | None = None
    problem: str = ""
    anew: bool = False

    def note(self, look: DropLook, now: float) -> bool:
        """Remembers how the drop looks; what has changed is due. Returns whether it has another problem than before."""
        if look.signature != self.signature:
            self.signature, self.changed, self.due = look.signature, now, now
        known, self.problem = self.problem, look.problem
        return known != look.problem

    def judge_again(self, now: float) -> None:
        """Has it judged by another time: what was refused, and what waits."""
        self.anew = isinstance(self.decision, Decided) and self.decided.result == Result.REJECTED
        self.look_again(None, now)
        if self.anew:
            self.due = now

    def look_again(self, reasons: Collection[Reason | Code] | None, now: float) -> bool:
        """Ends the wait of what waits for one of these reasons (None: for any). Returns whether it does."""
        if not self.deferral or (reasons is not None and self.deferral.reason not in reasons):
            return False
        self.deferral, self.due = replace(self.deferral, due=now), now
        return True


@dataclass(frozen=True, slots=True)
class RotationRequest:
    """A drop that is to be put live, or refused by the rotation's own judge.

    Args:
        managed: whose.
        digest: of what lies there.
        wanted: for `rotate`.
        intent: what was decided last when this was ordered: another one means that somebody else was quicker.
        reloads: whether it takes a reload of nginx.
    """

    managed: ManagedSite
    digest: str
    wanted: Wanted
    intent: Intent
    reloads: bool


def read(runtime: Runtime, name: str, look: DropLook) -> tuple[Candidate | None, RotatorError | None]:
    """What lies in a drop, or why it cannot be read; neither if nothing lies there."""
    if not look.signature:
        return None, None  # that a directory is lost is told elsewhere
    try:
        return runtime.sites[name].source.read(name), None
    except RotatorError as error:
        return None, error


def digest_of(candidate: Candidate | None, look: DropLook, error: RotatorError | None) -> str:
    """The candidate's; for a drop that cannot be read one that changes when anything there does."""
    if candidate:
        return candidate.digest
    return "unread-" + hashlib.sha256(repr((look.signature, error.code)).encode()).hexdigest() if error else ""


def live_chains(runtime: Runtime, name: str) -> Chains:
    """What is live, by kind of key; nothing where that cannot be read: the rotation says why."""
    live = runtime.ports.live(name).generation
    try:
        return runtime.ports.store.load(name, live).chains if live else {}
    except RotatorError:
        return {}


def stands(intent: Intent, drop: Drop, managed: ManagedSite, live: Chains) -> bool:
    """Whether what was decided of a drop stands, although lists beside policy and roots were renewed.

    They are by the day, and nobody wants each site to say so again, or nginx to be reloaded again for a pair that it
    did not serve last time.
    """
    same_policy = intent.policy.partition("+")[0] == managed.policy.partition("+")[0]
    if drop.error or intent.digest != drop.digest or intent.policy == managed.policy or not same_policy:
        return False
    verdict = drop.judge()
    match intent.result:
        case Result.ROLLED_BACK:
            return verdict.accepted
        case Result.REJECTED:
            return verdict.codes[:1] == (intent.reason,)
        case Result.ROTATED | Result.UNCHANGED:
            return verdict.accepted and all(live.get(pair.key_type) == pair.chain for pair in verdict.pairs)
    return False


def judged(runtime: Runtime, candidate: Candidate | None, managed: ManagedSite, now: Moment, live: Chains) -> Judged:
    """What the judge says of a candidate."""
    chains, verdict, clock = tuple(live.values()), Verdict(), runtime.ports.clock
    begun = clock.monotonic()
    if candidate is not None:
        verdict = validate_candidate.judged(candidate, managed.wanted("drop"), runtime.ports.store, now.wall, chains)
    return Judged(verdict, chains, now.wall, clock.monotonic() - begun)


def completed(
    runtime: Runtime, candidate: Candidate, lacking: frozenset[KeyType], managed: ManagedSite, now: Moment, live: Chains
) -> Candidate:
    """With the live pairs of the kinds that were not delivered, if those are still fit: both are served on."""
    name, files = managed.site.name, list(candidate.files)
    generation = runtime.ports.live(name).generation
    for pair in runtime.ports.store.load_pairs(name, generation) if lacking else ():
        if pair.key_type in lacking and pair.key:
            files.append(SourceFile(f"{generation}/{pair.key_type}-fullchain.pem", encode_chain(pair.chain)))
            files.append(SourceFile(f"{generation}/{pair.key_type}-privkey.pem", pair.key.reveal()))
    whole = replace(candidate, files=tuple(files))
    return whole if lacking and judged(runtime, whole, managed, now, live).verdict.accepted else candidate


def is_live(runtime: Runtime, name: str, verdict: Verdict, live: Chains) -> bool:
    """Whether what the judge accepts is live and proved already, so that it takes no reload."""
    same = {pair.key_type: pair.chain for pair in verdict.pairs} == dict(live)
    return same and runtime.ports.store.verified(name) == runtime.ports.live(name).generation


def request(
    runtime: Runtime,
    managed: ManagedSite,
    digest: str,
    candidate: Candidate,
    intent: Intent,
    *,
    reloads: bool,
    judged: Judged | None,
) -> RotationRequest:
    """To put a candidate live, or to have the rotation refuse it. The first pair of a site takes no reload."""
    first = not runtime.ports.store.verified(managed.site.name)
    wanted = replace(
        managed.wanted("drop"),
        candidate=candidate,
        first=first,
        origin=tuple(source.name for source in candidate.files),
        judged=judged,
    )
    return RotationRequest(managed, digest, wanted, intent, reloads and not first)


def critical_in(runtime: Runtime, name: str, now: Moment) -> float:
    """Seconds until what is live is in the critical rest of its life; 0, which is urgent, if nobody can tell."""
    try:
        live = runtime.ports.live(name).generation
        pairs = runtime.ports.store.load(name, live).record.pairs if live else ()
    except RotatorError:
        return 0.0
    begins = (critical_from(pair.not_before, pair.effective_not_after) for pair in pairs)
    return min(((begin - now.wall).total_seconds() for begin in begins), default=0.0)


def serves(runtime: Runtime, name: str) -> str:
    """What nginx goes on serving, in words."""
    live = runtime.ports.live(name).generation
    try:
        return still_serves(runtime.ports.store.load(name, live) if live else None)
    except RotatorError as e:
        return e.message


def record_outcome(
    runtime: Runtime,
    managed: ManagedSite,
    result: Result,
    reason: Reason | Code,
    message: str,
    hint: str,
    candidate: Candidate | None = None,
) -> Outcome:
    """The outcome of what needs no rotation, written into the history."""
    ports, name = runtime.ports, managed.site.name
    live = ports.live(name).generation
    words = f"{message.rstrip('.')}. Nothing was changed: {serves(runtime, name)}"
    done = Outcome(name, result, ports.clock.now(), reason, words, hint, previous=live, live=live)
    write_down(Wanted(managed.site, managed.anchors, candidate, who=WHO, trigger="drop"), done, ports)
    return done
