"""Revocation lists from files (RFC 5280 section 5): bytes in, lists out; what they mean is `revocation`'s."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from rotator import der
from rotator.certificate import Certificate
from rotator.model import Code, Problem, Severity
from rotator.pem import shown

MAX_CRL = 16 * 1024 * 1024
"""Bytes that a file of revocation lists may hold; the largest of public CAs have about 10 MiB."""

MAX_INDIRECT = 8 * 1024 * 1024
"""Bytes of the entries of an indirect list, all of which have to be gone through; half a second."""

MAX_KINDS = 10_000
"""Different extensions of entries that are parsed, where entries have to be gone through at all."""

_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
_BLOCK = re.compile(re.escape(_BEGIN) + rb"\s*?\n([A-Za-z0-9+/=\s]*?)" + re.escape(_END))
AGAIN = "Fetch it again from the CA, whole."
"""The next step for a list that cannot be used."""

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
_CRITICAL = b"\x01\x01\xff\x04"
"""How each critical extension begins behind its name: TRUE, and the octet string of its value."""


@dataclass(frozen=True, slots=True)
class ListShape:
    """The outline of a certificate revocation list (RFC 5280 section 5.1); its entries are not looked into.

    Args:
        issuer: DER of the name.
        revoked: the entries, as they stand; empty without any.
        algorithms_agree: whether the signature algorithm inside the signed part is the one outside of it.
        tbs: what is signed.
        signature: the signature over it.
    """

    issuer: bytes
    revoked: bytes
    algorithms_agree: bool
    tbs: bytes
    signature: bytes


def revocation_list(data: bytes) -> ListShape:
    """The outline of the revocation list that the bytes are.

    Raises:
        DerError, IndexError: they are none, or something follows it.
    """
    outer = der.expect(der.element(data, 0, len(data)), der.SEQUENCE)
    if outer.end != len(data):
        raise der.DerError("is followed by something else")
    parts = der.children(data, outer)
    inner = der.children(data, der.expect(parts[0], der.SEQUENCE))
    skip = 1 if inner and inner[0].tag == der.INTEGER else 0
    algorithm, issuer = der.expect(inner[skip], der.SEQUENCE), der.expect(inner[skip + 1], der.SEQUENCE)
    entries = [part for part in inner[skip + 2 :] if part.tag == der.SEQUENCE]  # after two times, before [0] extensions
    signature = der.expect(parts[2], der.BIT_STRING)
    return ListShape(
        issuer=der.whole(data, issuer),
        revoked=data[entries[0].body : entries[0].end] if entries else b"",
        algorithms_agree=der.whole(data, algorithm) == der.whole(data, der.expect(parts[1], der.SEQUENCE)),
        tbs=der.whole(data, parts[0]),
        signature=data[signature.body + 1 : signature.end],
    )


@dataclass(frozen=True, slots=True)
class Revoked:
    """An entry: when it was revoked, and why, in the words of RFC 5280 section 5.3.1; without a reason, empty."""

    at: datetime
    reason: str

    @property
    def lifted(self) -> bool:
        """Whether it takes the certificate off the list again, as a delta does at the end of a hold."""
        return self.reason == x509.ReasonFlags.remove_from_crl.value


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
        delta: whether it holds only what has changed since another one (RFC 5280 5.2.4).
        fault: why nobody can use it, in words that follow its name; empty if it can be used.
        breach: what its issuer did against the rules for public CAs; empty if nothing.
        lenient: whether a breach is one that private CAs commit by the habits of their tools.
    """

    file: str
    loaded: x509.CertificateRevocationList = field(repr=False)
    shape: ListShape = field(repr=False)
    issuer: str
    number: int | None
    scope: x509.IssuingDistributionPoint | None
    delta: bool = False
    fault: str = ""
    breach: str = ""
    lenient: bool = False
    _checked: dict[bytes, bool] = field(default_factory=dict, repr=False)
    _entries: dict[tuple[bytes, int], x509.RevokedCertificate] = field(default_factory=dict, repr=False)
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
        if serial < 0:  # the library looks none up; such a certificate is refused for its number
            return None
        if self.indirect:
            found = self._entries.get((issuer, serial))
        else:
            found = self.loaded.get_revoked_certificate_by_serial_number(serial)
        return _revoked(found) if found is not None else None

    def _go_through(self) -> str:
        """Each entry, but each kind of extensions once: most are alike, and to parse them is what costs."""
        data, at, issuer = self.shape.revoked, 0, self.shape.issuer
        if self.indirect and len(data) > MAX_INDIRECT:
            return f"is indirect and has more than {MAX_INDIRECT >> 20} MiB of entries"
        kinds: dict[bytes, tuple[str, bytes]] = {b"": ("", b"")}
        for one in self.loaded:
            whole = der.element(data, at, len(data))
            date = der.element(data, der.element(data, whole.body, whole.end).end, whole.end)
            extensions, at = data[date.end : whole.end], whole.end
            if extensions not in kinds:
                if len(kinds) > MAX_KINDS:
                    return "has too many different entries to go through all of them"
                kinds[extensions] = self._kind(one)
            fault, named = kinds[extensions]
            if fault:
                return fault
            if named:
                issuer = named  # for this entry and those after it, until another one is named (RFC 5280 5.3.3)
            if self.indirect:
                self._entries[issuer, one.serial_number] = one
        return ""

    def _kind(self, one: x509.RevokedCertificate) -> tuple[str, bytes]:
        """What makes an entry unusable, or nothing; and DER of the issuer that it names, or nothing."""
        try:
            extensions = list(one.extensions)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            return "has an entry whose extensions cannot be read", b""
        named = b""
        for extension in extensions:
            if extension.critical and extension.oid not in _UNDERSTOOD_OF_ENTRIES:
                oid = extension.oid.dotted_string
                return f"has an entry with a critical extension that is not understood ({oid})", b""
            if isinstance(extension.value, x509.CertificateIssuer):
                if not self.indirect:
                    return "speaks of certificates of others without being indirect", b""
                names = extension.value.get_values_for_type(x509.DirectoryName)
                named = names[0].public_bytes() if names else b"?"
        return "", named


