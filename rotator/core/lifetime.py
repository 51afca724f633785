"""The remaining lifetime of a certificate, and the moment from which it is critical."""

from __future__ import annotations

from datetime import datetime, timedelta


def share_of_life_left(not_before: datetime, not_after: datetime, now: datetime) -> float:
    """The share of a certificate's lifetime that is left, between 0.0 (expired) and 1.0 (not yet valid)."""
    lifetime = (not_after - not_before).total_seconds()
    if lifetime <= 0:
        return 0.0
    return min(1.0, max(0.0, (not_after - now).total_seconds() / lifetime))


def is_critical(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Whether a served certificate is close to its expiry: less than min(10 % of its lifetime, 14 days) is left."""
    return now > critical_from(not_before, not_after)


def critical_from(not_before: datetime, not_after: datetime) -> datetime:
    """The moment from which a certificate is critical: 10 % of its lifetime before its expiry, at most 14 days."""
    return not_after - min((not_after - not_before) / 10, timedelta(days=14))
