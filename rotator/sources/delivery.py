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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command
from rotator.core.model import MAX_FILE, SourceFile
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.sources.drop_rights import (
    DIRECTORY_MODE,
    OTHERS_MAY_WRITE,
    DropRights,
    command_to_make,
    foreign_owner,
    move_away,
)
from rotator.system.faults import code_of, message_of
from rotator.system.files import open_dir, read_bounded, write_all
from rotator.system.lock_holders import holders_text, lock_holders, show_holders
from rotator.system.users import group_id, user_name

FILE_MODE = 0o640
LOCK_WITHIN = 2.0
"""The seconds to wait for the lock on a drop: a delivery holds it for a few flushes, a reader for less."""
_PREFIX = ".rotator-deliver-"
_MARK = "user.rotator.delivered"
"""The attribute of a delivered file: the SHA-256 of the written content, so that a later change by hand shows."""
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Drop:
    """A drop that is open for one delivery, with its lock held.

    Args:
        path: its path, for messages.
        fd: its descriptor; -1 where it does not exist, and was not to be created.
        parent_fd: the descriptor of the directory above it.
        existed: whether it existed before.
        store_owner: the user of the store; a file that this user writes is readable for this user alone.
    """

    path: Path
    fd: int
    parent_fd: int
    existed: bool
    store_owner: int | None


@contextmanager
def open_drop(directory: Path, rights: DropRights, *, create: bool = True) -> Iterator[Drop]:
    """Opens and checks a drop for one delivery. A missing drop is created.

    The check and everything after it use one descriptor, so that another directory under the same name is never
    written to. Root opens it through no link that another user can have made, and gives up its rights before it writes.

    Args:
        directory: the drop; its parent exists.
        rights: to whom it may belong.
        create: whether a missing drop is created and the lock is taken; False for a dry run.

    Raises:
        RotatorError: `drop-foreign`: the drop belongs to another user; `busy`: another process holds its lock;
            `io-error` or `permission`: its parent is missing, or it cannot be opened or created. Nothing was written.
    """
    with ExitStack() as opened:
        parent_fd = _opened_parent(directory.parent)
        opened.callback(os.close, parent_fd)
        try:
            existed = _exists(directory, parent_fd)
            if not existed and create:
                _demand_may_create(directory, os.fstat(parent_fd), rights)
                with suppress(FileExistsError):
                    os.mkdir(directory.name, 0o700, dir_fd=parent_fd)
            drop_fd = -1
            if existed or create:
                drop_fd = os.open(directory.name, _READ_DIRECTORY, dir_fd=parent_fd)
                opened.callback(os.close, drop_fd)
            if create:
                _demand_lock(drop_fd, directory)
                if _is_new(drop_fd, rights, existed=existed):
                    _finish_new(drop_fd, os.fstat(parent_fd), rights)
                    os.fsync(parent_fd)
        except OSError as error:
            _translate(error, directory)
        if drop_fd >= 0:
            _demand_owner(directory, os.fstat(drop_fd), os.fstat(parent_fd).st_uid, rights)
        yield Drop(directory, drop_fd, parent_fd, existed, rights.store_owner)


def _opened_parent(parent: Path) -> int:
    try:
        return open_dir(parent)
    except FileNotFoundError as error:
        hint = f"Create it: {command_to_make('rotator:rotator', '3770', parent)}"
        raise _failed(f"{parent}, the directory of the drops, does not exist", hint) from error
    except OSError as error:
        _translate(error, parent)


