"""The history on disk: one line appended for each outcome.

`history.jsonl` is appended to, one line at a time, and each line is flushed before the outcome is reported. A long file
is closed under the rotation lock: it is renamed to `history-000001.jsonl` and so on, upwards, and the oldest closed
files are deleted. No line is added to a closed file: a writer holds the lock of the history and checks that the file
still has its name. That lock is the file `history.lock`, which no other user can open: the history itself is readable
for the group, and flock(2) needs no right to write. The directory is flushed before a new `history.jsonl` is made, so
that it never replaces a file whose new name a power failure may undo; and after each line, because the process that
made the file may have been killed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result, has_reloaded
from rotator.storage.entries import HistoryEntry, entry_object, read_entry
from rotator.storage.errors import translated
from rotator.storage.lines import MAX_LINE, MAX_TAIL, appended_lines, lines_backwards, tail_begin
from rotator.system.files import flush_dir, json_bytes, lock_file, open_lock, write_all

CLOSE_AT = 4 * 1024 * 1024
"""The size in bytes at which the file is closed: about 6,000 outcomes."""
KEEP_CLOSED = 16
"""The number of closed files that are kept: with the open one, about 100,000 outcomes in 68 MiB."""
RECENT = 1000
"""The number of newest entries among which the last reload is searched."""
APPEND_WITHIN = 2.0
"""Seconds to wait for another writer, which needs the time of one flush, unless it was stopped in between."""

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_CLOSED = re.compile(r"history-([0-9]{6,12})\.jsonl\Z")
_SITE = re.compile(rb'\{"site": "([^"\\]*)"')
"""The beginning of each line, which shows its site before the line is parsed."""


Position = tuple[int, int, int]
"""A position in the history: device, inode and length of the open file."""
UNREAD: Position = (0, 0, 0)


class History:
    """The history of one state directory.

    Args:
        root: the state directory; it must exist and belong to the user who calls.
        close_at: the size in bytes at which `tidy` closes the file.
        keep: how many closed files `tidy` keeps, at least one.
    """

    def __init__(self, root: Path, *, close_at: int = CLOSE_AT, keep: int = KEEP_CLOSED) -> None:
        self.root = root
        self._path = root / "history.jsonl"
        self._close_at, self._keep = close_at, max(1, keep)

    # -- writing

    def record(self, outcome: Outcome, *, who: str, trigger: str, fingerprints: Mapping[str, str]) -> None:
        """Appends an outcome; returns when it is on the disk.

        Args:
            outcome: the outcome.
            who: the user, or `rotatord`.
            trigger: `swap`, `rollback`, `drop`, `recover` …
            fingerprints: SHA-256 of the leaves that it is about, by kind of key.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`.
        """
        entry = HistoryEntry.of(outcome, who=who, trigger=trigger, fingerprints=fingerprints)
        line = _bounded_line(entry)
        with translated(self.root, self._path), contextlib.ExitStack() as held:
            # Without the lock it continues all the same: a rotation must not wait for a process that was stopped in the
            # middle of an append, and no outcome is lost because the lock file cannot be opened, of which `tidy`
            # reports the reason. At worst, this line then comes before an older one.
            with contextlib.suppress(OSError):
                held.enter_context(self._locked(APPEND_WITHIN))
            fd = self._opened()
            try:
                size = os.fstat(fd).st_size
                if not size:
                    os.fchmod(fd, 0o640)  # independent of the umask
                elif os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line  # a line that a power failure cut stays incomplete, and alone
                write_all(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)
            flush_dir(self.root)

    @contextlib.contextmanager
    def _locked(self, within: float) -> Iterator[bool]:
        """Holds the lock of the history within the block; gives whether it was available in time."""
        fd = open_lock(self.root / "history.lock")
        try:
            yield lock_file(fd, within)
        finally:
            os.close(fd)

    def _opened(self) -> int:
        """The descriptor of the open file; the file is made if there is none."""
        while True:
            try:
                fd = os.open(self._path, _APPEND)
            except FileNotFoundError:
                flush_dir(self.root)
                fd = os.open(self._path, _APPEND | os.O_CREAT, 0o640)
            try:
                if self._is_named(fd):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # it was closed meanwhile

    def _is_named(self, fd: int) -> bool:
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return _identity(named) == _identity(os.fstat(fd))

    # -- upkeep

    def is_untidy(self) -> bool:
        """Whether `tidy` has work to do; True also if that is unknown."""
        try:
            size = os.stat(self._path, follow_symlinks=False).st_size
        except FileNotFoundError:
            size = 0
        except OSError:
            return True
        return size >= self._close_at

    def tidy(self) -> None:
        """Closes the file if it is long, and deletes the oldest closed ones. Call it under the rotation lock.

        If it is killed at any point, no line is lost or doubled, and the next call continues.

        Raises:
            RotatorError: `permission` or `io-error`; every line is where it was then.
        """
        with translated(self.root, self._path):
            closed = self._closed()
            if self._close(closed[0][0] + 1 if closed else 1):
                closed = self._closed()
            for _, path in reversed(closed[self._keep :]):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def _close(self, number: int) -> bool:
        """Renames the open file to a closed one if it is long, unless another process is appending to it.

        Returns:
            Whether it was renamed.
        """
        with self._locked(0.0) as is_locked:
            try:
                fd = os.open(self._path, _READ)
            except FileNotFoundError:
                return False
            try:
                is_long = os.fstat(fd).st_size >= self._close_at
            finally:
                os.close(fd)
            if not is_long or not is_locked:
                return False
            os.rename(self._path, self.root / f"history-{number:06d}.jsonl")
        return True

    def _closed(self) -> list[tuple[int, Path]]:
        """The closed files with their numbers, the newest first."""
        names = ((_CLOSED.match(name), name) for name in os.listdir(self.root))
        return sorted(((int(m[1]), self.root / name) for m, name in names if m), reverse=True)

    def oversized(self) -> str:
        """Which files are larger than any that rotator writes, of which only the end is read; empty if none is."""
        with translated(self.root, self._path):
            large: list[str] = []
            for path in (self._path, *(path for _, path in self._closed())):
                with contextlib.suppress(FileNotFoundError):
                    size = os.stat(path, follow_symlinks=False).st_size
                    large += [f"{path.name} has {size} bytes"] if tail_begin(size) else []
        more = f" and {len(large) - 3} more" if len(large) > 3 else ""
        part = f"only the last {MAX_TAIL >> 20} MiB of each are read; rotator writes no such file"
        return f"{', '.join(large[:3])}{more}: {part}" if large else ""

    # -- reading

    def entries(self, site: str = "", limit: int = 0) -> tuple[HistoryEntry, ...]:
        """The entries, oldest first, without incomplete lines.

        Args:
            site: the name of a site, for its entries only; empty for all.
            limit: the number of newest entries; 0 for all.

        Raises:
            RotatorError: `permission` or `io-error`.
        """
        return tuple(islice(self.newest_first(site), limit or None))[::-1]

    def newest_first(self, site: str = "") -> Iterator[HistoryEntry]:
        """The entries, newest first, read backwards as far as they are consumed.

        Args:
            site: the name of a site, for its entries only; empty for all.

        Raises:
            RotatorError: `permission` or `io-error`.
        """
        return self._read({site} if site else ())

    def entries_since(self, position: Position) -> tuple[Position, tuple[HistoryEntry, ...]]:
        """The entries since an earlier call, oldest first; without new ones, the call costs one `stat`.

        It raises no error: a file that cannot be read has no new entries. Lines of a file that has been closed since
        that call may be missing.

        Args:
            position: the one that the earlier call returned; `UNREAD` for the first call, which has no new entries.

        Returns:
            The new position, and the entries.
        """
        try:
            fd = os.open(self._path, _READ) if self._position() != position else -1
        except OSError:
            return UNREAD, ()
        if fd < 0:
            return position, ()
        try:
            status = os.fstat(fd)
            if position == UNREAD:
                return (*_identity(status), status.st_size), ()
            begin = position[2] if position[:2] == _identity(status) else 0
            end, lines = appended_lines(fd, begin, status.st_size)
        except OSError:
            return position, ()
        finally:
            os.close(fd)
        entries = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entries.append(read_entry(line))
        return (*_identity(status), end), tuple(entries)

    def _position(self) -> Position:
        status = os.stat(self._path, follow_symlinks=False)
        return (*_identity(status), status.st_size)

    def latest(self, sites: Iterable[str]) -> dict[str, HistoryEntry]:
        """The newest entry of each of these sites that has one, in one pass.

        Raises:
            RotatorError: `permission` or `io-error`.
        """
        wanted = set(sites)
        newest: dict[str, HistoryEntry] = {}
        if wanted:
            for entry in self._read(wanted):
                wanted.remove(entry.site)
                newest[entry.site] = entry
                if not wanted:
                    break
        return newest

    def last_entry_at(self) -> datetime | None:
        """When the last entry was written; None without one."""
        with contextlib.suppress(RotatorError):
            return next((entry.at for entry in self.newest_first() if entry.at), None)
        return None

    def last_reload_seconds(self) -> float:
        """How long the last reload took until it was proved; 0.0 if none of the newest entries has one."""
        with contextlib.suppress(RotatorError):
            for entry in islice(self.newest_first(), RECENT):
                if entry.result == Result.ROTATED and (seconds := entry.stages.get("apply")):
                    return seconds + entry.stages.get("prove", 0.0)
        return 0.0

    def last_reload_at(self) -> datetime | None:
        """When the outcome of the last reload was known, of any process; None if it is not among the newest entries."""
        with contextlib.suppress(RotatorError):
            for entry in islice(self.newest_first(), RECENT):
                if entry.at and has_reloaded(entry.result, entry.reason, entry.stages):
                    return entry.at
        return None

    def _read(self, sites: Collection[str]) -> Iterator[HistoryEntry]:
        """The entries of these sites (of all if there are none), newest first; sites may be removed meanwhile."""
        all_sites = not sites
        with translated(self.root, self._path):
            for line in self._lines():
                begin = _SITE.match(line)
                if not all_sites and begin and begin[1].decode("utf-8", "replace") not in sites:
                    continue
                try:
                    entry = read_entry(line)
                except ValueError:
                    continue
                if all_sites or entry.site in sites:
                    yield entry

    def _lines(self) -> Iterator[bytes]:
        """All lines, the last first, as they were at the first step."""
        closed: list[Path] | None = None
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(self._path, _READ)
            try:
                yield from lines_backwards(fd)
                closed = self._closed_before(os.fstat(fd))
            finally:
                os.close(fd)
        for path in self._closed_before(None) if closed is None else closed:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                fd = os.open(path, _READ)
                try:
                    yield from lines_backwards(fd)
                finally:
                    os.close(fd)

    def _closed_before(self, read: os.stat_result | None) -> list[Path]:
        """The closed files, the newest first, without the one that was read as the open file and has been closed since.

        Args:
            read: the status of the file that was read; None where there was none.
        """
        closed: list[Path] = []
        with contextlib.suppress(FileNotFoundError):
            closed = [path for _, path in self._closed()]
        for number, path in enumerate(closed if read else ()):
            with contextlib.suppress(FileNotFoundError):
                if read and _identity(os.stat(path, follow_symlinks=False)) == _identity(read):
                    return closed[number + 1 :]
        return closed


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _bounded_line(entry: HistoryEntry) -> bytes:
    """The line of an entry, without the last of its problems where they would make it longer than is read."""
    line = json_bytes(entry_object(entry))
    while len(line) > MAX_LINE and entry.problems:
        entry = replace(entry, problems=entry.problems[: len(entry.problems) // 2])
        line = json_bytes(entry_object(entry))
    return line
