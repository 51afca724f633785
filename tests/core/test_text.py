"""Text from outside moves no cursor, breaks no line and keeps its length, wherever it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.text import escaped, label, place, shown, shown_name

ANY = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("bücher 证书", "bücher 证书"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\r", "a\\nb\\r"),
        ("\u202eevil", "\\u202eevil"),
        ("\udcff", "\\udcff"),
        ("", ""),
    ],
)
def test_what_would_move_the_cursor_or_break_the_line_is_escaped(text: str, safe: str) -> None:
    assert escaped(text) == safe


def test_what_is_to_be_kept_is_kept() -> None:
    assert escaped("a\nb\tc\x07", keep="\n") == "a\nb\\tc\\x07"


@given(ANY)
def test_what_is_escaped_is_printable_and_encodes(text: str) -> None:
    assert escaped(text).isprintable()
    escaped(text).encode()


def test_a_message_shows_as_much_as_fits_and_that_it_was_cut() -> None:
    assert (shown("x" * 200), shown("x" * 201), shown("\n" * 10, 8)) == ("x" * 200, "x" * 199 + "…", "\\n\\n\\n\\…")


def test_a_file_name_is_shown_whole() -> None:
    assert (shown_name("x" * 300), shown_name("a\nb"), shown_name("")) == ("x" * 300, "a\\nb", '""')


@given(ANY, st.integers(1, 30))
def test_a_label_has_no_control_character_and_is_short(text: str, limit: int) -> None:
    value = label(text, limit)
    assert len(value) <= limit
    assert not set(value) & set(map(chr, [*range(32), 127]))
    value.encode()


@pytest.mark.parametrize(("line", "words"), [(3, "a.pem line 3"), (0, "a.pem")])
def test_a_place_has_its_line_where_there_is_one(line: int, words: str) -> None:
    assert place("a.pem", line) == words
