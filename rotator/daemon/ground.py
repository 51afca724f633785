"""What the loop stands on: a configuration made ready, whole or not at all; nothing is decided or watched here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rotator import wiring
from rotator.config import Config
from rotator.drops import Drops, Place
from rotator.hands import Hands
from rotator.model import Site
from rotator.outcome import Wanted
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
        min_reload_interval: seconds between two reloads.
        metrics_listen: the address of the metrics page.
    """

    wards: Mapping[str, Ward]
    hands: Hands
    drops: Drops
    settle: float = 10.0
    scan_interval: float = 15.0
    min_reload_interval: float = 0.0
    metrics_listen: str = ""


def make_ground(config: Config, wrap: Callable[[Hands], Hands] = lambda hands: hands) -> Ground:
    """A configuration made ready: roots read anew, hands for this host.

    Args:
        config: the configuration.
        wrap: what is done to the hands, such as letting each wait be a sign of life.

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
        hands=wrap(wiring.make_hands(config, wiring.direct(wiring.make_setup(config)))),
        drops=Drops(config.incoming, [ward.place for ward in wards.values()]),
        settle=config.settle,
        scan_interval=config.scan_interval,
        min_reload_interval=config.nginx.min_reload_interval,
        metrics_listen=config.metrics_listen,
    )
