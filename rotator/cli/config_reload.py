"""`rotator config reload`: has the running daemon read its configuration anew, and waits for its answer."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import click

from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.core.errors import Exit, RotatorError
from rotator.storage.locks import Locks

LOOK_EVERY = 0.02
"""Seconds between two looks at what the daemon says."""


@click.command(
    "reload",
    short_help="Have the running daemon read it anew, and wait until it has.",
    epilog=epilog("rotator config reload", Exit.DONE, Exit.FAILURE, Exit.USAGE, Exit.CONFIG),
)
@click.option(
    "--within",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=150.0,
    show_default=True,
    help="How long to wait for its answer.",
)
@pass_context
def config_reload(context: Context, within: float) -> int:
    """Have the running daemon read its configuration anew, and wait until it has.

    A configuration with a mistake is told here and not sent; what the daemon itself refuses is told too, and the
    configuration of before stays in force. A rotation in flight comes first. `systemctl reload rotator` does this.
    """
    locks, path = Locks(context.config.state_dir), Path(context.config_path).absolute()
    before = locks.daemon_note()
    pid = before.get("pid")
    if not isinstance(pid, int):
        if not os.access(context.config.state_dir, os.X_OK, effective_ids=True):
            words = f"{context.config.state_dir}, where the daemon's note lies, is closed to this user"
            raise RotatorError("permission", words, "As root: systemctl reload rotator")
        words = f"no daemon is running for {context.config.state_dir}"
        raise RotatorError("no-daemon", words, "systemctl start rotator")
    if before.get("config", str(path)) != str(path):
        words = f"the daemon, pid {pid}, reads {before['config']}, not {path}"
        raise RotatorError("usage", words, f"rotator --config {before['config']} config reload", Exit.USAGE)
    _become_owner(context.config.state_dir)
    _hang_up(pid)
    after = _answer(locks, before, within)
    if refused := after.get("refused"):
        words = f"the daemon did not take it: {refused}. The configuration of before stays in force"
        raise RotatorError("configuration", words, "journalctl -u rotator tells it too", Exit.CONFIG)
    sites = f"{len(context.config.sites)} site{'s' * (len(context.config.sites) != 1)}"
    if context.json:
        context.output.data({"pid": pid, "config": path, "sites": len(context.config.sites)})
    else:
        context.output.line(f"{path}: in force, {sites}")
    return Exit.DONE


def _become_owner(state_dir: Path) -> None:
    """Gives up root: the owner of the store writes the pid there, and could name any process of this host."""
    if os.geteuid() != 0:
        return
    from rotator.privsep.fork import become

    owner = state_dir.stat()
    if owner.st_uid != 0:
        become(owner.st_uid, owner.st_gid)


def _hang_up(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
        finally:
            os.close(process)
    except ProcessLookupError as e:
        raise RotatorError("no-daemon", f"the daemon, pid {pid}, has just ended", "systemctl status rotator") from e
    except PermissionError as e:
        hint = "As root: systemctl reload rotator"
        raise RotatorError("permission", f"the daemon, pid {pid}, belongs to another user", hint) from e


def _answer(locks: Locks, before: dict[str, Any], within: float) -> dict[str, Any]:
    """What the daemon says after its next load."""
    end = time.monotonic() + within
    while True:
        note = locks.daemon_note()
        if note.get("pid") != before["pid"]:
            words = f"the daemon, pid {before['pid']}, ended before it answered"
            raise RotatorError("no-daemon", words, "systemctl status rotator")
        if note.get("loads") != before.get("loads"):
            return note
        if time.monotonic() >= end:
            words = f"the daemon, pid {before['pid']}, has not read its configuration within {within:g} s"
            raise RotatorError("not-decided", words, "A rotation in flight comes first; see: systemctl status rotator")
        time.sleep(LOOK_EVERY)
