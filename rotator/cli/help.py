"""`rotator help`: the manual that is installed with rotator, by topic, and every word that it explains."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from rotator.cli import manual
from rotator.cli.context import Context, pass_context
from rotator.cli.formats import help_topic_answer, help_topics_answer, help_word_answer
from rotator.cli.group import epilog
from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command, shell_word
from rotator.core.reasons import Reason

_EXAMPLE = """\
rotator help
rotator help codes
rotator help incomplete-chain
rotator help 6
rotator help swap"""


def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The topics, each with its line; once a letter is typed, every other explained word too."""
    pages = manual.load()
    topics = [CompletionItem(page.name, help=page.line) for page in pages if page.name.startswith(incomplete)]
    if not incomplete:
        return topics
    known = {page.name for page in pages}
    words = {word for page in pages for entry in page.entries for word in entry.words if " " not in word}
    return [*topics, *(CompletionItem(word) for word in sorted(words - known) if word.startswith(incomplete))]


@click.command("help", epilog=epilog(_EXAMPLE, Exit.DONE, Exit.USAGE))
@click.argument("words", nargs=-1, metavar="[TOPIC|WORD]", shell_complete=complete)
@click.pass_context
@pass_context
def help_(context: Context, ctx: click.Context, words: tuple[str, ...]) -> int:
    """Show the manual: its topics, one TOPIC, or what a WORD means.

    A word is a code, an exit status, the reason of an outcome, an option of the configuration, a metric, a heading of
    the manual, or a command.
    """
    pages, word = manual.load(), " ".join(words)
    if not word:
        _list_topics(pages, context)
        return Exit.DONE
    page = next((page for page in pages if page.name == word.casefold()), None)
    if page is not None:
        _show_page(page, context)
        return Exit.DONE
    usage = _usage(words, ctx)
    entries = manual.entries_for(word, pages)
    sections = () if entries else manual.sections_for(word, pages)
    if not (usage or entries or sections):
        raise _unknown(word, pages, ctx)
    _show_hits(word, usage, entries, sections, context)
    return Exit.DONE


def _list_topics(pages: Sequence[manual.Page], context: Context) -> None:
    output = context.output
    if output.json:
        output.data(help_topics_answer(pages))
        return
    rows = "\n".join(f"| {page.name} | {page.line} |" for page in pages)
    _show(f"| topic | what it says |\n|---|---|\n{rows}", context)
    output.say("One topic: rotator help codes. One word: rotator help incomplete-chain, 6, settle, swap …")


def _show_page(page: manual.Page, context: Context) -> None:
    if context.output.json:
        context.output.data(help_topic_answer(page))
    else:
        _show(page.text, context)


def _show_hits(
    word: str,
    usage: str,
    entries: Sequence[manual.Entry],
    sections: Sequence[manual.Section],
    context: Context,
) -> None:
    output = context.output
    if output.json:
        output.data(help_word_answer(word, usage, entries, sections))
        return
    if usage:
        output.line(usage)
    parts = [_as_markdown(entry) for entry in entries]
    parts += [f"## {section.title} ({_source(section.page)})\n\n{section.text}" for section in sections]
    for number, part in enumerate(parts):
        if usage or number:
            output.line()
        _show(part, context)


def _as_markdown(entry: manual.Entry) -> str:
    """A row as a heading that names its page, and a list of its other columns."""
    title = ", ".join(f"`{word}`" for word in entry.words)
    cells = [(name, cell) for number, (name, cell) in enumerate(entry.cells) if number != entry.column and cell]
    rows = "\n".join(f"| {name} | {cell} |" for name, cell in cells)
    where = f"{manual.without_marks(entry.section)}; " if entry.section else ""
    return f"## {title} ({where}{_source(entry.page)})\n\n| | |\n|---|---|\n{rows}"


def _source(page: str) -> str:
    return f"from `{command('rotator help', page)}`"


def _show(text: str, context: Context) -> None:
    from rotator.cli import markdown  # rich costs more than everything else that this command does

    markdown.show(text, context.output)


def _usage(words: Sequence[str], ctx: click.Context) -> str:
    """The `--help` of the command that these words name; empty if there is none."""
    current = ctx.find_root()
    for word in words:
        known = current.command.get_command(current, word) if isinstance(current.command, click.Group) else None
        if known is None:
            return ""
        current = click.Context(known, info_name=word, parent=current)
    return current.get_help()


def _unknown(word: str, pages: Sequence[manual.Page], ctx: click.Context) -> RotatorError:
    group = ctx.find_root().command
    commands = group.list_commands(ctx) if isinstance(group, click.Group) else []
    explained = [entry_word for page in pages for entry in page.entries for entry_word in entry.words]
    near = manual.nearest(word, [*(page.name for page in pages), *commands, *explained])
    hint = f"Did you mean: {', '.join(map(shell_word, near))}? " if near else ""
    return RotatorError(Reason.USAGE, f"the manual explains no {word!r}", f"{hint}All topics: rotator help", Exit.USAGE)
