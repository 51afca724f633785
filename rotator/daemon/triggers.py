"""What wakes the loop: file events, periodic duties, signals. Nothing is read, decided or done here.

Every event may be lost and every duty late: the loop looks by itself at short intervals. So a watch that has died, a
queue that overflowed or a clock that was set back cost time, and nothing else.
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler  # type: ignore[import-untyped]
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

MOST_WATCHES = 64
"""Directories that are watched one by one (each takes two threads); what is beyond is found by looking."""

MOST_TOUCHED = 1000
"""Files and directories that are kept in mind between two passes; with more of them, everything is looked at."""

WATCH_AGAIN = 5.0
"""Seconds until what could not be watched is tried again."""

FREE_PASSES = 0.25
"""Seconds that passes may take in a row before they are paced."""

for _name in ("watchdog", "apscheduler"):  # theirs would go to stderr past the journal's form
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False


class Overflows(logging.Handler):
    """Counts the queue overflows of inotify: a line in watchdog's log is the only sign of one that there is.

    Args:
        wake: set at each, as nobody knows which events were lost.
    """

    def __init__(self, wake: Wake) -> None:
        super().__init__(logging.WARNING)
        self._wake = wake
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called in watchdog's thread."""
        if "overflow" in str(record.msg):
            self.count += 1
            self._wake.set()


class Wake:
    """Something to wait for that threads and signal handlers may set: it takes no lock, and many settings are one."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def set(self) -> None:
        """Ends the wait, or the next one."""
        try:
            os.eventfd_write(self._fd, 1)
        except (OSError, ValueError):
            return  # as full as can be, or closed: nobody waits then

    def wait(self, seconds: float) -> bool:
        """Waits at most so long. Returns whether it was set."""
        if not self._poll.poll(max(0.0, seconds) * 1000):
            return False
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return False
        return True

    def is_set(self) -> bool:
        """Whether the next wait would end at once."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Gives the descriptor back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Throttle:
    """How long to pause after a pass that found nothing to do, so that a storm of events cannot keep a core busy.

    A drop is a few events, and none of them is to wait. So a quarter of a second of passes goes without a pause; what
    a storm adds to that gets three times its length, which leaves it a quarter of a core.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._ended = -math.inf

    def pause(self, begun: float, ended: float) -> float:
        """Seconds to pause.

        Args:
            begun: when the pass began, monotonic.
            ended: when it ended.
        """
        took = ended - begun
        self._spent = max(0.0, self._spent - (begun - self._ended) / 3) + took
        self._ended = ended
        return min(0.2, 3 * took) if self._spent > FREE_PASSES else 0.0


class Watcher:
    """Watches directories, sets a `Wake` whenever something may have changed in them, and keeps in mind what that was.

    Args:
        wake: what to set.
        tell: told what is wrong with watching, in words, and the empty string when that is over.
        monotonic: the clock by which what failed is tried again.
    """

    def __init__(
        self,
        wake: Wake,
        tell: Callable[[str], None] = lambda _words: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wake, self._tell, self._monotonic = wake, tell, monotonic
        self._again = 0.0
        self._armed: dict[Path, object] = {}
        self._watched: tuple[Collection[Path], Mapping[Path, tuple[int, int]]] | None = None
        self._observer: BaseObserver | None = None
        self.trouble = ""
        """Why a directory cannot be watched; empty if none has failed."""
        self.overflows = Overflows(wake)
        logging.getLogger("watchdog").addHandler(self.overflows)
        self.rearmed = 0
        """How often a dead or outdated watch was replaced."""
        self._touched: set[str] | None = None
        self._lost = 0
        self._touching = threading.Lock()

    def watch(self, trees: Collection[Path], directories: Mapping[Path, tuple[int, int]]) -> None:
        """Watches these directories from now on. Cheap where nothing has changed; never raises.

        Args:
            trees: directories that are watched with everything below them.
            directories: device and inode of every existing directory; a directory that was replaced gets a new watch.
        """
        now, failed = self._monotonic(), bool(self.trouble)
        is_as_it_should_be = now < self._again if failed else self._is_alive()
        if (trees, directories) == self._watched and is_as_it_should_be:
            return
        self._watched = (trees, directories)
        below: set[Path] = set()
        wanted: dict[Path, object] = {}
        for tree in trees:
            inside = {path: mark for path, mark in directories.items() if path.is_relative_to(tree)}
            below |= inside.keys()
            if tree in directories:
                wanted[tree] = frozenset(inside.items())
        others = sorted(directories.keys() - below)
        wanted |= {path: directories[path] for path in others[:MOST_WATCHES]}
        if wanted == self._armed and is_as_it_should_be:
            return
        self.rearmed += bool(self._armed)
        self._arm(trees, wanted)
        self._again = now + WATCH_AGAIN
        if not (failed and self.trouble):  # or each new try would be the cause of the next
            self._wake.set()  # what happened between the last look and the new watch

    def touched(self) -> frozenset[str] | None:
        """The files and directories in which something has happened since this was asked last.

        Returns:
            None if that is not known: not everything is watched, a watch is new, events were lost, or they are many.
        """
        overflows = self.overflows.count
        with self._touching:
            known, self._touched = self._touched, set()
        lost, self._lost = overflows != self._lost, overflows
        return None if known is None or lost or self.trouble else frozenset(known)

    def _touch(self, *paths: str | bytes) -> None:
        """Called in watchdog's thread."""
        with self._touching:
            if self._touched is not None:
                self._touched.update(os.fsdecode(path) for path in paths if path)
                if len(self._touched) > MOST_TOUCHED:
                    self._touched = None
        self._wake.set()

    def close(self) -> None:
        """Ends watching."""
        logging.getLogger("watchdog").removeHandler(self.overflows)
        self._disarm()

    def _disarm(self) -> None:
        observer, self._observer, self._armed = self._observer, None, {}
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join(2.0)

    def _is_alive(self) -> bool:
        observer = self._observer
        return observer is not None and observer.is_alive() and all(e.is_alive() for e in observer.emitters)

    def _arm(self, trees: Collection[Path], wanted: Mapping[Path, object]) -> None:
        from watchdog import events
        from watchdog.observers import Observer

        touch = self._touch

        class Handler(events.FileSystemEventHandler):
            """Notes and wakes, nothing else: an exception here would end the dispatcher."""

            def dispatch(self, event: FileSystemEvent) -> None:
                touch(event.src_path, event.dest_path)

        # Our own reads open and close without writing, and change no directory: they are not among these.
        changes = [
            *(events.DirCreatedEvent, events.DirDeletedEvent, events.DirMovedEvent),
            *(events.FileCreatedEvent, events.FileModifiedEvent, events.FileClosedEvent),
            *(events.FileDeletedEvent, events.FileMovedEvent),
        ]
        self._disarm()
        trouble = ""
        try:
            self._observer = Observer()
            self._observer.daemon = True
            self._observer.start()
            for path in wanted:
                self._observer.schedule(Handler(), str(path), recursive=path in trees, event_filter=changes)
        except (OSError, RuntimeError) as error:  # no inotify instance or thread left, or it has gone this instant
            trouble = f"{error.strerror if isinstance(error, OSError) else error}"
        self._armed = dict(wanted)
        with self._touching:
            self._touched = None
        if trouble != self.trouble:
            self.trouble = trouble
            self._tell(trouble)


