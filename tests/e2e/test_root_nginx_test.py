"""Root's test of nginx's whole configuration, where it has neither a network nor a disk to write to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rotator.privsep import apply as privileged
from rotator.privsep.apply import Setup, address_of_any_name, run_test
from tests.support.authority import CA

ALONE = """
import fcntl, json, socket, struct, sys
from rotator.privsep.apply import Setup, run_test
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
for _ in range(2):
    tested = run_test(Setup("/", "/", "/", "", frozenset(), command=tuple(sys.argv[1:])))
    print(json.dumps([tested.ok, tested.words]))
"""
"""What the program does for two requests, in the network of its own that rotator-nginx-test@.service has."""


@pytest.fixture
def configuration(tmp_path: Path, issuing_ca: CA) -> Path:
    """An nginx.conf whose logs, pid file and port cannot be opened, but whose files can all be read."""
    issued = issuing_ca.issue()
    (tmp_path / "fullchain.pem").write_bytes(issued.chain_pem)
    (tmp_path / "privkey.pem").write_bytes(issued.key_pem)
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"pid {tmp_path}/missing/pid;\nerror_log {tmp_path}/missing/error.log;\nevents {{}}\nhttp {{\n"
        f"server {{ listen 192.0.2.1:443 ssl; access_log {tmp_path}/missing/access.log;\n"
        f"ssl_certificate {tmp_path}/fullchain.pem; ssl_certificate_key {tmp_path}/privkey.pem; }}\n}}\n"
    )
    return path


def answer_of(binary: Path, configuration: Path) -> privileged.Tested:
    command = (str(binary), "-c", str(configuration), "-p", str(configuration.parent))
    return run_test(Setup("/", "/", "/", "", frozenset(), command=command))


@pytest.mark.each_nginx
def test_a_configuration_that_can_be_read_is_accepted_whatever_cannot_be_opened_afterwards(
    nginx_binary: Path, configuration: Path
) -> None:
    assert answer_of(nginx_binary, configuration) == privileged.Tested(True)


def test_the_command_has_a_session_of_its_own_without_a_terminal() -> None:
    look = "import os, sys; sys.exit(f'1#1: [emerg] 1#1: {os.getsid(0) == os.getpid()}')"
    answer = run_test(Setup("/", "/", "/", "", frozenset(), command=(sys.executable, "-c", look)))
    assert answer.words == ("1#1: [emerg] 1#1: True",)


@pytest.mark.each_nginx
def test_a_key_that_nginx_cannot_load_is_named(nginx_binary: Path, configuration: Path) -> None:
    key = configuration.parent / "privkey.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    answer = answer_of(nginx_binary, configuration)
    assert not answer.ok
    assert any(str(key) in line for line in answer.words)


@pytest.mark.root
@pytest.mark.each_nginx
def test_names_that_only_a_name_server_knows_do_not_end_the_test(
    nginx_binary: Path, configuration: Path, tmp_path: Path
) -> None:
    text = configuration.read_text()
    upstreams = "location / { proxy_pass http://only-a-name-server.example:81; } location /b { proxy_pass http://b/; }"
    configuration.write_text(text.replace("ssl_certificate ", f"{upstreams}\nssl_certificate ", 1))
    (tmp_path / "resolv.conf").touch()
    in_its_network = 'mount --bind resolv.conf /etc/resolv.conf && exec "$@"'
    words = [sys.executable, "-c", ALONE, str(nginx_binary), "-c", str(configuration), "-p", str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", in_its_network, "sh", *words],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout == 2 * "[true, []]\n", done.stderr


@pytest.mark.parametrize(("kind", "answers"), [(b"\0\1", 1), (b"\0\x1c", 0), (b"\0\x10", 0)], ids=["A", "AAAA", "TXT"])
def test_a_name_has_one_address_and_nothing_else(kind: bytes, answers: int) -> None:
    question = b"\7backend\7example\0" + kind + b"\0\1"
    answer = address_of_any_name(b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + question)
    assert answer[:12] == b"\x12\x34\x81\x80\0\1\0" + bytes([answers]) + b"\0\0\0\0"
    assert answer[12 : 12 + len(question)] == question
    assert answer[12 + len(question) :] == (b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" if answers else b"")


@pytest.mark.parametrize(
    "query", [b"", b"\x12\x34\1\0\0\1\0\0\0\0\0\0", b"\x12" * 20], ids=["empty", "header", "noise"]
)
def test_a_query_without_a_question_gets_no_answer(query: bytes) -> None:
    with pytest.raises(ValueError, match="not found"):
        address_of_any_name(query)
