"""The client of root's oneshot units, through which an unprivileged process has the privileged steps carried out.

The owner of the store leaves a request in it and starts a unit, which polkit allows. Root's unit reads the request,
carries it out (`rotator.privsep.apply` as a program), and leaves the answer in a directory that only root can write.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from json import dumps
from pathlib import Path
from secrets import token_hex
from typing import Protocol

from rotator.core.errors import RotatorError
from rotator.core.hints import command, shell_word
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Request, Setup, Tested

APPLY_UNIT = "rotator-apply.service"
TEST_UNIT = "rotator-nginx-test.service"
START_WITHIN = 150.0
"""The seconds for one start, more than the TimeoutStartSec= of the units, by which systemd ends one that hangs."""
ALIVE_EVERY = 1.0
"""The seconds between two calls of `waiting` while a unit runs."""
MOST_STARTS = 3
"""How often a unit is started for one request. A start while it runs for another request only waits for that one."""


class UnitClient:
    """Has root's oneshot units carry out privileged steps.

    Args:
        setup: the same configuration that root reads.
        waiting: called every second while a unit runs.
    """

    def __init__(self, setup: Setup, waiting: Callable[[], None] = lambda: None) -> None:
        self._setup, self._waiting = setup, waiting

    def apply(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        """The privileged step, carried out by root.

        Returns:
            The answer. If nothing was done, `error` has the reason, also if the unit could not be started.

        Raises:
            RotatorError: `apply-lost`: an include was changed, but without an answer, so it is unknown whether nginx
                got its signal.
        """
        request = new_request(generations, hup=hup)
        before = self._live(request)
        try:
            return privileged.parse_applied(self._ask(APPLY_UNIT, privileged.REQUEST, privileged.RESULT, request))
        except RotatorError as e:
            if (live := self._live(request)) != before:
                message = f"{APPLY_UNIT} changed nginx's include, but gave no answer: {e.message}"
                raise RotatorError(Reason.APPLY_LOST, message, e.hint) from e
            return Applied(request.id, live, before, e.code, e.message)

    def test(self) -> Tested:
        """The result of `nginx -t` with its whole configuration, run by root.

        Raises:
            RotatorError: `apply-unit` or `apply-denied`: the unit could not be started, or gave no answer.
        """
        request = new_request({}, hup=False)
        return privileged.parse_tested(self._ask(TEST_UNIT, privileged.TEST_REQUEST, privileged.TEST_RESULT, request))

    def _live(self, request: Request) -> dict[str, str]:
        return {s: privileged.read_live(self._setup.include_dir, s).generation for s in request.generations}

    def _ask(self, unit: str, request_name: str, result_name: str, request: Request) -> bytes:
        """Writes a request, starts the unit until it has answered this request, and removes the request."""
        request_path, answer = Path(self._setup.state_dir, request_name), Path(self._setup.result_dir, result_name)
        if not os.path.isdir(answer.parent):  # noqa: PTH112 - False, and not an error, if this user may not look
            message = f"{answer.parent} is missing; root's oneshots leave their answers there"
            hint = "Install systemd/tmpfiles.conf as /etc/tmpfiles.d/rotator.conf, then: systemd-tmpfiles --create"
            raise RotatorError(Reason.NO_RESULT_DIR, message, hint)
        try:
            _write_whole(request_path, dumps(asdict(request)).encode())
        except OSError as e:
            hint = f"{command('df -h', request_path.parent)}; {command('ls -la', request_path.parent)}"
            raise RotatorError(Code.IO_ERROR, f"{request_path}: {e.strerror}", hint) from e
        try:
            for _ in range(MOST_STARTS):
                self._start(unit)
                data = _read(answer)
                if f'"id": "{request.id}"'.encode() in data[:64]:
                    return data
        finally:
            with suppress(OSError):  # the answer counts, even if the disk is now read-only
                request_path.unlink(missing_ok=True)
        message = f"{unit} succeeded, but left no answer in {answer}"
        hint = f"See its log: {command('journalctl -n 20 -u', unit)}; and: {command('ls -la', answer.parent)}"
        raise RotatorError(Reason.APPLY_UNIT, message, hint)

    def _start(self, unit: str) -> None:
        """Starts a unit and waits for its end."""
        hint = f"See its log: {command('journalctl -n 20 -u', unit)}"
        try:
            process = subprocess.Popen(  # noqa: S603 - the arguments are constants of this module
                ["systemctl", "--no-ask-password", "start", unit],  # noqa: S607 - found by PATH, like every systemctl
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except OSError as e:
            hint = 'Without systemd, and with an nginx that runs as this user: set apply = "direct" under [nginx]'
            raise RotatorError(Reason.APPLY_UNIT, f"systemctl cannot be run: {e.strerror}", hint) from e
        with process:
            try:
                output = self._wait(process, unit)
            except BaseException:
                process.kill()  # the unit continues without it; this process is out of time or was asked to end
                raise
        if process.returncode == 0:
            return
        reason = "; ".join(line.rstrip(".") for line in output.decode("utf-8", "replace").splitlines() if line)[:500]
        if "denied" in reason.lower() or "authentication" in reason.lower():
            hint = "Allow it: install systemd/50-rotator.rules into /etc/polkit-1/rules.d (polkit 0.106 or later)"
            raise RotatorError(Reason.APPLY_DENIED, f"{unit} may not be started by uid {os.geteuid()}: {reason}", hint)
        if "not found" in reason.lower():
            hint = f"Install {shell_word(f'systemd/{unit}')} into /etc/systemd/system, then: systemctl daemon-reload"
        raise RotatorError(
            Reason.APPLY_UNIT, f"{unit} failed: {reason or f'systemctl exited {process.returncode}'}", hint
        )

    def _wait(self, process: subprocess.Popen[bytes], unit: str) -> bytes:
        for _ in range(int(START_WITHIN / ALIVE_EVERY)):
            try:
                return process.communicate(timeout=ALIVE_EVERY)[1]
            except subprocess.TimeoutExpired:
                self._waiting()
        message = f"{unit} did not end within {START_WITHIN:g} s"
        raise RotatorError(Reason.APPLY_UNIT, message, command("systemctl status", unit))


def _write_whole(path: Path, data: bytes) -> None:
    """Writes a file and gives it its name in one step. It is not flushed: after a power failure it has no use."""
    new = path.with_name(f".new-{path.name}")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(data)
    new.rename(path)


def _read(path: Path) -> bytes:
    """The bytes of an answer; empty if it cannot be read."""
    try:
        with path.open("rb") as f:
            return f.read(privileged.MAX_ANSWER)
    except OSError:
        return b""


def new_request(generations: Mapping[str, str], *, hup: bool) -> Request:
    """A request with a new random id.

    Args:
        generations: the generation to put live, by site.
        hup: whether nginx gets a HUP.
    """
    return Request(token_hex(16), dict(generations), hup)


class ApplyPort(Protocol):
    """The privileged step, as a port of the rotation."""

    def __call__(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        """Makes the includes name these generations, by site, and then sends nginx one HUP, or none."""
