"""The daemon's loop and commands of other processes at the same moment, a thousand times over one store and lock."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rotator import wiring
from rotator.cli.context import Context
from rotator.cli.rotation import Order, carry_out
from rotator.daemon.journal import Journal
from rotator.daemon.loop import Loop
from rotator.errors import RotatorError
from rotator.hands import Hands
from tests.authority import Issued, new_key, pem
from tests.faults.forked import counted
from tests.faults.shared_nginx import SharedNginx
from tests.looping import Looping
from tests.other_user import forked
from tests.waiting import wait_until
from tests.worlds import LISTENERS, NAME

RACES = 1000
BUSY, KILLED = 7, -9


class Race:
    """A daemon's loop in this process, and a host that commands in others share with it.

    Args:
        root: its tree.
        noise: where all chance comes from.
    """

    def __init__(self, root: Path, noise: random.Random) -> None:
        self.noise = noise
        self.daemon = Looping(root, start=False)
        self.world = self.daemon.world
        self.key = new_key()
        self.nginx = SharedNginx(self.world.nginx, root / "served", lambda: noise.random() * 0.003)
        self.world.nginx = self.nginx  # type: ignore[assignment]
        self.log = root / "log"
        self.loop = self.daemon.loop = Loop(self.daemon.ground(), Journal(os.open(self.log, os.O_WRONLY | os.O_APPEND)))
        self.loop.start(1.0)
        roots = root / "roots.pem"
        roots.write_bytes(pem(self.daemon.host.ca.cert))
        self.config = root / "rotator.toml"
        self.config.write_text(
            f'state_dir = "{self.world.state}"\nincoming = "{self.daemon.incoming}"\n'
            f'[nginx]\ninclude_dir = "{self.world.include_dir}"\napply = "direct"\n'
            f'[defaults]\nroots = "{roots}"\npolicy = "private-ca"\n'
            f'[[site]]\nname = "example"\nnames = ["{NAME}"]\nlisteners = ["{LISTENERS[0]}", "{LISTENERS[1]}"]\n'
        )
        self.files = root / "by-hand"
        self.files.mkdir()
        self.words = root / "words"
        self.history_read = self._history_size()

    def issue(self) -> Issued:
        begin = self.daemon.clock.now()
        return self.daemon.host.issuer.issue(NAME, key=self.key, not_before=begin)

    # -- the command, in a process of its own

    def _hands(
        self, config: object, apply: object, say: Callable[[str], None] = print, waiting: object = None
    ) -> Hands:
        """What a command is given as the hands of its host."""
        return replace(self.world.hands, say=say)

    def swap(self, new: Issued, *, wait: float, dies_at: int = -1) -> int:
        """Starts `rotator swap` with files. Returns its pid."""
        (self.files / "chain.pem").write_bytes(new.chain_pem)
        (self.files / "key.pem").write_bytes(new.key_pem)
        order = Order("example", (str(self.files / "chain.pem"),), (str(self.files / "key.pem"),), wait=wait)
        pause = self.noise.random() * 0.03

        def run() -> None:
            out = os.open(self.words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout = sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
            wiring.make_hands = self._hands
            time.sleep(pause)
            counted(dies_at)()
            code = 70
            try:
                code = carry_out(Context(self.config, plain=True), order)
            except RotatorError as e:
                print(e.message)
                code = int(e.exit)
            finally:
                sys.stderr.flush()
                os._exit(code)

        return forked(run)

    # -- what came of it

    def _history_size(self) -> int:
        return (self.world.state / "history.jsonl").stat().st_size

    def new_entries(self) -> list[dict[str, Any]]:
        """What was written into the history since the last look: whole lines, each one an entry."""
        with (self.world.state / "history.jsonl").open("rb") as f:
            f.seek(self.history_read)
            data = f.read()
        self.history_read += len(data)
        assert data.endswith(b"\n") or not data
        return [json.loads(line) for line in data.splitlines()]

    @property
    def served(self) -> tuple[bytes, ...]:
        return next(iter(self.nginx.shown.chains["example"].values()))

    def settle(self) -> None:
        """Passes of the loop until it has nothing more to do at once, or in the moment of a lock's next try."""
        for _ in range(20):
            due = self.loop.tick()
            if due > self.daemon.clock.time + 2.5:
                return
            self.daemon.clock.time = max(self.daemon.clock.time, due)


