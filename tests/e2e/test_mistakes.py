"""What newcomers do wrong, one by one: each is answered with an exit status, what is wrong, and what to do."""

from __future__ import annotations

import ast
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from rotator import bootstrap
from rotator.__main__ import OLDEST
from rotator.core.errors import Exit, RotatorError
from tests.support.authority import CA, Issued, pem
from tests.support.calls import call
from tests.support.edge import Edge
from tests.support.nginx_fixtures import require_nginx
from tests.support.nginx_server import NginxServer
from tests.support.other_user import NOBODY, as_nobody
from tests.support.running import running

ROOT = Path(__file__).parents[2]


@dataclass
class Desk:
    """A newcomer's desk: a host that works, a good renewal and its files; and a socket of somebody else."""

    edge: Edge
    top: Path
    renewal: Issued
    stranger: socket.socket

    def __post_init__(self) -> None:
        self.chain, self.key = self.edge.write_pair(self.renewal, self.top / "renewal")

    def file(self, name: str, data: bytes) -> Path:
        path = self.top / name
        path.touch(0o600)
        path.write_bytes(data)
        return path

    def edit(self, old: object, new: object) -> None:
        """Changes rotator's configuration."""
        text = self.edge.config_path.read_text()
        assert str(old) in text
        self.edge.config_path.write_text(text.replace(str(old), str(new)))

    def swap(self, chain: Path | None = None, key: Path | None = None) -> list[str | Path]:
        return ["swap", "example", "--cert", chain or self.chain, "--key", key or self.key]

    def swap_of(self, issued: Issued) -> list[str | Path]:
        return self.swap(*self.edge.write_pair(issued, self.top / "other"))

    @property
    def address(self) -> str:
        return self.edge.addresses[0]


@pytest.fixture
def desk(issuing_ca: CA, root_ca: CA) -> Iterator[Desk]:
    """Not in pytest's directory, which it keeps to itself: other users look at this one too."""
    with tempfile.TemporaryDirectory(prefix="rotator-test-") as directory:
        top = Path(directory)
        top.chmod(0o755)
        with NginxServer(require_nginx("mainline"), top / "nginx") as nginx:
            edge = Edge(nginx, top / "edge", issuing_ca, root_ca, listeners=1)
            edge.start()
            with socket.socket() as stranger:
                yield Desk(edge, top, edge.issue(), stranger)


Deed = Callable[[Desk], list[str | Path]]
"""Makes the mistake; returns what is called then."""
CASES: dict[str, tuple[Deed, Exit, tuple[str, ...]]] = {}


def mistake(status: Exit, *words: str) -> Callable[[Deed], Deed]:
    """A mistake, the exit status that answers it, and the words that tell what to do; {} is the desk's directory."""

    def note(deed: Deed) -> Deed:
        CASES[deed.__name__.replace("_", " ")] = (deed, status, words)
        return deed

    return note


# -- the configuration


@mistake(Exit.CONFIG, "rotator.toml does not exist", "copy of conf.example.toml", "--config FILE")
def no_configuration(desk: Desk) -> list[str | Path]:
    desk.edge.config_path.unlink()
    return ["status"]


@mistake(Exit.CONFIG, "is a directory, not a file", "Name the file in it: --config {}/rotator.toml")
def a_directory_as_configuration(desk: Desk) -> list[str | Path]:
    return ["--config", desk.top, "status"]


@mistake(Exit.CONFIG, "rotator.toml:", "site.listners: unknown key", 'did you mean "listeners"')
def a_misspelt_key(desk: Desk) -> list[str | Path]:
    desk.edit("\nlisteners", "\nlistners")
    return ["status"]


@mistake(Exit.CONFIG, '"example" has no names', 'write names = ["www.example.org"]')
def no_names(desk: Desk) -> list[str | Path]:
    desk.edit('names = ["example.example.test"]\n', "")
    return ["config", "check"]


