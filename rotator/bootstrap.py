"""The composition root: builds the ports of a rotation from the configuration, with the adapters of this host."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from rotator.config import Config, EvidenceFiles, SiteConfig
from rotator.config.system_roots import is_system, shipped_roots
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import Site
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.nginx.command import Nginx
from rotator.nginx.pair_trial import NginxVerdict
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Request, Setup
from rotator.privsep.connection import Connection
from rotator.privsep.socket_client import APPLY_UNIT, ApplyPort, SocketClient, ask_for_test, open_connection
from rotator.rotation.ports import Ports
from rotator.sources.drop_directory import DropDirectories, DropLocation
from rotator.sources.drop_rights import DropRights, unsafe_drops
from rotator.sources.drop_source import DropSource
from rotator.sources.file_reader import read_pool
from rotator.sources.trust_files import (
    demand_whole,
    read_blocklist,
    read_logs,
    read_responses,
    read_revocations,
    read_root_stores,
    read_roots,
)
from rotator.storage.generations import Store
from rotator.storage.history import History
from rotator.storage.locks import Locks
from rotator.storage.policy_digest import policy_digest
from rotator.tls import handshake
from rotator.tls.rehearsal import rehearse
from rotator.validation.evidence import Evidence
from rotator.validation.intermediates import Pool
from rotator.validation.trust_anchors import Anchors

Read = TypeVar("Read")


class SystemClock:
    """The clock of this host."""

    def now(self) -> datetime:
        """The current time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """The seconds of the monotonic clock, which never jumps."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Waits for so many seconds."""
        time.sleep(seconds)


def make_setup(config: Config) -> Setup:
    """The settings of the privileged step."""
    return Setup(
        state_dir=str(config.state_dir),
        include_dir=str(config.nginx.include_dir),
        pid_file=str(config.nginx.pid_file),
        error_log=str(config.nginx.error_log or ""),
        sites=frozenset(site_config.site.name for site_config in config.sites),
        key_group=config.nginx.key_group,
        watch_for=min(config.nginx.prove_within or privileged.WATCH_FOR, privileged.WATCH_FOR),
        command=config.nginx.command,
    )


def direct(setup: Setup, waiting: Callable[[], None] = lambda: None) -> ApplyPort:
    """The privileged step in this process, for a user who owns nginx's files and its master.

    Args:
        setup: its settings.
        waiting: called during the wait for nginx.
    """

    def apply(generations: Mapping[str, str], *, hup: bool) -> Applied:
        return privileged.apply(setup, Request(generations, hup), waiting=waiting)

    return apply


def applying(config: Config, waiting: Callable[[], None] = lambda: None) -> ApplyPort:
    """The privileged step for this process: root makes it directly, another user as `apply` under [nginx] says.

    Args:
        config: the configuration.
        waiting: called during the wait for the step.
    """
    return _client(config, waiting).apply if _asks_root(config) else direct(make_setup(config), waiting)


def greet_root(config: Config, waiting: Callable[[], None] = lambda: None) -> None:
    """Connects to root's program, if this process asks it for the privileged step; the connection is held.

    Args:
        config: the configuration.
        waiting: called during the wait.

    Raises:
        RotatorError: the program cannot be reached, refuses this user or has another version.
    """
    if _asks_root(config):
        _client(config, waiting).greet()


def apply_trouble(config: Config) -> str:
    """Why the daemon could not have the privileged step made, and what to do; empty if it could.

    It is asked by a connection of its own. A user who may not connect learns nothing.

    Args:
        config: the configuration.
    """
    if config.nginx.apply != "socket":
        return ""
    connection = open_connection(config.nginx.socket_dir, APPLY_UNIT)
    try:
        connection.greet(lambda: None)
    except RotatorError as e:
        return "" if e.code == Reason.APPLY_DENIED else f"{e.message}; {e.hint}"
    finally:
        connection.close()
    return ""


def _asks_root(config: Config) -> bool:
    return config.nginx.apply == "socket" and os.geteuid() != 0


def _client(config: Config, waiting: Callable[[], None]) -> SocketClient:
    return SocketClient(make_setup(config), _connection(config.nginx.socket_dir), waiting)


@cache
def _connection(socket_dir: Path) -> Connection:
    """The one connection of this process, which outlives a reload of the configuration."""
    return open_connection(socket_dir, APPLY_UNIT)


def _nginx(config: Config, waiting: Callable[[], None]) -> Nginx:
    """This host's nginx. If its files belong to root, only root can test its whole configuration."""

    def privileged_test() -> NginxVerdict:
        answer = ask_for_test(config.nginx.socket_dir, waiting)
        return NginxVerdict(answer.ok, answer.words)

    return Nginx(config.nginx.command, config.nginx.pid_file, privileged_test if _asks_root(config) else None)


def load_anchors(site_config: SiteConfig) -> Anchors:
    """The roots of a site with its evidence, read once until `forget_anchors`.

    Raises:
        RotatorError: `configuration` if a file cannot be read, or has no root.
    """
    return _anchors(site_config.roots, site_config.evidence)


def forget_anchors() -> None:
    """Has roots, pools and evidence read again at their next use, because the files change while a daemon runs."""
    for cached in (_roots, _crls, _ct_logs, _blocklist, _ocsp, _root_store, _anchors, _pool):
        cached.cache_clear()


