"""The manual as data: its pages, and every word that a table or a heading of them explains.

A page is one Markdown file of `rotator/manual`. A row of a table explains the words in its column `code`, or else in
its first column, where they are set as code, in bold, or as a number. So a new row is found without a change here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MANUAL = Path(__file__).parents[1] / "manual"
"""The directory of the installed pages."""

_SEPARATOR = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
_WORDS = re.compile(r"(?:`[^`]+`(?:, )?)+|\*\*[^*]+\*\*|\d+")
_SUFFIXES = ("-bucket", "-count", "-sum", "-total")
"""The suffixes that Prometheus adds to the name of a metric."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a table that explains a word.

    Args:
        words: the words that it explains, as the page writes them.
        page: name of the page.
        section: the heading above it.
        column: number of the column that holds the words.
        cells: (heading of the column, Markdown of the cell) of all columns.
    """

    words: tuple[str, ...]
    page: str
    section: str
    column: int
    cells: tuple[tuple[str, str], ...]

    @property
    def keys(self) -> frozenset[str]:
        """Everything under which it is found: the words, and `table.word` below the heading of a table."""
        tables = re.findall(r"`\[*([^`\]]+)\]*`", self.section)
        return frozenset(
            {*map(normalized, self.words), *(normalized(f"{table}.{word}") for table in tables for word in self.words)}
        )


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with the text below it, up to the next heading of its rank or above.

    Args:
        page: name of the page.
        title: the heading, without its marks.
        text: the Markdown below it.
    """

    page: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the manual.

    Args:
        name: the topic, which is the name of the file without its suffix.
        text: the Markdown, without comments.
    """

    name: str
    text: str

    @property
    def line(self) -> str:
        """The page in one line: its first sentence, or its title if it has no other text."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        title = lines[0].lstrip("# ") if lines else self.name
        paragraph = re.search(r"^(?![#|>`\-*]).+(?:\n(?![#|]).+)*", self.text, re.MULTILINE)
        whole = " ".join(paragraph.group().split()) if paragraph else title
        sentence = re.match(r".+?[.?!](?= |\Z)", whole)
        return (sentence.group() if sentence else whole).rstrip(".")

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The rows of its tables that explain a word."""
        return tuple(_entries(self))

    @property
    def sections(self) -> tuple[Section, ...]:
        """Every heading below the title, with its text."""
        headings = [(number, *match) for number, match in _headings(self.text)]
        lines = self.text.splitlines()
        sections = []
        for at, (number, rank, title) in enumerate(headings):
            end = next((n for n, other, _ in headings[at + 1 :] if len(other) <= len(rank)), len(lines))
            if len(rank) > 1:
                sections.append(Section(self.name, title.replace("`", ""), "\n".join(lines[number + 1 : end]).strip()))
        return tuple(sections)


def load(directory: Path = MANUAL) -> tuple[Page, ...]:
    """Every page that exists, by name."""
    comments = re.compile(r"^<!--.*?-->\n?", re.MULTILINE)
    return tuple(
        Page(path.stem, comments.sub("", path.read_text(encoding="utf-8"))) for path in sorted(directory.glob("*.md"))
    )


def entries_for(word: str, pages: Sequence[Page]) -> tuple[Entry, ...]:
    """The rows that explain a word; first the rows of tables that have the word in their first column.

    Args:
        word: a code, an exit status, a reason, an option (also as `table.option`), a metric, in any spelling.
        pages: where to look.
    """
    key = normalized(word)
    entries = [entry for page in pages for entry in page.entries]
    matches = [entry for entry in entries if key in entry.keys]
    if not matches:
        keys = {key.removesuffix(suffix) for suffix in _SUFFIXES} - {key}
        matches = [entry for entry in entries if keys & entry.keys]
    return tuple(sorted(matches, key=lambda entry: entry.column))


def sections_for(word: str, pages: Sequence[Page]) -> tuple[Section, ...]:
    """The sections whose heading is this word."""
    return tuple(
        section for page in pages for section in page.sections if normalized(section.title) == normalized(word)
    )


def nearest(word: str, known: Sequence[str], most: int = 6) -> tuple[str, ...]:
    """The known words that the user may have meant: those that contain the word, then those with a similar spelling."""
    import difflib

    key = normalized(word)
    by_key = {normalized(known_word): known_word for known_word in known}
    containing = [by_key[k] for k in sorted(by_key, key=lambda k: (len(k), k)) if len(key) > 2 and key in k]
    alike = [by_key[k] for k in difflib.get_close_matches(key, by_key, most, 0.6)]
    return tuple(dict.fromkeys([*containing, *alike]))[:most]


def normalized(word: str) -> str:
    """One spelling for all: lower case, hyphens, without the prefix of a metric, without a table's brackets."""
    return re.sub(r"[\s_]+", "-", word.strip("[] ").casefold()).removeprefix("rotator-")


def without_marks(text: str) -> str:
    """Markdown of one line as plain text."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "").replace("`", "").replace("\\|", "|").strip()


def _entries(page: Page) -> Iterator[Entry]:
    lines, headings = page.text.splitlines(), dict(_headings(page.text))
    section, number = "", 0
    while number < len(lines):
        if number in headings:
            section = headings[number][1]
        if lines[number].startswith("|") and number + 1 < len(lines) and _SEPARATOR.fullmatch(lines[number + 1]):
            titles = [without_marks(cell) for cell in _cells(lines[number])]
            column = titles.index("code") if "code" in titles else 0
            number += 2
            while number < len(lines) and lines[number].startswith("|"):
                cells = _cells(lines[number])
                if _WORDS.fullmatch(cells[column]):
                    words = tuple(word.strip("`* ") for word in cells[column].split("`, `"))
                    yield Entry(words, page.name, section, column, tuple(zip(titles, cells, strict=True)))
                number += 1
        else:
            number += 1


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _headings(text: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """(number of the line, (its marks, the heading)) of each heading outside of blocks of code."""
    is_code = False
    for number, line in enumerate(text.splitlines()):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code and (match := re.fullmatch(r"(#+) (.+)", line)):
            yield number, (match.group(1), match.group(2))
