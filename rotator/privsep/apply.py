"""The privileged step, alone: copy a stored pair beside nginx, name it in nginx's include, send one HUP, say what came.

Root runs this file by itself (`python3 -I -S apply.py`), so it uses the standard library only, imports nothing of
rotator, decides nothing about certificates, and takes from its caller nothing but names of a strict grammar. It is
the only place that writes nginx's include, makes root's copies of the pairs, or sends a signal. It answers with a
record and does not raise for what the outside world does.

As a program it finds everything in root's configuration: the request lies in the store (`request.json`), the answer is
left in `result_dir` (`result.json`), which belongs to root and is readable by the store's owner. With `--test` it runs
nginx's own test instead, which root alone can do in full (`test-request.json`, `test-result.json`).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import grp
import json
import os
import re
import signal
import stat
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

SITE = re.compile(r"(?!pairs\Z)(?!.*\.\.)(?!.*\.(?:conf)?\Z)[a-z0-9][a-z0-9._-]{0,63}\Z")
"""A site's name is that of its link, and with `.conf` of its include: no two may meet, nor meet `pairs`."""

GENERATION = re.compile(r"[0-9]{6,12}-[0-9a-f]{12}\Z")
REQUEST_ID = re.compile(r"[0-9a-f]{32}\Z")
SAFE_PATH = re.compile(r"/[A-Za-z0-9._/+@-]*\Z")
"""Paths that nginx reads as they stand: no quoting, no `$` (a variable), no `;{}` or space."""

REQUEST, RESULT = "request.json", "result.json"
TEST_REQUEST, TEST_RESULT = "test-request.json", "test-result.json"
MAX_REQUEST = 64 * 1024
MAX_ANSWER = 256 * 1024
MAX_FILE = 256 * 1024
MAX_LOG = 64 * 1024
LOOK_EVERY = 0.002
"""Seconds between two looks at the master; a refusal is told by three looks (7 ms at one server block)."""
WATCH_FOR = 10.0
"""Seconds to wait for nginx's decision after the HUP; eight times that while its master is seen to be busy."""
TEST_WITHIN = 45.0
"""Seconds for `nginx -t`: 10,000 server blocks take 14."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LAYOUTS = [(), ("ecdsa", "rsa"), ("ecdsa", "ed25519"), ("ed25519", "rsa"), ("ecdsa", "ed25519", "rsa")]
_INCLUDE_LINE = re.compile(
    r"ssl_certificate(?:_key)? +(?P<dir>/\S+)/(?P<generation>[0-9]{6,12}-[0-9a-f]{12})"
    r"/(?:(?:ecdsa|ed25519|rsa)-)?(?:fullchain|privkey)\.pem;\Z"
)
_STRAY = ".new-"
_SIGSUSPEND = {"x86_64": "130", "aarch64": "133", "riscv64": "133", "s390x": "179", "ppc64le": "178"}
"""Number of rt_sigsuspend(2), in which an idle nginx master waits (src/os/unix/ngx_process_cycle.c)."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What root configured; nothing of it comes from a request.

    Args:
        state_dir: the store.
        include_dir: where the includes and root's copies stand.
        pid_file: nginx's pid file.
        error_log: nginx's error log; empty where it cannot be read.
        sites: the names that may be asked for.
        key_group: group that may read the copied keys (0640); empty for 0600.
        watch_for: seconds to wait for nginx's decision after the HUP.
        result_dir: where the program leaves its answers.
        command: how nginx is called, for its own test.
    """

    state_dir: str
    include_dir: str
    pid_file: str
    error_log: str
    sites: frozenset[str]
    key_group: str = ""
    watch_for: float = WATCH_FOR
    result_dir: str = ""
    command: tuple[str, ...] = ("nginx",)


@dataclass(frozen=True, slots=True)
class Request:
    """Which generation each site shall have, and whether nginx is to be told.

    Args:
        id: 32 random hex digits, repeated in the answer.
        generations: generation by site.
        hup: False only on the way back after a reload that nginx refused, and where nginx is not running.
    """

    id: str
    generations: Mapping[str, str]
    hup: bool = True


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done.

    Args:
        id: the request's.
        live: generation that each asked site's include names now, read back from the disk; empty if none.
        before: the same, before.
        error: a kebab-case word if something failed; empty if not.
        message: what failed, in words.
        uncertain: an include was renamed but something failed afterwards: committed, durability unknown.
        signalled: pid of the master that got the HUP; 0 if none.
        decision: `accepted`, `refused`, `unknown` (no evidence in time), `gone` (the master ended) or empty (no HUP).
        words: what nginx wrote about it, `[emerg]` lines of its master.
    """

    id: str
    live: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    message: str = ""
    uncertain: bool = False
    signalled: int = 0
    decision: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tested:
    """What `nginx -t` said.

    Args:
        id: the request's.
        ok: whether it accepts its whole configuration.
        words: its `[emerg]` lines.
    """

    id: str
    ok: bool
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Live:
    """What a site's include names: a generation, or nothing, or a problem with the file as it stands."""

    generation: str = ""
    problem: str = ""


