"""The rules for a leaf by itself: dates, names, purposes, key. `path_rules` has those for the certificates above it.

The rules that bind public CAs only (CA/B Baseline Requirements) apply under the public profile.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from rotator.core.hints import shell_word
from rotator.core.model import Policy
from rotator.core.problems import Code, Problem, Severity
from rotator.core.text import shown
from rotator.validation.path_rules import rsa_weakness
from rotator.x509 import der
from rotator.x509.certificate import CURVES, Certificate, about
from rotator.x509.hostnames import address, ascii_form, dns_fault, entry_fault

LARGE_RSA_BITS = 4096
"""The bits of an RSA key above which each handshake noticeably costs the server time."""

SOON = timedelta(days=30)
"""The remaining time below which expiry warns, or a third of the lifetime if that is less: certbot renews before it."""

_CAPS = (
    (datetime(2029, 3, 15, tzinfo=UTC), 47),
    (datetime(2027, 3, 15, tzinfo=UTC), 100),
    (datetime(2026, 3, 15, tzinfo=UTC), 200),
    (datetime(2020, 9, 1, tzinfo=UTC), 398),
    (datetime(2018, 3, 1, tzinfo=UTC), 825),
    (datetime(2015, 4, 1, tzinfo=UTC), 1188),
    (datetime(2012, 7, 1, tzinfo=UTC), 1827),
)
"""Dates of issue, each with the longest lifetime in days from then on (CA/B BR 6.3.2 and its history).

