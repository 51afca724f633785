"""The pair test: asks this nginx, by `nginx -t` with a private configuration, whether it would load a pair."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.core.reasons import Reason

_CONF = """\
{user}daemon off;
pid /dev/null;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path /proc/self/cwd;
    proxy_temp_path /proc/self/cwd;
{fastcgi}
    server {{
        listen unix:rotator-test.sock ssl;
{pairs}
    }}
}}
"""
"""Every path is the working directory of the process. So nginx creates no file elsewhere, no path needs quoting, and
the path of a long state directory does not exceed the 107 bytes of a socket's path (unix(7))."""

_AS_ROOT = "user root root;\n"
"""Run as root, nginx changes the owner of its temporary directories to the user of its workers. Here they are the
directory of the stored pair, which must keep its owner."""

_MAX_OUTPUT = 64 * 1024
"""The most bytes of nginx's output that are kept."""
_MORE_TEMP = (
    "    fastcgi_temp_path /proc/self/cwd;\n    uwsgi_temp_path /proc/self/cwd;\n    scgi_temp_path /proc/self/cwd;"
)
_NO_PROGRAM = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ELOOP)
_IRRELEVANT = ("the configuration file", "configuration file /proc/self/fd", 'the "user" directive')
"""The beginnings of messages about the private configuration."""
_OF_THE_HOST = re.compile(r"system library|malloc failure|\([0-9]+: ")
"""Marks of a failed system call in nginx's messages, such as too many open files: OpenSSL's and nginx's own."""


@dataclass(frozen=True, slots=True)
class NginxVerdict:
    """The answer of nginx.

    Args:
        ok: whether it would load the files.
        messages: its error messages, without the name of the private configuration.
    """

    ok: bool
    messages: tuple[str, ...] = ()

    @property
    def is_hindered(self) -> bool:
        """Whether all messages are about failed system calls, as where the user of the test may not read a file."""
        return bool(self.messages) and all(_OF_THE_HOST.search(message) for message in self.messages)

    def blames(self, *paths: str) -> bool:
        """Whether a message refuses the content of a file with such a path; one about a failed system call does not.

        Args:
            paths: the paths of files, or of directories with a slash at the end.
        """
        return any(path in message and not _OF_THE_HOST.search(message) for message in self.messages for path in paths)


def cannot_run(program: str, e: OSError) -> RotatorError:
    """The error for a test that cannot be run: `nginx-missing`, or `io-error` if the host lacks a resource.

    Args:
        program: the nginx program.
        e: the error of the system.
    """
    message = f"{program} cannot be run: {e.strerror}"
    if e.errno in _NO_PROGRAM:
        hint = 'Set `command` under [nginx] to the nginx of this host, e.g. command = ["/usr/sbin/nginx"]'
        return RotatorError(Reason.NGINX_MISSING, message, hint)
    hint = "This host is short of files, processes or memory: see LimitNOFILE= and TasksMax= of the unit, and `dmesg`"
    return RotatorError(Code.IO_ERROR, message, hint)


class CandidateTest:
    """One running `nginx -t`, started at once; `verdict` waits for its answer.

    Args:
        binary: the nginx program.
        directory: the directory of the files, which is also the working directory of the process.
        files: the names of the (chain, key) files in it.
        within: the seconds after which it is killed, because nginx waits without limit on a FIFO.

    Raises:
        RotatorError: `nginx-missing` or `io-error` if the program cannot be run.
    """

    def __init__(self, binary: str, directory: Path, files: Sequence[tuple[str, str]], within: float = 10.0) -> None:
        self._binary, self._directory, self._files, self._within = binary, directory, tuple(files), within
        self._process = self._start(with_temp_paths=True)

    def verdict(self) -> NginxVerdict:
        """Waits for nginx's answer.

        Raises:
            RotatorError: as for the class; the program has ended then.
        """
        verdict = self._await_answer()
        if any("unknown directive" in message and "_temp_path" in message for message in verdict.messages):
            self._process = self._start(with_temp_paths=False)  # an nginx that was built without these modules
            verdict = self._await_answer()
        return verdict

    def _start(self, *, with_temp_paths: bool) -> subprocess.Popen[bytes]:
        pairs = "\n".join(
            f"        ssl_certificate /proc/self/cwd/{chain};\n        ssl_certificate_key /proc/self/cwd/{key};"
            for chain, key in self._files
        )
        user = _AS_ROOT if os.geteuid() == 0 else ""
        conf = _CONF.format(user=user, pairs=pairs, fastcgi=_MORE_TEMP if with_temp_paths else "")
        try:
            fd = os.memfd_create("rotator-test", os.MFD_CLOEXEC)
            try:
                os.write(fd, conf.encode())
                return subprocess.Popen(
                    [self._binary, "-t", "-q", "-p", "/proc/self/cwd/", "-c", f"/proc/self/fd/{fd}"],
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(fd,),
                    start_new_session=True,  # without a terminal
                )
            finally:
                os.close(fd)
        except OSError as e:
            raise cannot_run(self._binary, e) from e

    def _await_answer(self) -> NginxVerdict:
        with self._process as process:
            try:
                errors = _read_until_exit(process, self._within)
            except OSError as e:
                process.kill()
                raise cannot_run(self._binary, e) from e
            except BaseException:
                process.kill()  # this process was asked to end, and must not wait for an nginx that hangs
                raise
            if errors is None:
                process.kill()
        with contextlib.suppress(OSError):
            (self._directory / "rotator-test.sock").unlink()
        if errors is None:
            return NginxVerdict(False, (f"nginx -t did not answer within {self._within:g} s",))
        return NginxVerdict(process.returncode == 0, _emerg_messages(errors))


def _read_until_exit(process: subprocess.Popen[bytes], within: float) -> bytes | None:
    """The output of a process on stderr; None if the process did not end in time.

    Popen.communicate with a timeout sleeps up to 8 ms after the exit; the whole test takes little longer than that.
    """
    assert process.stderr is not None  # noqa: S101 - a bug, not an input
    deadline, errors = time.monotonic() + within, b""
    process_fd = os.pidfd_open(process.pid)
    try:
        pipe = process.stderr.fileno()
        os.set_blocking(pipe, False)
        while ready := _wait([process_fd, pipe], deadline):
            has_ended = process_fd in ready
            part = process.stderr.read(_MAX_OUTPUT) or b""
            errors += part if len(errors) < _MAX_OUTPUT else b""
            if has_ended:
                return errors
            if not part:  # the process has closed the pipe and is still running
                return errors if _wait([process_fd], deadline) else None
        return None
    finally:
        os.close(process_fd)


def _wait(descriptors: list[int], deadline: float) -> set[int]:
    """The descriptors that become ready before the deadline; by poll(2), as select(2) takes none above 1023."""
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}


def _emerg_messages(errors: bytes) -> tuple[str, ...]:
    """nginx's messages of level emerg, without time stamps and without those about the private configuration."""
    messages = []
    for line in errors.decode("utf-8", "replace").splitlines():
        text = line.split("[emerg] ", 1)[-1] if "[emerg]" in line else ""
        text = text.partition(": ")[2] if text.partition(": ")[0].replace("#", "").isdigit() else text
        text = text.replace("/proc/self/cwd/", "").partition(" in /proc/self/fd/")[0]
        if text and not text.startswith(_IRRELEVANT):
            messages.append(text[:500])
    return tuple(messages[:10])
