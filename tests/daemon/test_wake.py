"""The wait of the loop: what ends it, and once for many settings."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from rotator.daemon.wake import Wake


@pytest.fixture
def wake() -> Iterator[Wake]:
    it = Wake()
    yield it
    it.close()


def test_without_an_event_the_wait_lasts_its_time(wake: Wake) -> None:
    begun = time.monotonic()
    assert not wake.wait(0.05)
    assert time.monotonic() - begun >= 0.045


def test_many_settings_are_one_wake(wake: Wake) -> None:
    for _ in range(1000):
        wake.set()
    assert wake.wait(0)
    assert not wake.wait(0)


def test_another_thread_ends_the_wait(wake: Wake) -> None:
    thread = threading.Timer(0.05, wake.set)
    thread.start()
    assert wake.wait(5)
    thread.join()


def test_a_signal_handler_ends_the_wait(wake: Wake) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: wake.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert wake.wait(5)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_setting_one_that_is_closed_is_harmless() -> None:
    wake = Wake()
    wake.close()
    wake.set()
    wake.close()
