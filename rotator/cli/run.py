"""`rotator run`: the daemon in the foreground, for a service manager or a terminal; its loop is `rotator.daemon`'s."""

from __future__ import annotations

from pathlib import Path

import click

from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.core.errors import Exit


@click.command(
    epilog=epilog(
        "rotator run\nrotator --config ./rotator.toml run",
        Exit.DONE,
        Exit.FAILURE,
        Exit.USAGE,
        Exit.BUSY,
        Exit.CONFIG,
    )
)
@pass_context
def run(context: Context) -> int:
    """Watch the drops of all sites and put each renewal live, until SIGTERM or Ctrl-C.

    A renewal that is fit is put into nginx and proved at every listener a moment after its last file is there; one
    that is not is refused with a reason, and nothing is changed. At the start everything that is live is proved.
    SIGHUP has the configuration read again. What happens is told on stderr: rotator history and rotator status show it
    too.
    """
    from rotator.daemon.journal import Journal
    from rotator.daemon.sd_notify import Notifier
    from rotator.daemon.service import Daemon

    return Daemon(Path(context.config_path), Journal(), Notifier()).run()
