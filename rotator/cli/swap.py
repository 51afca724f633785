"""`rotator swap`: puts a renewal live by hand."""

from __future__ import annotations

import click

from rotator.cli import completion
from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.cli.rotation import STATUSES, RotationOptions, dry_run, run_rotation, wait_for_lock

_EXAMPLE = """\
rotator swap example.cn --first --cert /etc/nginx/ssl/example.cn.crt --key /etc/nginx/ssl/example.cn.key
rotator swap example.cn --cert example.cn.crt --cert gd_bundle-g2-g1.crt --key example.cn.key --dry-run
rotator swap example.cn"""


@click.command(
    epilog=epilog(_EXAMPLE, *STATUSES),
)
@click.argument("site", shell_complete=completion.sites)
@click.option(
    "--cert",
    "certs",
    multiple=True,
    metavar="FILE",
    help="A leaf, a bundle, a full chain or a PKCS#12 file; may be repeated.",
)
@click.option(
    "--key", "keys", multiple=True, metavar="FILE", help="The private key, if it is in another file; may be repeated."
)
@click.option(
    "--password-file", default="", metavar="FILE", help="The password of the key or PKCS#12 file, on the first line."
)
@click.option(
    "--first", is_flag=True, help="Install the first pair of the site, and print the line that nginx.conf needs."
)
@dry_run
@click.option(
    "--force",
    is_flag=True,
    help="Accept a pair that is older than the live one or lacks one of its names, and a suspect clock.",
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
    """Put a renewal of SITE live now and prove that every listener serves it, or put the old pair back.

    The renewal is the files of --cert and --key; without them, it is the content of the site's drop. If the drop is
    empty, the live pair is proved again.
    """
    if keys and not certs:
        raise click.UsageError("--key needs --cert: the certificate that belongs to the key")
    options = RotationOptions(site, certs, keys, password_file, first=first, dry=dry, force=force, wait=wait)
    return run_rotation(context, options)
