"""The reader of untrusted files: takes paths and returns bytes, within bounds of size and number.

A reader that runs unattended must not block and must not follow a link to another place. So it checks the type of each
file before it opens it (opening a device can have effects), opens it without waiting, checks it again through the
descriptor, reads it once up to a bound, and checks that it has not changed. These bytes are validated and installed;
the file is not read a second time.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NoReturn

from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command, shell_word
from rotator.core.model import MAX_FILE, Candidate, Secret, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown_name
from rotator.system.faults import code_of, message_of
from rotator.system.files import open_dir, read_bounded
from rotator.system.trusted_paths import faults_of, is_root
from rotator.system.users import user_name

LONGEST_SITE = 64
"""The most characters of a site's name (`core.names`)."""

MAX_FILES = 64
"""The most files of one drop, without temporary ones."""

MAX_LISTED = 100_000
"""The most names of a directory that are looked at, temporary ones and the flat files of other sites included."""

MAX_TOTAL = 4 * 1024 * 1024
"""The most bytes of all files of one drop."""

MAX_POOL_FILES = 2_048
"""The most files of a pool of intermediates."""

MAX_POOL_TOTAL = 8 * 1024 * 1024
"""The most bytes of all files of a pool. The public CAs of the web use about 2,000 intermediates of 2 KiB each."""

MAX_PASSWORD = 1_024
"""The most bytes of a password."""

FLAT_SUFFIXES = (".crt", ".pem", ".key", ".cer", ".der", ".p7b", ".p12", ".pfx")
"""The possible endings of a flat file's name."""

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
    """Whether the reader of a drop ignores this file name.

    It ignores the names that editors and copying tools give to unfinished files (dotfiles, among them rsync's
    `.name.XXXXXX` and Kubernetes' `..data`; `*~`, `*.tmp`, `*.part`, `*.filepart`, `*.swp`), and the `README` that
    certbot puts into every directory of its `live/`.
    """
    return _TEMPORARY.fullmatch(name) is not None


def read_named(path: str | os.PathLike[str]) -> SourceFile:
    """The content of a file that a person named, who may name a link, too.

    Args:
        path: the path as it was given; it becomes the name of the result.

    Raises:
        RotatorError: `io-error`, `permission`, `too-large` or `empty-file`, naming the file; exit status 3.
    """
    name = os.fspath(path)
    return _read(name, name, follow_links=True, alone=False)


def read_password(path: str | os.PathLike[str]) -> tuple[Secret | None, tuple[Problem, ...]]:
    """The password of an encrypted key: the first line of a file, without its line end.

    Args:
        path: the path of the file; it may be a link.

    Returns:
        The password, or None if the file cannot be read. And warnings: why it cannot be read (`io-error`, `permission`,
        `too-large`, `empty-file`), or that other users may read it (`key-permissions`). They do not refuse a renewal,
        because it may not need the password.
    """
    full = os.fspath(path)
    title = shown_name(full)

    def warning(code: Code, message: str, hint: str) -> Problem:
        return Problem(code, Severity.WARN, message, hint, title)

    try:
        source = read_named(path)
    except RotatorError as error:
        message = f"The password file cannot be used: {error.message.rstrip('.')}."
        return None, (warning(Code(error.code), message, error.hint),)
    line = source.data.partition(b"\n")[0].rstrip(b"\r")
    if len(line) > MAX_PASSWORD:
        message = f"The password file {title} does not begin with a password: its first line has {len(line)} bytes."
        return None, (warning(Code.TOO_LARGE, message, f"{MAX_PASSWORD} are allowed. Is it the wrong file?"),)
    warnings: list[Problem] = []
    if source.mode & 0o037:
        message = f"The password file {title} is open to more users than its owner and group (mode {source.mode:04o})."
        warnings.append(warning(Code.KEY_PERMISSIONS, message, command("chmod 0600", full)))
    elif source.owner not in (os.geteuid(), -1) and not is_root(source.owner):
        message = f"The password file {title} belongs to another user (uid {source.owner}), who can change it."
        warnings.append(warning(Code.KEY_PERMISSIONS, message, command(f"chown {os.geteuid():d}", full)))
    return Secret(line), tuple(warnings)


