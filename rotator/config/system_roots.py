"""The place of the system's trusted roots on each distribution."""

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
