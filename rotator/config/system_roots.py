"""The place of the system's trusted roots on each distribution, and of the public ones among them."""

from __future__ import annotations

from pathlib import Path

SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL and their derivatives
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # the default of an OpenSSL whose directory is /etc/ssl
)
"""The files in which distributions keep the roots of the public web, in the order in which they are looked for."""


def system_roots() -> Path:
    """The first file of `SYSTEM_ROOTS` that exists; the first of the list if none does, for the message to name."""
    return next((p for p in map(Path, SYSTEM_ROOTS) if p.exists()), Path(SYSTEM_ROOTS[0]))


SHIPPED_ROOTS = (
    "/usr/share/ca-certificates/mozilla",  # Debian, Ubuntu, Gentoo, Alpine
    "/usr/share/pki/ca-trust-source/ca-bundle.trust.p11-kit",  # Fedora, RHEL and their derivatives
    "/usr/share/ca-certificates/trust-source/mozilla.trust.p11-kit",  # Arch
    "/usr/share/pki/trust/ca-certificates-mozilla.trust.p11-kit",  # openSUSE
)
"""The roots of the public web as a distribution's package brings them, without those that a host adds to its own.

`update-ca-certificates` and `update-ca-trust` merge both into one of `SYSTEM_ROOTS`."""


def shipped_roots() -> Path | None:
    """The first of `SHIPPED_ROOTS` that exists; None if none does, so that nothing is known about a root's origin."""
    return next((p for p in map(Path, SHIPPED_ROOTS) if p.exists()), None)


def is_system(roots: str | Path) -> bool:
    """Whether a file of roots is one that the system makes."""
    return str(roots) in SYSTEM_ROOTS
