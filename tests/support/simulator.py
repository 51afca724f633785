"""A simulated nginx on a simulated clock, for what the real one cannot be made to do at a given moment.

It reads the real include and root's real copies, has workers that come and go as nginx's do, and lets a test bend each
step by a knob. The store, the include and the privileged step around it are the real ones.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rotator.core.model import KeyType, Pair, Served, Site, Target, Workers
from rotator.nginx.pair_trial import NginxVerdict
from rotator.privsep.apply import Applied, Request, Setup, apply, read_live
from rotator.rotation.ports import Ports
from rotator.storage.generations import Store
from rotator.storage.history import History
from rotator.storage.locks import Locks
from tests.support.authority import NOW

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\n(.+?)-----END CERTIFICATE-----\n", re.DOTALL)
Chains = Mapping[KeyType, tuple[bytes, ...]]


class SimClock:
    """Time that passes only in a sleep or a handshake; what is due meanwhile happens in between."""

    def __init__(self, start: datetime = NOW) -> None:
        self._start = start
        self.time = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.time)

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        end = self.time + seconds
        while self._due and self._due[0][0] <= end:
            when, _, what = heapq.heappop(self._due)
            self.time = max(self.time, when)
            what()
        self.time = end

    def at(self, delay: float, what: Callable[[], None]) -> None:
        """Have something happen `delay` seconds from now."""
        heapq.heappush(self._due, (self.time + delay, next(self._count), what))


@dataclass(slots=True)
class Worker:
    """One worker: what it loaded, when it was started (in ticks of 10 ms), and whether it accepts connections."""

    pid: int
    loaded: dict[str, Chains]
    started: int
    active: bool = True


@dataclass
class SimNginx:
    """nginx with knobs.

    Args:
        include_dir: what its configuration includes.
        clock: the time it lives in.
        running: whether there is a master.
        worker_processes: how many workers each generation has.
        parse: seconds a reload reads the configuration.
        overlap: seconds for which old and new workers both accept; 100 ms in the real one.
        ignores_reload: it takes a HUP and does nothing.
        refuses: words with which it refuses reloads; `{}` stands for the site's copies.
        refuses_if_named: a generation whose naming makes it refuse; empty for any.
        refuses_untested: its `-t` does not show what it refuses.
        serves_old_for: seconds after a reload for which the new workers still show the old pair.
        stuck: listeners that go on showing the chains they showed first.
        dead: listeners that nobody listens at.
        upgrading: a binary upgrade is in flight.
        invisible: its processes cannot be seen.
        refused_candidates: words with which its `-t` refuses a pair alone.
        full_test_words: words with which its `-t` of everything fails.
        full_test_refuses: directories of copies; the first that an include names is named by that test.
        newest_answers: handshakes reach the newest active worker (the oldest otherwise): the worst for a lazy proof.
        during_handshakes: called once, in the middle of the next round of handshakes.
    """

    include_dir: Path
    clock: SimClock
    sites: Sequence[Site] = ()
    running: bool = True
    worker_processes: int = 2
    parse: float = 0.005
    overlap: float = 0.1
    ignores_reload: bool = False
    refuses: tuple[str, ...] = ()
    refuses_if_named: str = ""
    refuses_untested: bool = False
    serves_old_for: float = 0.0
    stuck: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    upgrading: bool = False
    invisible: bool = False
    refused_candidates: tuple[str, ...] = ()
    full_test_words: tuple[str, ...] = ()
    full_test_refuses: tuple[str, ...] = ()
    newest_answers: bool = True
    during_handshakes: Callable[[], None] | None = None
    hups: int = 0
    tests: int = 0
    full_tests: int = 0
    workers_: list[Worker] = field(default_factory=list)
    _pids: itertools.count[int] = field(default_factory=lambda: itertools.count(1001))
    _stuck_at: dict[str, dict[str, Chains]] = field(default_factory=dict)

    def start(self) -> None:
        """A cold start: it reads what lies there."""
        self.running = True
        self.workers_ = [self._worker(self._read()) for _ in range(self.worker_processes)]

    def stop(self) -> None:
        self.running, self.workers_ = False, []

    def wire_wrongly(self, listener: str) -> None:
        """From now on this listener shows what it shows now, as a server block does that names copies of the files."""
        self.stuck.add(listener)
        self._stuck_at[listener] = dict(self._answering().loaded)

    # -- the master

    def hup(self, _: Setup) -> tuple[int, str, tuple[str, ...]]:
        """What rotator's signal does."""
        self.hups += 1
        if not self.running:
            return 0, "gone", ()
        if self.ignores_reload:
            return 1000, "unknown", ()
        if self.refuses and self._is_named(self.refuses_if_named):
            self.clock.sleep(self.parse)
            return 1000, "refused", self.refuses
        self.reload()
        return 1000, "accepted", ()

    def reload(self, read_now: Mapping[str, Chains] | None = None) -> None:
        """A reload, ours or somebody else's; `read_now`: it has read its files already."""
        loaded = dict(read_now) if read_now is not None else self._read()
        old = [w for w in self.workers_ if w.active]

        def spawn() -> None:
            show = dict(old[-1].loaded) if self.serves_old_for and old else loaded
            new = [self._worker(dict(show)) for _ in range(self.worker_processes)]
            self.workers_ += new
            if self.serves_old_for:
                for worker in new:
                    self.clock.at(self.serves_old_for, lambda w=worker: w.loaded.update(loaded))  # type: ignore[misc]

        def retire() -> None:
            for worker in old:
                worker.active = False

        self.clock.at(self.parse, spawn)
        self.clock.at(self.parse + self.overlap, retire)
        self.clock.sleep(self.parse)

    def respawn(self) -> None:
        """A worker dies and the master starts another in its place, from what it has loaded."""
        dead = next(w for w in self.workers_ if w.active)
        self.workers_.remove(dead)
        self.workers_.append(self._worker(dead.loaded))

    def _worker(self, loaded: dict[str, Chains]) -> Worker:
        return Worker(next(self._pids), loaded, int(self.clock.time * 100))

    def snapshot(self) -> dict[str, Chains]:
        """What a reload that begins now would read."""
        return self._read()

    def _is_named(self, generation: str) -> bool:
        return not generation or any(
            generation == read_live(str(self.include_dir), site.name).generation for site in self.sites
        )

    # -- the port

    def workers(self) -> Workers | None:
        if self.invisible:
            return None
        if not self.running:
            return Workers(None)
        active = frozenset((w.pid, w.started) for w in self.workers_ if w.active)
        draining = frozenset((w.pid, w.started) for w in self.workers_ if not w.active)
        return Workers(1000, active, draining, self.upgrading)

    def test_candidate(self, directory: Path, files: Sequence[tuple[str, str]]) -> SimTest:
        self.tests += 1
        assert all((directory / name).is_file() for pair in files for name in pair)
        return SimTest(NginxVerdict(not self.refused_candidates, self.refused_candidates))

    def full_test(self) -> NginxVerdict:
        self.full_tests += 1
        named = "".join(path.read_text() for path in sorted(self.include_dir.glob("*.conf")))
        bad = [f'cannot load certificate "{path}/fullchain.pem"' for path in self.full_test_refuses if path in named]
        refused = self.refuses if not self.refuses_untested and self._is_named(self.refuses_if_named) else ()
        words = self.full_test_words or tuple(bad[:1]) or refused
        return NginxVerdict(not words, words)

    # -- handshakes

    def probe(self, targets: Sequence[Target], within: float) -> tuple[Served, ...]:
        served = []
        for number, target in enumerate(targets):
            if self.during_handshakes and number == len(targets) // 2:
                hook, self.during_handshakes = self.during_handshakes, None
                hook()
            self.clock.sleep(0.001)
            served.append(self._handshake(target))
        return tuple(served)

    def _handshake(self, target: Target) -> Served:
        if not self.running or target.listener in self.dead:
            return Served(target, failure="connection refused")
        loaded = self._stuck_at.get(target.listener) or self._answering().loaded
        chains = loaded.get(target.site, {})
        chain = chains.get(target.key_type) if target.key_type else next(iter(chains.values()), None)
        return Served(target, chain) if chain else Served(target, failure="the TLS handshake failed: no certificate")

    def _answering(self) -> Worker:
        active = [w for w in self.workers_ if w.active]
        return active[-1] if self.newest_answers else active[0]

    def _read(self) -> dict[str, Chains]:
        found: dict[str, Chains] = {}
        for site in self.sites:
            include = self.include_dir / f"{site.name}.conf"
            if not include.exists():
                continue
            chains: dict[KeyType, tuple[bytes, ...]] = {}
            for path in re.findall(r"ssl_certificate +(\S+);", include.read_text()):
                kind = Path(path).name.partition("-")[0]
                kind_of = KeyType(kind) if kind in tuple(KeyType) else KeyType.ECDSA
                blocks = _BLOCK.findall(Path(path).read_bytes())
                chains[kind_of] = tuple(base64.b64decode(b.replace(b"\n", b"")) for b in blocks)
            found[site.name] = chains
        return found


