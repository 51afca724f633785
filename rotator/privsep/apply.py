"""The privileged step: copies a stored pair for nginx, names it in nginx's include, and sends nginx one HUP.

Root runs this file alone (`python3 -I -S apply.py`). So it uses only the standard library, imports no other module of
rotator, decides nothing about certificates, and accepts from its caller only names of a strict grammar. Only this file
writes nginx's includes, makes root's copies of the pairs, and signals nginx. It answers with a record, and an error of
the system is a part of the answer.

As a program it serves one connection, its standard input: systemd accepts it on a socket that only the store's owner
may connect to. Each request is one line of JSON, and so is each answer. All settings come from root's configuration,
as it is at each request; no request depends on an earlier one. With `--test` the program runs `nginx -t`
instead, which needs root to read every file.
"""

from __future__ import annotations

import argparse
import binascii
import contextlib
import errno
import fcntl
import grp
import itertools
import json
import os
import pwd
import re
import select
import signal
import socket
import stat
import struct
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SITE = re.compile(r"(?!pairs\Z)(?!.*\.\.)(?!.*\.(?:conf)?\Z)[a-z0-9][a-z0-9._-]{0,63}\Z")
"""The name of a site. It is the name of its link, and with `.conf` of its include, so neither may be `pairs` or equal
another one."""

GENERATION = re.compile(r"[0-9]{6,12}-[0-9a-f]{12}\Z")
SAFE_PATH = re.compile(r"/[A-Za-z0-9._/+@-]*\Z")
"""A path that nginx reads literally: without quotes, `$` (a variable), `;`, braces or spaces."""

VERSION = 1
"""The version of requests and answers. Each side names its own and refuses another one, before anything is changed."""
APPLY, PREPARE, TEST = "apply", "prepare", "test"
"""The words of a request: name generations for nginx; only copy them; run `nginx -t`."""
MAX_REQUEST = 64 * 1024
"""The bytes of one request with its line end. A caller splits a larger one: first `prepare` for all, then `apply`."""
MAX_ANSWER = 256 * 1024
MAX_FILE = 256 * 1024
MAX_KEY = 16 * 1024
"""The most bytes of a key file. An RSA key of 8192 bits has 6.4 KB; a DSA key of 257 KB kept nginx's master busy for
good."""
MAX_CHAIN = 64
"""The most certificates of a chain."""
MAX_NAMES = 64
"""The most files in the directory of a stored generation; it has seven at most."""
MAX_RSA_BITS = 8192
"""The most bits of an RSA modulus, as in the policy."""
MAX_LOG = 64 * 1024
LOOK_EVERY = 0.002
"""The seconds between two looks at the master. Three looks show a refusal (7 ms with one server block)."""
WATCH_FOR = 10.0
"""The seconds to wait for nginx's decision after the HUP; eight times as long while its master is seen to be busy."""
TEST_WITHIN = 45.0
"""The seconds that `nginx -t` may take: 10,000 server blocks take 14."""
LINE_WITHIN = 10.0
"""The seconds in which a request that has begun must be whole, and in which the peer must take an answer."""
LOCK_WITHIN = 30.0
"""The seconds to wait for another request of this host. Callers hold the rotation lock, so only a stranger is met."""
SETTLED_AFTER = 2.0
"""The age in seconds from which a change of a file is sure to change its time, too."""
HUP_BURST, HUP_EVERY = 60, 2.0
"""The number of HUPs that may follow each other at once, and the seconds for each further one. A batch that fails is
tried site by site; beyond the burst, a HUP is delayed and never refused, as it may bring the old pair back."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LAYOUTS = [(), ("ecdsa", "rsa"), ("ecdsa", "ed25519"), ("ed25519", "rsa"), ("ecdsa", "ed25519", "rsa")]
_INCLUDE_LINE = re.compile(
    r"ssl_certificate(?:_key)? +(?P<dir>/\S+)/(?P<generation>[0-9]{6,12}-[0-9a-f]{12})"
    r"/(?:(?:ecdsa|ed25519|rsa)-)?(?:fullchain|privkey)\.pem;\Z"
)
_RSA, _EC, _ED25519 = (bytes.fromhex(oid) for oid in ("2a864886f70d010101", "2a8648ce3d0201", "2b6570"))
_SEQUENCE, _INTEGER, _OCTET_STRING, _NULL, _OID = 0x30, 0x02, 0x04, 0x05, 0x06
_PARAMETERS, _POINT = 0xA0, 0xA1
_CURVES = [[(_OID, bytes.fromhex(curve))] for curve in ("2a8648ce3d030107", "2b81040022", "2b81040023")]
"""The parameters of P-256, P-384 and P-521 (RFC 5480 2.1.1.1)."""
_UNFINISHED = ".new-"
"""The prefix of a copy that is not complete, or that is being removed."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings of root's configuration; a request changes none of them.

    Args:
        state_dir: the directory of the store.
        include_dir: the directory of the includes and of root's copies.
        pid_file: nginx's pid file.
        error_log: nginx's error log; empty if nginx does not log to a file.
        sites: the names that a request may contain.
        key_group: the group that may read the copied keys (mode 0640); empty for mode 0600.
        watch_for: the seconds to wait for nginx's decision after the HUP.
        command: the nginx program and its arguments, for `nginx -t`.
    """

    state_dir: str
    include_dir: str
    pid_file: str
    error_log: str
    sites: frozenset[str]
    key_group: str = ""
    watch_for: float = WATCH_FOR
    command: tuple[str, ...] = ("nginx",)


@dataclass(frozen=True, slots=True)
class Request:
    """The generation that each site is to have, and whether nginx is to reload.

    Args:
        generations: the generation by site.
        hup: False only to go back after a reload that nginx refused, and if nginx is not running.
        word: `APPLY`, `PREPARE` (no generation is named, and nginx gets no HUP) or `TEST` (without generations).
    """

    generations: Mapping[str, str] = field(default_factory=dict)
    hup: bool = True
    word: str = APPLY


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to `APPLY` and `PREPARE`.

    Args:
        live: the generation that the include of each site names now, read from the disk; empty if none.
        before: the generation that it named before.
        error: the kebab-case reason if something failed; empty if not.
        message: the same as a sentence.
        uncertain: whether something failed after an include was renamed: committed, but maybe not on the disk.
        signalled: the pid of the master that got the HUP; 0 if none.
        decision: `accepted`, `refused`, `unknown` (no evidence in time), `gone` (the master ended) or empty (no HUP).
        words: the `[emerg]` messages that nginx's master wrote about it, for people only; marked if another user may
            write nginx's log.
        hint: the next step, from a caller that could not have the request carried out; never part of an answer.
    """

    live: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    message: str = ""
    uncertain: bool = False
    signalled: int = 0
    decision: str = ""
    words: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Tested:
    """The answer to `TEST`.

    Args:
        ok: whether nginx accepts its whole configuration.
        words: its `[emerg]` messages.
        error: the kebab-case reason if the test was not made; empty if it was.
        message: the same as a sentence.
    """

    ok: bool = False
    words: tuple[str, ...] = ()
    error: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Live:
    """The generation that a site's include names.

    Args:
        generation: its name; empty if there is no include.
        problem: why the include cannot be read; empty if it can.
    """

    generation: str = ""
    problem: str = ""


