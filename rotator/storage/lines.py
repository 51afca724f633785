"""The lines of a file that another program may have filled with anything: read backwards, within bounds of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

MAX_LINE = 1024 * 1024
"""The most bytes of a line; a longer one is left out."""
MAX_TAIL = 16 * 1024 * 1024
"""The bytes at the end of a file that are read: four times the size at which the history closes it."""
_BLOCK = 64 * 1024


def tail_begin(size: int) -> int:
    """The offset at which the part of a file begins that is read.

    Args:
        size: the bytes of the file.
    """
    return max(0, size - MAX_TAIL)


def lines_backwards(fd: int) -> Iterator[bytes]:
    """The lines at the end of a file, the last first; it is read in blocks, as far as they are consumed.

    The first line of a larger file than `MAX_TAIL` is left out, because its beginning is not read.
    """
    end = os.fstat(fd).st_size
    first_offset = tail_begin(end)
    rest: list[bytes] = []  # the end of a line whose beginning is not read yet, in pieces, the last first
    length = 0
    while end > first_offset:
        begin = max(first_offset, end - _BLOCK)
        first, *whole = os.pread(fd, end - begin, begin).split(b"\n")
        if whole:
            if length + len(whole[-1]) <= MAX_LINE:
                yield b"".join((whole[-1], *reversed(rest)))
            yield from reversed(whole[:-1])
            rest, length = [], 0
        length += len(first)
        if length <= MAX_LINE:
            rest.append(first)
        else:
            rest = []
        end = begin
    if not first_offset and length <= MAX_LINE:
        yield b"".join(reversed(rest))


def appended_lines(fd: int, begin: int, size: int) -> tuple[int, list[bytes]]:
    """The whole lines between an offset and the end of a file, oldest first, and the offset behind them.

    Of more than `MAX_TAIL` bytes, the end is read, and the line that begins before it is left out.

    Args:
        fd: the file.
        begin: the offset of the first line.
        size: the bytes of the file.
    """
    read_from = max(begin, tail_begin(size))
    whole, line_feed, _ = os.pread(fd, size - read_from, read_from).rpartition(b"\n")  # the last line may still grow
    if not line_feed:
        return (begin if size - begin <= MAX_LINE else size), []
    lines = whole.split(b"\n")[1 if read_from > begin else 0 :]
    return read_from + len(whole) + 1, [line for line in lines if len(line) <= MAX_LINE]
