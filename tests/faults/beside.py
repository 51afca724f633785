"""What the fuzzer asks of the readers of lists, responses, logs and known keys: good chains are judged beside them."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ReasonFlags, ocsp
from cryptography.x509.oid import CRLEntryExtensionOID

from rotator.core.errors import RotatorError
from rotator.core.problems import Code, Problem, Severity
from rotator.validation.blocklist import Blocklist
from rotator.validation.evidence import Evidence
from rotator.validation.root_store import RootStores
from rotator.validation.root_store_formats import read_store
from rotator.validation.sct import Logs
from rotator.validation.validate import Anchors, private_ca, public, validate_chains
from rotator.x509 import crl, der
from rotator.x509.ocsp import Responses
from rotator.x509.panics import BROKE_OFF
from tests.faults.mutation import Files
from tests.support.authority import CA, NOW, Issued, der_pem, entry, pem, rewritten_response, wrap
from tests.support.extensions import instead
from tests.support.revocation_lists import other_issuer, points, scoped
from tests.support.root_stores import Listed, certdata, chrome, report
from tests.support.transparency import Keeper, log_list, logged

NAME = "signal.example.cn"
MAX_SECONDS = 1.0
"""CPU seconds that reading any such files and judging beside them may take."""

SAID = {
    "crls": {Code.REVOKED, Code.CRL_UNUSABLE, Code.CRL_STALE, Code.REVOCATION_UNKNOWN},
    "ocsp": {Code.REVOKED, Code.REVOCATION_UNKNOWN, Code.OCSP_STALE, Code.MUST_STAPLE},
    "ct-logs": {Code.SCT_MISSING, Code.SCT_INVALID, Code.SCT_DIVERSITY, Code.SCT_UNVERIFIED},
    "blocklist": {Code.COMPROMISED_KEY},
    "root-store": {Code.DISTRUSTED_ROOT, Code.LOCAL_ROOT, Code.DISTRUST_AHEAD},
}
"""What may be said of a good chain beside files of each kind, whatever they hold."""

_KNOWN = {
    CRLEntryExtensionOID.CRL_REASON,
    CRLEntryExtensionOID.INVALIDITY_DATE,
}


class BrokenError(AssertionError):
    """What must hold for any input does not."""


def demand_words(message: str, hint: str) -> None:
    """A message is one line that can be shown, and tells of no panic of the library.

    Raises:
        BrokenError: it is not, or does.
    """
    text = f"{message} {hint}"
    if not text.isprintable() or len(text) > 4000 or not message.endswith("."):
        raise BrokenError(f"a message that cannot be shown: {text!r}")
    if BROKE_OFF in text:
        raise BrokenError("the library panicked")


class Beside:
    """One kind of file, and chains that are good without it.

    Args:
        kind: one of `SAID`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.root = CA.root()
        self.ca = self.root.intermediate()
        self.keepers = (Keeper("first"), Keeper("second", "Two"), Keeper("third", "Three", state="retired"))
        named = instead(points("http://crl.example/7.crl", issuer=self.root.cert.subject), critical=False)
        stapled = x509.TLSFeature([x509.TLSFeatureType.status_request])
        self.chains: list[Issued] = [
            logged(*self.keepers, by=self.ca),
            self.ca.issue(NAME, tweak=named),
            self.ca.issue(NAME, tweak=lambda builder: builder.add_extension(stapled, critical=False)),
        ]
        self.anchors = Anchors.from_pem(pem(self.root.cert), "roots.pem")
        self.signed: set[bytes] = set()
        """SHA-256 of all that the authorities here have signed."""

    def seeds(self) -> list[Files]:
        """Every form that is read, once."""
        seeds = _SEEDS[self.kind](self)
        for files in seeds:
            for data in files:
                for one in self._bodies(data):
                    self.signed.add(one)
        return seeds

    def completed(self, files: Files, chance: random.Random) -> Files:
        """The files, most of them with a signature that fits what was changed: behind that lies the rest."""
        return tuple(self._signed_anew(data) if chance.random() < 0.7 else data for data in files)

    def demand(self, files: Files, *, password: bool, profile: bool) -> None:
        """Reads the files and judges beside them; `password` demands an answer of every list.

        Raises:
            BrokenError: something that must hold does not.
            Exception: whatever the readers or the judge let escape.
        """
        begin = time.process_time()
        evidence = self._evidence(files)
        for issued in self.chains if evidence else ():
            policy = (public if profile else private_ca)([NAME])
            problems = validate_chains([issued.chain_der], policy, self.anchors.beside(evidence), NOW)
            self._demand_said(problems, evidence)
        if (spent := time.process_time() - begin) > MAX_SECONDS:
            raise BrokenError(f"it took {spent:.2f} s")
        for one in evidence.revocations.lists if evidence and evidence.revocations else ():
            for issued in self.chains:
                demand_same_as_library(one, issued.leaf.serial_number)

    def _evidence(self, files: Files) -> Evidence:
        named = [(f"file{number}", data) for number, data in enumerate(files)]
        try:
            match self.kind:
                case "crls":
                    lists = crl.Revocations.from_files(named)
                    self._demand_shown(lists.faults)
                    return Evidence(lists)
                case "ocsp":
                    responses = Responses.from_files(named)
                    self._demand_shown(responses.faults)
                    return Evidence(responses=responses)
                case "ct-logs":
                    return Evidence(logs=Logs.from_json(named[0][1], "logs.json")) if named else Evidence()
                case "root-store":
                    stores = tuple(read_store(data, name, NOW) for name, data in named)
                    return Evidence(root_stores=RootStores(stores)) if stores else Evidence()
            return Evidence(blocked=Blocklist.from_text(named[0][1], "keys.txt")) if named else Evidence()
        except RotatorError as error:
            demand_words(error.message, error.hint)
            if error.code not in (Code.PARSE_ERROR, Code.TOO_LARGE):
                raise BrokenError(f"a file is refused as {error.code}") from error
            return Evidence()

    def _demand_shown(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            demand_words(problem.message, problem.hint)

    def _demand_said(self, problems: Sequence[Problem], evidence: Evidence) -> None:
        self._demand_shown(problems)
        codes = {problem.code for problem in problems}
        if others := codes - SAID[self.kind] - {Code.MUST_STAPLE}:
            raise BrokenError(f"beside such files a good chain is told to be {sorted(others)}")
        refused = {problem.code for problem in problems if problem.severity is Severity.REJECT}
        if Code.REVOKED in refused and not self._said_by_authority(evidence):
            raise BrokenError("something that no authority has signed revokes")

    def _said_by_authority(self, evidence: Evidence) -> bool:
        signed = []
        if evidence.revocations:
            signed += [one.outline.raw[slice(*one.outline.signed)] for one in evidence.revocations.lists]
        if evidence.responses:
            signed += [
                response.loaded.tbs_response_bytes
                for answers in evidence.responses.by_serial.values()
                for response, _ in answers
            ]
        return any(hashlib.sha256(one).digest() in self.signed for one in signed)

    def _bodies(self, data: bytes) -> list[bytes]:
        """SHA-256 of what is signed in a file that is one list or response."""
        try:
            if self.kind == "crls":
                outer = der.children(data, der.element(data, 0, len(data)))
                return [hashlib.sha256(der.whole(data, outer[0])).digest()]
            if self.kind == "ocsp":
                return [hashlib.sha256(ocsp.load_der_ocsp_response(data).tbs_response_bytes).digest()]
        except (der.DerError, IndexError, ValueError):
            pass
        return []

    def _signed_anew(self, data: bytes) -> bytes:
        key = self.ca.key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        try:
            if self.kind == "crls":
                outer = der.children(data, der.element(data, 0, len(data)))
                body, algorithm = der.whole(data, outer[0]), der.whole(data, outer[1])
                signature = wrap(0x03, b"\0" + key.sign(body, ec.ECDSA(hashes.SHA256())))
                data = wrap(0x30, body + algorithm + signature + b"".join(der.whole(data, one) for one in outer[3:]))
            elif self.kind == "ocsp":
                data = rewritten_response(data, key, list)
        except (der.DerError, IndexError, ValueError):
            return data
        self.signed |= set(self._bodies(data))
        return data


def demand_same_as_library(one: crl.Crl, serial: int) -> None:
    """Searching in a list finds what going through it entry by entry finds.

    Raises:
        BrokenError: it does not.
    """
    entries = list(one.loaded)
    try:
        critical = {e.oid for held in entries for e in held.extensions if e.critical}
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return
    if bool(critical - _KNOWN) and not one.unknown_critical:
        raise BrokenError("an unknown critical extension of an entry is passed over")
    if one.unknown_critical or one.fault:
        return
    found = next((held for held in entries if held.serial_number == serial), None)
    if one.entry(serial) != (crl._revoked(found) if found else None):
        raise BrokenError("searching in a list does not find what it says")


# -- where it begins


def _lists(world: Beside) -> list[Files]:
    ca, root, leaf = world.ca, world.root, world.chains[1].leaf
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    indirect = scoped(indirect_crl=True)
    made = [
        ca.crl(),
        ca.crl(leaf),
        ca.crl(entry(5), entry(leaf.serial_number, NOW, ReasonFlags.certificate_hold), number=None),
        ca.crl(entry(5, NOW, None, (unknown, True))),
        ca.crl(leaf, tweak=scoped(only_contains_user_certs=True)),
        ca.crl(leaf, tweak=scoped(full_name=[x509.UniformResourceIdentifier("http://crl.example/7.crl")])),
        ca.crl(leaf, tweak=lambda builder: builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)),
        root.crl(entry(5), entry(leaf.serial_number, NOW, None, other_issuer(ca)), entry(6), tweak=indirect),
        ca.crl(entry(5), entry(6, NOW, None, other_issuer(root)), entry(leaf.serial_number), tweak=indirect),
    ]
    whole = [one.public_bytes(serialization.Encoding.DER) for one in made]
    return [*((one,) for one in whole), (whole[0], whole[1], whole[-2]), (der_pem(*whole[:3], label="X509 CRL"),)]


