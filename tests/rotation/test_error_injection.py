"""Every call to the system may fail, once or for good: nothing is broken, it is told, and the next try heals it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import Pair, Provenance
from rotator.privsep import apply as apply_module
from rotator.privsep.apply import Applied, Request, Setup, apply, read_live
from rotator.storage.generations import Store
from rotator.x509.pem import encode_chain
from tests.support.authority import CA
from tests.support.pairs import pair_of
from tests.support.powercut import StandIn, View, put, standing_in, view_of


class Fault(StandIn):
    """Makes one call fail, or every call from that one on.

    Args:
        at: the number of the call, from 0; -1 for none, to count them.
        number: the errno.
        persistent: whether all that follow fail too.
    """

    def __init__(self, at: int, number: int, *, persistent: bool) -> None:
        self._at, self._number, self._persistent = at, number, persistent
        self.calls = 0

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        call, self.calls = self.calls, self.calls + 1
        if call == self._at or (self._persistent and 0 <= self._at < call):
            raise OSError(self._number, os.strerror(self._number))


@dataclass
class World:
    """A host with one pair live and another one waiting."""

    root: Path
    old: Pair
    new: Pair
    begin: View = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.root / "state")

    @property
    def setup(self) -> Setup:
        return Setup(str(self.root / "state"), str(self.root / "etc"), "", "", frozenset({"site"}))

    def live(self) -> str:
        """The chain and key that nginx would load now: the `old` pair, the `new` one, or `broken`."""
        named = [line.split()[1].rstrip(";") for line in (self.root / "etc/site.conf").read_text().splitlines()[1:]]
        found = tuple(Path(path).read_bytes() if os.path.exists(path) else b"" for path in named)
        return {contents(self.old): "old", contents(self.new): "new"}.get(found, "broken")

    def strays(self) -> list[Path]:
        return [path for path in self.root.rglob("*") if ".new" in path.name]


def contents(pair: Pair) -> tuple[bytes, ...]:
    assert pair.key is not None
    return encode_chain(pair.chain), pair.key.reveal()


def rotate(world: World, pair: Pair) -> tuple[Applied, str]:
    """The way of a rotation to the disk, with its own clearing up; apply's answer, and the word of what went wrong."""
    staged = world.store.stage("site", [pair], Provenance())
    try:
        staged.flush()
        generation = staged.commit()
    except RotatorError:
        staged.discard()
        raise
    done = apply(world.setup, Request({"site": generation.name}, hup=False))
    trouble = done.error or ("uncertain" if done.uncertain else "")
    if not trouble:
        try:
            world.store.mark_verified("site", generation.name)
        except RotatorError as e:
            trouble = e.code
    return done, trouble


