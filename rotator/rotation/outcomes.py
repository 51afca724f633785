"""Outcomes in words: how each ending of a rotation is told to the person on call; nothing is decided or done here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, Generation, Outcome, Pair, Result, Site, Target
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason, reason_of
from rotator.privsep.apply import Applied
from rotator.rotation.ports import Ports
from rotator.rotation.proof import Proof, expectation
from rotator.validation.intermediates import Pool
from rotator.validation.validate import Anchors, Verdict

AGAIN = "then repeat the swap; a running daemon tries again by itself"
"""The end of each hint about what is deferred."""
NGINX_DOWN_HINT = f"Start nginx, or correct `pid_file` under [nginx] if it runs; {AGAIN}"
REFUSAL_HINT = f"The new pair is not the cause: mend what nginx complains of (`nginx -t` often has the line), {AGAIN}"
SILENT = (
    "nginx's master was told to reload and nothing came of it: it is stopped or hangs, or its refusal cannot be read"
)
SILENT_HINT = (
    "See its state (T: stopped, D: waits for a disk): ps -o pid,stat,args -C nginx; `kill -CONT` wakes one that is "
    f"stopped, `nginx -t` tells what it would refuse; {AGAIN}"
)
ROLLED_BACK_HINT = (
    "See whether each server block of these listeners includes the site's file (another path there keeps the old "
    "pair), and nginx's error log; then repeat the swap"
)
WIRED_HINT = (
    "No handshake can tell nginx's include from files of its own that hold this very pair; "
    "see that it reads the include: nginx -T | grep {include}"
)
STRANDED_HINT = "Look at nginx (its error log, `nginx -t`), then: rotator swap SITE, which proves what is live again"
APPLY_HINTS: Mapping[Reason | Code, str] = {
    Code.PERMISSION: "Run it as root, or as the owner of the include directory",
    Reason.INCLUDE_DIR_UNSAFE: "Let only the user of nginx's master write there: chown root: DIR && chmod go-w DIR",
    Reason.INCLUDE_FOREIGN: "Move that file away, then: rotator swap SITE --cert FILE --key FILE --first",
    Reason.SIGNAL_PERMISSION: "Run it as root, or as the user of nginx's master",
    Reason.DISK_FULL: f"Free some space, {AGAIN}",
    Reason.NO_RESULT_DIR: (
        "Install systemd/tmpfiles.conf as /etc/tmpfiles.d/rotator.conf, then: systemd-tmpfiles --create"
    ),
    Reason.APPLY_DENIED: "Allow it: install systemd/50-rotator.rules into /etc/polkit-1/rules.d; or run it as root",
    Reason.APPLY_UNIT: "See whether it is installed, and what it says: systemctl status rotator-apply.service",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge said of a candidate a moment ago, with all that may have changed since.

    Args:
        verdict: `examine`'s, by the site's own policy and anchors, without `force`.
        live: what it was compared with.
        at: when, UTC.
        seconds: how long it took.
    """

    verdict: Verdict
    live: tuple[tuple[bytes, ...], ...]
    at: datetime
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted for one site.

    Args:
        site: which.
        anchors: the roots that its clients trust.
        candidate: new files; None to prove again what is live, or with `generation`.
        generation: a stored generation to go back to instead of a candidate.
        first: write the include although nothing was live before, and do not reload for it.
        force: install a pair that is older than the live one.
        who: the user.
        trigger: `swap`, `rollback`, `drop` …
        origin: where the files came from, for the generation's record.
        judged: what was said of the candidate, if it was judged just now: it need not be judged twice.
        pool: where an intermediate is taken from that the files lack.
    """

    site: Site
    anchors: Anchors
    candidate: Candidate | None = None
    generation: str = ""
    first: bool = False
    force: bool = False
    who: str = ""
    trigger: str = "swap"
    origin: tuple[str, ...] = ()
    judged: Judged | None = None
    pool: Pool = field(default_factory=Pool, repr=False)


@dataclass(slots=True)
class Ready:
    """A site on its way: what is wanted, what was found, and what became of it.

    Args:
        wanted: see `Wanted`.
        previous: the generation that the include names before.
        verified: name of the generation last proved; empty if none.
        pairs: what is to go live.
        problems: what the judge said of it.
        stages: seconds by stage.
        exempt: (listener, name) that did not serve the live pair before, and have no veto.
        same: whether what is wanted is live already.
        unwired: whether the pair before was never proved and is not served everywhere, so that there is no way back.
        uncertain: whether the disk did not confirm what the include names now.
        generation: the stored new generation.
        explanation: the judgement in words, if it was refused.
        proof: the last proof.
    """

    wanted: Wanted
    previous: Generation | None = None
    verified: str = ""
    pairs: tuple[Pair, ...] = ()
    problems: tuple[Problem, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    exempt: frozenset[tuple[str, str]] = frozenset()
    same: bool = False
    unwired: bool = False
    uncertain: bool = False
    generation: Generation | None = None
    explanation: tuple[str, ...] = ()
    proof: Proof = field(default_factory=lambda: Proof(ok=False))

    @property
    def site(self) -> Site:
        """Which site."""
        return self.wanted.site

    @property
    def first(self) -> bool:
        """Whether the include is only written, without a reload; not where nginx was seen serving it already."""
        return self.wanted.first and not (self.previous and self.verified)

    @property
    def new(self) -> Generation:
        """The stored new generation."""
        assert self.generation is not None, "asked for before it was stored"  # noqa: S101 - a bug, not an input
        return self.generation

    def expected(self) -> dict[Target, tuple[bytes, ...]]:
        """What shall be served, without what is exempt."""
        return self._vetoing(self.new)

    def expected_before(self) -> dict[Target, tuple[bytes, ...]]:
        """What was served before, without what is exempt; nothing where there was no pair."""
        return self._vetoing(self.previous) if self.previous else {}

    def _vetoing(self, generation: Generation) -> dict[Target, tuple[bytes, ...]]:
        every = expectation(self.site, generation)
        return {t: chain for t, chain in every.items() if (t.listener, t.name) not in self.exempt}


def outcome(
    ready: Ready,
    result: Result,
    ports: Ports,
    reason: Reason | Code,
    message: str,
    hint: str = "",
    *,
    problems: tuple[Problem, ...] | None = None,
    unproved: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
) -> Outcome:
    """The record of an ending; what is live is read from the disk."""
    return Outcome(
        site=ready.site.name,
        result=result,
        at=ports.clock.now(),
        reason=reason,
        message=message,
        hint=hint,
        problems=ready.problems if problems is None else problems,
        generation=ready.generation.name if ready.generation else "",
        previous=ready.previous.name if ready.previous else "",
        live=ports.live(ready.site.name).generation,
        proof=ready.proof.kind,
        unproved=unproved,
        stages=dict(ready.stages),
        nginx_words=words,
        explanation=ready.explanation if result is Result.REJECTED else (),
    )


def rejected(ready: Ready, problems: tuple[Problem, ...], ports: Ports, words: tuple[str, ...] = ()) -> Outcome:
    """The pair is at fault."""
    worst = next(p for p in problems if p.severity is Severity.REJECT)
    message = f"{worst.message.rstrip('.')}. Nothing was changed: {still_serves(ready.previous)}"
    return outcome(ready, Result.REJECTED, ports, worst.code, message, worst.hint, problems=problems, words=words)


def deferred(
    ready: Ready, ports: Ports, reason: Reason | Code, message: str, hint: str = "", words: tuple[str, ...] = ()
) -> Outcome:
    """The environment is at fault."""
    return outcome(ready, Result.DEFERRED, ports, reason, message, hint, words=words)


def apply_failed(ready: Ready, ports: Ports, applied: Applied) -> Outcome:
    """The privileged step refused, or could not do its part."""
    reason = reason_of(applied.error)
    return deferred(ready, ports, reason, applied.message, APPLY_HINTS.get(reason, ""))


def stranded(ready: Ready, ports: Ports, reason: Reason | Code, message: str, words: tuple[str, ...] = ()) -> Outcome:
    """Neither pair is proved."""
    told = f"neither the new nor the old pair could be proved: {message}"
    return outcome(ready, Result.STRANDED, ports, reason, told, STRANDED_HINT, words=words)


def deferred_by(e: RotatorError, wanted: Wanted, ports: Ports) -> Outcome:
    """What a hand could not do before anything was changed."""
    live = ports.live(wanted.site.name).generation
    return Outcome(
        wanted.site.name,
        Result.DEFERRED,
        ports.clock.now(),
        e.code,
        f"{e.message.rstrip('.')}. Nothing was changed",
        e.hint,
        previous=live,
        live=live,
    )


def not_wired(ready: Ready, ports: Ports) -> Outcome:
    """Stored and named, but nginx's own configuration does not name the include."""
    include = f"{ports.include_dir}/{ready.site.name}.conf"
    return deferred(
        ready,
        ports,
        Reason.NOT_WIRED,
        f"{ready.new.name} is stored and named in {include}, but nginx does not serve it from there yet: "
        + ("; ".join(ready.proof.reasons) or "it has files of its own with this very pair"),
        f"put this line into the server block, in place of its ssl_certificate lines:\n    include {include};\n"
        f"then: nginx -t && systemctl reload nginx && rotator swap {ready.site.name}",
    )


def refusal(applied: Applied) -> str:
    """nginx's own reason for refusing a reload."""
    return "nginx refused the reload: " + ("; ".join(applied.words) or "its error log was not readable or says nothing")


def still_serves(generation: Generation | None) -> str:
    """What nginx goes on serving, in words."""
    if generation is None:
        return "nginx's include names no pair yet"
    leaves = " and ".join(
        f"leaf {pair.fingerprint[:16]}… until {pair.not_after:%Y-%m-%d}" for pair in generation.record.pairs
    )
    return f"nginx still serves {generation.name} ({leaves})"
