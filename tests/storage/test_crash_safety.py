"""Killed or without power at any step: what nginx reads, what is verified and what was decided is whole, old or new."""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from rotator.core.model import Outcome, Pair, Provenance, Result
from rotator.core.reasons import Reason
from rotator.privsep.apply import PREPARE, Request, Setup, apply, prepare, read_live
from rotator.storage.generations import Store
from rotator.storage.history import History
from rotator.storage.records import Intent
from rotator.x509.pem import encode_chain
from tests.support.authority import CA
from tests.support.pairs import pair_of
from tests.support.powercut import (
    Disk,
    Entry,
    Promise,
    Recorder,
    Step,
    View,
    copied_in_place,
    put,
    standing_in,
    view_of,
    without,
)

DRAWS = 8
"""Random power cuts at each step."""

SITES = ("alpha", "beta", "gamma")
NUMBERS = itertools.count()
"""No two lines of the history are the same, unless one was doubled."""

Register = tuple[str, ...]


@dataclass
class World:
    """A host's directories, and the pairs that are to be put there."""

    root: Path
    pairs: dict[str, Pair]

    @property
    def store(self) -> Store:
        return Store(self.root / "state")

    @property
    def history(self) -> History:
        """One that is closed as soon as there is a line in it, and keeps one closed file."""
        return History(self.root / "state", close_at=1, keep=1)

    @property
    def setup(self) -> Setup:
        return Setup(str(self.root / "state"), str(self.root / "etc/rotator"), "", "", frozenset(SITES))


Operation = Callable[[World, Recorder], None]


def install(world: World, log: Recorder, *, site: str, pair: str, prepared: bool = False) -> None:
    """All that a rotation leaves on the disk, for one site; `prepared`: root's copy is made by a request of its own."""
    with log.promising("stored", pair, value="whole"):
        staged = world.store.stage(site, [world.pairs[pair]], Provenance(who="tester"))
        staged.flush()
        generation = staged.commit().name
    if prepared:
        before = read_live(world.setup.include_dir, site).generation
        assert prepare(world.setup, Request({site: generation}, word=PREPARE)).live == {site: before}
    put_live(world, log, generations={site: generation})
    prove(world, log, site=site, generation=generation)


def put_live(world: World, log: Recorder, *, generations: dict[str, str]) -> None:
    """What the privileged step promises when it has answered without a doubt."""
    for site, generation in generations.items():
        log.log.append(Promise(("live", site), generation, kept=False))
        log.log.append(Promise(("link", site), generation, kept=False))
    done = apply(world.setup, Request(generations, hup=False))
    assert (done.error, done.uncertain, done.live) == ("", False, generations)
    for site, generation in generations.items():
        log.log.append(Promise(("live", site), generation, kept=True))
        log.log.append(Promise(("link", site), generation, kept=True))


def prove(world: World, log: Recorder, *, site: str, generation: str) -> None:
    with log.promising("verified", site, value=generation):
        world.store.mark_verified(site, generation)
    with log.promising("decided", site, value=generation):
        world.store.write_intent(site, Intent(digest=generation))
    tell(world, log, site=site, generation=generation)


def tell(world: World, log: Recorder, *, site: str, generation: str) -> None:
    number = f"{next(NUMBERS):09d}"
    now = datetime.now(UTC)
    done = Outcome(site, Result.ROTATED, now, Reason.ROTATED, number, generation=generation, live=generation)
    with log.promising("told", site, generation, value="yes"):
        world.history.record(done, who="tester", trigger="swap", fingerprints={})


def close_history(world: World, log: Recorder) -> None:
    """Nothing is promised, but that what was closed before may go."""
    for path in (world.root / "state").glob("history-*.jsonl"):
        for line in path.read_bytes().splitlines():
            entry = json.loads(line)
            for value in ("yes", None):  # it may still be there, too
                log.log.append(Promise(("told", entry["site"], entry["generation"]), value, kept=False))
    world.history.tidy()


