"""Stands in for systemd and polkit: starts root's oneshots for the one user who may ask for them; no tests.

The units and the rule are the shipped ones: which units there are to start, what they run and which capabilities they
keep is read from `systemd/`. Only the paths are those of the test. What a sandbox adds to that is systemd's own.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

_SYSTEMCTL = """#!/usr/bin/perl
use strict; use IO::Socket::UNIX;
my $manager = IO::Socket::UNIX->new(Peer => "SOCKET") or die "Failed to connect to bus: $!\\n";
print $manager join(" ", @ARGV) . "\\n"; $manager->flush;
my ($status, $words) = split / /, <$manager>, 2;
print STDERR $words;
exit $status;
"""


@dataclass
class ServiceManager:
    """What `systemctl start` meets.

    Args:
        top: a directory that the user can reach.
        uid: the user who is `rotator`.
        config: root's configuration.
        absent: units that are not installed.
        answers_late: how often a unit ends well without having done anything.
    """

    top: Path
    uid: int
    config: Path
    absent: set[str] = field(default_factory=set)
    answers_late: int = 0
    started: list[str] = field(default_factory=list)
    """What was asked for, and by whom."""

    def __post_init__(self) -> None:
        self.bin = self.top / "bin"
        self.bin.mkdir()
        self.bin.chmod(0o755)
        self._path = self.top / "manager"
        systemctl = self.bin / "systemctl"
        systemctl.write_text(_SYSTEMCTL.replace("SOCKET", str(self._path)))
        systemctl.chmod(0o755)
        rule = (ROOT / "systemd/50-rotator.rules").read_text()
        self.allowed = re.findall(r'"([\w-]+\.service)"', rule)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self._path))
        self._path.chmod(0o666)
        self._socket.listen()

    @property
    def path(self) -> str:
        """PATH for whoever shall meet this manager."""
        return f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin"

    def command(self, unit: str) -> list[str]:
        """What a unit runs, with the capabilities that it keeps."""
        lines = [line.partition("=") for line in (ROOT / "systemd" / unit).read_text().splitlines()]
        told = {key: value for key, _, value in lines if key in ("ExecStart", "CapabilityBoundingSet")}
        places = {
            "/usr/bin/python3": sys.executable,
            "/usr/local/libexec/rotator-apply": str(ROOT / "rotator/privsep/apply.py"),
            "/etc/rotator/rotator.toml": str(self.config),
        }
        words = [places.get(word, word) for word in shlex.split(told["ExecStart"])]
        kept = "".join(f",+{one.removeprefix('CAP_').lower()}" for one in told["CapabilityBoundingSet"].split())
        return ["setpriv", f"--bounding-set=-all{kept}", "--inh-caps=-all", "--no-new-privs", *words]

    def serve(self) -> None:
        """One start after the other, until the socket is closed."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, suppress(BrokenPipeError):  # who asked may have been told to end meanwhile
                connection.sendall(self._answer(connection).encode())

    def _answer(self, connection: socket.socket) -> str:
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        words = connection.makefile().readline().split()
        self.started.append(f"{uid}: {' '.join(words)}")
        unit = words[-1]
        if unit in self.absent:
            return f"5 Failed to start {unit}: Unit {unit} not found.\n"
        if uid != self.uid or words[:-1] != ["--no-ask-password", "start"] or unit not in self.allowed:
            return f"1 Failed to start {unit}: Access denied\n"
        if self.answers_late:
            self.answers_late -= 1
            return "0 \n"
        done = subprocess.run(self.command(unit), capture_output=True, text=True, timeout=240, check=False, cwd="/")
        print(f"{unit}: {done.returncode} {done.stdout}{done.stderr}")
        return f"{int(done.returncode != 0)} {f'Job for {unit} failed.' if done.returncode else ''}\n"

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def service_manager(top: Path, uid: int, config: Path) -> Iterator[ServiceManager]:
    """A manager at work in a thread of its own."""
    manager = ServiceManager(top, uid, config)
    thread = threading.Thread(target=manager.serve)
    thread.start()
    try:
        yield manager
    finally:
        manager.close()
        thread.join()


def environment(manager: ServiceManager) -> dict[str, str]:
    """The environment of whoever shall meet this manager."""
    return {**os.environ, "PATH": manager.path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
