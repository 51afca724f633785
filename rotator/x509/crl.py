"""The reader of certificate revocation lists: bytes of files in, `Crl` values out (RFC 5280 section 5).

`rotator.validation.revocation` decides what a list says of a certificate. Indirect lists are refused here: they speak
of certificates of other issuers, and the CA/B Baseline Requirements forbid them (7.2.2.1).
"""

from __future__ import annotations

import binascii
import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.x509 import der
from rotator.x509.certificate import Certificate
from rotator.x509.panics import contained

MAX_CRL = 16 * 1024 * 1024
"""The most bytes of a file of revocation lists; the largest lists of public CAs have about 10 MiB."""

_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
_BLOCK = re.compile(re.escape(_BEGIN) + rb"\s*?\n([A-Za-z0-9+/=\s]*?)" + re.escape(_END))
_CHUNK = 64 * 1024
"""The bytes of base64 that are decoded at a time."""
AGAIN = "Fetch it again from the CA, whole."
"""The next step for a list that cannot be used."""

_INDIRECT = "holds an indirect revocation list, which rotator does not use (CA/B BR 7.2.2.1 forbids them)"
_DIRECT = "Name the complete list that the certificate's own issuer signs."

_UNDERSTOOD = frozenset(
    oid.dotted_string
    for oid in (
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.ISSUING_DISTRIBUTION_POINT,
        ExtensionOID.DELTA_CRL_INDICATOR,
        ExtensionOID.CRL_NUMBER,
    )
)
# A list has hundreds of thousands of entries, so the extensions of entries are found by their encoding in DER: the
# object identifier, TRUE if the extension is critical, and the tag of the octet string that holds the value.
_REASON, _INVALIDITY_DATE = (
    der.encoded_oid(oid.dotted_string)
    for oid in (CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE)
)
_CRITICAL = b"\x01\x01\xff\x04"
_NOT_UNDERSTOOD = re.compile(
    b"".join(b"(?<!%s)" % re.escape(oid) for oid in (_REASON, _INVALIDITY_DATE)) + re.escape(_CRITICAL)
)
_MAX_OID = 127
"""Octets of an object identifier whose length is written in one octet (X.690 8.1.3.4)."""


@dataclass(frozen=True, slots=True)
class CrlOutline:
    """The outer structure of a certificate revocation list (RFC 5280 section 5.1), with its entries unparsed.

    Args:
        raw: the whole list; only once in memory, as it may have megabytes.
        issuer: the DER of the issuer's name.
        entries: the offsets in `raw` of the start and the end of the entries; equal if there are none.
        algorithms_agree: whether the signed part names the same signature algorithm as the outer structure.
        signed: the offsets in `raw` of the start and the end of the signed part.
        signature: the signature over the signed part.
    """

    raw: bytes
    issuer: bytes
    entries: tuple[int, int]
    algorithms_agree: bool
    signed: tuple[int, int]
    signature: bytes


def revocation_list(data: bytes) -> CrlOutline:
    """The outline of a revocation list in DER.

    Raises:
        DerError, IndexError: the bytes are no revocation list, or other bytes follow it.
    """
    outer = der.expect(der.element(data, 0, len(data)), der.SEQUENCE)
    if outer.end != len(data):
        raise der.DerError("is followed by something else")
    parts = der.children(data, outer)
    inner = der.children(data, der.expect(parts[0], der.SEQUENCE))
    skip = 1 if inner and inner[0].tag == der.INTEGER else 0
    algorithm, issuer = der.expect(inner[skip], der.SEQUENCE), der.expect(inner[skip + 1], der.SEQUENCE)
    entries = [part for part in inner[skip + 2 :] if part.tag == der.SEQUENCE]  # the times and [0] have other tags
    signature = der.expect(parts[2], der.BIT_STRING)
    return CrlOutline(
        raw=data,
        issuer=der.whole(data, issuer),
        entries=(entries[0].body, entries[0].end) if entries else (outer.end, outer.end),
        algorithms_agree=der.whole(data, algorithm) == der.whole(data, der.expect(parts[1], der.SEQUENCE)),
        signed=(parts[0].start, parts[0].end),
        signature=data[signature.body + 1 : signature.end],
    )


@dataclass(frozen=True, slots=True)
class CrlEntry:
    """One entry of a revocation list.

    Args:
        at: the time of revocation, UTC.
        reason: the reason as RFC 5280 section 5.3.1 spells it; empty if the entry has none.
    """

    at: datetime
    reason: str

    @property
    def lifted(self) -> bool:
        """Whether it removes the certificate from the list, as a delta list does at the end of a hold."""
        return self.reason == x509.ReasonFlags.remove_from_crl.value


