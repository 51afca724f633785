"""`rotator run`: runs the daemon in the foreground, for a service manager or a terminal."""

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
    """Run the daemon: watch the drops of all sites and put each renewal live, until SIGTERM or Ctrl-C.

    At the start, the daemon proves that every live pair is served. It puts a valid renewal live as soon as its last
    file arrives, and proves that every listener serves it. It rejects an invalid renewal with the reason, and changes
    nothing. SIGHUP loads the configuration again. The log goes to stderr; "rotator status" and "rotator history" show
    the outcomes, too.
    """
    from rotator.daemon.journal import Journal
    from rotator.daemon.sd_notify import Notifier
    from rotator.daemon.service import Daemon

    return Daemon(Path(context.config_path), Journal(), Notifier()).run()
