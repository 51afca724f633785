"""The only reader of untrusted files: paths in, bytes out; nothing is parsed, judged or written here.

A reader that runs unattended must neither block nor be led elsewhere, so every file is looked at before it is opened
(opening a device can do things), opened without waiting, looked at again through its descriptor, read once up to a
bound, and looked at a last time. What is judged and installed later are those bytes, never the file again.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from rotator.core.errors import Exit, RotatorError
from rotator.core.model import Candidate, Secret, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.system.files import open_dir
from rotator.system.users import user_name

MAX_FILE = 256 * 1024
"""Bytes that one file may hold."""

MAX_FILES = 64
"""Files that one drop may hold, temporary ones not counted."""

MAX_TOTAL = 4 * 1024 * 1024
"""Bytes that one drop may hold in all."""

MAX_POOL_FILES = 2_048
"""Files that a pool of intermediates may hold."""

MAX_POOL_TOTAL = 8 * 1024 * 1024
"""Bytes of all of them: the web's public CAs have some 2,000 intermediates in use, of 2 KiB each."""

MAX_PASSWORD = 1_024
"""Bytes that a password may have."""

FLAT_SUFFIXES = (".crt", ".pem", ".key", ".cer", ".der", ".p7b", ".p12", ".pfx")
"""How the name of a flat file ends."""

_TEMPORARY = re.compile(r"\..*|.*~|.*\.(?:tmp|part|filepart|swp)|README", re.DOTALL)
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISLNK, "a symbolic link"),
)


def is_temporary(name: str) -> bool:
    """Whether a drop's reader passes over this file name.

    Those are the names under which editors and copying tools write what is not finished (dotfiles, and with them
    rsync's `.name.XXXXXX` and Kubernetes' `..data`; `*~`, `*.tmp`, `*.part`, `*.filepart`, `*.swp`), and certbot's
    `README`, which stands in every directory of its `live/`.
    """
    return _TEMPORARY.fullmatch(name) is not None


