"""The cheap look at all drops: has anything changed since the last one? What was read is not judged here.

A look reads no file. It remembers the names in a directory for as long as the directory itself is unchanged, so that a
thousand unchanged sites cost a few thousand `stat` and nothing else; where it is known which have changed, it looks at
these alone. A directory or file that was changed a moment ago is not trusted: a second change within one tick of the
file system's clock would look like none.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rotator.core.model import Candidate, SourceFile
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.core.text import shown_name
from rotator.sources.file_reader import FLAT_SUFFIXES, is_temporary, read_drop, read_flat, read_password
from rotator.system.faults import code_of

YOUNG_NS = 2_000_000_000
"""Nanoseconds after a change within which another one may go unseen: the coarsest clock of a file system."""

Signature = tuple[tuple[object, ...], ...]
"""Of each file its name, device, inode, size and times; equal as long as nothing changes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the renewals of one site arrive.

    Args:
        site: the site's name.
        directory: its drop, or the source that the configuration names.
        source: whether it is a source: links are followed then, it has to exist, and there are no flat files.
        password_file: what opens an encrypted key in there.
    """

    site: str
    directory: Path
    source: bool = False
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class DropLook:
    """What one look showed of a site's drop.

    Args:
        signature: empty if nothing lies there.
        problem: why it could not be looked at, or that it has gone, in words; empty if all is well.
        hint: the command that helps.
        reason: the same in a word: `missing`, `permission` or `io-error`.
        young: whether it was changed so lately that it has to be read again to be sure.
    """

    signature: Signature = ()
    problem: str = ""
    hint: str = ""
    reason: Reason | Code | None = None
    young: bool = False


@dataclass(slots=True)
class _Listing:
    """The names that lay in a directory when it last changed."""

    mark: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Settled:
    """A site's drop as it was when all of its times were old enough to be trusted.

    Args:
        look: what was found.
        top: the directory.
        mark: its device, inode and times.
        marks: for each file in it the path, and what stands in the signature behind the name.
        newest: the latest time of change (ctime) of these files, in nanoseconds.
    """

    look: DropLook
    top: str
    mark: tuple[int, ...]
    marks: tuple[tuple[str, tuple[object, ...]], ...]
    newest: int


@dataclass(slots=True)
class _Found:
    signature: list[tuple[object, ...]] = field(default_factory=list)
    problem: str = ""
    hint: str = ""
    reason: Reason | Code | None = None
    newest: int = 0


class Drops:
    """All places of a configuration.

    Args:
        incoming: where drops and flat files lie.
        places: one for each site.
        wall_ns: the clock that the file system's times are of, in nanoseconds.
    """

    def __init__(self, incoming: Path, places: Sequence[Place], wall_ns: Callable[[], int] = time.time_ns) -> None:
        self.incoming = incoming
        self.places: Mapping[str, Place] = {place.site: place for place in places}
        self.homes: dict[Path, tuple[int, int]] = {}
        """Device and inode of every directory that was met: a watch on it is dead when they change. Never altered."""
        self._at: dict[str, set[str]] = {}
        for place in places:
            self._at.setdefault(str(place.directory), set()).add(place.site)
        self._flat_sites = frozenset(place.site for place in places if not place.source)
        self._wall_ns = wall_ns
        self._met: set[Path] = set()  # what has gone is told until it is back
        self._listings: dict[Path, _Listing] = {}
        self._settled: dict[str, _Settled] = {}

    def look(self, sites: Collection[str] | None = None) -> dict[str, DropLook]:
        """One look at some sites. Never raises for what is wrong with a directory: that is what it is to show.

        Args:
            sites: which; None for all.
        """
        asked = self.places if sites is None else {site: self.places[site] for site in self.places if site in sites}
        gone = {self.incoming, *(place.directory for place in asked.values())}
        self.homes = {} if sites is None else {path: at for path, at in self.homes.items() if path not in gone}
        now = self._wall_ns()
        flat, trouble = self._flat(now) if self._flat_sites else ({}, DropLook())
        looks = {}
        for site, place in asked.items():
            if site not in flat and not trouble.problem and (before := self._as_before(place, now)):
                looks[site] = before
                continue
            found = self._directory(place, now, known=place.directory in self._met)
            if not place.source:
                if beside := flat.get(site):
                    found.signature += beside.signature
                    found.newest = max(found.newest, beside.newest)
                if trouble.problem:
                    found.problem, found.hint, found.reason = trouble.problem, trouble.hint, trouble.reason
            young = abs(now - found.newest) < YOUNG_NS
            looks[site] = DropLook(tuple(found.signature), found.problem, found.hint, found.reason, young)
            self._remember(place, looks[site], found.newest, beside=site in flat)
        return looks

    def sites_at(self, paths: Collection[str]) -> frozenset[str] | None:
        """Whose drops these files and directories belong to; None if that cannot be told of each of them.

        Args:
            paths: as a watch tells of them.
        """
        found: set[str] = set()
        for path in paths:
            where, _, name = path.rpartition("/")
            flat = flat_site(name, self._flat_sites) if where == str(self.incoming) else ""
            ours = self._at.get(path, set()) | self._at.get(where, set()) | ({flat} if flat else set())
            if not ours:
                return None
            found |= ours
        return frozenset(found)

    def read(self, site: str) -> Candidate | None:
        """Everything that lies in a site's drop; None if nothing does.

        Raises:
            RotatorError: as `read_drop` and `read_flat`.
        """
        return read_place(self.places[site], self.incoming, tuple(self.places))

    def _as_before(self, place: Place, now: int) -> DropLook | None:
        """The last look, if nothing has changed since; the usual case, and so without anything but `stat`."""
        known = self._settled.get(place.site)
        if known is None or abs(now - known.newest) < YOUNG_NS:
            return None
        try:
            at = os.stat(known.top, follow_symlinks=place.source)  # noqa: PTH116 - thousands of them, here and below
            if (at.st_dev, at.st_ino, at.st_mtime_ns, at.st_ctime_ns) != known.mark:
                return None
            for path, mark in known.marks:
                if _mark(os.stat(path, follow_symlinks=place.source)) != mark:  # noqa: PTH116 - as above
                    return None
        except OSError:
            return None
        self.homes[place.directory] = (at.st_dev, at.st_ino)
        return known.look

    def _remember(self, place: Place, look: DropLook, newest: int, *, beside: bool) -> None:
        listing = self._listings.get(place.directory, _Listing())
        self._settled.pop(place.site, None)
        if listing.mark and not (look.problem or look.young or beside):
            top = str(place.directory)
            marks = tuple((f"{top}/{entry[0]}", entry[1:]) for entry in look.signature)
            self._settled[place.site] = _Settled(look, top, listing.mark, marks, newest)

    def _directory(self, place: Place, now: int, *, known: bool) -> _Found:
        where, found = place.directory, _Found()
        try:
            at = where.stat() if place.source else where.lstat()
        except FileNotFoundError:
            if place.source or known:
                found.reason = Reason.MISSING
                found.problem = f"{where} does not exist" if place.source else f"{where} has gone"
                found.hint = (
                    f"It is noticed when it is back; see what there is: ls -la {shlex.quote(str(where.parent))}"
                )
            return found
        except OSError as error:
            found.problem, found.hint = f"{where}: {error.strerror}", _see(where)
            found.reason = _reason(error)
            return found
        if not stat.S_ISDIR(at.st_mode):
            kind = "a link, which is not followed here" if stat.S_ISLNK(at.st_mode) else "no directory"
            found.problem, found.hint = f"{where} is {kind}", _see(where)
            found.reason = Code.IO_ERROR
            return found
        self.homes[where] = (at.st_dev, at.st_ino)
        self._met.add(where)
        self._entries(where, at, found, now, lambda name: not is_temporary(name), follow=place.source)
        return found

    def _flat(self, now: int) -> tuple[dict[str, _Found], DropLook]:
        """The flat files of all sites with one look at the incoming directory; or why there was none."""
        sites: dict[str, _Found] = {}
        whole = _Found()
        try:
            at = self.incoming.stat()
        except OSError as error:
            hint = f"Make it: install -d -o rotator -g rotator -m 2770 {shlex.quote(str(self.incoming))}"
            return sites, DropLook(problem=f"{self.incoming}: {error.strerror}", hint=hint, reason=_reason(error))
        self.homes[self.incoming] = (at.st_dev, at.st_ino)
        self._entries(self.incoming, at, whole, now, lambda name: bool(flat_site(name, self._flat_sites)), follow=False)
        for entry in whole.signature:
            site = flat_site(str(entry[0]), self._flat_sites)
            mine = sites.setdefault(site, _Found())
            mine.signature.append(entry)
            mine.newest = max(mine.newest, *(n for n in entry[-1:] if isinstance(n, int)))
        return sites, DropLook(problem=whole.problem, hint=whole.hint, reason=whole.reason)

    def _entries(
        self,
        where: Path,
        at: os.stat_result,
        found: _Found,
        now: int,
        ours: Callable[[str], bool],
        *,
        follow: bool,
    ) -> None:
        """Adds what lies in a directory; its names are listed only if they may have changed."""
        listing = self._listings.setdefault(where, _Listing())
        mark = (at.st_dev, at.st_ino, at.st_mtime_ns, at.st_ctime_ns)
        top = str(where)
        try:
            if listing.mark != mark:
                listing.names = tuple(sorted(name for name in os.listdir(top) if ours(name)))  # noqa: PTH208 - as above
                trusted = min(abs(now - at.st_mtime_ns), abs(now - at.st_ctime_ns)) >= YOUNG_NS
                listing.mark = mark if trusted else ()
            for name in listing.names:
                try:
                    one = os.stat(f"{top}/{name}", follow_symlinks=follow)  # noqa: PTH116 - thousands of them
                except FileNotFoundError:
                    listing.mark = ()
                    if follow:  # a link that leads nowhere yet: that too is something, and may change
                        found.signature.append((name,))
                    continue
                found.signature.append((name, *_mark(one)))
                found.newest = max(found.newest, one.st_ctime_ns)
        except OSError as error:
            listing.mark = ()
            found.problem, found.reason = f"{shown_name(top)} cannot be looked into: {error.strerror}", _reason(error)
            found.hint = f"Open it to this user: setfacl -m u:{os.geteuid()}:rx {shlex.quote(top)}"


def _mark(one: os.stat_result) -> tuple[object, ...]:
    """What of a file changes when it is written, replaced or given other rights."""
    return (one.st_dev, one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns, one.st_ctime_ns)


def _see(where: Path) -> str:
    return f"see what stands there: ls -ld {shlex.quote(str(where))}"


def _reason(error: OSError) -> Reason | Code:
    return Reason.MISSING if error.errno == errno.ENOENT else code_of(error)


def read_place(place: Place, incoming: Path, sites: Sequence[str]) -> Candidate | None:
    """Everything that lies in one place; None if nothing does.

    Args:
        place: whose.
        incoming: where its flat files would lie.
        sites: the names of all sites, as one's flat files may look like another's.

    Raises:
        RotatorError: as `read_drop` and `read_flat`.
    """
    files: list[SourceFile] = []
    if place.source or _is_there(place.directory):
        files += read_drop(place.directory, follow_links=place.source).files
    if not place.source and _is_there(incoming):
        files += read_flat(incoming, place.site, others=sites).files
    if not files:
        return None
    password, notes = read_password(place.password_file) if place.password_file else (None, ())
    return Candidate(tuple(files), password, notes)


def _is_there(where: Path) -> bool:
    """Whether anything has this name; also where this user may not look, so that reading it tells why."""
    try:
        where.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def flat_site(name: str, sites: frozenset[str]) -> str:
    """Whose flat file this is, by the rule of `read_flat`: the longest name that fits; empty if nobody's."""
    stem, dot, suffix = name.rpartition(".")
    if dot + suffix.lower() not in FLAT_SUFFIXES or is_temporary(name):
        return ""
    while stem not in sites:
        stem, dash, _ = stem.rpartition("-")
        if not dash:
            return ""
    return stem
