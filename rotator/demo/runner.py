"""The demo's runner: sets up the host, runs the scenarios in order, and removes everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.demo import authority, binary
from rotator.demo.clients import Client, ClientLoad
from rotator.demo.host import NAME, SITE, Host, write_pair
from rotator.demo.scenarios import SCENARIOS, DemoRun, Reporter, Scenario


@dataclass(slots=True)
class DemoResult:
    """The result of the demo.

    Args:
        nginx: the path of the nginx program.
        scenarios: the scenarios that were run.
        answered: the number of background requests that were answered.
        failed: the number of background requests that failed.
        seconds: how long it took.
        log_tail: the end of the daemon's log, if a scenario failed.
    """

    nginx: str
    scenarios: list[Scenario] = field(default_factory=list)
    answered: int = 0
    failed: int = 0
    seconds: float = 0.0
    log_tail: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every scenario was run and passed."""
        return len(self.scenarios) == len(SCENARIOS) and all(scenario.passed for scenario in self.scenarios)


def run_demo(named: str | None, reporter: Reporter, keep: Callable[[Host, DemoResult], None] | None) -> DemoResult:
    """Runs all scenarios, up to the first that fails.

    Args:
        named: the nginx program that the user named; None to search for one.
        reporter: shows the course of the demo.
        keep: called at the end while everything is still running; None to end at once.

    Returns:
        The result. When it is returned, no process, port or directory of the demo is left.

    Raises:
        RotatorError: `no-nginx`, or `demo-failed` if the host cannot be set up.
    """
    begun = time.monotonic()
    result = DemoResult(binary.find(named))
    with Host(result.nginx) as host:
        with reporter.waiting("a CA, an nginx and the daemon are being set up"):
            host.build()
            first = host.issue()
            chain, key = host.write("first", first.fullchain, first.key)
            answer = host.rotator("swap", SITE, "--first", "--cert", chain, "--key", key)
            if answer.get("reason") != Reason.NOT_WIRED:  # nginx is not started yet
                reason = answer.get("message") or (answer.get("error") or {}).get("message")
                raise RotatorError(Reason.DEMO_FAILED, f"rotator did not accept the first pair: {reason}", binary.HINT)
            host.start_nginx()
            host.start_daemon()
        reporter.note(
            f"This demo runs {host.version} at {' and '.join(host.listeners)}, rotator's daemon, and a new CA."
        )
        reporter.note(f"All of its files are in {host.tree}.")
        client = Client(NAME, host.roots)
        load = ClientLoad(client, host.listeners)
        try:
            load.start()
            run = DemoRun(host, client, load, reporter, first, Scenario(0, ""))
            _run_scenarios(run, result)
        finally:
            load.stop()
        result.answered, result.failed = load.answered, len(load.failures)
        result.seconds = time.monotonic() - begun
        if not result.passed:
            result.log_tail = host.log_tail()
        if keep is not None:
            keep(host, result)
    return result


def _run_scenarios(run: DemoRun, result: DemoResult) -> None:
    with run.client.hold(run.host.listeners[0]) as connection:
        for number, (title, scenario) in enumerate(SCENARIOS, 1):
            run.scenario = Scenario(number, title)
            result.scenarios.append(run.scenario)
            run.reporter.begin(run.scenario)
            begun = time.monotonic()
            scenario(run)
            if number == len(SCENARIOS):
                what = "a connection that was opened before the demo's first swap is answered by its old worker"
                run.check(what, run.client.finish(connection), "it was closed")
            run.scenario.seconds = time.monotonic() - begun
            if not run.scenario.passed:  # the next scenario needs the state that this one should have left
                break


def renew(directory: Path) -> tuple[Path, Path, Path]:
    """Issues a new pair for a demo that was started with --keep.

    Args:
        directory: the directory of that demo.

    Returns:
        The paths of the chain, of the key, and of the drop in which to put them.

    Raises:
        RotatorError: `no-demo`: the directory is not that of a running demo; exit status 2.
    """
    try:
        issued = authority.load(directory / "ca").issue((NAME,))
        paths = write_pair(directory / "fresh", issued.fullchain, issued.key)
    except (OSError, ValueError) as e:
        message = f"{directory} is not the directory of a running demo: {getattr(e, 'strerror', None) or e}"
        raise RotatorError(
            Reason.NO_DEMO, message, "rotator demo --keep starts one and shows its directory", Exit.USAGE
        ) from e
    return (*paths, directory / "incoming" / SITE)
