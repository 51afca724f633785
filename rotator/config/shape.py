"""The configuration as frozen values, the way the rest of rotator sees it; nothing is read or checked here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from rotator.core.errors import Exit, RotatorError
from rotator.core.model import Site


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing in the configuration that cannot be meant.

    Args:
        line: 1-based.
        key: the dotted key or table that it is about; empty where there is none.
        message: what is wrong.
        hint: what to write instead; empty where there is no telling.
    """

    line: int
    key: str
    message: str
    hint: str = ""

    def told(self, path: str | Path) -> str:
        """One line, as compilers write it, so that editors can jump there."""
        about = f"{self.key}: " if self.key else ""
        return f"{path}:{self.line}: {about}{self.message}" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True, slots=True)
class NginxConfig:
    """How nginx is called, told and watched.

    Args:
        command: the program and its arguments.
        include_dir: where the includes and root's copies stand.
        apply: how the privileged step runs for who is not root: `systemd`, through root's oneshot, or `direct`.
        result_dir: where root's oneshots leave their answers.
        unit: nginx's service unit, for messages.
        pid_file: where its master's pid stands.
        error_log: where nginx tells why it refused; None where that is no file.
        key_group: the group that may read the keys; empty for none.
        min_reload_interval: seconds between two reloads, at least.
        drain_budget: how many draining workers put off a reload; 0 for no limit.
        prove_within: seconds within which a reload must show at the listeners; None: measured from earlier ones.
    """

    command: tuple[str, ...]
    include_dir: Path
    apply: str
    result_dir: Path
    unit: str
    pid_file: Path
    error_log: Path | None
    key_group: str
    min_reload_interval: float
    drain_budget: int
    prove_within: float | None


@dataclass(frozen=True, slots=True)
class EvidenceFiles:
    """Files that a verdict is shown beside the roots; None for what is not looked at.

    Args:
        crls: revocation lists: a file, or a directory of them.
        ct_logs: the logs of certificate transparency that browsers know.
        blocklist: hashes of keys that are known to others.
        ocsp: OCSP responses that nginx staples: a file, or a directory of them.
    """

    crls: Path | None = None
    ct_logs: Path | None = None
    blocklist: Path | None = None
    ocsp: Path | None = None


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """A site, and what only the shell around the rotation needs to know of it.

    Args:
        site: the site.
        source: the directory that its renewals are read from, links followed; None: its drop in `incoming`.
        roots: the PEM file of the roots that strict clients trust.
        evidence: what else a verdict is shown.
        line: where it begins in the file.
        password_file: what opens an encrypted key; None for none.
        pool: the directory, or file, of intermediates for renewals that lack one; None for none.
    """

    site: Site
    source: Path | None
    roots: Path
    line: int
    evidence: EvidenceFiles = field(default_factory=EvidenceFiles)
    password_file: Path | None = None
    pool: Path | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration.

    Args:
        path: the file that it came from.
        state_dir: the store.
        incoming: where drops and flat files lie.
        scan_interval: seconds between two looks at the drops.
        settle: seconds without a change after which an incomplete drop is rejected.
        nginx: how nginx is called, told and watched.
        metrics_listen: `host:port` of the metrics page.
        sites: at least one, in the order of the file.
    """

    path: Path
    state_dir: Path
    incoming: Path
    scan_interval: float
    settle: float
    nginx: NginxConfig
    metrics_listen: str
    sites: tuple[SiteConfig, ...]

    def site(self, name: str) -> SiteConfig:
        """The site of that name.

        Raises:
            RotatorError: `usage`, with the sites that there are; exit status 2.
        """
        for one in self.sites:
            if one.site.name == name:
                return one
        known = [one.site.name for one in self.sites]
        near = difflib.get_close_matches(name, known, 1, 0.5)
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise RotatorError(
            "usage",
            f"{self.path} has no site {name!r}",
            (f"Did you mean {near[0]!r}? " if near else "") + f"Its sites: {shown}.",
            Exit.USAGE,
        )

    def drop(self, one: SiteConfig) -> Path:
        """The directory that holds this site's renewals."""
        return one.source or self.incoming / one.site.name
