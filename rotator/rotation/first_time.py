"""The rotation of a site's first pair, and the proof of a pair that is live already."""

from __future__ import annotations

from rotator.core.hints import command
from rotator.core.model import Outcome, Result
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason, reason_of
from rotator.privsep.apply import Applied
from rotator.rotation.conclude import record_proof, rotated, seconds_to_prove
from rotator.rotation.next_steps import NGINX_DOWN_HINT, REFUSAL_HINT, START_NGINX
from rotator.rotation.outcomes import (
    apply_failed,
    deferred,
    listener_hint,
    not_wired,
    outcome_of,
    rejected,
    stranded,
    wired_hint,
)
from rotator.rotation.ports import Ports
from rotator.rotation.proof import NO_RELOAD, prove
from rotator.rotation.refusal import explain_refusal
from rotator.rotation.site_rotation import SiteRotation, Timer, apply_new, apply_previous


def prove_live(rotation: SiteRotation, ports: Ports) -> Outcome:
    """Proves a pair that is live already. Only a pair that was never proved is worth a reload."""
    name = rotation.new.name
    if not rotation.proof.ok:
        with Timer([rotation], "prove", ports.clock):
            rotation.proof = prove(rotation.expected(), NO_RELOAD, ports, 0.0)
    if rotation.proof.ok and rotation.verified == name:
        message = f"{name} is already live, and every listener serves it; nothing to change"
        return outcome_of(rotation, Result.UNCHANGED, ports, Reason.SAME, message)
    if rotation.proof.ok and rotation.first and rotation.request.trigger == "swap":  # --first: it is not wired yet
        return not_wired(rotation, ports)
    if rotation.proof.ok:
        message = f"{name} was live already; now every listener was seen serving it{record_proof(rotation, ports)}"
        include = f"{ports.include_dir}/{rotation.site.name}.conf"
        hint = "" if rotation.verified else wired_hint(include)
        return outcome_of(rotation, Result.ROTATED, ports, Reason.PROVED, message, hint)
    workers = ports.nginx.workers()
    if workers is not None and workers.master is None:
        message = f"{name} is live, but nginx is not running"
        return deferred(rotation, ports, Reason.NGINX_DOWN, message, NGINX_DOWN_HINT)
    if rotation.verified != name and not rotation.first:
        return reload_unverified(rotation, ports)
    if not rotation.verified:
        return not_wired(rotation, ports)
    return deferred(
        rotation,
        ports,
        Reason.LISTENER,
        f"{name} is already live, but not every listener serves it: {'; '.join(rotation.proof.reasons)}",
        listener_hint(rotation.site.name, ports.include_dir),
    )


def reload_unverified(rotation: SiteRotation, ports: Ports) -> Outcome:
    """Applies the new pair where no pair was proved before, so that there is nothing to go back to."""
    before = ports.nginx.workers()
    ports.say(f"reloading nginx for {rotation.site.name}")
    with Timer([rotation], "apply", ports.clock):
        applied = apply_new([rotation], ports, hup=True)
    if applied.error:
        return apply_failed(rotation, ports, applied)
    if applied.decision == "gone":
        message = f"nginx ended before it could be signalled; it reads {rotation.new.name} when it starts"
        return deferred(rotation, ports, Reason.NGINX_DOWN, message, START_NGINX)
    if applied.decision == "refused":
        return _refused_unverified(rotation, applied, ports)
    with Timer([rotation], "prove", ports.clock):
        rotation.proof = prove(rotation.expected(), before, ports, seconds_to_prove(ports))
    return rotated(rotation, ports) if rotation.proof.ok else not_wired(rotation, ports)


def _refused_unverified(rotation: SiteRotation, applied: Applied, ports: Ports) -> Outcome:
    """nginx would not start with a pair that it names, so the include names the pair before it again."""
    refusal = explain_refusal(applied, ports)
    blamed = refusal.blames(rotation, ports)
    if rotation.previous and rotation.previous.name != rotation.new.name:
        back = apply_previous([rotation], ports, hup=False)
        if back.error:
            message = f"{refusal.message}; {back.message}"
            return stranded(rotation, ports, reason_of(back.error), message, refusal.nginx_words)
        if blamed:
            problem = Problem(Code.NGINX_REFUSED, Severity.REJECT, refusal.message)
            return rejected(rotation, (*rotation.problems, problem), ports, refusal.nginx_words)
    another = f"{command('rotator swap', rotation.site.name)} --cert FILE --key FILE"
    hint = f"Install another pair: {another}" if blamed else REFUSAL_HINT
    return deferred(rotation, ports, Code.NGINX_REFUSED, refusal.message, hint, refusal.nginx_words)


def install_first(rotation: SiteRotation, ports: Ports) -> Outcome:
    """Stores and names the pair without a reload: nginx's own configuration has to name the include first.

    nginx cannot have read an include that did not exist before. So a handshake that shows the same pair shows other
    files of nginx, and proves nothing.
    """
    applied = apply_new([rotation], ports, hup=False)
    if applied.error:
        return apply_failed(rotation, ports, applied)
    with Timer([rotation], "prove", ports.clock):
        rotation.proof = prove(rotation.expected(), NO_RELOAD, ports, 0.0)
    is_read = rotation.proof.ok and rotation.previous is not None
    return rotated(rotation, ports) if is_read else not_wired(rotation, ports)
