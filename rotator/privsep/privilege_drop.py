"""Privilege separation of a command that root runs: a child becomes the store's owner, and the parent only applies.

So every file in the store belongs to its owner, and root never follows a link that the owner could have set.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import FrameType
from typing import TypeVar

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Request, Setup
from rotator.privsep.socket_client import ApplyPort, apply_in_parts

_FORWARDED = (signal.SIGTERM, signal.SIGHUP)
"""The signals that the parent sends on to the child."""
Inputs = TypeVar("Inputs")


def run_as_owner(
    setup: Setup,
    owner: os.stat_result,
    direct: ApplyPort,
    read: Callable[[], Inputs],
    work: Callable[[Inputs, ApplyPort], int],
    report: Callable[[RotatorError], int],
) -> int:
    """Reads the inputs with the caller's rights, then works as the store's owner.

    Args:
        setup: root's configuration.
        owner: the status of the store's directory, whose owner the child becomes.
        direct: the privileged step for a caller who does not change the user.
        read: reads the caller's files.
        work: takes the result of `read` and the privileged step; returns the exit status.
        report: shows an error that the child cannot raise to the caller; returns its exit status.

    Returns:
        The exit status.

    Raises:
        RotatorError: the errors of `read` and `work`, if the user does not change.
    """
    if os.geteuid() != 0 or owner.st_uid == 0:
        return work(read(), direct)
    sys.stdout.flush()
    sys.stderr.flush()
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until the parent can forward them
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        parent_end.close()
        _child(child_end, owner, read, work, report)
    child_end.close()
    return _parent(child, parent_end, setup, mask)


def _parent(child: int, connection: socket.socket, setup: Setup, mask: Iterable[int]) -> int:
    """Applies the child's requests until it ends, and forwards signals to it. Returns its exit status."""
    process = os.pidfd_open(child)

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(process, number)

    handlers = {number: signal.signal(number, forward) for number in _FORWARDED}
    handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child, too
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        while message := connection.recv(privileged.MAX_REQUEST):
            applied = privileged.carry_out(setup, privileged.parse_request(message))
            connection.send(privileged.encode(applied))
    except (OSError, ValueError):
        pass  # the child has ended or sent an invalid request; nothing further is applied
    finally:
        connection.close()  # before the wait, because the child may be waiting for an answer
        _, status = os.waitpid(child, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(process)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _child(
    connection: socket.socket,
    owner: os.stat_result,
    read: Callable[[], Inputs],
    work: Callable[[Inputs, ApplyPort], int],
    report: Callable[[RotatorError], int],
) -> None:
    """The work of the child. It ends the process, so that the parent's Python code is not unwound a second time."""
    code = int(Exit.FAILURE)
    try:
        inputs = read()
        # The owner may not be able to read Python's own files, so a module that is imported late is imported now.
        import encodings.idna  # noqa: F401 - getaddrinfo() imports it

        become(owner.st_uid, owner.st_gid)
        code = work(inputs, _apply_by_parent(connection))
    except RotatorError as e:
        code = report(e)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(Exit.FAILURE)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE  # the reader of the output has ended; the work itself is done
    except BaseException:  # a bug is shown here, because the process ends below
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def become(uid: int, gid: int) -> None:
    """Changes this process permanently to an ordinary user, with that user's groups."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        os.setgroups([gid])
    else:
        os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.umask(0o027)


def _apply_by_parent(connection: socket.socket) -> ApplyPort:
    """The privileged step, carried out by the parent."""

    def ask(request: Request) -> Applied:
        try:
            connection.send(privileged.encode(request))
            return privileged.parse_applied(connection.recv(privileged.MAX_ANSWER))
        except (OSError, ValueError) as e:
            message = "the parent process, which has root's rights, has ended"
            raise RotatorError(Reason.APPLY_GONE, message, "Repeat the command") from e

    def apply(generations: Mapping[str, str], *, hup: bool) -> Applied:
        return apply_in_parts(generations, ask, hup=hup)

    return apply
