"""What `swap` and `rollback` share: inputs with the caller's rights, the lock, recovery, the rotation, its telling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from rotator import bootstrap
from rotator.cli.context import Context
from rotator.cli.formats import outcome_answer
from rotator.cli.output import Output, more_about, rfc3339
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import Candidate, Outcome, Result
from rotator.core.problems import Severity
from rotator.core.reasons import Reason
from rotator.privsep.apply import read_live
from rotator.privsep.privilege_drop import run_as_owner
from rotator.privsep.unit_client import ApplyPort
from rotator.rotation.ports import Ports
from rotator.rotation.prepare import plan
from rotator.rotation.recover import recover
from rotator.rotation.request import RotationRequest
from rotator.rotation.rotate import rotate
from rotator.sources import delivery
from rotator.sources.file_reader import read_named, read_password
from rotator.sources.scanner import Place, read_place
from rotator.storage.generations import demand_state_dir
from rotator.storage.locks import Lock
from rotator.storage.records import Hold, Intent

LOCK_WITHIN = 30.0
"""Seconds that a command waits for another rotation, unless told otherwise."""

EXITS: Mapping[str, Exit] = {
    Result.UNCHANGED: Exit.DONE,
    Result.ROTATED: Exit.DONE,
    Result.REJECTED: Exit.REJECTED,
    Result.DEFERRED: Exit.DEFERRED,
    Result.ROLLED_BACK: Exit.ROLLED_BACK,
    Result.STRANDED: Exit.STRANDED,
}
STATUSES = tuple(sorted(Exit))
"""How a command can end that rotates: in every way that there is."""

dry_run = click.option("--dry-run", "dry", is_flag=True, help="Judge it and ask nginx and listeners; change nothing.")
wait_for_lock = click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=LOCK_WITHIN,
    show_default=True,
    help="How long to wait for another rotation.",
)

_STYLES = {Exit.DONE: "good", Exit.DIFFERS: "warn", Exit.DEFERRED: "warn"}


@dataclass(frozen=True, slots=True)
class Order:
    """One command, before anything was read.

    Args:
        site: the site's name.
        certs: certificate files named by hand.
        keys: key files named by hand.
        password_file: what opens an encrypted key; empty for that of the site.
        generation: a stored generation to go back to; empty for the one before the live one, with `back`.
        back: whether the way is back.
        first: see `RotationRequest`.
        force: see `RotationRequest`.
        dry: say what would happen, change nothing.
        wait: seconds to wait for another rotation.
    """

    site: str
    certs: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    password_file: str = ""
    generation: str = ""
    back: bool = False
    first: bool = False
    force: bool = False
    dry: bool = False
    wait: float = LOCK_WITHIN

    @property
    def by_hand(self) -> bool:
        """Whether it says what is to be live, so that what lies in the drop must not fight it."""
        return self.back or bool(self.certs or self.keys)


def carry_out(context: Context, order: Order) -> int:
    """Runs one order and tells its outcome. Returns the exit status.

    Raises:
        RotatorError: what could not even begin.
    """
    config, output, who = context.config, context.output, context.user  # who calls, before root becomes another user
    config.site(order.site)
    setup, owner = bootstrap.make_setup(config), demand_state_dir(config.state_dir)

    def read() -> Candidate | None:
        try:
            return None if order.back else _read(context, order)
        except RotatorError as e:
            live = read_live(setup.include_dir, order.site).generation
            meanwhile = f"nginx's configuration still names {live}" if live else f"{order.site} has no live pair yet"
            raise RotatorError(
                e.code, f"{e.message.rstrip('.')}. Nothing was changed: {meanwhile}", e.hint, e.exit
            ) from e

    def work(candidate: Candidate | None, apply: ApplyPort) -> int:
        say = _saying(output)
        ports = bootstrap.make_ports(config, apply, say)
        with ports.locks.rotation(who, order.wait, lambda holder: say(f"waiting for {holder}")) as lock:
            if order.dry:
                return _tell(plan(_request(context, order, candidate, ports), ports), output)
            _recover_interrupted(context, ports, lock)
            candidate = _read_again(context, order, candidate)
            (done,) = rotate([_request(context, order, candidate, ports)], ports, lock)
            if done.result is not Result.REJECTED:
                _note(context, order, candidate, done, ports)
            _tidy(ports)
        return _tell(done, output)

    return run_as_owner(setup, owner, bootstrap.applying(config), read, work, _reporting(output))


def _read(context: Context, order: Order) -> Candidate | None:
    """The named files, or what lies in the site's drop; None if nothing does."""
    one = context.config.site(order.site)
    password_file = Path(order.password_file) if order.password_file else one.password_file
    if order.certs or order.keys:
        files = [read_named(path) for path in (*order.certs, *order.keys)]
        password, notes = read_password(password_file) if password_file else (None, ())
        return Candidate(tuple({source.name: source for source in files}.values()), password, notes)
    place = Place(order.site, context.config.drop(one), one.source is not None, password_file)
    with nullcontext() if place.source else delivery.reading_lock(place.directory):
        return read_place(place, context.config.incoming, [other.site.name for other in context.config.sites])


def _read_again(context: Context, order: Order, candidate: Candidate | None) -> Candidate | None:
    """What lies in the drop now: the lock was waited for, and meanwhile the daemon may have put live what came since.

    Root may have read what the store's owner cannot, the password of old: then that stands.
    """
    with suppress(RotatorError):
        found = None if order.by_hand else _read(context, order)
        if found and candidate:
            return replace(found, password=candidate.password, notes=candidate.notes)
        return found or candidate
    return candidate