def prune(world: World, log: Recorder, *, site: str, gone: str) -> None:
    log.log.append(Promise(("stored", gone), None, kept=False))  # it may come back, but only whole
    world.store.sweep(site)
    world.store.prune(site, 2, frozenset({read_live(world.setup.include_dir, site).generation}))


def back_and_first(world: World, log: Recorder) -> None:
    """One batch: a site goes back to what it had, another gets its first pair."""
    with log.promising("stored", "B1", value="whole"):
        staged = world.store.stage("beta", [world.pairs["B1"]], Provenance())
        staged.flush()
        first = staged.commit().name
    put_live(world, log, generations={"alpha": world.store.names("alpha")[0], "beta": first})
    prove(world, log, site="beta", generation=first)


def reject(world: World, log: Recorder, *, site: str) -> None:
    """The first that a site ever gets is refused: nothing is stored, but that it was decided is."""
    with log.promising("decided", site, value="refused"):
        world.store.write_intent(site, Intent(digest="refused"))


OPERATIONS: tuple[Operation, ...] = (
    partial(reject, site="gamma"),
    partial(install, site="alpha", pair="A1"),
    close_history,
    partial(tell, site="gamma", generation="nothing"),
    partial(install, site="alpha", pair="A2"),
    partial(install, site="alpha", pair="A3", prepared=True),
    close_history,
    partial(prune, site="alpha", gone="A1"),
    back_and_first,
)


