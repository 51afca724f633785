"""Recovery: after a crash or a restart, what nginx's configuration names is proved, or else the verified pair is.

For each site:

 1. nginx's include names a generation and every listener serves it: it is verified, whoever was interrupted. All sites
    are asked together first, as each proof has to wait until nginx's workers are known not to change.
 2. nginx is down: what is live stays if nginx's own test passes, or fails without naming our files; it is proved later.
 3. It was never verified and nobody serves it: it waits for nginx's configuration; no reload is spent on it.
 4. Otherwise one reload, and the proof again. It reads the includes of all sites, so one is enough for all of them.
 5. Otherwise the verified generation is applied and proved. Without one, what is live is never removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.nginx.pair_test import Verdict
from rotator.privsep.apply import copies_path
from rotator.rotation.conclude import fit_to_return, noted, within, write_down
from rotator.rotation.outcomes import (
    APPLY_HINTS,
    REFUSAL_HINT,
    Ready,
    Wanted,
    apply_failed,
    deferred,
    deferred_by,
    not_wired,
    outcome,
    refusal,
    stranded,
)
from rotator.rotation.ports import Ports
from rotator.rotation.prepare import Timer
from rotator.rotation.proof import NO_RELOAD, Proof, expectation, prove, prove_together
from rotator.storage.locks import Lock

SETTLE_WITHIN = 1.0
"""Seconds for a proof without a reload: one that was sent just before a crash may still be on its way."""


def recover(sites: Sequence[Wanted], ports: Ports, lock: Lock) -> tuple[Outcome, ...]:
    """Brings each site to a proved state, or says why that has to wait. Nothing is written for a site that is well.

    Args:
        sites: with neither candidate nor generation.
        ports: the world.
        lock: the held rotation lock.

    Returns:
        One outcome for each site, in their order: `unchanged` (reason `verified`) for one that is well.
    """
    outcomes = []
    test, reload = _OneTest(ports), _OneReload()
    proved = _proved_together(sites, ports, lock)
    for wanted in sites:
        try:
            done = _recover(wanted, ports, lock, test, reload, proved.get(wanted.site.name))
        except RotatorError as e:
            done = deferred_by(e, wanted, ports)
        if done.result is not Result.UNCHANGED:
            write_down(wanted, done, ports)
        if done.result is not Result.DEFERRED:  # after that: a crash here leaves nothing live that no entry tells of
            lock.settled([wanted.site.name])
        outcomes.append(done)
    return tuple(outcomes)


def _proved_together(sites: Sequence[Wanted], ports: Ports, lock: Lock) -> dict[str, Proof]:
    """Step 1 for all sites at once, as nearly all of them are well at nearly every start."""
    expected = {}
    for wanted in sites:
        name = wanted.site.name
        with suppress(RotatorError):  # it is told when its turn comes
            if name not in lock.interrupted and (live := ports.live(name).generation):
                expected[name] = expectation(wanted.site, ports.store.load(name, live))
    return prove_together(expected, ports)


class _OneTest:
    """The test of nginx's whole configuration, made once for all sites: it takes seconds where there are a thousand.

    Args:
        ports: the world.
    """

    def __init__(self, ports: Ports) -> None:
        self._nginx = ports.nginx
        self._verdict: Verdict | None = None

    def verdict(self) -> Verdict:
        """Its answer, or that of before."""
        self._verdict = self._verdict or self._nginx.full_test()
        return self._verdict

    def forget(self) -> None:
        """The configuration has been changed since."""
        self._verdict = None


@dataclass(slots=True)
class _OneReload:
    """Whether nginx has taken a reload in this recovery, and with it the includes of all sites as they stood then.

    A listener that is dead keeps each of its sites from being proved. A thousand reloads would not wake it, and would
    cost nginx a thousand generations of workers.
    """

    taken: bool = False


def _recover(
    wanted: Wanted, ports: Ports, lock: Lock, test: _OneTest, reload: _OneReload, proof: Proof | None
) -> Outcome:
    name = wanted.site.name
    ready = Ready(wanted, verified=ports.store.verified(name))
    live = ports.live(name)
    if live.problem:
        raise RotatorError(Reason.INCLUDE_FOREIGN, live.problem, APPLY_HINTS[Reason.INCLUDE_FOREIGN])
    ports.store.sweep(name)
    if not live.generation:
        if not ready.verified:
            return outcome(ready, Result.UNCHANGED, ports, Reason.NOTHING, f"{name} has no pair yet")
        ready.generation = ports.store.load(name, ready.verified)
        return _reload(ready, ports, lock, reload, "its include was missing")
    ready.generation = ports.store.load(name, live.generation)
    interrupted = name in lock.interrupted

    # 1. Served?
    with Timer(ready, "prove", ports.clock):
        ready.proof = proof or prove(ready.expected(), NO_RELOAD, ports, SETTLE_WITHIN if interrupted else 0.0)
    if ready.proof.ok:
        return _served(ready, ports, interrupted=interrupted)

    # 2. nginx down?
    workers = ports.nginx.workers()
    if workers is not None and workers.master is None:
        return _nginx_down(ready, ports, test)

    # 3. Never served?
    if not ready.verified:
        return not_wired(ready, ports)

    # 4 and 5.
    return _reload(ready, ports, lock, reload, "; ".join(ready.proof.reasons), is_named=True)


def _served(ready: Ready, ports: Ports, *, interrupted: bool) -> Outcome:
    name = ready.new.name
    if ready.verified == name and (not interrupted or _is_told(ready, ports)):
        return outcome(ready, Result.UNCHANGED, ports, Reason.VERIFIED, f"{name} is live, and every listener serves it")
    words = f"{name} is live, and now every listener was seen serving it{noted(ready, ports)}"
    return outcome(ready, Result.ROTATED, ports, Reason.RECOVERED, words)


def _is_told(ready: Ready, ports: Ports) -> bool:
    """Whether the history has it already: the run before ended between its entry and the end of its note."""
    last = ports.history.entries(ready.site.name, 1)
    proved = (Result.ROTATED, Result.UNCHANGED)
    return any(entry.result in proved and entry.live == ready.new.name for entry in last)


def _nginx_down(ready: Ready, ports: Ports, test: _OneTest) -> Outcome:
    """nginx is stopped. Evidence against our files is only a test that names them."""
    verdict = test.verdict()
    ours = copies_path(ports.include_dir, ready.site.name, ready.new.name)
    if not verdict.ok and ready.verified not in ("", ready.new.name) and any(ours in word for word in verdict.words):
        bad = ready.new.name
        test.forget()
        applied = ports.apply({ready.site.name: ready.verified}, hup=False)
        if not applied.error:
            words = f"nginx is not running and its own test refuses {bad}; {ready.verified} is named again"
            return deferred(ready, ports, Reason.NGINX_DOWN, words, "Start nginx", verdict.words)
    words = f"{ready.new.name} is live, but nginx is not running; it is proved when nginx is"
    hint = "Start nginx" if verdict.ok else "`nginx -t` says why nginx would not start"
    return deferred(ready, ports, Reason.NGINX_DOWN, words, hint, verdict.words)


def _reload(ready: Ready, ports: Ports, lock: Lock, reload: _OneReload, why: str, *, is_named: bool = False) -> Outcome:
    """Steps 4 and 5; `is_named`: the include named what is to be proved before, so that any reload has read it."""
    lock.begin([*lock.in_flight, ready.site.name])
    unproved = ready.new
    if is_named and reload.taken:
        failed: Outcome | None = stranded(ready, ports, Reason.NOT_PROVED, why)
    else:
        failed = _apply(ready, ports, reload)
    if failed is None:
        words = f"{unproved.name} is live and proved, after a reload ({why}){noted(ready, ports)}"
        return outcome(ready, Result.ROTATED, ports, Reason.RECOVERED, words)
    refused = failed.reason == Code.NGINX_REFUSED
    if ready.verified in ("", unproved.name) or (failed.result is Result.DEFERRED and not refused):
        return failed
    back = ports.store.load(ready.site.name, ready.verified)
    if not fit_to_return(back, ready.wanted, ports):
        words = f"{unproved.name}: {failed.message}; and {back.name} is not fit any more"
        return stranded(ready, ports, Reason.NOT_PROVED, words)
    ready.previous, ready.generation = unproved, back
    failed = _apply(ready, ports, reload)
    if failed is not None:
        return failed
    words = f"{unproved.name} could not be proved ({why}); {back.name} is back, live and proved"
    return outcome(ready, Result.ROLLED_BACK, ports, Reason.RECOVERED, words)


def _apply(ready: Ready, ports: Ports, reload: _OneReload) -> Outcome | None:
    """One reload with the site's `generation`, and its proof. Returns how it failed, or None."""
    before = ports.nginx.workers()
    ports.say(f"reloading nginx for {ready.site.name}")
    with Timer(ready, "apply", ports.clock):
        applied = ports.apply({ready.site.name: ready.new.name}, hup=True)
    if applied.error:
        return apply_failed(ready, ports, applied)
    if applied.decision == "gone":
        return deferred(ready, ports, Reason.NGINX_DOWN, "nginx ended before it could be told", "Start nginx")
    if applied.decision == "refused":
        return deferred(ready, ports, Code.NGINX_REFUSED, refusal(applied), REFUSAL_HINT, applied.words)
    reload.taken = reload.taken or applied.decision == "accepted"
    with Timer(ready, "prove", ports.clock):
        ready.proof = prove(ready.expected(), before, ports, within(ports))
    return None if ready.proof.ok else stranded(ready, ports, Reason.NOT_PROVED, "; ".join(ready.proof.reasons))
