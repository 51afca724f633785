"""How the daemon stands, in one line for `systemctl status`; nothing is looked at or decided here."""

from __future__ import annotations

from collections.abc import Mapping

from rotator.daemon.intake import Memory
from rotator.daemon.tending import Care
from rotator.model import Result
from rotator.reconcile import Decided, Held, Rotate, Settling, Wait

SHOWN = 5
"""Sites that are told of by name."""

_BAD = (Result.REJECTED, Result.ROLLED_BACK, Result.STRANDED)


def status_line(memories: Mapping[str, Memory], cares: Mapping[str, Care]) -> str:
    """One telling line: how many sites there are, and which are not as wanted.

    Args:
        memories: of each site.
        cares: the sites that are not proved.
    """
    told = [f"{name} {words}" for name, memory in memories.items() if (words := _words(memory, cares.get(name)))]
    count = len(memories)
    head = f"{count} site{'s' * (count != 1)}"
    if not told:
        return f"{head}, all as wanted"
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return f"{head}, {len(told)} not as wanted: {', '.join(told[:SHOWN])}{more}"


def _words(memory: Memory, care: Care | None) -> str:
    match memory.decision:
        case Wait(reason=reason):
            return f"waits ({reason})"
        case Settling(why=why):
            return f"is settling ({why})"
        case Held(hold=hold):
            held = f"is held by {hold.by} since {hold.since}"
            return f"{_unproved(care)}, and {held}" if care else held  # what is served comes before what is wanted
        case Rotate():
            return "is about to go live"
        case Decided() if memory.decided.result in _BAD:
            return f"was {memory.decided.result} ({memory.decided.reason})"
    if care:
        return _unproved(care)
    return f"cannot be looked at ({memory.problem})" if memory.problem else ""


def _unproved(care: Care) -> str:
    return f"is not proved ({care.told or 'differs'})"