1188 and 1827 days are the former 39 and 60 months.
"""

_NETSCAPE_SERVER = 0x40
"""The bit of nsCertType that allows TLS servers."""

_RENEW = "Have the certificate issued again."
_NEW_KEY = "Order the certificate with an ECDSA P-256 or RSA-2048 key."
_ASK_CA = "Ask the CA to issue it again, without this fault."


def lifetime_cap(issued: datetime) -> timedelta | None:
    """The longest lifetime of a public certificate with this date of issue; None before there was a limit."""
    return next((timedelta(days=days) for since, days in _CAPS if issued >= since), None)


def problems_of(leaf: Certificate, policy: Policy, now: datetime) -> tuple[Problem, ...]:
    """All refusals and warnings of a leaf by itself.

    Args:
        leaf: the certificate that would be sent first.
        policy: the required names, the accepted key types and the profile.
        now: the reference time, UTC.
    """
    return (
        *(about(leaf, fault.code, fault.reason, _ASK_CA) for fault in leaf.faults),
        *_dates(leaf, now),
        *_lifetime(leaf, policy),
        *_names(leaf, policy),
        *_purposes(leaf),
        *_usage(leaf),
        *_key(leaf, policy),
        *_signature_and_extensions(leaf, policy),
    )


def _dates(leaf: Certificate, now: datetime) -> list[Problem]:
    problems: list[Problem] = []
    begin, end = leaf.not_before, leaf.not_after
    if now > end:
        problems.append(about(leaf, Code.EXPIRED, f"expired on {end:%Y-%m-%d %H:%M:%S}Z", _RENEW))
    elif now < begin:
        hint = "Wait until then, or check this host's clock."
        problems.append(about(leaf, Code.NOT_YET_VALID, f"is not valid before {begin:%Y-%m-%d %H:%M:%S}Z", hint))
    elif end - now < min((end - begin) / 3, SOON):
        reason = f"expires soon, on {end:%Y-%m-%d %H:%M}Z"
        problems.append(about(leaf, Code.EXPIRES_SOON, reason, "Is this the renewed one?", Severity.WARN))
    return problems


def _lifetime(leaf: Certificate, policy: Policy) -> list[Problem]:
    """The caps on the lifetime; the last second of the validity counts (RFC 5280 4.1.2.5)."""
    begin, end = leaf.not_before, leaf.not_after
    problems: list[Problem] = []
    cap = lifetime_cap(begin) if policy.lifetime_caps else None
    if cap is not None and end - begin + timedelta(seconds=1) > cap:
        days = (end - begin).total_seconds() / 86400
        reason = f"is valid for {days:.1f} days; a public certificate issued on {begin:%Y-%m-%d} may have {cap.days}"
        hint = "Order one with a shorter lifetime; for a private CA choose the policy private-ca."
        problems.append(about(leaf, Code.TOO_LONG, reason, hint))
    elif policy.max_lifetime and end - begin + timedelta(seconds=1) > timedelta(days=policy.max_lifetime):
        days = (end - begin).total_seconds() / 86400
        reason = f"is valid for {days:.1f} days; the policy allows {policy.max_lifetime} (max_lifetime)"
        hint = "Order one with a shorter lifetime, or change the policy."
        problems.append(about(leaf, Code.TOO_LONG, reason, hint))
    return problems


def _names(leaf: Certificate, policy: Policy) -> list[Problem]:
    """The alternative names (RFC 5280 4.2.1.6; RFC 9525: only they count), and the required names among them."""
    problems: list[Problem] = []
    damaged = any(fault.code == Code.BAD_SAN for fault in leaf.faults)
    if not (leaf.dns_names or leaf.ip_names or damaged):
        reason = "has no subject alternative name for a host; clients ignore the common name"
        problems.append(about(leaf, Code.NO_SAN, reason, "Order it with every host name as alternative name."))
    if leaf.ext(x509.SubjectAlternativeName) is None:
        return problems
    problems += _entries(leaf, policy)
    covered = leaf.covered_names
    missing = [name for name in policy.names if not covered.covers(name)]
    if missing:
        problems.append(_missing(leaf, missing))
    return problems + _common_names(leaf)


def _entries(leaf: Certificate, policy: Policy) -> list[Problem]:
    """The syntax of the alternative names (RFC 5280 4.2.1.6; CA/B BR 7.1.2.7.12)."""
    problems: list[Problem] = []
    malformed = [
        f"{shown(entry, 80)!r} ({fault})"
        for entry in leaf.dns_names
        if (fault := entry_fault(entry, public=policy.binds_public))
    ]
    if malformed:
        more = f" and {len(malformed) - 3} more" if len(malformed) > 3 else ""
        reason = f"has malformed alternative names: {', '.join(malformed[:3])}{more}"
        problems.append(about(leaf, Code.BAD_SAN, reason, _ASK_CA))
    critical, empty = leaf.critical(ExtensionOID.SUBJECT_ALTERNATIVE_NAME), leaf.outline.subject == b"\x30\x00"
    if empty and not critical:
        reason = "has an empty subject, so its alternative names must be critical"
        problems.append(about(leaf, Code.BAD_SAN, reason, _ASK_CA))
    if critical and not empty and policy.binds_public:
        reason = "marks its alternative names as critical although it has a subject"
        problems.append(about(leaf, Code.BAD_SAN, reason, _ASK_CA))
    return problems


def _common_names(leaf: Certificate) -> list[Problem]:
    """A warning of each common name that looks like a host name and is missing among the alternative names."""
    problems: list[Problem] = []
    present = {name.lower() for name in leaf.dns_names}
    for name in leaf.common_names:
        ip = address(name)
        listed = name.lower() in present or (ip in leaf.ip_names if ip else not _is_host(name))
        if not listed:
            reason = f"has the common name {shown(name, 80)!r}, which is not among its alternative names"
            hint = "Clients ignore the common name: does any program rely on it?"
            problems.append(about(leaf, Code.CN_NOT_IN_SAN, reason, hint, Severity.WARN))
    return problems


def _is_host(name: str) -> bool:
    return "." in name and not dns_fault(name[2:] if name[:2] == "*." else name)


def _missing(leaf: Certificate, missing: list[str]) -> Problem:
    """The refusal of a leaf that lacks required names, with the names that it covers."""
    present = [*(n for n in leaf.dns_names if not entry_fault(n, public=False)), *map(str, leaf.ip_names)]
    more = f" and {len(present) - 5} more" if len(present) > 5 else ""
    invalid = [name for name in missing if address(name) is None and not _is_dns_name(name)]
    reason = f"does not cover {', '.join(shown(n, 80) for n in missing[:20])}"
    reason += f" and {len(missing) - 20} more" if len(missing) > 20 else ""
    reason += f"; it covers {shown(', '.join(present[:5]))}{more}" if present else ""
    hint = "Order the certificate with these names, or remove them from the configuration."
    if invalid:
        hint = f"{shell_word(invalid[0])} is no host name; correct the configuration."
    return about(leaf, Code.NAME_MISMATCH, reason, hint)


def _is_dns_name(name: str) -> bool:
    try:
        ascii_form(name)
    except ValueError:
        return False
    return True


def _purposes(leaf: Certificate) -> list[Problem]:
    """Extended key usage (RFC 5280 4.2.1.12). anyExtendedKeyUsage is not enough: OpenSSL demands serverAuth itself."""
    purposes = leaf.ext(x509.ExtendedKeyUsage)
    if leaf.netscape_types is not None and not leaf.netscape_types & _NETSCAPE_SERVER:
        reason = "is not for TLS servers (nsCertType lacks server), and OpenSSL's clients still check that"
        return [about(leaf, Code.BAD_EKU, reason, "Order a TLS server certificate.")]
    if purposes is None:
        if any(fault.code == Code.BAD_EKU for fault in leaf.faults):
            return []
        reason = "does not name its purpose (no extendedKeyUsage); some clients demand serverAuth"
        return [about(leaf, Code.NO_EKU, reason, _ASK_CA, Severity.WARN)]
    if ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
        reason = "is not for TLS servers (extendedKeyUsage lacks serverAuth)"
        return [about(leaf, Code.BAD_EKU, reason, "Order a TLS server certificate.")]
    if ExtendedKeyUsageOID.CLIENT_AUTH in purposes:
        reason = "is for TLS clients too (clientAuth); public CAs stop issuing such certificates"
        hint = "Use another certificate for connections in which this host is the client."
        return [about(leaf, Code.CLIENT_AUTH_EKU, reason, hint, Severity.WARN)]
    return []


def _usage(leaf: Certificate) -> list[Problem]:
    """Basic constraints and key usage (RFC 5280 4.2.1.3, 4.2.1.9; TLS 1.3 signs with every type of key)."""
    if leaf.is_ca:
        reason = "is a CA certificate, not one for a server"
        return [about(leaf, Code.CA_LEAF, reason, "Add the certificate that the CA issued for the host.")]
    usage = leaf.ext(x509.KeyUsage)
    if usage is None:
        if any(fault.code == Code.BAD_KEY_USAGE for fault in leaf.faults):
            return []
        reason = "does not name the use of its key (no keyUsage)"
        return [about(leaf, Code.NO_KEY_USAGE, reason, _ASK_CA, Severity.WARN)]
    if usage.key_cert_sign:
        reason = "may sign certificates (keyUsage keyCertSign) without being a CA"
        return [about(leaf, Code.BAD_KEY_USAGE, reason, _ASK_CA)]
    if not usage.digital_signature:
        reason = "may not sign handshakes (keyUsage lacks digitalSignature)"
        return [about(leaf, Code.BAD_KEY_USAGE, reason, _ASK_CA)]
    return []


def _key(leaf: Certificate, policy: Policy) -> list[Problem]:
    """The public key (CA/B BR 6.1.5, 6.1.6)."""
    key, kind = leaf.key, leaf.key_type
    if kind is None:
        curves = ", ".join(CURVES.values())
        reason = f"has a key that browsers do not accept ({leaf.key_title}); they accept RSA and the curves {curves}"
        return [about(leaf, Code.KEY_TYPE, reason, _NEW_KEY)]
    if kind not in policy.key_types:
        allowed = ", ".join(sorted(policy.key_types))
        return [about(leaf, Code.KEY_TYPE, f"has a key of type {kind}; the policy accepts {allowed}", _NEW_KEY)]
    if key.algorithm != der.RSA:
        return _key_fault(leaf)
    if key.bits < policy.min_rsa_bits:
        reason = f"has an RSA key of {key.bits} bits; the minimum is {policy.min_rsa_bits}"
        return [about(leaf, Code.WEAK_KEY, reason, _NEW_KEY)]
    if key.bits > policy.max_rsa_bits:
        reason = f"has an RSA key of {key.bits} bits; the maximum is {policy.max_rsa_bits}"
        return [about(leaf, Code.KEY_LARGE, reason, _NEW_KEY)]
    if key.exponent < 0:  # longer than 64 bits
        return [about(leaf, Code.KEY_INVALID, "has an RSA key with an exponent too large for clients", _NEW_KEY)]
    if reason := rsa_weakness(leaf):
        return [about(leaf, Code.WEAK_KEY, reason, _NEW_KEY)]
    problems = _key_fault(leaf)
    if key.exponent < 65537:
        reason = f"has an RSA key with the small exponent {key.exponent}"
        problems.append(about(leaf, Code.SMALL_EXPONENT, reason, _NEW_KEY, Severity.WARN))
    if key.bits > LARGE_RSA_BITS:
        reason = f"has an RSA key of {key.bits} bits, which slows every handshake down"
        problems.append(about(leaf, Code.KEY_LARGE, reason, _NEW_KEY, Severity.WARN))
    return problems


def _key_fault(leaf: Certificate) -> list[Problem]:
    fault = leaf.key_fault
    return [about(leaf, fault.code, fault.reason, _NEW_KEY)] if fault else []


def _signature_and_extensions(leaf: Certificate, policy: Policy) -> list[Problem]:
    """Signature, precertificate poison, name constraints, authority key identifier; must-staple is in `stapling`."""
    problems: list[Problem] = []
    if leaf.weak_signature:
        reason = f"is signed with {leaf.weak_signature}, which clients refuse"
        problems.append(about(leaf, Code.WEAK_SIGNATURE, reason, _RENEW))
    if any(e.oid == ExtensionOID.PRECERT_POISON.dotted_string for e in leaf.outline.extensions):
        reason = "is a precertificate (it has the poison extension of RFC 6962), which no client accepts"
        problems.append(about(leaf, Code.PRECERTIFICATE, reason, "Fetch the final certificate from the CA."))
    if leaf.ext(x509.NameConstraints) is not None:
        reason = "has name constraints, which only a CA certificate may have"
        problems.append(about(leaf, Code.NAME_CONSTRAINTS, reason, _ASK_CA))
    if not leaf.authority_key_id and not leaf.self_issued:
        severity = Severity.REJECT if policy.binds_public else Severity.WARN
        reason = "does not name its issuer's key (no authority key identifier)"
        problems.append(about(leaf, Code.NO_AKI, reason, _ASK_CA, severity))
    return problems
