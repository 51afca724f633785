"""The demo's host in a temporary directory: nginx, rotator's daemon and rotator's commands."""

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
from rotator.demo.authority import IssuedPair
from rotator.demo.processes import Group, signals_blocked

SITE = "example.cn"
NAME = "signal.example.cn"
"""The host name that the demo's clients send; DNS is not asked for it."""
READY_WITHIN = 20.0
"""The seconds that nginx and the daemon have to become ready."""
CALL_WITHIN = 60.0
"""The seconds that a command has to end."""

UNPRIVILEGED = 65534
"""The uid of the user without any rights, under which root's nginx runs its workers: Linux' overflow uid (proc(5))."""

_ZONE_KEY = "$binary_remote_addr"


class Host:
    """A directory, an nginx with two listeners, and a daemon. The end of its block ends and removes everything.

    Args:
        nginx: the path of the nginx program.
    """

    tree: Path
    """The directory of all files; it exists within the block."""
    _group: Group | None = None

    def __init__(self, nginx: str) -> None:
        self.nginx = nginx
        self.files_of_second: tuple[Path, Path] | None = None
        """The certificate and the key that the block of the second listener names instead of the include."""
        self.zone_key = _ZONE_KEY
        self._reserved: list[socket.socket] = []

    @property
    def drop(self) -> Path:
        """The drop of the site."""
        return self.tree / "incoming" / SITE

    @property
    def config(self) -> Path:
        """rotator's configuration."""
        return self.tree / "rotator.toml"

    @property
    def daemon_log(self) -> Path:
        """The daemon's log."""
        return self.tree / "daemon.log"

    def __enter__(self) -> Self:
        """Creates the directory and the process group.

        Raises:
            RotatorError: `demo-failed`: one of them cannot be created; nothing is left behind.
        """
        try:
            with signals_blocked():  # a signal arrives after this block, when both exist and can be removed
                self.tree = Path(tempfile.mkdtemp(prefix="rotator-demo-")).resolve()
                self._group = Group(self.tree)
        except OSError as e:
            self._end()
            message = f"the demo's directory or its first process cannot be created: {e.strerror}"
            hint = "Name another directory for temporary files: TMPDIR=/path rotator demo"
            raise RotatorError(Reason.DEMO_FAILED, message, hint) from e
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with signals_blocked():
            if self._group is not None:
                self._group.close()
            while self._reserved:
                self._reserved.pop().close()
            if hasattr(self, "tree"):
                shutil.rmtree(self.tree)

    @property
    def group(self) -> Group:
        """The processes of the host."""
        assert self._group is not None, "used outside of its block"  # noqa: S101 - a bug, not an input
        return self._group

    # -- from nothing to a host that serves

    def build(self) -> None:
        """Creates the directories, the CA and both configurations."""
        self.listeners = (self._reserve(), self._reserve())
        self.metrics = self._reserve()
        self.roots, self.issuer, self.next_issuer = authority.create_authority()
        self.roots_file.write_bytes(self.roots)
        self.issuer.save(self.tree / "ca")
        for directory in ("state", "include"):
            (self.tree / directory).mkdir(mode=0o755 if directory == "include" else 0o750)
        self.drop.mkdir(parents=True)
        self.write_nginx_config()
        self.config.write_text(self._rotator_config())

    def start_nginx(self) -> None:
        """Starts nginx and waits until it accepts connections.

        Raises:
            RotatorError: `demo-failed`, with nginx's output.
        """
        master = self._start(self._nginx_command, self.tree / "nginx.stderr")
        self._await(master, "nginx", self.tree / "nginx.stderr", lambda: all(map(_accepts, self.listeners)))

    def start_daemon(self) -> None:
        """Starts the daemon and waits until it is ready.

        Raises:
            RotatorError: `demo-failed`, with the end of the daemon's log.
        """
        daemon = self._start([*self.rotator_command, "run"], self.daemon_log)
        self._await(daemon, "daemon", self.daemon_log, lambda: self.page("readyz") != "")

    @property
    def version(self) -> str:
        """The version of nginx, such as `nginx/1.27.4`."""
        return self._call([self.nginx, "-v"]).stderr.strip().rpartition(": ")[2] or self.nginx

    @property
    def roots_file(self) -> Path:
        """The root that clients trust."""
        return self.tree / "roots.pem"

    @property
    def rotator_command(self) -> list[str]:
        """The command line of rotator for this host."""
        return [sys.executable, "-m", "rotator", "--config", str(self.config)]

    # -- the operator's actions

    def rotator(self, *arguments: str | Path) -> dict[str, Any]:
        """Runs a command of rotator with `--json`. Returns its answer with the exit status in `exit`."""
        done = self._call([*self.rotator_command, "--json", *map(str, arguments)])
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = {"error": {"message": done.stderr.strip()[-400:]}}
        return {**answer, "exit": done.returncode}

    def output_of(self, *arguments: str | Path) -> list[str]:
        """Runs a command of rotator. Returns the lines of its answer."""
        return self._call([*self.rotator_command, *map(str, arguments)]).stdout.splitlines()

    def deliver(self, fullchain: bytes, key: bytes) -> dict[str, Any]:
        """Delivers a renewal and waits for the daemon's outcome."""
        return self.rotator("deliver", "--wait", "--within", "45", SITE, *self.write("renewed", fullchain, key))

    def write(self, directory: str, fullchain: bytes, key: bytes) -> tuple[Path, Path]:
        """Writes a chain and a key into a directory of the host, with the names that ACME clients use."""
        return write_pair(self.tree / directory, fullchain, key)

    def reload_nginx(self) -> None:
        """Writes nginx.conf and reloads nginx, as an operator does it. It does not wait for the new workers."""
        self.write_nginx_config()
        self._call([*self._nginx_command, "-s", "reload"])

    def write_nginx_config(self) -> None:
        """Writes nginx.conf; nginx reads it at its next reload."""
        self._nginx_conf.write_text(self._nginx_config())

    def page(self, name: str) -> str:
        """A page of the daemon's web server; empty if it does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics}/{name}", timeout=5) as response:
                text: bytes = response.read()
        except OSError:
            return ""
        return text.decode()

    def samples(self) -> dict[str, float]:
        """The value of every series of the metrics page, by its name and labels as the page has them."""
        lines = [line for line in self.page("metrics").splitlines() if line and not line.startswith("#")]
        return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}

    def issue(self) -> IssuedPair:
        """A correct renewal."""
        return self.issuer.issue((NAME,))

    def log_tail(self, lines: int = 5) -> list[str]:
        """The last lines of the daemon's log."""
        with suppress(OSError):
            return self.daemon_log.read_text(errors="replace").splitlines()[-lines:]
        return []

    # -- helpers

    @property
    def _nginx_conf(self) -> Path:
        return self.tree / "nginx.conf"

    @property
    def _nginx_command(self) -> list[str]:
        return [self.nginx, "-e", str(self.tree / "error.log"), "-p", str(self.tree), "-c", str(self._nginx_conf)]

    def _reserve(self) -> str:
        """A free address, reserved until the end by a socket that is bound but does not listen, so that nginx can."""
        reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._reserved.append(reserved)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{reserved.getsockname()[1]}"

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
            shown = " ".join(command[:8])
            raise RotatorError(Reason.DEMO_FAILED, f"a command has not ended within {CALL_WITHIN:g} s: {shown}") from e

    def _await(self, process: subprocess.Popen[bytes], name: str, log: Path, is_ready: Callable[[], bool]) -> None:
        """Waits until a process is ready."""
        deadline = time.monotonic() + READY_WITHIN
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                output = "\n".join(log.read_text(errors="replace").splitlines()[-5:]) or "it has written nothing"
                state = f"has ended ({process.returncode})" if process.returncode is not None else "is not ready"
                raise RotatorError(Reason.DEMO_FAILED, f"the demo's {name} {state}: {output}", binary.HINT)
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
    """Writes a chain and a key into a directory, which is created if it is missing. Returns both paths."""
    directory.mkdir(mode=0o700, exist_ok=True)
    chain_path, key_path = directory / "fullchain.pem", directory / "privkey.pem"
    chain_path.write_bytes(fullchain)
    key_path.touch(0o600)
    key_path.write_bytes(key)
    return chain_path, key_path


def stages_of(answer: Mapping[str, Any]) -> dict[str, float]:
    """The milliseconds of each stage, from the JSON answer of a command."""
    stages = (answer.get("outcome") or answer).get("stages") or {}
    return {str(stage): float(seconds) * 1000 for stage, seconds in stages.items()}


def _user_line() -> str:
    """nginx.conf's line with the user of the workers, which root must name: nginx's built-in one may not exist here."""
    if os.geteuid() != 0:
        return ""
    import grp
    import pwd

    try:
        worker = pwd.getpwuid(UNPRIVILEGED)
        return f"user {worker.pw_name} {grp.getgrgid(worker.pw_gid).gr_name};\n"
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
