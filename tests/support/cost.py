"""What a piece of work costs in processor time, for bounds that hold on slow and on busy machines as well.

A bound counts seconds of a processor that does `_reference` in `REFERENCE` seconds. A slower one, and one whose caches
and threads are shared with other work, is given as much more time as the reference work takes longer there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

REFERENCE = 0.018
ATTEMPTS = 5


def pace() -> float:
    """How many times longer this processor takes at the moment than the one of the bounds; at least 1."""
    begin = time.process_time()
    _reference()
    return max(1.0, (time.process_time() - begin) / REFERENCE)


def _reference() -> int:
    return len({b"%064x" % (number * 0x9E3779B97F4A7C15) for number in range(50_000)})


def cost(work: Callable[[], T], *, below: float, clock: Callable[[], float] = time.process_time) -> tuple[T, float]:
    """What the work gives, and the seconds that it costs; it is done again, a few times, while that is too much.

    Args:
        work: gives the same each time.
        below: the bound, in seconds.
        clock: of the whole process; `time.thread_time` leaves the other threads out.
    """
    least = float("inf")
    for _ in range(ATTEMPTS):
        begin = clock()
        result = work()
        spent = clock() - begin
        least = min(least, spent if spent < below else spent / pace())
        if least < below:
            break
    return result, least
