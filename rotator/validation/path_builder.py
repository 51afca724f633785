"""The path builder: the best path from a leaf to a trusted root, or the certificate that is missing (RFC 4158).

The issuer of a certificate is the one whose key signed it; the name alone is not enough, as re-keyed and cross-signed
authorities share names. `path_rules` has the rules for paths. Only the given certificates are used: nothing is fetched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from rotator.core.hints import shell_word
from rotator.core.model import Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import place, shown
from rotator.validation import root_store
from rotator.validation.path_rules import Path, problems_of
from rotator.validation.trust_anchors import Anchors, Excluded
from rotator.x509.certificate import Certificate, about, colons

MAX_SIGNATURES = 300
"""The most signatures checked for one candidate: 0.1 ms each for usual keys, 1 ms for the slowest."""

MAX_STEPS = 1_000
"""The most steps of the search for one leaf."""

MAX_PATHS = 16
"""The most complete paths that are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class BuildResult:
    """The best path of a leaf.

    Args:
        path: the best complete path, or the longest incomplete one.
        problems: all problems of the path.
        missing_issuer: the subject of the missing certificate; empty if none is missing.
        missing_key_id: the key identifier of the missing certificate, lower-case hex; empty if unknown.
    """

    path: Path
    problems: tuple[Problem, ...]
    missing_issuer: str = ""
    missing_key_id: str = ""


