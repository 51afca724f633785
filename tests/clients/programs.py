"""The clients without a screen: how each is asked to accept a server, and which of its words are a refusal.

Each answers with nothing if it accepted, and with its own words if it refused the certificate. Anything else (no
connection, a wrong argument) is no answer about a certificate and fails the test. None sees this host's own roots.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.clients.cases import Case
from tests.support.client import accepts
from tests.support.waiting import PATIENCE, wait_until

HERE = Path(__file__).parent
ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent"}
Targets = Mapping[str, tuple[Case, int]]
"""Each case and its port, by the name of the case."""


def curl(case: Case, port: int, roots: Path) -> str:
    target = f"{case.host}:{port}"
    done = _run(
        *["curl", "-q", "-sS", "--noproxy", "*", "--cacert"],
        *(str(roots), "--resolve", f"{target}:127.0.0.1", f"https://{target}/"),
    )
    return _refused(done, about_certificate=done.returncode in (35, 60))


def openssl(case: Case, port: int, roots: Path) -> str:
    done = _run(
        *["openssl", "s_client", "-brief", "-verify_return_error", "-no-CApath", "-no-CAstore", "-CAfile"],
        *(str(roots), "-connect", f"127.0.0.1:{port}", "-servername", case.host, "-verify_hostname", case.host),
    )
    return _refused(done, about_certificate="verify error" in done.stderr)


def python(case: Case, port: int, roots: Path, *, strict: bool) -> str:
    """Python's default client, with the flags that it sets since 3.13 or with those of before."""
    context = ssl.create_default_context(cafile=roots)
    context.verify_flags &= ~(ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain:
        try:
            context.wrap_socket(plain, server_hostname=case.host).close()
        except ssl.SSLCertVerificationError as error:
            return str(error)
    return ""


def mosquitto(port: int, roots: Path) -> str:
    """The MQTT client, against a broker that terminates TLS itself and sends the same chain."""
    done = _run(*f"mosquitto_sub -h localhost -p {port} -t t -E -W 20 --cafile".split(), str(roots))
    # since 2.0.21 it tells a handshake that failed by errno alone (lib/net_mosq.c sets EPROTO)
    return _refused(done, about_certificate="TLS error" in done.stderr or "Protocol error" in done.stderr)


def go(targets: Targets, roots: Path, root: Path) -> dict[str, str]:
    """Go's `crypto/tls` as Prometheus has it, which scrapes every case once; Go itself would be half a gigabyte."""
    root.mkdir()
    jobs = [
        {
            "job_name": str(number),
            "scheme": "https",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            "tls_config": {"ca_file": str(roots), "server_name": case.host},
        }
        for number, (case, port) in enumerate(targets.values())
    ]
    settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (root / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    command = ["prometheus", f"--config.file={root}/prometheus.yml", f"--storage.tsdb.path={root}/data"]
    with reserved_port() as port, (root / "words.log").open("wb") as words:
        address = f"127.0.0.1:{port}"
        process = subprocess.Popen(
            [*command, f"--web.listen-address={address}"], stdout=words, stderr=words, env=ENVIRONMENT
        )
        try:
            found = wait_until(lambda: _scraped(address, len(targets), process), 40, "Prometheus has scraped", 0.1)
        finally:
            process.terminate()
            process.wait(PATIENCE)
    answers = {name: found[str(number)] for number, name in enumerate(targets)}
    for name, answer in answers.items():
        assert not answer or "x509: " in answer, f"{name}: no word about a certificate: {answer}"
    return answers


def _scraped(address: str, count: int, process: subprocess.Popen[bytes]) -> dict[str, str]:
    """The last error by job, once every target has been scraped; nothing before that."""
    assert process.poll() is None, "Prometheus has ended"
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/targets", timeout=PATIENCE) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
    except OSError:
        return {}
    done = {t["labels"]["job"]: str(t["lastError"]) for t in targets if t["health"] != "unknown"}
    return done if len(done) == count else {}


def node(targets: Targets, roots: Path) -> dict[str, str]:
    done = _run("node", str(HERE / "client.js"), str(roots), *_targets(targets))
    assert done.returncode == 0, done.stderr
    words: dict[str, str] = json.loads(done.stdout)
    return _by_name(targets, words, r"^(?!E[A-Z]+:|ERR_SSL)")  # those are of the network and of the protocol


def java(targets: Targets, roots: Path) -> dict[str, str]:
    done = _run(
        "java", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", str(HERE / "Client.java"), str(roots), *_targets(targets)
    )
    assert done.returncode == 0, done.stderr
    words = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    return _by_name(targets, words, r"^SSLHandshakeException")


def _targets(targets: Targets) -> list[str]:
    return [f"{case.host}:{port}" for case, port in targets.values()]


def _by_name(targets: Targets, words: Mapping[str, str], refusal: str) -> dict[str, str]:
    answers = {name: words[str(port)] for name, (_, port) in targets.items()}
    for name, answer in answers.items():
        assert not answer or re.search(refusal, answer), f"{name}: no word about a certificate: {answer}"
    return answers


def _refused(done: subprocess.CompletedProcess[str], *, about_certificate: bool) -> str:
    if done.returncode == 0:
        return ""
    words = (done.stderr or done.stdout).strip()
    assert about_certificate, f"{done.args[0]} failed with {done.returncode} for another reason: {words}"
    return words


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,  # Java asks for all of the cases in one process
        check=False,
        env=ENVIRONMENT,
    )


@contextmanager
def broker(root: Path, cases: tuple[Case, ...]) -> Iterator[dict[str, int]]:
    """A mosquitto with a TLS listener for each case; the port by the case's name."""
    root.mkdir()
    ports: dict[str, int] = {}
    lines = ["user root", "allow_anonymous true", "log_dest stderr"]
    binary = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    assert binary is not None
    with ExitStack() as reserved, (root / "words.log").open("wb") as words:
        for case in cases:
            port = ports[case.name] = reserved.enter_context(reserved_port())
            (root / f"{port}.pem").write_bytes(case.chain_pem)
            (root / f"{port}.key").write_bytes(case.issued.key_pem)
            lines += [f"listener {port} 127.0.0.1", f"certfile {root}/{port}.pem", f"keyfile {root}/{port}.key"]
        (root / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        process = subprocess.Popen([binary, "-c", str(root / "mosquitto.conf")], stdout=words, stderr=words)
        try:
            wait_until(lambda: _listening(ports, process), 15, "mosquitto listens")
            yield ports
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _listening(ports: Mapping[str, int], process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "mosquitto has ended"
    return all(accepts(f"127.0.0.1:{port}") for port in ports.values())


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else is given: bound, not listening, so that a server with SO_REUSEADDR can listen on it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
