"""The configuration made ready for use: sites with their trust anchors and sources, ports and limits."""

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
from rotator.sources.drop_source import DropSource
from rotator.validation.intermediates import Pool
from rotator.validation.validate import Anchors

WHO = "rotatord"
"""The name of the daemon in the history."""


@dataclass(frozen=True, slots=True)
class ManagedSite:
    """One site that the daemon manages.

    Args:
        site: the site.
        anchors: the roots that its clients trust.
        policy: the digest of its policy and roots.
        source: the source of its renewals.
        pool: the intermediates for a renewal that lacks one.
    """

    site: Site
    anchors: Anchors
    policy: str
    source: DropSource = field(repr=False)
    pool: Pool = field(default_factory=Pool, repr=False)

    def request(self, trigger: str) -> RotationRequest:
        """The request to prove the live pair; the caller adds a candidate to rotate."""
        return RotationRequest(self.site, self.anchors, keep_kinds=True, who=WHO, trigger=trigger, pool=self.pool)


@dataclass(frozen=True, slots=True)
class Runtime:
    """A configuration, ready for use.

    Args:
        sites: the sites by name, in the order of the file.
        ports: the ports to store, nginx and the rest of the host.
        settle: the grace time in seconds.
        scan_interval: seconds between two looks at all drops.
        limits: the pacing of reloads.
        metrics_listen: the address of the metrics page.
        metrics_hosts: further host names under which it is asked for.
    """

    sites: Mapping[str, ManagedSite]
    ports: Ports
    settle: float = 10.0
    scan_interval: float = 15.0
    limits: Limits = field(default_factory=Limits)
    metrics_listen: str = ""
    metrics_hosts: tuple[str, ...] = ()

    @property
    def sources(self) -> Mapping[str, DropSource]:
        """The source of each site's renewals, by the site's name."""
        return {name: managed.source for name, managed in self.sites.items()}


def reload_trust(
    runtime: Runtime, config: Config, waiting: Callable[[], None] = lambda: None
) -> tuple[Runtime | None, tuple[RotatorError, ...]]:
    """Reads roots, pools, revocation lists and the like again.

    Args:
        runtime: the runtime that is in force.
        config: the configuration that it was made of.
        waiting: called between two sites.

    Returns:
        The runtime with the changed sites, or None if no site has changed; and an error for each file that cannot be
        read: its earlier content stays in force.
    """
    bootstrap.forget_anchors()
    sites, errors = dict(runtime.sites), {}
    for site_config in config.sites:
        name = site_config.site.name
        waiting()
        try:
            anchors, pool = bootstrap.load_anchors(site_config), bootstrap.load_pool(site_config)
        except RotatorError as e:
            errors[e.message] = e
            continue
        policy = bootstrap.policy_of(site_config.site, anchors, pool)
        if name in sites and policy != sites[name].policy:
            sites[name] = replace(sites[name], anchors=anchors, policy=policy, pool=pool)
    bootstrap.forget_anchors()  # so that long lists are not in memory twice until the next call
    return replace(runtime, sites=sites) if sites != runtime.sites else None, tuple(errors.values())


def make_runtime(
    config: Config,
    wrap: Callable[[Ports], Ports] = lambda ports: ports,
    waiting: Callable[[], None] = lambda: None,
) -> Runtime:
    """Makes a configuration ready for use: reads its roots and opens the ports of this host.

    Args:
        config: the configuration.
        wrap: wraps the ports, for example so that each wait reports that the loop works.
        waiting: called between two sites or drops, and while the privileged step is waited for.

    Raises:
        RotatorError: roots or a pool that cannot be read; exit status 78.
    """
    bootstrap.forget_anchors()
    sources, sites = bootstrap.make_drop_sources(config, waiting), {}
    for site_config in config.sites:
        waiting()
        name, anchors = site_config.site.name, bootstrap.load_anchors(site_config)
        pool = bootstrap.load_pool(site_config)
        policy = bootstrap.policy_of(site_config.site, anchors, pool)
        sites[name] = ManagedSite(site_config.site, anchors, policy, sources[name], pool)
    return Runtime(
        sites=sites,
        ports=wrap(bootstrap.make_ports(config, bootstrap.applying(config, waiting), waiting=waiting)),
        settle=config.settle,
        scan_interval=config.scan_interval,
        limits=Limits(config.nginx.min_reload_interval, config.nginx.drain_budget),
        metrics_listen=config.metrics_listen,
        metrics_hosts=config.metrics_hosts,
    )
