"""The state of the daemon and its sites in one line, for `systemctl status`."""

from __future__ import annotations

from collections.abc import Mapping

from rotator.core.model import Result
from rotator.daemon.drop_state import DropState
from rotator.daemon.maintenance import Degraded
from rotator.rotation.decide import Decided, Held, Rotate, Settling, Wait

SHOWN = 5
"""Sites that are named."""

_BAD = (Result.REJECTED, Result.ROLLED_BACK, Result.STRANDED)


def status_line(states: Mapping[str, DropState], degraded_sites: Mapping[str, Degraded]) -> str:
    """The number of sites, and which of them are not as wanted, with the reason.

    Args:
        states: the state of each site's drop.
        degraded_sites: the sites that are not proved.
    """
    parts = [
        f"{name} {difference}"
        for name, state in states.items()
        if (difference := _difference(state, degraded_sites.get(name)))
    ]
    count = len(states)
    head = f"{count} site{'s' * (count != 1)}"
    if not parts:
        return f"{head}, all as wanted"
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return f"{head}, {len(parts)} not as wanted: {', '.join(parts[:SHOWN])}{more}"


def _difference(state: DropState, degraded: Degraded | None) -> str:
    match state.decision:
        case Wait(reason=reason):
            return f"waits ({reason})"
        case Settling(why=why):
            return f"is settling ({why})"
        case Held(hold=hold):
            hold_text = f"is {hold}"
            return f"{_unproved(degraded)}, and {hold_text}" if degraded else hold_text  # the more urgent one first
        case Rotate():
            return "is about to go live"
        case Decided() if state.decided.result in _BAD:
            return f"was {state.decided.result} ({state.decided.reason})"
    if degraded:
        return _unproved(degraded)
    return f"cannot be looked at ({state.problem})" if state.problem else ""


def _unproved(degraded: Degraded) -> str:
    return f"is not proved ({degraded.reason or 'differs'})"
