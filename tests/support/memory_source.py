"""A source of renewals in memory, as a secrets store would be one: it has no directory and no file events."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, SourceFile
from rotator.sources.drop_source import DropLook
from tests.support.authority import Issued


@dataclass
class MemorySource:
    """A `DropSource` whose content the test puts into it.

    Args:
        sites: the names of its sites.
    """

    sites: tuple[str, ...]
    secrets: dict[str, Candidate] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    failure: RotatorError | None = None
    reads: int = 0
    directories: Mapping[Path, tuple[int, int]] = field(default_factory=dict)

    def put(self, site: str, issued: Issued) -> None:
        """A new version of a site's secret."""
        files = SourceFile("tls.crt", issued.chain_pem), SourceFile("tls.key", issued.key_pem)
        self.secrets[site] = Candidate(files)
        self.versions[site] = self.versions.get(site, 0) + 1

    def look(self, sites: Collection[str] | None = None) -> dict[str, DropLook]:
        asked = [site for site in self.sites if sites is None or site in sites]
        if self.failure:
            return {site: DropLook((), self.failure.message, self.failure.hint, self.failure.code) for site in asked}
        return {
            site: DropLook((("version", self.versions[site]),)) if site in self.versions else DropLook()
            for site in asked
        }

    def sites_at(self, path: str) -> frozenset[str]:
        return frozenset()

    def read(self, site: str, *, await_delivery: bool = False) -> Candidate | None:
        self.reads += 1
        return self.secrets.get(site)
