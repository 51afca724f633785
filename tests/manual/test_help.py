"""`rotator help`: topics, words and commands are found and shown, drawn on a terminal and as plain text elsewhere."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from rotator.cli import COMMANDS, cli, manual, markdown
from rotator.cli.output import Output
from rotator.config.schema import NGINX, TOP
from rotator.core.errors import Exit
from rotator.core.problems import Code
from tests.support.authority import CA, NOW, pem
from tests.support.calls import call
from tests.support.pages import PAGES, page, rows

TOPICS = [path.stem for path in PAGES]
METRICS = [cells[0].strip("`") for cells in rows(page("metrics"))]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, text: str, columns: int = 80) -> str:
    """What a terminal of so many columns gets for a text."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    markdown.show(text, Output())
    return stream.getvalue()


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# -- topics -----------------------------------------------------------------------------------------------------------


def test_without_a_word_every_topic_is_listed_with_its_line() -> None:
    shown = " ".join(call("help").stdout.split())
    assert [one.name for one in manual.load() if f"{one.name} {one.line}" not in shown] == []


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_shows_its_whole_page(topic: str) -> None:
    shown = call("help", topic).stdout
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page(topic), flags=re.DOTALL | re.MULTILINE), re.M)
    assert [one for one in headings if one not in shown] == []


def test_no_comment_of_a_page_is_shown() -> None:
    assert "<!--" not in "".join(call("help", topic).stdout + call("help", topic, "--json").stdout for topic in TOPICS)


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", Code)
def test_every_code_is_found(code: Code) -> None:
    assert call("help", code).stdout.startswith(f"`{code}` (")


@pytest.mark.parametrize("status", Exit)
def test_every_exit_status_is_found(status: Exit) -> None:
    assert call("help", str(int(status))).stdout.startswith(f"`{int(status)}` (Exit statuses")


@pytest.mark.parametrize("reason", ["nginx-down", "not-wired", "apply-denied", "min-reload-interval"])
def test_the_reason_of_an_outcome_is_found(reason: str) -> None:
    assert "Reasons" in call("help", reason).stdout


@pytest.mark.parametrize("option", [*TOP, *(f"nginx.{name}" for name in NGINX), "policy.max_lifetime", "site.names"])
def test_an_option_is_found_with_and_without_its_table(option: str) -> None:
    for word in (option, option.rpartition(".")[2]):
        assert "rotator help configuration" in call("help", word).stdout


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_is_found_with_and_without_its_prefix(metric: str) -> None:
    for word in (metric, metric.removeprefix("rotator_")):
        assert f"`{metric}`" in call("help", word).stdout


def test_a_series_of_a_histogram_leads_to_its_metric() -> None:
    assert call("help", "rotator_swap_duration_seconds_bucket").stdout.startswith("`rotator_swap_duration_seconds`")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_shows_its_own_help(command: str) -> None:
    assert call("help", command).stdout.startswith(call(command, "--help").stdout.rstrip("\n"))


def test_a_command_of_a_group_shows_its_own_help() -> None:
    assert call("help", "config", "check").stdout.startswith("Usage: rotator config check ")


def test_several_hits_are_all_shown_with_their_page() -> None:
    shown = call("help", "incomplete-chain").stdout
    assert [name for name in ("codes", "clients") if f"`rotator help {name}`" in shown] == ["codes", "clients"]
    assert shown.index("what to do") < shown.index("mosquitto")  # what it means comes before who breaks


def test_a_word_may_be_written_as_in_the_source_or_in_capitals() -> None:
    assert call("help", "INCOMPLETE_CHAIN").stdout == call("help", "incomplete-chain").stdout


def test_a_heading_shows_its_section() -> None:
    assert "bash_source" in call("help", "completion").stdout


def test_a_row_explains_every_word_of_its_first_cell() -> None:
    text = "# Words\n\nAll of them.\n\n| word | meaning |\n|---|---|\n| `drop`, `inbox` | Where \\| is. |\n"
    (entry,) = manual.entries_for("inbox", [manual.Page("words", text)])
    assert (entry.words, entry.section) == (("drop", "inbox"), "Words")


def test_a_word_of_the_glossary_is_found() -> None:
    assert "from `rotator help glossary`" in call("help", "generation").stdout


# -- completion -------------------------------------------------------------------------------------------------------


def offered(begun: str) -> list[str]:
    """What a Tab offers behind `rotator help`."""
    completion = ShellComplete(cli, {}, "rotator", "_ROTATOR_COMPLETE")
    return [item.value for item in completion.get_completions(["help"], begun)]


