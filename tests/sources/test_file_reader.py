"""What the reader of untrusted files takes, what it refuses, and that it never waits."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rotator.core.errors import Exit, RotatorError
from rotator.core.model import MAX_FILE
from rotator.sources import file_reader
from rotator.sources.file_reader import MAX_FILES, read_drop, read_flat, read_named, read_password, read_pool
from tests.support.other_user import NOBODY, as_nobody, forked


@contextmanager
def deadline(seconds: float = 1.0) -> Iterator[None]:
    """Fails the test, also when it is stuck in a system call, unless the body is done in time."""

    def late(*_: object) -> None:
        raise AssertionError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    old = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *old)
        signal.signal(signal.SIGALRM, before)


def refusal(read: Callable[[], object]) -> RotatorError:
    with deadline(), pytest.raises(RotatorError) as caught:
        read()
    return caught.value


def told(read: Callable[[], object]) -> tuple[str, str, str]:
    """For `as_nobody`: the refusal as something that can be pickled."""
    try:
        read()
    except RotatorError as error:
        return error.code, error.message, error.hint
    return "read", "", ""


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    made = tmp_path / "drop"
    made.mkdir()
    (made / "b.pem").write_bytes(b"bee")
    (made / "a.key").write_bytes(b"ay")
    return made


# --- one file named by a human


def test_a_named_file_keeps_the_name_that_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "f.pem").write_bytes(b"x")
    assert read_named(tmp_path / "f.pem").name == str(tmp_path / "f.pem")


def test_a_named_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "f.pem").write_bytes(b"x" * MAX_FILE)
    assert read_named(tmp_path / "f.pem").data == b"x" * MAX_FILE


def test_a_named_file_tells_its_permission_bits(tmp_path: Path) -> None:
    (tmp_path / "f.key").write_bytes(b"x")
    (tmp_path / "f.key").chmod(0o604)
    assert read_named(tmp_path / "f.key").mode == 0o604


def test_a_named_file_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert read_named(tmp_path / "link").data == b"x"


def test_a_file_one_byte_over_the_bound_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * (MAX_FILE + 1))
    assert refusal(lambda: read_named(tmp_path / "f")).code == "too-large"


def test_a_file_of_a_terabyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as f:
        f.truncate(1 << 40)
    assert refusal(lambda: read_named(tmp_path / "f")).code == "too-large"


def test_an_empty_file_is_refused_by_that_name(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert refusal(lambda: read_named(tmp_path / "f")).code == "empty-file"


def test_a_refusal_exits_with_input_rejected(tmp_path: Path) -> None:
    assert refusal(lambda: read_named(tmp_path / "absent")).exit is Exit.REJECTED


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in refusal(lambda: read_named(tmp_path / "absent")).message


def test_the_hint_for_a_missing_file_lists_what_there_is(tmp_path: Path) -> None:
    assert refusal(lambda: read_named(tmp_path / "absent")).hint == f"See the files there: ls -la {tmp_path}"


def test_no_hint_advises_to_remove_a_device() -> None:
    assert "rm " not in refusal(lambda: read_named("/dev/zero")).hint


def test_an_empty_name_is_refused_in_words() -> None:
    assert refusal(lambda: read_named("")).message == '"" does not exist'


def test_a_dangling_link_tells_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone.pem")
    assert "is a link to gone.pem, which does not exist" in refusal(lambda: read_named(tmp_path / "link")).message


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    assert "a FIFO" in refusal(lambda: read_named(tmp_path / "f")).message


def test_a_fifo_that_takes_the_place_of_a_file_just_looked_at_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "regular").write_bytes(b"x")
    os.mkfifo(tmp_path / "f")
    look = os.stat(tmp_path / "regular")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda *_, **__: look)
        error = refusal(lambda: read_named(tmp_path / "f"))
    assert "a FIFO" in error.message


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("s")
        assert "a socket" in refusal(lambda: read_named("s")).message


def test_a_device_is_refused() -> None:
    assert "a character device" in refusal(lambda: read_named("/dev/zero")).message


def test_a_directory_is_refused_with_the_command_that_lists_it(tmp_path: Path) -> None:
    assert f"ls -l {tmp_path}" in refusal(lambda: read_named(tmp_path)).hint


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "circle" in refusal(lambda: read_named(tmp_path / "a")).message


def test_a_file_reached_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    assert refusal(lambda: read_named(tmp_path / "f" / "g")).code == "io-error"


def test_a_name_too_long_for_the_system_is_refused_in_a_short_message(tmp_path: Path) -> None:
    assert len(refusal(lambda: read_named(f"{tmp_path}/{'x' * 5000}")).message) < 200


@pytest.mark.parametrize("name", ["a\nb.pem", "a\x1b[2Jb.pem", "a\0b.pem", os.fsdecode(b"caf\xe9.pem"), "a\u202eb"])
def test_a_name_that_would_disturb_a_terminal_or_a_log_is_refused(tmp_path: Path, name: str) -> None:
    assert "control characters or is not UTF-8" in refusal(lambda: read_named(tmp_path / name)).message


def test_a_refused_name_is_shown_escaped(tmp_path: Path) -> None:
    assert r"a\nb.pem" in refusal(lambda: read_named(tmp_path / "a\nb.pem")).message


def test_a_file_that_another_process_holds_a_lease_on_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    ready, done = os.pipe(), os.pipe()

    def hold() -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fd = os.open(tmp_path / "f", os.O_RDWR)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.write(ready[1], b"!")
        os.close(done[1])
        os.read(done[0], 1)  # until the parent is gone or done

    holder = forked(hold)
    try:
        os.close(ready[1])
        assert os.read(ready[0], 1) == b"!"
        assert "a lease" in refusal(lambda: read_named(tmp_path / "f")).message
    finally:
        for fd in (ready[0], *done):
            os.close(fd)
        os.waitpid(holder, 0)


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "replace-content"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"before")
    os.utime(file, ns=(1, 1))
    real = os.read
    changes = iter([change])

    def read(fd: int, n: int) -> bytes:
        got = real(fd, n)
        if got:
            match next(changes, ""):
                case "grow":
                    with file.open("ab") as f:
                        f.write(b"more")
                case "shrink":
                    os.truncate(file, 1)
                case "touch":
                    os.utime(file)
                case "replace-content":
                    file.write_bytes(b"behind")
        return got

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        error = refusal(lambda: read_named(file))
    assert "changed while it was read" in error.message


def test_a_read_cut_short_by_the_kernel_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"abcdef")
    real = os.read
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", lambda fd, n: real(fd, min(n, 2)))
        source = read_named(tmp_path / "f")
    assert source.data == b"abcdef"


def test_a_file_that_the_user_may_not_read_is_a_matter_of_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "f.key").write_bytes(b"x")
    (tmp_path / "f.key").chmod(0)
    assert as_nobody(lambda: told(lambda: read_named("f.key")), cwd=tmp_path)[0] == "permission"


@pytest.fixture
def open_top() -> Iterator[Path]:
    """A directory of root's that every user can reach, which pytest's own are not for root's tests."""
    top = Path(tempfile.mkdtemp(prefix="rotator-test-", dir="/var/lib"))
    top.chmod(0o755)
    yield top
    shutil.rmtree(top)


