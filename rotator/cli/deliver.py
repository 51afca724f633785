"""`rotator deliver`: reads with the caller's rights, writes with those of the drop's owner; judges nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from rotator.cli import completion
from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import SourceFile
from rotator.core.reasons import Reason
from rotator.core.text import shown_name
from rotator.sources import delivery, file_reader

_EXAMPLE = """\
rotator deliver example.cn fullchain.pem privkey.pem
rotator deliver --wait example.cn fullchain.pem privkey.pem
certbot renew --cert-name example.cn --deploy-hook \\
      'rotator deliver --wait example.cn "$RENEWED_LINEAGE/fullchain.pem" "$RENEWED_LINEAGE/privkey.pem"'"""


@click.command(epilog=epilog(_EXAMPLE, *sorted(Exit)))
@click.argument("site", shell_complete=completion.sites)
@click.argument("files", nargs=-1, required=True, type=click.Path(readable=False))
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing, and say what would be written.")
@click.option("--wait", is_flag=True, help="Wait until the daemon has decided, and exit as it ended.")
@click.option(
    "--within",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    help="How long --wait waits at most.",
)
@pass_context
def deliver(context: Context, site: str, files: tuple[str, ...], *, dry_run: bool, wait: bool, within: float) -> int:
    """Put renewed FILES (certificate, chain and key, in any split) into the drop of SITE.

    All of them appear there together, under their own names, in place of those of an earlier delivery. Whether they
    are fit to be served is judged when they are taken from there: see "rotator check" to ask beforehand. Root reads
    them as root and writes as the owner of the drop; anybody else needs the right to read the files and to write into
    the drop.
    """
    one, output = context.config.site(site), context.output
    if one.source is not None:
        raise RotatorError(
            Reason.NO_DROP,
            f"site {site} takes its renewals from {one.source} ({context.config_path}:{one.line}), not from a drop",
            f"Renew them there; or leave out its source, then deliver to {context.config.incoming / site}",
            Exit.USAGE,
        )
    waits = wait and not dry_run
    if waits:
        from rotator.cli import awaiting  # now: as another user, Python's own files may be out of reach

    sources = read_files(files)
    directory = context.config.incoming / site
    owner = delivery.owner_of(directory)
    writer = owner.uid if os.geteuid() == 0 else os.geteuid()
    if not dry_run:
        if os.geteuid() == 0 and owner.uid != 0:
            from rotator.privsep.privilege_drop import become

            # For good: nothing that follows needs root, and root would follow what the owner has planted.
            become(owner.uid, owner.gid)
        delivery.write_drop(sources, directory)
        if beside := _beside(directory, sources):
            count = f"{len(beside)} other file{'s' * (len(beside) != 1)}"
            output.say(f"note: {count} in {directory} will be judged together with these: {', '.join(beside[:5])}")
    if not (waits and context.json):
        _report(context, site, directory, sources, writer, makes=not owner.exists, dry_run=dry_run, waits=waits)
    return awaiting.await_outcome(context, one, within, sources) if waits else Exit.DONE


def _beside(directory: Path, sources: Sequence[SourceFile]) -> list[str]:
    """What else lies in the drop, put there by others."""
    mine = {delivery.base_name(source.name) for source in sources}
    with suppress(OSError):
        names = sorted(path.name for path in directory.iterdir())
        return [shown_name(name) for name in names if name not in mine and not file_reader.is_temporary(name)]
    return []


def read_files(names: Sequence[str]) -> tuple[SourceFile, ...]:
    """The caller's files, without those that a drop could not hold.

    Raises:
        RotatorError: the first file that is refused, and why; exit status 3. Nothing has been written then.
    """
    if len(names) > file_reader.MAX_FILES:
        raise _refused(
            f"{len(names)} files are more than the {file_reader.MAX_FILES} of a drop", "Deliver one renewal."
        )
    bases: dict[str, str] = {}
    sources: list[SourceFile] = []
    for name in names:
        base = Path(name).name
        if base and file_reader.is_temporary(base):
            hint = "Files of such names are passed over in a drop, because they are not finished. Rename it."
            raise _refused(f"{shown_name(name)} has the name of a temporary file", hint)
        source = file_reader.read_named(name)
        if base in bases:
            raise _refused(f"{bases[base]} and {name} would have one name in the drop", "Rename one of them.")
        bases[base] = name
        sources.append(source)
    total = sum(len(source.data) for source in sources)
    if total > file_reader.MAX_TOTAL:
        raise _refused(f"{total} bytes are more than the {file_reader.MAX_TOTAL} of a drop", "Deliver one renewal.")
    return tuple(sources)


def _refused(message: str, hint: str) -> RotatorError:
    return RotatorError(Reason.REFUSED, message, hint, Exit.REJECTED)


def _report(
    context: Context,
    site: str,
    directory: Path,
    sources: Sequence[SourceFile],
    writer: int,
    *,
    makes: bool,
    dry_run: bool,
    waits: bool,
) -> None:
    output = context.output
    if output.json:
        output.data(
            {
                "site": site,
                "drop": directory,
                "dry_run": dry_run,
                "uid": writer,
                "made_drop": makes,
                "files": [
                    {"from": one.name, "to": directory / delivery.base_name(one.name), "bytes": len(one.data)}
                    for one in sources
                ],
            }
        )
        return
    does = "would be delivered" if dry_run else "delivered"
    if makes:
        output.line(
            f"{directory}/ {'would be made' if dry_run else 'made'} (mode {delivery.DIRECTORY_MODE:o}, uid {writer})"
        )
    for one in sources:
        output.line(f"{one.name} {does} to {directory / delivery.base_name(one.name)} ({len(one.data)} bytes)")
    if not dry_run and not waits:
        output.say("What becomes of it: rotator status")
