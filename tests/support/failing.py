"""How work is made to fail and how that is caught: calls to the system that fail, or never return; no tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from rotator.core.errors import RotatorError
from tests.support.powercut import StandIn


class Fails(StandIn):
    """Lets one kind of call fail, each time."""

    def __init__(self, call: str, number: int) -> None:
        self._call, self._number = call, number

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if name == self._call:
            raise OSError(self._number, os.strerror(self._number))


class KilledError(BaseException):
    """The process ends here; nothing that would clear up is able to."""


class Kill(StandIn):
    """Lets so many calls pass; then nothing is carried out any more, clearing up included."""

    def __init__(self, calls: int) -> None:
        self._left = calls
        self.killed = False

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._left -= 1
        if self._left < 0:
            self.killed = True
            raise KilledError


def refusal(work: Callable[[], object]) -> RotatorError:
    """The error that `work` ends with; the test fails if it ends well."""
    with pytest.raises(RotatorError) as caught:
        work()
    return caught.value
