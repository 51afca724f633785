"""The root stores of browsers: the roots that Firefox and Chrome trust for TLS servers, and under which conditions.

A browser that distrusts a CA goes on trusting its earlier certificates for a time: only those that were issued after a
date are refused. A distribution's file of roots has no place for such a date, nor for a root that lost the trust for
TLS servers alone, so the date comes from a file of the root store itself. `root_store_formats` reads these files.

Firefox compares the date with the notBefore of the leaf, and counts no SCT that is later (Mozilla,
NSSCertDBTrustDomain::IsChainValid and MultiLogCTVerifier::VerifySingleSCT). Chrome compares it with the earliest SCT,
and a root may have several sets of conditions of which one must hold (Chromium, net/cert/root_store.proto).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rotator.core.model import Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.validation.sct import earliest_sct
from rotator.x509.certificate import Certificate, about

MAX_AGE = timedelta(days=30)
"""The age of a file from which it warns. Both root stores change every month or two."""

_ANOTHER_CA = "Order the certificate from another CA."


@dataclass(frozen=True, slots=True)
class Terms:
    """Conditions under which a browser trusts a root; all of them must hold.

    Args:
        begins_until: the latest notBefore of the leaf, UTC; None for no such condition.
        begins_after: a time before the notBefore of the leaf.
        logged_until: the latest time of the earliest SCT; the notBefore counts for a leaf without SCTs.
        logged_after: a time before that of the earliest SCT.
        names: the domains that all names of the leaf must be in; empty for no such condition.
        never: the reason for which the conditions cannot hold, as a clause; empty if they can.
    """

    begins_until: datetime | None = None
    begins_after: datetime | None = None
    logged_until: datetime | None = None
    logged_after: datetime | None = None
    names: tuple[str, ...] = ()
    never: str = ""

    @property
    def end(self) -> datetime | None:
        """The time after which no certificate is accepted; None if there is none."""
        return min(filter(None, (self.begins_until, self.logged_until)), default=None)

    def objection(self, leaf: Certificate) -> str:
        """The condition that a leaf does not fulfil, as a clause after `trusts it`; empty if it fulfils all."""
        begin = leaf.not_before
        logged = earliest_sct(leaf) or begin
        if self.never:
            return self.never
        for verb, moment, limit in (("issued", begin, self.begins_until), ("logged", logged, self.logged_until)):
            if limit is not None and moment > limit:
                return f"only for certificates {verb} until {_text(limit)}; this one was on {_text(moment)}"
        for verb, moment, limit in (("issued", begin, self.begins_after), ("logged", logged, self.logged_after)):
            if limit is not None and moment <= limit:
                return f"only for certificates {verb} after {_text(limit)}; this one was on {_text(moment)}"
        domains = frozenset(domain.lower().lstrip(".") for domain in self.names)
        outside = next((name for name in leaf.dns_names if domains and not _within(name, domains)), "")
        return f"only for names in {shown(', '.join(self.names))}, not for {shown(outside)}" if outside else ""


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _within(name: str, domains: frozenset[str]) -> bool:
    """Whether a name, which may be a wildcard, is in one of some domains (RFC 5280 4.2.1.10)."""
    host = name.lower().removeprefix("*.")
    while host not in domains:
        _, dot, host = host.partition(".")
        if not dot:
            return False
    return True


@dataclass(frozen=True, slots=True, eq=False)
class RootStore:
    """The roots that one browser knows.

    Args:
        name: the file, for messages.
        client: the browser.
        digest: the SHA-256 (hex) of the file.
        roots: for the SHA-256 (hex) of each listed root, its sets of conditions, one of which must hold; an empty
            sequence for a root that is not trusted for TLS servers.
        written: the time of the last change of the file, UTC; None if it belongs to a package, which has its own ways
            to be current.
    """

    name: str
    client: str
    digest: str
    roots: Mapping[str, Sequence[Terms]] = field(repr=False)
    written: datetime | None

    def objection(self, root: Certificate, leaf: Certificate) -> str:
        """The reason for which the browser refuses a leaf below a listed root, as a clause; empty if it accepts it."""
        terms = self.roots[root.fingerprint]
        if not terms:
            return f"is not trusted for TLS servers by {self.client}"
        objections = [one.objection(leaf) for one in sorted(terms, key=lambda one: bool(one.never))]
        return f"is refused by {self.client}, which trusts it {objections[0]}" if all(objections) else ""

    def end_of(self, root: Certificate) -> datetime | None:
        """The time after which the browser accepts no certificate below a root; None if there is none."""
        ends = [terms.end for terms in self.roots.get(root.fingerprint, ()) if not terms.never]
        return None if None in ends else max(filter(None, ends), default=None)


@dataclass(frozen=True, slots=True, eq=False)
class RootStores:
    """The root stores that are named.

    Args:
        stores: at least one.
    """

    stores: tuple[RootStore, ...]

    @property
    def digest(self) -> str:
        """A text that changes with the content of the files, and with the day on which they were written."""
        parts = [f"{store.digest} {store.written.date() if store.written else ''}" for store in self.stores]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Origins:
    """The origin of trusted roots, as far as it is known.

    Args:
        shipped: the SHA-256 (hex) of those that the distribution ships as roots of the public web.
        local: the SHA-256 (hex) of those that somebody added to the system's roots on this host.
    """

    shipped: frozenset[str] = frozenset()
    local: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """A text that changes with the origins; empty if none is known."""
        parts = [" ".join(sorted(self.shipped)), " ".join(sorted(self.local))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest() if any(parts) else ""


def problems_of(
    leaf: Certificate, root: Certificate, stores: RootStores | None, origins: Origins, policy: Policy
) -> tuple[Problem, ...]:
    """The problems that browsers and other hosts have with a root, under the policy for public CAs.

    Args:
        leaf: the certificate below it.
        root: the trusted root at the end of the path.
        stores: the root stores of browsers; None if none is named.
        origins: the origins of the trusted roots.
        policy: the demands.

    Returns:
        `distrusted-root` for each browser that does not accept the leaf, or `local-root`; `distrust-ahead`.
    """
    if not policy.binds_public:
        return ()
    named = stores.stores if stores else ()
    listing = [store for store in named if root.fingerprint in store.roots]
    missing = [store for store in named if root.fingerprint not in store.roots]
    problems = [
        about(root, Code.DISTRUSTED_ROOT, f"(root) {objection} ({store.name})", _ANOTHER_CA)
        for store in listing
        if (objection := store.objection(root, leaf))
    ]
    if listing or root.fingerprint in origins.shipped:
        for store in missing:
            reason = f"(root) is not among the roots that {store.client} trusts ({store.name})"
            problems.append(about(root, Code.DISTRUSTED_ROOT, reason, _ANOTHER_CA))
    elif missing or root.fingerprint in origins.local:
        problems.append(_local(root, missing, policy))
    return tuple(problems)


def _local(root: Certificate, missing: Sequence[RootStore], policy: Policy) -> Problem:
    where = f": it is not in {', '.join(store.name for store in missing)}" if missing else ""
    reason = f"(root) is trusted on this host, but is no root of the public web{where}; other hosts refuse the chain"
    hint = 'For a CA of your own: policy = "private-ca", with its root in a file that `roots` names.'
    severity = Severity.WARN if policy.allow_local_roots else Severity.REJECT
    return about(root, Code.LOCAL_ROOT, reason, hint, severity)


def warnings_of(root: Certificate, stores: RootStores | None, policy: Policy, now: datetime) -> tuple[Problem, ...]:
    """The warnings of an accepted path: the next renewal from this CA is refused, or a file is old.

    Args:
        root: the trusted root at the end of the path.
        stores: the root stores of browsers; None if none is named.
        policy: the demands.
        now: the reference time, UTC.
    """
    if not policy.binds_public:
        return ()
    problems: list[Problem] = []
    for store in stores.stores if stores else ():
        if end := store.end_of(root):
            reason = f"(root) is trusted by {store.client} only for certificates issued until {end:%Y-%m-%d} "
            reason += f"({store.name}); the next renewal from this CA {'is' if end < now else 'may be'} refused"
            problems.append(about(root, Code.DISTRUST_AHEAD, reason, _ANOTHER_CA, Severity.WARN))
        if store.written is not None and now - store.written > MAX_AGE:
            message = f"{store.name} was last written on {store.written:%Y-%m-%d}; {store.client} may have distrusted "
            message += "a root since."
            hint = "Run the timer that fetches it, or touch the file if it is current."
            problems.append(Problem(Code.ROOT_STORE_STALE, Severity.WARN, message, hint))
    return tuple(problems)
