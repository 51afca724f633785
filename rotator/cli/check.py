"""`rotator check`: validates certificate files as a strict client would.

The verdict goes to stdout, as text or JSON; a note about the roots goes to stderr.
Exit status: 0 accepted, 3 rejected, 2 usage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from rotator.cli.context import Context, pass_context
from rotator.cli.formats import CHECK_VERSION, problem_answer
from rotator.cli.group import epilog
from rotator.cli.output import Output, more_about
from rotator.cli.unprivileged import run_as_nobody
from rotator.config.system_roots import is_system, shipped_roots, system_roots
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import Candidate, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.core.times import rfc3339
from rotator.sources import trust_files
from rotator.sources.file_reader import read_named, read_password, read_pool
from rotator.validation.candidate import leaf_like, read_candidate
from rotator.validation.client_support import predict
from rotator.validation.evidence import Evidence
from rotator.validation.intermediates import Pool
from rotator.validation.report import explain
from rotator.validation.validate import Anchors, Verdict, private_ca, public, validate_files

Read = TypeVar("Read")

STYLES = {"REJECT": "bad", "WARN": "warn", "ACCEPT": "good"}
"""The style of a line of the answer, by its first word."""

ROOTS_HELP = "The trusted roots, a PEM file. Default: those of NAME's site, or the system's"


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Args:
        verdict: the verdict, with the problems of reading the files.
        roots: the file of the trusted roots, with its hash; empty if it could not be read.
    """

    verdict: Verdict
    roots: str

    @property
    def exit(self) -> Exit:
        """The exit status."""
        return Exit.DONE if self.verdict.accepted else Exit.REJECTED

    @property
    def body(self) -> dict[str, object]:
        """The JSON answer, without its version."""
        verdict, end = self.verdict, self.verdict.effective_not_after
        return {
            "verdict": "accept" if verdict.accepted else "reject",
            "codes": [code.value for code in verdict.codes],
            "warnings": [code.value for code in verdict.warnings],
            "problems": [problem_answer(problem) for problem in verdict.problems],
            "served_sha256": [hashlib.sha256(raw).hexdigest() for pair in verdict.pairs for raw in pair.chain],
            "effective_not_after": rfc3339(end) if end else None,
            "missing_issuer": verdict.missing_issuer or None,
            "missing_akid": verdict.missing_akid or None,
            "clients": clients_body(verdict),
        }

    @property
    def lines(self) -> list[str]:
        """The answer for people."""
        lines = explain(self.verdict)
        for pair in self.verdict.pairs if self.verdict.accepted else ():
            names = shown(", ".join(pair.names))
            count = f"{len(pair.chain)} certificate{'s' if len(pair.chain) > 1 else ''}"
            lines.append(f"ACCEPT {pair.key_type}: {names}; {count} to send, leaf first")
            lines.append(f"  sha256 {pair.fingerprint}, good until {rfc3339(pair.effective_not_after)}")
        return [*lines, "Nothing was changed."]


def clients_body(verdict: Verdict) -> dict[str, object]:
    """For JSON: the effect on each kind of client if the validated certificates are served unchanged."""
    return {
        client.value: {
            "fate": prediction.compatibility.value,
            "on": prediction.condition.value if prediction.condition else None,
            "because": [code.value for code in prediction.codes],
            "url": prediction.url or None,
        }
        for client, prediction in predict(verdict.problems, verdict.issuer_url).items()
    }


def prepare_check(
    certs: Sequence[str],
    *,
    chains: Sequence[str] = (),
    keys: Sequence[str] = (),
    password_file: str | None = None,
    roots: str | None = None,
    pool: str | None = None,
    current: str | None = None,
    names: Sequence[str] = (),
    at: datetime | None = None,
    private: bool = False,
    crls: Sequence[str] = (),
    ct_logs: str | None = None,
    blocklist: str | None = None,
    ocsp: Sequence[str] = (),
    require_crls: bool = False,
    stapling: bool = False,
    root_stores: Sequence[str] = (),
) -> Callable[[], Report]:
    """Reads the named files; the function that it returns parses and validates them, without opening a file.

    Args:
        certs: the paths of certificate files; a file may hold several certificates.
        chains: the paths of files with intermediates.
        keys: the paths of private keys; without one, a missing key is not a problem.
        password_file: the path of a file whose first line is the password of the key.
        roots: the path of the trusted roots; None for the system's.
        pool: the path of a file or directory of intermediates that the files may lack.
        current: the path of the live chain, to compare with.
        names: the names that must be covered.
        at: the reference time; None for now.
        private: apply the policy for a private CA.
        crls: the paths of revocation lists, or of directories of them.
        ct_logs: the path of the list of CT logs; without it, SCTs are not checked.
        blocklist: the path of the list of compromised keys.
        ocsp: the paths of OCSP responses, or of directories of them.
        require_crls: reject if no list covers the certificate.
        stapling: nginx staples other OCSP responses than these.
        root_stores: the paths of the root stores of browsers, or of directories of them.

    Returns:
        A function that returns the report. A file that cannot be read is one of its problems, so that all problems are
        shown at once.
    """
    problems: list[Problem] = []
    files = [source for path in (*certs, *chains) if (source := _read(path, problems)) is not None]
    secrets = [source for path in keys if (source := _read(path, problems)) is not None]
    password, notes = read_password(password_file) if password_file else (None, ())
    live_file = _read(current, problems) if current else None
    parse_anchors = read_anchors(roots or system_roots(), problems)
    parse_evidence = _read_evidence(crls, ct_logs, blocklist, ocsp, root_stores, problems)
    pool_files = _read_pool(pool, problems)

    def validate() -> Report:
        live = _live_leaves(live_file, problems)
        anchors = parse_anchors()
        evidence = parse_evidence(require_crls)
        policy = replace(private_ca(names) if private else public(names), require_crls=require_crls, stapling=stapling)
        verdict = Verdict()
        if anchors is not None and files:
            verdict = validate_files(
                Candidate((*files, *secrets), password, notes),
                policy,
                anchors.beside(evidence),
                at or datetime.now(UTC),
                live=live,
                need_key=bool(secrets) and len(secrets) == len(keys),
                pool=_pool(pool_files, pool, problems),
            )
        trusted = f"{anchors.name} (sha256 {anchors.digest})" if anchors else ""
        return Report(replace(verdict, problems=(*problems, *verdict.problems)), trusted)

    return validate


