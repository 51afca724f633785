"""The order of decisions and the rest of costly drops, as sentences: values in, values out, without a daemon."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.rotation.fairness import (
    CHEAP,
    GATHER_FOR,
    HALF_LIFE,
    LARGE,
    LONGEST_REST,
    LOWEST,
    OLDEST_EVERY,
    PASS_FOR,
    REST,
    SMALL,
    Account,
    DueDrop,
    goes_on,
    in_order,
)

DEAREST = 0.93
"""Seconds of CPU time of the most expensive input that the readers accept."""


def order(*due: DueDrop, decisions: int = 0) -> list[str]:
    return [drop.site for drop in in_order(due, decisions)]


# -- accounts


def test_usual_renewals_in_quick_succession_never_rest() -> None:
    account = Account()
    for number in range(1000):
        account = account.charged(0.02, float(number))
        assert account.rests_until < 0


def test_usual_renewals_are_cheap_and_never_rest() -> None:
    account = Account()
    for number in range(6):
        account = account.charged(0.03, 10.0 * number)
    assert account.level(50.0) <= CHEAP
    assert account.rests_until < 0


def test_a_costly_drop_rests_for_a_multiple_of_its_cost() -> None:
    account = Account().charged(DEAREST, 100.0)
    assert account.level(100.0) == 5
    assert account.rests_until == 100.0 + REST * DEAREST * 3


def test_a_drop_that_is_costly_again_and_again_rests_longer_but_never_without_end() -> None:
    account, now, rests = Account(), 0.0, []
    for _ in range(50):
        account = account.charged(DEAREST, now)
        rests.append(account.rests_until - now)
        now = account.rests_until
    assert rests[-1] > rests[0]
    assert max(rests) <= LONGEST_REST


def test_a_cheap_decision_neither_begins_a_rest_nor_makes_one_longer() -> None:
    costly = Account().charged(DEAREST, 0.0)
    assert costly.charged(0.0, 5.0).rests_until == costly.rests_until


def test_a_cheap_decision_during_a_rest_does_not_end_it() -> None:
    costly = Account().charged(DEAREST, 0.0)
    assert costly.charged(0.01, 0.5).rests_until == costly.rests_until


def test_half_of_an_account_is_forgotten_in_its_half_life() -> None:
    assert Account().charged(8 * LOWEST, 0.0).balance(HALF_LIFE) == 4 * LOWEST


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1000)), max_size=30),
    st.floats(0, 5),
)
def test_no_sequence_of_charges_makes_a_balance_negative_or_more_than_their_sum(
    charges: list[tuple[float, float]], more: float
) -> None:
    account, now = Account(), 0.0
    for seconds, pause in charges:
        now += pause
        account = account.charged(seconds, now)
    charged = account.charged(more, now)
    assert 0.0 <= account.balance(now) <= charged.balance(now) <= sum(s for s, _ in charges) + more + 1e-9
    assert charged.rests_until <= now + LONGEST_REST


# -- the order


def test_what_has_had_little_cpu_time_goes_first() -> None:
    assert order(DueDrop("hostile", 1.0, level=3), DueDrop("honest", 9.0)) == ["honest", "hostile"]


def test_the_owner_of_many_costly_drops_waits_for_the_others_even_with_fresh_ones() -> None:
    fresh = DueDrop("fresh", 1.0, owner_level=3)
    assert order(fresh, DueDrop("honest", 9.0, level=1)) == ["honest", "fresh"]


def test_critical_sites_go_first_when_everything_is_due_at_once() -> None:
    due = [DueDrop(f"site{number}", 0.0) for number in range(1000)]
    assert order(*due, DueDrop("critical", 0.0, critical=True))[0] == "critical"


def test_a_small_drop_goes_before_a_large_one() -> None:
    assert order(DueDrop("large", 1.0, size=LARGE), DueDrop("small", 0.0, size=9000)) == ["small", "large"]


def test_a_drop_of_usual_size_goes_before_each_that_is_twice_as_large_as_a_usual_one() -> None:
    hostile = [DueDrop(f"hostile{number}", 9.0, size=2 * SMALL) for number in range(100)]
    assert order(DueDrop("honest", 5.0, size=SMALL - 1), *hostile, DueDrop("hostile", 1.0, size=SMALL))[0] == "honest"


def test_after_a_start_the_smallest_goes_first_whatever_its_name() -> None:
    hostile = [DueDrop(f"hostile{number:03}", 0.0, size=9001 + number) for number in range(100)]
    usual = DueDrop("usual", 0.0, size=9000)
    assert {order(*hostile, usual, decisions=number)[0] for number in range(OLDEST_EVERY)} == {"usual"}


def test_usual_sizes_change_nothing_for_the_newest() -> None:
    assert order(DueDrop("old", 0.0, size=1), DueDrop("new", 1.0, size=SMALL - 1))[0] == "new"


def test_the_newest_of_equals_is_not_delayed_by_a_backlog() -> None:
    backlog = [DueDrop(f"old{number}", float(number)) for number in range(100)]
    assert order(*backlog, DueDrop("new", 200.0))[0] == "new"


def test_the_oldest_of_equals_is_not_delayed_by_a_stream_of_newer_ones() -> None:
    stream = [DueDrop(f"new{number}", 1.0 + number) for number in range(100)]
    assert order(DueDrop("old", 0.0), *stream)[1] == "old"


def test_every_fourth_decision_is_about_the_one_that_is_due_for_longest() -> None:
    oldest = DueDrop("oldest", 0.0, level=9, owner_level=9)
    others = [DueDrop(f"other{number}", 1.0 + number) for number in range(10)]
    assert order(oldest, *others).index("oldest") == OLDEST_EVERY - 1
    assert order(oldest, *others, decisions=OLDEST_EVERY - 1)[0] == "oldest"


drops = st.lists(
    st.builds(
        DueDrop,
        site=st.integers(0, 10**6).map(str),
        since=st.floats(0, 1e6),
        level=st.integers(0, 9),
        owner_level=st.integers(0, 9),
        critical=st.booleans(),
        size=st.integers(0, 4 << 20),
    ),
    max_size=40,
    unique_by=lambda drop: drop.site,
)


@given(drops, st.integers(0, 1000))
def test_every_due_drop_is_given_once(due: list[DueDrop], decisions: int) -> None:
    assert sorted(order(*due, decisions=decisions)) == sorted(drop.site for drop in due)


# -- one pass


def test_a_pass_decides_for_its_time_and_makes_at_least_one_decision() -> None:
    drop = DueDrop("site", 0.0, level=9)
    assert goes_on(0.0, drop, ready=False)
    assert not goes_on(PASS_FOR, drop, ready=False)


def test_what_is_ready_waits_for_cheap_ones_only_and_not_for_long() -> None:
    assert goes_on(PASS_FOR, DueDrop("cheap", 0.0), ready=True)
    assert not goes_on(0.0, DueDrop("costly", 0.0, level=CHEAP + 1), ready=True)
    assert not goes_on(0.0, DueDrop("large", 0.0, size=LARGE), ready=True)
    assert not goes_on(GATHER_FOR, DueDrop("cheap", 0.0), ready=True)


# -- every hostile sequence


@dataclass
class Contest:
    """Hostile drops that each change after each decision about them, and one honest drop.

    Args:
        hostile: their number.
        costs: seconds of CPU time of their decisions, repeated.
        at: virtual time.
    """

    hostile: int
    costs: list[float]
    at: float = 0.0
    decisions: int = 0
    accounts: dict[str, Account] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.since = {f"hostile{number}": self.at for number in range(self.hostile)}

    def decide_one(self) -> str:
        """One decision, with the rules of a pass: the account, the rest, the order."""
        awake = [s for s in self.since if self.accounts.get(s, Account()).rests_until <= self.at]
        if not awake:
            self.at = min(account.rests_until for account in self.accounts.values())
            return ""
        due = [DueDrop(site, self.since[site], self.accounts.get(site, Account()).level(self.at)) for site in awake]
        site = next(iter(in_order(due, self.decisions))).site
        cost = 0.02 if site == "honest" else self.costs[self.decisions % len(self.costs)]
        self.at, self.decisions = self.at + cost, self.decisions + 1
        self.accounts[site] = self.accounts.get(site, Account()).charged(cost, self.at)
        if site == "honest":
            del self.since[site]
        else:
            self.since[site] = self.at
        return site

    def decided_before_the_honest_one(self) -> int:
        """The number of hostile decisions between the arrival of the honest renewal and the decision about it."""
        self.since["honest"] = self.at
        count = 0
        while (site := self.decide_one()) != "honest":
            count += bool(site)
        return count


@settings(max_examples=60, deadline=None)
@given(
    hostile=st.integers(1, 60),
    costs=st.lists(st.floats(0.3, 1.0), min_size=1, max_size=8),
    warm=st.integers(0, 200),
)
def test_an_honest_renewal_is_decided_after_two_hostile_decisions_at_most(
    hostile: int, costs: list[float], warm: int
) -> None:
    contest = Contest(hostile, costs)
    for _ in range(warm):
        contest.decide_one()
    assert contest.decided_before_the_honest_one() <= 2


def test_a_thousand_hostile_drops_delay_an_honest_renewal_by_two_decisions_at_most() -> None:
    contest = Contest(1000, [DEAREST])
    for _ in range(1500):
        contest.decide_one()
    assert contest.decided_before_the_honest_one() <= 2


@settings(max_examples=60, deadline=None)
@given(hostile=st.integers(1, 20), costs=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=8))
def test_no_drop_waits_without_end_whatever_the_others_cost(hostile: int, costs: list[float]) -> None:
    contest = Contest(hostile, costs)
    last = dict.fromkeys(contest.since, 0)
    for number in range(1, 400):
        site = contest.decide_one()
        if site:
            last[site] = number
        waiting = {s for s in last if contest.accounts.get(s, Account()).rests_until <= contest.at}
        assert all(number - last[s] <= 2 * OLDEST_EVERY * (hostile + 1) for s in waiting)
