"""A daemon that is a user without any right, and root's programs: what it can do with them, and what nobody can.

The programs run as root behind their sockets, with what the shipped units leave root of its capabilities.
"""

from __future__ import annotations

import grp
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import Provenance
from rotator.privsep import apply as privileged
from rotator.privsep.apply import Applied, Request, copies_path, parse_applied
from rotator.privsep.connection import Connection
from rotator.privsep.socket_client import APPLY_UNIT, SOCKETS, TEST_UNIT
from tests.support.authority import CA, Issued
from tests.support.edge import Edge
from tests.support.misbehave import changed_zone
from tests.support.nginx_server import NginxServer
from tests.support.other_user import as_nobody, forked
from tests.support.pairs import pair_of
from tests.support.root_programs import RootPrograms, root_programs
from tests.support.running import Running, running
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.contract]

UID = 64811
"""rotator's user: one that owns nothing else on this host."""
ROOT = Path(__file__).parents[2]
QUICK = 'scan_interval = "200ms"\nsettle = "700ms"\n'


@pytest.fixture
def edge(nginx_binary: Path, issuing_ca: CA, root_ca: CA) -> Iterator[Edge]:
    """An edge host whose nginx is root's and whose store is rotator's, with a first pair live and proved."""
    top = Path(tempfile.mkdtemp(prefix="rotator-separated-", dir="/tmp"))
    top.chmod(0o755)
    try:
        binary = Path(shutil.copy(nginx_binary, top / "nginx-binary"))  # its home may be closed to that user
        with NginxServer(binary, top / "nginx") as nginx:
            host = Edge(nginx, top / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=QUICK, apply="socket")
            for path in (host.state, host.incoming):
                os.chown(path, UID, UID)
            first = host.first["example"] = host.issue()
            chain, key = host.write_pair(first)
            assert host.cli("swap", "example", "--cert", chain, "--key", key, "--first").returncode == 8
            nginx.start()
            assert host.cli("swap", "example").returncode == 0
            (host.incoming / "example").mkdir()
            os.chown(host.incoming / "example", UID, UID)
            yield host
            print(nginx.words())
    finally:
        shutil.rmtree(top)


@pytest.fixture
def programs(edge: Edge) -> Iterator[RootPrograms]:
    with root_programs(edge.root, UID, edge.config_path) as both:
        yield both


@contextmanager
def daemon_of_rotator(edge: Edge, *, ready: bool = True) -> Iterator[Running]:
    words = [
        sys.executable,
        "-m",
        "tests.support.as_user",
        str(UID),
        str(UID),
        "--config",
        str(edge.config_path),
        "run",
    ]
    with running(edge, command=words, env={"NO_COLOR": "1"}, ready=ready) as daemon:
        yield daemon