@pytest.mark.root
def test_the_hint_for_a_closed_file_of_roots_is_the_command_that_opens_it(open_top: Path) -> None:
    (open_top / "f.key").write_bytes(b"x")
    (open_top / "f.key").chmod(0)
    _, _, hint = as_nobody(lambda: told(lambda: read_named("f.key")), cwd=open_top)
    assert "chmod g+r f.key" in hint


@pytest.mark.root
def test_a_closed_file_that_others_may_replace_by_a_link_is_never_opened_by_a_command_of_root(open_top: Path) -> None:
    open_top.chmod(0o775)
    (open_top / "f.key").write_bytes(b"x")
    (open_top / "f.key").chmod(0)
    _, _, hint = as_nobody(lambda: told(lambda: read_named("f.key")), cwd=open_top)
    assert hint.startswith("The owner of f.key can open it to ")
    assert "rotator deliver" in hint
    assert not any(program in hint for program in ("chgrp", "chmod", "setfacl"))


def test_a_closed_directory_on_the_way_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    shut = tmp_path / "shut"
    shut.mkdir()
    (shut / "f.key").write_bytes(b"x")
    shut.chmod(0)
    _, message, _ = as_nobody(lambda: told(lambda: read_named(shut / "f.key")), cwd=tmp_path)
    shut.chmod(0o700)
    assert "who may not enter" in message


