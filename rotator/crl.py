"""Revocation lists from files: bytes in, what they say of the certificates of a path out; none is ever fetched.

A list counts for a certificate where all of this holds (RFC 5280 sections 5 and 6.3.3):

 1. Issuer: it comes from the certificate's issuer, or is indirect and from whom the certificate's distribution points
    name for it. Its signature is by a key of the path or of a trusted root of that name, which may sign such lists.
 2. Scope: its issuingDistributionPoint lets it speak of this kind of certificate and of this distribution point.
 3. Form: no critical extension that is not understood, in it or in any entry; no delta.
 4. Time: it has begun, and its nextUpdate is not over.

Delta lists are not put together with their base: whoever keeps lists in files has complete ones to keep. What an
authentic list names as revoked is so even if that list is out of date; that it does not name something then says
nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from rotator import der
from rotator.certificate import Certificate, about, colons
from rotator.model import Code, Policy, Problem, Severity
from rotator.pem import shown

MAX_CRL = 16 * 1024 * 1024
"""Bytes that a file of revocation lists may hold; the largest of public CAs have about 10 MiB."""

MAX_POINTS = 64
"""Distribution points of a certificate that are compared with the scope of each list; CAs write one or two."""

_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
_BLOCK = re.compile(re.escape(_BEGIN) + rb"\s*?\n([A-Za-z0-9+/=\s]*?)" + re.escape(_END))
_AGAIN = "Fetch it again from the CA, whole."

_UNDERSTOOD = frozenset(
    oid.dotted_string
    for oid in (
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.ISSUING_DISTRIBUTION_POINT,
        ExtensionOID.DELTA_CRL_INDICATOR,
        ExtensionOID.CRL_NUMBER,
    )
)
_UNDERSTOOD_OF_ENTRIES = frozenset(
    {CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE, CRLEntryExtensionOID.CERTIFICATE_ISSUER}
)
_ALL_REASONS = frozenset(x509.ReasonFlags) - {x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl}
_CRITICAL = b"\x01\x01\xff"


@dataclass(frozen=True, slots=True)
class Revoked:
    """An entry: when it was revoked, and why, in the words of RFC 5280 section 5.3.1; without a reason, empty."""

    at: datetime
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Crl:
    """One revocation list that has been read, not judged.

    Args:
        file: where it was found.
        loaded: as the library has it.
        shape: its outline.
        issuer: for messages.
        number: its CRLNumber; None without one.
        scope: its issuingDistributionPoint; None without one.
        fault: why nobody can use it, in words that follow its name; empty if it can be used.
        breach: what its issuer did against the rules for public CAs; empty if nothing.
        lenient: whether a breach is one that private CAs commit by the habits of their tools.
    """

    file: str
    loaded: x509.CertificateRevocationList = field(repr=False)
    shape: der.ListShape = field(repr=False)
    issuer: str
    number: int | None
    scope: x509.IssuingDistributionPoint | None
    fault: str = ""
    breach: str = ""
    lenient: bool = False
    _checked: dict[bytes, bool] = field(default_factory=dict, repr=False)
    _entries: dict[tuple[bytes, int], Revoked] = field(default_factory=dict, repr=False)
    _strange: list[str] = field(default_factory=list, repr=False)

    def signed_by(self, issuer: Certificate) -> bool:
        """Whether this key made its signature; computed once, as a list may be long and is asked of often."""
        spki = issuer.shape.spki
        if spki not in self._checked:
            self._checked[spki] = self.shape.algorithms_agree and issuer.made(
                self.shape.signature, self.shape.tbs, self.loaded
            )
        return self._checked[spki]

    @property
    def indirect(self) -> bool:
        """Whether it may speak of certificates of others."""
        return self.scope is not None and self.scope.indirect_crl

    @property
    def strange(self) -> str:
        """What its entries hold that is critical and not understood (RFC 5280 5.3); empty if nothing.

        Asked of an authentic list only: all entries are gone through, where any is critical at all.
        """
        if not self._strange:
            self._strange.append(self._go_through() if self.indirect or _CRITICAL in self.shape.revoked else "")
        return self._strange[0]

    def entry(self, issuer: bytes, serial: int) -> Revoked | None:
        """What it says of a certificate, after `strange` has been asked.

        Args:
            issuer: DER of the name of the certificate's issuer.
            serial: its serial number.
        """
        if self.indirect:
            return self._entries.get((issuer, serial))
        found = self.loaded.get_revoked_certificate_by_serial_number(serial)
        return _revoked(found) if found is not None else None

    def _go_through(self) -> str:
        issuer = self.shape.issuer
        for one in self.loaded:
            try:
                extensions = list(one.extensions)
            except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
                return "has an entry whose extensions cannot be read"
            for extension in extensions:
                if extension.critical and extension.oid not in _UNDERSTOOD_OF_ENTRIES:
                    return (
                        f"has an entry with a critical extension that is not understood ({extension.oid.dotted_string})"
                    )
                if isinstance(extension.value, x509.CertificateIssuer):
                    if not self.indirect:
                        return "speaks of certificates of others without being indirect"
                    names = extension.value.get_values_for_type(x509.DirectoryName)
                    # it holds for this entry and those after it, until another one is named (RFC 5280 5.3.3)
                    issuer = names[0].public_bytes() if names else b""
            if self.indirect and (found := _revoked(one)) is not None:
                self._entries[issuer, one.serial_number] = found
        return ""


def _revoked(entry: x509.RevokedCertificate) -> Revoked | None:
    """What an entry says; None for one that takes a certificate off the list again."""
    reason = ""
    try:
        flag = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        if flag is x509.ReasonFlags.remove_from_crl:
            return None
        reason = flag.value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        pass
    return Revoked(entry.revocation_date_utc, reason)


@dataclass(frozen=True, slots=True, eq=False)
class Revocations:
    """All revocation lists that were named.

    Args:
        name: where they came from, for messages.
        lists: in the order read.
        digest: SHA-256 (hex) over their files.
        faults: what could not be read of them: `crl-unusable`.
    """

    name: str
    lists: tuple[Crl, ...]
    digest: str
    faults: tuple[Problem, ...] = ()

    @classmethod
    def from_files(cls, files: Sequence[tuple[str, bytes]], name: str = "") -> Revocations:
        """Read files of revocation lists, PEM or DER; never raises for what they hold.

        Args:
            files: name and content of each.
            name: what to call them together; the files' names without one.
        """
        whole = hashlib.sha256()
        lists: list[Crl] = []
        faults: list[Problem] = []
        for file, data in files:
            found, words = _read_all(data, shown(file))
            lists += found
            if words:
                message = f"{shown(file)} {words}."
                faults.append(Problem(Code.CRL_UNUSABLE, Severity.WARN, message, _AGAIN, shown(file)))
            whole.update(hashlib.sha256(data).digest())
        name = name or ", ".join(shown(file) for file, _ in files)
        return cls(name, tuple(lists), whole.hexdigest(), tuple(faults))


def _read_all(data: bytes, title: str) -> tuple[list[Crl], str]:
    """The revocation lists of a file as far as they can be read, and what is wrong with the rest; empty if nothing."""
    if len(data) > MAX_CRL:
        return [], f"holds more than {MAX_CRL >> 20} MiB"
    words, blocks = "", [data]
    if b"-----BEGIN " in data:
        found = _BLOCK.findall(data)
        if not found or len(found) != data.count(_BEGIN):
            words = "holds no revocation list, or one that is cut off"
        blocks = [b"".join(block.split()) for block in found]
    lists = []
    for block in blocks:
        try:
            raw = base64.b64decode(block, validate=True) if block is not data else data
            lists.append(_read(raw, title))
        except (der.DerError, IndexError, ValueError, TypeError, x509.InvalidVersion):  # binascii.Error is a ValueError
            words = "holds something that is no revocation list, or one that is damaged or cut off"
    return lists, words


def _read(data: bytes, title: str) -> Crl:
    shape = der.revocation_list(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = x509.load_der_x509_crl(data)
    issuer = shown(loaded.issuer.rfc4514_string())
    try:
        extensions = {e.oid.dotted_string: e for e in loaded.extensions}
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return Crl(title, loaded, shape, issuer, None, None, "has extensions that cannot be read")
    scope = extensions.get(ExtensionOID.ISSUING_DISTRIBUTION_POINT.dotted_string)
    numbered = extensions.get(ExtensionOID.CRL_NUMBER.dotted_string)
    number = numbered.value.crl_number if numbered and isinstance(numbered.value, x509.CRLNumber) else None
    unknown = [oid for oid, e in extensions.items() if e.critical and oid not in _UNDERSTOOD]
    fault, breach, lenient = "", "", False
    if unknown:
        fault = f"has a critical extension that is not understood ({unknown[0]}; RFC 5280 5.2)"
    elif ExtensionOID.DELTA_CRL_INDICATOR.dotted_string in extensions:
        fault = "is a delta, which is of no use without its base; the complete list is what is needed"
    elif numbered is not None and numbered.critical:
        breach = "marks its CRLNumber as critical, which is forbidden (RFC 5280 5.2.3)"
    elif number is not None and number.bit_length() > 159:
        breach = "has a CRLNumber of more than 20 octets (RFC 5280 5.2.3)"
    elif number is None:
        breach, lenient = "has no CRLNumber (RFC 5280 5.2.3)", True
    elif loaded.next_update_utc is None:
        breach, lenient = "does not say when the next one comes (RFC 5280 5.1.2.5)", True
    value = scope.value if scope and isinstance(scope.value, x509.IssuingDistributionPoint) else None
    return Crl(title, loaded, shape, issuer, number, value, fault, breach, lenient)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a list cannot be used for an answer.

    Args:
        words: they follow its name.
        authentic: whether it is the CA's own and can be read, so that what it names as revoked is so.
        breach: whether the CA itself acts against the rules for public ones, which refuses: no other copy of the file
            mends that. Whatever else is wrong with a list is the lack of this host, and no renewal shall fail for it.
    """

    words: str
    authentic: bool = True
    breach: bool = False


