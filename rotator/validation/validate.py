"""Policy and judge: raw files or stored chains in, one verdict out; nothing is read, fetched, stored or changed here.

`examine` answers the question of the whole program: if nginx is given exactly these files, will a strict client that
trusts only these roots accept every required name at this time?
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise

from rotator.core.model import PRESETS, Candidate, Pair, Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.validation import leaf_rules, renewal_rules
from rotator.validation.candidate import Match, match, read_candidate
from rotator.validation.intermediates import Pool
from rotator.validation.path_builder import Explorer, Found, ca_issuers
from rotator.validation.path_rules import library_verdict, warnings_of
from rotator.validation.revocation import Inquiry
from rotator.validation.trust_anchors import Anchors
from rotator.x509.certificate import Certificate, about
from rotator.x509.panics import BROKE_OFF, HINT, answering
from rotator.x509.parse import read_certificate

__all__ = ["Anchors", "Link", "Verdict", "examine", "judge_served", "private_ca", "public", "validate_chains"]


@dataclass(frozen=True, slots=True)
class Link:
    """One certificate of the picture of a chain.

    Args:
        title: its subject, or what to call it instead.
        issuer: the subject of its issuer.
        file: the file that it was found in.
        line: 1-based line there.
        root: whether it is the trusted root that the chain ends at, which is not sent.
    """

    title: str
    issuer: str
    file: str = ""
    line: int = 0
    root: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about a candidate.

    Args:
        pairs: as they would be stored, sorted by kind of key; also those of a refused candidate, as far as they go.
        problems: everything that was found, refusals first.
        missing_issuer: subject of the certificate that a chain lacks; empty if none does.
        missing_akid: its key identifier, lower-case hex; empty if unknown.
        issuer_url: where the certificate that is missing or over can be fetched, as the one below it says; empty if
            none is or nothing says so.
        links: the picture of each chain, leaf first.
        borrowed: whether a chain was completed from the pool.
    """

    pairs: tuple[Pair, ...] = ()
    problems: tuple[Problem, ...] = ()
    missing_issuer: str = ""
    missing_akid: str = ""
    issuer_url: str = ""
    links: tuple[tuple[Link, ...], ...] = field(default=(), repr=False)
    borrowed: bool = False

    @property
    def accepted(self) -> bool:
        """Whether there is a pair and nothing refuses it."""
        return bool(self.pairs) and not self.codes

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes that refuse it, each once."""
        return tuple(dict.fromkeys(p.code for p in self.problems if p.severity is Severity.REJECT))

    @property
    def warnings(self) -> tuple[Code, ...]:
        """The codes that only warn, each once."""
        return tuple(dict.fromkeys(p.code for p in self.problems if p.severity is Severity.WARN))

    @property
    def effective_not_after(self) -> datetime | None:
        """The earliest notAfter of everything that would be served, UTC; None without a pair."""
        return min((pair.effective_not_after for pair in self.pairs), default=None)


def public(names: Iterable[str] = ()) -> Policy:
    """The policy for certificates of the web's public CAs: CA/B Baseline Requirements and what browsers take."""
    return Policy(profile="public", names=tuple(names), **PRESETS["public"])


def private_ca(names: Iterable[str] = ()) -> Policy:
    """The policy for certificates of one's own CA: no caps on lifetime, Ed25519 too, and extensions that only the
    CA/B Forum demands may be missing.
    """
    return Policy(profile="private-ca", names=tuple(names), **PRESETS["private-ca"])


def _unjudged() -> tuple[Problem, ...]:
    """Where a panic was not seen for what it was while the single file was read."""
    words = f"The files cannot be judged, so they are refused: {BROKE_OFF}."
    return (Problem(Code.PARSE_ERROR, Severity.REJECT, words, HINT),)


