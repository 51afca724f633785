"""`rotator config`: the group of commands, and `config check`, which shows every mistake in the configuration."""

from __future__ import annotations

from pathlib import Path

import click

from rotator import bootstrap
from rotator.cli.config_reload import config_reload
from rotator.cli.context import Context, pass_context
from rotator.cli.formats import config_check_answer
from rotator.cli.group import epilog
from rotator.config import Config, check_file
from rotator.config.ownership import open_inputs
from rotator.core.errors import Exit
from rotator.core.hints import command
from rotator.core.text import shown_name
from rotator.system.users import group_id, user_id


@click.group()
def config() -> None:
    """Check the configuration, or have the daemon load it again."""


config.add_command(config_reload)


@config.command(
    "check",
    short_help="Show every mistake in the configuration, each with its line.",
    epilog=epilog(
        "rotator config check\nrotator --config ./rotator.toml config check --json",
        *(Exit.DONE, Exit.CONFIG),
        meanings={Exit.DONE: "valid configuration"},
    ),
)
@pass_context
def config_check(context: Context) -> int:
    """Show every mistake in the configuration, one per line, as FILE:LINE: MESSAGE.

    The whole file is checked. The files that it names are looked up, too, but a missing file is only a note: it may
    be created later, or on another host. Nothing is changed.
    """
    output = context.output
    path = Path(context.config_path)
    checked, mistakes = check_file(path)
    if checked is None or mistakes:
        if output.json:
            output.data(config_check_answer(path, None, mistakes, (), (), ()))
        for mistake in () if output.json else mistakes:
            output.line(mistake.located(path))
        output.say(f"{_count(len(mistakes), 'mistake')}; nginx serves the same certificates as before.")
        return Exit.CONFIG
    missing, ineffective = [*_missing_files(checked), *_missing_accounts(checked)], _settings_without_effect(checked)
    if trouble := bootstrap.apply_trouble(checked):
        missing.append(f"apply: {trouble}")
    unsafe = bootstrap.unsafe_drops_of(checked)
    if output.json:
        output.data(config_check_answer(path, checked, (), missing, ineffective, unsafe))
    else:
        names = sum(len(site_config.site.names) for site_config in checked.sites)
        output.line(f"{shown_name(str(path))}: valid: {_count(len(checked.sites), 'site')}, {_count(names, 'name')}")
    for note in (*missing, *ineffective, *open_inputs(checked)):
        output.say(f"note: {note}")
    for note in unsafe:
        output.say(f"warning: {note}")
    return Exit.DONE


def _missing_files(config: Config) -> list[str]:
    """The files and directories that the configuration names and this user does not find on this host."""
    paths = {f"source of site {c.site.name}": c.source for c in config.sites if c.source}
    for site_config in config.sites:
        files = site_config.evidence
        evidence = {
            "crls": files.crls,
            "ct_logs": files.ct_logs,
            "blocklist": files.blocklist,
            "ocsp": files.ocsp,
            "root_store": files.root_store,
        }
        paths |= {f"{key} of site {site_config.site.name}": path for key, path in evidence.items() if path}
    paths |= {"state_dir": config.state_dir, "incoming": config.incoming}
    return [
        f"roots of site {c.site.name}: {c.roots} does not exist, and rotator validates nothing without it"
        for c in config.sites
        if _is_missing(c.roots)
    ] + [f"{key}: {path} does not exist" for key, path in paths.items() if _is_missing(path)]


def _missing_accounts(config: Config) -> list[str]:
    """The groups and users of drops that this host does not have, each with the command that creates it."""
    groups = {c.drop_group: c.site.name for c in reversed(config.sites) if c.drop_group}
    users = {c.drop_owner: c.site.name for c in reversed(config.sites) if c.drop_owner}
    return [
        f"drop_group of site {site}: this host has no group {group}: {command('groupadd --system', group)}"
        for group, site in sorted(groups.items())
        if group_id(group) is None
    ] + [
        f"drop_owner of site {site}: this host has no user {user}"
        for user, site in sorted(users.items())
        if user_id(user) is None
    ]


def _settings_without_effect(config: Config) -> list[str]:
    """The settings that have no effect because of another setting."""
    private = [c for c in config.sites if not c.site.policy.binds_public]
    return [
        *(
            f"ct_logs of site {c.site.name}: without effect, because clients ask a private CA for no SCTs"
            for c in private
            if c.evidence.ct_logs
        ),
        *(
            f"root_store of site {c.site.name}: without effect, because browsers do not list the root of a private CA"
            for c in private
            if c.evidence.root_store
        ),
    ]


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:  # it may exist: this user may not look
        return False
    return False


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
