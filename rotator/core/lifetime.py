"""How much of a certificate's life is left, and when it is nearly over; no certificate is read here."""

from __future__ import annotations

from datetime import datetime, timedelta


def share_of_life_left(not_before: datetime, not_after: datetime, now: datetime) -> float:
    """The share of a certificate's lifetime that is left, between 0.0 (over) and 1.0 (not begun)."""
    whole = (not_after - not_before).total_seconds()
    if whole <= 0:
        return 0.0
    return min(1.0, max(0.0, (not_after - now).total_seconds() / whole))


def is_critical(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Whether a served certificate is in its critical rest: below min(10 % of its lifetime, 14 days)."""
    return now > critical_from(not_before, not_after)


def critical_from(not_before: datetime, not_after: datetime) -> datetime:
    """When the critical rest of a certificate's life begins: 10 % of its lifetime before its end, at most 14 days."""
    return not_after - min((not_after - not_before) / 10, timedelta(days=14))
