"""The audit trail on disk: every outcome, a line each, appended and never changed; what it means is for others.

`history.jsonl` is appended to, a line at a time, each flushed before anybody is told. It is closed when it has become
long: renamed to `history-000001.jsonl` and so on, upwards, under the rotation lock; the oldest of those are deleted. A
closed file is never written to again: who appends holds the file's own lock, and looks whether it still has its name.
The names in the directory are flushed before a new `history.jsonl` is made, so that it never takes the place of a file
whose new name a power cut may take back; and after each line, because whoever made the file may have been killed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result, has_reloaded
from rotator.storage.entries import HistoryEntry, entry_object, read_entry
from rotator.storage.errors import translated
from rotator.system.files import flush_dir, json_bytes, lock_file, write_all

CLOSE_AT = 4 * 1024 * 1024
"""Bytes from which on the file is closed: some 6,000 outcomes."""
KEEP_CLOSED = 16
"""Closed files that are kept: with the open one, some 100,000 outcomes in 68 MiB."""
LATE = 1000
"""Newest entries among which the last reload is looked for."""
APPEND_WITHIN = 2.0
"""Seconds to wait for whoever else appends; each takes a flush's time, unless it was stopped in the middle."""

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_BLOCK = 64 * 1024
_CLOSED = re.compile(r"history-([0-9]{6,12})\.jsonl\Z")
_SITE = re.compile(rb'\{"site": "([^"\\]*)"')
"""The beginning of each line, by which its site is known unparsed."""


Mark = tuple[int, int, int]
"""How far the history was read: the open file's device, inode and length."""
NEVER: Mark = (0, 0, 0)


