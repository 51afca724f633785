"""The demo's scenarios: eight situations of a renewal, each checked by a TLS client that is independent of rotator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rotator.core.hints import command, shell_word
from rotator.core.problems import Code
from rotator.demo.authority import IssuedPair
from rotator.demo.clients import Client, ClientLoad
from rotator.demo.host import NAME, SITE, Host, stages_of

APPLIED_WITHIN = 30.0
"""The seconds that the daemon has to apply a deferred renewal after nginx.conf is corrected."""
SCRAPED_WITHIN = 20.0
"""The seconds that the metrics page has to show the last rotation."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a scenario.

    Args:
        what: the expected fact, as a sentence.
        passed: whether it is true.
        actual: the fact instead; empty if the check passed.
    """

    what: str
    passed: bool
    actual: str = ""


@dataclass(slots=True)
class Scenario:
    """The record of one scenario.

    Args:
        number: its number, counted from 1.
        title: its title.
        checks: the checks so far.
        stages: the milliseconds of each stage of its rotation; empty if it has none.
        seconds: how long it took.
    """

    number: int
    title: str
    checks: list[Check] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether it has checks and all of them passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)


class Reporter(Protocol):
    """Shows the course of the demo to its user."""

    def begin(self, scenario: Scenario) -> None:
        """Shows that a scenario begins."""

    def command(self, line: str) -> None:
        """Shows a command as the user would type it."""

    def note(self, text: str) -> None:
        """Shows an explanation, or the message of a program."""

    def checked(self, check: Check) -> None:
        """Shows the result of a check."""

    def durations(self, stages: Mapping[str, float]) -> None:
        """Shows the duration of each stage, in milliseconds."""

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Shows for the time of its block that something takes a while."""


@dataclass
class DemoRun:
    """One run of the demo, which its scenarios use and change.

    Args:
        host: nginx, the daemon and the commands.
        client: the strict client.
        load: the clients in the background.
        reporter: shows the course of the demo.
        current: the pair that nginx must serve.
        scenario: the current scenario.
    """

    host: Host
    client: Client
    load: ClientLoad
    reporter: Reporter
    current: IssuedPair
    scenario: Scenario

    def check(self, what: str, passed: bool, actual: object = "") -> None:  # noqa: FBT001 - reads as a sentence
        """Records and shows one check.

        Args:
            what: the expected fact, as a sentence.
            passed: whether it is true.
            actual: the fact that was observed.
        """
        check = Check(what, passed, "" if passed else str(actual))
        self.scenario.checks.append(check)
        self.reporter.checked(check)

    def deliver(self, fullchain: bytes, key: bytes) -> dict[str, Any]:
        """Delivers a chain and a key as PEM, waits for the daemon's outcome and returns it."""
        self.reporter.command(f"rotator deliver --wait {SITE} fullchain.pem privkey.pem")
        with self.reporter.waiting("the daemon is working"):
            answer = self.host.deliver(fullchain, key)
        self.scenario.stages = stages_of(answer)
        return answer

    def check_outcome(self, answer: Mapping[str, Any], exit: int, result: str, *keywords: str) -> None:
        """Checks the end of a command.

        Args:
            answer: its JSON answer.
            exit: the expected exit status.
            result: the expected result.
            keywords: the words that its reason and message must contain.
        """
        outcome = answer.get("outcome") or answer
        text = f"{outcome.get('reason', '')}: {outcome.get('message') or (answer.get('error') or {}).get('message')}"
        what = f"rotator says {result.upper().replace('-', ' ')} and exits {exit}"
        passed = answer["exit"] == exit and outcome.get("result") == result and all(word in text for word in keywords)
        self.check(what, passed, f"exit {answer['exit']}, {text}")

    def quote(self, answer: Mapping[str, Any]) -> None:
        """Shows the message and the hint of an outcome."""
        outcome = answer.get("outcome") or answer
        self.reporter.note(str(outcome.get("message", "")))
        if outcome.get("hint"):
            self.reporter.note(f"next: {outcome['hint']}")

    def check_served(self, issued: IssuedPair, what: str) -> None:
        """Checks by a new, strict handshake with each listener that it serves a pair.

        Args:
            issued: the pair.
            what: a few words about it, for the user.
        """
        for listener in self.host.listeners:
            leaf = self.client.leaf(listener)
            self.check(
                f"{listener} serves {issued.fingerprint[:12]}, {what}", leaf == issued.fingerprint, f"it serves {leaf}"
            )

    def await_rotation(self, within: float) -> float:
        """Waits until the last entry of the history is a rotation, for so many seconds at most.

        Returns:
            The seconds that it took.
        """
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < within:
            entries = self.host.rotator("history", SITE, "--limit", "1").get("entries") or [{}]
            if entries[-1].get("result") == "rotated":
                break
            time.sleep(0.2)
        return elapsed


