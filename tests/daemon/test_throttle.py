"""The pause after idle passes: a drop does not wait, a storm of events gets a quarter of a core."""

from __future__ import annotations

from rotator.daemon.throttle import Throttle


def test_the_few_passes_of_a_drop_are_not_paused_however_long_each_takes() -> None:
    throttle, now = Throttle(), 100.0
    for _ in range(8):
        assert throttle.pause(now, now + 0.03) == 0.0
        now += 0.05


def test_a_storm_of_events_is_left_a_quarter_of_a_core() -> None:
    throttle, now, busy = Throttle(), 100.0, 0.0
    while now < 160.0:
        pause = throttle.pause(now, now + 0.03)
        now, busy = now + 0.03 + pause, busy + 0.03
    assert 0.2 < busy / 60.0 < 0.27


def test_after_a_storm_the_next_drop_does_not_wait() -> None:
    throttle, now = Throttle(), 100.0
    for _ in range(100):
        now += 0.03 + throttle.pause(now, now + 0.03)
    assert throttle.pause(now, now + 0.03) > 0.0
    now += 5.0
    assert [throttle.pause(now + n, now + n + 0.03) for n in range(5)] == [0.0] * 5
