"""The nginx of this host: its configured command, its tests and its workers. Only this module runs that command."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rotator.core.model import Workers
from rotator.core.text import shown
from rotator.nginx import workers
from rotator.nginx.pair_trial import CandidateTest, NginxVerdict, cannot_run


@dataclass(frozen=True, slots=True)
class Nginx:
    """One nginx of this host.

    Args:
        command: the program and the options that select its configuration, e.g. `("nginx", "-c", "/x.conf")`.
        pid_file: the file that its `pid` directive names.
        privileged_test: runs `nginx -t` as root, who may read every file of the configuration; None to run it in this
            process.
    """

    command: tuple[str, ...]
    pid_file: Path
    privileged_test: Callable[[], NginxVerdict] | None = None

    def workers(self) -> Workers | None:
        """The current workers; see `workers.look`."""
        return workers.look(self.pid_file)

    def test_candidate(self, directory: Path, files: Sequence[tuple[str, str]]) -> CandidateTest:
        """Starts a test of these (chain, key) files alone."""
        return CandidateTest(self.command[0], directory, files)

    def full_test(self, within: float = 45.0) -> NginxVerdict:
        """The result of `nginx -t` with the whole configuration, which is what a cold start reads.

        Args:
            within: the seconds that it may take; 10,000 server blocks take 14.

        Raises:
            RotatorError: `nginx-missing` or `io-error` if the program cannot be run; the errors of `privileged_test`.
        """
        if self.privileged_test:
            return self.privileged_test()
        try:
            completed = subprocess.run(
                [*self.command, "-t"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=within,
                check=False,
                start_new_session=True,  # without a terminal
            )
        except subprocess.TimeoutExpired:
            return NginxVerdict(False, (f"nginx -t did not answer within {within:g} s",))
        except OSError as e:
            raise cannot_run(self.command[0], e) from e
        lines = completed.stderr.decode("utf-8", "replace").splitlines()
        emerg = [line for line in lines if "[emerg]" in line]
        return NginxVerdict(completed.returncode == 0, tuple(shown(line, 500) for line in emerg[:10]))
