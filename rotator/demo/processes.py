"""The demo's processes: one process group, which ends completely however the demo ends."""

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
"""The leader of the group. It waits on a pipe from the demo, which closes even if the demo is killed; then it ends the
group and removes the directory."""

END_WITHIN = 5.0
"""The seconds that the processes have to end after SIGTERM."""


class Group:
    """A separate process group, which a terminal's Ctrl-C does not reach. Its leader waits for the end of the demo.

    Args:
        tree: the directory to remove at the end.
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
        # Without these variables the daemon does not report to the service manager of the user's session.
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "ROTATOR_CONFIG")
        }

    def start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts a process whose output goes to a file.

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
            subprocess.TimeoutExpired: it did not end within `within` seconds and was killed.
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
        """Ends all processes: first each started one by SIGTERM, so that it ends its children, then the whole group."""
        for process in reversed(self._started):
            process.terminate()
        deadline = time.monotonic() + END_WITHIN
        with suppress(subprocess.TimeoutExpired):
            for process in self._started:
                process.wait(max(0.0, deadline - time.monotonic()))
        os.killpg(self._leader.pid, signal.SIGKILL)  # the leader is not reaped yet, so the id is still this group's
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
def signals_blocked() -> Iterator[None]:
    """Blocks SIGINT, SIGTERM and SIGHUP, so that a second Ctrl-C does not interrupt the clean-up."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