@dataclass(frozen=True, slots=True)
class SimTest:
    """An `nginx -t` that has answered already."""

    answer: NginxVerdict

    def verdict(self) -> NginxVerdict:
        return self.answer


@dataclass
class World:
    """A host: a real store and include directory, a simulated nginx, and the ports between them."""

    root: Path
    sites: tuple[Site, ...]
    clock: SimClock = field(default_factory=SimClock)
    prove_within: float | None = None

    def __post_init__(self) -> None:
        self.state = self.root / "state"
        self.include_dir = self.root / "include"
        self.state.mkdir(mode=0o750)
        self.nginx = SimNginx(self.include_dir, self.clock, self.sites)
        self.store, self.history, self.locks = Store(self.state), History(self.state), Locks(self.state)
        self.said: list[str] = []
        self.applied: list[Applied] = []
        self.rehearsal = ""
        self.before_apply: Callable[[Mapping[str, str], bool], None] = lambda generations, hup: None
        self.setup = Setup(
            str(self.state), str(self.include_dir), "/nowhere", "", frozenset(s.name for s in self.sites)
        )

    def apply(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        self.before_apply(generations, hup)
        done = apply(self.setup, Request(dict(generations), hup), self.nginx.hup)
        self.applied.append(done)
        return done

    def live(self, site: str) -> str:
        return read_live(str(self.include_dir), site).generation

    @property
    def ports(self) -> Ports:
        def rehearse(pair: Pair, name: str) -> str:
            return self.rehearsal

        return Ports(
            store=self.store,
            history=self.history,
            locks=self.locks,
            apply=self.apply,
            live=lambda site: read_live(str(self.include_dir), site),
            nginx=self.nginx,
            probe=self.nginx.probe,
            rehearse=rehearse,
            clock=self.clock,
            include_dir=str(self.include_dir),
            prove_within=self.prove_within,
            say=self.said.append,
        )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