def _revoked(entry: x509.RevokedCertificate) -> Revoked:
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        reason = ""
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
                faults.append(Problem(Code.CRL_UNUSABLE, Severity.WARN, message, AGAIN, shown(file)))
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
    shape = revocation_list(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = x509.load_der_x509_crl(data)
    issuer = shown(loaded.issuer.rfc4514_string())
    try:
        extensions = {e.oid.dotted_string: e for e in loaded.extensions}
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return Crl(title, loaded, shape, issuer, None, None, fault="has extensions that cannot be read")
    scope = extensions.get(ExtensionOID.ISSUING_DISTRIBUTION_POINT.dotted_string)
    numbered = extensions.get(ExtensionOID.CRL_NUMBER.dotted_string)
    number = numbered.value.crl_number if numbered and isinstance(numbered.value, x509.CRLNumber) else None
    unknown = [oid for oid, e in extensions.items() if e.critical and oid not in _UNDERSTOOD]
    fault, breach, lenient = "", "", False
    if unknown:
        fault = f"has a critical extension that is not understood ({unknown[0]}; RFC 5280 5.2)"
    elif numbered is not None and numbered.critical:
        breach = "marks its CRLNumber as critical, which is forbidden (RFC 5280 5.2.3)"
    elif number is not None and number.bit_length() > 159:
        breach = "has a CRLNumber of more than 20 octets (RFC 5280 5.2.3)"
    elif number is None:
        breach, lenient = "has no CRLNumber (RFC 5280 5.2.3)", True
    elif loaded.next_update_utc is None:
        breach, lenient = "does not say when the next one comes (RFC 5280 5.1.2.5)", True
    value = scope.value if scope and isinstance(scope.value, x509.IssuingDistributionPoint) else None
    delta = ExtensionOID.DELTA_CRL_INDICATOR.dotted_string in extensions
    return Crl(title, loaded, shape, issuer, number, value, delta, fault, breach, lenient)
