"""`rotator config`: its commands; `check` shows every mistake, and what a mistake is, is known elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from rotator.cli.config_reload import config_reload
from rotator.cli.context import Context, pass_context
from rotator.cli.group import epilog
from rotator.config import Config, check, read_text
from rotator.core.errors import Exit


@click.group()
def config() -> None:
    """Look after the configuration."""


config.add_command(config_reload)


@config.command(
    "check",
    short_help="Tell every mistake in the configuration, each with its line.",
    epilog=epilog("rotator config check\nrotator --config ./rotator.toml config check --json", Exit.DONE, Exit.CONFIG),
)
@pass_context
def config_check(context: Context) -> int:
    """Tell every mistake in the configuration, one a line, as file:line: what is wrong.

    What is written is checked as a whole. Files that it names are looked for too, but one that is missing is only
    mentioned: it may come later, or this may be another host.
    """
    output = context.output
    path = Path(context.config_path)
    found, mistakes = check(read_text(path), path)
    if found is None:
        if output.json:
            output.data(
                {
                    "ok": False,
                    "file": path,
                    "mistakes": [
                        {"line": one.line, "key": one.key, "message": one.message, "hint": one.hint} for one in mistakes
                    ],
                }
            )
        for one in () if output.json else mistakes:
            output.line(one.told(path))
        output.say(f"{len(mistakes)} mistake{'s' * (len(mistakes) > 1)}; nginx serves what it served.")
        return Exit.CONFIG
    missing, idle = _missing(found), _idle(found)
    if output.json:
        sites = [one.site.name for one in found.sites]
        output.data({"ok": True, "file": path, "sites": sites, "missing": missing, "without_effect": idle})
    else:
        names = sum(len(one.site.names) for one in found.sites)
        output.line(f"{path}: good: {_count(len(found.sites), 'site')}, {_count(names, 'name')}")
    for note in (*missing, *idle):
        output.say(f"note: {note}")
    return Exit.DONE


def _missing(found: Config) -> list[str]:
    """What the configuration names and this host does not have, as far as this user can see."""
    named = {f"roots of site {one.site.name}": one.roots for one in found.sites}
    named |= {f"source of site {one.site.name}": one.source for one in found.sites if one.source}
    for one in found.sites:
        files = one.evidence
        beside = {"crls": files.crls, "ct_logs": files.ct_logs, "blocklist": files.blocklist, "ocsp": files.ocsp}
        named |= {f"{what} of site {one.site.name}": path for what, path in beside.items() if path}
    named |= {"state_dir": found.state_dir, "incoming": found.incoming}
    return [f"{what}: {path} does not exist" for what, path in named.items() if _is_missing(path)]


def _idle(found: Config) -> list[str]:
    """What is written and asks nothing, because of something else that is written."""
    return [
        f"ct_logs of site {one.site.name}: without effect, as no client wants SCTs of a private CA"
        for one in found.sites
        if one.evidence.ct_logs and not one.site.policy.binds_public
    ]


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:  # not for this user to see
        return False
    return False


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
