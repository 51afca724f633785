"""`rotator rollback`: puts a stored generation live again."""

from __future__ import annotations

import click

from rotator.cli import completion
from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.cli.rotation import STATUSES, RotationOptions, dry_run, run_rotation, wait_for_lock

_EXAMPLE = "rotator rollback example.cn\nrotator rollback example.cn --to 000012-3f9a1c0de4b7"


@click.command(
    epilog=epilog(_EXAMPLE, *STATUSES),
)
@click.argument("site", shell_complete=completion.sites)
@click.option(
    "--to",
    "generation",
    default="",
    metavar="GENERATION",
    shell_complete=completion.generations,
    help="The generation to put back.  [default: the previous one]",
)
@dry_run
@wait_for_lock
@pass_context
def rollback(context: Context, site: str, generation: str, dry: bool, wait: float) -> int:  # noqa: FBT001 - click's way
    """Put the previous pair of SITE back, and prove that every listener serves it.

    The pair is validated like a renewal, but not compared with the live pair. Afterwards the content of the drop is
    held: the daemon does not put it live until it changes, or until "rotator swap SITE". "rotator history SITE" names
    the generations.
    """
    return run_rotation(context, RotationOptions(site, generation=generation, back=True, dry=dry, wait=wait))