@mistake(Exit.CONFIG, '"example" is also the name of the site at line', "give one of them another name")
def two_sites_with_one_name(desk: Desk) -> list[str | Path]:
    text = desk.edge.config_path.read_text()
    desk.edit(text, text + text[text.index("\n[[site]]") :])
    return ["config", "check"]


@mistake(Exit.CONFIG, '"443" is not an address with a port', '"127.0.0.1:443"')
def a_listener_without_an_address(desk: Desk) -> list[str | Path]:
    desk.edit(f'"{desk.address}"', '"443"')
    return ["config", "check"]


@mistake(Exit.CONFIG, "rotator.toml is UTF-16", "iconv -f utf-16 -t utf-8")
def a_configuration_that_windows_saved(desk: Desk) -> list[str | Path]:
    desk.edge.config_path.write_bytes(desk.edge.config_path.read_text().encode("utf-16"))
    return ["status"]


@mistake(
    Exit.CONFIG, "roots: /nowhere/roots.pem cannot be read: No such file", "Install ca-certificates, or set `roots`"
)
def roots_that_are_not_there(desk: Desk) -> list[str | Path]:
    desk.edit(desk.edge.roots, "/nowhere/roots.pem")
    return desk.swap()


@mistake(Exit.USAGE, "has no site 'exmaple'", "Did you mean example?")
def a_misspelt_site(desk: Desk) -> list[str | Path]:
    return ["swap", "exmaple"]


# -- the files


@mistake(Exit.REJECTED, "{}/fullchian.pem does not exist", "Nothing was changed", "ls -la {}")
def a_wrong_path(desk: Desk) -> list[str | Path]:
    return desk.swap(desk.top / "fullchian.pem")


@mistake(Exit.REJECTED, "{}/renewal is a directory", "Name the files in it")
def a_directory_for_a_file(desk: Desk) -> list[str | Path]:
    return desk.swap(desk.top / "renewal")


@mistake(Exit.DONE, "ROTATED example")
def key_and_certificate_swapped_on_the_command_line(desk: Desk) -> list[str | Path]:
    return desk.swap(desk.key, desk.chain)  # what a file is, is seen from what is in it


@mistake(Exit.REJECTED, "has no private key in these files", "Add the private key that it was ordered with")
def a_certificate_without_its_key(desk: Desk) -> list[str | Path]:
    return ["swap", "example", "--cert", desk.chain]


@mistake(Exit.REJECTED, "has no private key in these files", "Add the private key that it was ordered with")
def the_certificate_for_the_key(desk: Desk) -> list[str | Path]:
    return desk.swap(key=desk.chain)


@mistake(Exit.DONE, "ROTATED example")
def line_ends_of_windows(desk: Desk) -> list[str | Path]:
    return desk.swap(desk.file("crlf.pem", desk.renewal.chain_pem.replace(b"\n", b"\r\n")))


@mistake(Exit.DONE, "bom.pem line 1 begins with a byte order mark", "ROTATED example")
def a_byte_order_mark(desk: Desk) -> list[str | Path]:
    return desk.swap(desk.file("bom.pem", b"\xef\xbb\xbf" + desk.renewal.chain_pem))


@mistake(Exit.REJECTED, "utf16.pem is UTF-16", "iconv -f utf-16")
def a_certificate_in_utf_16(desk: Desk) -> list[str | Path]:
    return desk.swap(desk.file("utf16.pem", desk.renewal.chain_pem.decode().encode("utf-16")))


@mistake(Exit.REJECTED, "renewed.zip is a zip archive", "deliver the files inside: unzip {}/renewed.zip")
def the_archive_as_the_ca_sent_it(desk: Desk) -> list[str | Path]:
    archive = desk.top / "renewed.zip"
    with zipfile.ZipFile(archive, "w") as parts:
        parts.write(desk.chain)
        parts.write(desk.key)
    return desk.swap(archive)


