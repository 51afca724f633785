"""File events of the drops (inotify): they wake the loop, and name the files and directories that changed.

Events are a hint. A watch may die and a queue may overflow without a sign; the periodic scan of the drops finds what
they would have announced, so a lost event costs time only. A drop has flat files, so its
directory is watched without subdirectories: other users can make any number of them in a drop.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rotator.daemon.wake import Wake

if TYPE_CHECKING:
    from rotator.daemon.directory_watch import DirectoryWatch

MOST_TOUCHED = 1000
"""Paths that are remembered between two passes; after more of them, everything is looked at."""

WATCH_AGAIN = 5.0
"""Seconds until a watch that failed is tried again."""

_logger = logging.getLogger("watchdog")
_logger.addHandler(logging.NullHandler())  # its lines would go to stderr past the journal's form
_logger.propagate = False


class Overflows:
    """Counts the queue overflows of inotify."""

    def __init__(self) -> None:
        self.count = 0


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
        self._wanted: Mapping[Path, tuple[int, int]] = {}
        self._armed: dict[Path, tuple[int, int]] = {}
        self._failed: set[Path] = set()
        self._watch: DirectoryWatch | None = None
        self.trouble = ""
        """Why directories cannot be watched; empty if only some are, each for a reason of its own."""
        self.overflows = Overflows()
        self.rearmed = 0
        """How often a failed, dead or outdated watch was replaced."""
        self._touched: set[str] | None = None
        self._overflows_seen = 0
        self._touching = threading.Lock()

    def watch(self, directories: Mapping[Path, tuple[int, int]]) -> None:
        """Watches these directories from now on. Cheap where nothing has changed; never raises.

        A directory that is gone or that this user may not read is left to the periodic scan, which reports it, and
        tried again.

        Args:
            directories: device and inode of every existing directory; a directory that was replaced gets a new watch.
        """
        now = self._monotonic()
        is_alive = self._watch is not None and self._watch.is_alive()
        is_complete = is_alive and not self._failed and not (self._watch and self._watch.gone)
        if directories == self._wanted and (is_complete or now < self._try_again_at):
            return
        self._wanted, self._try_again_at = directories, now + WATCH_AGAIN
        trouble = "" if is_alive else self._begin()
        if self._watch is not None:
            trouble = self._arm(self._watch, directories) or trouble
        if trouble != self.trouble:
            self.trouble = trouble
            self._report(trouble)

    def _begin(self) -> str:
        """Makes a new inotify instance. Returns why there is none; empty if there is one."""
        from rotator.daemon.directory_watch import DirectoryWatch

        self.rearmed += bool(self._armed or self.trouble)
        was_reported = bool(self.trouble)
        self.close()
        with self._touching:
            self._touched = None
        try:
            self._watch = DirectoryWatch(self._touch, self._lose)
        except (OSError, RuntimeError) as error:  # no inotify instance or thread is left
            if not was_reported:
                self._wake.set()
            return _reason(error)
        return ""

    def _arm(self, watch: DirectoryWatch, directories: Mapping[Path, tuple[int, int]]) -> str:
        """Adds and removes watches. Returns the trouble that concerns all of them; empty if there is none."""
        trouble = ""
        for path in watch.take_gone():
            self._armed.pop(path, None)
        for path in self._armed.keys() - directories.keys():
            watch.remove(path)
            del self._armed[path]
        self._failed &= directories.keys()
        for path, mark in directories.items():
            if self._armed.get(path) == mark:
                continue
            self.rearmed += path in self._armed or path in self._failed
            is_new_failure = path not in self._failed
            self._armed.pop(path, None)
            try:
                watch.add(path)
            except OSError as error:
                self._failed.add(path)
                if error.errno not in (errno.EACCES, errno.ENOENT, errno.ENOTDIR):
                    trouble = _reason(error)
            else:
                self._failed.discard(path)
                self._armed[path] = mark
            if path in self._armed or is_new_failure:
                self._touch(str(path))  # something may have changed between the last look and the new watch
        return trouble

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

    def _touch(self, path: str) -> None:
        """Called in the thread of the watch."""
        with self._touching:
            if self._touched is not None:
                self._touched.add(path)
                if len(self._touched) > MOST_TOUCHED:
                    self._touched = None
        self._wake.set()

    def _lose(self) -> None:
        """Called in the thread of the watch."""
        self.overflows.count += 1
        self._wake.set()

    def close(self) -> None:
        """Ends watching."""
        watch, self._watch, self._armed = self._watch, None, {}
        if watch is not None:
            watch.close()


def _reason(error: OSError | RuntimeError) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
