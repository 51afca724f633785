"""The client of root's programs behind a socket, through which an unprivileged process has privileged steps made.

systemd owns the sockets, and starts one program of root for each connection (`rotator.privsep.apply` as a program). The
connection is all that both sides share: a request is one line, and the next line that comes back is its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from rotator.core.errors import RotatorError
from rotator.core.reasons import Reason
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Request, Setup, Tested
from rotator.privsep.connection import Connection

APPLY_UNIT, TEST_UNIT = "rotator-apply", "rotator-nginx-test"
"""The units of root's programs: NAME.socket and NAME@.service."""
SOCKETS: Mapping[str, str] = {APPLY_UNIT: "apply.sock", TEST_UNIT: "nginx-test.sock"}
"""The file name of each unit's socket."""
_ROOM = privileged.MAX_REQUEST - 256
"""The bytes for the names of sites and generations in one request."""


class ApplyPort(Protocol):
    """The privileged step, as a port of the rotation."""

    def __call__(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        """Makes the includes name these generations, by site, and then sends nginx one HUP, or none."""


class SocketClient:
    """Has root's programs make privileged steps.

    Args:
        setup: the same configuration that root reads.
        connection: to `rotator-apply.socket`; it is held between two requests.
        waiting: called every second while an answer is waited for.
    """

    def __init__(self, setup: Setup, connection: Connection, waiting: Callable[[], None] = lambda: None) -> None:
        self._setup, self._connection, self._waiting = setup, connection, waiting

    def greet(self) -> None:
        """Connects, if that is necessary, so that a fault shows before anything is requested.

        Raises:
            RotatorError: see `Connection.greet`.
        """
        self._connection.greet(self._waiting)

    def prepare(self, generations: Mapping[str, str]) -> Applied:
        """Has root copy these generations, by site, and name none, so that `apply` only renames.

        Returns:
            The answer; if something failed, also if there was no answer, `error` has the reason.
        """
        try:
            return prepare_in_parts(generations, self._ask)
        except RotatorError as e:
            live = self._live(generations)
            return Applied(live, live, e.code, e.message, hint=e.hint)

    def apply(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        """The privileged step, made by root.

        Returns:
            The answer. If nothing was changed, `error` has the reason, also if there was no answer.

        Raises:
            RotatorError: `apply-lost`: an include was changed, but without an answer, so it is unknown whether nginx
                got its signal.
        """
        before = self._live(generations)
        try:
            return apply_in_parts(generations, self._ask, hup=hup)
        except RotatorError as e:
            if (live := self._live(generations)) != before:
                message = f"nginx's include was changed, but {e.message}"
                raise RotatorError(Reason.APPLY_LOST, message, e.hint) from e
            return Applied(live, before, e.code, e.message, hint=e.hint)

    def _live(self, generations: Mapping[str, str]) -> dict[str, str]:
        return {site: privileged.read_live(self._setup.include_dir, site).generation for site in generations}

    def _ask(self, request: Request) -> Applied:
        return self._connection.ask(request, privileged.parse_applied, self._waiting)


def open_connection(socket_dir: Path, unit: str) -> Connection:
    """A connection to one of root's programs; it connects at its first use.

    Args:
        socket_dir: the directory of the sockets.
        unit: `APPLY_UNIT` or `TEST_UNIT`.
    """
    return Connection(socket_dir / SOCKETS[unit], unit)


def ask_for_test(socket_dir: Path, waiting: Callable[[], None] = lambda: None) -> Tested:
    """The result of `nginx -t` with its whole configuration, run by root.

    Args:
        socket_dir: the directory of the sockets.
        waiting: called every second while the answer is waited for.

    Raises:
        RotatorError: the errors of `Connection.ask`, or the reason for which root's program did not run it.
    """
    connection = open_connection(socket_dir, TEST_UNIT)
    try:
        tested = connection.ask(Request(word=privileged.TEST), privileged.parse_tested, waiting)
    finally:
        connection.close()
    if tested.error:
        raise connection.refusal(tested.error, tested.message)
    return tested


# -- requests of any size ---------------------------------------------------------------------------------------------


def prepare_in_parts(generations: Mapping[str, str], ask: Callable[[Request], Applied]) -> Applied:
    """`PREPARE` for any number of sites, in as many requests as are necessary; the first failure ends it.

    Args:
        generations: the generation by site.
        ask: gets the answer to one request.
    """
    done = Applied()
    for part in parts_of(generations):
        done = _joined(done, ask(Request(part, hup=False, word=privileged.PREPARE)))
        if done.error:
            break
    return done


def apply_in_parts(generations: Mapping[str, str], ask: Callable[[Request], Applied], *, hup: bool) -> Applied:
    """`APPLY` for any number of sites, with the promises of one request.

    Of several requests, the first ones only prepare: all copies are complete before the first include changes. Then one
    request follows another, and only the last one has nginx reload. A failure, or a kill between two of them, leaves
    some includes renamed and each of them whole, as one between two renames of a single request does.

    Args:
        generations: the generation by site.
        ask: gets the answer to one request.
        hup: whether nginx gets a HUP.
    """
    parts = parts_of(generations)
    if len(parts) > 1:
        prepared = prepare_in_parts(generations, ask)
        if prepared.error:
            return prepared
    done = Applied()
    for number, part in enumerate(parts, 1):
        done = _joined(done, ask(Request(part, hup=hup and number == len(parts))))
        if done.error:
            break
    return done


def parts_of(generations: Mapping[str, str], room: int = _ROOM) -> list[dict[str, str]]:
    """The generations in parts that each fit into one request, in their order; at least one part.

    Args:
        generations: the generation by site.
        room: the bytes of all names of one part.
    """
    parts: list[dict[str, str]] = [{}]
    left = room
    for site, generation in generations.items():
        size = len(privileged.encode(Request({site: generation}))) - len(privileged.encode(Request())) + 2
        if size > left and parts[-1]:
            parts.append({})
            left = room
        parts[-1][site] = generation
        left -= size
    return parts


def _joined(first: Applied, second: Applied) -> Applied:
    """The answers to two parts as one."""
    return Applied(
        live={**first.live, **second.live},
        before={**first.before, **second.before},
        error=second.error,
        message=second.message,
        uncertain=first.uncertain or second.uncertain,
        signalled=second.signalled,
        decision=second.decision,
        words=second.words,
    )
