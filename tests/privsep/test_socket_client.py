"""Asking root's program over a socket: what becomes of a request where the other side fails, and of one of any size."""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.reasons import Reason
from rotator.privsep import apply as privileged
from rotator.privsep import connection as connection_module
from rotator.privsep.apply import APPLY, MAX_ANSWER, MAX_REQUEST, PREPARE, TEST, VERSION, Applied, Request, Setup
from rotator.privsep.connection import Connection
from rotator.privsep.socket_client import (
    APPLY_UNIT,
    SOCKETS,
    TEST_UNIT,
    SocketClient,
    apply_in_parts,
    ask_for_test,
    open_connection,
    parts_of,
    prepare_in_parts,
)
from rotator.x509.pem import encode_chain
from tests.support.authority import CA
from tests.support.failing import refusal
from tests.support.other_user import as_nobody
from tests.support.pairs import pair_of
from tests.support.powercut import StandIn, standing_in
from tests.support.waiting import wait_until

GREETING = json.dumps({"version": VERSION}).encode() + b"\n"
GENERATION = "000001-0123456789ab"
END = b""
"""In place of an answer: the end of the connection."""


class Program:
    """What answers at a socket, from the first connection to the last: scripted lines, or none.

    Args:
        path: the socket.
    """

    def __init__(self, path: Path) -> None:
        self.scripts: list[list[bytes]] = []
        self.default: list[bytes] | None = None
        self.requests: list[dict[str, object]] = []
        self.before_answer: Callable[[], None] = lambda: None
        self.ends_after_answers = False
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            script = self.scripts.pop(0) if self.scripts else [GREETING, *(self.default or [])]
            with connection, connection.makefile("rb") as lines, suppress(ConnectionError):
                self._follow(connection, script, lines)

    def _follow(self, connection: socket.socket, script: list[bytes], lines: BufferedReader) -> None:
        for number, line in enumerate(script):
            if number:
                request = lines.readline()
                if not request:
                    return
                self.requests.append(json.loads(request))
                self.before_answer()
            if line == END:
                return
            connection.sendall(line)
        if not self.ends_after_answers:
            lines.read()  # until the other side ends it

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory whose path is short enough for a socket's address."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def program(top: Path) -> Iterator[Program]:
    program = Program(top / SOCKETS[APPLY_UNIT])
    yield program
    program.close()


@pytest.fixture
def connection(top: Path) -> Iterator[Connection]:
    connection = open_connection(top, APPLY_UNIT)
    yield connection
    connection.close()


@pytest.fixture
def client(top: Path, connection: Connection) -> SocketClient:
    return SocketClient(Setup(str(top), str(top / "etc"), "", "", frozenset()), connection)


def named(live: str = GENERATION, **more: object) -> bytes:
    """An answer."""
    done = Applied({"one": live}, {"one": ""})
    return json.dumps(json.loads(privileged.encode(done)) | more).encode() + b"\n"


def include(top: Path, generation: str = GENERATION) -> None:
    """Root's include names this generation."""
    (top / "etc").mkdir(exist_ok=True)
    text = privileged.render_include(str(top / "etc"), "one", generation, privileged.pair_files(()))
    (top / "etc/one.conf").write_bytes(text)


# -- the held connection


def test_request_after_request_goes_over_one_connection(program: Program, client: SocketClient) -> None:
    program.default = [named(), named(), named()]
    client.greet()
    client.prepare({"one": GENERATION})
    for hup in (True, False):
        assert client.apply({"one": GENERATION}, hup=hup).live == {"one": GENERATION}
    assert program.connections == 1
    assert program.requests == [
        {"version": VERSION, "generations": {"one": GENERATION}, "hup": hup, "word": word}
        for hup, word in ((False, PREPARE), (True, APPLY), (False, APPLY))
    ]


def test_a_connection_that_has_ended_meanwhile_is_made_again(
    program: Program, client: SocketClient, connection: Connection
) -> None:
    program.default, program.ends_after_answers = [named()], True
    for number in (1, 2):
        assert client.apply({"one": GENERATION}, hup=True).error == ""
        assert program.connections == number
        wait_until(lambda: connection_module._is_readable(connection._held))  # its end