@mistake(Exit.REJECTED, "its issuer is missing (CN=Test Intermediate", "is a root", "Add the CA's bundle")
def the_root_for_the_intermediate(desk: Desk) -> list[str | Path]:
    new = desk.edge.issue_by_another()
    both = pem(new.leaf) + pem(desk.edge.root_ca.cert)
    return desk.swap(desk.file("both.pem", both), desk.file("both.key", new.key_pem))


@mistake(Exit.REJECTED, "does not cover example.example.test; it covers other.example.test", "Order the certificate")
def the_certificate_of_another_site(desk: Desk) -> list[str | Path]:
    return desk.swap_of(desk.edge.issuer.issue("other.example.test"))


@mistake(Exit.REJECTED, "REJECT expired", "Have the certificate issued again", "nginx still serves 000001-")
def the_certificate_of_last_year(desk: Desk) -> list[str | Path]:
    begin = datetime.now(UTC) - timedelta(days=200)
    return desk.swap_of(desk.edge.issuer.issue("example.example.test", not_before=begin, days=100))


@mistake(Exit.REJECTED, "its issuer is missing (CN=Test Intermediate", "Who breaks: Chrome", "Add the CA's bundle")
def the_leaf_alone(desk: Desk) -> list[str | Path]:
    new = desk.edge.issue_by_another()
    return desk.swap(desk.file("leaf.pem", pem(new.leaf)), desk.file("leaf.key", new.key_pem))


@mistake(Exit.REJECTED, "is not the key of CN=example.example.test", "Find the key that the certificate was ordered")
def the_key_of_another_certificate(desk: Desk) -> list[str | Path]:
    return desk.swap(key=desk.file("other.key", desk.edge.issue().key_pem))


@mistake(Exit.REJECTED, "the private key is encrypted", "openssl pkey -in")
def an_encrypted_key(desk: Desk) -> list[str | Path]:
    secret = desk.renewal.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    return desk.swap(key=desk.file("encrypted.key", secret))


# -- the host


@mistake(Exit.DEFERRED, "nginx does not serve it from there yet", "put this line into the server block", "include {}/")
def not_wired_into_nginx_yet(desk: Desk) -> list[str | Path]:
    desk.edit(desk.edge.include_dir, desk.top / "elsewhere")
    return [*desk.swap(), "--first"]


@mistake(Exit.DEFERRED, "/nowhere/nginx cannot be run", 'command = ["/usr/sbin/nginx"]')
def no_nginx(desk: Desk) -> list[str | Path]:
    desk.edit(desk.edge.nginx.binary, "/nowhere/nginx")
    return desk.swap()


@mistake(Exit.DEFERRED, "nginx is not running", "systemctl start nginx; or correct `pid_file` under [nginx]")
def nginx_s_pid_file_elsewhere(desk: Desk) -> list[str | Path]:
    desk.edit(desk.edge.nginx.pid_path, desk.top / "nginx.pid")
    return desk.swap()


@mistake(Exit.DEFERRED, "nginx is not running", "Start nginx")
def nginx_stopped(desk: Desk) -> list[str | Path]:
    desk.edge.nginx.stop()
    return desk.swap()


@mistake(Exit.DEFERRED, "127.0.0.1:1 connection refused", "before anything was changed", "the site's `listeners`")
def a_port_where_nobody_listens(desk: Desk) -> list[str | Path]:
    desk.edit(desk.address, "127.0.0.1:1")
    return desk.swap()


@mistake(
    Exit.DEFERRED, "connected, but no TLS handshake within", "before anything was changed", "the site's `listeners`"
)
def a_port_where_somebody_else_listens(desk: Desk) -> list[str | Path]:
    desk.stranger.bind(("127.0.0.1", 0))
    desk.stranger.listen()
    desk.edit(desk.address, f"127.0.0.1:{desk.stranger.getsockname()[1]}")
    return desk.swap()


