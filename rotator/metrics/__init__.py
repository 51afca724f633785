"""The metrics: counters, a snapshot that the loop publishes, its page and web server. Never: who updates them."""

from __future__ import annotations

from rotator.metrics.counters import Counters, Last
from rotator.metrics.gathering import site_facts
from rotator.metrics.snapshot import InputState, SiteFacts, Snapshot

__all__ = ["Counters", "InputState", "Last", "Registry", "SiteFacts", "Snapshot", "site_facts"]


class Registry:
    """Holds the last snapshot; any thread may publish or render, and nobody waits for anybody."""

    def __init__(self) -> None:
        # Not at the top: the library costs 90 ms and 20 MB, and what reads only the values needs none of it.
        from rotator.metrics.collector import CONTENT_TYPE, exposition

        self.content_type = CONTENT_TYPE
        self._exposition = exposition
        self._snapshot = Snapshot()
        self._page: tuple[Snapshot, bytes] | None = None

    def publish(self, snapshot: Snapshot) -> None:
        """Makes this the snapshot that is shown from now on: one swap of a reference."""
        self._snapshot = snapshot

    def render(self) -> bytes:
        """The page of the last snapshot, made once however many ask for it."""
        snapshot, page = self._snapshot, self._page
        if page is None or page[0] is not snapshot:
            page = self._page = (snapshot, self._exposition(snapshot))
        return page[1]
