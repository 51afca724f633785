"""The daemon as its host meets it, on both real nginx: drops in, proved certificates out, or nothing changed."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rotator.core.model import Result
from tests.support.authority import CA, Issued, der, pem
from tests.support.client import served_leaf
from tests.support.edge import Edge
from tests.support.misbehave import unknown_directive
from tests.support.nginx_server import NginxServer
from tests.support.renewals import QUICK, is_decided, is_served, page, rotations
from tests.support.running import ROOT, running
from tests.support.waiting import PATIENCE, wait_until


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=QUICK)
    host.start()
    (host.incoming / "example").mkdir()
    return host


Kind = Literal["ecdsa", "rsa"]


def test_a_renewal_that_is_dropped_is_served_by_every_listener(edge: Edge) -> None:
    new = edge.issue()
    with running(edge) as daemon:
        edge.write_pair(new, edge.incoming / "example")
        is_served(edge, new)
        daemon.wait_for("rotated example")
        assert daemon.end() == 0
    assert edge.store.verified("example") == edge.live()


def test_the_manager_is_asked_for_time_while_a_start_goes_on_and_told_when_it_is_done(
    edge: Edge, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        with running(edge, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}):
            manager.settimeout(20)
            told = [manager.recv(4096)]
            while not told[-1].startswith(b"READY=1"):
                told.append(manager.recv(4096))
    assert told[:-1] == [b"EXTEND_TIMEOUT_USEC=120000000"]


# -- ways of writing a drop


def test_a_drop_that_is_written_byte_by_byte_is_taken_when_it_is_whole(edge: Edge) -> None:
    new = edge.issue()
    drop = edge.incoming / "example"
    with running(edge) as daemon:
        for name, data in (("fullchain.pem", new.chain_pem), ("privkey.pem", new.key_pem)):
            with (drop / name).open("wb", buffering=0) as f:
                for start in range(len(data)):
                    f.write(data[start : start + 1])
        is_served(edge, new)
        daemon.wait_for("rotated example")
        assert not daemon.said("rejected")
        assert rotations(edge) == 1


@pytest.mark.parametrize("first", ["key", "chain"])
def test_the_other_half_of_a_drop_may_come_later(edge: Edge, first: str) -> None:
    new = edge.issue()
    chain, key = edge.write_pair(new)
    drop = edge.incoming / "example"
    halves = [key, chain] if first == "key" else [chain, key]
    with running(edge) as daemon:
        shutil.copy(halves[0], drop)
        daemon.wait_for("settling example")
        shutil.copy(halves[1], drop)
        is_served(edge, new)
        assert not daemon.said("rejected")


@pytest.mark.parametrize("order", [("ecdsa", "rsa"), ("rsa", "ecdsa")])
def test_both_keys_of_a_dual_site_go_together_in_any_order(edge: Edge, order: tuple[Kind, Kind]) -> None:
    assert edge.swap("example", edge.issue(kind="ecdsa"), edge.issue(kind="rsa")).result is Result.ROTATED
    renewals = {kind: edge.issue(kind=kind) for kind in order}
    drop = edge.incoming / "example"
    edge.daemon_extra = QUICK.replace("700ms", "20s")
    edge.write_config()
    with running(edge) as daemon:
        for number, (kind, new) in enumerate(renewals.items()):
            (drop / f"{kind}.key").write_bytes(new.key_pem)
            (drop / f"{kind}.crt").write_bytes(new.chain_pem)
            if not number:
                daemon.wait_for("settling example", "key yet")
        daemon.wait_for("rotated example")
    for kind, new in renewals.items():
        assert served_leaf(edge.addresses[0], edge.name("example"), kind) == der(new.leaf)[0]
    assert rotations(edge) == 2  # the one by hand, and one for both


@pytest.mark.parametrize("way", ["mv", "cp", "cp -a", "scp", "rsync", "deliver", "flat", "directory"])
def test_every_way_of_writing_is_taken_once_and_never_half(edge: Edge, way: str) -> None:
    new = edge.issue()
    chain, key = edge.write_pair(new)
    drop = edge.incoming / "example"
    with running(edge) as daemon:
        match way:
            case "mv":
                chain.rename(drop / chain.name)
                key.rename(drop / key.name)
            case "cp" | "cp -a":
                subprocess.run([*way.split(), str(chain), str(key), str(drop)], check=True)
            case "scp":
                for path in (chain, key):
                    with (drop / path.name).open("wb", buffering=0) as f:
                        data = path.read_bytes()
                        for start in range(0, len(data), 512):
                            f.write(data[start : start + 512])
            case "rsync":
                for path in (chain, key):
                    temporary = drop / f".{path.name}.a1B2c3"
                    shutil.copy(path, temporary)
                    temporary.rename(drop / path.name)
            case "deliver":
                assert edge.cli("deliver", "example", chain, key).returncode == 0
            case "flat":
                shutil.copy(chain, edge.incoming / "example.crt")
                shutil.copy(key, edge.incoming / "example.key")
            case "directory":
                drop.rmdir()
                chain.parent.rename(drop)
        is_served(edge, new)
        daemon.wait_for("rotated example")
        assert not daemon.said("rejected")
    assert rotations(edge) == 1


def test_a_source_that_is_flipped_behind_links_is_taken(edge: Edge) -> None:
    mount = edge.root / "secret"
    first, second = edge.issue(), edge.issue()
    for name, new in (("v1", first), ("v2", second)):
        (mount / name).mkdir(parents=True)
        (mount / name / "tls.crt").write_bytes(new.chain_pem)
        (mount / name / "tls.key").write_bytes(new.key_pem)
    (mount / "..data").symlink_to("v1")
    for name in ("tls.crt", "tls.key"):
        (mount / name).symlink_to(f"..data/{name}")
    for name in ("v1", "v2"):
        (mount / name).rename(mount / f"..{name}")
    (mount / "..data").unlink()
    (mount / "..data").symlink_to("..v1")
    with edge.config_path.open("a") as f:
        f.write(f'source = "{mount}"\n')
    with running(edge):
        is_served(edge, first)
        (mount / "..new").symlink_to("..v2")
        (mount / "..new").rename(mount / "..data")
        is_served(edge, second)


def test_twenty_sites_at_once_are_few_reloads(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> None:
    names = tuple(f"site{n:02d}" for n in range(20))
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, names, listeners=1, daemon_extra=QUICK)
    edge.start()
    renewals = {name: edge.issue(name) for name in names}
    before = dict.fromkeys(names)
    with running(edge) as daemon:
        for name, new in renewals.items():
            (edge.incoming / name).mkdir()
            edge.write_pair(new, edge.incoming / name)
        for name, new in renewals.items():
            is_served(edge, new, name)
        wait_until(lambda: all(rotations(edge, name) == 1 for name in before), 20)
        reloads = sum("progress: reloading nginx" in line for line in daemon.lines)
    assert reloads <= 4, "they do not go together"


# -- what must change nothing


def test_a_bad_drop_changes_nothing_is_told_once_and_is_not_tried_again_after_a_restart(edge: Edge) -> None:
    new = edge.issue_by_another()
    (edge.incoming / "example" / "leaf.pem").write_bytes(pem(new.leaf))
    (edge.incoming / "example" / "key.pem").write_bytes(new.key_pem)
    workers = edge.ports.nginx.workers()
    for _ in range(2):
        with running(edge) as daemon:
            is_decided(edge, "rejected", "incomplete-chain")
            wait_until(lambda: 'rotator_inputs{state="rejected"} 1.0' in page(edge), 10, "it has looked at the drop")
            assert daemon.end() == 0
    assert _results(edge)[-1:] == ["rejected"]
    assert _results(edge).count("rejected") == 1
    assert edge.ports.nginx.workers() == workers
    assert edge.shown() == {edge.first["example"].chain_der}


def test_two_hundred_drops_of_garbage_change_nothing_and_the_next_good_one_is_taken(edge: Edge) -> None:
    noise = random.Random(7)
    drop = edge.incoming / "example"
    good = edge.issue()
    workers = edge.ports.nginx.workers()
    with running(edge) as daemon:
        for number in range(200):
            name = noise.choice(["fullchain.pem", "privkey.pem", "x.p12", f"{number % 7}.der"])
            data = bytearray(noise.choice([good.chain_pem, good.key_pem, noise.randbytes(noise.randrange(4000))]))
            if data and noise.random() < 0.8:
                del data[noise.randrange(len(data)) :]
            (drop / name).write_bytes(bytes(data) or b"?")
        is_decided(edge, "rejected")
        assert edge.ports.nginx.workers() == workers
        for path in drop.iterdir():
            path.unlink()
        edge.write_pair(good, drop)
        is_served(edge, good)
        assert daemon.process.poll() is None


def test_a_lost_drop_directory_is_told_and_heals_by_itself(edge: Edge) -> None:
    new = edge.issue()
    with running(edge) as daemon:
        edge.incoming.rename(edge.root / "away")
        daemon.wait_for("drop-lost example")
        (edge.incoming / "example").mkdir(parents=True)
        daemon.wait_for("drop-back example")
        edge.write_pair(new, edge.incoming / "example")
        is_served(edge, new)


def test_an_incoming_directory_without_the_sticky_bit_is_told_by_the_daemon_and_by_status(edge: Edge) -> None:
    edge.incoming.chmod(0o2770)
    with running(edge) as daemon:
        daemon.wait_for(f"unsafe-drop: {edge.incoming} has no sticky bit")
        assert f"chmod +t {edge.incoming}" in edge.cli("status").stderr


def test_a_lock_that_is_held_is_in_the_daemons_status_line_with_its_holder(edge: Edge, tmp_path: Path) -> None:
    address = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(PATIENCE)
        with running(edge, env={"NOTIFY_SOCKET": address}), edge.locks.rotation("somebody", 1.0):
            edge.write_pair(edge.issue(), edge.incoming / "example")
            line = b""
            while b"STATUS=renewals wait for the lock" not in line:
                line = manager.recv(4096)
    assert f"held by pid {os.getpid()} (somebody, since 20" in line.decode()


# -- nginx in trouble


@pytest.mark.each_nginx
def test_nginx_is_stopped_and_proved_when_it_is_started(edge: Edge) -> None:
    new = edge.issue()
    with running(edge) as daemon:
        edge.nginx.stop()
        edge.write_pair(new, edge.incoming / "example")
        is_decided(edge, "deferred", "nginx-down")
        edge.nginx.start()
        is_served(edge, new)
        daemon.wait_for("rotated example")


@pytest.mark.each_nginx
def test_a_master_that_is_stopped_speaks_against_no_renewal_and_that_is_served_once_it_goes_on(edge: Edge) -> None:
    edge.prove_within = "1s"
    edge.write_config()
    new = edge.issue()
    with running(edge) as daemon:
        with edge.nginx.halted():
            edge.write_pair(new, edge.incoming / "example")
            is_decided(edge, "deferred", "nginx-silent")
            assert edge.shown() == {edge.first["example"].chain_der}
            assert edge.live() == edge.store.verified("example")
        is_served(edge, new)
        daemon.wait_for("rotated example")
    assert rotations(edge) == 1


@pytest.mark.each_nginx
def test_a_configuration_that_is_broken_elsewhere_defers_until_it_is_mended(edge: Edge) -> None:
    new = edge.issue()
    with running(edge) as daemon:
        with unknown_directive(edge.nginx) as word:
            edge.write_pair(new, edge.incoming / "example")
            daemon.wait_for("deferred example", word)
            assert edge.shown() == {edge.first["example"].chain_der}
        is_served(edge, new)


# -- life


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(edge: Edge) -> None:
    with running(edge) as daemon:
        second = edge.cli("run")
        assert (second.returncode, f"pid {daemon.process.pid}" in second.stderr) == (7, True)
        assert daemon.end() == 0
    with running(edge):
        pass


def test_asked_to_end_in_the_middle_of_a_proof_it_ends_soon_and_the_next_start_recovers(edge: Edge) -> None:
    edge.prove_within = "60s"
    edge.write_config()
    new = edge.issue()
    with running(edge) as daemon, edge.nginx.halted():
        edge.write_pair(new, edge.incoming / "example")
        daemon.wait_for("progress: reloading nginx")
        begun = time.monotonic()
        assert daemon.end() == 0
        assert time.monotonic() - begun < 50
        assert daemon.said("cut-short")
    with running(edge):
        is_served(edge, new)
        wait_until(lambda: edge.store.verified("example") == edge.live(), 10)


def test_a_good_configuration_is_taken_with_sighup_and_a_bad_one_leaves_the_old_in_force(edge: Edge) -> None:
    with running(edge) as daemon:
        good = edge.config_path.read_text()
        edge.config_path.write_text(good.replace("[nginx]", "[ngnix]"))
        daemon.tell(signal.SIGHUP)
        daemon.wait_for("reload-failed", "ngnix")
        new = edge.issue()
        edge.write_pair(new, edge.incoming / "example")
        is_served(edge, new)
        edge.config_path.write_text(good.replace('settle = "700ms"', 'settle = "800ms"'))
        daemon.tell(signal.SIGHUP)
        daemon.wait_for("reloaded")
        newer = edge.issue()
        edge.write_pair(newer, edge.incoming / "example")
        is_served(edge, newer)


def test_sighup_in_the_middle_of_a_proof_waits_for_its_end_and_then_takes_the_new_configuration(edge: Edge) -> None:
    edge.prove_within = "20s"
    edge.write_config()
    new = edge.issue()
    with running(edge) as daemon:
        with edge.nginx.halted():
            edge.write_pair(new, edge.incoming / "example")
            daemon.wait_for("progress: reloading nginx")
            edge.config_path.write_text(edge.config_path.read_text().replace('settle = "700ms"', 'settle = "800ms"'))
            daemon.tell(signal.SIGHUP)
        daemon.wait_for("reloaded:")
        words = [line.split(" ")[1] for line in daemon.lines]
        assert words.index("rotated") < words.index("reloaded:"), daemon.lines
        assert edge.shown() == {new.chain_der}
        assert daemon.end() == 0
    assert rotations(edge) == 1


def test_a_site_that_is_taken_out_and_put_back_while_it_waits_is_served_when_its_time_comes(
    nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA
) -> None:
    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, ("a", "b"), listeners=1, daemon_extra=QUICK)
    edge.start()
    new = edge.issue("b")
    with running(edge) as daemon:
        with unknown_directive(edge.nginx):
            (edge.incoming / "b").mkdir()
            edge.write_pair(new, edge.incoming / "b")
            is_decided(edge, "deferred", "nginx-refused", "b")
            whole = edge.config_path.read_text()
            edge.config_path.write_text(whole.partition('\n[[site]]\nname = "b"')[0])
            daemon.tell(signal.SIGHUP)
            daemon.wait_for("reloaded: 1 site,")
            wait_until(lambda: 'site="b"' not in page(edge), 10, "the page shows one site")
            edge.config_path.write_text(whole)
            daemon.tell(signal.SIGHUP)
            daemon.wait_for("reloaded: 2 sites,")
            assert edge.shown("b") == {edge.first["b"].chain_der}
        is_served(edge, new, "b")
        daemon.wait_for("rotated b")
        assert daemon.end() == 0
    assert rotations(edge, "b") == 1


def test_a_reload_by_command_ends_when_the_new_configuration_is_in_force(edge: Edge) -> None:
    with running(edge) as daemon:
        edge.config_path.write_text(edge.config_path.read_text().replace('settle = "700ms"', 'settle = "800ms"'))
        done = edge.cli("config", "reload")
        assert (done.returncode, "in force, 1 site" in done.stdout) == (0, True), done.stderr
        assert daemon.said("reloaded")


def test_a_reload_by_command_does_not_send_what_is_wrong(edge: Edge) -> None:
    with running(edge) as daemon:
        edge.config_path.write_text(edge.config_path.read_text().replace("[nginx]", "[ngnix]"))
        done = edge.cli("config", "reload")
        assert (done.returncode, "ngnix" in done.stderr) == (78, True)
        assert not daemon.said("reload-failed:")
        assert not daemon.said("reloaded:")


def test_a_reload_by_command_tells_what_only_the_daemon_can_refuse(edge: Edge) -> None:
    with running(edge):
        edge.roots.write_text("no certificate at all")
        done = edge.cli("config", "reload")
        assert (done.returncode, "stays in force" in done.stderr, str(edge.roots) in done.stderr) == (78, True, True)


def test_a_reload_by_command_without_a_daemon_says_what_starts_one(edge: Edge) -> None:
    done = edge.cli("config", "reload")
    assert (done.returncode, "systemctl start rotator" in done.stderr) == (1, True)


def test_a_reload_by_command_of_another_file_names_the_daemons_own(edge: Edge) -> None:
    other = edge.root / "other.toml"
    shutil.copy(edge.config_path, other)
    with running(edge):
        done = edge.cli("--config", other, "config", "reload")
    assert (done.returncode, f"uses {edge.config_path}, not {other}" in done.stderr) == (2, True)


def test_a_reload_by_command_waits_only_so_long(edge: Edge) -> None:
    with running(edge) as daemon:
        daemon.tell(signal.SIGSTOP)
        try:
            done = edge.cli("config", "reload", "--within", "0.3")
        finally:
            daemon.tell(signal.SIGCONT)
    assert (done.returncode, "has not loaded its configuration within 0.3 s" in done.stderr) == (1, True)


def test_a_live_certificate_that_is_revoked_is_told_when_the_list_is_read_anew(edge: Edge) -> None:
    begin = datetime.now(UTC) - timedelta(hours=1)
    lists = edge.root / "crls.pem"

    def written(*revoked: Issued) -> None:
        made = (edge.issuer.crl(*(one.leaf for one in revoked), begin=begin), edge.root_ca.crl(begin=begin))
        lists.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in made))

    written()
    edge.config_path.write_text(edge.config_path.read_text().replace("[defaults]\n", f'[defaults]\ncrls = "{lists}"\n'))
    with running(edge) as daemon:
        daemon.wait_for("ready")
        written(edge.first["example"])
        daemon.tell(signal.SIGHUP)
        daemon.wait_for("live-unfit example", "revoked")
        wait_until(lambda: 'rotator_live_accepted{site="example"} 0.0' in page(edge), 20, "the page shows it")
        lists.unlink()
        daemon.tell(signal.SIGHUP)
        daemon.wait_for("reload-failed", "crls")
        written(edge.first["example"])
        daemon.tell(signal.SIGHUP)
        daemon.wait_for("reloaded")
        new = edge.issue()
        edge.write_pair(new, edge.incoming / "example")
        is_served(edge, new)


def test_a_bad_configuration_at_the_start_exits_78(edge: Edge) -> None:
    edge.config_path.write_text("nonsense")
    assert edge.cli("run").returncode == 78


def test_a_rollback_by_hand_is_not_fought(edge: Edge) -> None:
    new = edge.issue()
    with running(edge) as daemon:
        edge.write_pair(new, edge.incoming / "example")
        is_served(edge, new)
        is_decided(edge, "rotated")
        done = edge.cli("rollback", "example")
        assert done.returncode == 0, done.stderr
        daemon.tell(signal.SIGHUP)  # has every drop looked at anew
        daemon.wait_for("held example")
        assert edge.shown() == {edge.first["example"].chain_der}
        newer = edge.issue()
        edge.write_pair(newer, edge.incoming / "example")
        is_served(edge, newer)


def test_a_swap_of_the_very_files_that_lie_in_the_drop_decides_about_them_and_holds_nothing(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    with running(edge) as daemon:
        daemon.tell(signal.SIGSTOP)
        try:
            assert edge.cli("deliver", "example", chain, key).returncode == 0
            assert edge.cli("swap", "example", "--cert", chain, "--key", key).returncode == 0
        finally:
            daemon.tell(signal.SIGCONT)
        again = edge.cli("deliver", "--wait", "example", chain, key)
        assert (again.returncode, "ROTATED example" in again.stdout) == (0, True), again.stderr
        assert not daemon.said("held example")
    assert rotations(edge) == 1


def test_the_page_shows_what_happened(edge: Edge) -> None:
    new = edge.issue()
    with running(edge):
        edge.write_pair(new, edge.incoming / "example")
        is_served(edge, new)
        wait_until(lambda: 'swap_attempts_total{site="example",trigger="drop"} 1.0' in page(edge), 10)
        labels = f'key_type="ecdsa",listener="{edge.addresses[0]}",site="example"'
        wait_until(lambda: f"served_certificate_matches_disk{{{labels}}} 1.0" in page(edge), 10)
        assert "rotator_nginx_reloads_total 1.0" in page(edge)


# -- deliver --wait


def test_deliver_waits_for_the_outcome_and_exits_as_it_ended(edge: Edge) -> None:
    new = edge.issue()
    chain, key = edge.write_pair(new)
    with running(edge):
        done = edge.cli("deliver", "--wait", "example", chain, key)
        assert (done.returncode, "ROTATED example" in done.stdout) == (0, True), done.stderr
        assert edge.shown() == {new.chain_der}
        again = edge.cli("--json", "deliver", "--wait", "example", chain, key)
        assert (again.returncode, json.loads(again.stdout)["result"]) == (0, "rotated")


def test_deliver_that_waits_for_a_bad_pair_exits_3_with_the_reason(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    chain.write_bytes(edge.issue().chain_pem)
    with running(edge):
        done = edge.cli("deliver", "--wait", "example", chain, key)
    assert (done.returncode, "REJECTED example" in done.stdout) == (3, True), done.stderr


def test_deliver_that_waits_is_told_if_another_pair_in_the_drop_is_taken(edge: Edge) -> None:
    better, lesser = edge.issue(days=120), edge.write_pair(edge.issue(days=95))
    with running(edge):
        there = edge.incoming / "example"
        there.mkdir(exist_ok=True)
        (there / "better.pem").write_bytes(better.chain_pem)
        (there / "better.key").write_bytes(better.key_pem)
        is_served(edge, better)
        done = edge.cli("deliver", "--wait", "example", *lesser)
        assert (done.returncode, edge.shown()) == (3, {better.chain_der}), done.stderr
    assert "another pair than the delivered one" in done.stderr
    assert "2 other files" in done.stderr


def test_deliver_that_waits_tells_every_problem_of_a_refusal(edge: Edge) -> None:
    begin = datetime.now(UTC) - timedelta(days=200)
    wrong = edge.write_pair(edge.issuer.issue("other.example.test", not_before=begin, days=100))
    with running(edge):
        done = edge.cli("deliver", "--wait", "example", *wrong)
    assert done.returncode == 3, done.stderr
    codes = [code for code in ("expired", "name-mismatch") if f"also {code}: " in done.stdout]
    assert len(codes) == 1, done.stdout  # and the other is the outcome's own sentence
    assert ("does not cover" in done.stdout, "expired" in done.stdout) == (True, True), done.stdout


def test_status_shows_the_jobs_of_the_running_daemon(edge: Edge) -> None:
    with running(edge):
        shown = edge.cli("status", "--verbose").stdout
        assert re.search(r"^daemon +pid \d+, running since 20\d\d-", shown, re.MULTILINE)
        assert re.search(r"^scan-drops +0\.2 s +(-|20\S+Z) +20\S+Z +Look at every drop", shown, re.MULTILINE)
        assert "tidy-store" not in edge.cli("status").stdout
        daemon = json.loads(edge.cli("status", "--json").stdout)["daemon"]
        now = datetime.now(UTC)
        (probe,) = [job for job in daemon["jobs"] if job["name"] == "probe-listeners"]
        assert now < datetime.fromisoformat(probe["next"]) < now + timedelta(seconds=60)
    assert "none is running" in edge.cli("status", "--verbose").stdout


def test_an_interval_that_is_changed_by_a_reload_is_in_force(edge: Edge) -> None:
    with running(edge):
        edge.daemon_extra = QUICK.replace("200ms", "45s")
        edge.write_config()
        assert edge.cli("config", "reload").returncode == 0
        assert re.search(r"^scan-drops +45 s ", edge.cli("status", "--verbose").stdout, re.MULTILINE)


def test_status_exits_as_the_last_renewal_ended_while_that_lies_in_the_drop(edge: Edge) -> None:
    chain, _ = edge.write_pair(edge.issue(), edge.root / "one")
    _, key = edge.write_pair(edge.issue(), edge.root / "other")
    with running(edge):
        assert edge.cli("deliver", "--wait", "example", chain, key).returncode == 3
        told = edge.cli("status")
        assert (told.returncode, "rotator status example\n" in told.stderr) == (3, True)
        for path in (edge.incoming / "example").iterdir():
            path.unlink()
        assert edge.cli("status").returncode == 0
        with unknown_directive(edge.nginx):
            assert edge.cli("deliver", "--wait", "example", *edge.write_pair(edge.issue())).returncode == 8
            assert edge.cli("status", "--json").returncode == 8
        wait_until(lambda: edge.cli("status").returncode == 0, 30, "what waited is live")


def test_deliver_that_waits_while_nginx_is_stopped_exits_8(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    with running(edge):
        edge.nginx.stop()
        done = edge.cli("deliver", "--wait", "example", chain, key)
    assert (done.returncode, "DEFERRED example" in done.stdout) == (8, True), done.stderr


def test_deliver_waits_for_no_daemon_that_is_not_there(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    done = edge.cli("deliver", "--wait", "example", chain, key)
    assert (done.returncode, "rotator swap example" in done.stderr) == (1, True)


def test_deliver_waits_only_so_long(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    with running(edge) as daemon:
        daemon.tell(signal.SIGSTOP)
        try:
            done = edge.cli("deliver", "--wait", "--within", "0.5", "example", chain, key)
        finally:
            daemon.tell(signal.SIGCONT)
    assert (done.returncode, "has not decided" in done.stderr) == (8, True)


def test_deliver_that_waits_is_told_when_somebody_else_has_delivered_meanwhile(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    with running(edge) as daemon:
        daemon.tell(signal.SIGSTOP)
        try:
            first = subprocess.Popen(
                edge.command("--json", "deliver", "--wait", "example", chain, key),
                stdout=subprocess.PIPE,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            drop = edge.incoming / "example" / "privkey.pem"
            wait_until(lambda: drop.exists() and drop.read_bytes() == key.read_bytes(), 20, "it is delivered")
            chain, key = edge.write_pair(edge.issue(), edge.root / "newer")
            assert edge.cli("deliver", "example", chain, key).returncode == 0
            told = json.loads(first.communicate(timeout=PATIENCE)[0])
        finally:
            daemon.tell(signal.SIGCONT)
    assert (first.returncode, told["error"]["code"]) == (8, "superseded")


# -- what tests look at


def _results(edge: Edge, site: str = "example") -> list[str]:
    return [entry.result for entry in edge.history.entries(site)]