@answering(lambda: Verdict(problems=_unjudged()))
def examine(
    candidate: Candidate,
    policy: Policy,
    anchors: Anchors,
    now: datetime,
    *,
    live: Sequence[tuple[bytes, ...]] = (),
    need_key: bool = True,
    force: bool = False,
    pool: Pool | None = None,
) -> Verdict:
    """Judge a candidate: find its pairs and all of their problems at once.

    Args:
        candidate: the raw files, with the password of an encrypted key.
        policy: what is demanded, the required names among it.
        anchors: the roots that clients trust.
        now: the reference time, with a time zone.
        live: DER chains that are live now, leaf first, to be compared with.
        need_key: whether a leaf without a private key is refused.
        force: lets a downgrade or a lost name pass with a warning.
        pool: where an intermediate is taken from that the files lack.

    Returns:
        The verdict. Never raises for what the files hold.
    """
    reading = read_candidate(candidate)
    matches, unmatched = match(reading, policy.names, now, need_key=need_key)
    problems = [*candidate.notes, *reading.problems, *unmatched]
    explorer = Explorer(reading.certificates, anchors, policy, now)
    wider = _wider(explorer, pool)
    delivered = {c.raw for c in reading.certificates}
    borrowed = False
    judged: list[tuple[Match, Found]] = []
    for found_match in matches:
        found, faults = _judge(found_match.leaf, explorer)
        if wider is not None and _has_refusal(found.problems):
            found, faults, taken = _completed(found_match.leaf, found, faults, wider, delivered)
            borrowed = borrowed or taken
        judged.append((found_match, found))
        problems += faults
    problems += _leftovers(reading.certificates, [found for _, found in judged], now)
    problems += renewal_rules.problems_of([m.leaf for m in matches], live, policy, now, force=force)
    judged.sort(key=lambda both: both[0].leaf.key_type or "")
    lacking = next((found for _, found in judged if found.missing_issuer), None)
    return Verdict(
        pairs=tuple(_pair(m, found) for m, found in judged if m.leaf.key_type is not None),
        problems=_sorted(problems),
        missing_issuer=lacking.missing_issuer if lacking else "",
        missing_akid=lacking.missing_key_id if lacking else "",
        issuer_url=next((url for _, found in judged if (url := _issuer_url(found, now))), ""),
        links=tuple(_links(found) for _, found in judged),
        borrowed=borrowed,
    )


@answering(lambda: Verdict(problems=_unjudged()))
def judge_served(chain: Sequence[bytes], policy: Policy, anchors: Anchors, now: datetime) -> Verdict:
    """Judge what a server sends, as it stands: nothing is put right, and the first certificate is the leaf.

    Args:
        chain: DER, as sent; at least one. A problem's line is a certificate's place in it.
        policy: what is demanded, the names that were asked for among it.
        anchors: the roots that clients trust.
        now: the reference time, with a time zone.
    """
    read = [read_certificate(raw, "", number) for number, raw in enumerate(chain, 1)]
    problems = [p for _, found in read for p in found]
    certificates = [c for c, _ in read if c is not None]
    sent: dict[bytes, Certificate] = {}
    for certificate in certificates:
        sent.setdefault(certificate.raw, certificate)
    problems += [
        about(c, Code.DUPLICATE_CERT, "is sent twice", "", Severity.WARN) for c in certificates if sent[c.raw] is not c
    ]
    once = tuple(sent.values())
    leaf = read[0][0]
    if leaf is None:
        return Verdict(problems=_sorted(problems))
    found, faults = _judge(leaf, Explorer(once, anchors, policy, now))
    if any(p.code == Code.ORDER_SENSITIVE for p in faults):  # in files a warning: there it is put right
        words = "is accepted only by clients that try more than one path; OpenSSL's do not"
        hint = "Send only the certificates of the path that leads to a valid root."
        faults = [p for p in faults if p.code != Code.ORDER_SENSITIVE]
        faults.append(about(leaf, Code.ORDER_SENSITIVE, words, hint))
    problems += [*faults, *_leftovers(once, [found], now, sent=True)]
    return Verdict(
        pairs=(_pair(Match(leaf, None), found),) if leaf.key_type is not None else (),
        problems=_sorted(problems),
        missing_issuer=found.missing_issuer,
        missing_akid=found.missing_key_id,
        issuer_url=_issuer_url(found, now),
        links=(_links(found),),
    )


