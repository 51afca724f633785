"""The test of whether only root can change what a path names, from the file to the top directory.

`rotator.__main__` uses this module before it has checked where modules come from. So it imports only what every Python
has loaded before it runs a program, and that excludes `__future__`.
"""

import os
import stat

MOST_LINKS = 40
"""The most symbolic links on one path, as in the kernel."""
OVERFLOW_UID_FILE = "/proc/sys/kernel/overflowuid"
UID_MAP_FILE = "/proc/self/uid_map"


class Fault:
    """One directory or file on a path that a user other than root can change.

    Args:
        path: the directory or file, without symbolic links on the way.
        uid: its owner.
        foreign: whether its owner is the reason; otherwise its mode is.
    """

    def __init__(self, path: str, uid: int, *, foreign: bool) -> None:
        self.path, self.uid, self.foreign = path, uid, foreign

    def __str__(self) -> str:
        return f"{self.path} " + (f"belongs to uid {self.uid}" if self.foreign else "may be written by other users")


def overflow_uid() -> int:
    """The user that a user namespace shows in place of each user that it does not map."""
    try:
        with open(OVERFLOW_UID_FILE) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534


def is_root(uid: int) -> bool:
    """Whether a file with this owner may be root's.

    A user namespace that does not map root (`PrivateUsers=` in a user's service manager, `unshare --user`) shows root
    as the overflow user, like every other user that it does not map. systemd's `PrivateUsers=yes` in a system service
    maps root and the service's user (systemd.exec(5)), and there the overflow user is never root.

    Args:
        uid: the owner, as stat(2) has it.
    """
    return uid == 0 or (uid == overflow_uid() and not _maps_root())


def faults_of(path: str, user: int = 0) -> list[Fault]:
    """Everything on a path that users other than root, and other than this user, can change; empty if nothing is.

    Each directory on the way counts, and the file itself. A symbolic link counts by its directory and its target. A
    directory that others may write to counts also if it is sticky. The exception is a directory of root's in a sticky
    one of root's, as in `/tmp`: there, no other user can replace or rename it, and it cannot be a hard link.

    Args:
        path: the path; what of it does not exist is left out.
        user: another user who is trusted like root.

    Raises:
        OSError: as the system says, for a directory that this user may not enter or a circle of links.
    """
    found: dict[str, Fault] = {}
    current, links, sticky = "/", 0, None
    waiting = _parts(path if path.startswith("/") else os.path.join(os.getcwd(), path))
    status = os.lstat(current)
    while True:
        sticky = _examine(current, status, user, found, last=not waiting)
        if not waiting:
            return list(found.values())
        name = waiting.pop()
        below = current.rpartition("/")[0] or "/" if name == ".." else os.path.join(current, name)
        try:
            status = os.lstat(below)
        except (FileNotFoundError, NotADirectoryError):
            return list(found.values())
        if sticky and not (stat.S_ISDIR(status.st_mode) and (is_root(status.st_uid) or status.st_uid == user)):
            found.setdefault(current, sticky)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > MOST_LINKS:
                raise OSError(40, "too many symbolic links", path)
            target = os.readlink(below)  # noqa: PTH115 - pathlib may not be loaded yet
            waiting += _parts(target)
            below = "/" if target.startswith("/") else current
            status = os.lstat(below)
        current = below


def _examine(path: str, status: os.stat_result, user: int, found: dict[str, Fault], *, last: bool) -> Fault | None:
    """Adds the fault of a directory or file. Returns that of a sticky directory, which depends on its next entry."""
    if not is_root(status.st_uid) and status.st_uid != user:
        found.setdefault(path, Fault(path, status.st_uid, foreign=True))
    elif status.st_mode & 0o022 and not stat.S_ISCHR(status.st_mode):  # no user changes what /dev/zero holds
        fault = Fault(path, status.st_uid, foreign=False)
        if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and not last:
            return fault
        found.setdefault(path, fault)
    return None


def _parts(path: str) -> list[str]:
    """The parts of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _maps_root() -> bool:
    """Whether the user namespace of this process has a number for root of the namespace around it."""
    try:
        with open(UID_MAP_FILE) as file:
            return any(int(line.split()[1]) == 0 for line in file)
    except (OSError, ValueError, IndexError):
        return True
