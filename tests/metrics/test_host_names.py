"""Under which names the metrics page answers: those of this host, and no name that a web page can choose."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rotator.metrics.host_names import HostNames, own_names

NAMES = HostNames({"edge1", "edge1.example.cn", "metrics.example.cn"})


def _head(*headers: str) -> bytes:
    return "\r\n".join(["GET /metrics HTTP/1.1", *headers]).encode("latin-1")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:9847",
        "192.0.2.7:9847",
        "[::1]:9847",
        "[2001:db8::1]",
        "localhost",
        "LOCALHOST:9847",
        "localhost.:9847",
        "edge1",
        "Edge1.Example.CN:9847",
        "metrics.example.cn",
    ],
)
@pytest.mark.parametrize("spelling", ["Host: {}", "host:{}", "HOST:\t{} \t"])
def test_an_address_and_a_name_of_this_host_are_accepted(host: str, spelling: str) -> None:
    assert NAMES.refused(_head("Accept: */*", spelling.format(host), "X: y")) is None


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("rebound.example.org:9847", "rebound.example.org"),
        ("edge1.example.org", "edge1.example.org"),
        ("localhost.example.org", "localhost.example.org"),
        ("127.0.0.1.example.org", "127.0.0.1.example.org"),
        ("127.1", "127.1"),
        ("2130706433", "2130706433"),
        ("0x7f.1", "0x7f.1"),
        ("", ""),
        ("::1", ""),
        ("[localhost]", ""),
        ('a"] # \x1b[2J', ""),
        ("localhost@evil.example", ""),
        ("a" * 64, ""),
    ],
)
def test_every_other_name_is_refused_and_returned_if_it_is_a_name(host: str, named: str) -> None:
    assert NAMES.refused(_head(f"Host: {host}")) == named


def test_a_second_host_header_does_not_hide_the_first() -> None:
    assert NAMES.refused(_head("Host: evil.example", "Host: localhost")) == "evil.example"
    assert NAMES.refused(_head("Host: localhost", "Host: evil.example")) == "evil.example"


def test_a_request_without_a_host_is_accepted_because_no_browser_sends_one() -> None:
    assert NAMES.refused(_head("Accept: */*")) is None


def test_the_names_of_the_host_come_from_the_kernel_and_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Edge1")
    (tmp_path / "hosts").write_text(
        "127.0.0.1 localhost\n127.0.1.1 edge1.example.cn edge1 # its name\n192.0.2.1 other\n"
    )
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch internal. corp.example\n")
    assert own_names(tmp_path) == {"edge1", "edge1.example.cn", "edge1.internal", "edge1.corp.example"}


def test_a_host_without_these_files_has_the_name_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "edge1.example.cn")
    assert own_names(tmp_path) == {"edge1.example.cn"}
