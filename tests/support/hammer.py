"""New verified connections without end, from a process of its own, each one recorded; judging them is for the tests.

The process is this module run with `-m`. It ends when its standard input closes, so with the test, and in any case
after its longest time or greatest number of connections.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.client import ask, dial, fingerprint, leaf_of, strict_context

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Record:
    """One connection.

    Args:
        opened: CLOCK_MONOTONIC just before connect(), comparable between the processes of a host.
        closed: the same, when all was said.
        listener: where.
        name: for whom.
        leaf: SHA-256 (hex) of the leaf that a strict client has accepted; empty if the handshake failed.
        failure: why there was no handshake, or no answer to the request after it; empty if all went well.
    """

    opened: float
    closed: float
    listener: str
    name: str
    leaf: str
    failure: str


@dataclass(frozen=True)
class Records:
    """All connections of one hammering, in the order in which they were opened."""

    all: tuple[Record, ...]

    @property
    def failures(self) -> tuple[Record, ...]:
        """Those without a verified handshake or without an answer."""
        return tuple(r for r in self.all if r.failure)

    def saw(self, leaf: str, opened_after: float = 0.0) -> tuple[Record, ...]:
        """Those opened after this moment that were given this leaf (hex)."""
        return tuple(r for r in self.all if r.leaf == leaf and r.opened > opened_after)

    def leaves(self, opened_after: float = 0.0, listener: str = "") -> frozenset[str]:
        """The leaves (hex) that connections opened after this moment were given, at one listener or at all."""
        here = (r for r in self.all if r.leaf and r.opened > opened_after)
        return frozenset(r.leaf for r in here if listener in ("", r.listener))


class Hammer:
    """Opens connections to every target in turn, at a bounded rate, from `start()` until `stop()`.

    Args:
        targets: (listener, name) to connect to.
        root_pem: what the strict client trusts.
        directory: where the process may write its records.
        rate: connections per second, over all targets. A burst never makes up for lost time.
        threads: how many connections may be open at a time.
        max_seconds: when it ends by itself.
        max_records: after how many connections it ends by itself.
        request: whether each connection also asks for a page: a connection dropped after its handshake is a failure.
        timeout: of each connection, in seconds.
    """

    def __init__(
        self,
        targets: Sequence[tuple[str, str]],
        root_pem: str,
        directory: Path,
        *,
        rate: float = 200.0,
        threads: int = 4,
        max_seconds: float = 60.0,
        max_records: int = 50_000,
        request: bool = True,
        timeout: float = 30.0,
    ) -> None:
        self._order = _Order(
            [(listener, name) for listener, name in targets],
            root_pem,
            str(directory / "hammer.jsonl"),
            rate,
            threads,
            max_seconds,
            max_records,
            request,
            timeout,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 10.0) -> None:
        """Start it, and wait until every target has been tried once."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.hammer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(self._order)).encode() + b"\n")
        self._process.stdin.flush()
        killer = threading.Timer(timeout, self._process.kill)
        killer.start()
        ready = self._process.stdout.readline()
        killer.cancel()
        killer.join()
        if ready != b"ready\n":
            self.kill()
            raise AssertionError("the hammer did not begin")

    def stop(self) -> Records:
        """End it; everything it saw. AssertionError if it had ended before, as then it has not seen everything."""
        process = self.process
        ended_before = process.poll() is not None
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            status = process.wait(self._order.timeout + 10.0)
        finally:
            self.kill()
        if ended_before or status:
            raise AssertionError(f"the hammer had ended by itself (status {status}): its time or number was too small")
        with Path(self._order.output).open(encoding="utf-8") as lines:
            records = [Record(*json.loads(line)) for line in lines]
        return Records(tuple(sorted(records, key=lambda record: record.opened)))

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that hammers."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process

    def kill(self) -> None:
        """End it at once, if it is there."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


@dataclass(frozen=True)
class _Order:
    """What the process is told."""

    targets: list[tuple[str, str]]
    root_pem: str
    output: str
    rate: float
    threads: int
    max_seconds: float
    max_records: int
    request: bool
    timeout: float


class _Work:
    """The process: threads that take one connection after the other from a common timetable."""

    def __init__(self, order: _Order) -> None:
        self.order = order
        self.context = strict_context(order.root_pem)
        self.stopped = threading.Event()
        self.ends = time.monotonic() + order.max_seconds
        self.turn = threading.Lock()
        self.taken = 0
        self.next_slot = time.monotonic()
        self.written = threading.Lock()
        self.done = 0
        self.output = Path(order.output).open("w", encoding="utf-8")  # noqa: SIM115 - closed in run()

    def run(self) -> None:
        threads = [threading.Thread(target=self.connect_again_and_again) for _ in range(self.order.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.output.close()

    def connect_again_and_again(self) -> None:
        while (number := self.take_turn()) is not None:
            listener, name = self.order.targets[number % len(self.order.targets)]
            record = self.connect(listener, name)
            with self.written:
                self.output.write(json.dumps(list(asdict(record).values())) + "\n")
                self.done += 1
                if self.done == len(self.order.targets):
                    sys.stdout.write("ready\n")
                    sys.stdout.flush()

    def take_turn(self) -> int | None:
        """Wait for the next slot of the timetable; None when it is over."""
        with self.turn:
            number, self.taken = self.taken, self.taken + 1
            slot = max(self.next_slot, time.monotonic())
            self.next_slot = slot + 1 / self.order.rate
        over = number >= self.order.max_records or slot >= self.ends
        return None if over or self.stopped.wait(slot - time.monotonic()) else number

    def connect(self, listener: str, name: str) -> Record:
        leaf = failure = ""
        opened = time.monotonic()
        try:
            with (
                dial(listener, self.order.timeout) as raw,
                self.context.wrap_socket(raw, server_hostname=name) as tls,
            ):
                leaf = fingerprint(leaf_of(tls))
                if self.order.request and not (answer := ask(tls, name)).startswith("HTTP/1.1 200"):
                    failure = f"after the handshake: {answer or 'closed without an answer'}"
        except OSError as error:
            failure = f"{'after' if leaf else 'in'} the handshake: {type(error).__name__}: {error}"
        return Record(opened, time.monotonic(), listener, name, leaf, failure)


def main() -> None:
    """The process: one line of JSON says what to do; the end of standard input says when to stop."""
    fields = json.loads(sys.stdin.readline())
    work = _Work(_Order(**fields))

    def wait_for_the_end() -> None:
        sys.stdin.read()
        work.stopped.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    work.run()


if __name__ == "__main__":
    main()
