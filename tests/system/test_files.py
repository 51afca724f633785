"""Files are read within a bound, without waiting and through no link, and each error has its word."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rotator.system.faults import code_of, message_of
from rotator.system.files import NotRegularError, open_regular, read_bounded, read_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


@pytest.mark.parametrize(("limit", "data"), [(10, b"0123456789"), (9, b"0123456789"), (3, b"0123"), (0, b"0")])
def test_at_most_one_byte_more_than_the_bound_is_read(file: Path, limit: int, data: bytes) -> None:
    with open_regular(file) as fd:
        assert read_bounded(fd, limit) == data


def test_what_the_kernel_hands_out_in_pieces_is_read_whole() -> None:
    out, into = os.pipe()
    try:
        os.write(into, b"01")
        os.write(into, b"23")
        os.close(into)
        assert read_bounded(out, 10) == b"0123"
    finally:
        os.close(out)


def test_a_file_as_large_as_the_bound_is_read(file: Path) -> None:
    assert read_file(file, 10) == b"0123456789"


def test_a_larger_file_is_refused(file: Path) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is what is asked for
        read_file(file, 9)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "other")
    with pytest.raises(NotRegularError, match="other is not a regular file"):
        read_file(tmp_path / "other")


def test_a_device_is_no_regular_file() -> None:
    with pytest.raises(NotRegularError), open_regular("/dev/null"):
        pass


def test_a_link_is_followed_only_where_that_is_asked_for(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    with open_regular(link, follow_links=True) as fd:
        assert read_bounded(fd, 10) == b"0123456789"
    with pytest.raises(OSError) as caught, open_regular(link):  # noqa: PT011 - its number is what is asked for
        pass
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk-full"),
        (errno.EDQUOT, "disk-full"),
        (errno.EACCES, "permission"),
        (errno.EPERM, "permission"),
        (errno.EROFS, "io-error"),
        (errno.EIO, "io-error"),
        (None, "io-error"),
    ],
)
def test_each_error_of_the_system_has_its_word(number: int | None, code: str) -> None:
    assert code_of(OSError(number, "words") if number else OSError("words")) == code


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (ValueError("embedded null byte"), "embedded null byte"),
        (OSError(), "OSError"),
    ],
)
def test_an_error_is_told_in_the_words_of_the_system(error: OSError | ValueError, words: str) -> None:
    assert message_of(error) == words
