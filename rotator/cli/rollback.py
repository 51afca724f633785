"""`rotator rollback`: puts a stored generation live again; the rotation itself is `rotate`'s."""

from __future__ import annotations

import click

from rotator.cli import completion
from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.cli.rotation import STATUSES, Order, carry_out, dry_run, wait_for_lock

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
    help="Which one.  [default: the one before]",
)
@dry_run
@wait_for_lock
@pass_context
def rollback(context: Context, site: str, generation: str, dry: bool, wait: float) -> int:  # noqa: FBT001 - click's way
    """Put the generation of SITE before the live one back, and prove it on the wire.

    It is judged as any pair is, but not compared with what is live. What lies in the drop is held until it changes.
    """
    return carry_out(context, Order(site, generation=generation, back=True, dry=dry, wait=wait))
