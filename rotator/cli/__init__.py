"""The command line: commands, arguments, output. Never: a rule of a renewal.

Each command is imported only when it is run.
"""

from __future__ import annotations

import click

from rotator import __version__
from rotator.cli.context import Context, common_options
from rotator.cli.group import LazyGroup

COMMANDS = {
    "demo": ("rotator.cli.demo:demo", "Show rotator at work with an nginx of its own."),
    "run": ("rotator.cli.run:run", "Run the daemon: watch the drops, put each renewal live."),
    "deliver": ("rotator.cli.deliver:deliver", "Put the files of a renewal into a site's drop."),
    "swap": ("rotator.cli.swap:swap", "Put a renewal live now, and prove that it is served."),
    "rollback": ("rotator.cli.rollback:rollback", "Put the previous pair back, and prove that it is served."),
    "check": ("rotator.cli.check:check", "Check files: would strict clients accept them?"),
    "probe": ("rotator.cli.probe:probe", "Check a server: do strict clients accept its certificate?"),
    "status": ("rotator.cli.status:status", "Show what is wanted, what is on disk and what is served."),
    "history": ("rotator.cli.history:history", "Show what happened to a site, when, and who did it."),
    "config": ("rotator.cli.config_check:config", "Check the configuration, or have the daemon load it again."),
    "help": ("rotator.cli.help:help_", "Show the manual, or what a code, status or option means."),
}
"""The `module:attribute` of each command, and its line in the help."""


@click.command(
    "rotator",
    cls=LazyGroup,
    lazy=COMMANDS,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: rotator demo. The --help of each command has examples and its exit statuses. "
    'For completion by Tab: eval "$(_ROTATOR_COMPLETE=bash_source rotator)", or zsh_source, fish_source.',
)
@click.version_option(__version__, message="rotator %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Put renewed certificates into nginx and prove that they are served, or put the old ones back."""
    ctx.ensure_object(Context)


def main() -> None:
    """The console command `rotator`."""
    cli.main(prog_name="rotator")
