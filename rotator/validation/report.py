"""The text form of a verdict: each problem with its next step, and a drawing of the chain."""

from __future__ import annotations

from collections.abc import Iterator

from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import place
from rotator.validation.client_support import who_breaks
from rotator.validation.validate import Verdict
from rotator.x509.certificate import colons

_SHOWN_WITH_CHAIN = frozenset(
    {
        Code.INCOMPLETE_CHAIN,
        Code.UNTRUSTED_ROOT,
        Code.SELF_SIGNED,
        Code.BAD_SIGNATURE,
        Code.AKI_MISMATCH,
        Code.NOT_A_CA,
        Code.PATHLEN,
        Code.EXPIRED_INTERMEDIATE,
        Code.EXPIRED_ROOT,
        Code.NAME_CONSTRAINTS,
        Code.CHAIN_TOO_LONG,
    }
)


def explain(verdict: Verdict) -> list[str]:
    """Every problem with its next step, and a drawing of the chain below the first problem of the chain."""
    lines: list[str] = []
    drawn = False
    for problem in verdict.problems:
        lines.append(_headline(problem))
        if problem.code in _SHOWN_WITH_CHAIN and not drawn:
            drawn = True
            lines += _drawing(verdict)
        # a warning of an incomplete chain means that rotator completed it, so that no client has a problem with it
        if problem.code is not Code.INCOMPLETE_CHAIN or problem.severity is Severity.REJECT:
            lines += [f"  {line}" for line in who_breaks(problem, verdict.issuer_url)]
        if problem.hint:
            lines.append(f"  {'Fix' if problem.severity is Severity.REJECT else 'Hint'}: {problem.hint}")
    return lines


def _headline(problem: Problem) -> str:
    needs_no_place = not problem.file or problem.file in problem.message
    where = "" if needs_no_place else f" [{place(problem.file, problem.line)}]"
    return f"{problem.severity.value.upper()} {problem.code}: {problem.message}{where}"


def _drawing(verdict: Verdict) -> Iterator[str]:
    """The lines of each chain's certificates, with the missing one at the end."""
    for chain in verdict.links:
        for number, link in enumerate(chain, 1):
            has_next = number < len(chain) or bool(verdict.missing_issuer and link.issuer == verdict.missing_issuer)
            where = f"  ({place(link.file, link.line)})" if link.file else ""
            issued = "  issued by" if has_next else ""
            yield f"  [{'root' if link.root else number}] {link.title}{where}{issued}"
        last = chain[-1]
        if not last.root and verdict.missing_issuer and last.issuer == verdict.missing_issuer:
            key = f", key id {colons(verdict.missing_akid)}" if verdict.missing_akid else ""
            name = verdict.missing_issuer[max(0, verdict.missing_issuer.rfind("CN=")) :]
            yield f"  [?] {name}{key}  ← not in the drop, not in the pool, not a trusted root"
