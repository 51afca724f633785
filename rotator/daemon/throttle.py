"""The pause after an idle pass, which keeps a storm of events from keeping a core busy."""

from __future__ import annotations

import math

FREE_PASSES = 0.25
"""Seconds that passes may take in a row before they are paced."""
LONGEST_PAUSE = 0.2
"""Seconds."""


class Throttle:
    """Decides how long to pause after a pass that put nothing live.

    A drop causes a few events, and none of them has to wait: a quarter of a second of passes goes without a pause. Each
    further pass is followed by a pause of three times its length, which limits a storm to a quarter of a core.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._ended = -math.inf

    def pause(self, begun: float, ended: float) -> float:
        """The pause after one pass, in seconds.

        Args:
            begun: when the pass began, monotonic.
            ended: when it ended.
        """
        took = ended - begun
        self._spent = max(0.0, self._spent - (begun - self._ended) / 3) + took
        self._ended = ended
        return min(LONGEST_PAUSE, 3 * took) if self._spent > FREE_PASSES else 0.0
