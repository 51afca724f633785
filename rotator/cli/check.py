"""`rotator check`: judge files without touching anything; reading is `incoming`'s and judging is `trust`'s.

The verdict is data and goes to stdout, as text or JSON; which roots were taken goes to stderr.
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
from rotator.cli.output import more_about, rfc3339
from rotator.config.system_roots import system_roots
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import Candidate, SourceFile
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.sources import trust_files
from rotator.sources.file_reader import read_named, read_password, read_pool
from rotator.validation.candidate import leaf_like, read_candidate
from rotator.validation.client_support import predict
from rotator.validation.evidence import Evidence
from rotator.validation.intermediates import Pool
from rotator.validation.report import explain
from rotator.validation.validate import Anchors, Verdict, examine, private_ca, public

Read = TypeVar("Read")

STYLES = {"REJECT": "bad", "WARN": "warn", "ACCEPT": "good"}
"""The style of a line of the answer, by its first word."""

ROOTS_HELP = "Trusted roots, as PEM. Default: those of NAME's site, or the system's"


@dataclass(frozen=True)
class Report:
    """What a check found.

    Args:
        verdict: the judgement, with the problems of reading in it.
        roots: what was trusted, with its hash; empty if it could not be read.
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
    """For JSON: what becomes of each kind of client if what was judged is served as it stands."""
    return {
        client.value: {
            "fate": prediction.compatibility.value,
            "on": prediction.condition.value if prediction.condition else None,
            "because": [code.value for code in prediction.codes],
            "url": prediction.url or None,
        }
        for client, prediction in predict(verdict.problems, verdict.issuer_url).items()
    }


def run_check(
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
) -> Report:
    """Read the named files and judge them.

    Args:
        certs: paths of certificate files, in any split.
        chains: paths of files with intermediates.
        keys: paths of private keys; without one, a key is not asked for.
        password_file: path of a file whose first line decrypts the key.
        roots: path of the trusted roots; the system's store if None.
        pool: path of a file or directory of intermediates, for what the files lack.
        current: path of the chain that is live, to be compared with.
        names: names that must be covered.
        at: the reference time; now if None.
        private: take the policy for a private CA.
        crls: paths of revocation lists, or of directories of them.
        ct_logs: path of the list of logs whose SCTs count; they are not asked for without it.
        blocklist: path of hashes of known keys.
        ocsp: paths of OCSP responses, or of directories of them.
        require_crls: refuse where no list gives an answer.
        stapling: nginx is known to staple in another way than from these responses.

    Returns:
        The report. A file that cannot be read is a problem of it like any other, so all are seen at once.
    """
    problems: list[Problem] = []
    files = [source for path in (*certs, *chains) if (source := _read(path, problems)) is not None]
    secrets = [source for path in keys if (source := _read(path, problems)) is not None]
    password, notes = read_password(password_file) if password_file else (None, ())
    live = _live(current, problems)
    anchors = read_anchors(roots or system_roots(), problems)
    evidence = _evidence(crls, ct_logs, blocklist, ocsp, problems, require_crls=require_crls)
    policy = replace(private_ca(names) if private else public(names), require_crls=require_crls, stapling=stapling)
    verdict = Verdict()
    if anchors is not None and files:
        verdict = examine(
            Candidate((*files, *secrets), password, notes),
            policy,
            anchors.beside(evidence),
            at or datetime.now(UTC),
            live=live,
            need_key=bool(secrets) and len(secrets) == len(keys),
            pool=_pool(pool, problems),
        )
    trusted = f"{anchors.name} (sha256 {anchors.digest})" if anchors else ""
    return Report(replace(verdict, problems=(*problems, *verdict.problems)), trusted)


def _as_problem(error: RotatorError, path: str) -> Problem:
    return Problem(Code(error.code), Severity.REJECT, error.message, error.hint, shown(path))


def _read(path: str, problems: list[Problem]) -> SourceFile | None:
    try:
        return read_named(path)
    except RotatorError as error:
        problems.append(_as_problem(error, path))
        return None


def _pool(path: str | None, problems: list[Problem]) -> Pool | None:
    try:
        return Pool.from_files(read_pool(path)) if path else None
    except RotatorError as error:
        problems.append(_as_problem(error, path or ""))
        return None


def read_anchors(path: str | Path, problems: list[Problem]) -> Anchors | None:
    """The roots; where they cannot be read, that is one of the problems.

    Args:
        path: the file.
        problems: what is found goes there.
    """
    try:
        return trust_files.read_roots(path)
    except RotatorError as error:
        told = _as_problem(error, str(path))
    if told.code is Code.IO_ERROR:
        told = replace(told, hint="Install ca-certificates, or name the roots with --roots.")
    problems.append(told)
    return None


