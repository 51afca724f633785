"""`rotator config reload`: has the running daemon load its configuration again, and waits for the result."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click

from rotator.cli.context import Context, pass_context
from rotator.cli.formats import config_reload_answer
from rotator.cli.group import epilog
from rotator.cli.unprivileged import run_as, store_account
from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.core.text import escaped
from rotator.storage.locks import Locks
from rotator.storage.notes import DaemonNote

POLL_EVERY = 0.02
"""Seconds between two reads of the daemon's note."""


@click.command(
    "reload",
    short_help="Have the running daemon load it again, and wait for the result.",
    epilog=epilog("rotator config reload", Exit.DONE, Exit.FAILURE, Exit.USAGE, Exit.CONFIG),
)
@click.option(
    "--within",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=150.0,
    show_default=True,
    help="How long to wait for the daemon.",
)
@pass_context
def config_reload(context: Context, within: float) -> int:
    """Have the running daemon load its configuration again, and wait for the result.

    A configuration with a mistake is reported here, and the daemon is not asked. If the daemon refuses it, the reason
    is shown, and the previous configuration stays in force. The daemon first completes a rotation that is in progress.
    `systemctl reload rotator` runs this command.
    """
    path = Path(context.config_path).absolute()
    return run_as(store_account(context.config), context, lambda: _reload(context, path, within))


def _reload(context: Context, path: Path, within: float) -> int:
    """The command without root's rights: the owner of the store writes the daemon's note, and so the pid in it."""
    locks = Locks(context.config.state_dir)
    before = locks.daemon_note()
    pid = before.pid
    if not pid:
        if not os.access(context.config.state_dir, os.X_OK, effective_ids=True):
            message = f"this user may not read {context.config.state_dir}, where the daemon keeps its note"
            raise RotatorError(Code.PERMISSION, message, "As root: systemctl reload rotator")
        message = f"no daemon is running for {context.config.state_dir}"
        raise RotatorError(Reason.NO_DAEMON, message, "systemctl start rotator")
    if before.config not in ("", str(path)):
        message = f"the daemon, pid {pid}, uses {escaped(before.config)}, not {escaped(str(path))}"
        hint = "Name the daemon's configuration: rotator --config FILE config reload"
        raise RotatorError(Reason.USAGE, message, hint, Exit.USAGE)
    _send_hangup(pid)
    after = _await_reload(locks, before, within)
    if after.refused:
        cause = escaped(after.refused).rstrip(".")
        message = f"the daemon refused the configuration: {cause}. The previous configuration stays in force"
        hint = "Correct what it names, then: systemctl reload rotator"
        raise RotatorError(Reason.CONFIGURATION, message, hint, Exit.CONFIG)
    sites = f"{len(context.config.sites)} site{'s' * (len(context.config.sites) != 1)}"
    if context.json:
        context.output.data(config_reload_answer(pid, path, len(context.config.sites)))
    else:
        context.output.line(f"{escaped(str(path))}: in force, {sites}")
    return Exit.DONE


def _send_hangup(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
        finally:
            os.close(process)
    except ProcessLookupError as e:
        raise RotatorError(
            Reason.NO_DAEMON, f"the daemon, pid {pid}, has just ended", "systemctl status rotator"
        ) from e
    except PermissionError as e:
        hint = "As root: systemctl reload rotator"
        raise RotatorError(Code.PERMISSION, f"the daemon, pid {pid}, belongs to another user", hint) from e


def _await_reload(locks: Locks, before: DaemonNote, within: float) -> DaemonNote:
    """The daemon's note after its next load of the configuration.

    Args:
        locks: where the note is read.
        before: the note before the signal.
        within: the seconds to wait.

    Raises:
        RotatorError: `no-daemon` if the daemon has ended, `not-decided` if it has not loaded the configuration in time.
    """
    deadline = time.monotonic() + within
    while True:
        note = locks.daemon_note()
        if note.pid != before.pid:
            message = f"the daemon, pid {before.pid}, ended before it loaded the configuration"
            raise RotatorError(Reason.NO_DAEMON, message, "systemctl status rotator")
        if note.loads != before.loads:
            return note
        if time.monotonic() >= deadline:
            message = f"the daemon, pid {before.pid}, has not loaded its configuration within {within:g} s"
            hint = "It first completes a rotation that is in progress; see: systemctl status rotator"
            raise RotatorError(Reason.NOT_DECIDED, message, hint)
        time.sleep(POLL_EVERY)
