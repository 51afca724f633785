"""Recovery: after a crash or a restart, proves the pair that nginx's configuration names, or else the verified one.

For each site:

 1. nginx's include names a generation and every listener serves it: it is verified, even after an interruption. All
    sites are asked together first, as each proof has to wait until nginx's workers are known not to change.
 2. nginx is down: what is live stays if nginx's own test passes, or fails without naming our files; it is proved later.
 3. It was never verified and no listener serves it: it waits for nginx's configuration; no reload is spent on it.
 4. Otherwise one reload, and the proof again. It reads the includes of all sites, so one is enough for all of them.
    If an earlier start has just made one for the same pair, the next one waits (`restarts`).
 5. Otherwise the verified generation is applied and proved. Without one, what is live is never removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.core.times import rfc3339
from rotator.nginx.pair_trial import NginxVerdict
from rotator.privsep.apply import copies_path
from rotator.rotation.conclude import is_valid_now, record_proof, seconds_to_prove, write_down
from rotator.rotation.next_steps import REFUSAL_HINT, START_NGINX
from rotator.rotation.outcomes import (
    apply_failed,
    deferred,
    deferred_by,
    listener_hint,
    not_wired,
    outcome_of,
    stranded,
)
from rotator.rotation.ports import Ports
from rotator.rotation.proof import NO_RELOAD, Proof, expectation, prove, prove_together
from rotator.rotation.refusal import Refusal, explain_refusal
from rotator.rotation.request import RotationRequest
from rotator.rotation.restarts import reload_due
from rotator.rotation.site_rotation import SiteRotation, Timer, apply_generations, apply_new
from rotator.rotation.snapshot import SiteSnapshot, take_snapshot
from rotator.storage.entries import HistoryEntry
from rotator.storage.locks import Lock

ENTRIES = 5000
"""Newest entries of the history in which the reloads of earlier starts are looked for."""
SETTLE_WITHIN = 1.0
"""Seconds for a proof without a reload: one that was sent just before a crash may still be on its way."""


def recover(
    sites: Sequence[RotationRequest], ports: Ports, lock: Lock, *, at_start: bool = False
) -> tuple[Outcome, ...]:
    """Brings each site to a proved state, or says why that has to wait. Nothing is written for a site that is proved.

    Args:
        sites: requests with neither candidate nor generation.
        ports: the world.
        lock: the held rotation lock.
        at_start: whether a process begins with it, which does not know the reloads that earlier ones have tried.

    Returns:
        One outcome for each site, in their order: `unchanged` (reason `verified`) for one that is proved as it is.
    """
    outcomes = []
    test, reload = _SharedTest(ports), _SharedReload(_latest_entries(ports) if at_start else {})
    snapshots = {}
    for request in sites:
        snapshots[request.site.name] = take_snapshot(request.site.name, ports)
        ports.alive()
    proofs = _prove_together(sites, snapshots, ports, lock)
    for request in sites:
        name = request.site.name
        ports.alive()
        snapshot = snapshots.pop(name)
        try:
            outcome = _recover(request, snapshot, ports, lock, test, reload, proofs.get(name))
        except RotatorError as e:
            outcome = deferred_by(e, request, snapshot.live, ports.clock.now())
        if outcome.result is not Result.UNCHANGED:
            write_down(request, outcome, ports)
        if outcome.result is not Result.DEFERRED:  # after the entry: no crash leaves a pair live without one
            lock.settled([name])
        outcomes.append(outcome)
    return tuple(outcomes)


def _prove_together(
    sites: Sequence[RotationRequest], snapshots: Mapping[str, SiteSnapshot], ports: Ports, lock: Lock
) -> dict[str, Proof]:
    """Step 1 for all sites at once, as nearly all of them are well at nearly every start."""
    expected = {
        request.site.name: expectation(request.site, chains)
        for request in sites
        if request.site.name not in lock.interrupted and (chains := snapshots[request.site.name].chains)
    }
    return prove_together(expected, ports)


class _SharedTest:
    """The test of nginx's whole configuration, made once for all sites: it takes seconds where there are a thousand.

    Args:
        ports: the world.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._verdict: NginxVerdict | None = None

    def verdict(self) -> NginxVerdict:
        """The answer of the one test. A test that cannot be run is no evidence against a pair, and is not repeated."""
        if self._verdict is None:
            try:
                self._verdict = self._ports.nginx.full_test()
            except RotatorError as e:
                self._ports.say(f"`nginx -t` could not be run: {e.message}")
                self._verdict = NginxVerdict(ok=True)
        return self._verdict

    def forget(self) -> None:
        """The configuration was changed: the next answer needs another test."""
        self._verdict = None


