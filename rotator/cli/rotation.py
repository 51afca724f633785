"""The common part of `swap` and `rollback`: reading the input, the lock, recovery, the rotation, and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from rotator import bootstrap
from rotator.cli.context import Context
from rotator.cli.formats import outcome_answer
from rotator.cli.output import Output, more_about
from rotator.cli.unprivileged import prepare, show_error
from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command
from rotator.core.model import Candidate, Outcome, Result
from rotator.core.problems import Severity
from rotator.core.reasons import Reason
from rotator.core.times import rfc3339
from rotator.privsep.apply import read_live
from rotator.privsep.privilege_drop import run_as_owner
from rotator.privsep.socket_client import ApplyPort
from rotator.rotation.ports import Ports
from rotator.rotation.prepare import plan
from rotator.rotation.recover import recover
from rotator.rotation.request import RotationRequest
from rotator.rotation.rotate import rotate
from rotator.sources.file_reader import read_named, read_password
from rotator.storage.generations import demand_state_dir
from rotator.storage.locks import Lock
from rotator.storage.records import Hold, Intent

LOCK_WITHIN = 30.0
"""The seconds that a command waits for another rotation by default."""

EXITS: Mapping[str, Exit] = {
    Result.UNCHANGED: Exit.DONE,
    Result.ROTATED: Exit.DONE,
    Result.REJECTED: Exit.REJECTED,
    Result.DEFERRED: Exit.DEFERRED,
    Result.ROLLED_BACK: Exit.ROLLED_BACK,
    Result.STRANDED: Exit.STRANDED,
}
STATUSES = tuple(sorted(Exit))
"""The exit statuses of a rotation: all of them."""

dry_run = click.option(
    "--dry-run", "dry", is_flag=True, help="Validate, and ask nginx and the listeners; change nothing."
)
wait_for_lock = click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=LOCK_WITHIN,
    show_default=True,
    help="How long to wait for the end of another rotation.",
)

_STYLES = {Exit.DONE: "good", Exit.DIFFERS: "warn", Exit.DEFERRED: "warn"}


@dataclass(frozen=True, slots=True)
class RotationOptions:
    """The arguments and options of one command.

    Args:
        site: the name of the site.
        certs: the certificate files that the user named.
        keys: the key files that the user named.
        password_file: the file with the password of an encrypted key; empty for that of the site.
        generation: for a rollback, the stored generation to put back; empty for the previous one.
        back: whether this is a rollback.
        first: see `RotationRequest`.
        force: see `RotationRequest`.
        dry: show what would happen, and change nothing.
        wait: the seconds to wait for another rotation.
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
        """Whether the user chooses the pair, so that the content of the drop must not replace it."""
        return self.back or bool(self.certs or self.keys)


def run_rotation(context: Context, options: RotationOptions) -> int:
    """Carries out one command and shows its outcome. Returns the exit status.

    Raises:
        RotatorError: the rotation could not begin.
    """
    config, output, who = context.config, context.output, context.user  # the caller, before root becomes another user
    config.site(options.site)
    setup, owner = bootstrap.make_setup(config), demand_state_dir(config.state_dir)

    def read() -> Candidate | None:
        try:
            return None if options.back else _read(context, options)
        except RotatorError as e:
            live = read_live(setup.include_dir, options.site).generation
            meanwhile = f"nginx's configuration still names {live}" if live else f"{options.site} has no live pair yet"
            raise RotatorError(
                e.code, f"{e.message.rstrip('.')}. Nothing was changed: {meanwhile}", e.hint, e.exit
            ) from e

    def work(candidate: Candidate | None, apply: ApplyPort) -> int:
        report_progress = _progress(output)
        ports = bootstrap.make_ports(config, apply, report_progress)
        with ports.locks.rotation(who, options.wait, lambda holder: report_progress(f"waiting for {holder}")) as lock:
            if options.dry:
                return _show_outcome(plan(_request(context, options, candidate, ports), ports), output)
            _recover_interrupted(context, ports, lock)
            candidate = _read_again(context, options, candidate)
            (outcome,) = rotate([_request(context, options, candidate, ports)], ports, lock)
            if outcome.result is not Result.REJECTED:
                _record_decision(context, options, candidate, outcome, ports)
            _tidy_history(ports)
        return _show_outcome(outcome, output)

    prepare(context)
    return run_as_owner(setup, owner, bootstrap.applying(config), read, work, show_error(output))


