"""The reader of certificates: DER in, a `Certificate` with all of its faults out.

Clients read certificates that a strict library refuses, so reading continues after a fault as far as possible: one
report shows everything that needs correction. `rotator.validation` decides about the faults.
"""

from __future__ import annotations

import warnings
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import place
from rotator.x509 import der, reencode
from rotator.x509.certificate import Certificate, Fault, name_text
from rotator.x509.hostnames import Address
from rotator.x509.panics import BROKE_OFF, HINT, PanicError, contained

UNREADABLE = "(a name that cannot be read)"
"""The substitute for a damaged subject or issuer name."""

MAX_FAULTS = 20
"""The most faults of its outer structure that are reported for one certificate."""

MAX_ALONE = 64
"""The most extensions that are read one by one; each of them costs another parse of the whole certificate."""

_MAY_BE_CRITICAL = frozenset(
    {
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.INHIBIT_ANY_POLICY,
        ExtensionOID.PRECERT_POISON,
    }
)
# These must not be critical (RFC 5280 4.2.1.1, 4.2.1.2, 4.2.2.1), and strict verifiers refuse critical ones.
_NEVER_CRITICAL = {
    ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string: "subject key identifier",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER.dotted_string: "authority key identifier",
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS.dotted_string: "authority information access",
}
_MAY_BE_CRITICAL_DOTTED = frozenset(oid.dotted_string for oid in _MAY_BE_CRITICAL)
_CODE_IF_UNREADABLE = {
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME.dotted_string: Code.BAD_SAN,
    ExtensionOID.NAME_CONSTRAINTS.dotted_string: Code.NAME_CONSTRAINTS,
    ExtensionOID.EXTENDED_KEY_USAGE.dotted_string: Code.BAD_EKU,
    ExtensionOID.KEY_USAGE.dotted_string: Code.BAD_KEY_USAGE,
    ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS.dotted_string: Code.SCT_INVALID,
}


def read_certificate(data: bytes, file: str = "", line: int = 0) -> tuple[Certificate | None, tuple[Problem, ...]]:
    """Reads one certificate.

    Args:
        data: the content of its block, DER.
        file: the file that contains it, for messages.
        line: the 1-based line of its block; 0 in a binary file.

    Returns:
        The certificate, or None if it is unreadable; and the problems of the file. Faults of the certificate itself are
        in its `faults`. No content makes this function raise.
    """
    where = f"{place(file, line)}: " if file else ""

    def refused(code: Code, message: str, hint: str = "") -> tuple[None, tuple[Problem, ...]]:
        hint = hint or "Fetch the certificate from the CA again."
        return None, (Problem(code, Severity.REJECT, f"{where}{message}", hint, file, line),)

    problems: tuple[Problem, ...] = ()
    try:
        outline = der.certificate(data)
        if outline.end < len(data):
            reason = (
                f"{where}{len(data) - outline.end} bytes follow the certificate inside its block; they are left out."
            )
            problems = (Problem(Code.TRAILING_DATA, Severity.WARN, reason, "", file, line),)
            data = data[: outline.end]
        public = der.public_key(outline.spki)
    except der.DerError as error:
        return refused(Code.PARSE_ERROR, f"this is no certificate: it {error}.")
    if outline.version not in (1, 3):
        return refused(Code.BAD_VERSION, f"a certificate of version {outline.version}; clients read version 3.")
    try:
        # the library warns of serial numbers and countries that a later version of it refuses
        with warnings.catch_warnings(), contained():
            warnings.simplefilter("ignore")
            loaded, whole = _load(data, outline)
            subject, issuer = _name(loaded, "subject"), _name(loaded, "issuer")
            unreadable = [which for which, text in (("subject", subject), ("issuer", issuer)) if text == UNREADABLE]
            extensions, readable, faults = _extensions(data, loaded, outline)
    except PanicError:
        return refused(Code.PARSE_ERROR, f"the certificate cannot be read: {BROKE_OFF}.", HINT)
    except (ValueError, TypeError, LookupError, x509.InvalidVersion):
        return refused(Code.PARSE_ERROR, "the certificate is damaged: its structure is not that of X.509.")
    try:
        begin, end = loaded.not_valid_before_utc, loaded.not_valid_after_utc
    except ValueError:
        return refused(Code.BAD_VALIDITY, "the certificate's dates cannot be read.")
    certificate = Certificate(
        raw=data,
        loaded=loaded,
        outline=outline,
        key=public,
        subject=subject,
        issuer=issuer,
        not_before=begin,
        not_after=end,
        extensions={type(extension.value): extension.value for extension in extensions},
        strict=whole and readable,
        faults=(
            *_structure_faults(outline, begin, end),
            *(() if whole else _length_faults(data)),
            *(Fault(Code.PARSE_ERROR, f"has a name of its {which} that cannot be read") for which in unreadable),
            *faults,
            *_content_faults(extensions, outline),
        ),
        file=file,
        line=line,
    )
    return certificate, problems


