"""The completion of arguments in the shell: the names of sites and generations.

A Tab never fails and never shows a message: if the configuration or the store cannot be read, the list is empty.
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
        configured = [site_config.site for site_config in _context(ctx).config.sites]
        return [CompletionItem(s.name, help=", ".join(s.names)) for s in configured if s.name.startswith(incomplete)]
    return []


def generations(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The stored generations of the site that is named before, the newest first, as far as this user may see them."""
    # While click completes the value of an option, the arguments before the option are in `args`.
    site = ctx.params.get("site") or next(iter(ctx.args), None)
    names: tuple[str, ...] = ()
    with suppress(RotatorError, OSError):
        from rotator.storage.generations import Store

        config = _context(ctx).config
        if site in {site_config.site.name for site_config in config.sites}:
            names = Store(Path(config.state_dir)).names(str(site))
    return [CompletionItem(name) for name in reversed(names) if name.startswith(incomplete)]


def _context(ctx: click.Context) -> Context:
    return ctx.find_object(Context) or Context()
