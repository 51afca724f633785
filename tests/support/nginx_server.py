"""A real nginx on a temporary tree, started, reloaded, watched and ended; nothing of rotator and no TLS client here."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import processes
from tests.support.authority import Issued
from tests.support.client import accepts
from tests.support.processes import Process
from tests.support.waiting import PATIENCE, wait_until

MASTER = "nginx: master process"
ACTIVE = "nginx: worker process"
DRAINING = "nginx: worker process is shutting down"
UNIX_PATH_MAX = 107

# Ends nginx's process group when the test process is gone, however it went: its end of the pipe closes with it.
_GUARD = 'read -r _; kill -s TERM -- "-$1"'


@dataclass(frozen=True)
class PairFiles:
    """A chain and its key as files."""

    chain: Path
    key: Path


def write_pair(directory: Path, issued: Issued) -> PairFiles:
    """The pair in a directory of its own, as `fullchain.pem` and `privkey.pem`."""
    directory.mkdir(parents=True, exist_ok=True)
    files = PairFiles(directory / "fullchain.pem", directory / "privkey.pem")
    files.chain.write_bytes(issued.chain_pem)
    files.key.touch(0o600)
    files.key.write_bytes(issued.key_pem)
    return files


def certificate_lines(*pairs: PairFiles) -> str:
    """The lines that name these pairs, for a server block or an included file."""
    return "".join(f"ssl_certificate {p.chain};\nssl_certificate_key {p.key};\n" for p in pairs)


def include_line(path: Path) -> str:
    """The line of a server block that includes a file."""
    return f"include {path};\n"


def write_include(path: Path, *pairs: PairFiles) -> None:
    """Make an included file name these pairs, with one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, certificate_lines(*pairs))


@dataclass
class ServerBlock:
    """One TLS `server` block.

    Args:
        name: what stands after `server_name`.
        listeners: `host:port`, `[v6]:port` or `unix:/path`.
        certificates: `include_line(…)` or `certificate_lines(…)`.
        extra: more text for the block.
    """

    name: str
    listeners: tuple[str, ...]
    certificates: str
    extra: str = ""

    def render(self) -> str:
        listens = "".join(f"listen {listener} ssl;\n" for listener in self.listeners)
        answer = f'location / {{ return 200 "{self.name}\\n"; }}\n'
        return f"server {{\n{listens}server_name {self.name};\n{self.certificates}{self.extra}{answer}}}\n"


