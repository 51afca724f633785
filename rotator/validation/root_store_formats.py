"""The readers of root stores: Mozilla's certdata.txt, Mozilla's report as CSV, Chrome's root_store.textproto.

The content decides which reader is used. Each of them reads only what decides about a leaf below a root: which root it
is, whether it is trusted for TLS servers, and until when or for which names. What a reader does not know is passed
over; a file that is damaged, or cut off within an entry, is refused, because a root that is missing in it would be
taken for a distrusted one.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code
from rotator.core.text import place, shown
from rotator.validation.root_store import RootStore, Terms

MAX_ROOT_STORE = 4 * 1024 * 1024
"""The most bytes of a file; Mozilla's certdata.txt has 1.3 MiB, and its report as CSV 0.5 MiB."""

MAX_ROOTS = 2_000
"""The most roots of a file; the browsers' root stores have between 100 and 200."""

MAX_SETS = 16
"""The most sets of conditions of one root; Chrome's have two."""

MAX_LINES = 100_000
"""The most lines of a file; certdata.txt has 25,000."""

MAX_TOKENS = 100_000
"""The most words and signs of a textproto file; Chrome's has some 3,000."""

MAX_NESTING = 8
"""The most messages inside each other in a textproto file; Chrome's has two."""

_FIREFOX, _CHROME = "Firefox", "Chrome"
_ADDRESSES = {
    "certdata": "https://hg.mozilla.org/mozilla-central/raw-file/tip/security/nss/lib/ckfw/builtins/certdata.txt",
    "report": "https://ccadb.my.salesforce-sites.com/mozilla/IncludedCACertificateReportPEMCSV",
    "chrome": "root_store.textproto in Chromium's net/data/ssl/chrome_root_store",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class _FormatError(ValueError):
    """The file has another form than expected.

    Args:
        line: the 1-based line; 0 if it concerns the file as a whole.
        reason: a clause.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


Roots = Mapping[str, Sequence[Terms]]


def read_store(data: bytes, name: str, written: datetime | None) -> RootStore:
    """The root store in a file.

    Args:
        data: the content of one of the known files.
        name: its name for messages.
        written: the time of the last change of the file, UTC; None if its age does not matter.

    Raises:
        RotatorError: `parse-error` or `too-large`.
    """
    title = shown(name)
    if len(data) > MAX_ROOT_STORE:
        raise RotatorError(Code.TOO_LARGE, f"{title} holds more than {MAX_ROOT_STORE >> 20} MiB.", exit=Exit.REJECTED)
    kind = _kind(data)
    try:
        if not kind:
            raise _FormatError(0, "no root store in a known form (certdata.txt, a report as CSV, root_store.textproto)")
        if data.count(b"\n") > MAX_LINES:
            raise _FormatError(0, f"longer than {MAX_LINES} lines")
        roots: Roots = {"certdata": _certdata, "report": _report, "chrome": _chrome}[kind](data)
        if not any(roots.values()):
            raise _FormatError(0, "a root store without any root for TLS servers")
    except _FormatError as error:
        hint = f"Fetch it again, whole: {_ADDRESSES.get(kind, _ADDRESSES['report'])}"
        message = f"{place(title, error.line)} is {error.reason}."
        raise RotatorError(Code.PARSE_ERROR, message, hint, Exit.REJECTED) from error
    return RootStore(title, _CHROME if kind == "chrome" else _FIREFOX, hashlib.sha256(data).hexdigest(), roots, written)


def _kind(data: bytes) -> str:
    """The form of a file by its content; empty for an unknown one."""
    if re.search(rb"^BEGINDATA[ \t\r]*$", data, re.MULTILINE):
        return "certdata"
    header = data[:8192].partition(b"\n")[0]
    if b"SHA-256 Fingerprint" in header and b"Trust Bits" in header:
        return "report"
    return "chrome" if re.search(rb"^trust_anchors\b", data, re.MULTILINE) else ""


# -- Mozilla's certdata.txt

_OCTAL_LINE = re.compile(rb"(?:\\[0-3][0-7]{2})+")
_OCTETS = {b"%03o" % octet: octet for octet in range(256)}
_CERTIFICATE, _TRUSTS = b"CKO_CERTIFICATE", frozenset({b"CKO_NSS_TRUST", b"CKO_TRUST"})
_ISSUER, _SERIAL, _VALUE, _HASH = b"CKA_ISSUER", b"CKA_SERIAL_NUMBER", b"CKA_VALUE", b"CKA_CERT_SHA1_HASH"
_DISTRUST = b"CKA_NSS_SERVER_DISTRUST_AFTER"
_SERVER = frozenset({b"CKA_TRUST_SERVER_AUTH", b"CKA_PKCS_TRUST_SERVER_AUTH"})
_DECIDING = frozenset({_ISSUER, _SERIAL, _VALUE, _HASH, _DISTRUST}) | _SERVER
_ANCHOR = frozenset({b"CKT_NSS_TRUSTED_DELEGATOR", b"CKT_TRUST_ANCHOR"})


@dataclass(slots=True)
class _Object:
    """One object of certdata.txt.

    Args:
        kind: the value of its CKA_CLASS.
        line: the 1-based line of its CKA_CLASS.
        values: the values of the attributes that decide.
    """

    kind: bytes
    line: int
    values: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def serial(self) -> tuple[bytes, bytes]:
        """Issuer and serial number, by which NSS finds the trust of a certificate."""
        return self.values.get(_ISSUER, b""), self.values.get(_SERIAL, b"")

    @property
    def trusted(self) -> bool:
        """Whether a trust object makes its certificate a root for TLS servers."""
        return any(self.values.get(attribute) in _ANCHOR for attribute in _SERVER)

    @property
    def distrusted_after(self) -> datetime | None:
        """The date of distrust; None if it has none."""
        value = self.values.get(_DISTRUST, b"CK_FALSE")
        return None if value == b"CK_FALSE" else _asn1_time(value, self.line)


@dataclass(frozen=True, slots=True)
class _Trust:
    """The trust in one certificate by all objects about it: each of them can only take some of it away.

    Args:
        server: whether it is a root for TLS servers.
        end: the date of distrust; None if there is none.
    """

    server: bool = True
    end: datetime | None = None

    def and_by(self, trust: _Object) -> _Trust:
        """The same trust, limited by another object."""
        end = min(filter(None, (self.end, trust.distrusted_after)), default=None)
        return _Trust(self.server and trust.trusted, end)


def _certdata(data: bytes) -> Roots:
    """The roots of certdata.txt: a certificate and its trust are two objects, and either may have the date."""
    objects = list(_objects(data))
    trusts: dict[object, _Trust] = {}
    for trust in objects:
        if trust.kind in _TRUSTS:
            key = trust.values.get(_HASH) or trust.serial
            trusts[key] = trusts.get(key, _Trust()).and_by(trust)
    roots: dict[str, Sequence[Terms]] = {}
    for certificate in objects:
        if certificate.kind != _CERTIFICATE:
            continue
        der = certificate.values.get(_VALUE)
        if not der:
            raise _FormatError(certificate.line, "a certificate object without its value")
        # the file itself names a certificate by this hash (CKA_CERT_SHA1_HASH)
        found = trusts.get(hashlib.sha1(der, usedforsecurity=False).digest()) or trusts.get(certificate.serial)
        ends = (certificate.distrusted_after, found.end if found else None)
        end = min(filter(None, ends), default=None)
        trusted = found is not None and found.server
        roots[hashlib.sha256(der).hexdigest()] = [Terms(begins_until=end, logged_until=end)] if trusted else []
    return roots


def _objects(data: bytes) -> Iterator[_Object]:
    current: _Object | None = None
    lines = enumerate(data.split(b"\n"), 1)
    count = 0
    for number, line in lines:
        if not line.startswith(b"CKA_"):
            if line.strip() and not line.startswith((b"#", b"BEGINDATA")):
                raise _FormatError(number, "no line of certdata.txt")
            continue
        words = line.split(None, 2)
        if words[0] == b"CKA_CLASS":
            if current is not None:
                yield current
            count += 1
            if count > 2 * MAX_ROOTS + 1:
                raise _FormatError(number, f"the begin of more than {MAX_ROOTS} roots")
            current = _Object(words[-1].strip(), number)
        elif len(words) > 1 and words[1] == b"MULTILINE_OCTAL":
            value = _octal(lines, number, decode=words[0] in _DECIDING)
            if current is not None and words[0] in _DECIDING:
                current.values[words[0]] = value
        elif current is not None and words[0] in _DECIDING:
            current.values[words[0]] = words[-1].strip()
    if current is not None:
        yield current


def _octal(lines: Iterator[tuple[int, bytes]], begin: int, *, decode: bool) -> bytes:
    """The octets of a value in several lines, up to its END; nothing if they are not wanted."""
    octets = bytearray()
    for number, line in lines:
        text = line.strip()
        if text == b"END":
            return bytes(octets)
        if not _OCTAL_LINE.fullmatch(text):
            raise _FormatError(number, "no line of octal numbers")
        if decode:
            octets.extend(map(_OCTETS.__getitem__, text[1:].split(b"\\")))
    raise _FormatError(begin, "the begin of a value without an end: the file is cut off")


def _asn1_time(value: bytes, line: int) -> datetime:
    """A UTCTime or GeneralizedTime (RFC 5280 4.1.2.5)."""
    text = value.decode("ascii", "replace")
    if re.fullmatch(r"[0-9]{12}Z", text):
        text = ("20" if text < "50" else "19") + text
    try:
        if not re.fullmatch(r"[0-9]{14}Z", text):
            raise ValueError
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _FormatError(line, "the begin of an object with a date of distrust that cannot be read") from None


# -- Mozilla's report


def _report(data: bytes) -> Roots:
    """The roots of the report of the CCADB (IncludedCACertificateReportPEMCSV and its siblings)."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _FormatError(0, "no text in UTF-8") from None
    roots: dict[str, Sequence[Terms]] = {}
    reader = csv.reader((f"{line}\n" for line in text.rstrip("\r\n").split("\n")), strict=True)
    try:
        columns = next(reader)
        for row in reader:
            if len(row) != len(columns):
                raise _FormatError(reader.line_num, "no whole line of the report")
            fields = dict(zip(columns, row, strict=True))
            fingerprint = fields["SHA-256 Fingerprint"].replace(":", "").strip().lower()
            if not _FINGERPRINT.fullmatch(fingerprint):
                raise _FormatError(reader.line_num, "a line without the SHA-256 of a root")
            names = fields.get("Mozilla Applied Constraints", "").replace(";", ",").split(",")
            end = _end_of_day(fields.get("Distrust for TLS After Date", ""), reader.line_num)
            terms = Terms(end, None, end, None, tuple(name.strip().lstrip("*") for name in names if name.strip()))
            trusted = "Websites" in [bit.strip() for bit in fields["Trust Bits"].split(";")]
            roots[fingerprint] = [terms] if trusted else []
            if len(roots) > MAX_ROOTS:
                raise _FormatError(reader.line_num, f"the begin of more than {MAX_ROOTS} roots")
    except (csv.Error, KeyError, StopIteration):
        raise _FormatError(reader.line_num, "no line of the report, or the file is cut off") from None
    return roots


def _end_of_day(text: str, line: int) -> datetime | None:
    """The last second of a day that is written as 2024.11.30, on which certificates are still accepted."""
    if not text.strip():
        return None
    try:
        day = datetime.strptime(text.strip().replace("-", "."), "%Y.%m.%d").date()
    except ValueError:
        raise _FormatError(line, "a line with a date of distrust that cannot be read") from None
    return datetime.combine(day, time(23, 59, 59), UTC)


# -- Chrome's root_store.textproto

_TOKEN = re.compile(
    rb"""\s*+(?:\#[^\n]*+\s*+)*+
    (?:("[^"\n\\]*+(?:\\.[^"\n\\]*+)*+"|'[^'\n\\]*+(?:\\.[^'\n\\]*+)*+')|([A-Za-z0-9_.+-]++)|([{}<>:,;\[\]])|(\Z)|(.))""",
    re.DOTALL | re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_TIMES = {
    "sct_not_after_sec": "logged_until",
    "sct_all_after_sec": "logged_after",
    "validity_starts_not_after_sec": "begins_until",
    "validity_starts_after_sec": "begins_after",
}

Message = dict[str, list["str | Message"]]


class _Tokens:
    """The words and signs of a textproto file, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._count = 0
        self.next = self._read()

    @property
    def line(self) -> int:
        """The line of the next word, roughly: that of its end."""
        return self._data.count(b"\n", 0, self._at) + 1

    def take(self) -> str:
        """The next word or sign; empty at the end. A text in quotation marks keeps the first of them."""
        taken, self.next = self.next, self._read()
        return taken

    def skip(self, signs: str) -> None:
        """Leaves out the next sign if it is one of these."""
        if self.next and self.next in signs:
            self.take()

    def _read(self) -> str:
        match = _TOKEN.match(self._data, self._at)
        if match is None or match[5] is not None:
            raise _FormatError(self.line, "no line of textproto")
        self._at = match.end()
        self._count += 1
        if self._count > MAX_TOKENS:
            raise _FormatError(self.line, f"beyond the {MAX_TOKENS} words that are read")
        token = match[1][:-1] if match[1] else match[2] or match[3] or b""
        return token.decode("utf-8", "replace")


def _chrome(data: bytes) -> Roots:
    """The roots of root_store.textproto (Chromium, net/cert/root_store.proto)."""
    tokens = _Tokens(data)
    store = _message(tokens, "", 0)
    anchors = [entry for entry in store.get("trust_anchors", ()) if isinstance(entry, dict)]
    more = [entry for entry in store.get("additional_certs", ()) if isinstance(entry, dict)]
    roots: dict[str, list[Terms]] = {}
    for entry in anchors + [entry for entry in more if _words(entry, "tls_trust_anchor") == ["true"]]:
        hashes = [word.lower() for word in _words(entry, "sha256_hex")]
        if len(hashes) != 1 or not _FINGERPRINT.fullmatch(hashes[0]):
            raise _FormatError(0, "a root store with a root that has no SHA-256 (sha256_hex)")
        sets = [constraints for constraints in entry.get("constraints", ()) if isinstance(constraints, dict)]
        roots.setdefault(hashes[0], []).extend([_terms(constraints) for constraints in sets] or [Terms()])
    if len(roots) > MAX_ROOTS or any(len(sets) > MAX_SETS for sets in roots.values()):
        raise _FormatError(
            0, f"a root store with more than {MAX_ROOTS} roots, or {MAX_SETS} sets of conditions for one"
        )
    return roots


def _terms(constraints: Message) -> Terms:
    """One set of constraints, as the newest Chrome applies it: every lower bound on its version holds, no upper one."""
    times: dict[str, datetime] = {}
    for key, name in _TIMES.items():
        for word in _words(constraints, key)[-1:]:
            try:
                times[name] = _EPOCH + timedelta(seconds=int(word))
            except (ValueError, OverflowError):
                raise _FormatError(0, f"a root store with a time that cannot be read ({key})") from None
    return Terms(
        **times,
        names=tuple(_words(constraints, "permitted_dns_names")),
        never="only in versions before a certain one" if _words(constraints, "max_version_exclusive") else "",
    )


def _words(message: Message, key: str) -> list[str]:
    """The values of a field that are no messages, without quotation marks."""
    return [value.lstrip("\"'") for value in message.get(key, ()) if isinstance(value, str)]


def _message(tokens: _Tokens, closing: str, depth: int) -> Message:
    """The fields up to the sign that closes the message; the empty text is the end of the file."""
    fields: Message = {}
    while tokens.next != closing:
        name = tokens.take()
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
            reason = "the end of a message that is not closed: the file is cut off" if not name else "no field"
            raise _FormatError(tokens.line, reason)
        values = fields.setdefault(name, [])
        if tokens.next == ":":
            tokens.take()
        elif tokens.next not in _CLOSING:
            raise _FormatError(tokens.line, "no field with a value")
        if tokens.next == "[":
            tokens.take()
            while tokens.next != "]":
                values.append(_value(tokens, depth))
                tokens.skip(",")
            tokens.take()
        else:
            values.append(_value(tokens, depth))
        tokens.skip(",;")
    tokens.take()
    return fields


def _value(tokens: _Tokens, depth: int) -> str | Message:
    """One value: a message, or a word; texts that follow each other are one."""
    opening = tokens.take()
    if opening in _CLOSING:
        if depth >= MAX_NESTING:
            raise _FormatError(tokens.line, f"nested more than {MAX_NESTING} deep")
        return _message(tokens, _CLOSING[opening], depth + 1)
    if not opening or opening in "}>:[],;":
        raise _FormatError(tokens.line, "no value")
    while opening[0] in "\"'" and tokens.next[:1] in ("'", '"'):
        opening += tokens.take()[1:]
    return opening
