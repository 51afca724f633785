"""One play of the demo on each nginx: every scenario passes in the promised time, no client fails, nothing is left."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rotator.demo.scenarios import SCENARIOS
from tests.support.demo import PROMISED, play, titles
from tests.support.nginx_fixtures import require_nginx
from tests.support.waiting import BUSY


@dataclass(frozen=True)
class Played:
    """What came of one play.

    Args:
        status: the exit status.
        answer: what it printed.
        worked: the seconds of processor that it and its processes took.
        left: what it left in the directory for temporary files.
    """

    status: int
    answer: Mapping[str, Any]
    worked: float
    left: list[Path]


@pytest.fixture(scope="module", params=["debian", pytest.param("mainline", marks=pytest.mark.contract)])
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The one play that the tests of this part look at."""
    top = tmp_path_factory.mktemp("played") / "t"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, answer = play(top, require_nginx(request.param))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Played(status, answer, worked, list(top.iterdir()))


def test_every_scenario_passes(played: Played) -> None:
    assert titles(played.answer, passed=False) == []
    assert titles(played.answer, passed=True) == [title for title, _ in SCENARIOS]


def test_a_play_that_passes_exits_0(played: Played) -> None:
    assert (played.status, played.answer["passed"], played.answer["exit"]) == (0, True, 0)


def test_a_play_takes_no_longer_than_promised(played: Played) -> None:
    assert played.worked < PROMISED / 2  # of one processor; the rest is waiting, and that on a busy machine, too
    assert played.answer["seconds"] < PROMISED * BUSY


def test_no_client_fails_during_a_play(played: Played) -> None:
    assert played.answer["connections"]["answered"] > 100
    assert played.answer["connections"]["failed"] == 0


def test_the_stages_of_the_first_rotation_are_shown(played: Played) -> None:
    assert {"validate", "store", "test", "apply", "prove"} <= played.answer["scenarios"][0]["stages"].keys()


def test_a_play_leaves_no_file(played: Played) -> None:
    assert played.left == []
