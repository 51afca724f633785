"""Bytes of a certificate into a `Certificate`, with all its faults gathered; what they mean is judged elsewhere.

Clients read certificates that a strict library does not, so reading goes on after a fault as far as it can: the
person who has to mend it shall see everything at once.
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
"""What stands for the name of a subject or issuer that is damaged."""

MAX_FAULTS = 20
"""Faults of its outline that are told of one certificate."""

MAX_ALONE = 64
"""Extensions that are read one by one where they cannot be read together: for each the whole is parsed again."""

_KNOWN = frozenset(
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
# Critical is forbidden for these (RFC 5280 4.2.1.1, 4.2.1.2, 4.2.2.1): a strict verifier refuses them so.
_NEVER_CRITICAL = {
    ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string: "subject key identifier",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER.dotted_string: "authority key identifier",
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS.dotted_string: "authority information access",
}
_KNOWN_DOTTED = frozenset(oid.dotted_string for oid in _KNOWN)
_UNREADABLE = {
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME.dotted_string: Code.BAD_SAN,
    ExtensionOID.NAME_CONSTRAINTS.dotted_string: Code.NAME_CONSTRAINTS,
    ExtensionOID.EXTENDED_KEY_USAGE.dotted_string: Code.BAD_EKU,
    ExtensionOID.KEY_USAGE.dotted_string: Code.BAD_KEY_USAGE,
    ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS.dotted_string: Code.SCT_INVALID,
}


def read_certificate(data: bytes, file: str = "", line: int = 0) -> tuple[Certificate | None, tuple[Problem, ...]]:
    """Read one certificate.

    Args:
        data: DER, as it stood in the block.
        file: the file that it stands in, for messages.
        line: 1-based line of its block.

    Returns:
        The certificate, or None if so little of it can be read that nothing can be said about it; and the problems
        that concern the file. Faults of the certificate itself are in its `faults`. Never raises.
    """
    where = f"{place(file, line)}: " if file else ""

    def refused(code: Code, words: str, hint: str = "") -> tuple[None, tuple[Problem, ...]]:
        hint = hint or "Fetch the certificate from the CA again."
        return None, (Problem(code, Severity.REJECT, f"{where}{words}", hint, file, line),)

    problems: tuple[Problem, ...] = ()
    try:
        outline = der.certificate(data)
        if outline.end < len(data):
            words = (
                f"{where}{len(data) - outline.end} bytes follow the certificate inside its block; they are left out."
            )
            problems = (Problem(Code.TRAILING_DATA, Severity.WARN, words, "", file, line),)
            data = data[: outline.end]
        public = der.public_key(outline.spki)
    except der.DerError as error:
        return refused(Code.PARSE_ERROR, f"what stands there is no certificate: it {error}.")
    if outline.version not in (1, 3):
        return refused(Code.BAD_VERSION, f"a certificate of version {outline.version}; clients read version 3.")
    try:
        # warnings are of serial numbers and countries that the library means to refuse one day
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
            *_structure(outline, begin, end),
            *(() if whole else _lengths(data)),
            *(Fault(Code.PARSE_ERROR, f"has a name of its {which} that cannot be read") for which in unreadable),
            *faults,
            *_unread(extensions, outline),
        ),
        file=file,
        line=line,
    )
    return certificate, problems


def _load(data: bytes, outline: der.CertificateOutline) -> tuple[x509.Certificate, bool]:
    """The certificate, and whether it was read as it stands rather than as a copy in strict DER.

    Raises:
        ValueError: neither can be read.
    """
    loaded = None
    try:
        loaded = x509.load_der_x509_certificate(data)
        loaded.subject, loaded.issuer  # noqa: B018 - that they can be read
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


def _structure(outline: der.CertificateOutline, begin: datetime, end: datetime) -> tuple[Fault, ...]:
    """Faults of the outline (RFC 5280 4.1.1.2, 4.1.2.1, 4.1.2.2, 4.1.2.4, 4.1.2.5, 4.2)."""
    faults: list[Fault] = []
    if outline.version != 3:
        faults.append(Fault(Code.BAD_VERSION, f"is of X.509 version {outline.version}; clients need version 3"))
    if outline.serial <= 0 or outline.serial.bit_length() > 160:  # the octet of a sign is not counted, as clients do
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
            words = f"marks its {_NEVER_CRITICAL[extension.oid]} as critical, which is forbidden"
            faults.append(Fault(Code.CRITICAL_EXTENSION, words))
        elif extension.critical and extension.oid not in _KNOWN_DOTTED:
            words = f"has a critical extension that clients do not know: {_label(extension.oid)}"
            faults.append(Fault(Code.CRITICAL_EXTENSION, words))
    return tuple(faults[:MAX_FAULTS])


def _lengths(data: bytes) -> tuple[Fault, ...]:
    """What a copy in strict DER hides, and Go does not."""
    try:
        if der.minimal(data, 0, len(data)):
            return ()
    except der.DerError:
        pass
    words = "is not written in DER: Go does not read it, and OpenSSL would send other bytes than these"
    return (Fault(Code.PARSE_ERROR, words),)


def _label(oid: str) -> str:
    """An object identifier with its name, for which the library has a table but no public way to ask it."""
    name: str = x509.ObjectIdentifier(oid)._name if oid.count(".") >= 2 else ""
    return f"{oid} ({name})" if name and name != "Unknown OID" else oid


def _unread(extensions: x509.Extensions, outline: der.CertificateOutline) -> list[Fault]:
    """Faults inside of extensions that the library reads over and clients refuse."""
    faults: list[Fault] = []
    limits = next((e.value for e in outline.extensions if e.oid == ExtensionOID.NAME_CONSTRAINTS.dotted_string), None)
    read = {type(extension.value) for extension in extensions}
    if limits is not None and x509.NameConstraints in read and not der.bare_subtrees(limits):
        words = "has name constraints with a minimum or maximum, which RFC 5280 forbids and clients refuse"
        faults.append(Fault(Code.NAME_CONSTRAINTS, words))
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            networks = [ip for ip in extension.value.get_values_for_type(x509.IPAddress) if not isinstance(ip, Address)]
            if networks:
                words = f"has a network, {networks[0]}, among its alternative names, where addresses stand; "
                words += "Go cannot read it"
                faults.append(Fault(Code.BAD_SAN, words))
    return faults


def _extensions(
    data: bytes, loaded: x509.Certificate, outline: der.CertificateOutline
) -> tuple[x509.Extensions, bool, tuple[Fault, ...]]:
    """The extensions, whether the library reads them as they stand, and the faults of those that nobody reads."""
    try:
        return loaded.extensions, True, ()
    except (ValueError, TypeError, LookupError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        pass  # a lookup: of a TLS feature whose number it does not know
    # Not DER, or one is damaged, or one stands there twice: each by itself tells which, and leaves the others readable.
    faults: list[Fault] = []
    if len(outline.extensions) > MAX_ALONE:  # what stands behind those could be a limit that clients keep to
        words = (
            f"has an extension that cannot be read among {len(outline.extensions)}; {MAX_ALONE} are looked at singly"
        )
        faults.append(Fault(Code.PARSE_ERROR, words))
    readable: dict[str, x509.Extension[x509.ExtensionType]] = {}
    for extension in outline.extensions[:MAX_ALONE]:
        if extension.oid in readable:
            continue
        try:
            twin = x509.load_der_x509_certificate(reencode.with_extensions(data, (extension,)))
            readable[extension.oid] = next(iter(twin.extensions))
        except (ValueError, TypeError, LookupError, x509.UnsupportedGeneralNameType, StopIteration):
            numbers = _features(extension)
            if numbers:
                known = [feature for feature in x509.TLSFeatureType if feature.value in numbers]
                if known:
                    value = x509.TLSFeature(known)
                    readable[extension.oid] = x509.Extension(ExtensionOID.TLS_FEATURE, extension.critical, value)
                continue
            code = _UNREADABLE.get(extension.oid, Code.PARSE_ERROR)
            faults.append(Fault(code, f"has an extension that cannot be read: {_label(extension.oid)}"))
    return x509.Extensions(readable.values()), False, tuple(faults)


def _features(extension: der.RawExtension) -> set[int]:
    """The numbers in a TLS feature extension (RFC 7633), known or not; none in another one, or one that is damaged."""
    value = extension.value
    if extension.oid != ExtensionOID.TLS_FEATURE.dotted_string:
        return set()
    try:
        listed = der.children(value, der.expect(der.element(value, 0, len(value)), der.SEQUENCE))
        return {der.integer(value, der.expect(one, der.INTEGER)) for one in listed}
    except der.DerError:
        return set()
