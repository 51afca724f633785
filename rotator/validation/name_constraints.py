"""Name constraints of a certificate authority applied to the names below it (RFC 5280 4.2.1.10); nothing else.

It is asked for a diagnosis, and for a verdict only where the library cannot read a certificate; so what it does not
know it refuses, and its work is bounded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from rotator.x509.certificate import Certificate
from rotator.x509.hostnames import address, dns_fault

MAX_COMPARISONS = 200_000
"""Name by constraint comparisons that one path may cost, about a tenth of a second."""

_UNDERSTOOD = (x509.DNSName, x509.IPAddress, x509.DirectoryName, x509.RFC822Name, x509.UniformResourceIdentifier)
_GO = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:@\[\]]+)(?::[0-9]*)?(?:[/?#].*)?", re.DOTALL)


def _subtrees(authority: Certificate) -> list[x509.GeneralName]:
    limits = authority.ext(x509.NameConstraints)
    return [*(limits.permitted_subtrees or []), *(limits.excluded_subtrees or [])] if limits else []


def plain(authority: Certificate) -> bool:
    """Whether the library processes its constraints: not those on directories and URIs, nor the empty name of DNS."""
    beyond = (x509.DirectoryName, x509.UniformResourceIdentifier)
    return not any(isinstance(one, beyond) or one == x509.DNSName("") for one in _subtrees(authority))


def unknown_to_go(authority: Certificate) -> bool:
    """Whether its constraints are critical and of a kind that Go does not process (crypto/x509, parser.go)."""
    critical = authority.critical(ExtensionOID.NAME_CONSTRAINTS)
    return critical and not all(isinstance(one, _GO) for one in _subtrees(authority))


def violation(authority: Certificate, below: Iterable[Certificate], budget: list[int]) -> str:
    """How names below an authority break its constraints.

    Args:
        authority: the certificate with the constraints, if it has any.
        below: the certificates under it on the path, the leaf among them.
        budget: one number: comparisons that may still be made; it is counted down.

    Returns:
        The reason in words; empty if the constraints are kept.
    """
    constraints = authority.ext(x509.NameConstraints)
    if constraints is None:
        return ""
    permitted, excluded = constraints.permitted_subtrees or [], constraints.excluded_subtrees or []
    if not permitted and not excluded:
        return "they are empty, which is forbidden"
    for subtree in (*permitted, *excluded):
        if isinstance(subtree, x509.DNSName) and not _fit_dns(subtree.value):
            return f"they hold a malformed DNS name, {subtree.value[:80]!r}"
    for certificate in below:
        for name in _names(certificate):
            budget[0] -= len(permitted) + len(excluded)
            if budget[0] < 0:
                return "there are too many names and constraints to compare"
            reason = _judge(name, permitted, excluded)
            if reason:
                return f"{_text(name)} of {certificate.title} {reason}"
    return ""


def _fit_dns(subtree: str) -> bool:
    return subtree == "" or not dns_fault(subtree) or "_" in subtree


def _names(certificate: Certificate) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    subject = certificate.subject_name
    if subject:
        found.append(x509.DirectoryName(subject))
    alternative = certificate.ext(x509.SubjectAlternativeName)
    return [*found, *alternative] if alternative else found


def _judge(name: x509.GeneralName, permitted: list[x509.GeneralName], excluded: list[x509.GeneralName]) -> str:
    same = [subtree for subtree in permitted if type(subtree) is type(name)]
    barred = [subtree for subtree in excluded if type(subtree) is type(name)]
    if (same or barred) and not isinstance(name, _UNDERSTOOD):
        return "is of a kind whose constraints are not understood"
    if any(_inside(name, subtree, reach=True) for subtree in barred):
        return "is excluded"
    if same and not any(_inside(name, subtree, reach=False) for subtree in same):
        return "is not among the permitted"
    return ""


def _inside(name: x509.GeneralName, subtree: x509.GeneralName, *, reach: bool) -> bool:
    """Whether a name is in a subtree; with `reach`, whether a wildcard could stand for a name in it."""
    if isinstance(name, x509.DNSName) and isinstance(subtree, x509.DNSName):
        value, limit = name.value.lower(), subtree.value.lower()
        bare = value[2:] if value[:2] == "*." else value
        within = not limit or bare == limit or bare.endswith("." + limit)
        reaches = reach and bare != value and limit.partition(".")[2] == bare
        return within or reaches
    if isinstance(name, x509.IPAddress) and isinstance(subtree, x509.IPAddress):
        network = subtree.value
        if not isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network):
            return reach
        ip = address(str(name.value))
        return ip in network if ip is not None else reach
    if isinstance(name, x509.DirectoryName) and isinstance(subtree, x509.DirectoryName):
        limits = _folded(subtree.value)
        return _folded(name.value)[: len(limits)] == limits
    if isinstance(name, x509.RFC822Name) and isinstance(subtree, x509.RFC822Name):
        mailbox, _, host = name.value.rpartition("@")
        box, at, limit = subtree.value.rpartition("@")
        return _within(host, limit) and (not at or box == mailbox)
    if isinstance(name, x509.UniformResourceIdentifier) and isinstance(subtree, x509.UniformResourceIdentifier):
        named = _HOST.fullmatch(name.value)
        # without a host there is nothing to compare (RFC 5280 4.2.1.10), which keeps neither kind of constraint
        return _within(named[1], subtree.value) if named and address(named[1]) is None else reach
    return False


def _within(host: str, limit: str) -> bool:
    """Whether a host is the one that is meant or, where the limit begins with a dot, one below it."""
    host, limit = host.lower(), limit.lower()
    return host.endswith(limit) if limit[:1] == "." else host == limit


def _folded(name: x509.Name) -> list[frozenset[tuple[x509.ObjectIdentifier, str | bytes]]]:
    """A name as it is compared: without regard to case, runs of spaces and kinds of string (RFC 5280 7.1)."""
    return [
        frozenset((a.oid, " ".join(a.value.casefold().split()) if isinstance(a.value, str) else a.value) for a in rdn)
        for rdn in name.rdns
    ]


def _text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return name.value[:100]
    if isinstance(name, x509.IPAddress):
        return str(name.value)
    return "the subject" if isinstance(name, x509.DirectoryName) else "an alternative name"