def _load(data: bytes, outline: der.CertificateOutline) -> tuple[x509.Certificate, bool]:
    """The certificate, and whether the library read the original; if not, it read a copy in strict DER.

    Raises:
        ValueError: the library can read neither.
    """
    loaded = None
    try:
        loaded = x509.load_der_x509_certificate(data)
        loaded.subject, loaded.issuer  # noqa: B018 - raises if a name is unreadable
    except ValueError:
        try:
            return x509.load_der_x509_certificate(reencode.with_extensions(data, outline.extensions)), False
        except (ValueError, IndexError):  # a DerError is a ValueError
            if loaded is None:
                raise
            return loaded, False
    return loaded, True


def _name(loaded: x509.Certificate, which: str) -> str:
    try:
        return name_text(loaded.subject if which == "subject" else loaded.issuer)
    except ValueError:
        return UNREADABLE


def _structure_faults(outline: der.CertificateOutline, begin: datetime, end: datetime) -> tuple[Fault, ...]:
    """Faults of the outer structure (RFC 5280 4.1.1.2, 4.1.2.1, 4.1.2.2, 4.1.2.4, 4.1.2.5, 4.2)."""
    faults: list[Fault] = []
    if outline.version != 3:
        faults.append(Fault(Code.BAD_VERSION, f"is of X.509 version {outline.version}; clients need version 3"))
    if outline.serial <= 0 or outline.serial.bit_length() > 160:  # like clients, without an octet for the sign
        kind = "longer than 20 octets" if outline.serial > 0 else "not a positive number"
        faults.append(Fault(Code.BAD_SERIAL, f"has a serial number that is {kind}"))
    if not outline.algorithms_agree:
        faults.append(Fault(Code.BAD_SIGNATURE, "names two different signature algorithms"))
    if outline.issuer == b"\x30\x00":
        faults.append(Fault(Code.PARSE_ERROR, "has an empty issuer name"))
    if end < begin:
        faults.append(Fault(Code.BAD_VALIDITY, f"ends ({end:%Y-%m-%d}) before it begins ({begin:%Y-%m-%d})"))
    seen: set[str] = set()
    for extension in outline.extensions:
        if extension.oid in seen:
            faults.append(Fault(Code.DUPLICATE_EXTENSION, f"holds the extension {_label(extension.oid)} twice"))
        seen.add(extension.oid)
        if extension.critical and extension.oid in _NEVER_CRITICAL:
            reason = f"marks its {_NEVER_CRITICAL[extension.oid]} as critical, which is forbidden"
            faults.append(Fault(Code.CRITICAL_EXTENSION, reason))
        elif extension.critical and extension.oid not in _MAY_BE_CRITICAL_DOTTED:
            reason = f"has a critical extension that clients do not know: {_label(extension.oid)}"
            faults.append(Fault(Code.CRITICAL_EXTENSION, reason))
    return tuple(faults[:MAX_FAULTS])


