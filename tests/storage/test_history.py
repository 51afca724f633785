"""The audit trail: no line lost or doubled, however it is written, closed, killed or read, and how errors are told."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import random
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result
from rotator.core.problems import Code, Problem, Severity
from rotator.core.reasons import Reason
from rotator.storage import history as module
from rotator.storage.entries import HistoryEntry, read_entry
from rotator.storage.history import UNREAD, History
from tests.support.failing import Fails, Kill, KilledError, refusal
from tests.support.other_user import forked
from tests.support.powercut import StandIn, standing_in, view_of
from tests.support.waiting import wait_until


@pytest.fixture
def history(tmp_path: Path) -> History:
    """One that is always long enough to be closed, and keeps all that was closed."""
    return History(tmp_path, close_at=1, keep=1_000_000)


@pytest.fixture(autouse=True)
def without_real_flushes() -> Iterator[None]:
    """What a flush is for is tested with the power cuts."""
    with standing_in(StandIn()):
        yield


def outcome(site: str = "site", **more: Any) -> Outcome:
    usual: dict[str, Any] = {"at": datetime(2026, 11, 22, 12, 0, tzinfo=UTC), "reason": Reason.ROTATED}
    return Outcome(site, Result.ROTATED, **(usual | more))


def record(history: History, done: Outcome) -> None:
    history.record(done, who="tester", trigger="swap", fingerprints={})


def note(history: History, *reasons: str, site: str = "site") -> None:
    for reason in reasons:
        record(history, outcome(site, reason=reason))


def told(history: History, site: str = "", limit: int = 0) -> str:
    """The reasons of the entries, which are one letter each."""
    return "".join(entry.reason for entry in history.entries(site, limit))


def files(history: History) -> list[str]:
    return sorted({*os.listdir(history.root)} - {"history.lock"})


def size(history: History) -> int:
    return sum(path.stat().st_size for path in history.root.iterdir())


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@contextmanager
def locked(history: History) -> Iterator[None]:
    """As somebody else who appends holds the history."""
    fd = os.open(history.root / "history.lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


# -- entries


def test_what_was_recorded_comes_back_oldest_first(history: History) -> None:
    note(history, "first", "second")
    assert [(entry.reason, entry.who, entry.trigger) for entry in history.entries()] == [
        ("first", "tester", "swap"),
        ("second", "tester", "swap"),
    ]


def test_an_entry_is_one_line_with_all_of_the_outcome(history: History) -> None:
    problem = Problem(Code.EXPIRED, Severity.REJECT, "expired\nyesterday", file="a.pem", line=3)
    done = outcome(problems=(problem,), stages={"apply": 0.25})
    history.record(done, who="ann", trigger="drop", fingerprints={"ecdsa": "ab" * 32})
    (line,) = (history.root / "history.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["at"], entry["stages"]) == ("2026-11-22T12:00:00.000Z", {"apply": 0.25})
    assert (entry["problems"][0]["code"], entry["problems"][0]["line"]) == ("expired", 3)
    assert (entry["who"], entry["trigger"], entry["fingerprints"]) == ("ann", "drop", {"ecdsa": "ab" * 32})


def test_an_entry_about_a_file_whose_name_is_no_utf_8_is_written(history: History) -> None:
    odd = os.fsdecode(b"\xff.pem")
    record(history, outcome(message=odd))
    assert history.entries()[0].message == odd


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_its_mode_is_the_contracts_whatever_the_umask(history: History, mask: int) -> None:
    before = os.umask(mask)
    try:
        note(history, "a")
        history.tidy()
        note(history, "b")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in history.root.iterdir()}
    assert modes == {"history-000001.jsonl": 0o640, "history.jsonl": 0o640, "history.lock": 0o600}


def test_a_lock_file_that_cannot_be_opened_loses_no_entry_and_is_reported_by_the_upkeep(history: History) -> None:
    (history.root / "history.lock").mkdir()
    note(history, "a", "b")
    assert told(history) == "ab"
    with pytest.raises(RotatorError):
        history.tidy()
    assert told(history) == "ab"


def test_the_history_of_one_site_leaves_out_the_others(history: History) -> None:
    note(history, "a")
    note(history, "b", site="other")
    note(history, "c")
    assert told(history, "site") == "ac"


def test_an_entry_that_was_written_in_another_order_is_its_sites_all_the_same(history: History) -> None:
    (history.root / "history.jsonl").write_text('{"reason":"a","site":"site"}\n{"reason":"b","site":"other"}\n')
    assert told(history, "site") == "a"


def test_a_limit_takes_the_newest(history: History) -> None:
    note(history, *"abc")
    assert told(history, limit=2) == "bc"


def test_a_torn_line_is_left_out_and_the_next_stands_alone(history: History) -> None:
    note(history, "a")
    with (history.root / "history.jsonl").open("ab") as f:
        f.write(b'{"reason": "torn", "at')
    note(history, "b")
    assert told(history) == "ab"


@pytest.mark.parametrize("line", [b"\xff\xfe", b"7", b"[]", b"", b"\0" * 100, b'{"site": "site", "at": 7}'])
def test_a_line_that_is_no_entry_with_a_time_is_passed_over_for_the_last_one(history: History, line: bytes) -> None:
    (history.root / "history.jsonl").write_bytes(line + b"\n")
    record(history, outcome())
    with (history.root / "history.jsonl").open("ab") as f:
        f.write(line + b"\n")
    assert history.last_entry_at() == outcome().at


def test_without_a_history_there_is_no_last_entry(history: History) -> None:
    assert (history.entries(), history.last_entry_at(), history.last_reload_seconds()) == ((), None, 0.0)


def test_the_last_reload_took_as_long_as_apply_and_proof(history: History) -> None:
    record(history, outcome(stages={"apply": 0.5, "prove": 1.0}))
    record(history, outcome(stages={"prove": 9.0}))  # no reload of ours
    record(history, Outcome("site", Result.REJECTED, datetime.now(UTC), Code.EXPIRED))
    assert history.last_reload_seconds() == 1.5


def test_the_last_reload_is_told_whatever_came_after_it(history: History) -> None:
    reloaded = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
    assert history.last_reload_at() is None
    record(history, outcome(at=reloaded, reason="rotated", stages={"apply": 0.5, "prove": 1.0}))
    history.tidy()
    record(history, outcome(stages={"prove": 9.0}))  # no reload of ours
    record(history, outcome(reason="nginx-refused", stages={"apply": 0.5, "rollback": 0.1}))  # nginx went on as before
    with (history.root / "history.jsonl").open("ab") as f:
        f.write(b'{"result": "rotated", "at": "soon", "reason": "", "stages": {"apply": 1}}\n{"result": 7}\n[]\n')
    assert history.last_reload_at() == reloaded


def test_the_latest_entry_of_each_site_is_found(history: History) -> None:
    note(history, "a", "b")
    history.tidy()
    note(history, "c", site="other")
    note(history, "d", site="unasked")
    assert {name: e.reason for name, e in history.latest(["site", "other", "new"]).items()} == {
        "site": "b",
        "other": "c",
    }


# -- closing


def test_a_short_file_is_left_open(tmp_path: Path) -> None:
    history = History(tmp_path)
    note(history, "a")
    history.tidy()
    assert (files(history), history.is_untidy()) == (["history.jsonl"], False)


def test_a_long_file_is_closed_and_the_next_line_begins_another(history: History) -> None:
    note(history, "a")
    assert history.is_untidy()
    history.tidy()
    assert (files(history), history.is_untidy()) == (["history-000001.jsonl"], False)
    note(history, "b")
    assert files(history) == ["history-000001.jsonl", "history.jsonl"]


def test_entries_are_read_across_files(history: History) -> None:
    for reason in "abcd":
        note(history, reason)
        history.tidy()
    note(history, "e")
    assert (told(history), told(history, "site", 2), told(history, limit=1)) == ("abcde", "de", "e")


def test_what_is_last_is_known_although_its_file_was_closed(history: History) -> None:
    record(history, outcome(stages={"apply": 0.5, "prove": 1.0}))
    history.tidy()
    assert (history.last_entry_at(), history.last_reload_seconds()) == (outcome().at, 1.5)


def test_only_so_many_closed_files_are_kept(tmp_path: Path) -> None:
    history = History(tmp_path, close_at=1, keep=2)
    for reason in "abcd":
        note(history, reason)
        history.tidy()
    assert (files(history), told(history)) == (["history-000003.jsonl", "history-000004.jsonl"], "cd")


def test_a_number_is_not_used_again(tmp_path: Path) -> None:
    history = History(tmp_path, close_at=1, keep=0)
    for reason in "abc":
        note(history, reason)
        history.tidy()
    assert files(history) == ["history-000003.jsonl"]


def test_a_torn_line_at_the_end_of_a_closed_file_costs_only_itself(history: History) -> None:
    note(history, "a")
    with (history.root / "history.jsonl").open("ab") as f:
        f.write(b'{"reason": "torn", "at')
    history.tidy()
    note(history, "b")
    assert told(history) == "ab"


@pytest.mark.parametrize("line", [b'{"site": ["site"]}', b'{"site": {}}', b'{"site": null}', b"[]", 100_000 * b"["])
def test_a_line_that_tells_of_no_outcome_is_neither_an_entry_nor_news(history: History, line: bytes) -> None:
    note(history, "a")
    mark, _ = history.entries_since(UNREAD)
    with (history.root / "history.jsonl").open("ab") as f:
        f.write(line + b"\n")
    note(history, "b")
    assert (told(history), told(history, "site"), history.latest(["site"])["site"].reason) == ("ab", "ab", "b")
    assert [entry.reason for entry in history.entries_since(mark)[1]] == ["b"]


def test_files_that_only_look_like_closed_ones_are_left_alone(history: History) -> None:
    for name in ("history-1.jsonl", "history-000009.jsonl.gz", "history-000009.json", "history-.jsonl"):
        (history.root / name).write_text("{}\n")
    note(history, "a")
    history.tidy()
    assert "history-000001.jsonl" in files(history)
    assert told(history) == "a"


# -- reading no more than needed


def test_the_newest_is_found_without_reading_years_of_history(history: History) -> None:
    (history.root / "history-000001.jsonl").write_bytes(b"x" * 10_000_000 + b"\n")
    with (history.root / "history.jsonl").open("wb") as f:
        f.write(b"x" * 10_000_000 + b"\n")
    record(history, outcome(at=datetime(2026, 11, 22, 13, 0, tzinfo=UTC)))
    begin = bytes_read()
    assert history.last_entry_at() == datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
    assert len(history.entries("site", 1)) == 1
    assert set(history.latest(["site"])) == {"site"}
    assert bytes_read() - begin < 400_000


def test_lines_of_other_sites_are_not_parsed(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    note(history, "a")
    note(history, *"b" * 100, site="other")
    parsed: list[bytes] = []

    def counting(line: bytes) -> HistoryEntry:
        parsed.append(line)
        return read_entry(line)

    monkeypatch.setattr(module, "read_entry", counting)
    assert told(history, "site", 1) == "a"
    assert len(list(filter(None, parsed))) == 1


def test_the_latest_entries_of_many_sites_cost_one_reading(history: History) -> None:
    sites = [f"site-{number}" for number in range(50)]
    for number, site in enumerate(sites * 20):
        note(history, "a", site=site)
        if number % 300 == 0:
            history.tidy()
    begin = bytes_read()
    assert set(history.latest([*sites, "that-never-was"])) == set(sites)
    assert bytes_read() - begin < size(history) + 100_000


def test_lines_of_any_length_come_back_whole(history: History) -> None:
    chance = random.Random(7)
    lengths = [chance.choice((1, 100, 60_000, 65_536, 70_000, 200_000)) + chance.randrange(40) for _ in range(60)]
    for number, length in enumerate(lengths):
        record(history, outcome(message="x" * length))
        if number % 20 == 0:
            history.tidy()
    assert [len(entry.message) for entry in history.entries()] == lengths


# -- together with others


def test_a_file_that_is_closed_while_it_is_read_is_not_read_twice(history: History) -> None:
    note(history, "a")
    history.tidy()
    note(history, "b", "c")
    reading = history.newest_first()
    first = next(reading).reason
    history.tidy()
    note(history, "d")
    history.tidy()
    assert [first, *(entry.reason for entry in reading)] == ["c", "b", "a"]


def test_a_closed_file_that_is_deleted_while_the_others_are_read_is_passed_over(history: History) -> None:
    for reason in "abc":
        note(history, reason)
        history.tidy()
    reading = history.newest_first()
    assert next(reading).reason == "c"
    (history.root / "history-000001.jsonl").unlink()
    assert [entry.reason for entry in reading] == ["b"]


def test_what_was_written_since_the_last_look_is_news_once(history: History) -> None:
    note(history, "before")
    mark, first = history.entries_since(UNREAD)
    assert (first, history.entries_since(mark)) == ((), (mark, ()))
    note(history, "one")
    note(history, "two")
    mark, entries = history.entries_since(mark)
    assert ([entry.reason for entry in entries], history.entries_since(mark)) == (["one", "two"], (mark, ()))


def test_a_line_that_is_only_half_written_is_news_when_it_is_whole(history: History) -> None:
    note(history, "before")
    mark, _ = history.entries_since(UNREAD)
    with (history.root / "history.jsonl").open("ab", buffering=0) as file:
        file.write(b'{"reason": "o')
        mark, half = history.entries_since(mark)
        file.write(b'ne"}\n')
    assert (half, [entry.reason for entry in history.entries_since(mark)[1]]) == ((), ["one"])


def test_what_stands_in_the_next_file_is_news(history: History) -> None:
    note(history, "before")
    mark, _ = history.entries_since(UNREAD)
    (history.root / "history.jsonl").rename(history.root / "history-000001.jsonl")
    assert history.entries_since(mark) == (UNREAD, ())
    note(history, "one")
    assert [entry.reason for entry in history.entries_since(mark)[1]] == ["one"]


def test_who_waited_while_the_file_was_closed_writes_into_the_next(history: History) -> None:
    note(history, "a")
    path, closed = history.root / "history.jsonl", history.root / "history-000001.jsonl"
    writer = threading.Thread(target=note, args=(history, "b"))
    with locked(history):
        writer.start()
        lock = history.root / "history.lock"
        wait_until(lambda: opened(lock) == 2, what="the writer waits for the lock")
        path.rename(closed)
    writer.join(5)
    assert (len(closed.read_text().splitlines()), told(history)) == (1, "ab")


def opened(path: Path) -> int:
    """How often this process has the file open."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{fd}") == str(path)
    return found