@pytest.mark.timeout(300)
def test_in_a_thousand_races_with_a_command_each_swap_happens_once_and_the_last_word_is_the_operators(
    memory: Path,
) -> None:
    noise = random.Random(3)
    race = Race(memory, noise)
    kinds: Counter[str] = Counter()
    for number in range(RACES):
        dropped, by_hand = race.issue(), race.issue()
        hups = race.nginx.shown.hups
        race.daemon.drop(dropped)
        dies_at = noise.randrange(110) if noise.random() < 0.2 else -1
        wait = 0.0 if noise.random() < 0.3 else 30.0
        child = race.swap(by_hand, wait=wait, dies_at=dies_at)
        for _ in range(noise.randrange(3)):
            race.loop.tick()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == KILLED:
            with race.world.locks.rotation("rotatord", 1.0) as lock:  # whoever takes the lock next does that first
                race.loop.tending.recover_interrupted(lock)
        race.settle()

        words = race.words.read_text()
        where = f"race {number}, exit {code}: {words}\n{race.log.read_text()[-2000:]}"
        entries = race.new_entries()
        told = [e["live"] for e in entries if e["result"] == "rotated"]
        live = race.world.live("example")
        shown = "by hand" if race.served == by_hand.chain_der else "dropped"
        assert race.served in (dropped.chain_der, by_hand.chain_der), where
        assert race.world.store.verified("example") == live, where
        assert told, where
        assert told[-1] == live, where
        assert len(told) == len(set(told)), where
        if code == KILLED:
            kinds["killed"] += 1
            assert dies_at >= 0, where
            # A drop that was decided before stays so; one that was not goes live, unless the operator's hold stands.
            intent = race.world.store.intent("example")
            assert shown == "dropped" or intent.hold or len(told) == 2, where
        elif code == BUSY:
            kinds["busy"] += 1
            assert f"pid {os.getpid()}" in words, where
            assert (wait, shown, told, len(entries)) == (0.0, "dropped", [live], 1), where
        else:
            assert (code, shown) == (0, "by hand"), where
            assert [e["result"] for e in entries] == ["rotated"] * len(entries), where
            kinds["alone" if len(entries) == 1 else "after the daemon"] += 1
            kinds["waited"] += f"waiting for pid {os.getpid()}" in words
        if code != KILLED:
            assert race.nginx.shown.hups - hups == len(entries), where
    assert "lock-busy" in race.log.read_text(), "the daemon never had to wait"
    assert (race.world.state / "lock").read_bytes() == b""
    assert not list(memory.rglob(".new-*"))
    print(kinds)
    for kind in ("killed", "busy", "alone", "after the daemon", "waited"):
        assert kinds[kind] >= 10, kinds


def test_a_lock_whose_holder_was_killed_is_free_at_once_and_tells_what_was_in_flight(tmp_path: Path) -> None:
    race = Race(tmp_path, random.Random(4))
    locks = race.world.locks

    def hold() -> None:
        with locks.rotation("somebody", 1.0) as lock:
            lock.begin(["example"])
            signal.pause()

    child = forked(hold)
    wait_until(lambda: b'"example"' in (race.world.state / "lock").read_bytes(), 10)
    with pytest.raises(RotatorError, match=f"pid {child} ") as told, locks.rotation("me", 0.0):
        pass
    assert told.value.exit == BUSY
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locks.rotation("me", 0.0) as lock:
        assert lock.interrupted == ("example",)
        lock.settled(["example"])
