"""What a real nginx staples from a file, what a client makes of that, and what the daemon: as the judge says."""

from __future__ import annotations

import base64
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509 import ReasonFlags, ocsp

from rotator.core.problems import Code, Problem
from rotator.validation.evidence import Evidence
from rotator.validation.validate import Anchors, public, validate_chains
from rotator.x509.ocsp import Responses
from tests.support.authority import CA, Issued, new_key
from tests.support.edge import Edge
from tests.support.extensions import STAPLE, also
from tests.support.nginx_server import NginxServer, ServerBlock, certificate_lines, write_pair
from tests.support.running import running
from tests.support.waiting import wait_until

NAME = "a.example.test"
DAY = timedelta(days=1)
ASKED = 91
"""curl's exit status where a stapled answer was asked for and is missing or not to be relied on."""


pytestmark = pytest.mark.each_nginx


@pytest.fixture
def issued(issuing_ca: CA) -> Issued:
    return issuing_ca.issue(NAME, tweak=also(STAPLE))


@pytest.fixture
def staple(tmp_path: Path) -> Path:
    return tmp_path / "staple.der"


@pytest.fixture
def stapling(nginx: NginxServer, issued: Issued, tmp_path: Path, staple: Path) -> NginxServer:
    """An nginx that staples this file, not started yet."""
    lines = certificate_lines(write_pair(tmp_path / "pair", issued))
    extra = f"ssl_stapling on;\nssl_stapling_file {staple};\n"
    nginx.blocks = [ServerBlock(NAME, (nginx.reserve_port(),), lines, extra)]
    return nginx


def asked(nginx: NginxServer, root_pem: str, tmp_path: Path) -> int:
    """The exit status of a curl that insists on a stapled answer."""
    (tmp_path / "root.pem").write_text(root_pem)
    host, _, port = nginx.blocks[0].listeners[0].rpartition(":")
    command = ["curl", "--silent", "--cert-status", "--cacert", str(tmp_path / "root.pem")]
    command += ["--resolve", f"{NAME}:{port}:{host}", "--max-time", "20", f"https://{NAME}:{port}/"]
    return subprocess.run(command, capture_output=True, check=False).returncode


def judged(issued: Issued, response: bytes, root_pem: str) -> list[Code]:
    """What the judge refuses."""
    evidence = Evidence(responses=Responses.from_files([("staple.der", response)]))
    anchors = Anchors.from_pem(root_pem.encode(), "root.pem").beside(evidence)
    problems: tuple[Problem, ...] = validate_chains([issued.chain_der], public([NAME]), anchors, datetime.now(UTC))
    return [p.code for p in problems if p.severity == "reject"]


RESPONSES: dict[str, tuple[Callable[[CA, Issued], bytes], list[Code]]] = {
    "of the issuer": (lambda ca, one: ca.ocsp(one.leaf), []),
    "of its responder": (lambda ca, one: ca.ocsp(one.leaf, by=ca.responder()), []),
    "that is over": (lambda ca, one: ca.ocsp(one.leaf, begin=ca.at - 9 * DAY), [Code.MUST_STAPLE]),
    "of tomorrow": (lambda ca, one: ca.ocsp(one.leaf, begin=ca.at + DAY), [Code.MUST_STAPLE]),
    "that is forged": (lambda ca, one: ca.ocsp(one.leaf, key=new_key()), [Code.MUST_STAPLE]),
    "of a leaf": (lambda ca, one: ca.ocsp(one.leaf, by=ca.issue(NAME, not_before=ca.at - 2 * DAY)), [Code.MUST_STAPLE]),
    "for another": (lambda ca, _: ca.ocsp(ca.issue(NAME).leaf), [Code.MUST_STAPLE]),
    "that knows nothing": (
        lambda ca, one: ca.ocsp(one.leaf, status=ocsp.OCSPCertStatus.UNKNOWN),
        [Code.MUST_STAPLE],
    ),
    "that revokes": (lambda ca, one: ca.ocsp(one.leaf, revoked=ReasonFlags.superseded), [Code.REVOKED]),
}


@pytest.mark.parametrize("what", RESPONSES)
def test_what_nginx_staples_is_taken_by_a_client_exactly_where_the_judge_accepts_it(
    what: str, stapling: NginxServer, issuing_ca: CA, issued: Issued, staple: Path, root_pem: str, tmp_path: Path
) -> None:
    make, refusals = RESPONSES[what]
    response = make(issuing_ca, issued)
    staple.write_bytes(response)
    stapling.start()
    assert judged(issued, response, root_pem) == refusals
    assert asked(stapling, root_pem, tmp_path) == (ASKED if refusals else 0)


def test_nginx_reads_the_file_at_a_reload_only(
    stapling: NginxServer, issuing_ca: CA, issued: Issued, staple: Path, root_pem: str, tmp_path: Path
) -> None:
    staple.write_bytes(issuing_ca.ocsp(issued.leaf, begin=issuing_ca.at - 9 * DAY))
    stapling.start()
    staple.write_bytes(issuing_ca.ocsp(issued.leaf))
    assert asked(stapling, root_pem, tmp_path) == ASKED
    stapling.reload_and_wait()
    assert asked(stapling, root_pem, tmp_path) == 0


def test_nginx_staples_no_pem(stapling: NginxServer, issuing_ca: CA, issued: Issued, staple: Path) -> None:
    lines = base64.encodebytes(issuing_ca.ocsp(issued.leaf))
    staple.write_bytes(b"-----BEGIN OCSP RESPONSE-----\n" + lines + b"-----END OCSP RESPONSE-----\n")
    stapling.write_config()
    tested = stapling.test_cli()
    assert (tested.returncode, "d2i_OCSP_RESPONSE_bio" in tested.stderr) == (1, True), tested.stderr


def test_a_renewal_that_waits_for_its_response_goes_live_once_that_is_read_and_is_told_when_it_is_revoked(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA
) -> None:
    quick = 'scan_interval = "200ms"\nsettle = "700ms"\n'
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=quick)
    edge.start()
    drop, responses = edge.incoming / "example", edge.root / "ocsp"
    responses.mkdir()
    (responses / "first.der").write_bytes(issuing_ca.ocsp(edge.first["example"].leaf))
    text = edge.config_path.read_text()
    edge.config_path.write_text(text.replace("[defaults]\n", f'[defaults]\nocsp = "{responses}"\n'))
    new = edge.issue(tweak=also(STAPLE))
    with running(edge) as daemon:
        daemon.wait_for("ready")
        edge.write_pair(new, drop)
        daemon.wait_for("rejected example", "must-staple")
        (responses / "new.der").write_bytes(issuing_ca.ocsp(new.leaf))
        daemon.tell(signal.SIGHUP)
        wait_until(lambda: edge.shown() == {new.chain_der}, 20, "the renewal is served")
        (responses / "new.der").write_bytes(issuing_ca.ocsp(new.leaf, revoked=ReasonFlags.key_compromise))
        daemon.tell(signal.SIGHUP)
        daemon.wait_for("live-unfit example", "revoked")