@dataclass
class Injection:
    """What came of one fault.

    Args:
        call: the number of the call that failed, and with what.
        told: the word of the error; empty if it is said to have worked.
        done: what apply answered, if it was asked.
        live: which pair nginx would load: `old` or `new`.
        named: the generation that the include names.
        verified: the generation that is verified.
        strays: what was left under a temporary name.
        later: the same as `live` after another try without a fault; or its error, or strays.
    """

    call: str
    told: str
    done: Applied | None
    live: str
    named: str
    verified: str
    strays: list[Path]
    later: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once; each injection works on this tree, put back as it was, because the include has full paths in it."""
    ca = CA.root().intermediate()
    old, new = (pair_of(ca.issue("site.test")) for _ in range(2))
    world = World(tmp_path_factory.mktemp("world"), old, new)
    (world.root / "state").mkdir()
    with standing_in(StandIn()):
        rotate(world, old)
    world.begin = view_of(world.root)
    return world


def inject(world: World, call: int, error: str, *, persistent: bool) -> Injection | None:
    """Fails one call of a rotation, then does the same again as the next try would; None if there is no such call."""
    put(world.begin, world.root)
    told, done = "", None
    fault = Fault(call, getattr(errno, error), persistent=persistent)
    with standing_in(fault):
        try:
            done, told = rotate(world, world.new)
        except RotatorError as e:
            told = e.code
    if fault.calls <= call:
        return None
    live, strays, verified = world.live(), world.strays(), world.store.verified("site")
    named = read_live(str(world.root / "etc"), "site").generation
    with standing_in(StandIn()):
        _, trouble = rotate(world, world.new)
    later = trouble or ("strays" if world.strays() else world.live())
    return Injection(f"{error} at call {call}", told, done, live, named, verified, strays, later)


def sweep(world: World, errors: Sequence[str], *, persistent: bool) -> list[Injection]:
    """Every call in turn, with these errors in turn."""
    found: list[Injection] = []
    for call in itertools.count():
        one = inject(world, call, errors[call % len(errors)], persistent=persistent)
        if one is None:
            return found
        found.append(one)
    raise AssertionError


ERRORS = {
    "EIO": ["EIO"],
    "EACCES": ["EACCES"],  # the one that code may well take for an answer
    "the_others": ["ENOSPC", "EROFS", "EMFILE", "ENOMEM", "EINTR", "EDQUOT", "EPERM"],  # prime to the calls in a file
}


@pytest.fixture(scope="module", params=ERRORS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def once(kind: str, world: World) -> list[Injection]:
    return sweep(world, ERRORS[kind], persistent=False)


@pytest.fixture(scope="module")
def for_good(kind: str, world: World) -> list[Injection]:
    return sweep(world, ERRORS[kind], persistent=True)


def bad(injections: list[Injection], is_bad: Callable[[Injection], bool]) -> list[Injection]:
    assert len(injections) > 100
    return [one for one in injections if is_bad(one)]


def test_nginx_can_start_after_any_fault_with_the_old_pair_or_the_new(
    once: list[Injection], for_good: list[Injection]
) -> None:
    assert bad(once + for_good, lambda one: one.live == "broken") == []


def test_a_step_that_takes_a_failed_write_for_success_would_be_found_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the sweep."""
    real = apply_module._write_new

    def careless(*args: Any, **named: Any) -> None:
        with contextlib.suppress(OSError):
            real(*args, **named)

    monkeypatch.setattr(apply_module, "_write_new", careless)
    assert bad(sweep(world, ["EIO"], persistent=False), lambda one: one.live == "broken") != []


def test_a_rotation_that_meets_a_fault_is_told_or_has_worked(once: list[Injection], for_good: list[Injection]) -> None:
    assert bad(once + for_good, lambda one: not one.told and (one.live, one.verified) != ("new", one.named)) == []


def test_what_is_told_to_be_live_is_what_the_include_names(once: list[Injection], for_good: list[Injection]) -> None:
    def untrue(one: Injection) -> bool:
        """Nothing is told, or the truth, also where the include cannot be read any more."""
        return one.done is not None and one.done.live.get("site", "") not in ("", one.named)

    assert bad(once + for_good, untrue) == []


def test_that_the_new_pair_is_named_is_always_told(once: list[Injection], for_good: list[Injection]) -> None:
    def hidden(one: Injection) -> bool:
        return one.done is not None and one.live == "new" and one.done.live != {"site": one.named}

    assert bad(once + for_good, hidden) == []


def test_an_error_after_the_commit_is_told_as_uncertain(once: list[Injection], for_good: list[Injection]) -> None:
    def bare(one: Injection) -> bool:
        failed = one.done is not None and one.done.error != ""
        return failed and one.live == "new" and one.done is not None and not one.done.uncertain

    assert bad(once + for_good, bare) == []


def test_what_is_verified_is_never_what_was_not_live(once: list[Injection], for_good: list[Injection]) -> None:
    assert bad(once + for_good, lambda one: one.live == "old" and one.verified != one.named) == []


def test_one_fault_leaves_nothing_under_a_temporary_name(once: list[Injection]) -> None:
    assert bad(once, lambda one: one.strays != []) == []


def test_the_next_try_succeeds_once_the_fault_is_gone(once: list[Injection], for_good: list[Injection]) -> None:
    assert bad(once + for_good, lambda one: one.later != "new") == []