@mistake(Exit.FAILURE, "state: No such file or directory", "install -d -o rotator -g rotator -m 0750 {}/edge/state")
def no_state_directory(desk: Desk) -> list[str | Path]:
    shutil.rmtree(desk.edge.state)
    return desk.swap()


@mistake(Exit.FAILURE, "state: No such file or directory", "install -d -o rotator -g rotator -m 0750 {}/edge/state")
def no_state_directory_to_show(desk: Desk) -> list[str | Path]:
    shutil.rmtree(desk.edge.state)
    return ["status"]


@mistake(Exit.FAILURE, "state: No such file or directory", "install -d -o rotator -g rotator -m 0750 {}/edge/state")
def no_state_directory_with_a_history(desk: Desk) -> list[str | Path]:
    shutil.rmtree(desk.edge.state)
    return ["history", "example"]


@mistake(
    Exit.FAILURE,
    "incoming, the directory of the drops, does not exist",
    "mkdir -m 3770 {}/edge",
)
def no_incoming_directory(desk: Desk) -> list[str | Path]:
    desk.edge.incoming.rmdir()
    return ["deliver", "example", desk.chain, desk.key]


@mistake(
    Exit.FAILURE, "no daemon is running that would put them live", "systemctl start rotator, or: rotator swap example"
)
def waiting_for_a_daemon_that_does_not_run(desk: Desk) -> list[str | Path]:
    return ["deliver", "--wait", "example", desk.chain, desk.key]


@pytest.mark.parametrize("name", CASES)
def test_it_is_answered_with_what_is_wrong_and_what_to_do_and_hurts_no_client(name: str, desk: Desk) -> None:
    deed, status, words = CASES[name]
    done = desk.edge.cli(*deed(desk))
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    assert [word for word in words if word.replace("{}", str(desk.top)) not in said] == [], said
    assert "Traceback" not in said
    if desk.edge.nginx.running():
        served = desk.renewal if status is Exit.DONE else desk.edge.first["example"]
        assert desk.edge.shown() == {served.chain_der}


# -- other users


