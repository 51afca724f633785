"""The command group: parses the command line, imports commands lazily, and turns errors into exit statuses."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from rotator.cli.context import Context, common_options
from rotator.cli.output import Output
from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import shell_word
from rotator.core.problems import Code
from rotator.core.reasons import Reason

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

INTERRUPTED = 130
"""The exit status after SIGINT: 128 plus the number of the signal, as in a shell."""
READER_GONE = 141
"""The exit status after SIGPIPE, by the same rule."""

_AS_FILES = {"FILE": click.Path(readable=False), "PATH": click.Path(readable=False), "DIR": click.Path(file_okay=False)}
"""The types of options with these placeholders: the shell completes them as files, and their values are unchanged."""

_STATUSES = {
    Exit.DONE: "done, or nothing to do",
    Exit.FAILURE: "failure",
    Exit.USAGE: "invalid command line",
    Exit.REJECTED: "input rejected, nothing changed",
    Exit.ROLLED_BACK: "rolled back: the previous pair is served",
    Exit.STRANDED: "the rollback failed",
    Exit.DIFFERS: "a served certificate differs from the one on disk",
    Exit.BUSY: "another rotator process is working",
    Exit.DEFERRED: "deferred: it is tried again",
    Exit.CONFIG: "invalid configuration",
}
"""The meaning of each exit status in the help of a command."""


def epilog(example: str, *statuses: Exit, meanings: Mapping[Exit, str] = MappingProxyType({})) -> str:
    """The end of a command's help: examples, and its exit statuses.

    Args:
        example: one or more command lines.
        statuses: the exit statuses of the command, in ascending order.
        meanings: their meaning, where this command has a more precise one than the general one.
    """
    examples = example.splitlines()
    lines = "\n".join(f"  {line}" for line in examples)
    shown = {**_STATUSES, **meanings}
    meanings_shown = "\n".join(f"  {int(status):<3} {shown[status]}" for status in statuses)
    return f"\b\nExample{'s' * (len(examples) > 1)}:\n{lines}\n\n\b\nExit status:\n{meanings_shown}"


class LazyGroup(click.Group):
    """A group that imports a command only to run it or to show its help.

    Args:
        lazy: for each command, its `module:attribute` and its line in the help of the group.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with this name, imported now; None if there is none."""
        if cmd_name not in self.lazy:
            return None
        module, attribute = self.lazy[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        _bridge_json(ctx, cmd_name, command)
        return _with_common_options(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command as click does it, and suggests a name of the table for a misspelt one."""
        if args and not args[0].startswith("-") and args[0] not in self.lazy and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(args[0], self.lazy, 1, 0.5)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of the table with their lines, without an import; options as click completes them."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=line) for name, (_, line) in self.lazy.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the lines of the table, without an import."""
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
        """Runs one command line and exits with the number that the command returned, or 0."""
        arguments = list(sys.argv[1:] if args is None else args)
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        output = Output(json="--json" in options, plain="--plain" in options)
        status = self._status(arguments, prog_name or "rotator", complete_var, output, extra)
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
        except OSError:  # a lost message does not change the status
            _discard(sys.stderr)
        sys.exit(status)

    def _status(
        self, args: list[str], prog_name: str, complete_var: str | None, output: Output, extra: Mapping[str, Any]
    ) -> int:
        """Runs one command line and returns its exit status. A bug is not a RotatorError, and is raised."""
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
                    output.error(
                        RotatorError(
                            Reason.USAGE, "a command is missing", f"{shell_word(prog_name)} --help", Exit.USAGE
                        )
                    )
                else:
                    output.say(error.format_message())
                return Exit.USAGE
            except click.UsageError as error:
                path = error.ctx.command_path if error.ctx else " ".join([prog_name, *self._named(args)])
                message = error.format_message()
                hint = f"{' '.join(map(shell_word, path.split()))} --help"
                output.error(RotatorError(Reason.USAGE, message[:1].lower() + message[1:], hint, Exit.USAGE))
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
                print(file=sys.stderr)  # ends the line of the terminal's ^C
            return INTERRUPTED
        except BrokenPipeError:
            _discard(sys.stdout)
            return READER_GONE
        except RotatorError as error:  # stdout cannot be written
            _discard(sys.stdout)
            with contextlib.suppress(RotatorError, BrokenPipeError):
                output.say(f"error: {error.message}")
            return Exit.FAILURE

    def _named(self, args: Sequence[str]) -> Sequence[str]:
        """The command that the line names: click reports an option without its value without its command."""
        return [word for word in args if word in self.lazy][:1]


def _flush_stdout() -> None:
    """Writes the rest of stdout, so that a full disk is reported here and not at the end of the interpreter."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RotatorError(Code.IO_ERROR, f"the output cannot be written: {error.strerror}") from error


def _discard(stream: TextIO) -> None:
    """Redirects a stream to /dev/null, so that the interpreter's flush at its end does not fail."""
    with contextlib.suppress(OSError, AttributeError, io.UnsupportedOperation):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _bridge_json(ctx: click.Context, name: str, command: click.Command) -> None:
    """Passes a `--json` before the command's name on to a command that defines its own option `--json`."""
    context = ctx.find_object(Context)
    own = next((param.name for param in command.params if "--json" in param.opts and param.expose_value), None)
    if own and context is not None and context.json:
        ctx.default_map = {**(ctx.default_map or {}), name: {own: True}}


def _with_common_options(command: click.Command) -> click.Command:
    """The same command with the common options added, unless it has an option with the same name."""
    own = {opt for param in command.params for opt in param.opts}
    if not isinstance(command, click.Group):
        for param in command.params:
            if isinstance(param, click.Option) and param.type is click.STRING and param.metavar in _AS_FILES:
                param.type = _AS_FILES[param.metavar]
        command.params.extend(option for option in common_options() if not own & set(option.opts))
    else:
        for inner in command.commands.values():
            _with_common_options(inner)
    return command
