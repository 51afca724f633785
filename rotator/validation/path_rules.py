"""The rules for a certification path above its leaf (RFC 5280 section 6.1, CA/B BR), and the library's own verdict.

The library verifies every path that it can read. Its errors have no codes and little help for the person on call, so
the same rules are checked here as well, and each of the two can refuse. `path_builder` finds the path, and `leaf_rules`
has the rules for the leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    VerificationError,
)
from cryptography.x509.verification import (
    Policy as LibraryPolicy,
)

from rotator.core.model import KeyType, Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.validation import name_constraints
from rotator.validation.trust_anchors import Anchors
from rotator.x509 import der
from rotator.x509.certificate import CURVES, MAX_RSA_BITS, Certificate, about, colons
from rotator.x509.weak_rsa import weakness

MAX_DEPTH = 8
"""The most intermediates on a path; the library has the same limit."""

MAX_SENT = 100 * 1024
"""The most bytes of a handshake's Certificate message that OpenSSL's clients accept (SSL_MAX_CERT_LIST_DEFAULT)."""

_ASK_CA = "Ask the CA for a correct chain, and replace the intermediates with it."


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A leaf and the certificates above it, each of which signed the previous one.

    Args:
        served: the certificates that nginx would send, leaf first, without the anchor.
        anchor: the trusted root at its end; None if the path reaches none. It is the leaf itself if the leaf is a
            trusted root.
    """

    served: tuple[Certificate, ...]
    anchor: Certificate | None = None

    @property
    def effective_not_after(self) -> datetime:
        """The earliest notAfter of the served certificates, UTC."""
        return min(c.not_after for c in self.served)

    @property
    def authorities(self) -> tuple[Certificate, ...]:
        """The certificates above the leaf, the anchor last."""
        leaf_is_anchor = self.anchor is not None and self.anchor.raw == self.served[0].raw
        return self.served[1:] if self.anchor is None or leaf_is_anchor else (*self.served[1:], self.anchor)


def problems_of(path: Path, policy: Policy, now: datetime) -> tuple[Problem, ...]:
    """All problems above the leaf, by the rules of RFC 5280 section 6.1 and of strict clients.

    Args:
        path: a complete or an incomplete path.
        policy: its profile decides whether the rules for public CAs apply.
        now: the reference time, UTC.
    """
    problems: list[Problem] = []
    below = list(path.served[:1])
    depth = 0
    budget = [name_constraints.MAX_COMPARISONS]
    for authority in path.authorities:
        trusted = authority is path.anchor
        problems += _dates(authority, now, trusted=trusted)
        problems += _authority(authority, depth, policy, trusted=trusted)
        problems += _path_length(authority, depth, len(below) - 1)
        problems += _signature(below[-1], authority)
        reason = name_constraints.violation(authority, below, budget)
        if reason:
            hint = "The CA must not issue for this name; order the certificate from another CA."
            problems.append(about(authority, Code.NAME_CONSTRAINTS, f"has name constraints: {reason}", hint))
        if not authority.self_issued:
            depth += 1
        below.append(authority)
    problems += _size(path)
    return tuple(problems)


def _dates(authority: Certificate, now: datetime, *, trusted: bool) -> list[Problem]:
    kind = "root" if trusted or authority.self_issued else "intermediate"
    if now > authority.not_after:
        code = Code.EXPIRED_ROOT if kind == "root" else Code.EXPIRED_INTERMEDIATE
        reason = f"({kind}) expired on {authority.not_after:%Y-%m-%d %H:%M:%S}Z"
        return [about(authority, code, reason, "Fetch the CA's current chain file.")]
    if now < authority.not_before:
        reason = f"({kind}) is not valid before {authority.not_before:%Y-%m-%d %H:%M:%S}Z"
        return [about(authority, Code.NOT_YET_VALID, reason, "Wait, or check this host's clock.")]
    return []