def _exists(directory: Path, parent_fd: int) -> bool:
    """Whether the drop exists.

    Raises:
        RotatorError: `io-error` if it is no directory.
    """
    try:
        mode = os.stat(directory.name, dir_fd=parent_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        return True
    kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a directory"
    hint = f"Remove it; rotator deliver then creates a directory: {command('rm', directory)}"
    raise _failed(f"the drop {directory} is {kind}; nothing was written", hint)


def _demand_may_create(directory: Path, parent: os.stat_result, rights: DropRights) -> None:
    """Refuses to create a drop for a user to whom it may not belong: root's next delivery would refuse that drop."""
    if os.geteuid() not in (0, parent.st_uid, rights.store_owner):
        message = f"the drop {directory} does not exist, and this user may not own it"
        hint = f"Nothing was changed. Create it as root: {_command_to_create(directory, rights)}"
        raise RotatorError(Code.PERMISSION, message, hint)


def _command_to_create(directory: Path, rights: DropRights) -> str:
    owner = "rotator" if rights.store_owner is None else user_name(rights.store_owner)
    return command_to_make(f"{owner}:{rights.group or 'rotator'}", "2770", directory)


def _is_new(drop_fd: int, rights: DropRights, *, existed: bool) -> bool:
    """Whether this user has made the drop and not finished it, now or as root in a delivery that was killed."""
    status = os.fstat(drop_fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o777 != 0o700 or os.listdir(drop_fd):
        return False
    return not existed or status.st_uid == 0 != rights.store_owner


def _finish_new(drop_fd: int, parent: os.stat_result, rights: DropRights) -> None:
    """Gives a new drop its owner, its group and its mode, independent of the umask.

    Raises:
        RotatorError: `configuration`: the host has no such group.
    """
    gid = group_id(rights.group) if rights.group else None
    if rights.group and gid is None:
        hint = f"Create it: {command('groupadd --system', rights.group)}"
        raise RotatorError(
            Reason.CONFIGURATION, f"drop_group: this host has no group {rights.group}", hint, Exit.CONFIG
        )
    if os.geteuid() == 0:
        owner = parent.st_uid if rights.store_owner is None else rights.store_owner
        os.fchown(drop_fd, owner, parent.st_gid if gid is None else gid)
    elif gid is not None:
        os.fchown(drop_fd, -1, gid)
    os.fchmod(drop_fd, DIRECTORY_MODE)


def _demand_owner(directory: Path, drop: os.stat_result, incoming_owner: int, rights: DropRights) -> None:
    if drop.st_uid != os.geteuid() and not rights.trusts(drop.st_uid, incoming_owner):
        message = f"{foreign_owner(directory, drop.st_uid)}; nothing was written"
        hint = f"Move it away and deliver again, which creates it with the right owner: {move_away(directory)}"
        raise RotatorError(Reason.DROP_FOREIGN, message, hint)
    if os.geteuid() == drop.st_uid == 0 and rights.store_owner and not drop.st_mode & OTHERS_MAY_WRITE:
        owner = user_name(rights.store_owner)
        message = (
            f"the drop {directory} belongs to root, and {owner}, who writes what root delivers, may not write to it"
        )
        hint = f"Give it to that user: {command('chown -h', owner, directory)}"
        raise _failed(message, hint)


def write_drop(files: Sequence[SourceFile], drop: Drop) -> tuple[Path, ...]:
    """Writes files into a drop, each under the last part of its name.

    A file with the same name is replaced in one step. The unchanged files of an earlier delivery are removed; every
    other file stays. What the store's owner writes has mode 0600: no other user has to read a key there. What another
    user writes has mode 0640, because the store's owner reads it as a member of the drop's group.

    Args:
        files: the files; the last parts of their names must differ.
        drop: the drop, from `open_drop`.

    Returns:
        The new paths, in the given order.

    Raises:
        RotatorError: `io-error`, `permission`, or `busy` if the drop was moved away meanwhile. Nothing has changed
            then, unless the message says that files are in place.
    """
    names = [base_name(source.name) for source in files]
    mode = 0o600 if os.geteuid() == drop.store_owner else FILE_MODE
    try:
        _demand_named(drop, "nothing was written")
        _demand_replaceable(drop, names)
        _remove_own_leftovers(drop.fd)
        pending: list[str] = []
        try:
            for source in files:
                pending.append(_PREFIX + secrets.token_hex(8))
                _write(drop.fd, pending[-1], source.data, mode)
            with _earlier_delivery_removed(drop.fd, names):
                placed = _place(drop.fd, drop.path, pending, names)
        finally:
            for temporary in pending:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=drop.fd)
        _flush(drop.fd, drop.path)
        _demand_named(drop, "the files are in the directory that had its name")
    except OSError as error:
        _translate(error, drop.path)
    return placed


def _demand_named(drop: Drop, effect: str) -> None:
    """Refuses a drop that no longer has its name: another process has renamed it since it was opened."""
    with suppress(FileNotFoundError):
        named = os.stat(drop.path.name, dir_fd=drop.parent_fd, follow_symlinks=False)
        if os.path.samestat(named, os.fstat(drop.fd)):
            return
    message = f"the drop {drop.path} was moved away during the delivery; {effect}"
    hint = f"See who may write to the directory above it, then deliver again: {command('ls -ld', drop.path.parent)}"
    raise RotatorError(Reason.BUSY, message, hint, Exit.BUSY)


def _demand_replaceable(drop: Drop, names: Sequence[str]) -> None:
    """Refuses a delivery, before anything is written, if a name of it is taken by what this user cannot replace."""
    directory = os.fstat(drop.fd)
    for name in names:
        try:
            entry = os.stat(name, dir_fd=drop.fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        path = drop.path / name
        if stat.S_ISDIR(entry.st_mode):
            hint = f"Move it away, and deliver again: {command('mv -T', path, f'{path}.directory')}"
            raise _failed(f"{path} is a directory, which a file cannot replace; nothing was written", hint)
        if directory.st_mode & stat.S_ISVTX and os.geteuid() not in (0, directory.st_uid, entry.st_uid):
            owner = user_name(entry.st_uid)
            message = f"{path} belongs to {owner}, and the sticky bit of the drop lets no other user replace it"
            raise RotatorError(Code.PERMISSION, message, "Nothing was changed. Deliver as root, or as that user")


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


def _write(drop_fd: int, name: str, data: bytes, mode: int) -> None:
    fd = os.open(name, _CREATE, 0o600, dir_fd=drop_fd)  # no other user may read it before it is whole
    try:
        write_all(fd, data)
        with suppress(OSError):  # not every file system has extended attributes
            os.setxattr(fd, _MARK, hashlib.sha256(data).digest())
        os.fchmod(fd, mode)  # its group is that of the directory
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


def _demand_lock(drop_fd: int, directory: Path) -> None:
    if _lock(drop_fd, fcntl.LOCK_EX):
        return
    holders = lock_holders(os.fstat(drop_fd), any_device=True)
    message = f"the lock of {directory} is held by {holders_text(holders)}; nothing was written"
    hint = f"A delivery takes only a moment: try again. Another program has to end first: {show_holders(directory)}"
    raise RotatorError(Reason.BUSY, message, hint, Exit.BUSY)


@contextmanager
def reading_lock(directory: Path) -> Iterator[None]:
    """Keeps deliveries out of a drop while its block reads it, so that the block sees all files of one or none.

    Without a directory, or if the lock is not free in time, the block runs without the lock: its own reads report the
    problem.
    """
    try:
        drop_fd = os.open(directory, _READ_DIRECTORY)
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
            message = f"the user {user_name()} may not write to {path}"
            hint = f"Deliver as root, or as a member of the group that owns it: {command('ls -ld', path)}"
            if os.geteuid() == 0:
                see = command("ls -ld", path)
                hint = f"Its file system refuses root, as NFS does; deliver as the owner of the store: {see}"
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
