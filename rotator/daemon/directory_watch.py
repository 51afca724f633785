"""Watches on single directories: one inotify instance and one thread for any number of them.

It uses watchdog's instance and its parser, and not its observers: an observer needs two threads for each directory, and
a recursive one follows whatever the writers of a drop make in it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

# Reads by rotator itself cause none of these: they open and close without writing, and change no directory.
_CHANGES = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MODIFY
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)


class DirectoryWatch:
    """One inotify instance.

    Args:
        touched: called in its thread with the path of each file or directory that changed.
        lost: called in its thread when the kernel has dropped events.

    Raises:
        OSError: no inotify instance is left.
        RuntimeError: no thread is left.
    """

    def __init__(self, touched: Callable[[str], None], lost: Callable[[], None]) -> None:
        self._touched = touched
        self._watched: dict[Path, tuple[WatchDescriptor, _Directory]] = {}
        self.gone: set[Path] = set()
        """The watched directories that were deleted; changed in its thread."""
        self._inotify = _Inotify(lost)
        try:
            self._inotify.start()
        except RuntimeError:
            self._inotify.discard()
            raise

    def is_alive(self) -> bool:
        """Whether its thread is running."""
        return self._inotify.is_alive()

    def add(self, path: Path) -> None:
        """Watches a directory; a link to one is followed.

        Raises:
            PermissionError: this user may not read it.
            OSError: it is gone, or the system's number of watches is reached.
        """
        self.remove(path)
        directory = _Directory(path, self._touched, self.gone)
        descriptor = self._inotify.add_callback(os.fsencode(path), _CHANGES, directory, directory.id)
        if descriptor == -1:  # watchdog raises no error for EACCES
            self._inotify.remove_callbacks([(descriptor, directory.id)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        self._watched[path] = descriptor, directory

    def remove(self, path: Path) -> None:
        """Ends the watch on a directory, if there is one."""
        descriptor, directory = self._watched.pop(path, (None, None))
        if descriptor is not None and directory is not None:
            self._inotify.remove_callbacks([(descriptor, directory.id)])

    def take_gone(self) -> frozenset[Path]:
        """The watched directories that were deleted since the last call."""
        gone = frozenset(self.gone.copy())
        self.gone -= gone
        return gone

    def close(self) -> None:
        """Ends every watch and the thread."""
        self._watched.clear()
        if self._inotify.is_alive():
            self._inotify.stop()
            self._inotify.join(2.0)


class _Inotify(InotifyFD):
    """The instance with its thread, which ends without a trace on stderr."""

    def __init__(self, lost: Callable[[], None]) -> None:
        super().__init__()
        self._lost = lost

    def run(self) -> None:
        """Reads events until the end, or until the system no longer gives them; the owner then makes another one."""
        try:
            super().run()
        except OSError:
            return

    def discard(self) -> None:
        """Closes an instance whose thread could not be started."""
        self._is_reading = False  # otherwise its thread would close the descriptors
        self.close()

    def handle_event(self, event: InotifyEvent) -> None:
        """Passes an event on to its directory."""
        if event.is_queue_overflow:
            self._lost()
        else:
            super().handle_event(event)


class _Directory:
    """One watched directory, as watchdog calls it."""

    def __init__(self, path: Path, touched: Callable[[str], None], gone: set[Path]) -> None:
        self.id = CallbackId(id(self))
        self._path, self._touched, self._gone = path, touched, gone

    def on_event(self, event: InotifyEvent) -> None:
        """Reports the path that changed."""
        self._touched(f"{self._path}/{os.fsdecode(event.name)}" if event.name else str(self._path))

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """Reports that the directory itself is gone."""
        self._gone.add(self._path)
        self._touched(str(self._path))

    def on_queue_overflow(self) -> None:
        """Does nothing, because the instance reports it once for all directories."""
