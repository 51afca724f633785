"""Host names: their form in certificates, their syntax, and the names that a certificate covers.

The rules are those of RFC 9525 section 6: only subject alternative names count, and `*` replaces exactly one label,
which must be the whole left-most one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

import idna

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def address(text: str) -> Address | None:
    """The text as an IP address (brackets around an IPv6 address are allowed), or None."""
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        return None


def ascii_form(name: str) -> str:
    """A configured DNS name in the form of certificates: A-labels (IDNA 2008, UTS 46), lower case, no final dot.

    The codec of the standard library follows IDNA 2003 and turns straße into strasse, which is another host.

    Raises:
        ValueError: the text is no DNS name.
    """
    star, bare = ("*.", name[2:]) if name[:2] == "*." else ("", name)
    bare = bare[:-1] if bare[-1:] == "." else bare
    if not bare.isascii():
        try:
            bare = idna.encode(bare, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise ValueError("not an internationalised name") from None
    bare = bare.lower()
    fault = dns_fault(bare)
    if fault:
        raise ValueError(fault)
    return star + bare


def dns_fault(name: str) -> str:
    """The fault of a DNS name without a wildcard, for messages; empty if it has none (RFC 1034 3.5, 5280 4.2.1.6)."""
    if not name or len(name) > 253:
        return "it is empty" if not name else "it is longer than 253 characters"
    labels = name.lower().split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        return "it is not made of letters, digits and hyphens"
    if labels[-1].isdigit():
        return "it is an IP address or ends in a number; addresses belong in an IP entry"
    return ""


def entry_fault(name: str, *, public: bool) -> str:
    """The fault of a DNS entry of a certificate, for messages; empty if it has none.

    Args:
        name: the entry, with or without a wildcard.
        public: whether the rules for public CAs apply, which forbid `_` and a wildcard for a whole top-level domain
            (CA/B BR 7.1.2.7.12, 3.2.2.6). Private CAs use the first, and the second does no harm there.
    """
    bare = name[2:] if name[:2] == "*." else name
    if "*" in bare:
        return "a wildcard must be the whole left-most label, with a domain after it"
    if "_" in bare and public:
        return "an underscore is not allowed in a host name"
    if bare != name and bare and "." not in bare and public:
        return "a wildcard for a whole top-level domain, which clients ignore"
    return dns_fault(bare)


@dataclass(frozen=True, slots=True)
class CoveredNames:
    """The names for which clients accept one certificate.

    Args:
        exact: the DNS names without a wildcard, lower case.
        wild: the domains after `*.`, lower case, with at least two labels: `*.com` covers nothing, as in OpenSSL and
            under the public suffix list of browsers.
        addresses: the IP addresses.
    """

    exact: frozenset[str]
    wild: frozenset[str]
    addresses: frozenset[Address]

    @classmethod
    def of(cls, dns: Iterable[str], addresses: Iterable[Address]) -> CoveredNames:
        """The covered names of a subject alternative name; faulty entries cover nothing."""
        entries = [entry.lower() for entry in dns]
        return cls(
            frozenset(e for e in entries if "*" not in e and not dns_fault(e)),
            frozenset(e[2:] for e in entries if e[:2] == "*." and "." in e[2:] and not dns_fault(e[2:])),
            frozenset(addresses),
        )

    def covers(self, name: str) -> bool:
        """Whether a client that connects to this name or address accepts the certificate for it.

        A configured wildcard is covered by the same wildcard only.
        """
        ip = address(name)
        if ip is not None:
            return ip in self.addresses
        try:
            wanted = ascii_form(name)
        except ValueError:
            return False
        if wanted[:2] == "*.":
            return wanted[2:] in self.wild
        return wanted in self.exact or wanted.partition(".")[2] in self.wild

    @property
    def probe(self) -> str | Address | None:
        """One covered name without a wildcard, for a verifier that requires one; None if no name is covered."""
        for name in sorted(self.exact):
            if "_" not in name:
                return name
        for name in sorted(self.wild):
            if "_" not in name:
                return "a." + name
        return min(self.addresses, key=str, default=None)
