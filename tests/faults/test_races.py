"""The daemon and commands of other processes at the same moment, hundreds of times over both real nginx.

Several hosts race at the same time, each with an nginx, a store and a daemon of its own, because a race is spent
waiting for nginx. Everything runs as it does on a host, in processes of its own; only no interpreter is started.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rotator.core.errors import RotatorError
from rotator.storage.locks import Locks
from tests.support.authority import CA, Issued
from tests.support.client import fingerprint
from tests.support.edge import Edge
from tests.support.forked import Call, Life, call, counted, deliver, host, life, strays
from tests.support.nginx_server import NginxServer
from tests.support.other_user import forked, in_children
from tests.support.tiers import Size
from tests.support.waiting import PATIENCE, wait_until

HOSTS = 6
RACES = 84
"""On each host: some five hundred with each nginx."""
CONTESTS = {"swap": 30, "rollback": 20, "both": 10, "impatient": 20, "take": 10, "killed": 10}
"""What races with the daemon, and how often: a swap by hand, a rollback, one of each, a swap that does not wait for the
lock, a swap of what lies in the drop, a swap that is killed at any of its steps and then repeated."""
BUSY, DEFERRED, KILLED = 7, 8, -9
TICK = 0.01
"""Seconds by which the times of files may be behind the clock."""

Entry = dict[str, Any]


@dataclass
class Page:
    """The daemon's page at one moment.

    Args:
        series: value by name with labels.
    """

    series: dict[str, float] = field(default_factory=dict)

    def one(self, name: str, **labels: str) -> float:
        """The value of the one series of this name that has these labels; NaN if there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        names = (f"rotator_{name}", f"rotator_{name}{{")
        found = [
            value
            for key, value in self.series.items()
            if (key == names[0] or key.startswith(names[1])) and all(word in key for word in wanted)
        ]
        return found[0] if len(found) == 1 else float("nan")


