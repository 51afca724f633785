"""Which hand is the real one: a configuration becomes `Hands`; nothing is decided and nothing happens here."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

from rotator import apply as privileged
from rotator import probe
from rotator.anchors import MAX_STORE, Anchors
from rotator.apply import Applied, Request, Setup
from rotator.config import Config, SiteConfig
from rotator.errors import Exit, RotatorError
from rotator.hands import ApplyHand, Hands
from rotator.incoming import read_pool
from rotator.model import Site
from rotator.nginx.command import Nginx
from rotator.pool import Pool
from rotator.store import Store, policy_digest


class SystemClock:
    """The host's clock."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


def make_setup(config: Config) -> Setup:
    """What the privileged step may do, from root's configuration alone."""
    return Setup(
        state_dir=str(config.state_dir),
        include_dir=str(config.nginx.include_dir),
        pid_file=str(config.nginx.pid_file),
        error_log=str(config.nginx.error_log or ""),
        sites=frozenset(one.site.name for one in config.sites),
        key_group=config.nginx.key_group,
        watch_for=config.nginx.prove_within or 10.0,
    )


def request(generations: Mapping[str, str], *, hup: bool) -> Request:
    """A request with an id of its own."""
    return Request(secrets.token_hex(16), dict(generations), hup)


def direct(setup: Setup) -> ApplyHand:
    """The privileged step in this process, where everything belongs to us."""

    def apply(generations: Mapping[str, str], *, hup: bool) -> Applied:
        return privileged.apply(setup, request(generations, hup=hup))

    return apply


def load_anchors(one: SiteConfig) -> Anchors:
    """The roots of a site, read and parsed once in a command's life (see `forget_anchors`).

    Raises:
        RotatorError: `configuration` if the file cannot be read; what `Anchors.from_pem` says of its content.
    """
    return _anchors(one.roots)


def forget_anchors() -> None:
    """Has the roots and pools read again when they are asked for next: they may have changed under a long life."""
    _anchors.cache_clear()
    _pool.cache_clear()


def load_pool(one: SiteConfig) -> Pool:
    """The intermediates that the configuration offers a site, read and parsed once like the roots.

    Raises:
        RotatorError: `configuration` if there are none to be read.
    """
    return _pool(one.pool) if one.pool else Pool()


def policy_of(site: Site, anchors: Anchors, pool: Pool | None = None) -> str:
    """The digest of everything but the candidate that a decision about a drop depends on.

    The password has no part in it: this is written down. Who has mended that orders `rotator swap SITE`.
    """
    return policy_digest([site.policy, anchors.digest, *([pool.digest] if pool and pool.digest else [])])


@cache
def _anchors(path: Path) -> Anchors:
    try:
        with path.open("rb") as f:
            return Anchors.from_pem(f.read(MAX_STORE + 1), str(path))
    except OSError as e:
        hint = "install ca-certificates, or set `roots` to a PEM file that this user may read"
        raise RotatorError("configuration", f"roots {path}: {e.strerror}", hint, Exit.CONFIG) from e


@cache
def _pool(path: Path) -> Pool:
    try:
        return Pool.from_files(read_pool(path))
    except RotatorError as e:
        raise RotatorError("configuration", f"pool {path}: {e.message}", e.hint, Exit.CONFIG) from e


def make_hands(config: Config, apply: ApplyHand, say: Callable[[str], None] = lambda _: None) -> Hands:
    """The hands of this host.

    Args:
        config: the configuration.
        apply: the privileged step: `direct`, or through whoever may.
        say: told what is going on.
    """
    return Hands(
        store=Store(config.state_dir),
        apply=apply,
        live=partial(privileged.read_live, str(config.nginx.include_dir)),
        nginx=Nginx(config.nginx.command, config.nginx.pid_file),
        probe=probe.probe_all,
        rehearse=probe.rehearse,
        clock=SystemClock(),
        include_dir=str(config.nginx.include_dir),
        prove_within=config.nginx.prove_within,
        say=say,
    )
