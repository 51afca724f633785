"""Waiting for a condition with a deadline, instead of a lucky sleep; this module knows nothing of the condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

BUSY = 10.0
"""How many times longer things may take on a machine that has other work to do."""

PATIENCE = 60.0
"""Seconds within which something happens that happens at all, on such a machine as well."""


def wait_until(condition: Callable[[], T], timeout: float = 5.0, what: str = "", poll: float = 0.005) -> T:
    """The first true value of `condition`, looked at every `poll` seconds; AssertionError after the deadline.

    The deadline is generous: `timeout` is what a quiet machine needs at most, and a busy one has `BUSY` times that.
    The condition is looked at once more after the deadline, so a test process that was not scheduled for a while
    does not fail a condition that has long been true.
    """
    timeout *= BUSY
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        value = condition()
        if value:
            return value
        if late:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}; last seen: {value!r}")
        time.sleep(poll)
