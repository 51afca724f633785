"""A worker of nginx that writes what it likes into nginx's log: it can neither stop a renewal nor condemn a pair."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rotator import bootstrap
from rotator.core.model import Outcome, Result
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied
from tests.support.authority import CA, Issued
from tests.support.edge import Edge
from tests.support.misbehave import changed_zone, unknown_directive
from tests.support.nginx_server import NginxServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.each_nginx

RENEWALS = 20
STRANGER = "www-data"

PROGRAM = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("apply", sys.argv[1])
module = sys.modules["apply"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
asked = json.load(sys.stdin)
setup = module.Setup(**asked["setup"] | {"sites": frozenset(asked["setup"]["sites"])})
request = module.Request(asked["generations"], asked["hup"])
json.dump(module.asdict(module.apply(setup, request)), sys.stdout)
"""


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca)
    host.start()
    if os.geteuid() == 0:
        shutil.chown(nginx.error_log_path, STRANGER)  # as Debian's package has it
    return host


@contextmanager
def forging(edge: Edge) -> Iterator[None]:
    """A thread that writes refusals as if by nginx's master, of the configuration and of whatever pair is named."""
    end = threading.Event()
    lines = 0

    def write() -> None:
        nonlocal lines
        with edge.nginx.error_log_path.open("a", buffering=1) as log:
            while not end.is_set():
                master = edge.nginx.master_pid
                for pair in (edge.include_dir / "pairs/example").iterdir():
                    log.write(
                        f"2026/11/22 12:00:00 [emerg] {master}#{master}: no such directive\n"
                        f"2026/11/22 12:00:00 [emerg] {master}#{master}: cannot load certificate "
                        f'"{pair}/fullchain.pem": PEM_read_bio_X509_AUX() failed\n'
                    )
                    lines += 1
                time.sleep(0.001)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_until(lambda: lines > 0, what="a forged line")
        yield
    finally:
        end.set()
        thread.join()


def sandboxed(edge: Edge) -> Applying:
    """The privileged step in a process with the rights that the unit leaves to root."""
    setup = asdict(bootstrap.make_setup(edge.config))
    command = ["setpriv", "--bounding-set=-all,+dac_read_search", "--no-new-privs"]

    def apply(generations: Mapping[str, str], *, hup: bool) -> Applied:
        asked = {"setup": setup | {"sites": sorted(setup["sites"])}, "generations": dict(generations), "hup": hup}
        done = subprocess.run(
            [*command, sys.executable, "-I", "-S", "-c", PROGRAM, str(privileged.__file__)],
            input=json.dumps(asked), capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        return Applied(**answer | {"words": tuple(answer["words"])})

    return apply


def in_process(edge: Edge, before_hup: Callable[[Mapping[str, str]], None] = lambda generations: None) -> Applying:
    """The privileged step in this process, with something done between its commit and its signal."""
    setup = bootstrap.make_setup(edge.config)

    def apply(generations: Mapping[str, str], *, hup: bool) -> Applied:
        def signal(inner: privileged.Setup) -> tuple[int, str, tuple[str, ...]]:
            before_hup(generations)
            return privileged.hup_master(inner)

        return privileged.apply(setup, privileged.Request(dict(generations), hup), signal)

    return apply


Applying = Callable[..., Applied]
HOWS = [
    pytest.param(in_process, id="in this process"),
    pytest.param(sandboxed, id="as the unit", marks=pytest.mark.root),
]


def swap(edge: Edge, new: Issued, apply: Applying) -> Outcome:
    return edge.run(edge.wanted("example", new), ports=replace(edge.ports, apply=apply))[0]


@pytest.mark.parametrize("how", HOWS)
def test_beside_a_worker_that_forges_refusals_each_renewal_is_rotated(
    edge: Edge, how: Callable[[Edge], Applying]
) -> None:
    apply = how(edge)
    with forging(edge):
        outcomes = [swap(edge, edge.issue(), apply) for _ in range(RENEWALS)]
    assert [o.result for o in outcomes] == [Result.ROTATED] * RENEWALS


@pytest.mark.parametrize("how", HOWS)
def test_a_refusal_for_another_cause_rejects_no_pair_that_the_forged_lines_name(
    edge: Edge, how: Callable[[Edge], Applying]
) -> None:
    new, apply, workers = edge.issue(), how(edge), edge.nginx.active_workers()
    with forging(edge):
        with unknown_directive(edge.nginx) as word:
            done = swap(edge, new, apply)
        assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
        assert word in done.message
        assert "PEM_read_bio" not in done.message
        assert (edge.nginx.active_workers(), edge.shown()) == (workers, {edge.first["example"].chain_der})
        assert swap(edge, new, apply).result is Result.ROTATED


@pytest.mark.root
@pytest.mark.parametrize("how", HOWS)
def test_words_that_only_the_log_has_are_told_with_who_may_have_written_them(
    edge: Edge, how: Callable[[Edge], Applying]
) -> None:
    with changed_zone(edge.nginx) as zone:
        done = swap(edge, edge.issue(), how(edge))
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
    assert f"nginx's log, which {STRANGER} may write, says: " in done.message
    assert zone in done.message


def copy_of(edge: Edge, generations: Mapping[str, str]) -> Path:
    return edge.include_dir / "pairs/example" / generations["example"]


def test_a_pair_that_nginx_cannot_load_is_rejected_although_its_log_is_not_to_be_trusted(edge: Edge) -> None:
    def spoil(generations: Mapping[str, str]) -> None:
        (copy_of(edge, generations) / "privkey.pem").write_bytes(edge.first["example"].key_pem)

    done = swap(edge, edge.issue(), in_process(edge, spoil))
    assert (done.result, done.reason) == (Result.REJECTED, "nginx-refused")
    assert "key values mismatch" in done.message
    assert edge.shown() == {edge.first["example"].chain_der}


def test_a_copy_that_nginx_cannot_open_rejects_no_pair(edge: Edge) -> None:
    def remove(generations: Mapping[str, str]) -> None:
        (copy_of(edge, generations) / "privkey.pem").unlink()

    done = swap(edge, edge.issue(), in_process(edge, remove))
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
    assert edge.shown() == {edge.first["example"].chain_der}
