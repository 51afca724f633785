"""The output of all commands: text, JSON, tables, colours, errors.

Its rules:

- Data goes to stdout; messages (errors, progress, advice) go to stderr.
- With `--json`, stdout is one JSON object, also for a command that fails: then it has an `error`. It has a
  `schema_version`; times are RFC 3339 in UTC, and durations are numbers of seconds.
- Colour and drawn tables appear only on a terminal, and not with `--plain`, `NO_COLOR` or `TERM=dumb`.
- In text from outside (a subject, a file name, a message of nginx), control characters are escaped.
- An error names what failed and the next step. There is never a prompt, and never a byte of a key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from rotator.core.errors import RotatorError
from rotator.core.hints import command
from rotator.core.problems import Code
from rotator.core.text import escaped
from rotator.core.times import rfc3339

SCHEMA_VERSION = 1

_STYLES = {"good": "32", "bad": "31", "warn": "33", "faint": "2", "strong": "1"}


class Output:
    """The output of one command.

    Args:
        json: whether stdout is one JSON object.
        plain: whether colour and drawn tables are off, even on a terminal.
        verbose: how often `-v` was given.
    """

    def __init__(self, *, json: bool = False, plain: bool = False, verbose: int = 0) -> None:
        self.json = json
        self.plain = plain
        self.verbose = verbose

    def data(self, answer: Mapping[str, object]) -> None:
        """Writes the whole answer as one JSON object; only for `--json`."""
        _write(sys.stdout, as_json({"schema_version": SCHEMA_VERSION, **answer}))

    def line(self, text: str = "", style: str = "") -> None:
        """Writes a line of the answer for a person.

        Args:
            text: the line; it may contain line feeds.
            style: `good`, `bad`, `warn`, `faint`, `strong` or empty; it selects a colour on a terminal.
        """
        _write(sys.stdout, self._painted(text, style))

    def say(self, text: str) -> None:
        """Writes a message to stderr: progress, advice."""
        _write(sys.stderr, clean(text))

    def detail(self, text: str) -> None:
        """Writes a message to stderr if `-v` is given."""
        if self.verbose:
            self.say(text)

    def error(self, error: RotatorError) -> None:
        """Writes an error with its hint; with `--json` as the object on stdout."""
        if self.json:
            body = {"code": error.code, "message": error.message, "hint": error.hint, "exit": int(error.exit)}
            self.data({"error": body})
            return
        red = self.is_terminal(sys.stderr)
        _write(sys.stderr, f"{paint('error:', 'bad') if red else 'error:'} {clean(error.message)}")
        for line in error.hint.split("\n") if error.hint else ():
            _write(sys.stderr, f"  hint: {clean(line)}")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Sequence[str] = ()) -> None:
        """Writes rows of the answer for a person: a drawn table on a terminal, aligned columns elsewhere.

        Args:
            columns: the headings.
            rows: the rows, each with one cell for each column.
            styles: one style for each row, as in `line`; may be omitted.
        """
        cleaned = [[clean(cell) for cell in row] for row in rows]
        if self.is_terminal(sys.stdout):
            self._drawn(columns, cleaned, styles)
            return
        widths = [max(len(row[i]) for row in [list(columns), *cleaned]) for i in range(len(columns))]
        for row in [[column.upper() for column in columns], *cleaned]:
            _write(sys.stdout, "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def sign(self, drawn: str, written: str) -> str:
        """A sign if stdout is a terminal that can show it, otherwise the word.

        Args:
            drawn: the sign.
            written: the word.
        """
        if not self.is_terminal(sys.stdout):
            return written
        try:
            drawn.encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            return written
        return drawn

    def import_late(self) -> None:
        """Imports what `table` and `data` need, for a process that cannot read Python's files later."""
        import json  # noqa: F401 - for `data`

        if self.is_terminal(sys.stdout):
            from rich import box, console, measure, style, table, text  # noqa: F401 - for `table`

            console.Console(file=sys.stdout)  # imports more, such as the names of its colours

    def working(self, text: str) -> AbstractContextManager[object]:
        """Shows a spinner on a terminal for the time of its block; elsewhere nothing."""
        if not self.is_terminal(sys.stdout):
            return nullcontext()
        from rich.console import Console
        from rich.text import Text

        return Console(file=sys.stdout, highlight=False).status(Text(clean(text), style="dim"))

    def _painted(self, text: str, style: str) -> str:
        """The text without control characters, and on a terminal in its colour."""
        return paint(clean(text), style) if style and self.is_terminal(sys.stdout) else clean(text)

    def is_terminal(self, stream: TextIO | None) -> bool:
        """Whether this stream gets colour and drawn tables."""
        return (
            not self.plain
            and not self.json
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
            and stream is not None
            and stream.isatty()
        )

    def _drawn(self, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.measure import Measurement
        from rich.table import Table
        from rich.text import Text

        rich_styles = {"good": "green", "bad": "red", "warn": "yellow", "faint": "dim", "strong": "bold"}
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for number, row in enumerate(rows):
            style = rich_styles.get(styles[number] if number < len(styles) else "", "")
            table.add_row(*(Text(cell, style=style) for cell in row))
        console = Console(file=sys.stdout, highlight=False)
        natural = Measurement.get(console, console.options.update(max_width=sys.maxsize), table).maximum
        if natural <= console.width:
            console.print(table)
            return
        # Folded cells are hard to read and to copy, so each row of a table that is too wide becomes a block of lines.
        width = max(len(column) for column in columns)
        for number, row in enumerate(rows):
            _write(sys.stdout, self._painted(row[0], "strong"))
            for column, cell in zip(columns[1:], row[1:], strict=True):
                painted = self._painted(cell, styles[number] if number < len(styles) else "")
                _write(sys.stdout, f"  {column.ljust(width)}  {painted}".rstrip())


def clean(text: str) -> str:
    """The text with every character escaped that is neither printable nor a line feed."""
    return escaped(text, keep="\n")


def paint(text: str, style: str) -> str:
    """The text in the colour of a style, as a terminal reads it."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def more_about(word: str) -> str:
    """The command that explains a code or a reason, for the end of an answer."""
    return f"more: {command('rotator help', word)}"


def as_json(answer: object) -> str:
    """JSON with times as RFC 3339 and durations as seconds, in ASCII for every terminal and pipe."""
    import json

    return json.dumps(answer, default=_plain, indent=2)


def _plain(value: object) -> object:
    from datetime import datetime, timedelta
    from os import PathLike

    match value:
        case datetime():
            return rfc3339(value)
        case timedelta():
            return value.total_seconds()
        case PathLike():
            return os.fspath(value)
        case frozenset() | set():
            return sorted(value)
        case Mapping():
            return dict(value)
    # Other types are refused; bytes, for example, could be those of a key.
    raise TypeError(f"no JSON for {type(value).__name__}")


def _write(stream: TextIO | None, text: str) -> None:
    """Writes and flushes, so that a closed pipe or a full disk is reported here and not at the interpreter's end."""
    if stream is None:  # the caller of the program has closed it
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except UnicodeEncodeError:
        stream.write(text.encode("ascii", "backslashreplace").decode("ascii") + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        hint = "The command itself is complete. Check the disk to which its output goes."
        raise RotatorError(Code.IO_ERROR, f"the output cannot be written: {error.strerror}", hint) from error
