"""The privileged step: copies a stored pair for nginx, names it in nginx's include, and sends nginx one HUP.

Root runs this file alone (`python3 -I -S apply.py`). So it uses only the standard library, imports no other module of
rotator, decides nothing about certificates, and accepts from its caller only names of a strict grammar. Only this file
writes nginx's includes, makes root's copies of the pairs, and signals nginx. It answers with a record, and an error of
the system is a part of the answer.

As a program, it takes all settings from root's configuration. The request is a file of the store (`request.json`). The
answer is a file in `result_dir` (`result.json`), which belongs to root and which the store's owner may read. With
`--test` it runs `nginx -t` instead, which needs root to read every file (`test-request.json`, `test-result.json`).
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
"""The name of a site. It is the name of its link, and with `.conf` of its include, so neither may be `pairs` or equal
another one."""

GENERATION = re.compile(r"[0-9]{6,12}-[0-9a-f]{12}\Z")
REQUEST_ID = re.compile(r"[0-9a-f]{32}\Z")
SAFE_PATH = re.compile(r"/[A-Za-z0-9._/+@-]*\Z")
"""A path that nginx reads literally: without quotes, `$` (a variable), `;`, braces or spaces."""

REQUEST, RESULT = "request.json", "result.json"
TEST_REQUEST, TEST_RESULT = "test-request.json", "test-result.json"
MAX_REQUEST = 64 * 1024
MAX_ANSWER = 256 * 1024
MAX_FILE = 256 * 1024
MAX_LOG = 64 * 1024
LOOK_EVERY = 0.002
"""The seconds between two looks at the master. Three looks show a refusal (7 ms with one server block)."""
WATCH_FOR = 10.0
"""The seconds to wait for nginx's decision after the HUP; eight times as long while its master is seen to be busy."""
TEST_WITHIN = 45.0
"""The seconds that `nginx -t` may take: 10,000 server blocks take 14."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LAYOUTS = [(), ("ecdsa", "rsa"), ("ecdsa", "ed25519"), ("ed25519", "rsa"), ("ecdsa", "ed25519", "rsa")]
_INCLUDE_LINE = re.compile(
    r"ssl_certificate(?:_key)? +(?P<dir>/\S+)/(?P<generation>[0-9]{6,12}-[0-9a-f]{12})"
    r"/(?:(?:ecdsa|ed25519|rsa)-)?(?:fullchain|privkey)\.pem;\Z"
)
_UNFINISHED = ".new-"
"""The prefix of a copy that is not complete, or that is being removed."""
_SIGSUSPEND = {"x86_64": "130", "aarch64": "133", "riscv64": "133", "s390x": "179", "ppc64le": "178"}
"""The number of rt_sigsuspend(2), in which an idle nginx master waits (src/os/unix/ngx_process_cycle.c)."""


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
        result_dir: the directory of the program's answers.
        command: the nginx program and its arguments, for `nginx -t`.
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
    """The generation that each site is to have, and whether nginx is to reload.

    Args:
        id: 32 random hexadecimal digits, which the answer repeats.
        generations: the generation by site.
        hup: False only to go back after a reload that nginx refused, and if nginx is not running.
    """

    id: str
    generations: Mapping[str, str]
    hup: bool = True


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to a request.

    Args:
        id: the id of the request.
        live: the generation that the include of each site names now, read from the disk; empty if none.
        before: the generation that it named before.
        error: the kebab-case reason if something failed; empty if not.
        message: the same as a sentence.
        uncertain: whether something failed after an include was renamed: committed, but maybe not on the disk.
        signalled: the pid of the master that got the HUP; 0 if none.
        decision: `accepted`, `refused`, `unknown` (no evidence in time), `gone` (the master ended) or empty (no HUP).
        words: the `[emerg]` messages that nginx's master wrote about it.
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
    """The answer to a request for `nginx -t`.

    Args:
        id: the id of the request.
        ok: whether nginx accepts its whole configuration.
        words: its `[emerg]` messages.
    """

    id: str
    ok: bool
    words: tuple[str, ...] = ()


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
) -> Applied:
    """Makes the includes name the requested generations, then sends nginx one HUP.

    All copies are complete and flushed before the first include changes. Each include changes by one rename (the
    commit). The caller holds the host's rotation lock.

    Args:
        setup: root's configuration.
        request: the request.
        hup: sends the signal and waits for the decision: (pid, decision, messages); replaced for a simulated nginx.
        waiting: called at each look during the wait for nginx's decision.

    Returns:
        The answer; `error` has the reason of a failure, and `live` always has the state of the disk.
    """
    before: dict[str, str] = {}
    committed: dict[str, str] = {}
    error = message = ""
    uncertain = False
    try:
        _check(setup, request)
        before = dict.fromkeys(request.generations, "")
        for site in before:
            before[site] = _named_before(setup, site)
        with _include_dir(setup.include_dir) as include_fd:
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
        return Applied(request.id, live, before, error, message, uncertain)
    try:
        pid, decision, messages = hup(setup) if hup else hup_master(setup, waiting)
    except _RequestError as e:
        return Applied(request.id, live, before, e.reason, e.message, uncertain)
    except OSError as e:
        return Applied(request.id, live, before, _reason(e), f"nginx could not be signalled: {_plain(e)}", uncertain)
    return Applied(request.id, live, before, "", "", uncertain, pid, decision, messages)


def _check(setup: Setup, request: Request) -> None:
    if not REQUEST_ID.match(request.id):
        raise _RequestError("bad-request", "the request has no valid id")
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


def _install(
    setup: Setup, request: Request, before: Mapping[str, str], committed: dict[str, str], include_fd: int
) -> bool:
    """Copies, renders and commits. Returns whether the durability of the commit is uncertain.

    Each directory is flushed once it has its entry, even an entry that existed before: the run that created it may
    have been killed before it could flush.

    Args:
        setup: root's configuration.
        request: the request.
        before: the generation that each include named before.
        committed: gets the generation of each site whose include is renamed.
        include_fd: the descriptor of the include directory.
    """
    gid = _gid(setup.key_group)
    with contextlib.ExitStack() as stack:
        pairs_fd = stack.enter_context(_opened_dir("pairs", include_fd, make=True))
        os.fsync(include_fd)
        for site, generation in request.generations.items():
            with _opened_dir(site, pairs_fd, make=True) as copies_fd:
                os.fsync(pairs_fd)
                files = _copy_generation(setup, site, generation, gid, copies_fd)
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
            os.fchown(fd, -1, gid)
        if stat.S_IMODE(status.st_mode) != _key_mode(gid):
            os.fchmod(fd, _key_mode(gid))
    finally:
        os.close(fd)


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
            names = {name for name in os.listdir(fd) if name.endswith(".pem")}
            layouts = [pair_files(kinds) for kinds in _LAYOUTS]
            files = next((f for f in layouts if names == {name for pair in f for name in pair}), None)
            if files is None:
                raise _RequestError("store-unsafe", "these are not the files of a generation")
            contents = {name: _read_file(name, fd, MAX_FILE, owner=owner) for name in sorted(names)}
            mtime = max(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime_ns for name in names)
        for chain, _ in files:
            if b"PRIVATE KEY" in contents[chain] or not contents[chain].startswith(b"-----BEGIN CERTIFICATE-----\n"):
                raise _RequestError("store-unsafe", f"{chain} holds something other than certificates")
    except (OSError, _RequestError) as e:
        raise _RequestError(_reason(e), f"{path}: {_plain(e)}") from e
    return files, contents, mtime


def _prune_copies(site: str, keep: set[str], pairs_fd: int) -> None:
    """Removes a site's old copies; a failure is left for the next run.

    Args:
        site: the site.
        keep: the generations to keep: the one that the include names now, and the one that it named before.
        pairs_fd: the descriptor of the directory of all copies.
    """
    if len(keep - {""}) < 2:
        return
    with contextlib.suppress(OSError), _opened_dir(site, pairs_fd) as copies_fd:
        obsolete = [name for name in os.listdir(copies_fd) if GENERATION.match(name) and name not in keep]
        for name in obsolete:  # renamed first, because a directory with the name of a generation must be complete
            os.rename(name, _UNFINISHED + name, src_dir_fd=copies_fd, dst_dir_fd=copies_fd)
        if obsolete:
            os.fsync(copies_fd)
        for name in obsolete:
            _remove_dir(_UNFINISHED + name, copies_fd)


# -- the signal and nginx's decision ----------------------------------------------------------------------------------


def hup_master(setup: Setup, waiting: Callable[[], None] = lambda: None) -> tuple[int, str, tuple[str, ...]]:
    """Sends one HUP to the master of the pid file and waits for its decision, for about `setup.watch_for` seconds.

    Args:
        setup: root's configuration.
        waiting: called at each look at the master.

    Returns:
        (pid, decision, nginx's messages); pid 0 and decision `gone` if no master is running.
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
                f"this user may not signal nginx's master, pid {pid}; run rotator as the user of that process",
            ) from e
        decision = _watch(pid, children, log, setup.watch_for, waiting)
        return pid, decision, log.messages()
    finally:
        os.close(process)