@dataclass
class PathBuilder:
    """Searches paths among the certificates of one candidate.

    A copy with other certificates (`dataclasses.replace`) shares the results of signature checks, and their limit.

    Args:
        certificates: all available certificates, including leaves and roots.
        anchors: the trusted roots.
        policy: the demands.
        now: the reference time, UTC.
    """

    certificates: Sequence[Certificate]
    anchors: Anchors
    policy: Policy
    now: datetime
    _signed: dict[tuple[bytes, bytes], bool] = field(default_factory=dict, repr=False)

    def build(self, leaf: Certificate) -> BuildResult:
        """The best path to serve for a leaf, with all of its problems.

        A partial path is a tuple of certificates that begins with the leaf; its last certificate is called the tip.
        """
        complete: list[Path] = []
        dead_ends: list[tuple[Certificate, ...]] = []
        # Short paths first: among authorities that all sign each other, the long paths are too many to try.
        queue: deque[tuple[Certificate, ...]] = deque([(leaf,)])
        for _ in range(MAX_STEPS):
            if not queue or len(complete) >= MAX_PATHS:
                break
            partial = queue.popleft()
            anchored, extended = self._anchored(partial), self._extended(partial)
            complete += anchored
            queue += extended
            if not anchored and not extended:
                dead_ends.append(partial)
        if complete:
            paths = [(path, self._problems_of(path)) for path in complete[:MAX_PATHS]]
            best, problems = min(paths, key=lambda path_and_problems: _preference(*path_and_problems))
            return BuildResult(best, problems)
        incomplete = dead_ends or list(queue)
        longest = max(incomplete, key=lambda p: (len(p), p[-1].self_issued, [c.fingerprint for c in p]))
        return self._dead_end(longest)

    def _problems_of(self, path: Path) -> tuple[Problem, ...]:
        """All problems of a complete path, with those that browsers have with its root."""
        problems = problems_of(path, self.policy, self.now)
        if path.anchor is None:
            return problems
        stores, origins = self.anchors.evidence.root_stores, self.anchors.origins
        return (*problems, *root_store.problems_of(path.served[0], path.anchor, stores, origins, self.policy))

    def signs(self, issuer: Certificate, child: Certificate) -> bool:
        """Whether the issuer has the name in the child and made its signature; False after `MAX_SIGNATURES` checks."""
        if issuer.outline.subject != child.outline.issuer:
            return False
        key = (child.raw, issuer.outline.spki)
        if key not in self._signed:
            if len(self._signed) >= MAX_SIGNATURES:
                return False
            self._signed[key] = issuer.signed(child)
        return self._signed[key]

    def _anchored(self, partial: tuple[Certificate, ...]) -> list[Path]:
        """The complete paths of a partial path: it ends at an anchor, or an anchor signed its tip."""
        tip = partial[-1]
        if tip.raw in self.anchors.raws:
            return [Path(partial[:-1] or partial, tip)]
        return [Path(partial, a) for a in self.anchors.by_subject.get(tip.outline.issuer, ()) if self.signs(a, tip)]

    def _extended(self, partial: tuple[Certificate, ...]) -> list[tuple[Certificate, ...]]:
        """The partial path extended by each certificate that signed its tip, the likely ones first.

        An issuer that the tip's authority key identifier excludes is tried only if there is no other, as such a path is
        refused.
        """
        tip = partial[-1]
        if tip.raw in self.anchors.raws:
            return []
        on_path = {c.logical for c in partial}
        for fits in (True, False):
            parents = [c for c in self._parents(tip) if tip.names_key_of(c) is fits]
            extended = [(*partial, c) for c in parents if c.logical not in on_path and self.signs(c, tip)]
            if extended:
                return extended
        return []

    def _parents(self, child: Certificate) -> list[Certificate]:
        """The certificates with the issuer's name, likely ones first: key identifier fits, valid now, valid longest."""
        parents = [c for c in self.certificates if c.outline.subject == child.outline.issuer and c.raw != child.raw]
        parents.sort(key=lambda c: c.fingerprint)
        parents.sort(key=lambda c: (child.names_key_of(c), c.not_before <= self.now <= c.not_after, c.not_after))
        return parents[::-1]

    def without_backtracking(self, leaf: Certificate, offered: Iterable[Certificate]) -> bool:
        """Whether a client finds a path that never revises a choice, as OpenSSL since 1.1.0, trusted roots first.

        Args:
            leaf: the first certificate that is served.
            offered: the certificates that are served after it, in their order.
        """
        unused = [c for c in offered if c.raw != leaf.raw]
        tip = leaf
        for _ in range(len(unused) + 2):
            if not tip.not_before <= self.now <= tip.not_after:
                return False
            if tip.raw in self.anchors.raws:
                return True
            roots = [a for a in self.anchors.by_subject.get(tip.outline.issuer, ()) if tip.names_key_of(a)]
            if roots:
                root = next((a for a in roots if a.not_before <= self.now <= a.not_after), None)
                return root is not None and self.signs(root, tip)
            parents = [c for c in unused if c.outline.subject == tip.outline.issuer and tip.names_key_of(c)]
            if not parents:
                return False
            parent = next((c for c in parents if c.not_before <= self.now <= c.not_after), parents[0])
            if not self.signs(parent, tip):
                return False
            unused.remove(parent)
            tip = parent
        return False

    def _dead_end(self, partial: tuple[Certificate, ...]) -> BuildResult:
        """The result of an incomplete path, with the problem that keeps it from a trusted root."""
        path = Path(partial)
        tip = partial[-1]
        problems = list(problems_of(path, self.policy, self.now))
        if excluded := self._excluded(tip):
            reason = f"is not trusted for TLS servers: it {excluded.clause}"
            hint = "Use a CA that the clients trust for TLS servers, or correct the file of roots."
            problems.append(about(excluded.certificate, Code.UNTRUSTED_ROOT, reason, hint))
            return BuildResult(path, tuple(problems))
        if tip.self_issued and self.signs(tip, tip):
            if len(partial) == 1:
                hint = "Order a certificate from a CA that the clients trust, or add this one to the roots."
                problems.append(about(tip, Code.SELF_SIGNED, "is signed by itself and is not a trusted root", hint))
            else:
                reason = f"is a root that is not trusted (roots: {self.anchors.name})"
                hint = "Use a CA that the clients trust, or name its root in the configured roots."
                problems.append(about(tip, Code.UNTRUSTED_ROOT, reason, hint))
            return BuildResult(path, tuple(problems))
        namesakes = [c for c in self.certificates if c.outline.subject == tip.outline.issuer and c.raw != tip.raw]
        namesakes += self.anchors.by_subject.get(tip.outline.issuer, ())
        if any(self.signs(c, tip) for c in namesakes) or len(self._signed) >= MAX_SIGNATURES:
            namesakes = []  # the issuer is already on the path, or the search reached its limit
        distinct = {c.raw: c for c in namesakes}
        fitting = [c for c in distinct.values() if tip.names_key_of(c)]
        unusable = next((c for c in fitting if not c.usable_key or c.key_type is None), None)
        if unusable is not None:
            reason = f"has a key that no client checks signatures with ({unusable.key.algorithm})"
            problems.append(about(unusable, Code.KEY_TYPE, reason, "Order from a CA with an ECDSA or RSA key."))
            return BuildResult(path, tuple(problems))
        if fitting and (tip.weak_signature or not tip.outline.algorithms_agree):
            return BuildResult(path, tuple(problems))  # `path_rules` reports it: such a signature cannot be checked
        if fitting:
            reason = f"names {fitting[0].title} as its issuer, but the signature is not by that key"
            hint = "Fetch the certificate and its chain from the CA again."
            problems.append(about(tip, Code.BAD_SIGNATURE, reason, hint))
            return BuildResult(path, tuple(problems))
        problems.append(self._incomplete(tip, len(partial), list(distinct.values())))
        return BuildResult(path, tuple(problems), tip.issuer, tip.authority_key_id)

    def _excluded(self, tip: Certificate) -> Excluded | None:
        """The certificate in the file of roots that is, or signed, the tip but is no root for TLS servers."""
        for excluded in self.anchors.excluded.get(tip.outline.issuer, ()):
            if excluded.certificate.raw == tip.raw or self.signs(excluded.certificate, tip):
                return excluded
        return None

    def _incomplete(self, tip: Certificate, length: int, namesakes: Sequence[Certificate]) -> Problem:
        """The problem of a missing issuer.

        Args:
            tip: the last certificate of the path.
            length: the number of certificates on the path.
            namesakes: certificates with the name of the missing issuer and another key.
        """
        issuer = tip.issuer or "(no name)"
        if tip.authority_key_id:
            issuer += f", key id {colons(tip.authority_key_id)}"
        position = "stands alone" if length == 1 else f"ends a chain of {length}"
        reason = f"{position}: its issuer is missing ({issuer})"
        if namesakes:
            other = namesakes[0]
            where = f" in {place(other.file, other.line)}" if other.file else ""
            reason += (
                f"; the CA of that name{where} was re-keyed: it has the key {colons(other.key_id) or 'without id'}"
            )
        elif any(c.key_id and c.key_id == tip.authority_key_id for c in self.certificates):
            reason += "; a CA with that key is here, under another name"
        hint = "Add the CA's bundle or chain file."
        if length > 1:
            hint += " If it is a root, it is not among the trusted ones: for a CA of your own, name it as `roots`."
        if url := ca_issuers(tip):
            hint += f" Its certificate has this address: {shell_word(url)}"
        return about(tip, Code.INCOMPLETE_CHAIN, reason, hint)


def _preference(path: Path, problems: Sequence[Problem]) -> tuple[int, bool, float, int, list[str]]:
    """The sort key of a path: fewest refusals, a root of the public web, latest end, fewest certificates."""
    refusals = sum(p.severity is Severity.REJECT for p in problems)
    local = any(p.code == Code.LOCAL_ROOT for p in problems)
    end = min(c.not_after for c in (*path.served, *path.authorities)).timestamp()
    return refusals, local, -end, len(path.served), [c.fingerprint for c in path.served]


def ca_issuers(certificate: Certificate) -> str:
    """The address of the issuer's certificate in the authority information access (RFC 5280 4.2.2.1); empty if none."""
    access = certificate.ext(x509.AuthorityInformationAccess)
    for description in access or ():
        if description.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
            location = description.access_location
            if isinstance(location, x509.UniformResourceIdentifier):
                return shown(location.value)
    return ""
