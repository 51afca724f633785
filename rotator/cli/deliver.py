"""`rotator deliver`: reads files with the caller's rights; root then writes them into a drop as the store's owner."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from rotator.cli import completion
from rotator.cli.context import Context, pass_context
from rotator.cli.formats import delivery_answer
from rotator.cli.group import epilog
from rotator.cli.unprivileged import run_as, store_account
from rotator.config import SiteConfig
from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command, shell_word
from rotator.core.model import SourceFile
from rotator.core.reasons import Reason
from rotator.core.text import shown_name
from rotator.sources import delivery, file_reader
from rotator.sources.drop_rights import DIRECTORY_MODE, DropRights, unsafe_drops
from rotator.storage.generations import demand_state_dir

_EXAMPLE = """\
rotator deliver example.cn fullchain.pem privkey.pem
rotator deliver --wait example.cn fullchain.pem privkey.pem
certbot renew --cert-name example.cn --deploy-hook \\
      'rotator deliver --wait example.cn "$RENEWED_LINEAGE/fullchain.pem" "$RENEWED_LINEAGE/privkey.pem"'"""


@click.command(epilog=epilog(_EXAMPLE, *sorted(Exit)))
@click.argument("site", shell_complete=completion.sites)
@click.argument("files", nargs=-1, required=True, type=click.Path(readable=False))
@click.option("--dry-run", is_flag=True, help="Read the files and show what would be written; write nothing.")
@click.option("--wait", is_flag=True, help="Wait for the daemon's decision; the exit status is that of the outcome.")
@click.option(
    "--within",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    help="The longest time to wait with --wait.",
)
@pass_context
def deliver(context: Context, site: str, files: tuple[str, ...], *, dry_run: bool, wait: bool, within: float) -> int:
    """Put the FILES of a renewal (certificate, chain and key, in one file or several) into the drop of SITE.

    The drop is the directory in which the site's renewals arrive: SITE in "incoming" of the configuration.
    All files appear in the drop together, under their own names, and replace the files of an earlier delivery. The
    daemon validates them there and puts the pair live; "rotator check" validates files beforehand. Root reads the files
    as root, and writes them as the owner of the store, who alone can read them in the drop. Any other user must be
    allowed to read the files and to write to the drop, and the drop's group can read them there.
    """
    site_config, output = context.config.site(site), context.output
    if site_config.source is not None:
        at = f"{context.config_path}:{site_config.line}"
        raise RotatorError(
            Reason.NO_DROP,
            f"site {site} takes its renewals from {site_config.source} ({at}), not from a drop",
            f"Put the files there; or remove its source, then deliver to {shell_word(context.config.incoming / site)}",
            Exit.USAGE,
        )
    waits = wait and not dry_run
    if waits:
        from rotator.cli import await_outcome  # now, because another user may not be able to read Python's files

    try:
        sources = read_files(files)
    except RotatorError as e:
        raise RotatorError(e.code, f"{e.message.rstrip('.')}. Nothing was delivered", e.hint, e.exit) from e
    directory = context.config.incoming / site
    rights = _rights(context, site_config)
    with delivery.open_drop(directory, rights, create=not dry_run) as drop:

        def write() -> int:
            if not dry_run:
                delivery.write_drop(sources, drop)
            if not dry_run and (others := _other_files(directory, sources)):
                names = ", ".join(map(shell_word, others[:5]))
                count = f"{len(others)} other file{'s' * (len(others) != 1)}"
                output.say(f"note: {count} in {directory} will be validated together with these: {names}")
            for fault in unsafe_drops(context.config.incoming, {site: rights}):
                output.say(f"warning: {fault}")
            if not (waits and context.json):
                _show(context, site, directory, sources, os.geteuid(), makes=not drop.existed, dry=dry_run, waits=waits)
            return Exit.DONE

        # The files then belong to the store's owner. The descriptors stay, so no other directory takes their place.
        account, opened = store_account(context.config), [fd for fd in (drop.fd, drop.parent_fd) if fd >= 0]
        code = run_as(account, context, write, opened)
    if code or not waits:
        return code
    return run_as(account, context, lambda: await_outcome.await_outcome(context, site_config, within, sources))


def _rights(context: Context, site_config: SiteConfig) -> DropRights:
    """The rights of the site's drop. Root needs the store's owner, who alone may read the keys that it delivers.

    Raises:
        RotatorError: `no-store`: root delivers before the store exists.
    """
    store_owner: int | None = None
    try:
        store_owner = demand_state_dir(context.config.state_dir).st_uid
    except RotatorError:
        if os.geteuid() == 0:
            raise
    return DropRights(store_owner, site_config.drop_owner, site_config.drop_group)


def _other_files(directory: Path, sources: Sequence[SourceFile]) -> list[str]:
    """The files of the drop that this delivery has not written."""
    delivered = {delivery.base_name(source.name) for source in sources}
    with suppress(OSError):
        names = sorted(path.name for path in directory.iterdir())
        others = [name for name in names if name not in delivered and not file_reader.is_temporary(name)]
        return [shown_name(name) for name in others]
    return []


def read_files(names: Sequence[str]) -> tuple[SourceFile, ...]:
    """The contents of the files, if a drop may hold them all.

    Raises:
        RotatorError: the first file that is refused, and why; exit status 3. Nothing has been written then.
    """
    if len(names) > file_reader.MAX_FILES:
        message = f"{len(names)} files are too many: a drop may hold {file_reader.MAX_FILES}"
        raise _refused(message, "Deliver the files of one renewal only.")
    paths: dict[str, str] = {}
    sources: list[SourceFile] = []
    for name in names:
        base = Path(name).name
        if base and file_reader.is_temporary(base):
            hint = "A drop's reader ignores it, because tools use such names for unfinished files. Rename it."
            raise _refused(f"{shown_name(name)} has the name of a temporary file", hint)
        source = file_reader.read_named(name)
        if base in paths:
            raise _refused(f"{paths[base]} and {name} would have the same name in the drop", "Rename one of them.")
        paths[base] = name
        sources.append(source)
    total = sum(len(source.data) for source in sources)
    if total > file_reader.MAX_TOTAL:
        message = f"{total} bytes are too many: a drop may hold {file_reader.MAX_TOTAL}"
        raise _refused(message, "Deliver the files of one renewal only.")
    return tuple(sources)


def _refused(message: str, hint: str) -> RotatorError:
    return RotatorError(Reason.REFUSED, message, hint, Exit.REJECTED)


def _show(
    context: Context,
    site: str,
    directory: Path,
    sources: Sequence[SourceFile],
    writer: int,
    *,
    makes: bool,
    dry: bool,
    waits: bool,
) -> None:
    output = context.output
    if output.json:
        files = [(source.name, directory / delivery.base_name(source.name), len(source.data)) for source in sources]
        output.data(delivery_answer(site, directory, files, uid=writer, made=makes, dry_run=dry))
        return
    verb = "would be delivered" if dry else "delivered"
    if makes:
        created = "would be created" if dry else "created"
        output.line(f"{directory}/ {created} (mode {DIRECTORY_MODE:o}, uid {writer})")
    for source in sources:
        target = directory / delivery.base_name(source.name)
        output.line(f"{source.name} {verb} to {target} ({len(source.data)} bytes)")
    if not dry and not waits:
        output.say(f"See the outcome: {command('rotator status', site)}")
