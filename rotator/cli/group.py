"""How the command line is taken apart and how it ends: lazy commands, exit statuses, errors; no command lives here."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from rotator.cli.context import Context, common_options
from rotator.cli.output import Output
from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code
from rotator.core.reasons import Reason

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

INTERRUPTED = 130
READER_GONE = 141
"""As the shell counts them: 128 and the number of the signal."""

_AS_FILES = {"FILE": click.Path(readable=False), "PATH": click.Path(readable=False), "DIR": click.Path(file_okay=False)}
"""Options that are shown so in the help are completed by the shell as files, and read as what was typed."""

_STATUSES = {
    Exit.DONE: "done, or nothing to do",
    Exit.FAILURE: "failure",
    Exit.USAGE: "the command line makes no sense",
    Exit.REJECTED: "input rejected, nothing touched",
    Exit.ROLLED_BACK: "rolled back: the previous pair is served",
    Exit.STRANDED: "rolling back failed too",
    Exit.DIFFERS: "what is served differs from what is on disk",
    Exit.BUSY: "another rotator is at work",
    Exit.DEFERRED: "deferred, will be tried again",
    Exit.CONFIG: "the configuration is wrong",
}


def epilog(example: str, *statuses: Exit) -> str:
    """The end of a command's help: an example, and the exit statuses that it uses.

    Args:
        example: one or more lines, as typed.
        statuses: which, in their order.
    """
    lines = "\n".join(f"  {line}" for line in example.splitlines())
    told = "\n".join(f"  {int(status):<3} {_STATUSES[status]}" for status in statuses)
    return f"\b\nExample:\n{lines}\n\n\b\nExit status:\n{told}"


class LazyGroup(click.Group):
    """A group whose commands are imported only when one of them is run or explained.

    Args:
        lazy: for each command its place (`module:attribute`) and the line that the group's help shows for it.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in self.lazy:
            return None
        module, attribute = self.lazy[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        _bridge_json(ctx, cmd_name, command)
        return _with_common_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but with the table's names to suggest from."""
        if args and not args[0].startswith("-") and args[0] not in self.lazy and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(args[0], self.lazy, 1, 0.5)
            ctx.fail(f"no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The table's names with their lines, for which nothing is imported; or options, as click does it."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=line) for name, (_, line) in self.lazy.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's lines, for which nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001 - click's own signature
        **extra: Any,
    ) -> NoReturn:
        """Runs one command line and exits: with what the command returned, if that is a number, or 0."""
        words = list(sys.argv[1:] if args is None else args)
        before_end = words[: words.index("--")] if "--" in words else words
        output = Output(json="--json" in before_end, plain="--plain" in before_end)
        status = self._status(words, prog_name or "rotator", complete_var, output, extra)
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
        except OSError:  # messages that nobody could be told change no status
            _forget(sys.stderr)
        sys.exit(status)

    def _status(
        self, args: list[str], prog_name: str, complete_var: str | None, output: Output, extra: Mapping[str, Any]
    ) -> int:
        """The exit status. A bug is no RotatorError: it goes on up, with its traceback."""
        try:
            try:
                self._main_shell_completion({**extra}, prog_name, complete_var)
                with self.make_context(prog_name, args, **extra) as ctx:
                    returned = self.invoke(ctx)
                return int(returned) if isinstance(returned, int) else Exit.DONE
            except click.exceptions.Exit as end:
                return end.exit_code
            except click.exceptions.NoArgsIsHelpError as error:
                if output.json:
                    output.error(RotatorError(Reason.USAGE, "a command is missing", f"{prog_name} --help", Exit.USAGE))
                else:
                    output.say(error.format_message())
                return Exit.USAGE
            except click.UsageError as error:
                path = error.ctx.command_path if error.ctx else prog_name
                message = error.format_message()
                output.error(
                    RotatorError(Reason.USAGE, message[:1].lower() + message[1:], f"{path} --help", Exit.USAGE)
                )
                return Exit.USAGE
            except click.ClickException as error:
                output.error(RotatorError(Reason.FAILURE, error.format_message()))
                return Exit.FAILURE
            except RotatorError as error:
                output.error(error)
                return error.exit
            finally:
                _flush_stdout()
        except (KeyboardInterrupt, click.Abort):
            with contextlib.suppress(OSError):
                print(file=sys.stderr)  # closes the terminal's ^C
            return INTERRUPTED
        except BrokenPipeError:
            _forget(sys.stdout)
            return READER_GONE
        except RotatorError as error:  # told on an output that cannot be written
            _forget(sys.stdout)
            with contextlib.suppress(RotatorError, BrokenPipeError):
                output.say(f"error: {error.message}")
            return Exit.FAILURE


def _flush_stdout() -> None:
    """Writes what is left, so that a full disk shows here and not at the interpreter's end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RotatorError(Code.IO_ERROR, f"the output cannot be written: {error.strerror}") from error


def _forget(stream: TextIO) -> None:
    """Keeps the interpreter from failing at its end, when it flushes what nobody reads."""
    with contextlib.suppress(OSError, AttributeError, io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _bridge_json(ctx: click.Context, name: str, command: click.Command) -> None:
    """Hands a `--json` that stood before the command to a command that has an option of its own called so."""
    asked = ctx.find_object(Context)
    own = next((param.name for param in command.params if "--json" in param.opts and param.expose_value), None)
    if own and asked is not None and asked.json:
        ctx.default_map = {**(ctx.default_map or {}), name: {own: True}}


def _with_common_options(command: click.Command) -> click.Command:
    """The same command, once, with the options that all share; those of its own that are called alike win."""
    taken = {opt for param in command.params for opt in param.opts}
    if not isinstance(command, click.Group):
        for param in command.params:
            if isinstance(param, click.Option) and param.type is click.STRING and param.metavar in _AS_FILES:
                param.type = _AS_FILES[param.metavar]
        command.params.extend(option for option in common_options() if not taken & set(option.opts))
    else:
        for inner in command.commands.values():
            _with_common_options(inner)
    return command
