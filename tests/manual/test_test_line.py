"""The line that runs the tests: services are kept from starting during the installation, and only then."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE, wait_until

README = (Path(__file__).parents[2] / "README.md").read_text()
POLICY = "/usr/sbin/policy-rc.d"

APT = """#!/bin/sh
# Notes what the policy says about the start of a service, as often as it is called. It becomes `sleep`, because dash
# loses a signal that arrives between the start of a child and its exec.
"$POLICY" nginx start; echo $? >>"$NOTES"
[ "$1" = update ] || [ "$SECONDS_TO_WAIT" = 0 ] || exec sleep "$SECONDS_TO_WAIT"
exit "$STATUS"
"""


@dataclass
class Host:
    """A host in a directory, whose apt-get installs nothing."""

    root: Path

    @property
    def policy(self) -> Path:
        return self.root / "policy-rc.d"

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    def install(self, *, status: int = 0, seconds: int = 0) -> subprocess.Popen[bytes]:
        """The part of the line that installs packages, begun."""
        words = shlex.split(README.partition("<!-- test line -->\n```sh\n")[2].partition("\n")[0])
        assert words[:3] == ["sudo", "sh", "-c"]
        script = words[3].replace(POLICY, str(self.policy))
        assert str(self.policy) in script
        (self.root / "apt-get").write_text(APT)
        (self.root / "apt-get").chmod(0o755)
        environment = {"POLICY": self.policy, "NOTES": self.notes, "STATUS": status, "SECONDS_TO_WAIT": seconds}
        path = f"{self.root}{os.pathsep}{os.defpath}"
        return subprocess.Popen(
            ["sh", "-c", script],
            env={"PATH": path, **{name: str(value) for name, value in environment.items()}},
            start_new_session=True,
            preexec_fn=_as_a_terminal_does,
        )


def _as_a_terminal_does() -> None:
    """Lets the signals of a terminal end the program, whatever the process that starts it ignores or blocks."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_no_service_is_started_and_the_policy_is_removed_afterwards(host: Host) -> None:
    assert host.install().wait(PATIENCE) == 0
    assert host.notes.read_text() == "101\n101\n"
    assert not host.policy.exists()


def test_a_policy_that_was_there_before_is_asked_and_stays(host: Host) -> None:
    host.policy.write_text("#!/bin/sh\nexit 7\n")
    host.policy.chmod(0o755)
    assert host.install().wait(PATIENCE) == 0
    assert host.notes.read_text() == "7\n7\n"
    assert host.policy.read_text() == "#!/bin/sh\nexit 7\n"


def test_a_link_that_leads_nowhere_is_a_policy_that_was_there_before(host: Host) -> None:
    host.policy.symlink_to(host.root / "nowhere")
    assert host.install().wait(PATIENCE) == 0
    assert host.policy.is_symlink()
    assert not (host.root / "nowhere").exists()


def test_an_installation_that_fails_ends_the_line_and_removes_the_policy(host: Host) -> None:
    assert host.install(status=100).wait(PATIENCE) == 100
    assert not host.policy.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_installation_that_is_ended_removes_the_policy(host: Host, number: signal.Signals) -> None:
    line = host.install(seconds=600)
    wait_until(
        lambda: host.notes.exists() and host.notes.read_text() == "101\n101\n", what="the packages are installed"
    )
    os.killpg(line.pid, number)  # as a terminal does it
    assert line.wait(PATIENCE) == 1
    assert not host.policy.exists()
