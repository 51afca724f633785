"""Whether a fit drop may cost nginx a reload now, or waits for its turn, as pure functions; nothing is read or done.

Each reload leaves nginx with a generation of old workers, which live as long as the longest of their connections
(src/os/unix/ngx_process_cycle.c). So, in this order:

 1. What takes no reload waits for nothing: the first pair of a site, one that is live already, one that is refused.
 2. If what is served is in its critical rest for one of those that are ready, that one goes, and all go with it: one
    reload for many costs nginx no more than one reload for one.
 3. Sooner than `min_reload_interval` after the last reload, whoever made it, the others wait for the time to be over.
 4. While `drain_budget` old workers or more are draining, they wait until there are fewer; nothing is told of workers
    that end as soon as their reload is over.
 5. No wait lasts longer than until the critical rest begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rotator.core.model import Workers
from rotator.core.reasons import Reason
from rotator.rotation.decide import Moment, Wait

REASONS = frozenset({Reason.MIN_RELOAD_INTERVAL, Reason.DRAIN_BUDGET})
"""Why a fit drop waits for its turn."""
DRAIN_GRACE = 1.0
"""Seconds after a reload for which draining workers may be such as have no client and are just ending."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration says.

    Args:
        min_reload_interval: seconds between two reloads, at least; 0 for none.
        drain_budget: how many draining workers are enough to put off a reload; 0 for no limit.
    """

    min_reload_interval: float = 0.0
    drain_budget: int = 0


@dataclass(frozen=True, slots=True)
class ReadyDrop:
    """One drop that is ready.

    Args:
        site: whose.
        reloads: whether it takes a reload.
        critical_in: seconds until what is served is in its critical rest; 0 or less if it is.
    """

    site: str
    reloads: bool = True
    critical_in: float = math.inf


@dataclass(frozen=True, slots=True)
class LastReload:
    """The last reload that rotator made, as a daemon or by a command.

    The history tells it by the wall clock, which may be set while we wait. So what it tells is turned into monotonic
    time once, when it is first seen, and never reckoned anew: whatever is done to the clock, nobody waits for longer
    than the interval.

    Args:
        told: when the history says that it was, UTC; None if it tells of none.
        monotonic: when that was.
    """

    told: datetime | None = None
    monotonic: float = -math.inf

    def looked_up(self, told: datetime | None, now: Moment) -> LastReload:
        """After a look at the history."""
        if told is None or told == self.told:
            return self
        ago = max(0.0, (now.wall - told).total_seconds())
        return LastReload(told, max(self.monotonic, now.monotonic - ago))


def turns(
    asks: Sequence[ReadyDrop], last: LastReload, workers: Workers | None, limits: Limits, now: Moment
) -> tuple[Wait | None, ...]:
    """What may go now, and what each of the others waits for.

    Args:
        asks: everything that is ready.
        last: the last reload.
        workers: nginx's processes; where they cannot be seen (None), nobody knows what drains and nothing waits for it.
        limits: the configuration.
        now: on both clocks.

    Returns:
        For each of them, in their order: None if it may go now; else a wait until the time at which it goes at the
        latest, if neither clock nor configuration are changed. One without a message is too short to be told.
    """
    if any(ask.reloads and ask.critical_in <= 0 for ask in asks):  # 2
        return (None,) * len(asks)
    return tuple(_turn(ask, last, workers, limits, now) if ask.reloads else None for ask in asks)  # 1


def has_room(workers: Workers | None, limits: Limits) -> bool:
    """Whether so few workers are draining that a reload fits into the budget."""
    return not limits.drain_budget or workers is None or len(workers.draining) < limits.drain_budget


def _turn(ask: ReadyDrop, last: LastReload, workers: Workers | None, limits: Limits, now: Moment) -> Wait | None:
    critical = now.monotonic + ask.critical_in  # 5
    by_hand = f"rotator swap {ask.site} does not wait"
    free = last.monotonic + limits.min_reload_interval
    if now.monotonic < free:  # 3
        until = min(free, critical)
        words = (
            f"it is fit and goes live in {until - now.monotonic:.0f} s: nginx was reloaded "
            f"{now.monotonic - last.monotonic:.0f} s ago, and min_reload_interval is {limits.min_reload_interval:g} s"
        )
        return Wait(until, Reason.MIN_RELOAD_INTERVAL, words, by_hand)
    if workers is None or has_room(workers, limits):
        return None
    if now.monotonic < last.monotonic + DRAIN_GRACE:  # 4
        return Wait(min(last.monotonic + DRAIN_GRACE, critical), Reason.DRAIN_BUDGET)
    count = len(workers.draining)
    words = (
        f"it is fit, but {count} worker{'s' * (count != 1)} of earlier reloads still drain{'s' * (count == 1)}, and "
        f"drain_budget is {limits.drain_budget}: it goes live when fewer do, or when what is served is close to its end"
    )
    hint = f"`worker_shutdown_timeout` in nginx.conf bounds how long old workers live; {by_hand}"
    return Wait(critical, Reason.DRAIN_BUDGET, words, hint)
