"""What the loop stands on: a configuration made ready, whole or not at all; nothing is decided or watched here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from rotator import wiring
from rotator.config import Config
from rotator.drops import Drops, Place
from rotator.errors import RotatorError
from rotator.hands import Hands
from rotator.model import Site
from rotator.outcome import Wanted
from rotator.pacing import Limits
from rotator.pool import Pool
from rotator.trust import Anchors

WHO = "rotatord"
"""Who the history says it was."""


@dataclass(frozen=True, slots=True)
class Ward:
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

    def wanted(self, trigger: str) -> Wanted:
        """The order to prove what is live, to be completed where something else is wanted."""
        return Wanted(self.site, self.anchors, who=WHO, trigger=trigger, pool=self.pool)


@dataclass(frozen=True, slots=True)
class Ground:
    """Everything that the configuration says, ready for use.

    Args:
        wards: the sites by name, in the order of the file.
        hands: the world.
        drops: where renewals arrive.
        settle: grace time, in seconds.
        scan_interval: seconds between two looks.
        limits: how reloads are paced.
        metrics_listen: the address of the metrics page.
    """

    wards: Mapping[str, Ward]
    hands: Hands
    drops: Drops
    settle: float = 10.0
    scan_interval: float = 15.0
    limits: Limits = field(default_factory=Limits)
    metrics_listen: str = ""


def renewed(ground: Ground, config: Config) -> tuple[Ground | None, tuple[RotatorError, ...]]:
    """The same ground on roots, pools, revocation lists and the like as they lie on the disk now.

    Args:
        ground: what is stood on.
        config: the configuration that it was made of.

    Returns:
        The ground with the wards that changed; None if none did. And what cannot be read: what was read of it before
        stays in force.
    """
    wiring.forget_anchors()
    wards, errors = dict(ground.wards), {}
    for one in config.sites:
        name = one.site.name
        try:
            anchors, pool = wiring.load_anchors(one), wiring.load_pool(one)
        except RotatorError as e:
            errors[e.message] = e
            continue
        policy = wiring.policy_of(one.site, anchors, pool)
        if name in wards and policy != wards[name].policy:
            wards[name] = replace(wards[name], anchors=anchors, policy=policy, pool=pool)
    wiring.forget_anchors()  # long lists that are the same need no second place in memory until the next time
    return replace(ground, wards=wards) if wards != ground.wards else None, tuple(errors.values())


def make_ground(
    config: Config,
    wrap: Callable[[Hands], Hands] = lambda hands: hands,
    waiting: Callable[[], None] = lambda: None,
) -> Ground:
    """A configuration made ready: roots read anew, hands for this host.

    Args:
        config: the configuration.
        wrap: what is done to the hands, such as letting each wait be a sign of life.
        waiting: called while the privileged step is waited for.

    Raises:
        RotatorError: roots or a pool that cannot be read; exit status 78.
    """
    wiring.forget_anchors()
    wards = {}
    for one in config.sites:
        anchors = wiring.load_anchors(one)
        pool = wiring.load_pool(one)
        place = Place(one.site.name, config.drop(one), one.source is not None, one.password_file)
        wards[one.site.name] = Ward(one.site, anchors, wiring.policy_of(one.site, anchors, pool), place, pool)
    return Ground(
        wards=wards,
        hands=wrap(wiring.make_hands(config, wiring.applying(config, waiting), waiting=waiting)),
        drops=Drops(config.incoming, [ward.place for ward in wards.values()]),
        settle=config.settle,
        scan_interval=config.scan_interval,
        limits=Limits(config.nginx.min_reload_interval, config.nginx.drain_budget),
        metrics_listen=config.metrics_listen,
    )
