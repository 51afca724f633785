"""Who breaks, in words and as a table: what is said for which defect; whether it is so, `tests/clients` asks."""

from __future__ import annotations

import re

import pytest

from rotator.core.problems import Code, Problem, Severity
from rotator.validation.client_support import (
    DOCUMENTED,
    RULES,
    TITLES,
    Client,
    Compatibility,
    Condition,
    predict,
    who_breaks,
)
from tests.support.pages import between, page

URL = "http://ca.example/ica.crt"
OPENSSL = (Client.OPENSSL, Client.CURL, Client.NODE, Client.MOSQUITTO)
COLUMNS = (
    (Client.CHROME,),
    (Client.FIREFOX,),
    OPENSSL,
    (Client.PYTHON,),
    (Client.GO,),
    (Client.JAVA,),
    (Client.ANDROID,),
    (Client.PLATFORM,),
)
CELLS = {
    (Compatibility.ACCEPTS, None): "works",
    (Compatibility.FAILS, None): "**fails**",
    (Compatibility.UNKNOWN, None): "?",
    (Compatibility.DEPENDS, Condition.FETCH): "fetches",
    (Compatibility.DEPENDS, Condition.MEMORY): "if known",
    (Compatibility.DEPENDS, Condition.VERSION): "fails since 3.13",
    (Compatibility.DEPENDS, Condition.STORE): "by its store",
}


def reject(code: Code) -> Problem:
    return Problem(code, Severity.REJECT, "…")


def table() -> str:
    """The table as the manual has it."""
    heads = [", ".join(TITLES[c] for c in group) + ("*" if set(group) <= DOCUMENTED else "") for group in COLUMNS]
    lines = [f"| what is served | code | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for code, rule in RULES.items():
        cells = []
        for group in COLUMNS:
            (cell,) = {CELLS[rule.compatibility(client), rule.depends.get(client)] for client in group}
            cells.append(cell)
        lines.append(f"| {rule.title} | `{code}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_manual_has_the_table_of_the_code() -> None:
    assert between(page("clients"), "who breaks") == table()


def test_the_table_has_a_column_for_every_client() -> None:
    assert sorted(client for group in COLUMNS for client in group) == sorted(Client)


def test_every_line_names_its_source() -> None:
    assert [code for code, rule in RULES.items() if not re.search(r"RFC \d+|OpenSSL", rule.source)] == []


def test_without_a_problem_every_client_accepts() -> None:
    assert {p.compatibility for p in predict([]).values()} == {Compatibility.ACCEPTS}


def test_a_missing_intermediate_is_hidden_only_by_those_who_can_get_it() -> None:
    found = predict([reject(Code.INCOMPLETE_CHAIN)], URL)
    assert {c for c, p in found.items() if p.compatibility is Compatibility.FAILS} == {
        *OPENSSL,
        Client.PYTHON,
        Client.GO,
        Client.JAVA,
        Client.ANDROID,
    }
    assert (found[Client.CHROME].condition, found[Client.CHROME].url) == (Condition.FETCH, URL)
    assert (found[Client.FIREFOX].condition, found[Client.FIREFOX].url) == (Condition.MEMORY, "")


@pytest.mark.parametrize("url", ["", "https://ca.example/ica.crt", "ldap://ca.example/cn=ica"])
def test_nobody_fetches_where_no_http_address_is_named(url: str) -> None:
    assert predict([reject(Code.INCOMPLETE_CHAIN)], url)[Client.CHROME].compatibility is Compatibility.FAILS


def test_of_several_problems_the_worst_counts_and_is_named() -> None:
    found = predict([reject(Code.INCOMPLETE_CHAIN), reject(Code.EXPIRED)], URL)
    assert (found[Client.CHROME].compatibility, found[Client.CHROME].codes) == (Compatibility.FAILS, (Code.EXPIRED,))
    assert found[Client.GO].codes == (Code.INCOMPLETE_CHAIN, Code.EXPIRED)


def test_a_refusal_that_is_not_in_the_table_is_no_prediction() -> None:
    found = predict([reject(Code.SCT_MISSING)])
    assert {(p.compatibility, p.codes) for p in found.values()} == {(Compatibility.UNKNOWN, (Code.SCT_MISSING,))}


def test_a_warning_that_is_not_in_the_table_breaks_nobody() -> None:
    found = predict([Problem(Code.EXPIRES_SOON, Severity.WARN, "…")])
    assert {p.compatibility for p in found.values()} == {Compatibility.ACCEPTS}


def test_who_breaks_is_told_in_sentences() -> None:
    assert who_breaks(reject(Code.INCOMPLETE_CHAIN), URL) == [
        "Who breaks: OpenSSL, curl, Python, Node, mosquitto, Go, Java, Android apps.",
        f"Chrome, Windows, macOS: only if {URL} cannot be reached at that moment.",
        "Firefox: only if it does not know the intermediate yet; it loads those of public CAs in advance.",
    ]


def test_where_nothing_can_be_fetched_that_is_not_offered_as_a_way_out() -> None:
    lines = who_breaks(reject(Code.INCOMPLETE_CHAIN))
    assert lines[0].startswith("Who breaks: Chrome, ")
    assert len(lines) == 2


def test_where_everybody_breaks_that_is_said() -> None:
    assert who_breaks(reject(Code.EXPIRED)) == ["Who breaks: every client."]


def test_where_only_a_version_breaks_that_is_said() -> None:
    assert who_breaks(reject(Code.NO_AKI)) == ["Who breaks: Python: since 3.13."]


def test_of_a_distrusted_root_the_browsers_are_named_and_nobody_else() -> None:
    assert who_breaks(reject(Code.DISTRUSTED_ROOT)) == [
        "Who breaks: Chrome, Firefox: only if its own root store distrusts the root."
    ]


@pytest.mark.parametrize("code", [Code.CHAIN_ORDER, Code.ROOT_INCLUDED, Code.KEY_MISSING])
def test_where_nobody_is_known_to_break_nothing_is_said(code: Code) -> None:
    assert who_breaks(reject(code)) == []
