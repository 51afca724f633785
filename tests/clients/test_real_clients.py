"""Who breaks, asked of those who do: real clients against a real nginx, beside what `rotator check` says of each.

A prediction that depends on something is resolved by what the case has: whether the CA's server can be reached,
whether the browser has the intermediate already, which version's flags Python has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest

from rotator.clients import RULES, Client, Condition, Fate
from rotator.model import Code
from tests.cli.calls import call
from tests.clients import programs
from tests.clients.browsers import Browser, Chromium, Firefox
from tests.clients.cases import Case
from tests.clients.conftest import Ground, require

pytestmark = pytest.mark.clients


def wrong(
    ground: Ground, client: Client, answers: Mapping[str, str], *, known: Collection[str] = (), strict: bool = False
) -> dict[str, str]:
    """Where a client did not do what was predicted: what was said of it, and its own words.

    Args:
        ground: what was served and predicted.
        client: which.
        answers: by case, its words where it refused; empty where it accepted.
        known: cases whose missing certificate it has already.
        strict: whether Python had the flags of 3.13.
    """
    assert answers
    found = {}
    for case in ground.cases:
        if case.name not in answers:
            continue
        said = ground.predicted[case.name][client]
        fine = {
            (Fate.ACCEPTS, None): True,
            (Fate.FAILS, None): False,
            (Fate.DEPENDS, Condition.FETCH): case.fetched == "reachable",
            (Fate.DEPENDS, Condition.MEMORY): case.name in known,
            (Fate.DEPENDS, Condition.VERSION): not strict,
        }[said["fate"], said["on"]]
        if fine != (not answers[case.name]):
            found[case.name] = f"predicted {said}, but: {answers[case.name] or 'accepted'}"
    return found


def visited(browser: Browser, ground: Ground, cases: Sequence[Case], refusal: str) -> dict[str, str]:
    """What a browser makes of each case; a page that fails for another reason than its certificate is no answer."""
    answers = dict(zip((c.name for c in cases), browser.visit([ground.url(c) for c in cases]), strict=True))
    assert {name: words for name, words in answers.items() if words and not words.startswith(refusal)} == {}
    return answers


def test_every_line_of_the_table_is_met_by_a_case(ground: Ground) -> None:
    assert {code for case in ground.cases for code in case.codes} == set(RULES)


def test_what_is_said_of_a_good_chain_is_that_all_accept_it(ground: Ground) -> None:
    assert {said["fate"] for said in ground.predicted["full chain"].values()} == {Fate.ACCEPTS}


def test_chromium_fetches_what_is_missing_and_fails_where_it_cannot(ground: Ground) -> None:
    require("chromium", "certutil")
    with Chromium(ground.root / "chromium", ground.root_files) as browser:
        print(browser.version())
        answers = visited(browser, ground, ground.cases, "net::ERR_CERT_")
    assert wrong(ground, Client.CHROME, answers) == {}


def test_firefox_fetches_nothing_and_uses_the_intermediates_that_it_has(ground: Ground) -> None:
    require("firefox-esr", "certutil")
    known = tuple(ground.mending.values())
    with Firefox(ground.root / "firefox", ground.root_files, known) as browser:
        print(browser.version())
        answers = visited(browser, ground, ground.cases, "insecure certificate")
    assert wrong(ground, Client.FIREFOX, answers, known=ground.mending) == {}
    assert len(known) == 2


def test_curl_does_as_predicted(ground: Ground) -> None:
    require("curl")
    answers = {name: programs.curl(case, port, ground.roots) for name, (case, port) in ground.targets.items()}
    assert wrong(ground, Client.CURL, answers) == {}


def test_openssl_does_as_predicted(ground: Ground) -> None:
    require("openssl")
    answers = {name: programs.openssl(case, port, ground.roots) for name, (case, port) in ground.targets.items()}
    assert wrong(ground, Client.OPENSSL, answers) == {}


@pytest.mark.parametrize("strict", [False, True], ids=["before 3.13", "since 3.13"])
def test_python_does_as_predicted(ground: Ground, strict: bool) -> None:
    answers = {
        name: programs.python(case, port, ground.roots, strict=strict) for name, (case, port) in ground.targets.items()
    }
    assert wrong(ground, Client.PYTHON, answers, strict=strict) == {}


def test_node_does_as_predicted(ground: Ground) -> None:
    require("node")
    assert wrong(ground, Client.NODE, programs.node(ground.targets, ground.roots)) == {}


def test_java_does_as_predicted(ground: Ground) -> None:
    require("java", "javac")
    assert wrong(ground, Client.JAVA, programs.java(ground.targets, ground.roots)) == {}


def test_go_does_as_predicted(ground: Ground) -> None:
    require("prometheus")
    assert wrong(ground, Client.GO, programs.go(ground.targets, ground.roots, ground.root / "go")) == {}


def test_mosquitto_does_as_predicted(ground: Ground) -> None:
    require("mosquitto", "mosquitto_sub")
    with programs.broker(ground.root / "broker", ground.cases) as ports:
        answers = {name: programs.mosquitto(port, ground.roots) for name, port in ports.items()}
    assert wrong(ground, Client.MOSQUITTO, answers) == {}


def test_a_probe_of_what_is_served_predicts_the_same_as_a_check_of_the_files(ground: Ground) -> None:
    for case in ground.cases:
        result = call(
            *("probe", f"127.0.0.1:{ground.ports[case.name]}", "--name", case.host, "--roots", ground.roots, "--json")
        )
        (served,) = result.answer["served"]
        assert served["clients"] == ground.predicted[case.name], case.name
        breaks = any(said["fate"] == Fate.FAILS for said in served["clients"].values())
        harmless = case.codes <= {code for code, rule in RULES.items() if Fate.FAILS not in map(rule.fate, Client)}
        assert breaks != harmless, case.name
        assert result.status == (3 if served["codes"] else 0), case.name


def test_negative_control_a_table_that_is_wrong_in_one_cell_is_noticed(ground: Ground) -> None:
    require("openssl")
    (case,) = [case for case in ground.cases if Code.ORDER_SENSITIVE in case.codes]
    hope: dict[str, dict[str, object]] = {Client.OPENSSL: {"fate": Fate.ACCEPTS, "on": None}}
    hopeful = replace(ground, predicted={case.name: hope}, cases=(case,))
    answers = {case.name: programs.openssl(case, ground.ports[case.name], ground.roots)}
    assert "certificate has expired" in wrong(hopeful, Client.OPENSSL, answers)[case.name]