class _RequestError(Exception):
    """The reason for which a request is not carried out: a kebab-case word and a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


# -- the include: rendered and read here only -------------------------------------------------------------------------


def include_path(include_dir: str, site: str) -> str:
    """The path of a site's include."""
    return f"{include_dir}/{site}.conf"


def copies_path(include_dir: str, site: str, generation: str) -> str:
    """The directory of root's copy of a generation, which nginx's messages name."""
    return f"{include_dir}/pairs/{site}/{generation}"


def pair_files(kinds: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The file names (chain, key) of a generation that holds these key types; `()` for one pair of any type."""
    if not kinds:
        return (("fullchain.pem", "privkey.pem"),)
    return tuple((f"{kind}-fullchain.pem", f"{kind}-privkey.pem") for kind in kinds)


def render_include(include_dir: str, site: str, generation: str, files: tuple[tuple[str, str], ...]) -> bytes:
    """The text of a site's include: a comment, and the absolute paths of the pairs of one generation."""
    directory = copies_path(include_dir, site, generation)
    lines = ["# Written by rotator, which replaces the whole file. Do not edit it: see `rotator status`."]
    for chain, key in files:
        lines += [f"ssl_certificate     {directory}/{chain};", f"ssl_certificate_key {directory}/{key};"]
    return ("\n".join(lines) + "\n").encode()


def read_live(include_dir: str, site: str) -> Live:
    """The generation that a site's include names now. An error is a part of the answer."""
    try:
        return Live(_named(include_dir, site))
    except (OSError, _RequestError) as e:
        return Live(problem=f"{include_path(include_dir, site)} cannot be read: {_plain(e)}")
    except ValueError as e:
        return Live(problem=str(e))


def _named(include_dir: str, site: str) -> str:
    """The generation that a site's include names; ValueError for a file that rotator has not written like this."""
    path = include_path(include_dir, site)
    try:
        text = _read_file(path, None, MAX_FILE).decode("ascii", "replace")
    except FileNotFoundError:
        return ""
    generations = set()
    for number, line in enumerate(text.split("\n"), 1):
        directive = line.strip(" \t\r")
        if not directive or directive.startswith("#"):
            continue
        match = _INCLUDE_LINE.match(directive)
        if not match or match["dir"] != f"{include_dir}/pairs/{site}":
            raise ValueError(f"{path}:{number} is not a line that rotator writes")
        generations.add(match["generation"])
    if len(generations) != 1:
        raise ValueError(f"{path} names {len(generations)} generations instead of one")
    return generations.pop()


# -- the step ---------------------------------------------------------------------------------------------------------


def apply(
    setup: Setup,
    request: Request,
    hup: Callable[[Setup], tuple[int, str, tuple[str, ...]]] | None = None,
    waiting: Callable[[], None] = lambda: None,
    *,
    paced: bool = False,
) -> Applied:
    """Makes the includes name the requested generations, then sends nginx one HUP.

    All copies are complete and flushed before the first include changes. Each include changes by one rename (the
    commit). The caller holds the host's rotation lock. A request of another process is waited for, as that lock belongs
    to the store's owner.

    Args:
        setup: root's configuration.
        request: the request.
        hup: sends the signal and waits for the decision: (pid, decision, messages); replaced for a simulated nginx.
        waiting: called at each look during a wait: for nginx's decision, for the lock, for the allowance of HUPs.
        paced: whether the number of HUPs in a time is bounded, for a caller who is not trusted with it.

    Returns:
        The answer; `error` has the reason of a failure, and `live` always has the state of the disk.
    """
    before: dict[str, str] = {}
    committed: dict[str, str] = {}
    error = message = ""
    uncertain = False
    with contextlib.ExitStack() as held:
        try:
            _check(setup, request)
            before = dict.fromkeys(request.generations, "")
            include_fd = held.enter_context(_include_dir(setup.include_dir))
            if paced and request.hup:
                _await_allowance(include_fd, waiting)
            held.enter_context(_locked(include_fd, waiting))
            for site in before:
                before[site] = _named_before(setup, site)
            uncertain = _install(setup, request, before, committed, include_fd)
        except _RequestError as e:
            error, message = e.reason, e.message
        except OSError as e:
            error, message, uncertain = _reason(e), f"{setup.include_dir}: {_plain(e)}", bool(committed)
        live = {}
        for site, previous in before.items():
            current = read_live(setup.include_dir, site)
            live[site] = committed.get(site, previous) if current.problem else current.generation
        if error or not request.hup:
            return Applied(live, before, error, message, uncertain)
        try:
            pid, decision, messages = hup(setup) if hup else hup_master(setup, waiting)
        except _RequestError as e:
            return Applied(live, before, e.reason, e.message, uncertain)
        except OSError as e:
            return Applied(live, before, _reason(e), f"nginx could not be signalled: {_plain(e)}", uncertain)
        return Applied(live, before, "", "", uncertain, pid, decision, messages)


def prepare(setup: Setup, request: Request, waiting: Callable[[], None] = lambda: None) -> Applied:
    """Makes root's copies of the requested generations and flushes them, so that `apply` has only to rename.

    Of each site, the requested copy, the named one and the one before it are kept; an earlier one that was prepared and
    not named goes.

    Args:
        setup: root's configuration.
        request: the request.
        waiting: called at each look during the wait for another request.

    Returns:
        The answer, in which nothing is renamed: `live` and `before` are equal.
    """
    named: dict[str, str] = {}
    error = message = ""
    try:
        _check(setup, request)
        with _include_dir(setup.include_dir) as include_fd, _locked(include_fd, waiting):
            named = {site: _named_before(setup, site) for site in request.generations}
            with _opened_dir("pairs", include_fd, make=True) as pairs_fd:
                _copy_all(setup, request, include_fd, pairs_fd)
                for site, generation in request.generations.items():
                    _prune_copies(site, {generation, named[site], _copy_before(site, named[site], pairs_fd)}, pairs_fd)
    except _RequestError as e:
        error, message = e.reason, e.message
    except OSError as e:
        error, message = _reason(e), f"{setup.include_dir}: {_plain(e)}"
    return Applied(named, named, error, message)


def _check(setup: Setup, request: Request) -> None:
    if not request.generations:
        raise _RequestError("bad-request", "the request names no site")
    for path in (setup.state_dir, setup.include_dir):
        if not SAFE_PATH.match(path):
            raise _RequestError(
                "configuration", f"{path}: a path for nginx is absolute and has only A-Z a-z 0-9 . _ / + @ -"
            )
    for site, generation in request.generations.items():
        if not SITE.match(site) or site not in setup.sites:
            raise _RequestError("bad-request", f"site {site[:64]!r} is not configured")
        if not GENERATION.match(generation):
            raise _RequestError("bad-request", f"{generation[:64]!r} is not the name of a generation")


@contextlib.contextmanager
def _include_dir(path: str) -> Iterator[int]:
    """The descriptor of the include directory, created if only it is missing; one that others may write is refused."""
    with _opened_dir(path, None, make=True) as fd:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise _RequestError(
                "include-dir-unsafe",
                f"{path} belongs to uid {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}; "
                f"it must belong to uid {os.geteuid()}, and no other user may write to it, because nginx includes "
                "its files",
            )
        _flush_parent(path)
        yield fd


@contextlib.contextmanager
def _locked(include_fd: int, waiting: Callable[[], None]) -> Iterator[int]:
    """Holds the lock of the include directory: one request at a time. Gives the descriptor of its file.

    Only the owner of the directory may open the file, so that no other user can hold the lock.
    """
    fd = os.open(".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=include_fd)
    try:
        end = time.monotonic() + LOCK_WITHIN
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > end:
                raise _RequestError("lock-busy", f"another request was not complete after {LOCK_WITHIN:g} s")
            waiting()
            time.sleep(LOOK_EVERY)
        yield fd
    finally:
        os.close(fd)


def _await_allowance(include_fd: int, waiting: Callable[[], None]) -> None:
    """Waits until one more HUP is within `HUP_BURST` and `HUP_EVERY`, and counts it.

    The mtime of the lock's file is the time at which the whole burst is free again; each HUP moves it by `HUP_EVERY`
    (the generic cell rate algorithm, ITU-T I.371). So the count outlives a connection, and needs no space on the disk.
    A HUP counts once it is allowed, so the time is never further ahead than the burst, however many requests wait.
    """
    window = HUP_BURST * HUP_EVERY
    while True:
        with _locked(include_fd, waiting) as lock_fd:
            now, free_at = time.time(), os.fstat(lock_fd).st_mtime
            if not now < free_at < now + window + HUP_EVERY:  # long ago, or the clock was set back since
                free_at = now
            end = time.monotonic() + free_at - now - window + HUP_EVERY
            if time.monotonic() >= end:
                os.utime(lock_fd, (free_at + HUP_EVERY, free_at + HUP_EVERY))
                return
        while (left := end - time.monotonic()) > 0:  # without the lock, so that another request is not delayed
            waiting()
            time.sleep(min(left, 0.1))


def _copy_all(setup: Setup, request: Request, include_fd: int, pairs_fd: int) -> dict[str, tuple[tuple[str, str], ...]]:
    """Root's copies of all requested generations, flushed. Returns the (chain, key) file names by site.

    Each directory is flushed once it has its entry, even an entry that existed before: the run that created it may
    have been killed before it could flush.
    """
    gid = _gid(setup.key_group)
    os.fsync(include_fd)
    files = {}
    for site, generation in request.generations.items():
        with _opened_dir(site, pairs_fd, make=True) as copies_fd:
            os.fsync(pairs_fd)
            files[site] = _copy_generation(setup, site, generation, gid, copies_fd)
    return files


def _install(
    setup: Setup, request: Request, before: Mapping[str, str], committed: dict[str, str], include_fd: int
) -> bool:
    """Copies, renders and commits. Returns whether the durability of the commit is uncertain.

    Args:
        setup: root's configuration.
        request: the request.
        before: the generation that each include named before.
        committed: gets the generation of each site whose include is renamed.
        include_fd: the descriptor of the include directory.
    """
    with contextlib.ExitStack() as stack:
        pairs_fd = stack.enter_context(_opened_dir("pairs", include_fd, make=True))
        for site, files in _copy_all(setup, request, include_fd, pairs_fd).items():
            generation = request.generations[site]
            for new in (f".{site}.conf.new", f".{site}.link.new"):
                _remove(new, include_fd)
                stack.callback(_remove, new, include_fd)
            _write_new(
                f".{site}.conf.new", render_include(setup.include_dir, site, generation, files), include_fd, mode=0o644
            )
            os.symlink(f"pairs/{site}/{generation}", f".{site}.link.new", dir_fd=include_fd)
        for site, generation in request.generations.items():
            os.rename(f".{site}.conf.new", f"{site}.conf", src_dir_fd=include_fd, dst_dir_fd=include_fd)  # the commit
            committed[site] = generation
        for site in request.generations:
            os.rename(f".{site}.link.new", site, src_dir_fd=include_fd, dst_dir_fd=include_fd)
        try:
            os.fsync(include_fd)
        except OSError:
            return True
        for site, generation in request.generations.items():
            if before[site] not in ("", generation):
                _prune_copies(site, {generation, before[site]}, pairs_fd)
    return False


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise _RequestError("configuration", f"key_group: there is no group {group!r} on this host") from None


def _named_before(setup: Setup, site: str) -> str:
    """The generation that the include names; an include or a link that rotator has not made is refused."""
    link = f"{setup.include_dir}/{site}"
    try:
        generation = _named(setup.include_dir, site)
        if os.path.lexists(link) and not os.path.islink(link):
            raise ValueError(f"{link} is not a link that rotator made")
    except (_RequestError, ValueError) as e:
        raise _RequestError("include-foreign", f"{e}; move it away to let rotator manage it") from None
    return generation


def _copy_generation(setup: Setup, site: str, generation: str, gid: int, copies_fd: int) -> tuple[tuple[str, str], ...]:
    """Makes root's copy of one generation and flushes it; an existing copy must be byte-equal.

    Args:
        setup: root's configuration.
        site: the site.
        generation: the name of the generation.
        gid: the group that may read the keys; -1 for none.
        copies_fd: the descriptor of the site's directory of copies.

    Returns:
        The (chain, key) file names.
    """
    files, contents, mtime = _read_generation(setup, site, generation)
    if leftovers := [name for name in os.listdir(copies_fd) if name.startswith(_UNFINISHED)]:
        os.fsync(copies_fd)  # a killed run may have renamed a copy to such a name without a flush
        for leftover in leftovers:
            _remove_dir(leftover, copies_fd)
    try:
        with _opened_dir(generation, copies_fd) as copy_fd:
            if {name: _read_file(name, copy_fd, MAX_FILE) for name in os.listdir(copy_fd)} != contents:
                raise _RequestError(
                    "copy-differs",
                    f"{copies_path(setup.include_dir, site, generation)} differs from the stored generation; "
                    "remove it if nginx does not name it",
                )
            for _, key in files:
                _set_key_access(key, copy_fd, gid)
    except FileNotFoundError:
        with contextlib.ExitStack() as undo:
            undo.callback(_remove_dir, _UNFINISHED + generation, copies_fd)
            with _opened_dir(_UNFINISHED + generation, copies_fd, make=True) as copy_fd:
                for chain, key in files:
                    _write_new(chain, contents[chain], copy_fd, mode=0o644, mtime=mtime)
                    _write_new(key, contents[key], copy_fd, mode=_key_mode(gid), gid=gid, mtime=mtime)
                os.fsync(copy_fd)
            os.rename(_UNFINISHED + generation, generation, src_dir_fd=copies_fd, dst_dir_fd=copies_fd)
            undo.pop_all()
    os.fsync(copies_fd)
    return files


def _key_mode(gid: int) -> int:
    return 0o600 if gid < 0 else 0o640


def _set_key_access(key: str, parent: int, gid: int) -> None:
    """Gives a copied key its current group and mode: `key_group` may have changed since it was copied."""
    fd = os.open(key, _READ, dir_fd=parent)
    try:
        status = os.fstat(fd)
        if gid >= 0 and status.st_gid != gid:
            _give_to_group(fd, gid)
        if stat.S_IMODE(status.st_mode) != _key_mode(gid):
            os.fchmod(fd, _key_mode(gid))
    finally:
        os.close(fd)


def _give_to_group(fd: int, gid: int) -> None:
    """Gives a key to a group. Root's program has no CAP_CHOWN, so the group must be one of its own (chown(2))."""
    try:
        os.fchown(fd, -1, gid)
    except PermissionError:
        message = f"key_group: this process may not give a key to the group {grp.getgrgid(gid).gr_name}"
        line = f"SupplementaryGroups={grp.getgrgid(gid).gr_name}"
        raise _RequestError(
            "permission", f"{message}; rotator-apply@.service needs {line} below [Service] for that"
        ) from None


def _read_generation(
    setup: Setup, site: str, generation: str
) -> tuple[tuple[tuple[str, str], ...], dict[str, bytes], int]:
    """One stored generation, without trust in the store: (file names, contents by name, mtime in ns)."""
    path = f"{setup.state_dir}/sites/{site}/generations/{generation}"
    try:
        with contextlib.ExitStack() as stack:
            fd = os.open(setup.state_dir, _DIR)
            stack.callback(os.close, fd)
            owner = os.fstat(fd).st_uid
            for part in ("sites", site, "generations", generation):
                fd = os.open(part, _DIR, dir_fd=fd)
                stack.callback(os.close, fd)
                if os.fstat(fd).st_uid != owner:
                    raise _RequestError("store-unsafe", f"{part} does not belong to the store's owner, uid {owner}")
            with os.scandir(fd) as entries:  # not all at once: the owner of the store may have put a million there
                names = {entry.name for entry in itertools.islice(entries, MAX_NAMES) if entry.name.endswith(".pem")}
                if next(entries, None):
                    raise _RequestError("store-unsafe", f"there are more than {MAX_NAMES} files")
            layouts = [pair_files(kinds) for kinds in _LAYOUTS]
            files = next((f for f in layouts if names == {name for pair in f for name in pair}), None)
            if files is None:
                raise _RequestError("store-unsafe", "these are not the files of a generation")
            limits = {name: limit for pair in files for name, limit in zip(pair, (MAX_FILE, MAX_KEY), strict=True)}
            contents = {name: _read_file(name, fd, limit, owner=owner) for name, limit in sorted(limits.items())}
            mtime = max(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime_ns for name in names)
        for chain, key in files:
            check_chain(chain, contents[chain])
            check_key(key, contents[key])
    except (OSError, _RequestError) as e:
        raise _RequestError(_reason(e), f"{path}: {_plain(e)}") from e
    return files, contents, mtime


def _copy_before(site: str, named: str, pairs_fd: int) -> str:
    """The newest copy that is older than the named one; empty if there is none."""
    with _opened_dir(site, pairs_fd) as copies_fd:
        return max((name for name in os.listdir(copies_fd) if GENERATION.match(name) and name < named), default="")


def _prune_copies(site: str, keep: set[str], pairs_fd: int) -> None:
    """Removes a site's other copies; a failure is left for the next run.

    Args:
        site: the site.
        keep: the generations to keep: at least the one that the include names now.
        pairs_fd: the descriptor of the directory of all copies.
    """
    with contextlib.suppress(OSError), _opened_dir(site, pairs_fd) as copies_fd:
        obsolete = [name for name in os.listdir(copies_fd) if GENERATION.match(name) and name not in keep]
        for name in obsolete:  # renamed first, because a directory with the name of a generation must be complete
            os.rename(name, _UNFINISHED + name, src_dir_fd=copies_fd, dst_dir_fd=copies_fd)
        if obsolete:
            os.fsync(copies_fd)
        for name in obsolete:
            _remove_dir(_UNFINISHED + name, copies_fd)


# -- what nginx may load ----------------------------------------------------------------------------------------------


def check_chain(name: str, data: bytes) -> None:
    """Checks that a file has nothing but a few certificates as PEM, as the store writes them.

    Raises:
        _RequestError: `store-unsafe`.
    """
    try:
        certificates = [_elements(der) for der in _pem_blocks(data, b"CERTIFICATE")]
    except ValueError as e:
        raise _RequestError("store-unsafe", f"{name} has something other than certificates: {e}") from None
    if not 1 <= len(certificates) <= MAX_CHAIN or any([tag for tag, _ in c] != [_SEQUENCE] for c in certificates):
        raise _RequestError("store-unsafe", f"{name} does not have 1 to {MAX_CHAIN} certificates")


def check_key(name: str, data: bytes) -> None:
    """Checks that a file has nothing but one PKCS#8 key as PEM, of a kind that nginx loads in milliseconds.

    OpenSSL computes with a key of any kind and size while it loads it, and nginx's master cannot be interrupted then.

    Raises:
        _RequestError: `store-unsafe`; the message has no byte of the key.
    """
    try:
        blocks = _pem_blocks(data, b"PRIVATE KEY")
        is_good = len(blocks) == 1 and _is_bounded_key(blocks[0])
    except ValueError:
        is_good = False
    if not is_good:
        raise _RequestError(
            "store-unsafe",
            f"{name} is not one PKCS#8 key as the store writes it: RSA of at most {MAX_RSA_BITS} bits, ECDSA on P-256, "
            "P-384 or P-521, or Ed25519",
        )


def _pem_blocks(data: bytes, label: bytes) -> list[bytes]:
    """The decoded blocks of a text that is nothing but canonical PEM (RFC 7468 section 2) with one label.

    Raises:
        ValueError: there is something else.
    """
    begin, end = b"-----BEGIN %b-----\n" % label, b"-----END %b-----\n" % label
    blocks = []
    at = 0
    while at < len(data):
        stop = data.find(end, at)
        if stop < 0 or not data.startswith(begin, at):
            raise ValueError(f"byte {at} does not begin a whole {label.decode()} block")
        text = data[at + len(begin) : stop]
        der = binascii.a2b_base64(text)
        encoded = binascii.b2a_base64(der, newline=False)
        if text != b"".join(encoded[i : i + 64] + b"\n" for i in range(0, len(encoded), 64)):
            raise ValueError(f"the block that begins with byte {at} is not in lines of 64 characters of base64")
        blocks.append(der)
        at = stop + len(end)
    return blocks


def _is_bounded_key(der: bytes) -> bool:
    """Whether a PKCS#8 structure (RFC 5958) has a key whose computations are bounded; ValueError if it is not DER."""
    version, algorithm, key = _fields(der, _INTEGER, _SEQUENCE, _OCTET_STRING)
    parts = _elements(algorithm)
    if version != b"\0":
        return False
    if parts == [(_OID, _RSA), (_NULL, b"")]:
        return _is_bounded_rsa(key)
    if parts == [(_OID, _ED25519)]:
        return [(tag, len(seed)) for tag, seed in _elements(key)] == [(_OCTET_STRING, 32)]
    return parts[:1] == [(_OID, _EC)] and parts[1:] in _CURVES and _is_on_curve(key, parts[1:])


def _is_bounded_rsa(der: bytes) -> bool:
    """Whether an RSAPrivateKey (RFC 8017 A.1.2) has two primes, and no number longer than a bounded modulus."""
    version, *contents = _fields(der, *[_INTEGER] * 9)
    numbers = [int.from_bytes(content, "big", signed=True) for content in contents]
    bits = [number.bit_length() for number in numbers]
    return version == b"\0" and min(numbers) > 0 and max(bits) == bits[0] <= MAX_RSA_BITS


def _is_on_curve(der: bytes, curve: list[tuple[int, bytes]]) -> bool:
    """Whether an ECPrivateKey (RFC 5915) is on a named curve; its own parameters would replace those around it."""
    (outer,) = _elements(der)
    version, scalar, *rest = _elements(outer[1])
    if (outer[0], version, scalar[0]) != (_SEQUENCE, (_INTEGER, b"\1"), _OCTET_STRING) or len(scalar[1]) > 66:
        return False
    if [tag for tag, _ in rest] not in ([], [_PARAMETERS], [_POINT], [_PARAMETERS, _POINT]):
        return False
    return all(tag == _POINT or _elements(content) == curve for tag, content in rest)


def _fields(der: bytes, *tags: int) -> list[bytes]:
    """The contents of the elements of one SEQUENCE; ValueError if they have other tags than these."""
    (outer,) = _elements(der)
    elements = _elements(outer[1])
    if outer[0] != _SEQUENCE or tuple(tag for tag, _ in elements) != tags:
        raise ValueError("other elements")
    return [content for _, content in elements]


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """The DER elements that follow each other in these bytes, as tag and content; ValueError for anything else."""
    elements = []
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1] if at + 1 < len(data) else 0x80, at + 2
        if length & 0x80:
            octets = data[at : at + (length & 0x7F)]
            at, length = at + (length & 0x7F), int.from_bytes(octets[:5], "big")
            if length < 0x80 or len(octets) > 4 or octets[0] == 0:
                raise ValueError("a length that is not DER")
        if tag & 0x1F == 0x1F or at + length > len(data):
            raise ValueError("a tag that is not supported, or an element that ends too late")
        elements.append((tag, data[at : at + length]))
        at += length
    return elements


# -- the signal and nginx's decision ----------------------------------------------------------------------------------


def hup_master(setup: Setup, waiting: Callable[[], None] = lambda: None) -> tuple[int, str, tuple[str, ...]]:
    """Sends one HUP to the master of the pid file and waits for its decision, for about `setup.watch_for` seconds.

    Args:
        setup: root's configuration.
        waiting: called at each look at the master.

    Returns:
        (pid, decision, nginx's messages); pid 0 and decision `gone` if no master is running.

    Raises:
        _RequestError: `pid-file-unsafe` or `signal-permission`; nothing was signalled.
    """
    pid = master_pid(setup.pid_file)
    if not pid:
        return 0, "gone", ()
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0, "gone", ()
    try:
        if not _has_title(pid):
            return 0, "gone", ()
        if not is_master(pid) and (owner := _uids(pid)[1]) >= 0:
            raise _RequestError(
                "pid-file-unsafe",
                f"{setup.pid_file} names pid {pid}, a process of uid {owner}; the nginx that this user may signal runs "
                f"as root or as uid {os.geteuid()}",
            )
        log = _Log(setup.error_log, pid)
        children = read_children(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
        except ProcessLookupError:
            return 0, "gone", ()
        except PermissionError as e:
            raise _RequestError(
                "signal-permission",
                f"this user may not signal nginx's master, pid {pid}; run rotator as the user of that process",
            ) from e
        decision = _watch(pid, children, setup.watch_for, waiting)
        return pid, decision, log.messages()
    finally:
        os.close(process)


def master_pid(pid_file: str) -> int:
    """The pid in nginx's pid file; 0 if there is none (`nginx -t` as root leaves an empty file).

    Raises:
        _RequestError: `pid-file-unsafe`: another user could have written this file.
    """
    try:
        fd = os.open(pid_file, _READ)
    except OSError:
        return 0
    try:
        status = os.fstat(fd)
        text = os.read(fd, 65).strip() if stat.S_ISREG(status.st_mode) else b""
    except OSError:
        return 0
    finally:
        os.close(fd)
    if not text.isdigit() or not 0 < int(text) < 2**31:
        return 0
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise _RequestError(
            "pid-file-unsafe",
            f"{pid_file} belongs to uid {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}; it must belong "
            f"to root or uid {os.geteuid()}, and no other user may write to it, because its process gets a signal",
        )
    return int(text)


def is_master(pid: int) -> bool:
    """Whether a process is an nginx master of root or of this user. Any user may give a process that title."""
    return _has_title(pid) and set(_uids(pid)) <= {0, os.geteuid()}


def _has_title(pid: int) -> bool:
    """Whether a process has the title of an nginx master, so that a stale pid file causes no signal to another one."""
    try:
        return _proc(pid, "cmdline").startswith(b"nginx: master process")
    except OSError:
        return False


def _uids(pid: int) -> tuple[int, int]:
    """The real and the effective uid of a process; (-1, -1) for one that has ended."""
    try:
        real, effective = _status(pid)[b"Uid"].split()[:2]
        return int(real), int(effective)
    except (OSError, KeyError, ValueError):
        return -1, -1


def _status(pid: int) -> dict[bytes, bytes]:
    """The fields of /proc/PID/status."""
    return dict(line.split(b":\t", 1) for line in _proc(pid, "status").splitlines() if b":\t" in line)


def read_children(pid: int) -> frozenset[int]:
    """The pids of a process's children. One read may miss a child while a sibling exits, so two must be equal."""
    previous: frozenset[int] | None = None
    union: frozenset[int] = frozenset()
    for _ in range(5):
        try:
            current = frozenset(int(child) for child in _proc(pid, f"task/{pid}/children").split())
        except OSError:
            return union
        if current == previous:
            return current
        previous, union = current, union | current
    return union


def _watch(pid: int, before: frozenset[int], within: float, waiting: Callable[[], None]) -> str:
    """The decision of the master, by evidence that no other user can make: its children and its own state.

    A new child means `accepted`. Three looks at an idle master without a new child mean `refused`. nginx's log decides
    nothing: its workers own it on most hosts.

    Args:
        pid: the pid of the master.
        before: its children before the signal.
        within: the seconds to wait; eight times as long while the master is busy.
        waiting: called at each look.
    """
    end = time.monotonic() + within
    busy_end = time.monotonic() + 8 * within
    idle_looks = 0
    while True:
        idle = _is_idle(pid)
        if read_children(pid) - before:
            return "accepted"
        if not is_master(pid):
            return "gone"
        idle_looks = idle_looks + 1 if idle else 0
        if idle_looks >= 3 and before:  # without visible children, the lack of a new child shows nothing
            return "refused"
        now = time.monotonic()
        if now > busy_end or (now > end and idle is not False):
            return "unknown"
        waiting()
        time.sleep(LOOK_EVERY)


def _is_idle(pid: int) -> bool | None:
    """Whether the master waits for signals and has no HUP pending; None if it is stopped, or if that is invisible.

    The master blocks its signals all the time except while it waits for one with an empty mask (sigsuspend(2),
    src/os/unix/ngx_process_cycle.c); a handler blocks at least its own signal. So a sleeping master without a blocked
    signal waits. The kernel shows the mask of each process to every user, and only the process itself can change it.
    """
    try:
        status = _status(pid)
        state, blocked = status[b"State"][:1], int(status[b"SigBlk"], 16)
        pending = int(status[b"SigPnd"], 16) | int(status[b"ShdPnd"], 16)
    except (OSError, KeyError, ValueError):
        return None
    if state in b"Tt":  # a stopped process may handle the signal at any later time
        return None
    return state == b"S" and not blocked and not pending & (1 << (signal.SIGHUP - 1))


class _Log:
    """The messages of the master in the part of nginx's error log that is written after this object is created.

    They are words for people and decide nothing. A message says so if another user may have written it.

    Args:
        path: the path of the log.
        pid: the pid of the master.
    """

    def __init__(self, path: str, pid: int) -> None:
        self._path = path
        self._pid = b" %d#" % pid
        self._begin = self._position()

    def _position(self) -> tuple[int, int]:
        try:
            status = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_size)

    def messages(self) -> tuple[str, ...]:
        """The `[emerg]` messages, without control characters; one marked text if other users may write the log."""
        inode, size = self._begin
        try:
            fd = os.open(self._path, _READ)
        except OSError:
            return ()
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return ()
            begin = size if status.st_ino == inode and status.st_size >= size else 0
            # The end of the log, because the reason for a refusal is the master's last message.
            data = os.pread(fd, MAX_LOG, max(begin, status.st_size - MAX_LOG))
            writer = _other_writer(self._path, status)
        except OSError:
            return ()
        finally:
            os.close(fd)
        lines = [line for line in data.splitlines() if b" [emerg] " in line and self._pid in line]
        texts = (line.decode("utf-8", "replace").partition(" [emerg] ")[2].partition(": ")[2] for line in lines)
        messages = tuple(dict.fromkeys(_printable(text)[:500] for text in texts if text))[:10]
        if not messages or not writer:
            return messages
        return (f"nginx's log, which {writer} may write, says: {'; '.join(messages)}"[:1000],)


def _printable(text: str) -> str:
    """The text with each control character replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _other_writer(path: str, opened: os.stat_result) -> str:
    """The user or group, other than root and this user, that may write a file or replace it; empty if there is none.

    Args:
        path: the path of the file.
        opened: the status of the file that was opened by it.

    Raises:
        OSError: as for `_way`.
    """
    statuses = [opened, *(status for _, *step in _way(path) for status in step)]
    return next(filter(None, map(_writer, statuses)), "")


def _writer(status: os.stat_result) -> str:
    """The user or group, other than root and this user, that may write this file or change this directory's entries."""
    if status.st_uid not in (0, os.geteuid()):
        return _account(status.st_uid, "uid", lambda uid: pwd.getpwuid(uid).pw_name)
    if stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        return ""  # only the owner of an entry may replace it in a sticky directory
    if status.st_mode & 0o002:
        return "every user"
    return _account(status.st_gid, "gid", lambda gid: grp.getgrgid(gid).gr_name) if status.st_mode & 0o020 else ""


def _account(number: int, kind: str, name_of: Callable[[int], str]) -> str:
    """A user or a group for a message, by its name if it has one."""
    try:
        return name_of(number)
    except KeyError:
        return f"{kind} {number}"


# -- files ------------------------------------------------------------------------------------------------------------


def _way(path: str) -> Iterator[tuple[str, os.stat_result, os.stat_result]]:
    """Each directory on the way to a file, as the kernel goes it: its path, its status, and that of its next entry.

    Links are followed: the directory of each one is on the way, and so are those of its target.

    Raises:
        OSError: a part of the path is missing, or has too many links.
    """
    current, links = "/", 0
    waiting = [part for part in reversed(os.path.join(os.getcwd(), path).split("/")) if part not in ("", ".")]
    while waiting:
        name = waiting.pop()
        below = current.rpartition("/")[0] or "/" if name == ".." else os.path.join(current, name)
        entry = os.lstat(below)
        yield current, os.lstat(current), entry
        if stat.S_ISLNK(entry.st_mode):
            links += 1
            if links > 40:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(below)
            waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            below = "/" if target.startswith("/") else current
        current = below


@contextlib.contextmanager
def _opened_dir(name: str, parent: int | None, *, make: bool = False) -> Iterator[int]:
    """The descriptor of a directory, which may not be a link; with `make`, a missing directory is created."""
    is_new = False
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
            is_new = True
    fd = os.open(name, _DIR, dir_fd=parent)
    try:
        if is_new:
            os.fchmod(fd, 0o755)  # independent of the umask
        yield fd
    finally:
        os.close(fd)


def _flush_parent(path: str) -> None:
    with contextlib.suppress(PermissionError):  # a parent that this user may not read has no new entry of this user
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _read_file(name: str, parent: int | None, limit: int, *, owner: int | None = None) -> bytes:
    """The content of a regular file, which may not be a link or larger than `limit` bytes."""
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise _RequestError("not-a-file", f"{name} is not a regular file") from None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _RequestError("not-a-file", f"{name} is not a regular file")
        if owner is not None and (status.st_uid != owner or status.st_nlink != 1):
            raise _RequestError("store-unsafe", f"{name} has another owner or a second name")
        data = b""
        while len(data) <= limit and (part := os.read(fd, limit + 1 - len(data))):
            data += part
        if len(data) > limit:
            raise _RequestError("too-large", f"{name} has more than {limit} bytes")
        return data
    finally:
        os.close(fd)


def _write_new(name: str, data: bytes, parent: int, *, mode: int, gid: int = -1, mtime: int = 0) -> None:
    """Writes and flushes a new file."""
    fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        if gid >= 0:
            _give_to_group(fd, gid)
        os.fchmod(fd, mode)
        if mtime:
            os.utime(fd, ns=(mtime, mtime))
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(name: str, parent: int) -> None:
    """Removes a temporary file if it exists. If that fails, the next creation of the file reports an error."""
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=parent)


