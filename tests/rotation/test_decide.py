"""Every rule of what to do with a drop, as sentences; nothing is read from a disk here."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import KeyType, Pair
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason
from rotator.rotation.decide import (
    Decided,
    Decision,
    Deferral,
    Drop,
    Held,
    Moment,
    Nothing,
    Refuse,
    Rotate,
    Settling,
    Wait,
    backoff,
    decide,
    resumed_wait,
)
from rotator.storage.records import Hold, Intent
from rotator.validation.validate import Verdict
from tests.support.authority import NOW

SETTLE = 10.0
DIGEST = "d" * 64
BOTH = frozenset({KeyType.ECDSA, KeyType.RSA})


def a_pair(kind: KeyType = KeyType.ECDSA, begins_in: float = -3600.0) -> Pair:
    begin = NOW + timedelta(seconds=begins_in)
    return Pair(kind, (b"leaf",), None, "", "", "1", ("a.test",), begin, begin + timedelta(90), begin + timedelta(90))


def fit(*kinds: KeyType) -> Verdict:
    return Verdict(tuple(a_pair(kind) for kind in kinds or (KeyType.ECDSA,)))


def refused(*codes: Code, begins_in: float = -3600.0) -> Verdict:
    problems = tuple(Problem(code, Severity.REJECT, "no") for code in codes)
    return Verdict((a_pair(begins_in=begins_in),), problems)


def borrowing() -> Verdict:
    return Verdict((a_pair(),), borrowed=True)


def drop(verdict: Verdict | None = None, *, age: float = 0.0, digest: str = DIGEST, error: Code | None = None) -> Drop:
    """A drop that changed `age` seconds ago."""

    def validate() -> Verdict:
        assert verdict is not None, "validated although it does not matter"
        return verdict

    return Drop(digest, 100.0 - age, validate, RotatorError(error, f"it is {error}", "do that") if error else None)


def decided(found: Drop, intent: Intent | None = None, **more: Any) -> Decision:
    return decide(found, intent or Intent(), "policy", Moment(NOW, 100.0), SETTLE, **more)


# -- what was decided


def test_an_empty_drop_asks_for_nothing() -> None:
    assert decided(drop(digest="")) == Nothing()


def test_an_empty_drop_asks_for_nothing_whatever_was_decided_before() -> None:
    assert decided(drop(digest=""), Intent("", "rejected", "expired", "policy")) == Nothing()


@pytest.mark.parametrize("result", ["unchanged", "rejected", "rotated", "rolled-back", "stranded"])
def test_a_drop_is_decided_once(result: str) -> None:
    assert decided(drop(age=99), Intent(DIGEST, result, "", "policy")) == Decided()


def test_another_digest_is_decided_anew() -> None:
    assert decided(drop(fit()), Intent("e" * 64, "rejected", "", "policy")) == Rotate()


def test_another_policy_has_the_same_drop_decided_anew() -> None:
    assert decided(drop(fit()), Intent(DIGEST, "rejected", "", "another")) == Rotate()


def test_a_refused_drop_that_cannot_be_read_is_decided_once_too() -> None:
    assert decided(drop(error=Code.TOO_LARGE, age=99), Intent(DIGEST, "rejected", "", "policy")) == Decided()


# -- holds


def test_what_is_held_by_hand_waits() -> None:
    hold = Hold("alice", "2026-11-22T12:00:00Z", DIGEST)
    assert decided(drop(age=99), Intent("", "rotated", "", "policy", "", hold)) == Held(hold)


def test_a_hold_ends_when_the_drop_changes() -> None:
    hold = Hold("alice", "2026-11-22T12:00:00Z", "e" * 64)
    assert decided(drop(fit()), Intent("", "rotated", "", "policy", "", hold)) == Rotate()


def test_a_hold_outlives_a_change_of_the_policy() -> None:
    hold = Hold("alice", "2026-11-22T12:00:00Z", DIGEST)
    assert decided(drop(), Intent("", "rotated", "", "another", "", hold)) == Held(hold)


def test_a_hold_on_what_could_not_be_read_lasts_while_it_cannot() -> None:
    hold = Hold("alice", "2026-11-22T12:00:00Z", "")
    intent = Intent("", "rotated", "", "policy", "", hold)
    assert decided(drop(error=Code.PERMISSION, age=99), intent) == Held(hold)
    assert decided(drop(fit()), intent) == Rotate()


# -- fit


def test_a_fit_drop_goes_at_once() -> None:
    assert decided(drop(fit(), age=0)) == Rotate()


def test_another_kind_of_key_than_the_live_one_goes_at_once() -> None:
    assert decided(drop(fit(KeyType.RSA)), live=frozenset({KeyType.ECDSA})) == Rotate()


def test_both_kinds_of_a_dual_site_go_at_once() -> None:
    assert decided(drop(fit(KeyType.ECDSA, KeyType.RSA)), live=BOTH) == Rotate()


@pytest.mark.parametrize(("there", "lacking"), [(KeyType.ECDSA, KeyType.RSA), (KeyType.RSA, KeyType.ECDSA)])
def test_one_kind_of_a_dual_site_waits_for_the_other(there: KeyType, lacking: KeyType) -> None:
    found = decided(drop(fit(there), age=3), live=BOTH)
    assert found == Settling(107.0, f"no {lacking} key yet")


def test_one_kind_of_a_dual_site_goes_alone_after_the_grace_time() -> None:
    assert decided(drop(fit(KeyType.RSA), age=10), live=BOTH) == Rotate()


def test_a_kept_live_pair_does_not_count_as_delivered() -> None:
    verdict = replace(fit(KeyType.ECDSA, KeyType.RSA), kept=(KeyType.RSA,))
    assert decided(drop(verdict, age=3), live=BOTH) == Settling(107.0, "no rsa key yet")
    assert decided(drop(verdict, age=10), live=BOTH) == Rotate()


# -- not fit


def test_a_refused_drop_settles_first() -> None:
    assert decided(drop(refused(Code.KEY_MISMATCH), age=9.9)) == Settling(100.1, Code.KEY_MISMATCH)


def test_a_refused_drop_is_refused_when_it_was_quiet_for_the_grace_time() -> None:
    assert decided(drop(refused(Code.KEY_MISMATCH), age=10)) == Refuse()


def test_a_drop_without_a_pair_settles_and_is_refused() -> None:
    assert decided(drop(Verdict(), age=1)) == Settling(109.0, Code.CERT_MISSING)
    assert decided(drop(Verdict(), age=10)) == Refuse()


@pytest.mark.parametrize("code", [Code.TOO_LARGE, Code.EMPTY_FILE])
def test_a_drop_that_cannot_be_read_for_its_own_fault_settles_and_is_refused(code: Code) -> None:
    assert decided(drop(error=code, age=1)) == Settling(109.0, code)
    found = decided(drop(error=code, age=10))
    assert isinstance(found, Refuse)
    assert found.error is not None
    assert found.error.code == code


# -- deferred


@pytest.mark.parametrize("code", [Code.IO_ERROR, Code.PERMISSION])
def test_a_fault_of_the_environment_settles_and_is_deferred(code: Code) -> None:
    assert decided(drop(error=code, age=1)) == Settling(109.0, code)
    assert decided(drop(error=code, age=10)) == Wait(105.0, code, f"it is {code}", "do that")


def test_each_try_of_what_cannot_be_read_waits_twice_as_long() -> None:
    deferral = Deferral(DIGEST, 100.0, 3, Code.PERMISSION)
    found = decided(drop(error=Code.PERMISSION, age=50), Intent(DIGEST, "deferred", "", "policy"), deferral=deferral)
    assert found == Wait(100.0 + 40.0, Code.PERMISSION, "it is permission", "do that")


def test_what_is_deferred_waits_for_its_next_try() -> None:
    deferral = Deferral(DIGEST, 103.0, 2, Reason.NGINX_DOWN)
    intent = Intent(DIGEST, "deferred", "nginx-down", "policy")
    assert decided(drop(), intent, deferral=deferral) == Wait(103.0, Reason.NGINX_DOWN)


def test_what_is_deferred_is_tried_when_it_is_due() -> None:
    deferral = Deferral(DIGEST, 100.0, 2, Reason.NGINX_DOWN)
    assert decided(drop(fit()), Intent(DIGEST, "deferred", "", "policy"), deferral=deferral) == Rotate()


def test_what_was_deferred_by_a_command_is_tried_at_once() -> None:
    assert decided(drop(fit()), Intent(DIGEST, "deferred", "nginx-down", "policy")) == Rotate()


def test_another_policy_ends_the_wait() -> None:
    deferral = Deferral(DIGEST, 500.0, 5, Reason.NGINX_DOWN)
    assert decided(drop(fit()), Intent(DIGEST, "deferred", "", "another"), deferral=deferral) == Rotate()


def test_another_drop_does_not_wait_for_the_one_before() -> None:
    deferral = Deferral("e" * 64, 500.0, 5, Reason.NGINX_DOWN)
    assert decided(drop(fit()), Intent("e" * 64, "deferred", "", "policy"), deferral=deferral) == Rotate()


def test_the_pauses_double_from_five_seconds_to_ten_minutes() -> None:
    assert [backoff(n) for n in range(1, 10)] == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert backoff(10_000) == 600


# -- not valid yet


def test_a_pair_that_begins_within_the_hour_is_waited_for() -> None:
    found = decided(drop(refused(Code.NOT_YET_VALID, begins_in=90)))
    assert isinstance(found, Wait)
    assert (found.until, found.reason) == (190.0, "not-yet-valid")


def test_it_is_looked_at_every_ten_minutes_as_clocks_are_set() -> None:
    found = decided(drop(refused(Code.NOT_YET_VALID, begins_in=3600)))
    assert isinstance(found, Wait)
    assert found.until == 700.0


def test_a_pair_that_begins_later_than_in_an_hour_is_refused() -> None:
    assert decided(drop(refused(Code.NOT_YET_VALID, begins_in=3601), age=10)) == Refuse()


def test_a_pair_that_begins_soon_and_has_another_fault_is_refused() -> None:
    assert decided(drop(refused(Code.NOT_YET_VALID, Code.NAME_MISMATCH, begins_in=90), age=10)) == Refuse()


def test_a_pair_whose_issuer_is_not_valid_yet_is_refused() -> None:
    assert decided(drop(refused(Code.NOT_YET_VALID, begins_in=-90), age=10)) == Refuse()


# -- over a restart


def test_what_was_deferred_before_a_restart_waits_for_what_is_left() -> None:
    intent = Intent(DIGEST, "deferred", "nginx-down", "policy", (NOW + timedelta(seconds=7)).isoformat())
    assert resumed_wait(intent, Moment(NOW, 100.0)) == Deferral(DIGEST, 107.0, 1, Reason.NGINX_DOWN)


def test_a_clock_that_was_set_back_prolongs_no_wait_beyond_the_longest() -> None:
    intent = Intent(DIGEST, "deferred", "", "policy", (NOW + timedelta(days=30)).isoformat())
    found = resumed_wait(intent, Moment(NOW, 100.0))
    assert found is not None
    assert found.due == 700.0


@pytest.mark.parametrize("next_try", ["", "soon", "2026-11-22T12:00:00", "2020-01-01T00:00:00+00:00"])
def test_a_next_try_that_is_over_or_says_nothing_is_due(next_try: str) -> None:
    found = resumed_wait(Intent(DIGEST, "deferred", "", "policy", next_try), Moment(NOW, 100.0))
    assert found is not None
    assert found.due == 100.0


def test_what_was_decided_before_a_restart_is_not_resumed() -> None:
    assert resumed_wait(Intent(DIGEST, "rejected", "", "policy"), Moment(NOW, 100.0)) is None
    assert resumed_wait(Intent("", "deferred", "", "policy"), Moment(NOW, 100.0)) is None


def test_a_pair_that_was_completed_from_outside_its_drop_waits_for_the_grace_time() -> None:
    decision = decide(drop(borrowing(), age=3), Intent(), "p", Moment(NOW, 100.0), SETTLE)
    assert decision == Settling(107.0, "no intermediate yet, but one in the pool")


def test_a_pair_that_was_completed_from_outside_its_drop_goes_after_the_grace_time() -> None:
    assert decide(drop(borrowing(), age=SETTLE), Intent(), "p", Moment(NOW, 100.0), SETTLE) == Rotate()
