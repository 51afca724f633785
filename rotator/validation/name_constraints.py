"""The name constraints of a CA, applied to the names below it (RFC 5280 4.2.1.10).

They serve for the diagnosis, and for the verdict if the library cannot read a certificate. Kinds of names that are not
understood are therefore refused, and the number of comparisons is limited.
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
"""The most comparisons of a name with a constraint for one path: about a tenth of a second."""

_UNDERSTOOD = (x509.DNSName, x509.IPAddress, x509.DirectoryName, x509.RFC822Name, x509.UniformResourceIdentifier)
_GO = (x509.DNSName, x509.IPAddress, x509.RFC822Name, x509.UniformResourceIdentifier)
_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#:@\[\]]+)(?::[0-9]*)?(?:[/?#].*)?", re.DOTALL)


def _subtrees(authority: Certificate) -> list[x509.GeneralName]:
    limits = authority.ext(x509.NameConstraints)
    return [*(limits.permitted_subtrees or []), *(limits.excluded_subtrees or [])] if limits else []


def supported_by_library(authority: Certificate) -> bool:
    """Whether the library supports its constraints: it lacks directory names, URIs and the empty DNS name."""
    unsupported = (x509.DirectoryName, x509.UniformResourceIdentifier)
    return not any(isinstance(tree, unsupported) or tree == x509.DNSName("") for tree in _subtrees(authority))


def unknown_to_go(authority: Certificate) -> bool:
    """Whether its constraints are critical and of a kind that Go does not support (crypto/x509, parser.go)."""
    critical = authority.critical(ExtensionOID.NAME_CONSTRAINTS)
    return critical and not all(isinstance(subtree, _GO) for subtree in _subtrees(authority))


def violation(authority: Certificate, below: Iterable[Certificate], budget: list[int]) -> str:
    """The first violation of an authority's name constraints by the names below it.

    Args:
        authority: the certificate, with or without constraints.
        below: the certificates below it on the path, including the leaf.
        budget: one number, the comparisons that may still be made; it is counted down.

    Returns:
        The violation as a clause; empty if the constraints are satisfied.
    """
    constraints = authority.ext(x509.NameConstraints)
    if constraints is None:
        return ""
    permitted, excluded = constraints.permitted_subtrees or [], constraints.excluded_subtrees or []
    if not permitted and not excluded:
        return "they are empty, which is forbidden"
    for subtree in (*permitted, *excluded):
        if isinstance(subtree, x509.DNSName) and not _valid_dns_subtree(subtree.value):
            return f"they contain a malformed DNS name, {subtree.value[:80]!r}"
    for certificate in below:
        for name in _names(certificate):
            budget[0] -= len(permitted) + len(excluded)
            if budget[0] < 0:
                return "there are too many names and constraints to compare"
            reason = _objection(name, permitted, excluded)
            if reason:
                return f"{_text(name)} of {certificate.title} {reason}"
    return ""


def _valid_dns_subtree(subtree: str) -> bool:
    return subtree == "" or not dns_fault(subtree) or "_" in subtree


def _names(certificate: Certificate) -> list[x509.GeneralName]:
    """The constrained names of a certificate: its subject and its alternative names."""
    subject = certificate.subject_name
    names: list[x509.GeneralName] = [x509.DirectoryName(subject)] if subject else []
    alternative = certificate.ext(x509.SubjectAlternativeName)
    return [*names, *alternative] if alternative else names


def _objection(name: x509.GeneralName, permitted: list[x509.GeneralName], excluded: list[x509.GeneralName]) -> str:
    """The reason for which the subtrees forbid a name, as a clause; empty if they allow it."""
    permitted = [subtree for subtree in permitted if type(subtree) is type(name)]
    excluded = [subtree for subtree in excluded if type(subtree) is type(name)]
    if (permitted or excluded) and not isinstance(name, _UNDERSTOOD):
        return "is of a kind whose constraints are not understood"
    if any(_inside(name, subtree, reach=True) for subtree in excluded):
        return "is excluded"
    if permitted and not any(_inside(name, subtree, reach=False) for subtree in permitted):
        return "is not among the permitted"
    return ""


def _inside(name: x509.GeneralName, subtree: x509.GeneralName, *, reach: bool) -> bool:
    """Whether a name is in a subtree; with `reach`, whether a wildcard can match a name in it."""
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
        uri = _HOST.fullmatch(name.value)
        # a URI without a host violates permitted and excluded subtrees alike (RFC 5280 4.2.1.10)
        return _within(uri[1], subtree.value) if uri and address(uri[1]) is None else reach
    return False


def _within(host: str, limit: str) -> bool:
    """Whether a host equals the limit or, if the limit begins with a dot, is a subdomain of it (RFC 5280 4.2.1.10)."""
    host, limit = host.lower(), limit.lower()
    return host.endswith(limit) if limit[:1] == "." else host == limit


def _folded(name: x509.Name) -> list[frozenset[tuple[x509.ObjectIdentifier, str | bytes]]]:
    """A name in the form for comparison: case, runs of spaces and types of string are ignored (RFC 5280 7.1)."""
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