def problems_of(
    served: Sequence[Certificate],
    authorities: Sequence[Certificate],
    revocations: Revocations,
    roots: Iterable[Certificate],
    policy: Policy,
    now: datetime,
) -> tuple[Problem, ...]:
    """What the lists say of a leaf and its intermediates.

    Args:
        served: the leaf and its intermediates.
        authorities: the issuer of each of them; the last one is trusted by itself and not looked up.
        revocations: the lists.
        roots: other trusted roots, one of which may have signed a list.
        policy: the profile, and whether an answer is demanded.
        now: the reference time, UTC.

    Returns:
        `revoked`; or, where a certificate's state is not known, `crl-stale`, `crl-unusable` or `revocation-unknown`.
    """
    keys = (*authorities, *roots)
    problems: list[Problem] = []
    for certificate, issuer in zip(served, authorities, strict=False):
        problems += _look_up(certificate, (issuer, *keys), revocations, policy, now)
    return tuple(problems)


def _look_up(
    certificate: Certificate, keys: Sequence[Certificate], revocations: Revocations, policy: Policy, now: datetime
) -> list[Problem]:
    """One certificate in all lists."""
    covered: frozenset[x509.ReasonFlags] = frozenset()
    doubts: list[tuple[Code, str, str, Severity]] = []
    demanded = Severity.REJECT if policy.require_crls else Severity.WARN
    for crl in revocations.lists:
        if not _speaks_of(crl, certificate):
            continue
        doubt = _doubt(crl, keys, policy, now)
        if doubt:
            words = f"{_called(crl)} {doubt.words}"
            doubts.append((Code.CRL_UNUSABLE, words, _AGAIN, Severity.REJECT if doubt.breach else demanded))
        found = crl.entry(certificate.shape.issuer, certificate.shape.serial) if not doubt or doubt.authentic else None
        if found is not None:
            return [_told(certificate, crl, found)]
        end = crl.loaded.next_update_utc
        if end is not None and end < now and not doubt:
            words = f"{_called(crl)} was due to be replaced on {end:%Y-%m-%d %H:%M}Z"
            hint = "Let whatever fetches the lists run again; until then a newer revocation would not be noticed."
            doubts.append((Code.CRL_STALE, words, hint, demanded))
        elif not doubt:
            reasons = crl.scope.only_some_reasons if crl.scope else None
            covered |= _ALL_REASONS if reasons is None else reasons & _ALL_REASONS
    if covered >= _ALL_REASONS:
        return []
    problems = [
        about(certificate, code, f"may be revoked: {words}", hint, severity)
        for code, words, hint, severity in dict.fromkeys(doubts)
    ]
    if not problems:
        words = f"is not covered by any revocation list in {revocations.name}: whether it is revoked is not known"
        words += " for every reason" if covered else ""
        hint = f"Fetch the list of {certificate.issuer or 'its issuer'}"
        points = [url for one in _points(certificate) for url in _urls(one.full_name)]
        hint += f": {points[0]}" if points else "."
        problems.append(about(certificate, Code.REVOCATION_UNKNOWN, words, hint, demanded))
    return problems


