"""The state of one site's drop between two passes of the loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime

from rotator.core.model import Result
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.rotation.decide import Decided, Decision, Deferral, Held, Moment, Nothing, Wait
from rotator.rotation.fairness import Account
from rotator.sources.drop_source import DropLook, Signature
from rotator.storage.records import Intent


@dataclass(slots=True)
class DropState:
    """The loop's knowledge of one site's drop. It is not stored: after a restart the daemon determines it again.

    Args:
        signature: of the last look; None before the first look.
        changed: monotonic time of its last change.
        due: monotonic time of the next decision about it.
        decision: the last one.
        deferral: the wait for the next try; None if there is none.
        decided: the last decision as it is recorded.
        unwritten: a decision that could not be written to the disk.
        problem: why it could not be looked at, as reported last.
        validate_again: whether it is validated although it was decided, because the clock has been set since.
        account: the CPU time that the decisions about it have taken.
        undecided_since: since when its content waits for a decision, UTC; None if it does not.
        lives: the begin and the end of each live certificate, UTC; None before they were read.
    """

    signature: Signature | None = None
    changed: float = 0.0
    due: float = 0.0
    decision: Decision = field(default_factory=Nothing)
    deferral: Deferral | None = None
    decided: Intent = field(default_factory=Intent)
    unwritten: Intent | None = None
    problem: str = ""
    validate_again: bool = False
    account: Account = field(default_factory=Account)
    undecided_since: datetime | None = None
    lives: tuple[tuple[datetime, datetime], ...] | None = None

    def record_look(self, look: DropLook, now: float) -> bool:
        """Records a look at the drop, which is due if it has changed. Returns whether it has another problem now."""
        if look.signature != self.signature:
            self.signature, self.changed, self.due = look.signature, now, min(self.due, now)
        before, self.problem = self.problem, look.problem
        return before != look.problem

    @property
    def is_reported_as_resting(self) -> bool:
        """Whether its last decision, which is recorded, is that it rests because it was costly."""
        return isinstance(self.decision, Wait) and self.decision.reason == Reason.COSTLY

    def note_whether_undecided(self, now: Moment) -> None:
        """Notes since when the content of the drop waits for a decision, whatever it waits for."""
        waits = not isinstance(self.decision, (Nothing, Decided, Held)) or self.due <= now.monotonic
        self.undecided_since = (self.undecided_since or now.wall) if self.signature and waits else None

    def clock_was_set(self, now: float) -> None:
        """Has a refused or waiting drop validated at the new time."""
        self.validate_again = isinstance(self.decision, Decided) and self.decided.result == Result.REJECTED
        self.end_wait(None, now)
        if self.validate_again:
            self.due = now

    def end_wait(self, reasons: Collection[Reason | Code] | None, now: float) -> bool:
        """Makes a drop due that waits for one of these reasons (None: for any). Returns whether it does."""
        if not self.deferral or (reasons is not None and self.deferral.reason not in reasons):
            return False
        self.deferral, self.due = replace(self.deferral, due=now), now
        return True
