"""The daemon's life as a service: start, signals, reloading, what it tells the manager, the end; no rotation here."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

from rotator import config
from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.daemon.journal import ERROR, NOTICE, WARNING, Journal
from rotator.daemon.loop import Loop
from rotator.daemon.runtime import Runtime, make_runtime, reload_trust
from rotator.daemon.sd_notify import Notifier
from rotator.daemon.status import status_line
from rotator.daemon.telemetry import Telemetry
from rotator.daemon.triggers import PeriodicJobs, Throttle, Wake, Watcher
from rotator.rotation.ports import Clock, Ports
from rotator.storage.generations import demand_state_dir
from rotator.storage.locks import DaemonLock
from rotator.system.users import user_name

PROBE_EVERY, JUDGE_EVERY, TIDY_EVERY = 60.0, 3600.0, 86400.0
"""Seconds between two rounds of each duty."""
END_WITHIN = 2.0
"""Seconds that a rotation in flight gets when the end is asked for; after that it is for the next start to recover."""
SIGN_EVERY = 30.0
"""Seconds between two signs of life of a loop that has nothing to do."""
START_ON = 120.0
"""Seconds that the manager is asked for, again and again, while a start has something to do."""
REMEMBERED = 1000
"""Newest entries of the history from which the last outcome of each site is known again after a start."""
START_WITHIN = 30
"""Seconds that a start waits for a command that rotates."""


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)


class Ended(BaseException):  # no error, and nobody's to catch
    """The end was asked for and a rotation would have taken longer than it may.

    It strikes anywhere, as a kill would: what is half done is noted in the lock, and the next start recovers.
    """


class LivingClock:
    """The loop's clock: each wait inside of a rotation is a sign of life.

    Args:
        clock: the real one.
        beat: called at each wait.
    """

    def __init__(self, clock: Clock, beat: Callable[[], None]) -> None:
        self._beat = beat
        self.now = clock.now
        self.monotonic = clock.monotonic
        self._sleep = clock.sleep

    def sleep(self, seconds: float) -> None:
        """Waits."""
        self._beat()
        self._sleep(seconds)


class Daemon:
    """One life.

    Args:
        path: the configuration file.
        journal: where events are told.
        notifier: the service manager.

    Raises:
        RotatorError: a configuration that cannot be used.
    """

    def __init__(self, path: Path, journal: Journal, notifier: Notifier) -> None:
        self.path, self.journal, self.notifier = path, journal, notifier
        self.config = config.load(path)
        _check_owner(self.config.state_dir)
        self.wake = Wake()
        self.watcher = Watcher(self.wake, self._watching)
        self.jobs = PeriodicJobs(self.wake, {"probe": PROBE_EVERY, "judge": JUDGE_EVERY, "tidy": TIDY_EVERY})
        self.telemetry = Telemetry(journal)
        self.loop = Loop(self._runtime(self.config), journal, self.telemetry, self.wake.is_set)
        self._starting = True
        self._ending = self._over = False
        self._reload_asked = False
        self._beaten = 0.0
        self._loads = 1
        self._unread = ""
        self.reload_failed = ""
        """Why the configuration on the disk is not in force; empty if it is."""
        self._lock: DaemonLock

    def run(self) -> int:
        """Lives until SIGTERM or SIGINT. Returns the exit status.

        Raises:
            RotatorError: `daemon-running`; or the store cannot be used at the start.
        """
        with self.loop.runtime.ports.locks.daemon() as self._lock:
            before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
            try:
                self._live()
            except Ended:
                self.journal.say("cut-short", "a rotation was in flight; the next start proves it", WARNING)
            finally:
                self._over = True  # an alarm that goes off this instant must not keep the rest from being closed
                signal.setitimer(signal.ITIMER_REAL, 0)
                self.notifier.stopping()
                self.watcher.close()
                self.jobs.close()
                self.telemetry.close()
                for number, handler in before.items():
                    signal.signal(number, handler)
                self.wake.close()
        self.journal.say("stopped", f"pid {os.getpid()}", NOTICE)
        return Exit.DONE

    def _live(self) -> None:
        self.journal.say("starting", f"pid {os.getpid()}, {_count(len(self.config.sites))}, {self.path}", NOTICE)
        ports = self.loop.runtime.ports
        self.telemetry.config = self.telemetry.config.then(True, ports.clock.now())
        self.telemetry.counters = self.telemetry.counters.with_last_swaps(ports.history.entries(limit=REMEMBERED))
        self._start()
        self._starting = False
        self._tell_loaded()
        self.jobs.start()
        gc.collect()
        gc.freeze()  # what a start leaves stays for good: no full collection goes through it in mid-rotation (20 ms)
        self.notifier.ready(self.status())
        self.journal.say("ready", self.status(), NOTICE)
        told, throttle = "", Throttle()
        while not self._ending:
            if self._reload_asked:
                self._reload()
            begun = time.monotonic()
            self._note_duties()  # before the pass, which does them: one pass for each, not two
            due = self.loop.tick(self.watcher.touched())
            self.watcher.watch(self.loop.scan.trees, self.loop.scan.directories)
            self._beat()
            self._publish()
            if (line := self.status()) != told:
                told = line
                self.notifier.status(line)
            self._wait(due, throttle.pause(begun, time.monotonic()) if self.loop.idle else 0.0)

    def _wait(self, due: float, rest: float) -> None:
        """Until something is due, an event comes, or the manager wants a sign of life."""
        now = self.loop.runtime.ports.clock.monotonic()
        limit = min(self.notifier.watchdog_every or SIGN_EVERY, SIGN_EVERY)
        if self.wake.wait(min(due - now, limit)) and not self._ending and not self._reload_asked:
            passed = self.loop.runtime.ports.clock.monotonic() - now
            if passed < rest:
                time.sleep(rest - passed)

    def _start(self) -> None:
        """Recovery; a command that rotates at this moment is waited for."""
        for left in reversed(range(START_WITHIN)):
            try:
                self.loop.start(1.0)
            except RotatorError as e:
                if e.code != Reason.LOCK_BUSY or not left:
                    raise
                if self._ending:
                    return
                self._beat()
            else:
                return

    # -- what is heard

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
        elif number == signal.SIGALRM:
            if not self._over:
                raise Ended
        elif not self._ending:
            self._ending = True
            signal.setitimer(signal.ITIMER_REAL, END_WITHIN)
        self.wake.set()

    def _beat(self) -> None:
        """A sign of life of the loop."""
        now = time.monotonic()
        self.telemetry.beat()
        if now - self._beaten < (self.notifier.watchdog_every or SIGN_EVERY) / 2:
            return
        self._beaten = now
        if self._starting:  # a thousand sites at listeners that are dead take long to be asked
            self.notifier.starting(START_ON)
        if self.notifier.watchdog_every is not None:
            self.notifier.watchdog()

    def _note_duties(self) -> None:
        maintenance = self.loop.maintenance
        for duty in self.jobs.take():
            if duty == "judge":
                self._renew()
            {"probe": maintenance.probe, "judge": maintenance.judge, "tidy": maintenance.tidy}[duty]()

    def _reload(self) -> None:
        """SIGHUP: the configuration anew. One that is wrong changes nothing."""
        self._reload_asked = False
        self.notifier.reloading()
        try:
            found = config.load(self.path)
            if found.state_dir != self.config.state_dir:
                words = f"state_dir cannot change in a running daemon ({self.config.state_dir} to {found.state_dir})"
                raise RotatorError(Reason.CONFIGURATION, words, "systemctl restart rotator", Exit.CONFIG)
            runtime = self._runtime(found)
        except RotatorError as e:
            self.reload_failed = e.message
            self.telemetry.config = self.telemetry.config.then(False, None)
            words = f"{e.message}; {e.hint}. The configuration of before stays in force"
            self.journal.say("reload-failed", words, ERROR)
        else:
            self.reload_failed = ""
            self.telemetry.config = self.telemetry.config.then(True, runtime.ports.clock.now())
            self.telemetry.counters = self.telemetry.counters.only(runtime.sites)
            self.config = found
            self.loop.reconfigure(runtime)
            self.journal.say("reloaded", f"{_count(len(found.sites))}, {self.path}", NOTICE)
        self._loads += 1
        self._tell_loaded()
        self.notifier.ready(self.status())

    def _tell_loaded(self) -> None:
        """For `rotator config reload`, which waits for it."""
        try:
            self._lock.tell(config=str(self.path.absolute()), loads=self._loads, refused=self.reload_failed)
        except RotatorError as e:
            self.journal.say("not-written", f"who waits for the reload cannot be told: {e.message}", WARNING)

    def _renew(self) -> None:
        """Roots and lists anew, as somebody else renews them. What cannot be read stays as it was."""
        runtime, errors = reload_trust(self.loop.runtime, self.config)
        if runtime is not None:
            self.loop.renew(runtime)
        words = "; ".join(f"{e.message} {e.hint}".rstrip() for e in errors)
        if words and words != self._unread:
            self.journal.say("not-renewed", f"{words} What was read before stays in force", WARNING)
        elif self._unread and not words:
            self.journal.say("renewed", "roots and lists can be read again", NOTICE)
        self._unread = words

    # -- what is told

    def _publish(self) -> None:
        runtime = self.loop.runtime
        self.telemetry.listen(runtime.metrics_listen)
        self.telemetry.publish(
            self.loop.states,
            self.loop.maintenance.seen,
            self.loop.maintenance.judged,
            workers=runtime.ports.nginx.workers(),
            watcher_up=not self.watcher.trouble,
            overflows=self.watcher.overflows.count,
            scanned_at=self.loop.scan.at,
            scan_interval=runtime.scan_interval,
        )

    def status(self) -> str:
        """How it stands, in one line."""
        line = status_line(self.loop.states, self.loop.maintenance.degraded_sites)
        if self.reload_failed:
            line = f"the configuration on disk is wrong, the one before is in force; {line}"
        return line

    def _watching(self, trouble: str) -> None:
        words = f"{trouble}; drops are looked at every {self.config.scan_interval:g} s" if trouble else "events again"
        self.journal.say("watch-lost" if trouble else "watch-back", words, WARNING)

    # -- what it stands on

    def _runtime(self, found: config.Config) -> Runtime:
        return make_runtime(found, self._living, self._beat)

    def _living(self, ports: Ports) -> Ports:
        def say(words: str) -> None:
            self.journal.say("progress", words)

        return replace(self.telemetry.counting(ports), clock=LivingClock(ports.clock, self._beat), say=say)


def _check_owner(state_dir: Path) -> None:
    """Root must not leave files in another's store that its owner could not manage."""
    owner = demand_state_dir(state_dir).st_uid
    if owner != os.geteuid():
        raise RotatorError(
            Reason.WRONG_USER,
            f"{state_dir} belongs to user {user_name(owner)}, but this is {user_name()}",
            "Start it as that user: systemctl start rotator; or by hand: runuser -u rotator -- rotator run",
        )


def _count(sites: int) -> str:
    return f"{sites} site{'s' * (sites != 1)}"