def _read(context: Context, options: RotationOptions) -> Candidate | None:
    """The content of the named files, or of the site's drop; None if the drop is empty."""
    site_config = context.config.site(options.site)
    password_file = Path(options.password_file) if options.password_file else site_config.password_file
    if options.certs or options.keys:
        files = [read_named(path) for path in (*options.certs, *options.keys)]
        password, notes = read_password(password_file) if password_file else (None, ())
        return Candidate(tuple({source.name: source for source in files}.values()), password, notes)
    source = bootstrap.drop_source(context.config, replace(site_config, password_file=password_file))
    return source.read(options.site, await_delivery=True)


def _read_again(context: Context, options: RotationOptions, candidate: Candidate | None) -> Candidate | None:
    """The current content of the drop: during the wait for the lock, the daemon may have put a newer renewal live.

    The password stays as it was read before, because root may read it and the store's owner may not.
    """
    with suppress(RotatorError):
        current = None if options.by_hand else _read(context, options)
        if current and candidate:
            return replace(current, password=candidate.password, notes=candidate.notes)
        return current or candidate
    return candidate


def _request(context: Context, options: RotationOptions, candidate: Candidate | None, ports: Ports) -> RotationRequest:
    site_config = context.config.site(options.site)
    if options.generation:
        ports.store.load(options.site, options.generation)  # an unknown one is reported first, with the known ones
    return RotationRequest(
        site=site_config.site,
        anchors=bootstrap.load_anchors(site_config),
        candidate=candidate,
        generation=(options.generation or _previous_generation(options.site, ports)) if options.back else "",
        first=options.first,
        force=options.force,
        who=context.user,
        trigger="rollback" if options.back else "swap",
        origin=tuple(source.name for source in candidate.files) if candidate else (),
        pool=bootstrap.load_pool(site_config),
    )


def _previous_generation(site: str, ports: Ports) -> str:
    """The newest generation that was proved and is not live now; otherwise the one that was stored before the live one.

    Raises:
        RotatorError: `no-generation`, with the stored ones; exit status 2.
    """
    live, stored = ports.live(site).generation, ports.store.names(site)
    for entry in ports.history.newest_first(site):
        if entry.result == Result.ROTATED and entry.live in stored and entry.live != live:
            return entry.live
    before = stored[: stored.index(live)] if live in stored else ()
    if not before:
        raise RotatorError(
            Reason.NO_GENERATION,
            f"{site} has no previous generation (stored: {', '.join(stored) or 'none'}); nothing was changed",
            f"See the past: {command('rotator history', site)}; or install another pair: "
            f"{command('rotator swap', site)} --cert FILE --key FILE",
            Exit.USAGE,
        )
    return before[-1]


def _recover_interrupted(context: Context, ports: Ports, lock: Lock) -> None:
    """Completes or undoes the rotations that the last holder of the lock had begun when it died, of any site."""
    known = {site_config.site.name: site_config for site_config in context.config.sites}
    interrupted = [known[name] for name in lock.interrupted if name in known]
    lock.settled([name for name in lock.interrupted if name not in known])
    if interrupted:
        names = ", ".join(site_config.site.name for site_config in interrupted)
        ports.say(f"a rotation of {names} was interrupted: recovering first")
    requests = [
        RotationRequest(c.site, bootstrap.load_anchors(c), who=context.user, trigger="recover") for c in interrupted
    ]
    for outcome in recover(requests, ports, lock):
        ports.say(f"{outcome.site}: {outcome.result} ({outcome.reason}): {outcome.message}")


