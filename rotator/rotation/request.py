"""The request for a rotation of one site, with the validation of its files if there is one already."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from rotator.core.model import Candidate, Site
from rotator.validation.intermediates import Pool
from rotator.validation.validate import Anchors, Verdict


@dataclass(frozen=True, slots=True)
class Validation:
    """The verdict on a candidate, with everything that it depends on beside the candidate and the configuration.

    Args:
        verdict: of `validate_candidate`, without `force`.
        live: the live chains that the candidate was compared with.
        at: the reference time, UTC.
        seconds: how long it took.
    """

    verdict: Verdict
    live: tuple[tuple[bytes, ...], ...]
    at: datetime
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RotationRequest:
    """The pair that one site is to serve.

    Args:
        site: the site.
        anchors: the roots that its clients trust.
        candidate: new files; None to prove what is live, or with `generation`.
        generation: a stored generation to go back to instead of a candidate.
        first: write the include although nothing was live before, and do not reload for it.
        force: install a pair that is older than the live one.
        keep_kinds: keep the live pair of each kind of key that the candidate lacks, if it is still valid.
        who: the user.
        trigger: `swap`, `rollback`, `drop` …
        origin: the names of the candidate's files, for the generation's record.
        validation: of the candidate, if it was validated a moment ago.
        pool: intermediates of this host, for a chain that lacks one.
    """

    site: Site
    anchors: Anchors
    candidate: Candidate | None = None
    generation: str = ""
    first: bool = False
    force: bool = False
    keep_kinds: bool = False
    who: str = ""
    trigger: str = "swap"
    origin: tuple[str, ...] = ()
    validation: Validation | None = None
    pool: Pool = field(default_factory=Pool, repr=False)