@dataclass
class NginxServer:
    """A real nginx whose configuration, pid file, logs and sockets all lie in one tree.

    It is a child in a session of its own (or, with `daemon`, nginx's own daemon, which alone obeys USR2), and ends
    with the test process in any case. Change the attributes, `write_config()`, then reload as the test wants it.
    Use it as a context manager: leaving it ends every process and proves that none, and no listening socket, is left.

    Args:
        binary: which nginx.
        root: its tree; made if absent. Short enough for unix sockets.
        worker_processes: how many workers.
        daemon: whether nginx detaches itself, as under an init system.
        blocks: the TLS server blocks.
        main_extra: more text for the top level of the configuration.
        http_extra: more text for the `http` block.
        fillers: how many more TLS server blocks there are at the first listener, which nobody asks for.
        filler_pair: the one pair of all fillers; by default, what the first block names.
        zone_key: the key of an unrelated shared-memory zone; a running nginx refuses a reload that changes it.
        log_level: of the error log; nginx's default.
    """

    binary: Path
    root: Path
    worker_processes: int = 1
    daemon: bool = False
    blocks: list[ServerBlock] = field(default_factory=list)
    main_extra: str = ""
    http_extra: str = ""
    fillers: int = 0
    filler_pair: PairFiles | None = None
    zone_key: str = "$binary_remote_addr"
    log_level: str = "error"
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _guard: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _session: int | None = field(default=None, init=False, repr=False)
    _reserved: list[socket.socket] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    # -- the tree

    @property
    def config_path(self) -> Path:
        return self.root / "nginx.conf"

    @property
    def pid_path(self) -> Path:
        return self.root / "nginx.pid"

    @property
    def error_log_path(self) -> Path:
        return self.root / "error.log"

    @property
    def command(self) -> tuple[str, ...]:
        """How this nginx is called, as rotator would be configured with it."""
        return (str(self.binary), "-p", str(self.root), "-c", str(self.config_path))

    # -- addresses

    def reserve_port(self, host: str = "127.0.0.1") -> str:
        """A TCP listener's address that is ours until we are closed; nothing listens there until nginx is told to.

        The port stays bound, not listening, by a socket with SO_REUSEADDR: so nobody else is given it, nginx can
        listen on it, start after start, and without nginx a connection is refused.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        holder = socket.socket(family, socket.SOCK_STREAM)
        self._reserved.append(holder)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        port = holder.getsockname()[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def unix_listener(self, name: str = "s") -> str:
        """A unix listener's address in our tree."""
        path = self.root / f"{name}.sock"
        if len(os.fsencode(path)) > UNIX_PATH_MAX:
            raise ValueError(f"too long for a unix socket ({UNIX_PATH_MAX} bytes): {path}")
        return f"unix:{path}"

    # -- the configuration

    def config_text(self) -> str:
        """The whole configuration, as `write_config` writes it."""
        temporary = "".join(
            f"{kind}_temp_path {self.root}/tmp-{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        blocks = "".join(block.render() for block in [*self.blocks, *self._filler_blocks()])
        return (
            f"{_user_line()}"
            f"daemon {'on' if self.daemon else 'off'};\n"
            f"worker_processes {self.worker_processes};\n"
            f"pid {self.pid_path};\n"
            f"lock_file {self.root}/nginx.lock;\n"
            f"error_log {self.error_log_path} {self.log_level};\n"
            f"{self.main_extra}\n"
            "events { worker_connections 1024; }\n"
            "http {\n"
            "access_log off;\n"
            f"{temporary}"
            "server_names_hash_max_size 65536;\n"
            "server_names_hash_bucket_size 128;\n"
            "client_header_timeout 300s;\n"
            "ssl_protocols TLSv1.2 TLSv1.3;\n"
            f"limit_req_zone {self.zone_key} zone=unrelated:64k rate=100r/s;\n"
            f"{self.http_extra}\n"
            f"{blocks}"
            "}\n"
        )

    def write_config(self) -> None:
        """Write the configuration as the attributes say now; nginx sees it at its next reload."""
        _replace(self.config_path, self.config_text())

    def _filler_blocks(self) -> list[ServerBlock]:
        if not self.fillers:
            return []
        first = self.blocks[0]
        lines = certificate_lines(self.filler_pair) if self.filler_pair else first.certificates
        return [ServerBlock(f"filler{n}.test", first.listeners[:1], lines) for n in range(self.fillers)]

    # -- its life

    def start(self, timeout: float = 10.0) -> None:
        """Write the configuration, start nginx and wait until it is ready; AssertionError with its words if it ends."""
        self.write_config()
        self.spawn()
        self.wait_ready(timeout)

    def spawn(self) -> None:
        """Start nginx with the configuration as it lies there, and wait for nothing."""
        if self._child is not None:
            raise RuntimeError("already started")
        self.pid_path.unlink(missing_ok=True)
        with (self.root / "stderr.log").open("ab") as stderr:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd=self.root,
                start_new_session=True,
            )
        if self.daemon:
            if self._child.wait(timeout=PATIENCE):
                raise AssertionError(f"nginx did not start: {self.words()}")
            self._session = wait_until(self._find_daemon, what=f"a daemon of nginx in {self.root}: {self.words()}")
        else:
            self._session = self._child.pid
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self._session)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_ready(self, timeout: float = 10.0) -> None:
        """Wait until the pid file is written, all workers accept, and a connection to every listener is taken."""

        def ready() -> bool:
            if not self.running():
                raise AssertionError(f"nginx ended: {self.words()}")
            return (
                self.pid_path.exists()
                and self.pid_path.read_text().strip().isdigit()
                and len(self.active_workers()) == self.worker_processes
                and all(accepts(listener) for block in self.blocks for listener in block.listeners)
            )

        wait_until(ready, timeout, f"nginx in {self.root} is ready")

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 5.0) -> None:
        """End every process of this nginx by pid, SIGKILL for what does not obey, and prove that nothing is left.

        The reserved addresses stay ours: `start()` again is a cold start.
        """
        left = self.processes()
        sockets = processes.sockets_of(p.pid for p in left)
        masters = [p for p in left if p.title.startswith(MASTER)]
        try:
            _send(masters or left, how)
            with suppress(AssertionError):
                wait_until(lambda: self._reap() and not self.processes(), timeout, "nginx ends")
            _send(self.processes(), signal.SIGKILL)
            wait_until(lambda: self._reap() and not self.processes(), 5.0, f"all of nginx in {self.root} ends")
        finally:
            self._dismiss_guard()
        open_still = {inode: where for inode, where in processes.listening().items() if inode in sockets}
        if open_still:
            raise AssertionError(f"nginx in {self.root} is gone, but its sockets listen: {open_still}")
        self._child = self._session = None
        for listener in {listener for block in self.blocks for listener in block.listeners}:
            if listener.startswith("unix:"):
                Path(listener[5:]).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop, and give the reserved addresses back."""
        try:
            self.stop()
        finally:
            while self._reserved:
                self._reserved.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- signals and commands

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the master that the pid file names."""
        os.kill(self.master_pid, number)

    @contextmanager
    def halted(self) -> Iterator[None]:
        """While the block lasts the master does nothing (SIGSTOP): a reload hangs, the workers go on."""
        master = self.master_pid
        os.kill(master, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(master, signal.SIGCONT)

    def hup(self) -> None:
        """Ask the master to reload; it answers to nobody."""
        self.signal(signal.SIGHUP)

    def reload_cli(self) -> subprocess.CompletedProcess[str]:
        """`nginx -s reload`."""
        return self._run("-s", "reload")

    def test_cli(self) -> subprocess.CompletedProcess[str]:
        """`nginx -t`."""
        return self._run("-t")

    def reload_and_wait(self, timeout: float = 10.0) -> None:
        """HUP, then wait until none of the workers of before accepts and all new ones do."""
        before = self.active_workers()
        self.hup()
        self.wait_reloaded(before, timeout)

    def wait_reloaded(self, before: frozenset[Process], timeout: float = 10.0) -> None:
        """Wait until the active workers are a full set without any of `before`."""

        def reloaded() -> bool:
            active = {(p.pid, p.started) for p in self.active_workers()}
            return len(active) == self.worker_processes and not active & {(p.pid, p.started) for p in before}

        wait_until(reloaded, timeout, f"nginx in {self.root} has new workers only: {self.words()}")

    # -- what can be seen of it

    @property
    def master_pid(self) -> int:
        """The master that the pid file names."""
        return int(self.pid_path.read_text())

    def running(self) -> bool:
        """Whether any process of this nginx is there."""
        return self._reap() and bool(self.processes())

    def processes(self) -> list[Process]:
        """All its processes: masters, workers, and what else it has started."""
        return processes.in_session(self._session) if self._session is not None else []

    def active_workers(self) -> frozenset[Process]:
        """The workers that accept connections, those of every master."""
        return frozenset(p for p in self.processes() if p.title == ACTIVE)

    def draining_workers(self) -> frozenset[Process]:
        """The workers that only finish what they have begun."""
        return frozenset(p for p in self.processes() if p.title == DRAINING)

    @property
    def error_log_size(self) -> int:
        """The error log's length in bytes: a mark for `error_log_text`."""
        return self.error_log_path.stat().st_size if self.error_log_path.exists() else 0

    def error_log_text(self, since: int = 0) -> str:
        """The error log, from a mark on."""
        if not self.error_log_path.exists():
            return ""
        return self.error_log_path.read_bytes()[since:].decode(errors="replace")

    def words(self) -> str:
        """All that nginx has said, on stderr and in its log."""
        stderr = self.root / "stderr.log"
        said = stderr.read_text(errors="replace") if stderr.exists() else ""
        return said + "".join(line for line in self.error_log_text().splitlines(True) if line not in said)

    # -- inside

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=self.root,
        )

    def _find_daemon(self) -> int | None:
        """The session of the daemon with our configuration; it leads it, as it has called setsid."""
        for process in processes.everything():
            ours = process.title.startswith(MASTER) and str(self.config_path) in process.title
            if ours and process.pid == process.session:
                return process.pid
        return None

    def _reap(self) -> bool:
        """Take the exit status of our child, if it has one; always true, for use in conditions."""
        if self._child is not None:
            self._child.poll()
        return True

    def _dismiss_guard(self) -> None:
        if self._guard is None:
            return
        self._guard.kill()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()
        self._guard = None


def _send(targets: list[Process], number: signal.Signals) -> None:
    for process in targets:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def _user_line() -> str:
    """As root, the workers are nobody, with its group on this system; for others nginx only warns of such a line."""
    if os.geteuid() != 0:
        return ""
    try:
        nobody = pwd.getpwnam("nobody")
        return f"user nobody {grp.getgrgid(nobody.pw_gid).gr_name};\n"
    except KeyError:
        return "user root root;\n"
