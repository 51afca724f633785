"""Root's program on one connection: what it answers, whom it refuses, what it bounds, and when it ends."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rotator.core.model import Provenance
from rotator.privsep import apply as module
from rotator.privsep.apply import (
    APPLY,
    MAX_REQUEST,
    PREPARE,
    TEST,
    VERSION,
    Applied,
    Request,
    Setup,
    VersionError,
    carry_out,
    copies_path,
    encode,
    parse_applied,
    parse_request,
    parse_tested,
    read_live,
)
from rotator.storage.generations import Store
from tests.support.authority import CA
from tests.support.other_user import NOBODY, as_nobody
from tests.support.pairs import pair_of
from tests.support.powercut import StandIn, standing_in
from tests.support.waiting import wait_until

GREETING = {"version": VERSION}


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA.root().intermediate()


class Peer:
    """The caller's end of a connection.

    Args:
        sock: a connected socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        self.sock = sock
        self._lines = sock.makefile("rb")

    def line(self) -> bytes:
        """The next line; empty at the end of the connection."""
        return self._lines.readline()

    def greeting(self) -> object:
        return json.loads(self.line())

    def ask(self, message: Request | bytes) -> Applied:
        self.sock.sendall(message if isinstance(message, bytes) else encode(message))
        return parse_applied(self.line())

    def is_over(self) -> bool:
        """Whether the other side has closed the connection; it may have left some of what was sent unread."""
        try:
            return self.line() == b""
        except ConnectionResetError:
            return True

    def send_until_it_is_over(self, data: bytes, pause: float = 0.0) -> None:
        """Sends the same again and again."""
        while True:
            try:
                self.sock.sendall(data)
            except BrokenPipeError:
                return
            time.sleep(pause)

    def close(self) -> None:
        self._lines.close()
        self.sock.close()


class Host:
    """A store, root's configuration, and programs that serve connections.

    Args:
        root: a directory.
        ca: issues the pairs.
    """

    def __init__(self, root: Path, ca: CA) -> None:
        self.root, self.state, self.etc, self.config = root, root / "state", root / "etc", root / "rotator.toml"
        self.ca = ca
        self.state.mkdir(mode=0o750)
        self.configure("one")
        self.stack = ExitStack()

    def configure(self, *sites: str, top: str = "") -> None:
        self.config.write_text(
            f'{top}state_dir = "{self.state}"\n[nginx]\ninclude_dir = "{self.etc}/"\npid_file = "{self.root}/pid"\n'
            'command = ["/bin/sh", "-c", "echo 2026 [emerg] 1#1: no >&2; exit 1"]\nerror_log = ""\n'
            + "".join(f'[[site]]\nname = "{site}"\n' for site in sites)
        )
        self.config.chmod(0o644)

    @property
    def setup(self) -> Setup:
        return module.read_setup(str(self.config))

    def store(self, site: str = "one") -> str:
        """Stores a new pair; the generation's name."""
        staged = Store(self.state).stage(site, [pair_of(self.ca.issue(f"{site}.test"))], Provenance())
        with standing_in(StandIn()):
            staged.flush()
            return staged.commit().name

    def live(self, site: str = "one") -> str:
        return read_live(str(self.etc), site).generation

    def copies(self, site: str = "one") -> list[str]:
        return sorted(os.listdir(self.etc / "pairs" / site))

    def start(self, *words: str, code: str = "") -> tuple[Peer, subprocess.Popen[bytes]]:
        """The program as a process of its own, and the connection to it.

        Args:
            words: more arguments.
            code: Python that runs before it, in the same process.
        """
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-S", str(module.__file__)]
        if code:
            command = [sys.executable, "-c", code, str(module.__file__), *words]
            words = ()
        with theirs:
            process = self.stack.enter_context(
                subprocess.Popen(
                    [*command, f"--config={self.config}", *words], stdin=theirs.fileno(), stderr=-1, cwd="/"
                )
            )
        self.stack.callback(process.kill)
        peer = Peer(ours)
        self.stack.callback(peer.close)
        return peer, process

    @contextmanager
    def served(self, *, test: bool = False) -> Iterator[Peer]:
        """A connection that is served in a thread of this process."""
        ours, theirs = socket.socketpair()

        def serve() -> None:
            with theirs:
                module.serve(theirs, module.Configuration(str(self.config)), test=test)

        thread = threading.Thread(target=serve)
        thread.start()
        peer = Peer(ours)
        try:
            yield peer
        finally:
            peer.close()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def host(tmp_path: Path, ca: CA) -> Iterator[Host]:
    host = Host(tmp_path, ca)
    with host.stack:
        yield host


