"""Pacing: whether a valid drop may cost nginx a reload now or waits for its turn, as pure functions.

Each reload leaves nginx with a generation of old workers, which live as long as the longest of their connections
(src/os/unix/ngx_process_cycle.c). So, in this order:

 1. A drop that takes no reload does not wait: the first pair of a site, a pair that is live already or is refused.
 2. If the served certificate of one ready drop is in the critical rest of its life, all ready drops go live now: one
    reload for many sites costs nginx no more than one reload for one.
 3. Within `min_reload_interval` after the last reload of any process, the others wait for the interval to end.
 4. While `drain_budget` old workers or more are draining, they wait until there are fewer; workers that end right after
    their reload are not reported.
 5. No wait lasts longer than until the critical rest begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rotator.core.hints import command
from rotator.core.model import Workers
from rotator.core.reasons import Reason
from rotator.rotation.decide import Moment, Wait

REASONS = frozenset({Reason.MIN_RELOAD_INTERVAL, Reason.DRAIN_BUDGET})
"""Why a valid drop waits for its turn."""
DRAIN_GRACE = 1.0
"""Seconds after a reload in which draining workers may have no client and be about to end."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the configuration.

    Args:
        min_reload_interval: seconds between two reloads, at least; 0 for none.
        drain_budget: the number of draining workers that puts off a reload; 0 for no limit.
    """

    min_reload_interval: float = 0.0
    drain_budget: int = 0


@dataclass(frozen=True, slots=True)
class ReadyDrop:
    """One drop that is ready.

    Args:
        site: the site's name.
        reloads: whether it takes a reload.
        critical_in: seconds until what is served is in its critical rest; 0 or less if it is.
    """

    site: str
    reloads: bool = True
    critical_in: float = math.inf


@dataclass(frozen=True, slots=True)
class LastReload:
    """The last reload that rotator made, as a daemon or by a command.

    The history has it by the wall clock, which may be set during a wait. So its time is converted into monotonic time
    once, when it is first seen: however the clock is set, no wait is longer than the interval.

    Args:
        at: its time in the history, UTC; None if the history has none.
        monotonic: the same as monotonic time.
    """

    at: datetime | None = None
    monotonic: float = -math.inf

    def updated(self, at: datetime | None, now: Moment) -> LastReload:
        """The last reload after a look at the history.

        Args:
            at: its time there, UTC; None if there is none.
            now: on both clocks.
        """
        if at is None or at == self.at:
            return self
        ago = max(0.0, (now.wall - at).total_seconds())
        return LastReload(at, max(self.monotonic, now.monotonic - ago))


def turns(
    drops: Sequence[ReadyDrop], last: LastReload, workers: Workers | None, limits: Limits, now: Moment
) -> tuple[Wait | None, ...]:
    """Which drops may go now, and what each of the others waits for.

    Args:
        drops: everything that is ready.
        last: the last reload.
        workers: nginx's processes; None where they cannot be seen: then no drop waits for draining ones.
        limits: the configuration.
        now: on both clocks.

    Returns:
        For each of them, in their order: None if it may go now; else a wait until the time at which it goes at the
        latest, if neither clock nor configuration are changed. One without a message is too short to be reported.
    """
    if any(drop.reloads and drop.critical_in <= 0 for drop in drops):  # 2
        return (None,) * len(drops)
    return tuple(_turn(drop, last, workers, limits, now) if drop.reloads else None for drop in drops)  # 1


def has_room(workers: Workers | None, limits: Limits) -> bool:
    """Whether so few workers are draining that a reload fits into the budget."""
    return not limits.drain_budget or workers is None or len(workers.draining) < limits.drain_budget


def _turn(drop: ReadyDrop, last: LastReload, workers: Workers | None, limits: Limits, now: Moment) -> Wait | None:
    critical = now.monotonic + drop.critical_in  # 5
    by_hand = f"A swap by hand does not wait: {command('rotator swap', drop.site)}"
    free = last.monotonic + limits.min_reload_interval
    if now.monotonic < free:  # 3
        until = min(free, critical)
        message = (
            f"it is valid and goes live in {until - now.monotonic:.0f} s: nginx was reloaded "
            f"{now.monotonic - last.monotonic:.0f} s ago, and min_reload_interval is {limits.min_reload_interval:g} s"
        )
        return Wait(until, Reason.MIN_RELOAD_INTERVAL, message, by_hand)
    if workers is None or has_room(workers, limits):
        return None
    if now.monotonic < last.monotonic + DRAIN_GRACE:  # 4
        return Wait(min(last.monotonic + DRAIN_GRACE, critical), Reason.DRAIN_BUDGET)
    count = len(workers.draining)
    message = (
        f"it is valid, but {count} worker{'s' * (count != 1)} of earlier reloads still drain{'s' * (count == 1)}, and "
        f"drain_budget is {limits.drain_budget}: it goes live when fewer do, or when what is served is close to its end"
    )
    hint = f"`worker_shutdown_timeout` in nginx.conf bounds how long old workers live. {by_hand}"
    return Wait(critical, Reason.DRAIN_BUDGET, message, hint)