def _record_decision(
    context: Context, options: RotationOptions, candidate: Candidate | None, outcome: Outcome, ports: Ports
) -> None:
    """Records the decision about the drop in the store.

    After a command that names a pair, the content of the drop is held until it changes, so that the daemon does not
    undo the command. If the command named the same files that are in the drop, it is a decision about them. If it
    failed, it decides nothing about the drop, and an existing hold stays.
    """
    site_config = context.config.site(options.site)
    hold = None
    if options.by_hand:
        if outcome.result not in (Result.ROTATED, Result.UNCHANGED):
            return
        drop_content = _read_drop(context, options)
        if drop_content and candidate and {f.data for f in drop_content.files} == {f.data for f in candidate.files}:
            candidate = drop_content
        else:
            hold = Hold(context.user, rfc3339(datetime.now(UTC)), drop_content.digest if drop_content else "")
    anchors, pool = bootstrap.load_anchors(site_config), bootstrap.load_pool(site_config)
    policy = bootstrap.policy_of(site_config.site, anchors, pool)
    digest = candidate.digest if candidate and not hold else ""
    try:
        ports.store.write_intent(options.site, Intent(digest, str(outcome.result), outcome.reason, policy, "", hold))
    except RotatorError as e:
        ports.say(f"the decision could not be recorded: {e.message}")


def _tidy_history(ports: Ports) -> None:
    """Tidies the history, because a host may have no daemon that does it."""
    try:
        if ports.history.is_untidy():
            ports.history.tidy()
    except RotatorError as e:
        ports.say(f"the history could not be tidied up: {e.message}; {e.hint}")


def _read_drop(context: Context, options: RotationOptions) -> Candidate | None:
    try:
        return _read(context, RotationOptions(options.site))
    except RotatorError:
        return None  # without a digest, so that every change of the drop ends the hold


def _progress(output: Output) -> Callable[[str], None]:
    """Shows progress. An output that cannot be written does not stop a rotation."""

    def report(text: str) -> None:
        with suppress(RotatorError, OSError):
            output.say(text)

    return report


def exit_of(outcome: Outcome) -> Exit:
    """The exit status of an outcome; `Exit.DIFFERS` if a listener was exempted and is not proved."""
    return Exit.DIFFERS if outcome.unproved else EXITS[outcome.result]


def _show_outcome(outcome: Outcome, output: Output) -> int:
    """Shows an outcome as text or JSON. Returns its exit status."""
    code = exit_of(outcome)
    if output.json:
        output.data(outcome_answer(outcome, int(code)))
        return int(code)
    for line in outcome.explanation:
        output.line(line)
    title = "would rotate" if outcome.reason == Reason.WOULD_ROTATE else str(outcome.result).replace("-", " ")
    output.line(f"{title.upper()} {outcome.site}: {outcome.message}", _STYLES.get(code, "bad"))
    for target in outcome.unproved:
        output.line(f"  not proved: {target}", "warn")
    if not outcome.explanation:
        for problem in outcome.problems:
            if problem.severity is Severity.WARN:
                output.line(f"  warning {problem.code}: {problem.message}", "warn")
    if outcome.hint and not outcome.explanation:
        for number, line in enumerate(outcome.hint.splitlines()):
            output.line(f"  {'next: ' if number == 0 else '      '}{line}")
    if outcome.result is Result.REJECTED:
        output.line(f"  {more_about(outcome.reason)}", "faint")
    if outcome.stages and outcome.result is not Result.REJECTED:
        durations = ", ".join(f"{stage} {seconds * 1000:.1f}" for stage, seconds in outcome.stages.items())
        output.detail(f"milliseconds: {durations}")
    return int(code)
