"""The daemon's loop under a clock that jumps, in virtual time: no core burns, nothing is condemned, work goes on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.authority import NOW
from tests.support.looping import Looping

HOUR, MONTH = timedelta(hours=1), timedelta(days=30)
TO_1970 = datetime(1970, 1, 1, tzinfo=UTC) - NOW
JUMPS = {"+1 h": HOUR, "-1 h": -HOUR, "+30 d": MONTH, "-30 d": -MONTH, "1970": TO_1970}
MOST_PASSES = 600 / 15 * 2 + 700
"""In ten minutes: one for each scan interval, some more for what becomes due, one a second while something waits."""

each_jump = pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Looping]:
    looping = Looping(tmp_path)
    looping.drop(looping.issue())
    looping.run_for(60)
    yield looping
    print(looping.log.read_text())
    looping.close()


def _set(daemon: Looping, jump: timedelta) -> None:
    """Sets the wall clock, and not the other one."""
    daemon.clock._start += jump


def _passes(daemon: Looping, seconds: float) -> int:
    """How many passes fall into this time."""
    end, count = daemon.clock.time + seconds, 0
    while daemon.clock.time < end:
        due = daemon.loop.tick()
        count += 1
        assert count < 100_000, "it burns a core"
        daemon.clock.sleep(max(0.0, min(due, end) - daemon.clock.time))
    return count


@each_jump
def test_an_idle_daemon_goes_on_as_before_and_burns_no_core(daemon: Looping, jump: timedelta) -> None:
    before, live, hups = daemon.history.entries(), daemon.world.live("example"), daemon.nginx.hups
    _set(daemon, jump)
    assert _passes(daemon, 600) < MOST_PASSES
    daemon.loop.maintenance.validate_live()
    daemon.loop.maintenance.probe()
    daemon.run_for(600)
    assert (daemon.history.entries(), daemon.world.live("example"), daemon.nginx.hups) == (before, live, hups)


@each_jump
def test_a_renewal_that_meets_the_wrong_time_is_live_at_the_latest_when_the_clock_is_right(
    daemon: Looping, jump: timedelta
) -> None:
    new = daemon.issue()
    _set(daemon, jump)
    daemon.drop(new)
    assert _passes(daemon, 600) < MOST_PASSES
    assert daemon.decided()[0] in ("rotated", "deferred"), "condemned by a wrong clock"
    _set(daemon, -jump)
    daemon.run_for(15)
    assert daemon.shows(new)


@each_jump
def test_a_restart_under_the_wrong_time_proves_what_is_live_and_changes_nothing(
    daemon: Looping, jump: timedelta
) -> None:
    live, hups = daemon.world.live("example"), daemon.nginx.hups
    _set(daemon, jump)
    daemon.restart()
    assert _passes(daemon, 600) < MOST_PASSES
    assert (daemon.world.live("example"), daemon.nginx.hups) == (live, hups)
    assert daemon.store.verified("example") == live


def test_a_host_that_boots_in_1970_takes_its_renewal_within_a_pass_of_being_told_the_date(tmp_path: Path) -> None:
    daemon = Looping(tmp_path)
    new = daemon.issue()
    _set(daemon, TO_1970)
    daemon.drop(new)
    daemon.restart()
    daemon.run_for(3600)  # the pause until the next try has grown to ten minutes
    assert daemon.decided() == ("deferred", "clock-suspect")
    _set(daemon, -TO_1970)
    daemon.run_for(15)
    assert daemon.shows(new)
    assert daemon.said("clock-set") == 1
    daemon.close()


def test_a_drop_that_a_clock_far_ahead_has_refused_is_judged_again_when_the_clock_is_set_right(tmp_path: Path) -> None:
    daemon = Looping(tmp_path)
    new = daemon.host.issue(days=20)
    _set(daemon, MONTH)
    daemon.drop(new)
    daemon.run_for(30)
    assert daemon.decided() == ("rejected", "expired")
    _set(daemon, -MONTH)
    daemon.run_for(15)
    # The history was written in the future, so whether the clock is right now is for a person to say, once …
    assert daemon.decided() == ("deferred", "clock-suspect")
    daemon.host.swap(daemon.site(), daemon.host.first["example"], force=True)
    daemon.run_for(601)
    assert daemon.shows(new)  # … and then it goes by itself.
    daemon.close()


def test_a_drop_that_is_refused_for_another_reason_is_refused_again_and_reloads_nothing(daemon: Looping) -> None:
    hups = daemon.nginx.hups
    daemon.write("privkey.pem", daemon.issue().key_pem)
    daemon.run_for(30)
    assert daemon.decided()[0] == "rejected"
    _set(daemon, 2 * HOUR)
    daemon.run_for(600)
    assert (daemon.decided()[0], daemon.said("rejected example"), daemon.nginx.hups) == ("rejected", 2, hups)


def test_a_clock_that_is_slewed_or_set_by_minutes_is_none_that_was_set(daemon: Looping) -> None:
    for seconds in (0.5, -0.5, 60, -60, 600, -600):
        _set(daemon, timedelta(seconds=seconds))
        daemon.run_for(30)
    assert not daemon.said("clock-set")
