"""Parts of revocation lists and of the certificates that name one."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.authority import CA

List = x509.CertificateRevocationList


ListBuilder = x509.CertificateRevocationListBuilder


def pem_of(*lists: List) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in lists)


def scoped(critical: bool = True, **scope: object) -> Callable[[ListBuilder], ListBuilder]:
    """An issuing distribution point."""
    fields: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    value = x509.IssuingDistributionPoint(**fields | scope)  # type: ignore[arg-type]  # spelt out above
    return lambda builder: builder.add_extension(value, critical=critical)


def extended(value: x509.ExtensionType, *, critical: bool) -> Callable[[ListBuilder], ListBuilder]:
    return lambda builder: builder.add_extension(value, critical=critical)


def points(*urls: str, issuer: x509.Name | None = None) -> x509.CRLDistributionPoints:
    named = [x509.DirectoryName(issuer)] if issuer else None
    full = [x509.UniformResourceIdentifier(url) for url in urls]
    return x509.CRLDistributionPoints([x509.DistributionPoint(full or None, None, None, named)])


def other_issuer(ca: CA) -> tuple[x509.ExtensionType, bool]:
    return x509.CertificateIssuer([x509.DirectoryName(ca.cert.subject)]), True