def shown(name: str) -> str:
    """A file name for a message: what would move the cursor or break the line or the encoding is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name) or '""'


def read_named(path: str | os.PathLike[str]) -> SourceFile:
    """One file that a human named; as they named it, it may be a link.

    Args:
        path: as it was given; it becomes the name of the result.

    Raises:
        RotatorError: `io-error`, `permission`, `too-large` or `empty-file`, naming the file; exit status 3.
    """
    name = os.fspath(path)
    return _read(name, name, follow_links=True, alone=False)


def read_password(path: str | os.PathLike[str]) -> tuple[Secret | None, tuple[Problem, ...]]:
    """What opens an encrypted key: the first line of a file, without its line end.

    Args:
        path: of the file; it may be a link.

    Returns:
        The password, or None if the file cannot be read; and warnings: why it cannot (`io-error`, `permission`,
        `too-large`, `empty-file`), or that others than its owner may read it (`key-permissions`). They are no
        refusals, as it may not be needed.
    """
    full = os.fspath(path)
    title = shown(full)

    def warning(code: Code, words: str, hint: str) -> Problem:
        return Problem(code, Severity.WARN, words, hint, title)

    try:
        source = read_named(path)
    except RotatorError as error:
        words = f"The password file cannot be used: {error.message.rstrip('.')}."
        return None, (warning(Code(error.code), words, error.hint),)
    line = source.data.partition(b"\n")[0].rstrip(b"\r")
    if len(line) > MAX_PASSWORD:
        words = f"The password file {title} does not begin with a password: its first line has {len(line)} bytes."
        return None, (warning(Code.TOO_LARGE, words, f"{MAX_PASSWORD} are allowed. Is it another file?"),)
    notes: list[Problem] = []
    if source.mode & 0o037:
        words = f"The password file {title} is open to more than its owner and group (mode {source.mode:04o})."
        notes.append(warning(Code.KEY_PERMISSIONS, words, f"chmod 0600 {shlex.quote(full)}"))
    elif source.owner not in (0, os.geteuid(), -1):
        words = f"The password file {title} belongs to another user (uid {source.owner}), who can change it."
        notes.append(warning(Code.KEY_PERMISSIONS, words, f"chown {os.geteuid()} {shlex.quote(full)}"))
    return Secret(line), tuple(notes)


def read_pool(path: str | os.PathLike[str]) -> tuple[SourceFile, ...]:
    """The files of a pool of intermediates: those of a directory, each named with its path, or one file.

    Directories in there, and files with a temporary name, are passed over.

    Raises:
        RotatorError: `io-error`, `permission`, `too-large` or `empty-file`, naming the file; exit status 3.
    """
    where = os.fspath(path)
    if not os.path.isdir(where):  # noqa: PTH112 - a path as it was given, for the messages
        return (read_named(where),)
    with _directory(where, configured=True) as held:
        names = sorted(name for name in _listed(held, where) if not is_temporary(name))
    if len(names) > MAX_POOL_FILES:
        hint = "Join them: cat *.pem >intermediates.pem"
        _refuse(Code.TOO_LARGE, f"{shown(where)} holds more than {MAX_POOL_FILES} files", hint)
    files: list[SourceFile] = []
    left = MAX_POOL_TOTAL
    for name in names:
        full = os.path.join(where, name)
        if os.path.isdir(full):  # noqa: PTH112 - as above
            continue
        files.append(read_named(full))
        left -= len(files[-1].data)
        if left < 0:
            hint = f"Leave intermediates there, and nothing else: ls -lS {shlex.quote(where)}"
            _refuse(Code.TOO_LARGE, f"{shown(where)} holds more than {MAX_POOL_TOTAL >> 20} MiB in all", hint)
    return tuple(files)


def read_drop(path: str | os.PathLike[str], *, follow_links: bool = False) -> Candidate:
    """All files of a drop directory, sorted by name, each named as in the directory; none if it is empty.

    The directory is held open and its entries are opened relative to it, so renaming it under the reader changes
    nothing. Temporary names (see `is_temporary`) are passed over.

    Args:
        path: the directory.
        follow_links: whether it and its entries may be links, as in certbot's `live/` or a Kubernetes mount; only
            where the configuration says so. The directory must then stay as it is while it is read.

    Raises:
        RotatorError: `io-error`, `permission`, `too-large` or `empty-file`, naming the file; exit status 3.
    """
    where = os.fspath(path)
    with _directory(where, configured=follow_links, follow_last=follow_links) as held:
        before = os.fstat(held)
        names = _bounded(where, (n for n in _listed(held, where) if not is_temporary(n)))
        candidate = _read_all(held, where, names, follow_links=follow_links)
        # Links are flipped one by one (certbot) or all through `..data` (Kubernetes): either shows in the directory.
        if follow_links and _changed(before, os.fstat(held)):
            _refuse(Code.IO_ERROR, f"{shown(where)} changed while it was read", "Nothing to do: it is read again.")
        return candidate


def read_flat(incoming_dir: str | os.PathLike[str], site: str, *, others: Iterable[str] = ()) -> Candidate:
    """The files of one site that lie directly in the incoming directory, sorted by name; none if there are none.

    A file is a site's if it is called `<site><suffix>` or `<site>-<anything><suffix>`, the suffix being one of
    `FLAT_SUFFIXES`. Of two sites that a name fits, it belongs to the one with the longer name.

    Args:
        incoming_dir: the directory that holds flat files and drops.
        site: the site's name.
        others: the names of all sites, so that `shop-eu.pem` is not taken for the site `shop` where there is `shop-eu`.

    Raises:
        RotatorError: `io-error`, `permission`, `too-large` or `empty-file`, naming the file; exit status 3.
    """
    where = os.fspath(incoming_dir)
    rivals = [other for other in others if len(other) > len(site)]

    def ours(name: str) -> bool:
        return _fits(name, site) and not is_temporary(name) and not any(_fits(name, rival) for rival in rivals)

    with _directory(where) as held:
        names = _bounded(where, (n for n in _listed(held, where) if ours(n)))
        return _read_all(held, where, names, follow_links=False)


def _fits(name: str, site: str) -> bool:
    stem, dot, suffix = name.rpartition(".")
    return dot + suffix.lower() in FLAT_SUFFIXES and (stem == site or stem.startswith(site + "-"))


def _listed(held: int, where: str) -> Iterator[str]:
    try:
        with os.scandir(held) as entries:
            for entry in entries:
                yield entry.name
    except OSError as error:
        _translate(error, where)


def _bounded(where: str, names: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for name in names:
        kept.append(name)
        if len(kept) > MAX_FILES:
            _refuse(
                Code.TOO_LARGE,
                f"{shown(where)} holds more than {MAX_FILES} files",
                f"Leave only the newest certificate, its chain and its key: ls -lt {shlex.quote(shown(where))}",
            )
    return sorted(kept)


def _read_all(held: int, where: str, names: Iterable[str], *, follow_links: bool) -> Candidate:
    files: list[SourceFile] = []
    total = 0
    for name in names:
        source = _read(
            name, os.path.join(where, name), follow_links=follow_links, alone=not follow_links, directory=held
        )
        total += len(source.data)
        if total > MAX_TOTAL:
            _refuse(
                Code.TOO_LARGE,
                f"{shown(where)} holds more than {MAX_TOTAL // 1024} KiB in all",
                f"Leave only the newest certificate, its chain and its key: ls -lS {shlex.quote(shown(where))}",
            )
        files.append(source)
    return Candidate(tuple(files))


@contextmanager
def _directory(where: str, *, configured: bool = False, follow_last: bool = True) -> Iterator[int]:
    """Opens a directory; `configured`: every link on the way is meant, as the configuration names just this place."""
    try:
        if configured:
            held = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            held = open_dir(where, follow_last=follow_last)
    except (OSError, ValueError) as error:
        _translate(error, where)
    try:
        yield held
    finally:
        os.close(held)


def _read(name: str, full: str, *, follow_links: bool, alone: bool, directory: int | None = None) -> SourceFile:
    """Reads `name` (relative to `directory`), telling of it as `full`; `alone` refuses a second hard link."""
    if not name.isprintable():
        _refuse(
            Code.IO_ERROR,
            f"{shown(full)}: its name holds control characters or is not UTF-8",
            "Rename it to letters, digits, dots and dashes.",
        )
    try:
        # Looked at before it is opened, because opening a device can rewind a tape or arm a watchdog.
        _demand_regular(os.stat(name, dir_fd=directory, follow_symlinks=follow_links), full, alone=alone)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
        held = os.open(name, flags, dir_fd=directory)
        try:
            before = os.fstat(held)
            _demand_regular(before, full, alone=alone)
            data = _read_bounded(held)
            after = os.fstat(held)
        finally:
            os.close(held)
    except (OSError, ValueError) as error:
        _translate(error, full)
    if len(data) > MAX_FILE:
        _refuse_large(full, len(data))
    if _changed(before, after) or len(data) != after.st_size:
        _refuse(
            Code.IO_ERROR,
            f"{shown(full)} changed while it was read",
            "Nothing is taken from a half-written file; copy it under a temporary name and rename it.",
        )
    if not data:
        _refuse(Code.EMPTY_FILE, f"{shown(full)} is empty", f"Copy it again: ls -l {shlex.quote(full)}")
    return SourceFile(name, data, stat.S_IMODE(after.st_mode), after.st_uid)


def _read_bounded(held: int) -> bytes:
    """At most one byte more than the bound: several reads only where the kernel hands out less than asked."""
    parts: list[bytes] = []
    left = MAX_FILE + 1
    while left > 0 and (part := os.read(held, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _demand_regular(found: os.stat_result, full: str, *, alone: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((word for test, word in _KINDS if test(found.st_mode)), "no file")
        hints = {
            "a directory": f"Name the files in it: ls -l {shlex.quote(full)}",
            "a symbolic link": f"Put the file itself there: cp --remove-destination "
            f'"$(readlink -f {shlex.quote(full)})" {shlex.quote(full)}; '
            "or, for a directory of links, set the site's `source` to it",
        }
        _refuse(
            Code.IO_ERROR,
            f"{shown(full)} is {kind}, not a regular file",
            hints.get(kind, f"Only what a regular file holds is taken; see what this is: ls -l {shlex.quote(full)}"),
        )
    if alone and found.st_nlink > 1:
        # A drop's files are written by people with fewer rights than its reader: a second name could be anyone's file.
        again = f"{full}.tmp"
        _refuse(
            Code.IO_ERROR,
            f"{shown(full)} has {found.st_nlink} hard links: it may be another one's file",
            f"Copy it: cp {shlex.quote(full)} {shlex.quote(again)} && mv {shlex.quote(again)} {shlex.quote(full)}",
        )
    if found.st_size > MAX_FILE:
        _refuse_large(full, found.st_size)


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    def mark(s: os.stat_result) -> tuple[int, ...]:
        return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns

    return mark(before) != mark(after)


def _refuse_large(full: str, size: int) -> NoReturn:
    _refuse(
        Code.TOO_LARGE,
        f"{shown(full)} holds {size} bytes or more; {MAX_FILE // 1024} KiB are allowed",
        f"A chain with its key needs some 10 KiB; see what this is: file {shlex.quote(full)}",
    )


def _refuse(code: Code, message: str, hint: str, cause: BaseException | None = None) -> NoReturn:
    raise RotatorError(code, message, hint, Exit.REJECTED) from cause


def _translate(error: OSError | ValueError, full: str) -> NoReturn:
    """Turns a foreign error into words; whoever reads them has a shell, so the hint is a command where one helps."""
    quoted = shlex.quote(full)
    code, words, hint = Code.IO_ERROR, "cannot be read", f"See what stands there: ls -ld {quoted}"
    if isinstance(error, ValueError):  # NUL in the name
        _refuse(code, f"{shown(full)} is no file name", "Name it without control characters.", error)
    match error.errno:
        case errno.ENOENT:
            words = "does not exist"
            hint = f"See what there is: ls -la {shlex.quote(os.fspath(Path(full).parent))}"
            with suppress(OSError):
                words = f"is a link to {shown(os.fspath(Path(full).readlink()))}, which does not exist"
        case errno.EACCES | errno.EPERM:
            code = Code.PERMISSION
            obstacle = _obstacle(full)
            words = "may not be read by this user" + (f": {shown(obstacle)} is closed to it" if obstacle else "")
            user, handed = user_name(), "as root, hand the files over: rotator deliver SITE FILES"
            if obstacle:
                hint = f"Open it to {user}: setfacl -m u:{user}:x {shlex.quote(obstacle)}; or, {handed}"
            else:
                there = shlex.quote(full)
                hint = f"Let {user} read it: chgrp {user} {there} && chmod g+r {there}; or, {handed}"
        case errno.ELOOP:
            words = "is a symbolic link, or a circle of them"
        case errno.ENOTDIR:
            words = "is not a directory"
            if Path(full).is_symlink():
                words, hint = "is a symbolic link, which is not followed here", f"Make it a directory: rm {quoted}"
            elif link := next((above for above in Path(full).absolute().parents if above.is_symlink()), None):
                there = shlex.quote(os.fspath(link))
                words = f"lies behind a symbolic link that others than root can set, {shown(os.fspath(link))}"
                hint = f"Name in the configuration where it leads: readlink -f {there}"
        case errno.EAGAIN:
            words = "is held by another process (a lease)"
            hint = f"Find it and try again: fuser -v {quoted}"
        case errno.ENAMETOOLONG:
            full = full[:80] + "…"
            words, hint = "has too long a name", "Give it a shorter one."
        case _:
            words = f"cannot be read: {error.strerror}"
    _refuse(code, f"{shown(full)} {words}", hint, error)


def _obstacle(full: str) -> str:
    """The topmost directory on the way that this user may not pass, or nothing."""
    for above in reversed(Path(full).absolute().parents):
        if not os.access(above, os.X_OK, effective_ids=True):
            return os.fspath(above)
    return ""