def _remove_dir(name: str, parent: int) -> None:
    """Removes a directory and its files; a failure is left for the next run."""
    with contextlib.suppress(OSError):
        with _opened_dir(name, parent) as fd:
            for entry in os.listdir(fd):
                os.unlink(entry, dir_fd=fd)
        os.rmdir(name, dir_fd=parent)


def _proc(pid: int, what: str) -> bytes:
    with open(f"/proc/{pid}/{what}", "rb") as f:
        return f.read(MAX_LOG)


def _reason(e: OSError | _RequestError) -> str:
    if isinstance(e, _RequestError):
        return e.reason
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk-full"
    if e.errno in (errno.EACCES, errno.EPERM):
        return "permission"
    return "io-error"


def _plain(e: Exception) -> str:
    """The message of an error, with the name of its file if the caller's path does not include it."""
    if isinstance(e, OSError):
        inner = isinstance(e.filename, str) and not e.filename.startswith("/")
        return f"{e.strerror or type(e).__name__}{f' ({e.filename})' if inner else ''}"
    return e.message if isinstance(e, _RequestError) else str(e)


# -- requests and answers on the wire ---------------------------------------------------------------------------------


class VersionError(ValueError):
    """A request or an answer of another version; the message names both."""


def encode(message: Request | Applied | Tested) -> bytes:
    """A request or an answer as one line of JSON, with this file's version."""
    members = {name: value for name, value in asdict(message).items() if name != "hint"}
    return json.dumps({"version": VERSION} | members).encode() + b"\n"


