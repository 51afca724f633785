"""What the loop stands on: a configuration made ready, whole or not at all; nothing is decided or watched here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from rotator import bootstrap
from rotator.config import Config
from rotator.core.errors import RotatorError
from rotator.core.model import Site
from rotator.rotation.pacing import Limits
from rotator.rotation.ports import Ports
from rotator.rotation.request import RotationRequest
from rotator.sources.scanner import Drops, Place
from rotator.validation.intermediates import Pool
from rotator.validation.validate import Anchors

WHO = "rotatord"
"""Who the history says it was."""


@dataclass(frozen=True, slots=True)
class ManagedSite:
    """One site in the daemon's care.

    Args:
        site: which.
        anchors: the roots that its clients trust.
        policy: digest of policy and roots.
        place: where its renewals arrive.
        pool: where an intermediate is taken from that a renewal lacks.
    """

    site: Site
    anchors: Anchors
    policy: str
    place: Place
    pool: Pool = field(default_factory=Pool, repr=False)

    def request(self, trigger: str) -> RotationRequest:
        """The request to prove what is live; the caller completes it where something else is wanted."""
        return RotationRequest(self.site, self.anchors, keep_kinds=True, who=WHO, trigger=trigger, pool=self.pool)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that the configuration says, ready for use.

    Args:
        sites: the sites by name, in the order of the file.
        ports: the world.
        drops: where renewals arrive.
        settle: grace time, in seconds.
        scan_interval: seconds between two looks.
        limits: how reloads are paced.
        metrics_listen: the address of the metrics page.
    """

    sites: Mapping[str, ManagedSite]
    ports: Ports
    drops: Drops
    settle: float = 10.0
    scan_interval: float = 15.0
    limits: Limits = field(default_factory=Limits)
    metrics_listen: str = ""


def reload_trust(runtime: Runtime, config: Config) -> tuple[Runtime | None, tuple[RotatorError, ...]]:
    """The same ground on roots, pools, revocation lists and the like as they lie on the disk now.

    Args:
        runtime: what is stood on.
        config: the configuration that it was made of.

    Returns:
        The ground with the wards that changed; None if none did. And what cannot be read: what was read of it before
        stays in force.
    """
    bootstrap.forget_anchors()
    sites, errors = dict(runtime.sites), {}
    for one in config.sites:
        name = one.site.name
        try:
            anchors, pool = bootstrap.load_anchors(one), bootstrap.load_pool(one)
        except RotatorError as e:
            errors[e.message] = e
            continue
        policy = bootstrap.policy_of(one.site, anchors, pool)
        if name in sites and policy != sites[name].policy:
            sites[name] = replace(sites[name], anchors=anchors, policy=policy, pool=pool)
    bootstrap.forget_anchors()  # long lists that are the same need no second place in memory until the next time
    return replace(runtime, sites=sites) if sites != runtime.sites else None, tuple(errors.values())


def make_runtime(
    config: Config,
    wrap: Callable[[Ports], Ports] = lambda ports: ports,
    waiting: Callable[[], None] = lambda: None,
) -> Runtime:
    """A configuration made ready: roots read anew, hands for this host.

    Args:
        config: the configuration.
        wrap: what is done to the hands, such as letting each wait be a sign of life.
        waiting: called while the privileged step is waited for.

    Raises:
        RotatorError: roots or a pool that cannot be read; exit status 78.
    """
    bootstrap.forget_anchors()
    sites = {}
    for one in config.sites:
        anchors = bootstrap.load_anchors(one)
        pool = bootstrap.load_pool(one)
        place = Place(one.site.name, config.drop(one), one.source is not None, one.password_file)
        sites[one.site.name] = ManagedSite(one.site, anchors, bootstrap.policy_of(one.site, anchors, pool), place, pool)
    return Runtime(
        sites=sites,
        ports=wrap(bootstrap.make_ports(config, bootstrap.applying(config, waiting), waiting=waiting)),
        drops=Drops(config.incoming, [managed.place for managed in sites.values()]),
        settle=config.settle,
        scan_interval=config.scan_interval,
        limits=Limits(config.nginx.min_reload_interval, config.nginx.drain_budget),
        metrics_listen=config.metrics_listen,
    )
