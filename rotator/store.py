"""The store on disk: generations, what is verified, what was decided, the history and the lock; nothing of nginx here.

The storage contract, and the only mutations that are permitted:

1. a generation is made under a temporary name (files O_EXCL with their final mode, each flushed, then their
   directory), renamed to its name, and `generations/` is flushed; it is never edited and only deleted whole: it loses
   its name, that is flushed, then its files go;
2. `verified` is a link that is replaced by rename, then its directory is flushed;
3. `intent.json` is replaced by rename after it was flushed, then its directory is flushed;
4. `history.jsonl` is appended to, a line at a time, and flushed;
5. `lock` and `daemon.lock` are permanent; who holds one stands in it only for people and for whoever comes after a
   crash.

A directory is flushed where its entry has to last, also if this run did not make that entry: whoever made it may have
been killed before the flush.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rotator.errors import Exit, RotatorError
from rotator.model import Generation, KeyType, Outcome, Pair, Result, Secret, pairs_digest
from rotator.pem import encode_chain

_NAME = re.compile(r"([0-9]{6,12})-([0-9a-f]{12})\Z")
_STRAY = ".new-"
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\n(.+?)-----END CERTIFICATE-----\n", re.DOTALL)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


NAMELESS_FOR = 0.1
"""Seconds for which a lock may be held without a name in it: its holder has just come, or is about to go."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A hand-made decision that what lies in the drop is not to be installed until it changes.

    Args:
        by: the user who made it.
        since: when, RFC 3339.
        digest: the candidate that it is about; empty for whatever lies there.
    """

    by: str
    since: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """What has been decided for a site.

    Args:
        digest: of the candidate last decided on.
        result: how that ended (`Result`).
        reason: the outcome's word.
        policy: digest of policy and roots at that time.
        next_try: RFC 3339; empty if none is due.
        hold: see `Hold`.
    """

    digest: str = ""
    result: str = ""
    reason: str = ""
    policy: str = ""
    next_try: str = ""
    hold: Hold | None = None


@dataclass(slots=True)
class Lock:
    """The held rotation lock.

    Args:
        interrupted: sites that the last holder had in flight when it died, until `settled`.
    """

    _fd: int
    _path: Path
    _who: str
    interrupted: tuple[str, ...] = ()
    in_flight: tuple[str, ...] = field(default=())

    def begin(self, sites: Sequence[str]) -> None:
        """Notes which sites are between their old and their new generation, for whoever comes after a crash.

        Raises:
            RotatorError: what the disk said; as for `settled`.
        """
        self.in_flight = tuple(sites)
        self._write()

    def settled(self, sites: Sequence[str]) -> None:
        """Takes sites out of both notes: they are proved again, one way or the other."""
        self.in_flight = tuple(s for s in self.in_flight if s not in sites)
        self.interrupted = tuple(s for s in self.interrupted if s not in sites)
        self._write()

    def _write(self) -> None:
        # No fsync: after a power cut nginx starts from the disk, so what it serves is what its include names.
        note = {"pid": os.getpid(), "who": self._who, "since": _stamp(datetime.now(UTC))}
        data = _json(note | {"in_flight": sorted({*self.in_flight, *self.interrupted})})
        with _in_words(self._path.parent, self._path):
            os.pwrite(self._fd, data, 0)  # over the note of before, of which `_note` reads the first line only
            os.ftruncate(self._fd, len(data))


class Store:
    """One state directory.

    Args:
        root: the state directory; it must exist and belong to the user who calls.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- generations -----------------------------------------------------------------------------------------------

    def names(self, site: str) -> tuple[str, ...]:
        """Names of the stored generations of a site, oldest first."""
        found: list[str] = []
        with self._in_words(self._generations(site)), contextlib.suppress(FileNotFoundError):
            found = os.listdir(self._generations(site))
        return tuple(sorted((n for n in found if _NAME.match(n)), key=lambda n: int(n.partition("-")[0])))

    def load(self, site: str, name: str) -> Generation:
        """One generation without its keys.

        Raises:
            RotatorError: `no-generation` or `store-damaged`, or what the disk said.
        """
        path = self._generations(site) / name
        self._must_be_stored(site, name)
        chains: dict[KeyType, tuple[bytes, ...]] = {}
        try:
            with self._in_words(path):
                meta = json.loads((path / "meta.json").read_bytes())
                for kind in map(KeyType, meta["pairs"]):
                    chains[kind] = _certificates((path / pair_files(kind, len(meta["pairs"]))[0]).read_bytes())
        except (ValueError, KeyError, TypeError) as e:
            raise self._damaged(path) from e
        if _digest(chains)[:12] != name.partition("-")[2]:
            raise self._damaged(path)
        return Generation(site, name, MappingProxyType(chains), MappingProxyType(meta))

    def load_pairs(self, site: str, name: str) -> tuple[Pair, ...]:
        """One generation with its keys, to be applied again.

        Raises:
            RotatorError: as `load`.
        """
        generation = self.load(site, name)
        path = self._generations(site) / name
        pairs = []
        try:
            for kind, chain in generation.chains.items():
                told = generation.meta["pairs"][kind]  # type: ignore[index]
                with self._in_words(path):
                    key = (path / pair_files(kind, len(generation.chains))[1]).read_bytes()
                dates = (datetime.fromisoformat(told[d]) for d in ("not_before", "not_after", "effective_not_after"))
                names = tuple(told["names"])
                pairs.append(
                    Pair(kind, chain, Secret(key), told["subject"], told["issuer"], told["serial"], names, *dates)
                )
        except (ValueError, KeyError, TypeError) as e:
            raise self._damaged(path) from e
        return tuple(pairs)

    def stage(self, site: str, pairs: Sequence[Pair], meta: Mapping[str, object]) -> Staged:
        """Writes a generation under a temporary name, unflushed, so that nginx can be asked about it meanwhile.

        Args:
            site: whose.
            pairs: one for each kind of key; each with its key.
            meta: origin, who, when; names, dates and fingerprints are added.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`; nothing is left behind.
        """
        home = self._generations(site)
        digest = pairs_digest(tuple(pairs))
        contents = _contents(pairs, meta, digest)
        files = tuple(pair_files(kind, len(pairs)) for kind in sorted(p.key_type for p in pairs))
        with self._in_words(home):
            self._make_home(site)
            self.sweep(site)
            known = self.names(site)
            number = int(known[-1].partition("-")[0]) + 1 if known else 1
            same = next((n for n in known if n.endswith(digest[:12]) and _same(home / n, contents)), "")
            staged = Staged(self, site, home, f"{number:06d}-{digest[:12]}", same, files)
            with contextlib.ExitStack() as undo:
                undo.callback(staged.discard)
                staged.write(contents, self._next_mtime(home, known))
                undo.pop_all()
        return staged

    def sweep(self, site: str) -> None:
        """Removes what a crash left half made; call it under the lock only."""
        home = self._generations(site)
        with self._in_words(home), contextlib.suppress(FileNotFoundError):
            if strays := [name for name in os.listdir(home) if name.startswith(_STRAY)]:
                _flush_dir(home)  # one may have lost its name in a run that was killed before it could flush that
                for name in strays:
                    shutil.rmtree(home / name)

    def prune(self, site: str, keep: int, protect: frozenset[str]) -> tuple[str, ...]:
        """Deletes the oldest generations beyond `keep`, never one of `protect`, nor the verified one, nor the newest.

        Returns:
            The names that were deleted.
        """
        names = self.names(site)
        surplus = max(0, len(names) - max(1, keep))
        gone = tuple(n for n in names[:-1] if n not in protect | {self.verified(site)})[:surplus]
        home = self._generations(site)
        with self._in_words(home):
            for name in gone:  # out of their names first: a half-deleted generation is never seen
                os.rename(home / name, home / f"{_STRAY}{name}")
            if gone:
                _flush_dir(home)
            for name in gone:
                shutil.rmtree(home / f"{_STRAY}{name}")
        return gone

    # -- verified --------------------------------------------------------------------------------------------------

    def verified(self, site: str) -> str:
        """Name of the generation last proved on the wire; empty if there is none."""
        try:
            name = os.readlink(self._site(site) / "verified").rpartition("/")[2]
            return name if self._is_stored(site, name) else ""
        except OSError:
            return ""

    def mark_verified(self, site: str, name: str) -> None:
        """Notes that this generation was seen served everywhere; returns when that is on the disk.

        Raises:
            RotatorError: `no-generation`, `disk-full`, `permission` or `io-error`.
        """
        self._must_be_stored(site, name)
        self._replace(self._site(site) / "verified", lambda new: os.symlink(f"generations/{name}", new))

    # -- intent ----------------------------------------------------------------------------------------------------

    def intent(self, site: str) -> Intent:
        """What was decided last; an empty one if nothing was, or if the file is not readable as such."""
        try:
            raw = dict(json.loads((self._site(site) / "intent.json").read_bytes()))
            hold = raw.pop("hold", None)
            return Intent(**raw, hold=Hold(**hold) if hold else None)
        except (OSError, ValueError, TypeError):
            return Intent()  # it costs one needless look at the drop, never correctness

    def write_intent(self, site: str, intent: Intent) -> None:
        """Replaces what was decided; returns when that is on the disk.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`; what was decided before still stands then.
        """
        path = self._site(site) / "intent.json"
        with self._in_words(path):
            self._make_home(site)
        self._replace(path, lambda new: _write_new(new, _json(asdict(intent), indent=1), 0o640, flush=True))

    # -- history ---------------------------------------------------------------------------------------------------

    def record(self, outcome: Outcome, *, who: str, trigger: str) -> None:
        """Appends an outcome to the audit trail; returns when it is on the disk.

        Args:
            outcome: what happened.
            who: the user, or `rotatord`.
            trigger: `swap`, `rollback`, `drop`, `recovery` …
        """
        told = self._fingerprints(outcome.site, outcome.generation or outcome.live)
        line = _json(outcome_as_dict(outcome) | {"who": who, "trigger": trigger, "fingerprints": told})
        path = self.root / "history.jsonl"
        with self._in_words(path):
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            try:
                size = os.fstat(fd).st_size
                if not size:
                    os.fchmod(fd, 0o640)  # whatever the umask is
                elif os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line  # a line that a power cut tore stays torn, and alone
                _write_all(fd, line)
                os.fsync(fd)
            finally:
                os.close(fd)
            _flush_dir(self.root)

    def history(self, site: str = "", limit: int = 0) -> tuple[dict[str, Any], ...]:
        """Entries of the audit trail, oldest first; torn lines are left out.

        Args:
            site: only this one's; empty for all.
            limit: only the newest so many; 0 for all.
        """
        path = self.root / "history.jsonl"
        lines: list[bytes] = []
        with self._in_words(path), contextlib.suppress(FileNotFoundError):
            lines = path.read_bytes().splitlines()
        found: list[dict[str, Any]] = []
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and (not site or entry.get("site") == site):
                    found.append(entry)
            if limit and len(found) >= limit:
                break
        return tuple(reversed(found))

    def last_entry_at(self) -> datetime | None:
        """When the last entry of the history was written; None without one."""
        for entry in reversed(self._tail()):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                return datetime.fromisoformat(entry["at"]).astimezone(UTC)
        return None

    def last_reload_seconds(self) -> float:
        """How long the last reload took until it was proved; 0.0 if none of late is known."""
        for entry in reversed(self._tail()):
            with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
                if entry["result"] == str(Result.ROTATED) and entry["stages"].get("apply"):
                    return float(entry["stages"]["apply"]) + float(entry["stages"].get("prove", 0.0))
        return 0.0

    def _tail(self) -> list[dict[str, Any]]:
        """The newest entries, without reading years of history."""
        try:
            with (self.root / "history.jsonl").open("rb") as f:
                f.seek(max(0, f.seek(0, os.SEEK_END) - 64 * 1024))
                lines = f.read().splitlines()
        except OSError:
            return []
        entries = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
        return [entry for entry in entries if isinstance(entry, dict)]

    # -- lock ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def rotation_lock(self, who: str, within: float, waiting: Callable[[str], None] | None = None) -> Iterator[Lock]:
        """One rotation (apply to proof) at a time on this host; the lock dies with its holder.

        Args:
            who: the user, for the message that others get.
            within: seconds to wait for it.
            waiting: told once who holds it, if it has to be waited for.

        Raises:
            RotatorError: `lock-busy` (exit 7) with the holder's pid.
        """
        path = self.root / "lock"
        with self._in_words(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            with self._in_words(path):
                self._acquire(fd, within, waiting)
                left = _note(fd).get("in_flight", [])
            lock = Lock(fd, path, who, tuple(str(s) for s in left) if isinstance(left, list) else ())
            lock._write()
            yield lock
            if not lock.interrupted and not lock.in_flight:
                with contextlib.suppress(OSError):  # a note that stays names nobody in flight
                    os.ftruncate(fd, 0)
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)  # at once, also if a child has been forked meanwhile
            os.close(fd)

    @contextlib.contextmanager
    def daemon_lock(self) -> Iterator[None]:
        """One daemon for each state directory; held for its whole life, and gone with it however it ends.

        Raises:
            RotatorError: `daemon-running` (exit 7) with the other one's pid.
        """
        path = self.root / "daemon.lock"
        with self._in_words(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            try:
                self._acquire(fd, 0.2, None)  # `daemon_pid` of another process may hold it for an instant
            except RotatorError as e:
                note = _note(fd)
                raise RotatorError(
                    "daemon-running",
                    f"a daemon is running for {self.root} already: pid {note.get('pid', '?')}, "
                    f"since {note.get('since', '?')}",
                    "stop that one first: systemctl stop rotator; or see what it does: rotator status",
                    Exit.BUSY,
                ) from e
            with self._in_words(path):
                data = _json({"pid": os.getpid(), "since": _stamp(datetime.now(UTC))})
                os.pwrite(fd, data, 0)
                os.ftruncate(fd, len(data))
            yield
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def daemon_pid(self) -> int:
        """The pid of the daemon that runs for this state directory; 0 if none does or it cannot be told."""
        path = self.root / "daemon.lock"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return 0
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            pid = _note(fd).get("pid", 0)
            return pid if isinstance(pid, int) else 0
        finally:
            os.close(fd)
        return 0

    def _acquire(self, fd: int, within: float, waiting: Callable[[str], None] | None) -> None:
        begun = time.monotonic()
        end = begun + within
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note = _note(fd)
            else:
                return
            if not note and time.monotonic() < begun + NAMELESS_FOR:
                time.sleep(0.002)
                continue
            holder = f"pid {note.get('pid', '?')} ({note.get('who', '?')}, since {note.get('since', '?')})"
            if waiting:
                waiting(holder)
                waiting = None
            if time.monotonic() >= end:
                raise RotatorError(
                    "lock-busy",
                    f"another rotation is running on this host: {holder}",
                    "wait for it, or look at it with `rotator status`; the lock ends by itself with its holder",
                    Exit.BUSY,
                )
            time.sleep(0.02)

    def _fingerprints(self, site: str, name: str) -> dict[str, str]:
        try:
            pairs = self.load(site, name).meta["pairs"]
        except RotatorError:
            return {}
        return {k: str(p["fingerprint_sha256"]) for k, p in pairs.items()} if isinstance(pairs, dict) else {}

    # -- inside ----------------------------------------------------------------------------------------------------

    def _site(self, site: str) -> Path:
        return self.root / "sites" / site

    def _generations(self, site: str) -> Path:
        return self._site(site) / "generations"

    def _make_home(self, site: str) -> None:
        for path in (self.root / "sites", self._site(site), self._generations(site)):
            with contextlib.suppress(FileExistsError):
                _make_dir(path)
            _flush_dir(path.parent)

    def _is_stored(self, site: str, name: str) -> bool:
        return bool(_NAME.match(name)) and (self._generations(site) / name).is_dir()

    def _must_be_stored(self, site: str, name: str) -> None:
        with self._in_words(self._generations(site)):
            if self._is_stored(site, name):
                return
        known = ", ".join(self.names(site)) or "none"
        raise RotatorError("no-generation", f"{site} has no generation {name} (stored: {known})", exit=Exit.USAGE)

    def _replace(self, path: Path, make: Callable[[Path], None]) -> None:
        """Gives what `make` makes under a temporary name this name, by rename; a failure leaves nothing of it."""
        new = path.with_name(f"{_STRAY}{path.name}")
        with self._in_words(path):
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(new)
                make(new)
                os.rename(new, path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise
            _flush_dir(path.parent)

    def _next_mtime(self, home: Path, known: Sequence[str]) -> int:
        """Nanoseconds, in a later whole second than every stored generation.

        nginx >= 1.27.4 keeps a loaded certificate whose path, inode and whole-second mtime are unchanged
        (src/core/ngx_open_file_cache.c's way of comparing, used by ssl_object_cache_inheritable).
        """
        newest = 0
        for name in known:
            with contextlib.suppress(OSError):
                newest = max(newest, os.stat(home / name / "meta.json").st_mtime_ns)
        return max(time.time_ns(), (newest // 1_000_000_000 + 1) * 1_000_000_000)

    def _damaged(self, path: Path) -> RotatorError:
        return RotatorError(
            "store-damaged",
            f"{path} is not as rotator wrote it",
            "do not edit generations; move it away and swap the pair in again. nginx has copies of its own",
        )

    def _in_words(self, path: Path) -> contextlib.AbstractContextManager[None]:
        return _in_words(self.root, path)


class Staged:
    """A generation under its temporary name: `commit` it or `discard` it."""

    def __init__(
        self, store: Store, site: str, home: Path, name: str, same: str, files: tuple[tuple[str, str], ...]
    ) -> None:
        self._store, self._site, self._home, self._same = store, site, home, same
        self.name = name
        self.files = files
        self.path = home / f"{_STRAY}{name}"
        self._written: list[str] = []
        self._flushed = False

    def write(self, contents: Mapping[str, tuple[bytes, int]], mtime: int) -> None:
        """Writes the files with their final modes and one mtime (ns), unflushed."""
        _make_dir(self.path)
        for name, (data, mode) in contents.items():
            _write_new(self.path / name, data, mode, mtime=mtime)
            self._written.append(name)

    def flush(self) -> None:
        """Brings every file and then their directory to the disk; what is stored already needs none of it.

        Raises:
            RotatorError: `disk-full` or `io-error`.
        """
        if self._same:
            return
        with self._store._in_words(self.path):
            for name in self._written:
                _flush_file(self.path / name)
            _flush_dir(self.path)
        self._flushed = True

    def commit(self) -> Generation:
        """Names it; one that is stored already, byte for byte, is used again instead.

        Raises:
            RotatorError: `disk-full`, `permission` or `io-error`.
        """
        assert self._same or self._flushed, "flushed before it gets its name"  # noqa: S101 - a bug, not an input
        with self._store._in_words(self.path):
            if self._same:
                self.discard()
            else:
                os.rename(self.path, self._home / self.name)
            _flush_dir(self._home)
        return self._store.load(self._site, self._same or self.name)

    def discard(self) -> None:
        """Removes it; what cannot be removed is swept the next time."""
        shutil.rmtree(self.path, ignore_errors=True)


def policy_digest(parts: Sequence[object]) -> str:
    """SHA-256 (hex) of what a decision depended on besides the candidate; the same in every process."""
    return hashlib.sha256(json.dumps(parts, default=_in_order, sort_keys=True).encode()).hexdigest()


def outcome_as_dict(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON has it: RFC 3339 UTC, seconds as numbers."""
    return {
        "site": outcome.site,
        "result": str(outcome.result),
        "at": _stamp(outcome.at),
        "reason": outcome.reason,
        "message": outcome.message,
        "hint": outcome.hint,
        "problems": [asdict(p) for p in outcome.problems],
        "generation": outcome.generation,
        "previous": outcome.previous,
        "live": outcome.live,
        "proof": outcome.proof,
        "unproved": list(outcome.unproved),
        "stages": {k: round(v, 6) for k, v in outcome.stages.items()},
        "nginx_words": list(outcome.nginx_words),
        "retry_after": outcome.retry_after.total_seconds() if isinstance(outcome.retry_after, timedelta) else None,
    }


def pair_files(kind: KeyType, how_many: int) -> tuple[str, str]:
    """Names of the chain and the key file; a kind of key has its name in them only where a site has several."""
    prefix = f"{kind}-" if how_many > 1 else ""
    return f"{prefix}fullchain.pem", f"{prefix}privkey.pem"


def _contents(pairs: Sequence[Pair], meta: Mapping[str, object], digest: str) -> dict[str, tuple[bytes, int]]:
    contents: dict[str, tuple[bytes, int]] = {}
    told: dict[str, object] = {}
    for pair in sorted(pairs, key=lambda p: p.key_type):
        assert pair.key is not None, "a pair without its key cannot be stored"  # noqa: S101 - a bug, not an input
        chain, key = pair_files(pair.key_type, len(pairs))
        contents[chain] = (encode_chain(pair.chain), 0o644)
        contents[key] = (pair.key.reveal(), 0o600)
        told[str(pair.key_type)] = {
            "fingerprint_sha256": pair.fingerprint,
            "serial": pair.serial,
            "subject": pair.subject,
            "issuer": pair.issuer,
            "names": list(pair.names),
            "not_before": _stamp(pair.not_before),
            "not_after": _stamp(pair.not_after),
            "effective_not_after": _stamp(pair.effective_not_after),
        }
    contents["meta.json"] = (_json({**meta, "schema_version": 1, "digest": digest, "pairs": told}, indent=1), 0o644)
    return contents


def _digest(chains: Mapping[KeyType, tuple[bytes, ...]]) -> str:
    never = datetime(1970, 1, 1, tzinfo=UTC)
    return pairs_digest(
        tuple(Pair(kind, chain, None, "", "", "", (), never, never, never) for kind, chain in chains.items())
    )


def _same(path: Path, contents: Mapping[str, tuple[bytes, int]]) -> bool:
    """Whether a stored generation holds these very pairs; who brought them and when may differ."""
    pems = {name: data for name, (data, _) in contents.items() if name.endswith(".pem")}
    try:
        return {p.name: p.read_bytes() for p in path.iterdir() if p.suffix == ".pem"} == pems
    except OSError:
        return False


def _certificates(data: bytes) -> tuple[bytes, ...]:
    """The certificates of a file that `encode_chain` wrote."""
    return tuple(base64.b64decode(body.replace(b"\n", b""), validate=True) for body in _BLOCK.findall(data))


def _in_order(value: object) -> object:
    """What JSON has no word for: a set has no order that lasts beyond its process."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    return repr(value)


def _json(value: object, indent: int | None = None) -> bytes:
    """JSON as UTF-8, with a line feed; a file name that is no UTF-8 is escaped, and comes back as it was."""
    return json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _make_dir(path: Path) -> None:
    os.mkdir(path, 0o750)
    os.chmod(path, 0o750)  # noqa: S103 - the contract's mode, whatever the umask is


def _write_new(path: Path, data: bytes, mode: int, *, mtime: int = 0, flush: bool = False) -> None:
    fd = os.open(path, _CREATE, mode)
    try:
        _write_all(fd, data)
        os.fchmod(fd, mode)  # whatever the umask is
        if mtime:
            os.utime(fd, ns=(mtime, mtime))
        if flush:
            os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _flush_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _flush_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _note(fd: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(fd, 1024 * 1024, 0).partition(b"\n")[0])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _stamp(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextlib.contextmanager
def _in_words(root: Path, path: Path) -> Iterator[None]:
    """Turns what the system says about a path below the state directory into an error for the person on call."""
    try:
        yield
    except OSError as e:
        owner = f"run it as root or as the owner of {root}"
        words = {
            errno.ENOSPC: ("disk-full", "free some space; the swap can then be repeated as it was"),
            errno.EDQUOT: ("disk-full", "raise the quota; the swap can then be repeated as it was"),
            errno.EACCES: ("permission", owner),
            errno.EPERM: ("permission", owner),
            errno.EROFS: ("io-error", "the file system is mounted read-only; see `dmesg`"),
            errno.ENOENT: ("io-error", f"make it first: install -d -o rotator -g rotator -m 0750 {root}"),
            errno.EMFILE: ("io-error", "too many files are open; see LimitNOFILE= of the unit"),
            errno.ENOMEM: ("io-error", "the host is out of memory; see `dmesg`"),
        }
        code, hint = words.get(e.errno or 0, ("io-error", "see `dmesg`; nothing that nginx reads was changed"))
        raise RotatorError(code, f"{path}: {e.strerror or type(e).__name__}", hint) from e
