"""`rotator probe`: validates the certificates that a server sends now.

The verdict goes to stdout, as text or JSON; a note about the roots goes to stderr.
Exit status: 0 accepted, 3 a strict client would reject it, 1 no connection or no TLS, 2 usage.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from rotator.cli.check import ROOTS_HELP, STYLES, Report, read_anchors
from rotator.cli.context import Context, pass_context
from rotator.cli.formats import PROBE_VERSION
from rotator.cli.group import epilog
from rotator.cli.output import Output, more_about
from rotator.cli.unprivileged import run_as_nobody
from rotator.config.addresses import bind_address, concrete_name, listener
from rotator.config.system_roots import system_roots
from rotator.config.value_parsers import BadValueError
from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command
from rotator.core.model import KeyType, Served, Target
from rotator.core.problems import Code, Problem
from rotator.core.reasons import Reason
from rotator.core.times import rfc3339
from rotator.tls.handshake import HANDSHAKE_FAILED, Version, probe_version, reachable_address
from rotator.validation.report import explain
from rotator.validation.validate import Anchors, Verdict, private_ca, public, validate_served

KEY_TYPES = (None, KeyType.ECDSA, KeyType.RSA)
"""The key types that the handshakes ask for; None lets the server choose."""

PARALLEL = 8
"""The number of handshakes at the same time."""


@dataclass(frozen=True)
class ServedChain:
    """One chain that the server sent, with its verdict.

    Args:
        chain: the certificates as DER, in the order of the server.
        names: the names that it was sent for.
        versions: the TLS versions that it was sent with.
        verdict: the verdict about the chain exactly as it was sent.
    """

    chain: tuple[bytes, ...]
    names: tuple[str, ...]
    versions: tuple[Version, ...]
    verdict: Verdict

    @property
    def body(self) -> dict[str, object]:
        """Its part of the JSON answer: the fields of `check`, with the chain that is sent in `served_sha256`."""
        pairs = self.verdict.pairs
        return {
            "names": list(self.names),
            "versions": [version.value for version in self.versions],
            "key_type": pairs[0].key_type.value if pairs else None,
            **Report(self.verdict, "").body,
            "served_sha256": [hashlib.sha256(raw).hexdigest() for raw in self.chain],
            "not_after": rfc3339(pairs[0].not_after) if pairs else None,
        }

    def lines(self, now: datetime) -> list[str]:
        """Its part of the answer for people."""
        kind = f"{self.verdict.pairs[0].key_type}, " if self.verdict.pairs else ""
        count = f"{len(self.chain)} certificate{'s' if len(self.chain) > 1 else ''}"
        lines = [f"{', '.join(self.names)}: {count} sent ({kind}TLS {' and '.join(self.versions)})"]
        lines += explain(self.verdict)
        if self.verdict.accepted:
            lines.append("ACCEPT: strict clients accept this chain")
        end = self.verdict.effective_not_after
        if end is not None:
            lines.append(f"  sha256 {hashlib.sha256(self.chain[0]).hexdigest()}, {_validity(end, now)}")
        return lines


@dataclass(frozen=True)
class ProbeReport:
    """The result of one probe.

    Args:
        address: the address of the server.
        served: every chain, once.
        failed_names: each name for which every handshake failed, with the reason.
        missing_versions: each TLS version with which every handshake failed, with the reason.
        handshakes: the number of handshakes.
        lost: the reasons for which single handshakes failed although the server supports their name, version and key
            type, each with the number of these handshakes.
    """

    address: str
    served: tuple[ServedChain, ...]
    failed_names: tuple[tuple[str, str], ...]
    missing_versions: tuple[tuple[Version, str], ...]
    handshakes: int
    lost: tuple[tuple[str, int], ...]

    @property
    def exit(self) -> Exit:
        """The exit status."""
        if any(not chain.verdict.accepted for chain in self.served):
            return Exit.REJECTED
        return Exit.FAILURE if self.failed_names else Exit.DONE

    @property
    def body(self) -> dict[str, object]:
        """The JSON answer, without its version."""
        ends = [end for chain in self.served if (end := chain.verdict.effective_not_after)]
        return {
            "verdict": "accept" if self.exit is Exit.DONE else "reject" if self.exit is Exit.REJECTED else "failure",
            "address": self.address,
            "codes": _distinct(self.served, lambda chain: chain.verdict.codes),
            "warnings": _distinct(self.served, lambda chain: chain.verdict.warnings),
            "effective_not_after": rfc3339(min(ends)) if ends else None,
            "served": [chain.body for chain in self.served],
            "failures": [{"name": name, "reason": reason} for name, reason in self.failed_names],
            "missing_versions": [
                {"version": version.value, "reason": reason} for version, reason in self.missing_versions
            ],
            "handshakes": self.handshakes,
            "lost": [{"count": count, "reason": reason} for reason, count in self.lost],
        }

    def lines(self, now: datetime) -> list[str]:
        """The answer for people."""
        lines = [line for chain in self.served for line in chain.lines(now)]
        lines += [f"FAIL {name}: {reason}" for name, reason in self.failed_names]
        lines += [f"WARN {count} of {self.handshakes} handshakes failed: {reason}" for reason, count in self.lost]
        lines += [f"No handshake with TLS {version}: {reason}" for version, reason in self.missing_versions]
        return [*lines, "Nothing was changed."]


def run_probe(
    where: str,
    names: Sequence[str],
    anchors: Anchors,
    *,
    within: float,
    now: datetime,
    private: bool = False,
    proxy_protocol: bool = False,
) -> ProbeReport:
    """Makes handshakes with each TLS version and each key type, and validates every chain that the server sends.

    Args:
        where: `host:port`, `[v6]:port` or `unix:/path`.
        names: the names to send, each in turn.
        anchors: the roots that clients trust.
        within: the seconds for all handshakes together.
        now: the reference time, with a time zone.
        private: apply the policy for a private CA.
        proxy_protocol: send a PROXY header first.

    Raises:
        RotatorError: `no-connection`, or `no-tls` if every handshake failed.
    """
    deadline = time.monotonic() + within
    address = reachable_address(where, within)

    def handshake(plan: tuple[str, Version, KeyType | None]) -> tuple[Version, Served]:
        name, version, key_type = plan
        target = Target("", address, name, key_type)
        left = deadline - time.monotonic()
        if left <= 0:
            return version, Served(target, failure=f"not tried, because the {within:g} s were used up")
        return version, probe_version(target, version, max(0.1, round(left, 1)), proxy_protocol=proxy_protocol)

    plans = [(name, version, key_type) for name in names for key_type in KEY_TYPES for version in reversed(Version)]
    with ThreadPoolExecutor(min(PARALLEL, len(plans)), thread_name_prefix="probe") as pool:
        results = list(pool.map(handshake, plans))
    completed = [(version, served) for version, served in results if not served.failure and served.chain]
    if not completed:
        raise _no_tls(address, [served for _, served in results], proxy_protocol=proxy_protocol)
    policy = private_ca if private else public
    chains = []
    for chain in dict.fromkeys(served.chain for _, served in completed):
        sent_with = [(version, served.target.name) for version, served in completed if served.chain == chain]
        sent_for = tuple(dict.fromkeys(name for _, name in sent_with))
        verdict = validate_served(chain, policy(sent_for), anchors, now)
        chains.append(ServedChain(chain, sent_for, tuple(sorted({version for version, _ in sent_with})), verdict))
    names_served = {served.target.name for _, served in completed}
    versions_served = {version for version, _ in completed}
    return ProbeReport(
        address,
        tuple(chains),
        tuple((name, _reason(results, name=name)) for name in names if name not in names_served),
        tuple((version, _reason(results, version=version)) for version in Version if version not in versions_served),
        len(results),
        _lost(results, {(version, served.target.name) for version, served in completed}),
    )


def _lost(results: Sequence[tuple[Version, Served]], works: set[tuple[Version, str]]) -> tuple[tuple[str, int], ...]:
    """The failures of handshakes that the server supports: it has their name and version and did not decline the key.

    Args:
        results: all handshakes.
        works: the versions and names of the completed ones.
    """
    reasons = [
        s.failure
        for version, s in results
        if s.failure and (version, s.target.name) in works and not s.failure.startswith(HANDSHAKE_FAILED)
    ]
    return tuple((reason, reasons.count(reason)) for reason in dict.fromkeys(reasons))


def _reason(results: Sequence[tuple[Version, Served]], name: str = "", version: Version | None = None) -> str:
    """The first failure of a name or a version."""
    failures = (s.failure for v, s in results if name in ("", s.target.name) and version in (None, v) and s.failure)
    return next(failures, "no certificate was sent")


def _no_tls(address: str, results: Sequence[Served], *, proxy_protocol: bool) -> RotatorError:
    reasons = dict.fromkeys(served.failure or "no certificate was sent" for served in results)
    hint = "Does the server begin with TLS? STARTTLS, plain text and a wrong port fail like this."
    if not proxy_protocol:
        hint += " A listener with proxy_protocol needs --proxy-protocol."
    else:
        hint += " A listener without proxy_protocol does not accept --proxy-protocol."
    message = f"{address} accepts connections, but no client gets a certificate: {'; '.join(list(reasons)[:3])}."
    return RotatorError(Reason.NO_TLS, message, hint)


def _distinct(chains: Sequence[ServedChain], codes: Callable[[ServedChain], Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(str(code) for chain in chains for code in codes(chain)))


def _validity(end: datetime, now: datetime) -> str:
    days = (end - now).total_seconds() / 86400
    return f"good until {rfc3339(end)}, {days:.1f} days from now" if days >= 0 else f"expired at {rfc3339(end)}"


def _where(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The address in one spelling, with port 443 by default."""
    try:
        bare = ipaddress.ip_address(value.strip("[]") if value.endswith("]") else value)
    except ValueError:
        bare = None
    try:
        if value.startswith("unix:"):
            return listener(value)
        if bare is not None:
            value = f"[{bare}]" if bare.version == 6 else f"{bare}"
        return bind_address(value if ":" in value and bare is None else f"{value}:443", 1)
    except BadValueError as error:
        raise click.BadParameter(error.message) from None


