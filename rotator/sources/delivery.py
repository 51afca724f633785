"""The writer of drops: it puts the files of one renewal into a drop, each of them whole and all of them together.

A delivery can be killed at any moment, and several can run at the same time. So each file is written under a temporary
name that the drop's reader ignores, all files are on the disk before the first one gets its final name, and a lock on
the directory keeps two deliveries apart.

One delivery is one renewal, so it removes the files of earlier deliveries. Otherwise a CA that uses new file names each
time would fill the drop with old pairs. A delivery marks its files with an extended attribute, the hash of the content,
and only an unchanged file with this mark is removed; the files of people and of other tools stay. On a file system
without such attributes every file stays, and the command line names the other files.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command
from rotator.core.model import MAX_FILE, SourceFile
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.system.faults import code_of, message_of
from rotator.system.files import flush_dir, open_dir, read_bounded, write_all

DIRECTORY_MODE = 0o2770
FILE_MODE = 0o640
LOCK_WITHIN = 2.0
"""The seconds to wait for the lock on a drop: a delivery holds it for a few flushes, a reader for less."""
_PREFIX = ".rotator-deliver-"
_MARK = "user.rotator.delivered"
"""The attribute of a delivered file: the SHA-256 of the written content, so that a later change by hand shows."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a drop, or the owner that it will have.

    Args:
        uid: the user.
        gid: the group.
        exists: whether the directory exists already.
    """

    uid: int
    gid: int
    exists: bool


def owner_of(directory: Path) -> Owner:
    """The user that root must become before it writes to a drop: the owner of the drop, or of its parent if it is new.

    Raises:
        RotatorError: `io-error` or `permission`: the parent is missing, the drop is not a directory, or root owns the
            drop but another user its parent, and that user could replace the drop.
    """
    parent = directory.parent
    try:
        parent_status = _status(parent)
    except FileNotFoundError as error:
        hint = f"Create it: {command('install -d -o rotator -g rotator -m 2770', parent)}"
        raise _failed(f"{parent}, the directory of the drops, does not exist", hint) from error
    except OSError as error:
        _translate(error, parent)
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        return Owner(parent_status.st_uid, parent_status.st_gid, exists=False)
    except OSError as error:
        _translate(error, directory)
    if not stat.S_ISDIR(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a directory"
        hint = f"Remove it; rotator deliver then creates a directory: {command('rm', directory)}"
        raise _failed(f"the drop {directory} is {kind}; nothing was written", hint)
    if status.st_uid == 0 != parent_status.st_uid:
        message = f"the drop {directory} belongs to root, but its parent directory to uid {parent_status.st_uid}"
        hint = f"Give it to the owner of its parent: {command('chown --reference', parent, directory)}"
        raise _failed(message, hint)
    return Owner(status.st_uid, status.st_gid, exists=True)


def _status(directory: Path) -> os.stat_result:
    """The status of a directory. As root, it does not follow a link that another user could set."""
    if os.geteuid() != 0:
        return os.stat(directory)  # noqa: PTH116 - beside lstat above
    directory_fd = open_dir(directory)
    try:
        return os.fstat(directory_fd)
    finally:
        os.close(directory_fd)


def write_drop(files: Sequence[SourceFile], directory: Path) -> tuple[Path, ...]:
    """Writes files into a drop, each under the last part of its name. A missing drop is created.

    A file with the same name is replaced in one step. The unchanged files of an earlier delivery are removed; every
    other file stays.

    Args:
        files: the files; the last parts of their names must differ.
        directory: the drop; its parent exists.

    Returns:
        The new paths, in the given order.

    Raises:
        RotatorError: `io-error`, `permission`, or `busy` while another delivery writes there. Nothing has changed
            then, unless the message says that files are in place.
    """
    names = [base_name(source.name) for source in files]
    try:
        with _locked_drop(directory) as drop_fd:
            _remove_own_leftovers(drop_fd)
            pending: list[str] = []
            try:
                for source in files:
                    pending.append(_PREFIX + secrets.token_hex(8))
                    _write(drop_fd, pending[-1], source.data)
                with _earlier_delivery_removed(drop_fd, names):
                    placed = _place(drop_fd, directory, pending, names)
            finally:
                for temporary in pending:
                    with suppress(OSError):
                        os.unlink(temporary, dir_fd=drop_fd)
            _flush(drop_fd, directory)
    except OSError as error:
        _translate(error, directory)
    return placed


def base_name(name: str) -> str:
    """The name that a file has in the drop.

    Raises:
        RotatorError: `io-error`, for a name that a file in a drop may not have; exit status 3.
    """
    base = name.rpartition("/")[2]
    if not base or base.startswith(".") or not base.isprintable():
        message = f"a file in a drop may not have the name {name!r}"
        raise _failed(message, "Rename it to printable characters, without a dot at the beginning.", Exit.REJECTED)
    return base


def _place(drop_fd: int, directory: Path, pending: Sequence[str], names: Sequence[str]) -> tuple[Path, ...]:
    """Gives the temporary files their final names."""
    placed: list[Path] = []
    for temporary, name in zip(pending, names, strict=True):
        try:
            os.rename(temporary, name, src_dir_fd=drop_fd, dst_dir_fd=drop_fd)
        except OSError as error:
            in_place = ", ".join(path.name for path in placed) or "none"
            message = f"{directory / name} cannot be put in place: {error.strerror} (already in place: {in_place})"
            raise _failed(message, f"See the files there: {command('ls -la', directory)}") from error
        placed.append(directory / name)
    return tuple(placed)


def _write(drop_fd: int, name: str, data: bytes) -> None:
    fd = os.open(name, _CREATE, 0o600, dir_fd=drop_fd)  # no other user may read it before it is whole
    try:
        write_all(fd, data)
        with suppress(OSError):  # not every file system has extended attributes
            os.setxattr(fd, _MARK, hashlib.sha256(data).digest())
        os.fchmod(fd, FILE_MODE)  # its group is that of the directory
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _earlier_delivery_removed(drop_fd: int, keep: Sequence[str]) -> Iterator[None]:
    """Hides the files of an earlier delivery, and removes them after the block; if it fails, they get their names back.

    They are hidden before the new files appear, so that a reader never sees a mixture of two renewals. A file that
    cannot be renamed stays.
    """
    with os.scandir(drop_fd) as entries:
        others = [e.name for e in entries if e.is_file(follow_symlinks=False) and e.name not in keep]
    hidden: list[tuple[str, str]] = []
    for name in others:
        with suppress(OSError):
            if not name.startswith(_PREFIX) and _is_delivered(drop_fd, name):
                temporary = _PREFIX + secrets.token_hex(8)
                os.rename(name, temporary, src_dir_fd=drop_fd, dst_dir_fd=drop_fd)
                hidden.append((temporary, name))
    try:
        yield
    except RotatorError:
        for temporary, name in hidden:
            with suppress(OSError):
                os.rename(temporary, name, src_dir_fd=drop_fd, dst_dir_fd=drop_fd)
        raise
    for temporary, _ in hidden:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=drop_fd)


def _is_delivered(drop_fd: int, name: str) -> bool:
    """Whether a delivery wrote the file and its content is unchanged."""
    fd = os.open(name, _READ, dir_fd=drop_fd)
    try:
        mark = os.getxattr(fd, _MARK)
        return hashlib.sha256(read_bounded(fd, MAX_FILE)).digest() == mark  # a longer one has another digest
    finally:
        os.close(fd)


def _flush(drop_fd: int, directory: Path) -> None:
    try:
        os.fsync(drop_fd)
    except OSError as error:
        message = f"the files are in place in {directory}, but the disk did not confirm it: {error.strerror}"
        hint = "A power failure now could undo it; deliver again when the disk works."
        raise _failed(message, hint) from error


@contextmanager
def _locked_drop(directory: Path) -> Iterator[int]:
    """The descriptor of a drop with an exclusive lock. A missing drop is created."""
    is_new = False
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)  # noqa: PTH102 - beside its fchmod
        is_new = True
    drop_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if is_new:
            os.fchmod(drop_fd, DIRECTORY_MODE)  # independent of the umask
            flush_dir(directory.parent)
        if not _lock(drop_fd, fcntl.LOCK_EX):
            hint = "Nothing was written. A delivery takes only a moment: try again."
            raise RotatorError(Reason.BUSY, f"another delivery writes to {directory}", hint, Exit.BUSY)
        yield drop_fd
    finally:
        os.close(drop_fd)


@contextmanager
def reading_lock(directory: Path) -> Iterator[None]:
    """Keeps deliveries out of a drop while its block reads it, so that the block sees all files of one or none.

    Without a directory, or if the lock is not free in time, the block runs without the lock: its own reads report the
    problem.
    """
    try:
        drop_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        _lock(drop_fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(drop_fd)


def _lock(drop_fd: int, mode: int) -> bool:
    """Whether the lock was granted within `LOCK_WITHIN` seconds."""
    deadline = time.monotonic() + LOCK_WITHIN
    while True:
        try:
            fcntl.flock(drop_fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        else:
            return True


def _remove_own_leftovers(drop_fd: int) -> None:
    """Removes the temporary files of this user's killed deliveries. The caller's lock excludes a running delivery."""
    with os.scandir(drop_fd) as entries:
        leftovers = [entry.name for entry in entries if entry.name.startswith(_PREFIX)]
    for name in leftovers:
        with suppress(OSError):
            if os.stat(name, dir_fd=drop_fd, follow_symlinks=False).st_uid == os.geteuid():
                os.unlink(name, dir_fd=drop_fd)


def _translate(error: OSError, path: Path) -> NoReturn:
    """Raises the `RotatorError` for an error of the system."""
    message, hint = f"{path} cannot be written: {message_of(error)}", f"See the files there: {command('ls -la', path)}"
    match error.errno:
        case errno.EACCES | errno.EPERM:
            message = f"this user may not write to {path}"
            hint = f"Deliver as root, or as a member of the group that owns it: {command('ls -ld', path)}"
        case errno.EROFS:
            message, hint = f"{path} is on a read-only file system", f"See its mount: {command('findmnt -T', path)}"
        case errno.ENOSPC | errno.EDQUOT:
            message, hint = (
                f"no space is left in {path}",
                f"Free some space and deliver again: {command('df -h', path)}",
            )
    raise RotatorError(code_of(error), message, f"Nothing was changed. {hint}") from error


def _failed(message: str, hint: str, status: Exit = Exit.FAILURE) -> RotatorError:
    return RotatorError(Code.IO_ERROR, message, hint, status)