# -- requests and answers


def test_the_program_greets_with_its_version_and_carries_out_a_request_without_any_package(host: Host) -> None:
    peer, _ = host.start()
    name = host.store()
    assert (peer.greeting(), peer.ask(Request({"one": name}, hup=False))) == (
        GREETING,
        Applied({"one": name}, {"one": ""}),
    )
    assert host.live() == name


def test_one_connection_serves_request_after_request(host: Host) -> None:
    names = [host.store() for _ in range(3)]
    with host.served() as peer:
        peer.line()
        assert [peer.ask(Request({"one": name}, hup=False)).live for name in names] == [{"one": n} for n in names]


def test_what_was_prepared_is_copied_and_not_named(host: Host) -> None:
    name = host.store()
    with host.served() as peer:
        peer.line()
        assert peer.ask(Request({"one": name}, word=PREPARE)) == Applied({"one": ""}, {"one": ""})
    copy = Path(copies_path(str(host.etc), "one", name))
    assert (host.live(), sorted(os.listdir(copy))) == ("", ["fullchain.pem", "privkey.pem"])


def test_after_a_prepare_the_step_only_renames(host: Host) -> None:
    name = host.store()
    carry_out(host.setup, Request({"one": name}, word=PREPARE))
    key = Path(copies_path(str(host.etc), "one", name)) / "privkey.pem"
    before = key.stat().st_ino
    created: list[object] = []

    class Creates(StandIn):
        def before(self, call: str, args: tuple[object, ...], named: dict[str, object]) -> None:
            if call == "open" and isinstance(args[1], int) and args[1] & os.O_EXCL:
                created.append(args[0])

    with standing_in(Creates()):
        assert carry_out(host.setup, Request({"one": name}, hup=False)).live == {"one": name}
    assert (key.stat().st_ino, created) == (before, [".one.conf.new"])


def test_of_what_was_prepared_and_never_named_only_the_last_stays(host: Host) -> None:
    names = [host.store() for _ in range(6)]
    for name in names[:2]:
        carry_out(host.setup, Request({"one": name}, hup=False))
    for name in names[2:]:
        carry_out(host.setup, Request({"one": name}, word=PREPARE))
    assert (host.copies(), host.live()) == ([*names[:2], names[-1]], names[1])


def test_also_before_the_first_pair_is_named_only_one_prepared_copy_stays(host: Host) -> None:
    names = [host.store() for _ in range(3)]
    for name in names:
        carry_out(host.setup, Request({"one": name}, word=PREPARE))
    assert host.copies() == [names[-1]]


@pytest.mark.parametrize("word", [APPLY, PREPARE])
def test_a_request_that_is_refused_does_not_end_the_connection(host: Host, word: str) -> None:
    name = host.store()
    with host.served() as peer:
        peer.line()
        assert peer.ask(Request({"two": name}, word=word, hup=False)).error == "bad-request"
        assert peer.ask(Request({"one": name}, word=word, hup=False)).error == ""


def test_the_test_of_the_whole_configuration_answers_with_what_nginx_says(host: Host) -> None:
    peer, _ = host.start("--test")
    peer.line()
    peer.sock.sendall(encode(Request(word=TEST)))
    assert parse_tested(peer.line()) == module.Tested(False, ("2026 [emerg] 1#1: no",))