def _length_faults(data: bytes) -> tuple[Fault, ...]:
    """The fault of lengths that are not in DER, which a copy in strict DER would hide."""
    try:
        if der.minimal(data, 0, len(data)):
            return ()
    except der.DerError:
        pass
    reason = "is not written in DER: Go does not read it, and OpenSSL would send other bytes than the delivered ones"
    return (Fault(Code.PARSE_ERROR, reason),)


def _label(oid: str) -> str:
    """An object identifier with its name; the library has a table of names, but no public call for it."""
    name: str = x509.ObjectIdentifier(oid)._name if oid.count(".") >= 2 else ""
    return f"{oid} ({name})" if name and name != "Unknown OID" else oid


def _content_faults(extensions: x509.Extensions, outline: der.CertificateOutline) -> list[Fault]:
    """Faults inside extensions that the library accepts and clients refuse."""
    faults: list[Fault] = []
    limits = next((e.value for e in outline.extensions if e.oid == ExtensionOID.NAME_CONSTRAINTS.dotted_string), None)
    read = {type(extension.value) for extension in extensions}
    if limits is not None and x509.NameConstraints in read and not der.bare_subtrees(limits):
        reason = "has name constraints with a minimum or maximum, which RFC 5280 forbids and clients refuse"
        faults.append(Fault(Code.NAME_CONSTRAINTS, reason))
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            networks = [ip for ip in extension.value.get_values_for_type(x509.IPAddress) if not isinstance(ip, Address)]
            if networks:
                reason = f"has a network, {networks[0]}, in place of an address among its alternative names; "
                reason += "Go cannot read it"
                faults.append(Fault(Code.BAD_SAN, reason))
    return faults


def _extensions(
    data: bytes, loaded: x509.Certificate, outline: der.CertificateOutline
) -> tuple[x509.Extensions, bool, tuple[Fault, ...]]:
    """The extensions, whether the library reads all of them, and the faults of the unreadable ones."""
    try:
        return loaded.extensions, True, ()
    except (ValueError, TypeError, LookupError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        pass  # LookupError: a TLS feature with an unknown number
    # One extension is not DER, is damaged or occurs twice: reading each alone shows which one, and keeps the others.
    faults: list[Fault] = []
    if len(outline.extensions) > MAX_ALONE:  # an extension that is not read could be one that clients obey
        reason = (
            f"has an extension that cannot be read among {len(outline.extensions)}; {MAX_ALONE} are looked at singly"
        )
        faults.append(Fault(Code.PARSE_ERROR, reason))
    readable: dict[str, x509.Extension[x509.ExtensionType]] = {}
    for extension in outline.extensions[:MAX_ALONE]:
        if extension.oid in readable:
            continue
        try:
            copy = x509.load_der_x509_certificate(reencode.with_extensions(data, (extension,)))
            readable[extension.oid] = next(iter(copy.extensions))
        except (ValueError, TypeError, LookupError, x509.UnsupportedGeneralNameType, StopIteration):
            numbers = _features(extension)
            if numbers:
                known = [feature for feature in x509.TLSFeatureType if feature.value in numbers]
                if known:
                    value = x509.TLSFeature(known)
                    readable[extension.oid] = x509.Extension(ExtensionOID.TLS_FEATURE, extension.critical, value)
                continue
            code = _CODE_IF_UNREADABLE.get(extension.oid, Code.PARSE_ERROR)
            faults.append(Fault(code, f"has an extension that cannot be read: {_label(extension.oid)}"))
    return x509.Extensions(readable.values()), False, tuple(faults)


def _features(extension: der.RawExtension) -> set[int]:
    """All numbers in a TLS feature extension (RFC 7633); none for another extension, or a damaged one."""
    value = extension.value
    if extension.oid != ExtensionOID.TLS_FEATURE.dotted_string:
        return set()
    try:
        listed = der.children(value, der.expect(der.element(value, 0, len(value)), der.SEQUENCE))
        return {der.integer(value, der.expect(number, der.INTEGER)) for number in listed}
    except der.DerError:
        return set()