def read_pool(path: str | os.PathLike[str]) -> tuple[SourceFile, ...]:
    """The files of a pool of intermediates: one file, or the files of a directory, each with its path as the name.

    Subdirectories and files with a temporary name are ignored.

    Raises:
        RotatorError: `io-error`, `permission`, `too-large` or `empty-file`, naming the file; exit status 3.
    """
    where = os.fspath(path)
    if not os.path.isdir(where):  # noqa: PTH112 - a path as it was given, for the messages
        return (read_named(where),)
    with _directory(where, configured=True) as directory_fd:
        names = sorted(name for name in _listed(directory_fd, where) if not is_temporary(name))
    if len(names) > MAX_POOL_FILES:
        hint = "Join them into one file: cat *.pem >intermediates.pem"
        _refuse(Code.TOO_LARGE, f"{shown_name(where)} holds more than {MAX_POOL_FILES} files", hint)
    files: list[SourceFile] = []
    left = MAX_POOL_TOTAL
    for name in names:
        full = os.path.join(where, name)
        if os.path.isdir(full):  # noqa: PTH112 - as above
            continue
        files.append(read_named(full))
        left -= len(files[-1].data)
        if left < 0:
            hint = f"Keep only intermediates there: {command('ls -lS', where)}"
            _refuse(Code.TOO_LARGE, f"{shown_name(where)} holds more than {MAX_POOL_TOTAL >> 20} MiB in all", hint)
    return tuple(files)


def read_drop(path: str | os.PathLike[str], *, follow_links: bool = False) -> Candidate:
    """The files of a drop, sorted by name, each with its name in the directory; an empty candidate if there are none.

    The directory is opened once and its files relative to it, so that renaming the directory meanwhile has no effect.
    Temporary names (see `is_temporary`) are ignored.

    Args:
        path: the directory.
        follow_links: whether the directory and its files may be links, as in certbot's `live/` or a Kubernetes mount.
            Only a `source` of the configuration allows that. The directory must not change while it is read.

    Raises:
        RotatorError: `io-error`, `permission`, `too-large` or `empty-file`, naming the file; exit status 3.
    """
    where = os.fspath(path)
    with _directory(where, configured=follow_links, follow_last=follow_links) as directory_fd:
        before = os.fstat(directory_fd)
        names = _bounded(where, (n for n in _listed(directory_fd, where) if not is_temporary(n)))
        candidate = _read_all(directory_fd, where, names, follow_links=follow_links)
        # Links are replaced one by one (certbot) or together by `..data` (Kubernetes). Both change the directory.
        if follow_links and _changed(before, os.fstat(directory_fd)):
            _refuse(
                Code.IO_ERROR,
                f"{shown_name(where)} changed while it was read",
                "No action is needed: it is read again.",
            )
        return candidate


def read_flat(incoming_dir: str | os.PathLike[str], site: str, *, others: Set[str] = frozenset()) -> Candidate:
    """The flat files of one site, directly in the incoming directory, sorted by name; empty if there are none.

    Args:
        incoming_dir: the directory of flat files and drops.
        site: the name of the site.
        others: the names of all sites, so that `shop-eu.pem` does not count for the site `shop` if there is `shop-eu`.

    Raises:
        RotatorError: `io-error`, `permission`, `too-large` or `empty-file`, naming the file; exit status 3.
    """
    where = os.fspath(incoming_dir)
    sites = others | {site}
    with _directory(where) as directory_fd:
        names = _bounded(where, (n for n in _listed(directory_fd, where) if flat_site(n, sites) == site))
        return _read_all(directory_fd, where, names, follow_links=False)


def flat_site(name: str, sites: Set[str]) -> str:
    """The site of a flat file; empty if it belongs to none.

    A file belongs to a site if its name is `<site><suffix>` or `<site>-<anything><suffix>` with a suffix of
    `FLAT_SUFFIXES`. If it matches two sites, it belongs to the one with the longer name. The time that it takes depends
    neither on the number of sites nor on the length of the name, as other users can make very many files.

    Args:
        name: the name of the file.
        sites: the names of all sites.
    """
    stem, dot, suffix = name.rpartition(".")
    if dot + suffix.lower() not in FLAT_SUFFIXES or is_temporary(name):
        return ""
    if len(stem) > LONGEST_SITE:
        stem = stem[: LONGEST_SITE + 1].rpartition("-")[0]
    while stem not in sites:
        stem, dash, _ = stem.rpartition("-")
        if not dash:
            return ""
    return stem


