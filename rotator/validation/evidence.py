"""What a verdict may be shown beside the roots: revocation lists, OCSP responses, logs, known keys; read elsewhere.

What was not named asks nothing, but for what is demanded in any case: by a certificate of nginx (must-staple), or by
the policy of lists (`require_crls`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rotator.core.problems import Problem
from rotator.validation import blocklist, revocation, sct, stapling
from rotator.validation.blocklist import Blocklist
from rotator.validation.revocation import StatusQuery
from rotator.validation.sct import Logs
from rotator.validation.stapling import OcspStatus
from rotator.x509.certificate import Certificate
from rotator.x509.crl import NO_LISTS, Revocations
from rotator.x509.ocsp import Responses


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

    def revoked_among(self, query: StatusQuery) -> frozenset[bytes]:
        """DER of the certificates of a path that are revoked."""
        found = self._ocsp_statuses(query)
        stapled = frozenset(one.raw for one, status in zip(query.served, found, strict=False) if status.revoked)
        return stapled | revocation.revoked_among(query, self.revocations) if self.revocations else stapled

    def problems_of(self, query: StatusQuery) -> tuple[Problem, ...]:
        """What it says of a path; of one that reaches no root, what the blocklist and must-staple say."""
        served, authorities, policy = query.served, query.authorities, query.policy
        problems: list[Problem] = []
        if self.blocked:
            problems += blocklist.problems_of(served, self.blocked)
        found = self._ocsp_statuses(query)
        name = self.responses.name if self.responses else ""
        problems += stapling.must_staple(served[0], policy, found[0] if found else OcspStatus(), name)
        problems += [problem for status in found for problem in status.problems]
        if authorities and (self.revocations or policy.require_crls):
            lists = self.revocations or NO_LISTS
            known = {one.raw for one, status in zip(served, found, strict=False) if status.good}
            problems += revocation.problems_of(query, lists, known)
        if authorities and self.logs and policy.binds_public:
            problems += sct.problems_of(served[0], authorities[0], self.logs, query.now)
        return tuple(problems)

    def _ocsp_statuses(self, query: StatusQuery) -> tuple[OcspStatus, ...]:
        """What the responses say of each certificate of a path; nothing without responses."""
        lists = self.revocations

        def revoked(signer: Certificate, issuer: Certificate) -> bool:
            """Whether the lists name the certificate of a responder, nocheck (RFC 6960 4.2.2.2.1) or not."""
            asked = replace(query, served=(signer,), authorities=(issuer,))
            return lists is not None and bool(revocation.revoked_among(asked, lists))

        if not self.responses:
            return ()
        return stapling.statuses(query.served, query.authorities, self.responses, revoked, query.now)
