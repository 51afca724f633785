"""The daemon as a service: start, signals, configuration reloads, reports to the service manager, and the end.

The thread of the loop does all work. Other threads only wake it: file events (`file_events`), the schedule of the
periodic jobs (`scheduler`); the metrics page has a thread of its own, which reads what this one publishes.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

from rotator import bootstrap, config
from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.core.times import rfc3339_millis
from rotator.daemon.file_events import FileEvents
from rotator.daemon.journal import ERROR, NOTICE, WARNING, Journal
from rotator.daemon.library_log import LibraryLog
from rotator.daemon.loop import Loop
from rotator.daemon.passed_sockets import NotListeningError, take_listener
from rotator.daemon.periodic_jobs import MINUTE, SCAN_DROPS, periodic_jobs
from rotator.daemon.runtime import Runtime, make_runtime, reload_trust
from rotator.daemon.scheduler import JobScheduler, JobTimes
from rotator.daemon.sd_notify import Notifier
from rotator.daemon.status import status_line
from rotator.daemon.telemetry import Telemetry
from rotator.daemon.throttle import Throttle
from rotator.daemon.wake import Wake
from rotator.rotation.ports import Clock, Ports
from rotator.rotation.undecided import is_long
from rotator.storage.generations import demand_state_dir
from rotator.storage.locks import DaemonLock
from rotator.storage.notes import JobNote, UndecidedNote
from rotator.system.users import user_name

END_WITHIN = 2.0
"""Seconds that a rotation in flight gets at the end of the daemon; a longer one is recovered by the next start."""
ALIVE_EVERY = 30.0
"""Seconds between two reports that the loop works, at most; the service manager may want them more often."""
REPORT_JOBS_EVERY = MINUTE
"""Seconds between two reports of the jobs' times in the daemon's note, at least."""
REPORT_UNDECIDED_EVERY = 5.0
"""Seconds between a report in that note and one of other drops that are undecided, at least."""
EXTEND_START_BY = 120.0
"""Seconds by which the service manager is asked to extend the start, repeatedly while the start goes on."""
ENTRIES_AT_START = 1000
"""Newest entries of the history from which a start reads the last outcome of each site."""
START_WITHIN = 30
"""Seconds that a start waits for a command that rotates."""

METRICS = "metrics"
"""The FileDescriptorName= of `rotator-metrics.socket`."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)


class Ended(BaseException):  # not an Exception: nothing on the way may catch it
    """The daemon was asked to end, and a rotation takes longer than `END_WITHIN`.

    It is raised at any point, as a kill would be: the lock names what is half done, and the next start recovers it.
    """


class ReportingClock:
    """The loop's clock: each wait inside a rotation reports that the loop works.

    Args:
        clock: the real one.
        report_alive: called at each wait.
    """

    def __init__(self, clock: Clock, report_alive: Callable[[], None]) -> None:
        self._report_alive = report_alive
        self.now = clock.now
        self.monotonic = clock.monotonic
        self._sleep = clock.sleep

    def sleep(self, seconds: float) -> None:
        """Waits."""
        self._report_alive()
        self._sleep(seconds)


