"""The entrance to validation: raw files, a served chain or stored chains in, one verdict or its problems out.

`validate_files` answers the central question of rotator: if nginx is given exactly these files, does a strict client
that trusts only these roots accept every required name at this time? All functions here are pure: they read, fetch,
store and change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise

from rotator.core.model import PRESETS, Candidate, KeyType, Pair, Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.validation import leaf_rules, renewal_rules, root_store
from rotator.validation.candidate import KeyMatch, match_keys, read_candidate
from rotator.validation.intermediates import Pool
from rotator.validation.path_builder import BuildResult, PathBuilder, ca_issuers
from rotator.validation.path_rules import library_verdict, warnings_of
from rotator.validation.revocation import StatusQuery
from rotator.validation.trust_anchors import Anchors
from rotator.x509.certificate import Certificate, about
from rotator.x509.panics import BROKE_OFF, HINT, answering
from rotator.x509.parse import read_certificate

__all__ = ["Anchors", "Link", "Verdict", "private_ca", "public", "validate_chains", "validate_files", "validate_served"]


@dataclass(frozen=True, slots=True)
class Link:
    """One certificate in the drawing of a chain.

    Args:
        title: its subject, or a substitute for messages (`Certificate.title`).
        issuer: the subject of its issuer.
        file: the file that contains it.
        line: its 1-based line in that file; 0 in a binary file.
        root: whether it is the trusted root at the end of the chain, which nginx does not send.
    """

    title: str
    issuer: str
    file: str = ""
    line: int = 0
    root: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of validation.

    Args:
        pairs: the pairs as they would be stored, sorted by key type; a refused candidate has them as well, as far as
            they could be built.
        problems: all refusals, then all warnings.
        missing_issuer: the subject of the certificate that a chain lacks; empty if no chain lacks one.
        missing_akid: the key identifier of that certificate, lower-case hex; empty if unknown.
        issuer_url: the address of the certificate that is missing or expired, from the authority information access
            of the certificate below it; empty if all are present and valid, or if no address is given.
        links: the drawing of each chain, leaf first.
        borrowed: whether a chain was completed from the pool.
        kept: the kinds of key of those pairs that are live and that the candidate lacks.
    """

    pairs: tuple[Pair, ...] = ()
    problems: tuple[Problem, ...] = ()
    missing_issuer: str = ""
    missing_akid: str = ""
    issuer_url: str = ""
    links: tuple[tuple[Link, ...], ...] = field(default=(), repr=False)
    borrowed: bool = False
    kept: tuple[KeyType, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether there is a pair and no problem refuses it."""
        return bool(self.pairs) and not self.codes

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes of the refusals, each once."""
        return tuple(dict.fromkeys(p.code for p in self.problems if p.severity is Severity.REJECT))

    @property
    def warnings(self) -> tuple[Code, ...]:
        """The codes of the warnings, each once."""
        return tuple(dict.fromkeys(p.code for p in self.problems if p.severity is Severity.WARN))

    @property
    def effective_not_after(self) -> datetime | None:
        """The earliest notAfter of all certificates that would be served, UTC; None without a pair."""
        return min((pair.effective_not_after for pair in self.pairs), default=None)


def public(names: Iterable[str] = ()) -> Policy:
    """The policy for certificates of public CAs: the CA/B Baseline Requirements and the limits of browsers."""
    return Policy(profile="public", names=tuple(names), **PRESETS["public"])


def private_ca(names: Iterable[str] = ()) -> Policy:
    """The policy for certificates of a private CA.

    It has no caps on lifetime, accepts Ed25519 keys, and lets extensions be missing that only the CA/B Forum demands.
    """
    return Policy(profile="private-ca", names=tuple(names), **PRESETS["private-ca"])


def _library_panicked() -> tuple[Problem, ...]:
    """The refusal when the library panics after the files were read one by one."""
    message = f"The files cannot be validated, so they are refused: {BROKE_OFF}."
    return (Problem(Code.PARSE_ERROR, Severity.REJECT, message, HINT),)


@answering(lambda: Verdict(problems=_library_panicked()))
def validate_files(
    candidate: Candidate,
    policy: Policy,
    anchors: Anchors,
    now: datetime,
    *,
    live: Sequence[tuple[bytes, ...]] = (),
    keep: Sequence[Pair] = (),
    need_key: bool = True,
    force: bool = False,
    pool: Pool | None = None,
) -> Verdict:
    """Validates a candidate: finds its pairs and reports all of their problems at once.

    Args:
        candidate: the raw files, with the password of an encrypted key.
        policy: the demands, with the required names.
        anchors: the roots that clients trust.
        now: the reference time, with a time zone.
        live: the chains that are live now, as DER, leaf first; the candidate is compared with them.
        keep: live pairs; one whose kind of key the candidate lacks stays beside it with its key, if it is still valid.
        need_key: whether a leaf without a private key is refused.
        force: turns the refusal of a downgrade or a lost name into a warning.
        pool: intermediates of this host, for a chain that lacks one.

    Returns:
        The verdict. No content of the files makes this function raise.
    """
    contents = read_candidate(candidate)
    matches, unmatched = match_keys(contents, policy.names, now, need_key=need_key)
    problems = [*candidate.notes, *contents.problems, *unmatched]
    builder = PathBuilder(contents.certificates, anchors, policy, now)
    with_pool = _with_pool(builder, pool)
    delivered = {c.raw for c in contents.certificates}
    borrowed = False
    results: list[tuple[KeyMatch, BuildResult]] = []
    for match in matches:
        result, path_problems = _validate_leaf(match.leaf, builder)
        if with_pool is not None and _has_refusal(result.problems):
            result, path_problems, taken = _completed(match.leaf, result, path_problems, with_pool, delivered)
            borrowed = borrowed or taken
        results.append((match, result))
        problems += path_problems
    kept, kept_results, kept_problems = _kept(keep, [match.leaf.key_type for match in matches], builder, pool)
    kept_types = tuple(pair.key_type for pair in kept)
    problems += _unserved(contents.certificates, [*(result for _, result in results), *kept_results], now)
    problems += kept_problems
    problems += renewal_rules.problems_of([m.leaf for m in matches], live, policy, now, kept=kept_types, force=force)
    results.sort(key=lambda pair: pair[0].leaf.key_type or "")
    incomplete = next((result for _, result in results if result.missing_issuer), None)
    new = [_pair(match, result) for match, result in results if match.leaf.key_type is not None]
    return Verdict(
        pairs=tuple(sorted([*new, *kept], key=lambda pair: pair.key_type)),
        problems=_sorted(problems),
        missing_issuer=incomplete.missing_issuer if incomplete else "",
        missing_akid=incomplete.missing_key_id if incomplete else "",
        issuer_url=next((url for _, result in results if (url := _issuer_url(result, now))), ""),
        links=tuple(_links(result) for _, result in results),
        borrowed=borrowed,
        kept=kept_types,
    )


@answering(lambda: Verdict(problems=_library_panicked()))
def validate_served(chain: Sequence[bytes], policy: Policy, anchors: Anchors, now: datetime) -> Verdict:
    """Validates a chain exactly as a server sends it: its first certificate is the leaf, and the order stays.

    Args:
        chain: DER, as sent; at least one. The line of a problem is the place of a certificate in the chain.
        policy: the demands, with the names that were asked for.
        anchors: the roots that clients trust.
        now: the reference time, with a time zone.
    """
    read = [read_certificate(raw, "", number) for number, raw in enumerate(chain, 1)]
    problems = [problem for _, read_problems in read for problem in read_problems]
    certificates = [certificate for certificate, _ in read if certificate is not None]
    first_sent: dict[bytes, Certificate] = {}
    for certificate in certificates:
        first_sent.setdefault(certificate.raw, certificate)
    problems += [
        about(certificate, Code.DUPLICATE_CERT, "is sent twice", "", Severity.WARN)
        for certificate in certificates
        if first_sent[certificate.raw] is not certificate
    ]
    distinct = tuple(first_sent.values())
    leaf = read[0][0]
    if leaf is None:
        return Verdict(problems=_sorted(problems))
    result, path_problems = _validate_leaf(leaf, PathBuilder(distinct, anchors, policy, now))
    if any(p.code == Code.ORDER_SENSITIVE for p in path_problems):  # in files only a warning: rotator reorders those
        reason = "is accepted only by clients that try more than one path; OpenSSL's do not"
        hint = "Send only the certificates of the path that leads to a valid root."
        path_problems = [p for p in path_problems if p.code != Code.ORDER_SENSITIVE]
        path_problems.append(about(leaf, Code.ORDER_SENSITIVE, reason, hint))
    problems += [*path_problems, *_unserved(distinct, [result], now, sent=True)]
    return Verdict(
        pairs=(_pair(KeyMatch(leaf, None), result),) if leaf.key_type is not None else (),
        problems=_sorted(problems),
        missing_issuer=result.missing_issuer,
        missing_akid=result.missing_key_id,
        issuer_url=_issuer_url(result, now),
        links=(_links(result),),
    )


@answering(_library_panicked)
def validate_chains(
    chains: Sequence[tuple[bytes, ...]], policy: Policy, anchors: Anchors, now: datetime
) -> tuple[Problem, ...]:
    """Validates stored chains again, without their keys and without a comparison with the live ones.

    Args:
        chains: DER, leaf first.
        policy: the present demands.
        anchors: the roots that clients trust at present.
        now: the reference time, with a time zone.
    """
    problems: list[Problem] = []
    for number, chain in enumerate(chains, 1):
        read = [read_certificate(raw) for raw in chain]
        problems += [problem for _, read_problems in read for problem in read_problems]
        certificates = [certificate for certificate, _ in read if certificate is not None]
        if len(certificates) < len(chain) or not certificates:
            if not chain:
                message = f"Stored chain {number} holds no certificate."
                problems.append(Problem(Code.CERT_MISSING, Severity.REJECT, message))
            continue
        result, path_problems = _validate_leaf(certificates[0], PathBuilder(certificates, anchors, policy, now))
        problems += path_problems
        problems += _unserved(certificates, [result], now)
    return _sorted(problems)


def _kept(
    live: Sequence[Pair], delivered: Sequence[KeyType | None], builder: PathBuilder, pool: Pool | None
) -> tuple[list[Pair], list[BuildResult], list[Problem]]:
    """The live pairs of the kinds of key that were not delivered, as far as they are still valid.

    Without a delivered pair none is kept. The chain of a kept pair is built again like that of a new one, from its own
    certificates, the delivered ones and the pool: an intermediate in it may have expired or lost its root meanwhile.

    Returns:
        The pairs, their paths, and the warnings about them.
    """
    kept: list[Pair] = []
    results: list[BuildResult] = []
    warnings: list[Problem] = []
    for pair in live if delivered else ():
        title = f"the live {pair.key_type} chain"
        read = [read_certificate(raw, title, number)[0] for number, raw in enumerate(pair.chain, 1)]
        own = [certificate for certificate in read if certificate is not None]
        if pair.key_type in delivered or not own or len(own) < len(pair.chain):
            continue
        others = [certificate for certificate in builder.certificates if certificate.raw not in pair.chain]
        with_delivered = replace(builder, certificates=(*own, *others))
        result, problems = _validate_leaf(own[0], with_delivered, completed=True)  # its order is not that of a delivery
        with_pool = _with_pool(with_delivered, pool)
        if with_pool is not None and _has_refusal(result.problems):
            known = {certificate.raw for certificate in with_delivered.certificates}
            result, problems, _ = _completed(own[0], result, problems, with_pool, known)
        if result.path.anchor is not None and not _has_refusal(problems):
            chain, end = tuple(c.raw for c in result.path.served), result.path.effective_not_after
            kept.append(replace(pair, chain=chain, effective_not_after=end))
            results.append(result)
            warnings += problems
    return kept, results, warnings


def _has_refusal(problems: Iterable[Problem]) -> bool:
    return any(p.severity is Severity.REJECT for p in problems)


def _with_pool(builder: PathBuilder, pool: Pool | None) -> PathBuilder | None:
    """The builder with the fitting certificates of the pool added; None if the pool has none."""
    offered = pool.offered_to(builder.certificates) if pool else ()
    return replace(builder, certificates=(*builder.certificates, *offered)) if offered else None


def _completed(
    leaf: Certificate,
    result: BuildResult,
    path_problems: list[Problem],
    with_pool: PathBuilder,
    delivered: Collection[bytes],
) -> tuple[BuildResult, list[Problem], bool]:
    """The path through the pool if it is sound, with a warning for each certificate taken; otherwise the given one."""
    completed, completed_problems = _validate_leaf(leaf, with_pool, completed=True)
    taken = [c for c in completed.path.served if c.raw not in delivered]
    if completed.path.anchor is None or _has_refusal(completed.problems) or not taken:
        return result, path_problems, False
    for certificate in taken:
        reason = f"was not in these files; it is taken from {certificate.file}"
        hint = "Deliver the chain file together with the certificate: other hosts cannot complete it."
        completed_problems.append(about(certificate, Code.INCOMPLETE_CHAIN, reason, hint, Severity.WARN))
    return completed, completed_problems, True


def _validate_leaf(
    leaf: Certificate, builder: PathBuilder, *, completed: bool = False
) -> tuple[BuildResult, list[Problem]]:
    """One leaf: its own rules, its best path, the library's verdict, the evidence, and warnings of an accepted path."""
    policy, now = builder.policy, builder.now
    own_problems = leaf_rules.problems_of(leaf, policy, now)
    result = _around_revoked(leaf, builder.build(leaf), builder)
    problems = [*own_problems, *result.problems]
    refusals = {p.code for p in problems if p.severity is Severity.REJECT}
    if not refusals - {Code.NAME_MISMATCH} and result.path.anchor is not None:
        verdict = library_verdict(result.path, builder.anchors, policy, now)
        problems += verdict
        if not verdict:
            problems += warnings_of(result.path, now)
            problems += root_store.warnings_of(result.path.anchor, builder.anchors.evidence.root_stores, policy, now)
            problems += _order_sensitive(leaf, result, builder, completed=completed)
    problems += builder.anchors.evidence.problems_of(_status_query(result, builder))
    return result, problems


def _status_query(result: BuildResult, builder: PathBuilder) -> StatusQuery:
    authorities = result.path.authorities if result.path.anchor is not None else ()
    return StatusQuery(result.path.served, authorities, builder.anchors.certificates, builder.policy, builder.now)


def _around_revoked(leaf: Certificate, result: BuildResult, builder: PathBuilder) -> BuildResult:
    """The best path without revoked intermediates, if any: a cross-signed CA may be revoked on one side only."""
    if result.path.anchor is None:
        return result
    revoked = builder.anchors.evidence.revoked_among(_status_query(result, builder))
    if not revoked or leaf.raw in revoked:
        return result
    other = replace(builder, certificates=[c for c in builder.certificates if c.raw not in revoked]).build(leaf)
    return result if other.path.anchor is None or _has_refusal(other.problems) else other


def _order_sensitive(leaf: Certificate, result: BuildResult, builder: PathBuilder, *, completed: bool) -> list[Problem]:
    """A warning if clients that do not backtrack miss the path, in the stored chain or in the delivered files."""
    if not builder.without_backtracking(leaf, result.path.served[1:]):
        reason = "reaches a trusted root only for clients that try more than one path; OpenSSL's do not"
        hint = "Remove the expired root from the clients' stores, or ask the CA for another chain."
        return [about(leaf, Code.ORDER_SENSITIVE, reason, hint, Severity.WARN)]
    if not completed and not builder.without_backtracking(leaf, builder.certificates):
        reason = "as delivered is accepted only by clients that try more than one path; the stored chain is corrected"
        hint = "Serve the stored chain, not the delivered file."
        return [about(leaf, Code.ORDER_SENSITIVE, reason, hint, Severity.WARN)]
    return []


def _unserved(
    certificates: Sequence[Certificate], results: Sequence[BuildResult], now: datetime, *, sent: bool = False
) -> list[Problem]:
    """Warnings of certificates that no path needs, and of paths whose certificates are in the wrong order.

    Args:
        certificates: all that were delivered, or sent.
        results: the path of each leaf.
        now: the reference time, UTC.
        sent: whether a server sent them, so that they are neither left out nor reordered.
    """
    served = {c.raw for result in results for c in result.path.served}
    effect = "sending it has no use" if sent else "it is left out"
    problems: list[Problem] = []
    for certificate in certificates:
        if certificate.raw in served:
            continue
        if certificate.self_issued and certificate.signed(certificate):
            reason = f"is a root; clients have it or do not trust it, so {effect if sent else 'it is not sent'}"
            problems.append(about(certificate, Code.ROOT_INCLUDED, reason, "", Severity.WARN))
        elif certificate.not_after < now:
            reason = f"expired on {certificate.not_after:%Y-%m-%d} and is not needed; {effect}"
            problems.append(about(certificate, Code.EXPIRED_EXTRA, reason, "", Severity.WARN))
        else:
            reason = f"is not needed on the way to a trusted root; {effect}"
            problems.append(about(certificate, Code.UNUSED_CERT, reason, "", Severity.WARN))
    return problems + [problem for result in results for problem in _disorder(result, sent=sent)]


def _disorder(result: BuildResult, *, sent: bool) -> list[Problem]:
    """A warning of the first certificate that comes before the one that it signed."""
    previous_in_file: dict[str, Certificate] = {}
    place = "certificate" if sent else "line"
    for certificate in result.path.served:
        child = previous_in_file.get(certificate.file)
        if child is not None and child.line > certificate.line:
            reason = f"({place} {certificate.line}) comes before {child.title} ({place} {child.line}), which it signed"
            reason += "; the order is corrected" if result.path.anchor and not sent else ""
            hint = "nginx takes the first certificate of a file for the leaf."
            return [about(certificate, Code.CHAIN_ORDER, reason, "" if sent else hint, Severity.WARN)]
        previous_in_file[certificate.file] = certificate
    return []


def _pair(match: KeyMatch, result: BuildResult) -> Pair:
    leaf = match.leaf
    assert leaf.key_type is not None  # noqa: S101 - callers skip a leaf of an unusable key type
    return Pair(
        key_type=leaf.key_type,
        chain=tuple(c.raw for c in result.path.served),
        key=match.key.secret if match.key else None,
        subject=leaf.subject,
        issuer=leaf.issuer,
        serial=f"{leaf.outline.serial:x}",
        names=(*leaf.dns_names, *map(str, leaf.ip_names)),
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        effective_not_after=result.path.effective_not_after,
    )


def _issuer_url(result: BuildResult, now: datetime) -> str:
    """The address at which fetching clients look for a missing certificate, or for the successor of an expired one."""
    path = result.path.served
    if result.missing_issuer:
        return ca_issuers(path[-1])
    return next((ca_issuers(below) for below, above in pairwise(path) if above.not_after < now), "")


def _links(result: BuildResult) -> tuple[Link, ...]:
    path = result.path
    links = [Link(c.title, c.issuer, c.file, c.line) for c in path.served]
    if path.anchor is not None and path.anchor.raw != path.served[0].raw:
        links.append(Link(path.anchor.title, path.anchor.issuer, path.anchor.file, path.anchor.line, root=True))
    return tuple(links)


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, refusals before warnings, otherwise in their order."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: p.severity is not Severity.REJECT))
