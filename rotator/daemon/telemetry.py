"""The daemon's measurements: counters, snapshots for the metrics page, and health.

Nothing here can hold up a rotation: a port that is taken is reported once and tried again, and the page is made in the
server's thread from an immutable value.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result, Workers
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason, reason_of
from rotator.daemon.drop_state import DropState
from rotator.daemon.journal import NOTICE, WARNING, Journal
from rotator.metrics import Counters, InputState, LastResult, Registry, SiteFacts, Snapshot, http
from rotator.rotation.decide import Held, Nothing, Rotate, Settling, Wait
from rotator.rotation.ports import Applied, Ports
from rotator.system.listeners import listening_users
from rotator.system.trusted_paths import overflow_uid
from rotator.system.users import user_name

LISTEN_AGAIN = 30.0
"""Seconds until a metrics port that was taken is tried again."""
STALLED_AFTER = 120.0
"""Seconds without a report of the loop after which `/healthz` fails: longer than any proof sleeps."""


class Telemetry:
    """Counts what the daemon does, and publishes it.

    Args:
        journal: where a port that cannot be opened is reported.
        passed: the listening socket of `rotator-metrics.socket`; None if there is none.
    """

    def __init__(self, journal: Journal, passed: socket.socket | None = None) -> None:
        self._passed = passed
        self.journal = journal
        self.counters = Counters()
        self.config = LastResult()
        self.registry: Registry | None = None
        self._server: http.Server | None = None
        self._listen: tuple[str, tuple[str, ...]] = ("", ())
        self._listen_again_at = 0.0
        self._failure = ""
        self.metrics_trouble = ""
        """Why the page is not served where the configuration says; empty if it is."""
        self._ready = False
        self._scanned_at: datetime | None = None
        self._alive_at = time.monotonic()
        self._shown: dict[str, tuple[SiteFacts | None, SiteFacts]] = {}

    # -- health, in the server's thread

    def alive(self) -> bool:
        """Whether the loop has recently reported that it works."""
        return time.monotonic() - self._alive_at < STALLED_AFTER

    def ready(self) -> bool:
        """Whether the first pass is done."""
        return self._ready

    def report_alive(self) -> None:
        """Takes the loop's report that it works."""
        self._alive_at = time.monotonic()

    # -- the page

    def listen(self, address: str, hosts: tuple[str, ...] = ()) -> None:
        """Serves the page at an address. Called in each pass, and cheap if the page is served there already.

        A passed socket is served in place of the address, and a difference between the two is reported.

        Args:
            address: `host:port`.
            hosts: names under which it is asked for, beside those of this host.
        """
        now = time.monotonic()
        is_served = self._server is not None and self._server.is_alive()
        if (address, hosts) == self._listen and (is_served or now < self._listen_again_at):
            return
        self.close()
        self._listen, self._listen_again_at = (address, hosts), now + LISTEN_AGAIN
        self.registry = self.registry or Registry()
        try:
            self._server = http.serve(address, self.registry, self, hosts, self._passed)
        except RotatorError as e:
            self.metrics_trouble = f"{e.message}{_taken_by(address)}" if e.code == Reason.ADDRESS_IN_USE else e.message
            if self.metrics_trouble != self._failure:
                self._failure = self.metrics_trouble
                self.journal.say("metrics-down", f"{self.metrics_trouble}; {e.hint}", WARNING)
            return
        self._failure, served = "", self._server.address
        self.metrics_trouble = ""
        if self._passed is not None and _differ(served, address):
            self.metrics_trouble = (
                f"metrics are served at {served}, the address of rotator-metrics.socket, and not at {address}, which "
                "listen under [metrics] names"
            )
            step = "Make them equal: systemctl edit rotator-metrics.socket, or listen under [metrics]"
            self.journal.say("metrics-differ", f"{self.metrics_trouble}; {step}", WARNING)
        self.journal.say("metrics", f"served at http://{served if self._passed else address}/metrics", NOTICE)

    def close(self) -> None:
        """Ends serving."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def publish(
        self,
        states: Mapping[str, DropState],
        facts: Mapping[str, SiteFacts],
        live_problems: Mapping[str, Sequence[Problem]],
        *,
        workers: Workers | None,
        watcher_up: bool,
        overflows: int,
        scanned_at: datetime,
        scan_interval: float,
    ) -> None:
        """Publishes the state after a pass.

        Args:
            states: the state of each drop.
            facts: what the last probe of each site showed.
            live_problems: what the last validation found in each live generation.
            workers: nginx's processes; None where they cannot be seen.
            watcher_up: whether file events arrive.
            overflows: how often file events were lost.
            scanned_at: when all drops were looked at, UTC; it counts if none of them had a problem.
            scan_interval: seconds between two looks at all drops.
        """
        self._ready = True
        if not any(state.problem for state in states.values()):
            self._scanned_at = scanned_at
        self.counters = self.counters.after_overflows(overflows)
        if self.registry is None:
            return
        if len(self._shown) > len(states):
            self._shown.clear()
        sites = tuple(
            self._site_facts(name, facts.get(name), state, accepted=_accepted(live_problems.get(name)))
            for name, state in states.items()
        )
        self.registry.publish(
            Snapshot(
                sites,
                workers,
                watcher_up,
                self._scanned_at,
                timedelta(seconds=scan_interval),
                self.config,
                self.counters,
            )
        )

    def _site_facts(self, name: str, probed: SiteFacts | None, state: DropState, *, accepted: bool | None) -> SiteFacts:
        """The facts of a site with the state of its drop; the same object as last time while nothing has changed."""
        before, facts = self._shown.get(name, (None, None))
        now = (input_state(state), accepted, state.undecided_since)
        if facts is None or before is not probed or now != (facts.input, facts.live_accepted, facts.undecided_since):
            facts = replace(probed or SiteFacts(name), input=now[0], live_accepted=accepted, undecided_since=now[2])
            self._shown[name] = (probed, facts)
        return facts

    # -- counting

    def outcome(self, outcome: Outcome, trigger: str) -> None:
        """Counts the outcome for a site."""
        self.counters = self.counters.after(outcome, trigger)

    def scan_error(self, reason: Reason | Code) -> None:
        """Counts a drop that could not be looked at."""
        self.counters = self.counters.after_scan_error(reason)

    def counting(self, ports: Ports) -> Ports:
        """The same ports, which count each reload of nginx as soon as its end is known.

        Outcomes do not give the number of reloads: an outcome is about one site, while a batch is one reload, and a
        batch that was rolled back is tried again with one reload for each of its sites.
        """
        clock = ports.clock
        begun: float | None = None  # monotonic, of the reload that has still to be proved

        def count(failure: Reason | Code | None, seconds: float | None = None) -> None:
            self.counters = self.counters.after_reload(failure, clock.now(), seconds)

        def apply(generations: Mapping[str, str], *, hup: bool) -> Applied:
            nonlocal begun
            if not hup:
                return ports.apply(generations, hup=False)
            at = clock.monotonic()
            try:
                applied = ports.apply(generations, hup=True)
            except RotatorError as e:
                count(e.code)
                raise
            if failure := applied.error or (applied.decision if applied.decision in ("refused", "gone") else ""):
                count(reason_of(failure))
            else:
                begun = at
            return applied

        def proved(ok: bool) -> None:  # noqa: FBT001 - its only argument
            nonlocal begun
            if begun is not None:
                count(None if ok else Reason.NOT_PROVED, clock.monotonic() - begun if ok else None)
            begun = None

        return replace(ports, apply=apply, proved=proved)


def _taken_by(address: str) -> str:
    """A clause about the user who listens at an address; a page there is not this daemon's."""
    users = listening_users(int(address.rpartition(":")[2])) - {overflow_uid()}
    owner = f" by user {', '.join(map(user_name, sorted(users)))}" if users else " by another program"
    return f"{owner}; a page there is not this daemon's"


def _differ(served: str, address: str) -> bool:
    """Whether these are different addresses, as far as that is known without a look-up of a name."""
    host, _, port = address.rpartition(":")
    served_host, _, served_port = served.rpartition(":")
    is_address = host.startswith("[") or host.replace(".", "").isdigit()
    return port != served_port or (is_address and host != served_host)


def _accepted(problems: Sequence[Problem] | None) -> bool | None:
    return None if problems is None else not any(p.severity is Severity.REJECT for p in problems)


def input_state(state: DropState) -> InputState | None:
    """The state of a drop on the metrics page; None if the drop is empty."""
    match state.decision:
        case Nothing():
            return None
        case Held():
            return InputState.HELD
        case Settling():
            return InputState.SETTLING
        case Wait() | Rotate():
            return InputState.DEFERRED
    bad = (Result.REJECTED, Result.ROLLED_BACK, Result.STRANDED)
    return InputState.REJECTED if state.decided.result in bad else InputState.ACCEPTED