def _responses(world: Beside) -> list[Files]:
    ca, leaf = world.ca, world.chains[2].leaf
    delegate = ca.responder()
    made = [
        ca.ocsp(leaf),
        ca.ocsp(leaf, revoked=ReasonFlags.key_compromise, digest=hashes.SHA256()),
        ca.ocsp(leaf, revoked=ReasonFlags.certificate_hold, named=ocsp.OCSPResponderEncoding.NAME),
        ca.ocsp(leaf, status=ocsp.OCSPCertStatus.UNKNOWN),
        ca.ocsp(leaf, by=delegate),
        ca.ocsp(leaf, tweak=lambda builder: builder.add_extension(x509.OCSPNonce(b"x" * 16), critical=False)),
    ]
    later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    made.append(later.public_bytes(serialization.Encoding.DER))
    return [*((one,) for one in made), tuple(made[:3]), (der_pem(*made[:2], label="OCSP RESPONSE"),)]


def _logs(world: Beside) -> list[Files]:
    first, second, third = world.keepers
    tiled = Keeper("tiled", "Four", tiled=True, previous=[("Old", NOW)], interval=(NOW, NOW))
    return [(log_list(first, second, third),), (log_list(first, tiled),), (b'{"operators": []}',), (log_list(second),)]


def _keys(world: Beside) -> list[Files]:
    spki = world.ca.cert.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    known = hashlib.sha256(spki).hexdigest().encode()
    return [
        (known + b"\n",),
        (b"# mine\n\n  " + known.upper() + b"  lost.pem\r\n",),
        (b"0" * 64 + b"# none\n",),
        (b"",),
    ]


def _stores(world: Beside) -> list[Files]:
    one, other = Listed(world.root, end=NOW), Listed(CA.root("Another"), names=(".cn",))
    constraints = (f"sct_not_after_sec: {int(NOW.timestamp())}", 'min_version: "1" permitted_dns_names: ["cn", "org"]')
    return [
        (certdata(one, other),),
        (certdata(replace(one, on_trust=True), other, by_hash=False),),
        (report(one, other),),
        (chrome((world.root, constraints), (other.ca, ())),),
        (report(one), chrome((world.root, ()))),
    ]


_SEEDS: Mapping[str, Callable[[Beside], list[Files]]] = {
    "crls": _lists,
    "ocsp": _responses,
    "ct-logs": _logs,
    "blocklist": _keys,
    "root-store": _stores,
}
