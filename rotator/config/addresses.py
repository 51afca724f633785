"""Names and addresses of the configuration, each in the one spelling that is compared and sent; none is looked up."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress

from rotator.config.values import BadValueError, path, quoted, text

_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_NAME_LIMIT = 253
_UNIX_LIMIT = 107


def name(value: object) -> str:
    """A host name (IDN and wildcard allowed) or an IP address, as clients send it: lower case, IDN as A-labels."""
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
            f"{quoted(written)}: a wildcard stands for the whole first label only", 'write it like "*.example.org"'
        )
    if not _HOST.fullmatch(bare) or "--" in bare:
        bare = _a_labels(bare, written)
    if len(bare) > _NAME_LIMIT:
        raise BadValueError(f"{quoted(written)} is longer than the {_NAME_LIMIT} characters of a host name")
    if bare.rpartition(".")[2].isdigit():
        raise BadValueError(f"{quoted(written)} ends in a number and is no IP address")
    return star + bare


def concrete_name(value: object) -> str:
    """A host name or IP address that is no wildcard."""
    found = name(value)
    if found.startswith("*."):
        raise BadValueError(
            f"{quoted(value)} is a wildcard; a handshake needs a name",
            f"write one of its names: {quoted('www' + found[1:])}",
        )
    return found


def _a_labels(bare: str, written: str) -> str:
    import idna

    if "_" in bare:
        raise BadValueError(f"{quoted(written)} holds an underscore, which no certificate may cover")
    try:
        return idna.encode(bare, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise BadValueError(f"{quoted(written)} is no host name: {str(error)[:120] or 'empty'}") from None


def listener(value: object) -> str:
    """An address that a handshake can be made with: `host:port`, `[v6]:port` or `unix:/path`, in one spelling."""
    written = text(value) if isinstance(value, str) else ""
    if written.startswith("unix:"):
        found = path(written.removeprefix("unix:"))
        if len(str(found).encode()) > _UNIX_LIMIT:
            raise BadValueError(f"{quoted(value)} is longer than the {_UNIX_LIMIT} bytes of a socket's address")
        return f"unix:{found}"
    address = bind_address(value, 1)
    host = address.rpartition(":")[0]
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        # A name may have several addresses, of which a handshake proves one, and looking it up takes unbounded time.
        raise BadValueError(
            f"{quoted(value)}: {quoted(host)} is a name; each address has to be proved by itself",
            f"write the address, such as {quoted('127.0.0.1:' + address.rpartition(':')[2])}",
        ) from None
    if host in ("0.0.0.0", "[::]"):  # noqa: S104 - refused here, not bound
        raise BadValueError(
            f"{quoted(value)} is no address to connect to",
            f"write one of the host's own, such as {quoted('127.0.0.1:' + address.rpartition(':')[2])}",
        )
    return address


def bind_address(value: object, least_port: int = 0) -> str:
    """`host:port` or `[v6]:port`; port 0 lets the system choose where that is allowed."""
    hint = 'write "host:port", "[v6]:port" or "unix:/path", such as "127.0.0.1:443"'
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not host:
        raise BadValueError(f"{quoted(value)} is no address with a port", hint)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not least_port <= int(port) <= 65535:
        raise BadValueError(f"{quoted(value)}: {quoted(port)} is no port", f"ports go from {least_port} to 65535")
    if host.startswith("[") and host.endswith("]") and "%" not in host:
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]:{int(port)}"
        except ValueError:
            raise BadValueError(f"{quoted(value)}: {quoted(host)} is no IPv6 address", hint) from None
    if ":" in host:
        raise BadValueError(
            f"{quoted(value)}: an IPv6 address stands in brackets", f"write {quoted(f'[{host}]:{port}')}"
        )
    try:
        found = concrete_name(host)
    except BadValueError as wrong:
        raise BadValueError(f"{quoted(value)}: {wrong.message}", hint) from None
    return f"{found}:{int(port)}"
