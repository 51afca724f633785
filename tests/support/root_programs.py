"""Root's programs behind their sockets, as the shipped units start them, by systemd's own `systemd-socket-activate`.

What a unit runs, which capabilities it keeps, and who may connect to its socket is read from `systemd/`. Only the paths
are those of the test. The sandbox around it and `MaxConnections=` are systemd's own and are not here. No tests.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rotator.privsep.socket_client import APPLY_UNIT, SOCKETS, TEST_UNIT
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


def settings(unit: str) -> dict[str, str]:
    """The settings of a shipped unit, the last one of each name."""
    lines = [line.partition("=") for line in (ROOT / "systemd" / unit).read_text().splitlines()]
    return {key: value for key, equals, value in lines if equals and not key.startswith("#")}


@dataclass
class RootPrograms:
    """The two sockets of a host, each with its listener.

    Args:
        top: a directory that rotator's user can reach.
        uid: the user who is `rotator`.
        config: root's configuration.
        groups: the SupplementaryGroups= of the privileged step, which an operator may add, as ids.
    """

    top: Path
    uid: int
    config: Path
    groups: tuple[int, ...] = ()
    _listeners: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sockets = self.top / "run"
        self.sockets.mkdir()
        self.program = Path(shutil.copy(ROOT / "rotator/privsep/apply.py", self.top / "rotator-apply"))
        """The installed program; what a test writes there is what the next connection gets."""
        self.program.chmod(0o755)

    def command(self, unit: str) -> list[str]:
        """What a unit runs, with the capabilities that it keeps."""
        service = settings(f"{unit}@.service")
        places = {
            "/usr/bin/python3": sys.executable,
            "/usr/local/libexec/rotator-apply": str(self.program),
            "/etc/rotator/rotator.toml": str(self.config),
        }
        words = [places.get(word, word) for word in shlex.split(service["ExecStart"])]
        kept = "".join(f",+{c.removeprefix('CAP_').lower()}" for c in service["CapabilityBoundingSet"].split())
        assert service["StandardInput"] == "socket"
        privileges = [f"--bounding-set=-all{kept}", "--inh-caps=-all", "--no-new-privs"]
        if self.groups and unit == APPLY_UNIT:
            privileges.append(f"--groups={','.join(map(str, self.groups))}")
        if service.get("DynamicUser") == "yes":
            assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"]
            privileges[1] = f"--inh-caps=-all{kept}"
            privileges += [f"--ambient-caps=-all{kept}", "--reuid=61999", "--regid=61999", "--clear-groups"]
        return ["setpriv", *privileges, *words]

    def start(self, unit: str) -> None:
        """Listens, as `systemctl start UNIT.socket` would."""
        socket = settings(f"{unit}.socket")
        assert (socket["Accept"], socket["SocketUser"]) == ("yes", "rotator")
        path = self.sockets / SOCKETS[unit]
        with self._log(unit).open("ab") as log:
            self._listeners[unit] = subprocess.Popen(
                ["systemd-socket-activate", "--accept", "--inetd", f"--listen={path}", *self.command(unit)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
            )  # fmt: skip
        wait_until(path.exists, 10, f"{unit}.socket listens")
        path.chmod(0o600)
        os.chown(path, self.uid, self.uid)
        path.chmod(int(socket["SocketMode"], 8))

    def stop(self, unit: str) -> None:
        """Ends the listener, as `systemctl stop UNIT.socket` would; connections stay."""
        listener = self._listeners.pop(unit)
        listener.kill()
        listener.wait()
        assert settings(f"{unit}.socket")["RemoveOnStop"] == "yes"
        (self.sockets / SOCKETS[unit]).unlink()

    def connected(self, unit: str) -> list[int]:
        """The user of each connection so far."""
        return [int(uid) for uid in re.findall(r"Connection from PID \d+/UID (\d+)", self._log(unit).read_text())]

    def running(self, unit: str) -> list[int]:
        """The pids of the programs that serve connections now."""
        listener = self._listeners[unit].pid
        children = Path(f"/proc/{listener}/task/{listener}/children").read_text().split()
        return [int(pid) for pid in children if b"rotator-apply" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def kill(self, unit: str) -> None:
        """Kills the programs that serve connections now."""
        for pid in self.running(unit):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.running(unit), 10, "they are gone")

    def log(self, unit: str) -> str:
        return self._log(unit).read_text()

    def _log(self, unit: str) -> Path:
        return self.top / f"{unit}.log"

    def close(self) -> None:
        for unit, listener in self._listeners.items():
            with suppress(ProcessLookupError):
                os.killpg(listener.pid, signal.SIGKILL)
            listener.wait()
            print(f"{unit}:\n{self.log(unit)}")


@contextmanager
def root_programs(top: Path, uid: int, config: Path) -> Iterator[RootPrograms]:
    """Both sockets, until the end of the block."""
    programs = RootPrograms(top, uid, config)
    try:
        for unit in (APPLY_UNIT, TEST_UNIT):
            programs.start(unit)
        yield programs
    finally:
        programs.close()
