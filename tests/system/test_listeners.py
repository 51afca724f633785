"""Who listens at a port, from the kernel's table."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

from rotator.system.listeners import listening_users

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def test_the_user_of_a_listening_socket_is_found() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        assert listening_users(listener.getsockname()[1]) == {os.geteuid()}


def test_a_port_at_which_nobody_listens_has_no_user() -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        assert listening_users(bound.getsockname()[1]) == frozenset()


def test_connections_and_other_ports_do_not_count(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    queues = "00000000:00000000 00:00000000 00000000"
    rows = [
        f"   0: 0100007F:2677 00000000:0000 0A {queues}  1001        0 1 1 0 100 0 0 10 0\n",
        f"   1: 0100007F:2677 0100007F:8888 01 {queues}  1002        0 1 1 0 100 0 0 10 0\n",
        f"   2: 0100007F:2678 00000000:0000 0A {queues}  1003        0 1 1 0 100 0 0 10 0\n",
    ]
    table.write_text(HEADER + "".join(rows))
    assert listening_users(0x2677, (str(table), str(tmp_path / "missing"))) == {1001}
