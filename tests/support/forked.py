"""`rotator run` and other commands, forked from the test process, so that none costs an interpreter, and what may be
done to them.

The child runs the real command. What a test wants to do to it (let it die at a step, break a protocol) is done to the
child's own `os` and `signal` before that: nothing in rotator knows of it. No tests here.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from rotator.cli import cli
from rotator.core.model import SourceFile
from rotator.sources.file_reader import read_drop
from tests.support.authority import CA, Issued
from tests.support.dropping import put
from tests.support.edge import Edge
from tests.support.nginx_server import NginxServer
from tests.support.other_user import forked
from tests.support.waiting import wait_until

for _name in (
    *("apscheduler.executors.pool", "apscheduler.schedulers.background", "watchdog.observers"),
    *("rotator.cli.run", "rotator.daemon.service", "rotator.metrics.collector", "rotator.tls.handshake"),
    *("rotator.cli.await_outcome", "rotator.cli.deliver", "rotator.cli.rollback", "rotator.cli.swap"),
):
    import_module(_name)  # once here, and not in every child

STEPS = (
    *("chmod", "fchmod", "fsync", "ftruncate", "link", "mkdir", "pwrite", "rename", "replace", "rmdir", "symlink"),
    *("truncate", "unlink", "utime", "write"),
)
"""The calls of `os` that change something; with the signal to nginx they are the steps of a life."""


@dataclass
class _Child:
    """A process that was forked.

    Args:
        pid: its.
    """

    pid: int
    status: int | None = field(default=None, init=False)
    """As `os.waitstatus_to_exitcode` has it; None while it lives."""

    def is_over(self) -> bool:
        if self.status is None:
            gone, status = os.waitpid(self.pid, os.WNOHANG)
            if gone:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None


@dataclass
class Life(_Child):
    """One daemon.

    Args:
        log: what it says.
    """

    log: Path

    def said(self, *words: str) -> bool:
        """Whether one line of its log holds all of these."""
        return any(all(word in line for word in words) for line in self.words.splitlines())

    @property
    def words(self) -> str:
        return self.log.read_text() if self.log.exists() else "(nothing)"

    def wait_for(self, *words: str, timeout: float = 20) -> None:
        wait_until(lambda: self.said(*words) or self.is_over(), timeout, f"{words} in\n{self.words}")
        assert self.said(*words), f"it ended with {self.status}:\n{self.words}"

    def tell(self, number: signal.Signals) -> None:
        if not self.is_over():
            os.kill(self.pid, number)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> int:
        """Ends it. Returns its exit status; that of one that was over already as well."""
        self.tell(number)
        wait_until(self.is_over, timeout, f"pid {self.pid} ends:\n{self.words}")
        assert self.status is not None
        return self.status


@contextmanager
def life(edge: Edge, before: Callable[[], object] = lambda: None) -> Iterator[Life]:
    """A daemon for this host; whatever becomes of it, it is gone afterwards.

    Args:
        edge: the host.
        before: called in the child first.
    """
    log = edge.root / "life.log"
    log.unlink(missing_ok=True)
    one = Life(forked(lambda: _run(edge, ["run"], log, log, before)), log)
    try:
        yield one
    finally:
        one.end(signal.SIGKILL)
        print(one.words)


@dataclass
class Call(_Child):
    """One command that ends by itself.

    Args:
        out: its answer.
        err: what else it says.
    """

    out: Path
    err: Path

    def wait(self, timeout: float = 240) -> int:
        """Its exit status."""
        wait_until(self.is_over, timeout, f"pid {self.pid} ends")
        assert self.status is not None
        return self.status

    @property
    def told(self) -> dict[str, Any]:
        """The one object that it answered with."""
        found: dict[str, Any] = json.loads(self.out.read_bytes())
        return found

    @property
    def words(self) -> str:
        return self.out.read_text() + self.err.read_text()


def call(edge: Edge, name: str, *words: str | Path, before: Callable[[], object] = lambda: None) -> Call:
    """Starts a command that answers with JSON; the caller waits for it.

    Args:
        edge: the host.
        name: of its files; each call that runs at the same time needs another one.
        words: the command line.
        before: called in the child first.
    """
    out, err = edge.root / f"{name}.out", edge.root / f"{name}.err"
    for path in (out, err):
        path.write_bytes(b"")
    return Call(forked(lambda: _run(edge, ["--json", *map(str, words)], out, err, before)), out, err)


def _run(edge: Edge, words: list[str], out: Path, err: Path, before: Callable[[], object]) -> None:
    code = 70
    try:
        for number, path in ((1, out), (2, err)):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.dup2(fd, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir("/")
        before()
        cli.main(["--config", str(edge.config_path), *words], prog_name="rotator")
    except SystemExit as e:
        code = int(e.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# -- what may be done to one


def counted(step: int, trace: Path | None = None) -> Callable[[], None]:
    """Kills the process before its `step`-th step (from 0), as SIGKILL would between the two.

    Args:
        step: a negative one never comes.
        trace: where each step is told, in a line.
    """

    def install() -> None:
        left = [step]
        tell, kill, pid = os.write, os.kill, os.getpid()
        told = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if trace else -1

        def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if left[0] == 0 and os.getpid() == pid:
                    kill(pid, signal.SIGKILL)
                left[0] -= 1
                if told >= 0:
                    tell(told, f"{name} {_where(args[0])} {_where(args[1]) if name == 'rename' else ''}\n".encode())
                return real(*args, **kwargs)

            return call

        for name in STEPS:
            setattr(os, name, counting(name, getattr(os, name)))
        signal.pidfd_send_signal = counting("signal", signal.pidfd_send_signal)

    return install


def _where(target: object) -> str:
    """The path that a call is about, whole where that is known."""
    if isinstance(target, int):
        try:
            return os.readlink(f"/proc/self/fd/{target}")
        except OSError:
            return str(target)
    return str(target)


def renaming_in_place() -> None:
    """A broken protocol: a file is not renamed, its content is copied over the one that stands there."""
    real = os.rename

    def rename(src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        if not stat.S_ISREG(os.stat(src, dir_fd=src_dir_fd, follow_symlinks=False).st_mode):
            real(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            return
        inlet = os.open(src, os.O_RDONLY | os.O_CLOEXEC, dir_fd=src_dir_fd)
        outlet = os.open(dst, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644, dir_fd=dst_dir_fd)
        os.write(outlet, os.read(inlet, 1024 * 1024))
        os.close(inlet)
        os.close(outlet)
        os.unlink(src, dir_fd=src_dir_fd)

    os.rename = rename


# -- hosts


@contextmanager
def host(
    binary: Path,
    root: Path,
    issuing_ca: CA,
    root_ca: CA,
    *,
    listeners: int = 1,
    extra: str = "",
    log_level: str = "error",
) -> Iterator[Edge]:
    """A host with a first pair live and an empty drop, for tests that have several at the same time.

    Args:
        binary: its nginx.
        root: its tree.
        issuing_ca: who issues its leaves.
        root_ca: what its clients trust.
        listeners: see `Edge`.
        extra: the same.
        log_level: of nginx's error log; `notice` tells each signal.
    """
    gc.freeze()  # so that no child of the hundreds copies what it shares with this process
    with NginxServer(binary, root / "nginx", log_level=log_level) as nginx:
        edge = Edge(nginx, root / "edge", issuing_ca, root_ca, listeners=listeners, daemon_extra=extra)
        edge.start()
        (edge.incoming / "example").mkdir()
        yield edge
        print(nginx.words())


# -- drops


def deliver(edge: Edge, new: Issued, site: str = "example") -> str:
    """Puts a renewal into the drop as `rotator deliver` does. Returns the candidate's digest."""
    where = edge.incoming / site
    put([SourceFile("fullchain.pem", new.chain_pem), SourceFile("privkey.pem", new.key_pem)], where)
    return read_drop(where).digest


def strays(edge: Edge) -> list[Path]:
    """What a run that was killed left half made; the lock of the include directory is there to stay."""
    found = [path for root in (edge.state, edge.include_dir, edge.incoming) for path in root.rglob(".*")]
    return [path for path in found if path != edge.include_dir / ".lock"]
