"""The comparison of a candidate's leaves with the live ones: age, remaining lifetime, names, key, issuer."""

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
    """Compares the leaves of a candidate with the live ones, by key type.

    Args:
        leaves: the leaves of the candidate, at most one of each key type.
        live: the chains that are live now, as DER, leaf first; an unreadable one is ignored.
        policy: whether a downgrade, a lost name, a reused key or a short remaining lifetime refuses.
        now: the reference time, UTC.
        kept: the key types whose live pairs stay beside the candidate.
        force: turns the refusal of a downgrade or a lost name into a warning.

    Returns:
        `downgrade`, `issued-earlier`, `expires-earlier`, `san-lost`, `key-reuse` or `key-reused`, `key-type-change`,
        `issuer-change`; and `expires-soon` for a new leaf whose remaining lifetime is below the policy's limit.
    """
    problems: list[Problem] = []
    served = {chain[0] for chain in live if chain}
    problems += [soon for leaf in leaves if leaf.raw not in served and (soon := _short_lived(leaf, policy, now))]
    olds = [old for chain in live if chain and (old := read_certificate(chain[0])[0]) is not None]
    if not olds or not leaves:
        return tuple(problems)
    by_type = {old.key_type: old for old in olds}
    for leaf in leaves:
        old = by_type.get(leaf.key_type)
        if old is None:
            # the key type changes: age and issuer are compared with the leaf that is replaced
            replaced = [o for o in olds if o.key_type not in {*kept, *(new.key_type for new in leaves)}]
            old = max(replaced, key=lambda o: o.not_before, default=None)
        if old is None or old.raw == leaf.raw:
            continue
        problems += _age(leaf, old, policy, force=force)
        problems += _key(leaf, old, policy)
        problems += _issuer(leaf, old)
    problems += _key_types(leaves, kept, by_type)
    problems += _lost_names(leaves, olds, policy, force=force)
    return tuple(problems)


def _short_lived(leaf: Certificate, policy: Policy, now: datetime) -> Problem | None:
    """The refusal of an unexpired leaf whose remaining lifetime is below the policy's limit."""
    left = 100 * share_of_life_left(leaf.not_before, leaf.not_after, now)
    if now > leaf.not_after or left >= policy.min_life_left:
        return None
    reason = f"has {math.floor(left)} % of its lifetime left (until {leaf.not_after:%Y-%m-%d %H:%M}Z)"
    reason += f"; the policy demands {policy.min_life_left} % of a renewal"
    return about(leaf, Code.EXPIRES_SOON, reason, "Is this the previous file? Deliver the renewed one.")


def _age(leaf: Certificate, old: Certificate, policy: Policy, *, force: bool) -> list[Problem]:
    """A downgrade has both dates earlier; one alone is normal (backdating, a change to 6-day lifetimes)."""
    issued = f"{leaf.not_before:%Y-%m-%d %H:%M}Z, the live one on {old.not_before:%Y-%m-%d %H:%M}Z"
    expires = f"{leaf.not_after:%Y-%m-%d %H:%M}Z, the live one on {old.not_after:%Y-%m-%d %H:%M}Z"
    if leaf.not_before < old.not_before and leaf.not_after < old.not_after:
        refuse = policy.forbid_downgrade and not force
        reason = f"is older than the live certificate: issued on {issued}; expires on {expires}"
        hint = "Is this the previous file? Use `rotator rollback` to go back, or --force to install it anyway."
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
        reason = "has the same key as the live certificate"
        return [about(leaf, Code.KEY_REUSED, reason, "Let the renewal make a new key.", Severity.WARN)]
    reason = "has the same key as the live certificate, which the policy forbids"
    return [about(leaf, Code.KEY_REUSE, reason, "Let the renewal make a new key.")]


def _issuer(leaf: Certificate, old: Certificate) -> list[Problem]:
    """A warning of another issuing organisation; a change of the intermediate alone is normal and not reported."""
    if leaf.issuing_organisation == old.issuing_organisation:
        return []
    reason = f"comes from another CA than the live certificate: {leaf.issuer}; previously: {old.issuer}"
    return [about(leaf, Code.ISSUER_CHANGE, reason, "Do all clients trust the new CA?", Severity.WARN)]


def _key_types(
    leaves: Sequence[Certificate], kept: Collection[KeyType], by_type: dict[KeyType | None, Certificate]
) -> list[Problem]:
    """A warning if the set of key types changes."""
    new = {*kept, *(leaf.key_type for leaf in leaves)}
    if new == set(by_type):
        return []
    removed, added = sorted(filter(None, set(by_type) - new)), sorted(filter(None, new - set(by_type)))
    reason = "changes the key types that are served:"
    reason += f" {', '.join(added)} is added" if added else ""
    reason += (";" if added else "") + f" {', '.join(removed)} is removed" if removed else ""
    hint = "Clients that support only the removed key type can no longer connect."
    return [about(leaves[0], Code.KEY_TYPE_CHANGE, reason, hint if removed else "", Severity.WARN)]


def _lost_names(
    leaves: Sequence[Certificate], olds: Sequence[Certificate], policy: Policy, *, force: bool
) -> list[Problem]:
    """Names of the live leaves that a new leaf does not cover; `leaf_rules` demands the configured ones."""
    problems: list[Problem] = []
    configured = set(policy.names)
    live_names = sorted({str(name) for old in olds for name in (*old.dns_names, *old.ip_names)})
    for leaf in leaves:
        covered = leaf.covered_names
        lost = [name for name in live_names if not covered.covers(name) and name not in configured]
        if lost:
            more = f" and {len(lost) - 10} more" if len(lost) > 10 else ""
            reason = f"no longer covers {shown(', '.join(lost[:10]))}{more}, as the live certificate does"
            severity = Severity.WARN if policy.allow_san_loss or force else Severity.REJECT
            hint = "Order it with these names too. If their removal is intended: --force on the command line, or "
            hint += "allow_san_loss = true in the site's policy."
            problems.append(about(leaf, Code.SAN_LOST, reason, hint, severity))
    return problems
