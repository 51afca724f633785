"""A `rotator run` in a process of its own, started, told and ended by a test; no tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.edge import Edge
from tests.support.waiting import BUSY, wait_until

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    """One daemon.

    Args:
        process: it.
        log: what it says.
    """

    process: subprocess.Popen[bytes]
    log: Path

    def said(self, *words: str) -> bool:
        """Whether one line of its log holds all of these."""
        return any(all(word in line for word in words) for line in self.lines)

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def wait_for(self, *words: str, timeout: float = 20) -> None:
        wait_until(lambda: self.said(*words) or self._is_dead(), timeout, f"{words} in\n{self.log.read_text()}")
        assert self.said(*words), self.log.read_text()

    def _is_dead(self) -> bool:
        return self.process.poll() is not None

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> int:
        """Ends it; `timeout` is for a quiet machine. Returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout * BUSY)


@contextmanager
def running(
    edge: Edge,
    *,
    ready: bool = True,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    command: Sequence[str] = (),
) -> Iterator[Running]:
    """A daemon for this host, or what `command` starts as one; whatever becomes of it, it is gone afterwards."""
    log = edge.root / f"daemon-{len(list(edge.root.glob('daemon-*')))}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command or edge.command("run"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **(env or {})},
            preexec_fn=before,
        )
    daemon = Running(process, log)
    try:
        if ready:
            daemon.wait_for("ready:")
        yield daemon
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        print(log.read_text())