def test_the_bytes_of_a_file_never_show_in_a_representation(tmp_path: Path) -> None:
    (tmp_path / "f.key").write_bytes(b"SECRET")
    assert "SECRET" not in repr(read_named(tmp_path / "f.key"))


# --- the password file and the pool


def test_the_password_is_the_first_line_without_its_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    for text in (b"open sesame", b"open sesame\n", b"open sesame\r\nsecond line\n"):
        file.write_bytes(text)
        file.chmod(0o600)
        password, notes = read_password(file)
        assert password is not None
        assert (password.reveal(), notes) == (b"open sesame", ())


def test_spaces_belong_to_a_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b" open sesame \n")
    password, _ = read_password(tmp_path / "password")
    assert password is not None
    assert password.reveal() == b" open sesame "


@pytest.mark.parametrize(("mode", "open_"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True)])
def test_a_password_file_that_others_may_read_or_change_is_warned_about(
    tmp_path: Path, mode: int, *, open_: bool
) -> None:
    (tmp_path / "password").write_bytes(b"open sesame\n")
    (tmp_path / "password").chmod(mode)
    _, notes = read_password(tmp_path / "password")
    assert [(p.code, p.severity) for p in notes] == ([("key-permissions", "warn")] if open_ else [])
    assert all("sesame" not in p.message + p.hint for p in notes)


@pytest.mark.root
def test_a_password_file_that_belongs_to_somebody_else_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"open sesame\n")
    (tmp_path / "password").chmod(0o600)
    os.chown(tmp_path / "password", 4711, -1)
    _, (note,) = read_password(tmp_path / "password")
    assert "uid 4711" in note.message


@pytest.mark.parametrize(
    ("text", "code"), [(None, "io-error"), (b"", "empty-file"), (b"x" * (file_reader.MAX_PASSWORD + 1), "too-large")]
)
def test_a_password_file_that_cannot_be_used_is_a_warning_that_says_why(
    tmp_path: Path, text: bytes | None, code: str
) -> None:
    if text is not None:
        (tmp_path / "password").write_bytes(text)
    password, (note,) = read_password(tmp_path / "password")
    assert password is None
    assert (note.code, note.severity) == (code, "warn")
    assert "password file" in note.message


def test_a_pool_is_the_files_of_a_directory_named_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b.pem").write_bytes(b"b")
    (tmp_path / "a.crt").symlink_to("b.pem")
    (tmp_path / ".hidden").write_bytes(b"x")
    (tmp_path / "old").mkdir()
    names = [(source.name, source.data) for source in read_pool(tmp_path)]
    assert names == [(f"{tmp_path}/a.crt", b"b"), (f"{tmp_path}/b.pem", b"b")]


def test_a_pool_may_be_one_file(tmp_path: Path) -> None:
    (tmp_path / "all.pem").write_bytes(b"x")
    assert [source.data for source in read_pool(tmp_path / "all.pem")] == [b"x"]


def test_a_pool_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in refusal(lambda: read_pool(tmp_path / "absent")).message


def test_a_pool_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "MAX_POOL_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.pem").write_bytes(b"x")
    assert refusal(lambda: read_pool(tmp_path)).code == "too-large"


def test_a_pool_that_is_too_large_in_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "MAX_POOL_TOTAL", 1 << 20)
    for number in range(3):
        (tmp_path / f"{number}.pem").write_bytes(b"x" * MAX_FILE if number else b"x")
    assert len(read_pool(tmp_path)) == 3
    for number in range(3, 6):
        (tmp_path / f"{number}.pem").write_bytes(b"x" * MAX_FILE)
    assert "more than 1 MiB in all" in refusal(lambda: read_pool(tmp_path)).message


# --- a drop directory


def test_a_drop_is_read_in_the_order_of_its_names(drop: Path) -> None:
    assert [(f.name, f.data) for f in read_drop(drop).files] == [("a.key", b"ay"), ("b.pem", b"bee")]


def test_an_empty_drop_gives_a_candidate_without_files(tmp_path: Path) -> None:
    assert read_drop(tmp_path).files == ()