class Daemon:
    """The daemon from its start to its end.

    Args:
        path: the configuration file.
        journal: where events are written.
        notifier: the service manager.

    Raises:
        RotatorError: the configuration cannot be used.
    """

    def __init__(self, path: Path, journal: Journal, notifier: Notifier) -> None:
        self.path, self.journal, self.notifier = path, journal, notifier
        self._starting, self._alive_at = True, 0.0
        self.telemetry = Telemetry(journal, self._passed_listener())
        self.config = config.load(path)
        _check_owner(self.config.state_dir)
        self.wake = Wake()
        self.file_events = FileEvents(self.wake, self._report_watching)
        self.loop = Loop(self._runtime(self.config), journal, self.telemetry, self.wake.is_set)
        table = periodic_jobs(
            self.loop,
            reload_trust=self._reload_trust,
            greet_root=self._greet_root,
            report_alive=self._report_alive,
            alive_every=min(self.notifier.watchdog_every or ALIVE_EVERY, ALIVE_EVERY),
        )
        self.jobs = JobScheduler(self.wake, table, self.loop.runtime.ports.clock)
        self._ending = self._has_ended = False
        self._reload_requested = False
        self._loads = 1
        self._jobs_reported_at = math.inf  # until the first note
        self._undecided: tuple[UndecidedNote, ...] = ()
        self._note_failure = ""
        self._trust_failures = ""
        self._apply_trouble = ""
        self._unsafe_drops: tuple[str, ...] = ()
        self.reload_failed = ""
        """Why the configuration on the disk is not in force; empty if it is."""
        self._lock: DaemonLock

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT. Returns the exit status.

        Raises:
            RotatorError: `daemon-running`; or the store cannot be used at the start.
        """
        with self.loop.runtime.ports.locks.daemon() as self._lock, LibraryLog(self.journal):
            earlier_handlers = {number: signal.signal(number, self._handle_signal) for number in _SIGNALS}
            try:
                self._run()
            except Ended:
                self.journal.say("cut-short", "a rotation was in flight; the next start proves it", WARNING)
            finally:
                self._has_ended = True  # an alarm that goes off now must not keep the rest from being closed
                signal.setitimer(signal.ITIMER_REAL, 0)
                self.notifier.stopping()
                self.file_events.close()
                self.jobs.close()
                self.telemetry.close()
                for number, handler in earlier_handlers.items():
                    signal.signal(number, handler)
                self.wake.close()
        self.journal.say("stopped", f"pid {os.getpid()}", NOTICE)
        return Exit.DONE

    def _run(self) -> None:
        self.journal.say("starting", f"pid {os.getpid()}, {_count(len(self.config.sites))}, {self.path}", NOTICE)
        ports = self.loop.runtime.ports
        self.telemetry.config = self.telemetry.config.then(True, ports.clock.now())
        self.telemetry.counters = self.telemetry.counters.with_last_swaps(ports.history.entries(limit=ENTRIES_AT_START))
        self._greet_root()
        self._start()
        self._starting = False
        self._report_unsafe_drops()
        self.jobs.start()
        self._write_note()
        gc.collect()
        gc.freeze()  # these objects stay: no full collection goes through them during a rotation (20 ms)
        self.notifier.ready(self.status())
        self.journal.say("ready", self.status(), NOTICE)
        reported, throttle = "", Throttle()
        while not self._ending:
            if self._reload_requested:
                self._reload()
            begun = time.monotonic()
            self._run_jobs()  # before the pass, which does what they request: one pass for each, not two
            due = self.loop.tick(self.file_events.touched())
            self.file_events.watch(self.loop.scan.directories)
            self._report_alive()
            self._publish()
            self._note_undecided()
            if (line := self.status()) != reported:
                reported = line
                self.notifier.status(line)
            self._wait(due, throttle.pause(begun, time.monotonic()) if self.loop.idle else 0.0)

    def _wait(self, due: float, pause: float) -> None:
        """Waits until something is due or an event comes, and for the pause in any case."""
        now = self.loop.runtime.ports.clock.monotonic()
        until = min(due, self.jobs.late_at())
        if self.wake.wait(until - now) and not self._ending and not self._reload_requested:
            passed = self.loop.runtime.ports.clock.monotonic() - now
            if passed < pause:
                time.sleep(pause - passed)

    def _start(self) -> None:
        """Recovers all sites. Waits for a command that rotates at this moment."""
        for left in reversed(range(START_WITHIN)):
            try:
                self.loop.start(1.0)
            except RotatorError as e:
                if e.code != Reason.LOCK_BUSY or not left:
                    raise
                if self._ending:
                    return
                self._report_alive()
            else:
                return

    # -- signals

    def _handle_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_requested = True
        elif number == signal.SIGALRM:
            if not self._has_ended:
                raise Ended
        elif not self._ending:
            self._ending = True
            signal.setitimer(signal.ITIMER_REAL, END_WITHIN)
        self.wake.set()

    def _reload(self) -> None:
        """Reads the configuration again (SIGHUP). An invalid one changes nothing."""
        self._reload_requested = False
        self.notifier.reloading()
        try:
            loaded = config.load(self.path)
            if loaded.state_dir != self.config.state_dir:
                message = f"state_dir cannot change in a running daemon ({self.config.state_dir} to {loaded.state_dir})"
                raise RotatorError(Reason.CONFIGURATION, message, "systemctl restart rotator", Exit.CONFIG)
            runtime = self._runtime(loaded)
        except RotatorError as e:
            self.reload_failed = e.message
            self.telemetry.config = self.telemetry.config.then(False, None)
            message = f"{e.message.rstrip('.')}; {e.hint.rstrip('.')}. The previous configuration stays in force"
            self.journal.say("reload-failed", message, ERROR)
        else:
            self.reload_failed = ""
            self.telemetry.config = self.telemetry.config.then(True, runtime.ports.clock.now())
            self.telemetry.counters = self.telemetry.counters.only(runtime.sites)
            self.config = loaded
            self._greet_root()
            self.loop.reconfigure(runtime)
            self.jobs.change_interval(SCAN_DROPS, runtime.scan_interval)
            self.journal.say("reloaded", f"{_count(len(loaded.sites))}, {self.path}", NOTICE)
            self._report_unsafe_drops()
        self._loads += 1
        self._write_note()
        self.notifier.ready(self.status())

    # -- periodic jobs

    def _run_jobs(self) -> None:
        """Runs the jobs that are due, and reports their times where `rotator status --verbose` reads them."""
        jobs = self.jobs.take()
        for job in jobs:
            job.run()
            self._report_alive()
        if jobs and time.monotonic() >= self._jobs_reported_at + REPORT_JOBS_EVERY:
            self._write_note()

    def _report_alive(self) -> None:
        """Reports to `/healthz` and to the service manager that the loop works; cheap, so each pass does it."""
        now = time.monotonic()
        self.telemetry.report_alive()
        if now - self._alive_at < (self.notifier.watchdog_every or ALIVE_EVERY) / 2:
            return
        self._alive_at = now
        if self._starting:  # probing a thousand sites whose listeners are dead takes long
            self.notifier.starting(EXTEND_START_BY)
        if self.notifier.watchdog_every is not None:
            self.notifier.watchdog()

    def _reload_trust(self) -> None:
        """Reads roots, pools and lists again. What cannot be read stays in force as it was read before."""
        runtime, errors = reload_trust(self.loop.runtime, self.config, self._report_alive)
        if runtime is not None:
            self.loop.renew(runtime)
        failures = "; ".join(f"{e.message} {e.hint}".rstrip() for e in errors)
        if failures and failures != self._trust_failures:
            self.journal.say("not-renewed", f"{failures} What was read before stays in force", WARNING)
        elif self._trust_failures and not failures:
            self.journal.say("renewed", "roots and lists can be read again", NOTICE)
        self._trust_failures = failures
        self._report_unsafe_drops()

    def _report_unsafe_drops(self) -> None:
        """Reports, once each, drops that users of other sites could replace or own: at a start, a reload, hourly."""
        faults = bootstrap.unsafe_drops_of(self.config)
        for fault in faults:
            if fault not in self._unsafe_drops:
                self.journal.say("unsafe-drop", fault, WARNING)
        self._unsafe_drops = faults

    def _greet_root(self) -> None:
        """Connects to root's program before a renewal needs it, and reports whether it can be used."""
        trouble = ""
        try:
            bootstrap.greet_root(self.config, self._report_alive)
        except RotatorError as e:
            trouble = f"no renewal can go live: {e.message}. {e.hint}"
        if trouble and trouble != self._apply_trouble:
            self.journal.say("apply-unavailable", trouble, WARNING)
        elif self._apply_trouble and not trouble:
            self.journal.say("apply-available", "root's program of the privileged step can be used again", NOTICE)
        self._apply_trouble = trouble

    # -- reports

    def _write_note(self) -> None:
        """Writes the note that `rotator config reload` waits for and `rotator status --verbose` shows; no flush."""
        self._jobs_reported_at = time.monotonic()
        try:
            self._lock.complete_note(
                config=str(self.path.absolute()),
                loads=self._loads,
                refused=self.reload_failed,
                reported=rfc3339_millis(self.loop.runtime.ports.clock.now()),
                jobs=[_as_note(times) for times in self.jobs.times()],
                undecided=self._undecided,
            )
        except RotatorError as e:
            if e.message != self._note_failure:
                self.journal.say("not-written", f"the daemon's note in the state directory: {e.message}", WARNING)
            self._note_failure = e.message
        else:
            self._note_failure = ""

    def _note_undecided(self) -> None:
        """Writes the note again if other drops than before have been undecided for long."""
        now, settle = self.loop.runtime.ports.clock.now(), self.loop.runtime.settle
        undecided = tuple(
            UndecidedNote(name, state.undecided_since)
            for name, state in self.loop.states.items()
            if state.undecided_since and is_long(state.undecided_since, now, settle)
        )
        if undecided != self._undecided and time.monotonic() >= self._jobs_reported_at + REPORT_UNDECIDED_EVERY:
            self._undecided = undecided
            self._write_note()

    def _publish(self) -> None:
        runtime = self.loop.runtime
        self.telemetry.listen(runtime.metrics_listen, runtime.metrics_hosts)
        self.telemetry.publish(
            self.loop.states,
            self.loop.maintenance.facts,
            self.loop.maintenance.live_problems,
            workers=runtime.ports.nginx.workers(),
            watcher_up=not self.file_events.trouble,
            overflows=self.file_events.overflows.count,
            scanned_at=self.loop.scan.at,
            scan_interval=runtime.scan_interval,
        )

    def status(self) -> str:
        """The state of the daemon and its sites in one line."""
        line = status_line(self.loop.states, self.loop.maintenance.degraded_sites)
        if self.loop.trouble == Reason.LOCK_BUSY and (holder := self.loop.runtime.ports.locks.rotation_holder()):
            line = f"renewals wait for the lock, which is held by {holder}; {line}"
        if self.reload_failed:
            line = f"the configuration on disk is invalid, the earlier one is in force; {line}"
        if self._apply_trouble:
            line = f"no renewal can go live, see `rotator status`; {line}"
        if self.telemetry.metrics_trouble:
            line += f"; {self.telemetry.metrics_trouble}"
        return line

    def _passed_listener(self) -> socket.socket | None:
        """The socket of `rotator-metrics.socket`; None if it is not used."""
        try:
            return take_listener(METRICS)
        except NotListeningError as e:
            self.journal.say("metrics-differ", f"the passed socket {METRICS!r} is not used: {e}", WARNING)
            return None

    def _report_watching(self, trouble: str) -> None:
        interval = f"{self.config.scan_interval:g} s"
        message = f"{trouble}; drops are looked at every {interval}" if trouble else "file events work again"
        self.journal.say("watch-lost" if trouble else "watch-back", message, WARNING)

    # -- configuration

    def _runtime(self, loaded: config.Config) -> Runtime:
        return make_runtime(loaded, self._reporting, self._report_alive)

    def _reporting(self, ports: Ports) -> Ports:
        """The same ports, which count reloads and report progress."""

        def say(message: str) -> None:
            self.journal.say("progress", message)

        return replace(
            self.telemetry.counting(ports),
            clock=ReportingClock(ports.clock, self._report_alive),
            say=say,
            alive=self._report_alive,
        )


def _check_owner(state_dir: Path) -> None:
    """Refuses a state directory of another user: its owner could not manage files of this user there."""
    owner = demand_state_dir(state_dir).st_uid
    if owner != os.geteuid():
        raise RotatorError(
            Reason.WRONG_USER,
            f"{state_dir} belongs to user {user_name(owner)}, but this is {user_name()}",
            "Start it as that user: systemctl start rotator; or by hand: runuser -u rotator -- rotator run",
        )


def _as_note(times: JobTimes) -> JobNote:
    """The times of one job for the daemon's note."""
    job, last, next = times.job, times.last, times.next
    last_run, next_run = (rfc3339_millis(moment) if moment else "" for moment in (last, next))
    return JobNote(job.name, job.every, last_run, next_run, job.description)


def _count(sites: int) -> str:
    return f"{sites} site{'s' * (sites != 1)}"
