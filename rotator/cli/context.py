"""The context of a call: the options that all commands share, the configuration, the caller and the output."""

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
        config_path: the configuration file; None for that of the environment or the default.
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
        """The output, as the options request it."""
        return Output(json=self.json, plain=self.plain, verbose=self.verbose)

    @cached_property
    def config(self) -> Config:
        """The configuration, read at its first use.

        Raises:
            RotatorError: `configuration`, with all mistakes; exit status 78.
        """
        from pathlib import Path

        from rotator.config import load

        return load(Path(self.config_path))

    def roots_of(self, names: Sequence[str]) -> str | None:
        """The roots that the configuration names for the site of one of these names.

        Args:
            names: host names or IP addresses, in any spelling.

        Returns:
            The path; None without such a site or without a configuration, which the caller does not need.
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
            return None  # a command that needs the configuration reports it; this caller shows the roots that it uses
        spelled = set()
        for name in names:
            with suppress(BadValueError):  # the caller reports an invalid name
                spelled.add(spelling(name))
        matching = (c for c in sites if spelled & {*c.site.names, *c.site.probe_names})
        return next((str(site_config.roots) for site_config in matching), None)

    @cached_property
    def user(self) -> str:
        """The calling user, for the history; under sudo, the user who called it."""
        return caller()


pass_context = click.make_pass_decorator(Context, ensure=True)
"""Gives a command the `Context` as its first argument."""


def caller() -> str:
    """The name of the calling user. `SUDO_USER` counts only for root, because any other user can set it."""
    import pwd

    sudo_user = os.environ.get("SUDO_USER", "")
    if os.geteuid() == 0 and sudo_user and sudo_user.isprintable() and len(sudo_user) <= 64:
        return sudo_user
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def common_options() -> list[click.Option]:
    """`--config`, `--json`, `--plain` and `-v`, which are allowed before and after the name of a command."""

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value:
            setattr(ctx.ensure_object(Context), str(param.name), value)
        return value

    return [
        click.Option(
            ["--config", "config_path"],
            type=click.Path(readable=False),  # `read_text` reports an unreadable file with a better message
            metavar="FILE",
            help=f"The configuration file. Default: the variable {ENVIRONMENT}, or {DEFAULT_CONFIG}",
            expose_value=False,
            callback=keep,
        ),
        click.Option(
            ["--json"], is_flag=True, help="Print the answer as one JSON object.", expose_value=False, callback=keep
        ),
        click.Option(
            ["--plain"], is_flag=True, help="Print plain text, without colour.", expose_value=False, callback=keep
        ),
        click.Option(
            ["-v", "--verbose"], count=True, help="Print more details on stderr.", expose_value=False, callback=keep
        ),
    ]