def _listed(directory_fd: int, where: str) -> Iterator[str]:
    try:
        with os.scandir(directory_fd) as entries:
            for entry in islice(entries, MAX_LISTED):
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
                f"{shown_name(where)} holds more than {MAX_FILES} files",
                f"Keep only the newest certificate, its chain and its key: {command('ls -lt', where)}",
            )
    return sorted(kept)


def _read_all(directory_fd: int, where: str, names: Iterable[str], *, follow_links: bool) -> Candidate:
    files: list[SourceFile] = []
    total = 0
    for name in names:
        source = _read(
            name, os.path.join(where, name), follow_links=follow_links, alone=not follow_links, directory=directory_fd
        )
        total += len(source.data)
        if total > MAX_TOTAL:
            _refuse(
                Code.TOO_LARGE,
                f"{shown_name(where)} holds more than {MAX_TOTAL // 1024} KiB in all",
                f"Keep only the newest certificate, its chain and its key: {command('ls -lS', where)}",
            )
        files.append(source)
    return Candidate(tuple(files))


@contextmanager
def _directory(where: str, *, configured: bool = False, follow_last: bool = True) -> Iterator[int]:
    """The descriptor of a directory.

    Args:
        where: its path.
        configured: whether the configuration names exactly this path, so that every link in it is intended.
        follow_last: whether the last part of the path may be a link.
    """
    try:
        if configured:
            directory_fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            directory_fd = open_dir(where, follow_last=follow_last)
    except (OSError, ValueError) as error:
        _translate(error, where)
    try:
        yield directory_fd
    finally:
        os.close(directory_fd)


def _read(name: str, full: str, *, follow_links: bool, alone: bool, directory: int | None = None) -> SourceFile:
    """The content of a file.

    Args:
        name: its name, relative to `directory`.
        full: its path, for messages.
        follow_links: whether it may be a symbolic link.
        alone: whether a second hard link is refused.
        directory: the descriptor of its directory; None for the working directory.
    """
    if not name.isprintable():
        _refuse(
            Code.IO_ERROR,
            f"{shown_name(full)}: its name has control characters or is not UTF-8",
            "Rename it to letters, digits, dots and dashes.",
        )
    try:
        # Checked before it is opened, because opening a device can rewind a tape or arm a watchdog.
        _demand_regular(os.stat(name, dir_fd=directory, follow_symlinks=follow_links), full, alone=alone)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
        fd = os.open(name, flags, dir_fd=directory)
        try:
            before = os.fstat(fd)
            _demand_regular(before, full, alone=alone)
            data = read_bounded(fd, MAX_FILE)
            after = os.fstat(fd)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        _translate(error, full)
    if len(data) > MAX_FILE:
        _refuse_large(full, len(data))
    if _changed(before, after) or len(data) != after.st_size:
        _refuse(
            Code.IO_ERROR,
            f"{shown_name(full)} changed while it was read",
            "A half-written file is not read; copy it under a temporary name and rename it.",
        )
    if not data:
        _refuse(Code.EMPTY_FILE, f"{shown_name(full)} is empty", f"Copy it again: {command('ls -l', full)}")
    return SourceFile(name, data, stat.S_IMODE(after.st_mode), after.st_uid)


def _demand_regular(status: os.stat_result, full: str, *, alone: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "of an unknown type")
        hints = {
            "a directory": f"Name the files in it: {command('ls -l', full)}",
            "a symbolic link": f"Replace it by the file itself: cp --remove-destination "
            f'"$({command("readlink -f", full)})" {shell_word(full)}; '
            "or, for a directory of links, set the site's `source` to it",
        }
        _refuse(
            Code.IO_ERROR,
            f"{shown_name(full)} is {kind}, not a regular file",
            hints.get(kind, f"Only regular files are read; see its type: {command('ls -l', full)}"),
        )
    if alone and status.st_nlink > 1:
        # The writers of a drop have fewer rights than its reader. A second name could be that of any user's file.
        copy = f"{full}.tmp"
        _refuse(
            Code.IO_ERROR,
            f"{shown_name(full)} has {status.st_nlink} hard links: it may be a file of another user",
            f"Copy it: {command('cp -P --remove-destination', full, copy)} && {command('mv -T', copy, full)}",
        )
    if status.st_size > MAX_FILE:
        _refuse_large(full, status.st_size)


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    def identity(s: os.stat_result) -> tuple[int, ...]:
        return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns

    return identity(before) != identity(after)


