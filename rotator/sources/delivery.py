"""The only writer of drops: files appear in them whole and together, or not; nothing is judged here.

Whoever delivers may be killed at any moment and may deliver beside others, so each file is written under a temporary
name that the drop's reader passes over, all of them are on the disk before the first takes its name, and a lock on
the directory keeps two deliveries from mixing.

One delivery is one renewal: what an earlier one has put there makes room for the next, or a CA that calls its
files otherwise each time would fill the drop with old pairs. Only what is byte for byte the copy that a delivery wrote
is removed, which the file's own attribute tells; what people and their tools put there stays. On a file system without
such attributes everything stays, and the command line tells what else lies there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shlex
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rotator.core.errors import Exit, RotatorError
from rotator.core.model import SourceFile
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.system.files import flush_dir, open_dir, write_all

DIRECTORY_MODE = 0o2770
FILE_MODE = 0o640
LOCKED_FOR = 2.0
"""Seconds to wait for whoever else is at work in a drop: a delivery takes a few flushes, a reader less."""
_PREFIX = ".rotator-deliver-"
_MARK = "user.rotator.delivered"
"""The attribute of a delivered file: SHA-256 of what was written, so that a later change by hand shows."""
_MARKED_MAX = 1024 * 1024
"""Bytes up to which a file is looked at for whether it is a delivered one."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a drop belongs to, or would belong to.

    Args:
        uid: the user.
        gid: the group.
        exists: whether the directory is there already.
    """

    uid: int
    gid: int
    exists: bool


def owner_of(directory: Path) -> Owner:
    """Whom root has to become before it writes there: the directory's owner, or its parent's if it is to be made.

    Raises:
        RotatorError: `io-error` or `permission`: the parent is missing, the directory is a link or something else, or
            it belongs to root in another one's directory, who could put it in place of any other.
    """
    parent = directory.parent
    quoted = shlex.quote(str(directory))
    try:
        above = _looked_at(parent)
    except FileNotFoundError as error:
        hint = f"Make it: install -d -o rotator -g rotator -m 2770 {shlex.quote(str(parent))}"
        raise _failed(f"{parent}, where drops lie, does not exist", hint) from error
    except OSError as error:
        _translate(error, parent)
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return Owner(above.st_uid, above.st_gid, exists=False)
    except OSError as error:
        _translate(error, directory)
    if not stat.S_ISDIR(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no directory"
        hint = f"Nothing is written through it. Remove it, and deliver makes a directory: rm {quoted}"
        raise _failed(f"the drop {directory} is {what}", hint)
    if found.st_uid == 0 != above.st_uid:
        hint = f"Give it to whom the other belongs: chown --reference={shlex.quote(str(parent))} {quoted}"
        raise _failed(f"the drop {directory} belongs to root, but the directory around it to uid {above.st_uid}", hint)
    return Owner(found.st_uid, found.st_gid, exists=True)


def _looked_at(directory: Path) -> os.stat_result:
    """What is known of a directory; root is led nowhere else by a link of others."""
    if os.geteuid() != 0:
        return os.stat(directory)  # noqa: PTH116 - beside lstat above
    held = open_dir(directory)
    try:
        return os.fstat(held)
    finally:
        os.close(held)


def write_drop(files: Sequence[SourceFile], directory: Path) -> tuple[Path, ...]:
    """Writes the files into the drop, each under the last part of its name; the drop is made if it is missing.

    A file of that name is replaced in one step. What an earlier delivery wrote under another name is removed, unless
    it was changed since; everything else there stays.

    Args:
        files: their names must differ in their last part.
        directory: the drop; its parent exists.

    Returns:
        Where they are, in the order given.

    Raises:
        RotatorError: `io-error`, `permission`, or `busy` while another delivery writes there. Nothing has changed
            then, unless the message says that files are in place.
    """
    names = [base_name(source.name) for source in files]
    try:
        with _opened(directory) as held:
            _remove_own_strays(held)
            pending: list[str] = []
            try:
                for source in files:
                    pending.append(_PREFIX + secrets.token_hex(8))
                    _write(held, pending[-1], source.data)
                with _making_room(held, names):
                    placed = _place(held, directory, pending, names)
            finally:
                for temporary in pending:
                    with suppress(OSError):
                        os.unlink(temporary, dir_fd=held)
            _confirm(held, directory)
    except OSError as error:
        _translate(error, directory)
    return placed


def base_name(name: str) -> str:
    """The name that a file has in the drop.

    Raises:
        RotatorError: `io-error`, for a name that no drop may hold; exit status 3.
    """
    base = name.rpartition("/")[2]
    if not base or base.startswith(".") or not base.isprintable():
        raise _failed(f"{name!r} is no name for a file in a drop", "Rename it: no dot first.", Exit.REJECTED)
    return base


def _place(held: int, directory: Path, pending: Sequence[str], names: Sequence[str]) -> tuple[Path, ...]:
    placed: list[Path] = []
    for temporary, name in zip(pending, names, strict=True):
        try:
            os.rename(temporary, name, src_dir_fd=held, dst_dir_fd=held)
        except OSError as error:
            there = ", ".join(path.name for path in placed) or "none"
            message = f"{directory / name} cannot be put in place: {error.strerror} (already in place: {there})"
            raise _failed(message, f"See what stands there: ls -la {shlex.quote(str(directory))}") from error
        placed.append(directory / name)
    return tuple(placed)


def _write(held: int, name: str, data: bytes) -> None:
    fd = os.open(name, _CREATE, 0o600, dir_fd=held)  # nobody else reads it before it is whole
    try:
        write_all(fd, data)
        with suppress(OSError):  # not every file system has them
            os.setxattr(fd, _MARK, hashlib.sha256(data).digest())
        os.fchmod(fd, FILE_MODE)  # its group is the directory's
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _making_room(held: int, keep: Sequence[str]) -> Iterator[None]:
    """What an earlier delivery wrote is out of the reader's sight while the block lasts, then gone; back if it fails.

    Out of sight before the new files come, so that no mixture of two renewals is ever seen. What cannot be moved stays.
    """
    with os.scandir(held) as entries:
        others = [e.name for e in entries if e.is_file(follow_symlinks=False) and e.name not in keep]
    aside: list[tuple[str, str]] = []
    for name in others:
        with suppress(OSError):
            if not name.startswith(_PREFIX) and _is_delivered(held, name):
                temporary = _PREFIX + secrets.token_hex(8)
                os.rename(name, temporary, src_dir_fd=held, dst_dir_fd=held)
                aside.append((temporary, name))
    try:
        yield
    except RotatorError:
        for temporary, name in aside:
            with suppress(OSError):
                os.rename(temporary, name, src_dir_fd=held, dst_dir_fd=held)
        raise
    for temporary, _ in aside:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=held)


def _is_delivered(held: int, name: str) -> bool:
    """Whether the file is byte for byte what a delivery wrote."""
    fd = os.open(name, _READ, dir_fd=held)
    try:
        mark = os.getxattr(fd, _MARK)
        return os.fstat(fd).st_size <= _MARKED_MAX and hashlib.sha256(os.read(fd, _MARKED_MAX)).digest() == mark
    finally:
        os.close(fd)


def _confirm(held: int, directory: Path) -> None:
    try:
        os.fsync(held)
    except OSError as error:
        message = f"the files are in place in {directory}, but the disk did not confirm it: {error.strerror}"
        raise _failed(message, "A power cut now could undo it; deliver again when the disk is well.") from error


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """The drop, made if missing, held and locked."""
    made = False
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)  # noqa: PTH102 - beside its fchmod
        made = True
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if made:
            os.fchmod(held, DIRECTORY_MODE)  # not left to the umask
            flush_dir(directory.parent)
        if not _locked(held, fcntl.LOCK_EX):
            hint = "Nothing was written; it takes a moment only: try again."
            raise RotatorError(Reason.BUSY, f"another delivery writes into {directory}", hint, Exit.BUSY)
        yield held
    finally:
        os.close(held)


@contextmanager
def undisturbed(directory: Path) -> Iterator[None]:
    """Within this block no delivery puts files into the drop, so that who reads it sees none of them or all.

    What is no drop, or is locked for long, is left as it is: what is read there tells what is wrong.
    """
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        _locked(held, fcntl.LOCK_SH)
        yield
    finally:
        os.close(held)


def _locked(held: int, how: int) -> bool:
    end = time.monotonic() + LOCKED_FOR
    while True:
        try:
            fcntl.flock(held, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.005)
        else:
            return True


def _remove_own_strays(held: int) -> None:
    """Removes what a killed delivery of this user left; the lock tells that none is at work."""
    with os.scandir(held) as entries:
        strays = [entry.name for entry in entries if entry.name.startswith(_PREFIX)]
    for name in strays:
        with suppress(OSError):
            if os.stat(name, dir_fd=held, follow_symlinks=False).st_uid == os.geteuid():
                os.unlink(name, dir_fd=held)


def _translate(error: OSError, path: Path) -> NoReturn:
    quoted = shlex.quote(str(path))
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            hint = f"Deliver as root, or as a member of the group that owns it: ls -ld {quoted}"
            message = f"{path} may not be written by this user"
            if error.errno == errno.EROFS:
                message, hint = f"{path} lies on a file system that is read-only", f"findmnt -T {quoted}"
            raise RotatorError(Code.PERMISSION, message, hint) from error
        case errno.ENOSPC | errno.EDQUOT:
            hint = f"Nothing was changed. Make room and deliver again: df -h {quoted}"
            raise _failed(f"there is no room for it in {path}", hint) from error
    hint = f"Nothing was changed. See what stands there: ls -la {quoted}"
    raise _failed(f"{path} cannot be written: {error.strerror}", hint) from error


def _failed(message: str, hint: str, status: Exit = Exit.FAILURE) -> RotatorError:
    return RotatorError(Code.IO_ERROR, message, hint, status)
