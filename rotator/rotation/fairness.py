"""Fairness: the order in which due drops are decided, and how long a costly one rests, as pure functions.

The content of a drop decides how much CPU time its validation takes, up to about a second, and the writers of a drop
may change it at any time. So that the writers of some drops cannot hold up the renewal of another one, the CPU time of
each decision is charged to an account of the drop and to an account of the owner of its files. Root and the store's
owner have none: they deliver for many sites, and one costly drop among them must not delay the others. Then, in this
order:

 1. Every `OLDEST_EVERY`th decision is about the drop that is due for longest, so that none waits without end.
 2. The others go by the level of the owner's account, then of the drop's own: what has had little goes first (least
    attained service). Each level is twice as wide as the one before, so small differences change nothing.
 3. Within a level, a site whose certificate is close to its expiry goes first, then a small drop before a large one:
    the CPU time of a decision is bounded by the bytes of the drop, so a large one that was never decided delays no
    small one. Among equals, the newest and the oldest take turns: the newest is not delayed by a backlog of others that
    were never decided, and the oldest not by a stream of newer ones. Of those that are due since the same moment, such
    as after a start, the smallest goes first.
 4. A drop that was costly rests after each decision for a multiple of the time that it took.
 5. A pass decides for `PASS_FOR`. Once a drop is ready to go live, only cheap ones join it, and only for `GATHER_FOR`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

HALF_LIFE = 600.0
"""Seconds in which half of an account is forgotten."""
LOWEST = 0.05
"""Seconds of CPU time that belong to the lowest level: two or three decisions about a usual renewal."""
CHEAP = 2
"""The highest level of a drop that counts as cheap: below 0.2 s of CPU time."""
REST = 5.0
"""Seconds of rest for each second of CPU time, multiplied by the number of levels above `CHEAP`."""
SHORTEST_REST, LONGEST_REST = 1.0, 120.0
"""Seconds that a drop rests at least and at most. A site whose usual renewals come in quick succession never rests."""
OLDEST_EVERY = 4
"""One decision of so many is about the drop that is due for longest."""
SMALL = 16 * 1024
"""Bytes below which the size of a drop changes nothing: a usual renewal, which takes 0.03 s of CPU time at most."""
LARGE = 128 * 1024
"""Bytes of a drop from which it does not count as cheap; its decision may take 0.2 s of CPU time and more."""
PASS_FOR = 1.0
"""Seconds for which a pass decides at most; the decision that is under way then is completed."""
GATHER_FOR = 3.0
"""Seconds for which a drop that is ready waits at most for others that can go live with it."""


@dataclass(frozen=True, slots=True)
class Account:
    """The CPU time that the decisions about one drop, or about all drops of one owner, have taken.

    Args:
        spent: seconds of CPU time, as they counted at `at`.
        at: monotonic time of the last charge.
        rests_until: monotonic time until which the drop rests.
    """

    spent: float = 0.0
    at: float = 0.0
    rests_until: float = -math.inf

    def balance(self, now: float) -> float:
        """The CPU time that still counts, in seconds.

        Args:
            now: monotonic time.
        """
        return self.spent * math.exp2(-max(0.0, now - self.at) / HALF_LIFE)

    def level(self, now: float) -> int:
        """0 for an account below `LOWEST`; one more for each doubling.

        Args:
            now: monotonic time.
        """
        balance = self.balance(now)
        return 0 if balance < LOWEST else 1 + int(math.log2(balance / LOWEST))

    def charged(self, seconds: float, now: float) -> Account:
        """The account after a decision.

        Args:
            seconds: of CPU time.
            now: monotonic time.
        """
        after = Account(self.balance(now) + max(0.0, seconds), now)
        rest = min(LONGEST_REST, REST * seconds * max(0, after.level(now) - CHEAP))
        # Finding that a drop rests takes some CPU time, too, which must not end the rest.
        until = now + rest if rest >= SHORTEST_REST else self.rests_until
        return Account(after.spent, now, max(self.rests_until, until))


@dataclass(frozen=True, slots=True)
class DueDrop:
    """One drop that is due.

    Args:
        site: the site's name.
        since: monotonic time since which it is due.
        level: of its account.
        owner_level: of the account of its files' owner; the highest one if there are several.
        critical: whether what the site serves is close to its expiry.
        size: bytes of its files.
    """

    site: str
    since: float
    level: int = 0
    owner_level: int = 0
    critical: bool = False
    size: int = 0

    @property
    def cheap(self) -> bool:
        """Whether its next decision probably takes little CPU time."""
        return self.level <= CHEAP and self.size < LARGE


def in_order(due: Collection[DueDrop], decisions: int) -> Iterator[DueDrop]:
    """The due drops in the order in which they are decided.

    Args:
        due: all of them.
        decisions: the number of decisions before these, which says when the one that is due for longest has its turn.
    """
    by_age = sorted(due, key=lambda drop: (drop.since, drop.size, drop.site))
    oldest = iter(sorted(by_age, key=_rank))
    newest = iter(sorted(due, key=lambda drop: (_rank(drop), -drop.since, drop.size, drop.site)))
    longest, given = iter(by_age), set[str]()
    for number in range(decisions + 1, decisions + 1 + len(due)):
        source = longest if number % OLDEST_EVERY == 0 else newest if number % 2 else oldest
        drop = next(drop for drop in source if drop.site not in given)
        given.add(drop.site)
        yield drop


def goes_on(elapsed: float, drop: DueDrop, *, ready: bool) -> bool:
    """Whether a pass decides about one more drop before it puts live what is ready.

    Args:
        elapsed: seconds since the pass began to decide.
        drop: the next one.
        ready: whether a drop is ready to go live.
    """
    if ready:
        return drop.cheap and elapsed < GATHER_FOR
    return elapsed < PASS_FOR


def _rank(drop: DueDrop) -> tuple[object, ...]:
    return drop.owner_level, drop.level, not drop.critical, (drop.size // SMALL).bit_length()
