"""The halves of a command that root runs on a terminal: what the unprivileged half can do to it, and what both get."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rotator.cli.output import Output
from rotator.core.errors import RotatorError
from rotator.privsep.privilege_drop import Account, nobody, run_without_root
from rotator.privsep.terminal_filter import TerminalFilter
from tests.support.other_user import NOBODY, forked
from tests.support.terminal import Terminal, is_gone, state_of, terminal, wait_forever
from tests.support.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

ATTACKER = Account(NOBODY, NOBODY)


def separated(work: Callable[[], int]) -> Callable[[], int]:
    """A program that root runs, whose work is done by the unprivileged half."""

    def report(e: RotatorError) -> int:
        Output().error(e)
        return int(e.exit)

    return lambda: run_without_root(ATTACKER, work, report)


def answer_of(work: Callable[[], object]) -> object:
    """What `work` returns in the unprivileged half of a command on a terminal, as JSON has it."""

    def show() -> int:
        print("answer", json.dumps(work()))
        return 0

    with terminal(separated(show)) as one:
        assert one.end() == 0, one.shown
        line = next(line for line in one.shown.decode().splitlines() if line.startswith("answer "))
        answer: object = json.loads(line.removeprefix("answer "))
        return answer


# -- what the unprivileged half has


def test_the_unprivileged_half_cannot_open_the_terminal() -> None:
    def attempt() -> object:
        try:
            os.close(os.open("/dev/tty", os.O_RDWR))
        except OSError as e:
            return e.errno
        return "opened"

    assert answer_of(attempt) == errno.ENXIO


def test_the_unprivileged_half_has_no_descriptor_of_the_terminal_and_no_other_inherited_one() -> None:
    def links() -> object:
        names = [f"/proc/self/fd/{number}" for number in range(4096)]
        return sorted(os.readlink(name).split(":")[0] for name in names if os.path.lexists(name))

    inherited = os.open("/etc/shadow", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        assert answer_of(links) == ["/dev/null", "pipe", "pipe", "socket"]
    finally:
        os.close(inherited)


def test_the_unprivileged_half_is_in_a_session_of_its_own() -> None:
    assert answer_of(lambda: os.getsid(0) == os.getpid() != os.getsid(os.getppid())) is True


def test_the_unprivileged_half_cannot_type_on_the_terminal() -> None:
    def attempt() -> object:
        refused = []
        for fd in (0, 1, 2):
            try:
                fcntl.ioctl(fd, termios.TIOCSTI, b"x")
            except OSError as e:
                refused.append(e.errno)
        return refused

    assert answer_of(attempt) == [errno.ENOTTY] * 3


def test_a_program_that_the_unprivileged_half_starts_has_no_terminal_either() -> None:
    script = "(exec 3<>/dev/tty) 2>/dev/null && echo opened || echo refused"

    def attempt() -> object:
        return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False).stdout.strip()

    assert answer_of(attempt) == "refused"


def test_another_process_of_its_user_cannot_reach_its_memory_or_its_descriptors() -> None:
    def own_files() -> object:
        return [os.stat(f"/proc/self/{name}").st_uid for name in ("mem", "environ", "fd")]

    assert answer_of(own_files) == [0, 0, 0]


def test_it_leaves_no_core_and_gains_nothing_by_another_program() -> None:
    def limits() -> object:
        status = Path("/proc/self/status").read_text()
        return [*resource.getrlimit(resource.RLIMIT_CORE), re.findall(r"NoNewPrivs:\s*(\d)", status)]

    assert answer_of(limits) == [0, 0, ["1"]]


def test_it_is_another_user_with_no_group_and_no_capability_of_root() -> None:
    def rights() -> object:
        status = Path("/proc/self/status").read_text()
        return [os.getresuid(), os.getresgid(), 0 in os.getgroups(), re.findall(r"Cap(?:Prm|Eff|Amb):\s*(\w+)", status)]

    assert answer_of(rights) == [[NOBODY] * 3, [NOBODY] * 3, False, ["0" * 16] * 3]


def test_it_keeps_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of root")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("LC_TIME", "C")
    kept = answer_of(lambda: sorted(os.environ))
    assert isinstance(kept, list)
    assert ("AWS_SECRET_ACCESS_KEY" in kept, "LD_PRELOAD" in kept, "LC_TIME" in kept, "PATH" in kept) == (
        False,
        False,
        True,
        True,
    )


def test_standard_streams_that_the_caller_has_closed_stay_closed(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from rotator.privsep.privilege_drop import Account, run_without_root\n"
        "def work():\n"
        "    links = sorted(os.readlink(f'/proc/self/fd/{n}').split(':')[0] for n in (0, 1, 2))\n"
        "    return 0 if sys.stdout is None and links == ['/dev/null', 'pipe', 'pipe'] else 1\n"
        "sys.exit(run_without_root(Account(65534, 65534), work, lambda e: 2))\n"
    )
    program = tmp_path / "program.py"
    program.write_text(script)
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} {program} <&- >&-"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_nobody_is_the_user_of_that_name() -> None:
    assert nobody() == Account(NOBODY, NOBODY)


# -- what the caller sees


def test_colours_and_the_width_of_the_terminal_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def work() -> int:
        output = Output()
        output.import_late()
        output.line("a good line", "good")
        output.table(("column",), [["x" * 150]])
        print("width", os.environ["COLUMNS"])
        return 0

    def program() -> int:
        Output().import_late()
        return separated(work)()

    with terminal(program, columns=190) as one:
        assert one.end() == 0, one.shown
        assert b"\x1b[32ma good line\x1b[0m\r\n" in one.shown
        assert one.number_after("width") == 190
        assert "─" * 150 in one.shown.decode()


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b]0;title\x07",
        "\x1b[6n",
        "\x1b[2J",
        "\x1b[?1049h",
        "\x1bP$q\x1b\\",
        "\x1bc",
        "\x9b6n",
        "\x1b[8mhidden",
        "\x1b[38;5;1m",
        "\x1b[1;1H",
        "\x1b[;m",
        "\r",
        "\b",
        "\x00",
        "\x7f",
        "\u202e",
        "\x1b\x1b[31\x1b[31m",
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_no_hostile_sequence_of_the_unprivileged_half_reaches_the_terminal(hostile: str, cut: bool) -> None:
    def work() -> int:
        data = f"before {hostile} after\n".encode()
        for part in [data[i : i + 1] for i in range(len(data))] if cut else [data]:
            os.write(1, part)
        return 0

    with terminal(separated(work)) as one:
        assert one.end() == 0
        text = one.shown.decode()
    allowed = re.sub(r"\x1b\[(?:0|31)m", "", text).replace("\r\n", "")
    assert (allowed.isprintable(), allowed.startswith("before "), "after" in allowed) == (True, True, True), text


def test_bytes_that_are_no_text_do_not_reach_the_terminal() -> None:
    def work() -> int:
        os.write(1, b"before \x9b31m \xff\xc2\x9b after\n")
        return 0

    with terminal(separated(work)) as one:
        assert one.end() == 0
        assert not set(one.shown) & {0x9B, 0xFF} or "\ufffd" in one.shown.decode()
        assert "\x9b" not in one.shown.decode()


def test_a_colour_that_is_left_on_ends_with_the_command() -> None:
    def work() -> int:
        os.write(1, b"\x1b[31mred")
        return 0

    with terminal(separated(work)) as one:
        one.end()
        assert one.shown == b"\x1b[31mred\x1b[0m"


def test_a_file_gets_no_sequence_at_all() -> None:
    clean = TerminalFilter(colours=False)
    assert clean.feed("\x1b[31mred\x1b[0m\tx\n") + clean.end() == "\\x1b[31mred\\x1b[0m\tx\n"


def test_a_sequence_in_two_parts_is_the_same_as_in_one() -> None:
    clean = TerminalFilter(colours=True)
    assert clean.feed("a\x1b[3") + clean.feed("1mb\x1b") + clean.feed("[0mc") + clean.end() == "a\x1b[31mb\x1b[0mc"


# -- how a command ends


@pytest.mark.parametrize(
    ("keys", "status"),
    [(b"\x03", 128 + signal.SIGINT), (b"\x1c", 128 + signal.SIGQUIT)],
    ids=["Ctrl-C", "Ctrl-backslash"],
)
def test_a_key_of_the_terminal_ends_both_halves(keys: bytes, status: int) -> None:
    with terminal(separated(_at_work)) as one:
        child = one.number_after("at work")
        one.type(keys)
        assert (one.end(), is_gone(child)) == (status, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_command_ends_both_halves(number: signal.Signals) -> None:
    with terminal(separated(_at_work)) as one:
        child = one.number_after("at work")
        os.kill(one.pid, number)
        assert (one.end(), is_gone(child)) == (128 + number, True)


def test_the_end_of_the_terminal_ends_both_halves() -> None:
    with terminal(separated(_at_work)) as one:
        child = one.number_after("at work")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, one.fd)  # closes the far side, as the end of an SSH connection does
        os.close(null)
        wait_until(one.has_ended, PATIENCE / 10)
        wait_until(lambda: is_gone(child), PATIENCE / 10)


def test_a_killed_parent_takes_the_child_with_it() -> None:
    with terminal(separated(_at_work)) as one:
        child = one.number_after("at work")
        os.kill(one.pid, signal.SIGKILL)
        wait_until(lambda: is_gone(child), PATIENCE / 10, "the child ends")


def test_a_killed_child_ends_the_command() -> None:
    with terminal(separated(_at_work)) as one:
        os.kill(one.number_after("at work"), signal.SIGKILL)
        assert one.end() == 128 + signal.SIGKILL


def test_the_command_ends_although_a_grandchild_keeps_its_output_open() -> None:
    def work() -> int:
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(10 * PATIENCE)
            os._exit(0)
        print("at work", grandchild, flush=True)
        return 3

    with terminal(separated(work)) as one:
        grandchild = one.number_after("at work")
        try:
            assert one.end() == 3
        finally:
            os.kill(grandchild, signal.SIGKILL)


def test_ctrl_z_stops_both_halves_and_fg_continues_both() -> None:
    def work() -> int:
        print("at work", os.getpid(), flush=True)
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            time.sleep(0.01)
            print(".", end="", flush=True)
        return 0

    with _in_a_group(work) as (one, command):
        child = one.number_after("at work")
        os.kill(command, signal.SIGTSTP)
        wait_until(lambda: (state_of(command), state_of(child)) == ("T", "T"), PATIENCE / 10, "both are stopped")
        before = len(one.look())
        os.kill(command, signal.SIGCONT)
        wait_until(lambda: len(one.look()) > before, PATIENCE / 10, "the work goes on")
        os.kill(command, signal.SIGTERM)
        assert one.end() == 128 + signal.SIGTERM


def test_a_signal_that_the_caller_ignores_ends_nothing() -> None:
    def work() -> int:
        print("at work", os.getpid(), flush=True)
        time.sleep(0.5)
        return 4

    def with_nohup() -> int:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return separated(work)()

    with terminal(with_nohup) as one:
        child = one.number_after("at work")
        os.kill(one.pid, signal.SIGHUP)
        os.kill(child, signal.SIGHUP)
        assert one.end() == 4


# -- outputs that are no terminal


def test_the_caller_may_have_more_descriptors_open_than_select_takes() -> None:
    def refuse(_: RotatorError) -> int:
        return 2

    def leave_the_output_open() -> int:
        subprocess.Popen(["sleep", "5"])
        return 5

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert run_without_root(ATTACKER, leave_the_output_open, refuse) == 5
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_large_output_is_whole() -> None:
    def work() -> int:
        for number in range(40_000):
            print(f"line {number} of the output")
        print("an error", file=sys.stderr)
        return 0

    done, output, errors = _with_files(work)
    assert (done, output.count(b"\n"), output.endswith(b"line 39999 of the output\n"), errors) == (
        0,
        40_000,
        True,
        b"an error\n",
    )


def test_a_reader_that_ends_early_ends_the_command_without_a_traceback() -> None:
    def work() -> int:
        for number in range(400_000):
            print(f"line {number}", flush=True)
        return 0

    with tempfile.TemporaryFile() as errors:
        inlet, outlet = os.pipe()
        command = _command(work, outlet, errors.fileno(), closed=inlet)
        os.close(outlet)
        os.read(inlet, 10)
        os.close(inlet)
        status = _status(command)
        errors.seek(0)
        assert (status, b"Traceback" in errors.read()) == (70, False)  # BrokenPipeError in the parent


def test_json_is_the_same_byte_for_byte() -> None:
    answer = {"text": "ä \x1b[31m \u202e", "numbers": list(range(100))}

    def work() -> int:
        Output(json=True).data(answer)
        return 0

    _, output, _ = _with_files(work)
    expected = json.dumps({"schema_version": 1, **answer}, indent=2) + "\n"
    assert output.decode() == expected


def test_a_full_disk_is_reported() -> None:
    def work() -> int:
        print("an answer", flush=True)
        return 0

    full = os.open("/dev/full", os.O_WRONLY)
    with tempfile.TemporaryFile() as errors:
        command = _command(work, full, errors.fileno())
        os.close(full)
        assert _status(command) == 71


def _at_work() -> int:
    print("at work", os.getpid(), flush=True)
    return wait_forever()


class _InGroup:
    """A command in a process group of its own, as a shell with job control starts it; the shell waits for its end."""

    def __init__(self, work: Callable[[], int]) -> None:
        def shell() -> int:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            command = os.fork()
            if command == 0:
                os.setpgid(0, 0)
                os._exit(separated(work)())
            with suppress(OSError):
                os.setpgid(command, command)
            print("command", command, flush=True)
            return os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])

        self._terminal = terminal(shell)

    def __enter__(self) -> tuple[Terminal, int]:
        one = self._terminal.__enter__()
        return one, one.number_after("command")

    def __exit__(self, *error: object) -> None:
        self._terminal.__exit__(None, None, None)


def _in_a_group(work: Callable[[], int]) -> _InGroup:
    return _InGroup(work)


def _command(work: Callable[[], int], stdout: int, stderr: int, *, closed: int = -1) -> int:
    def run() -> None:
        if closed >= 0:
            os.close(closed)
        sys.stdout = os.fdopen(os.dup(stdout), "w", encoding="utf-8")
        sys.stderr = os.fdopen(os.dup(stderr), "w", encoding="utf-8")
        try:
            code = separated(work)()
        except BrokenPipeError:
            code = 70
        except RotatorError:
            code = 71
        sys.stderr.flush()
        os._exit(code)

    return forked(run)


def _status(pid: int) -> int:
    status: list[int] = []

    def ended() -> bool:
        gone, code = os.waitpid(pid, os.WNOHANG)
        if gone:
            status.append(os.waitstatus_to_exitcode(code))
        return bool(gone)

    wait_until(ended, PATIENCE / 10, "the command ends")
    return status[0]


def _with_files(work: Callable[[], int]) -> tuple[int, bytes, bytes]:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        command = _command(work, output.fileno(), errors.fileno())
        status = _status(command)
        output.seek(0)
        errors.seek(0)
        return status, output.read(), errors.read()