def master_pid(pid_file: str) -> int:
    """The pid in nginx's pid file; 0 if there is none (`nginx -t` as root leaves an empty file)."""
    try:
        text = _read_file(pid_file, None, 64).decode("ascii").strip()
    except (OSError, ValueError, _RequestError):
        return 0
    return int(text) if text.isdigit() and 0 < int(text) < 2**31 else 0


def is_master(pid: int) -> bool:
    """Whether a process has the title of an nginx master, so that a stale pid file causes no signal to another one."""
    try:
        return _proc(pid, "cmdline").startswith(b"nginx: master process")
    except OSError:
        return False


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


def _watch(pid: int, before: frozenset[int], log: _Log, within: float, waiting: Callable[[], None]) -> str:
    """The decision of the master.

    A new child means `accepted`. Three looks at an idle master without a new child, or its last message, mean
    `refused`.

    Args:
        pid: the pid of the master.
        before: its children before the signal.
        log: its messages since the signal.
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
        if (not before or idle is None) and log.refused():  # the log is the only evidence then
            return "refused"
        now = time.monotonic()
        if now > busy_end or (now > end and idle is not False):
            return "unknown"
        waiting()
        time.sleep(LOOK_EVERY)


def _is_idle(pid: int) -> bool | None:
    """Whether the master waits for signals and has no HUP pending; None if it is stopped, or if that is invisible."""
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
    if state in b"Tt":  # a stopped process may handle the signal at any later time
        return None
    return state == b"S" and not pending & (1 << (signal.SIGHUP - 1))


class _Log:
    """The messages of the master in the part of nginx's error log that is written after this object is created.

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
        """The `[emerg]` messages."""
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
        except OSError:
            return ()
        finally:
            os.close(fd)
        lines = [line for line in data.splitlines() if b" [emerg] " in line and self._pid in line]
        messages = (line.decode("utf-8", "replace").partition(" [emerg] ")[2].partition(": ")[2] for line in lines)
        return tuple(dict.fromkeys(message[:500] for message in messages if message))[:10]

    def refused(self) -> bool:
        """Whether the log has the final message; nginx tries a busy port five times before it gives up (2.5 s)."""
        messages = self.messages()
        busy_ports = all("bind() to" in message for message in messages)
        return bool(messages) and (not busy_ports or any("still could not bind" in message for message in messages))


