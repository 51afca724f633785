"""The demo's host in a temporary tree: nginx, rotator's daemon and its commands, as an operator would use them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rotator.core.errors import RotatorError
from rotator.core.reasons import Reason
from rotator.demo import authority, binary
from rotator.demo.authority import Fresh
from rotator.demo.processes import Group, undisturbed

SITE = "example.cn"
NAME = "signal.example.cn"
"""What the demo's clients call; it is looked up by nobody."""
READY_WITHIN = 20.0
CALL_WITHIN = 60.0
"""Seconds."""

_ZONE_KEY = "$binary_remote_addr"


class Host:
    """A tree, an nginx with two listeners, and a daemon; leaving it ends everything and removes the tree.

    Args:
        nginx: the binary.
    """

    tree: Path
    """Everything lies in it; there is one only within the block."""
    _group: Group | None = None

    def __init__(self, nginx: str) -> None:
        self.nginx = nginx
        self.files_of_second: tuple[Path, Path] | None = None
        """Certificate and key that the second listener's block names by itself, instead of the include."""
        self.zone_key = _ZONE_KEY
        self._reserved: list[socket.socket] = []

    @property
    def drop(self) -> Path:
        """Where its one site's renewals arrive."""
        return self.tree / "incoming" / SITE

    @property
    def config(self) -> Path:
        """rotator's configuration."""
        return self.tree / "rotator.toml"

    @property
    def daemon_log(self) -> Path:
        """What the daemon says."""
        return self.tree / "daemon.log"

    def __enter__(self) -> Self:
        """Makes the tree, and a place for its processes.

        Raises:
            RotatorError: `demo-failed`: this host has no room for them; nothing is left.
        """
        try:
            with undisturbed():  # a signal meanwhile strikes when both are there, to be ended and removed
                self.tree = Path(tempfile.mkdtemp(prefix="rotator-demo-")).resolve()
                self._group = Group(self.tree)
        except OSError as e:
            self._end()
            words = f"the demo's directory or its first process cannot be made: {e.strerror}"
            raise RotatorError(Reason.DEMO_FAILED, words, "Name another place for temporary files: TMPDIR=/path") from e
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with undisturbed():
            if self._group is not None:
                self._group.close()
            while self._reserved:
                self._reserved.pop().close()
            if hasattr(self, "tree"):
                shutil.rmtree(self.tree)

    @property
    def group(self) -> Group:
        """Its processes."""
        assert self._group is not None, "asked for outside of its block"  # noqa: S101 - a bug, not an input
        return self._group

    # -- from nothing to a host that serves

    def build(self) -> None:
        """Makes the tree, the CA and both configurations."""
        self.listeners = (self._reserve(), self._reserve())
        self.metrics = self._reserve()
        self.roots, self.issuer, self.next_issuer = authority.found()
        self.roots_file.write_bytes(self.roots)
        self.issuer.save(self.tree / "ca")
        for directory in ("state", "include"):
            (self.tree / directory).mkdir(mode=0o755 if directory == "include" else 0o750)
        self.drop.mkdir(parents=True)
        self.write_nginx_config()
        self.config.write_text(self._rotator_config())

    def start_nginx(self) -> None:
        """Returns when it answers.

        Raises:
            RotatorError: `demo-nginx`, with its words.
        """
        master = self._start(self._nginx_command, self.tree / "nginx.stderr")
        self._await(master, "nginx", self.tree / "nginx.stderr", lambda: all(map(_accepts, self.listeners)))

    def start_daemon(self) -> None:
        """Returns when it is ready.

        Raises:
            RotatorError: `demo-daemon`, with its words.
        """
        daemon = self._start([*self.rotator_command, "run"], self.daemon_log)
        self._await(daemon, "daemon", self.daemon_log, lambda: self.page("readyz") != "")

    @property
    def version(self) -> str:
        """What nginx calls itself."""
        return self._call([self.nginx, "-v"]).stderr.strip().rpartition(": ")[2] or self.nginx

    @property
    def roots_file(self) -> Path:
        """The root that clients trust."""
        return self.tree / "roots.pem"

    @property
    def rotator_command(self) -> list[str]:
        """How rotator is called for this host."""
        return [sys.executable, "-m", "rotator", "--config", str(self.config)]

    # -- what an operator does

    def rotator(self, *words: str | Path) -> dict[str, Any]:
        """Runs a command of rotator with `--json`. Returns its answer, in any case with the exit status in `exit`."""
        done = self._call([*self.rotator_command, "--json", *map(str, words)])
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = {"error": {"message": done.stderr.strip()[-400:]}}
        return {**answer, "exit": done.returncode}

    def told(self, *words: str | Path) -> list[str]:
        """Runs a command of rotator as for people. Returns the lines of its answer."""
        return self._call([*self.rotator_command, *map(str, words)]).stdout.splitlines()

    def deliver(self, fullchain: bytes, key: bytes) -> dict[str, Any]:
        """Hands a renewal to the daemon, and waits for its outcome."""
        return self.rotator("deliver", "--wait", "--within", "45", SITE, *self.write("renewed", fullchain, key))

    def write(self, directory: str, fullchain: bytes, key: bytes) -> tuple[Path, Path]:
        """Chain and key as files, under the names that every ACME client gives them."""
        return write_pair(self.tree / directory, fullchain, key)

    def reload_nginx(self) -> None:
        """As `systemctl reload nginx` does it; which tells nothing about what is served afterwards."""
        self.write_nginx_config()
        self._call([*self._nginx_command, "-s", "reload"])

    def write_nginx_config(self) -> None:
        """nginx.conf as it is meant now; nginx reads it at its next reload."""
        self._nginx_conf.write_text(self._nginx_config())

    def page(self, name: str) -> str:
        """A page of the daemon; empty if there is none."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics}/{name}", timeout=5) as answer:
                text: bytes = answer.read()
        except OSError:
            return ""
        return text.decode()

    def samples(self) -> dict[str, float]:
        """Every series of the daemon's metrics page, by its name and labels as they stand there."""
        lines = [line for line in self.page("metrics").splitlines() if line and not line.startswith("#")]
        return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}

    def fresh(self) -> Fresh:
        """A renewal that is as it should be."""
        return self.issuer.issue((NAME,))

    def last_words(self, lines: int = 5) -> list[str]:
        """The end of the daemon's log."""
        with suppress(OSError):
            return self.daemon_log.read_text(errors="replace").splitlines()[-lines:]
        return []

    # -- inside

    @property
    def _nginx_conf(self) -> Path:
        return self.tree / "nginx.conf"

    @property
    def _nginx_command(self) -> list[str]:
        return [self.nginx, "-e", str(self.tree / "error.log"), "-p", str(self.tree), "-c", str(self._nginx_conf)]

    def _reserve(self) -> str:
        """A free address that is ours until the end: bound, but it does not listen, so that nginx can."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._reserved.append(holder)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{holder.getsockname()[1]}"

    def _start(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        try:
            return self.group.start(command, log)
        except OSError as e:
            raise RotatorError(Reason.DEMO_FAILED, f"{command[0]} cannot be started: {e.strerror}") from e

    def _call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return self.group.call(command, CALL_WITHIN)
        except OSError as e:
            raise RotatorError(Reason.DEMO_FAILED, f"{command[0]} cannot be started: {e.strerror}") from e
        except subprocess.TimeoutExpired as e:
            told = " ".join(command[:8])
            raise RotatorError(Reason.DEMO_FAILED, f"not done within {CALL_WITHIN:g} s: {told}") from e

    def _await(self, process: subprocess.Popen[bytes], what: str, log: Path, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = "\n".join(log.read_text(errors="replace").splitlines()[-5:]) or "it says nothing"
                ended = f"has ended ({process.returncode})" if process.returncode is not None else "is not ready"
                raise RotatorError(Reason.DEMO_FAILED, f"the demo's {what} {ended}: {said}", binary.HINT)
            time.sleep(0.02)

    def _nginx_config(self) -> str:
        include = f"include {self.tree}/include/{SITE}.conf;"
        second = include
        if self.files_of_second is not None:
            second = "ssl_certificate {}; ssl_certificate_key {};".format(*self.files_of_second)
        blocks = "".join(
            f"    server {{\n        listen {listener} ssl;\n        server_name {NAME};\n        {lines}\n"
            f'        location / {{ return 200 "hello\\n"; }}\n    }}\n'
            for listener, lines in zip(self.listeners, (include, second), strict=True)
        )
        temporary = "".join(
            f"    {kind}_temp_path {self.tree}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            f"{_user_line()}daemon off;\nworker_processes 1;\n"
            f"pid {self.tree}/nginx.pid;\nlock_file {self.tree}/nginx.lock;\n"
            f"error_log {self.tree}/error.log;\nevents {{ worker_connections 512; }}\nhttp {{\n    access_log off;\n"
            f"    client_header_timeout 1h;\n{temporary}"
            f"    limit_req_zone {self.zone_key} zone=clients:64k rate=100r/s;\n{blocks}}}\n"
        )

    def _rotator_config(self) -> str:
        command = ", ".join(map(_quoted, self._nginx_command))
        return (
            f"state_dir = {_quoted(self.tree / 'state')}\nincoming = {_quoted(self.tree / 'incoming')}\n"
            'scan_interval = "1s"\nsettle = "1s"\n\n'
            f'[nginx]\ncommand = [{command}]\napply = "direct"\ninclude_dir = {_quoted(self.tree / "include")}\n'
            f"pid_file = {_quoted(self.tree / 'nginx.pid')}\nerror_log = {_quoted(self.tree / 'error.log')}\n"
            'prove_within = "4s"\n\n'
            f"[metrics]\nlisten = {_quoted(self.metrics)}\n\n"
            f'[defaults]\npolicy = "private-ca"\nroots = {_quoted(self.roots_file)}\n\n'
            f"[[site]]\nname = {_quoted(SITE)}\nnames = [{_quoted(NAME)}]\n"
            f"listeners = [{', '.join(map(_quoted, self.listeners))}]\n"
        )


def write_pair(directory: Path, fullchain: bytes, key: bytes) -> tuple[Path, Path]:
    """Chain and key as files in a directory, which is made if need be."""
    directory.mkdir(mode=0o700, exist_ok=True)
    chain, secret = directory / "fullchain.pem", directory / "privkey.pem"
    chain.write_bytes(fullchain)
    secret.touch(0o600)
    secret.write_bytes(key)
    return chain, secret


def stages_of(answer: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of each stage, from the answer of a command."""
    told = (answer.get("outcome") or answer).get("stages") or {}
    return {str(stage): float(seconds) * 1000 for stage, seconds in told.items()}


def _user_line() -> str:
    """As root nginx gives its workers a user: its built-in one is not on every system."""
    if os.geteuid() != 0:
        return ""
    import grp
    import pwd

    try:
        nobody = pwd.getpwnam("nobody")
        return f"user nobody {grp.getgrgid(nobody.pw_gid).gr_name};\n"
    except KeyError:
        return "user root root;\n"


def _accepts(listener: str) -> bool:
    host, port = listener.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 1.0).close()
    except OSError:
        return False
    return True


def _quoted(text: str | Path) -> str:
    """A TOML string."""
    return json.dumps(str(text), ensure_ascii=False)
