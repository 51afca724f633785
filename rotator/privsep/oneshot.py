"""The privileged steps through the service manager: a request, root's oneshot, its answer; no step is done here.

Whoever owns the store leaves a request in it and starts a unit, which polkit allows him; root reads the request,
does what it asks for, and leaves the answer where only root can write (`rotator.privsep.apply` as a program).
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
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Request, Setup, Tested

APPLY_UNIT = "rotator-apply.service"
TEST_UNIT = "rotator-nginx-test.service"
START_WITHIN = 150.0
"""Seconds for one start: longer than the units' own TimeoutStartSec=, which ends what hangs."""
ALIVE_EVERY = 1.0
"""Seconds between two signs of life while a unit is at work."""
MOST_STARTS = 3
"""How often a unit is started for one request: a start while it still works for another one only waits for that."""


class OneshotApply:
    """Root's oneshots.

    Args:
        setup: the same configuration that root reads.
        waiting: called every second while a unit is at work.
    """

    def __init__(self, setup: Setup, waiting: Callable[[], None] = lambda: None) -> None:
        self._setup, self._waiting = setup, waiting

    def apply(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        """The privileged step, done by root.

        Returns:
            What was done; `error` tells why nothing was, also where the unit could not be started.

        Raises:
            RotatorError: `apply-lost`: an include was changed, but no answer came, so nobody knows what nginx was told.
        """
        asked = Request(token_hex(16), dict(generations), hup)
        before = self._live(asked)
        try:
            return privileged.parse_applied(self._ask(APPLY_UNIT, privileged.REQUEST, privileged.RESULT, asked))
        except RotatorError as e:
            if (live := self._live(asked)) != before:
                words = f"{APPLY_UNIT} changed nginx's include, but gave no answer: {e.message}"
                raise RotatorError(Reason.APPLY_LOST, words, e.hint) from e
            return Applied(asked.id, live, before, e.code, e.message)

    def test(self) -> Tested:
        """nginx's own test of its whole configuration, run by root.

        Raises:
            RotatorError: `apply-unit` or `apply-denied`: the unit could not be started, or gave no answer.
        """
        asked = Request(token_hex(16), {}, hup=False)
        return privileged.parse_tested(self._ask(TEST_UNIT, privileged.TEST_REQUEST, privileged.TEST_RESULT, asked))

    def _live(self, asked: Request) -> dict[str, str]:
        return {s: privileged.read_live(self._setup.include_dir, s).generation for s in asked.generations}

    def _ask(self, unit: str, request: str, result: str, asked: Request) -> bytes:
        """Leaves a request, starts the unit until it has answered that one, and takes the request back."""
        left, answer = Path(self._setup.state_dir, request), Path(self._setup.result_dir, result)
        if not os.path.isdir(answer.parent):  # noqa: PTH112 - False, and no error, where this user may not look
            words = f"{answer.parent} is missing, where root's oneshots leave their answers"
            hint = "Install systemd/tmpfiles.conf as /etc/tmpfiles.d/rotator.conf, then: systemd-tmpfiles --create"
            raise RotatorError(Reason.NO_RESULT_DIR, words, hint)
        try:
            _leave(left, dumps(asdict(asked)).encode())
        except OSError as e:
            raise RotatorError(
                Code.IO_ERROR, f"{left}: {e.strerror}", f"df -h {left.parent}; ls -la {left.parent}"
            ) from e
        try:
            for _ in range(MOST_STARTS):
                self._start(unit)
                data = _read(answer)
                if f'"id": "{asked.id}"'.encode() in data[:64]:
                    return data
        finally:
            with suppress(OSError):  # the answer counts, also where the disk takes no change any more
                left.unlink(missing_ok=True)
        words = f"{unit} ended well, but left no answer in {answer}"
        hint = f"See what it says: journalctl -u {unit} -n 20; and: ls -la {answer.parent}"
        raise RotatorError(Reason.APPLY_UNIT, words, hint)

    def _start(self, unit: str) -> None:
        """Starts a unit and waits for its end."""
        hint = f"See what it says: journalctl -u {unit} -n 20"
        try:
            process = subprocess.Popen(  # noqa: S603 - words of this module only
                ["systemctl", "--no-ask-password", "start", unit],  # noqa: S607 - by PATH, as everybody calls it
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except OSError as e:
            hint = 'Without systemd, where nginx runs as this user: apply = "direct" under [nginx]'
            raise RotatorError(Reason.APPLY_UNIT, f"systemctl cannot be run: {e.strerror}", hint) from e
        with process:
            try:
                told = self._wait(process, unit)
            except BaseException:
                process.kill()  # the start goes on without it; whoever asked has no time left, or was told to end
                raise
        if process.returncode == 0:
            return
        words = "; ".join(line.rstrip(".") for line in told.decode("utf-8", "replace").splitlines() if line)[:500]
        if "denied" in words.lower() or "authentication" in words.lower():
            hint = "Allow it: install systemd/50-rotator.rules into /etc/polkit-1/rules.d (polkit 0.106 or later)"
            raise RotatorError(Reason.APPLY_DENIED, f"{unit} may not be started by uid {os.geteuid()}: {words}", hint)
        if "not found" in words.lower():
            hint = f"Install systemd/{unit} into /etc/systemd/system, then: systemctl daemon-reload"
        raise RotatorError(
            Reason.APPLY_UNIT, f"{unit} failed: {words or f'systemctl exited {process.returncode}'}", hint
        )

    def _wait(self, process: subprocess.Popen[bytes], unit: str) -> bytes:
        for _ in range(int(START_WITHIN / ALIVE_EVERY)):
            try:
                return process.communicate(timeout=ALIVE_EVERY)[1]
            except subprocess.TimeoutExpired:
                self._waiting()
        words = f"{unit} did not end within {START_WITHIN:g} s"
        raise RotatorError(Reason.APPLY_UNIT, words, f"systemctl status {unit}")


def _leave(path: Path, data: bytes) -> None:
    """Puts a request in its place, whole. It needs no flush: after a power cut nobody waits for its answer."""
    new = path.with_name(f".new-{path.name}")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(data)
    new.rename(path)


def _read(path: Path) -> bytes:
    """An answer; nothing where there is none."""
    try:
        with path.open("rb") as f:
            return f.read(privileged.MAX_ANSWER)
    except OSError:
        return b""


def request(generations: Mapping[str, str], *, hup: bool) -> Request:
    """A request with an id of its own."""
    return Request(token_hex(16), dict(generations), hup)


class ApplyPort(Protocol):
    """The privileged step."""

    def __call__(self, generations: Mapping[str, str], *, hup: bool) -> Applied:
        """Makes the includes name these generations; then one HUP, or none."""
