"""The commands as their user meets them, on a real nginx: what they print, how they exit, what they leave alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from rotator.cli.context import caller
from rotator.core.model import Provenance
from rotator.rotation.recover import recover
from rotator.storage.history import CLOSE_AT
from tests.support.authority import CA, pem
from tests.support.calls import call
from tests.support.edge import Edge
from tests.support.misbehave import unknown_directive
from tests.support.nginx_server import NginxServer
from tests.support.other_user import NOBODY, as_nobody, forked
from tests.support.pairs import pair_of
from tests.support.waiting import PATIENCE


@pytest.fixture
def edge(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> Edge:
    host = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1)
    host.start()
    return host


# -- swap


def test_swap_installs_a_renewal_and_exits_0(edge: Edge) -> None:
    new = edge.issue()
    chain, key = edge.write_pair(new)
    done = edge.cli("swap", "example", "--cert", chain, "--key", key)
    assert (done.returncode, done.stdout.split()[0]) == (0, "ROTATED"), done.stderr
    assert edge.shown() == {new.chain_der}


def test_swap_says_what_it_is_doing_while_it_waits(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    assert "reloading nginx for example" in edge.cli("swap", "example", "--cert", chain, "--key", key).stderr


def test_swap_takes_the_leaf_and_the_bundle_as_separate_files(edge: Edge, tmp_path: Path) -> None:
    new = edge.issue()
    leaf, bundle = tmp_path / "leaf.crt", tmp_path / "bundle.crt"
    leaf.write_bytes(pem(new.leaf))
    bundle.write_bytes(pem(*new.intermediates))
    _, key = edge.write_pair(new)
    assert edge.cli("swap", "example", "--cert", leaf, "--cert", bundle, "--key", key).returncode == 0
    assert edge.shown() == {new.chain_der}


def test_swap_takes_a_pkcs12_file_with_its_password_file(edge: Edge, tmp_path: Path) -> None:
    new = edge.issue()
    best = serialization.BestAvailableEncryption(b"open sesame")
    file, password = tmp_path / "all.pfx", tmp_path / "password"
    file.write_bytes(pkcs12.serialize_key_and_certificates(None, new.key, new.leaf, new.intermediates, best))
    password.write_bytes(b"open sesame\n")
    done = edge.cli("swap", "example", "--cert", file, "--password-file", password)
    assert done.returncode == 0, done.stdout + done.stderr
    assert edge.shown() == {new.chain_der}
    assert "sesame" not in done.stdout + done.stderr


def test_swap_of_a_certificate_without_its_key_exits_3_and_asks_for_it(edge: Edge) -> None:
    chain, _ = edge.write_pair(edge.issue())
    done = edge.cli("swap", "example", "--cert", chain)
    assert (done.returncode, "key-missing" in done.stdout) == (3, True)


def test_swap_completes_a_chain_from_an_earlier_generation_and_says_so(edge: Edge, tmp_path: Path) -> None:
    new = edge.issue()
    leaf = tmp_path / "leaf.crt"
    leaf.write_bytes(pem(new.leaf))
    _, key = edge.write_pair(new)
    done = edge.cli("swap", "example", "--cert", leaf, "--key", key)
    assert done.returncode == 0, done.stdout
    assert "it is taken from the stored generation 000001-" in done.stdout
    assert edge.shown() == {new.chain_der}


def test_swap_without_files_takes_what_lies_in_the_drop(edge: Edge) -> None:
    new = edge.issue()
    (edge.incoming / "example").mkdir()
    edge.write_pair(new, edge.incoming / "example")
    assert edge.cli("swap", "example").returncode == 0
    assert edge.shown() == {new.chain_der}


def test_what_was_delivered_is_swapped_in(edge: Edge) -> None:
    new = edge.issue()
    chain, key = edge.write_pair(new)
    assert edge.cli("deliver", "example", chain, key).returncode == 0
    assert edge.cli("swap", "example").returncode == 0
    assert edge.shown() == {new.chain_der}


def test_swap_of_an_incomplete_chain_exits_3_and_draws_it(edge: Edge, tmp_path: Path) -> None:
    new = edge.issue_by_another()
    leaf = tmp_path / "leaf.crt"
    leaf.write_bytes(pem(new.leaf))
    _, key = edge.write_pair(new)
    done = edge.cli("swap", "example", "--cert", leaf, "--key", key)
    assert done.returncode == 3
    assert "[?] CN=Test Intermediate, key id" in done.stdout
    assert f"nginx still serves {edge.live()}" in done.stdout
    assert edge.shown() == {edge.first["example"].chain_der}


def test_swap_while_nginx_is_broken_elsewhere_exits_8_and_quotes_it(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    with unknown_directive(edge.nginx) as word:
        done = edge.cli("swap", "example", "--cert", chain, "--key", key)
    assert (done.returncode, word in done.stdout) == (8, True)


def test_swap_that_is_rolled_back_exits_4(nginx: NginxServer, tmp_path: Path, issuing_ca: CA, root_ca: CA) -> None:
    from tests.support.nginx_server import ServerBlock, certificate_lines, write_pair

    edge = Edge(nginx, tmp_path / "edge", issuing_ca, root_ca, listeners=1, prove_within="0.5s")
    stale = nginx.reserve_port()
    edge.start()
    copies = write_pair(tmp_path / "copies", edge.first["example"])
    nginx.blocks.append(ServerBlock(edge.name("example"), (stale,), certificate_lines(copies)))
    nginx.write_config()
    nginx.reload_and_wait()
    edge.extra_listeners["example"] = (stale,)
    edge.write_config()
    chain, key = edge.write_pair(edge.issue())
    done = edge.cli("swap", "example", "--cert", chain, "--key", key)
    assert (done.returncode, done.stdout.startswith("ROLLED BACK example:")) == (4, True), done.stdout


def test_swap_dry_run_changes_nothing_at_all(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    before = _files(edge)
    done = edge.cli("swap", "example", "--cert", chain, "--key", key, "--dry-run")
    assert (done.returncode, done.stdout.startswith("WOULD ROTATE")) == (0, True)
    assert _files(edge) == before


def _files(edge: Edge) -> dict[Path, tuple[int, int]]:
    """Every file of the store and the include directory, with its inode and time of change."""
    every = [p for top in (edge.state, edge.include_dir) for p in top.rglob("*") if not p.is_dir()]
    every.remove(edge.state / "lock")  # held meanwhile
    return {p: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in every}


def test_swap_in_json_is_one_object_with_its_stages_in_seconds(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    answer = json.loads(edge.cli("swap", "example", "--cert", chain, "--key", key, "--json").stdout)
    assert (answer["schema_version"], answer["result"], answer["exit"]) == (1, "rotated", 0)
    assert 0.05 < answer["stages"]["prove"] < 10


def test_no_command_shows_a_byte_of_the_key(edge: Edge) -> None:
    new = edge.issue()
    chain, key = edge.write_pair(new)
    said = ""
    for words in (
        ("-v", "swap", "example", "--cert", chain, "--key", key),
        ("status", "example", "--json"),
        ("history", "example", "--json"),
        ("swap", "example", "--cert", key, "--key", chain),
        ("rollback", "example", "--json"),
    ):
        done = edge.cli(*words)
        said += done.stdout + done.stderr
    body = new.key_pem.decode().splitlines()[1:-1]
    assert not [line for line in body if line[:20] in said]


# -- the lock


def test_swap_beside_another_rotation_waits_and_then_exits_7_naming_it(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    with edge.locks.rotation("somebody", 1.0):
        done = edge.cli("swap", "example", "--cert", chain, "--key", key, "--wait", "0.2")
    assert done.returncode == 7
    assert f"pid {os.getpid()} (somebody" in done.stderr


def test_status_names_a_rotation_at_work_and_exits_as_without_it(edge: Edge) -> None:
    with edge.locks.rotation("somebody", 1.0) as lock:
        lock.begin(["example"])
        done, told = edge.cli("status"), json.loads(edge.cli("status", "--json").stdout)
    assert (done.returncode, told["lock"]["pid"], told["lock"]["sites"]) == (0, os.getpid(), ["example"])
    assert f"note: the lock of rotations is held by pid {os.getpid()} (somebody, since 20" in done.stderr


def test_status_exits_7_and_names_the_process_if_the_lock_is_held_by_no_rotation(edge: Edge) -> None:
    with (edge.state / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done, told = edge.cli("status", "example"), json.loads(edge.cli("status", "--json").stdout)
    assert (done.returncode, told["exit"], told["lock"]["pid"]) == (7, 7, None)
    assert f"held by pid {os.getpid()} (user " in done.stderr
    assert f"fuser -v {edge.state}/lock" in done.stderr


def test_status_exits_7_if_a_rotation_holds_the_lock_for_longer_than_rotations_take(edge: Edge) -> None:
    with edge.locks.rotation("somebody", 1.0):
        note = edge.state / "lock.json"
        note.write_text(json.dumps({**json.loads(note.read_text()), "since": "2026-01-01T00:00:00Z"}))
        done = edge.cli("status")
    assert (done.returncode, "warning: the lock of rotations is held by pid" in done.stderr) == (7, True)


@pytest.mark.root
def test_a_member_of_the_group_cannot_hold_the_lock_of_a_swap(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    for path in (edge.state, *edge.state.iterdir()):
        os.chown(path, 0, NOBODY)
    edge.state.chmod(0o2750)  # new files get the group, too

    def hold() -> list[str]:
        held = []
        for name in ("lock", "daemon.lock", "history.lock"):
            with contextlib.suppress(OSError), open(name) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                held.append(name)
        return held

    assert as_nobody(hold, cwd=edge.state) == []
    assert edge.cli("swap", "example", "--cert", chain, "--key", key, "--wait", "0.2").returncode == 0


# -- rollback, history, status


def test_rollback_puts_the_generation_before_back(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    edge.cli("swap", "example", "--cert", chain, "--key", key)
    done = edge.cli("rollback", "example")
    assert done.returncode == 0, done.stdout
    assert edge.shown() == {edge.first["example"].chain_der}


def test_rollback_twice_goes_there_and_back(edge: Edge) -> None:
    new = edge.issue()
    chain, key = edge.write_pair(new)
    edge.cli("swap", "example", "--cert", chain, "--key", key)
    edge.cli("rollback", "example")
    edge.cli("rollback", "example")
    assert edge.shown() == {new.chain_der}


def test_rollback_to_what_is_not_stored_exits_2_and_names_what_is(edge: Edge) -> None:
    done = edge.cli("rollback", "example", "--to", "000009-aaaaaaaaaaaa")
    assert (done.returncode, edge.live() in done.stderr) == (2, True)


def test_rollback_with_nothing_before_exits_2(edge: Edge) -> None:
    assert edge.cli("rollback", "example").returncode == 2


def test_after_a_rollback_status_says_who_holds_the_drop(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    edge.cli("swap", "example", "--cert", chain, "--key", key)
    edge.cli("rollback", "example")
    assert re.search(r"held by \S+ since 20\d\d-", edge.cli("status", "example").stdout)


def test_after_a_rollback_status_says_how_the_hold_ends(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    edge.cli("swap", "example", "--cert", chain, "--key", key)
    edge.cli("rollback", "example")
    assert "until the drop changes, or: rotator swap example" in edge.cli("status").stderr


def test_status_says_that_the_drop_has_changed_since_it_was_held(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    assert edge.cli("deliver", "example", chain, key).returncode == 0
    assert edge.cli("swap", "example").returncode == 0
    assert edge.cli("rollback", "example").returncode == 0
    assert "HELD" in edge.cli("status").stdout
    assert _hold_in_json(edge)["drop_changed_since"] is False
    chain, key = edge.write_pair(edge.issue())
    assert edge.cli("deliver", "example", chain, key).returncode == 0
    told = edge.cli("status", "example").stdout
    assert "and has changed since" in told
    assert "is held by" not in told
    overview = edge.cli("status").stdout
    assert ("HELD" in overview, "drop changed" in overview) == (False, True)
    assert _hold_in_json(edge)["drop_changed_since"] is True


def test_a_decision_of_a_newer_version_holds_the_drop_until_swap_ends_it(edge: Edge) -> None:
    file = edge.state / "sites/example/intent.json"
    file.write_text('{"schema_version": 9, "decisions": []}')
    chain, key = edge.write_pair(edge.issue())
    assert edge.cli("deliver", "example", chain, key).returncode == 0
    overview, told = edge.cli("status"), edge.cli("status", "example").stdout
    assert (overview.returncode, "HELD" in overview.stdout) == (8, True)
    assert "rotator swap example" in overview.stderr
    assert "intent.json was written by a newer rotator (schema_version 9; this one knows 1)" in told
    assert edge.cli("swap", "example").returncode == 0
    assert json.loads(file.read_text()) == json.loads(file.read_text()) | {"decisions": [], "hold": None}
    assert edge.cli("status").returncode == 0


def test_status_without_a_hold_compares_nothing(edge: Edge) -> None:
    assert _hold_in_json(edge)["drop_changed_since"] is None


def _hold_in_json(edge: Edge) -> dict[str, object]:
    (site,) = json.loads(edge.cli("status", "--json").stdout)["sites"]
    found: dict[str, object] = site["wanted"]
    return found


def test_swap_without_files_ends_the_hold(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    edge.cli("swap", "example", "--cert", chain, "--key", key)
    edge.cli("swap", "example")
    assert "held by" not in edge.cli("status", "example").stdout


def test_history_tells_each_outcome_with_its_user_and_generation(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    edge.cli("swap", "example", "--cert", chain, "--key", key)
    entries = json.loads(edge.cli("history", "example", "--json").stdout)["entries"]
    assert [e["reason"] for e in entries] == ["not-wired", "proved", "rotated"]
    assert entries[-1]["generation"] == edge.live()


def test_a_command_that_rotates_closes_a_long_history_and_the_way_back_is_still_known(edge: Edge) -> None:
    with (edge.state / "history.jsonl").open("ab") as f:
        f.write(b"-" * CLOSE_AT + b"\n")
    chain, key = edge.write_pair(edge.issue())
    edge.cli("swap", "example", "--cert", chain, "--key", key)
    assert sorted(path.name for path in edge.state.glob("history*.jsonl")) == ["history-000001.jsonl"]
    assert edge.cli("rollback", "example").returncode == 0
    assert edge.shown() == {edge.first["example"].chain_der}
    entries = json.loads(edge.cli("history", "example", "--json").stdout)["entries"]
    assert [(e["trigger"], e["reason"]) for e in entries[-2:]] == [("swap", "rotated"), ("rollback", "rotated")]
    assert len(entries) == 4


def test_status_exits_0_when_all_is_well(edge: Edge) -> None:
    done = edge.cli("status")
    assert (done.returncode, "everywhere" in done.stdout) == (0, True)


def test_status_exits_6_when_what_is_served_differs_from_the_disk(edge: Edge) -> None:
    edge.extra_listeners["example"] = (edge.nginx.reserve_port(),)
    edge.write_config()
    done = edge.cli("status", "example")
    assert (done.returncode, "connection refused" in done.stdout) == (6, True)


def test_status_says_that_files_in_the_drop_wait_where_no_daemon_runs(edge: Edge) -> None:
    note = "note: example: the drop holds files that wait for a decision, and no daemon is running"
    assert edge.cli("deliver", "example", *edge.write_pair(edge.issue())).returncode == 0
    assert (note in edge.cli("status").stderr, note in edge.cli("status", "example").stderr) == (True, True)
    assert edge.cli("swap", "example").returncode == 0
    assert note not in edge.cli("status").stderr


def test_status_exits_8_while_the_daemon_may_not_read_a_file_that_the_caller_may_read(edge: Edge) -> None:
    assert edge.cli("deliver", "example", *edge.write_pair(edge.issue())).returncode == 0
    decision = {"schema_version": 1, "digest": "00" * 32, "result": "deferred", "reason": "permission"}
    rest = {"policy": "", "next_try": "", "hold": None}
    (edge.state / "sites/example/intent.json").write_text(json.dumps(decision | rest))
    assert edge.cli("status").returncode == 8
    for path in (edge.incoming / "example").iterdir():
        path.unlink()
    assert edge.cli("status").returncode == 0


def test_status_in_json_has_the_three_facts(edge: Edge) -> None:
    (site,) = json.loads(edge.cli("status", "--json").stdout)["sites"]
    assert site["on_disk"]["generation"] == site["on_disk"]["verified"] == edge.live()
    assert [one["matches_disk"] for one in site["served"]] == [True]
    assert 0.9 < site["on_disk"]["share_of_life_left"] <= 1.0


def test_status_gives_no_advice_about_what_has_come_meanwhile(edge: Edge) -> None:
    edge.nginx.stop()
    with edge.locks.rotation("tester", 5.0) as lock:
        (done,) = recover([edge.wanted("example")], edge.ports, lock)
    assert "Start nginx" in done.hint
    advice = "Start nginx"
    assert advice in edge.cli("status", "example").stdout
    edge.nginx.start()
    shown = edge.cli("status", "example").stdout
    assert ("deferred" in shown, advice in shown) == (True, False)


def test_status_believes_the_listeners_when_the_pid_file_is_the_wrong_one(edge: Edge) -> None:
    edge.config_path.write_text(edge.config_path.read_text().replace(str(edge.nginx.pid_path), "/nowhere/nginx.pid"))
    done = edge.cli("status", "example")
    assert (done.returncode, "not running" in done.stdout, "everywhere" in done.stdout) == (0, False, True)


# -- beside others


def test_a_dry_run_keeps_out_of_the_way_of_a_rotation(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    with edge.locks.rotation("somebody", 1.0):
        staged = edge.store.stage("example", [pair_of(edge.issue())], Provenance())
        done = edge.cli("swap", "example", "--cert", chain, "--key", key, "--dry-run", "--wait", "0.1")
        assert (done.returncode, sorted(p.name for p in staged.path.iterdir())[0]) == (7, "fullchain.pem")


def test_an_order_by_hand_that_comes_to_nothing_ends_no_hold(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    edge.cli("swap", "example", "--cert", chain, "--key", key)
    edge.cli("rollback", "example")
    chain, key = edge.write_pair(edge.issue())
    edge.nginx.stop()
    assert edge.cli("swap", "example", "--cert", chain, "--key", key).returncode == 8
    assert "held by" in edge.cli("status", "example").stdout


def test_a_rotation_goes_on_when_nobody_can_be_told(edge: Edge) -> None:
    new = edge.issue()
    chain, key = edge.write_pair(new)
    with open("/dev/full", "w") as full:
        command = edge.command("swap", "example", "--cert", chain, "--key", key)
        there = Path(__file__).parents[2]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False, timeout=PATIENCE, cwd=there)
    assert (done.returncode, done.stdout.split()[0]) == (0, b"ROTATED")
    assert edge.shown() == {new.chain_der}


# -- bad input, always


def test_a_fifo_for_a_key_is_refused_at_once(edge: Edge, tmp_path: Path) -> None:
    chain, _ = edge.write_pair(edge.issue())
    os.mkfifo(tmp_path / "key.pem")
    done = edge.cli("swap", "example", "--cert", chain, "--key", tmp_path / "key.pem", timeout=PATIENCE)
    assert (done.returncode, "key.pem" in done.stderr, "Nothing was changed" in done.stderr) == (3, True, True)


def test_a_file_that_does_not_exist_is_named_with_what_nginx_goes_on_serving(edge: Edge) -> None:
    chain, _ = edge.write_pair(edge.issue())
    done = edge.cli("swap", "example", "--cert", chain, "--key", "/nowhere/key.pem")
    assert (done.returncode, "/nowhere/key.pem" in done.stderr, edge.live() in done.stderr) == (3, True, True)


def test_a_state_directory_that_does_not_exist_is_told_with_the_command_that_makes_it(edge: Edge) -> None:
    chain, key = edge.write_pair(edge.issue())
    shutil.rmtree(edge.state)
    done = edge.cli("swap", "example", "--cert", chain, "--key", key)
    assert (done.returncode, f"install -d -o rotator -g rotator -m 0750 {edge.state}" in done.stderr) == (1, True)


# -- root's command line beside an unprivileged store


@pytest.fixture
def foreign(nginx_binary: Path, issuing_ca: CA, root_ca: CA) -> Iterator[Edge]:
    """An edge host whose store belongs to another user, in a place that this user can reach."""
    top = Path(tempfile.mkdtemp(prefix="rotator-foreign-", dir="/tmp"))
    top.chmod(0o755)
    try:
        binary = Path(shutil.copy(nginx_binary, top / "nginx-binary"))  # its home may be closed to that user
        with NginxServer(binary, top / "nginx") as nginx:
            host = Edge(nginx, top / "edge", issuing_ca, root_ca, listeners=1)
            os.chown(host.state, NOBODY, NOBODY)
            first = host.first["example"] = host.issue()
            chain, key = host.write_pair(first)
            assert host.cli("swap", "example", "--cert", chain, "--key", key, "--first").returncode == 8
            nginx.start()
            assert host.cli("swap", "example").returncode == 0
            yield host
    finally:
        shutil.rmtree(top)


@pytest.mark.root
def test_run_as_root_everything_in_the_store_belongs_to_its_owner(foreign: Edge) -> None:
    chain, key = foreign.write_pair(foreign.issue())
    assert foreign.cli("swap", "example", "--cert", chain, "--key", key).returncode == 0
    assert foreign.cli("rollback", "example").returncode == 0
    owners = {(p.lstat().st_uid, p.lstat().st_gid) for p in [foreign.state, *foreign.state.rglob("*")]}
    assert owners == {(NOBODY, NOBODY)}


@pytest.mark.root
def test_run_as_root_the_history_names_who_called(foreign: Edge) -> None:
    entries = json.loads(foreign.cli("history", "example", "--json").stdout)["entries"]
    assert {entry["who"] for entry in entries} == {caller()}


@pytest.mark.root
def test_run_as_root_the_include_and_the_copies_belong_to_root(foreign: Edge) -> None:
    assert {p.lstat().st_uid for p in [foreign.include_dir, *foreign.include_dir.rglob("*")]} == {0}


@pytest.mark.root
def test_run_as_root_a_renewal_whose_key_only_root_may_read_is_installed(foreign: Edge) -> None:
    new = foreign.issue()
    chain, key = foreign.write_pair(new)
    key.chmod(0o400)
    assert foreign.cli("swap", "example", "--cert", chain, "--key", key).returncode == 0
    assert foreign.shown() == {new.chain_der}


@pytest.mark.root
def test_run_as_root_no_link_in_the_store_makes_root_write_elsewhere(foreign: Edge, tmp_path: Path) -> None:
    target = tmp_path / "roots-own"
    target.write_text("untouched")
    (foreign.state / "history.jsonl").unlink()
    (foreign.state / "history.jsonl").symlink_to(target)
    chain, key = foreign.write_pair(foreign.issue())
    foreign.cli("swap", "example", "--cert", chain, "--key", key)
    assert target.read_text() == "untouched"


@pytest.mark.root
def test_run_as_root_the_owner_of_the_store_can_go_on_with_it(foreign: Edge) -> None:
    _, status = os.waitpid(forked(lambda: _stage_as_nobody(foreign)), 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _stage_as_nobody(edge: Edge) -> None:
    from rotator.storage.generations import Store

    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        store = Store(edge.state)
        staged = store.stage("example", [pair_of(edge.issue())], Provenance())
        staged.flush()
        store.mark_verified("example", staged.commit().name)
        store.prune("example", 1, frozenset())
    except BaseException:
        os._exit(1)


@pytest.mark.root
def test_an_ordinary_user_beside_somebody_elses_store_is_told_what_to_do(foreign: Edge) -> None:
    chain, key = foreign.write_pair(foreign.issue())
    key.chmod(0o644)
    words = ("--config", foreign.config_path, "swap", "example", "--cert", chain, "--key", key)
    call("--config", foreign.config_path, "swap", "--help")  # so that what this user may not read is imported by now
    done = as_nobody(lambda: call(*words), cwd=foreign.root, uid=12345, gid=12345)
    assert (done.status, "Run it as root or as the owner" in done.stderr) == (1, True)
