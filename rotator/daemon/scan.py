"""The scan of the drops: the choice of drops that one pass looks at, and the last look at each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from rotator.rotation.decide import Moment
from rotator.sources.drop_source import DropLook, DropSource


class DropScan:
    """Looks at every drop when that is requested, and in between at the drops that file events name.

    Events may be lost; then the next look at every drop, which is a periodic job, finds the change.

    Args:
        sources: the source of each site's renewals, by the site's name.
        now: the time.
    """

    def __init__(self, sources: Mapping[str, DropSource], now: Moment) -> None:
        self.at = now.wall
        """When all drops were looked at last, UTC."""
        self.looks: Mapping[str, DropLook] = {}
        """The last look at each site's drop."""
        self._sites_by_source = _grouped(sources)
        self._all_requested = True

    def request_all(self) -> None:
        """Has the next look include every drop."""
        self._all_requested = True

    def look(self, touched: Collection[str] | None, due: Collection[str], now: Moment) -> Mapping[str, DropLook]:
        """Looks at the drops that were touched or are due; at all of them if that was requested.

        Args:
            touched: paths of file events; None if they are not known.
            due: names of sites whose drops are looked at in any case.
            now: the time.

        Returns:
            The looks of this call.
        """
        sites = None if touched is None or self._all_requested else self._sites_at(touched)
        if sites is None:
            self.at, self._all_requested = now.wall, False
            self.looks = {site: look for source, _ in self._sites_by_source for site, look in source.look().items()}
            return self.looks
        wanted = sites.union(due)
        looks = {
            site: look
            for source, its_sites in self._sites_by_source
            if its_sites & wanted
            for site, look in source.look(its_sites & wanted).items()
        }
        self.looks = {**self.looks, **looks}
        return looks

    def _sites_at(self, paths: Collection[str]) -> set[str] | None:
        """The sites of these paths; None if the site of any of them is unknown."""
        sites: set[str] = set()
        for path in paths:
            at_path = [source.sites_at(path) for source, _ in self._sites_by_source]
            if not any(at_path):
                return None
            sites.update(*at_path)
        return sites

    @property
    def directories(self) -> Mapping[Path, tuple[int, int]]:
        """Device and inode of every existing directory of the sources, as the last look found it."""
        by_source = [source.directories for source, _ in self._sites_by_source]
        if len(by_source) == 1:
            return by_source[0]  # the same object while nothing is looked at, which is compared at no cost
        return {path: mark for directories in by_source for path, mark in directories.items()}


def _grouped(sources: Mapping[str, DropSource]) -> tuple[tuple[DropSource, frozenset[str]], ...]:
    """Each source once, with its sites."""
    sites: dict[int, set[str]] = {}
    for site, source in sources.items():
        sites.setdefault(id(source), set()).add(site)
    unique = {id(source): source for source in sources.values()}
    return tuple((source, frozenset(sites[key])) for key, source in unique.items())
