"""Three ways to put a renewal live, one after the other on one nginx, timed by one prover: bare HUP, rotator, a loop.

The prover is the bench's own and the same for all three. It looks at /proc every millisecond until no worker of before
accepts connections, and then makes one fresh handshake with the listener, which has to show the new leaf. The clock
runs from just before the rename that makes the last file whole until that handshake is over.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.hosts import SITE, Started, inotifywait, own_block, rotators_block
from tests.support import processes
from tests.support.authority import Issued
from tests.support.client import served_leaf
from tests.support.edge import Edge
from tests.support.nginx_server import ACTIVE, PairFiles, certificate_lines, include_line, write_include, write_pair
from tests.support.waiting import wait_until

LOOK_EVERY = 0.001

_LOOP = """\
inotifywait -m -q -e close_write,moved_to --format %f "$DROP" | while read -r file; do
    [ "$file" = privkey.pem ] || continue
    cp "$DROP/fullchain.pem" "$DROP/privkey.pem" "$LIVE/" && $NGINX -t -q && $NGINX -s reload
done
"""
"""As an administrator writes it, and written well: it acts once, on the file that comes last."""


@dataclass
class Times:
    """Seconds of each round.

    Args:
        bare: the include's rename and one HUP, with the files written beforehand.
        rotator: the daemon.
        loop: the shell loop.
        told: the daemon until the moment that it writes into its history, when it has proved and noted it itself.
        stages: what the daemon says of its stages.
    """

    bare: list[float] = field(default_factory=list)
    rotator: list[float] = field(default_factory=list)
    loop: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)


class Contest:
    """The rounds.

    Only one of the three is at work at a time: nginx's one server block names that one's files, and the daemon is
    stopped (SIGSTOP) while it is another's turn, or it would put right what it finds changed.

    Args:
        edge: the host.
        running: its daemon.
    """

    def __init__(self, edge: Edge, running: Started) -> None:
        self.edge, self.running = edge, running
        self.bare_include = edge.root / "bare.conf"
        self.loop_drop, self.loop_live = edge.root / "loop-drop", edge.root / "loop-live"
        self.times = Times()
        self._number = 0
        self._copied = 0.0
        self._begun = datetime.now(UTC)

    def run(self, rounds: int) -> Times:
        """So many rounds, after one that warms the caches."""
        first = self.edge.first[SITE]
        write_include(self.bare_include, write_pair(self.edge.root / "bare-0", first))
        write_pair(self.loop_live, first)
        self._copied = time.time()
        self.loop_drop.mkdir()
        self.running.settle(quiet=3.0)
        with self._loop():
            self._round()
            self.times = Times()
            for _ in range(rounds):
                self._round()
        return self.times

    def _round(self) -> None:
        self._number += 1
        self.running.process.send_signal(signal.SIGSTOP)
        try:
            own_block(self.edge, include_line(self.bare_include))
            self.times.bare.append(self._bare(self.edge.issue()))
            own_block(self.edge, certificate_lines(self._loops_files))
            self.times.loop.append(self._by_loop(self.edge.issue()))
            own_block(self.edge, rotators_block(self.edge))
        finally:
            self.running.process.send_signal(signal.SIGCONT)
        self.running.settle()
        self.times.rotator.append(self._by_rotator(self.edge.issue()))
        self.running.settle()

    # -- the three

    def _bare(self, new: Issued) -> float:
        files = write_pair(self.edge.root / f"bare-{self._number}", new)

        def change() -> None:
            write_include(self.bare_include, files)
            self.edge.nginx.hup()

        return self._timed(new, change)

    def _by_loop(self, new: Issued) -> float:
        # nginx >= 1.27.4 keeps a certificate whose whole-second mtime is what it was: such a copy would not be seen.
        time.sleep(max(0.0, self._copied + 1.1 - time.time()))
        took = self._timed(new, _writing(self.loop_drop, new))
        self._copied = time.time()
        return took

    def _by_rotator(self, new: Issued) -> float:
        drop = self.edge.incoming / SITE
        drop.mkdir(exist_ok=True)
        before = len(self.edge.history.entries(SITE))
        took = self._timed(new, _writing(drop, new))
        entry = wait_until(lambda: self.edge.history.entries(SITE)[before:], 10.0, self.running.log.read_text())[0]
        assert entry.result == "rotated", entry
        assert entry.at is not None
        self.times.told.append((entry.at - self._begun).total_seconds())
        self.times.stages.append(dict(entry.stages))
        return took

    @property
    def _loops_files(self) -> PairFiles:
        return PairFiles(self.loop_live / "fullchain.pem", self.loop_live / "privkey.pem")

    @contextmanager
    def _loop(self) -> Iterator[None]:
        """The shell loop, until the end of the block."""
        inotifywait()
        nginx = " ".join(self.edge.nginx.command)
        variables = {"DROP": str(self.loop_drop), "LIVE": str(self.loop_live), "NGINX": nginx, "PATH": "/usr/bin:/bin"}
        log = self.edge.root / "loop.log"
        with log.open("wb") as out:
            shell = subprocess.Popen(
                ["/bin/sh", "-c", _LOOP],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            wait_until(lambda: any("inotifywait" in p.title for p in processes.in_session(shell.pid)), 10.0)
            time.sleep(0.3)  # it says nothing when its watch stands
            yield
        finally:
            for process in processes.in_session(shell.pid):
                subprocess.run(["kill", str(process.pid)], check=False, stderr=subprocess.DEVNULL)
            shell.wait(10)

    # -- the prover

    def _timed(self, new: Issued, change: Callable[[], None]) -> float:
        """Seconds from just before the change until nothing but the new leaf can be served."""
        nginx, leaf = self.edge.nginx, new.chain_der[0]
        old = nginx.active_workers()
        self._begun, begun = datetime.now(UTC), time.monotonic()
        change()
        while any(_accepts(worker) for worker in old):
            assert time.monotonic() - begun < 60.0, f"{nginx.words()}\n{self.running.log.read_text()}"
            time.sleep(LOOK_EVERY)
        for listener in self.edge.addresses:
            assert served_leaf(listener, self.edge.name(SITE)) == leaf, "no old worker accepts, but another leaf shows"
        return time.monotonic() - begun


def _accepts(worker: processes.Process) -> bool:
    now = processes.look(worker.pid)
    return now is not None and now.started == worker.started and now.title == ACTIVE


def _writing(drop: Path, new: Issued) -> Callable[[], None]:
    """Writes all of the drop but the last rename, which is left to be done."""
    (drop / ".fullchain.pem.new").write_bytes(new.chain_pem)
    last = drop / ".privkey.pem.new"
    last.touch(0o600)
    last.write_bytes(new.key_pem)
    (drop / ".fullchain.pem.new").rename(drop / "fullchain.pem")
    time.sleep(0.1)  # whoever listens has heard of the first file, and of the temporary ones

    def change() -> None:
        last.rename(drop / "privkey.pem")

    return change
