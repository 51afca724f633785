"""Chromium and Firefox without a screen: started once each with a fresh profile, driven from page to page.

Each is asked by its own protocol (Chromium's over a pair of pipes, Firefox's Marionette over a socket), so that what
is compared is the browser's own verdict in its own words, not a guess from what a server saw.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Self

from tests.support.waiting import PATIENCE, wait_until

PAGE_WITHIN = 40.0
"""Seconds for one answer: Chromium waits 13 s for a CA's server that says nothing."""

ALL_WITHIN = 90.0
"""Seconds for all pages of Chromium."""

TABS = 5


class Browser:
    """One process (and what it starts), ended with the block; its words go to a file in its tree.

    Args:
        root: its tree.
        roots: PEM files of the roots that it trusts.
        known: PEM files of intermediates that it has already, without trusting them by themselves.
    """

    def __init__(self, root: Path, roots: Sequence[Path], known: Sequence[Path] = ()) -> None:
        self.root = root
        self.home = root / "home"
        self.home.mkdir(parents=True)
        self.roots = roots
        self.known = known
        self.process: subprocess.Popen[bytes] | None = None

    def visit(self, urls: Sequence[str]) -> list[str]:
        """Open each page; empty for one that was shown, otherwise the browser's word for why it was not."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def trust(self, database: Path) -> None:
        """Make this NSS database trust the roots, as an administrator would, and hold the known intermediates."""
        database.mkdir(parents=True, exist_ok=True)
        where = f"sql:{database}"
        _run("certutil", "-N", "-d", where, "--empty-password")
        for number, path in enumerate(self.roots):
            _run("certutil", "-A", "-d", where, "-n", f"root {number}", "-t", "C,,", "-i", str(path))
        for number, path in enumerate(self.known):
            _run("certutil", "-A", "-d", where, "-n", f"known {number}", "-t", ",,", "-i", str(path))

    def launch(self, command: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.root),
            "XDG_RUNTIME_DIR": str(self.root),
            "LANG": "C.UTF-8",
            "MOZ_CRASHREPORTER_DISABLE": "1",
        }
        with (self.root / "words.log").open("wb") as words:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                env=environment,
                pass_fds=pass_fds,
                start_new_session=True,
            )

    def words(self) -> str:
        return (self.root / "words.log").read_text(errors="replace")[-4000:]

    def close(self) -> None:
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Chromium(Browser):
    """Chromium's verifier with the roots in the user's NSS database, spoken to over its debugging pipes."""

    def start(self) -> None:
        self.trust(self.home / ".pki" / "nssdb")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        binary = shutil.which("chromium")
        assert binary is not None
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --disable-dev-shm-usage --disable-extensions "
            "--remote-debugging-pipe"
        )
        # the debugging pipes are descriptors 3 and 4 by convention
        shell = f'exec "$@" 3<&{commands} 4>&{answers} {commands}<&- {answers}>&-'
        resolve = "--host-resolver-rules=MAP * 127.0.0.1"
        profile = f"--user-data-dir={self.root / 'profile'}"
        self.launch(
            ["bash", "-c", shell, "bash", binary, *flags.split(), resolve, profile, "about:blank"], (commands, answers)
        )
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._count = 0
        self._tabs = [self._open_tab() for _ in range(TABS)]

    def visit(self, urls: Sequence[str]) -> list[str]:
        """In several tabs at once: before most of its error pages Chromium waits three seconds for a better idea."""
        answers = [""] * len(urls)
        ahead = list(enumerate(urls))[::-1]
        free = list(self._tabs)
        asked: dict[int, tuple[int, str]] = {}
        end = time.monotonic() + ALL_WITHIN
        while ahead or asked:
            while ahead and free:
                number, url = ahead.pop()
                tab = free.pop()
                asked[self._send("Page.navigate", {"url": url}, tab)] = number, tab
            answer = self._next(end)
            if answer.get("id") in asked:
                number, tab = asked.pop(answer["id"])
                free.append(tab)
                answers[number] = str(answer["result"].get("errorText", ""))
        return answers

    def _open_tab(self) -> str:
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        return str(self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"])

    def version(self) -> str:
        return str(self._ask("Browser.getVersion", {})["product"])

    def close(self) -> None:
        super().close()
        for descriptor in (getattr(self, "_to", None), getattr(self, "_from", None)):
            if descriptor is not None:
                os.close(descriptor)
        self._to = self._from = None  # type: ignore[assignment]  # closed once

    def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = self._send(method, parameters)
        end = time.monotonic() + PAGE_WITHIN
        while True:
            answer = self._next(end)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _send(self, method: str, parameters: dict[str, Any], session: str = "") -> int:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._count

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready = select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, f"Chromium does not answer: {self.words()}"
            part = os.read(self._from, 65536)
            assert part, f"Chromium has ended: {self.words()}"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))


class Firefox(Browser):
    """Firefox's verifier with the roots in the profile's NSS database, spoken to over Marionette."""

    PREFERENCES: ClassVar[dict[str, object]] = {
        "marionette.port": 0,
        "network.dns.forceResolve": "127.0.0.1",
        "network.captive-portal-service.enabled": False,
        "network.connectivity-service.enabled": False,
        "network.prefetch-next": False,
        "network.http.speculative-parallel-limit": 0,
        "services.settings.server": "data:,#remote-settings-dummy/v1",
        "app.normandy.enabled": False,
        "app.update.disabledForTesting": True,
        "browser.safebrowsing.update.enabled": False,
        "browser.search.update": False,
        "browser.shell.checkDefaultBrowser": False,
        "browser.startup.page": 0,
        "browser.newtabpage.enabled": False,
        "datareporting.policy.dataSubmissionEnabled": False,
        "extensions.update.enabled": False,
        "security.OCSP.enabled": 0,
        "toolkit.telemetry.server": "data:,",
        "security.enterprise_roots.enabled": False,
    }

    def start(self) -> None:
        profile = self.root / "profile"
        self.trust(profile)
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in self.PREFERENCES.items()]
        (profile / "user.js").write_text("".join(lines))
        binary = shutil.which("firefox-esr") or shutil.which("firefox")
        assert binary is not None
        self.launch([binary, "--headless", "--no-remote", "--marionette", "--profile", str(profile)])
        port_file = profile / "MarionetteActivePort"
        port = wait_until(
            lambda: port_file.exists() and port_file.read_text().strip(), 60, "Firefox's Marionette listens"
        )
        self._socket = socket.create_connection(("127.0.0.1", int(port)), timeout=PAGE_WITHIN)
        self._reader: IO[bytes] = self._socket.makefile("rb")
        self._read()
        self._count = 0
        answer = self._ask("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {"acceptInsecureCerts": False}}})
        self._capabilities = answer[1]["capabilities"]

    def visit(self, urls: Sequence[str]) -> list[str]:
        answers = [self._ask("WebDriver:Navigate", {"url": url})[0] for url in urls]
        return [f"{error['error']}: {error['message']}" if error else "" for error in answers]

    def version(self) -> str:
        return f"Firefox/{self._capabilities['browserVersion']}"

    def close(self) -> None:
        super().close()
        for stream in (getattr(self, "_reader", None), getattr(self, "_socket", None)):
            if stream is not None:
                stream.close()

    def _ask(self, method: str, parameters: dict[str, Any]) -> tuple[Any, Any]:
        self._count += 1
        data = json.dumps([0, self._count, method, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(data), data))
        _, number, error, result = self._read()
        assert number == self._count
        return error, result

    def _read(self) -> Any:
        size = b""
        while (byte := self._reader.read(1)) != b":":
            assert byte, f"Firefox has ended: {self.words()}"
            size += byte
        return json.loads(self._reader.read(int(size)))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