def test_the_same_drop_has_the_same_digest_when_read_again(drop: Path) -> None:
    assert read_drop(drop).digest == read_drop(drop).digest


@pytest.mark.parametrize(
    "name", [".b.pem.Xy12ab", "b.pem~", "b.pem.tmp", "b.pem.part", "b.pem.filepart", ".b.pem.swp", "..data", "README"]
)
def test_a_temporary_name_is_passed_over(drop: Path, name: str) -> None:
    (drop / name).write_bytes(b"half")
    assert [f.name for f in read_drop(drop).files] == ["a.key", "b.pem"]


def test_a_drop_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in refusal(lambda: read_drop(tmp_path / "absent")).message


def test_a_drop_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert "is not a directory" in refusal(lambda: read_drop(tmp_path / "f")).message


def test_a_drop_that_is_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    assert "is not a directory" in refusal(lambda: read_drop(tmp_path / "f")).message


def test_a_drop_that_is_a_link_is_not_followed(drop: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(drop)
    assert "symbolic link" in refusal(lambda: read_drop(tmp_path / "link")).message


@pytest.fixture
def led_astray(tmp_path: Path) -> Path:
    """An incoming directory whose owner has put a link in its place, to one that only root may look into."""
    secret = tmp_path / "secret"
    (secret / "shop").mkdir(parents=True, mode=0o700)
    for name in ("shop/a.key", "shop.key"):
        (secret / name).write_bytes(b"of root")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "incoming").symlink_to(secret)
    os.chown(theirs, NOBODY, NOBODY)
    return theirs / "incoming"


@pytest.mark.root
def test_no_link_on_the_way_to_a_drop_leads_root_elsewhere(led_astray: Path) -> None:
    error = refusal(lambda: read_drop(led_astray / "shop"))
    assert (error.code, "behind a symbolic link that users other than root can set" in error.message) == (
        "io-error",
        True,
    )


@pytest.mark.root
def test_no_link_in_place_of_the_incoming_directory_leads_root_elsewhere(led_astray: Path) -> None:
    assert "symbolic link" in refusal(lambda: read_flat(led_astray, "shop")).message


@pytest.mark.root
def test_a_link_that_only_root_can_set_is_followed() -> None:
    with tempfile.TemporaryDirectory(dir="/run") as top:  # all of it is root's, as in /etc and /var
        real = Path(top, "real", "shop")
        real.mkdir(parents=True)
        (real / "a.pem").write_bytes(b"x")
        Path(top, "link").symlink_to("real")
        assert [file.data for file in read_drop(Path(top, "link", "shop")).files] == [b"x"]


def test_a_link_in_a_drop_is_not_followed(drop: Path) -> None:
    (drop / "c.pem").symlink_to("/etc/hostname")
    assert "c.pem is a symbolic link" in refusal(lambda: read_drop(drop)).message


def test_a_link_that_takes_the_place_of_a_file_just_looked_at_is_not_followed(
    drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.stat(drop / "a.key")
    (drop / "a.key").unlink()
    (drop / "a.key").symlink_to("b.pem")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda *_, **__: look)
        error = refusal(lambda: read_drop(drop))
    assert "symbolic link" in error.message


def test_a_second_hard_link_in_a_drop_is_refused(drop: Path, tmp_path: Path) -> None:
    os.link(drop / "b.pem", tmp_path / "elsewhere")
    assert "2 hard links" in refusal(lambda: read_drop(drop)).message


def test_a_fifo_in_a_drop_is_refused_without_waiting(drop: Path) -> None:
    os.mkfifo(drop / "c.pem")
    assert "c.pem is a FIFO" in refusal(lambda: read_drop(drop)).message


def test_a_directory_in_a_drop_is_refused_by_name(drop: Path) -> None:
    (drop / "old").mkdir()
    assert "old is a directory" in refusal(lambda: read_drop(drop)).message


def test_an_entry_with_a_newline_in_its_name_is_refused(drop: Path) -> None:
    (drop / "c\nd.pem").write_bytes(b"x")
    assert r"c\nd.pem" in refusal(lambda: read_drop(drop)).message


