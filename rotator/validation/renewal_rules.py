"""A new pair against what is live: is it older, does it lose something; nothing is judged here by itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import datetime

from rotator.core.lifetime import share_of_life_left
from rotator.core.model import KeyType, Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509.certificate import Certificate, about
from rotator.x509.parse import read_certificate


def problems_of(
    leaves: Sequence[Certificate],
    live: Sequence[tuple[bytes, ...]],
    policy: Policy,
    now: datetime,
    *,
    kept: Collection[KeyType] = (),
    force: bool = False,
) -> tuple[Problem, ...]:
    """Compare the leaves of a candidate with the live ones, by kind of key.

    Args:
        leaves: of the candidate, at most one of a kind.
        live: DER chains that are live now, leaf first; one that cannot be read is passed over.
        policy: whether a downgrade, a lost name, a kept key or a short rest of life refuses.
        now: the reference time, UTC.
        kept: the kinds of key whose live pairs stay beside the candidate.
        force: lets a downgrade or a lost name pass with a warning.

    Returns:
        `downgrade`, `issued-earlier`, `expires-earlier`, `san-lost`, `key-reuse` or `key-reused`, `key-type-change`,
        `issuer-change`; `expires-soon` for what is not live and has less of its life left than the policy wants.
    """
    problems: list[Problem] = []
    served = {chain[0] for chain in live if chain}
    problems += [found for leaf in leaves if leaf.raw not in served and (found := _rest(leaf, policy, now))]
    olds = [old for chain in live if chain and (old := read_certificate(chain[0])[0]) is not None]
    if not olds or not leaves:
        return tuple(problems)
    by_type = {old.key_type: old for old in olds}
    for leaf in leaves:
        old = by_type.get(leaf.key_type)
        if old is None:
            # another kind of key replaces the live one: age and issuer are compared with the one that goes
            going = [o for o in olds if o.key_type not in {*kept, *(new.key_type for new in leaves)}]
            old = max(going, key=lambda o: o.not_before, default=None)
        if old is None or old.raw == leaf.raw:
            continue
        problems += _age(leaf, old, policy, force=force)
        problems += _key(leaf, old, policy)
        problems += _issuer(leaf, old)
    problems += _kinds(leaves, kept, by_type)
    problems += _lost(leaves, olds, policy, force=force)
    return tuple(problems)


def _rest(leaf: Certificate, policy: Policy, now: datetime) -> Problem | None:
    """Whether so little of its life is left that it is hardly the renewal; what has expired is told elsewhere."""
    left = 100 * share_of_life_left(leaf.not_before, leaf.not_after, now)
    if now > leaf.not_after or left >= policy.min_life_left:
        return None
    reason = f"has {math.floor(left)} % of its life left (until {leaf.not_after:%Y-%m-%d %H:%M}Z)"
    reason += f"; the policy wants {policy.min_life_left} % of a renewal"
    return about(leaf, Code.EXPIRES_SOON, reason, "Is this the file of last time? Deliver the renewed one.")


def _age(leaf: Certificate, old: Certificate, policy: Policy, *, force: bool) -> list[Problem]:
    """Both dates earlier is going back; one alone happens (backdating CAs, a change from 90-day to 6-day ones)."""
    issued = f"{leaf.not_before:%Y-%m-%d %H:%M}Z, the live one on {old.not_before:%Y-%m-%d %H:%M}Z"
    expires = f"{leaf.not_after:%Y-%m-%d %H:%M}Z, the live one on {old.not_after:%Y-%m-%d %H:%M}Z"
    if leaf.not_before < old.not_before and leaf.not_after < old.not_after:
        refuse = policy.forbid_downgrade and not force
        reason = f"is older than what is live: issued on {issued}; expires on {expires}"
        hint = "Is this the file of last time? rotator rollback goes back; --force on the command line insists."
        return [about(leaf, Code.DOWNGRADE, reason, hint, Severity.REJECT if refuse else Severity.WARN)]
    if leaf.not_before < old.not_before:
        return [about(leaf, Code.ISSUED_EARLIER, f"was issued on {issued}", "", Severity.WARN)]
    if leaf.not_after < old.not_after:
        return [about(leaf, Code.EXPIRES_EARLIER, f"expires on {expires}", "", Severity.WARN)]
    return []


def _key(leaf: Certificate, old: Certificate, policy: Policy) -> list[Problem]:
    if leaf.outline.spki != old.outline.spki:
        return []
    if policy.allow_key_reuse:
        reason = "has the same key as the live one"
        return [about(leaf, Code.KEY_REUSED, reason, "Let the renewal make a new key.", Severity.WARN)]
    reason = "has the same key as the live one, which the policy forbids"
    return [about(leaf, Code.KEY_REUSE, reason, "Let the renewal make a new key.")]


def _issuer(leaf: Certificate, old: Certificate) -> list[Problem]:
    """CAs change intermediates all the time: only another organisation is news, where the issuers name one."""
    if leaf.issuing_organisation == old.issuing_organisation:
        return []
    reason = f"comes from another CA than the live one: {leaf.issuer}; before: {old.issuer}"
    return [about(leaf, Code.ISSUER_CHANGE, reason, "Do all clients trust the new CA?", Severity.WARN)]


def _kinds(
    leaves: Sequence[Certificate], kept: Collection[KeyType], by_type: dict[KeyType | None, Certificate]
) -> list[Problem]:
    new = {*kept, *(leaf.key_type for leaf in leaves)}
    if new == set(by_type):
        return []
    gone, come = sorted(filter(None, set(by_type) - new)), sorted(filter(None, new - set(by_type)))
    reason = "changes the kinds of key that are served:"
    reason += f" {', '.join(come)} is new" if come else ""
    reason += (";" if come else "") + f" {', '.join(gone)} goes" if gone else ""
    hint = "Clients that only know the kind that goes are locked out."
    return [about(leaves[0], Code.KEY_TYPE_CHANGE, reason, hint if gone else "", Severity.WARN)]


def _lost(leaves: Sequence[Certificate], olds: Sequence[Certificate], policy: Policy, *, force: bool) -> list[Problem]:
    """Names of the live leaves that no new one covers; configured ones are missed elsewhere."""
    problems: list[Problem] = []
    configured = set(policy.names)
    before = sorted({str(name) for old in olds for name in (*old.dns_names, *old.ip_names)})
    for leaf in leaves:
        covered = leaf.covered_names
        lost = [name for name in before if not covered.covers(name) and name not in configured]
        if lost:
            more = f" and {len(lost) - 10} more" if len(lost) > 10 else ""
            reason = f"no longer covers {shown(', '.join(lost[:10]))}{more}, which the live one does"
            severity = Severity.WARN if policy.allow_san_loss or force else Severity.REJECT
            hint = "Order it with these names too. If they go on purpose: --force on the command line, or "
            hint += "allow_san_loss = true in the site's policy."
            problems.append(about(leaf, Code.SAN_LOST, reason, hint, severity))
    return problems
