"""What of nginx can be seen from outside without asking it: whether it has become another since the last look."""

from __future__ import annotations

import math

from rotator.core.model import Workers
from rotator.rotation.ports import Ports


class NginxWatch:
    """The processes of nginx as they were noted last. Our own reloads are noted when they are done: no change."""

    def __init__(self) -> None:
        self.at = -math.inf
        """Monotonic time of the last look."""
        self.workers: Workers | None = None
        """As they were at the last look."""
        self._seen: object = None

    def note(self, ports: Ports) -> bool:
        """Looks, and remembers. Returns whether it is another than before."""
        look, before = ports.nginx.workers(), self._seen
        self.workers = look
        self._seen = (look.master, look.active, look.upgrading) if look else None
        self.at = ports.clock.monotonic()
        return self._seen != before