@pytest.mark.parametrize(("test", "word"), [(True, APPLY), (True, PREPARE), (False, TEST)])
def test_each_of_the_two_programs_answers_its_own_requests_only(host: Host, test: bool, word: str) -> None:
    name = host.store()
    with host.served(test=test) as peer:
        peer.line()
        peer.sock.sendall(encode(Request({"one": name}, hup=False, word=word)))
        parse = parse_tested if test else parse_applied
        assert (parse(peer.line()).error, host.live()) == ("bad-request", "")


def test_a_directory_that_root_makes_is_open_to_nginx_from_the_first_moment(host: Host) -> None:
    code = "import os, runpy, sys; os.umask(0o077); os.fchmod = lambda *_: sys.exit(1); " + RUN
    peer, process = host.start(code=code)
    peer.line()
    peer.sock.sendall(encode(Request({"one": host.store()}, hup=False)))
    process.wait(30)
    assert stat.S_IMODE(host.etc.stat().st_mode) == 0o755


RUN = "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


# -- the configuration of the moment


def test_a_site_that_is_added_is_served_on_the_same_connection(host: Host) -> None:
    name = host.store("two")
    with host.served() as peer:
        peer.line()
        assert peer.ask(Request({"two": name}, hup=False)).error == "bad-request"
        host.configure("one", "two")
        assert peer.ask(Request({"two": name}, hup=False)).live == {"two": name}


def settled(host: Host) -> None:
    """Lets the last change of the configuration be an old one."""
    wait_until(lambda: time.time() - host.config.stat().st_ctime > module.SETTLED_AFTER, 5)


def test_a_configuration_that_has_not_changed_is_parsed_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(host)
    read: list[str] = []
    real = module.read_setup

    def read_setup(path: str) -> Setup:
        read.append(path)
        return real(path)

    monkeypatch.setattr(module, "read_setup", read_setup)
    config = module.Configuration(str(host.config))
    assert [config.setup().sites for _ in range(3)] == [frozenset({"one"})] * 3
    assert len(read) == 1
    host.configure("two")
    assert config.setup().sites == frozenset({"two"})


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(host: Host) -> None:
    config = module.Configuration(str(host.config))
    for number in range(300):
        site = ("one", "two")[number % 2]
        host.config.write_text(f'state_dir = "{host.state}"\n[[site]]\nname = "{site}"\n')
        assert config.setup().sites == frozenset({site}), number


@pytest.mark.parametrize("change", [lambda path: path.chmod(0o666), lambda path: path.write_text("= 1"), Path.unlink])
def test_a_settled_configuration_that_becomes_unusable_is_not_used_again(
    host: Host, change: Callable[[Path], object]
) -> None:
    settled(host)
    config = module.Configuration(str(host.config))
    assert config.setup().sites == frozenset({"one"})
    change(host.config)
    for _ in range(2):
        with pytest.raises((OSError, ValueError)):
            config.setup()


@pytest.mark.parametrize("unsafe", [0o664, 0o646, 0o666])
def test_a_configuration_that_others_can_write_is_refused_at_the_greeting_and_later(host: Host, unsafe: int) -> None:
    name = host.store()
    with host.served() as peer:
        peer.line()
        host.config.chmod(unsafe)
        done = peer.ask(Request({"one": name}, hup=False))
        assert (done.error, "no other user may write to it" in done.message) == ("configuration", True)
    with host.served() as peer:
        assert parse_applied(peer.line()).error == "configuration"
        assert peer.line() == b""


def test_a_missing_store_is_named(host: Host) -> None:
    host.state.rmdir()
    with host.served() as peer:
        refused = parse_applied(peer.line())
    assert (refused.error, str(host.config) in refused.message) == ("configuration", True)


# -- versions


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_request_of_another_version_is_refused_before_anything_is_changed(host: Host, version: int) -> None:
    name = host.store()
    line = json.dumps(json.loads(encode(Request({"one": name}, hup=False))) | {"version": version, "more": 1})
    with host.served() as peer:
        peer.line()
        refused = peer.ask(line.encode() + b"\n")
        assert (refused.error, host.etc.exists()) == ("apply-version", False)
        assert f"version {version}" in refused.message
        assert f"version {VERSION}" in refused.message


