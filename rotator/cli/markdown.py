"""Markdown for a reader: drawn with colours on a terminal, plain text in lines of at most 80 characters elsewhere."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from rotator.cli.output import Output
from rotator.core.hints import command

WIDEST = 100
"""Characters of the longest line on a wide terminal: longer ones are hard to read."""
PLAIN_WIDTH = 80
MANY = 6
"""A table with more columns holds few values in many columns, such as who breaks."""

_THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.code_block": "cyan",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold italic",
        "markdown.item.bullet": "none",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)
_UNDERLINES = {"h1": "=", "h2": "-"}
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def show(text: str, output: Output) -> None:
    """Writes a text as part of a command's answer.

    Args:
        text: Markdown.
        output: how the command speaks; it decides between drawn and plain.
    """
    if output.is_terminal(sys.stdout):
        console = Console(file=sys.stdout, highlight=False, theme=_THEME)
        console.print(_Drawn(_linked(text)), width=min(console.width, WIDEST), crop=False)
    else:
        output.line(plain(text))


def plain(text: str, width: int = PLAIN_WIDTH) -> str:
    """The text without colours, in which code keeps its backticks.

    Args:
        text: Markdown.
        width: characters of the longest line; code and the names in a table may be longer.
    """
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, force_terminal=False, highlight=False, theme=_THEME)
    console.print(_Plain(_linked(text)), crop=False)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).strip("\n")


def _linked(text: str) -> str:
    """The text with links that say where they lead: the topic for a page, the address for one of the web."""

    def spelt(match: re.Match[str]) -> str:
        title, target = match.groups()
        page = re.fullmatch(r"([\w-]+)\.md(?:#[\w-]+)?", target)
        if page:
            shows = f"`{command('rotator help', page.group(1))}`"
            return shows if title == page.group(1) else f"{title} ({shows})"
        return f"{title} ({target})" if target.startswith("http") else title

    return _LINK.sub(spelt, text)


class _Title(Heading):
    """A heading at the left margin, underlined where no style sets it apart."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text
        if console.color_system is None and self.tag in _UNDERLINES:
            yield Text(_UNDERLINES[self.tag] * min(self.text.cell_len, options.max_width))


class _Code(CodeBlock):
    """A block of code as it is typed: indented, never broken into lines, without a background that is copied along."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style = console.get_style("markdown.code_block")
        for line in str(self.text).rstrip().splitlines():
            yield Segment(f"    {line}\n", style)  # a renderable would be cut off at the last column


class _Rows(TableElement):
    """A table that stays readable where it finds no room: each row becomes a heading with its cells below."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        titles = [cell.content for cell in self.header.row.cells] if self.header and self.header.row else []
        rows = [[cell.content for cell in row.cells] for row in (self.body.rows if self.body else [])]
        widths = [max(text.cell_len for text in column) for column in zip(titles, *rows, strict=True)]
        fits = sum(widths) + 2 * len(widths) <= options.max_width
        if fits or _leaves_room(widths, options.max_width):
            yield _table(titles, rows, is_plain=console.color_system is None)
        else:
            yield Group(*_entries([title.plain for title in titles], rows))


def _leaves_room(widths: Sequence[int], width: int) -> bool:
    """Whether the last column, or the last two of three, can be broken into lines that are not too short to read."""
    before_last = sum(widths[:-1]) + 2 * len(widths) <= 0.45 * width
    return (len(widths) <= 3 and before_last) or (len(widths) == 3 and widths[0] <= 0.1 * width)


def _table(titles: Sequence[Text], rows: Iterable[Sequence[Text]], *, is_plain: bool) -> RenderableType:
    has_titles = any(title.plain for title in titles)
    table = Table(
        box=SIMPLE_HEAD if has_titles and not is_plain else None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        show_edge=False,
        border_style="markdown.table.border",
        show_header=has_titles,
    )
    for number, title in enumerate(titles):
        heading = title.plain.upper() if is_plain else title.plain
        side: JustifyMethod = "right" if title.justify == "right" else "left"
        table.add_column(Text(heading, style="markdown.table.header"), no_wrap=number == 0, justify=side)
    for row in rows:
        table.add_row(*row)
    return table


def _entries(titles: Sequence[str], rows: Iterable[Sequence[Text]]) -> Iterator[RenderableType]:
    """Each row as its first cell, with the other cells below it."""
    for first, *cells in rows:
        heading = first.copy()
        heading.stylize("bold")
        named = list(zip(titles[1:], cells, strict=True))
        if len(titles) > MANY:
            heading.append_text(Text.assemble(*(part for t, c in named if t == "code" for part in (" (", c, ")"))))
            named = _by_value([(title, cell) for title, cell in named if title != "code"])
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column()
        for title, cell in named:
            if cell.plain.strip():
                grid.add_row(Text(title, style="dim"), cell)
        yield heading
        yield Padding(grid, (0, 0, 0, 2))


def _by_value(cells: Iterable[tuple[str, Text]]) -> list[tuple[str, Text]]:
    """The other way round, where few values stand in many columns: (value, all columns that have it)."""
    columns: dict[str, list[str]] = {}
    for title, cell in cells:
        columns.setdefault(cell.plain, []).append(title)
    return [(value, Text(", ".join(titles))) for value, titles in columns.items()]


class _Drawn(Markdown):
    """Markdown for a terminal."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Title,
        "fence": _Code,
        "code_block": _Code,
        "table_open": _Rows,
    }

    def __init__(self, text: str) -> None:
        super().__init__(text, hyperlinks=False)


class _Plain(_Drawn):
    """Markdown for everything else: what a colour would show as code stands between backticks."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        for token in self.parsed:
            for inner in token.children or ():
                if inner.type == "code_inline":
                    inner.content = f"`{inner.content}`"
