"""Privilege separation of the commands that root runs: a child becomes an ordinary user, and the parent keeps root.

The parent reads the named files, copies the child's output, passes signals on, and makes the privileged step. The child
parses: it has a session of its own without root's terminal, no descriptor of its parent, a reduced environment, and the
rights of the store's owner or of the user nobody. So every file in the store belongs to its owner, root never follows a
link that the owner could have set, and a hostile process of the owner finds nothing of root's in the child.

The child's user may not be able to read Python's own files. So a module that a command imports late must be imported
before: see `rotator.cli.unprivileged`.
"""

from __future__ import annotations

import codecs
import os
import pwd
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Request, Setup
from rotator.privsep.prctl import end_with_parent, hide_memory
from rotator.privsep.relay import JOB_CONTROL, PASSED_ON, Answer, relay
from rotator.privsep.session import CallerView, begin_session
from rotator.privsep.socket_client import ApplyPort, apply_in_parts

LATE_CODECS = ("idna", "utf-8-sig", "utf-16-be", "latin-1", "ascii", "unicode_escape")
"""The encodings that getaddrinfo() and the parsers of files use."""

Inputs = TypeVar("Inputs")


@dataclass(frozen=True, slots=True)
class Account:
    """The user and the group that a process gets.

    Args:
        uid: the user.
        gid: the group.
    """

    uid: int
    gid: int


def nobody() -> Account:
    """The account `nobody`, which has no rights of its own; its usual number on a host that lacks the name."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534)
    return Account(entry.pw_uid, entry.pw_gid)


def owner_account(directory: os.stat_result) -> Account:
    """The account of the owner of a directory, with the group that this user has everywhere.

    The directory may be of another group, such as root's, whose rights its owner does not have. Only for a user without
    an entry on this host, the group of the directory is used, and never that of root.

    Args:
        directory: the status of the directory.
    """
    try:
        return Account(directory.st_uid, pwd.getpwuid(directory.st_uid).pw_gid)
    except KeyError:
        return Account(directory.st_uid, directory.st_gid or nobody().gid)


def run_as_owner(
    setup: Setup,
    owner: os.stat_result,
    direct: ApplyPort,
    read: Callable[[], Inputs],
    work: Callable[[Inputs, ApplyPort], int],
    report: Callable[[RotatorError], int],
) -> int:
    """Reads the inputs with the caller's rights, then works as the store's owner, while root makes the privileged step.

    Args:
        setup: root's configuration.
        owner: the status of the store's directory, whose owner the child becomes.
        direct: the privileged step for a caller who does not change the user.
        read: reads the caller's files, and parses nothing.
        work: takes the result of `read` and the privileged step; returns the exit status.
        report: shows an error that the child cannot raise to the caller; returns its exit status.

    Returns:
        The exit status.

    Raises:
        RotatorError: the errors of `read`; those of `work`, if the user does not change; the errors of `relay`.
    """
    inputs = read()
    if not changes_user(owner.st_uid):
        return work(inputs, direct)

    def answer(message: bytes) -> bytes:
        return privileged.encode(privileged.carry_out(setup, privileged.parse_request(message)))

    def work_as_owner(connection: socket.socket) -> int:
        return work(inputs, _apply_by_parent(connection))

    return _separate(owner_account(owner), work_as_owner, report, answer)


def run_without_root(
    account: Account,
    work: Callable[[], int],
    report: Callable[[RotatorError], int],
    keep: Collection[int] = (),
) -> int:
    """Works as another user, if root calls, and with none of root's rights.

    Args:
        account: the user that root becomes; root itself for a store of root's own.
        work: returns the exit status.
        report: as for `run_as_owner`.
        keep: the descriptors that stay open, each above 2.

    Returns:
        The exit status.

    Raises:
        RotatorError: the errors of `work`, if the user does not change; the errors of `relay`.
    """
    if not changes_user(account.uid):
        return work()
    return _separate(account, lambda _: work(), report, None, keep)


def changes_user(uid: int) -> bool:
    """Whether this process gives up root's rights for those of this user."""
    return os.geteuid() == 0 and uid != 0


def _separate(
    account: Account,
    work: Callable[[socket.socket], int],
    report: Callable[[RotatorError], int],
    answer: Answer | None,
    keep: Collection[int] = (),
) -> int:
    """Divides this process into two halves. Returns the exit status of the unprivileged half."""
    view, parent = CallerView.now(), os.getpid()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    parent_end, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    (out, child_out), (err, child_err) = os.pipe(), os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (*PASSED_ON, *JOB_CONTROL))  # until the parent can pass them on
    child = os.fork()
    if child == 0:
        try:
            connection = socket.socket(fileno=begin_session(child_out, child_err, child_end.detach(), view, keep))
            parent_end.detach()  # its descriptor is closed, and its number may be another one's
            _work(account, lambda: work(connection), report, mask, parent)
        except BaseException:  # a bug, or a system that refuses the session; nothing is done then
            traceback.print_exc()
        finally:
            os._exit(Exit.FAILURE)
    child_end.close()
    os.close(child_out)
    os.close(child_err)
    return relay(child, out, err, parent_end, mask, answer)


def _work(
    account: Account,
    work: Callable[[], int],
    report: Callable[[RotatorError], int],
    mask: Iterable[int],
    parent: int,
) -> NoReturn:
    """The work of the child. It ends the process, so that the parent's Python code is not unwound a second time."""
    code = int(Exit.FAILURE)
    try:
        _import_late()
        os.chdir("/")
        become(account.uid, account.gid)
        hide_memory()  # the change of the user has undone it
        end_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)  # the parent has ended before it could be noticed
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = work()
    except RotatorError as e:
        code = report(e)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(Exit.FAILURE)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        if sys.stderr is not None:
            print(file=sys.stderr)  # ends the line of the terminal's ^C
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE  # the reader of the output has ended; the work itself is done
    except BaseException:  # a bug is shown here, because the process ends below
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _import_late() -> None:
    """Imports what the standard library imports at its first use: the user may not be able to read Python's files."""
    time.strptime("2026", "%Y")
    for codec in LATE_CODECS:
        codecs.lookup(codec)


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
