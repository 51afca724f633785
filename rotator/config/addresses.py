"""The parsers of host names and addresses: each returns the one spelling that is compared and sent."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress

from rotator.config.value_parsers import BadValueError, path, quoted, text

_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
"""Labels of letters, digits and hyphens (RFC 1123 2.1), of at most 63 characters (RFC 1035 2.3.4)."""
_NAME_LIMIT = 253
"""The longest host name in characters: 255 octets on the wire (RFC 1035 2.3.4) less the root and the first length."""
_UNIX_LIMIT = 107
"""The longest path of a Unix socket in bytes: `sun_path` has 108 with the final NUL (unix(7))."""


def name(value: object) -> str:
    """A host name (IDN and wildcard allowed) or an IP address, as clients send it: in lower case, IDN as A-labels."""
    written = text(value)
    if len(written) > 2 * _NAME_LIMIT:
        raise BadValueError(f"{quoted(written)} is longer than the {_NAME_LIMIT} characters of a host name")
    if "%" not in written:
        with suppress(ValueError):
            return str(ipaddress.ip_address(written))
    star = "*." if written.startswith("*.") else ""
    bare = written.removeprefix("*.").removesuffix(".").lower()
    if "*" in bare:
        raise BadValueError(
            f"{quoted(written)}: a wildcard must be the whole first label", 'write it like "*.example.org"'
        )
    if not _HOST.fullmatch(bare) or "--" in bare:
        bare = _a_labels(bare, written)
    if len(bare) > _NAME_LIMIT:
        raise BadValueError(f"{quoted(written)} is longer than the {_NAME_LIMIT} characters of a host name")
    if bare.rpartition(".")[2].isdigit():
        raise BadValueError(f"{quoted(written)} ends in a number but is not an IP address")
    return star + bare


def concrete_name(value: object) -> str:
    """A host name without a wildcard, or an IP address."""
    host = name(value)
    if host.startswith("*."):
        raise BadValueError(
            f"{quoted(value)} is a wildcard; a handshake needs one name",
            f"write a name that it covers: {quoted('www' + host[1:])}",
        )
    return host


def _a_labels(bare: str, written: str) -> str:
    import idna

    if "_" in bare:
        raise BadValueError(f"{quoted(written)} has an underscore; a certificate may not cover such a name")
    try:
        return idna.encode(bare, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise BadValueError(f"{quoted(written)} is not a host name: {str(error)[:120] or 'empty'}") from None


def listener(value: object) -> str:
    """An address to connect to, in one spelling: `host:port`, `[v6]:port` or `unix:/path`."""
    written = text(value) if isinstance(value, str) else ""
    if written.startswith("unix:"):
        socket_path = path(written.removeprefix("unix:"))
        if len(str(socket_path).encode()) > _UNIX_LIMIT:
            raise BadValueError(f"{quoted(value)} is longer than the {_UNIX_LIMIT} bytes of a socket's path")
        return f"unix:{socket_path}"
    address = bind_address(value, 1)
    host = address.rpartition(":")[0]
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        # A name can have several addresses, a handshake proves only one, and a DNS look-up takes unbounded time.
        raise BadValueError(
            f"{quoted(value)}: {quoted(host)} is a name; every address must be proved separately",
            f"write an address, such as {quoted('127.0.0.1:' + address.rpartition(':')[2])}",
        ) from None
    if host in ("0.0.0.0", "[::]"):  # noqa: S104 - refused here, not bound
        raise BadValueError(
            f"{quoted(value)} is not an address to connect to",
            f"write an address of this host, such as {quoted('127.0.0.1:' + address.rpartition(':')[2])}",
        )
    return address


def bind_address(value: object, least_port: int = 0) -> str:
    """An address to listen at: `host:port` or `[v6]:port`.

    Args:
        value: the value of the file.
        least_port: the lowest port that is allowed; 0 lets the system choose one.
    """
    hint = 'write "host:port", "[v6]:port" or "unix:/path", such as "127.0.0.1:443"'
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not host:
        raise BadValueError(f"{quoted(value)} is not an address with a port", hint)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not least_port <= int(port) <= 65535:
        raise BadValueError(f"{quoted(value)}: {quoted(port)} is not a port", f"ports go from {least_port:d} to 65535")
    if host.startswith("[") and host.endswith("]") and "%" not in host:
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]:{int(port)}"
        except ValueError:
            raise BadValueError(f"{quoted(value)}: {quoted(host)} is not an IPv6 address", hint) from None
    if ":" in host:
        raise BadValueError(f"{quoted(value)}: an IPv6 address needs brackets", f"write {quoted(f'[{host}]:{port}')}")
    try:
        bare_host = concrete_name(host)
    except BadValueError as error:
        raise BadValueError(f"{quoted(value)}: {error.message}", hint) from None
    return f"{bare_host}:{int(port)}"
