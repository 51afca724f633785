"""Drops that have long been undecided, as `rotator status` finds them: with the daemon's note, and without a daemon."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotator.cli.undecided import is_undecided, long_undecided_since
from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, SourceFile
from rotator.core.problems import Code
from rotator.rotation.undecided import LONG
from rotator.sources.drop_source import DropLook
from rotator.storage.notes import DaemonNote, UndecidedNote
from rotator.storage.records import ANYTHING, Hold, Intent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTENT = Candidate((SourceFile("fullchain.pem", b"a chain"),))
NO_NOTE = DaemonNote()


@dataclass(frozen=True)
class Drop:
    """A source of one drop.

    Args:
        content: of the drop; an error if it cannot be read.
        changed: how long before `NOW` it was changed last.
    """

    content: Candidate | RotatorError | None = CONTENT
    changed: timedelta = timedelta(hours=1)

    tree: Path | None = None
    directories: Mapping[Path, tuple[int, int]] = ()  # type: ignore[assignment]  # `status` does not use it

    def look(self, sites: Collection[str] | None = None) -> Mapping[str, DropLook]:
        newest = int((NOW - self.changed).timestamp()) * 1_000_000_000
        return dict.fromkeys(sites or (), DropLook(newest=newest))

    def sites_at(self, path: str) -> frozenset[str]:
        return frozenset({path})

    def read(self, site: str, *, await_delivery: bool = False) -> Candidate | None:
        assert (site, await_delivery) == ("example", False)
        if isinstance(self.content, RotatorError):
            raise self.content
        return self.content


def since(drop: Drop, intent: Intent | None = None, note: DaemonNote = NO_NOTE, settle: float = 10.0) -> timedelta:
    """For how long the drop has been undecided, if that is long; zero otherwise."""
    found = long_undecided_since(drop, "example", intent or Intent(), note, NOW, settle)
    return NOW - found if found else timedelta(0)


def noted(ago: timedelta) -> DaemonNote:
    return DaemonNote(1, undecided=(UndecidedNote("other", NOW), UndecidedNote("example", NOW - ago)))


def test_content_that_nobody_has_decided_about_counts_from_its_last_change() -> None:
    assert since(Drop(changed=timedelta(minutes=20))) == timedelta(minutes=20)


def test_a_short_wait_does_not_count() -> None:
    assert since(Drop(changed=LONG - timedelta(seconds=1))) == timedelta(0)
    assert since(Drop(changed=LONG)) == LONG


def test_a_wait_shorter_than_three_grace_times_does_not_count() -> None:
    assert since(Drop(changed=timedelta(minutes=20)), settle=600.0) == timedelta(0)


def test_a_drop_that_changes_all_the_time_counts_from_the_time_in_the_daemons_note() -> None:
    assert since(Drop(changed=timedelta(0)), note=noted(timedelta(hours=2))) == timedelta(hours=2)


@pytest.mark.parametrize(
    ("drop", "intent"),
    [
        (Drop(), Intent(CONTENT.digest, "rotated")),
        (Drop(), Intent(CONTENT.digest, "rejected", "expired")),
        (Drop(), Intent(hold=Hold("root", "", ANYTHING))),
        (Drop(content=None), Intent()),
    ],
    ids=["live", "rejected", "held", "empty"],
)
def test_what_is_decided_held_or_empty_does_not_count_whatever_the_note_says(drop: Drop, intent: Intent) -> None:
    assert is_undecided(drop, "example", intent) is False
    assert since(drop, intent, noted(timedelta(hours=2))) == timedelta(0)


def test_a_drop_that_this_user_cannot_read_counts_by_the_note_alone() -> None:
    closed = Drop(RotatorError(Code.PERMISSION, "closed"))
    assert is_undecided(closed, "example", Intent()) is None
    assert since(closed) == timedelta(0)
    assert since(closed, note=noted(timedelta(hours=2))) == timedelta(hours=2)