def parse_request(line: bytes) -> Request:
    """The request in a line of JSON.

    Raises:
        VersionError: it has another version.
        ValueError: it is anything else, also one in which a name occurs twice.
    """

    def without_duplicates(members: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(members)) != len(members):
            raise ValueError("a name occurs twice")
        return dict(members)

    raw: object = None
    with contextlib.suppress(ValueError, RecursionError):
        raw = json.loads(line, object_pairs_hook=without_duplicates)
    match raw:
        case {"version": int(version)} if version != VERSION:
            raise VersionError(f"the request has version {version}, and root's program has version {VERSION}")
        case {"version": int(), "word": str(word), "generations": dict(generations), "hup": bool(hup), **rest}:
            is_text = all(isinstance(generation, str) for generation in generations.values())
            if is_text and not rest and word in (APPLY, PREPARE, TEST):
                return Request(generations, hup, word)
    raise ValueError("not a request")


def parse_applied(line: bytes) -> Applied:
    """The answer in a line of JSON, to `APPLY` or `PREPARE`; a field that this version does not know is ignored.

    Raises:
        VersionError: it has another version.
        ValueError: it is anything else.
    """
    match raw := _parse_answer(line):
        case {
            "live": dict(live),
            "before": dict(before),
            "uncertain": bool(uncertain),
            "signalled": int(signalled),
            "decision": str(decision),
        } if _all_text(live.values()) and _all_text(before.values()):
            return Applied(live, before, raw["error"], raw["message"], uncertain, signalled, decision, raw["words"])
    raise ValueError("not an answer")


