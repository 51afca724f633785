"""A real Prometheus scrapes the page, by address and by name."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from rotator.metrics.http import serve
from tests.support.waiting import wait_until

WITHIN = 60.0
"""Seconds for the start of Prometheus and two scrapes on a busy machine."""


class Pages:
    """A page with one metric."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def render(self) -> bytes:
        return b"rotator_managed_sites 1.0\n"

    def alive(self) -> bool:
        return True

    def ready(self) -> bool:
        return True


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _up(port: int) -> dict[str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query=up", timeout=5) as answer:
            rows = json.load(answer)["data"]["result"]
    except OSError:
        return {}
    return {row["metric"]["instance"].partition(":")[0]: row["value"][1] for row in rows}


def test_prometheus_scrapes_by_address_and_by_localhost(
    tmp_path: Path,
) -> None:
    program = shutil.which("prometheus")
    if program is None:
        message = "prometheus is missing: apt-get install --no-install-recommends prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    pages, own = Pages(), _free_port()
    with closing(serve("127.0.0.1:0", pages, pages)) as server:
        port = server.address.rpartition(":")[2]
        names = ["127.0.0.1", "localhost"]
        targets = json.dumps([f"{name}:{port}" for name in names])
        job = f"{{job_name: r, static_configs: [{{targets: {targets}}}]}}"
        (tmp_path / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs: [{job}]\n")
        command = [program, "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{own}"]
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={tmp_path}/data"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            expected = dict.fromkeys(names, "1")
            assert wait_until(lambda: _up(own) == expected, WITHIN, what="both scrapes to succeed")
        finally:
            process.terminate()
            process.wait(WITHIN)
