"""The store on disk: generations, the link to the verified one, and the last decision for each site.

The storage contract (with `history` and `locks`), and the only changes that are permitted:

1. A generation is made under a temporary name (its files O_EXCL with their final mode, each flushed, then their
   directory) and renamed to its name; then `generations/` is flushed. A generation is never edited, and only deleted as
   a whole: it loses its name, that is flushed, then its files are deleted.
2. `verified` is a link. It is replaced by rename, then its directory is flushed.
3. `intent.json` is flushed and replaced by rename, then its directory is flushed.

A directory is flushed where its entry has to last, even if this process did not make that entry: the process that made
it may have been killed before its flush.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command
from rotator.core.model import (
    Generation,
    KeyType,
    Pair,
    Provenance,
    Secret,
    chains_digest,
    pairs_digest,
)
from rotator.core.names import GENERATION, generation_digest, generation_name, generation_number
from rotator.core.reasons import Reason
from rotator.storage.errors import translated
from rotator.storage.pair_files import generation_contents, has_contents, pair_files, read_chain
from rotator.storage.records import (
    ANYTHING,
    Intent,
    intent_object,
    read_generation,
    read_intent,
    undecided,
    unreadable_intent,
)
from rotator.system.faults import message_of
from rotator.system.files import (
    NotRegularError,
    flush_dir,
    flush_file,
    json_bytes,
    make_dir,
    read_file,
    write_new,
)

_UNFINISHED = ".new-"


class Store:
    """One state directory.

    Args:
        root: the state directory; it must exist and belong to the user who calls.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- generations -----------------------------------------------------------------------------------------------

    def names(self, site: str) -> tuple[str, ...]:
        """The names of a site's stored generations, oldest first.

        Raises:
            RotatorError: `permission` or `io-error`.
        """
        entries: list[str] = []
        with self._translated(self._generations(site)), contextlib.suppress(FileNotFoundError):
            entries = os.listdir(self._generations(site))
        return tuple(sorted((name for name in entries if GENERATION.match(name)), key=generation_number))

    def load(self, site: str, name: str) -> Generation:
        """A stored generation without its keys.

        Raises:
            RotatorError: `no-generation`, `store-damaged`, `permission` or `io-error`.
        """
        path = self._generations(site) / name
        self._must_be_stored(site, name)
        chains: dict[KeyType, tuple[bytes, ...]] = {}
        try:
            with self._translated(path):
                record = read_generation(read_file(path / "meta.json"))
                for pair in record.pairs:
                    chain_file, _ = pair_files(pair.key_type, len(record.pairs))
                    chains[pair.key_type] = read_chain(read_file(path / chain_file))
        except ValueError as e:
            raise self._damaged(path, str(e)) from e
        if chains_digest(chains)[:12] != generation_digest(name):
            raise self._damaged(path, "its chains do not match the digest in its name")
        return Generation(site, name, MappingProxyType(chains), record)

    def load_pairs(self, site: str, name: str) -> tuple[Pair, ...]:
        """The pairs of a stored generation with their keys, to be applied again.

        Raises:
            RotatorError: as `load`.
        """
        return self.pairs_of(self.load(site, name))

    def pairs_of(self, generation: Generation) -> tuple[Pair, ...]:
        """A loaded generation with its keys.

        Raises:
            RotatorError: `store-damaged`, `permission` or `io-error`.
        """
        path = self._generations(generation.site) / generation.name
        pairs = []
        for known in generation.record.pairs:
            with self._translated(path):
                key = read_file(path / pair_files(known.key_type, len(generation.chains))[1])
            pairs.append(
                Pair(
                    known.key_type,
                    generation.chains[known.key_type],
                    Secret(key),
                    known.subject,
                    known.issuer,
                    known.serial,
                    known.names,
                    known.not_before,
                    known.not_after,
                    known.effective_not_after,
                )
            )
        return tuple(pairs)

    def stage(self, site: str, pairs: Sequence[Pair], provenance: Provenance) -> Staged:
        """Writes a generation under a temporary name, unflushed, so that nginx can test it before it is committed.

        Args:
            site: the site's name.
            pairs: one for each kind of key; each with its key.
            provenance: how the pairs came here.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`; no file of it is left then.
        """
        home = self._generations(site)
        digest = pairs_digest(tuple(pairs))
        contents = generation_contents(pairs, provenance, digest)
        files = tuple(pair_files(kind, len(pairs)) for kind in sorted(p.key_type for p in pairs))
        with self._translated(home):
            self._make_home(site, flush=False)  # `Staged.flush` does
            self.sweep(site)
            known = self.names(site)
            number = generation_number(known[-1]) + 1 if known else 1
            equal = next((n for n in known if n.endswith(digest[:12]) and has_contents(home / n, contents)), "")
            staged = Staged(self, site, home, generation_name(number, digest), equal, files)
            with contextlib.ExitStack() as undo:
                undo.callback(staged.discard)
                staged.write(contents, self._next_mtime(home, known))
                undo.pop_all()
        return staged

    def sweep(self, site: str) -> None:
        """Removes generations that a crash left unfinished. Call it under the rotation lock only."""
        home = self._generations(site)
        with self._translated(home), contextlib.suppress(FileNotFoundError):
            if leftovers := [name for name in os.listdir(home) if name.startswith(_UNFINISHED)]:
                flush_dir(home)  # a process may have been killed between taking its name from one and the flush
                for name in leftovers:
                    _remove(home / name)

    def prune(self, site: str, keep: int, protect: frozenset[str]) -> tuple[str, ...]:
        """Deletes the oldest generations beyond a number, but not protected ones, the verified one or the newest one.

        Args:
            site: the site's name.
            keep: how many generations stay.
            protect: the names of generations that stay in any case.

        Returns:
            The names of the deleted generations.
        """
        names = self.names(site)
        surplus = max(0, len(names) - max(1, keep))
        surplus_names = tuple(n for n in names[:-1] if n not in protect | {self.verified(site)})[:surplus]
        home = self._generations(site)
        with self._translated(home):
            for name in surplus_names:  # they lose their names first, so that a half-deleted generation is never seen
                os.rename(home / name, home / f"{_UNFINISHED}{name}")
            if surplus_names:
                flush_dir(home)
            for name in surplus_names:
                _remove(home / f"{_UNFINISHED}{name}")
        return surplus_names

    # -- verified --------------------------------------------------------------------------------------------------

    def verified(self, site: str) -> str:
        """The name of the generation that was last proved by handshakes; empty if there is none."""
        try:
            name = os.readlink(self._site(site) / "verified").rpartition("/")[2]
            return name if self._is_stored(site, name) else ""
        except OSError:
            return ""

    def mark_verified(self, site: str, name: str) -> None:
        """Marks a generation as proved at every listener; returns when the mark is on the disk.

        Raises:
            RotatorError: `no-generation`, `disk-full`, `permission` or `io-error`.
        """
        self._must_be_stored(site, name)
        self._replace(self._site(site) / "verified", lambda new: os.symlink(f"generations/{name}", new))

    # -- intent ----------------------------------------------------------------------------------------------------

    def intent(self, site: str) -> Intent:
        """The last decision; an empty one where there is none.

        A file that the system does not give counts as a hold, until it does. Other content than a JSON object counts
        as no decision: a damaged file must not keep a renewal from going live.
        """
        try:
            return read_intent(read_file(self._site(site) / "intent.json"))
        except (FileNotFoundError, NotADirectoryError):
            return Intent()
        except NotRegularError:
            return undecided("it is no regular file")
        except ValueError:
            return undecided("it holds no JSON object")
        except OSError as e:
            is_content = e.errno in (errno.ELOOP, errno.EFBIG)  # a link, or more than any decision has
            return undecided(message_of(e)) if is_content else unreadable_intent(message_of(e))

    def write_intent(self, site: str, intent: Intent) -> None:
        """Replaces the last decision; returns when the new one is on the disk.

        Keys that this version does not know are kept. A file that is not understood is replaced only by a decision that
        ends its hold.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`; the earlier decision still stands then.
        """
        if intent.hold and intent.hold.digest == ANYTHING:
            return
        path = self._site(site) / "intent.json"
        with self._translated(path):
            self._make_home(site)
        data = json_bytes(intent_object(intent.replacing(self.intent(site))), indent=1)
        self._replace(path, lambda new: write_new(new, data, 0o640, flush=True))

    # -- fingerprints ----------------------------------------------------------------------------------------------

    def fingerprints(self, site: str, name: str) -> dict[str, str]:
        """The SHA-256 of each leaf of a generation, in hex, by kind of key; none if the generation cannot be read."""
        try:
            record = self.load(site, name).record
        except RotatorError:
            return {}
        return {str(pair.key_type): pair.fingerprint for pair in record.pairs}

    # -- inside ----------------------------------------------------------------------------------------------------

    def _site(self, site: str) -> Path:
        return self.root / "sites" / site

    def _generations(self, site: str) -> Path:
        return self._site(site) / "generations"

    def _make_home(self, site: str, *, flush: bool = True) -> None:
        for path in (self.root / "sites", self._site(site), self._generations(site)):
            with contextlib.suppress(FileExistsError):
                make_dir(path)
            if flush:
                flush_dir(path.parent)

    def _is_stored(self, site: str, name: str) -> bool:
        return bool(GENERATION.match(name)) and (self._generations(site) / name).is_dir()

    def _must_be_stored(self, site: str, name: str) -> None:
        with self._translated(self._generations(site)):
            if self._is_stored(site, name):
                return
        known = ", ".join(self.names(site)) or "none"
        raise RotatorError(Reason.NO_GENERATION, f"{site} has no generation {name} (stored: {known})", exit=Exit.USAGE)

    def _replace(self, path: Path, make: Callable[[Path], None]) -> None:
        """Makes a file or link under a temporary name and renames it to `path`; a failure leaves no part of it."""
        new = path.with_name(f"{_UNFINISHED}{path.name}")
        with self._translated(path):
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(new)
                make(new)
                os.rename(new, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise
            flush_dir(path.parent)

    def _next_mtime(self, home: Path, known: Sequence[str]) -> int:
        """The mtime of the next generation in nanoseconds, in a later whole second than that of every stored one.

        nginx >= 1.27.4 keeps a loaded certificate whose path, inode and whole-second mtime are unchanged (it compares
        as src/core/ngx_open_file_cache.c does, for ssl_object_cache_inheritable).
        """
        newest = 0
        for name in known:
            with contextlib.suppress(OSError):
                newest = max(newest, os.stat(home / name / "meta.json").st_mtime_ns)
        return max(time.time_ns(), (newest // 1_000_000_000 + 1) * 1_000_000_000)

    def _damaged(self, path: Path, why: str) -> RotatorError:
        return RotatorError(
            Reason.STORE_DAMAGED,
            f"{path} is not as rotator wrote it: {why}",
            "Do not edit generations. Move it away and install the pair again: rotator swap; nginx has its own copies",
        )

    def _translated(self, path: Path) -> contextlib.AbstractContextManager[None]:
        return translated(self.root, path)


class Staged:
    """A generation under its temporary name, until it is committed or discarded."""

    def __init__(
        self, store: Store, site: str, home: Path, name: str, equal: str, files: tuple[tuple[str, str], ...]
    ) -> None:
        self._store, self._site, self._home, self._equal = store, site, home, equal
        self.name = name
        self.files = files
        self.path = home / f"{_UNFINISHED}{name}"
        self._written: list[str] = []
        self._flushed = False

    def write(self, contents: Mapping[str, tuple[bytes, int]], mtime: int) -> None:
        """Writes the files, unflushed.

        Args:
            contents: content and mode by name.
            mtime: of each file, in nanoseconds.
        """
        make_dir(self.path)
        for name, (data, mode) in contents.items():
            write_new(self.path / name, data, mode, mtime=mtime)
            self._written.append(name)

    def flush(self) -> None:
        """Flushes the directories above, every file, and then their directory; stored files are flushed already.

        Raises:
            RotatorError: `disk-full` or `io-error`.
        """
        with self._store._translated(self.path):
            self._store._make_home(self._site)
            if not self._equal:
                for name in self._written:
                    flush_file(self.path / name)
                flush_dir(self.path)
        self._flushed = True

    def commit(self) -> Generation:
        """Gives the generation its name, or uses a stored one that is equal byte for byte.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`.
        """
        assert self._flushed, "flushed before it gets its name"  # noqa: S101 - a bug, not an input
        with self._store._translated(self.path):
            if self._equal:
                self.discard()
            else:
                os.rename(self.path, self._home / self.name)
            flush_dir(self._home)
        return self._store.load(self._site, self._equal or self.name)

    def discard(self) -> None:
        """Removes it; a part that cannot be removed is swept the next time."""
        shutil.rmtree(self.path, ignore_errors=True)


def _remove(path: Path) -> None:
    """Removes a directory with its content, or another thing in its place, which `shutil.rmtree` would open."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def demand_state_dir(path: str | os.PathLike[str]) -> os.stat_result:
    """The status of the state directory.

    Raises:
        RotatorError: `no-store`, with the command that makes it.
    """
    try:
        return os.stat(path)
    except OSError as e:
        make = command("install -d -o rotator -g rotator -m 0750", os.fspath(path))
        hint = f"Create it for the user that is to own it: {make}"
        raise RotatorError(Reason.NO_STORE, f"state_dir {path}: {e.strerror}", hint) from e
