"""When a fit drop may cost nginx a reload, as sentences: every rule of `pacing` on plain values, without a daemon."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rotator.core.lifetime import critical_from, is_critical
from rotator.core.model import Result, Workers, has_reloaded
from rotator.core.reasons import Reason
from rotator.rotation.decide import Moment, Wait
from rotator.rotation.pacing import LastReload, Limits, ReadyDrop, has_room, turns
from tests.support.authority import NOW

DAY = 86400.0
FAR = ReadyDrop("a", critical_in=30 * DAY)
FIRST = ReadyDrop("first", reloads=False)
URGENT = ReadyDrop("urgent", critical_in=0.0)
NEVER = LastReload()
INTERVAL = Reason.MIN_RELOAD_INTERVAL


def at(monotonic: float, wall: float | None = None) -> Moment:
    return Moment(NOW + timedelta(seconds=monotonic if wall is None else wall), monotonic)


def draining(count: int) -> Workers:
    return Workers(1000, frozenset({(1, 1)}), frozenset((2 + n, 0) for n in range(count)))


def reloaded(ago: float) -> LastReload:
    """So many seconds before `at(1000)`."""
    return LastReload(NOW, 1000 - ago)


def verdict(
    *asks: ReadyDrop, last: LastReload = NEVER, workers: Workers | None = None, interval: float = 0.0, budget: int = 0
) -> list[str]:
    """For each, the reason that it waits for; empty if it goes."""
    found = turns(asks, last, workers or draining(0), Limits(interval, budget), at(1000))
    return [wait.reason if wait else "" for wait in found]


# -- the least time between two reloads


def test_without_limits_everything_goes_at_once() -> None:
    assert verdict(FAR, last=reloaded(0), workers=draining(99)) == [""]


def test_the_first_reload_waits_for_nothing() -> None:
    assert verdict(FAR, interval=DAY) == [""]


@pytest.mark.parametrize(("ago", "reason"), [(0, INTERVAL), (59.9, INTERVAL), (60, ""), (61, "")])
def test_a_reload_too_soon_after_the_last_waits(ago: float, reason: str) -> None:
    assert verdict(FAR, last=reloaded(ago), interval=60) == [reason]


def test_it_waits_until_the_interval_is_over_and_says_for_how_long_and_what_does_not_wait() -> None:
    (wait,) = turns([FAR], reloaded(20), draining(0), Limits(60), at(1000))
    assert isinstance(wait, Wait)
    assert wait.until == 1040
    assert "in 40 s" in wait.message
    assert "20 s ago" in wait.message
    assert "min_reload_interval is 60 s" in wait.message
    assert "rotator swap a" in wait.hint


# -- the drain budget


@pytest.mark.parametrize(("count", "reason"), [(0, ""), (3, ""), (4, Reason.DRAIN_BUDGET), (5, Reason.DRAIN_BUDGET)])
def test_as_many_draining_workers_as_the_budget_put_off_a_reload(count: int, reason: str) -> None:
    assert verdict(FAR, workers=draining(count), budget=4) == [reason]


def test_the_message_names_the_numbers_and_the_hint_what_to_do() -> None:
    (wait,) = turns([FAR], NEVER, draining(5), Limits(drain_budget=4), at(1000))
    assert isinstance(wait, Wait)
    assert "5 workers of earlier reloads still drain, and drain_budget is 4" in wait.message
    assert "worker_shutdown_timeout" in wait.hint
    assert "rotator swap a" in wait.hint


def test_workers_that_have_no_client_are_given_a_second_to_end_before_anything_is_told() -> None:
    (wait,) = turns([FAR], reloaded(0.25), draining(4), Limits(drain_budget=4), at(1000))
    assert wait == Wait(1000.75, Reason.DRAIN_BUDGET)


def test_where_the_processes_cannot_be_seen_nothing_waits_for_them() -> None:
    assert turns([FAR], NEVER, None, Limits(drain_budget=1), at(1000)) == (None,)
    assert has_room(None, Limits(drain_budget=1))


def test_the_interval_is_told_before_the_budget_as_it_ends_by_itself() -> None:
    assert verdict(FAR, last=reloaded(1), workers=draining(9), interval=60, budget=1) == [Reason.MIN_RELOAD_INTERVAL]


# -- what waits for nothing


def test_what_takes_no_reload_goes_while_the_others_wait() -> None:
    assert verdict(FAR, FIRST, last=reloaded(1), interval=60) == [Reason.MIN_RELOAD_INTERVAL, ""]
    assert verdict(FIRST, FAR, workers=draining(1), budget=1) == ["", Reason.DRAIN_BUDGET]


@pytest.mark.parametrize("critical_in", [0.0, -1.0, -DAY])
def test_what_is_critical_goes_whatever_the_limits_say(critical_in: float) -> None:
    ask = ReadyDrop("a", critical_in=critical_in)
    assert verdict(ask, last=reloaded(0), workers=draining(9), interval=DAY, budget=1) == [""]


def test_the_others_go_with_what_is_critical_as_that_costs_nothing_more() -> None:
    assert verdict(FAR, URGENT, FIRST, last=reloaded(0), workers=draining(9), interval=DAY, budget=1) == ["", "", ""]


def test_one_that_takes_no_reload_takes_nothing_with_it() -> None:
    critical = ReadyDrop("first", reloads=False, critical_in=0.0)
    assert verdict(FAR, critical, last=reloaded(1), interval=60) == [Reason.MIN_RELOAD_INTERVAL, ""]


@pytest.mark.parametrize("limits", [Limits(min_reload_interval=DAY), Limits(drain_budget=1)])
def test_no_wait_lasts_beyond_the_beginning_of_the_critical_rest(limits: Limits) -> None:
    (wait,) = turns([ReadyDrop("a", critical_in=500)], reloaded(10), draining(1), limits, at(1000))
    assert wait is not None
    assert wait.until == 1500


@pytest.mark.parametrize(("days", "rest"), [(0.25, 0.025), (90, 9), (140, 14), (398, 14)])
def test_the_critical_rest_is_a_tenth_of_the_lifetime_and_two_weeks_at_most(days: float, rest: float) -> None:
    end = NOW + timedelta(days)
    begins = critical_from(NOW, end)
    assert begins == end - timedelta(rest)
    assert [is_critical(NOW, end, begins + timedelta(seconds=s)) for s in (-1, 0, 1)] == [False, False, True]


# -- when the last reload was


def test_the_history_tells_a_reload_that_was_made_before_this_start_or_by_a_command() -> None:
    found = NEVER.updated(NOW + timedelta(seconds=970), at(1000))
    assert found.monotonic == 970


def test_a_history_without_reloads_tells_nothing() -> None:
    assert NEVER.updated(None, at(1000)) == NEVER
    assert reloaded(5).updated(None, at(1000)) == reloaded(5)


def test_an_older_entry_makes_the_last_reload_no_older() -> None:
    assert reloaded(5).updated(NOW - timedelta(days=1), at(1000)).monotonic == 995


@pytest.mark.parametrize("jump", [-DAY, -30.0, 0.0, 30.0, DAY])
def test_a_clock_that_is_set_while_something_waits_changes_nothing(jump: float) -> None:
    seen = NEVER.updated(NOW + timedelta(seconds=970), at(1000))
    later = at(1010, wall=1010 + jump)
    assert seen.updated(NOW + timedelta(seconds=970), later) == seen


@pytest.mark.parametrize("jump", [-365 * DAY, -60.0, -1.0])
def test_a_reload_that_lies_ahead_counts_as_just_made_so_nobody_waits_longer_than_the_interval(jump: float) -> None:
    told = NOW + timedelta(seconds=1000)
    last, limits = NEVER, Limits(60)
    waits = []
    for second in range(1000, 1070, 5):
        now = at(second, wall=second + jump)
        last = last.updated(told, now)
        waits.append(turns([FAR], last, draining(0), limits, now)[0] is not None)
    assert waits == [second < 1060 for second in range(1000, 1070, 5)]


def test_a_clock_set_forward_makes_a_reload_look_older_and_holds_up_nobody() -> None:
    last = NEVER.updated(NOW + timedelta(seconds=999), at(1000, wall=1000 + DAY))
    assert turns([FAR], last, draining(0), Limits(3600), at(1000, wall=1000 + DAY)) == (None,)


# -- what counts as a reload


@pytest.mark.parametrize(
    ("result", "reason", "stages", "counts"),
    [
        (Result.ROTATED, "rotated", {"apply": 0.01, "prove": 0.2}, True),
        (Result.ROTATED, "recovered", {"prove": 0.2}, False),
        (Result.ROLLED_BACK, "not-proved", {"apply": 0.01, "rollback": 5.0}, True),
        (Result.STRANDED, "not-proved", {"apply": 0.01}, True),
        (Result.DEFERRED, "not-wired", {"apply": 0.01, "prove": 5.0}, True),
        (Result.DEFERRED, "not-wired", {"prove": 0.1}, False),
        (Result.DEFERRED, "nginx-refused", {"apply": 0.01, "rollback": 0.1}, False),
        (Result.REJECTED, "nginx-refused", {"apply": 0.01, "rollback": 0.1}, False),
        (Result.DEFERRED, "nginx-down", {"apply": 0.01}, False),
        (Result.DEFERRED, "disk-full", {"apply": 0.01}, False),
        (Result.REJECTED, "expired", {"validate": 0.01}, False),
    ],
)
def test_what_left_old_workers_counts_as_a_reload(
    result: Result, reason: str, stages: dict[str, float], *, counts: bool
) -> None:
    assert has_reloaded(result, reason, stages) is counts