def as_rotator(edge: Edge, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command of rotator's own user."""
    told = ["--config", str(edge.config_path), *map(str, words)]
    return subprocess.run(
        [sys.executable, "-m", "tests.support.as_user", str(UID), str(UID), *told],
        capture_output=True, text=True, timeout=240, check=False, cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )  # fmt: skip


def drop(edge: Edge, new: Issued) -> None:
    for path in edge.write_pair(new, edge.incoming / "example"):
        path.chmod(0o640)
        os.chown(path, 0, UID)


def is_served(edge: Edge, new: Issued) -> None:
    wait_until(lambda: edge.shown() == {new.chain_der}, 20, "the renewal is served")


# -- the same as with every right


@pytest.mark.each_nginx
def test_a_drop_is_put_live_and_proved_by_a_daemon_without_any_right(edge: Edge, programs: RootPrograms) -> None:
    new = edge.issue()
    with daemon_of_rotator(edge) as daemon:
        drop(edge, new)
        is_served(edge, new)
        daemon.wait_for("rotated example")
        assert daemon.end() == 0
    assert edge.store.verified("example") == edge.live()
    assert programs.connected(APPLY_UNIT) == [UID]  # one connection, held from the start
    assert {p.lstat().st_uid for p in [edge.include_dir, *edge.include_dir.rglob("*")]} == {0}
    assert {p.lstat().st_uid for p in [edge.state, *edge.state.rglob("*")]} == {UID}


def test_commands_of_rotators_own_user_go_the_same_way(edge: Edge, programs: RootPrograms) -> None:
    new = edge.issue()
    drop(edge, new)
    done = as_rotator(edge, "swap", "example")
    assert (done.returncode, edge.shown()) == (0, {new.chain_der}), done.stderr
    done = as_rotator(edge, "rollback", "example")
    assert (done.returncode, edge.shown()) == (0, {edge.first["example"].chain_der}), done.stderr


def test_a_key_group_needs_the_line_in_the_unit_that_the_message_names(edge: Edge, programs: RootPrograms) -> None:
    group = grp.getgrnam("games")
    edge.config_path.write_text(edge.config_path.read_text().replace("[nginx]", '[nginx]\nkey_group = "games"', 1))
    new = edge.issue()
    drop(edge, new)
    refused = as_rotator(edge, "swap", "example")
    assert (refused.returncode, edge.shown()) == (8, {edge.first["example"].chain_der})
    assert "SupplementaryGroups=games" in refused.stderr + refused.stdout
    programs.stop(APPLY_UNIT)
    programs.groups = (group.gr_gid,)
    programs.start(APPLY_UNIT)
    done = as_rotator(edge, "swap", "example")
    assert (done.returncode, edge.shown()) == (0, {new.chain_der}), done.stderr
    keys = [path.stat() for path in edge.include_dir.glob(f"pairs/example/{edge.live()}/*privkey.pem")]
    assert [(key.st_gid, key.st_mode & 0o777) for key in keys] == [(group.gr_gid, 0o640)]


@pytest.mark.each_nginx
def test_a_reload_that_nginx_refuses_is_told_in_nginxs_words_although_its_log_is_closed_to_us(
    edge: Edge, programs: RootPrograms
) -> None:
    edge.nginx.error_log_path.chmod(0o600)
    new = edge.issue()
    with daemon_of_rotator(edge) as daemon:
        with changed_zone(edge.nginx) as zone:
            drop(edge, new)
            daemon.wait_for("deferred example", zone)
            assert edge.shown() == {edge.first["example"].chain_der}
        is_served(edge, new)


@pytest.mark.each_nginx
def test_with_nginx_stopped_its_own_test_is_made_by_root_at_the_start(edge: Edge, programs: RootPrograms) -> None:
    edge.nginx.stop()
    copy = Path(copies_path(str(edge.include_dir), "example", edge.live()))
    copy.rename(copy.with_name("away"))
    with daemon_of_rotator(edge) as daemon:
        daemon.wait_for("deferred example", "nginx-down")
        copy.with_name("away").rename(copy)
        edge.nginx.start()
        wait_until(lambda: daemon.said("well example"), 20)
    told = edge.history.entries("example")[-1]
    assert programs.connected(TEST_UNIT)[:1] == [UID]
    assert any(str(copy) in word for word in told.nginx_words)


# -- the connection


def test_the_connection_is_held_over_rotations_and_a_change_of_the_configuration(
    edge: Edge, programs: RootPrograms
) -> None:
    with daemon_of_rotator(edge) as daemon:
        for reloads in (1, 2):
            new = edge.issue()
            drop(edge, new)
            is_served(edge, new)
            edge.daemon_extra = f'settle = "{reloads}s"\n'
            edge.write_config()
            daemon.tell(signal.SIGHUP)
            wait_until(lambda n=reloads: sum("reloaded:" in line for line in daemon.lines) == n, 20)  # type: ignore[misc]
        assert daemon.end() == 0
    assert programs.connected(APPLY_UNIT) == [UID]


def test_a_site_that_root_adds_to_the_configuration_needs_no_other_connection(
    edge: Edge, programs: RootPrograms
) -> None:
    with daemon_of_rotator(edge) as daemon:
        with edge.config_path.open("a") as f:
            f.write(f'[[site]]\nname = "other"\nnames = ["o.test"]\nlisteners = ["{edge.addresses[0]}"]\n')
        daemon.tell(signal.SIGHUP)
        daemon.wait_for("reloaded:")
        assert held(edge, programs, Request({"other": "000001-0123456789ab"}, hup=False)).error == "io-error"
    assert programs.connected(APPLY_UNIT) == [UID, UID]


def test_a_program_that_is_killed_while_its_connection_is_held_costs_nothing(
    edge: Edge, programs: RootPrograms
) -> None:
    new = edge.issue()
    with daemon_of_rotator(edge):
        programs.kill(APPLY_UNIT)
        drop(edge, new)
        is_served(edge, new)
    assert programs.connected(APPLY_UNIT) == [UID, UID]


def test_the_program_ends_with_the_daemon_and_the_next_daemon_gets_the_one_that_is_installed_then(
    edge: Edge, programs: RootPrograms
) -> None:
    with daemon_of_rotator(edge) as daemon:
        assert len(programs.running(APPLY_UNIT)) == 1
        assert daemon.end() == 0
        wait_until(lambda: not programs.running(APPLY_UNIT), 10, "root's program ends")
    with programs.program.open("a") as f:
        f.write("\n")
    new = edge.issue()
    with daemon_of_rotator(edge):
        drop(edge, new)
        is_served(edge, new)
    assert programs.connected(APPLY_UNIT) == [UID, UID]


# -- when root's program does not come


def test_where_this_user_may_not_connect_it_is_deferred_and_goes_on_when_it_may(
    edge: Edge, programs: RootPrograms
) -> None:
    socket = programs.sockets / SOCKETS[APPLY_UNIT]
    os.chown(socket, 0, 0)
    new = edge.issue()
    drop(edge, new)
    with daemon_of_rotator(edge) as daemon:
        daemon.wait_for("deferred example", "apply-denied", f"systemctl cat {APPLY_UNIT}.socket")
        assert edge.shown() == {edge.first["example"].chain_der}
        os.chown(socket, UID, UID)
        is_served(edge, new)


def test_without_the_unit_a_start_says_so_and_a_renewal_is_deferred_until_it_is_there(
    edge: Edge, programs: RootPrograms
) -> None:
    programs.stop(APPLY_UNIT)
    new = edge.issue()
    with daemon_of_rotator(edge) as daemon:
        daemon.wait_for("apply-unavailable", "not installed, or not started")
        assert daemon.said("ready:", "no renewal can go live")
        drop(edge, new)
        daemon.wait_for("deferred example", "apply-unit", f"systemctl enable --now {APPLY_UNIT}.socket")
        programs.start(APPLY_UNIT)
        is_served(edge, new)


def version(programs: RootPrograms, number: int) -> None:
    """Installs root's program of another release."""
    text = programs.program.read_text()
    programs.program.write_text(text.replace(f"\nVERSION = {privileged.VERSION}\n", f"\nVERSION = {number}\n"))


@pytest.mark.parametrize(
    ("number", "hint"),
    [(privileged.VERSION - 1, "install -D -m 0755"), (privileged.VERSION + 1, "systemctl restart rotator")],
    ids=["an older program", "a newer program"],
)
def test_a_program_of_another_version_is_named_before_anything_is_changed(
    edge: Edge, programs: RootPrograms, number: int, hint: str
) -> None:
    installed = programs.program.read_text()
    version(programs, number)
    before = tree(edge.include_dir)
    new = edge.issue()
    with daemon_of_rotator(edge) as daemon:
        daemon.wait_for("apply-unavailable", "is older than")
        drop(edge, new)
        daemon.wait_for("deferred example", "apply-version", hint)
        assert (edge.shown(), tree(edge.include_dir)) == ({edge.first["example"].chain_der}, before)
        assert "is older than" in edge.cli("status").stderr
        programs.program.write_text(installed)
        is_served(edge, new)


def test_a_program_of_the_release_before_sockets_is_named_before_anything_is_changed(
    edge: Edge, programs: RootPrograms
) -> None:
    programs.program.write_text("import argparse; argparse.ArgumentParser().parse_known_args(); raise SystemExit(1)\n")
    drop(edge, edge.issue())
    done = as_rotator(edge, "swap", "example")
    assert (done.returncode, "of an older release" in done.stdout) == (8, True), done.stdout + done.stderr
    assert edge.shown() == {edge.first["example"].chain_der}


GIVES_NO_ANSWER = """
import runpy, sys
sys.argv = ["rotator-apply", *sys.argv[1:]]
program = runpy.run_path({path!r}, run_name="program")
real = program["main"].__globals__["encode"]
def encode(message):
    if type(message).__name__ == "Applied": sys.exit(1)
    return real(message)
program["main"].__globals__["encode"] = encode
sys.exit(program["main"]())
"""


def test_an_include_that_was_changed_without_an_answer_is_no_failure_that_changed_nothing(
    edge: Edge, programs: RootPrograms
) -> None:
    new = edge.issue()
    drop(edge, new)
    installed = programs.program.with_name("installed")
    installed.write_text(programs.program.read_text())
    programs.program.write_text(GIVES_NO_ANSWER.format(path=str(installed)))
    done = as_rotator(edge, "swap", "example")
    assert (done.returncode, "before it gave an answer" in done.stdout) == (5, True), done.stdout + done.stderr
    programs.program.write_text(installed.read_text())
    with daemon_of_rotator(edge):
        assert edge.shown() == {new.chain_der}
        wait_until(lambda: edge.store.verified("example") == edge.live(), 10)


def test_while_root_s_program_works_long_the_daemon_is_alive_and_ends_soon_when_it_is_told(
    edge: Edge, programs: RootPrograms
) -> None:
    with daemon_of_rotator(edge) as daemon, edge.nginx.halted():
        drop(edge, edge.issue())
        daemon.wait_for("progress: reloading nginx")
        assert daemon.end(timeout=8) == 0
        wait_until(lambda: not programs.running(APPLY_UNIT), 10, "root's program does not wait on for an answer")


# -- what rotator's user cannot do


REFUSED: dict[str, Callable[[Edge], object]] = {
    "write nginx's include": lambda edge: (edge.include_dir / "example.conf").write_text("x"),
    "make another include": lambda edge: (edge.include_dir / "other.conf").write_text("x"),
    "replace the include": lambda edge: (edge.include_dir / "example.conf").unlink(),
    "read root's copy of the key": lambda edge: next(edge.include_dir.rglob("privkey.pem")).read_bytes(),
    "write root's copy of the chain": lambda edge: next(edge.include_dir.rglob("fullchain.pem")).write_bytes(b"x"),
    "move root's copies": lambda edge: (edge.include_dir / "pairs").rename(edge.include_dir / "gone"),
    "replace the link": lambda edge: (edge.include_dir / "example").unlink(),
    "signal nginx's master": lambda edge: os.kill(edge.nginx.master_pid, signal.SIGHUP),
    "hold the lock of root's program": lambda edge: (edge.include_dir / ".lock").open(),
    "replace the lock of root's program": lambda edge: (edge.include_dir / ".lock").unlink(),
    "replace root's socket": lambda edge: (edge.sockets / SOCKETS[APPLY_UNIT]).unlink(),
    "change root's configuration": lambda edge: edge.config_path.write_text("x"),
    "read nginx's error log": lambda edge: edge.nginx.error_log_path.read_text(),
}


def test_rotators_user_may_do_nothing_of_what_is_roots(edge: Edge, programs: RootPrograms) -> None:
    edge.nginx.error_log_path.chmod(0o600)
    master = edge.nginx.master_pid  # the pid file is for everybody to read

    def attempts() -> dict[str, str]:
        done = dict.fromkeys(REFUSED, "done")
        for name, act in REFUSED.items():
            try:
                act(edge)
            except PermissionError:
                done[name] = "refused"
        return done

    assert as_nobody(attempts, cwd=edge.root, uid=UID, gid=UID) == dict.fromkeys(REFUSED, "refused")
    assert edge.nginx.master_pid == master


def test_no_other_user_may_connect(edge: Edge, programs: RootPrograms) -> None:
    def connect() -> str:
        try:
            Connection(programs.sockets / SOCKETS[APPLY_UNIT], APPLY_UNIT).greet(lambda: None)
        except RotatorError as e:
            return str(e.code)
        return "greeted"

    assert as_nobody(connect, cwd=edge.root) == "apply-denied"


# -- a hostile store: whoever has become rotator's user asks root for whatever he likes


def held(edge: Edge, programs: RootPrograms, request: Request) -> Applied:
    """The answer to a request of rotator's user, on a connection of its own."""

    def ask() -> Applied:
        connection = Connection(programs.sockets / SOCKETS[APPLY_UNIT], APPLY_UNIT)
        try:
            return connection.ask(request, parse_applied, lambda: None)
        finally:
            connection.close()

    return as_nobody(ask, cwd=edge.root, uid=UID, gid=UID)


def wanted(generation: str, site: str = "example") -> Request:
    return Request({site: generation}, hup=False)


def stored(edge: Edge, new: Issued) -> Path:
    """Another generation in the store, made by its owner."""

    def stage() -> str:
        staged = edge.store.stage("example", [pair_of(new)], Provenance())
        staged.flush()
        return str(staged.commit().name)

    return edge.state / "sites/example/generations" / as_nobody(stage, cwd=edge.root, uid=UID, gid=UID)


def as_owner(edge: Edge, work: Callable[[], object]) -> None:
    def quietly() -> None:
        work()

    as_nobody(quietly, cwd=edge.root, uid=UID, gid=UID)


SECRET = b"-----BEGIN CERTIFICATE-----\nanother service's secret\n-----END CERTIFICATE-----\n"


def _a_link_for(name: str) -> Callable[[Edge, Path, Path], None]:
    def plant(_edge: Edge, generation: Path, secret: Path) -> None:
        (generation / name).unlink()
        (generation / name).symlink_to(secret)

    return plant


def _a_fifo(_edge: Edge, generation: Path, _secret: Path) -> None:
    (generation / "privkey.pem").unlink()
    os.mkfifo(generation / "privkey.pem")


def _a_directory_link(_edge: Edge, generation: Path, secret: Path) -> None:
    generation.rename(generation.with_name("away"))
    generation.symlink_to(secret.parent)


def _a_site_link(edge: Edge, _generation: Path, secret: Path) -> None:
    sites = edge.state / "sites"
    (sites / "example").rename(sites / "away")
    (sites / "example").symlink_to(secret.parent)


def _a_key_in_the_chain(_edge: Edge, generation: Path, _secret: Path) -> None:
    with (generation / "fullchain.pem").open("ab") as f:
        f.write((generation / "privkey.pem").read_bytes())


def _much_too_large(_edge: Edge, generation: Path, _secret: Path) -> None:
    with (generation / "fullchain.pem").open("ab") as f:
        f.truncate(1 << 40)


def _nginx_lines_for_a_chain(_edge: Edge, generation: Path, _secret: Path) -> None:
    (generation / "fullchain.pem").write_text("access_log /etc/cron.d/x;\n")


HOSTILE: dict[str, Callable[[Edge, Path, Path], None]] = {
    "a link for the chain": _a_link_for("fullchain.pem"),
    "a link for the key": _a_link_for("privkey.pem"),
    "a FIFO for the key": _a_fifo,
    "a link for the generation": _a_directory_link,
    "a link for the site": _a_site_link,
    "a key in the public file": _a_key_in_the_chain,
    "a file without end": _much_too_large,
    "nginx's directives for a chain": _nginx_lines_for_a_chain,
}


@pytest.mark.parametrize("plant", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_store_gets_root_to_copy_nothing(
    edge: Edge, programs: RootPrograms, plant: Callable[[Edge, Path, Path], None]
) -> None:
    secret = edge.root / "roots-own" / "fullchain.pem"
    secret.parent.mkdir(mode=0o700)
    secret.write_bytes(SECRET)
    generation, live = stored(edge, edge.issue()), edge.live()
    before = tree(edge.include_dir)
    as_owner(edge, lambda: plant(edge, generation, secret))
    for word in (privileged.PREPARE, privileged.APPLY):
        assert held(edge, programs, replace(wanted(generation.name), word=word)).error != ""
    assert (edge.live(), tree(edge.include_dir)) == (live, before)


def test_a_hard_link_to_a_file_of_roots_is_not_copied(edge: Edge, programs: RootPrograms) -> None:
    secret = edge.root / "roots-own.pem"
    secret.write_bytes(SECRET)
    generation, before = stored(edge, edge.issue()), tree(edge.include_dir)
    (generation / "fullchain.pem").unlink()
    os.link(secret, generation / "fullchain.pem")  # by root: the kernel's fs.protected_hardlinks forbids it to others
    assert held(edge, programs, wanted(generation.name)).error == "store-unsafe"
    assert tree(edge.include_dir) == before


@pytest.mark.parametrize("site", ["../example", "example/../../x", "pairs", "other", "", ".", "example\n", "EXAMPLE"])
def test_a_foreign_name_is_refused(edge: Edge, programs: RootPrograms, site: str) -> None:
    before = tree(edge.include_dir)
    assert held(edge, programs, wanted(edge.live(), site)).error == "bad-request"
    assert tree(edge.include_dir) == before


def test_directories_that_are_swapped_under_roots_feet_get_nothing(edge: Edge, programs: RootPrograms) -> None:
    """The generation is now a directory of rotator's, now a link to one of root's, as fast as it can be swapped."""
    roots = edge.root / "roots-own"
    roots.mkdir(mode=0o700)
    for name in ("fullchain.pem", "privkey.pem", "meta.json"):
        (roots / name).write_bytes(SECRET)
    generation = stored(edge, edge.issue())
    link, away, stop = generation.with_name("link"), generation.with_name("away"), edge.state / "stop"

    def swap() -> None:
        os.setgroups([])
        os.setgid(UID)
        os.setuid(UID)
        os.symlink(roots, link)
        while not stop.exists():
            os.rename(generation, away)
            os.rename(link, generation)
            os.rename(generation, link)
            os.rename(away, generation)

    child = forked(swap)
    try:
        outcomes = []
        for _ in range(40):
            outcomes.append(held(edge, programs, wanted(generation.name)).error)
            for copy in edge.include_dir.rglob("*.pem"):
                assert b"secret" not in copy.read_bytes()
    finally:
        stop.touch()
        os.waitpid(child, 0)
    assert set(outcomes) <= {"", "io-error", "store-unsafe", "not-a-file"}


def tree(top: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below: owner and content, or where a link leads. The directories of copies are made before a copy."""
    return {
        str(p.relative_to(top)): (p.lstat().st_uid, os.readlink(p).encode() if p.is_symlink() else p.read_bytes())
        for p in sorted(top.rglob("*"))
        if p.is_symlink() or p.is_file()
    }