def _request(context: Context, order: Order, candidate: Candidate | None, ports: Ports) -> RotationRequest:
    one = context.config.site(order.site)
    if order.generation:
        ports.store.load(order.site, order.generation)  # says which there are, before anything else is asked
    return RotationRequest(
        site=one.site,
        anchors=bootstrap.load_anchors(one),
        candidate=candidate,
        generation=(order.generation or _generation_before(order.site, ports)) if order.back else "",
        first=order.first,
        force=order.force,
        who=context.user,
        trigger="rollback" if order.back else "swap",
        origin=tuple(source.name for source in candidate.files) if candidate else (),
        pool=bootstrap.load_pool(one),
    )


def _generation_before(site: str, ports: Ports) -> str:
    """The newest generation that was proved once and is not live now; else the one stored before the live one."""
    live, stored = ports.live(site).generation, ports.store.names(site)
    for entry in ports.history.newest_first(site):
        if entry.result == Result.ROTATED and entry.live in stored and entry.live != live:
            return entry.live
    before = stored[: stored.index(live)] if live in stored else ()
    if not before:
        raise RotatorError(
            Reason.NO_GENERATION,
            f"{site} has no generation to go back to (stored: {', '.join(stored) or 'none'}); nothing was changed",
            f"rotator history {site} shows what there was; rotator swap {site} --cert FILE --key FILE installs another",
            Exit.USAGE,
        )
    return before[-1]


def _recover_interrupted(context: Context, ports: Ports, lock: Lock) -> None:
    """What the last holder of the lock left in flight when it died comes first, whichever site it was."""
    known = {one.site.name: one for one in context.config.sites}
    late = [known[name] for name in lock.interrupted if name in known]
    lock.settled([name for name in lock.interrupted if name not in known])
    if late:
        ports.say(f"a rotation of {', '.join(o.site.name for o in late)} was interrupted: recovering first")
    for done in recover(
        [RotationRequest(o.site, bootstrap.load_anchors(o), who=context.user, trigger="recover") for o in late],
        ports,
        lock,
    ):
        ports.say(f"{done.site}: {done.result} ({done.reason}): {done.message}")


def _note(context: Context, order: Order, candidate: Candidate | None, done: Outcome, ports: Ports) -> None:
    """What was decided. By hand: what lies in the drop waits until it changes, so that nothing fights the operator.

    An order by hand that came to nothing decides nothing about the drop: what was held stays held. One of the very
    files that lie in the drop is a decision about them.
    """
    one = context.config.site(order.site)
    hold = None
    if order.by_hand:
        if done.result not in (Result.ROTATED, Result.UNCHANGED):
            return
        lying = _in_drop(context, order)
        if lying and candidate and {f.data for f in lying.files} == {f.data for f in candidate.files}:
            candidate = lying
        else:
            hold = Hold(context.user, rfc3339(datetime.now(UTC)), lying.digest if lying else "")
    policy = bootstrap.policy_of(one.site, bootstrap.load_anchors(one), bootstrap.load_pool(one))
    digest = candidate.digest if candidate and not hold else ""
    try:
        ports.store.write_intent(order.site, Intent(digest, str(done.result), done.reason, policy, "", hold))
    except RotatorError as e:
        ports.say(f"the decision could not be written down: {e.message}")


def _tidy(ports: Ports) -> None:
    """The history's upkeep, which nothing else sees to on a host without a daemon."""
    try:
        if ports.history.is_untidy():
            ports.history.tidy()
    except RotatorError as e:
        ports.say(f"the history could not be tidied up: {e.message}; {e.hint}")


def _in_drop(context: Context, order: Order) -> Candidate | None:
    try:
        return _read(context, Order(order.site))
    except RotatorError:
        return None  # not readable as it is: any change of it counts


def _saying(output: Output) -> Callable[[str], None]:
    """Progress, for a person who may have gone meanwhile: no rotation stops half-way because nobody listens."""

    def say(text: str) -> None:
        with suppress(RotatorError, OSError):
            output.say(text)

    return say


def _reporting(output: Output) -> Callable[[RotatorError], int]:
    def report(e: RotatorError) -> int:
        output.error(e)
        return int(e.exit)

    return report


def exit_of(done: Outcome) -> Exit:
    """The exit status of an outcome: a listener without veto that is not proved shows as a difference."""
    return Exit.DIFFERS if done.unproved else EXITS[done.result]


def _tell(done: Outcome, output: Output) -> int:
    """The outcome, for a reader or as JSON."""
    code = exit_of(done)
    if output.json:
        output.data(outcome_answer(done, int(code)))
        return int(code)
    for line in done.explanation:
        output.line(line)
    word = "would rotate" if done.reason == Reason.WOULD_ROTATE else str(done.result).replace("-", " ")
    output.line(f"{word.upper()} {done.site}: {done.message}", _STYLES.get(code, "bad"))
    for target in done.unproved:
        output.line(f"  not proved: {target}", "warn")
    if not done.explanation:
        for problem in done.problems:
            if problem.severity is Severity.WARN:
                output.line(f"  warning {problem.code}: {problem.message}", "warn")
    if done.hint and not done.explanation:
        for number, line in enumerate(done.hint.splitlines()):
            output.line(f"  {'next: ' if number == 0 else '      '}{line}")
    if done.result is Result.REJECTED:
        output.line(f"  {more_about(done.reason)}", "faint")
    if done.stages and done.result is not Result.REJECTED:
        told = ", ".join(f"{stage} {seconds * 1000:.1f}" for stage, seconds in done.stages.items())
        output.detail(f"milliseconds: {told}")
    return int(code)
