"""What a verdict may be shown beside the roots: revocation lists, OCSP responses, logs, known keys; read elsewhere.

What was not named asks nothing, but for what is demanded in any case: by a certificate of nginx (must-staple), or by
the policy of lists (`require_crls`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from rotator import blocklist, revocation, sct, stapling
from rotator.blocklist import Blocklist
from rotator.certificate import Certificate
from rotator.crl import NO_LISTS, Revocations
from rotator.model import Policy, Problem
from rotator.ocsp import Responses
from rotator.sct import Logs
from rotator.stapling import Finding


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What was named; None for what was not.

    Args:
        revocations: the revocation lists.
        logs: the logs whose SCTs count; they are asked for under the public profile only.
        blocked: keys that are known to others.
        responses: the OCSP responses that nginx staples.
    """

    revocations: Revocations | None = None
    logs: Logs | None = None
    blocked: Blocklist | None = None
    responses: Responses | None = None

    @property
    def digest(self) -> str:
        """Changes with the content of any of the files; empty where none was named."""
        named = (self.revocations, self.logs, self.blocked, self.responses)
        return "-".join(one.digest if one else "" for one in named) if any(named) else ""

    def revoked_among(
        self,
        served: Sequence[Certificate],
        authorities: Sequence[Certificate],
        roots: Iterable[Certificate],
        policy: Policy,
        now: datetime,
    ) -> frozenset[bytes]:
        """DER of the certificates of a path that are revoked; arguments as `problems_of`."""
        found = self._findings(served, authorities, roots, policy, now)
        stapled = frozenset(one.raw for one, finding in zip(served, found, strict=False) if finding.revoked)
        if not self.revocations:
            return stapled
        return stapled | revocation.revoked_among(served, authorities, self.revocations, roots, policy, now)

    def problems_of(
        self,
        served: Sequence[Certificate],
        authorities: Sequence[Certificate],
        roots: Iterable[Certificate],
        policy: Policy,
        now: datetime,
    ) -> tuple[Problem, ...]:
        """What it says of a path.

        Args:
            served: the leaf and its intermediates.
            authorities: the issuer of each, the trusted root last; empty for a path that does not reach one, of which
                the blocklist alone is asked.
            roots: the trusted ones.
            policy: what is demanded.
            now: the reference time, UTC.
        """
        problems: list[Problem] = []
        if self.blocked:
            problems += blocklist.problems_of(served, self.blocked)
        found = self._findings(served, authorities, roots, policy, now)
        name = self.responses.name if self.responses else ""
        problems += stapling.must_staple(served[0], policy, found[0] if found else Finding(), name)
        problems += [problem for finding in found for problem in finding.problems]
        if authorities and (self.revocations or policy.require_crls):
            lists = self.revocations or NO_LISTS
            known = {one.raw for one, finding in zip(served, found, strict=False) if finding.good}
            problems += revocation.problems_of(served, authorities, lists, roots, policy, now, known)
        if authorities and self.logs and policy.binds_public:
            problems += sct.problems_of(served[0], authorities[0], self.logs, now)
        return tuple(problems)

    def _findings(
        self,
        served: Sequence[Certificate],
        authorities: Sequence[Certificate],
        roots: Iterable[Certificate],
        policy: Policy,
        now: datetime,
    ) -> tuple[Finding, ...]:
        """What the responses say of each certificate of a path; nothing without responses."""
        revocations = self.revocations

        def revoked(signer: Certificate, issuer: Certificate) -> bool:
            """Whether the lists name the certificate of a responder, nocheck (RFC 6960 4.2.2.2.1) or not."""
            return revocations is not None and bool(
                revocation.revoked_among((signer,), (issuer,), revocations, roots, policy, now)
            )

        return stapling.findings(served, authorities, self.responses, revoked, now) if self.responses else ()
