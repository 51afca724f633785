"""Root beside an unprivileged store: the parent keeps root and does nothing but apply, the child becomes the owner.

So nothing is left in the store that the daemon's user could not manage, and root follows no link that it might plant.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from types import FrameType
from typing import TypeVar

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Setup
from rotator.privsep.oneshot import ApplyPort, request

_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
T = TypeVar("T")


def run_as_owner(
    setup: Setup,
    owner: os.stat_result,
    own: ApplyPort,
    read: Callable[[], T],
    work: Callable[[T, ApplyPort], int],
    report: Callable[[RotatorError], int],
) -> int:
    """Reads the inputs with the caller's rights, then works as the store's owner.

    Args:
        setup: root's configuration.
        owner: the directory of the store, whose owner works.
        own: the privileged step for whoever needs no other user.
        read: reads the caller's files.
        work: gets what was read and the privileged step; returns the exit status.
        report: tells an error where it cannot be raised to the caller; returns its exit status.

    Returns:
        The exit status.

    Raises:
        RotatorError: where no other user is involved, what `read` and `work` raise.
    """
    if os.geteuid() != 0 or owner.st_uid == 0:
        return work(read(), own)
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # until there is somebody to pass them on to
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        ours.close()
        _child(theirs, owner, read, work, report)
    theirs.close()
    return _parent(child, ours, setup, held)


def _parent(child: int, sock: socket.socket, setup: Setup, held: Iterable[int]) -> int:
    """Applies what the child asks for, until it ends; a signal that ends a command is passed on for it to answer."""
    process = os.pidfd_open(child)

    def pass_on(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(process, number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the child too
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    try:
        while message := sock.recv(privileged.MAX_REQUEST):
            done = privileged.apply(setup, privileged.parse_request(message))
            sock.send(json.dumps(asdict(done)).encode())
    except (OSError, ValueError):
        pass  # the child is gone or talks nonsense: nothing more is applied
    finally:
        sock.close()  # before the child is waited for, which may be waiting for an answer
        _, status = os.waitpid(child, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(process)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _child(
    sock: socket.socket,
    owner: os.stat_result,
    read: Callable[[], T],
    work: Callable[[T, ApplyPort], int],
    report: Callable[[RotatorError], int],
) -> None:
    """Never returns: the parent's Python is not to be unwound twice."""
    code = int(Exit.FAILURE)
    try:
        inputs = read()
        # Python itself may lie where only root can read: what is imported late has to be there by now.
        import encodings.idna  # noqa: F401 - getaddrinfo() looks for it

        become(owner.st_uid, owner.st_gid)
        code = work(inputs, _through(sock))
    except RotatorError as e:
        code = report(e)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(Exit.FAILURE)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE  # nobody reads the answer; what it is about is done
    except BaseException:  # a bug is shown here, because nothing above this can
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def become(uid: int, gid: int) -> None:
    """Becomes an ordinary user for good, with that user's groups."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        os.setgroups([gid])
    else:
        os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.umask(0o027)


def _through(sock: socket.socket) -> ApplyPort:
    """The privileged step, done by the parent."""

    def apply(generations: Mapping[str, str], *, hup: bool) -> Applied:
        asked = request(generations, hup=hup)
        try:
            sock.send(json.dumps(asdict(asked)).encode())
            return privileged.parse_applied(sock.recv(privileged.MAX_ANSWER))
        except (OSError, ValueError) as e:
            raise RotatorError(Reason.APPLY_GONE, "the process that keeps root is gone", "Repeat the command") from e

    return apply