@dataclass
class RecordedRun:
    """A recording of all operations, one after the other.

    Args:
        world: where it was made.
        begin: the tree before it.
        logs: what each operation did.
    """

    world: World
    begin: View
    logs: tuple[list[Entry], ...]

    @property
    def log(self) -> list[Entry]:
        return [entry for log in self.logs for entry in log]

    def disk(self) -> Disk:
        """The disk before the run."""
        put(self.begin, self.world.root)
        return Disk(self.world.root)

    @property
    def steps(self) -> list[Step]:
        return [entry for entry in self.log if isinstance(entry, Step)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    ca = CA.root().intermediate()
    names = {"A1": "alpha", "A2": "alpha", "A3": "alpha", "B1": "beta"}
    pairs = {name: pair_of(ca.issue(f"{site}.test")) for name, site in names.items()}
    world = World(tmp_path_factory.mktemp("world"), pairs)
    (world.root / "state").mkdir()
    (world.root / "etc").mkdir()
    begin = view_of(world.root)
    logs = []
    for operation in OPERATIONS:
        recorder = Recorder()
        with standing_in(recorder):
            operation(world, recorder)
        logs.append(recorder.log)
    return RecordedRun(world, begin, tuple(logs))


# -- what a disk holds, read as nginx and rotator would, without their code -------------------------------------------

_DIRECTIVE = re.compile(r"(ssl_certificate|ssl_certificate_key)\s+(\S+);")
_GENERATION = re.compile(r"\d{6}-[0-9a-f]{12}")


def is_history(path: str) -> bool:
    return re.fullmatch(r"history(-\d{6})?\.jsonl", path.rpartition("/")[2]) is not None


class Reader:
    """Reads a view: the value of each register, and what is broken whoever looks."""

    def __init__(self, world: World) -> None:
        self._etc, self._state = f"{world.root}/etc/rotator", f"{world.root}/state"
        self._keys = {}
        self._name_of = {}
        for name, pair in world.pairs.items():
            assert pair.key is not None
            self._keys[encode_chain(pair.chain)] = pair.key.reveal()
            self._name_of[encode_chain(pair.chain)] = name

    def read(self, view: View) -> tuple[dict[Register, str | None], list[str]]:
        found: dict[Register, str | None] = {}
        broken: list[str] = []
        for path, what in view.items():
            name = path.rpartition("/")[2]
            if what is None and _GENERATION.fullmatch(name):
                torn = self._torn(view, path, meta=path.startswith(self._state))
                if torn:
                    broken.append(torn)
                else:
                    chain = view[f"{path}/fullchain.pem"]
                    assert isinstance(chain, bytes)
                    where = "stored" if path.startswith(self._state) else "copied"
                    found[where, self._name_of[chain]] = "whole"
        for site in SITES:
            for register, value in self._site(view, site):
                if value is not None and value.startswith("BROKEN"):
                    broken.append(f"{register}: {value}")
                found[register] = value
        broken += self._told(view, found)
        return found, broken

    def _told(self, view: View, found: dict[Register, str | None]) -> Iterator[str]:
        lines: set[bytes] = set()
        for path in filter(is_history, view):
            text = view[path]
            assert isinstance(text, bytes)
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if line in lines:
                    yield f"{path} says once more what another line says"
                lines.add(line)
                found["told", entry["site"], entry["generation"]] = "yes"

    def _site(self, view: View, site: str) -> Iterator[tuple[Register, str | None]]:
        yield ("live", site), self._live(view, view.get(f"{self._etc}/{site}.conf"))
        link = view.get(f"{self._etc}/{site}")
        yield ("link", site), self._named(view, f"{self._etc}/{link}", meta=False) if isinstance(link, str) else None
        verified = view.get(f"{self._state}/sites/{site}/verified")
        home = f"{self._state}/sites/{site}"
        yield (
            ("verified", site),
            self._named(view, f"{home}/{verified}", meta=True) if isinstance(verified, str) else None,
        )
        intent = view.get(f"{self._state}/sites/{site}/intent.json")
        if isinstance(intent, bytes):
            try:
                yield ("decided", site), json.loads(intent)["digest"]
            except ValueError:
                yield ("decided", site), "BROKEN intent"
        else:
            yield ("decided", site), None

    def _live(self, view: View, include: bytes | str | None) -> str | None:
        """As nginx's cold start would: both files must be there and belong together."""
        if include is None:
            return None
        if not isinstance(include, bytes):
            return "BROKEN: the include is no file"
        named = dict(_DIRECTIVE.findall(include.decode()))
        if len(named) != 2:
            return f"BROKEN: the include says {include!r}"
        chain, key = view.get(named["ssl_certificate"]), view.get(named["ssl_certificate_key"])
        if not isinstance(chain, bytes) or self._keys.get(chain) != key:
            return "BROKEN: the include names what is no pair"
        return str(named["ssl_certificate"]).rpartition("/")[0].rpartition("/")[2]

    def _named(self, view: View, path: str, *, meta: bool) -> str:
        torn = self._torn(view, path, meta=meta)
        return f"BROKEN: {torn}" if torn else path.rpartition("/")[2]

    def _torn(self, view: View, path: str, *, meta: bool) -> str:
        chain, key = view.get(f"{path}/fullchain.pem"), view.get(f"{path}/privkey.pem")
        if not isinstance(chain, bytes) or self._keys.get(chain) != key:
            return f"{path} is no pair"
        if meta:
            text = view.get(f"{path}/meta.json")
            if not isinstance(text, bytes) or not text.endswith(b"}\n"):
                return f"{path}/meta.json is torn"
        return ""


class Expectation:
    """What each register may hold by now."""

    def __init__(self) -> None:
        self._may: dict[Register, set[str | None]] = {}

    def hear(self, promise: Promise) -> None:
        may = self._may.setdefault(promise.register, {None})
        if promise.kept:
            may.clear()
        may.add(promise.value)

    def breaches(self, found: dict[Register, str | None]) -> list[str]:
        return [
            f"{register} is {found.get(register)}, not {may}"
            for register, may in self._may.items()
            if found.get(register) not in may
        ]


def breaches(recorded: RecordedRun, log: list[Entry], views: Callable[[Disk], list[View]]) -> Iterator[str]:
    """Every breach at every step of a log, as each of the views shows it."""
    disk, expected, reader = recorded.disk(), Expectation(), Reader(recorded.world)
    for number, entry in enumerate(log):
        if isinstance(entry, Promise):
            expected.hear(entry)
        else:
            disk.replay(entry)
        for view in views(disk):
            found, broken = reader.read(view)
            for breach in broken + expected.breaches(found):
                yield f"after step {number} ({entry}): {breach}"


def killed(disk: Disk) -> list[View]:
    return [disk.killed()]


def power_cuts(draws: int) -> Callable[[Disk], list[View]]:
    """The two extremes, and some of what lies between; the same at each run."""
    chance = random.Random(20261122)
    return lambda disk: [disk.flushed_only(), disk.entries_only(), *(disk.anything(chance) for _ in range(draws))]


def first(found: Iterator[str]) -> str:
    return next(found, "")


# -- the sweeps -------------------------------------------------------------------------------------------------------


def test_the_model_of_the_disk_ends_with_the_tree_that_really_lies_there(recorded: RecordedRun) -> None:
    put(recorded.begin, recorded.world.root)
    for operation in OPERATIONS:
        operation(recorded.world, Recorder())
    real = view_of(recorded.world.root)
    disk = recorded.disk()
    for step in recorded.steps:
        disk.replay(step)
    without_times = [{path: is_history(path) or what for path, what in one.items()} for one in (disk.killed(), real)]
    assert without_times[0] == without_times[1]


def test_a_kill_at_any_step_leaves_everything_whole(recorded: RecordedRun) -> None:
    assert first(breaches(recorded, recorded.log, killed)) == ""


def test_a_power_cut_at_any_step_leaves_everything_whole_and_all_promises_kept(recorded: RecordedRun) -> None:
    assert first(breaches(recorded, recorded.log, power_cuts(DRAWS))) == ""


# -- what comes after a kill ------------------------------------------------------------------------------------------


@dataclass
class Again:
    """An operation that was killed and then simply done again.

    Args:
        killed_before: the step that was not reached.
        disk: the model at the kill.
        log: what the second run did.
        after: the tree that really lay there afterwards.
        wanted: what the registers hold when nothing is killed.
    """

    killed_before: Step
    disk: Disk
    log: list[Entry]
    after: View
    wanted: dict[Register, str | None]


@pytest.fixture(scope="module")
def agains(recorded: RecordedRun) -> list[Again]:
    found = []
    disk, reader, world = recorded.disk(), Reader(recorded.world), recorded.world
    for operation, log in zip(OPERATIONS, recorded.logs, strict=True):
        steps = [entry for entry in log if isinstance(entry, Step)]
        kills = []
        changed = True
        for step in steps:
            if changed:
                kills.append((step, copy.deepcopy(disk)))
            disk.replay(step)
            changed = step.kind not in ("fchmod", "chmod", "utime")
        wanted, _ = reader.read(disk.killed())
        for step, at_kill in kills:
            put(at_kill.killed(), world.root)
            recorder = Recorder()
            with standing_in(recorder):
                operation(world, recorder)
            found.append(Again(step, at_kill, recorder.log, view_of(world.root), wanted))
    return found


def settled(found: dict[Register, str | None]) -> dict[Register, str | None]:
    """Without root's copies, of which a killed run may leave one more than the two that are kept, until the next."""
    return {register: value for register, value in found.items() if register[0] != "copied"}


def test_after_a_kill_at_any_step_the_same_operation_ends_as_if_nothing_had_been(
    recorded: RecordedRun, agains: list[Again]
) -> None:
    for again in agains:
        found, broken = Reader(recorded.world).read(again.after)
        assert (again.killed_before, broken, settled(found)) == (again.killed_before, [], settled(again.wanted))


def test_after_a_kill_at_any_step_the_same_operation_leaves_no_stray(agains: list[Again]) -> None:
    strays = {
        path: again.killed_before
        for again in agains
        for path in again.after
        if "/." in path and not path.endswith("/.lock")  # the lock of the include directory stays
    }
    assert strays == {}


def unkept(recorded: RecordedRun, again: Again, log: list[Entry]) -> list[str]:
    """What of the second run's promises a power cut after it can still take, although the first run was killed."""
    disk, expected = copy.deepcopy(again.disk), Expectation()
    for entry in log:
        if isinstance(entry, Promise):
            expected.hear(entry)
        else:
            disk.replay(entry)
    found: list[str] = []
    for view in power_cuts(2)(disk):
        values, broken = Reader(recorded.world).read(view)
        found += broken + expected.breaches(values)
    return found


def killed_while_deleting(agains: list[Again]) -> list[Again]:
    return [again for again in agains if {"prune", "_prune_copies"} & set(again.killed_before.by)]


def broken_on_the_way(recorded: RecordedRun, again: Again, log: list[Entry]) -> Iterator[str]:
    """What a power cut in the middle of the second run breaks."""
    disk, reader, cut = copy.deepcopy(again.disk), Reader(recorded.world), power_cuts(DRAWS)
    for entry in log:
        if isinstance(entry, Step):
            disk.replay(entry)
            for view in cut(disk):
                yield from reader.read(view)[1]


def test_a_power_cut_while_a_killed_deletion_is_done_again_leaves_everything_whole(
    recorded: RecordedRun, agains: list[Again]
) -> None:
    assert {first(broken_on_the_way(recorded, again, again.log)) for again in killed_while_deleting(agains)} == {""}


@pytest.mark.parametrize("of", ["sweep", "_copy_generation"])
def test_without_the_flush_before_strays_are_removed_a_power_cut_would_leave_half_a_generation(
    recorded: RecordedRun, agains: list[Again], of: str
) -> None:
    def wrong(step: Step) -> bool:
        return step.kind == "fsync" and of in step.by and not step.path.endswith(".pem")

    deletions = killed_while_deleting(agains)
    assert any(first(broken_on_the_way(recorded, again, without(again.log, wrong))) for again in deletions)


def test_what_a_killed_run_did_not_flush_is_flushed_by_the_next(recorded: RecordedRun, agains: list[Again]) -> None:
    assert [breach for again in agains for breach in unkept(recorded, again, again.log)] == []


def test_a_next_run_that_flushes_only_what_it_made_itself_would_break_a_promise(
    recorded: RecordedRun, agains: list[Again]
) -> None:
    assert any(unkept(recorded, again, only_own_flushes(again.log)) for again in agains)


def only_own_flushes(log: list[Entry]) -> list[Entry]:
    """Leaves out every flush of a directory in which this run has changed nothing."""
    kept: list[Entry] = []
    changed: set[str] = set()
    for entry in log:
        if isinstance(entry, Step) and entry.kind == "fsync" and entry.path not in changed:
            continue
        if isinstance(entry, Step) and entry.kind != "fsync":
            changed |= {entry.path, os.path.dirname(entry.path)}
        kept.append(entry)
    return kept


# -- negative controls: the same sweeps over a protocol with one step wrong must fail ----------------------------------

STORE, INCLUDES = "state/sites/SITE", "etc/rotator"

FLUSHES = {
    "the_state_directory_when_sites_is_made": ("_make_home", "state"),
    "sites_when_a_site_is_made": ("_make_home", "state/sites"),
    "a_site_when_its_generations_directory_is_made": ("_make_home", STORE),
    "a_stored_chain": ("flush", f"{STORE}/generations/.new-GEN/fullchain.pem"),
    "a_stored_key": ("flush", f"{STORE}/generations/.new-GEN/privkey.pem"),
    "a_stored_description": ("flush", f"{STORE}/generations/.new-GEN/meta.json"),
    "a_staged_directory": ("flush", f"{STORE}/generations/.new-GEN"),
    "the_name_of_a_generation": ("commit", f"{STORE}/generations"),
    "the_lost_name_of_a_pruned_generation": ("prune", f"{STORE}/generations"),
    "the_verified_link": ("mark_verified", STORE),
    "a_decision": ("write_new", f"{STORE}/.new-intent.json"),
    "the_name_of_a_decision": ("write_intent/_replace", STORE),
    "a_line_of_the_history": ("record", "state/history.jsonl"),
    "the_name_of_the_history": ("record/flush_dir", "state"),
    "the_name_of_a_closed_history": ("_opened", "state"),
    "the_include_directorys_own_name": ("_flush_parent", "etc"),
    "the_include_directory_when_pairs_is_made": ("_copy_all", INCLUDES),
    "pairs_when_a_sites_copies_are_made": ("_copy_all", f"{INCLUDES}/pairs"),
    "a_copied_chain": ("_copy_generation", f"{INCLUDES}/pairs/SITE/.new-GEN/fullchain.pem"),
    "a_copied_key": ("_copy_generation", f"{INCLUDES}/pairs/SITE/.new-GEN/privkey.pem"),
    "a_copys_directory": ("_copy_generation", f"{INCLUDES}/pairs/SITE/.new-GEN"),
    "the_name_of_a_copy": ("_copy_generation", f"{INCLUDES}/pairs/SITE"),
    "the_lost_name_of_a_pruned_copy": ("_prune_copies", f"{INCLUDES}/pairs/SITE"),
    "an_include": ("_install/_write_new", f"{INCLUDES}/.SITE.conf.new"),
    "the_name_of_an_include": ("_install", INCLUDES, "after the commit"),
}
"""Every flush in the code: the function that makes it (and its caller), and of what."""

RENAMES = {
    "a_generation": ("commit", f"{STORE}/generations/.new-GEN"),
    "a_pruned_generation": ("prune", f"{STORE}/generations/GEN"),
    "verified": ("mark_verified", f"{STORE}/.new-verified"),
    "a_decision": ("write_intent", f"{STORE}/.new-intent.json"),
    "a_closed_history": ("tidy", "state/history.jsonl"),
    "a_copy": ("_copy_generation", f"{INCLUDES}/pairs/SITE/.new-GEN"),
    "a_pruned_copy": ("_prune_copies", f"{INCLUDES}/pairs/SITE/GEN"),
    "an_include": ("_install", f"{INCLUDES}/.SITE.conf.new"),
    "a_link_beside_an_include": ("_install", f"{INCLUDES}/.SITE.link.new"),
}
"""Every rename in the code: the function that makes it, and of what."""


def is_at(recorded: RecordedRun, place: tuple[str, ...], kind: str) -> Callable[[Step], bool]:
    """Whether a step is the call that stands at this place of the code."""
    after: set[int] = set()
    committed = False
    for step in recorded.steps:  # the two flushes of the include directory differ by what was renamed before
        renamed = step.kind == "rename" and step.path.endswith(".conf.new")
        committed = (committed or renamed) and not step.path.startswith(f"{recorded.world.root}/state")
        if committed:
            after.add(id(step))

    def at(step: Step) -> bool:
        path = re.sub("|".join(SITES), "SITE", _GENERATION.sub("GEN", os.path.relpath(step.path, recorded.world.root)))
        return (
            step.kind == kind
            and path == place[1]
            and f"/{place[0]}/" in f"/{'/'.join(step.by)}/"
            and (len(place) == 2 or (place[2] == "after the commit") == (id(step) in after))
        )

    return at


def test_every_flush_and_every_rename_of_the_code_has_one_negative_control(recorded: RecordedRun) -> None:
    places = [is_at(recorded, place, "fsync") for place in FLUSHES.values()]
    places += [is_at(recorded, place, "rename") for place in RENAMES.values()]
    controls = {step: sum(at(step) for at in places) for step in recorded.steps if step.kind in ("fsync", "rename")}
    assert {step: number for step, number in controls.items() if number != 1} == {}


@pytest.mark.parametrize("what", FLUSHES)
def test_without_the_flush_of(recorded: RecordedRun, what: str) -> None:
    """A power cut would break something, or a promise."""
    wrong = without(recorded.log, is_at(recorded, FLUSHES[what], "fsync"))
    assert len(wrong) < len(recorded.log)
    assert first(breaches(recorded, wrong, power_cuts(DRAWS)))


@pytest.mark.parametrize("what", RENAMES)
def test_with_a_copy_in_place_instead_of_the_rename_of(recorded: RecordedRun, what: str) -> None:
    """A kill alone would break something, flushed or not."""
    wrong = copied_in_place(recorded.log, recorded.disk(), is_at(recorded, RENAMES[what], "rename"))
    assert len(wrong) > len(recorded.log)
    assert first(breaches(recorded, wrong, killed))