def _as_problem(error: RotatorError, path: str) -> Problem:
    return Problem(Code(error.code), Severity.REJECT, error.message, error.hint, shown(path))


def _read(path: str, problems: list[Problem]) -> SourceFile | None:
    try:
        return read_named(path)
    except RotatorError as error:
        problems.append(_as_problem(error, path))
        return None


def _read_pool(path: str | None, problems: list[Problem]) -> tuple[SourceFile, ...] | None:
    try:
        return read_pool(path) if path else None
    except RotatorError as error:
        problems.append(_as_problem(error, path or ""))
        return None


def _pool(files: tuple[SourceFile, ...] | None, path: str | None, problems: list[Problem]) -> Pool | None:
    try:
        return Pool.from_files(files) if files is not None else None
    except RotatorError as error:
        problems.append(_as_problem(error, path or ""))
        return None


def read_anchors(path: str | Path, problems: list[Problem]) -> Callable[[], Anchors | None]:
    """Reads the trusted roots; the function that it returns parses them, and returns None if they are not usable.

    Args:
        path: the file.
        problems: gets a problem if the file cannot be read or parsed.
    """

    def failed(error: RotatorError) -> None:
        problem = _as_problem(error, str(path))
        if problem.code is Code.IO_ERROR:
            problem = replace(problem, hint="Install ca-certificates, or name the roots with --roots.")
        problems.append(problem)

    def parse() -> Anchors | None:
        if parse_roots is None:
            return None
        try:
            return parse_roots()
        except RotatorError as error:
            failed(error)
            return None

    parse_roots = None
    try:
        parse_roots = trust_files.open_roots(path, shipped_roots(), whole=is_system(path))
    except RotatorError as error:
        failed(error)
    return parse


def _read_evidence(
    crls: Sequence[str],
    ct_logs: str | None,
    blocklist: str | None,
    ocsp: Sequence[str],
    root_stores: Sequence[str],
    problems: list[Problem],
) -> Callable[[bool], Evidence]:
    """Reads the evidence in the named files; the function that it returns parses it.

    An unreadable file is a problem, and the readable lists and responses count. The argument of the function is whether
    a list must cover the certificate.
    """

    def attempt(action: Callable[..., Read], paths: Sequence[str]) -> Read | None:
        try:
            return action(*paths) if paths else None
        except RotatorError as error:
            problems.append(_as_problem(error, ", ".join(paths)))
            return None

    def opened(reader: Callable[..., Callable[[], Read]], paths: Sequence[str]) -> Callable[[], Read | None]:
        parse = attempt(reader, paths)
        return lambda: attempt(lambda *_: parse(), paths) if parse is not None else None

    revocations = opened(trust_files.open_revocations, crls)
    responses = opened(trust_files.open_responses, ocsp)
    logs = opened(trust_files.open_logs, [ct_logs] if ct_logs else [])
    blocked = opened(trust_files.open_blocklist, [blocklist] if blocklist else [])
    stores = opened(trust_files.open_root_stores, root_stores)

    def parse(require_crls: bool) -> Evidence:  # noqa: FBT001 - the one argument
        lists, staples = revocations(), responses()
        severity = Severity.REJECT if require_crls else Severity.WARN
        problems.extend(replace(fault, severity=severity) for fault in (lists.faults if lists is not None else ()))
        problems.extend(staples.faults if staples is not None else ())
        return Evidence(revocations=lists, logs=logs(), blocked=blocked(), responses=staples, root_stores=stores())

    return parse