def test_one_that_ends_between_the_look_and_the_request_is_made_again(
    program: Program, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.scripts = [[GREETING, END], [GREETING, named()]]
    connection.greet(lambda: None)
    connection._held.shutdown(socket.SHUT_RDWR)  # as the other side's end does, but surely before the next call
    monkeypatch.setattr(connection_module, "_is_readable", lambda _: False)
    assert connection.ask(Request({"one": GENERATION}), privileged.parse_applied, lambda: None).error == ""
    assert program.connections == 2


def test_after_a_fault_the_next_request_has_a_connection_of_its_own(program: Program, client: SocketClient) -> None:
    program.scripts = [[GREETING, b"nonsense\n", named("late")], [GREETING, named()]]
    assert client.apply({"one": GENERATION}, hup=True).error == "apply-unit"
    assert client.apply({"one": GENERATION}, hup=True).live == {"one": GENERATION}


def test_an_interruption_during_a_wait_ends_the_connection(program: Program, connection: Connection) -> None:
    program.scripts = [[GREETING, named()], [GREETING, named("second")]]

    def interrupted(_: bytes) -> Applied:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        connection.ask(Request({"one": "a"}), interrupted, lambda: None)
    done = connection.ask(Request({"one": "b"}), privileged.parse_applied, lambda: None)
    assert done.live == {"one": "second"}


def test_a_long_wait_reports_that_the_process_works(
    program: Program, client: SocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "ALIVE_EVERY", 0.01)
    answered = threading.Event()
    program.default = [named()]
    program.before_answer = lambda: assert_set(answered)
    client._waiting = answered.set
    assert client.apply({"one": GENERATION}, hup=True).error == ""


def assert_set(event: threading.Event) -> None:
    assert event.wait(30)


# -- when the other side fails


def test_without_a_socket_the_command_that_starts_it_is_the_next_step(client: SocketClient) -> None:
    done = client.apply({"one": GENERATION}, hup=True)
    assert (done.error, "not installed, or not started" in done.message) == ("apply-unit", True)
    assert "systemctl enable --now rotator-apply.socket" in done.hint


def test_a_socket_that_nobody_listens_at_is_the_same(top: Path, client: SocketClient) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(top / SOCKETS[APPLY_UNIT]))
    assert "systemctl enable --now rotator-apply.socket" in client.apply({"one": GENERATION}, hup=True).hint


@pytest.mark.root
def test_a_socket_that_this_user_may_not_use_says_who_may(top: Path, program: Program) -> None:
    (top / SOCKETS[APPLY_UNIT]).chmod(0o600)
    top.chmod(0o755)

    def ask() -> tuple[str, str]:
        e = refusal(lambda: open_connection(top, APPLY_UNIT).greet(lambda: None))
        return e.code, e.hint

    code, hint = as_nobody(ask, cwd=Path("/"))
    assert (code, "systemctl cat rotator-apply.socket" in hint) == ("apply-denied", True)


def test_a_path_that_is_too_long_for_a_socket_is_an_error_with_the_path(top: Path) -> None:
    e = refusal(lambda: open_connection(top / ("x" * 120), APPLY_UNIT).greet(lambda: None))
    assert (e.code, "x" * 120 in e.message) == (Reason.APPLY_UNIT, True)


def test_an_end_without_a_greeting_names_both_causes(program: Program, connection: Connection) -> None:
    program.scripts = [[END]]
    e = refusal(lambda: connection.greet(lambda: None))
    assert (e.code, "MaxConnections=" in e.message, "older release" in e.message) == (Reason.APPLY_UNIT, True, True)
    assert "install -D -m 0755" in e.hint


@pytest.mark.parametrize(
    ("version", "message", "hint"),
    [
        (VERSION - 1, "rotator-apply is older than this rotator", "install -D -m 0755 rotator/privsep/apply.py"),
        (VERSION + 1, "this rotator is older than", "systemctl restart rotator"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"error": "anything", "message": "of a later release"}], ids=["", "refusing"])
def test_a_greeting_of_another_version_names_the_older_side_and_both_versions(
    program: Program, client: SocketClient, version: int, message: str, hint: str, more: dict[str, str]
) -> None:
    program.scripts = [[json.dumps({"version": version, **more}).encode() + b"\n"]]
    done = client.apply({"one": GENERATION}, hup=True)
    assert (done.error, program.requests) == ("apply-version", [])
    assert message in done.message
    assert f"version {version}" in done.message or f"program {version}" in done.message
    assert hint in done.hint


def test_a_greeting_that_refuses_has_its_reason(program: Program, connection: Connection) -> None:
    program.scripts = [[privileged.encode(Applied(error="apply-denied", message="uid 7 may not"))]]
    e = refusal(lambda: connection.greet(lambda: None))
    assert (e.code, e.message) == (Reason.APPLY_DENIED, "uid 7 may not")


