"""The source of renewals that are delivered as files: a directory for each site, and flat files beside them.

A look reads no file. It remembers the names in a directory for as long as the directory itself is unchanged, so that a
thousand unchanged sites cost a few thousand `stat` and nothing else; after a file event only the sites of that file are
looked at. A directory or file that was changed a moment ago is looked at again: a second change within one tick of the
file system's clock would be invisible.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from rotator.core.hints import command
from rotator.core.model import Candidate, SourceFile
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.core.text import shown_name
from rotator.sources.delivery import reading_lock
from rotator.sources.drop_rights import command_to_make
from rotator.sources.drop_source import DropLook
from rotator.sources.file_reader import (
    MAX_FILES,
    flat_site,
    is_temporary,
    others_may_replace,
    read_drop,
    read_flat,
    read_password,
)
from rotator.system.faults import code_of

MAX_LISTED = 10_000
"""Names that are listed in a drop directory, temporary ones included; a renewal has a few."""
MAX_LISTED_FLAT = 100_000
"""Names that are listed in the incoming directory, which has the flat files and the drops of all sites."""
YOUNG_NS = 2_000_000_000
"""Nanoseconds after a change within which another one may go unseen: the coarsest clock of a file system."""


@dataclass(frozen=True, slots=True)
class DropLocation:
    """The location of one site's drop.

    Args:
        site: the site's name.
        directory: its drop directory, or the `source` of the configuration.
        is_source: whether it is a `source` of the configuration: links are followed, it has to exist, and there are no
            flat files.
        password_file: holds the password of an encrypted key in the drop.
        is_private: whether the configuration says who may write the drop. Then there are no flat files, because every
            user who may write to the incoming directory could add some to the renewal of the site.
    """

    site: str
    directory: Path
    is_source: bool = False
    password_file: Path | None = None
    is_private: bool = False

    @property
    def has_flat_files(self) -> bool:
        """Whether flat files in the incoming directory belong to it."""
        return not (self.is_source or self.is_private)


@dataclass(slots=True)
class _Listing:
    """The names in a directory when it last changed."""

    mark: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _SettledDrop:
    """A site's drop when all of its times were old enough to be trusted.

    Args:
        look: what the look showed.
        directory: the path of the directory.
        mark: the directory's device, inode and times.
        marks: the path of each file and its part of the signature behind the name.
        newest: the latest time of change (ctime) of these files, in nanoseconds.
    """

    look: DropLook
    directory: str
    mark: tuple[int, ...]
    marks: tuple[tuple[str, tuple[object, ...]], ...]
    newest: int


@dataclass(slots=True)
class _Entries:
    """The entries of a directory, or why they are unknown; `newest` is their latest ctime in nanoseconds."""

    signature: list[tuple[object, ...]] = field(default_factory=list)
    problem: str = ""
    hint: str = ""
    reason: Reason | Code | None = None
    newest: int = 0


class DropDirectories:
    """The drops of a configuration, as a `DropSource`.

    Args:
        incoming: the directory of drops and flat files.
        locations: one for each site.
        wall_ns: the clock of the file system's times, in nanoseconds.
        waiting: called between two drops, and between two parts of a long directory.
    """

    def __init__(
        self,
        incoming: Path,
        locations: Sequence[DropLocation],
        wall_ns: Callable[[], int] = time.time_ns,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._incoming = incoming
        self._locations: Mapping[str, DropLocation] = {location.site: location for location in locations}
        self._directories: dict[Path, tuple[int, int]] = {}  # replaced, never altered: a caller may hold it
        self._sites_by_directory: dict[str, set[str]] = {}
        for location in locations:
            self._sites_by_directory.setdefault(str(location.directory), set()).add(location.site)
        self._flat_sites = frozenset(location.site for location in locations if location.has_flat_files)
        self._uses_incoming = not all(location.is_source for location in locations)
        self._wall_ns, self._waiting = wall_ns, waiting
        self._existed: set[Path] = set()
        self._listings: dict[Path, _Listing] = {}
        self._settled: dict[str, _SettledDrop] = {}

    @property
    def directories(self) -> Mapping[Path, tuple[int, int]]:
        """Device and inode of every existing directory: a watch on it is dead when they change."""
        return self._directories

    def look(self, sites: Collection[str] | None = None) -> dict[str, DropLook]:
        """Looks at the drops of some sites. A problem with a directory is part of the answer.

        Args:
            sites: names of sites; None for all.
        """
        locations = (
            self._locations
            if sites is None
            else {site: self._locations[site] for site in self._locations if site in sites}
        )
        outdated = {self._incoming, *(location.directory for location in locations.values())}
        self._directories = (
            {} if sites is None else {path: mark for path, mark in self._directories.items() if path not in outdated}
        )
        now = self._wall_ns()
        flat, trouble = self._look_at_flat_files(now) if self._uses_incoming else ({}, DropLook())
        looks = {}
        for site, location in locations.items():
            self._waiting()
            if site not in flat and not trouble.problem and (unchanged := self._unchanged(location, now)):
                looks[site] = unchanged
                continue
            entries = self._look_at_directory(location, now, existed=location.directory in self._existed)
            if not location.is_source:
                if flat_entries := flat.get(site):
                    entries.signature += flat_entries.signature
                    entries.newest = max(entries.newest, flat_entries.newest)
                if trouble.problem:
                    entries.problem, entries.hint, entries.reason = trouble.problem, trouble.hint, trouble.reason
            young = abs(now - entries.newest) < YOUNG_NS
            looks[site] = DropLook(
                tuple(entries.signature),
                entries.problem,
                entries.hint,
                entries.reason,
                young,
                sum(_numbers_at(_SIZE, entries.signature)),
                frozenset(_numbers_at(_OWNER, entries.signature)),
                entries.newest,
            )
            self._remember(location, looks[site], entries.newest, has_flat_files=site in flat)
        return looks

    def sites_at(self, path: str) -> frozenset[str]:
        """The sites whose drop holds this file or directory.

        Args:
            path: as a file event gives it.
        """
        parent, _, name = path.rpartition("/")
        flat = self._flat_site(name) if parent == str(self._incoming) else ""
        by_directory = self._sites_by_directory
        return frozenset(by_directory.get(path, set()) | by_directory.get(parent, set()) | ({flat} if flat else set()))

    def read(self, site: str, *, await_delivery: bool = False) -> Candidate | None:
        """All files of a site's drop, with its password; None if there are no files.

        Args:
            site: the site's name.
            await_delivery: whether a delivery that writes into the directory at this moment is waited for.

        Raises:
            RotatorError: as `read_drop` and `read_flat`.
        """
        location = self._locations[site]
        with reading_lock(location.directory) if await_delivery and not location.is_source else nullcontext():
            return self._read(location)

    def _read(self, location: DropLocation) -> Candidate | None:
        files: list[SourceFile] = []
        if location.is_source or _exists(location.directory):
            files += read_drop(location.directory, follow_links=location.is_source).files
        if location.has_flat_files and _exists(self._incoming):
            files += read_flat(self._incoming, location.site, others=self._locations.keys()).files
        if not files:
            return None
        password, notes = read_password(location.password_file) if location.password_file else (None, ())
        return Candidate(tuple(files), password, notes)

    def _unchanged(self, location: DropLocation, now: int) -> DropLook | None:
        """The last look, if nothing has changed since: the usual case, which costs `stat` calls only."""
        settled = self._settled.get(location.site)
        if settled is None or abs(now - settled.newest) < YOUNG_NS:
            return None
        try:
            at = os.stat(settled.directory, follow_symlinks=location.is_source)  # noqa: PTH116 - thousands of them, here and below
            if (at.st_dev, at.st_ino, at.st_mtime_ns, at.st_ctime_ns) != settled.mark:
                return None
            for path, mark in settled.marks:
                if _mark(os.stat(path, follow_symlinks=location.is_source)) != mark:  # noqa: PTH116 - as above
                    return None
        except OSError:
            return None
        self._directories[location.directory] = (at.st_dev, at.st_ino)
        return settled.look

    def _remember(self, location: DropLocation, look: DropLook, newest: int, *, has_flat_files: bool) -> None:
        listing = self._listings.get(location.directory, _Listing())
        self._settled.pop(location.site, None)
        if listing.mark and not (look.problem or look.young or has_flat_files):
            directory = str(location.directory)
            marks = tuple((f"{directory}/{entry[0]}", entry[1:]) for entry in look.signature)
            self._settled[location.site] = _SettledDrop(look, directory, listing.mark, marks, newest)

    def _look_at_directory(self, location: DropLocation, now: int, *, existed: bool) -> _Entries:
        """The entries of one drop directory; a directory that has disappeared is a problem until it is back."""
        directory, entries = location.directory, _Entries()
        try:
            at = directory.stat() if location.is_source else directory.lstat()
        except FileNotFoundError:
            if location.is_source or existed:
                entries.reason = Reason.MISSING
                entries.problem = (
                    f"{directory} does not exist" if location.is_source else f"{directory} has disappeared"
                )
                entries.hint = (
                    f"The daemon notices its return; see the files there: {command('ls -la', directory.parent)}"
                )
            return entries
        except OSError as error:
            entries.problem, entries.hint = f"{directory}: {error.strerror}", _see(directory)
            entries.reason = _reason(error)
            return entries
        if not stat.S_ISDIR(at.st_mode):
            kind = "a link, which is not followed here" if stat.S_ISLNK(at.st_mode) else "no directory"
            entries.problem, entries.hint = f"{directory} is {kind}", _see(directory)
            entries.reason = Code.IO_ERROR
            return entries
        self._directories[directory] = (at.st_dev, at.st_ino)
        self._existed.add(directory)
        site = location.site
        self._list(
            directory, at, entries, now, lambda name: "" if is_temporary(name) else site, follow=location.is_source
        )
        return entries

    def _flat_site(self, name: str) -> str:
        """The site of a flat file; empty if it belongs to none, or to one that has no flat files."""
        site = flat_site(name, self._locations.keys())
        return site if site in self._flat_sites else ""

    def _look_at_flat_files(self, now: int) -> tuple[dict[str, _Entries], DropLook]:
        """The flat files of all sites with one look at the incoming directory; or why there was none."""
        by_site: dict[str, _Entries] = {}
        entries = _Entries()
        try:
            at = self._incoming.stat()
        except OSError as error:
            hint = f"Make it: {command_to_make('rotator:rotator', '3770', self._incoming)}"
            return by_site, DropLook(problem=f"{self._incoming}: {error.strerror}", hint=hint, reason=_reason(error))
        self._directories[self._incoming] = (at.st_dev, at.st_ino)
        self._list(self._incoming, at, entries, now, self._flat_site, follow=False)
        for entry in entries.signature:
            site_entries = by_site.setdefault(self._flat_site(str(entry[0])), _Entries())
            site_entries.signature.append(entry)
            site_entries.newest = max(site_entries.newest, *(n for n in entry[-1:] if isinstance(n, int)))
        return by_site, DropLook(problem=entries.problem, hint=entries.hint, reason=entries.reason)

    def _names(self, directory: Path, entries: _Entries, site_of: Callable[[str], str]) -> list[str]:
        """The names in a directory that belong to a site, as far as they are listed, and one more than a site may have.

        Args:
            directory: the directory.
            entries: gets a problem if not all names are listed.
            site_of: the site of a name; empty for a name that belongs to none.
        """
        is_incoming = directory == self._incoming
        most = MAX_LISTED_FLAT if is_incoming else MAX_LISTED
        names: list[str] = []
        number_of: Counter[str] = Counter()
        with os.scandir(directory) as listed:
            for number, entry in enumerate(listed, 1):
                if number > most:
                    entries.problem = f"{shown_name(str(directory))} holds more than {most} names; only these are seen"
                    entries.hint, entries.reason = f"See them: {command('ls -Af', directory)}", Code.IO_ERROR
                    break
                if number % 1000 == 0:
                    self._waiting()
                site = site_of(entry.name)
                if site and number_of[site] <= MAX_FILES:
                    number_of[site] += 1
                    names.append(entry.name)
                    if len(names) > MAX_FILES and not is_incoming:
                        break
        return names

    def _list(
        self,
        directory: Path,
        at: os.stat_result,
        entries: _Entries,
        now: int,
        site_of: Callable[[str], str],
        *,
        follow: bool,
    ) -> None:
        """Adds the entries of a directory; its names are listed only if they may have changed.

        Of a site with more files than it may have, one file more than that is looked at: they are refused.
        """
        listing = self._listings.setdefault(directory, _Listing())
        mark = (at.st_dev, at.st_ino, at.st_mtime_ns, at.st_ctime_ns)
        path = str(directory)
        try:
            if listing.mark != mark:
                listing.names = tuple(sorted(self._names(directory, entries, site_of)))
                trusted = min(abs(now - at.st_mtime_ns), abs(now - at.st_ctime_ns)) >= YOUNG_NS
                listing.mark = mark if trusted and not entries.problem else ()
            for name in listing.names:
                try:
                    entry = os.stat(f"{path}/{name}", follow_symlinks=follow)  # noqa: PTH116 - thousands of them
                except FileNotFoundError:
                    listing.mark = ()
                    if follow:  # a link whose target does not exist yet is an entry too, and may change
                        entries.signature.append((name,))
                    continue
                entries.signature.append((name, *_mark(entry)))
                entries.newest = max(entries.newest, entry.st_ctime_ns)
        except OSError as error:
            listing.mark = ()
            entries.problem = f"{shown_name(path)} cannot be looked into: {error.strerror}"
            entries.reason = _reason(error)
            entries.hint = f"See its owner, who can open it to this user: {command('ls -ld', path)}"
            if not others_may_replace(path):
                entries.hint = f"Open it to this user: {command(f'setfacl -m u:{os.geteuid():d}:rx', path)}"


def _numbers_at(index: int, signature: Sequence[tuple[object, ...]]) -> list[int]:
    """One field of each entry of a signature that has it."""
    return [number for entry in signature for number in entry[index : index + 1] if isinstance(number, int)]


def _mark(entry: os.stat_result) -> tuple[object, ...]:
    """The fields of a file's `stat` of which one changes when it is written, replaced or gets other permissions."""
    return (
        entry.st_dev,
        entry.st_ino,
        entry.st_mode,
        entry.st_uid,
        entry.st_size,
        entry.st_mtime_ns,
        entry.st_ctime_ns,
    )


_OWNER, _SIZE = 4, 5
"""The places of the owner and of the size in an entry of a signature, which begins with the name."""


def _see(path: Path) -> str:
    return f"See its type: {command('ls -ld', path)}"


def _reason(error: OSError) -> Reason | Code:
    return Reason.MISSING if error.errno == errno.ENOENT else code_of(error)


def _exists(path: Path) -> bool:
    """Whether the path exists; also True where this user may not look, so that reading it reports the reason."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
