"""The evidence for what nginx's master did: its own state and children, and never what another user can write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from rotator.privsep import apply as module
from rotator.privsep.apply import Request, Setup, apply, hup_master, is_master, master_pid
from tests.support.other_user import NOBODY, as_nobody, in_child

WORD = "2026/11/22 12:00:00 [emerg] %d#%d: %s\n"

MASTER = """
import os, signal, sys, time
os.setuid({uid})
def on_hup(*_):
    {on_hup}
signal.signal(signal.SIGHUP, on_hup)
if os.fork() == 0:
    time.sleep(60)
print(flush=True)
while True:
    signal.pause()
"""
"""A process with the title of a master and with one child, which ends with it."""


@contextmanager
def false_master(on_hup: str = "pass", *, uid: int | None = None) -> Iterator[Popen[bytes]]:
    """A process with the title of an nginx master and one child; what it does on a HUP is Python."""
    with Popen(
        ["nginx: master process x", "-c", MASTER.format(on_hup=on_hup, uid=os.getuid() if uid is None else uid)],
        executable=sys.executable, stdout=PIPE, process_group=0,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            os.killpg(process.pid, 9)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    (tmp_path / "error.log").touch(0o640)
    return Setup(
        str(tmp_path / "state"), str(tmp_path / "etc"), str(tmp_path / "nginx.pid"), str(tmp_path / "error.log"),
        frozenset({"one"}), watch_for=5.0,
    )  # fmt: skip


def writing(log: str, text: str, then: str = "pass") -> str:
    """What a master does on a HUP: it writes a line of its own into the log, and then something else."""
    line = WORD % (0, 0, text)
    return f"open({log!r}, 'a').write({line!r}.replace(' 0#0', f' {{os.getpid()}}#0')); {then}"


def hup(setup: Setup, process: Popen[bytes]) -> tuple[str, tuple[str, ...]]:
    Path(setup.pid_file).write_text(f"{process.pid}\n")
    return hup_master(setup)[1:]


# -- the decision


def test_a_master_that_waits_again_without_a_new_child_has_refused(setup: Setup) -> None:
    with false_master() as process:
        assert hup(setup, process)[0] == "refused"


def test_a_master_with_a_new_child_has_accepted(setup: Setup) -> None:
    with false_master("os.fork() or time.sleep(60)") as process:
        assert hup(setup, process)[0] == "accepted"


def test_a_master_that_works_is_waited_for_whatever_its_log_says(setup: Setup) -> None:
    work = "time.sleep(0.3); os.fork() or time.sleep(60)"
    blocked = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP}); "  # as nginx does while it reloads
    with false_master(blocked + writing(setup.error_log, "no such directive", work)) as process:
        assert hup(setup, process) == ("accepted", ("no such directive",))


def test_a_log_decides_nothing_where_nothing_else_can_be_seen(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_idle", lambda pid: None)
    with false_master(writing(setup.error_log, "no such directive")) as process:
        assert hup(replace(setup, watch_for=0.2), process) == ("unknown", ("no such directive",))


IDLE = (
    "State:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n"
    "Uid:\t0\t0\t0\t0\n"
)
STATES = {
    "waiting for signals": (IDLE, True),
    "computing": (IDLE.replace("S (sleeping)", "R (running)"), False),
    "waiting for a disk": (IDLE.replace("S (sleeping)", "D (disk sleep)"), False),
    "sleeping in a reload, with its signals blocked": (
        IDLE.replace("SigBlk:\t0000000000000000", "SigBlk:\t18016a07"),
        False,
    ),
    "sleeping in the handler of another signal": (IDLE.replace("SigBlk:\t0000000000000000", "SigBlk:\t10000"), False),
    "about to see a HUP of its own": (IDLE.replace("SigPnd:\t0000000000000000", "SigPnd:\t0000000000000001"), False),
    "about to see a HUP of its group": (IDLE.replace("ShdPnd:\t0000000000000000", "ShdPnd:\t4001"), False),
    "about to see a child's end": (IDLE.replace("ShdPnd:\t0000000000000000", "ShdPnd:\t10000"), True),
    "stopped with the HUP pending": (IDLE.replace("S (sleeping)", "T (stopped)"), None),
    "invisible": ("", None),
    "of a kernel without signal masks": (IDLE.replace("SigBlk", "Other"), None),
}  # fmt: skip


@pytest.mark.parametrize(("status", "idle"), STATES.values(), ids=STATES)
def test_a_master_is_idle_only_when_it_sleeps_with_no_signal_blocked_and_no_hup_pending(
    monkeypatch: pytest.MonkeyPatch, status: str, idle: bool | None
) -> None:
    monkeypatch.setattr(module, "_proc", lambda pid, what: {"status": status}[what].encode())
    assert module._is_idle(1) is idle


@pytest.mark.root
def test_the_state_of_a_master_of_root_is_seen_by_every_user(tmp_path: Path) -> None:
    with false_master() as process:
        assert as_nobody(lambda: module._is_idle(process.pid), cwd=Path("/")) is True


# -- the words


def test_words_of_a_log_that_only_this_user_may_write_are_quoted_as_they_are(setup: Setup) -> None:
    with false_master(writing(setup.error_log, "no such directive")) as process:
        assert hup(setup, process)[1] == ("no such directive",)


def test_words_of_another_process_are_not_quoted(setup: Setup) -> None:
    with false_master() as process:
        Path(setup.error_log).write_text(WORD % (process.pid + 1, 0, "no such directive"))
        assert hup(setup, process)[1] == ()


def test_words_from_before_the_signal_are_not_quoted(setup: Setup) -> None:
    with false_master() as process:
        Path(setup.error_log).write_text(WORD % (process.pid, 0, "an old word"))
        assert hup(setup, process)[1] == ()


def test_the_last_words_are_quoted_although_others_fill_the_log_before_them(setup: Setup) -> None:
    noise = f"open({setup.error_log!r}, 'a').write('2026/11/22 12:00:00 [error] 7#7: *1 a client\\n' * 4000); "
    with false_master(noise + writing(setup.error_log, "no such directive")) as process:
        assert hup(setup, process)[1] == ("no such directive",)


def test_no_word_has_a_control_character(setup: Setup) -> None:
    with false_master(writing(setup.error_log, "no\x1b[2Jsuch\u202edirective\x07")) as process:
        (word,) = hup(setup, process)[1]
    assert word.isprintable()
    assert word.startswith("no\N{REPLACEMENT CHARACTER}[2Jsuch")


def test_a_log_that_a_group_may_write_is_quoted_with_a_mark(setup: Setup) -> None:
    Path(setup.error_log).chmod(0o660)
    with false_master(writing(setup.error_log, "no such directive")) as process:
        (word,) = hup(setup, process)[1]
    assert word.startswith("nginx's log, which ")
    assert word.endswith(" may write, says: no such directive")


@pytest.mark.parametrize("link", [False, True], ids=["", "behind a link"])
def test_a_log_in_a_directory_that_everybody_may_write_is_quoted_with_a_mark(
    setup: Setup, tmp_path: Path, link: bool
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(0o777)
    (tmp_path / "logs/error.log").touch(0o640)
    (tmp_path / "link").symlink_to("logs")
    log = str(tmp_path / ("link" if link else "logs") / "error.log")
    with false_master(writing(log, "no such directive")) as process:
        words = hup(replace(setup, error_log=log), process)[1]
    assert words == ("nginx's log, which every user may write, says: no such directive",)


@pytest.mark.root
@pytest.mark.parametrize("part", ["error.log", "."])
def test_a_log_of_another_user_or_in_the_directory_of_one_is_quoted_with_his_name(
    setup: Setup, tmp_path: Path, part: str
) -> None:
    os.chown(tmp_path / part, NOBODY, NOBODY)
    with false_master(writing(setup.error_log, "no such directive")) as process:
        Path(setup.pid_file).write_text(f"{process.pid}\n")
        words = hup_master(setup)[2]
    assert words == ("nginx's log, which nobody may write, says: no such directive",)


def test_a_log_below_a_loop_of_links_has_no_words(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with false_master() as process:
        assert hup(replace(setup, error_log=str(tmp_path / "loop/error.log")), process)[1] == ()


# -- whom the pid file names


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_pid_file_that_others_may_write_signals_no_process(setup: Setup, mode: int) -> None:
    with false_master("sys.exit()") as process:
        Path(setup.pid_file).write_text(f"{process.pid}\n")
        Path(setup.pid_file).chmod(mode)
        answer = apply_nothing(setup)
        assert (answer, process.poll()) == ("pid-file-unsafe", None)


@pytest.mark.root
def test_a_pid_file_of_another_user_signals_no_process(setup: Setup) -> None:
    with false_master("sys.exit()") as process:
        Path(setup.pid_file).write_text(f"{process.pid}\n")
        os.chown(setup.pid_file, NOBODY, -1)
        assert (apply_nothing(setup), process.poll()) == ("pid-file-unsafe", None)


@pytest.mark.root
def test_a_process_of_another_user_with_the_title_of_a_master_gets_no_signal(setup: Setup) -> None:
    with false_master("sys.exit()", uid=NOBODY) as process:
        Path(setup.pid_file).write_text(f"{process.pid}\n")
        assert (apply_nothing(setup), is_master(process.pid), process.poll()) == ("pid-file-unsafe", False, None)


@pytest.mark.root
def test_a_user_without_rights_may_ask_for_the_master_of_root(tmp_path: Path) -> None:
    pid_file = tmp_path / "nginx.pid"
    with false_master() as process:
        pid_file.write_text(f"{process.pid}\n")

        def ask() -> tuple[int, bool]:
            os.seteuid(NOBODY)
            found = is_master(process.pid)
            os.seteuid(0)
            return master_pid(str(pid_file)), found

        assert in_child(ask) == (process.pid, True)


def apply_nothing(setup: Setup) -> str:
    """The error of the signal alone: the copies are none of this module's concern."""
    try:
        hup_master(setup)
    except module._RequestError as e:
        return e.reason
    return ""


def test_the_reason_and_the_owner_stand_in_the_answer(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_install", lambda *_: False)
    Path(setup.pid_file).write_text("1\n")
    Path(setup.pid_file).chmod(0o666)
    answer = apply(setup, Request({"one": "000001-0123456789ab"}))
    assert (answer.error, answer.signalled, setup.pid_file in answer.message) == ("pid-file-unsafe", 0, True)
