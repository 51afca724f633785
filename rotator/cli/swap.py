"""`rotator swap`: installs a renewed pair by hand; the rotation itself is `rotate`'s."""

from __future__ import annotations

import click

from rotator.cli import completion
from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.cli.rotation import STATUSES, Order, carry_out, dry_run, wait_for_lock

_EXAMPLE = """\
rotator swap example.cn --first --cert /etc/nginx/ssl/example.cn.crt --key /etc/nginx/ssl/example.cn.key
rotator swap example.cn --cert example.cn.crt --cert gd_bundle-g2-g1.crt --key example.cn.key --dry-run
rotator swap example.cn"""


@click.command(
    epilog=epilog(_EXAMPLE, *STATUSES),
)
@click.argument("site", shell_complete=completion.sites)
@click.option(
    "--cert", "certs", multiple=True, metavar="FILE", help="Leaf, bundle, full chain or PKCS#12; may be repeated."
)
@click.option(
    "--key", "keys", multiple=True, metavar="FILE", help="Private key, if it is in none of those; may be repeated."
)
@click.option("--password-file", default="", metavar="FILE", help="Its first line opens an encrypted key or PKCS#12.")
@click.option("--first", is_flag=True, help="The first pair of a site: write the include, print nginx's line for it.")
@dry_run
@click.option(
    "--force",
    is_flag=True,
    help="Install it although it is older than the live one or lacks a name, or the clock is suspect.",
)
@wait_for_lock
@pass_context
def swap(
    context: Context,
    site: str,
    certs: tuple[str, ...],
    keys: tuple[str, ...],
    password_file: str,
    first: bool,  # noqa: FBT001 - click passes by name
    dry: bool,  # noqa: FBT001 - as above
    force: bool,  # noqa: FBT001 - as above
    wait: float,
) -> int:
    """Install a renewed pair of SITE now and prove it on the wire, or put the old one back.

    Without files, what lies in the site's drop is taken; with an empty drop, what is live is proved again.
    """
    if keys and not certs:
        raise click.UsageError("--key goes with --cert: the certificate that belongs to the key")
    return carry_out(context, Order(site, certs, keys, password_file, first=first, dry=dry, force=force, wait=wait))
