"""The demo's processes: one group of them, started together and ended together, however the demo ends; nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_GUARD = (
    "trap '' TERM INT HUP; read -r _; "
    'kill -s TERM -- "-$$"; sleep 1; rm -rf -- "$1"; kill -s KILL -- "-$$"'
)  # fmt: skip
"""Ends the group and removes the tree when the demo itself was killed: its end of the pipe closes with it."""

END_WITHIN = 5.0
"""Seconds that all of them get to end by themselves."""


class Group:
    """A process group of its own, which no Ctrl-C of a terminal reaches; its leader only waits for the demo's end.

    Args:
        tree: the directory that nothing of is to be left.
    """

    def __init__(self, tree: Path) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._leader = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "rotator-demo", str(tree)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        # Without what would have the daemon speak to the manager of the shell that the demo was called from.
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "ROTATOR_CONFIG")
        }

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts a process whose words go to a file.

        Raises:
            OSError: it cannot be started.
        """
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=self._leader.pid,
                env=self._environment,
            )
        self._started.append(process)
        return process

    def call(self, command: Sequence[str], within: float) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end.

        Raises:
            OSError: it cannot be started.
            subprocess.TimeoutExpired: it did not end within so many seconds, and was killed.
        """
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within,
            process_group=self._leader.pid,
            env=self._environment,
            check=False,
        )

    def close(self) -> None:
        """Ends all of them, those that they have started too: each by itself first, so that it ends its own."""
        for process in reversed(self._started):
            process.terminate()
        deadline = time.monotonic() + END_WITHIN
        with suppress(subprocess.TimeoutExpired):
            for process in self._started:
                process.wait(max(0.0, deadline - time.monotonic()))
        os.killpg(self._leader.pid, signal.SIGKILL)  # the leader is not reaped yet: the group is ours
        for process in (*self._started, self._leader):
            process.wait()
        if self._leader.stdin is not None:
            self._leader.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Cleaning up takes a moment, and no impatient Ctrl-C is to cut it short."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
