"""The tiers of the tests, and the sample of the long ones that the gate takes.

A test without a mark belongs to the tier `default`, one with the mark `contract` or `soak` to that tier. `sample` names
no tests of its own: it is one case of each test of `soak`, chosen by the seed, in a smaller size.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

TIERS = ("default", "contract", "soak")
CHOICES = (*TIERS, "sample", "all")


@dataclass(frozen=True)
class Size:
    """How much of a soak test runs.

    Args:
        seed: where its chance comes from.
        whole: whether all of it runs, and not a sample.
    """

    seed: int
    whole: bool

    def count(self, whole: int, sampled: int) -> int:
        """How many rounds there are."""
        return whole if self.whole else sampled


def tiers_of(option: str | None, arguments: Sequence[str]) -> frozenset[str]:
    """The tiers that were asked for; files and tests that are named run, whatever their tier.

    Args:
        option: names with commas between them, or None where none were given.
        arguments: the files, directories and tests of the command line.

    Raises:
        ValueError: there is no such tier.
    """
    if option is None:
        return frozenset(TIERS) if any(".py" in argument for argument in arguments) else frozenset({"default"})
    names = frozenset(option.split(","))
    if strange := names - set(CHOICES):
        raise ValueError(f"no tier is called {', '.join(sorted(strange))}; there are {', '.join(CHOICES)}")
    return frozenset(TIERS) if "all" in names else names


def sample(cases: Mapping[str, Sequence[T]], seed: int) -> list[T]:
    """One case of each test.

    Args:
        cases: those of each test, by its name.
        seed: where the choice comes from; each test has one of its own.
    """
    return [random.Random(f"{seed} {name}").choice(of_one) for name, of_one in cases.items()]