def _put_renewal_live(run: DemoRun) -> None:
    renewal = run.host.issue()
    answer = run.deliver(renewal.fullchain, renewal.key)
    run.check_outcome(answer, 0, "rotated")
    run.reporter.durations(run.scenario.stages)
    run.check_served(renewal, "the renewed one")
    run.current = renewal
    delivered_at = (run.host.drop / "privkey.pem").stat().st_mtime
    served_at = run.load.first_seen.get((run.host.listeners[0], renewal.fingerprint))
    if served_at is not None:
        milliseconds = (served_at - delivered_at) * 1000
        run.reporter.note(f"the first client received it {milliseconds:.0f} ms after the delivery")


def _reject_missing_intermediate(run: DemoRun) -> None:
    run.reporter.note("The CA now issues from another intermediate, and somebody copies the leaf alone.")
    renewal = run.host.next_issuer.issue((NAME,))
    chain, key = run.host.write("leaf-alone", renewal.leaf, renewal.key)
    complaint = run.client.complaint(chain, key)
    run.check(f"a strict client would have refused it: {complaint}", complaint != "", "it accepts it")
    answer = run.deliver(renewal.leaf, renewal.key)
    run.check_outcome(answer, 3, "rejected", Code.INCOMPLETE_CHAIN)
    run.check_served(run.current, "as before")
    shown_cert, shown_key = chain.relative_to(run.host.tree), key.relative_to(run.host.tree)
    named = f"{command('rotator check --cert', shown_cert)} {command('--key', shown_key)}"
    run.reporter.command(f"{named} --roots roots.pem --private-ca")
    options = ("--cert", chain, "--key", key, "--roots", run.host.roots_file, "--private-ca")
    diagnosis = run.host.output_of("check", *options)
    for line in diagnosis:
        run.reporter.note(line.replace(f"{run.host.tree}/", ""))
    names_missing = any("[?] CN=rotator demo issuing CA 2" in line for line in diagnosis)
    run.check("the diagnosis names the missing certificate", names_missing, diagnosis)


def _reject_wrong_key(run: DemoRun) -> None:
    renewal, other = run.host.issue(), run.host.issue()
    answer = run.deliver(renewal.fullchain, other.key)
    run.quote(answer)
    run.check_outcome(answer, 3, "rejected", Code.KEY_MISMATCH)
    run.check_served(run.current, "as before")


def _roll_back_for_old_listener(run: DemoRun) -> None:
    host = run.host
    run.reporter.note("Somebody makes the second listener read copies of the current files. All looks well, until:")
    host.files_of_second = host.write("copies", run.current.fullchain, run.current.key)
    host.reload_nginx()
    renewal = host.issue()
    answer = run.deliver(renewal.fullchain, renewal.key)
    run.quote(answer)
    run.check_outcome(answer, 4, "rolled-back", host.listeners[1])
    run.reporter.durations(run.scenario.stages)
    run.check_served(run.current, "the previous one again")
    host.files_of_second = None
    host.reload_nginx()
    run.reporter.note("Corrected: both listeners include rotator's file again.")


def _defer_refused_reload(run: DemoRun) -> None:
    host = run.host
    run.reporter.note("Somebody edits nginx.conf: a shared memory zone gets another key, which no reload can change.")
    before, host.zone_key = host.zone_key, "$server_name"
    host.write_nginx_config()
    renewal = host.issue()
    answer = run.deliver(renewal.fullchain, renewal.key)
    run.quote(answer)
    run.check_outcome(answer, 8, "deferred", "clients")
    run.check_served(run.current, "as before")
    host.zone_key = before
    host.write_nginx_config()
    run.reporter.note("Corrected. The daemon tries again automatically:")
    with run.reporter.waiting("waiting for the daemon's next try"):
        seconds = run.await_rotation(APPLIED_WITHIN)
    run.reporter.note(f"rotated {seconds:.0f} s later")
    run.check_served(renewal, "the renewed one")
    run.current = renewal


