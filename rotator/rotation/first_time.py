"""Pairs that are live already, and the first pair of a site: there is nothing proved yet to go back to."""

from __future__ import annotations

from rotator.core.model import Outcome, Result
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason, reason_of
from rotator.privsep.apply import Applied
from rotator.rotation.conclude import is_named, noted, previous_names, rotated, within
from rotator.rotation.outcomes import (
    NGINX_DOWN_HINT,
    REFUSAL_HINT,
    WIRED_HINT,
    Ready,
    apply_failed,
    deferred,
    not_wired,
    outcome,
    refusal,
    rejected,
    stranded,
)
from rotator.rotation.ports import Ports
from rotator.rotation.prepare import Timer
from rotator.rotation.proof import NO_RELOAD, prove


def same_again(ready: list[Ready], ports: Ports) -> dict[str, Outcome]:
    """What is wanted is live already: prove it; only a pair that never was proved is worth a reload."""
    (one,) = ready
    name = one.new.name
    if not one.proof.ok:
        with Timer(one, "prove", ports.clock):
            one.proof = prove(one.expected(), NO_RELOAD, ports, 0.0)
    if one.proof.ok and one.verified == name:
        words = f"{name} is this very pair: it is live, and every listener serves it"
        return {one.site.name: outcome(one, Result.UNCHANGED, ports, Reason.SAME, words)}
    if one.proof.ok and one.first and one.wanted.trigger == "swap":  # whoever says so has not wired it yet
        return {one.site.name: not_wired(one, ports)}
    if one.proof.ok:
        words = f"{name} was live already; now every listener was seen serving it{noted(one, ports)}"
        hint = "" if one.verified else WIRED_HINT.format(include=f"{ports.include_dir}/{one.site.name}.conf")
        return {one.site.name: outcome(one, Result.ROTATED, ports, Reason.PROVED, words, hint)}
    workers = ports.nginx.workers()
    if workers is not None and workers.master is None:
        return {
            one.site.name: deferred(
                one, ports, Reason.NGINX_DOWN, f"{name} is live, but nginx is not running", NGINX_DOWN_HINT
            )
        }
    if one.verified != name and not one.first:
        return reload_unverified(ready, ports)
    if not one.verified:
        return {one.site.name: not_wired(one, ports)}
    return {
        one.site.name: deferred(
            one,
            ports,
            Reason.LISTENER,
            f"{name} is this very pair and live, but not every listener serves it: {'; '.join(one.proof.reasons)}",
            "see that the server block includes the site's file, then reload nginx; `rotator status` shows each one",
        )
    }


def reload_unverified(ready: list[Ready], ports: Ports) -> dict[str, Outcome]:
    """Nothing was proved before, so there is nothing to go back to; a reload may be all that the new pair takes."""
    (one,) = ready
    before = ports.nginx.workers()
    ports.say(f"reloading nginx for {one.site.name}")
    with Timer(one, "apply", ports.clock):
        applied = ports.apply({one.site.name: one.new.name}, hup=True)
    one.uncertain = applied.uncertain
    if applied.error:
        done = apply_failed(one, ports, applied)
    elif applied.decision == "gone":
        words = f"nginx ended before it could be told; it reads {one.new.name} when it starts"
        done = deferred(one, ports, Reason.NGINX_DOWN, words, "Start nginx")
    elif applied.decision == "refused":
        done = _refused_unverified(one, applied, ports)
    else:
        with Timer(one, "prove", ports.clock):
            one.proof = prove(one.expected(), before, ports, within(ports))
        done = rotated(one, ports) if one.proof.ok else not_wired(one, ports)
    return {one.site.name: done}


def _refused_unverified(one: Ready, applied: Applied, ports: Ports) -> Outcome:
    """nginx would not start with a pair that it names; the one that was named before it goes back into its place."""
    guilty = is_named(one, applied, ports)
    if one.previous and one.previous.name != one.new.name:
        back = ports.apply(previous_names([one]), hup=False)
        if back.error:
            return stranded(one, ports, reason_of(back.error), f"{refusal(applied)}; {back.message}", applied.words)
        if guilty:
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, refusal(applied))
            return rejected(one, (*one.problems, problem), ports, applied.words)
    hint = f"Install another pair: rotator swap {one.site.name} --cert FILE --key FILE" if guilty else REFUSAL_HINT
    return deferred(one, ports, Code.NGINX_REFUSED, refusal(applied), hint, applied.words)


def first_time(ready: list[Ready], ports: Ports) -> dict[str, Outcome]:
    """Stores and names the pair without a reload: nginx's own configuration has to name the include first.

    An include that did not stand there before cannot have been read yet, so a handshake that shows this very pair shows
    the files that nginx was given by others, and proves nothing.
    """
    (one,) = ready
    applied = ports.apply({one.site.name: one.new.name}, hup=False)
    one.uncertain = applied.uncertain
    if applied.error:
        return {one.site.name: apply_failed(one, ports, applied)}
    with Timer(one, "prove", ports.clock):
        one.proof = prove(one.expected(), NO_RELOAD, ports, 0.0)
    read = one.proof.ok and one.previous is not None
    return {one.site.name: rotated(one, ports) if read else not_wired(one, ports)}
