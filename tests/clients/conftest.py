"""The fixtures of all real clients: every case served by nginx, and what rotator predicts of each; no tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.cases import Case, Cases
from tests.clients.serving import repositories, serve
from tests.support.authority import pem
from tests.support.calls import call
from tests.support.nginx_fixtures import require_nginx
from tests.support.nginx_server import NginxServer

PACKAGES = {
    "certutil": "libnss3-tools",
    "chromium": "chromium",
    "curl": "curl",
    "firefox-esr": "firefox-esr",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "mosquitto": "mosquitto",
    "mosquitto_sub": "mosquitto-clients",
    "node": "nodejs",
    "openssl": "openssl",
    "prometheus": "prometheus",
}
"""The Debian package of each program, the same in Debian 12 and 13."""


def require(*programs: str) -> None:
    """A skip that says what to install; in CI, where a skip would hide that nothing ran, a failure."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = sorted({PACKAGES[one] for one in programs if shutil.which(one, path=path) is None})
    if not missing:
        return
    words = f"missing: apt-get install --no-install-recommends {' '.join(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(words)
    pytest.skip(words)


@dataclass(frozen=True)
class Servers:
    """What is served, and what was predicted of it.

    Args:
        root: a tree for the clients' files.
        cases: what is served.
        ports: where, by the case's name.
        roots: the file of the roots that clients trust.
        root_files: the same, one in each file.
        mending: by the name of a case that lacks a certificate, the file that has it.
        predicted: for each case, what `rotator check` says becomes of each client.
    """

    root: Path
    cases: tuple[Case, ...]
    ports: Mapping[str, int]
    roots: Path
    root_files: tuple[Path, ...]
    mending: Mapping[str, Path]
    predicted: Mapping[str, Mapping[str, Any]]

    def url(self, case: Case) -> str:
        return f"https://{case.host}:{self.ports[case.name]}/"

    @property
    def targets(self) -> dict[str, tuple[Case, int]]:
        return {case.name: (case, self.ports[case.name]) for case in self.cases}


@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Everything is made, judged and served once."""
    root = tmp_path_factory.mktemp("clients")
    binary = require_nginx("debian")
    with repositories() as found, NginxServer(binary, root / "nginx") as nginx:
        cases = Cases(found)
        roots = root / "roots.pem"
        roots.write_bytes(cases.roots_pem)
        root_files = (root / "root.pem", root / "old-root.pem")
        for file, ca in zip(root_files, (cases.root, cases.old_root), strict=True):
            file.write_bytes(pem(ca.cert))
        mending = {name: root / f"mending-{number}.pem" for number, name in enumerate(cases.mending)}
        for name, file in mending.items():
            file.write_bytes(pem(cases.mending[name].cert))
        ports = serve(nginx, cases.all)
        predicted = {case.name: _predicted(case, root, roots) for case in cases.all}
        yield Servers(root, cases.all, ports, roots, root_files, mending, predicted)
        print(nginx.words())


def _predicted(case: Case, root: Path, roots: Path) -> Mapping[str, Any]:
    file = root / "served.pem"
    file.write_bytes(case.chain_pem)
    answer = call("check", "--cert", file, "--roots", roots, "--name", case.host, "--json").answer
    assert {*answer["codes"], *answer["warnings"]} >= case.codes, case.name
    clients = answer["clients"]
    assert isinstance(clients, dict)
    return clients
