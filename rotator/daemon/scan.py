"""Which drops one pass looks at, and what the last look at each showed; what follows from it is decided elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rotator.rotation.decide import Moment
from rotator.sources.scanner import DropLook, Drops


class DropScan:
    """Looks at every drop once in a scan interval, and in between at those alone of which events tell.

    Events may be lost, and then the next whole look finds what they would have told.

    Args:
        drops: all drops of a configuration.
        scan_interval: seconds between two looks at all of them.
        now: the time.
    """

    def __init__(self, drops: Drops, scan_interval: float, now: Moment) -> None:
        self.at = now.wall
        """When all drops were looked at last, UTC."""
        self.due = 0.0
        """Monotonic time of the next look at all of them."""
        self.last: Mapping[str, DropLook] = {}
        """What the last look at each showed."""
        self._drops = drops
        self._scan_interval = scan_interval

    def look(self, touched: Collection[str] | None, asked: Collection[str], now: Moment) -> Mapping[str, DropLook]:
        """Looks at the drops that were touched and at those that are asked for; at all of them when it is time to.

        Args:
            touched: files and directories in which something has happened; None if that is not known.
            asked: sites whose drops are looked at in any case.
            now: the time.

        Returns:
            What was looked at now.
        """
        sites = None if touched is None or now.monotonic >= self.due else self._drops.sites_at(touched)
        if sites is None:
            self.at, self.due = now.wall, now.monotonic + self._scan_interval
            self.last = self._drops.look()
            return self.last
        looks = self._drops.look(sites.union(asked))
        self.last = {**self.last, **looks}
        return looks
