"""Applying: the planned rotations of one pass go live in one batch, under the host's lock."""

from __future__ import annotations

from collections.abc import Sequence

from rotator.core.errors import RotatorError
from rotator.core.model import has_reloaded
from rotator.core.reasons import Reason
from rotator.daemon.deciding import PlannedRotation
from rotator.daemon.loop_state import LoopState
from rotator.daemon.recording import RETRY_BUSY, record_outcome, record_trouble
from rotator.daemon.runtime import WHO
from rotator.daemon.turns import choose_batch
from rotator.rotation.pacing import LastReload
from rotator.rotation.rotate import rotate

LOCK_WITHIN = 0.3
"""Seconds to wait for another rotation before the pass goes on without the lock."""


def put_live(loop: LoopState, planned: Sequence[PlannedRotation]) -> None:
    """Rotates, and records the outcomes. A drop is due until its outcome is recorded.

    Args:
        loop: the state of the loop.
        planned: the rotations that this pass has decided on.
    """
    ports = loop.runtime.ports
    for rotation in planned:
        loop.states[rotation.site].due = loop.now().monotonic + RETRY_BUSY
    try:
        with ports.locks.rotation(WHO, LOCK_WITHIN, lambda holder: report_holder(loop, holder)) as lock:
            loop.maintenance.recover_interrupted(lock)
            loop.nginx_watch.note(ports)
            batch = choose_batch(loop, [rotation for rotation in planned if _is_current(loop, rotation)])
            outcomes = rotate([rotation.request for rotation in batch], ports, lock) if batch else ()
            for rotation, outcome in zip(batch, outcomes, strict=True):
                record_outcome(loop, rotation.managed, rotation.digest, outcome)
            if any(has_reloaded(outcome.result, outcome.reason, outcome.stages) for outcome in outcomes):
                loop.last_reload = LastReload(ports.history.last_reload_at(), loop.now().monotonic)
            if any(outcome.stages.get("apply") for outcome in outcomes):
                loop.nginx_watch.note(ports)
    except RotatorError as e:
        record_trouble(loop, e, [rotation.site for rotation in planned])
    else:
        loop.trouble, loop.lock_holder = None, ""


def report_holder(loop: LoopState, holder: str) -> None:
    """Reports, once each, which process has the lock that this one waits for."""
    if holder != loop.lock_holder:
        loop.journal.say(Reason.LOCK_BUSY, f"waiting for {holder}")
    loop.lock_holder = holder


def _is_current(loop: LoopState, planned: PlannedRotation) -> bool:
    """Whether the decision is still the last one: a command may have held the lock in between."""
    state = loop.states[planned.site]
    if (state.unwritten or loop.runtime.ports.store.intent(planned.site)) == planned.snapshot.intent:
        return True
    state.due = loop.now().monotonic
    return False
