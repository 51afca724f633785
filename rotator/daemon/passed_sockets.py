"""Sockets that the service manager has opened for this process (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

FIRST_FD = 3
"""SD_LISTEN_FDS_START."""
_MOST = 64


class NotListeningError(ValueError):
    """The passed descriptor is something else than a listening stream socket of IPv4 or IPv6."""


def take_listener(name: str, environ: MutableMapping[str, str] | None = None) -> socket.socket | None:
    """The passed listening socket with a name, non-blocking; None if this process was passed none.

    Its variables are removed from the environment, and no program that this process starts inherits the descriptor.

    Args:
        name: its `FileDescriptorName=`.
        environ: has LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES; None for the environment of the process.

    Raises:
        NotListeningError: the descriptor with this name is no listening socket.
    """
    environ = os.environ if environ is None else environ
    pid, count, names = (environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit() or int(count) > _MOST:
        return None
    found: socket.socket | None = None
    for fd, its_name in zip(range(FIRST_FD, FIRST_FD + int(count)), names.split(":"), strict=False):
        if its_name == name and found is None:
            found = _listener(fd)
    return found


def _listener(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
    except OSError as error:
        raise NotListeningError(f"descriptor {fd} is no socket: {error.strerror}") from error
    is_stream = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not is_stream or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise NotListeningError(f"descriptor {fd} is no listening TCP socket")
    listener.setblocking(False)
    return listener