@answering(_unjudged)
def validate_chains(
    chains: Sequence[tuple[bytes, ...]], policy: Policy, anchors: Anchors, now: datetime
) -> tuple[Problem, ...]:
    """Judge stored chains anew, as they stand: without their keys and without a comparison with what is live.

    Args:
        chains: DER, leaf first.
        policy: what is demanded now.
        anchors: what is trusted now.
        now: the reference time, with a time zone.
    """
    problems: list[Problem] = []
    for number, chain in enumerate(chains, 1):
        read = [read_certificate(raw) for raw in chain]
        problems += [p for _, found in read for p in found]
        certificates = [c for c, _ in read if c is not None]
        if len(certificates) < len(chain) or not certificates:
            if not chain:
                words = f"Stored chain {number} holds no certificate."
                problems.append(Problem(Code.CERT_MISSING, Severity.REJECT, words))
            continue
        found, faults = _judge(certificates[0], Explorer(certificates, anchors, policy, now))
        problems += faults
        problems += _leftovers(certificates, [found], now)
    return _sorted(problems)


def _has_refusal(problems: Iterable[Problem]) -> bool:
    return any(p.severity is Severity.REJECT for p in problems)


def _wider(explorer: Explorer, pool: Pool | None) -> Explorer | None:
    """The explorer with what a pool offers beside the files; None if it offers nothing."""
    offered = pool.offered_to(explorer.pool) if pool else ()
    return replace(explorer, pool=(*explorer.pool, *offered)) if offered else None


def _completed(
    leaf: Certificate, found: Found, faults: list[Problem], wider: Explorer, delivered: Collection[bytes]
) -> tuple[Found, list[Problem], bool]:
    """The path with the pool's help if that one is sound, with a warning for each certificate taken; else as it was."""
    better, judged = _judge(leaf, wider, completed=True)
    taken = [c for c in better.path.served if c.raw not in delivered]
    if better.path.anchor is None or _has_refusal(better.problems) or not taken:
        return found, faults, False
    for certificate in taken:
        words = f"was not in these files; it is taken from {certificate.file}"
        hint = "Let the chain file be delivered with the certificate: elsewhere nobody completes it."
        judged.append(about(certificate, Code.INCOMPLETE_CHAIN, words, hint, Severity.WARN))
    return better, judged, True


def _judge(leaf: Certificate, explorer: Explorer, *, completed: bool = False) -> tuple[Found, list[Problem]]:
    """One leaf: its own rules, the best path, the library's verdict, and what is unwise about an accepted one."""
    policy, now = explorer.policy, explorer.now
    own = leaf_rules.problems_of(leaf, policy, now)
    found = _around_revoked(leaf, explorer.explore(leaf), explorer)
    problems = [*own, *found.problems]
    refusals = {p.code for p in problems if p.severity is Severity.REJECT}
    if not refusals - {Code.NAME_MISMATCH} and found.path.anchor is not None:
        verdict = library_verdict(found.path, explorer.anchors, policy, now)
        problems += verdict
        if not verdict:
            problems += warnings_of(found.path, now)
            problems += _order(leaf, found, explorer, completed=completed)
    problems += explorer.anchors.evidence.problems_of(_inquiry(found, explorer))
    return found, problems


def _inquiry(found: Found, explorer: Explorer) -> Inquiry:
    """What evidence is asked of a path."""
    authorities = found.path.authorities if found.path.anchor is not None else ()
    return Inquiry(found.path.served, authorities, explorer.anchors.certificates, explorer.policy, explorer.now)


def _around_revoked(leaf: Certificate, found: Found, explorer: Explorer) -> Found:
    """The best path without its revoked intermediates, where there is one: a cross-signed CA is revoked on one side."""
    if found.path.anchor is None:
        return found
    revoked = explorer.anchors.evidence.revoked_among(_inquiry(found, explorer))
    if not revoked or leaf.raw in revoked:
        return found
    other = replace(explorer, pool=[c for c in explorer.pool if c.raw not in revoked]).explore(leaf)
    return found if other.path.anchor is None or _has_refusal(other.problems) else other


