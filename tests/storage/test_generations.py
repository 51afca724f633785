"""The storage contract to the letter: what lies where, with which mode, what is never lost, and how errors are told."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rotator.core.errors import Exit, RotatorError
from rotator.core.model import KeyType, Outcome, Pair, Provenance, Result, pairs_digest
from rotator.core.reasons import Reason
from rotator.storage import generations as module
from rotator.storage.generations import Staged, Store
from rotator.storage.history import History
from rotator.storage.policy_digest import policy_digest
from rotator.storage.records import Hold, Intent
from rotator.x509.pem import encode_chain
from tests.support.authority import CA
from tests.support.failing import Fails, refusal
from tests.support.other_user import as_nobody
from tests.support.pairs import pair_of
from tests.support.powercut import StandIn, standing_in

PROVENANCE = Provenance(("/drop/site.pem",), "tester", datetime(2026, 11, 22, 12, tzinfo=UTC))


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
    staged = store.stage(site, pairs, PROVENANCE)
    staged.flush()
    return staged.commit().name


def generations(store: Store) -> Path:
    return store.root / "sites" / "site" / "generations"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# -- what lies where


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_are_the_contracts_whatever_the_umask(store: Store, pairs: list[Pair], mask: int) -> None:
    with umask(mask):
        name = keep(store, pairs[0])
        store.write_intent("site", Intent())
    home = generations(store)
    dirs = [store.root / "sites", store.root / "sites/site", home, home / name]
    files = [home / name / "fullchain.pem", home / name / "privkey.pem", home / name / "meta.json"]
    rest = [store.root / "sites/site/intent.json"]
    assert [mode(path) for path in dirs + files + rest] == [0o750] * 4 + [0o644, 0o600, 0o644, 0o640]


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
    staged = store.stage("site", [pair_of(ca.issue("site.test", kind="rsa")), pairs[0]], PROVENANCE)
    assert staged.files == (("ecdsa-fullchain.pem", "ecdsa-privkey.pem"), ("rsa-fullchain.pem", "rsa-privkey.pem"))
    assert all((staged.path / name).exists() for names in staged.files for name in names)


def test_the_description_tells_fingerprints_names_dates_origin_who_and_when(store: Store, pairs: list[Pair]) -> None:
    meta = json.loads((generations(store) / keep(store, pairs[0]) / "meta.json").read_bytes())
    told = meta["pairs"]["ecdsa"]
    assert (meta["origin"], meta["who"], meta["when"]) == (["/drop/site.pem"], "tester", "2026-11-22T12:00:00.000Z")
    assert (told["fingerprint_sha256"], told["names"]) == (pairs[0].fingerprint, ["site.test", "www.site.test"])
    assert told["not_after"] == "2027-02-20T11:00:00.000Z"


def test_a_file_name_that_is_no_utf_8_stands_in_the_description_and_comes_back(store: Store, pairs: list[Pair]) -> None:
    odd = os.fsdecode(b"/drop/\xff.pem")
    staged = store.stage("site", [pairs[0]], Provenance((odd,)))
    staged.flush()
    assert store.load("site", staged.commit().name).record.provenance.origin == (odd,)


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
    store.stage("site", [pairs[0]], PROVENANCE)
    assert store.names("site") == ()


def test_what_is_discarded_leaves_nothing(store: Store, pairs: list[Pair]) -> None:
    store.stage("site", [pairs[0]], PROVENANCE).discard()
    assert os.listdir(generations(store)) == []


def test_discarding_after_the_commit_does_no_harm(store: Store, pairs: list[Pair]) -> None:
    staged = store.stage("site", [pairs[0]], PROVENANCE)
    staged.flush()
    name = staged.commit().name
    staged.discard()
    assert store.load("site", name).name == name


def test_what_a_killed_run_staged_is_swept_by_the_next(store: Store, pairs: list[Pair]) -> None:
    store.stage("site", [pairs[0]], PROVENANCE)
    name = keep(store, pairs[1])
    assert os.listdir(generations(store)) == [name]


def test_sweeping_a_site_that_has_nothing_yet_does_nothing(store: Store) -> None:
    store.sweep("site")
    assert os.listdir(store.root) == []


def test_a_generation_is_not_named_before_it_is_flushed(store: Store, pairs: list[Pair]) -> None:
    with pytest.raises(AssertionError):
        store.stage("site", [pairs[0]], PROVENANCE).commit()


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


DEEP = 100_000 * "["
"""JSON that no parser follows to its end."""

DAMAGES: dict[str, Callable[[Path], object]] = {
    "a description cut short": lambda p: (p / "meta.json").write_text('{"pairs": {'),
    "a description of something else": lambda p: (p / "meta.json").write_text("[]"),
    "an empty description": lambda p: (p / "meta.json").write_text(""),
    "a description that is nested without end": lambda p: (p / "meta.json").write_text(DEEP),
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
    staged = store.stage("site", [pair], PROVENANCE)
    staged.flush()
    generation = staged.commit()
    prints = store.fingerprints("site", generation.name)
    done = Outcome("site", Result.ROTATED, datetime.now(UTC), Reason.ROTATED, generation=generation.name)
    History(store.root).record(done, who="tester", trigger="swap", fingerprints=prints)
    shown = repr([staged, generation, store.load_pairs("site", generation.name), prints])
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


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "put", [os.mkfifo, lambda path: os.symlink("/", path), Path.touch], ids=["fifo", "link", "file"]
)
def test_what_stands_in_the_place_of_a_generation_is_pruned_and_swept_without_being_opened(
    store: Store, pairs: list[Pair], put: Callable[[Path], object]
) -> None:
    kept, home = keep(store, pairs[0]), generations(store)
    put(home / "000000-000000000000")
    put(home / ".new-000009-000000000000")
    store.prune("site", 1, frozenset())
    store.sweep("site")
    assert [path.name for path in home.iterdir()] == [kept]


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


EMPTY = ['{"unknown": 1}', '{"policy": 5}', '{"digest": null}', '{"result": ["rotated"]}']
UNREADABLE = ["", "{", "[]", "7", '"x"', "null", "\udcff", '[["a"]]', 200 * "\0", '{"digest": "d", "hold": {"by": "an']
UNREADABLE += [DEEP, '{"digest": "' + 2_000_000 * "d" + '"}', '{"schema_version": ' + 5000 * "9" + "}"]


@pytest.mark.parametrize("text", EMPTY)
def test_a_record_without_a_decision_and_a_hold_is_none(store: Store, text: str) -> None:
    store.write_intent("site", Intent("d"))
    (store.root / "sites/site/intent.json").write_text(text)
    assert store.intent("site") == Intent()


@pytest.mark.parametrize("text", UNREADABLE, ids=lambda text: text[:40])
def test_a_damaged_decision_is_none_and_its_reader_learns_why(store: Store, text: str) -> None:
    store.write_intent("site", Intent("d"))
    (store.root / "sites/site/intent.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert store.intent("site") == Intent()
    assert "intent.json counts as no decision" in store.intent("site").caveat


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "put", [os.mkfifo, os.mkdir, lambda path: os.symlink("meta.json", path)], ids=["fifo", "directory", "link"]
)
def test_what_is_no_file_in_the_place_of_a_decision_is_none_and_delays_no_reader(
    store: Store, put: Callable[[Path], object]
) -> None:
    store.write_intent("site", Intent("d"))
    path = store.root / "sites/site/intent.json"
    path.unlink()
    put(path)
    assert store.intent("site") == Intent()
    assert "intent.json counts as no decision" in store.intent("site").caveat


def test_a_decision_that_the_system_does_not_give_holds_everything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    store.write_intent("site", Intent("d"))
    monkeypatch.setattr(module, "read_file", fails)
    hold = store.intent("site").hold
    assert hold is not None
    assert hold.covers("anything", readable=True)
    assert "intent.json cannot be read" in store.intent("site").caveat


@pytest.mark.timeout(10)
@pytest.mark.parametrize("file", ["meta.json", "fullchain.pem"])
def test_a_fifo_in_the_place_of_a_generations_file_is_damage_and_holds_nobody_up(
    store: Store, pairs: list[Pair], file: str
) -> None:
    path = generations(store) / keep(store, pairs[0])
    (path / file).unlink()
    os.mkfifo(path / file)
    assert refusal(lambda: store.load("site", path.name)).code == "store-damaged"


# -- fingerprints


def test_a_generation_is_known_by_the_fingerprints_of_its_leaves(store: Store, ca: CA, pairs: list[Pair]) -> None:
    rsa = pair_of(ca.issue("site.test", kind="rsa"))
    name = keep(store, pairs[0], rsa)
    assert store.fingerprints("site", name) == {"ecdsa": pairs[0].fingerprint, "rsa": rsa.fingerprint}


@pytest.mark.parametrize("name", ["", "000009-0123456789ab"])
def test_what_is_not_stored_has_no_fingerprint(store: Store, name: str) -> None:
    assert store.fingerprints("site", name) == {}


# -- errors


WORDS = {
    errno.ENOSPC: ("disk-full", "Free some space"),
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
        error = refusal(lambda: store.stage("site", [pairs[0]], PROVENANCE))
    code, hint = WORDS[number]
    assert (error.code, hint in error.hint) == (code, True)
    assert error.message == f"{generations(store)}: {os.strerror(number)}"


@pytest.mark.parametrize("call", ["write", "fchmod", "utime", "open", "chmod"])
def test_what_cannot_be_staged_leaves_nothing(store: Store, pairs: list[Pair], call: str) -> None:
    keep(store, pairs[0])
    with standing_in(Fails(call, errno.ENOSPC)), contextlib.suppress(RotatorError):
        store.stage("site", [pairs[1]], PROVENANCE)
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
}


@pytest.mark.parametrize("action", ACTIONS)
def test_every_call_turns_what_the_system_says_into_words(store: Store, pairs: list[Pair], action: str) -> None:
    name, _ = keep(store, pairs[0]), keep(store, pairs[2])
    staged = store.stage("site", [pairs[1]], PROVENANCE)
    call, work = ACTIONS[action]
    with standing_in(Fails(call, errno.EIO)):
        assert refusal(lambda: work(store, staged, name)).code == "io-error"


def test_a_state_directory_that_is_missing_is_told_with_the_command_that_makes_it(
    tmp_path: Path, pairs: list[Pair]
) -> None:
    store = Store(tmp_path / "missing")
    error = refusal(lambda: store.stage("site", [pairs[0]], PROVENANCE))
    assert f"install -d -o rotator -g rotator -m 0750 {tmp_path}/missing" in error.hint


def test_a_state_directory_that_is_closed_to_us_is_told(tmp_path: Path, pairs: list[Pair]) -> None:
    (tmp_path / "state").mkdir(mode=0o500)

    def tried() -> str:
        return refusal(lambda: Store(Path("state")).stage("site", [pairs[0]], PROVENANCE)).code

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
    assert len({policy_digest(parts) for parts in ([], ["a"], ["b"], ["a", "b"], ["ab"])}) == 5