def load_pool(site_config: SiteConfig) -> Pool:
    """The intermediates that the configuration names for a site, read once until `forget_anchors`.

    Raises:
        RotatorError: `configuration` if a file cannot be read.
    """
    return _pool(site_config.pool) if site_config.pool else Pool()


def policy_of(site: Site, anchors: Anchors, pool: Pool | None = None) -> str:
    """The digest of everything except the candidate that a decision about a drop depends on.

    The digest of the evidence follows a `+`: lists are renewed every day, and most decisions stay valid (see
    `rotator.daemon.drop_state`). The password has no part in the digest, because the digest is written to the store;
    after a correction of the password, `rotator swap SITE` has the drop tried again.
    """
    evidence_digest = anchors.evidence.digest
    pool_digests = [pool.digest] if pool and pool.digest else []
    origins = [anchors.origins.digest] if anchors.origins.digest else []
    own = policy_digest([site.policy, anchors.digest, *origins, *pool_digests])
    return own + (f"+{policy_digest([evidence_digest])[:32]}" if evidence_digest else "")


@cache
def _anchors(roots: Path, files: EvidenceFiles) -> Anchors:
    return _roots(roots).beside(
        Evidence(
            revocations=_crls(files.crls) if files.crls else None,
            logs=_ct_logs(files.ct_logs) if files.ct_logs else None,
            blocked=_blocklist(files.blocklist) if files.blocklist else None,
            responses=_ocsp(files.ocsp) if files.ocsp else None,
            root_stores=_root_store(files.root_store) if files.root_store else None,
        )
    )


@cache
def _roots(path: Path) -> Anchors:
    try:
        return read_roots(path, shipped_roots(), whole=is_system(path))
    except RotatorError as e:
        hint = e.hint
        if e.code == Code.IO_ERROR:
            hint = "Install ca-certificates, or set `roots` to a PEM file with the CA's root"
        if e.code == Code.PERMISSION:
            hint = f"{e.hint}; or set `roots` to a copy that it may read, such as /etc/rotator/roots.pem"
        raise RotatorError(Reason.CONFIGURATION, f"roots: {e.message}", hint, Exit.CONFIG) from e


def _configured(key: str, read: Callable[[Path], Read]) -> Callable[[Path], Read]:
    """A reader whose errors name the key of the configuration."""

    def configured(path: Path) -> Read:
        try:
            return read(path)
        except RotatorError as e:
            raise RotatorError(Reason.CONFIGURATION, f"{key}: {e.message}", e.hint, Exit.CONFIG) from e

    return configured


_crls = cache(_configured("crls", lambda path: demand_whole(read_revocations(path))))
_ct_logs = cache(_configured("ct_logs", read_logs))
_blocklist = cache(_configured("blocklist", read_blocklist))
_ocsp = cache(_configured("ocsp", lambda path: demand_whole(read_responses(path))))
_root_store = cache(_configured("root_store", read_root_stores))
_pool = cache(_configured("pool", lambda path: Pool.from_files(read_pool(path))))


def make_drop_sources(config: Config, waiting: Callable[[], None] = lambda: None) -> dict[str, DropSource]:
    """The source of each site's renewals, by the site's name. Another kind of source is chosen here.

    Args:
        config: the configuration.
        waiting: called between two drops that are looked at.
    """
    locations = [
        DropLocation(
            c.site.name,
            config.drop(c),
            c.source is not None,
            c.password_file,
            is_private=bool(c.drop_group or c.drop_owner),
        )
        for c in config.sites
    ]
    directories = DropDirectories(config.incoming, locations, waiting=waiting)
    return {site_config.site.name: directories for site_config in config.sites}


def unsafe_drops_of(config: Config) -> tuple[str, ...]:
    """The faults in the rights of the drops, each with the command that corrects it: see `unsafe_drops`."""
    try:
        store_owner: int | None = config.state_dir.stat().st_uid
    except OSError:
        store_owner = None
    drops = [site_config for site_config in config.sites if site_config.source is None]
    rights = {drop.site.name: DropRights(store_owner, drop.drop_owner, drop.drop_group) for drop in drops}
    return tuple(unsafe_drops(config.incoming, rights))


def drop_source(config: Config, site_config: SiteConfig) -> DropSource:
    """The source of one site's renewals.

    Args:
        config: the configuration.
        site_config: the site; it may differ from the configuration, as in another password file.
    """
    name = site_config.site.name
    sites = tuple(site_config if other.site.name == name else other for other in config.sites)
    return make_drop_sources(replace(config, sites=sites))[name]


def make_ports(
    config: Config,
    apply: ApplyPort,
    say: Callable[[str], None] = lambda _: None,
    waiting: Callable[[], None] = lambda: None,
) -> Ports:
    """The ports of this host.

    Args:
        config: the configuration.
        apply: the privileged step: see `applying`.
        say: shows progress.
        waiting: called repeatedly during the wait for root's program or for handshakes.
    """
    return Ports(
        store=Store(config.state_dir),
        history=History(config.state_dir),
        locks=Locks(config.state_dir),
        apply=apply,
        live=partial(privileged.read_live, str(config.nginx.include_dir)),
        nginx=_nginx(config, waiting),
        probe=partial(handshake.probe_all, waiting=waiting),
        rehearse=rehearse,
        clock=SystemClock(),
        include_dir=str(config.nginx.include_dir),
        prove_within=config.nginx.prove_within,
        say=say,
    )