def _authority(authority: Certificate, depth: int, policy: Policy, *, trusted: bool) -> list[Problem]:
    """The problems of a certificate as an issuer (RFC 5280 6.1.4 k, n, o; CA/B BR 7.1.2.5, 7.1.2.10)."""
    problems: list[Problem] = []

    def wrong(code: Code, reason: str, hint: str = _ASK_CA) -> None:
        """Adds a problem of this authority."""
        problems.append(about(authority, code, reason, hint))

    public = policy.binds_public and not trusted
    basic, usage = authority.ext(x509.BasicConstraints), authority.ext(x509.KeyUsage)
    if basic is None or not basic.ca:
        wrong(Code.NOT_A_CA, "has issued a certificate but is no CA (its basicConstraints lack cA)")
    elif public and not authority.critical(ExtensionOID.BASIC_CONSTRAINTS):
        wrong(Code.CRITICAL_EXTENSION, "does not mark its basicConstraints as critical")
    if usage is None:
        if public:
            wrong(Code.BAD_KEY_USAGE, "is a CA without keyUsage")
    elif not usage.key_cert_sign:
        wrong(Code.NOT_A_CA, "may not sign certificates (keyUsage lacks keyCertSign)")
    purposes = authority.ext(x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
        # OpenSSL demands serverAuth of all authorities, trusted roots too; `any` is not enough (x509v3/v3_purp.c)
        wrong(Code.BAD_EKU, "is limited to other purposes than TLS servers (extendedKeyUsage lacks serverAuth)")
    if not trusted and authority.weak_signature:
        wrong(Code.WEAK_SIGNATURE, f"is signed with {authority.weak_signature}, which clients refuse")
    problems += _key_ids(authority, policy, trusted=trusted)
    problems += _key(authority, policy)
    for fault in authority.faults:
        if not (trusted and fault.code == Code.BAD_SERIAL):
            wrong(fault.code, fault.reason)
    return problems


def _path_length(authority: Certificate, depth: int, all_below: int) -> list[Problem]:
    """Whether the path length constraint allows the authorities below (RFC 5280 4.2.1.9, 6.1.4 l and m).

    The RFC and OpenSSL do not count self-issued certificates; Go and the library count all of them.

    Args:
        authority: the certificate with the constraint.
        depth: the number of authorities between it and the leaf, without self-issued ones.
        all_below: the same number with self-issued ones.
    """
    basic = authority.ext(x509.BasicConstraints)
    if basic is None or not basic.ca or basic.path_length is None or basic.path_length >= all_below:
        return []
    if basic.path_length < depth:
        reason = f"allows {basic.path_length} intermediates below it, and there are {depth}"
    else:
        reason = (
            f"allows {basic.path_length} intermediates below it, and there are {all_below} including certificates for "
            "a new key of the same CA; OpenSSL does not count these (RFC 5280 6.1.4 l), Go and others do"
        )
    return [about(authority, Code.PATHLEN, reason, _ASK_CA)]


def _key_ids(authority: Certificate, policy: Policy, *, trusted: bool) -> list[Problem]:
    """Whether an intermediate has both key identifiers (RFC 5280 4.2.1.1, 4.2.1.2; OpenSSL's X509_STRICT)."""
    if trusted:
        return []
    if authority.self_issued and not authority.authority_key_id and not authority.signed(authority):
        reason = (
            "certifies a new key of the CA with its own name and does not name the key that signed it (no authority "
            "key identifier), so OpenSSL takes it for an untrusted root"
        )
        return [about(authority, Code.NO_AKI, reason, _ASK_CA)]
    severity = Severity.REJECT if policy.binds_public else Severity.WARN
    lacking = [] if authority.key_id else ["its own key (no subject key identifier)"]
    lacking += (
        []
        if authority.authority_key_id or authority.self_issued
        else ["its issuer's key (no authority key identifier)"]
    )
    reason = "does not name {}, which Python since 3.13 and other strict clients demand"
    return [about(authority, Code.NO_AKI, reason.format(key), _ASK_CA, severity) for key in lacking]


def _key(authority: Certificate, policy: Policy) -> list[Problem]:
    """Whether clients accept its key (CA/B BR 6.1.5, 7.1.3.1)."""
    key, reason, code = authority.key, "", Code.WEAK_KEY
    if key.algorithm == der.RSA and key.bits < policy.min_rsa_bits:
        reason = f"has an RSA key of {key.bits} bits; the minimum is {policy.min_rsa_bits}"
    elif weak := rsa_weakness(authority):
        reason = weak
    elif not authority.usable_key:
        reason, code = f"has a key that clients do not accept ({key.algorithm})", Code.KEY_TYPE
    elif authority.key_type is None:
        reason = f"has a key on a curve that clients do not support (they support {', '.join(CURVES.values())})"
        code = Code.KEY_TYPE
    elif authority.key_type is KeyType.ED25519 and policy.binds_public:
        reason, code = "has an Ed25519 key, which browsers do not accept", Code.KEY_TYPE
    elif fault := authority.key_fault:
        reason, code = fault.reason, fault.code
    return [about(authority, code, reason, _ASK_CA)] if reason else []


def rsa_weakness(certificate: Certificate) -> str:
    """The weakness that exposes its private RSA key (CA/B BR 6.1.1.3, 6.1.6), as a clause; empty if none."""
    key = certificate.key
    if key.algorithm != der.RSA or key.exponent < 0 or key.bits > MAX_RSA_BITS:
        return ""
    if key.exponent < 3 or not key.exponent & 1:
        return f"has an RSA key with the exponent {key.exponent}, which keeps no secret: it must be odd and at least 3"
    modulus_weakness = weakness(key.modulus)
    return f"has an RSA key {modulus_weakness}" if modulus_weakness else ""


def _signature(child: Certificate, authority: Certificate) -> list[Problem]:
    """Whether the child's authority key identifier fits this authority (RFC 5280 4.2.1.1; OpenSSL refuses others)."""
    if child.names_key_of(authority):
        return []
    named, own = child.authority_key_id, authority.key_id
    reason = f"is signed by {authority.title} but names another "
    if named and own and named != own:
        reason += f"key as its issuer's: {colons(named)}, not {colons(own)}"
    else:
        reason += "certificate as its issuer's, by serial number and issuer"
    hint = "Fetch the CA's chain file for exactly this certificate; the issuer was renewed under the same name."
    return [about(child, Code.AKI_MISMATCH, reason, hint)]


def _size(path: Path) -> list[Problem]:
    """The problems of the path's length and size."""
    problems: list[Problem] = []
    if len(path.served) - 1 > MAX_DEPTH:
        reason = f"needs {len(path.served) - 1} intermediates; clients follow {MAX_DEPTH}"
        problems.append(about(path.served[0], Code.CHAIN_TOO_LONG, reason, _ASK_CA))
    size = 4 + sum(len(c.raw) + 5 for c in path.served)  # with the framing of TLS 1.3 (RFC 8446 4.4.2)
    if size > MAX_SENT:
        reason = (
            f"and its chain take {size >> 10} KiB in a handshake; OpenSSL's clients refuse over {MAX_SENT >> 10} KiB"
        )
        problems.append(about(path.served[0], Code.TOO_LARGE, reason, "Spread the names over several certificates."))
    return problems


def library_verdict(path: Path, anchors: Anchors, policy: Policy, now: datetime) -> tuple[Problem, ...]:
    """The verdict of `cryptography.x509.verification` on exactly the certificates that would be served.

    It is based on the library's own policy for the web, with three exceptions. An anchor may lack keyUsage or the
    `critical` mark of its basicConstraints, as real roots do (RFC 5280 6.1.1 d uses an anchor's name and key only);
    `problems_of` demands both of intermediates. Certificate policies may be critical (RFC 5280 4.2.1.4), as clients
    ignore them. Under the private profile, leaves may lack extensions that only CA/B demands.

    Returns:
        Nothing if the library accepts, or cannot read one of the certificates or their constraints; else one problem.
    """
    used = (*path.served, *path.authorities[-1:])
    if not all(c.strict and name_constraints.supported_by_library(c) for c in used):
        return ()
    if not policy.binds_public and any(c.key_type is KeyType.ED25519 for c in path.authorities):
        return ()  # the library's list of algorithms lacks Ed25519 and cannot be extended
    leaf = path.served[0]
    probe = leaf.covered_names.probe
    if probe is None:
        return ()  # `leaf_rules` refuses a leaf without any name
    subject = x509.DNSName(probe) if isinstance(probe, str) else x509.IPAddress(probe)
    authority = (
        ExtensionPolicy.webpki_defaults_ca()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_ca)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, None)
        .may_be_present(x509.CertificatePolicies, Criticality.AGNOSTIC, None)
    )
    end_entity = ExtensionPolicy.webpki_defaults_ee().may_be_present(
        x509.CertificatePolicies, Criticality.AGNOSTIC, None
    )
    if not policy.binds_public or leaf.self_issued:
        # a self-signed certificate needs no authority key identifier (RFC 5280 4.2.1.1), and clients demand none
        end_entity = end_entity.may_be_present(x509.AuthorityKeyIdentifier, Criticality.AGNOSTIC, None)
    if not policy.binds_public:
        end_entity = end_entity.require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
        # RFC 5280 4.2.1.12 allows a critical one; our own rules check its content
        end_entity = end_entity.may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
        authority = authority.may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
    verifier = (
        PolicyBuilder()
        .store(anchors.store)
        .time(now.astimezone(UTC).replace(tzinfo=None))
        .max_chain_depth(MAX_DEPTH)
        .extension_policies(ca_policy=authority, ee_policy=end_entity)
        .build_server_verifier(subject)
    )
    try:
        verifier.verify(leaf.loaded, [c.loaded for c in path.served[1:]])
    except (VerificationError, ValueError) as error:
        text = str(error).partition(" (encountered")[0].removeprefix("validation failed: ")
        hint = "This is the verdict of a strict verifier; ask the CA for a certificate that it accepts."
        return (about(leaf, _code_of(text), f"is refused by a strict verifier: {text[:200]}", hint),)
    return ()