# -- files ------------------------------------------------------------------------------------------------------------


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
            os.fchown(fd, -1, gid)
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


# -- the program: root's oneshots -------------------------------------------------------------------------------------


def parse_request(data: bytes) -> Request:
    """The request in a JSON text; ValueError for anything else, also for a name that occurs twice."""

    def without_duplicates(members: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(members)) != len(members):
            raise ValueError("a name occurs twice")
        return dict(members)

    with contextlib.suppress(ValueError, RecursionError):
        match json.loads(data, object_pairs_hook=without_duplicates):
            case {"id": str(id_), "generations": dict(generations), "hup": bool(hup), **rest} if not rest:
                if all(isinstance(generation, str) for generation in generations.values()):
                    return Request(id_, generations, hup)
    raise ValueError("not a request")


def parse_applied(data: bytes) -> Applied:
    """The answer in a JSON text; ValueError for anything else."""
    try:
        raw = json.loads(data)
        return Applied(**raw | {"words": tuple(raw["words"])})
    except (TypeError, KeyError, RecursionError):
        raise ValueError("not an answer") from None


def parse_tested(data: bytes) -> Tested:
    """The answer of a test in a JSON text; ValueError for anything else."""
    try:
        raw = json.loads(data)
        return Tested(**raw | {"words": tuple(raw["words"])})
    except (TypeError, KeyError, RecursionError):
        raise ValueError("not an answer") from None