def _names(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(concrete_name(value) for value in values))
    except BadValueError as error:
        raise click.BadParameter(error.message) from None


_EXAMPLE = """\
rotator probe signal.example.cn:1890
rotator probe 127.0.0.1:1890 --name signal.example.cn --roots roots.pem --json"""


_MEANINGS = {
    Exit.DONE: "accepted",
    Exit.FAILURE: "no connection, no TLS, or no handshake for one of the names",
    Exit.REJECTED: "rejected: a strict client would fail",
}


@click.command(epilog=epilog(_EXAMPLE, Exit.DONE, Exit.FAILURE, Exit.USAGE, Exit.REJECTED, meanings=_MEANINGS))
@click.argument("where", metavar="HOST[:PORT]", callback=_where)
@click.option("--name", "names", multiple=True, metavar="NAME", callback=_names, help="The name to send. Default: HOST")
@click.option("--roots", metavar="FILE", help=ROOTS_HELP)
@click.option("--private-ca", "private", is_flag=True, help="Omit the rules that apply to public CAs only.")
@click.option("--proxy-protocol", is_flag=True, help="Send a PROXY header first (version 1).")
@click.option(
    "--within",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="The time for all handshakes together.",
)
@pass_context
def probe(
    context: Context,
    *,
    where: str,
    names: tuple[str, ...],
    roots: str | None,
    private: bool,
    proxy_protocol: bool,
    within: float,
) -> int:
    """Check a server: does a strict client accept what HOST sends now? If not, which clients fail?

    A strict client trusts only the roots, downloads nothing and remembers no intermediates. The handshakes try TLS 1.2
    and 1.3, and both ECDSA and RSA. HOST is a name, an IP address ([v6] before a port), or unix:/path with --name. If
    a name has several addresses, the first that accepts a connection is probed. No configuration and no key is
    needed. Nothing is changed.
    """
    if where.startswith("unix:") and not names:
        raise click.UsageError("unix:/path needs --name, the name to send.")
    problems: list[Problem] = []
    host = where.rpartition(":")[0].strip("[]")
    parse_anchors = read_anchors(roots or context.roots_of(names or (host,)) or system_roots(), problems)

    def work() -> int:
        anchors = parse_anchors()
        if anchors is None:
            raise RotatorError(problems[0].code, problems[0].message, problems[0].hint)
        context.output.say(f"roots: {anchors.name} (sha256 {anchors.digest})")
        now = datetime.now(UTC)
        report = run_probe(
            where, names or (host,), anchors, within=within, now=now, private=private, proxy_protocol=proxy_protocol
        )
        advice = f"hint: to send a name that clients use: {command('rotator probe', where)} --name NAME"
        return _show(report, now, "" if names else advice, context.output)

    return run_as_nobody(context, work)


def _show(report: ProbeReport, now: datetime, advice: str, output: Output) -> int:
    """Shows a report, with advice if the certificate is for another name. Returns the exit status."""
    if output.json:
        output.data({"schema_version": PROBE_VERSION, **report.body})
        return report.exit
    output.say(f"address: {report.address}")
    for line in report.lines(now):
        output.line(line, STYLES.get(line.partition(" ")[0].rstrip(":"), ""))
    codes = [code for chain in report.served for code in chain.verdict.codes]
    if advice and Code.NAME_MISMATCH in codes:
        output.say(advice)
    if codes:
        output.line(more_about(codes[0]), "faint")
    return report.exit