def _live_leaves(source: SourceFile | None, problems: list[Problem]) -> list[tuple[bytes, ...]]:
    """The leaves of the live chain. An unreadable part is a problem, because the comparison would be incomplete.

    Args:
        source: the file; None without a comparison, or if it cannot be read.
        problems: gets the problems of the file.
    """
    if source is None:
        return []
    reading = read_candidate(Candidate((source,)))
    rejections = [p for p in reading.problems if p.severity is Severity.REJECT]
    if reading.certificates:
        rejections = [p for p in rejections if not p.code.startswith(("key-", "multiple-"))]  # a key is not needed
    elif not rejections:
        message = f"{shown(source.name)} holds no certificate, so the renewal cannot be compared with it (--current)."
        hint = "Name the file of the live chain."
        rejections = [Problem(Code.CERT_MISSING, Severity.REJECT, message, hint, source.name)]
    problems += rejections
    return [(leaf.raw,) for leaf in leaf_like(reading.certificates)] if reading.certificates else []


def _moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("not a time like 2026-11-22T12:00:00Z") from None
    if at.tzinfo is None:
        raise click.BadParameter("a time needs its zone, as in 2026-11-22T12:00:00Z")
    return at.astimezone(UTC)


_EXAMPLE = """\
rotator check --cert fullchain.pem --key privkey.pem --name signal.example.cn
rotator check --cert leaf.crt --chain bundle.crt --roots roots.pem --current live.pem --json"""


_MEANINGS = {Exit.DONE: "accepted", Exit.REJECTED: "rejected"}


@click.command(epilog=epilog(_EXAMPLE, Exit.DONE, Exit.USAGE, Exit.REJECTED, meanings=_MEANINGS))
@click.option(
    "--cert",
    "certs",
    multiple=True,
    required=True,
    metavar="FILE",
    help="The certificate, with or without its intermediates; may be repeated.",
)
@click.option("--chain", "chains", multiple=True, metavar="FILE", help="Its intermediates; may be repeated.")
@click.option("--key", "keys", multiple=True, metavar="FILE", help="Its private key; may be repeated or omitted.")
@click.option("--password-file", metavar="FILE", help="The password of the key or PKCS#12 file, on the first line.")
@click.option("--roots", metavar="FILE", help=ROOTS_HELP)
@click.option("--current", metavar="FILE", help="The live chain, to compare with.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="A host name to cover; may be repeated.")
@click.option("--at", callback=_moment, metavar="RFC3339", help="The reference time. Default: now")
@click.option("--private-ca", "private", is_flag=True, help="Omit the rules that apply to public CAs only.")
@click.option("--pool", metavar="PATH", help="A file or directory of intermediates that the files may lack.")
@click.option("--crls", multiple=True, metavar="FILE", help="Revocation lists, a file or directory; may be repeated.")
@click.option("--require-crls", is_flag=True, help="Reject if no usable revocation list covers the certificate.")
@click.option("--ct-logs", metavar="FILE", help="Check SCTs against the logs of this log_list.json, version 3.")
@click.option("--blocklist", metavar="FILE", help="Compromised keys: one SHA-256 hash of a public key per line.")
@click.option("--ocsp", multiple=True, metavar="FILE", help="OCSP responses that nginx staples; may be repeated.")
@click.option("--root-store", multiple=True, metavar="FILE", help="The roots that browsers trust; may be repeated.")
@click.option("--stapling", is_flag=True, help="nginx staples other OCSP responses, so accept must-staple.")
@pass_context
def check(
    context: Context,
    *,
    certs: tuple[str, ...],
    chains: tuple[str, ...],
    keys: tuple[str, ...],
    password_file: str | None,
    roots: str | None,
    pool: str | None,
    current: str | None,
    names: tuple[str, ...],
    at: datetime | None,
    private: bool,
    crls: tuple[str, ...],
    require_crls: bool,
    ct_logs: str | None,
    blocklist: str | None,
    ocsp: tuple[str, ...],
    root_store: tuple[str, ...],
    stapling: bool,
) -> int:
    """Check files: would a strict client accept these certificates from nginx, for every name, now?

    A strict client trusts only the roots, downloads nothing and remembers no intermediates. The files may be in any
    order, with the certificates in one file or several: rotator builds the chain that nginx should send, as for a
    renewal. Each problem is
    shown with its file, its line and the next step. Nothing is changed.
    """
    validate = prepare_check(
        certs,
        chains=chains,
        keys=keys,
        password_file=password_file,
        roots=roots or context.roots_of(names),
        pool=pool,
        current=current,
        names=names,
        at=at,
        private=private,
        crls=crls,
        ct_logs=ct_logs,
        blocklist=blocklist,
        ocsp=ocsp,
        require_crls=require_crls,
        stapling=stapling,
        root_stores=root_store,
    )
    note = f"note: {shown(ct_logs or '')} was not used, because clients ask a private CA for no SCTs."
    return run_as_nobody(context, lambda: _show(validate(), note if private and ct_logs else "", context.output))


def _show(report: Report, note: str, output: Output) -> int:
    """Shows a report and a note. Returns the exit status."""
    if report.roots:
        output.say(f"roots: {report.roots}")
    if note:
        output.say(note)
    if output.json:
        output.data({"schema_version": CHECK_VERSION, **report.body})
    else:
        for line in report.lines:
            output.line(line, STYLES.get(line.partition(" ")[0], ""))
        if codes := report.verdict.codes:
            output.line(more_about(codes[0]), "faint")
    return report.exit
