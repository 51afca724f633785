"""Name constraints of a certificate authority applied to the names below it (RFC 5280 4.2.1.10); nothing else.

It is asked for a diagnosis, and for a verdict only where the library cannot read a certificate; so what it does not
know it refuses, and its work is bounded.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cryptography import x509

from rotator.certificate import Certificate
from rotator.names import address, dns_fault

MAX_COMPARISONS = 200_000
"""Name by constraint comparisons that one path may cost, about a tenth of a second."""


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
            words = _judge(name, permitted, excluded)
            if words:
                return f"{_text(name)} of {certificate.title} {words}"
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
    if (same or barred) and not isinstance(name, x509.DNSName | x509.IPAddress | x509.DirectoryName):
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
        limits = list(subtree.value.rdns)
        return list(name.value.rdns)[: len(limits)] == limits
    return False


def _text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return name.value[:100]
    if isinstance(name, x509.IPAddress):
        return str(name.value)
    return "the subject" if isinstance(name, x509.DirectoryName) else "an alternative name"