class Racer:
    """One of the hosts.

    Args:
        edge: it.
        daemon: its daemon, which is ready.
        noise: where all chance comes from.
    """

    def __init__(self, edge: Edge, daemon: Life, noise: random.Random) -> None:
        self.edge, self.daemon, self.noise = edge, daemon, noise
        self.kinds: Counter[str] = Counter()
        self.drop = edge.incoming / "example"
        self.history = edge.state / "history.jsonl"
        self.read, self.logged = self.history.stat().st_size, edge.nginx.error_log_size
        self.page = self.quiet()

    # -- what is known of it

    def news(self) -> list[Entry]:
        """What was written into the history since the last look: whole lines, each one an entry."""
        with self.history.open("rb") as f:
            f.seek(self.read)
            data = f.read()
        self.read += len(data)
        assert data.endswith(b"\n") or not data, "a line is torn"
        return [json.loads(line) for line in data.splitlines()]

    def hups(self) -> int:
        """Reloads that nginx was told since the last look."""
        said = self.edge.nginx.error_log_text(self.logged)
        self.logged = self.edge.nginx.error_log_size
        return said.count("signal 1 (SIGHUP) received")

    def scrape(self) -> Page:
        with urllib.request.urlopen(f"http://{self.edge.metrics}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return Page({name: float(value) for name, value in pairs})

    def quiet(self) -> Page:
        """Has the daemon look at everything anew, and waits until it has, has nothing left to do, and shows that."""
        begun, said = time.time(), self.daemon.words.count("reloaded:")
        self.daemon.tell(signal.SIGHUP)
        wait_until(lambda: self.daemon.words.count("reloaded:") > said, 20, "it has read its configuration anew")
        page = Page()

        def rests() -> bool:
            nonlocal page
            assert not self.daemon.is_over(), self.daemon.words
            page = self.scrape()
            anew = page.one("config_last_reload_success_timestamp_seconds")
            shown = self.edge.store.fingerprints("example", self.edge.live())
            return (
                begun <= anew <= page.one("scan_last_success_timestamp_seconds")
                and page.one("certificate_info", fingerprint_sha256=shown["ecdsa"]) == 1
                and page.one("served_certificate_matches_disk") == 1
                and not (self.edge.state / "lock.json").exists()
            )

        wait_until(rests, 20, "the daemon is done, and shows it", poll=0.025)  # making the page costs some
        return page

    # -- one race

    def start(self, name: str, *words: str | Path, before: Callable[[], object] = lambda: None) -> Call:
        """A command that begins at any moment around that at which the daemon takes the drop."""
        pause = self.noise.random() * (0.05 if name == "deliver" else 0.15)

        def at_last() -> None:
            time.sleep(pause)  # the moment is to be any
            before()

        return call(self.edge, name, *words, before=at_last)

    def files(self, new: Issued, name: str) -> tuple[Path, Path]:
        return self.edge.write_pair(new, self.edge.root / name)

    def race(self, number: int) -> None:
        kind = self.noise.choices(list(CONTESTS), list(CONTESTS.values()))[0]
        if kind == "take":  # not what was held in the race before
            for path in self.drop.iterdir():
                path.unlink()
        begin, name = datetime.now(UTC) - timedelta(hours=1), self.edge.name("example")
        # of the very same age: neither is a step back for the other
        dropped, by_hand = (self.edge.issuer.issue(name, not_before=begin) for _ in range(2))
        chain, key = self.files(by_hand, "by-hand")
        swap: list[str | Path] = ["swap", "example", "--cert", chain, "--key", key]
        delivery = self.start("deliver", "deliver", "--wait", "example", *self.files(dropped, "delivered"))
        calls: dict[str, Call] = {}
        match kind:
            case "swap":
                calls["swap"] = self.start("swap", *swap)
            case "rollback":
                calls["rollback"] = self.start("rollback", "rollback", "example")
            case "both":
                calls["swap"] = self.start("swap", *swap)
                calls["rollback"] = self.start("rollback", "rollback", "example")
            case "impatient":
                calls["swap"] = self.start("swap", *swap, "--wait", "0")
            case "take":
                calls["swap"] = self.start("swap", "swap", "example")
            case "killed":
                calls["swap"] = self.start("swap", *swap, before=counted(self.noise.randrange(110)))
        codes = {name: one.wait() for name, one in calls.items()}
        codes["deliver"] = delivery.wait()
        if kind == "killed" and codes["swap"] == KILLED:
            self.kinds["killed"] += 1
            killed = call(self.edge, "swap", *swap)
            assert killed.wait() == 0, killed.words  # the same again, as its user would
            calls.clear()
        before, self.page = self.page, self.quiet()
        entries, hups = self.news(), self.hups()
        said = [f"{name} exits {codes[name]}: {one.words}" for name, one in {**calls, "deliver": delivery}.items()]
        log = self.daemon.words[-3000:]
        try:
            self.check_end(entries)
            self.check_copies(swept=kind != "killed")
            if kind != "killed":
                self.check_order(entries, by_hand="" if kind == "take" else "swap")
            self.check_delivery(delivery, dropped, entries)
            for name, one in calls.items():
                self.check_command(name, one, kind, entries)
            self.check_page(before, entries)
            if calls:
                assert hups == sum(_has_reloaded(e) for e in entries), "a reload that nobody tells of"
            if kind in ("take", "killed"):
                assert self.edge.shown() == {(dropped if kind == "take" else by_hand).chain_der}
        except Exception as e:
            words = "\n".join(said)
            shown = "\n".join(json.dumps(entry) for entry in entries)
            raise AssertionError(f"race {number} with {kind}: {e!r}\n{words}\n{shown}\n{log}") from e

    # -- what holds after each

    def check_end(self, entries: list[Entry]) -> None:
        """One winner: what was told last is live, verified, and what a client is shown."""
        told = [e for e in entries if e["result"] == "rotated"]
        assert told, "nobody has won"
        assert {e["result"] for e in entries} <= {"rotated", "unchanged"}
        live = self.edge.live()
        assert (told[-1]["live"], self.edge.store.verified("example")) == (live, live)
        ((leaf, *_),) = self.edge.shown()
        assert fingerprint(leaf) in told[-1]["fingerprints"].values()
        lives = [e["live"] for e in told]
        assert all(one != other for one, other in pairwise(lives)), "one was put live twice"
        for one, other in pairwise(entries):  # times are told in whole milliseconds
            spent = other["stages"].get("apply", 0.0) + other["stages"].get("prove", 0.0)
            assert _when(other) - spent >= _when(one) - 0.002, "two rotated at the same time"

    def check_copies(self, *, swept: bool) -> None:
        """What nginx could be told to read next is whole, and what is stored as well; nothing half made is left."""
        store, home = self.edge.store, self.edge.state / "sites/example/generations"
        for name in store.names("example"):
            store.load("example", name)
        copies = list((self.edge.include_dir / "pairs/example").iterdir())
        assert self.edge.live() in {one.name for one in copies}
        for one in copies:
            assert not (swept and one.name.startswith(".")), f"{one} was left"
            if (stored := home / one.name).is_dir():
                assert {p.name: p.read_bytes() for p in one.iterdir()} == {
                    p.name: p.read_bytes() for p in stored.glob("*.pem")
                }

    def check_order(self, entries: list[Entry], by_hand: str) -> None:
        """Once a command has had its way, nothing fights it but what was delivered later."""
        delivered = max(path.stat().st_ctime for path in self.drop.iterdir())
        ports = [n for n, e in enumerate(entries) if e["trigger"] in (by_hand, "rollback") and e["result"] == "rotated"]
        heeding = [n for n in ports if _when(entries[n]) > delivered + TICK]
        fought = [e for n in heeding for e in entries[n:] if e["trigger"] == "drop"]
        assert not fought, "what lay in the drop already was put in the place of what the operator had asked for"
        self.kinds["command last"] += bool(ports) and ports[-1] == len(entries) - 1
        self.kinds["daemon last"] += entries[-1]["trigger"] == "drop"
        self.kinds["daemon alone"] += len(entries) == 1 and entries[0]["trigger"] == "drop"

    def check_delivery(self, delivery: Call, dropped: Issued, entries: list[Entry]) -> None:
        """Who has delivered is told what the history tells of that very pair, or who holds it."""
        told, intent = delivery.told, self.edge.store.intent("example")
        if "error" in told:
            assert (delivery.status, told["error"]["code"]) == (DEFERRED, "held")
            assert intent.hold
            assert f"held by {intent.hold.by} since" in told["error"]["message"]
            self.kinds["held"] += 1
            return
        assert delivery.status == told["exit"] == 0
        assert told["outcome"] in entries, "the history knows nothing of it"
        assert told["outcome"]["fingerprints"]["ecdsa"] == fingerprint(dropped.chain_der[0]), "it is about another pair"

    def check_command(self, name: str, one: Call, kind: str, entries: list[Entry]) -> None:
        """A command has its way, tells what the history tells, or says who holds the lock and has done nothing."""
        told, mine = one.told, [e for e in entries if e["trigger"] == name]
        if one.status == BUSY and kind == "impatient":
            assert told["error"]["code"] == "lock-busy"
            assert f"pid {self.daemon.pid} (rotatord, since " in told["error"]["message"]
            assert mine == []
            self.kinds["busy"] += 1
            return
        assert one.status == told.pop("exit") == 0
        assert told["result"] == "rotated" or (kind == "take" and told["result"] == "unchanged")
        own = told.keys() & mine[0].keys()
        assert {"result", "reason", "generation", "live", "at"} <= own
        assert [{k: e[k] for k in own} for e in mine] == [{k: told[k] for k in own}]
        self.kinds["waited"] += "waiting for pid" in one.err.read_text()

    def check_page(self, before: Page, entries: list[Entry]) -> None:
        """It counts everybody's swaps and the daemon's own reloads, and shows how the last swap of all ended."""
        own = [e for e in entries if e["who"] == "rotatord"]
        for trigger in ("drop", "recover", "swap", "rollback"):
            labels = {"site": "example", "trigger": trigger}
            grown = self.page.one("swap_attempts_total", **labels) - before.one("swap_attempts_total", **labels)
            assert grown == sum(e["trigger"] == trigger and e["result"] == "rotated" for e in entries), labels
        reloads = self.page.one("nginx_reloads_total") - before.one("nginx_reloads_total")
        assert reloads == sum(_has_reloaded(e) for e in own)
        assert self.page.one("last_swap_successful") == 1
        last = max(_when(e) for e in entries if e["result"] == "rotated")
        assert abs(self.page.one("last_swap_success_timestamp_seconds") - last) < 0.002, "another swap is the last one"


def _when(entry: Entry) -> float:
    return datetime.fromisoformat(entry["at"]).timestamp()


def _has_reloaded(entry: Entry) -> bool:
    return bool(entry["stages"].get("apply"))


def _races(binary: Path, root: Path, root_ca: CA, issuing_ca: CA, seed: str, races: int) -> Counter[str]:
    """All races of one host. Returns how often what happened."""
    extra = 'scan_interval = "500ms"\nsettle = "1s"\n'
    with host(binary, root, issuing_ca, root_ca, extra=extra, log_level="notice") as edge:
        assert edge.swap("example", edge.issue()).reason == "rotated"  # there is a way back
        with life(edge) as daemon:
            daemon.wait_for("ready:")
            wait_until(lambda: daemon.said("metrics:"), 10)
            racer = Racer(edge, daemon, random.Random(seed))
            for number in range(races):
                racer.race(number)
            assert daemon.end() == 0
        racer.kinds["told busy"] += "lock-busy" in daemon.words
        assert edge.nginx.test_cli().returncode == 0
        last = edge.cli("swap", "example", *_pair_words(edge))
        assert last.returncode == 0, last.stderr
        assert strays(edge) == [], "it was killed, and the next rotation has not swept"
    return racer.kinds


def _pair_words(edge: Edge) -> list[str | Path]:
    chain, key = edge.write_pair(edge.issue())
    return ["--cert", chain, "--key", key]


@pytest.mark.soak
@pytest.mark.each_nginx
@pytest.mark.timeout(1200)  # many races, on machines that others use too
def test_in_five_hundred_races_with_a_command_one_wins_all_tell_the_same_and_the_last_word_is_the_operators(
    nginx_binary: Path, memory: Path, root_ca: CA, issuing_ca: CA, size: Size
) -> None:
    hosts = [memory / str(number) for number in range(size.count(HOSTS, 2))]
    races = size.count(RACES, 15)
    works = [
        partial(_races, nginx_binary, root, root_ca, issuing_ca, f"{size.seed} {root.name}", races) for root in hosts
    ]
    kinds: Counter[str] = sum(in_children(works), Counter())
    print(kinds)
    if size.whole:  # a few races need not show everything that can happen
        for kind in ("killed", "busy", "waited", "held", "command last", "daemon last", "daemon alone"):
            assert kinds[kind] >= HOSTS, kinds
        assert kinds["told busy"] == HOSTS, "a daemon never had to wait"


def test_a_swap_of_the_drop_takes_what_lies_there_when_its_turn_comes_and_not_when_it_was_called(
    nginx: NginxServer, tmp_path: Path, root_ca: CA, issuing_ca: CA
) -> None:
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1)
    edge.start()
    (edge.incoming / "example").mkdir()
    deliver(edge, edge.issue())
    newer = edge.issue()
    with edge.locks.rotation("somebody", 1.0):
        swap = call(edge, "swap", "swap", "example")
        wait_until(lambda: "waiting for pid" in swap.words, 20)
        digest = deliver(edge, newer)
    assert (swap.wait(), swap.told["result"]) == (0, "rotated"), swap.words
    assert edge.shown() == {newer.chain_der}
    assert edge.store.intent("example").digest == digest


def test_a_lock_whose_holder_was_killed_is_free_at_once_and_tells_what_was_in_flight(tmp_path: Path) -> None:
    locks = Locks(tmp_path)

    def hold() -> None:
        with locks.rotation("somebody", 1.0) as lock:
            lock.begin(["example"])
            signal.pause()

    child = forked(hold)
    note = tmp_path / "lock.json"
    wait_until(lambda: note.exists() and b'"example"' in note.read_bytes(), 10)
    with pytest.raises(RotatorError, match=f"pid {child} ") as told, locks.rotation("me", 0.0):
        pass
    assert told.value.exit == BUSY
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locks.rotation("me", 0.0) as lock:
        assert lock.interrupted == ("example",)
        lock.settled(["example"])
