"""The storage contract to the letter: what lies where, with which mode, what is never lost, and how errors are told."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator import store as module
from rotator.errors import Exit, RotatorError
from rotator.model import Code, KeyType, Outcome, Pair, Problem, Result, Severity, pairs_digest
from rotator.pem import encode_chain
from rotator.store import Hold, Intent, Lock, Staged, Store
from tests.authority import CA
from tests.other_user import as_nobody, forked
from tests.pairs import pair_of
from tests.powercut import StandIn, standing_in
from tests.waiting import wait_until

META = {"origin": ["/drop/site.pem"], "who": "tester", "when": "2026-11-22T12:00:00Z"}


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA.root().intermediate()


@pytest.fixture(scope="module")
def pairs(ca: CA) -> list[Pair]:
    return [pair_of(ca.issue("site.test", "www.site.test")) for _ in range(8)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "state").mkdir()
    return Store(tmp_path / "state")


@pytest.fixture(autouse=True)
def without_real_flushes() -> Iterator[None]:
    """What a flush is for is tested with the power cuts."""
    with standing_in(StandIn()):
        yield


def keep(store: Store, *pairs: Pair, site: str = "site") -> str:
    """Stores a generation; its name."""
    staged = store.stage(site, pairs, META)
    staged.flush()
    return staged.commit().name


def generations(store: Store) -> Path:
    return store.root / "sites" / "site" / "generations"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def refusal(work: Callable[[], object]) -> RotatorError:
    with pytest.raises(RotatorError) as caught:
        work()
    return caught.value


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def outcome(site: str = "site", **more: Any) -> Outcome:
    return Outcome(site, Result.ROTATED, **({"at": datetime(2026, 11, 22, 12, 0, tzinfo=UTC)} | more))


# -- what lies where


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_are_the_contracts_whatever_the_umask(store: Store, pairs: list[Pair], mask: int) -> None:
    with umask(mask):
        name = keep(store, pairs[0])
        store.write_intent("site", Intent())
        store.record(outcome(), who="tester", trigger="swap")
    home = generations(store)
    dirs = [store.root / "sites", store.root / "sites/site", home, home / name]
    files = [home / name / "fullchain.pem", home / name / "privkey.pem", home / name / "meta.json"]
    rest = [store.root / "sites/site/intent.json", store.root / "history.jsonl"]
    assert [mode(path) for path in dirs + files + rest] == [0o750] * 4 + [0o644, 0o600, 0o644, 0o640, 0o640]


def test_a_generation_is_named_by_its_number_and_its_digest(store: Store, pairs: list[Pair]) -> None:
    assert keep(store, pairs[0]) == f"000001-{pairs_digest((pairs[0],))[:12]}"


def test_the_chain_stands_in_its_file_leaf_first(store: Store, pairs: list[Pair]) -> None:
    name = keep(store, pairs[0])
    assert (generations(store) / name / "fullchain.pem").read_bytes() == encode_chain(pairs[0].chain)


def test_the_key_stands_in_its_file(store: Store, pairs: list[Pair]) -> None:
    name = keep(store, pairs[0])
    assert pairs[0].key is not None
    assert (generations(store) / name / "privkey.pem").read_bytes() == pairs[0].key.reveal()


def test_two_kinds_of_key_lie_side_by_side_under_their_names(store: Store, ca: CA, pairs: list[Pair]) -> None:
    name = keep(store, pairs[0], pair_of(ca.issue("site.test", kind="rsa")))
    files = {"ecdsa-fullchain.pem", "ecdsa-privkey.pem", "rsa-fullchain.pem", "rsa-privkey.pem", "meta.json"}
    assert set(os.listdir(generations(store) / name)) == files


def test_the_staged_files_are_named_for_whoever_asks_nginx(store: Store, ca: CA, pairs: list[Pair]) -> None:
    staged = store.stage("site", [pair_of(ca.issue("site.test", kind="rsa")), pairs[0]], META)
    assert staged.files == (("ecdsa-fullchain.pem", "ecdsa-privkey.pem"), ("rsa-fullchain.pem", "rsa-privkey.pem"))
    assert all((staged.path / name).exists() for names in staged.files for name in names)


def test_the_description_tells_fingerprints_names_dates_origin_who_and_when(store: Store, pairs: list[Pair]) -> None:
    meta = json.loads((generations(store) / keep(store, pairs[0]) / "meta.json").read_bytes())
    told = meta["pairs"]["ecdsa"]
    assert {key: meta[key] for key in META} == META
    assert (told["fingerprint_sha256"], told["names"]) == (pairs[0].fingerprint, ["site.test", "www.site.test"])
    assert told["not_after"] == "2027-02-20T11:00:00.000Z"


def test_a_file_name_that_is_no_utf_8_stands_in_the_description_and_comes_back(store: Store, pairs: list[Pair]) -> None:
    odd = os.fsdecode(b"/drop/\xff.pem")
    staged = store.stage("site", [pairs[0]], {"origin": [odd]})
    staged.flush()
    assert store.load("site", staged.commit().name).meta["origin"] == [odd]


def test_numbers_go_up_by_one(store: Store, pairs: list[Pair]) -> None:
    names = [keep(store, pair) for pair in pairs[:3]]
    assert [name[:6] for name in names] == ["000001", "000002", "000003"]


def test_numbers_go_on_behind_the_six_digits_and_sort_as_numbers(store: Store, pairs: list[Pair]) -> None:
    first = keep(store, pairs[0])
    (generations(store) / first).rename(generations(store) / f"999999-{first[7:]}")
    last = keep(store, pairs[1])
    assert store.names("site") == (f"999999-{first[7:]}", last)
    assert last.startswith("1000000-")


def test_the_same_pair_again_is_the_same_generation(store: Store, pairs: list[Pair]) -> None:
    names = [keep(store, pairs[0]), keep(store, pairs[1]), keep(store, pairs[0])]
    assert names[0] == names[2]
    assert store.names("site") == tuple(names[:2])


def test_the_same_chain_with_its_key_written_otherwise_is_another_generation(store: Store, pairs: list[Pair]) -> None:
    first = keep(store, pairs[0])
    (generations(store) / first / "privkey.pem").write_bytes(b"another spelling")
    assert keep(store, pairs[0]) != first


def test_a_stored_generation_is_never_touched_again(store: Store, pairs: list[Pair]) -> None:
    path = generations(store) / keep(store, pairs[0])
    before = [(p.stat().st_ino, p.stat().st_mtime_ns, p.stat().st_ctime_ns) for p in (path, *path.iterdir())]
    keep(store, pairs[1])
    keep(store, pairs[0])
    store.mark_verified("site", path.name)
    store.prune("site", 1, frozenset())
    assert [(p.stat().st_ino, p.stat().st_mtime_ns, p.stat().st_ctime_ns) for p in (path, *path.iterdir())] == before


def test_each_generation_has_a_later_whole_second_than_the_one_before(store: Store, pairs: list[Pair]) -> None:
    names = [keep(store, pair) for pair in pairs[:4]]
    seconds = [int((generations(store) / name / "privkey.pem").stat().st_mtime) for name in names]
    assert seconds == sorted(set(seconds))


def test_mtimes_go_up_also_when_the_clock_has_gone_back(store: Store, pairs: list[Pair]) -> None:
    first = keep(store, pairs[0])
    future = time.time() + 86_400
    os.utime(generations(store) / first / "meta.json", (future, future))
    second = keep(store, pairs[1])
    assert (generations(store) / second / "privkey.pem").stat().st_mtime >= int(future) + 1


def test_all_files_of_a_generation_have_one_mtime(store: Store, pairs: list[Pair]) -> None:
    path = generations(store) / keep(store, pairs[0])
    assert len({file.stat().st_mtime_ns for file in path.iterdir()}) == 1


# -- staging


def test_what_is_staged_has_no_name_yet(store: Store, pairs: list[Pair]) -> None:
    store.stage("site", [pairs[0]], META)
    assert store.names("site") == ()


def test_what_is_discarded_leaves_nothing(store: Store, pairs: list[Pair]) -> None:
    store.stage("site", [pairs[0]], META).discard()
    assert os.listdir(generations(store)) == []


def test_discarding_after_the_commit_does_no_harm(store: Store, pairs: list[Pair]) -> None:
    staged = store.stage("site", [pairs[0]], META)
    staged.flush()
    name = staged.commit().name
    staged.discard()
    assert store.load("site", name).name == name


def test_what_a_killed_run_staged_is_swept_by_the_next(store: Store, pairs: list[Pair]) -> None:
    store.stage("site", [pairs[0]], META)
    name = keep(store, pairs[1])
    assert os.listdir(generations(store)) == [name]


def test_sweeping_a_site_that_has_nothing_yet_does_nothing(store: Store) -> None:
    store.sweep("site")
    assert os.listdir(store.root) == []


def test_a_generation_is_not_named_before_it_is_flushed(store: Store, pairs: list[Pair]) -> None:
    with pytest.raises(AssertionError):
        store.stage("site", [pairs[0]], META).commit()


# -- loading


def test_a_generation_comes_back_with_its_chain(store: Store, pairs: list[Pair]) -> None:
    assert store.load("site", keep(store, pairs[0])).chains == {KeyType.ECDSA: pairs[0].chain}


def test_pairs_come_back_as_they_were(store: Store, ca: CA, pairs: list[Pair]) -> None:
    both = (pairs[0], pair_of(ca.issue("site.test", kind="rsa")))
    assert store.load_pairs("site", keep(store, *both)) == both


def test_a_generation_that_is_not_there_is_told_with_those_that_are(store: Store, pairs: list[Pair]) -> None:
    name = keep(store, pairs[0])
    error = refusal(lambda: store.load("site", "000009-0123456789ab"))
    assert (error.code, error.exit, name in error.message) == ("no-generation", Exit.USAGE, True)


@pytest.mark.parametrize("name", ["", "..", "../verified", ".new-000001-0123456789ab", "000001-0123456789ab/.."])
def test_what_is_no_name_of_a_generation_is_never_opened(store: Store, pairs: list[Pair], name: str) -> None:
    keep(store, pairs[0])
    assert refusal(lambda: store.load("site", name)).code == "no-generation"


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a description cut short": lambda p: (p / "meta.json").write_text('{"pairs": {'),
    "a description of something else": lambda p: (p / "meta.json").write_text("[]"),
    "an empty description": lambda p: (p / "meta.json").write_text(""),
    "a description that is no text": lambda p: (p / "meta.json").write_bytes(b"\xff\xfe\xff"),
    "an empty chain": lambda p: (p / "fullchain.pem").write_text(""),
    "a chain cut short": lambda p: os.truncate(p / "fullchain.pem", 1000),
    "a chain of other bytes": lambda p: (p / "fullchain.pem").write_bytes(
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_generation_is_told_with_its_path(
    store: Store, pairs: list[Pair], damage: Callable[[Path], object]
) -> None:
    path = generations(store) / keep(store, pairs[0])
    damage(path)
    error = refusal(lambda: store.load("site", path.name))
    assert (error.code, str(path) in error.message) == ("store-damaged", True)


@pytest.mark.parametrize("file", ["meta.json", "fullchain.pem", "privkey.pem"])
def test_a_missing_file_of_a_generation_is_told(store: Store, pairs: list[Pair], file: str) -> None:
    path = generations(store) / keep(store, pairs[0])
    (path / file).unlink()
    assert refusal(lambda: store.load_pairs("site", path.name)).code == "io-error"


def test_no_key_byte_stands_in_anything_but_its_file(store: Store, pairs: list[Pair]) -> None:
    pair = pairs[0]
    assert pair.key is not None
    staged = store.stage("site", [pair], META)
    staged.flush()
    generation = staged.commit()
    store.record(outcome(generation=generation.name), who="tester", trigger="swap")
    shown = repr([staged, generation, store.load_pairs("site", generation.name), store.history()])
    (generations(store) / generation.name / "fullchain.pem").write_bytes(pair.key.reveal())
    with pytest.raises(RotatorError) as caught:
        store.load_pairs("site", generation.name)
    shown += repr(caught.value) + str(caught.value) + caught.value.hint + repr(caught.value.__cause__)
    secret = pair.key.reveal().splitlines()[1].decode()
    assert secret not in shown
    files = [path for path in store.root.rglob("*") if path.is_file() and path.suffix in (".json", ".jsonl")]
    assert len(files) == 2
    assert all(secret not in path.read_text() for path in files)


# -- pruning


def test_pruning_keeps_the_newest_ones(store: Store, pairs: list[Pair]) -> None:
    names = [keep(store, pair) for pair in pairs[:5]]
    assert store.prune("site", 2, frozenset()) == tuple(names[:3])
    assert store.names("site") == tuple(names[3:])


def test_pruning_never_deletes_what_is_protected(store: Store, pairs: list[Pair]) -> None:
    names = [keep(store, pair) for pair in pairs[:5]]
    store.prune("site", 1, frozenset({names[0], names[2]}))
    assert store.names("site") == (names[0], names[2], names[4])


def test_pruning_never_deletes_the_verified_one(store: Store, pairs: list[Pair]) -> None:
    names = [keep(store, pair) for pair in pairs[:3]]
    store.mark_verified("site", names[0])
    store.prune("site", 1, frozenset())
    assert store.names("site") == (names[0], names[2])


@pytest.mark.parametrize("keep_", [-1, 0, 1])
def test_pruning_never_deletes_the_newest(store: Store, pairs: list[Pair], keep_: int) -> None:
    names = [keep(store, pair) for pair in pairs[:3]]
    store.prune("site", keep_, frozenset())
    assert store.names("site") == (names[2],)


def test_pruning_deletes_no_more_than_is_too_many(store: Store, pairs: list[Pair]) -> None:
    names = [keep(store, pair) for pair in pairs[:4]]
    store.prune("site", 3, frozenset({names[3]}))
    assert store.names("site") == tuple(names[1:])


def test_pruning_leaves_nothing_of_what_it_deletes(store: Store, pairs: list[Pair]) -> None:
    for pair in pairs[:3]:
        keep(store, pair)
    store.prune("site", 1, frozenset())
    assert len(os.listdir(generations(store))) == 1


def test_the_name_of_a_pruned_generation_is_not_used_again(store: Store, pairs: list[Pair]) -> None:
    first = keep(store, pairs[0])
    keep(store, pairs[1])
    store.prune("site", 1, frozenset())
    assert keep(store, pairs[0]) != first


# -- verified


def test_nothing_is_verified_at_first(store: Store) -> None:
    assert store.verified("site") == ""


def test_verified_is_a_link_that_leads_to_the_generation(store: Store, pairs: list[Pair]) -> None:
    name = keep(store, pairs[0])
    store.mark_verified("site", name)
    assert store.verified("site") == name
    assert (store.root / "sites/site/verified/privkey.pem").exists()


def test_verified_moves_on(store: Store, pairs: list[Pair]) -> None:
    names = [keep(store, pair) for pair in pairs[:2]]
    for name in names:
        store.mark_verified("site", name)
    assert store.verified("site") == names[1]


def test_what_is_not_stored_cannot_be_verified(store: Store, pairs: list[Pair]) -> None:
    name = keep(store, pairs[0])
    store.mark_verified("site", name)
    assert refusal(lambda: store.mark_verified("site", "000009-0123456789ab")).code == "no-generation"
    assert store.verified("site") == name


@pytest.mark.parametrize("target", ["generations/000009-0123456789ab", "../../..", "/etc", "generations/x"])
def test_a_verified_link_that_leads_elsewhere_verifies_nothing(store: Store, pairs: list[Pair], target: str) -> None:
    keep(store, pairs[0])
    (store.root / "sites/site/verified").symlink_to(target)
    assert store.verified("site") == ""


# -- intent


def test_nothing_is_decided_at_first(store: Store) -> None:
    assert store.intent("site") == Intent()


def test_what_was_decided_comes_back(store: Store) -> None:
    intent = Intent("d" * 64, "rejected", "expired", "p" * 64, "2026-11-22T12:00:00Z", Hold("ann", "2026-11-22", "d"))
    store.write_intent("site", intent)
    assert store.intent("site") == intent


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '"x"', "null", '{"hold": 1}', '{"unknown": 1}', "\udcff", '[["a"]]']
)
def test_a_decision_that_cannot_be_read_is_none(store: Store, text: str) -> None:
    store.write_intent("site", Intent("d"))
    (store.root / "sites/site/intent.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert store.intent("site") == Intent()


# -- history


def test_what_was_recorded_comes_back_oldest_first(store: Store) -> None:
    for reason in ("first", "second"):
        store.record(outcome(reason=reason), who="tester", trigger="swap")
    assert [(entry["reason"], entry["who"], entry["trigger"]) for entry in store.history()] == [
        ("first", "tester", "swap"),
        ("second", "tester", "swap"),
    ]


def test_an_entry_is_one_line_with_all_of_the_outcome(store: Store) -> None:
    problem = Problem(Code.EXPIRED, Severity.REJECT, "expired\nyesterday", file="a.pem", line=3)
    store.record(
        outcome(problems=(problem,), stages={"apply": 0.25}, retry_after=timedelta(seconds=5)),
        who="ann",
        trigger="drop",
    )
    (line,) = (store.root / "history.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["at"], entry["retry_after"], entry["stages"]) == ("2026-11-22T12:00:00.000Z", 5.0, {"apply": 0.25})
    assert (entry["problems"][0]["code"], entry["problems"][0]["line"]) == ("expired", 3)


def test_an_entry_names_the_fingerprints_of_its_generation(store: Store, pairs: list[Pair]) -> None:
    store.record(outcome(generation=keep(store, pairs[0])), who="tester", trigger="swap")
    assert store.history()[0]["fingerprints"] == {"ecdsa": pairs[0].fingerprint}


def test_an_entry_about_a_file_whose_name_is_no_utf_8_is_written(store: Store) -> None:
    odd = os.fsdecode(b"\xff.pem")
    store.record(outcome(message=odd), who="tester", trigger="drop")
    assert store.history()[0]["message"] == odd


def test_the_history_of_one_site_leaves_out_the_others(store: Store) -> None:
    for site in ("site", "other", "site"):
        store.record(outcome(site), who="tester", trigger="swap")
    assert [entry["site"] for entry in store.history("site")] == ["site", "site"]


def test_a_limit_takes_the_newest(store: Store) -> None:
    for reason in "abc":
        store.record(outcome(reason=reason), who="tester", trigger="swap")
    assert [entry["reason"] for entry in store.history(limit=2)] == ["b", "c"]


def test_a_torn_line_is_left_out_and_the_next_stands_alone(store: Store) -> None:
    store.record(outcome(reason="a"), who="tester", trigger="swap")
    with (store.root / "history.jsonl").open("ab") as f:
        f.write(b'{"reason": "torn", "at')
    store.record(outcome(reason="b"), who="tester", trigger="swap")
    assert [entry["reason"] for entry in store.history()] == ["a", "b"]


@pytest.mark.parametrize("line", [b"\xff\xfe", b"7", b"[]", b"", b"\0" * 100])
def test_a_line_that_is_no_entry_is_left_out(store: Store, line: bytes) -> None:
    (store.root / "history.jsonl").write_bytes(line + b"\n")
    store.record(outcome(), who="tester", trigger="swap")
    assert (len(store.history()), store.last_entry_at()) == (1, outcome().at)


def test_without_a_history_there_is_no_last_entry(store: Store) -> None:
    assert (store.history(), store.last_entry_at(), store.last_reload_seconds()) == ((), None, 0.0)


def test_the_last_entry_is_found_without_reading_years_of_history(store: Store) -> None:
    with (store.root / "history.jsonl").open("wb") as f:
        f.write(b"x" * 10_000_000 + b"\n")
    store.record(outcome(at=datetime(2026, 11, 22, 13, 0, tzinfo=UTC)), who="tester", trigger="swap")
    begin = bytes_read()
    assert store.last_entry_at() == datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
    assert bytes_read() - begin < 200_000


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_the_last_reload_took_as_long_as_apply_and_proof(store: Store) -> None:
    store.record(outcome(stages={"apply": 0.5, "prove": 1.0}), who="tester", trigger="swap")
    store.record(outcome(stages={"prove": 9.0}), who="tester", trigger="swap")  # no reload of ours
    store.record(Outcome("site", Result.REJECTED, datetime.now(UTC)), who="tester", trigger="drop")
    assert store.last_reload_seconds() == 1.5


# -- the lock


def held_by_child(store: Store, work: Callable[[Lock], object] = lambda lock: None) -> int:
    """The pid of a process that holds the lock until it is killed."""
    inlet, outlet = os.pipe()

    def hold() -> None:
        os.close(inlet)
        with store.rotation_lock("ann", 1.0) as lock:
            work(lock)
            os.write(outlet, b"x")
            signal.pause()

    child = forked(hold)
    os.close(outlet)
    assert os.read(inlet, 1) == b"x"
    os.close(inlet)
    return child


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@contextmanager
def holder(store: Store) -> Iterator[int]:
    child = held_by_child(store)
    try:
        yield child
    finally:
        end(child)


def take(store: Store, within: float = 0.0) -> Lock:
    with store.rotation_lock("ben", within) as lock:
        return lock


def test_a_second_holder_is_refused_and_told_who_holds_it(store: Store) -> None:
    with holder(store) as child:
        error = refusal(lambda: take(store))
    assert (error.code, error.exit) == ("lock-busy", Exit.BUSY)
    assert f"pid {child} (ann, since 20" in error.message


def test_the_lock_excludes_also_within_one_process(store: Store) -> None:
    with store.rotation_lock("ann", 0.0):
        assert refusal(lambda: take(store)).code == "lock-busy"


def test_a_holder_that_has_just_come_and_has_no_name_yet_is_told_by_its_name(store: Store) -> None:
    take(store)
    fd = os.open(store.root / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    name = threading.Timer(0.02, os.pwrite, (fd, b'{"pid": 4242, "who": "ann", "since": "now"}\n', 0))
    name.start()
    try:
        assert "pid 4242 (ann, since now)" in refusal(lambda: take(store)).message
    finally:
        name.join()
        os.close(fd)


def test_a_holder_that_never_gives_a_name_keeps_nobody_for_long(store: Store) -> None:
    take(store)
    fd = os.open(store.root / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    begin = time.monotonic()
    try:
        assert refusal(lambda: take(store)).code == "lock-busy"
    finally:
        os.close(fd)
    assert time.monotonic() - begin < 2.0


def test_the_lock_is_free_after_its_block(store: Store) -> None:
    take(store)
    take(store)


def test_the_lock_is_free_after_an_error_in_its_block(store: Store) -> None:
    with contextlib.suppress(KeyError), store.rotation_lock("ann", 0.0):
        raise KeyError
    take(store)


def test_the_lock_is_free_after_its_block_although_a_child_was_forked_in_it(store: Store) -> None:
    with store.rotation_lock("ann", 0.0):
        child = forked(signal.pause)
    try:
        take(store)
    finally:
        end(child)


def test_the_lock_dies_with_a_killed_holder(store: Store) -> None:
    end(held_by_child(store))
    take(store)


def test_whoever_waits_gets_the_lock_when_it_is_free(store: Store) -> None:
    told: list[str] = []
    with holder(store) as child:
        waiter = threading.Thread(target=lambda: wait_for(store, told))
        waiter.start()
        wait_until(lambda: told, what="the waiter is told")
    waiter.join(5)
    assert (told[0].startswith(f"pid {child} (ann"), told[1:]) == (True, ["got it"])


def wait_for(store: Store, told: list[str]) -> None:
    with store.rotation_lock("ben", 5.0, told.append):
        told.append("got it")


def test_whoever_waits_gives_up_in_time(store: Store) -> None:
    with holder(store):
        begin = time.monotonic()
        error = refusal(lambda: take(store, within=0.1))
        assert (error.code, 0.1 <= time.monotonic() - begin < 2.0) == ("lock-busy", True)


def test_what_a_dead_holder_had_in_flight_is_told_to_the_next(store: Store) -> None:
    end(held_by_child(store, lambda lock: lock.begin(["b", "a"])))
    assert take(store).interrupted == ("a", "b")


def test_what_a_dead_holder_had_settled_is_not_told(store: Store) -> None:
    def work(lock: Lock) -> None:
        lock.begin(["a", "b"])
        lock.settled(["a"])

    end(held_by_child(store, work))
    assert take(store).interrupted == ("b",)


def test_what_an_error_left_in_flight_is_told_to_the_next(store: Store) -> None:
    with contextlib.suppress(KeyError), store.rotation_lock("ann", 0.0) as lock:
        lock.begin(["a"])
        raise KeyError
    assert take(store).interrupted == ("a",)


def test_what_was_interrupted_stays_so_until_it_is_settled(store: Store) -> None:
    end(held_by_child(store, lambda lock: lock.begin(["a", "b"])))
    with store.rotation_lock("ben", 0.0) as lock:
        lock.settled(["a"])
    assert take(store).interrupted == ("b",)


def test_after_all_is_settled_nothing_is_told(store: Store) -> None:
    with store.rotation_lock("ann", 0.0) as lock:
        lock.begin(["a"])
        lock.settled(["a"])
    assert (take(store).interrupted, (store.root / "lock").read_bytes()) == ((), b"")


def test_a_note_that_was_overwritten_by_a_shorter_one_and_not_cut_is_read(store: Store) -> None:
    (store.root / "lock").write_bytes(b'{"in_flight": ["a"]}\nge-site-name"]}\n')
    assert take(store).interrupted == ("a",)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"in_flight": 7}', b"torn {"])
def test_a_note_that_cannot_be_read_tells_nothing(store: Store, data: bytes) -> None:
    (store.root / "lock").write_bytes(data)
    assert take(store).interrupted == ()


def test_the_lock_file_is_permanent(store: Store) -> None:
    take(store)
    inode = (store.root / "lock").stat().st_ino
    take(store)
    assert (store.root / "lock").stat().st_ino == inode


def test_a_lock_file_that_is_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (store.root / "lock").symlink_to(tmp_path / "target")
    assert refusal(lambda: take(store)).code == "io-error"
    assert (tmp_path / "target").read_text() == "precious"


# -- errors


class Fails(StandIn):
    """Lets one kind of call fail, at its first use or at any."""

    def __init__(self, call: str, number: int) -> None:
        self._call, self._number = call, number

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if name == self._call:
            raise OSError(self._number, os.strerror(self._number))


WORDS = {
    errno.ENOSPC: ("disk-full", "free some space"),
    errno.EDQUOT: ("disk-full", "quota"),
    errno.EACCES: ("permission", "owner of"),
    errno.EPERM: ("permission", "owner of"),
    errno.EROFS: ("io-error", "read-only"),
    errno.EMFILE: ("io-error", "LimitNOFILE"),
    errno.EIO: ("io-error", "dmesg"),
}


@pytest.mark.parametrize("number", WORDS, ids=errno.errorcode.get)
def test_an_error_is_told_with_its_path_its_words_and_the_next_step(
    store: Store, pairs: list[Pair], number: int
) -> None:
    with standing_in(Fails("write", number)):
        error = refusal(lambda: store.stage("site", [pairs[0]], META))
    code, hint = WORDS[number]
    assert (error.code, hint in error.hint) == (code, True)
    assert error.message == f"{generations(store)}: {os.strerror(number)}"


@pytest.mark.parametrize("call", ["write", "fchmod", "utime", "open", "chmod"])
def test_what_cannot_be_staged_leaves_nothing(store: Store, pairs: list[Pair], call: str) -> None:
    keep(store, pairs[0])
    with standing_in(Fails(call, errno.ENOSPC)), contextlib.suppress(RotatorError):
        store.stage("site", [pairs[1]], META)
    assert len(os.listdir(generations(store))) == 1


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open"])
def test_a_decision_that_cannot_be_written_leaves_the_one_of_before(store: Store, call: str) -> None:
    store.write_intent("site", Intent("before"))
    with standing_in(Fails(call, errno.ENOSPC)):
        assert refusal(lambda: store.write_intent("site", Intent("after"))).code == "disk-full"
    assert store.intent("site") == Intent("before")
    assert sorted(os.listdir(store.root / "sites/site")) == ["generations", "intent.json"]


@pytest.mark.parametrize("call", ["symlink", "rename"])
def test_what_cannot_be_marked_leaves_the_verified_one_of_before(store: Store, pairs: list[Pair], call: str) -> None:
    names = [keep(store, pair) for pair in pairs[:2]]
    store.mark_verified("site", names[0])
    with standing_in(Fails(call, errno.EROFS)):
        assert refusal(lambda: store.mark_verified("site", names[1])).code == "io-error"
    assert store.verified("site") == names[0]
    assert sorted(os.listdir(store.root / "sites/site")) == ["generations", "verified"]


ACTIONS: dict[str, tuple[str, Callable[[Store, Staged, str], object]]] = {
    "names": ("listdir", lambda store, staged, name: store.names("site")),
    "flush": ("fsync", lambda store, staged, name: staged.flush()),
    "sweep": ("listdir", lambda store, staged, name: store.sweep("site")),
    "prune": ("rename", lambda store, staged, name: store.prune("site", 1, frozenset())),
    "record": ("write", lambda store, staged, name: store.record(outcome(), who="x", trigger="x")),
    "lock": ("pwrite", lambda store, staged, name: take(store)),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_every_call_turns_what_the_system_says_into_words(store: Store, pairs: list[Pair], action: str) -> None:
    name, _ = keep(store, pairs[0]), keep(store, pairs[2])
    staged = store.stage("site", [pairs[1]], META)
    call, work = ACTIONS[action]
    with standing_in(Fails(call, errno.EIO)):
        assert refusal(lambda: work(store, staged, name)).code == "io-error"


def test_a_note_in_the_lock_that_cannot_be_written_is_told(store: Store) -> None:
    with store.rotation_lock("ann", 0.0) as lock, standing_in(Fails("pwrite", errno.ENOSPC)):
        assert refusal(lambda: lock.begin(["a"])).code == "disk-full"


def test_a_line_that_does_not_fit_whole_is_torn_and_the_next_stands_alone(store: Store) -> None:
    class Full(StandIn):
        def __getattr__(self, name: str) -> Any:
            real = super().__getattr__(name)
            return (
                real if name != "write" else lambda fd, data: real(fd, bytes(data)[:10]) if len(data) > 500 else full()
            )

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with standing_in(Full()):
        assert refusal(lambda: store.record(outcome(message="x" * 480), who="x", trigger="x")).code == "disk-full"
    store.record(outcome(reason="later"), who="tester", trigger="swap")
    assert [entry["reason"] for entry in store.history()] == ["later"]


def test_a_state_directory_that_is_missing_is_told_with_the_command_that_makes_it(
    tmp_path: Path, pairs: list[Pair]
) -> None:
    store = Store(tmp_path / "missing")
    error = refusal(lambda: store.stage("site", [pairs[0]], META))
    assert f"install -d -o rotator -g rotator -m 0750 {tmp_path}/missing" in error.hint


def test_a_state_directory_that_is_closed_to_us_is_told(tmp_path: Path, pairs: list[Pair]) -> None:
    (tmp_path / "state").mkdir(mode=0o500)

    def tried() -> str:
        return refusal(lambda: Store(Path("state")).stage("site", [pairs[0]], META)).code

    assert as_nobody(tried, cwd=tmp_path) == "permission"


def test_generations_that_are_closed_to_us_are_told(tmp_path: Path, pairs: list[Pair]) -> None:
    store = Store(tmp_path / "state")
    store.root.mkdir(mode=0o755)
    name = keep(store, pairs[0])
    for path in [store.root, *store.root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    generations(store).chmod(0)

    def tried() -> str:
        return refusal(lambda: Store(Path("state")).load("site", name)).code

    try:
        assert as_nobody(tried, cwd=tmp_path) == "permission"
    finally:
        generations(store).chmod(0o755)


def test_the_policys_digest_depends_on_every_part() -> None:
    assert len({module.policy_digest(parts) for parts in ([], ["a"], ["b"], ["a", "b"], ["ab"])}) == 5
