"""Any order of steps, kills among them: what nginx reads is whole, and what must not be lost is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rotator.core.model import Pair, Provenance
from rotator.privsep.apply import Request, Setup, apply, read_live
from rotator.storage.generations import Staged, Store
from rotator.storage.records import Intent
from rotator.x509.pem import encode_chain
from tests.support.authority import CA
from tests.support.failing import Kill, KilledError
from tests.support.pairs import pair_of
from tests.support.powercut import StandIn, standing_in

SITES = ("alpha", "beta")


class Machine(RuleBasedStateMachine):
    """Two sites, one store, one include directory; what the model knows is what was answered."""

    pairs: tuple[Pair, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        if not Machine.pairs:
            ca = CA.root().intermediate()
            Machine.pairs = tuple(pair_of(ca.issue("site.test")) for _ in range(4))
        self.exit = ExitStack()
        self.exit.enter_context(standing_in(StandIn()))
        self.root = Path(tempfile.mkdtemp(prefix="rotator-machine-"))
        self.exit.callback(shutil.rmtree, self.root)
        (self.root / "state").mkdir()
        self.store = Store(self.root / "state")
        self.setup = Setup(str(self.root / "state"), str(self.root / "etc"), "", "", frozenset(SITES))
        self.staged: dict[str, tuple[Staged, Pair]] = {}
        self.known: dict[str, dict[str, Pair]] = {site: {} for site in SITES}
        self.live = dict.fromkeys(SITES, "")
        self.before = dict.fromkeys(SITES, "")
        self.verified = dict.fromkeys(SITES, "")
        self.decided = dict.fromkeys(SITES, "")

    def teardown(self) -> None:
        self.exit.close()

    @initialize()
    def begin(self) -> None:
        """Each site begins with a pair that is live."""
        for site in SITES:
            self.stage(site, 0)
            self.commit(site)
            self.go(site, 0)

    # -- steps

    @rule(site=st.sampled_from(SITES), pair=st.integers(0, 3))
    def stage(self, site: str, pair: int) -> None:
        self.staged[site] = self.store.stage(site, [self.pairs[pair]], Provenance()), self.pairs[pair]

    @precondition(lambda self: self.staged)
    @rule(site=st.sampled_from(SITES))
    def commit(self, site: str) -> None:
        if site in self.staged:
            staged, pair = self.staged.pop(site)
            staged.flush()
            self.known[site][staged.commit().name] = pair

    @precondition(lambda self: self.staged)
    @rule(site=st.sampled_from(SITES))
    def discard(self, site: str) -> None:
        if site in self.staged:
            self.staged.pop(site)[0].discard()

    @rule(site=st.sampled_from(SITES), which=st.integers(0, 9))
    def go(self, site: str, which: int) -> None:
        """Forward or back: the same call."""
        self.apply({site: self.pick(site, which)})

    @rule(one=st.integers(0, 9), two=st.integers(0, 9))
    def go_together(self, one: int, two: int) -> None:
        self.apply({"alpha": self.pick("alpha", one), "beta": self.pick("beta", two)})

    @rule(site=st.sampled_from(SITES), which=st.integers(0, 9))
    def fail_together(self, site: str, which: int) -> None:
        """A batch of which one generation is not stored changes nothing."""
        other = "beta" if site == "alpha" else "alpha"
        wanted = {other: self.pick(other, which), site: "999999-0123456789ab"}
        assert apply(self.setup, Request(wanted, hup=False)).live == {s: self.live[s] for s in wanted}

    @rule(site=st.sampled_from(SITES))
    def mark_verified(self, site: str) -> None:
        self.store.mark_verified(site, self.live[site])
        self.verified[site] = self.live[site]

    @rule(site=st.sampled_from(SITES), keep=st.integers(0, 4))
    def prune(self, site: str, keep: int) -> None:
        newest = self.store.names(site)[-1]
        gone = self.store.prune(site, keep, frozenset({self.live[site], self.before[site]}))
        assert not {newest, self.live[site], self.before[site], self.verified[site]} & set(gone)
        for name in gone:
            del self.known[site][name]

    @rule(site=st.sampled_from(SITES), digest=st.text("0123456789abcdef", min_size=4, max_size=4))
    def decide(self, site: str, digest: str) -> None:
        self.store.write_intent(site, Intent(digest))
        self.decided[site] = digest

    @rule(site=st.sampled_from(SITES), calls=st.integers(0, 60), step=st.sampled_from(["swap", "go", "prune", "mark"]))
    def kill(self, site: str, calls: int, step: str) -> None:
        """A step that ends anywhere; afterwards a new process looks at what lies there."""
        target = self.pick(site, calls)
        protect = frozenset({self.live[site], self.before[site]})
        steps: dict[str, Callable[[], object]] = {
            "swap": lambda: self.swap(site, self.pairs[calls % 4]),
            "go": lambda: apply(self.setup, Request({site: target}, hup=False)),
            "prune": lambda: self.store.prune(site, 1, protect),
            "mark": lambda: self.store.mark_verified(site, self.live[site]),
        }
        self.staged.pop(site, None)
        try:
            with standing_in(Kill(calls)):
                steps[step]()
        except KilledError:
            pass
        self.look_again(site)

    # -- the model

    def swap(self, site: str, pair: Pair) -> None:
        staged = self.store.stage(site, [pair], Provenance())
        staged.flush()
        apply(self.setup, Request({site: staged.commit().name}, hup=False))

    def pick(self, site: str, which: int) -> str:
        names = sorted(self.known[site])
        return names[which % len(names)]

    def apply(self, wanted: dict[str, str]) -> None:
        done = apply(self.setup, Request(wanted, hup=False))
        assert (done.error, done.uncertain, done.live) == ("", False, wanted)
        assert done.before == {site: self.live[site] for site in wanted}
        for site, name in wanted.items():
            if name != self.live[site]:
                self.before[site], self.live[site] = self.live[site], name

    def look_again(self, site: str) -> None:
        """What a process that comes after a kill takes over: every stored generation is one of our pairs, whole."""
        by_chain = {pair.chain: pair for pair in self.pairs}
        stored = {name: self.store.load_pairs(site, name)[0] for name in self.store.names(site)}
        assert all(pair == by_chain[pair.chain] for pair in stored.values())
        self.known[site] = {name: by_chain[pair.chain] for name, pair in stored.items()}
        live = read_live(self.setup.include_dir, site)
        assert not live.problem
        if live.generation != self.live[site]:
            self.before[site], self.live[site] = self.live[site], live.generation
        if self.store.verified(site) != self.verified[site]:
            self.verified[site] = self.live[site]

    # -- what always holds

    @invariant()
    def the_include_names_a_whole_pair(self) -> None:
        for site, name in self.live.items():
            if name:
                where = self.root / "etc/pairs" / site / name
                pair = self.known[site][name]
                assert pair.key is not None
                assert read_live(self.setup.include_dir, site).generation == name
                assert (where / "fullchain.pem").read_bytes() == encode_chain(pair.chain)
                assert (where / "privkey.pem").read_bytes() == pair.key.reveal()

    @invariant()
    def the_copy_of_before_is_there_to_go_back_to(self) -> None:
        for site, name in self.before.items():
            if name and name in self.known[site]:
                assert (self.root / "etc/pairs" / site / name / "privkey.pem").exists()

    @invariant()
    def what_was_verified_and_decided_is_remembered(self) -> None:
        for site in SITES:
            assert self.store.verified(site) == self.verified[site]
            assert self.store.intent(site).digest == self.decided[site]

    @invariant()
    def names_go_up_and_no_pair_is_stored_twice(self) -> None:
        for site in SITES:
            names = self.store.names(site)
            assert len({name[7:] for name in names}) == len({int(name[:6]) for name in names}) == len(names)
            assert set(names) == set(self.known[site])

    @invariant()
    def mtimes_go_up(self) -> None:
        for site in SITES:
            home = self.root / "state/sites" / site / "generations"
            seconds = [int((home / name / "meta.json").stat().st_mtime) for name in self.store.names(site)]
            assert seconds == sorted(set(seconds))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