def parse_tested(line: bytes) -> Tested:
    """The answer in a line of JSON, to `TEST`; see `parse_applied`."""
    match raw := _parse_answer(line):
        case {"ok": bool(ok)}:
            return Tested(ok, raw["words"], raw["error"], raw["message"])
    raise ValueError("not an answer")


def _parse_answer(line: bytes) -> dict[str, Any]:
    """The members that every answer has, with their types checked."""
    raw: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        raw = json.loads(line)
    match raw:
        case {"version": int(version)} if version != VERSION:
            raise VersionError(f"the answer has version {version}, and this rotator has version {VERSION}")
        case {"version": int(), "error": str(), "message": str(), "words": list(words)} if _all_text(words):
            return {**raw, "words": tuple(words)}
    raise ValueError("not an answer")


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def carry_out(setup: Setup, request: Request, waiting: Callable[[], None] = lambda: None) -> Applied:
    """The answer to `APPLY` or `PREPARE` of a caller without root's rights; the number of HUPs in a time is bounded."""
    if request.word == PREPARE:
        return prepare(setup, request, waiting)
    return apply(setup, request, waiting=waiting, paced=True)


# -- the program ------------------------------------------------------------------------------------------------------


def read_setup(path: str) -> Setup:
    """The settings in rotator's configuration; ValueError for an invalid file, or one that another user can change."""
    _demand_own_way(path)
    with os.fdopen(os.open(path, _READ), "rb") as f:
        status = os.fstat(f.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            raise ValueError(f"{path}: must belong to root or uid {os.geteuid()}, and no other user may write to it")
        raw = tomllib.loads(f.read().decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    try:
        nginx = raw.get("nginx", {})
        return Setup(
            state_dir=_path(raw.get("state_dir", "/var/lib/rotator")),
            include_dir=_path(nginx.get("include_dir", "/etc/nginx/rotator")),
            pid_file=_path(nginx.get("pid_file", "/run/nginx.pid")),
            error_log=_path(log) if (log := nginx.get("error_log", "/var/log/nginx/error.log")) else "",
            sites=frozenset(site["name"] for site in raw.get("site", [])),
            key_group=str(nginx.get("key_group", "")),
            command=tuple(map(str, nginx.get("command", ["nginx"]))),
        )
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"{path}: not a valid configuration of rotator; see `rotator config check`") from None


def _demand_own_way(path: str) -> None:
    """Demands that only root and this user can change the directories on the way to a file; ValueError if not.

    A directory that others may write to counts also if it is sticky, unless its next entry is a directory of root or
    this user, which others can neither replace nor rename.

    Args:
        path: the file.
    """
    trusted = (0, os.geteuid())
    for current, directory, entry in _way(path):
        is_sticky = directory.st_mode & stat.S_ISVTX and stat.S_ISDIR(entry.st_mode) and entry.st_uid in trusted
        if directory.st_uid not in trusted or (directory.st_mode & 0o022 and not is_sticky):
            raise ValueError(f"{path}: users other than root can change its directory {current}")


def _path(raw: str) -> str:
    """A path in the same spelling as `rotator.config` gives it; TypeError for a value that is not a path."""
    path = os.path.normpath(raw)
    return "/" + path.lstrip("/") if path.startswith("/") else path


def run_test(setup: Setup) -> Tested:
    """Whether nginx accepts its whole configuration with every file that it names, by the first part of `nginx -t`.

    nginx reads everything, says that the syntax is ok, and only then opens its logs, its pid file and its ports. The
    sandbox of this program has no network and a disk that is read-only, so the part after that line shows nothing.
    """
    import subprocess  # here, because only this program needs it

    try:
        with _names_resolved():
            completed = subprocess.run(  # noqa: S603 - the command of root's own configuration
                [*setup.command, "-t"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=TEST_WITHIN,
                check=False,
                start_new_session=True,  # without a terminal
            )
    except subprocess.TimeoutExpired:
        return Tested(False, (f"nginx -t did not answer within {TEST_WITHIN:g} s",))
    except OSError as e:
        return Tested(False, (f"{setup.command[0]} cannot be run: {e.strerror}",))
    lines = completed.stderr.decode("utf-8", "replace").splitlines()
    if completed.returncode == 0 or any(line.endswith(" syntax is ok") for line in lines):
        return Tested(True)
    return Tested(False, tuple(_printable(line)[:500] for line in lines if "[emerg]" in line)[:10])


@contextlib.contextmanager
def _names_resolved() -> Iterator[None]:
    """Resolves every name to 127.0.0.1 meanwhile: nginx asks for those of its upstreams while it reads.

    rotator-nginx-test@.service has a network of its own and an empty resolv.conf, and with that the C library asks
    127.0.0.1 (resolv.conf(5)). Where that port is not available, names are resolved as usual.
    """
    import threading  # here, because only this program needs it

    ended = threading.Event()

    def answer() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError, ValueError):  # no query yet, or one that cannot be answered
                query, peer = server.recvfrom(512)
                server.sendto(address_of_any_name(query), peer)

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            server.bind(("127.0.0.1", 53))
            server.settimeout(0.1)
            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            stack.callback(thread.join)  # before the port is closed: a thread that waits would keep it
            stack.callback(ended.set)
        yield


def address_of_any_name(query: bytes) -> bytes:
    """The answer of a name server (RFC 1035, section 4) for which each name has the one address 127.0.0.1.

    Raises:
        ValueError: the query has no question.
    """
    question = query[12 : query.index(b"\0", 12) + 5]
    is_address = question[-4:] == b"\0\1\0\1"  # type A, class IN
    record = b"\xc0\x0c" + question[-4:] + bytes(4) + b"\0\4\x7f\0\0\1" if is_address else b""
    return query[:2] + b"\x81\x80\0\1\0" + bytes([is_address]) + bytes(4) + question + record


class Configuration:
    """Root's configuration file, as it is at each request; it is parsed again only if it has changed.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._parsed: tuple[tuple[int, ...], Setup] | None = None

    def setup(self) -> Setup:
        """The settings; OSError or ValueError as `read_setup`."""
        status = os.stat(self.path)
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._parsed and self._parsed[0] == identity:
            return self._parsed[1]
        setup = read_setup(self.path)
        is_settled = time.time() - status.st_ctime > SETTLED_AFTER
        self._parsed = (identity, setup) if is_settled else None
        return setup


def serve(connection: socket.socket, config: Configuration, *, test: bool = False) -> None:
    """Answers the requests of one connection until it ends, each with the configuration of that moment.

    The first line is a greeting with this file's version. It has an `error` if the peer is refused.

    Args:
        connection: an accepted Unix socket.
        config: root's configuration.
        test: answer `TEST` instead of `APPLY` and `PREPARE`.

    Raises:
        OSError: the connection has failed, or the peer was too slow.
    """
    kind = Tested if test else Applied
    try:
        _admit(connection, config)
    except _RequestError as e:
        print(f"rotator-apply: refused: {e.message}", file=sys.stderr)
        _send(connection, encode(kind(error=e.reason, message=e.message)))
        return
    _send(connection, json.dumps({"version": VERSION}).encode() + b"\n")
    try:
        for line in _lines(connection):
            _send(connection, encode(_answer(connection, config, line, test=test)))
    except _RequestError as e:
        _send(connection, encode(kind(error=e.reason, message=e.message)))


def _answer(connection: socket.socket, config: Configuration, line: bytes, *, test: bool) -> Applied | Tested:
    try:
        request = parse_request(line)
        if (request.word == TEST) != test:
            raise _RequestError("bad-request", f"{request.word!r} is not answered here")
        setup = _admit(connection, config)
        return run_test(setup) if test else carry_out(setup, request, lambda: _end_without_peer(connection))
    except VersionError as e:
        error = _RequestError("apply-version", str(e))
    except ValueError as e:
        error = _RequestError("bad-request", str(e))
    except _RequestError as e:
        error = e
    return (Tested if test else Applied)(error=error.reason, message=error.message)


def _admit(connection: socket.socket, config: Configuration) -> Setup:
    """Root's configuration of this moment, if the peer is root or the owner of the store that it names."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        setup = config.setup()
        with _opened_dir(setup.state_dir, None) as store:
            owner = os.fstat(store).st_uid
    except (OSError, ValueError) as e:
        raise _RequestError("configuration", f"root's program cannot use {config.path}: {e}") from None
    if uid not in (0, owner):
        raise _RequestError(
            "apply-denied", f"uid {uid} may not ask for the privileged step: {setup.state_dir} belongs to uid {owner}"
        )
    return setup


def _lines(connection: socket.socket) -> Iterator[bytes]:
    """Each whole line. The peer may be silent for any time between two lines, and not within one."""
    data = b""
    while True:
        end = time.monotonic() + LINE_WITHIN
        while b"\n" not in data:
            if len(data) >= MAX_REQUEST:
                raise _RequestError("bad-request", f"the request has more than {MAX_REQUEST} bytes")
            connection.settimeout(max(end - time.monotonic(), 0.001) if data else None)
            try:
                part = connection.recv(MAX_REQUEST - len(data))
            except TimeoutError:
                raise _RequestError("bad-request", f"the request was not whole after {LINE_WITHIN:g} s") from None
            if not part:
                return
            if not data:
                end = time.monotonic() + LINE_WITHIN
            data += part
        line, _, data = data.partition(b"\n")
        yield line


def _send(connection: socket.socket, line: bytes) -> None:
    connection.settimeout(LINE_WITHIN)
    connection.sendall(line)


def _end_without_peer(connection: socket.socket) -> None:
    """Ends the program if the peer has closed the connection: a wait is of no use to anyone then."""
    poll = select.poll()
    poll.register(connection, 0)
    if any(events & select.POLLHUP for _, events in poll.poll(0)):
        sys.exit(0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the connection on standard input: `apply.py --config F [--test]`. Returns 0 when it has ended."""
    parser = argparse.ArgumentParser(description="Carries out rotator's requests as root, on one connection.")
    parser.add_argument("--config", default="/etc/rotator/rotator.toml", help="rotator's configuration")
    parser.add_argument("--test", action="store_true", help="run `nginx -t` instead, and answer with its result")
    args = parser.parse_args(arguments)
    os.umask(0o022)  # each directory has its final mode at once, so that nginx can enter it even after a kill
    try:
        with socket.socket(fileno=os.dup(0)) as connection:
            serve(connection, Configuration(args.config), test=args.test)
    except OSError as e:
        print(f"rotator-apply: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
