"""The state that the loop keeps between two passes, which the modules of its steps share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from rotator.core.model import Outcome
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.daemon.drop_state import DropState
from rotator.daemon.journal import Journal
from rotator.daemon.maintenance import Maintenance
from rotator.daemon.nginx_watch import NginxWatch
from rotator.daemon.runtime import Runtime
from rotator.daemon.scan import DropScan
from rotator.daemon.telemetry import Telemetry
from rotator.rotation.decide import Moment
from rotator.rotation.fairness import Account
from rotator.rotation.pacing import LastReload


class LoopState:
    """The state between two passes.

    Args:
        runtime: the configuration.
        journal: gets a line for each event.
        telemetry: counts the outcomes; None for one of its own.
    """

    def __init__(self, runtime: Runtime, journal: Journal, telemetry: Telemetry | None = None) -> None:
        self.runtime = runtime
        self.journal = journal
        self.telemetry = telemetry or Telemetry(journal)
        self.maintenance = Maintenance(runtime, journal, self.telemetry.outcome)
        self.states: dict[str, DropState] = {name: DropState() for name in runtime.sites}
        self.scan = DropScan(runtime.sources, self.now())
        self.nginx_watch = NginxWatch()
        self.last_reload = LastReload()
        self.trouble: Reason | Code | None = None
        """Why the lock or the store was unavailable in the last try; None if both were available."""
        self.cpu_time: Callable[[], float] = time.thread_time
        """The CPU time of this thread, in seconds."""
        self.accounts: dict[int, Account] = {}
        """The CPU time that the decisions about the drops of each owner have taken, by uid."""
        self.delivering_owners = frozenset({0, os.geteuid()})
        """The owners of files that `rotator deliver` writes as root, by uid: they are those of many sites, so they have
        no account."""
        self.decisions = 0
        """The number of decisions since the start."""
        self.lock_holder = ""
        """The holder of the lock in the last try, as it was reported; empty once the lock was available."""

    def now(self) -> Moment:
        """The time, on both clocks."""
        clock = self.runtime.ports.clock
        return Moment(clock.now(), clock.monotonic())

    def report(self, outcome: Outcome) -> None:
        """Counts an outcome of a drop."""
        self.telemetry.outcome(outcome, "drop")
