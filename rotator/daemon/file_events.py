"""File events of the drops (watchdog): they wake the loop, and name the files and directories that changed.

Events are a hint. A watch may die and a queue may overflow without a sign; the periodic scan of the drops finds what
they would have announced, so a lost event costs time only.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rotator.daemon.wake import Wake

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

MOST_WATCHES = 64
"""Directories that are watched one by one (each takes two threads); the scan finds changes in further ones."""

MOST_TOUCHED = 1000
"""Paths that are remembered between two passes; after more of them, everything is looked at."""

WATCH_AGAIN = 5.0
"""Seconds until a watch that failed is tried again."""

_logger = logging.getLogger("watchdog")
_logger.addHandler(logging.NullHandler())  # its lines would go to stderr past the journal's form
_logger.propagate = False


class Overflows(logging.Handler):
    """Counts the queue overflows of inotify: a line in watchdog's log is their only sign.

    Args:
        wake: set at each, as it is unknown which events were lost.
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


class FileEvents:
    """Watches directories, sets a `Wake` whenever something may have changed in them, and remembers the paths.

    Args:
        wake: what to set.
        report: called with the reason when watching fails, and with the empty string when it works again.
        monotonic: the clock by which a failed watch is tried again.
    """

    def __init__(
        self,
        wake: Wake,
        report: Callable[[str], None] = lambda _reason: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wake, self._report, self._monotonic = wake, report, monotonic
        self._try_again_at = 0.0
        self._armed: dict[Path, object] = {}
        self._watched: tuple[Collection[Path], Mapping[Path, tuple[int, int]]] | None = None
        self._observer: BaseObserver | None = None
        self.trouble = ""
        """Why a directory cannot be watched; empty if all are."""
        self.overflows = Overflows(wake)
        logging.getLogger("watchdog").addHandler(self.overflows)
        self.rearmed = 0
        """How often a dead or outdated watch was replaced."""
        self._touched: set[str] | None = None
        self._overflows_seen = 0
        self._touching = threading.Lock()

    def watch(self, trees: Collection[Path], directories: Mapping[Path, tuple[int, int]]) -> None:
        """Watches these directories from now on. Cheap where nothing has changed; never raises.

        Args:
            trees: directories that are watched with everything below them.
            directories: device and inode of every existing directory; a directory that was replaced gets a new watch.
        """
        now, failed = self._monotonic(), bool(self.trouble)
        is_working = now < self._try_again_at if failed else self._is_alive()
        if (trees, directories) == self._watched and is_working:
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
        if wanted == self._armed and is_working:
            return
        self.rearmed += bool(self._armed)
        self._arm(trees, wanted)
        self._try_again_at = now + WATCH_AGAIN
        if not (failed and self.trouble):  # otherwise each new try would cause the next one
            self._wake.set()  # something may have changed between the last look and the new watch

    def touched(self) -> frozenset[str] | None:
        """The files and directories that changed since the last call.

        Returns:
            None if they are unknown: not everything is watched, a watch is new, events were lost, or they are many.
        """
        overflows = self.overflows.count
        with self._touching:
            touched, self._touched = self._touched, set()
        lost, self._overflows_seen = overflows != self._overflows_seen, overflows
        return None if touched is None or lost or self.trouble else frozenset(touched)

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
            """Remembers the paths and wakes the loop; an exception here would end watchdog's dispatcher."""

            def dispatch(self, event: FileSystemEvent) -> None:
                touch(event.src_path, event.dest_path)

        # Reads by rotator itself cause none of these: they open and close without writing, and change no directory.
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
        except (
            OSError,
            RuntimeError,
        ) as error:  # no inotify instance or thread is left, or the directory is gone
            trouble = f"{error.strerror if isinstance(error, OSError) else error}"
        self._armed = dict(wanted)
        with self._touching:
            self._touched = None
        if trouble != self.trouble:
            self.trouble = trouble
            self._report(trouble)
