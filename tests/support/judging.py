"""One CA whose root is trusted, and the verdict on pairs of it or of others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rotator.core.model import Candidate, Policy, SourceFile
from rotator.validation.validate import Anchors, Verdict, public, validate_files
from tests.support.authority import CA, NOW, Issued, der_pem, pem

NAME = "signal.example.cn"


ROOT = CA.root()


ICA = ROOT.intermediate()


GOOD = ICA.issue(NAME)


ANCHORS = Anchors.from_pem(pem(ROOT.cert), "roots.pem")


def files(*named: tuple[str, bytes] | SourceFile) -> Candidate:
    return Candidate(tuple(f if isinstance(f, SourceFile) else SourceFile(*f) for f in named))


def judge(
    issued: Issued,
    *,
    names: Sequence[str] = (NAME,),
    policy: Policy | None = None,
    live: Sequence[Issued] = (),
    force: bool = False,
    now: datetime = NOW,
    anchors: Anchors = ANCHORS,
) -> Verdict:
    """The verdict on a chain and its key."""
    candidate = files(("chain.pem", issued.chain_pem), ("key.pem", issued.key_pem))
    policy = policy or public(names)
    return validate_files(candidate, policy, anchors, now, live=[i.chain_der for i in live], force=force)


def odd(data: bytes, *, key: bytes = GOOD.key_pem) -> Verdict:
    """The verdict on a leaf that no builder makes, with its intermediate and key."""
    candidate = files(("chain.pem", der_pem(data) + pem(ICA.cert)), ("key.pem", key))
    return validate_files(candidate, public([NAME]), ANCHORS, NOW)