def read_setup(path: str) -> Setup:
    """The settings in rotator's configuration; ValueError for an invalid file, or one that another user may write."""
    with os.fdopen(os.open(path, _READ), "rb") as f:
        status = os.fstat(f.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ValueError(f"{path}: must belong to uid {os.geteuid()}, and no other user may write to it")
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
        raise ValueError(f"{path}: not a valid configuration of rotator; see `rotator config check`") from None


def _path(raw: str) -> str:
    """A path in the same spelling as `rotator.config` gives it; TypeError for a value that is not a path."""
    path = os.path.normpath(raw)
    return "/" + path.lstrip("/") if path.startswith("/") else path


def read_request(setup: Setup, name: str) -> Request:
    """The request in a file of the store: a regular file of the store's owner, not a link, at most 64 KiB.

    Raises:
        ValueError: the file is not such a request.
    """
    try:
        with _opened_dir(setup.state_dir, None) as store:
            return parse_request(_read_file(name, store, MAX_REQUEST, owner=os.fstat(store).st_uid))
    except (OSError, _RequestError, ValueError) as e:
        raise ValueError(f"{setup.state_dir}/{name}: {_plain(e)}") from None


def run_test(setup: Setup, request: Request) -> Tested:
    """The result of `nginx -t` with its whole configuration, which is what a cold start reads."""
    import subprocess  # here, because the import would cost the usual step a fifth of its time

    try:
        completed = subprocess.run(  # noqa: S603 - the command of root's own configuration
            [*setup.command, "-t"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TEST_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        return Tested(request.id, False, (f"nginx -t did not answer within {TEST_WITHIN:g} s",))
    except OSError as e:
        return Tested(request.id, False, (f"{setup.command[0]} cannot be run: {e.strerror}",))
    emerg = [line for line in completed.stderr.decode("utf-8", "replace").splitlines() if "[emerg]" in line]
    return Tested(request.id, completed.returncode == 0, tuple(line[:500] for line in emerg[:10]))


def answer_request(setup: Setup, *, test: bool = False) -> bool:
    """Reads the request, carries it out, and writes the answer.

    A request that has its answer is not carried out again: root may start the unit by hand, long afterwards.

    Args:
        setup: root's configuration.
        test: run `nginx -t` instead of the step.

    Returns:
        Whether the request was new.

    Raises:
        ValueError: the request is invalid, or other users may write to the directory of the answers.
        OSError: the answer could not be written.
    """
    request_name, result_name = (TEST_REQUEST, TEST_RESULT) if test else (REQUEST, RESULT)
    with _opened_dir(setup.result_dir, None) as results:
        status = os.fstat(results)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ValueError(
                f"{setup.result_dir}: must belong to uid {os.geteuid()}, and no other user may write to it"
            )
        request = read_request(setup, request_name)
        with contextlib.suppress(OSError, ValueError, AttributeError, _RequestError):
            if json.loads(_read_file(result_name, results, MAX_ANSWER)).get("id") == request.id:
                return False
        answer = run_test(setup, request) if test else apply(setup, request)
        new_name = f".{result_name}.new"
        _remove(new_name, results)
        _write_new(new_name, json.dumps(asdict(answer)).encode(), results, mode=0o640, gid=status.st_gid)
        os.rename(new_name, result_name, src_dir_fd=results, dst_dir_fd=results)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries out one request: `apply.py --config F [--test]`. Returns 0 if the request has its answer."""
    parser = argparse.ArgumentParser(description="Carries out one request of rotator as root.")
    parser.add_argument("--config", default="/etc/rotator/rotator.toml", help="rotator's configuration")
    parser.add_argument("--test", action="store_true", help="run `nginx -t` instead, and answer with its result")
    args = parser.parse_args(arguments)
    os.umask(0o022)  # each directory has its final mode at once, so that nginx can enter it even after a kill
    try:
        if not answer_request(read_setup(args.config), test=args.test):
            print("rotator-apply: this request has its answer already; nothing was done")
    except (ValueError, OSError) as e:
        print(f"rotator-apply: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
