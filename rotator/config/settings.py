"""The settings: the configuration as frozen values, in the form that the rest of rotator uses."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import shell_word
from rotator.core.model import Site
from rotator.core.reasons import Reason
from rotator.core.text import shown_name


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in the configuration.

    Args:
        line: the line of the file, counted from 1.
        key: the dotted key or the table that has the mistake; empty if the file as a whole has it.
        message: what is wrong.
        hint: what to write instead; empty if that is unknown.
    """

    line: int
    key: str
    message: str
    hint: str = ""

    def located(self, path: str | Path) -> str:
        """The mistake as `file:line: message`, the format of compilers, so that an editor can jump to the line."""
        subject = f"{self.key}: " if self.key else ""
        return f"{shown_name(str(path))}:{self.line}: {subject}{self.message}" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True, slots=True)
class NginxConfig:
    """How nginx is run, reloaded and observed.

    Args:
        command: the program and its arguments.
        include_dir: the directory of the includes and of root's copies of the pairs.
        apply: how a user other than root runs the privileged step: `socket` (by root's program) or `direct`.
        socket_dir: the directory of the sockets of root's programs.
        unit: the service unit of nginx, for messages.
        pid_file: the file with the process id of nginx's master.
        error_log: the file in which nginx writes why it refused a configuration; None if nginx logs elsewhere.
        key_group: the group that may read the keys; empty for none.
        min_reload_interval: the least number of seconds between two reloads.
        drain_budget: the number of draining workers that delays a reload; 0 for no limit.
        prove_within: the seconds within which every listener must serve the new pair; None: derived from earlier
            reloads.
    """

    command: tuple[str, ...]
    include_dir: Path
    apply: str
    socket_dir: Path
    unit: str
    pid_file: Path
    error_log: Path | None
    key_group: str
    min_reload_interval: float
    drain_budget: int
    prove_within: float | None


@dataclass(frozen=True, slots=True)
class EvidenceFiles:
    """The files that a verdict depends on beside the roots; None for a check that is off.

    Args:
        crls: certificate revocation lists: a file, or a directory of files.
        ct_logs: the list of the Certificate Transparency logs that browsers accept.
        blocklist: hashes of compromised keys.
        ocsp: OCSP responses that nginx staples: a file, or a directory of files.
        root_store: the roots that browsers trust: a file, or a directory of files.
    """

    crls: Path | None = None
    ct_logs: Path | None = None
    blocklist: Path | None = None
    ocsp: Path | None = None
    root_store: Path | None = None


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """One [[site]] of the configuration: the site itself, and the files that belong to it.

    Args:
        site: the site as the rotation knows it.
        source: the directory that its renewals are read from, links followed; None: its drop in `incoming`.
        roots: the PEM file of the roots that a strict client trusts.
        evidence: the other files that a verdict depends on.
        line: the line of the file on which the site begins.
        password_file: the file with the password of an encrypted key; None if there is none.
        pool: a directory or file of intermediates for renewals that lack one; None if there is none.
        drop_group: the group that may write to its drop; empty for the group of `incoming`.
        drop_owner: a further user who may own its drop; empty for none.
    """

    site: Site
    source: Path | None
    roots: Path
    line: int
    evidence: EvidenceFiles = field(default_factory=EvidenceFiles)
    password_file: Path | None = None
    pool: Path | None = None
    drop_group: str = ""
    drop_owner: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration.

    Args:
        path: the file that it was read from.
        state_dir: the directory of the store.
        incoming: the directory of the drops and of flat files.
        scan_interval: the seconds between two scans of the drops.
        settle: the seconds without a change after which an incomplete drop is rejected.
        nginx: how nginx is run, reloaded and observed.
        metrics_listen: `host:port` of the metrics page.
        sites: at least one, in the order of the file.
        metrics_hosts: further host names under which the metrics page is asked for.
    """

    path: Path
    state_dir: Path
    incoming: Path
    scan_interval: float
    settle: float
    nginx: NginxConfig
    metrics_listen: str
    sites: tuple[SiteConfig, ...]
    metrics_hosts: tuple[str, ...] = ()

    def site(self, name: str) -> SiteConfig:
        """The site with this name.

        Raises:
            RotatorError: `usage`, with the names of the sites that exist; exit status 2.
        """
        for site_config in self.sites:
            if site_config.site.name == name:
                return site_config
        known = [site_config.site.name for site_config in self.sites]
        near = difflib.get_close_matches(name, known, 1, 0.5)
        listed = ", ".join(map(shell_word, known[:20]))
        listed += f" and {len(known) - 20:d} more" if len(known) > 20 else ""
        raise RotatorError(
            Reason.USAGE,
            f"{shown_name(str(self.path))} has no site {name!r}",
            (f"Did you mean {shell_word(near[0])}? " if near else "") + f"Its sites: {listed}.",
            Exit.USAGE,
        )

    def drop(self, site_config: SiteConfig) -> Path:
        """The directory in which the renewals of this site arrive."""
        return site_config.source or self.incoming / site_config.site.name
