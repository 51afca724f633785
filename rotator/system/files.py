"""Files and directories opened, read, written, locked and flushed with care for links, modes and bounds; and JSON."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_READ = 1024 * 1024
"""The most bytes of a file of the state directory: four times the size of the largest file with certificates."""
LOCK_MODE = 0o600
_POLL_EVERY = 0.02
"""Seconds between two tries for a lock."""


def make_dir(path: Path) -> None:
    """Makes a directory with mode 0750, independent of the umask.

    Raises:
        OSError: as the system says.
    """
    os.mkdir(path, 0o750)
    os.chmod(path, 0o750)  # noqa: S103 - the mode of the storage contract


def write_new(path: Path, data: bytes, mode: int, *, mtime: int = 0, flush: bool = False) -> None:
    """Writes a new file, with this mode, independent of the umask.

    Args:
        path: its name; a link is not followed.
        data: its content.
        mode: as for chmod(2).
        mtime: its time of change, in nanoseconds; 0 for now.
        flush: whether its content is to be on the disk afterwards. Its name is there after `flush_dir` only.

    Raises:
        OSError: as the system says; EEXIST where the name is taken.
    """
    fd = os.open(path, _CREATE, mode)
    try:
        write_all(fd, data)
        os.fchmod(fd, mode)
        if mtime:
            os.utime(fd, ns=(mtime, mtime))
        if flush:
            os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Writes all of the data, in as many calls as the kernel needs."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def flush_file(path: Path) -> None:
    """Returns when the data of a file is on the disk."""
    _flush(path, os.O_NOFOLLOW)


def flush_dir(path: Path) -> None:
    """Returns when the names in a directory are on the disk."""
    _flush(path, os.O_DIRECTORY)


def _flush(path: Path, flags: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_dir(path: str | os.PathLike[str], *, follow_last: bool = True) -> int:
    """The descriptor of a directory, opened by root through no link that another user can have made.

    The owner of a directory can put a link into it at any moment. If root followed that link, it would read or write
    files for that user that the user may not. So root follows no link below the first directory that other users can
    write to. Other users follow every link, because they gain nothing by one.

    Args:
        path: the directory.
        follow_last: whether the last part of the path may be a link.

    Raises:
        OSError: as the system says; ENOTDIR for a link that is not followed.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if os.geteuid() != 0:
        return os.open(path, flags | (0 if follow_last else os.O_NOFOLLOW))
    parts = Path(path).absolute().parts
    directory_fd, is_roots = os.open(parts[0], flags), True
    for number, part in enumerate(parts[1:], 2):
        follow = is_roots and (follow_last or number < len(parts))
        try:
            below_fd = os.open(part, flags | (0 if follow else os.O_NOFOLLOW), dir_fd=directory_fd)
        finally:
            os.close(directory_fd)
        directory_fd = below_fd
        status = os.fstat(directory_fd)
        is_roots = is_roots and status.st_uid == 0 and not status.st_mode & 0o022
    return directory_fd


def open_lock(path: Path) -> int:
    """The descriptor of a permanent file to be locked, which is created if it is missing.

    flock(2) needs no more than a descriptor, even one for reading. So the mode is 0600, and a wider one of an existing
    file is corrected, so that no other user can open it and hold the lock.

    Raises:
        OSError: as the system says; EPERM for the file of another user, ELOOP for a link.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, LOCK_MODE)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        if stat.S_IMODE(status.st_mode) != LOCK_MODE:
            os.fchmod(fd, LOCK_MODE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def lock_file(fd: int, within: float) -> bool:
    """Takes the exclusive flock(2) of an open file, which ends with the process that holds it.

    Args:
        fd: the open file.
        within: seconds to wait for it; 0.0 for one try.

    Returns:
        Whether the lock was available in time.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_EVERY)
        else:
            return True


class NotRegularError(ValueError):
    """The path is a directory, a FIFO, a socket or a device instead of a regular file."""


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str], *, follow_links: bool = False) -> Iterator[int]:
    """A regular file, opened for reading within the block; a FIFO in its place delays nothing.

    Args:
        path: the file.
        follow_links: whether its last part may be a link.

    Raises:
        OSError: as the system says; ELOOP for a link that is not followed.
        NotRegularError: it is something else.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotRegularError(f"{os.fspath(path)} is not a regular file")
        yield fd
    finally:
        os.close(fd)


def read_bounded(fd: int, limit: int) -> bytes:
    """The content of an open file, at most one byte more than the limit, which shows that the file is larger."""
    parts: list[bytes] = []
    left = limit + 1
    while left > 0 and (part := os.read(fd, left)):  # several reads only if the kernel returns less than requested
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_file(path: Path, limit: int = MAX_READ) -> bytes:
    """The content of a file of the state directory; a FIFO in its place delays nothing, and a link is not followed.

    Args:
        path: the file.
        limit: the bytes that it may have.

    Raises:
        OSError: as the system says; EFBIG for a larger file.
        NotRegularError: it is no regular file.
    """
    with open_regular(path) as fd:
        data = read_bounded(fd, limit)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def from_json(data: bytes) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, or is nested more deeply than Python can read.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """JSON as UTF-8 with a line feed at its end; a file name that is not UTF-8 is escaped, and read back unchanged."""
    return json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Replaces a small file in one step, without a flush: a reader sees the earlier or the new content, whole.

    Only one process at a time may replace the same file. A failure leaves the earlier file.

    Raises:
        OSError: as the system says.
    """
    new = path.with_name(f".new-{path.name}")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        write_new(new, data, mode)
        os.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
