"""The outcomes of a rotation as text: the message and the hint of each possible end, for the person on call."""

from __future__ import annotations

from datetime import datetime

from rotator.core.errors import RotatorError
from rotator.core.hints import command, shell_word
from rotator.core.model import Generation, Outcome, Result
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason, reason_of
from rotator.privsep.apply import Applied
from rotator.rotation.next_steps import AGAIN, APPLY_HINTS
from rotator.rotation.ports import Ports
from rotator.rotation.request import RotationRequest
from rotator.rotation.site_rotation import SiteRotation


def outcome_of(
    rotation: SiteRotation,
    result: Result,
    ports: Ports,
    reason: Reason | Code,
    message: str,
    hint: str = "",
    *,
    problems: tuple[Problem, ...] | None = None,
    unproved: tuple[str, ...] = (),
    nginx_words: tuple[str, ...] = (),
) -> Outcome:
    """The outcome of one site's rotation.

    Args:
        rotation: the site, with the results of its steps so far.
        result: how it ended.
        ports: the clock.
        reason: why, as a word.
        message: one or two sentences.
        hint: the next step.
        problems: those of the candidate; None for those of `rotation`.
        unproved: the targets without veto that do not serve the new pair, in words.
        nginx_words: nginx's own messages.
    """
    return Outcome(
        site=rotation.site.name,
        result=result,
        at=ports.clock.now(),
        reason=reason,
        message=message,
        hint=hint,
        problems=rotation.problems if problems is None else problems,
        generation=rotation.generation.name if rotation.generation else "",
        previous=rotation.previous.name if rotation.previous else "",
        live=rotation.live,
        proof=rotation.proof.kind,
        unproved=unproved,
        stages=dict(rotation.stages),
        nginx_words=nginx_words,
        explanation=rotation.explanation if result is Result.REJECTED else (),
    )


def rejected(
    rotation: SiteRotation, problems: tuple[Problem, ...], ports: Ports, nginx_words: tuple[str, ...] = ()
) -> Outcome:
    """The outcome of a pair that is at fault."""
    worst = next(p for p in problems if p.severity is Severity.REJECT)
    message = f"{worst.message.rstrip('.')}. Nothing was changed: {still_serves(rotation.previous)}"
    return outcome_of(
        rotation, Result.REJECTED, ports, worst.code, message, worst.hint, problems=problems, nginx_words=nginx_words
    )


def deferred(
    rotation: SiteRotation,
    ports: Ports,
    reason: Reason | Code,
    message: str,
    hint: str = "",
    nginx_words: tuple[str, ...] = (),
) -> Outcome:
    """The outcome of a rotation that the environment prevents for now."""
    return outcome_of(rotation, Result.DEFERRED, ports, reason, message, hint, nginx_words=nginx_words)


def apply_failed(rotation: SiteRotation, ports: Ports, applied: Applied) -> Outcome:
    """The outcome after a refusal or a failure of the privileged step."""
    reason = reason_of(applied.error)
    return deferred(rotation, ports, reason, applied.message, applied.hint or APPLY_HINTS.get(reason, ""))


def stranded(
    rotation: SiteRotation, ports: Ports, reason: Reason | Code, message: str, nginx_words: tuple[str, ...] = ()
) -> Outcome:
    """The outcome of a site of which neither pair is proved."""
    pairs = "neither the new nor the old pair" if rotation.previous else "the live pair"
    verb = "could be" if rotation.previous else "could not be"
    hint = (
        "Look at nginx (its error log, `nginx -t`) and at the site's `listeners`; then prove the live pair again: "
        f"{command('rotator swap', rotation.site.name)}"
    )
    return outcome_of(
        rotation, Result.STRANDED, ports, reason, f"{pairs} {verb} proved: {message}", hint, nginx_words=nginx_words
    )


def wired_hint(include: str) -> str:
    """The next step after a proof that other files of nginx could have given, too.

    Args:
        include: the path of the site's include.
    """
    return (
        "No handshake can distinguish nginx's include from files of its own with the same pair; "
        f"see that it reads the include: nginx -T | {command('grep -F', include)}"
    )


def listener_hint(site: str, include_dir: object) -> str:
    """The next step after a listener that does not serve the live pair.

    Args:
        site: the name of the site.
        include_dir: the directory of the includes.
    """
    include = shell_word(f"{include_dir}/{site}.conf")
    return (
        f"See that nginx listens there and that the server block has `include {include};` (then reload nginx), "
        f"or correct the site's `listeners` and `names`; {AGAIN}"
    )


def deferred_by(error: RotatorError, request: RotationRequest, live: str, now: datetime) -> Outcome:
    """The outcome of an error before anything was changed.

    Args:
        error: the error of a port.
        request: the request that it ends.
        live: the generation that the include names.
        now: the time, UTC.
    """
    return Outcome(
        request.site.name,
        Result.DEFERRED,
        now,
        error.code,
        f"{error.message.rstrip('.')}. Nothing was changed",
        error.hint,
        previous=live,
        live=live,
    )


def not_wired(rotation: SiteRotation, ports: Ports) -> Outcome:
    """The outcome of a stored and named pair whose include nginx's own configuration does not have yet."""
    include = f"{ports.include_dir}/{rotation.site.name}.conf"
    why = "; ".join(rotation.proof.reasons) or "it has files of its own with the same pair"
    return deferred(
        rotation,
        ports,
        Reason.NOT_WIRED,
        f"{rotation.new.name} is stored and named in {include}, but nginx does not serve it from there yet: {why}",
        "put this line into the server block, in place of its ssl_certificate lines:\n"
        f"    include {shell_word(include)};\n"
        f"then: nginx -t && systemctl reload nginx && {command('rotator swap', rotation.site.name)}",
    )


def still_serves(generation: Generation | None) -> str:
    """A clause about the pair that nginx serves meanwhile."""
    if generation is None:
        return "nginx's include names no pair yet"
    leaves = " and ".join(
        f"leaf {pair.fingerprint[:16]}… until {pair.not_after:%Y-%m-%d}" for pair in generation.record.pairs
    )
    return f"nginx still serves {generation.name} ({leaves})"
