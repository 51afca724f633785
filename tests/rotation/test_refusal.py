"""Why nginx refused a reload: nginx's own test decides and is quoted; its log condemns no pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import Outcome, Result
from rotator.core.reasons import Reason
from rotator.nginx.pair_trial import NginxVerdict
from rotator.rotation.request import RotationRequest
from rotator.rotation.rotate import rotate
from tests.support.hosts import LISTENERS, Host, make_site

ELSEWHERE = 'unknown directive "bogus" in /etc/nginx/nginx.conf:7'


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def refuse(host: Host, message: str, *, untested: bool = False) -> None:
    """nginx refuses each new generation; `{}` in the message stands for the path of its chain."""

    def name(generations: Mapping[str, str], hup: bool) -> None:
        if hup:
            path = f"{host.world.include_dir}/pairs/example/{generations['example']}/fullchain.pem"
            host.world.nginx.refuses = (message.format(path),)
            host.world.nginx.refuses_if_named = generations["example"]
            host.world.nginx.refuses_untested = untested

    host.world.before_apply = name


def test_a_log_that_names_the_pair_rejects_nothing_if_nginxs_own_test_passes(host: Host) -> None:
    live = host.world.live("example")
    refuse(host, 'cannot load certificate "{}": PEM_read_bio_X509_AUX() failed', untested=True)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason, host.world.live("example")) == (Result.DEFERRED, "nginx-refused", live)
    assert host.world.nginx.hups == 1


def test_the_words_of_nginxs_own_test_are_quoted_instead_of_its_log(host: Host) -> None:
    refuse(host, 'cannot load certificate "{}"', untested=True)
    host.world.nginx.full_test_words = (ELSEWHERE,)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.nginx_words) == (Result.DEFERRED, (ELSEWHERE,))
    assert ELSEWHERE in done.message


def test_a_test_that_may_not_read_a_file_does_not_hide_what_the_log_says(host: Host) -> None:
    denied = 'cannot load certificate key "/other.key": BIO_new_file() failed (SSL: error:8000000D:system library::)'
    refuse(host, ELSEWHERE, untested=True)
    host.world.nginx.full_test_words = (denied,)
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.nginx_words) == (Result.DEFERRED, (ELSEWHERE, denied))


def test_what_only_the_log_says_is_quoted_if_the_test_passes(host: Host) -> None:
    refuse(host, "the zone has another key", untested=True)
    assert "the zone has another key" in host.swap(host.sites[0], host.issue()).message


@pytest.mark.parametrize(
    "failure",
    [
        "BIO_new_file() failed (SSL: error:80000018:system library::Too many open files:calling fopen({}, r))",
        "PEM_read_bio_X509_AUX() failed (SSL: error:07880041:common libcrypto routines::malloc failure)",
        'open() "{}" failed (13: Permission denied)',
    ],
)
def test_a_failed_system_call_while_nginx_reads_the_pair_rejects_nothing(host: Host, failure: str) -> None:
    refuse(host, 'cannot load certificate "{}": ' + failure.replace("{}", "fullchain.pem"))
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")


def test_a_failed_system_call_while_nginx_tests_the_pair_alone_rejects_nothing(host: Host) -> None:
    host.world.nginx.refused_candidates = (
        'cannot load certificate "fullchain.pem": BIO_new_file() failed (SSL: error:80000018:system library::Too many '
        "open files)",
    )
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason, host.world.nginx.hups) == (Result.DEFERRED, "nginx-test", 0)


def test_a_refusal_of_another_generation_of_the_site_rejects_nothing(host: Host) -> None:
    live = host.world.live("example")
    path = f"{host.world.include_dir}/pairs/example/{live}/fullchain.pem"
    refuse(host, f'cannot load certificate "{path}"')
    assert host.swap(host.sites[0], host.issue()).result is Result.DEFERRED


def test_nginx_is_asked_why_while_its_include_names_what_it_refused(host: Host) -> None:
    refuse(host, 'cannot load certificate "{}"')
    named: list[str] = []

    class Asked:
        """The simulated nginx, of which each test of the whole configuration is noted."""

        def __getattr__(self, name: str) -> object:
            return getattr(host.world.nginx, name)

        def full_test(self) -> NginxVerdict:
            named.append(host.world.live("example"))
            return host.world.nginx.full_test()

    ports = replace(host.world.ports, nginx=Asked())  # type: ignore[arg-type]  # it answers as the simulated one
    with host.world.locks.rotation("tester", 1.0) as lock:
        (done,) = rotate([host.wanted(host.sites[0], host.issue())], ports, lock)
    assert (done.result, named) == (Result.REJECTED, [done.generation])


def test_without_nginxs_own_test_nothing_is_rejected_and_the_log_is_quoted(host: Host) -> None:
    refuse(host, 'cannot load certificate "{}"')

    def full_test() -> NginxVerdict:
        raise RotatorError(Reason.APPLY_UNIT, "the unit is not installed", "")

    host.world.nginx.full_test = full_test  # type: ignore[method-assign]  # as where the unit is not installed
    done = host.swap(host.sites[0], host.issue())
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")
    assert "cannot load certificate" in done.message
    assert any("the unit is not installed" in said for said in host.world.said)


def test_a_silent_master_is_not_tested(host: Host) -> None:
    host.world.nginx.ignores_reload = True
    done = host.swap(host.sites[0], host.issue())
    assert (done.reason, host.world.nginx.full_tests) == ("nginx-silent", 0)


def test_a_good_reload_needs_no_test(host: Host) -> None:
    assert host.swap(host.sites[0], host.issue()).result is Result.ROTATED
    assert host.world.nginx.full_tests == 0


def never_proved(host: Host, message: str, *, untested: bool) -> Outcome:
    """The second pair of a site whose first one was never proved, refused with this message."""
    host.swap(host.sites[0], host.issue(), first=True)
    host.world.nginx.start()
    host.world.nginx.dead.add(LISTENERS[1])
    refuse(host, message, untested=untested)
    return host.swap(host.sites[0], host.issue())


def test_a_pair_that_follows_an_unproved_one_is_rejected_by_nginxs_own_test_only(tmp_path: Path) -> None:
    done = never_proved(Host(tmp_path, bare=True), 'cannot load certificate "{}"', untested=True)
    assert (done.result, done.reason) == (Result.DEFERRED, "nginx-refused")


def test_a_recovery_asks_once_why_nginx_refuses_for_all_sites(tmp_path: Path) -> None:
    host = Host(tmp_path, (make_site("a"), make_site("b"), make_site("c")))
    nginx = host.world.nginx
    for worker in nginx.workers_:
        worker.loaded.clear()  # nothing is served as the includes say
    nginx.refuses = (ELSEWHERE,)
    with host.world.locks.rotation("tester", 1.0) as lock:
        lock.begin(["a", "b", "c"])
    outcomes = host.recover()
    assert [(o.reason, o.nginx_words) for o in outcomes] == [("nginx-refused", (ELSEWHERE,))] * 3
    assert nginx.full_tests == 1


def test_an_unchanged_request_after_a_deferred_refusal_is_rotated(host: Host) -> None:
    new = host.issue()
    refuse(host, 'cannot load certificate "{}"', untested=True)
    host.swap(host.sites[0], new)
    host.world.nginx.refuses = ()
    host.world.before_apply = lambda generations, hup: None
    assert (
        host.run(RotationRequest(host.sites[0], host.anchors, host.wanted(host.sites[0], new).candidate))[0].result
        is Result.ROTATED
    )
