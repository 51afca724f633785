"""The evidence for a verdict beside the roots: revocation lists, OCSP responses, logs, a key blocklist, root stores.

Evidence that the configuration does not name demands nothing, with two exceptions: a must-staple certificate demands an
OCSP response, and `require_crls` demands revocation lists. The bytes come from `rotator.sources.trust_files`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rotator.core.problems import Problem
from rotator.validation import blocklist, revocation, sct, stapling
from rotator.validation.blocklist import Blocklist
from rotator.validation.revocation import StatusQuery
from rotator.validation.root_store import RootStores
from rotator.validation.sct import Logs
from rotator.validation.stapling import OcspStatus
from rotator.x509.certificate import Certificate
from rotator.x509.crl import NO_LISTS, Revocations
from rotator.x509.ocsp import Responses


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The evidence that is named; None for each kind that is not.

    Args:
        revocations: the revocation lists.
        logs: the logs whose SCTs count; SCTs are demanded under the public profile only.
        blocked: the compromised keys.
        responses: the OCSP responses that nginx staples.
        root_stores: the roots that browsers trust; they bind under the public profile only, and `path_builder` asks
            them for each path.
    """

    revocations: Revocations | None = None
    logs: Logs | None = None
    blocked: Blocklist | None = None
    responses: Responses | None = None
    root_stores: RootStores | None = None

    @property
    def digest(self) -> str:
        """A text that changes with the content of any file; empty if no evidence is named."""
        kinds = (self.revocations, self.logs, self.blocked, self.responses, self.root_stores)
        return "-".join(evidence.digest if evidence else "" for evidence in kinds) if any(kinds) else ""

    def revoked_among(self, query: StatusQuery) -> frozenset[bytes]:
        """The DER of the revoked certificates of a path."""
        statuses = zip(query.served, self._ocsp_statuses(query), strict=False)
        by_ocsp = frozenset(certificate.raw for certificate, status in statuses if status.revoked)
        return by_ocsp | revocation.revoked_among(query, self.revocations) if self.revocations else by_ocsp

    def problems_of(self, query: StatusQuery) -> tuple[Problem, ...]:
        """The problems of a path; of one that reaches no root, only those of the blocklist and of must-staple."""
        served, authorities, policy = query.served, query.authorities, query.policy
        problems: list[Problem] = []
        if self.blocked:
            problems += blocklist.problems_of(served, self.blocked)
        statuses = self._ocsp_statuses(query)
        source = self.responses.name if self.responses else ""
        problems += stapling.must_staple(served[0], policy, statuses[0] if statuses else OcspStatus(), source)
        problems += [problem for status in statuses for problem in status.problems]
        if authorities and (self.revocations or policy.require_crls):
            lists = self.revocations or NO_LISTS
            known = {certificate.raw for certificate, status in zip(served, statuses, strict=False) if status.good}
            problems += revocation.problems_of(query, lists, known)
        if authorities and self.logs and policy.binds_public:
            problems += sct.problems_of(served[0], authorities[0], self.logs, query.now)
        return tuple(problems)

    def _ocsp_statuses(self, query: StatusQuery) -> tuple[OcspStatus, ...]:
        """The status of each certificate of a path according to the responses; empty without responses."""
        lists = self.revocations

        def revoked(signer: Certificate, issuer: Certificate) -> bool:
            """Whether a list revokes a responder's certificate, with or without nocheck (RFC 6960 4.2.2.2.1)."""
            signer_query = replace(query, served=(signer,), authorities=(issuer,))
            return lists is not None and bool(revocation.revoked_among(signer_query, lists))

        if not self.responses:
            return ()
        return stapling.statuses(query.served, query.authorities, self.responses, revoked, query.now)