def test_the_topics_are_offered() -> None:
    assert offered("") == TOPICS


def test_behind_a_letter_every_explained_word_is_offered() -> None:
    assert {"codes", "completion", "configuration", "cold"} & set(offered("co")) == {"codes", "configuration"}
    assert offered("incomplete-") == ["incomplete-chain"]


# -- words that are not found -----------------------------------------------------------------------------------------


def test_an_unknown_word_is_a_usage_error_with_the_nearest_ones() -> None:
    called = call("help", "incomplete-chian")
    assert (called.status, called.stdout) == (Exit.USAGE, "")
    assert "Did you mean: incomplete-chain" in called.stderr


def test_a_part_of_a_word_is_completed() -> None:
    assert "incomplete-chain" in call("help", "incomplete").stderr


def test_a_misspelt_command_is_completed() -> None:
    assert "rollback" in call("help", "rollbck").stderr


def test_a_word_that_is_like_no_other_leads_to_the_topics() -> None:
    assert call("help", "zzzzzz").stderr.endswith("hint: All topics: rotator help\n")


# -- answers as JSON --------------------------------------------------------------------------------------------------


def test_the_topics_as_json() -> None:
    assert [one["topic"] for one in call("help", "--json").answer["topics"]] == TOPICS


def test_a_word_as_json() -> None:
    answer = call("help", "settle", "--json").answer
    assert (answer["entries"][0]["topic"], answer["entries"][0]["cells"]["default"]) == ("configuration", '"10s"')


def test_an_unknown_word_as_json() -> None:
    assert call("help", "zzzzzz", "--json").answer["error"]["code"] == "usage"


# -- drawn and plain --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("form", ["drawn", "plain"])
def test_no_line_of_a_page_is_wider_than_80_columns_but_those_to_be_copied(
    topic: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = next(one.text for one in manual.load() if one.name == topic)
    shown = without_colour(drawn(monkeypatch, text)) if form == "drawn" else markdown.plain(text)
    copied = {
        f"    {line}".rstrip()
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
        for line in block.split("\n")
    }
    lines = [line.rstrip() for line in shown.splitlines()]
    assert [line for line in lines if len(line) > 80 and line not in copied] == []
    assert copied - {""} <= set(lines)


@pytest.mark.parametrize("form", ["drawn", "plain"])
def test_every_cell_of_a_table_is_shown_whole(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page("codes")
    shown = without_colour(drawn(monkeypatch, text)) if form == "drawn" else markdown.plain(text)
    said = set(re.findall(r"\w+", shown))
    assert [cell for cells in rows(text) for cell in cells if set(re.findall(r"\w+", cell)) - said] == []


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in drawn(monkeypatch, "# Title\n")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_no_colour_gets_plain_text(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv(name, value)
    markdown.show("# Title\n\nwith `code`\n", Output())
    assert stream.getvalue() == "Title\n=====\n\nwith `code`\n"


def test_plain_is_plain_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    markdown.show("a [link](codes.md)\n", Output(plain=True))
    assert stream.getvalue() == "a link (`rotator help codes`)\n"


def test_few_values_in_many_columns_are_shown_the_other_way_round() -> None:
    heads, cells = (
        "| case | code | A1 | B1 | C1 | D1 | E1 |",
        f"| {'long ' * 20}| `x` | works | fails | works | ? | fails |",
    )
    shown = markdown.plain(f"{heads}\n{'|---' * 7}|\n{cells}\n")
    assert re.search(r"\(`x`\)\n  works +A1, C1\n  fails +B1, E1\n  \? +D1", shown)


# -- what it costs, and where it is pointed to ------------------------------------------------------------------------


def test_neither_a_tab_nor_a_code_loads_a_heavy_library() -> None:
    code = "import sys; from rotator.cli import manual, help; manual.load(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in run.stdout.split()} & {"rich", "cryptography", "markdown_it"} == set()


def test_the_end_of_a_rejection_names_the_word_to_ask_for(tmp_path: Path) -> None:
    ca = CA.root()
    (tmp_path / "chain.pem").write_bytes(ca.issue("signal.example.cn").chain_pem)
    (tmp_path / "roots.pem").write_bytes(pem(ca.cert))
    files: list[str | Path] = ["--cert", tmp_path / "chain.pem", "--roots", tmp_path / "roots.pem", "--private-ca"]
    shown = call("check", *files, "--name", "other.example.cn", "--at", NOW.isoformat()).stdout
    assert shown.splitlines()[-1] == "more: rotator help name-mismatch"
