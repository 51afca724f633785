"""`rotator rollback`: puts a stored generation live again; the rotation itself is `rotate`'s."""

from __future__ import annotations

import click

from rotator.cli import completing
from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.cli.rotation import LOCK_WITHIN, STATUSES, Order, carry_out

_EXAMPLE = "rotator rollback example.cn\nrotator rollback example.cn --to 000012-3f9a1c0de4b7"


@click.command(
    epilog=epilog(_EXAMPLE, *STATUSES),
)
@click.argument("site", shell_complete=completing.sites)
@click.option(
    "--to",
    "generation",
    default="",
    metavar="GENERATION",
    shell_complete=completing.generations,
    help="Which one.  [default: the one before]",
)
@click.option("--dry-run", "dry", is_flag=True, help="Judge it and ask nginx and listeners; change nothing.")
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=LOCK_WITHIN,
    show_default=True,
    help="How long to wait for another rotation.",
)
@pass_context
def rollback(context: Context, site: str, generation: str, dry: bool, wait: float) -> int:  # noqa: FBT001
    """Put the generation of SITE before the live one back, and prove it on the wire.

    It is judged as any pair is, but not compared with what is live. What lies in the drop is held until it changes.
    """
    return carry_out(context, Order(site, generation=generation, back=True, dry=dry, wait=wait))
