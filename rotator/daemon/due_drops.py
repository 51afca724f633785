"""The due drops of a pass: decides about them in a fair order, for a bounded time (`rotator.rotation.fairness`)."""

from __future__ import annotations

from collections.abc import Collection

from rotator.core.lifetime import critical_from
from rotator.daemon.deciding import PlannedRotation, plan_rotation
from rotator.daemon.loop_state import LoopState
from rotator.rotation import fairness
from rotator.rotation.decide import Moment
from rotator.rotation.fairness import Account, DueDrop
from rotator.rotation.snapshot import take_snapshot


def decide_due(loop: LoopState) -> list[PlannedRotation]:
    """Decides about the due drops, as many as fit into a pass. The others stay due.

    Args:
        loop: the state of the loop.

    Returns:
        The rotations that the decided drops ask for.
    """
    begun = loop.now()
    due = [name for name, state in loop.states.items() if state.due <= begun.monotonic]
    planned: list[PlannedRotation] = []
    for drop in fairness.in_order(_described(loop, due, begun), loop.decisions):
        elapsed = loop.now().monotonic - begun.monotonic
        if not fairness.goes_on(elapsed, drop, ready=any(rotation.ready for rotation in planned)):
            continue
        if rotation := plan_rotation(loop, drop.site):
            planned.append(rotation)
    return planned


def decide_joining(loop: LoopState, names: Collection[str]) -> list[PlannedRotation]:
    """Decides about drops that may join a reload which is about to be made, cheap ones first, for a bounded time.

    Args:
        loop: the state of the loop.
        names: the sites; those that rest, or for which no time is left, go on waiting.
    """
    begun = loop.now()
    awake = [name for name in names if loop.states[name].account.rests_until <= begun.monotonic]
    joining = []
    for drop in fairness.in_order(_described(loop, awake, begun), loop.decisions):
        now = loop.now().monotonic
        if now >= begun.monotonic + fairness.GATHER_FOR:
            break
        loop.states[drop.site].end_wait(None, now)
        if rotation := plan_rotation(loop, drop.site):
            joining.append(rotation)
    return joining


def _described(loop: LoopState, names: Collection[str], now: Moment) -> list[DueDrop]:
    several = len(names) > 1
    return [
        DueDrop(
            name,
            state.due,
            state.account.level(now.monotonic),
            max((loop.accounts.get(uid, Account()).level(now.monotonic) for uid in look.owners), default=0),
            several and _is_critical(loop, name, now),
            look.size,
        )
        for name in names
        for state, look in ((loop.states[name], loop.scan.looks[name]),)
    ]


def _is_critical(loop: LoopState, name: str, now: Moment) -> bool:
    """Whether what the site serves is close to its expiry. The store is read once, until what is live changes."""
    state = loop.states[name]
    if state.lives is None:
        state.lives = take_snapshot(name, loop.runtime.ports).lives
        loop.runtime.ports.alive()
    return any(critical_from(begin, end) <= now.wall for begin, end in state.lives)