class History:
    """The history of one state directory.

    Args:
        root: the state directory; it must exist and belong to the user who calls.
        close_at: bytes from which on `tidy` closes the file.
        keep: closed files that `tidy` keeps, at least one.
    """

    def __init__(self, root: Path, *, close_at: int = CLOSE_AT, keep: int = KEEP_CLOSED) -> None:
        self.root = root
        self._path = root / "history.jsonl"
        self._close_at, self._keep = close_at, max(1, keep)

    # -- writing

    def record(self, outcome: Outcome, *, who: str, trigger: str, fingerprints: Mapping[str, str]) -> None:
        """Appends an outcome; returns when it is on the disk.

        Args:
            outcome: what happened.
            who: the user, or `rotatord`.
            trigger: `swap`, `rollback`, `drop`, `recover` …
            fingerprints: SHA-256 of the leaves that it is about, by kind of key.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`.
        """
        entry = HistoryEntry.of(outcome, who=who, trigger=trigger, fingerprints=fingerprints)
        line = json_bytes(entry_object(entry))
        with translated(self.root, self._path):
            fd = self._opened()
            try:
                size = os.fstat(fd).st_size
                if not size:
                    os.fchmod(fd, 0o640)  # whatever the umask is
                elif os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line  # a line that a power cut tore stays torn, and alone
                write_all(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)
            flush_dir(self.root)

    def _opened(self) -> int:
        """The open file, locked, and made if there is none."""
        while True:
            try:
                fd = os.open(self._path, _APPEND)
            except FileNotFoundError:
                flush_dir(self.root)
                fd = os.open(self._path, _APPEND | os.O_CREAT, 0o640)
            try:
                # Without the lock it goes on: nothing that rotates waits for a process that was stopped while it
                # appended. The line may then stand before a later one, no more.
                lock_file(fd, APPEND_WITHIN)
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
        """Whether there is something to do for `tidy`; also if that cannot be told."""
        try:
            size = os.stat(self._path, follow_symlinks=False).st_size
        except FileNotFoundError:
            size = 0
        except OSError:
            return True
        return size >= self._close_at

    def tidy(self) -> None:
        """Closes the file if it has become long, and deletes the oldest closed ones; call it under the rotation lock.

        Killed anywhere, it has lost no line and doubled none, and the next call goes on.

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
        """Gives the open file this number if it is long; whoever appends just now is left alone until the next time."""
        try:
            fd = os.open(self._path, _READ)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(fd).st_size < self._close_at or not lock_file(fd, 0.0) or not self._is_named(fd):
                return False
            os.rename(self._path, self.root / f"history-{number:06d}.jsonl")
        finally:
            os.close(fd)
        return True

    def _closed(self) -> list[tuple[int, Path]]:
        """The closed files with their numbers, the newest first."""
        found = ((_CLOSED.match(name), name) for name in os.listdir(self.root))
        return sorted(((int(m[1]), self.root / name) for m, name in found if m), reverse=True)

    # -- reading

    def entries(self, site: str = "", limit: int = 0) -> tuple[HistoryEntry, ...]:
        """Entries, oldest first; torn lines are left out.

        Args:
            site: only this one's; empty for all.
            limit: only the newest so many; 0 for all.

        Raises:
            RotatorError: `permission` or `io-error`.
        """
        return tuple(islice(self.newest_first(site), limit or None))[::-1]

    def newest_first(self, site: str = "") -> Iterator[HistoryEntry]:
        """Entries, read backwards as far as they are asked for.

        Args:
            site: only this one's; empty for all.

        Raises:
            RotatorError: `permission` or `io-error`.
        """
        return self._read({site} if site else ())

    def news(self, mark: Mark) -> tuple[Mark, tuple[HistoryEntry, ...]]:
        """What was written since an earlier call, oldest first; one `stat` where nothing was.

        Never raises: what cannot be read is no news. Lines that stand in a file which was closed meanwhile may be
        missed.

        Args:
            mark: what that call returned; `NEVER` for the first one, which has no news.
        """
        try:
            fd = os.open(self._path, _READ) if self._mark() != mark else -1
        except OSError:
            return NEVER, ()
        if fd < 0:
            return mark, ()
        try:
            found = os.fstat(fd)
            if mark == NEVER:
                return (*_identity(found), found.st_size), ()
            begin = mark[2] if mark[:2] == _identity(found) else 0
            whole = os.pread(fd, found.st_size - begin, begin).rpartition(b"\n")[0]  # what is torn may be whole later
        except OSError:
            return mark, ()
        finally:
            os.close(fd)
        entries = []
        for line in whole.split(b"\n"):
            with contextlib.suppress(ValueError):
                entries.append(read_entry(line))
        return (*_identity(found), begin + len(whole) + bool(whole)), tuple(entries)

    def _mark(self) -> Mark:
        found = os.stat(self._path, follow_symlinks=False)
        return (*_identity(found), found.st_size)

    def latest(self, sites: Iterable[str]) -> dict[str, HistoryEntry]:
        """The newest entry of each of these sites that has one, in one pass.

        Raises:
            RotatorError: `permission` or `io-error`.
        """
        wanted = set(sites)
        found: dict[str, HistoryEntry] = {}
        if wanted:
            for entry in self._read(wanted):
                wanted.remove(entry.site)
                found[entry.site] = entry
                if not wanted:
                    break
        return found

    def last_entry_at(self) -> datetime | None:
        """When the last entry was written; None without one."""
        with contextlib.suppress(RotatorError):
            return next((entry.at for entry in self.newest_first() if entry.at), None)
        return None

    def last_reload_seconds(self) -> float:
        """How long the last reload took until it was proved; 0.0 if none of the newest entries has one."""
        with contextlib.suppress(RotatorError):
            for entry in islice(self.newest_first(), LATE):
                if entry.result == Result.ROTATED and (seconds := entry.stages.get("apply")):
                    return seconds + entry.stages.get("prove", 0.0)
        return 0.0

    def last_reload_at(self) -> datetime | None:
        """When the outcome of the last reload was known, of any process; None if it is not among the newest entries."""
        with contextlib.suppress(RotatorError):
            for entry in islice(self.newest_first(), LATE):
                if entry.at and has_reloaded(entry.result, entry.reason, entry.stages):
                    return entry.at
        return None

    def _read(self, sites: Collection[str]) -> Iterator[HistoryEntry]:
        """Entries of these sites (of all if there are none), newest first; `sites` may become fewer on the way."""
        every = not sites
        with translated(self.root, self._path):
            for line in self._lines():
                whose = _SITE.match(line)
                if not every and whose and whose[1].decode("utf-8", "replace") not in sites:
                    continue
                try:
                    entry = read_entry(line)
                except ValueError:
                    continue
                if every or entry.site in sites:
                    yield entry

    def _lines(self) -> Iterator[bytes]:
        """All lines as they were when this began, the last first."""
        closed: list[Path] | None = None
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(self._path, _READ)
            try:
                yield from _backwards(fd)
                closed = self._closed_before(os.fstat(fd))
            finally:
                os.close(fd)
        for path in self._closed_before(None) if closed is None else closed:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                fd = os.open(path, _READ)
                try:
                    yield from _backwards(fd)
                finally:
                    os.close(fd)

    def _closed_before(self, read: os.stat_result | None) -> list[Path]:
        """The closed files, the newest first; without what was read as the open one, and was closed meanwhile."""
        closed: list[Path] = []
        with contextlib.suppress(FileNotFoundError):
            closed = [path for _, path in self._closed()]
        for number, path in enumerate(closed if read else ()):
            with contextlib.suppress(FileNotFoundError):
                if read and _identity(os.stat(path, follow_symlinks=False)) == _identity(read):
                    return closed[number + 1 :]
        return closed


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _backwards(fd: int) -> Iterator[bytes]:
    """The lines of a file, the last first; only what is asked for is read."""
    end = os.fstat(fd).st_size
    rest: list[bytes] = []  # the end of a line whose begin was not read yet, in pieces, the last first
    while end > 0:
        begin = max(0, end - _BLOCK)
        first, *whole = os.pread(fd, end - begin, begin).split(b"\n")
        if whole:
            yield b"".join((whole.pop(), *reversed(rest)))
            yield from reversed(whole)
            rest = []
        rest.append(first)
        end = begin
    yield b"".join(reversed(rest))
