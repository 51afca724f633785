"""How files get into a drop: whole, together, and without touching what is another one's."""

from __future__ import annotations

import errno
import fcntl
import grp
import itertools
import os
import pwd
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from rotator.core.errors import Exit, RotatorError
from rotator.core.model import SourceFile
from rotator.privsep.privilege_drop import become
from rotator.sources import delivery as drop
from rotator.sources.delivery import open_drop, reading_lock
from rotator.sources.drop_rights import DropRights
from rotator.sources.file_reader import is_temporary, read_drop
from tests.support.dropping import put
from tests.support.other_user import NOBODY, as_nobody, in_child, in_children
from tests.support.waiting import wait_until

FILES = (SourceFile("/elsewhere/full.pem", b"chain"), SourceFile("key.pem", b"key"))


def refusal(work: Callable[[], object]) -> RotatorError:
    with pytest.raises(RotatorError) as caught:
        work()
    return caught.value


def content(drop: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in drop.iterdir()}


def test_files_get_the_last_part_of_their_names(tmp_path: Path) -> None:
    put(FILES, tmp_path)
    assert content(tmp_path) == {"full.pem": b"chain", "key.pem": b"key"}


def test_the_answer_tells_where_they_are(tmp_path: Path) -> None:
    assert put(FILES, tmp_path) == (tmp_path / "full.pem", tmp_path / "key.pem")


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    put(FILES, tmp_path)
    assert [f.data for f in read_drop(tmp_path).files] == [b"chain", b"key"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        put(FILES, tmp_path / "drop")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "drop", tmp_path / "drop" / "key.pem")]
    assert modes == [0o2770, 0o600]


def test_an_earlier_delivery_is_replaced_by_another_file(tmp_path: Path) -> None:
    put(FILES, tmp_path)
    with (tmp_path / "key.pem").open("rb") as old:
        put([SourceFile("key.pem", b"new")], tmp_path)
        assert old.read() == b"key"


def test_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(b"mine")
    put(FILES, tmp_path)
    assert (tmp_path / "other.pem").read_bytes() == b"mine"


def test_an_earlier_delivery_of_other_names_makes_room_for_this_one(tmp_path: Path) -> None:
    for serial in range(6):  # a CA that calls its files otherwise each time
        put([SourceFile(f"{serial}.crt", b"chain"), SourceFile(f"{serial}.key", b"key")], tmp_path)
    assert content(tmp_path) == {"5.crt": b"chain", "5.key": b"key"}


def test_the_files_of_two_deliveries_are_never_seen_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put([SourceFile("old.crt", b"chain"), SourceFile("old.key", b"key")], tmp_path)
    seen: list[set[str]] = []
    before(monkeypatch, "rename", lambda: seen.append({n for n in os.listdir(tmp_path) if not is_temporary(n)}))
    put([SourceFile("new.crt", b"chain"), SourceFile("new.key", b"key")], tmp_path)
    assert {"new.crt"} in seen
    assert [names for names in seen if {name[:3] for name in names} == {"old", "new"}] == []


def test_a_delivered_file_that_was_changed_since_stays(tmp_path: Path) -> None:
    put(FILES, tmp_path)
    (tmp_path / "key.pem").write_bytes(b"mine")
    put([SourceFile("new.pem", b"new")], tmp_path)
    assert content(tmp_path) == {"key.pem": b"mine", "new.pem": b"new"}


def test_a_copy_of_a_delivered_file_stays(tmp_path: Path) -> None:
    put(FILES, tmp_path)
    (tmp_path / "copy.pem").write_bytes(b"key")
    put([SourceFile("new.pem", b"new")], tmp_path)
    assert content(tmp_path) == {"copy.pem": b"key", "new.pem": b"new"}


def test_where_files_have_no_attributes_everything_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, "setxattr", 1, errno.ENOTSUP)
    put([SourceFile("old.pem", b"old")], tmp_path)
    put([SourceFile("new.pem", b"new")], tmp_path)
    assert content(tmp_path) == {"old.pem": b"old", "new.pem": b"new"}


def test_a_delivery_that_fails_removes_nothing_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put([SourceFile("old.pem", b"old")], tmp_path)
    failing_at(monkeypatch, "rename", 2, errno.EIO)  # the first takes the old one out of sight
    refusal(lambda: put([SourceFile("new.pem", b"new")], tmp_path))
    assert content(tmp_path) == {"old.pem": b"old"}


