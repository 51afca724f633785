"""The path builder: which certificates lead from a leaf to a trusted root, and what is missing where none do.

An issuer is who signed, not who has the name: re-keyed and cross-signed authorities share names. What a path is worth
is judged in `path`; nothing is fetched, and nothing from outside the given certificates is used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from rotator.core.model import Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import place, shown
from rotator.validation.path_rules import Path, problems_of
from rotator.validation.trust_anchors import Anchors
from rotator.x509.certificate import Certificate, about, colons

MAX_SIGNATURES = 300
"""Signatures checked for one candidate: 0.1 ms each for usual keys, 1 ms for the dearest."""

MAX_STEPS = 1_000
"""Steps of the search for one leaf."""

MAX_PATHS = 16
"""Complete paths that are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class BuildResult:
    """How far a leaf leads.

    Args:
        path: the best complete path, or the longest that ends in the open.
        problems: everything that is wrong with it.
        missing_issuer: subject of the certificate that is missing; empty if none is.
        missing_key_id: its key identifier, lower-case hex; empty if unknown.
    """

    path: Path
    problems: tuple[Problem, ...]
    missing_issuer: str = ""
    missing_key_id: str = ""


@dataclass
class PathBuilder:
    """Searches paths among the certificates of one candidate.

    A copy with another pool (`dataclasses.replace`) shares the signatures that were checked, and their bound.

    Args:
        pool: the certificates at hand, leaves and roots among them.
        anchors: what is trusted.
        policy: what is demanded.
        now: the reference time, UTC.
    """

    pool: Sequence[Certificate]
    anchors: Anchors
    policy: Policy
    now: datetime
    _signed: dict[tuple[bytes, bytes], bool] = field(default_factory=dict, repr=False)

    def build(self, leaf: Certificate) -> BuildResult:
        """The path that should be served for a leaf, with all that is wrong with it."""
        complete: list[Path] = []
        dead: list[tuple[Certificate, ...]] = []
        # Short ones first: among authorities that all vouch for each other the long ones are too many to be tried.
        waiting: deque[tuple[Certificate, ...]] = deque([(leaf,)])
        for _ in range(MAX_STEPS):
            if not waiting or len(complete) >= MAX_PATHS:
                break
            trail = waiting.popleft()
            reached, longer = self._anchored(trail), self._longer(trail)
            complete += reached
            waiting += longer
            if not reached and not longer:
                dead.append(trail)
        if complete:
            judged = [(path, problems_of(path, self.policy, self.now)) for path in complete[:MAX_PATHS]]
            best, problems = min(judged, key=lambda pair: _preference(*pair))
            return BuildResult(best, problems)
        ends = dead or list(waiting)
        return self._dead_end(max(ends, key=lambda t: (len(t), t[-1].self_issued, [c.fingerprint for c in t])))

    def signs(self, issuer: Certificate, child: Certificate) -> bool:
        """Whether the issuer has the name that the child gives and made its signature; False after too many."""
        if issuer.outline.subject != child.outline.issuer:
            return False
        key = (child.raw, issuer.outline.spki)
        if key not in self._signed:
            if len(self._signed) >= MAX_SIGNATURES:
                return False
            self._signed[key] = issuer.signed(child)
        return self._signed[key]

    def _anchored(self, trail: tuple[Certificate, ...]) -> list[Path]:
        """The complete paths that a trail makes by itself or with one anchor above it."""
        tip = trail[-1]
        if tip.raw in self.anchors.raws:
            return [Path(trail[:-1] or trail, tip)]
        return [Path(trail, a) for a in self.anchors.by_subject.get(tip.outline.issuer, ()) if self.signs(a, tip)]

    def _longer(self, trail: tuple[Certificate, ...]) -> list[tuple[Certificate, ...]]:
        """The trail with each one above it that signed its tip, the likely ones first.

        One whose key the tip does not name is tried only where no other signed it: it would be refused for that.
        """
        tip = trail[-1]
        if tip.raw in self.anchors.raws:
            return []
        on_trail = {c.logical for c in trail}
        for fits in (True, False):
            parents = [c for c in self._parents(tip) if tip.names_key_of(c) is fits]
            found = [(*trail, c) for c in parents if c.logical not in on_trail and self.signs(c, tip)]
            if found:
                return found
        return []

    def _parents(self, child: Certificate) -> list[Certificate]:
        """Candidates by name, the likely ones first: key identifier fits, valid now, valid longest."""
        found = [c for c in self.pool if c.outline.subject == child.outline.issuer and c.raw != child.raw]
        found.sort(key=lambda c: c.fingerprint)
        found.sort(key=lambda c: (child.names_key_of(c), c.not_before <= self.now <= c.not_after, c.not_after))
        return found[::-1]

    def without_backtracking(self, leaf: Certificate, offered: Iterable[Certificate]) -> bool:
        """Whether a client that never goes back finds a path: OpenSSL's way since 1.1.0, trusted roots first.

        Args:
            leaf: what is served first.
            offered: what is served after it, in that order.
        """
        rest = [c for c in offered if c.raw != leaf.raw]
        tip = leaf
        for _ in range(len(rest) + 2):
            if not tip.not_before <= self.now <= tip.not_after:
                return False
            if tip.raw in self.anchors.raws:
                return True
            roots = [a for a in self.anchors.by_subject.get(tip.outline.issuer, ()) if tip.names_key_of(a)]
            if roots:
                root = next((a for a in roots if a.not_before <= self.now <= a.not_after), None)
                return root is not None and self.signs(root, tip)
            parents = [c for c in rest if c.outline.subject == tip.outline.issuer and tip.names_key_of(c)]
            if not parents:
                return False
            parent = next((c for c in parents if c.not_before <= self.now <= c.not_after), parents[0])
            if not self.signs(parent, tip):
                return False
            rest.remove(parent)
            tip = parent
        return False

    def _dead_end(self, trail: tuple[Certificate, ...]) -> BuildResult:
        """Tell what is missing or wrong where a path ends in the open."""
        path = Path(trail)
        tip = trail[-1]
        problems = list(problems_of(path, self.policy, self.now))
        if tip.self_issued and self.signs(tip, tip):
            if len(trail) == 1:
                hint = "Order a certificate from a CA that the clients trust, or add this one to the roots."
                problems.append(about(tip, Code.SELF_SIGNED, "is signed by itself and is not a trusted root", hint))
            else:
                reason = f"is a root that is not trusted (roots: {self.anchors.name})"
                hint = "Use a CA that the clients trust, or name its root in the configured roots."
                problems.append(about(tip, Code.UNTRUSTED_ROOT, reason, hint))
            return BuildResult(path, tuple(problems))
        namesakes = [c for c in self.pool if c.outline.subject == tip.outline.issuer and c.raw != tip.raw]
        namesakes += self.anchors.by_subject.get(tip.outline.issuer, ())
        if any(self.signs(c, tip) for c in namesakes) or len(self._signed) >= MAX_SIGNATURES:
            namesakes = []  # the issuer is one of those below it, or the search was given up
        known = {c.raw: c for c in namesakes}
        fitting = [c for c in known.values() if tip.names_key_of(c)]
        unusable = next((c for c in fitting if not c.usable_key or c.key_type is None), None)
        if unusable is not None:
            reason = f"has a key that no client checks signatures with ({unusable.key.algorithm})"
            problems.append(about(unusable, Code.KEY_TYPE, reason, "Order from a CA with an ECDSA or RSA key."))
            return BuildResult(path, tuple(problems))
        if fitting and (tip.weak_signature or not tip.outline.algorithms_agree):
            return BuildResult(path, tuple(problems))  # told as that: nobody checks such a signature, nor can we
        if fitting:
            reason = f"says that {fitting[0].title} signed it, but the signature is not of that key"
            hint = "Fetch the certificate and its chain from the CA again."
            problems.append(about(tip, Code.BAD_SIGNATURE, reason, hint))
            return BuildResult(path, tuple(problems))
        problems.append(self._incomplete(tip, trail, list(known.values())))
        return BuildResult(path, tuple(problems), tip.issuer, tip.authority_key_id)

    def _incomplete(self, tip: Certificate, trail: Sequence[Certificate], namesakes: Sequence[Certificate]) -> Problem:
        named = tip.issuer or "(no name)"
        if tip.authority_key_id:
            named += f", key id {colons(tip.authority_key_id)}"
        count = len(trail)
        lone = "stands alone" if count == 1 else f"ends a chain of {count}"
        reason = f"{lone}: its issuer is missing ({named})"
        if namesakes:
            other = namesakes[0]
            where = f" in {place(other.file, other.line)}" if other.file else ""
            reason += (
                f"; the CA of that name{where} was re-keyed: it has the key {colons(other.key_id) or 'without id'}"
            )
        elif any(c.key_id and c.key_id == tip.authority_key_id for c in self.pool):
            reason += "; a CA with that key is here, under another name"
        hint = "Add the CA's bundle or chain file"
        url = ca_issuers(tip)
        hint += f", or the certificate at {url}." if url else "."
        if count > 1:
            hint += " If it is a root, it is none of those that are trusted: for a CA of your own, name it as `roots`."
        return about(tip, Code.INCOMPLETE_CHAIN, reason, hint)


def _preference(path: Path, problems: Sequence[Problem]) -> tuple[int, float, int, list[str]]:
    """What makes one path better than another; smaller is better. The order of the files has no part in it."""
    rejects = sum(p.severity is Severity.REJECT for p in problems)
    lasting = min(c.not_after for c in (*path.served, *path.authorities)).timestamp()
    return rejects, -lasting, len(path.served), [c.fingerprint for c in path.served]


def ca_issuers(certificate: Certificate) -> str:
    """The address that the issuer's certificate can be had from (authority information access); empty without one."""
    access = certificate.ext(x509.AuthorityInformationAccess)
    for description in access or ():
        if description.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
            location = description.access_location
            if isinstance(location, x509.UniformResourceIdentifier):
                return shown(location.value)
    return ""