def test_as_many_files_as_the_bound_are_read(tmp_path: Path) -> None:
    for i in range(MAX_FILES):
        (tmp_path / f"{i}.pem").write_bytes(b"x")
    assert len(read_drop(tmp_path).files) == MAX_FILES


def test_one_file_more_than_the_bound_is_too_large(tmp_path: Path) -> None:
    for i in range(MAX_FILES + 1):
        (tmp_path / f"{i}.pem").write_bytes(b"x")
    assert refusal(lambda: read_drop(tmp_path)).code == "too-large"


def test_a_drop_of_too_many_bytes_in_all_is_too_large(tmp_path: Path) -> None:
    for i in range(file_reader.MAX_TOTAL // MAX_FILE + 1):
        (tmp_path / f"{i}.pem").write_bytes(b"x" * MAX_FILE)
    assert "in all" in refusal(lambda: read_drop(tmp_path)).message


def test_a_drop_renamed_while_it_is_read_is_read_to_its_end(drop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(fd: int) -> object:
        drop.rename(drop.with_name("moved"))
        return real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        candidate = read_drop(drop)
    assert len(candidate.files) == 2


def test_no_descriptor_is_left_open_by_a_refusal(drop: Path) -> None:
    os.mkfifo(drop / "c.pem")
    before = len(os.listdir("/proc/self/fd"))
    refusal(lambda: read_drop(drop))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_closed_drop_is_a_matter_of_permission(drop: Path) -> None:
    drop.parent.chmod(0o755)
    drop.chmod(0)
    code = as_nobody(lambda: told(lambda: read_drop("drop")), cwd=drop.parent)[0]
    drop.chmod(0o700)
    assert code == "permission"


def test_links_in_the_way_of_certbot_are_followed_where_allowed(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "live").mkdir()
    (tmp_path / "archive" / "cert1.pem").write_bytes(b"one")
    (tmp_path / "live" / "cert.pem").symlink_to("../archive/cert1.pem")
    assert read_drop(tmp_path / "live", follow_links=True).files[0].data == b"one"


def test_links_in_the_way_of_kubernetes_are_followed_where_allowed(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "tls.crt").write_bytes(b"one")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    assert [(f.name, f.data) for f in read_drop(tmp_path, follow_links=True).files] == [("tls.crt", b"one")]


def test_links_flipped_while_they_are_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "tls.crt").write_bytes(b"one")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    os.utime(tmp_path, ns=(1, 1))
    real = os.read

    def read(fd: int, n: int) -> bytes:
        shutil.copytree(tmp_path / "..1", tmp_path / "..2", dirs_exist_ok=True)
        return real(fd, n)

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        error = refusal(lambda: read_drop(tmp_path, follow_links=True))
    assert "changed while it was read" in error.message


# --- flat files


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for name in ("shop.crt", "shop.key", "shop-chain.PEM", "shop-eu.pem", "shopping.pem", "shop.txt", "other.crt"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "shop").mkdir()
    return tmp_path


def test_flat_files_are_those_with_the_sites_name(flat: Path) -> None:
    assert [f.name for f in read_flat(flat, "shop").files] == ["shop-chain.PEM", "shop-eu.pem", "shop.crt", "shop.key"]


def test_a_flat_file_belongs_to_the_longest_site_that_it_fits(flat: Path) -> None:
    names = [f.name for f in read_flat(flat, "shop", others={"shop", "shop-eu"}).files]
    assert names == ["shop-chain.PEM", "shop.crt", "shop.key"]


def test_a_longer_site_takes_its_own_flat_file(flat: Path) -> None:
    assert [f.name for f in read_flat(flat, "shop-eu", others={"shop", "shop-eu"}).files] == ["shop-eu.pem"]


def test_a_site_without_flat_files_has_none(flat: Path) -> None:
    assert read_flat(flat, "absent").files == ()


def test_a_bad_file_of_another_site_is_no_hindrance(flat: Path) -> None:
    os.mkfifo(flat / "other.pem")
    with deadline():
        assert read_flat(flat, "shop-eu").files


def test_a_bad_flat_file_of_the_site_is_refused_by_name(flat: Path) -> None:
    os.mkfifo(flat / "shop.pem")
    assert "shop.pem is a FIFO" in refusal(lambda: read_flat(flat, "shop")).message