def _order(leaf: Certificate, found: Found, explorer: Explorer, *, completed: bool) -> list[Problem]:
    """Whether the path is found by clients that do not backtrack, as stored and as it was delivered."""
    if not explorer.without_backtracking(leaf, found.path.served[1:]):
        words = "reaches a trusted root only for clients that try more than one path; OpenSSL's do not"
        hint = "Remove the expired root from the clients' stores, or ask the CA for another chain."
        return [about(leaf, Code.ORDER_SENSITIVE, words, hint, Severity.WARN)]
    if not completed and not explorer.without_backtracking(leaf, explorer.pool):
        words = "as delivered is accepted only by clients that try more than one path; what is stored is put right"
        hint = "Serve the stored chain, not the delivered file."
        return [about(leaf, Code.ORDER_SENSITIVE, words, hint, Severity.WARN)]
    return []


def _leftovers(
    certificates: Sequence[Certificate], found: Sequence[Found], now: datetime, *, sent: bool = False
) -> list[Problem]:
    """Certificates that are not served (or `sent` for nothing), and used ones that stood in the wrong order."""
    served = {c.raw for f in found for c in f.path.served}
    fate = "it is sent for nothing" if sent else "it is left out"
    problems: list[Problem] = []
    for certificate in certificates:
        if certificate.raw in served:
            continue
        if certificate.self_issued and certificate.signed(certificate):
            words = f"is a root; clients have it or do not trust it, so {fate if sent else 'it is not sent'}"
            problems.append(about(certificate, Code.ROOT_INCLUDED, words, "", Severity.WARN))
        elif certificate.not_after < now:
            words = f"expired on {certificate.not_after:%Y-%m-%d} and is not needed; {fate}"
            problems.append(about(certificate, Code.EXPIRED_EXTRA, words, "", Severity.WARN))
        else:
            words = f"is not needed on the way to a trusted root; {fate}"
            problems.append(about(certificate, Code.UNUSED_CERT, words, "", Severity.WARN))
    return problems + [problem for f in found for problem in _disorder(f, sent=sent)]


def _disorder(found: Found, *, sent: bool) -> list[Problem]:
    last: dict[str, Certificate] = {}
    place = "certificate" if sent else "line"
    for certificate in found.path.served:
        before = last.get(certificate.file)
        if before is not None and before.line > certificate.line:
            words = (
                f"({place} {certificate.line}) stands before {before.title} ({place} {before.line}), which it signed"
            )
            words += "; the order is put right" if found.path.anchor and not sent else ""
            hint = "nginx takes the first certificate of a file for the leaf."
            return [about(certificate, Code.CHAIN_ORDER, words, "" if sent else hint, Severity.WARN)]
        last[certificate.file] = certificate
    return []


def _pair(found_match: Match, found: Found) -> Pair:
    leaf = found_match.leaf
    assert leaf.key_type is not None  # noqa: S101 - the caller has seen to it
    return Pair(
        key_type=leaf.key_type,
        chain=tuple(c.raw for c in found.path.served),
        key=found_match.key.secret if found_match.key else None,
        subject=leaf.subject,
        issuer=leaf.issuer,
        serial=f"{leaf.shape.serial:x}",
        names=(*leaf.dns_names, *map(str, leaf.ip_names)),
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        effective_not_after=found.path.effective_not_after,
    )


def _issuer_url(found: Found, now: datetime) -> str:
    """Where clients that fetch would look for what is missing, or for a newer one of what is over."""
    path = found.path.served
    if found.missing_issuer:
        return ca_issuers(path[-1])
    return next((ca_issuers(below) for below, above in pairwise(path) if above.not_after < now), "")


def _links(found: Found) -> tuple[Link, ...]:
    path = found.path
    links = [Link(c.title, c.issuer, c.file, c.line) for c in path.served]
    if path.anchor is not None and path.anchor.raw != path.served[0].raw:
        links.append(Link(path.anchor.title, path.anchor.issuer, path.anchor.file, path.anchor.line, root=True))
    return tuple(links)


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each once, refusals before warnings, otherwise as they were found."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: p.severity is not Severity.REJECT))
