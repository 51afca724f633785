"""Feeds the readers and the judge with what nobody would write, guided by the lines that it reaches.

    python -m tests.faults.fuzz --minutes 60
    python -m tests.faults.fuzz --minutes 60 --kind crls

It is its own engine because the usual one for Python (Atheris) has wheels for one architecture only and must be built
with clang elsewhere, while the tests are to run wherever rotator does. What it finds is written to a directory, one
file of Python source for each, ready to become a test.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.oid import AuthorityInformationAccessOID

from rotator.core.model import Candidate, Pair, Policy, Secret, SourceFile
from rotator.validation.intermediates import Pool
from rotator.validation.report import explain
from rotator.validation.validate import Anchors, Verdict, private_ca, public, validate_chains, validate_files
from rotator.x509.pem import encode_chain
from tests.faults.beside import MAX_SECONDS, SAID, Beside, BrokenError, demand_words
from tests.faults.coverage import Coverage
from tests.faults.mutation import Files, mutated
from tests.support.authority import CA, NOW, encrypted, key_pem, new_key, pem
from tests.support.cost import cost

NAME = "signal.example.cn"
PASSWORD = b"open sesame"
MAX_MEMORY = 64 << 20
"""Bytes by which the process may grow."""


@dataclass(frozen=True)
class Finding:
    """An input for which something did not hold.

    Attributes:
        files: the input.
        password: whether the password was known.
        words: what happened.
    """

    files: Files
    password: bool
    words: str

    def source(self) -> str:
        """Python source of the input."""
        return f'"""{self.words}"""\n\nFILES = {self.files!r}\nPASSWORD = {self.password}\n'


class World(Protocol):
    """What inputs are tried on."""

    def seeds(self) -> list[Files]:
        """Every form that is read, once."""

    def completed(self, files: Files, chance: random.Random) -> Files:
        """Files that were changed, with what else has to be changed for them to be looked into."""

    def demand(self, files: Files, *, password: bool, profile: bool) -> None:
        """Raises if something that must hold for any input does not."""


class Judged:
    """The world that inputs are judged in: one CA, its pool, and what must hold of every verdict."""

    def __init__(self) -> None:
        self.root = CA.root()
        self.ca = self.root.intermediate()
        self.good = self.ca.issue(NAME, "*.example.cn", "192.0.2.1")
        self.anchors = Anchors.from_pem(pem(self.root.cert), "roots.pem")
        self.pool = Pool.from_files([SourceFile("pool.pem", pem(self.ca.cert))])
        self.keys: set[bytes] = set()

    def seeds(self) -> list[Files]:
        """Every form that is read, once."""
        good, rsa = self.good, self.ca.issue(NAME, kind="rsa")
        ed25519 = self.ca.issue(NAME, kind="ed25519")
        der, old = serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL
        other = self.root.intermediate("Other", key=self.ca.key)
        weak = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(1)
        weak = weak.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        sealed = pkcs12.serialize_key_and_certificates(b"x", good.key, good.leaf, [self.ca.cert], weak.build(PASSWORD))
        best = serialization.BestAvailableEncryption(PASSWORD)
        modern = pkcs12.serialize_key_and_certificates(b"x", rsa.key, rsa.leaf, [self.ca.cert], best)
        plain = pkcs12.serialize_key_and_certificates(
            b"x", good.key, good.leaf, [self.ca.cert, self.root.cert], serialization.NoEncryption()
        )
        for issued in (good, rsa, ed25519):
            lines = issued.key_pem.splitlines()[1:-1]
            self.keys |= {line for line in lines if len(line) > 40}
        return [
            (good.chain_pem, good.key_pem),
            (pem(good.leaf), pem(self.ca.cert), good.key_pem),
            (pem(good.leaf), good.key_pem),
            (rsa.chain_pem, rsa.key_pem, good.chain_pem, good.key_pem),
            (good.key_pem + good.chain_pem,),
            (ed25519.chain_pem, ed25519.key_pem),
            (pem(good.leaf, other.cert, self.ca.cert, self.root.cert), key_pem(good.key, old)),
            (*good.chain_der, good.key.private_bytes(der, old, serialization.NoEncryption())),
            (rsa.chain_pem, key_pem(rsa.key, old)),
            (good.chain_pem, encrypted(good.key, PASSWORD, old)),
            (good.chain_pem, encrypted(good.key, PASSWORD)),
            (pkcs7.serialize_certificates([good.leaf, self.ca.cert], der), good.key_pem),
            (pkcs7.serialize_certificates([self.ca.cert], serialization.Encoding.PEM), pem(good.leaf), good.key_pem),
            (sealed,),
            (modern,),
            (plain,),
            (b"# a note\r\n" + good.chain_pem.replace(b"\n", b"\r\n"), good.key_pem),
            (pem(self.ca.issue(NAME, key=good.key, days=30).leaf) + good.chain_pem, good.key_pem, key_pem(new_key())),
            self._extended(),
        ]

    def _extended(self) -> Files:
        """A chain whose certificates say everything that a library parses."""
        name = [x509.DirectoryName(self.root.cert.subject), x509.UniformResourceIdentifier("http://example.cn/x")]
        notice = x509.UserNotice(x509.NoticeReference("x", [1]), "y")
        point = x509.DistributionPoint(name, None, frozenset({x509.ReasonFlags.key_compromise}), name[:1])
        policy = x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), ["http://example.cn/", notice])
        extensions = (
            x509.TLSFeature([x509.TLSFeatureType.status_request, x509.TLSFeatureType.status_request_v2]),
            x509.CRLDistributionPoints([point]),
            x509.FreshestCRL([point]),
            x509.IssuerAlternativeName(name),
            x509.CertificatePolicies([policy]),
            x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.OCSP, name[1])]),
            x509.PolicyConstraints(1, 1),
            x509.InhibitAnyPolicy(1),
            x509.PrivateKeyUsagePeriod(NOW, NOW),
            x509.OCSPNoCheck(),
            x509.MSCertificateTemplate(x509.ObjectIdentifier("1.2.3"), 1, 2),
        )

        def said(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
            for one in extensions:
                builder = builder.add_extension(one, critical=False)
            return builder

        issued = self.root.intermediate("Talkative", tweak=said).issue(NAME, tweak=said)
        return (issued.chain_pem, issued.key_pem)

    def completed(self, files: Files, chance: random.Random) -> Files:
        """The files as they are."""
        return files

    def demand(self, files: Files, *, password: bool, profile: bool) -> None:
        """Judges one input.

        Raises:
            BrokenError: something that must hold does not.
            Exception: whatever the readers or the judge let escape.
        """
        policy = (public if profile else private_ca)([NAME])
        named = tuple(SourceFile(f"file{number}", data) for number, data in enumerate(files))
        candidate = Candidate(named, Secret(PASSWORD) if password else None)
        verdict, spent = cost(
            lambda: validate_files(candidate, policy, self.anchors, NOW, live=[self.good.chain_der], pool=self.pool),
            below=MAX_SECONDS,
        )
        if spent > MAX_SECONDS:
            raise BrokenError(f"it took {spent:.2f} s")
        self._demand_words(verdict)
        if verdict.accepted:
            for pair in verdict.pairs:
                self._demand_pair(pair, policy)

    def _demand_words(self, verdict: Verdict) -> None:
        for problem in verdict.problems:
            demand_words(problem.message, problem.hint)
        shown = [repr(verdict.problems), *explain(verdict), *(repr(pair.key) for pair in verdict.pairs)]
        told, served = "\n".join(shown).encode(), b"".join(raw for pair in verdict.pairs for raw in pair.chain)
        if any(line in told and line not in served for line in self.keys):  # but for one pasted into a certificate
            raise BrokenError("a key is shown")

    def _demand_pair(self, pair: Pair, policy: Policy) -> None:
        """What is stored is accepted as it is stored, and is itself what would be stored of it."""
        if any(p.severity == "reject" for p in validate_chains([pair.chain], policy, self.anchors, NOW)):
            raise BrokenError("what would be stored is refused when it is judged again")
        if pair.key is None:
            raise BrokenError("a pair without a key is accepted")
        stored = (encode_chain(pair.chain), pair.key.reveal())
        again = validate_files(
            Candidate(tuple(SourceFile(str(n), data) for n, data in enumerate(stored))), policy, self.anchors, NOW
        )
        if not again.accepted or [(p.chain, p.key) for p in again.pairs] != [(pair.chain, pair.key)]:
            raise BrokenError(f"what would be stored is another pair when it is read again: {again.problems}")


@dataclass
class Fuzzer:
    """One run.

    Attributes:
        seed: of the choice of mutations; the keys are new in each run.
        world: what they are tried on; a drop's files, by default.
        coverage: the lines that were reached.
        corpus: inputs that each reached a line that none before had.
        findings: what did not hold, each kind once.
        tried: how many inputs.
    """

    seed: int
    world: World = field(default_factory=Judged)
    coverage: Coverage = field(default_factory=Coverage)
    corpus: list[Files] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    tried: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self._kinds: set[str] = set()

    def run(self, seconds: float) -> None:
        """Tries inputs until so many seconds of processor are spent."""
        end = time.process_time() + seconds
        seeds = self.world.seeds()
        with self.coverage.watching():
            for files in seeds:
                for password in (False, True):
                    self._try(files, password=password)
            self.corpus += [files for files in seeds if files not in self.corpus]
            while time.process_time() < end:
                files = mutated(self.chance.choice(self.corpus), self.corpus, self.chance)
                files = self.world.completed(files, self.chance)
                self._try(files, password=self.chance.random() < 0.5)

    def _try(self, files: Files, *, password: bool) -> None:
        self.tried += 1
        before = len(self.coverage.seen)
        try:
            self.world.demand(files, password=password, profile=self.chance.random() < 0.8)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of the library's Rust is no Exception
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
            if kind not in self._kinds:
                self._kinds.add(kind)
                self.findings.append(Finding(files, password, f"{kind}: {error}"))
        if len(self.coverage.seen) > before:
            self.corpus.append(files)


def grown() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def told(fuzzer: Fuzzer) -> Iterator[str]:
    """A run in words."""
    yield f"{fuzzer.tried} inputs, {len(fuzzer.coverage.seen)} lines reached, {len(fuzzer.corpus)} inputs kept"
    yield from (finding.words for finding in fuzzer.findings)


def main(arguments: Sequence[str] | None = None) -> int:
    """By hand, for as long as one likes."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="of the mutations; new each time if left out")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="where they are written")
    parser.add_argument("--kind", choices=("drop", *SAID), default="drop", help="of the files that are tried")
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().getrandbits(32)
    fuzzer = Fuzzer(seed, Judged() if given.kind == "drop" else Beside(given.kind))
    print(f"seed {seed}")
    fuzzer.run(given.minutes * 60)
    for line in told(fuzzer):
        print(line)
    if fuzzer.findings:
        given.findings.mkdir(exist_ok=True)
        for number, finding in enumerate(fuzzer.findings):
            (given.findings / f"{seed}_{number}.py").write_text(finding.source())
    return 1 if fuzzer.findings else 0


if __name__ == "__main__":
    sys.exit(main())
