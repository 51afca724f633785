"""The watch over nginx's processes: whether they have changed since the last look."""

from __future__ import annotations

import math

from rotator.core.model import Workers
from rotator.rotation.ports import Ports


class NginxWatch:
    """Remembers the processes of nginx. The loop notes them after its own reloads, which then count as no change."""

    def __init__(self) -> None:
        self.at = -math.inf
        """Monotonic time of the last look."""
        self.workers: Workers | None = None
        """The processes at the last look; None where they cannot be seen."""
        self._identity: object = None

    def note(self, ports: Ports) -> bool:
        """Looks at the processes and remembers them. Returns whether they have changed since the last look."""
        workers, earlier = ports.nginx.workers(), self._identity
        self.workers = workers
        self._identity = (workers.master, workers.active, workers.upgrading) if workers else None
        self.at = ports.clock.monotonic()
        return self._identity != earlier
