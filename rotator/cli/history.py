"""`rotator history`: shows the audit trail of a site as it was recorded."""

from __future__ import annotations

import click

from rotator.cli import completion
from rotator.cli.context import Context, pass_context
from rotator.cli.formats import history_answer
from rotator.cli.group import epilog
from rotator.cli.unprivileged import as_store_owner
from rotator.core.errors import Exit
from rotator.core.text import escaped
from rotator.core.times import rfc3339
from rotator.storage.generations import demand_state_dir
from rotator.storage.history import History

_EXAMPLE = "rotator history example.cn\nrotator history example.cn --limit 5"
_STYLES = {"rotated": "good", "unchanged": "", "deferred": "warn"}


@click.command(epilog=epilog(_EXAMPLE, Exit.DONE, Exit.FAILURE, Exit.USAGE, Exit.CONFIG))
@click.argument("site", shell_complete=completion.sites)
@click.option(
    "--limit",
    metavar="NUMBER",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="The number of newest entries; 0 for all.",
)
@pass_context
@as_store_owner
def history(context: Context, site: str, limit: int) -> int:
    """Show what happened to SITE, oldest first.

    Each entry has the time, the user, the command or event that caused it, the outcome, the generation and the
    message. A generation is the name of a stored pair; "rotator rollback SITE --to GENERATION" puts it back.
    """
    context.config.site(site)
    demand_state_dir(context.config.state_dir)
    trail, output = History(context.config.state_dir), context.output
    if oversized := trail.oversized():
        output.say(f"note: {oversized}")
    entries = trail.entries(site, limit)
    if output.json:
        output.data(history_answer(site, entries))
        return Exit.DONE
    if not entries:
        output.say(f"the history of {site} is empty")
        return Exit.DONE
    rows = [
        (
            rfc3339(entry.at) if entry.at else "",
            entry.who,
            entry.trigger,
            f"{entry.result} {entry.reason}",
            entry.generation or entry.live,
            entry.message,
        )
        for entry in entries
    ]
    styles = [_STYLES.get(entry.result, "bad") for entry in entries]
    in_one_line = [tuple(map(escaped, row)) for row in rows]
    output.table(("when", "who", "by", "what", "generation", "why"), in_one_line, styles)
    return Exit.DONE