def _told(certificate: Certificate, crl: Crl, found: Revoked) -> Problem:
    why = f" ({found.reason})" if found.reason and found.reason != "unspecified" else ""
    number = f" number {crl.number}" if crl.number is not None else ""
    words = f"was revoked on {found.at:%Y-%m-%d %H:%M}Z{why}, says the list{number} of {crl.issuer} in {crl.file}"
    hint = "Have it issued again, with a new key if the old one may be known to others."
    return about(certificate, Code.REVOKED, words, hint)


def _called(crl: Crl) -> str:
    return f"the list of {crl.issuer} in {crl.file}"


def _doubt(crl: Crl, keys: Sequence[Certificate], policy: Policy, now: datetime) -> Doubt | None:
    """Why a list cannot be used; None if it can be."""
    named = [key for key in keys if key.shape.subject == crl.shape.issuer]
    signers = [key for key in named if crl.signed_by(key)]
    if not named:
        return Doubt("is signed by an authority whose certificate is not at hand", authentic=False)
    if not signers:
        return Doubt(f"is not signed with that CA's key ({colons(named[0].key_id) or '?'})", authentic=False)
    if crl.fault or crl.strange:
        return Doubt(crl.fault or crl.strange, authentic=False)
    usages = [key.ext(x509.KeyUsage) for key in signers]
    if all(usage is not None and not usage.crl_sign for usage in usages):
        words = "is signed by a CA that may not sign such lists (keyUsage lacks cRLSign; RFC 5280 6.3.3 f)"
        return Doubt(words, breach=policy.binds_public)
    if crl.breach and (policy.binds_public or not crl.lenient):
        return Doubt(crl.breach, breach=policy.binds_public)
    begin = crl.loaded.last_update_utc
    if begin > now:
        return Doubt(f"does not begin before {begin:%Y-%m-%d %H:%M}Z; is this host's clock right?")
    return None