LONG_GREETING = pytest.param(b"x" * (privileged.MAX_ANSWER + 1), id="too long")


@pytest.mark.parametrize(
    "line", [b"220 mail\n", b"[]\n", b"\n", b"{}\n", b"[" * 60_000 + b"\n", LONG_GREETING], ids=repr
)
def test_another_greeting_is_not_that_of_root_s_program(program: Program, connection: Connection, line: bytes) -> None:
    program.scripts = [[line]]
    e = refusal(lambda: connection.greet(lambda: None))
    assert (e.code, "the greeting is not that of" in e.message) == (Reason.APPLY_UNIT, True)


def test_a_greeting_that_never_comes_is_given_up(
    program: Program, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "GREETING_WITHIN", 0.05)
    program.scripts = [[b"{"]]
    assert "gave no answer in time" in refusal(lambda: connection.greet(lambda: None)).message


BAD_ANSWERS = {
    "the end": END,
    "nonsense": b"nonsense\n",
    "half a line and the end": b'{"version": 1',
    "a wrong type": named(words=[1]),
    "another record": json.dumps({"version": VERSION, "ok": True}).encode() + b"\n",
    "too long": b"x" * (MAX_ANSWER + 1),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "ANSWER_WITHIN", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("line", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_without_an_answer_that_can_be_read_the_includes_decide(
    top: Path, program: Program, client: SocketClient, line: bytes
) -> None:
    include(top, "000001-aaaaaaaaaaaa")
    program.scripts = [[GREETING, line], [GREETING, line]]
    done = client.apply({"one": GENERATION}, hup=True)
    assert (done.error, done.live) == ("apply-unit", {"one": "000001-aaaaaaaaaaaa"})
    program.before_answer = lambda: include(top)
    e = refusal(lambda: client.apply({"one": GENERATION}, hup=True))
    assert (e.code, e.message.startswith("nginx's include was changed, but ")) == (Reason.APPLY_LOST, True)


def test_an_answer_of_another_version_after_a_change_is_lost_and_no_bug(
    top: Path, program: Program, client: SocketClient
) -> None:
    program.before_answer = lambda: include(top)
    program.default = [named(version=VERSION + 1)]
    assert refusal(lambda: client.apply({"one": GENERATION}, hup=True)).code == Reason.APPLY_LOST


def test_a_field_that_is_unknown_here_changes_nothing(top: Path, program: Program, client: SocketClient) -> None:
    program.before_answer = lambda: include(top)
    program.default = [named(retired=[1, 2])]
    assert client.apply({"one": GENERATION}, hup=True).live == {"one": GENERATION}


def test_a_prepare_without_an_answer_is_an_error_that_changed_nothing(program: Program, client: SocketClient) -> None:
    program.default = [END]
    done = client.prepare({"one": GENERATION})
    assert (done.error, done.live) == ("apply-unit", {"one": ""})


# -- the test of the whole configuration


def test_the_test_of_the_whole_configuration_has_a_connection_of_its_own(top: Path) -> None:
    program = Program(top / SOCKETS[TEST_UNIT])
    program.default = [privileged.encode(privileged.Tested(False, ("no",)))]
    try:
        assert ask_for_test(top) == privileged.Tested(False, ("no",))
        assert [request["word"] for request in program.requests] == [TEST]
        program.default = [privileged.encode(privileged.Tested(error="bad-request", message="not here"))]
        e = refusal(lambda: ask_for_test(top))
        assert (e.code, e.message) == (Reason.BAD_REQUEST, "not here")
    finally:
        program.close()


# -- requests of any size


def sites(number: int, length: int = 64) -> dict[str, str]:
    """So many sites with names of this length."""
    return {f"{n:0{length}d}": f"{n:06d}-0123456789ab" for n in range(number)}


names = st.text("abc-.09", min_size=1, max_size=64)


@given(st.dictionaries(names, st.just(GENERATION), max_size=40), st.integers(1, 600))
def test_the_parts_are_the_whole_in_its_order(generations: dict[str, str], room: int) -> None:
    parts = parts_of(generations, room)
    assert [item for part in parts for item in part.items()] == list(generations.items())
    assert all(parts) or not generations


@pytest.mark.parametrize("number", [0, 1, 600, 719, 3000])
@pytest.mark.parametrize("word", [APPLY, PREPARE])
def test_each_part_fits_into_one_request(number: int, word: str) -> None:
    parts = parts_of(sites(number))
    assert max(len(privileged.encode(Request(part, word=word))) for part in parts) <= MAX_REQUEST
    assert len(parts) <= 1 + number // 600


def test_as_many_sites_as_fit_are_one_request() -> None:
    assert len(parts_of(sites(690))) == 1


class Root:
    """Root's program, as far as the order of requests goes.

    Args:
        fails_at: the number of the request that fails.
    """

    def __init__(self, fails_at: int = -1) -> None:
        self.asked: list[Request] = []
        self._fails_at = fails_at

    def __call__(self, request: Request) -> Applied:
        self.asked.append(request)
        if len(self.asked) - 1 == self._fails_at:
            return Applied(dict.fromkeys(request.generations, ""), {}, "disk-full", "the disk is full")
        if request.word == PREPARE:
            return Applied(dict.fromkeys(request.generations, ""))
        return Applied(request.generations, signalled=7 * request.hup, decision="accepted" * request.hup)


@pytest.mark.parametrize("hup", [True, False])
def test_of_several_requests_all_prepare_first_and_the_last_one_alone_reloads(hup: bool) -> None:
    root, wanted = Root(), sites(1500)
    done = apply_in_parts(wanted, root, hup=hup)
    assert [(request.word, request.hup) for request in root.asked] == [
        *[(PREPARE, False)] * 3,
        *[(APPLY, False)] * 2,
        (APPLY, hup),
    ]
    assert (done.live, done.signalled, done.error) == (wanted, 7 * hup, "")


def test_one_request_that_is_enough_prepares_nothing_first() -> None:
    root = Root()
    apply_in_parts(sites(3), root, hup=True)
    assert [(request.word, request.hup) for request in root.asked] == [(APPLY, True)]


def test_a_part_that_cannot_be_prepared_changes_no_include() -> None:
    root = Root(fails_at=1)
    assert apply_in_parts(sites(1500), root, hup=True).error == "disk-full"
    assert [request.word for request in root.asked] == [PREPARE, PREPARE]


def test_a_part_that_fails_ends_it_without_a_reload_and_the_answer_says_what_is_named() -> None:
    root, wanted = Root(fails_at=4), sites(1500)
    done = apply_in_parts(wanted, root, hup=True)
    first, second = root.asked[3].generations, root.asked[4].generations
    assert (done.error, done.decision, len(root.asked)) == ("disk-full", "", 5)
    assert done.live == {**first, **dict.fromkeys(second, "")}


def test_a_prepare_of_many_sites_is_split_too() -> None:
    root = Root()
    assert prepare_in_parts(sites(1500), root).error == ""
    assert [request.word for request in root.asked] == [PREPARE] * 3


def test_719_sites_with_the_longest_names_are_applied_by_the_real_program(top: Path, connection: Connection) -> None:
    wanted, issued = sites(719), CA.root().issue("site.test")
    key = pair_of(issued).key
    assert key
    for site, generation in wanted.items():
        stored = top / "state/sites" / site / "generations" / generation
        stored.mkdir(parents=True)
        (stored / "fullchain.pem").write_bytes(encode_chain(issued.chain_der))
        (stored / "privkey.pem").write_bytes(key.reveal())
    config = top / "rotator.toml"
    config.write_text(
        f'state_dir = "{top}/state"\n[nginx]\ninclude_dir = "{top}/etc"\npid_file = "{top}/pid"\nerror_log = ""\n'
        + "".join(f'[[site]]\nname = "{site}"\n' for site in wanted)
    )
    config.chmod(0o644)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def serve() -> None:
        with theirs:
            privileged.serve(theirs, privileged.Configuration(str(config)))

    thread = threading.Thread(target=serve)
    with standing_in(StandIn()):  # without real flushes
        thread.start()
        connection._socket = ours
        connection._check_greeting(connection._receive(10, lambda: None))
        done = SocketClient(privileged.read_setup(str(config)), connection).apply(wanted, hup=True)
        connection.close()
        thread.join(60)
    assert (done.error, done.message, done.decision) == ("", "", "gone")
    assert done.live == wanted
    assert {s: privileged.read_live(str(top / "etc"), s).generation for s in wanted} == wanted


def test_an_error_of_the_system_during_a_request_is_told(
    program: Program, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.default = [named()]
    connection.greet(lambda: None)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    monkeypatch.setattr(connection, "_receive", fail)
    e = refusal(lambda: connection.ask(Request({"one": "a"}), privileged.parse_applied, lambda: None))
    assert e.code == Reason.APPLY_UNIT