@dataclass(slots=True)
class _SharedReload:
    """Whether nginx has taken a reload in this recovery, and with it the includes of all sites as they were then.

    A listener that is dead keeps each of its sites from being proved. A thousand reloads would not revive it, and would
    cost nginx a thousand generations of workers.

    Args:
        entries: the newest entries of the history by site, newest first; empty if earlier reloads do not matter.
        taken: whether it has.
    """

    entries: Mapping[str, Sequence[HistoryEntry]]
    taken: bool = False
    refusal: Refusal | None = None
    """Why nginx refused the last reload: its test takes seconds where there are a thousand sites."""

    def due(self, snapshot: SiteSnapshot, ports: Ports, lock: Lock) -> datetime | None:
        """When nginx may be reloaded for this site; None if it may now."""
        if self.taken:
            return None
        noted = lock.reloaded if snapshot.site in lock.interrupted else None
        return reload_due(snapshot.live, self.entries.get(snapshot.site, ()), noted, ports.clock.now())


def _latest_entries(ports: Ports) -> dict[str, list[HistoryEntry]]:
    """The newest entries of the history by site, newest first; empty if it cannot be read."""
    by_site: dict[str, list[HistoryEntry]] = {}
    with suppress(RotatorError):
        for entry in islice(ports.history.newest_first(), ENTRIES):
            by_site.setdefault(entry.site, []).append(entry)
    return by_site


def _recover(
    request: RotationRequest,
    snapshot: SiteSnapshot,
    ports: Ports,
    lock: Lock,
    test: _SharedTest,
    reload: _SharedReload,
    proof: Proof | None,
) -> Outcome:
    name = request.site.name
    rotation = SiteRotation(request, snapshot)
    if snapshot.fault and snapshot.fault.code == Reason.INCLUDE_FOREIGN:
        raise snapshot.fault
    ports.store.sweep(name)
    if not snapshot.live:
        if not snapshot.verified:
            return outcome_of(rotation, Result.UNCHANGED, ports, Reason.NOTHING, f"{name} has no pair yet")
        rotation.generation = ports.store.load(name, snapshot.verified)
        return _reload(rotation, ports, lock, reload, "its include was missing")
    if snapshot.fault:
        raise snapshot.fault
    rotation.generation = snapshot.generation
    interrupted = name in lock.interrupted

    # 1. Served?
    with Timer([rotation], "prove", ports.clock):
        within = SETTLE_WITHIN if interrupted else 0.0
        rotation.proof = proof or prove(rotation.expected(), NO_RELOAD, ports, within)
    if rotation.proof.ok:
        return _served(rotation, ports, interrupted=interrupted)

    # 2. nginx down?
    workers = ports.nginx.workers()
    if workers is not None and workers.master is None:
        return _nginx_down(rotation, ports, test)

    # 3. Never served?
    if not snapshot.verified:
        return not_wired(rotation, ports)

    # 4 and 5.
    if due := reload.due(snapshot, ports, lock):
        message = (
            f"{snapshot.live} is live, but not proved: {'; '.join(rotation.proof.reasons)}. An earlier start has "
            f"reloaded nginx for it, which did not help; the next reload for it waits until {rfc3339(due)}"
        )
        hint = listener_hint(name, ports.include_dir)
        return deferred(rotation, ports, Reason.RELOADED_BEFORE, message, hint)
    return _reload(rotation, ports, lock, reload, "; ".join(rotation.proof.reasons), is_named=True)


def _served(rotation: SiteRotation, ports: Ports, *, interrupted: bool) -> Outcome:
    name = rotation.new.name
    if rotation.verified == name and (not interrupted or _is_written_down(rotation, ports)):
        message = f"{name} is live, and every listener serves it"
        return outcome_of(rotation, Result.UNCHANGED, ports, Reason.VERIFIED, message)
    message = f"{name} is live, and now every listener was seen serving it{record_proof(rotation, ports)}"
    return outcome_of(rotation, Result.ROTATED, ports, Reason.RECOVERED, message)


