"""How files get into a drop: whole, together, and without touching what is another one's."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rotator.core.errors import Exit, RotatorError
from rotator.core.model import SourceFile
from rotator.sources import delivery as drop
from rotator.sources.delivery import owner_of, reading_lock, write_drop
from rotator.sources.file_reader import is_temporary, read_drop
from tests.support.other_user import NOBODY, as_nobody

FILES = (SourceFile("/elsewhere/full.pem", b"chain"), SourceFile("key.pem", b"key"))


def refusal(work: Callable[[], object]) -> RotatorError:
    with pytest.raises(RotatorError) as caught:
        work()
    return caught.value


def content(drop: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in drop.iterdir()}


def test_files_get_the_last_part_of_their_names(tmp_path: Path) -> None:
    write_drop(FILES, tmp_path)
    assert content(tmp_path) == {"full.pem": b"chain", "key.pem": b"key"}


def test_the_answer_tells_where_they_are(tmp_path: Path) -> None:
    assert write_drop(FILES, tmp_path) == (tmp_path / "full.pem", tmp_path / "key.pem")


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    write_drop(FILES, tmp_path)
    assert [f.data for f in read_drop(tmp_path).files] == [b"chain", b"key"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_drop(FILES, tmp_path / "drop")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "drop", tmp_path / "drop" / "key.pem")]
    assert modes == [0o2770, 0o640]


def test_an_earlier_delivery_is_replaced_by_another_file(tmp_path: Path) -> None:
    write_drop(FILES, tmp_path)
    with (tmp_path / "key.pem").open("rb") as old:
        write_drop([SourceFile("key.pem", b"new")], tmp_path)
        assert old.read() == b"key"


def test_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(b"mine")
    write_drop(FILES, tmp_path)
    assert (tmp_path / "other.pem").read_bytes() == b"mine"


def test_an_earlier_delivery_of_other_names_makes_room_for_this_one(tmp_path: Path) -> None:
    for serial in range(6):  # a CA that calls its files otherwise each time
        write_drop([SourceFile(f"{serial}.crt", b"chain"), SourceFile(f"{serial}.key", b"key")], tmp_path)
    assert content(tmp_path) == {"5.crt": b"chain", "5.key": b"key"}


def test_the_files_of_two_deliveries_are_never_seen_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_drop([SourceFile("old.crt", b"chain"), SourceFile("old.key", b"key")], tmp_path)
    seen: list[set[str]] = []
    before(monkeypatch, "rename", lambda: seen.append({n for n in os.listdir(tmp_path) if not is_temporary(n)}))
    write_drop([SourceFile("new.crt", b"chain"), SourceFile("new.key", b"key")], tmp_path)
    assert {"new.crt"} in seen
    assert [names for names in seen if {name[:3] for name in names} == {"old", "new"}] == []


def test_a_delivered_file_that_was_changed_since_stays(tmp_path: Path) -> None:
    write_drop(FILES, tmp_path)
    (tmp_path / "key.pem").write_bytes(b"mine")
    write_drop([SourceFile("new.pem", b"new")], tmp_path)
    assert content(tmp_path) == {"key.pem": b"mine", "new.pem": b"new"}


def test_a_copy_of_a_delivered_file_stays(tmp_path: Path) -> None:
    write_drop(FILES, tmp_path)
    (tmp_path / "copy.pem").write_bytes(b"key")
    write_drop([SourceFile("new.pem", b"new")], tmp_path)
    assert content(tmp_path) == {"copy.pem": b"key", "new.pem": b"new"}


def test_where_files_have_no_attributes_everything_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, "setxattr", 1, errno.ENOTSUP)
    write_drop([SourceFile("old.pem", b"old")], tmp_path)
    write_drop([SourceFile("new.pem", b"new")], tmp_path)
    assert content(tmp_path) == {"old.pem": b"old", "new.pem": b"new"}


def test_a_delivery_that_fails_removes_nothing_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_drop([SourceFile("old.pem", b"old")], tmp_path)
    failing_at(monkeypatch, "rename", 2, errno.EIO)  # the first takes the old one out of sight
    refusal(lambda: write_drop([SourceFile("new.pem", b"new")], tmp_path))
    assert content(tmp_path) == {"old.pem": b"old"}


def test_a_link_of_the_files_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "drop" / "key.pem").symlink_to("../victim")
    write_drop(FILES, tmp_path / "drop")
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_a_drop_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "drop").symlink_to("victim")
    refusal(lambda: write_drop(FILES, tmp_path / "drop"))
    assert content(tmp_path / "victim") == {}


@pytest.mark.parametrize("name", ["", "x/", ".hidden", "..", "a\nb"])
def test_a_name_that_a_drop_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    assert refusal(lambda: write_drop([SourceFile(name, b"x")], tmp_path)).exit is Exit.REJECTED


def failing_at(monkeypatch: pytest.MonkeyPatch, call: str, number: int, error: int) -> None:
    """Lets one call of this system call fail, the given one."""
    real = getattr(os, call)
    calls = iter(range(1, 1000))

    def failing(*args: object, **kwargs: object) -> object:
        if next(calls) == number:
            raise OSError(error, os.strerror(error))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, failing)


def before(monkeypatch: pytest.MonkeyPatch, call: str, look: Callable[[], None]) -> None:
    """Lets the test look right before each of these system calls."""
    real = getattr(os, call)

    def looking(*args: object, **kwargs: object) -> object:
        look()
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, looking)


@pytest.mark.parametrize(("call", "number"), [("write", 1), ("write", 2), ("fsync", 1), ("fsync", 2), ("fchmod", 2)])
def test_a_full_disk_leaves_the_drop_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        failing_at(patch, call, number, errno.ENOSPC)
        refusal(lambda: write_drop(FILES, tmp_path))
    assert content(tmp_path) == {}


def test_a_full_disk_is_told_with_the_command_that_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        failing_at(patch, "write", 1, errno.ENOSPC)
        error = refusal(lambda: write_drop(FILES, tmp_path))
    assert f"df -h {tmp_path}" in error.hint


def test_a_rename_that_fails_tells_what_is_in_place_already(tmp_path: Path) -> None:
    (tmp_path / "key.pem").mkdir()
    assert "already in place: full.pem" in refusal(lambda: write_drop(FILES, tmp_path)).message


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").mkdir()
    refusal(lambda: write_drop(FILES, tmp_path))
    assert {p.name for p in tmp_path.iterdir()} == {"key.pem", "full.pem"}


def test_a_directory_that_the_disk_does_not_confirm_is_told_as_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing_at(patch, "fsync", 3, errno.EIO)
        error = refusal(lambda: write_drop(FILES, tmp_path))
    assert "in place" in error.message


def test_no_file_takes_its_name_before_all_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    with monkeypatch.context() as patch:
        for call in ("rename", "fsync"):
            before(patch, call, partial(order.append, call))
        write_drop(FILES, tmp_path)
    assert order == ["fsync", "fsync", "rename", "rename", "fsync"]


def test_the_drops_reader_passes_over_what_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with monkeypatch.context() as patch:
        before(patch, "rename", lambda: seen.extend(os.listdir(tmp_path)))
        write_drop(FILES[:1], tmp_path)
    assert [is_temporary(name) for name in seen] == [True]


def test_what_a_killed_delivery_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".rotator-deliver-0123456789abcdef").write_bytes(b"half a key")
    write_drop(FILES, tmp_path)
    assert set(content(tmp_path)) == {"full.pem", "key.pem"}


def test_the_temporary_names_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / ".key.pem.Xy12ab").write_bytes(b"rsync at work")
    write_drop(FILES, tmp_path)
    assert (tmp_path / ".key.pem.Xy12ab").exists()


def test_two_deliveries_at_once_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop, "LOCK_WITHIN", 0.05)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        error = refusal(lambda: write_drop(FILES, tmp_path))
    finally:
        os.close(held)
    assert error.exit is Exit.BUSY


def test_a_delivery_waits_for_another_one_and_for_a_reader(tmp_path: Path) -> None:
    for how in (fcntl.LOCK_EX, fcntl.LOCK_SH):
        held = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(held, how)
        later = threading.Timer(0.05, os.close, [held])
        later.start()
        write_drop(FILES, tmp_path)
        later.join()


def test_who_reads_undisturbed_waits_for_the_end_of_a_delivery(tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    def deliver() -> None:
        (tmp_path / "full.pem").write_bytes(b"chain")
        (tmp_path / "key.pem").write_bytes(b"key")
        os.close(held)

    later = threading.Timer(0.05, deliver)
    later.start()
    with reading_lock(tmp_path):
        assert set(content(tmp_path)) == {"full.pem", "key.pem"}
    later.join()


def test_who_reads_undisturbed_waits_only_so_long_and_for_nothing_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop, "LOCK_WITHIN", 0.05)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        for place in (tmp_path, tmp_path / "nothing"):
            with reading_lock(place):
                pass
    finally:
        os.close(held)


def test_a_drop_that_others_own_is_a_matter_of_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code = as_nobody(lambda: refusal(lambda: write_drop(FILES, Path())).code, cwd=tmp_path)
    tmp_path.chmod(0o755)
    assert code == "permission"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    write_drop(FILES, tmp_path / "drop")
    assert len(os.listdir("/proc/self/fd")) == before


# --- whom root becomes


def test_an_existing_drop_is_written_by_its_owner(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    owner = owner_of(tmp_path / "drop")
    assert (owner.uid, owner.gid, owner.exists) == (os.geteuid(), (tmp_path / "drop").stat().st_gid, True)


def test_a_missing_drop_is_made_by_the_owner_of_the_directory_around_it(tmp_path: Path) -> None:
    owner = owner_of(tmp_path / "drop")
    assert (owner.uid, owner.exists) == (tmp_path.stat().st_uid, False)


def test_a_missing_incoming_directory_gets_the_command_that_makes_it(tmp_path: Path) -> None:
    assert f"-m 2770 {tmp_path}/incoming" in refusal(lambda: owner_of(tmp_path / "incoming" / "a")).hint


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_drop_that_is_no_directory_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "drop").symlink_to("/etc")
    else:
        (tmp_path / "drop").touch()
    assert refusal(lambda: owner_of(tmp_path / "drop")).code == "io-error"


@pytest.mark.root
def test_a_drop_of_roots_in_anothers_directory_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "drop").mkdir(parents=True)
    os.chown(theirs, NOBODY, NOBODY)
    assert "belongs to root" in refusal(lambda: owner_of(theirs / "drop")).message


@pytest.mark.root
def test_no_link_in_place_of_the_incoming_directory_makes_root_write_elsewhere(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / "of-root").mkdir()
    (theirs / "incoming").symlink_to(tmp_path / "of-root")
    os.chown(theirs, NOBODY, NOBODY)
    assert refusal(lambda: owner_of(theirs / "incoming" / "shop")).code == "io-error"