def _is_ca(_policy: LibraryPolicy, _certificate: x509.Certificate, basic: x509.BasicConstraints) -> None:
    if not basic.ca:
        raise ValueError("basicConstraints.cA must be asserted in a CA certificate")


_CODES_BY_PHRASE: Sequence[tuple[str, Code]] = (
    ("name constraint", Code.NAME_CONSTRAINTS),
    ("nameconstraint", Code.NAME_CONSTRAINTS),
    ("2.5.29.30", Code.NAME_CONSTRAINTS),
    ("in an ee", Code.CA_LEAF),
    ("basicconstraints", Code.NOT_A_CA),
    ("path length", Code.PATHLEN),
    ("depth", Code.CHAIN_TOO_LONG),
    ("keyusage", Code.BAD_KEY_USAGE),
    ("required eku", Code.BAD_EKU),
    ("2.5.29.37", Code.BAD_EKU),
    ("2.5.29.35", Code.NO_AKI),
    ("authoritykeyidentifier", Code.NO_AKI),
    ("subjectaltname", Code.BAD_SAN),
    ("2.5.29.17", Code.BAD_SAN),
    ("public key", Code.KEY_TYPE),
    ("rsa key", Code.WEAK_KEY),
    ("signature algorithm", Code.WEAK_SIGNATURE),
    ("signature does not match", Code.BAD_SIGNATURE),
    ("serial", Code.BAD_SERIAL),
    ("validity", Code.BAD_VALIDITY),
    ("not valid at", Code.EXPIRED),
    ("extension", Code.CRITICAL_EXTENSION),
    ("candidates exhausted", Code.UNTRUSTED_ROOT),
)


