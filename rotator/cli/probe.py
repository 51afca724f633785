"""`rotator probe`: judge what any server sends right now; with handshakes and the validator.

The verdict is data and goes to stdout, as text or JSON; which roots were taken goes to stderr.
Exit status: 0 accepted, 3 a strict client would refuse it, 1 no connection or no TLS, 2 usage.
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
from rotator.cli.output import more_about, rfc3339
from rotator.config.addresses import bind_address, concrete_name, listener
from rotator.config.system_roots import system_roots
from rotator.config.value_parsers import BadValueError
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import KeyType, Served, Target
from rotator.core.problems import Problem
from rotator.core.reasons import Reason
from rotator.tls.handshake import HANDSHAKE_FAILED, Version, probe_version, reachable_address
from rotator.validation.report import explain
from rotator.validation.validate import Anchors, Verdict, judge_served, private_ca, public

KINDS = (None, KeyType.ECDSA, KeyType.RSA)
"""What a client asks for: whatever it gets, and each kind of key that a server may have beside another one."""

AT_ONCE = 8
"""Handshakes at the same time."""


@dataclass(frozen=True)
class Sent:
    """One chain that the server sent, and what it is worth.

    Args:
        chain: DER, in the order sent.
        names: the names that it was sent for.
        versions: the versions of TLS that it was sent with.
        verdict: the judgement of it as it stands.
    """

    chain: tuple[bytes, ...]
    names: tuple[str, ...]
    versions: tuple[Version, ...]
    verdict: Verdict

    @property
    def body(self) -> dict[str, object]:
        """Its part of the JSON answer: as `check` has it, but with what is sent where that has what would be."""
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
            lines.append("ACCEPT: strict clients take what is sent")
        end = self.verdict.effective_not_after
        if end is not None:
            lines.append(f"  sha256 {hashlib.sha256(self.chain[0]).hexdigest()}, {_until(end, now)}")
        return lines


@dataclass(frozen=True)
class Seen:
    """All that one probe found.

    Args:
        address: where it was seen.
        sent: every chain, once.
        mute: for each name without any handshake, why.
        missing: for each version of TLS without any handshake, why.
        asked: how many handshakes were tried.
        lost: why some of them came to nothing although the server has what was asked for, each with how often.
    """

    address: str
    sent: tuple[Sent, ...]
    mute: tuple[tuple[str, str], ...]
    missing: tuple[tuple[Version, str], ...]
    asked: int
    lost: tuple[tuple[str, int], ...]

    @property
    def exit(self) -> Exit:
        """The exit status."""
        if any(not one.verdict.accepted for one in self.sent):
            return Exit.REJECTED
        return Exit.FAILURE if self.mute else Exit.DONE

    @property
    def body(self) -> dict[str, object]:
        """The JSON answer, without its version."""
        ends = [end for one in self.sent if (end := one.verdict.effective_not_after)]
        return {
            "verdict": "accept" if self.exit is Exit.DONE else "reject" if self.exit is Exit.REJECTED else "failure",
            "address": self.address,
            "codes": _each(self.sent, lambda one: one.verdict.codes),
            "warnings": _each(self.sent, lambda one: one.verdict.warnings),
            "effective_not_after": rfc3339(min(ends)) if ends else None,
            "served": [one.body for one in self.sent],
            "failures": [{"name": name, "reason": reason} for name, reason in self.mute],
            "missing_versions": [{"version": version.value, "reason": reason} for version, reason in self.missing],
            "handshakes": self.asked,
            "lost": [{"count": count, "reason": reason} for reason, count in self.lost],
        }

    def lines(self, now: datetime) -> list[str]:
        """The answer for people."""
        lines = [line for one in self.sent for line in one.lines(now)]
        lines += [f"FAIL {name}: {reason}" for name, reason in self.mute]
        lines += [f"WARN {count} of {self.asked} handshakes lost: {reason}" for reason, count in self.lost]
        lines += [f"No handshake with TLS {version}: {reason}" for version, reason in self.missing]
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
) -> Seen:
    """Look at a server as clients with either version of TLS and either kind of key do, and judge all it sends.

    Args:
        where: `host:port`, `[v6]:port` or `unix:/path`.
        names: what to ask for, each in turn.
        anchors: the roots that clients trust.
        within: seconds for all of it together.
        now: the reference time, with a time zone.
        private: take the policy for a private CA.
        proxy_protocol: send a PROXY header first.

    Raises:
        RotatorError: `no-connection`, or `no-tls` where not one handshake came about.
    """
    end = time.monotonic() + within
    address = reachable_address(where, within)

    def one(asked: tuple[str, Version, KeyType | None]) -> tuple[Version, Served]:
        name, version, kind = asked
        target = Target("", address, name, kind)
        left = end - time.monotonic()
        if left <= 0:
            return version, Served(target, failure=f"not tried any more within {within:g} s")
        return version, probe_version(target, version, max(0.1, round(left, 1)), proxy_protocol=proxy_protocol)

    asked = [(name, version, kind) for name in names for kind in KINDS for version in reversed(Version)]
    with ThreadPoolExecutor(min(AT_ONCE, len(asked)), thread_name_prefix="probe") as pool:
        looks = list(pool.map(one, asked))
    good = [(version, served) for version, served in looks if not served.failure and served.chain]
    if not good:
        raise _no_tls(address, [served for _, served in looks], proxy_protocol=proxy_protocol)
    policy = private_ca if private else public
    sent = []
    for chain in dict.fromkeys(served.chain for _, served in good):
        got = [(version, served.target.name) for version, served in good if served.chain == chain]
        asked_for = tuple(dict.fromkeys(name for _, name in got))
        verdict = judge_served(chain, policy(asked_for), anchors, now)
        sent.append(Sent(chain, asked_for, tuple(sorted({version for version, _ in got})), verdict))
    return Seen(
        address,
        tuple(sent),
        tuple((name, _reason(looks, name=name)) for name in names if all(s.target.name != name for _, s in good)),
        tuple((v, _reason(looks, version=v)) for v in Version if all(version is not v for version, _ in good)),
        len(looks),
        _lost(looks, {(version, served.target.name) for version, served in good}),
    )


def _lost(looks: Sequence[tuple[Version, Served]], had: set[tuple[Version, str]]) -> tuple[tuple[str, int], ...]:
    """Handshakes that a steady server would have made: it has this name and version, and did not decline the key."""
    reasons = [
        s.failure
        for version, s in looks
        if s.failure and (version, s.target.name) in had and not s.failure.startswith(HANDSHAKE_FAILED)
    ]
    return tuple((reason, reasons.count(reason)) for reason in dict.fromkeys(reasons))


def _reason(looks: Sequence[tuple[Version, Served]], name: str = "", version: Version | None = None) -> str:
    """The first failure of a name or a version."""
    of_it = (s.failure for v, s in looks if name in ("", s.target.name) and version in (None, v) and s.failure)
    return next(of_it, "no certificate was sent")


def _no_tls(address: str, looks: Sequence[Served], *, proxy_protocol: bool) -> RotatorError:
    reasons = dict.fromkeys(served.failure or "no certificate was sent" for served in looks)
    hint = "Does it speak TLS at once? STARTTLS, plain text and a wrong port look like this."
    if not proxy_protocol:
        hint += " A listener with proxy_protocol wants --proxy-protocol."
    else:
        hint += " A listener without proxy_protocol does not take --proxy-protocol."
    words = f"{address} takes connections, but no client gets a certificate: {'; '.join(list(reasons)[:3])}."
    return RotatorError(Reason.NO_TLS, words, hint)


def _each(sent: Sequence[Sent], of: Callable[[Sent], Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(str(code) for one in sent for code in of(one)))


def _until(end: datetime, now: datetime) -> str:
    days = (end - now).total_seconds() / 86400
    return f"good until {rfc3339(end)}, {days:.1f} days from now" if days >= 0 else f"over since {rfc3339(end)}"


def _where(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """The address in one spelling; port 443 where none is given."""
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
    except BadValueError as wrong:
        raise click.BadParameter(wrong.message) from None


def _names(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(concrete_name(value) for value in values))
    except BadValueError as wrong:
        raise click.BadParameter(wrong.message) from None


_EXAMPLE = """\
rotator probe signal.example.cn:1890
rotator probe 127.0.0.1:1890 --name signal.example.cn --roots roots.pem --json"""


@click.command(epilog=epilog(_EXAMPLE, Exit.DONE, Exit.FAILURE, Exit.USAGE, Exit.REJECTED))
@click.argument("where", metavar="HOST[:PORT]", callback=_where)
@click.option("--name", "names", multiple=True, metavar="NAME", callback=_names, help="Ask for it. Default: HOST")
@click.option("--roots", metavar="FILE", help=ROOTS_HELP)
@click.option("--private-ca", "private", is_flag=True, help="Leave out the rules that bind public CAs only.")
@click.option("--proxy-protocol", is_flag=True, help="Send a PROXY header first (version 1).")
@click.option(
    "--within",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="For all of it together.",
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
    """Say whether a strict client accepts what the server at HOST sends right now, and who breaks if not.

    Strict: it trusts the roots, fetches nothing and remembers no intermediate. TLS 1.2 and 1.3 are tried, and ECDSA
    and RSA where there are both. HOST is a name or an address, [v6] in brackets before a port, or unix:/path (then
    --name says what to ask for). Of a name's addresses the first that takes a connection is looked at. It needs no
    configuration and no key, and changes nothing.
    """
    if where.startswith("unix:") and not names:
        raise click.UsageError("unix:/path has no name to ask for: add --name.")
    problems: list[Problem] = []
    host = where.rpartition(":")[0].strip("[]")
    anchors = read_anchors(roots or context.roots_of(names or (host,)) or system_roots(), problems)
    if anchors is None:
        raise RotatorError(problems[0].code, problems[0].message, problems[0].hint)
    output = context.output
    output.say(f"roots: {anchors.name} (sha256 {anchors.digest})")
    now = datetime.now(UTC)
    seen = run_probe(
        where, names or (host,), anchors, within=within, now=now, private=private, proxy_protocol=proxy_protocol
    )
    if output.json:
        output.data({"schema_version": PROBE_VERSION, **seen.body})
        return seen.exit
    output.say(f"address: {seen.address}")
    for line in seen.lines(now):
        output.line(line, STYLES.get(line.partition(" ")[0].rstrip(":"), ""))
    if codes := [code for one in seen.sent for code in one.verdict.codes]:
        output.line(more_about(codes[0]), "faint")
    return seen.exit