def test_a_link_of_the_files_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "drop" / "key.pem").symlink_to("../victim")
    put(FILES, tmp_path / "drop")
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_a_drop_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "drop").symlink_to("victim")
    refusal(lambda: put(FILES, tmp_path / "drop"))
    assert content(tmp_path / "victim") == {}


@pytest.mark.parametrize("name", ["", "x/", ".hidden", "..", "a\nb"])
def test_a_name_that_a_drop_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    assert refusal(lambda: put([SourceFile(name, b"x")], tmp_path)).exit is Exit.REJECTED


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
        refusal(lambda: put(FILES, tmp_path))
    assert content(tmp_path) == {}


def test_a_full_disk_is_told_with_the_command_that_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        failing_at(patch, "write", 1, errno.ENOSPC)
        error = refusal(lambda: put(FILES, tmp_path))
    assert f"df -h {tmp_path}" in error.hint


def test_a_rename_that_fails_tells_what_is_in_place_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, "rename", 2, errno.EIO)
    assert "already in place: full.pem" in refusal(lambda: put(FILES, tmp_path)).message


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, "rename", 2, errno.EIO)
    refusal(lambda: put(FILES, tmp_path))
    assert {p.name for p in tmp_path.iterdir()} == {"full.pem"}


def test_a_directory_of_a_files_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "key.pem").mkdir()
    error = refusal(lambda: put(FILES, tmp_path))
    assert (f"{tmp_path}/key.pem is a directory" in error.message, os.listdir(tmp_path)) == (True, ["key.pem"])


@pytest.mark.parametrize(
    "plant", [os.mkfifo, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)], ids=["fifo", "socket"]
)
def test_what_is_no_file_under_a_files_name_is_replaced_unread(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    plant(tmp_path / "key.pem")
    put(FILES, tmp_path)
    assert content(tmp_path) == {"full.pem": b"chain", "key.pem": b"key"}


def test_a_directory_that_the_disk_does_not_confirm_is_told_as_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing_at(patch, "fsync", 3, errno.EIO)
        error = refusal(lambda: put(FILES, tmp_path))
    assert "in place" in error.message


def test_no_file_takes_its_name_before_all_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    with monkeypatch.context() as patch:
        for call in ("rename", "fsync"):
            before(patch, call, partial(order.append, call))
        put(FILES, tmp_path)
    assert order == ["fsync", "fsync", "rename", "rename", "fsync"]


def test_the_drops_reader_passes_over_what_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    with monkeypatch.context() as patch:
        before(patch, "rename", lambda: seen.extend(os.listdir(tmp_path)))
        put(FILES[:1], tmp_path)
    assert [is_temporary(name) for name in seen] == [True]


def test_what_a_killed_delivery_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".rotator-deliver-0123456789abcdef").write_bytes(b"half a key")
    put(FILES, tmp_path)
    assert set(content(tmp_path)) == {"full.pem", "key.pem"}


def test_the_temporary_names_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / ".key.pem.Xy12ab").write_bytes(b"rsync at work")
    put(FILES, tmp_path)
    assert (tmp_path / ".key.pem.Xy12ab").exists()


def test_two_deliveries_at_once_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop, "LOCK_WITHIN", 0.05)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        error = refusal(lambda: put(FILES, tmp_path))
    finally:
        os.close(held)
    assert (error.exit, f"pid {os.getpid()} (user " in error.message) == (Exit.BUSY, True)


def test_a_delivery_waits_for_another_one_and_for_a_reader(tmp_path: Path) -> None:
    for how in (fcntl.LOCK_EX, fcntl.LOCK_SH):
        held = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(held, how)
        later = threading.Timer(0.05, os.close, [held])
        later.start()
        put(FILES, tmp_path)
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


def test_a_drop_that_this_user_may_not_write_to_is_a_matter_of_permission(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir(0o555)
    (tmp_path / "drop").chmod(0o555)
    assert as_nobody(lambda: refusal(lambda: put(FILES, Path("drop"))).code, cwd=tmp_path) == "permission"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    put(FILES, tmp_path / "drop")
    assert len(os.listdir("/proc/self/fd")) == before


# --- to whom a drop belongs


def test_a_missing_incoming_directory_gets_the_command_that_makes_it(tmp_path: Path) -> None:
    assert f"-m 3770 {tmp_path}/incoming" in refusal(lambda: put(FILES, tmp_path / "incoming" / "a")).hint


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_drop_that_is_no_directory_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "drop").symlink_to("/etc")
    else:
        (tmp_path / "drop").touch()
    assert refusal(lambda: put(FILES, tmp_path / "drop")).code == "io-error"


