"""A daemon that is a user without any right, and root's oneshots: what it can do with them, and what nobody can.

The oneshots run as root in processes of their own, with what the shipped units leave root of its capabilities.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rotator import bootstrap
from rotator.core.errors import RotatorError
from rotator.core.model import Provenance
from rotator.privsep.apply import RESULT, copies_path, parse_applied
from rotator.privsep.unit_client import APPLY_UNIT, TEST_UNIT, UnitClient
from tests.support.authority import CA, Issued
from tests.support.edge import Edge
from tests.support.misbehave import changed_zone
from tests.support.nginx_server import NginxServer
from tests.support.other_user import as_nobody, forked
from tests.support.pairs import pair_of
from tests.support.running import Running, running
from tests.support.service_manager import ServiceManager, environment, service_manager
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.contract]

UID = 64811
"""rotator's user: one that owns nothing else on this host."""
QUICK = 'scan_interval = "200ms"\nsettle = "700ms"\n'


@pytest.fixture
def edge(nginx_binary: Path, issuing_ca: CA, root_ca: CA) -> Iterator[Edge]:
    """An edge host whose nginx is root's and whose store is rotator's, with a first pair live and proved."""
    top = Path(tempfile.mkdtemp(prefix="rotator-separated-", dir="/tmp"))
    top.chmod(0o755)
    try:
        binary = Path(shutil.copy(nginx_binary, top / "nginx-binary"))  # its home may be closed to that user
        with NginxServer(binary, top / "nginx") as nginx:
            host = Edge(nginx, top / "edge", issuing_ca, root_ca, listeners=1, daemon_extra=QUICK, apply="systemd")
            for path in (host.state, host.incoming):
                os.chown(path, UID, UID)
            os.chown(host.results, 0, UID)
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
def manager(edge: Edge) -> Iterator[ServiceManager]:
    with service_manager(edge.root, UID, edge.config_path) as standing_in:
        yield standing_in


@contextmanager
def daemon_of_rotator(edge: Edge, manager: ServiceManager, *, ready: bool = True) -> Iterator[Running]:
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
    with running(edge, command=words, env=environment(manager), ready=ready) as daemon:
        yield daemon


