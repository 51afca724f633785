"""What the shell is offered behind a command: sites and generations; nothing is read but the configuration's names.

A Tab never fails and never says a word: where nothing can be read, nothing is offered.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from rotator.cli.context import Context
from rotator.core.errors import RotatorError


def sites(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The sites of the configuration, each with its names."""
    with suppress(RotatorError, OSError):
        known = [one.site for one in _context(ctx).config.sites]
        return [CompletionItem(s.name, help=", ".join(s.names)) for s in known if s.name.startswith(incomplete)]
    return []


def generations(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The stored generations of the site that stands before, the newest first; none that this user may not see."""
    # While an option still waits for its word, click leaves what stands before it in `args`.
    site = ctx.params.get("site") or next(iter(ctx.args), None)
    names: tuple[str, ...] = ()
    with suppress(RotatorError, OSError):
        from rotator.storage.generations import Store

        config = _context(ctx).config
        if site in {one.site.name for one in config.sites}:
            names = Store(Path(config.state_dir)).names(str(site))
    return [CompletionItem(name) for name in reversed(names) if name.startswith(incomplete)]


def _context(ctx: click.Context) -> Context:
    return ctx.find_object(Context) or Context()
