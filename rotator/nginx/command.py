"""How this host's nginx is called, for a full configuration test; the only place that runs the configured command."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rotator.core.model import Workers
from rotator.nginx import workers
from rotator.nginx.pair_test import CandidateTest, Verdict, cannot_run


@dataclass(frozen=True, slots=True)
class Nginx:
    """One nginx of this host.

    Args:
        command: how it is called, with the options that select its configuration, e.g. `("nginx", "-c", "/x.conf")`.
        pid_file: what its `pid` directive names.
        tested: its own test by somebody who may read all that it reads; None to run it here.
    """

    command: tuple[str, ...]
    pid_file: Path
    tested: Callable[[], Verdict] | None = None

    def workers(self) -> Workers | None:
        """See `workers.look`."""
        return workers.look(self.pid_file)

    def test_candidate(self, directory: Path, files: Sequence[tuple[str, str]]) -> CandidateTest:
        """Starts a test of these (chain, key) files alone."""
        return CandidateTest(self.command[0], directory, files)

    def full_test(self, within: float = 45.0) -> Verdict:
        """`nginx -t` of the whole configuration, as a cold start would read it.

        Args:
            within: seconds; 10,000 server blocks take 14.

        Raises:
            RotatorError: `nginx-missing` or `io-error` if the program cannot be run; what `tested` raises.
        """
        if self.tested:
            return self.tested()
        try:
            done = subprocess.run(
                [*self.command, "-t"], stdin=subprocess.DEVNULL, capture_output=True, timeout=within, check=False
            )
        except subprocess.TimeoutExpired:
            return Verdict(False, (f"nginx -t did not answer within {within:g} s",))
        except OSError as e:
            raise cannot_run(self.command[0], e) from e
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        emerg = [line for line in lines if "[emerg]" in line]
        return Verdict(done.returncode == 0, tuple(line[:500] for line in emerg[:10]))