class PeriodicJobs:
    """Periodic duties: each becomes due after its interval, and is only noted; whoever does it takes it from here.

    Args:
        wake: set when one becomes due.
        every: seconds between two times of each.
        monotonic: a duty that the scheduler has not called for half as long again is due all the same, as the
            scheduler goes by the wall clock.
    """

    def __init__(self, wake: Wake, every: Mapping[str, float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wake, self._every, self._monotonic = wake, dict(every), monotonic
        self._due: set[str] = set()
        self._taken = dict.fromkeys(every, monotonic())
        self._scheduler: BackgroundScheduler | None = None

    def start(self) -> None:
        """Begins."""
        from datetime import UTC

        from apscheduler.executors.pool import ThreadPoolExecutor  # type: ignore[import-untyped]
        from apscheduler.schedulers.background import BackgroundScheduler

        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
            daemon=True,
        )
        for name, seconds in self._every.items():
            self._scheduler.add_job(self._note, "interval", (name,), seconds=seconds, id=name)
        self._scheduler.start()

    def take(self) -> set[str]:
        """The duties that are due; they are not until their next time."""
        now = self._monotonic()
        late = {name for name, seconds in self._every.items() if now - self._taken[name] > 1.5 * seconds}
        due = late | self._due.copy()
        for name in due:
            self._due.discard(name)
            self._taken[name] = now
        return due

    def close(self) -> None:
        """Ends them."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)

    def _note(self, name: str) -> None:
        self._due.add(name)
        self._wake.set()
