"""Who breaks, asked of those who do: real clients against a real nginx, beside what `rotator check` says of each.

A prediction that depends on something is resolved by what the case has: whether the CA's server can be reached,
whether the browser has the intermediate already, which version's flags Python has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest

from rotator.core.problems import Code
from rotator.validation.client_support import BY_ROOT_STORE, RULES, Client, Compatibility, Condition
from tests.clients import programs
from tests.clients.browsers import Browser, Chromium, Firefox
from tests.clients.cases import Case
from tests.clients.conftest import Servers, require
from tests.support.calls import call

pytestmark = pytest.mark.contract


def wrong(
    servers: Servers, client: Client, answers: Mapping[str, str], *, known: Collection[str] = (), strict: bool = False
) -> dict[str, str]:
    """Where a client did not do what was predicted: what was said of it, and its own words.

    Args:
        servers: what was served and predicted.
        client: which.
        answers: by case, its words where it refused; empty where it accepted.
        known: cases whose missing certificate it has already.
        strict: whether Python had the flags of 3.13.
    """
    assert answers
    found = {}
    for case in servers.cases:
        if case.name not in answers:
            continue
        said = servers.predicted[case.name][client]
        fine = {
            (Compatibility.ACCEPTS, None): True,
            (Compatibility.FAILS, None): False,
            (Compatibility.DEPENDS, Condition.FETCH): case.fetched == "reachable",
            (Compatibility.DEPENDS, Condition.MEMORY): case.name in known,
            (Compatibility.DEPENDS, Condition.VERSION): not strict,
        }[said["fate"], said["on"]]
        if fine != (not answers[case.name]):
            found[case.name] = f"predicted {said}, but: {answers[case.name] or 'accepted'}"
    return found


def visited(browser: Browser, servers: Servers, cases: Sequence[Case], refusal: str) -> dict[str, str]:
    """What a browser makes of each case; a page that fails for another reason than its certificate is no answer."""
    answers = dict(zip((c.name for c in cases), browser.visit([servers.url(c) for c in cases]), strict=True))
    assert {name: words for name, words in answers.items() if words and not words.startswith(refusal)} == {}
    return answers


def test_every_line_of_the_table_is_met_by_a_case(servers: Servers) -> None:
    assert {code for case in servers.cases for code in case.codes} == set(RULES) - BY_ROOT_STORE


def test_what_is_said_of_a_good_chain_is_that_all_accept_it(servers: Servers) -> None:
    assert {said["fate"] for said in servers.predicted["full chain"].values()} == {Compatibility.ACCEPTS}


def test_chromium_fetches_what_is_missing_and_fails_where_it_cannot(servers: Servers) -> None:
    require("chromium", "certutil")
    with Chromium(servers.root / "chromium", servers.root_files) as browser:
        print(browser.version())
        answers = visited(browser, servers, servers.cases, "net::ERR_CERT_")
    assert wrong(servers, Client.CHROME, answers) == {}


def test_firefox_fetches_nothing_and_uses_the_intermediates_that_it_has(servers: Servers) -> None:
    require("firefox-esr", "certutil")
    known = tuple(servers.mending.values())
    with Firefox(servers.root / "firefox", servers.root_files, known) as browser:
        print(browser.version())
        answers = visited(browser, servers, servers.cases, "insecure certificate")
    assert wrong(servers, Client.FIREFOX, answers, known=servers.mending) == {}
    assert len(known) == 2


def test_curl_does_as_predicted(servers: Servers) -> None:
    require("curl")
    answers = {name: programs.curl(case, port, servers.roots) for name, (case, port) in servers.targets.items()}
    assert wrong(servers, Client.CURL, answers) == {}


def test_openssl_does_as_predicted(servers: Servers) -> None:
    require("openssl")
    answers = {name: programs.openssl(case, port, servers.roots) for name, (case, port) in servers.targets.items()}
    assert wrong(servers, Client.OPENSSL, answers) == {}


@pytest.mark.parametrize("strict", [False, True], ids=["before 3.13", "since 3.13"])
def test_python_does_as_predicted(servers: Servers, strict: bool) -> None:
    answers = {
        name: programs.python(case, port, servers.roots, strict=strict)
        for name, (case, port) in servers.targets.items()
    }
    assert wrong(servers, Client.PYTHON, answers, strict=strict) == {}


def test_node_does_as_predicted(servers: Servers) -> None:
    require("node")
    assert wrong(servers, Client.NODE, programs.node(servers.targets, servers.roots)) == {}


def test_java_does_as_predicted(servers: Servers) -> None:
    require("java", "javac")
    assert wrong(servers, Client.JAVA, programs.java(servers.targets, servers.roots)) == {}


def test_go_does_as_predicted(servers: Servers) -> None:
    require("prometheus")
    assert wrong(servers, Client.GO, programs.go(servers.targets, servers.roots, servers.root / "go")) == {}


def test_mosquitto_does_as_predicted(servers: Servers) -> None:
    require("mosquitto", "mosquitto_sub")
    with programs.broker(servers.root / "broker", servers.cases) as ports:
        answers = {name: programs.mosquitto(port, servers.roots) for name, port in ports.items()}
    assert wrong(servers, Client.MOSQUITTO, answers) == {}


def test_a_probe_of_what_is_served_predicts_the_same_as_a_check_of_the_files(servers: Servers) -> None:
    for case in servers.cases:
        result = call(
            *("probe", f"127.0.0.1:{servers.ports[case.name]}", "--name", case.host, "--roots", servers.roots, "--json")
        )
        (served,) = result.answer["served"]
        assert served["clients"] == servers.predicted[case.name], case.name
        breaks = any(said["fate"] == Compatibility.FAILS for said in served["clients"].values())
        harmless = case.codes <= {
            code for code, rule in RULES.items() if Compatibility.FAILS not in map(rule.compatibility, Client)
        }
        assert breaks != harmless, case.name
        assert result.status == (3 if served["codes"] else 0), case.name


def test_negative_control_a_table_that_is_wrong_in_one_cell_is_noticed(servers: Servers) -> None:
    require("openssl")
    (case,) = [case for case in servers.cases if Code.ORDER_SENSITIVE in case.codes]
    hope: dict[str, dict[str, object]] = {Client.OPENSSL: {"fate": Compatibility.ACCEPTS, "on": None}}
    hopeful = replace(servers, predicted={case.name: hope}, cases=(case,))
    answers = {case.name: programs.openssl(case, servers.ports[case.name], servers.roots)}
    assert "certificate has expired" in wrong(hopeful, Client.OPENSSL, answers)[case.name]
