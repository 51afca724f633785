"""What a verdict may be shown beside the roots: revocation lists, a list of logs, known keys; files are read elsewhere.

What was not named asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from rotator import blocklist, revocation, sct
from rotator.blocklist import Blocklist
from rotator.certificate import Certificate
from rotator.crl import Revocations
from rotator.model import Policy, Problem
from rotator.sct import Logs


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What was named; None for what was not.

    Args:
        revocations: the revocation lists.
        logs: the logs whose SCTs count; they are asked for under the public profile only.
        blocked: keys that are known to others.
    """

    revocations: Revocations | None = None
    logs: Logs | None = None
    blocked: Blocklist | None = None

    @property
    def digest(self) -> str:
        """Changes with the content of any of the files; empty where none was named."""
        named = (self.revocations, self.logs, self.blocked)
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
        if not self.revocations:
            return frozenset()
        return revocation.revoked_among(served, authorities, self.revocations, roots, policy, now)

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
        if authorities and self.revocations:
            problems += revocation.problems_of(served, authorities, self.revocations, roots, policy, now)
        if authorities and self.logs and policy.binds_public:
            problems += sct.problems_of(served[0], authorities[0], self.logs, now)
        return tuple(problems)
