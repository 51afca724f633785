"""`rotator status`: for each site what is wanted, on disk and served, side by side. It only reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import click

from rotator import bootstrap
from rotator.cli import completion
from rotator.cli.context import Context, pass_context
from rotator.cli.daemon_report import show_daemon
from rotator.cli.formats import site_answer, status_answer
from rotator.cli.group import epilog
from rotator.cli.rotation import EXITS
from rotator.cli.undecided import is_undecided, long_undecided_since
from rotator.cli.unprivileged import as_store_owner
from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command, shell_word
from rotator.core.lifetime import is_critical, share_of_life_left
from rotator.core.model import Result
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.core.text import escaped
from rotator.core.times import rfc3339, rfc3339_millis
from rotator.rotation.next_steps import next_step
from rotator.rotation.observe import Observation, observe_all
from rotator.sources.drop_source import DropSource
from rotator.storage.entries import HistoryEntry
from rotator.storage.generations import demand_state_dir
from rotator.storage.records import ANYTHING, Intent
from rotator.system.lock_holders import show_holders


@click.command(
    epilog=epilog(
        "rotator status\nrotator status example.cn\nrotator status --verbose",
        Exit.DONE,
        Exit.FAILURE,
        Exit.USAGE,
        Exit.REJECTED,
        Exit.ROLLED_BACK,
        Exit.STRANDED,
        Exit.DIFFERS,
        Exit.BUSY,
        Exit.DEFERRED,
        Exit.CONFIG,
    )
)
@click.argument("site", required=False, default="", shell_complete=completion.sites)
@pass_context
@as_store_owner
def status(context: Context, site: str) -> int:
    """Show for each site (or SITE, with every listener) what is wanted, on disk and served, and what happened last.

    With --verbose also the periodic jobs of the running daemon: how often each runs, when it ran last and when it runs
    next.

    The exit status is that of the worst site: 6 if what is served differs from what is on disk; otherwise that of
    the last renewal, as long as it is in the drop and not live; 7 if another process has held the lock for longer than
    a rotation takes, so that no renewal can go live; 8 if a drop has been undecided for long, at least five minutes and
    three grace times.
    """
    config, output = context.config, context.output
    demand_state_dir(config.state_dir)
    ports = bootstrap.make_ports(config, bootstrap.applying(config))
    shown = [config.site(site)] if site else list(config.sites)
    ports.store.names(shown[0].site.name)  # fails at once if this user may not read the store
    now = datetime.now(UTC)
    sources = bootstrap.make_drop_sources(config)
    facts = observe_all([site_config.site for site_config in shown], ports)
    last = ports.history.latest(f.site.name for f in facts)
    changed = {f.site.name: _is_changed(sources[f.site.name], f.site.name, f.intent) for f in facts}
    exits = {f.site.name: _exit_of(sources, f) for f in facts}
    held = ports.locks.rotation_holder(settled=True)
    is_stuck = held is not None and held.is_long(now, LOCK_HELD_FOR + 2 * (config.nginx.prove_within or 0.0))
    daemon = ports.locks.daemon_note()
    undecided: dict[str, datetime] = {}
    for f in facts:
        name, source = f.site.name, sources[f.site.name]
        if since := long_undecided_since(source, name, f.intent, daemon, now, config.settle):
            undecided[name] = since
            exits[name] = Exit.DEFERRED if exits[name] is Exit.DONE else exits[name]
    ended = {*exits.values(), *([Exit.BUSY] if is_stuck else [])}
    code = next((exit for exit in _WORST_FIRST if exit in ended), Exit.DONE)
    if oversized := ports.history.oversized():
        output.say(f"note: {oversized}")
    if output.json:
        sites = [
            site_answer(
                f,
                last.get(f.site.name),
                _validity_of_first_to_expire(f),
                now,
                changed=changed[f.site.name],
                undecided_since=undecided.get(f.site.name),
            )
            for f in facts
        ]
        output.data(status_answer(sites, daemon, held, now, int(code)))
    elif site:
        _show_site(facts[0], last.get(site), now, context, changed=changed[site])
    else:
        rows = [_row(f, last.get(f.site.name), now, changed=changed[f.site.name]) for f in facts]
        styles = ["" if f.well else "bad" for f in facts]
        output.table(("site", "on disk", "expires", "left", "served", "last"), rows, styles)
        for line in _advice(facts, changed, exits):
            output.say(line)
    if not output.json and (trouble := bootstrap.apply_trouble(config)):
        output.say(f"note: no renewal can go live: {trouble}")
    if not output.json:
        for name, since in undecided.items():
            output.say(f"UNDECIDED: {name}: the content of the drop waits for a decision since {rfc3339(since)}")
    if held and not output.json:
        output.say(f"{'warning' if is_stuck else 'note'}: the lock of rotations is held by {held}")
        if is_stuck:
            output.say(
                f"no renewal goes live until it is free; see who holds it: {show_holders(ports.locks.root / 'lock')}"
            )
    if not daemon.pid and not output.json:
        for site_facts in facts:
            name = site_facts.site.name
            if is_undecided(sources[name], name, site_facts.intent):
                output.say(
                    f"note: {name}: the drop holds files that wait for a decision, and no daemon is running: "
                    f"systemctl start rotator, or: {command('rotator swap', name)}"
                )
    for fault in () if output.json else bootstrap.unsafe_drops_of(config):
        output.say(f"warning: {fault}")
    if output.verbose and not output.json:
        show_daemon(daemon, output)
    return code


_WORST_FIRST = (Exit.STRANDED, Exit.DIFFERS, Exit.ROLLED_BACK, Exit.REJECTED, Exit.BUSY, Exit.DEFERRED)
LOCK_HELD_FOR = 60.0
"""Seconds for which a rotation may hold the lock beside twice the time of a proof; then it counts as stuck."""


def _exit_of(sources: Mapping[str, DropSource], facts: Observation) -> Exit:
    """The exit status for one site; a renewal that is in the drop and not live counts as it ended."""
    ended = EXITS.get(facts.intent.result, Exit.DEFERRED) if facts.intent.result else Exit.DONE
    if not facts.well:
        return Exit.STRANDED if ended is Exit.STRANDED else Exit.DIFFERS
    if facts.intent.hold:
        return Exit.DEFERRED if facts.intent.hold.digest == ANYTHING else Exit.DONE
    if ended is Exit.DONE:
        return Exit.DONE
    return Exit.DONE if _has_left_drop(sources[facts.site.name], facts.site.name, facts.intent) else ended


def _advice(
    facts: Sequence[Observation], changed: Mapping[str, bool | None], exits: Mapping[str, Exit]
) -> Iterator[str]:
    """The lines below the table: how each hold ends, and which command shows the reasons."""
    for site_facts in facts:
        name, hold = site_facts.site.name, site_facts.intent.hold
        if site_facts.intent.caveat:
            yield f"note: {name}: {escaped(site_facts.intent.caveat)}"
        if hold and not changed[name]:
            swap = command("rotator swap", name)
            if hold.digest == ANYTHING:
                yield f"HELD: nothing in the drop is installed until an operator decides: {swap}"
            else:
                yield f"HELD: what was put live by hand stays until the drop changes, or: {swap}"
    for site_facts in facts:
        if exits[site_facts.site.name] is not Exit.DONE:
            yield f"why, and what to do: {command('rotator status', site_facts.site.name)}"


def _has_left_drop(source: DropSource, site: str, intent: Intent) -> bool:
    """Whether the drop no longer holds the content of the last decision."""
    try:
        candidate = source.read(site)
    except RotatorError:
        return False  # the decision may have been that it cannot be read
    if candidate is not None and intent.reason == Code.PERMISSION:
        return False  # this user may read a file that the daemon cannot, and sees another content
    return candidate is None or (bool(intent.digest) and candidate.digest != intent.digest)


def _is_changed(source: DropSource, site: str, intent: Intent) -> bool | None:
    """Whether the content of the drop differs from the held content; None without a hold, or if it cannot be read."""
    if intent.hold is None:
        return None
    try:
        candidate = source.read(site)
    except RotatorError:
        return None  # this user may not read it, or it is unreadable, as it may have been when it was held
    return candidate is not None and not intent.hold.covers(candidate.digest, readable=True)


def _wait_text(intent: Intent) -> str:
    """The cause for which a deferred drop waits, in words; empty if it does not wait, or if the cause is unknown."""
    if intent.result != Result.DEFERRED or not intent.next_try:
        return ""
    when = escaped(intent.next_try).replace("+00:00", "Z")
    if intent.reason == Reason.DRAIN_BUDGET:
        return f"it goes live when fewer workers are draining, at the latest at {when}"
    if intent.reason == Reason.MIN_RELOAD_INTERVAL:
        return f"it goes live at {when}, or with a reload that cannot wait until then"
    return f"it is tried again at {when}, or as soon as the cause has changed"


def _advice_applies(facts: Observation, result: str) -> bool:
    """Whether the advice of the last outcome still applies: a deferred site that has recovered needs none."""
    if result in (Result.ROTATED, Result.UNCHANGED):
        return False
    return result != Result.DEFERRED or not facts.well or facts.intent.result == Result.DEFERRED


def _validity_of_first_to_expire(facts: Observation) -> tuple[datetime, datetime] | None:
    """The notBefore and the effective expiry of the live pair that expires first."""
    spans = [(pair.not_before, pair.effective_not_after) for pair in (facts.live.record.pairs if facts.live else ())]
    return min(spans, key=lambda span: span[1]) if spans else None


def _time_left(facts: Observation, now: datetime) -> str:
    span = _validity_of_first_to_expire(facts)
    if span is None:
        return "-"
    rest = span[1] - now
    if rest < timedelta(0):
        return "EXPIRED"
    remaining = f"{rest.days} d" if rest.days >= 2 else f"{rest.total_seconds() / 3600:.1f} h"
    mark = " CRITICAL" if is_critical(*span, now) else ""
    return f"{remaining} ({share_of_life_left(*span, now):.0%}){mark}"


def _served_text(facts: Observation) -> str:
    if facts.workers is not None and facts.workers.master is None and not any(seen.served.chain for seen in facts.seen):
        return "nginx is not running"
    if facts.live is None:
        return "not managed by rotator"
    good = sum(1 for seen in facts.seen if seen.matches)
    return "everywhere" if facts.served_everywhere else f"{good} of {len(facts.seen)} as on disk"


def _row(facts: Observation, last: HistoryEntry | None, now: datetime, *, changed: bool | None) -> tuple[str, ...]:
    span = _validity_of_first_to_expire(facts)
    on_disk = escaped(facts.problem) or (facts.live.name if facts.live else "nothing")
    if facts.live and facts.verified != facts.live.name:
        on_disk += " (not proved)"
    hold_mark = ""
    if facts.intent.hold:
        hold_mark = " drop changed" if changed else " HELD"
    outcome = f"{escaped(last.result) if last else 'nothing yet'} {_minute(last)}{hold_mark}"
    return (
        facts.site.name,
        on_disk,
        rfc3339(span[1])[:10] if span else "-",
        _time_left(facts, now),
        _served_text(facts),
        outcome,
    )


def _minute(last: HistoryEntry | None) -> str:
    return f"{last.at:%Y-%m-%dT%H:%MZ}" if last and last.at else ""


def _show_site(
    facts: Observation, last: HistoryEntry | None, now: datetime, context: Context, *, changed: bool | None
) -> None:
    output, span, live = context.output, _validity_of_first_to_expire(facts), facts.live
    output.line(f"{facts.site.name}: {', '.join(facts.site.names)}", "strong")
    intent = facts.intent
    result, reason = escaped(intent.result), escaped(intent.reason)
    why = f" ({reason})" if reason not in ("", result) else ""
    decided = f"the last renewal was {result.replace('-', ' ')}{why}" if result else "nothing new"
    output.line(f"  wanted   {decided}")
    if wait_text := _wait_text(facts.intent):
        output.line(f"           {wait_text}", "warn")
    swap = command("rotator swap", facts.site.name)
    if (hold := facts.intent.hold) and changed:
        output.line(f"           the content of the drop was {hold}, and has changed since")
        output.line(f"           a running daemon decides about it, and so does: {swap}")
    elif hold:
        output.line(f"           the content of the drop is {hold}", "warn")
        until = "until an operator decides" if hold.digest == ANYTHING else "until the drop changes"
        output.line(f"           {until}; to install its content now: {swap}")
    if intent.caveat:
        output.line(f"           {escaped(intent.caveat)}", "warn")
    output.line(
        f"  on disk  {escaped(facts.problem) or (live.name if live else 'nothing')}", "bad" if facts.problem else ""
    )
    for pair in live.record.pairs if live else ():
        output.line(f"           leaf {escaped(f'{pair.fingerprint} by {pair.issuer}')}")
    if span:
        output.line(f"           until {rfc3339(span[1])}, left: {_time_left(facts, now)}")
    proved = "this one" if live and facts.verified == live.name else facts.verified or "none yet"
    output.line(f"  proved   {proved}")
    output.line(f"  served   {_served_text(facts)}", "good" if facts.served_everywhere else "bad")
    for seen in facts.seen:
        difference = "as on disk" if seen.matches else seen.difference or "a chain that rotator did not install"
        output.line(f"           {seen.served.target}: {difference}", "" if seen.matches else "bad")
    if facts.workers and facts.workers.master:
        active, draining = len(facts.workers.active), len(facts.workers.draining)
        upgrading = ", a binary upgrade in flight" if facts.workers.upgrading else ""
        workers = f"{active} worker{'s' * (active != 1)} accepting connections, {draining} draining"
        output.line(f"  nginx    {workers}{upgrading}", "warn" if upgrading else "")
    if live and facts.workers and facts.workers.master and not facts.served_everywhere:
        include = shell_word(context.config.nginx.include_dir / f"{facts.site.name}.conf")
        output.line(f"  next     See that nginx listens there and that the server block includes {include}: nginx -T")
        output.line(f"           then: systemctl reload nginx && {swap}")
        output.line("           or correct the site's `listeners`, then: systemctl reload rotator")
    if last:
        at = rfc3339_millis(last.at) if last.at else "at an unknown time"
        output.line(f"  last     {escaped(f'{last.result} {at} by {last.who}: {last.message}')}")
        if _advice_applies(facts, last.result) and (step := next_step(last.reason, facts.site.name)):
            output.line(f"  next     {step}")
