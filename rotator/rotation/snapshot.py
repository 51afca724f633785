"""A snapshot of one site: what nginx's include names, that generation as stored, and what was proved and decided.

It is taken once for a decision and once more under the rotation lock, as another process may have changed the site in
between. Everything in between uses it as an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rotator.core.errors import RotatorError
from rotator.core.hints import command
from rotator.core.model import Generation, KeyType
from rotator.core.reasons import Reason
from rotator.rotation.ports import Ports
from rotator.storage.records import Intent


@dataclass(frozen=True, slots=True)
class SiteSnapshot:
    """One site at one moment.

    Args:
        site: the site's name.
        live: name of the generation that nginx's include names; empty if it names none.
        generation: that generation as stored; None if there is none, or with `fault`.
        fault: why the include or the generation cannot be read; None if both can.
        verified: name of the generation last proved; empty if none.
        intent: the last decision, and a hold.
    """

    site: str
    live: str = ""
    generation: Generation | None = None
    fault: RotatorError | None = field(default=None, compare=False)
    verified: str = ""
    intent: Intent = field(default_factory=Intent)

    @property
    def chains(self) -> Mapping[KeyType, tuple[bytes, ...]]:
        """The live chains by kind of key; empty if none is known."""
        return self.generation.chains if self.generation else {}

    @property
    def is_verified(self) -> bool:
        """Whether what is live is what was last proved."""
        return bool(self.live) and self.live == self.verified

    @property
    def lives(self) -> tuple[tuple[datetime, datetime], ...]:
        """The begin of each live certificate and the end of its chain, UTC."""
        pairs = self.generation.record.pairs if self.generation else ()
        return tuple((pair.not_before, pair.effective_not_after) for pair in pairs)


def take_snapshot(site: str, ports: Ports) -> SiteSnapshot:
    """Reads everything about a site once. It never raises: `fault` says what cannot be read.

    Args:
        site: the site's name.
        ports: the live include, and the store.
    """
    include, store = ports.live(site), ports.store
    generation: Generation | None = None
    fault: RotatorError | None = None
    if include.problem:
        hint = f"Move that file away, then: {command('rotator swap', site)} --cert FILE --key FILE --first"
        fault = RotatorError(Reason.INCLUDE_FOREIGN, include.problem, hint)
    elif include.generation:
        try:
            generation = store.load(site, include.generation)
        except RotatorError as e:
            fault = e
    return SiteSnapshot(site, include.generation, generation, fault, store.verified(site), store.intent(site))
