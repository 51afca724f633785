"""Turns: which of the planned rotations go now, and which wait because of what a reload costs nginx (`pacing`)."""

from __future__ import annotations

from collections.abc import Sequence

from rotator.core.lifetime import critical_from
from rotator.daemon.deciding import PlannedRotation
from rotator.daemon.due_drops import decide_joining
from rotator.daemon.loop_state import LoopState
from rotator.daemon.recording import RETRY_BUSY, record_turn
from rotator.rotation import pacing
from rotator.rotation.decide import Moment
from rotator.rotation.pacing import Limits, ReadyDrop
from rotator.rotation.snapshot import SiteSnapshot


def choose_batch(loop: LoopState, planned: Sequence[PlannedRotation]) -> list[PlannedRotation]:
    """The rotations that go now. If one of them needs a reload, every drop that waits for its turn joins it.

    Args:
        loop: the state of the loop.
        planned: the rotations that this pass has decided on.
    """
    batch = _paced(loop, planned)
    if any(rotation.reloads for rotation in batch):
        planned_sites = {rotation.site for rotation in planned}
        waiting = [
            name
            for name, state in loop.states.items()
            if name not in planned_sites and state.deferral and state.deferral.reason in pacing.REASONS
        ]
        for joining in decide_joining(loop, waiting):
            loop.states[joining.site].due = loop.now().monotonic + RETRY_BUSY
            batch.append(joining)
    return batch


def _paced(loop: LoopState, planned: Sequence[PlannedRotation]) -> list[PlannedRotation]:
    now, limits, live = loop.now(), loop.runtime.limits, loop.runtime.ports.live
    if limits == Limits():
        return list(planned)
    # A command, or the recovery of one, may have changed what is live since the decision; that is made again then.
    stale = {rotation.site for rotation in planned if live(rotation.site).generation != rotation.snapshot.live}
    for site in stale:
        loop.states[site].due = now.monotonic
    planned = [rotation for rotation in planned if rotation.site not in stale]
    loop.last_reload = loop.last_reload.updated(loop.runtime.ports.history.last_reload_at(), now)
    drops = [ReadyDrop(r.site, r.reloads, critical_in(r.snapshot, now)) for r in planned]
    waits = pacing.turns(drops, loop.last_reload, loop.nginx_watch.workers, limits, now)
    batch = []
    for rotation, wait in zip(planned, waits, strict=True):
        if wait is None:
            batch.append(rotation)
        else:
            record_turn(loop, rotation.managed, rotation.snapshot, rotation.digest, wait)
    return batch


def critical_in(snapshot: SiteSnapshot, now: Moment) -> float:
    """Seconds until what is live is in the critical rest of its life; 0, which is urgent, where that is unknown."""
    begins = (critical_from(begin, end) for begin, end in snapshot.lives)
    return min(((begin - now.wall).total_seconds() for begin in begins), default=0.0)
