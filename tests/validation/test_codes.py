"""Every code that a problem can have is found by something that somebody could deliver."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rotator.core.errors import RotatorError
from rotator.core.model import MAX_FILE, Secret, SourceFile
from rotator.core.problems import Code
from rotator.sources.file_reader import read_named
from rotator.validation.blocklist import Blocklist
from rotator.validation.evidence import Evidence
from rotator.validation.root_store import RootStores
from rotator.validation.root_store_formats import read_store
from rotator.validation.sct import Logs
from rotator.validation.validate import Anchors, Verdict, public, validate_files
from rotator.x509.crl import Revocations
from rotator.x509.ocsp import Responses
from tests.support.authority import CA, NOW, Issued, der_pem, key_pem, new_key, pem, rewritten, with_extensions
from tests.support.extensions import FEW_USES, STAPLE, also, instead, same_ca, self_signed
from tests.support.faulty_leaves import ODD, REFUSED, WARNED, sha1_leaf, twice
from tests.support.hosts import Host
from tests.support.judging import ANCHORS, GOOD, ICA, NAME, ROOT, files, judge, odd
from tests.support.other_user import as_nobody
from tests.support.revocation_lists import pem_of
from tests.support.root_stores import Listed, report
from tests.support.transparency import Keeper, log_list, logged

DAY = timedelta(days=1)


def judged() -> set[str]:
    """What the judge finds in a candidate alone."""
    verdicts = [*everything(), bad_signature()]
    return {str(p.code) for verdict in verdicts for p in verdict.problems}


def found_beside_the_roots() -> set[str]:
    """What revocation lists, OCSP responses, logs, lists of keys and root stores find."""
    one, other, second = Keeper("first"), Keeper("first again"), Keeper("second", "Two")
    staple = ICA.issue(NAME, tweak=also(STAPLE))
    stale = ICA.ocsp(staple.leaf, begin=NOW - 9 * DAY, end=NOW - DAY)
    spki = GOOD.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    old = NOW - 99 * DAY
    known = Blocklist.from_text(hashlib.sha256(spki).hexdigest().encode(), "keys.txt")
    verdicts = [
        *(
            judge(GOOD, anchors=ANCHORS.beside(Evidence(Revocations.from_files([("crls.pem", pem_of(crl))]))))
            for crl in (
                ICA.crl(GOOD.leaf),
                ROOT.crl(),
                ICA.crl(begin=NOW - 9 * DAY, end=NOW - DAY),
                ICA.crl(begin=NOW + DAY),
            )
        ),
        *(
            judge(issued, anchors=ANCHORS.beside(Evidence(logs=Logs.from_json(log_list(one, other, second), "logs"))))
            for issued in (
                logged(one, lambda body, _: second.sct(body, ROOT.cert), by=ICA),
                logged(one, Keeper("stranger", "Stranger"), by=ICA),
                logged(one, other, by=ICA),
            )
        ),
        judge(staple, anchors=ANCHORS.beside(Evidence(responses=Responses.from_files([("staple.der", stale)])))),
        judge(GOOD, anchors=ANCHORS.beside(Evidence(blocked=known))),
        *(
            judge(GOOD, anchors=ANCHORS.beside(Evidence(root_stores=RootStores((read_store(report(one), "x", old),)))))
            for one in (Listed(ROOT, end=NOW - 9 * DAY), Listed(ROOT, end=NOW + DAY), Listed(CA.root("Else")))
        ),
    ]
    return {str(p.code) for verdict in verdicts for p in verdict.problems}


def raised(work: Callable[[], object]) -> str:
    """The code of the refusal."""
    with pytest.raises(RotatorError) as caught:
        work()
    return caught.value.code


def read(tmp_path: Path) -> set[str]:
    """What the reader finds where there is no file, or none for this user."""
    tmp_path.chmod(0o755)
    (tmp_path / "closed.key").write_bytes(b"x")
    (tmp_path / "closed.key").chmod(0)
    (closed,) = as_nobody(lambda: [raised(lambda: read_named("closed.key"))], cwd=tmp_path)
    return {raised(lambda: read_named(tmp_path / "absent.pem")), closed}


def rotated(tmp_path: Path) -> set[str]:
    """What nginx finds in a pair that the judge accepts."""
    (tmp_path / "host").mkdir()
    host = Host(tmp_path / "host")
    (site,) = host.sites
    host.world.nginx.refused_candidates = ('SSL_CTX_use_PrivateKey("privkey.pem") failed',)
    first = host.swap(site, host.issue())
    host.world.nginx.refused_candidates = ()
    host.world.rehearsal = "no shared cipher"
    second = host.swap(site, host.issue())
    return {str(p.code) for done in (first, second) for p in done.problems}


def test_every_code_is_found_in_something(tmp_path: Path) -> None:
    found = judged() | found_beside_the_roots() | read(tmp_path) | rotated(tmp_path)
    found.add(raised(lambda: Anchors.from_pem(b"# no roots", "roots.pem")))
    assert {str(code) for code in Code} - found == set()


def _encrypted() -> bytes:
    best = serialization.BestAvailableEncryption(b"secret")
    return GOOD.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, best)


def _with(chain: bytes, key: bytes, password: bytes | None = None) -> Verdict:
    candidate = files(("chain.pem", chain), SourceFile("key.pem", key, 0o644))
    return validate_files(
        replace(candidate, password=Secret(password) if password else None), public([NAME]), ANCHORS, NOW
    )


def everything() -> list[Verdict]:
    """Verdicts that between them hold every code that a candidate alone can have."""
    good, key = GOOD.chain_pem, GOOD.key_pem
    live_rsa = ICA.issue(NAME, "www.example.cn", kind="rsa", not_before=NOW - DAY)
    live_same = ICA.issue(NAME, key=GOOD.key, not_before=NOW - DAY)
    expired_root = CA.root("Old", days=-1)
    cross = same_ca(ROOT, CA.root("Old Root"), not_after=NOW - DAY)
    nowhere = same_ca(ICA, CA.root("Nowhere"))
    wrong_id = x509.AuthorityKeyIdentifier(b"\1" * 20, None, None)
    untrusted = CA.root("Other")
    deep = ROOT
    for number in range(9):
        deep = deep.intermediate(f"Level {number}", pathlen=None)
    return [
        *(judge(make()) for make, _ in REFUSED.values()),
        *(judge(make()) for make, _ in WARNED.values()),
        judge(ROOT.intermediate("X", not_after=NOW - DAY).issue(NAME)),
        judge(ROOT.intermediate("X", tweak=instead(FEW_USES)).issue(NAME)),
        judge(ROOT.intermediate("S", pathlen=0).intermediate("X").issue(NAME)),
        *(odd(rewritten(GOOD.leaf, ICA.key, change)) for change, _ in ODD.values()),
        odd(with_extensions(GOOD.leaf, ICA.key, twice)),
        judge(sha1_leaf()),
        judge(GOOD, names=["else.example.cn"]),
        judge(ICA.issue(NAME, not_before=NOW - 60 * DAY), live=[GOOD]),
        judge(ICA.issue(NAME, days=6), live=[ICA.issue(NAME, not_before=NOW - 2 * DAY)]),
        judge(ICA.issue(NAME, not_before=NOW - 3 * DAY, days=99), live=[GOOD]),
        judge(GOOD, live=[live_rsa]),
        judge(GOOD, live=[live_same]),
        judge(GOOD, live=[live_same], policy=replace(public([NAME]), allow_key_reuse=False)),
        judge(CA.root("Two", key=ROOT.key).issue(NAME), live=[GOOD]),
        judge(expired_root.issue(NAME), anchors=Anchors.from_pem(pem(expired_root.cert), "roots.pem")),
        judge(ICA.issue(NAME, tweak=instead(wrong_id, critical=False))),
        judge(Issued(GOOD.key, GOOD.leaf)),
        judge(self_signed(NAME)),
        judge(Issued(GOOD.key, GOOD.leaf, (nowhere.cert, ICA.cert, ICA.cert, cross.cert, ROOT.cert))),
        judge(Issued(GOOD.key, GOOD.leaf, (ICA.cert, untrusted.intermediate("Stranger").cert))),
        judge(Issued(*_untrusted(untrusted))),
        judge(ROOT.intermediate("Short", days=40).issue(NAME)),
        judge(ICA.issue(NAME, not_before=NOW - 80 * DAY)),
        judge(deep.issue(NAME)),
        _with(pem(ICA.cert, GOOD.leaf), key),
        _with(b"", key),
        _with(good + b"\n" * MAX_FILE, key),
        _with(good[:-40], key),
        _with(good.replace(b"\n", b"\n\0", 1), key),
        _with(der_pem(GOOD.chain_der[0] + b"\0") + pem(ICA.cert), key),
        _with(good + key, key),
        _with(key, key),
        _with(good, b"# nothing\n"),
        _with(good, key_pem(new_key())),
        _with(good, key + key_pem(new_key())),
        _with(good, _encrypted()),
        _with(good, _encrypted(), b"wrong"),
        _with(good, der_pem(b"\4\1x", label="PRIVATE KEY")),
        _with(good, der_pem(_flipped(), label="EC PRIVATE KEY")),
    ]


def _untrusted(other: CA) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate, tuple[x509.Certificate, ...]]:
    issued = other.intermediate("Other Two").issue(NAME)
    assert isinstance(issued.key, ec.EllipticCurvePrivateKey)
    return issued.key, issued.leaf, (*issued.intermediates, other.cert)


def _flipped() -> bytes:
    assert isinstance(GOOD.key, ec.EllipticCurvePrivateKey)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    data = bytearray(GOOD.key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption()))
    data[20] ^= 1
    return bytes(data)


def bad_signature() -> Verdict:
    forged = rewritten(GOOD.leaf, new_key(), lambda tbs: tbs)
    return odd(forged)


def test_messages_are_sentences_for_people() -> None:
    for verdict in everything():
        for problem in verdict.problems:
            assert problem.message.endswith(".")
            assert problem.message.isprintable()
            assert "None " not in problem.message.removeprefix("None of the files")
