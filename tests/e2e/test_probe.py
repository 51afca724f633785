"""`rotator probe` beside a real nginx: what a browser hides is found with one command; nothing is configured for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from tests.support.authority import CA, Issued
from tests.support.calls import Called, call
from tests.support.nginx_server import NginxServer, ServerBlock, certificate_lines, write_pair

NAME = "signal.example.test"


@pytest.fixture
def roots(tmp_path: Path, root_pem: str) -> Path:
    file = tmp_path / "roots.pem"
    file.write_text(root_pem)
    return file


@pytest.fixture
def open_listener() -> Iterator[str]:
    """A unix listener that every user can reach, as below /run; root's `probe` works as `nobody`."""
    directory = Path(tempfile.mkdtemp(prefix="rotator-probe-", dir="/tmp"))
    directory.chmod(0o755)
    yield f"unix:{directory / 's.sock'}"
    shutil.rmtree(directory)


def serve(nginx: NginxServer, listener: str, *pairs: Issued, extra: str = "") -> None:
    files = [write_pair(nginx.root / str(number), pair) for number, pair in enumerate(pairs)]
    nginx.blocks.append(ServerBlock(NAME, (listener,), certificate_lines(*files), extra))
    nginx.start()


def probe(where: str, roots: Path, *more: str) -> Called:
    return call("probe", where, "--name", NAME, "--roots", roots, *more)


def test_the_incident_is_found_with_one_command(nginx: NginxServer, issuing_ca: CA, roots: Path) -> None:
    listener = nginx.reserve_port()
    url = "http://ca.example.test/intermediate.crt"
    access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
    aia = x509.AuthorityInformationAccess([access])
    issued = issuing_ca.issue(NAME, tweak=lambda builder: builder.add_extension(aia, critical=False))
    serve(nginx, listener, Issued(issued.key, issued.leaf))
    result = probe(listener, roots)
    assert result.status == 3
    assert "REJECT incomplete-chain" in result.stdout
    assert "Who breaks: OpenSSL, curl, Python, Node, mosquitto, Go, Java, Android apps." in result.stdout
    assert f"Chrome, Windows, macOS: only if {url} cannot be reached" in result.stdout
    assert "Fix: Add the CA's bundle or chain file" in result.stdout


def test_the_whole_chain_is_accepted(nginx: NginxServer, issuing_ca: CA, roots: Path) -> None:
    listener = nginx.reserve_port()
    serve(nginx, listener, issuing_ca.issue(NAME))
    result = probe(listener, roots)
    assert (result.status, "ACCEPT" in result.stdout) == (0, True)


def test_of_two_kinds_of_key_the_one_that_is_incomplete_is_found(
    nginx: NginxServer, issuing_ca: CA, roots: Path
) -> None:
    listener = nginx.reserve_port()
    whole, other = issuing_ca.issue(NAME), issuing_ca.issue(NAME, kind="rsa")
    serve(nginx, listener, whole, Issued(other.key, other.leaf))
    result = probe(listener, roots, "--json")
    verdicts = {served["key_type"]: (served["verdict"], served["versions"]) for served in result.answer["served"]}
    assert result.status == 3
    assert verdicts == {"ecdsa": ("accept", ["1.2", "1.3"]), "rsa": ("reject", ["1.2", "1.3"])}


def test_a_listener_with_proxy_protocol_is_seen_with_a_header_and_named_as_one_without(
    nginx: NginxServer, issuing_ca: CA, roots: Path
) -> None:
    listener = nginx.reserve_port()
    behind = f"listen {listener} ssl proxy_protocol;\n"
    serve(nginx, nginx.reserve_port(), issuing_ca.issue(NAME), extra=behind)
    result = probe(listener, roots, "--proxy-protocol")
    assert result.status == 0, result.stderr
    without = probe(listener, roots)
    assert without.status == 1
    assert "needs --proxy-protocol" in without.stderr


def test_an_ipv6_listener_with_proxy_protocol_is_probed(nginx: NginxServer, issuing_ca: CA, roots: Path) -> None:
    listener = nginx.reserve_port("::1")
    behind = f"listen {listener} ssl proxy_protocol;\n"
    serve(nginx, nginx.reserve_port(), issuing_ca.issue(NAME), extra=behind)
    result = probe(listener, roots, "--proxy-protocol")
    assert result.status == 0, result.stderr


def test_a_unix_socket_is_probed(nginx: NginxServer, issuing_ca: CA, roots: Path, open_listener: str) -> None:
    serve(nginx, open_listener, issuing_ca.issue(NAME))
    assert probe(open_listener, roots).status == 0


@pytest.mark.root
def test_a_unix_socket_that_other_users_cannot_reach_is_reported_with_the_user_who_tried(
    nginx: NginxServer, issuing_ca: CA, roots: Path
) -> None:
    listener = nginx.unix_listener()
    serve(nginx, listener, issuing_ca.issue(NAME))
    nginx.root.chmod(0o700)
    done = probe(listener, roots)
    assert (done.status, "connecting is not permitted" in done.stderr, "works as `nobody`" in done.stderr) == (
        1,
        True,
        True,
    )


def test_a_unix_socket_with_proxy_protocol_is_probed(
    nginx: NginxServer, issuing_ca: CA, roots: Path, open_listener: str
) -> None:
    behind = f"listen {open_listener} ssl proxy_protocol;\n"
    serve(nginx, nginx.reserve_port(), issuing_ca.issue(NAME), extra=behind)
    assert probe(open_listener, roots, "--proxy-protocol").status == 0


def test_a_name_without_a_certificate_is_told_beside_one_that_has_it(
    nginx: NginxServer, issuing_ca: CA, roots: Path
) -> None:
    listener = nginx.reserve_port()
    nginx.http_extra = f"server {{ listen {listener} ssl default_server; ssl_reject_handshake on; }}"
    serve(nginx, listener, issuing_ca.issue(NAME))
    result = probe(listener, roots, "--name", "other.example.test")
    assert result.status == 1
    assert f"{NAME}: 2 certificates sent" in result.stdout
    assert "FAIL other.example.test: the TLS handshake failed" in result.stdout