class _RequestError(Exception):
    """A request that is not carried out: a word and a sentence."""

    def __init__(self, word: str, sentence: str) -> None:
        super().__init__(sentence)
        self.word = word
        self.sentence = sentence


# -- the include: rendered and read here only -------------------------------------------------------------------------


def include_path(include_dir: str, site: str) -> str:
    """The file that nginx is told to include for a site."""
    return f"{include_dir}/{site}.conf"


def copies_path(include_dir: str, site: str, generation: str) -> str:
    """Where root's copy of a generation stands: the paths that nginx's own messages name."""
    return f"{include_dir}/pairs/{site}/{generation}"


def pair_files(kinds: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """File names (chain, key) of a generation that holds these kinds of key side by side; `()` for the usual one."""
    if not kinds:
        return (("fullchain.pem", "privkey.pem"),)
    return tuple((f"{kind}-fullchain.pem", f"{kind}-privkey.pem") for kind in kinds)


def render_include(include_dir: str, site: str, generation: str, files: tuple[tuple[str, str], ...]) -> bytes:
    """The whole text of a site's include: the absolute paths of one generation's pairs and a comment, nothing else."""
    where = copies_path(include_dir, site, generation)
    lines = ["# Written by rotator; it replaces this file whole. Change nothing here: see `rotator status`."]
    for chain, key in files:
        lines += [f"ssl_certificate     {where}/{chain};", f"ssl_certificate_key {where}/{key};"]
    return ("\n".join(lines) + "\n").encode()


def read_live(include_dir: str, site: str) -> Live:
    """The generation that a site's include names now. Never raises."""
    try:
        return Live(_named(include_dir, site))
    except (OSError, _RequestError) as e:
        return Live(problem=f"{include_path(include_dir, site)} cannot be read: {_plain(e)}")
    except ValueError as e:
        return Live(problem=str(e))


def _named(include_dir: str, site: str) -> str:
    """The same; ValueError for a file that is not as rotator writes it."""
    path = include_path(include_dir, site)
    try:
        text = _read_file(path, None, MAX_FILE).decode("ascii", "replace")
    except FileNotFoundError:
        return ""
    named = set()
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip(" \t\r")
        if not words or words.startswith("#"):
            continue
        found = _INCLUDE_LINE.match(words)
        if not found or found["dir"] != f"{include_dir}/pairs/{site}":
            raise ValueError(f"{path}:{number} is not a line that rotator writes")
        named.add(found["generation"])
    if len(named) != 1:
        raise ValueError(f"{path} names {len(named)} generations instead of one")
    return named.pop()


# -- the step ---------------------------------------------------------------------------------------------------------


def apply(
    setup: Setup,
    request: Request,
    hup: Callable[[Setup], tuple[int, str, tuple[str, ...]]] | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> Applied:
    """Makes the includes name the asked generations, then sends nginx one HUP.

    All copies are complete and flushed before the first include changes; each include changes by one rename (the
    commit). Run under the host's rotation lock.

    Args:
        setup: root's configuration.
        request: what is wanted.
        hup: sends the signal and waits for the decision: (pid, decision, nginx's words); for a simulated nginx.
        waiting: called at each look while nginx's decision is waited for.

    Returns:
        What was done; `error` tells of a failure, `live` what stands on the disk in every case.
    """
    before: dict[str, str] = {}
    named: dict[str, str] = {}
    error = message = ""
    uncertain = False
    try:
        _check(setup, request)
        before = dict.fromkeys(request.generations, "")
        for site in before:
            before[site] = _named_before(setup, site)
        with _include_dir(setup.include_dir) as top:
            uncertain = _install(setup, request, before, named, top)
    except _RequestError as e:
        error, message = e.word, e.sentence
    except OSError as e:
        error, message, uncertain = _word(e), f"{setup.include_dir}: {_plain(e)}", bool(named)
    live = {}
    for site, was in before.items():
        found = read_live(setup.include_dir, site)
        live[site] = named.get(site, was) if found.problem else found.generation
    if error or not request.hup:
        return Applied(request.id, live, before, error, message, uncertain)
    try:
        pid, decision, words = hup(setup) if hup else hup_master(setup, waiting)
    except _RequestError as e:
        return Applied(request.id, live, before, e.word, e.sentence, uncertain)
    except OSError as e:
        return Applied(request.id, live, before, _word(e), f"nginx could not be told: {_plain(e)}", uncertain)
    return Applied(request.id, live, before, "", "", uncertain, pid, decision, words)


def _check(setup: Setup, request: Request) -> None:
    if not REQUEST_ID.match(request.id):
        raise _RequestError("bad-request", "the request has no proper id")
    if not request.generations:
        raise _RequestError("bad-request", "the request names no site")
    for path in (setup.state_dir, setup.include_dir):
        if not SAFE_PATH.match(path):
            raise _RequestError(
                "configuration", f"{path}: a path for nginx is absolute and holds only A-Z a-z 0-9 . _ / + @ -"
            )
    for site, generation in request.generations.items():
        if not SITE.match(site) or site not in setup.sites:
            raise _RequestError("bad-request", f"site {site[:64]!r} is not configured")
        if not GENERATION.match(generation):
            raise _RequestError("bad-request", f"{generation[:64]!r} is not the name of a generation")


@contextlib.contextmanager
def _include_dir(path: str) -> Iterator[int]:
    """Opens (makes, if only it is missing) the include directory; refuses one that others could write."""
    with _opened_dir(path, None, make=True) as fd:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise _RequestError(
                "include-dir-unsafe",
                f"{path} belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}; "
                f"what nginx includes must belong to uid {os.geteuid()} and be writable by nobody else",
            )
        _flush_parent(path)
        yield fd


def _install(setup: Setup, request: Request, before: Mapping[str, str], named: dict[str, str], top: int) -> bool:
    """Copies, renders, commits; notes in `named` what is committed. Returns whether its durability is uncertain.

    Each directory is flushed once it is sure to have its entry, also where that was there already: a run that made it
    may have been killed before it could flush.
    """
    gid = _gid(setup.key_group)
    with contextlib.ExitStack() as stack:
        pairs = stack.enter_context(_opened_dir("pairs", top, make=True))
        os.fsync(top)
        for site, generation in request.generations.items():
            with _opened_dir(site, pairs, make=True) as own:
                os.fsync(pairs)
                files = _copy_generation(setup, site, generation, gid, own)
            for new in (f".{site}.conf.new", f".{site}.link.new"):
                _remove(new, top)
                stack.callback(_remove, new, top)
            _write_new(f".{site}.conf.new", render_include(setup.include_dir, site, generation, files), top, mode=0o644)
            os.symlink(f"pairs/{site}/{generation}", f".{site}.link.new", dir_fd=top)
        for site, generation in request.generations.items():
            os.rename(f".{site}.conf.new", f"{site}.conf", src_dir_fd=top, dst_dir_fd=top)  # the commit
            named[site] = generation
        for site in request.generations:
            os.rename(f".{site}.link.new", site, src_dir_fd=top, dst_dir_fd=top)
        try:
            os.fsync(top)
        except OSError:
            return True
        for site, generation in request.generations.items():
            _prune_copies(site, {generation, before[site]}, pairs)
    return False


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise _RequestError("configuration", f"key_group: there is no group {group!r} on this host") from None


def _named_before(setup: Setup, site: str) -> str:
    """The generation that the include names; refuses an include and a link that are not ours to replace."""
    link = f"{setup.include_dir}/{site}"
    try:
        generation = _named(setup.include_dir, site)
        if os.path.lexists(link) and not os.path.islink(link):
            raise ValueError(f"{link} is no link of rotator's")
    except (_RequestError, ValueError) as e:
        raise _RequestError("include-foreign", f"{e}; move it away if rotator is to manage it") from None
    return generation


def _copy_generation(setup: Setup, site: str, generation: str, gid: int, own: int) -> tuple[tuple[str, str], ...]:
    """Makes (or finds, byte-equal) root's copy of one generation, durably. Returns its (chain, key) file names."""
    files, contents, mtime = _read_generation(setup, site, generation)
    if strays := [name for name in os.listdir(own) if name.startswith(_STRAY)]:
        os.fsync(own)  # one may be a copy that has lost its name in a run that was killed before it could flush that
        for stray in strays:
            _remove_dir(stray, own)
    try:
        with _opened_dir(generation, own) as there:
            if {name: _read_file(name, there, MAX_FILE) for name in os.listdir(there)} != contents:
                raise _RequestError(
                    "copy-differs",
                    f"{copies_path(setup.include_dir, site, generation)} differs from the stored generation; "
                    "remove it if nginx does not name it",
                )
            for _, key in files:
                _admit(key, there, gid)
    except FileNotFoundError:
        with contextlib.ExitStack() as undo:
            undo.callback(_remove_dir, _STRAY + generation, own)
            with _opened_dir(_STRAY + generation, own, make=True) as there:
                for chain, key in files:
                    _write_new(chain, contents[chain], there, mode=0o644, mtime=mtime)
                    _write_new(key, contents[key], there, mode=_key_mode(gid), gid=gid, mtime=mtime)
                os.fsync(there)
            os.rename(_STRAY + generation, generation, src_dir_fd=own, dst_dir_fd=own)
            undo.pop_all()
    os.fsync(own)
    return files


def _key_mode(gid: int) -> int:
    return 0o600 if gid < 0 else 0o640


def _admit(key: str, parent: int, gid: int) -> None:
    """Lets those read a copied key who may now: `key_group` may have been another one when it was copied."""
    fd = os.open(key, _READ, dir_fd=parent)
    try:
        found = os.fstat(fd)
        if gid >= 0 and found.st_gid != gid:
            os.fchown(fd, -1, gid)
        if stat.S_IMODE(found.st_mode) != _key_mode(gid):
            os.fchmod(fd, _key_mode(gid))
    finally:
        os.close(fd)


def _read_generation(
    setup: Setup, site: str, generation: str
) -> tuple[tuple[tuple[str, str], ...], dict[str, bytes], int]:
    """Reads one generation below the store, trusting nothing in it: (file names, contents by name, mtime in ns)."""
    where = f"{setup.state_dir}/sites/{site}/generations/{generation}"
    try:
        with contextlib.ExitStack() as stack:
            at = os.open(setup.state_dir, _DIR)
            stack.callback(os.close, at)
            owner = os.fstat(at).st_uid
            for part in ("sites", site, "generations", generation):
                at = os.open(part, _DIR, dir_fd=at)
                stack.callback(os.close, at)
                if os.fstat(at).st_uid != owner:
                    raise _RequestError("store-unsafe", f"{part} does not belong to the store's owner, uid {owner}")
            names = {name for name in os.listdir(at) if name.endswith(".pem")}
            layouts = [pair_files(kinds) for kinds in _LAYOUTS]
            files = next((f for f in layouts if names == {name for pair in f for name in pair}), None)
            if files is None:
                raise _RequestError("store-unsafe", "these are not the files of a generation")
            contents = {name: _read_file(name, at, MAX_FILE, owner=owner) for name in sorted(names)}
            mtime = max(os.stat(name, dir_fd=at, follow_symlinks=False).st_mtime_ns for name in names)
        for chain, _ in files:
            if b"PRIVATE KEY" in contents[chain] or not contents[chain].startswith(b"-----BEGIN CERTIFICATE-----\n"):
                raise _RequestError("store-unsafe", f"{chain} holds something else than certificates")
    except (OSError, _RequestError) as e:
        raise _RequestError(_word(e), f"{where}: {_plain(e)}") from e
    return files, contents, mtime


def _prune_copies(site: str, keep: set[str], pairs: int) -> None:
    """Removes copies that no include named just before or names now; failures are left for the next time."""
    if len(keep - {""}) < 2:
        return
    with contextlib.suppress(OSError), _opened_dir(site, pairs) as own:
        gone = [name for name in os.listdir(own) if GENERATION.match(name) and name not in keep]
        for name in gone:  # out of their names first: what has a name is whole
            os.rename(name, _STRAY + name, src_dir_fd=own, dst_dir_fd=own)
        if gone:
            os.fsync(own)
        for name in gone:
            _remove_dir(_STRAY + name, own)


# -- the signal, and what came of it ----------------------------------------------------------------------------------


def hup_master(setup: Setup, waiting: Callable[[], None] = lambda: None) -> tuple[int, str, tuple[str, ...]]:
    """Sends the master that the pid file names one HUP and waits for its decision, at most `setup.watch_for` seconds.

    Args:
        setup: root's configuration.
        waiting: called at each look at the master.

    Returns:
        (pid, decision, nginx's words); pid 0 and decision `gone` where no master runs.
    """
    pid = master_pid(setup.pid_file)
    if not pid:
        return 0, "gone", ()
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0, "gone", ()
    try:
        if not is_master(pid):
            return 0, "gone", ()
        log = _Log(setup.error_log, pid)
        children = read_children(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
        except ProcessLookupError:
            return 0, "gone", ()
        except PermissionError as e:
            raise _RequestError(
                "signal-permission",
                f"no permission to signal nginx's master {pid}; run rotator as the user of that process",
            ) from e
        decision = _watch(pid, children, log, setup.watch_for, waiting)
        return pid, decision, log.words()
    finally:
        os.close(process)


def master_pid(pid_file: str) -> int:
    """The pid that nginx's pid file names; 0 if there is none (`nginx -t` as root leaves an empty one)."""
    try:
        text = _read_file(pid_file, None, 64).decode("ascii").strip()
    except (OSError, ValueError, _RequestError):
        return 0
    return int(text) if text.isdigit() and 0 < int(text) < 2**31 else 0


def is_master(pid: int) -> bool:
    """Whether that process shows itself as an nginx master, so that no stale pid file makes us signal another."""
    try:
        return _proc(pid, "cmdline").startswith(b"nginx: master process")
    except OSError:
        return False


def read_children(pid: int) -> frozenset[int]:
    """Pids of a process's children. One read may miss some while a sibling exits, so two equal ones are asked for."""
    last: frozenset[int] | None = None
    union: frozenset[int] = frozenset()
    for _ in range(5):
        try:
            now = frozenset(int(word) for word in _proc(pid, f"task/{pid}/children").split())
        except OSError:
            return union
        if now == last:
            return now
        last, union = now, union | now
    return union


def _watch(pid: int, before: frozenset[int], log: _Log, within: float, waiting: Callable[[], None]) -> str:
    """Accepted: a new child of the master. Refused: three looks at an idle master without one, or its final word."""
    end = time.monotonic() + within
    patience = time.monotonic() + 8 * within
    idle_looks = 0
    while True:
        idle = _is_idle(pid)
        if read_children(pid) - before:
            return "accepted"
        if not is_master(pid):
            return "gone"
        idle_looks = idle_looks + 1 if idle else 0
        if idle_looks >= 3 and before:  # a master whose children cannot be seen at all tells nothing by having no new
            return "refused"
        if (not before or idle is None) and log.refused():  # then its words have to do
            return "refused"
        now = time.monotonic()
        if now > patience or (now > end and idle is not False):
            return "unknown"
        waiting()
        time.sleep(LOOK_EVERY)


def _is_idle(pid: int) -> bool | None:
    """Whether the master waits for signals with no HUP pending; None where it is stopped or that cannot be read."""
    number = _SIGSUSPEND.get(os.uname().machine)
    if number is None:
        return None
    try:
        if _proc(pid, "syscall").split()[:1] != [number.encode()]:
            return False
        status = dict(line.split(b":\t") for line in _proc(pid, "status").splitlines() if line.count(b":\t") == 1)
        pending = int(status[b"SigPnd"], 16) | int(status[b"ShdPnd"], 16)
        state = status[b"State"][:1]
    except (OSError, KeyError, ValueError):
        return None
    if state in b"Tt":  # it may have the signal in hand, and nobody knows for how long
        return None
    return state == b"S" and not pending & (1 << (signal.SIGHUP - 1))


class _Log:
    """The part of nginx's error log that is written after this was made, and of it what the master itself said."""

    def __init__(self, path: str, pid: int) -> None:
        self._path = path
        self._pid = b" %d#" % pid
        self._begin = self._where()

    def _where(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return (0, 0)
        return (found.st_ino, found.st_size)

    def words(self) -> tuple[str, ...]:
        inode, size = self._begin
        try:
            fd = os.open(self._path, _READ)
        except OSError:
            return ()
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return ()
            begin = size if found.st_ino == inode and found.st_size >= size else 0
            # The end of it, as the reason for a refusal is the last that the master says, however much others say.
            data = os.pread(fd, MAX_LOG, max(begin, found.st_size - MAX_LOG))
        except OSError:
            return ()
        finally:
            os.close(fd)
        lines = [line for line in data.splitlines() if b" [emerg] " in line and self._pid in line]
        told = (line.decode("utf-8", "replace").partition(" [emerg] ")[2].partition(": ")[2] for line in lines)
        return tuple(dict.fromkeys(line[:500] for line in told if line))[:10]

    def refused(self) -> bool:
        """Whether the last word stands there; nginx tries a busy port five times before it gives up (2.5 s)."""
        words = self.words()
        return bool(words) and (
            not all("bind() to" in word for word in words) or any("still could not bind" in word for word in words)
        )


# -- files ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened_dir(name: str, parent: int | None, *, make: bool = False) -> Iterator[int]:
    """Opens a directory, following no link; with `make`, makes it if it is missing."""
    made = False
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
            made = True
    fd = os.open(name, _DIR, dir_fd=parent)
    try:
        if made:
            os.fchmod(fd, 0o755)  # whatever the umask is
        yield fd
    finally:
        os.close(fd)


def _flush_parent(path: str) -> None:
    with contextlib.suppress(PermissionError):  # where we may not look, we have made nothing
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _read_file(name: str, parent: int | None, limit: int, *, owner: int | None = None) -> bytes:
    """Reads a regular file without following a link, at most `limit` bytes of it."""
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise _RequestError("not-a-file", f"{name} is not a regular file") from None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _RequestError("not-a-file", f"{name} is not a regular file")
        if owner is not None and (found.st_uid != owner or found.st_nlink != 1):
            raise _RequestError("store-unsafe", f"{name} has another owner or another name besides this one")
        data = b""
        while len(data) <= limit and (part := os.read(fd, limit + 1 - len(data))):
            data += part
        if len(data) > limit:
            raise _RequestError("too-large", f"{name} holds more than {limit} bytes")
        return data
    finally:
        os.close(fd)


def _write_new(name: str, data: bytes, parent: int, *, mode: int, gid: int = -1, mtime: int = 0) -> None:
    """Writes and flushes a file that does not exist yet."""
    fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        if gid >= 0:
            os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
        if mtime:
            os.utime(fd, ns=(mtime, mtime))
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(name: str, parent: int) -> None:
    """Removes a temporary file, if there is one; one that stays is in the way of the next, and told then."""
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=parent)


def _remove_dir(name: str, parent: int) -> None:
    """Removes a directory and its files; what cannot be removed is removed the next time."""
    with contextlib.suppress(OSError):
        with _opened_dir(name, parent) as there:
            for inner in os.listdir(there):
                os.unlink(inner, dir_fd=there)
        os.rmdir(name, dir_fd=parent)


def _proc(pid: int, what: str) -> bytes:
    with open(f"/proc/{pid}/{what}", "rb") as f:
        return f.read(MAX_LOG)


def _word(e: OSError | _RequestError) -> str:
    if isinstance(e, _RequestError):
        return e.word
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk-full"
    if e.errno in (errno.EACCES, errno.EPERM):
        return "permission"
    return "io-error"


def _plain(e: Exception) -> str:
    """An error without the bytes it may carry; with the file's name where that is not said already."""
    if isinstance(e, OSError):
        inner = isinstance(e.filename, str) and not e.filename.startswith("/")
        return f"{e.strerror or type(e).__name__}{f' ({e.filename})' if inner else ''}"
    return e.sentence if isinstance(e, _RequestError) else str(e)


# -- as a program: root's oneshots ------------------------------------------------------------------------------------


def parse_request(data: bytes) -> Request:
    """A request from its JSON; ValueError for anything else, a name that stands there twice included."""

    def once(members: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(members)) != len(members):
            raise ValueError("a name stands there twice")
        return dict(members)

    with contextlib.suppress(ValueError, RecursionError):
        match json.loads(data, object_pairs_hook=once):
            case {"id": str(id_), "generations": dict(generations), "hup": bool(hup), **rest} if not rest:
                if all(isinstance(generation, str) for generation in generations.values()):
                    return Request(id_, generations, hup)
    raise ValueError("not a request")


def parse_applied(data: bytes) -> Applied:
    """An answer from its JSON; ValueError for anything else."""
    try:
        raw = json.loads(data)
        return Applied(**raw | {"words": tuple(raw["words"])})
    except (TypeError, KeyError, RecursionError):
        raise ValueError("not an answer") from None


def parse_tested(data: bytes) -> Tested:
    """What a test said, from its JSON; ValueError for anything else."""
    try:
        raw = json.loads(data)
        return Tested(**raw | {"words": tuple(raw["words"])})
    except (TypeError, KeyError, RecursionError):
        raise ValueError("not an answer") from None


def read_setup(path: str) -> Setup:
    """Root's configuration, from the same file as rotator's; one that others can write is refused (ValueError)."""
    with os.fdopen(os.open(path, _READ), "rb") as f:
        found = os.fstat(f.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ValueError(f"{path}: must belong to uid {os.geteuid()} and be writable by nobody else")
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
            result_dir=_path(nginx.get("result_dir", "/run/rotator-apply")),
            command=tuple(map(str, nginx.get("command", ["nginx"]))),
        )
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"{path}: not a configuration of rotator's; see `rotator config check`") from None


def _path(raw: str) -> str:
    """A path in the one spelling that rotator's own reader gives it; TypeError for what is none."""
    path = os.path.normpath(raw)
    return "/" + path.lstrip("/") if path.startswith("/") else path


def read_request(setup: Setup, name: str) -> Request:
    """Reads a request in the store once: a regular file of the store's owner, no link, at most 64 KiB.

    Raises:
        ValueError: for anything but a request.
    """
    try:
        with _opened_dir(setup.state_dir, None) as store:
            return parse_request(_read_file(name, store, MAX_REQUEST, owner=os.fstat(store).st_uid))
    except (OSError, _RequestError, ValueError) as e:
        raise ValueError(f"{setup.state_dir}/{name}: {_plain(e)}") from None


def run_test(setup: Setup, request: Request) -> Tested:
    """`nginx -t` of its whole configuration, as a cold start would read it."""
    import subprocess  # here: it costs the usual step, which has no need of it, a fifth of its time

    try:
        done = subprocess.run(  # noqa: S603 - the command of root's own configuration
            [*setup.command, "-t"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TEST_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return Tested(request.id, False, (f"nginx -t did not answer within {TEST_WITHIN:g} s",))
    except OSError as e:
        return Tested(request.id, False, (f"{setup.command[0]} cannot be run: {e.strerror}",))
    emerg = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "[emerg]" in line]
    return Tested(request.id, done.returncode == 0, tuple(line[:500] for line in emerg[:10]))


def carry_out(setup: Setup, *, test: bool = False) -> bool:
    """Reads the request, does what it asks for, and leaves the answer.

    A request that was answered already is not carried out again: root may start the unit by hand, long after.

    Args:
        setup: root's configuration.
        test: run nginx's own test instead of the step.

    Returns:
        Whether there was anything to do.

    Raises:
        ValueError: the request is none, or the answer's directory is not safe.
        OSError: the answer could not be left.
    """
    asked, told = (TEST_REQUEST, TEST_RESULT) if test else (REQUEST, RESULT)
    with _opened_dir(setup.result_dir, None) as results:
        found = os.fstat(results)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ValueError(f"{setup.result_dir}: must belong to uid {os.geteuid()} and be writable by nobody else")
        request = read_request(setup, asked)
        with contextlib.suppress(OSError, ValueError, AttributeError, _RequestError):
            if json.loads(_read_file(told, results, MAX_ANSWER)).get("id") == request.id:
                return False
        answer = run_test(setup, request) if test else apply(setup, request)
        _remove(f".{told}.new", results)
        _write_new(f".{told}.new", json.dumps(asdict(answer)).encode(), results, mode=0o640, gid=found.st_gid)
        os.rename(f".{told}.new", told, src_dir_fd=results, dst_dir_fd=results)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries out one request: `apply.py --config F [--test]`. Exit 0 if it is answered."""
    parser = argparse.ArgumentParser(description="Carries out one request of rotator's as root.")
    parser.add_argument("--config", default="/etc/rotator/rotator.toml")
    parser.add_argument("--test", action="store_true", help="run `nginx -t` instead, and leave what it says")
    args = parser.parse_args(arguments)
    os.umask(0o022)  # a directory has its final mode from the first moment: no kill leaves one that nginx cannot pass
    try:
        if not carry_out(read_setup(args.config), test=args.test):
            print("rotator-apply: that request was answered already; nothing was done")
    except (ValueError, OSError) as e:
        print(f"rotator-apply: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
