"""The metrics: counters, the published snapshot, its page and web server. Never: the loop that publishes them."""

from __future__ import annotations

from rotator.metrics.counters import Counters, LastResult
from rotator.metrics.observed import site_facts
from rotator.metrics.snapshot import InputState, SiteFacts, Snapshot

__all__ = ["Counters", "InputState", "LastResult", "Registry", "SiteFacts", "Snapshot", "site_facts"]


class Registry:
    """The last published snapshot and its page. Any thread may publish or render, and no thread waits for another."""

    def __init__(self) -> None:
        # Imported here, because the library costs 90 ms and 20 MB, and a user of the values alone does not need it.
        from rotator.metrics.collector import CONTENT_TYPE, exposition

        self.content_type = CONTENT_TYPE
        self._exposition = exposition
        self._snapshot = Snapshot()
        self._page: tuple[Snapshot, bytes] | None = None

    def publish(self, snapshot: Snapshot) -> None:
        """Replaces the snapshot by one assignment, which is atomic."""
        self._snapshot = snapshot

    def render(self) -> bytes:
        """The page of the last snapshot, rendered once and then cached."""
        snapshot, page = self._snapshot, self._page
        if page is None or page[0] is not snapshot:
            page = self._page = (snapshot, self._exposition(snapshot))
        return page[1]
