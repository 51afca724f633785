"""Would this nginx take this pair? Asks its own `-t` with a private configuration that touches nothing live."""

from __future__ import annotations

import contextlib
import errno
import os
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
"""Every path is the process's own directory, so nothing is created elsewhere, nothing needs quoting, and a long state
directory does not outgrow a socket's 107 characters."""

_AS_ROOT = "user root root;\n"
"""Run by root, nginx gives its temporary paths to its user (`nobody`): here, the stored pair's own directory."""

_MAX_WORDS = 64 * 1024
_MORE_TEMP = (
    "    fastcgi_temp_path /proc/self/cwd;\n    uwsgi_temp_path /proc/self/cwd;\n    scgi_temp_path /proc/self/cwd;"
)
_NO_PROGRAM = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.ELOOP)
_NOISE = ("the configuration file", "configuration file /proc/self/fd", 'the "user" directive')


@dataclass(frozen=True, slots=True)
class Verdict:
    """What nginx said.

    Args:
        ok: whether it would load it.
        words: its error lines, without the name of the private configuration.
    """

    ok: bool
    words: tuple[str, ...] = ()


def cannot_run(program: str, e: OSError) -> RotatorError:
    """Why nginx's test could not be run: `nginx-missing`, or `io-error` where this host is short of something."""
    words = f"{program} cannot be run: {e.strerror}"
    if e.errno in _NO_PROGRAM:
        hint = 'Set `command` under [nginx] to the nginx of this host, e.g. command = ["/usr/sbin/nginx"]'
        return RotatorError(Reason.NGINX_MISSING, words, hint)
    hint = "This host is short of files, processes or memory: see LimitNOFILE= and TasksMax= of the unit, and `dmesg`"
    return RotatorError(Code.IO_ERROR, words, hint)


class CandidateTest:
    """One running `nginx -t`; start it, do something else, then ask for the `verdict`.

    Args:
        binary: the nginx program.
        directory: where the files lie; also the process's working directory.
        files: (chain, key) file names in it.
        within: seconds until it is ended (nginx hangs on a FIFO, and a host can be slow).

    Raises:
        RotatorError: `nginx-missing` or `io-error` if the program cannot be run.
    """

    def __init__(self, binary: str, directory: Path, files: Sequence[tuple[str, str]], within: float = 10.0) -> None:
        self._binary, self._directory, self._files, self._within = binary, directory, tuple(files), within
        self._process = self._start(with_temp_paths=True)

    def verdict(self) -> Verdict:
        """Waits for nginx's answer.

        Raises:
            RotatorError: as for the class; the program has ended then.
        """
        verdict = self._answer()
        if any("unknown directive" in word and "_temp_path" in word for word in verdict.words):
            self._process = self._start(with_temp_paths=False)  # an nginx built without these modules
            verdict = self._answer()
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
                )
            finally:
                os.close(fd)
        except OSError as e:
            raise cannot_run(self._binary, e) from e

    def _answer(self) -> Verdict:
        with self._process as process:
            try:
                errors = _read_until_exit(process, self._within)
            except OSError as e:
                process.kill()
                raise cannot_run(self._binary, e) from e
            except BaseException:
                process.kill()  # whoever asked was told to end: it must not wait for an nginx that hangs
                raise
            if errors is None:
                process.kill()
        with contextlib.suppress(OSError):
            (self._directory / "rotator-test.sock").unlink()
        if errors is None:
            return Verdict(False, (f"nginx -t did not answer within {self._within:g} s",))
        return Verdict(process.returncode == 0, _words(errors))


def _read_until_exit(process: subprocess.Popen[bytes], within: float) -> bytes | None:
    """What a process wrote to stderr; None if it did not end in time.

    Popen.communicate with a timeout sleeps up to 8 ms past the exit, which is most of what the whole test costs.
    """
    assert process.stderr is not None  # noqa: S101 - a bug, not an input
    end, errors = time.monotonic() + within, b""
    ended = os.pidfd_open(process.pid)
    try:
        pipe = process.stderr.fileno()
        os.set_blocking(pipe, False)
        while ready := _wait([ended, pipe], end):
            over = ended in ready
            part = process.stderr.read(_MAX_WORDS) or b""
            errors += part if len(errors) < _MAX_WORDS else b""
            if over:
                return errors
            if not part:  # closed by a process that goes on
                return errors if _wait([ended], end) else None
        return None
    finally:
        os.close(ended)


def _wait(descriptors: list[int], end: float) -> set[int]:
    """Those that became ready until `end`; poll(2), as select(2) takes no descriptor above 1023."""
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(max(0.0, end - time.monotonic()) * 1000)}


def _words(errors: bytes) -> tuple[str, ...]:
    """nginx's own words of level emerg, without time stamps and without what concerns the private configuration."""
    told = []
    for line in errors.decode("utf-8", "replace").splitlines():
        text = line.split("[emerg] ", 1)[-1] if "[emerg]" in line else ""
        text = text.partition(": ")[2] if text.partition(": ")[0].replace("#", "").isdigit() else text
        text = text.replace("/proc/self/cwd/", "").partition(" in /proc/self/fd/")[0]
        if text and not text.startswith(_NOISE):
            told.append(text[:500])
    return tuple(told[:10])