def _code_of(text: str) -> Code:
    """The code for a message of the library, which has no codes: that of the first phrase in the message."""
    lower = text.lower()
    return next((code for phrase, code in _CODES_BY_PHRASE if phrase in lower), Code.PARSE_ERROR)


def warnings_of(path: Path, now: datetime) -> tuple[Problem, ...]:
    """The warnings of an accepted path.

    Args:
        path: the accepted path.
        now: the reference time, UTC.
    """
    return (*_expiring_first(path, now), *_refused_by_strict_clients(path))


def _refused_by_strict_clients(path: Path) -> list[Problem]:
    """Authorities that lack a requirement of OpenSSL's X509_STRICT, which Python's clients set since 3.13.

    For intermediates of public CAs, `problems_of` refuses them already.
    """
    problems: list[Problem] = []
    for authority in path.authorities:
        root = authority is path.anchor
        lacking = [] if authority.key_id or not root else [(Code.NO_AKI, "has no subject key identifier")]
        lacking += [] if authority.ext(x509.KeyUsage) else [(Code.BAD_KEY_USAGE, "has no keyUsage")]
        if not authority.critical(ExtensionOID.BASIC_CONSTRAINTS):
            lacking.append((Code.CRITICAL_EXTENSION, "does not mark its basicConstraints as critical"))
        title = "root" if root else "intermediate"
        reason = f"({title}) {{}}: Python since 3.13 refuses it, most other clients accept it"
        hint = "Ask the CA for another chain, if such clients matter."
        problems += [about(authority, code, reason.format(lack), hint, Severity.WARN) for code, lack in lacking]
        if name_constraints.unknown_to_go(authority):
            reason = (
                f"({title}) has critical name constraints of a kind that Go does not support: its clients refuse it"
            )
            problems.append(about(authority, Code.CRITICAL_EXTENSION, reason, hint, Severity.WARN))
    return problems


def _expiring_first(path: Path, now: datetime) -> list[Problem]:
    """Authorities that expire before the leaf."""
    end = path.served[0].not_after
    hint = "Renew before that day, or ask the CA for a newer intermediate."
    problems: list[Problem] = []
    for authority in path.authorities:
        if now <= authority.not_after < end:
            reason = f"expires on {authority.not_after:%Y-%m-%d}, before the leaf ({end:%Y-%m-%d})"
            problems.append(about(authority, Code.INTERMEDIATE_EXPIRES_FIRST, reason, hint, Severity.WARN))
    return problems