def test_a_drop_that_was_renamed_away_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    with open_drop(tmp_path / "drop", DropRights(os.geteuid())) as opened:
        (tmp_path / "drop").rename(tmp_path / "away")
        (tmp_path / "drop").mkdir()
        error = refusal(lambda: drop.write_drop(FILES, opened))
    assert (error.exit, content(tmp_path / "away"), content(tmp_path / "drop")) == (Exit.BUSY, {}, {})


def test_a_drop_that_was_renamed_away_while_it_was_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename_away(*_: object) -> None:
        if (tmp_path / "drop").exists():
            (tmp_path / "drop").rename(tmp_path / "away")

    monkeypatch.setattr(drop, "_flush", rename_away)
    assert "was moved away" in refusal(lambda: put(FILES, tmp_path / "drop")).message


def test_a_dry_look_at_a_drop_creates_nothing(tmp_path: Path) -> None:
    with open_drop(tmp_path / "drop", DropRights(os.geteuid()), create=False) as opened:
        assert (opened.existed, os.listdir(tmp_path)) == (False, [])


def test_a_group_that_the_host_does_not_have_is_told(tmp_path: Path) -> None:
    error = refusal(lambda: put(FILES, tmp_path / "drop", DropRights(os.geteuid(), group="no-such-group")))
    assert (error.exit, "groupadd --system no-such-group" in error.hint) == (Exit.CONFIG, True)


MEMBER, OTHER_MEMBER, SITES_GROUP = 64001, 64002, 64003


def owned(path: Path, uid: int, gid: int, mode: int) -> Path:
    """A directory with this owner, group and mode."""
    path.mkdir()
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """An incoming directory of the store's owner, here nobody, with the sticky bit."""
    return owned(tmp_path / "incoming", NOBODY, SITES_GROUP, 0o3770)


def root_delivers(directory: Path, rights: DropRights) -> None:
    """Delivers as root's `rotator deliver` does: root opens the drop, and the store's owner writes into it."""

    def work() -> None:
        with open_drop(directory, rights) as opened:
            os.setgroups([SITES_GROUP])
            os.setresgid(SITES_GROUP, SITES_GROUP, SITES_GROUP)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            drop.write_drop(FILES, opened)

    in_child(work)


def by_root(directory: Path, rights: DropRights | None = None) -> dict[str, tuple[int, int]]:
    """The owner and the mode of each entry of a drop, after root has delivered into it."""
    root_delivers(directory, rights or DropRights(NOBODY))
    states = {name: (directory / name).lstat() for name in (".", *os.listdir(directory))}
    return {name: (status.st_uid, stat.S_IMODE(status.st_mode)) for name, status in states.items()}


@pytest.mark.root
def test_what_root_delivers_is_readable_for_the_stores_owner_alone(incoming: Path) -> None:
    assert by_root(incoming / "shop") == {
        ".": (NOBODY, 0o2770),
        "full.pem": (NOBODY, 0o600),
        "key.pem": (NOBODY, 0o600),
    }


@pytest.mark.root
def test_a_drop_that_root_makes_has_the_configured_group(incoming: Path) -> None:
    by_root(incoming / "shop", DropRights(NOBODY, group="games"))
    assert (incoming / "shop").stat().st_gid == grp.getgrnam("games").gr_gid


@pytest.mark.root
def test_a_new_drop_that_a_killed_delivery_of_root_left_is_finished_by_the_next(incoming: Path) -> None:
    (incoming / "shop").mkdir(0o700)
    assert by_root(incoming / "shop")["."] == (NOBODY, 0o2770)


@pytest.mark.root
def test_a_drop_of_root_that_its_group_may_write_to_is_written(incoming: Path) -> None:
    owned(incoming / "shop", 0, SITES_GROUP, 0o2770)
    assert by_root(incoming / "shop")["key.pem"] == (NOBODY, 0o600)


@pytest.mark.root
def test_a_drop_of_root_that_the_stores_owner_may_not_write_to_is_refused_with_the_command(incoming: Path) -> None:
    owned(incoming / "shop", 0, 0, 0o755)
    assert f"chown -h nobody {incoming}/shop" in refusal(lambda: put(FILES, incoming / "shop", DropRights(NOBODY))).hint


