"""What every command is given: the options that all share, the configuration, who calls, and how to speak."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from rotator.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rotator.config import Config

DEFAULT_CONFIG = "/etc/rotator/rotator.toml"
ENVIRONMENT = "ROTATOR_CONFIG"


class Context:
    """One call of `rotator`.

    Args:
        config_path: the configuration file; None for what the environment or the default says.
        json: whether the answer is one JSON object.
        plain: whether colour and drawn tables are off.
        verbose: how often `-v` was given.
    """

    def __init__(
        self, config_path: str | Path | None = None, *, json: bool = False, plain: bool = False, verbose: int = 0
    ) -> None:
        self.config_path: str | Path = config_path or os.environ.get(ENVIRONMENT) or DEFAULT_CONFIG
        self.json = json
        self.plain = plain
        self.verbose = verbose

    @property
    def output(self) -> Output:
        """How to speak."""
        return Output(json=self.json, plain=self.plain, verbose=self.verbose)

    @cached_property
    def config(self) -> Config:
        """The configuration, read when it is first asked for.

        Raises:
            RotatorError: `configuration`, with all mistakes; exit status 78.
        """
        from pathlib import Path

        from rotator.config import load

        return load(Path(self.config_path))

    def roots_of(self, names: Sequence[str]) -> str | None:
        """The roots that the configuration names for the site of one of these names.

        Args:
            names: of hosts or addresses, in any spelling.

        Returns:
            The path; None where there is no such site, or no configuration: what asks for this needs none.
        """
        from pathlib import Path

        from rotator.config.addresses import name as spelling
        from rotator.config.value_parsers import BadValueError
        from rotator.core.errors import RotatorError

        if not names or not Path(self.config_path).exists():
            return None
        try:
            sites = self.config.sites
        except RotatorError:
            return None  # what is wrong with it is told where it is needed; the roots that are taken are told anyway
        asked = set()
        for name in names:
            with suppress(BadValueError):  # that it is no name is told by whoever is asked for it
                asked.add(spelling(name))
        return next((str(one.roots) for one in sites if asked & {*one.site.names, *one.site.probe_names}), None)

    @cached_property
    def user(self) -> str:
        """Who calls, for the history: the person behind sudo where there is one."""
        return caller()


pass_context = click.make_pass_decorator(Context, ensure=True)
"""Gives a command the `Context` as its first argument."""


def caller() -> str:
    """The name of the calling user; `SUDO_USER` counts only for root, as anybody else can set it."""
    import pwd

    behind = os.environ.get("SUDO_USER", "")
    if os.geteuid() == 0 and behind and behind.isprintable() and len(behind) <= 64:
        return behind
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def common_options() -> list[click.Option]:
    """`--config`, `--json`, `--plain` and `-v`, which may stand before a command or behind it."""

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value:
            setattr(ctx.ensure_object(Context), str(param.name), value)
        return value

    return [
        click.Option(
            ["--config", "config_path"],
            type=click.Path(readable=False),  # read_text says it better
            metavar="FILE",
            help=f"The configuration (or the environment's {ENVIRONMENT}). Default: {DEFAULT_CONFIG}",
            expose_value=False,
            callback=keep,
        ),
        click.Option(["--json"], is_flag=True, help="Answer with one JSON object.", expose_value=False, callback=keep),
        click.Option(
            ["--plain"], is_flag=True, help="No colour and no drawn tables.", expose_value=False, callback=keep
        ),
        click.Option(["-v", "--verbose"], count=True, help="Tell more on stderr.", expose_value=False, callback=keep),
    ]