def test_a_process_that_was_stopped_while_it_appended_holds_nobody_up(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_WITHIN", 0.05)
    note(history, "a")
    writer = threading.Thread(target=note, args=(history, "b"), daemon=True)
    with locked(history):
        writer.start()
        writer.join(5)
        assert told(history) == "ab"


def test_a_reader_of_the_history_holds_up_no_writer_and_no_closing(history: History) -> None:
    note(history, "a")
    fd = os.open(history.root / "history.jsonl", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        begun = time.monotonic()
        note(history, "b")
        assert time.monotonic() - begun < module.APPEND_WITHIN
        history.tidy()
    finally:
        os.close(fd)
    assert files(history) == ["history-000001.jsonl"]


def test_a_file_that_somebody_is_appending_to_is_closed_the_next_time(history: History) -> None:
    note(history, "a")
    with locked(history):
        history.tidy()
        assert files(history) == ["history.jsonl"]
    history.tidy()
    assert files(history) == ["history-000001.jsonl"]


def test_lines_of_many_processes_are_all_there_once_although_the_file_is_closed_all_the_time(history: History) -> None:
    stop, writers = history.root / "stop", "abc"
    children = [forked(partial(write_until, stop, history, who)) for who in writers]
    seen: list[str] = []
    try:
        end = time.monotonic() + 60
        while len(files(history)) < 10:
            assert time.monotonic() < end, "the file is not closed"
            history.tidy()
            now = [entry.reason for entry in history.entries()]
            assert now[: len(seen)] == seen, "who reads again sees more, and nothing twice or elsewhere"
            seen = now
    finally:
        stop.touch()
        for child in children:
            os.waitpid(child, 0)
    found = [entry.reason for entry in history.entries()]
    by_writer = {who: [one[1:] for one in found if one[0] == who] for who in writers}
    for lines in by_writer.values():
        assert lines == [*map(str, range(len(lines) - 1)), "end"]


def write_until(stop: Path, history: History, who: str) -> None:
    for number in itertools.count():
        if stop.exists():
            break
        note(history, f"{who}{number}")
        time.sleep(0.005)  # so that it is not held all the time
    note(history, f"{who}end")


# -- killed, and errors


def long_history(root: Path) -> History:
    """One with a closed file too many once the open one is closed."""
    history = History(root, close_at=1, keep=2)
    for reason in "ab":
        note(history, reason)
        history.tidy()
    note(history, "c")
    return history


def test_killed_at_any_step_closing_loses_and_doubles_nothing_and_the_next_ends_it(tmp_path: Path) -> None:
    for calls in range(1_000):
        root = tmp_path / str(calls)
        root.mkdir()
        history, kill = long_history(root), Kill(calls)
        with standing_in(kill), contextlib.suppress(KilledError):
            history.tidy()
        assert told(history) in ("abc", "bc")
        history.tidy()
        assert (told(history), files(history)) == ("bc", ["history-000002.jsonl", "history-000003.jsonl"])
        if not kill.killed:
            assert calls > 3
            return
    raise AssertionError


class FailsOnce(StandIn):
    """Lets the call with this number fail."""

    def __init__(self, at: int, number: int) -> None:
        self._at, self._number = at, number

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._at -= 1
        if self._at == -1:
            raise OSError(self._number, os.strerror(self._number))

    @property
    def unused(self) -> bool:
        return self._at >= 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
def test_closing_that_fails_at_any_call_is_told_and_keeps_every_line(tmp_path: Path, number: int) -> None:
    for call in range(1_000):
        root = tmp_path / str(call)
        root.mkdir()
        history, fault = long_history(root), FailsOnce(call, number)
        before = view_of(root)
        with standing_in(fault):
            error = "" if fault_free(history) else "told"
        if fault.unused:
            assert call > 3
            return
        assert (error, told(history) in ("abc", "bc")) == ("told", True)
        assert set(view_of(root).values()) <= set(before.values()), "only names change"
        history.tidy()
        assert told(history) in ("abc", "bc")
    raise AssertionError


def fault_free(history: History) -> bool:
    try:
        history.tidy()
    except RotatorError:
        return False
    return True


def test_a_file_that_cannot_be_closed_stays_as_it_is_and_is_told(history: History) -> None:
    note(history, "a")
    before = view_of(history.root)
    with standing_in(Fails("rename", errno.EPERM)):
        error = refusal(history.tidy)
    assert (error.code, str(history.root / "history.jsonl") in error.message) == ("permission", True)
    assert view_of(history.root) == before
    note(history, "b")
    assert told(history) == "ab"


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_line_that_cannot_be_written_is_told(history: History, call: str) -> None:
    with standing_in(Fails(call, errno.EIO)):
        assert refusal(lambda: record(history, outcome())).code == "io-error"


def test_a_history_that_cannot_be_read_is_told_and_holds_no_rotation_up(history: History) -> None:
    note(history, "a")
    with standing_in(Fails("pread", errno.EIO)):
        assert refusal(history.entries).code == "io-error"
        assert (history.last_entry_at(), history.last_reload_seconds()) == (None, 0.0)


def test_a_history_that_is_a_link_is_not_followed(history: History, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("elsewhere") / "target"
    target.write_text("precious\n")
    (history.root / "history.jsonl").symlink_to(target)
    assert refusal(lambda: record(history, outcome())).code == "io-error"
    assert refusal(history.entries).code == "io-error"
    assert refusal(history.tidy).code == "io-error"
    assert target.read_text() == "precious\n"


def test_a_line_that_does_not_fit_whole_is_torn_and_the_next_stands_alone(history: History) -> None:
    class Full(StandIn):
        def __getattr__(self, name: str) -> Any:
            real = super().__getattr__(name)
            return (
                real if name != "write" else lambda fd, data: real(fd, bytes(data)[:10]) if len(data) > 500 else full()
            )

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with standing_in(Full()):
        assert refusal(lambda: record(history, outcome(message="x" * 480))).code == "disk-full"
    note(history, "later")
    assert [entry.reason for entry in history.entries()] == ["later"]


def test_a_state_directory_that_is_missing_has_no_history_and_is_told_where_it_is_needed(tmp_path: Path) -> None:
    history = History(tmp_path / "missing")
    assert history.entries() == ()
    error = refusal(lambda: record(history, outcome()))
    assert f"install -d -o rotator -g rotator -m 0750 {tmp_path}/missing" in error.hint