@pytest.mark.root
def test_a_drop_of_a_stranger_gets_no_key_of_root_and_the_command_that_moves_it_away(incoming: Path) -> None:
    owned(incoming / "shop", MEMBER, SITES_GROUP, 0o2777)
    error = refusal(lambda: put(FILES, incoming / "shop", DropRights(NOBODY)))
    assert (error.code, f"mv -T {incoming}/shop " in error.hint) == ("drop-foreign", True)
    assert content(incoming / "shop") == {}


@pytest.mark.root
def test_a_drop_of_the_owner_that_the_configuration_names_gets_what_root_delivers(incoming: Path) -> None:
    owned(incoming / "shop", pwd.getpwnam("games").pw_uid, SITES_GROUP, 0o2770)
    assert by_root(incoming / "shop", DropRights(NOBODY, "games"))["key.pem"] == (NOBODY, 0o600)


@pytest.mark.root
def test_a_member_delivers_for_the_group_of_the_drop_and_into_no_strangers_drop(incoming: Path) -> None:
    owned(incoming / "shop", NOBODY, SITES_GROUP, 0o2770)
    owned(incoming / "theirs", OTHER_MEMBER, SITES_GROUP, 0o2770)
    rights = DropRights(NOBODY)

    def deliver() -> tuple[str, str]:
        put(FILES, Path("shop"), rights)
        refused = [refusal(lambda name=name: put(FILES, Path(name), rights)).code for name in ("theirs", "missing")]  # type: ignore[misc]
        return refused[0], refused[1]

    assert as_nobody(deliver, cwd=incoming, uid=MEMBER, gid=SITES_GROUP) == ("drop-foreign", "permission")
    key = (incoming / "shop" / "key.pem").stat()
    assert (key.st_uid, key.st_gid, stat.S_IMODE(key.st_mode)) == (MEMBER, SITES_GROUP, 0o640)


@pytest.mark.root
def test_in_a_sticky_drop_the_file_of_another_user_is_refused_by_its_name(incoming: Path) -> None:
    owned(incoming / "shop", NOBODY, SITES_GROUP, 0o3770)
    (incoming / "shop" / "key.pem").touch()
    error = as_nobody(
        lambda: refusal(lambda: put(FILES, Path("shop"), DropRights(NOBODY))).message,
        cwd=incoming,
        uid=MEMBER,
        gid=SITES_GROUP,
    )
    assert ("key.pem belongs to root" in error, os.listdir(incoming / "shop")) == (True, ["key.pem"])


@pytest.mark.root
def test_no_link_in_place_of_the_incoming_directory_makes_root_write_elsewhere(tmp_path: Path) -> None:
    theirs = owned(tmp_path / "theirs", NOBODY, NOBODY, 0o755)
    (tmp_path / "of-root").mkdir()
    (theirs / "incoming").symlink_to(tmp_path / "of-root")
    assert refusal(lambda: put(FILES, theirs / "incoming" / "shop")).code == "io-error"
    assert content(tmp_path / "of-root") == {}


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o2770, 0o3770], ids=["without the sticky bit", "with it"])
def test_a_member_who_replaces_the_drop_all_the_time_gets_no_key(tmp_path: Path, mode: int) -> None:
    incoming = owned(tmp_path / "incoming", NOBODY, SITES_GROUP, mode)
    owned(incoming / "shop", NOBODY, SITES_GROUP, 0o2770)
    tmp_path.chmod(0o755)
    owned(tmp_path / "signs", MEMBER, MEMBER, 0o755)

    def replace() -> object:
        """What the member reads of keys, in all directories that have been the drop."""
        os.chdir(incoming)
        become(MEMBER, SITES_GROUP)
        taken: list[bytes] = []
        for number in itertools.count():
            if number == 20:
                Path("../signs/at-work").touch()
            with suppress(OSError):
                Path("shop").rename(f"away{number % 8}")
            with suppress(OSError):
                Path("shop").mkdir(0o2777)
            for directory in (Path("shop"), *(Path(f"away{other}") for other in range(8))):
                with suppress(OSError):
                    taken += [path.read_bytes() for path in directory.iterdir() if path.name != "own"]
            if Path("../signs/end").exists():
                return taken
        raise AssertionError("it ends above")

    def deliver() -> object:
        wait_until((tmp_path / "signs" / "at-work").exists, what="the member is at work")
        delivered = 0
        for _ in range(100):
            with suppress(AssertionError):
                root_delivers(incoming / "shop", DropRights(NOBODY))
                delivered += 1
        (tmp_path / "signs" / "end").touch()
        return delivered

    delivered, taken = in_children([deliver, replace])
    assert (taken, delivered == 100 or mode == 0o2770) == ([], True)