@dataclass(frozen=True, slots=True, eq=False)
class Crl:
    """One revocation list that has been read; `rotator.validation.revocation` evaluates it.

    Args:
        file: the file that contains it.
        loaded: the library's object.
        outline: its outer structure.
        issuer: its issuer's name, for messages.
        number: its CRLNumber; None without one.
        scope: its issuingDistributionPoint; None without one.
        delta: whether it has only the changes since a complete list (RFC 5280 5.2.4).
        fault: the reason for which no client can use it, as a clause after its name; empty if it can be used.
        breach: the rule for public CAs that its issuer broke, as a clause after its name; empty if none.
        lenient: whether the tools of private CAs commonly break the same rule.
    """

    file: str
    loaded: x509.CertificateRevocationList = field(repr=False)
    outline: CrlOutline = field(repr=False)
    issuer: str
    number: int | None
    scope: x509.IssuingDistributionPoint | None
    delta: bool = False
    fault: str = ""
    breach: str = ""
    lenient: bool = False
    _checked: dict[bytes, bool] = field(default_factory=dict, repr=False)
    _entries: dict[int, CrlEntry | None] = field(default_factory=dict, repr=False)
    _unknown_critical: list[str] = field(default_factory=list, repr=False)

    def signed_by(self, issuer: Certificate) -> bool:
        """Whether this issuer's key made its signature; the answer is kept, as a list may be long."""
        spki = issuer.outline.spki
        if spki not in self._checked:
            outline, (start, end) = self.outline, self.outline.signed
            signed = memoryview(outline.raw)[start:end]
            self._checked[spki] = outline.algorithms_agree and issuer.verifies(outline.signature, signed, self.loaded)
        return self._checked[spki]

    @property
    def unknown_critical(self) -> str:
        """A clause about an entry's critical extension that is not understood (RFC 5280 5.3); empty if there is none.

        Ask only for an authentic list: the whole list is searched. The answer is kept.
        """
        if not self._unknown_critical:
            self._unknown_critical.append(self._find_unknown_critical())
        return self._unknown_critical[0]

    def entry(self, serial: int) -> CrlEntry | None:
        """The entry of a certificate of this list's issuer, if any; check `unknown_critical` first.

        Args:
            serial: the certificate's serial number.
        """
        if serial < 0:
            return None  # the certificate is refused for its number, and the library cannot look such a number up
        if serial not in self._entries:
            number = der.encode(der.INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
            entry = None
            # a search for the number's octets is quick, and most certificates are on no list
            if self.outline.raw.find(number, *self.outline.entries) >= 0:
                entry = self.loaded.get_revoked_certificate_by_serial_number(serial)
            self._entries[serial] = _revoked(entry) if entry is not None else None
        return self._entries[serial]

    def _find_unknown_critical(self) -> str:
        raw, (start, end) = self.outline.raw, self.outline.entries
        if raw.find(_CRITICAL, start, end) < 0:
            return ""
        for match in _NOT_UNDERSTOOD.finditer(raw, start, end):
            oid = _oid_before(raw, match.start())
            if oid:
                return f"has an entry with a critical extension that is not understood ({oid})"
        return ""


def _oid_before(raw: bytes, end: int) -> str:
    """The object identifier that ends at an offset; empty if none does, so that no extension begins there."""
    for length in range(1, _MAX_OID):
        start = end - length - 2
        if start >= 0 and raw[start] == der.OID and raw[start + 1] == length:
            try:
                return der.dotted(raw, der.Element(der.OID, start, start + 2, end))
            except der.DerError:
                continue
    return ""


def _revoked(entry: x509.RevokedCertificate) -> CrlEntry:
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except (ValueError, LookupError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        reason = ""
    return CrlEntry(entry.revocation_date_utc, reason)


@dataclass(frozen=True, slots=True, eq=False)
class Revocations:
    """The revocation lists that the configuration or the command line names.

    Args:
        name: their origin, for messages.
        lists: the lists that were read, in their order.
        digest: SHA-256 (hex) over the files.
        faults: `crl-unusable` for each file that could not be read as a whole.
    """

    name: str
    lists: tuple[Crl, ...]
    digest: str
    faults: tuple[Problem, ...] = ()

    @classmethod
    def from_files(cls, files: Iterable[tuple[str, bytes]], name: str = "") -> Revocations:
        """Reads files of revocation lists, PEM or DER. No content makes this function raise.

        Args:
            files: the name and the content of each; the content is dropped after reading.
            name: the name for all of them in messages; by default the names of the files.
        """
        sha256 = hashlib.sha256()
        lists: list[Crl] = []
        faults: list[Problem] = []
        titles: list[str] = []
        for file, data in files:
            titles.append(shown(file))
            read, fault, hint = _read_all(data, shown(file))
            lists += read
            if fault:
                message = f"{shown(file)} {fault}."
                faults.append(Problem(Code.CRL_UNUSABLE, Severity.WARN, message, hint, shown(file)))
            sha256.update(hashlib.sha256(data).digest())
        name = name or ", ".join(titles)
        return cls(name, tuple(lists), sha256.hexdigest(), tuple(faults))


NO_LISTS = Revocations("", (), "")
"""The value if no list is named."""


def _read_all(data: bytes, title: str) -> tuple[list[Crl], str, str]:
    """The usable revocation lists of a file, a clause about the rest (empty if nothing is wrong), and the next step."""
    if len(data) > MAX_CRL:
        return [], f"holds more than {MAX_CRL >> 20} MiB", AGAIN
    fault, hint, lists = "", AGAIN, []
    blocks: Iterable[tuple[int, int] | None] = [None]
    if b"-----BEGIN " in data:
        blocks = [match.span(1) for match in _BLOCK.finditer(data)]
        if not blocks or len(blocks) != data.count(_BEGIN):
            fault = "holds no revocation list, or one that is cut off"
    for block in blocks:
        try:
            with contained():
                crl = _read(_decoded(data, *block) if block else data, title)
        except (LookupError, ValueError, TypeError, x509.InvalidVersion):  # a panic, too, and damaged DER or base64
            fault = "holds something that is no revocation list, or one that is damaged or cut off"
            continue
        if crl.scope is not None and crl.scope.indirect_crl:
            fault, hint = _INDIRECT, _DIRECT
        else:
            lists.append(crl)
    return lists, fault, hint


def _decoded(data: bytes, at: int, end: int) -> bytes:
    """The bytes of the base64 between two offsets, decoded in chunks, as a copy of a whole list costs megabytes.

    Raises:
        ValueError: it is no base64.
    """
    chunks: list[bytes] = []
    rest = b""
    while at < end:
        text = rest + data[at : min(end, at + _CHUNK)].translate(None, b" \t\r\n\x0b\x0c")
        at += _CHUNK
        usable = len(text) - len(text) % 4 if at < end else len(text)
        if at < end and b"=" in text:
            raise ValueError("data follow the padding")
        chunks.append(binascii.a2b_base64(text[:usable], strict_mode=True))
        rest = text[usable:]
    return b"".join(chunks)


def _read(data: bytes, title: str) -> Crl:
    outline = revocation_list(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = x509.load_der_x509_crl(data)
        issuer = shown(loaded.issuer.rfc4514_string())
    try:
        extensions = {e.oid.dotted_string: e for e in loaded.extensions}
    except (ValueError, LookupError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return Crl(title, loaded, outline, issuer, None, None, fault="has extensions that cannot be read")
    scope_extension = extensions.get(ExtensionOID.ISSUING_DISTRIBUTION_POINT.dotted_string)
    number_extension = extensions.get(ExtensionOID.CRL_NUMBER.dotted_string)
    number_value = number_extension.value if number_extension else None
    number = number_value.crl_number if isinstance(number_value, x509.CRLNumber) else None
    unknown = [oid for oid, e in extensions.items() if e.critical and oid not in _UNDERSTOOD]
    fault, breach, lenient = "", "", False
    if unknown:
        fault = f"has a critical extension that is not understood ({unknown[0]}; RFC 5280 5.2)"
    elif number_extension is not None and number_extension.critical:
        breach = "marks its CRLNumber as critical, which is forbidden (RFC 5280 5.2.3)"
    elif number is not None and number.bit_length() > 159:
        breach = "has a CRLNumber of more than 20 octets (RFC 5280 5.2.3)"
    elif number is None:
        breach, lenient = "has no CRLNumber (RFC 5280 5.2.3)", True
    elif loaded.next_update_utc is None:
        breach, lenient = "has no nextUpdate, the date of the next list (RFC 5280 5.1.2.5)", True
    scope_value = scope_extension.value if scope_extension else None
    scope = scope_value if isinstance(scope_value, x509.IssuingDistributionPoint) else None
    delta = ExtensionOID.DELTA_CRL_INDICATOR.dotted_string in extensions
    return Crl(title, loaded, outline, issuer, number, scope, delta, fault, breach, lenient)