def _swap_by_hand(run: DemoRun) -> None:
    host, renewal = run.host, run.host.issue()
    directory = host.tree / "from-the-ca"
    directory.mkdir(mode=0o700)
    parts = {"example.cn.crt": renewal.leaf, "bundle.crt": renewal.bundle, "example.cn.key": renewal.key}
    for name, data in parts.items():
        (directory / name).touch(0o600)
        (directory / name).write_bytes(data)
    leaf, bundle, key = (directory / name for name in parts)
    swap = command("rotator swap", SITE)
    run.reporter.command(
        f"{swap} --cert {shell_word(leaf.name)} --cert {shell_word(bundle.name)} --key {shell_word(key.name)}"
    )
    with run.reporter.waiting("rotator is working"):
        answer = host.rotator("swap", SITE, "--cert", leaf, "--cert", bundle, "--key", key)
    run.scenario.stages = stages_of(answer)
    run.check_outcome(answer, 0, "rotated")
    run.reporter.durations(run.scenario.stages)
    run.check_served(renewal, "the renewed one")
    run.current = renewal


def _scrape_metrics(run: DemoRun) -> None:
    host = run.host
    run.reporter.command(f"curl http://{host.metrics}/metrics")
    expected = {
        'rotator_inputs_rejected_total{code="incomplete-chain"}': 1.0,
        'rotator_inputs_rejected_total{code="key-mismatch"}': 1.0,
        f'rotator_rollbacks_total{{site="{SITE}"}}': 1.0,
        f'rotator_rollback_failures_total{{site="{SITE}"}}': 0.0,
        **{
            f'rotator_served_certificate_matches_disk{{key_type="ecdsa",listener="{listener}",site="{SITE}"}}': 1.0
            for listener in host.listeners
        },
    }
    label = f'site="{SITE}"'

    def is_current(samples: Mapping[str, float]) -> bool:
        names_pair = any(label in series and run.current.fingerprint in series for series in samples)
        return names_pair and all(samples.get(series) == value for series, value in expected.items())

    deadline = time.monotonic() + SCRAPED_WITHIN
    with run.reporter.waiting("the daemon probes its listeners again"):
        while not is_current(samples := host.samples()) and time.monotonic() < deadline:
            time.sleep(0.1)
    for series, value in expected.items():
        run.check(f"{series} {value:g}", samples.get(series) == value, samples.get(series, "no such line"))
    run.check(
        "the certificate on the page is the one that clients receive",
        any("certificate_info" in series and run.current.fingerprint in series for series in samples),
        [series for series in samples if "certificate_info" in series],
    )
    for series, value in samples.items():
        if series.startswith(("rotator_nginx_reloads_total", "rotator_nginx_worker_processes")):
            run.reporter.note(f"{series} {value:g}")


def _count_lost_clients(run: DemoRun) -> None:
    run.load.stop()
    failed, answered = run.load.failures, run.load.answered
    run.check(f"{answered} connections, none failed", bool(answered) and not failed, "; ".join(failed[:3]) or "none")


SCENARIOS: tuple[tuple[str, Callable[[DemoRun], None]], ...] = (
    ("A renewal goes live", _put_renewal_live),
    ("A renewal without its intermediate is refused", _reject_missing_intermediate),
    ("A key that belongs to another certificate is refused", _reject_wrong_key),
    ("A listener that goes on with its old files: rolled back, and proved", _roll_back_for_old_listener),
    ("nginx refuses the reload for a reason of its own: deferred, and applied later", _defer_refused_reload),
    ("By hand, with the files as a CA sends them", _swap_by_hand),
    ("What Prometheus sees", _scrape_metrics),
    ("All the while, clients came and went", _count_lost_clients),
)
"""The title and the function of each scenario. Each one starts from the state in which the previous one ended."""