def test_a_field_of_an_answer_that_this_version_does_not_know_is_ignored() -> None:
    done = Applied({"one": "a"}, {"one": ""}, signalled=7, decision="accepted", words=("w",))
    line = json.dumps(json.loads(encode(done)) | {"more": {"a": [1]}}).encode()
    assert parse_applied(line) == done
    assert parse_tested(json.dumps(json.loads(encode(module.Tested(True))) | {"more": 1}).encode()) == module.Tested(
        True
    )


def test_an_answer_of_another_version_is_named_as_such() -> None:
    for parse, answer in ((parse_applied, Applied()), (parse_tested, module.Tested())):
        with pytest.raises(VersionError, match=f"version {VERSION + 1}, .* version {VERSION}"):
            parse(json.dumps(json.loads(encode(answer)) | {"version": VERSION + 1}).encode())


ANSWER = json.loads(encode(Applied({"one": "a"}, {"one": ""})))


@pytest.mark.parametrize(
    "changed",
    [*({name: None} for name in ANSWER), {"live": {"one": 1}}, {"words": [1]}, {"signalled": "x"}, {"error": 1}],
    ids=str,
)
def test_an_answer_with_a_wrong_value_is_no_answer(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not an answer"):
        parse_applied(json.dumps(ANSWER | changed).encode())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", "[" * 60_000])
def test_what_is_no_answer_is_refused(text: str) -> None:
    for parse in (parse_applied, parse_tested):
        with pytest.raises(ValueError, match="not an answer"):
            parse(text.encode())


def test_the_hint_of_a_caller_is_not_sent() -> None:
    assert "hint" not in json.loads(encode(Applied(hint="do this")))


# -- requests that are none


GOOD = {"version": VERSION, "generations": {"one": "000001-0123456789ab"}, "hup": True, "word": "apply"}


def test_a_request_is_read_as_it_was_written() -> None:
    request = Request({"one": "000001-0123456789ab"}, False, PREPARE)
    assert (parse_request(encode(request)), encode(request).count(b"\n")) == (request, 1)


BAD_REQUESTS = {
    "nothing": "",
    "no JSON": "hup=1",
    "a list": "[]",
    "one more member": json.dumps(GOOD | {"include_dir": "/tmp"}),
    "a member missing": json.dumps({"version": VERSION, "hup": True}),
    "no version": json.dumps({name: value for name, value in GOOD.items() if name != "version"}),
    "a version that is no number": json.dumps(GOOD | {"version": "1"}),
    "a name that stands twice": f'{{"version":{VERSION},"generations":{{"a":"b","a":"c"}},"hup":true,"word":"apply"}}',
    "a member that stands twice": f'{{"version":{VERSION},"hup":true,"hup":true,"generations":{{}},"word":"apply"}}',
    "hup as a number": json.dumps(GOOD | {"hup": 1}),
    "hup as a word": json.dumps(GOOD | {"hup": "yes"}),
    "another word": json.dumps(GOOD | {"word": "stop"}),
    "generations as a list": json.dumps(GOOD | {"generations": ["one"]}),
    "a generation that is no text": json.dumps(GOOD | {"generations": {"one": None}}),
    "more behind it": json.dumps(GOOD) + "{}",
    "deeper than the stack": "[" * 60_000,
    "a huge number": '{"version": ' + "9" * 10_000 + "}",
}


@pytest.mark.parametrize("text", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_is_no_request_is_refused_and_the_next_request_is_answered(host: Host, text: str) -> None:
    with pytest.raises(ValueError, match="not a request"):
        parse_request(text.encode())
    with host.served() as peer:
        peer.line()
        assert peer.ask(text.encode() + b"\n").error == "bad-request"
        assert peer.ask(Request({"one": host.store()}, hup=False)).error == ""


@given(st.binary(max_size=400))
@example(b"\xff\xfe{\x00}\x00")
@example(b'{"version":1,"word":"\\ud800"}')
def test_reading_a_request_raises_nothing_but_a_value_error_whatever_stands_in_it(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a request|version"):
        parse_request(data)


def padded(request: Request, size: int) -> bytes:
    return encode(request).rstrip(b"\n").ljust(size - 1) + b"\n"


def test_a_request_of_64_kib_is_answered(host: Host) -> None:
    name = host.store()
    with host.served() as peer:
        peer.line()
        assert peer.ask(padded(Request({"one": name}, hup=False), MAX_REQUEST)).live == {"one": name}


@pytest.mark.parametrize("line", [padded(Request({"one": "x"}), MAX_REQUEST + 1), b"x" * (MAX_REQUEST + 1)], ids=len)
def test_a_longer_request_is_refused_and_ends_the_connection(host: Host, line: bytes) -> None:
    with host.served() as peer:
        peer.line()
        refused = peer.ask(line)
        assert (refused.error, "65536 bytes" in refused.message) == ("bad-request", True)
        assert peer.is_over()


def test_half_a_request_ends_the_connection_after_a_while(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_WITHIN", 0.2)
    with host.served() as peer:
        peer.line()
        refused = peer.ask(b'{"version"')
        assert (refused.error, "not whole after 0.2 s" in refused.message) == ("bad-request", True)
        assert peer.line() == b""


def test_a_request_that_comes_byte_by_byte_has_no_longer_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_WITHIN", 0.5)
    with host.served() as peer:
        peer.line()
        begun = time.monotonic()
        peer.send_until_it_is_over(b"{", 0.05)
        assert time.monotonic() - begun < 20


def test_a_silent_connection_is_held(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_WITHIN", 0.05)
    name = host.store()
    with host.served() as peer:
        peer.line()
        time.sleep(0.3)
        assert peer.ask(Request({"one": name}, hup=False)).live == {"one": name}


def test_a_peer_that_takes_no_answer_ends_the_connection(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_WITHIN", 0.2)
    ours, theirs = socket.socketpair()
    peer = Peer(ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            with theirs:
                module.serve(theirs, module.Configuration(str(host.config)))
        except OSError as e:
            raised.append(e)

    thread = threading.Thread(target=serve)
    thread.start()
    peer.send_until_it_is_over(b"{}\n" * 100)
    peer.close()
    thread.join(30)
    assert [type(e) for e in raised] == [TimeoutError]


# -- who asks


@pytest.mark.root
def test_another_user_is_refused(ca: CA) -> None:
    """The program runs as nobody here, so that root is the owner of the store and the peer is another user."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        host = Host(Path(name), ca)
        os.chown(host.config, NOBODY, NOBODY)
        for path in (host.root, host.state):
            path.chmod(0o755)
        program = Path(shutil.copy(str(module.__file__), host.root))
        refused = as_nobody(lambda: _refusal_of(program, host.config), cwd=host.root)
    assert (refused.error, f"uid {NOBODY} may not" in refused.message) == ("apply-denied", True)


def _refusal_of(program: Path, config: Path) -> Applied:
    ours, theirs = socket.socketpair()
    with subprocess.Popen(
        ["/usr/bin/python3", "-I", "-S", str(program), "--config", str(config)], stdin=theirs.fileno(), stderr=-1
    ):
        theirs.close()
        peer = Peer(ours)
        try:
            return parse_applied(peer.line())
        finally:
            peer.close()


@pytest.mark.root
def test_the_owner_of_the_store_is_served_and_no_longer_after_a_change_of_the_owner(host: Host) -> None:
    os.chown(host.state, NOBODY, NOBODY)

    class Peered:
        """A connection whose peer is the first owner of the store."""

        def getsockopt(self, *_: object) -> bytes:
            return struct.pack("3i", 1, NOBODY, NOBODY)

    peered: Any = Peered()
    assert module._admit(peered, module.Configuration(str(host.config))).state_dir == str(host.state)
    os.chown(host.state, 1, 1)
    with pytest.raises(module._RequestError, match=f"uid {NOBODY} may not"):
        module._admit(peered, module.Configuration(str(host.config)))


# -- two at once


@contextmanager
def lock_held(host: Host) -> Iterator[None]:
    host.etc.mkdir(exist_ok=True)
    with (host.etc / ".lock").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("word", [APPLY, PREPARE])
def test_a_request_waits_for_the_end_of_another_one(host: Host, word: str) -> None:
    name = host.store()
    with host.served() as peer:
        peer.line()
        with lock_held(host):
            peer.sock.sendall(encode(Request({"one": name}, False, word)))
            peer.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                peer.sock.recv(1, socket.MSG_PEEK)
            assert not (host.etc / "pairs").exists()
            peer.sock.settimeout(30)
        assert parse_applied(peer.sock.recv(10_000)).error == ""


@pytest.mark.parametrize("word", [APPLY, PREPARE])
def test_a_request_that_waits_too_long_for_another_one_changes_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setattr(module, "LOCK_WITHIN", 0.05)
    with lock_held(host):
        done = carry_out(host.setup, Request({"one": host.store()}, word=word))
    assert (done.error, done.live.get("one", "")) == ("lock-busy", "")


def test_two_clients_at_once_are_served_one_after_the_other(host: Host) -> None:
    names = [host.store() for _ in range(2)]
    with host.served() as first, host.served() as second:
        peers = (first, second)
        for peer in peers:
            peer.line()
        for _ in range(10):
            for peer, name in zip(peers, names, strict=True):
                peer.sock.sendall(encode(Request({"one": name}, hup=False)))
            for peer, name in zip(peers, names, strict=True):
                done = parse_applied(peer.line())
                assert (done.error, done.live) == ("", {"one": name})
    assert host.live() in names


def test_only_the_owner_of_the_include_directory_may_open_the_lock(host: Host) -> None:
    carry_out(host.setup, Request({"one": host.store()}, hup=False))
    lock = (host.etc / ".lock").stat()
    assert (stat.S_IMODE(lock.st_mode), lock.st_uid) == (0o600, os.geteuid())


@pytest.mark.parametrize("make", [os.mkdir, lambda path: os.symlink("/proc/version", path)], ids=["dir", "link"])
def test_a_lock_that_is_no_file_is_an_error_and_no_wait(host: Host, make: Callable[[Path], None]) -> None:
    host.etc.mkdir()
    make(host.etc / ".lock")
    name = host.store()
    done = carry_out(host.setup, Request({"one": name}, hup=False))
    assert (done.error, host.live()) == ("io-error", "")


# -- the number of HUPs


class Clock:
    """The clock of the step, which only moves in a sleep."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept = 0.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def delays(host: Host, clock: Clock, number: int) -> list[float]:
    """The seconds by which each of so many reloads is delayed."""
    name = host.store()
    found = []
    for _ in range(number):
        before = clock.slept
        done = carry_out(host.setup, Request({"one": name}))
        assert (done.error, done.decision) == ("", "gone")
        found.append(round(clock.slept - before, 3))
    return found


def test_beyond_the_burst_a_hup_is_delayed_and_not_refused(host: Host, clock: Clock) -> None:
    found = delays(host, clock, module.HUP_BURST + 3)
    assert found == [0.0] * module.HUP_BURST + [module.HUP_EVERY] * 3


def test_the_burst_is_free_again_after_a_quiet_time(host: Host, clock: Clock) -> None:
    delays(host, clock, module.HUP_BURST)
    clock.now += module.HUP_BURST * module.HUP_EVERY
    assert delays(host, clock, module.HUP_BURST + 1)[-2:] == [0.0, module.HUP_EVERY]


def test_a_request_without_a_hup_is_not_delayed(host: Host, clock: Clock) -> None:
    delays(host, clock, module.HUP_BURST)
    before = clock.slept
    name = host.store()
    for word in (APPLY, PREPARE):
        carry_out(host.setup, Request({"one": name}, False, word))
    assert clock.slept == before


def test_a_clock_that_was_set_back_does_not_delay_for_long(host: Host, clock: Clock) -> None:
    delays(host, clock, module.HUP_BURST)
    clock.now -= 86_400.0
    assert delays(host, clock, 1) == [0.0]


def test_requests_that_are_given_up_during_their_delay_free_nothing(host: Host, clock: Clock) -> None:
    delays(host, clock, module.HUP_BURST)
    name = host.store()
    for _ in range(2 * module.HUP_BURST):
        with pytest.raises(SystemExit):
            carry_out(host.setup, Request({"one": name}), sys.exit)
    assert delays(host, clock, 3) == [module.HUP_EVERY] * 3


def test_a_delay_changes_nothing_yet_and_lets_other_requests_pass(host: Host, clock: Clock) -> None:
    delays(host, clock, module.HUP_BURST)
    name, other = host.store(), host.store()
    passed: list[str] = []

    def waiting() -> None:
        if not passed:
            assert host.live() != name
            passed.append(carry_out(host.setup, Request({"one": other}, False, PREPARE)).error)

    assert carry_out(host.setup, Request({"one": name}), waiting).live == {"one": name}
    assert passed == [""]


def test_the_step_of_the_owner_of_nginx_itself_is_not_counted(host: Host, clock: Clock) -> None:
    name = host.store()
    for _ in range(module.HUP_BURST + 5):
        module.apply(host.setup, Request({"one": name}))
    assert clock.slept == 0.0


# -- the end


def test_the_program_ends_with_its_connection(host: Host) -> None:
    peer, process = host.start()
    peer.line()
    peer.close()
    assert process.wait(30) == 0


def test_the_program_does_not_wait_for_another_request_once_its_peer_is_gone(host: Host) -> None:
    peer, process = host.start()
    peer.line()
    with lock_held(host):
        peer.sock.sendall(encode(Request({"one": host.store()})))
        time.sleep(0.2)
        peer.close()
        assert process.wait(30) == 0
    assert host.live() == ""


def test_a_start_without_a_connection_is_an_error_with_one_line(host: Host) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(module.__file__), f"--config={host.config}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("rotator-apply: ")


DIES = """
import os, runpy, signal, sys
left = int(sys.argv.pop(2))
def counted(real):
    def call(*args, **named):
        global left
        left -= 1
        if left < 0: os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    return call
for name in ("fchmod", "fsync", "mkdir", "rename", "rmdir", "symlink", "unlink", "utime", "write"):
    setattr(os, name, counted(getattr(os, name)))
"""


@pytest.mark.parametrize("word", [APPLY, PREPARE])
def test_killed_before_any_step_each_include_is_whole_and_the_same_request_ends_well(host: Host, word: str) -> None:
    host.configure("one", "two")
    old = {site: host.store(site) for site in ("one", "two")}
    carry_out(host.setup, Request(old, hup=False))
    for step in range(200):
        new = {site: host.store(site) for site in ("one", "two")}
        peer, process = host.start(str(step), code=DIES + RUN)
        # The number of the step is the first argument of the code.
        peer.line()
        peer.sock.sendall(encode(Request(new, True, word)))
        survived = bool(peer.line())
        peer.close()
        process.wait(30)
        named = {site: host.live(site) for site in new}
        assert all(named[site] in (old[site], new[site]) for site in new), step
        for site, generation in named.items():
            copy = Path(copies_path(str(host.etc), site, generation))
            assert sorted(os.listdir(copy)) == ["fullchain.pem", "privkey.pem"], step
        done = carry_out(host.setup, Request(new, False))
        assert (done.error, done.live) == ("", new), step
        assert [p for p in host.etc.rglob(".*") if p.name != ".lock"] == [], step
        old = new
        if survived:
            break
    assert survived
    assert step > 10
    assert process.returncode in (0, -signal.SIGKILL)