def _is_told_to_nobody(desk: Desk, words: list[str], status: Exit, told: tuple[str, ...]) -> None:
    """Whether a user without any right is answered with this status and these words."""

    def as_they_see_it() -> tuple[int, str]:
        called = call("--config", desk.edge.config_path, *words)
        return called.status, called.stderr

    answered, said = as_nobody(as_they_see_it, cwd=Path("/"))
    assert (answered, [word for word in told if word not in said]) == (status, []), said


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["swap", "example"], Exit.FAILURE, ("state/lock: Permission denied", "Run it as root or as the owner")),
        (["status"], Exit.FAILURE, ("Permission denied", "Run it as root or as the owner of")),
        (["history", "example"], Exit.FAILURE, ("Permission denied", "Run it as root or as the owner of")),
        (["run"], Exit.FAILURE, ("belongs to user root, but this is", "systemctl start rotator", "runuser -u rotator")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_called_by_a_user_without_rights_it_says_who_may(
    words: list[str], status: Exit, told: tuple[str, ...], desk: Desk
) -> None:
    for module in ("swap", "status", "history", "run", "rotation"):
        import_module(f"rotator.cli.{module}")  # before the user changes: Python's own files may be out of reach
    import_module("rotator.daemon.service")
    _is_told_to_nobody(desk, words, status, told)


@pytest.mark.root
@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["swap", "example"], Exit.REJECTED, ("incoming/example may not be read by this user", "setfacl -m u:")),
        (["config", "reload"], Exit.FAILURE, ("this user may not read", "As root: systemctl reload rotator")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_called_where_every_directory_is_closed_it_says_which(
    words: list[str], status: Exit, told: tuple[str, ...], desk: Desk
) -> None:
    for module in ("swap", "rotation", "config_reload"):
        import_module(f"rotator.cli.{module}")
    closed = desk.top / "closed"
    closed.mkdir()
    shutil.move(desk.edge.incoming, closed / "incoming")
    desk.edit(desk.edge.incoming, closed / "incoming")
    closed.chmod(0o700)
    desk.edge.state.chmod(0o700)
    _is_told_to_nobody(desk, words, status, told)


@pytest.mark.root
def test_roots_that_rotator_s_user_may_not_read_are_told_with_that_user_s_name(desk: Desk) -> None:
    desk.edge.roots.chmod(0o600)
    one = desk.edge.config.sites[0]

    def as_they_see_it() -> tuple[str, str]:
        with pytest.raises(RotatorError) as told:
            bootstrap.load_anchors(one)
        return told.value.message, told.value.hint

    bootstrap.forget_anchors()
    message, hint = as_nobody(as_they_see_it, cwd=Path("/"))
    assert message == f"roots: {desk.edge.roots} may not be read by this user."
    assert f"Let user {pwd.getpwuid(NOBODY).pw_name} read it: chmod a+r {desk.edge.roots}" in hint
    assert "/etc/rotator/roots.pem" in hint


@pytest.mark.root
def test_a_key_that_this_user_may_not_read_is_named_with_the_command_that_opens_it(desk: Desk) -> None:
    import_module("rotator.cli.swap")

    def as_they_see_it() -> tuple[int, str]:
        called = call("--config", desk.edge.config_path, *desk.swap())
        return called.status, called.stderr

    answered, said = as_nobody(as_they_see_it, cwd=Path("/"))
    assert answered == Exit.REJECTED
    assert f"{desk.key} may not be read by this user" in said
    assert "chmod g+r" in said


# -- the daemon


def test_a_metrics_port_that_is_taken_is_told_and_the_rotations_go_on(desk: Desk) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        desk.edit(desk.edge.metrics, f"127.0.0.1:{port}")
        with running(desk.edge) as daemon:
            daemon.wait_for("metrics-down", "Address already in use", f"ss -ltnp 'sport = :{port}'", "listen under")
            done = desk.edge.cli("deliver", "--wait", "example", desk.chain, desk.key)
            assert (done.returncode, daemon.end(signal.SIGTERM)) == (0, 0), done.stderr


def test_a_second_daemon_is_told_which_one_runs(desk: Desk) -> None:
    with running(desk.edge) as daemon:
        done = desk.edge.cli("run")
        assert (done.returncode, f"pid {daemon.process.pid}" in done.stderr) == (Exit.BUSY, True)


# -- Python

_PRETEND = "import runpy, sys; sys.version_info = {version}; sys.argv[0] = 'rotator'; {before}"
_RUN = "runpy.run_module('rotator', run_name='__main__', alter_sys=True)"


def _as_python(version: tuple[int, int], before: str = "pass") -> subprocess.CompletedProcess[str]:
    code = f"{_PRETEND.format(version=(*version, 0, 'final', 0), before=before)}; {_RUN}"
    return subprocess.run(
        [sys.executable, "-c", code, "--version"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def test_an_old_python_is_told_which_one_is_needed() -> None:
    done = _as_python((3, 10))
    assert done.returncode == Exit.FAILURE
    assert "rotator needs Python 3.11 or newer" in done.stderr
    assert "is 3.10" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_python_without_the_packages_is_told_how_to_install_them() -> None:
    done = _as_python(OLDEST, "sys.modules['click'] = None")
    assert done.returncode == Exit.FAILURE
    assert "not installed: click" in done.stderr
    assert "pip install" in done.stderr


def test_the_oldest_python_is_the_one_that_pip_demands() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">={}.{}".format(*OLDEST)


def test_the_module_that_old_pythons_read_has_nothing_that_they_cannot() -> None:
    ast.parse((ROOT / "rotator" / "__main__.py").read_text(), feature_version=(3, 7))
