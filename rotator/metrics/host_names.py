"""The host names under which the metrics page is served.

A web page can make its own name resolve to an address of this host (DNS rebinding), and the browser of its visitor then
reads the metrics for it. The Host header of such a request has the name of that page, so other names are refused.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path

_HOST = re.compile(rb"^host[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){0,9}")
_MOST = 64 * 1024


class HostNames:
    """The accepted names: `localhost`, the names of this host, and those of the configuration; and every IP address.

    Args:
        names: the names of this host and of the configuration.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset({"localhost", *map(_plain, names)})

    def refused(self, head: bytes) -> str | None:
        """The name in a request that is not accepted.

        Args:
            head: the request line and the headers.

        Returns:
            None if the request is accepted, also without a Host header, which no browser leaves out. Otherwise the
            name, or the empty string for a header with something else than a name.
        """
        for header in _HOST.finditer(head, head.find(b"\n") + 1):
            match = _WITH_PORT.fullmatch(header[1].decode("latin-1"))
            name = _plain(match[1]) if match else ""
            if not (name in self._names or _is_address(name)):
                return name if _NAME.fullmatch(name) else ""
        return None


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        if name.startswith("[") and name.endswith("]"):
            ipaddress.IPv6Address(name[1:-1])
        else:
            ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def own_names(etc: Path = Path("/etc")) -> frozenset[str]:
    """The names of this host without a look-up in DNS, which can take long: from the kernel and two files.

    Args:
        etc: the directory of `hosts` and `resolv.conf`.
    """
    host = _plain(socket.gethostname())
    names = {host}
    for line in _lines(etc / "hosts"):
        aliases = [_plain(word) for word in line.partition("#")[0].split()[1:]]
        if host in aliases:
            names.update(aliases)
    if "." not in host:
        for line in _lines(etc / "resolv.conf"):
            key, *domains = line.split() or [""]
            if key in ("search", "domain"):
                names.update(f"{host}.{_plain(domain)}" for domain in domains)
    return frozenset(names)


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
