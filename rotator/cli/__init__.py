"""The command line: commands, arguments, output. Never: a rule of a renewal.

Each command is imported only when it is run.
"""

from __future__ import annotations

import click

from rotator import __version__
from rotator.cli.context import Context, common_options
from rotator.cli.group import LazyGroup

COMMANDS = {
    "demo": ("rotator.cli.demo:demo", "Play the whole job here and now, with an nginx of its own."),
    "run": ("rotator.cli.run:run", "Watch the drops and put each renewal live, as a daemon."),
    "deliver": ("rotator.cli.deliver:deliver", "Put renewed files into a site's drop, whole and at once."),
    "swap": ("rotator.cli.swap:swap", "Install a renewed pair now, and prove it on the wire."),
    "rollback": ("rotator.cli.rollback:rollback", "Go back to the pair before, and prove it on the wire."),
    "check": ("rotator.cli.check:check", "Say whether strict clients would accept a pair. Touches nothing."),
    "probe": ("rotator.cli.probe:probe", "Say whether strict clients accept what a server sends now."),
    "status": ("rotator.cli.status:status", "Show what is wanted, what is on disk and what is served."),
    "history": ("rotator.cli.history:history", "Show what happened, when, and who did it."),
    "config": (
        "rotator.cli.config_check:config",
        "Check the configuration, or have the daemon read it anew.",
    ),
    "help": ("rotator.cli.help:help_", "Show the manual, or what a code, status or option means."),
}
"""For each command: `module:attribute`, and its line in the help."""


@click.command(
    "rotator",
    cls=LazyGroup,
    lazy=COMMANDS,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: rotator demo. Each command's --help has examples and its exit statuses. "
    'Completion by Tab: eval "$(_ROTATOR_COMPLETE=bash_source rotator)", or zsh_source, fish_source.',
)
@click.version_option(__version__, message="rotator %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Put renewed certificates into nginx and prove that they are served, or put the old ones back."""
    ctx.ensure_object(Context)


def main() -> None:
    """The console command `rotator`."""
    cli.main(prog_name="rotator")
