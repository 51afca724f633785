"""The users whose processes listen at a TCP port of this host, from the kernel's own table."""

from __future__ import annotations

_LISTEN = "0A"
_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")


def listening_users(port: int, tables: tuple[str, ...] = _TABLES) -> frozenset[int]:
    """The user ids of the sockets that listen at a port, at any address; empty if the table cannot be read.

    Args:
        port: the TCP port.
        tables: the kernel's tables (proc(5), `/proc/net/tcp`).
    """
    users: set[int] = set()
    for table in tables:
        try:
            with open(table, encoding="ascii", errors="replace") as lines:
                for line in lines:
                    columns = line.split()
                    if len(columns) > 7 and columns[3] == _LISTEN and columns[1].endswith(f":{port:04X}"):
                        users.add(int(columns[7]))
        except (OSError, ValueError):
            continue
    return frozenset(users)