def _refuse_large(full: str, size: int) -> NoReturn:
    _refuse(
        Code.TOO_LARGE,
        f"{shown_name(full)} has {size} bytes or more; {MAX_FILE // 1024} KiB are allowed",
        f"A chain with its key has about 10 KiB; see what this file is: {command('ls -l', full)}",
    )


def _refuse(code: Code, message: str, hint: str, cause: BaseException | None = None) -> NoReturn:
    raise RotatorError(code, message, hint, Exit.REJECTED) from cause


def _translate(error: OSError | ValueError, full: str) -> NoReturn:
    """Raises the `RotatorError` for an error of the system, with a command as the hint where one helps."""
    if isinstance(error, ValueError):  # NUL in the name
        _refuse(Code.IO_ERROR, f"{shown_name(full)} is not a file name", "Name it without control characters.", error)
    code = Code.PERMISSION if code_of(error) == Code.PERMISSION else Code.IO_ERROR
    problem, hint = f"cannot be read: {message_of(error)}", f"See its type and rights: {command('ls -ld', full)}"
    match error.errno:
        case errno.ENOENT:
            problem = "does not exist"
            hint = f"See the files there: {command('ls -la', Path(full).parent)}"
            with suppress(OSError):
                problem = f"is a link to {shown_name(os.fspath(Path(full).readlink()))}, which does not exist"
        case errno.EACCES | errno.EPERM:
            obstacle = _obstacle(full)
            problem = "may not be read by this user" + (
                f", who may not enter {shown_name(obstacle)}" if obstacle else ""
            )
            hint = f"{_opening(full, obstacle)}; or, as root, deliver the files: rotator deliver SITE FILES"
        case errno.ELOOP:
            problem = "is a symbolic link, or a circle of symbolic links"
        case errno.ENOTDIR:
            problem = "is not a directory"
            if Path(full).is_symlink():
                problem = "is a symbolic link, which is not followed here"
                hint = f"Remove it and put a directory there: {command('rm', full)}"
            elif link := next((parent for parent in Path(full).absolute().parents if parent.is_symlink()), None):
                problem = f"is behind a symbolic link that users other than root can set, {shown_name(os.fspath(link))}"
                hint = f"Name its target in the configuration: {command('readlink -f', link)}"
        case errno.EAGAIN:
            problem = "is locked by another process (a lease)"
            hint = f"Find that process and try again: {command('fuser -v', full)}"
        case errno.ENAMETOOLONG:
            full = full[:80] + "…"
            problem, hint = "has too long a name", "Give it a shorter name."
    _refuse(code, f"{shown_name(full)} {problem}", hint, error)


def _opening(full: str, obstacle: str) -> str:
    """The hint by which a file or directory becomes readable for this user.

    Args:
        full: the file.
        obstacle: the directory on the way to it that this user may not enter; empty if there is none.
    """
    user = user_name()
    if others_may_replace(obstacle or full):
        return f"The owner of {shell_word(obstacle or full)} can open it to {shell_word(user)}"
    if obstacle:
        return f"Let {shell_word(user)} enter it: {command(f'setfacl -m u:{os.geteuid():d}:x', obstacle)}"
    return f"Let {shell_word(user)} read it: {command('chgrp', user, full)} && {command('chmod g+r', full)}"


def others_may_replace(path: str) -> bool:
    """Whether users other than root may put a link in the place of a file or directory.

    A command of root that changes it by its name would then change the target of the link.

    Args:
        path: the file or directory.
    """
    try:
        return bool(faults_of(os.path.dirname(os.path.abspath(path))))  # noqa: PTH100, PTH120 - no link is followed
    except OSError:
        return True


def _obstacle(full: str) -> str:
    """The topmost directory of a path that this user may not enter; empty if there is none."""
    for parent in reversed(Path(full).absolute().parents):
        if not os.access(parent, os.X_OK, effective_ids=True):
            return os.fspath(parent)
    return ""