def _evidence(
    crls: Sequence[str],
    ct_logs: str | None,
    blocklist: str | None,
    ocsp: Sequence[str],
    problems: list[Problem],
    *,
    require_crls: bool,
) -> Evidence:
    """What was named beside the roots. What cannot be read refuses; of lists and responses, what can be read counts."""

    def read(reader: Callable[..., Read], *paths: str) -> Read | None:
        try:
            return reader(*paths) if paths else None
        except RotatorError as error:
            problems.append(_as_problem(error, ", ".join(paths)))
            return None

    revocations = read(trust_files.read_revocations, *crls)
    if revocations is not None:
        severity = Severity.REJECT if require_crls else Severity.WARN
        problems += [replace(fault, severity=severity) for fault in revocations.faults]
    responses = read(trust_files.read_responses, *ocsp)
    problems += responses.faults if responses is not None else ()
    return Evidence(
        revocations=revocations,
        logs=read(trust_files.read_logs, *([ct_logs] if ct_logs else [])),
        blocked=read(trust_files.read_blocklist, *([blocklist] if blocklist else [])),
        responses=responses,
    )


def _live(path: str | None, problems: list[Problem]) -> list[tuple[bytes, ...]]:
    """The leaves of what is live; what cannot be read of it refuses, as less would be compared than was asked for.

    Args:
        path: the file; None where nothing is to be compared with.
        problems: what is found goes there.
    """
    source = _read(path, problems) if path else None
    if source is None:
        return []
    reading = read_candidate(Candidate((source,)))
    told = [p for p in reading.problems if p.severity is Severity.REJECT]
    if reading.certificates:
        told = [p for p in told if not p.code.startswith(("key-", "multiple-"))]  # its key is not asked for
    elif not told:
        words = f"{shown(source.name)} holds no certificate, so nothing can be compared with it (--current)."
        told = [Problem(Code.CERT_MISSING, Severity.REJECT, words, "Name the chain that is live.", source.name)]
    problems += told
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


@click.command(epilog=epilog(_EXAMPLE, Exit.DONE, Exit.USAGE, Exit.REJECTED))
@click.option("--cert", "certs", multiple=True, required=True, metavar="FILE", help="A certificate; may be repeated.")
@click.option("--chain", "chains", multiple=True, metavar="FILE", help="Intermediates; may be repeated.")
@click.option("--key", "keys", multiple=True, metavar="FILE", help="Its private key; may be repeated, or left out.")
@click.option("--password-file", metavar="FILE", help="Its first line opens an encrypted key or PKCS#12.")
@click.option("--roots", metavar="FILE", help=ROOTS_HELP)
@click.option("--current", metavar="FILE", help="The chain that is live, to compare with.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="A name to be covered; may be repeated.")
@click.option("--at", callback=_moment, metavar="RFC3339", help="Judge as of this time. Default: now")
@click.option("--private-ca", "private", is_flag=True, help="Leave out the rules that bind public CAs only.")
@click.option("--pool", metavar="PATH", help="A file or directory of intermediates, for those that are missing.")
@click.option("--crls", multiple=True, metavar="FILE", help="Revocation lists, a file or directory; may be repeated.")
@click.option("--require-crls", is_flag=True, help="Reject where no usable list says that it is not revoked.")
@click.option("--ct-logs", metavar="FILE", help="log_list.json, version 3: check the SCTs against these logs.")
@click.option("--blocklist", metavar="FILE", help="Keys known to others, one SHA-256 of a public key a line.")
@click.option("--ocsp", multiple=True, metavar="FILE", help="OCSP responses that nginx staples; may be repeated.")
@click.option("--stapling", is_flag=True, help="nginx staples OCSP answers by itself, so must-staple is accepted.")
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
    stapling: bool,
) -> int:
    """Say whether a strict client would accept these certificates from nginx, for every name, at this time.

    Strict: it trusts the roots, fetches nothing and remembers no intermediate. What nginx would have to be given is
    put in order first; what cannot be put in order is told with its file, its line and the next step. Nothing is
    changed.
    """
    report = run_check(
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
    )
    output = context.output
    if report.roots:
        output.say(f"roots: {report.roots}")
    if private and ct_logs:
        output.say(f"note: {shown(ct_logs)} was not asked about SCTs: no client wants them of a private CA.")
    if output.json:
        output.data({"schema_version": CHECK_VERSION, **report.body})
    else:
        for line in report.lines:
            output.line(line, STYLES.get(line.partition(" ")[0], ""))
        if codes := report.verdict.codes:
            output.line(more_about(codes[0]), "faint")
    return report.exit