# -- scope


def _points(certificate: Certificate) -> Sequence[x509.DistributionPoint]:
    return list(certificate.ext(x509.CRLDistributionPoints) or ())[:MAX_POINTS]


def _urls(names: Iterable[x509.GeneralName] | None) -> list[str]:
    return [shown(name.value) for name in names or () if isinstance(name, x509.UniformResourceIdentifier)]


def _speaks_of(crl: Crl, certificate: Certificate) -> bool:
    """Whether a list is about a certificate, by issuer and scope (RFC 5280 6.3.3 b)."""
    own = crl.shape.issuer == certificate.shape.issuer
    points = list(_points(certificate))
    if not own:
        points = [one for one in points if _names_issuer(one, crl)]
        if not crl.indirect or not points:
            return False
    scope = crl.scope
    if scope is None:
        return True
    if scope.only_contains_attribute_certs:
        return False
    if scope.only_contains_user_certs if certificate.is_ca else scope.only_contains_ca_certs:
        return False
    names = _names(scope.full_name, scope.relative_name, crl)
    return not names or any(names & _names(one.full_name or one.crl_issuer, one.relative_name, crl) for one in points)


def _names_issuer(point: x509.DistributionPoint, crl: Crl) -> bool:
    """Whether a distribution point lets this list's issuer speak (cRLIssuer)."""
    names = [name for name in point.crl_issuer or () if isinstance(name, x509.DirectoryName)]
    return any(name.value.public_bytes() == crl.shape.issuer for name in names)


def _names(
    full: Iterable[x509.GeneralName] | None, relative: x509.RelativeDistinguishedName | None, crl: Crl
) -> frozenset[x509.GeneralName]:
    """The names of a distribution point, a relative one completed (RFC 5280 4.2.1.13)."""
    if relative is not None:
        return frozenset({x509.DirectoryName(x509.Name([*crl.loaded.issuer.rdns, relative]))})
    return frozenset(full or ())
