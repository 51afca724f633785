"""One site on its way through a rotation: its request, its snapshot, and the results of its steps so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rotator.core.errors import RotatorError
from rotator.core.model import Generation, Pair, Site, Target
from rotator.core.problems import Problem
from rotator.privsep.apply import Applied
from rotator.rotation.ports import Clock, Ports
from rotator.rotation.proof import Proof, expectation
from rotator.rotation.request import RotationRequest
from rotator.rotation.snapshot import SiteSnapshot


@dataclass(slots=True)
class SiteRotation:
    """The rotation of one site, from its request to its outcome.

    Args:
        request: what the site is to serve.
        snapshot: the site as it was under the lock, before anything was changed.
        live: the generation that the include names now.
        previous: the generation to go back to; None if there is none.
        pairs: what is to go live.
        problems: what the validation found.
        stages: seconds by stage.
        exempt: (listener, name) that did not serve the live pair before, and have no veto.
        already_live: whether the requested pair is live already.
        unwired: whether the live pair was never proved and is not served everywhere, so that there is no way back.
        uncertain: whether the disk did not confirm what the include names now.
        generation: the stored new generation.
        explanation: the verdict in words, if the pair was refused.
        proof: the last proof.
    """

    request: RotationRequest
    snapshot: SiteSnapshot
    live: str = field(init=False)
    previous: Generation | None = None
    pairs: tuple[Pair, ...] = ()
    problems: tuple[Problem, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)
    exempt: frozenset[tuple[str, str]] = frozenset()
    already_live: bool = False
    unwired: bool = False
    uncertain: bool = False
    generation: Generation | None = None
    explanation: tuple[str, ...] = ()
    proof: Proof = field(default_factory=lambda: Proof(ok=False))

    def __post_init__(self) -> None:
        self.live = self.snapshot.live

    @property
    def site(self) -> Site:
        """The site."""
        return self.request.site

    @property
    def verified(self) -> str:
        """Name of the generation that was proved last before; empty if none."""
        return self.snapshot.verified

    @property
    def first(self) -> bool:
        """Whether the include is only written, without a reload; not where nginx was seen serving it already."""
        return self.request.first and not (self.previous and self.verified)

    @property
    def new(self) -> Generation:
        """The stored new generation."""
        assert self.generation is not None, "asked for before it was stored"  # noqa: S101 - a bug, not an input
        return self.generation

    def expected(self) -> dict[Target, tuple[bytes, ...]]:
        """The chain that each target shall show, without those that are exempt."""
        return self._without_exempt(self.new)

    def expected_before(self) -> dict[Target, tuple[bytes, ...]]:
        """The chain that each target showed before, without those that are exempt; empty without a previous pair."""
        return self._without_exempt(self.previous) if self.previous else {}

    def _without_exempt(self, generation: Generation) -> dict[Target, tuple[bytes, ...]]:
        expected = expectation(self.site, generation.chains)
        return {t: chain for t, chain in expected.items() if (t.listener, t.name) not in self.exempt}


def merged(parts: Iterable[Mapping[Target, tuple[bytes, ...]]]) -> dict[Target, tuple[bytes, ...]]:
    """The expected chains of several sites, as one mapping."""
    return {target: chain for part in parts for target, chain in part.items()}


def previous_names(rotations: Iterable[SiteRotation]) -> dict[str, str]:
    """The generation that each site goes back to, by the site's name."""
    return {r.site.name: r.previous.name for r in rotations if r.previous}


def apply_new(rotations: Sequence[SiteRotation], ports: Ports, *, hup: bool) -> Applied:
    """Has the includes name the new generations.

    Args:
        rotations: the sites.
        ports: the privileged step.
        hup: whether nginx gets the signal to reload.

    Raises:
        RotatorError: the privileged step has failed in an unknown state.
    """
    applied = apply_generations(rotations, {r.site.name: r.new.name for r in rotations}, ports, hup=hup)
    for rotation in rotations:
        rotation.uncertain = applied.uncertain
    return applied


def apply_previous(rotations: Sequence[SiteRotation], ports: Ports, *, hup: bool) -> Applied:
    """Has the includes name the previous generations again: the same call in the other direction.

    Raises:
        RotatorError: the privileged step has failed in an unknown state.
    """
    return apply_generations(rotations, previous_names(rotations), ports, hup=hup)


def apply_generations(
    rotations: Sequence[SiteRotation], names: Mapping[str, str], ports: Ports, *, hup: bool
) -> Applied:
    """Has the includes name these generations; the answer says what each include names now.

    Args:
        rotations: the sites.
        names: the generation by the site's name.
        ports: the privileged step.
        hup: whether nginx gets the signal to reload.

    Raises:
        RotatorError: the privileged step has failed in an unknown state.
    """
    try:
        applied = ports.apply(names, hup=hup)
    except RotatorError:
        for rotation in rotations:  # there was no answer
            rotation.live = ports.live(rotation.site.name).generation
        raise
    for rotation in rotations:
        rotation.live = applied.live.get(rotation.site.name, rotation.live)
    return applied


class Timer:
    """Adds the seconds of its block to a stage of one site, or of all sites of a batch."""

    def __init__(self, rotations: Sequence[SiteRotation], stage: str, clock: Clock) -> None:
        self._rotations, self._stage, self._clock = rotations, stage, clock

    def __enter__(self) -> None:
        self._began = self._clock.monotonic()

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        seconds = self._clock.monotonic() - self._began
        for rotation in self._rotations:
            rotation.stages[self._stage] = rotation.stages.get(self._stage, 0.0) + seconds
