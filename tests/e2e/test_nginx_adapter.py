"""The hands on the real nginx: would it take a pair, which processes does it have, what does a handshake show."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from rotator.core.model import KeyType, Pair, Secret, Target, Workers
from rotator.nginx import workers
from rotator.nginx.command import Nginx
from rotator.nginx.pair_trial import CandidateTest
from rotator.tls.handshake import AT_ONCE, probe, probe_all
from rotator.tls.rehearsal import rehearse
from tests.support.authority import CA, Issued, key_pem, new_key
from tests.support.client import held_connection
from tests.support.failing import refusal
from tests.support.misbehave import silent_listener, unknown_directive
from tests.support.nginx_server import NginxServer, ServerBlock, certificate_lines, write_pair
from tests.support.other_user import as_nobody
from tests.support.pairs import pair_of
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.each_nginx


@pytest.fixture
def issued(issuing_ca: CA) -> Issued:
    return issuing_ca.issue("a.example.test")


@pytest.fixture
def served(nginx: NginxServer, issued: Issued, tmp_path: Path) -> str:
    """A running nginx that serves the pair; its address."""
    listener = nginx.reserve_port()
    lines = certificate_lines(write_pair(tmp_path / "pair", issued))
    nginx.blocks = [ServerBlock("a.example.test", (listener,), lines)]
    nginx.start()
    return listener


# -- the candidate test


def _test(binary: Path, directory: Path, chain: bytes, key: bytes) -> CandidateTest:
    (directory / "chain.pem").write_bytes(chain)
    (directory / "key.pem").write_bytes(key)
    return CandidateTest(str(binary), directory, [("chain.pem", "key.pem")])


def test_a_good_pair_is_taken(nginx_binary: Path, tmp_path: Path, issued: Issued) -> None:
    assert _test(nginx_binary, tmp_path, issued.chain_pem, issued.key_pem).verdict().ok


def test_a_key_of_another_certificate_is_refused_in_nginx_words(
    nginx_binary: Path, tmp_path: Path, issued: Issued
) -> None:
    verdict = _test(nginx_binary, tmp_path, issued.chain_pem, key_pem(new_key())).verdict()
    assert not verdict.ok
    assert any("key values mismatch" in word for word in verdict.messages)


def test_the_test_leaves_nothing_behind(nginx_binary: Path, tmp_path: Path, issued: Issued) -> None:
    _test(nginx_binary, tmp_path, issued.chain_pem, issued.key_pem).verdict()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chain.pem", "key.pem"]


def test_the_test_leaves_the_directory_to_its_owner(nginx_binary: Path, tmp_path: Path, issued: Issued) -> None:
    before = tmp_path.stat()
    _test(nginx_binary, tmp_path, issued.chain_pem, issued.key_pem).verdict()
    after = tmp_path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_a_directory_with_a_long_and_odd_name_is_no_obstacle(
    nginx_binary: Path, tmp_path: Path, issued: Issued
) -> None:
    odd = tmp_path / ("d" * 120) / "with $name; {and} 'quotes'"
    odd.mkdir(parents=True)
    assert _test(nginx_binary, odd, issued.chain_pem, issued.key_pem).verdict().ok


def test_an_nginx_that_hangs_is_ended_in_time(tmp_path: Path, issued: Issued) -> None:
    slow = tmp_path / "nginx"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    pair = tmp_path / "pair"
    pair.mkdir()
    (pair / "c.pem").write_bytes(issued.chain_pem)
    verdict = CandidateTest(str(slow), pair, [("c.pem", "c.pem")], within=0.2).verdict()
    assert verdict.messages == ("nginx -t did not answer within 0.2 s",)


def test_a_program_that_does_not_exist_is_told_with_the_line_that_names_another(tmp_path: Path) -> None:
    error = refusal(lambda: CandidateTest(str(tmp_path / "nginx"), tmp_path, [("c.pem", "k.pem")]))
    assert (error.code, "Set `command` under [nginx]" in error.hint) == ("nginx-missing", True)


@pytest.mark.parametrize("call", ["memfd_create", "pidfd_open"])
def test_a_host_without_a_descriptor_left_is_not_taken_for_one_without_nginx(
    nginx_binary: Path, tmp_path: Path, issued: Issued, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, call, none_left)
    error = refusal(lambda: _test(nginx_binary, tmp_path, issued.chain_pem, issued.key_pem).verdict())
    assert (error.code, "Too many open files" in error.message) == ("io-error", True)


def test_whoever_is_told_to_end_does_not_wait_for_an_nginx_that_hangs(tmp_path: Path) -> None:
    slow = tmp_path / "nginx"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, end)
    begun = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            CandidateTest(str(slow), tmp_path, [("c.pem", "c.pem")]).verdict()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < PATIENCE


def test_both_kinds_of_key_are_tested_together(nginx_binary: Path, tmp_path: Path, issuing_ca: CA) -> None:
    for kind in ("ecdsa", "rsa"):
        one = issuing_ca.issue("a.example.test", kind=kind)
        (tmp_path / f"{kind}-c.pem").write_bytes(one.chain_pem)
        (tmp_path / f"{kind}-k.pem").write_bytes(one.key_pem)
    files = [("ecdsa-c.pem", "ecdsa-k.pem"), ("rsa-c.pem", "rsa-k.pem")]
    assert CandidateTest(str(nginx_binary), tmp_path, files).verdict().ok


def test_the_full_test_names_the_line_of_the_fault(nginx: NginxServer, served: str) -> None:
    adapter = Nginx(nginx.command, nginx.pid_path)
    assert adapter.full_test().ok
    with unknown_directive(nginx) as word:
        verdict = adapter.full_test()
    assert (verdict.ok, word in verdict.messages[0]) == (False, True)


# -- workers


def test_the_workers_of_a_running_nginx_are_active(nginx: NginxServer, served: str) -> None:
    look = workers.look(nginx.pid_path)
    assert look is not None
    assert look.master == nginx.master_pid
    assert {pid for pid, _ in look.active} == {p.pid for p in nginx.active_workers()}


def test_a_stopped_nginx_has_no_master(nginx: NginxServer, served: str) -> None:
    nginx.stop()
    look = workers.look(nginx.pid_path)
    assert look is not None
    assert look.master is None


def test_an_empty_pid_file_is_no_master(tmp_path: Path) -> None:
    (tmp_path / "nginx.pid").touch()
    assert workers.look(tmp_path / "nginx.pid") == Workers(master=None)


def test_the_pid_of_another_program_is_no_master(tmp_path: Path) -> None:
    (tmp_path / "nginx.pid").write_text(str(os.getpid()))
    assert workers.look(tmp_path / "nginx.pid") == Workers(master=None)


def test_a_pid_file_that_may_not_be_read_is_not_taken_for_a_stopped_nginx(nginx: NginxServer, served: str) -> None:
    nginx.pid_path.chmod(0)
    assert as_nobody(lambda: workers.look(nginx.pid_path), cwd=nginx.root) is None


def test_a_worker_with_a_client_drains_after_a_reload(nginx: NginxServer, served: str, root_pem: str) -> None:
    before = workers.look(nginx.pid_path)
    assert before is not None
    with held_connection(served, "a.example.test", root_pem):
        nginx.reload_and_wait()
        look = workers.look(nginx.pid_path)
        assert look is not None
        assert look.draining == before.active
        assert not look.active & before.active


def test_during_a_binary_upgrade_the_workers_of_both_masters_are_active(
    nginx: NginxServer, issued: Issued, tmp_path: Path
) -> None:
    nginx.daemon = True
    lines = certificate_lines(write_pair(tmp_path / "pair", issued))
    nginx.blocks = [ServerBlock("a.example.test", (nginx.reserve_port(),), lines)]
    nginx.start()
    old = nginx.master_pid
    nginx.signal(signal.SIGUSR2)

    def both() -> bool:
        look = workers.look(nginx.pid_path)
        return look is not None and look.upgrading and look.master != old and len(look.active) == 2

    wait_until(both, what="two masters with a worker each")


def test_an_old_master_that_only_waits_for_its_last_client_is_no_upgrade_in_flight(
    nginx: NginxServer, issued: Issued, tmp_path: Path, root_pem: str
) -> None:
    nginx.daemon = True
    listener = nginx.reserve_port()
    lines = certificate_lines(write_pair(tmp_path / "pair", issued))
    nginx.blocks = [ServerBlock("a.example.test", (listener,), lines)]
    nginx.start()
    old = nginx.master_pid
    with held_connection(listener, "a.example.test", root_pem):
        nginx.signal(signal.SIGUSR2)
        wait_until(lambda: (look := workers.look(nginx.pid_path)) and look.upgrading and look.master != old)
        os.kill(old, signal.SIGQUIT)

        def only_draining() -> bool:
            look = workers.look(nginx.pid_path)
            return look is not None and not look.upgrading and len(look.active) == len(look.draining) == 1

        wait_until(only_draining, what="the old master's worker draining, and no upgrade")
        assert Path(f"{nginx.pid_path}.oldbin").exists()


# -- handshakes


def test_a_handshake_shows_the_chain_as_sent(served: str, issued: Issued) -> None:
    assert probe(Target("s", served, "a.example.test")).chain == issued.chain_der


def test_a_unix_listener_is_probed_too(nginx: NginxServer, issued: Issued, tmp_path: Path) -> None:
    listener = nginx.unix_listener()
    lines = certificate_lines(write_pair(tmp_path / "pair", issued))
    nginx.blocks = [ServerBlock("a.example.test", (listener,), lines)]
    nginx.start()
    assert probe(Target("s", listener, "a.example.test")).chain == issued.chain_der


@pytest.mark.parametrize("protocols", ["TLSv1.2", "TLSv1.3", "TLSv1.2 TLSv1.3"])
def test_each_kind_of_key_is_seen_with_every_protocol(
    nginx: NginxServer, issuing_ca: CA, tmp_path: Path, protocols: str
) -> None:
    ecdsa, rsa = (issuing_ca.issue("a.example.test", kind=kind) for kind in ("ecdsa", "rsa"))
    lines = certificate_lines(write_pair(tmp_path / "e", ecdsa), write_pair(tmp_path / "r", rsa))
    listener = nginx.reserve_port()
    nginx.blocks = [ServerBlock("a.example.test", (listener,), lines, f"ssl_protocols {protocols};\n")]
    nginx.start()
    seen = {kind: probe(Target("s", listener, "a.example.test", kind)).chain for kind in (KeyType.ECDSA, KeyType.RSA)}
    assert seen == {KeyType.ECDSA: ecdsa.chain_der, KeyType.RSA: rsa.chain_der}


def test_a_listener_that_nobody_listens_at_is_a_failure_in_words(nginx: NginxServer) -> None:
    assert probe(Target("s", nginx.reserve_port(), "a.example.test")).failure == "connection refused"


def test_a_listener_that_never_answers_is_given_up_in_time(nginx: NginxServer) -> None:
    listener = nginx.reserve_port()
    with silent_listener(listener):
        served = probe(Target("s", listener, "a.example.test"), 0.2)
    assert served.failure == "connected, but no TLS handshake within 0.2 s"


def test_a_wait_for_many_silent_listeners_is_seen_to_go_on(nginx: NginxServer) -> None:
    listener = nginx.reserve_port()
    begun = time.monotonic()
    moments: list[float] = []
    with silent_listener(listener):
        targets = [Target("s", listener, f"{number}.example.test") for number in range(3 * AT_ONCE)]
        probe_all(targets, 0.5, waiting=lambda: moments.append(time.monotonic() - begun))
    assert len(moments) == len(targets)
    assert moments[0] < moments[-1] / 2


def test_many_targets_are_answered_in_their_order(served: str, nginx: NginxServer, issued: Issued) -> None:
    dead = nginx.reserve_port()
    targets = [Target("s", address, "a.example.test") for address in (served, dead, served, dead, served)]
    assert [bool(s.chain) for s in probe_all(targets)] == [True, False, True, False, True]


# -- the rehearsal


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
def test_a_sound_pair_completes_a_handshake_in_memory(issuing_ca: CA, kind: str) -> None:
    assert rehearse(pair_of(issuing_ca.issue("a.example.test", kind=kind)), "a.example.test") == ""


def test_a_key_of_another_certificate_completes_none(issued: Issued) -> None:
    sound = pair_of(issued)
    other = key_pem(new_key())
    torn = Pair(**{f: getattr(sound, f) for f in Pair.__slots__} | {"key": Secret(other)})
    words = rehearse(torn, "a.example.test")
    assert words
    assert other.splitlines()[1].decode() not in words