def as_rotator(edge: Edge, manager: ServiceManager, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command of rotator's own user."""
    told = ["--config", str(edge.config_path), *map(str, words)]
    return subprocess.run(
        [sys.executable, "-m", "tests.support.as_user", str(UID), str(UID), *told],
        capture_output=True, text=True, timeout=240, check=False, cwd="/", env=environment(manager),
    )  # fmt: skip


def drop(edge: Edge, new: Issued) -> None:
    for path in edge.write_pair(new, edge.incoming / "example"):
        path.chmod(0o640)
        os.chown(path, 0, UID)


def is_served(edge: Edge, new: Issued) -> None:
    wait_until(lambda: edge.shown() == {new.chain_der}, 20, "the renewal is served")


# -- the same as with every right


@pytest.mark.each_nginx
def test_a_drop_is_put_live_and_proved_by_a_daemon_without_any_right(edge: Edge, manager: ServiceManager) -> None:
    new = edge.issue()
    with daemon_of_rotator(edge, manager) as daemon:
        drop(edge, new)
        is_served(edge, new)
        daemon.wait_for("rotated example")
        assert daemon.end() == 0
    assert edge.store.verified("example") == edge.live()
    assert manager.started == [f"{UID}: --no-ask-password start {APPLY_UNIT}"]
    assert {p.lstat().st_uid for p in [edge.include_dir, *edge.include_dir.rglob("*")]} == {0}
    assert {p.lstat().st_uid for p in [edge.state, *edge.state.rglob("*")]} == {UID}


def test_commands_of_rotators_own_user_go_the_same_way(edge: Edge, manager: ServiceManager) -> None:
    new = edge.issue()
    drop(edge, new)
    done = as_rotator(edge, manager, "swap", "example")
    assert (done.returncode, edge.shown()) == (0, {new.chain_der}), done.stderr
    done = as_rotator(edge, manager, "rollback", "example")
    assert (done.returncode, edge.shown()) == (0, {edge.first["example"].chain_der}), done.stderr


@pytest.mark.each_nginx
def test_a_reload_that_nginx_refuses_is_told_in_nginxs_words_although_its_log_is_closed_to_us(
    edge: Edge, manager: ServiceManager
) -> None:
    edge.nginx.error_log_path.chmod(0o600)
    new = edge.issue()
    with daemon_of_rotator(edge, manager) as daemon:
        with changed_zone(edge.nginx) as zone:
            drop(edge, new)
            daemon.wait_for("deferred example", zone)
            assert edge.shown() == {edge.first["example"].chain_der}
        is_served(edge, new)


@pytest.mark.each_nginx
def test_with_nginx_stopped_its_own_test_is_made_by_root_at_the_start(edge: Edge, manager: ServiceManager) -> None:
    edge.nginx.stop()
    copy = Path(copies_path(str(edge.include_dir), "example", edge.live()))
    copy.rename(copy.with_name("away"))
    with daemon_of_rotator(edge, manager) as daemon:
        daemon.wait_for("deferred example", "nginx-down")
        copy.with_name("away").rename(copy)
        edge.nginx.start()
        wait_until(lambda: daemon.said("well example"), 20)
    told = edge.history.entries("example")[-1]
    assert manager.started[0] == f"{UID}: --no-ask-password start {TEST_UNIT}"
    assert any(str(copy) in word for word in told.nginx_words)


# -- when the oneshot does not come


def test_without_the_right_to_start_the_unit_it_is_deferred_with_what_allows_it(
    edge: Edge, manager: ServiceManager
) -> None:
    manager.allowed.clear()
    drop(edge, edge.issue())
    with daemon_of_rotator(edge, manager) as daemon:
        daemon.wait_for("deferred example", "apply-denied", "50-rotator.rules")
    assert edge.shown() == {edge.first["example"].chain_der}


def test_without_the_unit_it_is_deferred_with_what_to_install_and_goes_on_when_it_is_there(
    edge: Edge, manager: ServiceManager
) -> None:
    manager.absent.add(APPLY_UNIT)
    new = edge.issue()
    drop(edge, new)
    with daemon_of_rotator(edge, manager) as daemon:
        daemon.wait_for("deferred example", "apply-unit", "not found")
        manager.absent.clear()
        is_served(edge, new)


def test_without_systemd_it_is_deferred_and_the_other_way_is_named(edge: Edge, manager: ServiceManager) -> None:
    (manager.bin / "systemctl").unlink()
    manager.bin.joinpath("nothing").touch()
    done = asked_with_path(edge, str(manager.bin))
    assert done == (
        "apply-unit",
        'Without systemd, and with an nginx that runs as this user: set apply = "direct" under [nginx]',
    )


def asked_with_path(edge: Edge, path: str) -> tuple[str, str]:
    """What asking root comes to, with this PATH."""

    def ask() -> tuple[str, str]:
        os.environ["PATH"] = path
        try:
            UnitClient(bootstrap.make_setup(edge.config)).test()
        except RotatorError as e:
            return e.code, e.hint
        return "", ""

    return as_nobody(ask, cwd=edge.root, uid=UID, gid=UID)


def test_without_a_place_for_answers_it_is_told_what_makes_one(edge: Edge, manager: ServiceManager) -> None:
    edge.results.rmdir()
    drop(edge, edge.issue())
    done = as_rotator(edge, manager, "swap", "example")
    told = f"{edge.results} is missing" in done.stdout, "systemd-tmpfiles --create" in done.stdout
    assert (done.returncode, told, manager.started) == (8, (True, True), []), done.stdout


def test_an_answer_to_somebody_elses_request_is_not_taken_for_ours(edge: Edge, manager: ServiceManager) -> None:
    new = edge.issue()
    drop(edge, new)
    manager.answers_late = 1  # a start that only waited for another one's end
    done = as_rotator(edge, manager, "swap", "example")
    assert (done.returncode, edge.shown(), len(manager.started)) == (0, {new.chain_der}, 2), done.stderr


def test_a_unit_that_never_answers_is_given_up(edge: Edge, manager: ServiceManager) -> None:
    drop(edge, edge.issue())
    manager.answers_late = 10
    done = as_rotator(edge, manager, "swap", "example")
    assert (done.returncode, "left no answer" in done.stdout, len(manager.started)) == (8, True, 3), done.stdout
    assert edge.shown() == {edge.first["example"].chain_der}
    assert not list(edge.state.glob("*request*"))


DIES_BEFORE_ITS_ANSWER = """
import sys
from rotator.privsep import apply
real = apply._write_new
def write_new(name, *rest, **more):
    if "result" in name: sys.exit(1)
    real(name, *rest, **more)
apply._write_new = write_new
sys.exit(apply.main(sys.argv[1:]))
"""


def test_an_include_that_was_changed_without_an_answer_is_no_failure_that_changed_nothing(
    edge: Edge, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = edge.issue()
    drop(edge, new)
    real = manager.command

    def dies_before_its_answer(unit: str) -> list[str]:
        words = real(unit)
        at = words.index("-I")
        return [*words[:at], "-c", DIES_BEFORE_ITS_ANSWER, *words[at + 3 :]]

    manager.command = dies_before_its_answer  # type: ignore[method-assign]
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    done = as_rotator(edge, manager, "swap", "example")
    assert (done.returncode, "gave no answer" in done.stdout) == (5, True), done.stdout + done.stderr
    manager.command = real  # type: ignore[method-assign]
    with daemon_of_rotator(edge, manager):
        assert edge.shown() == {new.chain_der}
        wait_until(lambda: edge.store.verified("example") == edge.live(), 10)


def test_while_the_oneshot_works_long_the_daemon_is_alive_and_ends_soon_when_it_is_told(
    edge: Edge, manager: ServiceManager
) -> None:
    with daemon_of_rotator(edge, manager) as daemon, edge.nginx.halted():
        drop(edge, edge.issue())
        daemon.wait_for("progress: reloading nginx")
        assert daemon.end(timeout=8) == 0


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
    "write an answer": lambda edge: (edge.results / RESULT).write_text("x"),
    "remove the answers": lambda edge: edge.results.rmdir(),
    "change root's configuration": lambda edge: edge.config_path.write_text("x"),
    "read nginx's error log": lambda edge: edge.nginx.error_log_path.read_text(),
}


def test_rotators_user_may_do_nothing_of_what_is_roots(edge: Edge) -> None:
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


@pytest.mark.parametrize(
    "words", ["start nginx.service", "stop rotator-apply.service", "restart rotator-apply.service"]
)
def test_the_rule_allows_nothing_but_the_start_of_the_two_oneshots(
    edge: Edge, manager: ServiceManager, words: str
) -> None:
    done = subprocess.run(
        [manager.bin / "systemctl", "--no-ask-password", *words.split()],
        user=UID, group=UID, extra_groups=[], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Access denied" in done.stderr) == (1, True)


# -- a hostile store: whoever has become rotator's user asks root for whatever he likes


def ask(edge: Edge, manager: ServiceManager, request: bytes) -> int:
    """Leaves any request and has the oneshot started, as rotator's user. Returns systemctl's status."""

    def leave() -> None:
        path = edge.state / "request.json"
        path.unlink(missing_ok=True)
        path.write_bytes(request)

    as_nobody(leave, cwd=edge.root, uid=UID, gid=UID)
    return subprocess.run(
        [manager.bin / "systemctl", "--no-ask-password", "start", APPLY_UNIT],
        user=UID, group=UID, extra_groups=[], capture_output=True, check=False,
    ).returncode  # fmt: skip


def wanted(generation: str, site: str = "example", number: int = 0) -> bytes:
    return json.dumps({"id": f"{number:032x}", "generations": {site: generation}, "hup": False}).encode()


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
    edge: Edge, manager: ServiceManager, plant: Callable[[Edge, Path, Path], None]
) -> None:
    secret = edge.root / "roots-own" / "fullchain.pem"
    secret.parent.mkdir(mode=0o700)
    secret.write_bytes(SECRET)
    generation, live = stored(edge, edge.issue()), edge.live()
    before = tree(edge.include_dir)
    as_owner(edge, lambda: plant(edge, generation, secret))
    assert ask(edge, manager, wanted(generation.name)) == 0
    assert parse_applied((edge.results / RESULT).read_bytes()).error != ""
    assert (edge.live(), tree(edge.include_dir)) == (live, before)


def test_a_hard_link_to_a_file_of_roots_is_not_copied(edge: Edge, manager: ServiceManager) -> None:
    secret = edge.root / "roots-own.pem"
    secret.write_bytes(SECRET)
    generation, before = stored(edge, edge.issue()), tree(edge.include_dir)
    (generation / "fullchain.pem").unlink()
    os.link(secret, generation / "fullchain.pem")  # by root: the kernel's fs.protected_hardlinks forbids it to others
    assert ask(edge, manager, wanted(generation.name)) == 0
    assert (parse_applied((edge.results / RESULT).read_bytes()).error, tree(edge.include_dir)) == (
        "store-unsafe",
        before,
    )


@pytest.mark.parametrize("site", ["../example", "example/../../x", "pairs", "other", "", ".", "example\n", "EXAMPLE"])
def test_a_foreign_name_is_refused(edge: Edge, manager: ServiceManager, site: str) -> None:
    before = tree(edge.include_dir)
    assert ask(edge, manager, wanted(edge.live(), site)) == 0
    assert (parse_applied((edge.results / RESULT).read_bytes()).error, tree(edge.include_dir)) == (
        "bad-request",
        before,
    )


@pytest.mark.parametrize(
    "request_", [b"", b"{}", b"x" * 70_000, b'{"id": "x", "generations": {}, "hup": false, "m": 1}']
)
def test_what_is_no_request_gets_no_answer(edge: Edge, manager: ServiceManager, request_: bytes) -> None:
    (edge.results / RESULT).unlink(missing_ok=True)
    assert ask(edge, manager, request_) == 1
    assert not (edge.results / RESULT).exists()


def test_a_request_that_is_a_link_is_not_read(edge: Edge, manager: ServiceManager) -> None:
    secret = edge.root / "roots-request"
    secret.write_bytes(wanted(edge.live()))
    (edge.results / RESULT).unlink(missing_ok=True)
    as_owner(edge, lambda: (edge.state / "request.json").symlink_to(secret))
    done = subprocess.run(manager.command(APPLY_UNIT), capture_output=True, text=True, check=False)
    assert (done.returncode, "not a regular file" in done.stderr) == (1, True)


def test_directories_that_are_swapped_under_roots_feet_get_nothing(edge: Edge, manager: ServiceManager) -> None:
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
        for number in range(1, 41):
            (edge.state / "request.json").unlink(missing_ok=True)
            (edge.state / "request.json").write_bytes(wanted(generation.name, number=number))
            os.chown(edge.state / "request.json", UID, UID)
            done = subprocess.run(manager.command(APPLY_UNIT), capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
            outcomes.append(parse_applied((edge.results / RESULT).read_bytes()).error)
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