def _is_written_down(rotation: SiteRotation, ports: Ports) -> bool:
    """Whether the history has the proof already: the run before ended between its entry and the end of its note."""
    last = ports.history.entries(rotation.site.name, 1)
    proved = (Result.ROTATED, Result.UNCHANGED)
    return any(entry.result in proved and entry.live == rotation.new.name for entry in last)


def _nginx_down(rotation: SiteRotation, ports: Ports, test: _SharedTest) -> Outcome:
    """nginx is stopped. Only a test that names our files is evidence against them."""
    verdict = test.verdict()
    live, verified = rotation.new.name, rotation.verified
    live_files = copies_path(ports.include_dir, rotation.site.name, live)
    if not verdict.ok and verified not in ("", live) and any(live_files in line for line in verdict.messages):
        test.forget()
        applied = apply_generations([rotation], {rotation.site.name: verified}, ports, hup=False)
        if not applied.error:
            message = f"nginx is not running and its own test refuses {live}; {verified} is named again"
            return deferred(rotation, ports, Reason.NGINX_DOWN, message, START_NGINX, verdict.messages)
    message = f"{live} is live, but nginx is not running; it is proved when nginx is"
    hint = START_NGINX if verdict.ok else "`nginx -t` says why nginx would not start"
    return deferred(rotation, ports, Reason.NGINX_DOWN, message, hint, verdict.messages)


def _reload(
    rotation: SiteRotation, ports: Ports, lock: Lock, reload: _SharedReload, why: str, *, is_named: bool = False
) -> Outcome:
    """Steps 4 and 5; `is_named`: the include named what is to be proved before, so that any reload has read it."""
    lock.begin([*lock.in_flight, rotation.site.name], reloaded=ports.clock.now())
    unproved = rotation.new
    if is_named and reload.taken:
        failed: Outcome | None = stranded(rotation, ports, Reason.NOT_PROVED, why)
    else:
        failed = _apply(rotation, ports, reload)
    if failed is None:
        message = f"{unproved.name} is live and proved, after a reload ({why}){record_proof(rotation, ports)}"
        return outcome_of(rotation, Result.ROTATED, ports, Reason.RECOVERED, message)
    if failed.result is Result.DEFERRED:
        lock.reloaded = None  # nginx has not begun the reload
        lock.begin(lock.in_flight)
    refused = failed.reason == Code.NGINX_REFUSED
    if rotation.verified in ("", unproved.name) or (failed.result is Result.DEFERRED and not refused):
        return failed
    back = ports.store.load(rotation.site.name, rotation.verified)
    if not is_valid_now(back, rotation.request, ports):
        message = f"{unproved.name}: {failed.message}; and {back.name} is no longer valid"
        return stranded(rotation, ports, Reason.NOT_PROVED, message)
    rotation.previous, rotation.generation = unproved, back
    reload.refusal = None  # the next reload reads another include
    failed = _apply(rotation, ports, reload)
    if failed is not None:
        return failed
    message = f"{unproved.name} could not be proved ({why}); {back.name} is back, live and proved"
    return outcome_of(rotation, Result.ROLLED_BACK, ports, Reason.RECOVERED, message)


def _apply(rotation: SiteRotation, ports: Ports, reload: _SharedReload) -> Outcome | None:
    """One reload with the site's `generation`, and its proof. Returns how it failed, or None."""
    before = ports.nginx.workers()
    ports.say(f"reloading nginx for {rotation.site.name}")
    with Timer([rotation], "apply", ports.clock):
        applied = apply_new([rotation], ports, hup=True)
    if applied.error:
        return apply_failed(rotation, ports, applied)
    if applied.decision == "gone":
        message = "nginx ended before it could be signalled"
        return deferred(rotation, ports, Reason.NGINX_DOWN, message, START_NGINX)
    if applied.decision == "refused":
        refusal = reload.refusal = reload.refusal or explain_refusal(applied, ports)
        return deferred(rotation, ports, Code.NGINX_REFUSED, refusal.message, REFUSAL_HINT, refusal.nginx_words)
    reload.taken = reload.taken or applied.decision == "accepted"
    with Timer([rotation], "prove", ports.clock):
        rotation.proof = prove(rotation.expected(), before, ports, seconds_to_prove(ports))
    return (
        None if rotation.proof.ok else stranded(rotation, ports, Reason.NOT_PROVED, "; ".join(rotation.proof.reasons))
    )
