"""The pages of the manual say what is so: each table is compared with the code that it describes."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rotator.cli import COMMANDS, cli
from rotator.cli.context import Context
from rotator.config import check
from rotator.config.schema import DEFAULTS, METRICS, NGINX, POLICY, SITE, TOP, Key
from rotator.core.errors import Exit
from rotator.core.model import KeyType, Outcome, Result, Workers
from rotator.core.problems import Code
from rotator.core.reasons import Reason
from rotator.metrics import Counters, InputState, LastResult, SiteFacts, Snapshot
from rotator.metrics.collector import exposition
from rotator.metrics.snapshot import CertificateFacts, ProbeFacts, ServedFacts
from tests.support.calls import call
from tests.support.pages import MANUAL, PAGES, README, ROOT, between, page, rows, section, shell, words

TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (README, *PAGES)}
LINKED = [README, *PAGES, *sorted((ROOT / ".github").glob("*.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_begins_with_a_title_and_a_sentence(path: Path) -> None:
    assert re.match(r"# .+\n\n[A-Z`].+", path.read_text())


def test_every_page_is_shipped_in_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["rotator"]
    shipped = {path for pattern in patterns for path in (ROOT / "rotator").glob(pattern)}
    assert {path for path in MANUAL.rglob("*") if path.is_file()} - shipped == set()


# -- codes ------------------------------------------------------------------------------------------------------------


def test_every_code_is_explained_once() -> None:
    assert sorted(words(between(page("codes"), "codes"))) == sorted(Code)


def test_every_exit_status_is_explained() -> None:
    statuses = [cells[0] for cells in rows(between(page("codes"), "exit statuses"))]
    assert statuses == [str(int(status)) for status in Exit]


def test_every_result_is_explained_once() -> None:
    assert sorted(words(between(page("codes"), "results"))) == sorted(Result)


@pytest.mark.parametrize("mark", ["codes", "reasons", "exit statuses"])
def test_every_code_and_reason_has_what_it_means_and_what_to_do(mark: str) -> None:
    assert [cells for cells in rows(between(page("codes"), mark)) if len(cells) != 3 or not all(cells)] == []


def test_every_reason_is_explained_once() -> None:
    assert sorted(words(between(page("codes"), "reasons"))) == sorted(Reason)


# -- configuration ----------------------------------------------------------------------------------------------------

TABLES: Mapping[str, Mapping[str, Key]] = {
    "At the top of the file": TOP,
    "`[nginx]`": NGINX,
    "`[metrics]`": METRICS,
    "`[defaults]` and `[[site]]`": DEFAULTS,
    "`[[site]]` alone": {name: key for name, key in SITE.items() if name not in DEFAULTS},
    "`policy`": POLICY,
}


def as_toml(key: Key) -> str:
    return "required" if key.default is None else f"`{json.dumps(key.default)}`"


@pytest.mark.parametrize("heading", TABLES)
def test_every_option_stands_with_its_default(heading: str) -> None:
    described = [(cells[0].strip("`"), cells[1]) for cells in rows(section(page("configuration"), heading))]
    assert described == [(name, as_toml(key)) for name, key in TABLES[heading].items()]


def test_the_example_has_the_options_of_the_page() -> None:
    example = (ROOT / "conf.example.toml").read_text()
    written = re.findall(r"^#?(\w+) = ", example, re.MULTILINE)
    in_policy = re.findall(r"(\w+) = ", re.findall(r"^#policy = \{(.*)\}", example, re.MULTILINE)[-1])
    options = [cells[0].strip("`") for heading in TABLES for cells in rows(section(page("configuration"), heading))]
    assert {*written, *in_policy} == set(options)


def test_the_smallest_configuration_loads() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", page("configuration"), re.DOTALL)
    _, mistakes = check(text, "rotator.toml")
    assert (tomllib.loads(text)["site"][0]["name"], mistakes) == ("example.cn", ())


# -- metrics and events -----------------------------------------------------------------------------------------------


def exposed() -> str:
    """The live exposition of a daemon that knows everything of one site."""
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    certificate = CertificateFacts(KeyType.RSA, now, now, now, "ab", "1f", "CN=Test CA")
    served = ServedFacts("127.0.0.1:443", KeyType.RSA, now, now, matches=True)
    probe = ProbeFacts("127.0.0.1:443", successful=True, at=now)
    site = SiteFacts(
        "example.cn", (certificate,), (served,), (probe,), InputState.ACCEPTED, live_accepted=True, undecided_since=now
    )
    counters = (
        Counters()
        .after(Outcome("example.cn", Result.ROTATED, now, Reason.ROTATED), "drop")
        .after_reload(None, now, 0.05)
    )
    workers = Workers(1, frozenset({(2, 0)}), frozenset({(3, 0)}))
    seconds = timedelta(seconds=15)
    snapshot = Snapshot((site,), workers, watcher_up=True, scanned_at=now, scan_interval=seconds, counters=counters)
    return exposition(replace(snapshot, config=LastResult(True, now))).decode()


def test_every_metric_stands_with_its_type_and_labels() -> None:
    shown = {}
    for family in text_string_to_metric_families(exposed()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown[name] = (family.type, labels)
    described = {
        cells[0].strip("`"): (cells[1], set(re.findall(r"`(\w+)`", cells[2]))) for cells in rows(page("metrics"))
    }
    assert described == shown


def events(tree: ast.AST) -> Iterator[str]:
    """The events of the log that the source names, as far as they stand there."""
    named = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="say", value=ast.Attribute(attr="journal")), args=[event, *_]):
                event = named.get(event.id, event) if isinstance(event, ast.Name) else event
                branches = [event.body, event.orelse] if isinstance(event, ast.IfExp) else [event]
                values = [one.value for one in branches if isinstance(one, ast.Constant)]
                yield from (value for value in values if isinstance(value, str))


def test_every_event_of_the_log_is_explained() -> None:
    sources = sorted((ROOT / "rotator" / "daemon").glob("*.py"))
    said = {event for path in sources for event in events(ast.parse(path.read_text()))}
    assert said > {"settling", "live-unfit", "watch-back"}
    explained = set(words(between(page("hosts"), "events")))
    assert said - {*explained, *words(page("codes"))} == set()
    assert explained - {*said, *Result} == set()


# -- what is shown to be typed ----------------------------------------------------------------------------------------


def test_every_command_that_is_shown_is_a_valid_one() -> None:
    """As far as it can be seen without a host: the command and its options exist."""
    shown = shell("\n".join(TEXTS.values()))
    found = re.findall(r"(?:^|&& |')rotator ((?:[^&'|#\n])+)", shown, re.MULTILINE)
    assert len(found) > 10
    for line in found:
        name, *rest = line.split()
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, line
        if not isinstance(command, click.Group):
            command.make_context(name, rest, parent=click.Context(cli, obj=Context()))


def test_every_command_that_a_sentence_names_exists() -> None:
    named = re.findall(r"`rotator ([a-z]+)\b", "\n".join(TEXTS.values()))
    assert len(named) > 50
    assert set(named) - set(COMMANDS) == set()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_word_that_is_to_be_asked_for_is_explained(text: str) -> None:
    asked = set(re.findall(r"`rotator help ([a-z0-9.-]+)`", text))
    assert [word for word in sorted(asked) if call("help", word).status != Exit.DONE] == []


def test_the_units_that_are_installed_exist() -> None:
    named = re.findall(r"(?<!/)\bsystemd/([\w@.-]+)", "\n".join(TEXTS.values()))
    assert len(named) > 8
    assert [name for name in named if not (ROOT / "systemd" / name).is_file()] == []


def test_every_unit_is_explained() -> None:
    named = set(re.findall(r"`(rotator[\w@-]*\.\w+)`", re.sub("@SITE", "@", section(page("hosts"), "Units"))))
    assert {path.name for path in (ROOT / "systemd").glob("rotator*")} - named == set()


@pytest.mark.parametrize("text", [README.read_text(), page("sources")], ids=["README", "sources"])
def test_a_hook_of_certbot_begins_with_a_command_that_certbot_can_find(text: str) -> None:
    """certbot looks for the first word of a hook in PATH and refuses one that the shell alone knows, such as cd."""
    assert re.findall(r"--deploy-hook[\s\\]+'(\S+)", text) == ["rotator"]


# -- guarantees -------------------------------------------------------------------------------------------------------


def test_every_guarantee_names_tests_that_exist() -> None:
    parts = re.split(r"^## ", page("guarantees"), flags=re.MULTILINE)[1:]
    missing, without = [], []
    for part in parts:
        named = re.findall(r"^- `(tests/[\w/]+\.py)::(\w+)`$", part, re.MULTILINE)
        if not named:
            without.append(part.partition("\n")[0])
        for path, test in named:
            tree = ast.parse((ROOT / path).read_text())
            if test not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
                missing.append(f"{path}::{test}")
    assert len(parts) > 5
    assert (missing, without) == ([], [])


def test_every_benchmark_that_is_named_exists() -> None:
    named = re.findall(r"python -m (tests[\w.]+)", "\n".join(TEXTS.values()))
    assert len(named) > 3
    assert [name for name in named if not (ROOT / f"{name.replace('.', '/')}.py").is_file()] == []


# -- links ------------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        leads_to = (path.parent / file).resolve() if file else path
        if not leads_to.exists() or (anchor and anchor not in anchors(leads_to.read_text())):
            dead.append(target)
    assert dead == []


def test_the_anchor_of_a_heading_is_that_of_github() -> None:
    assert anchors("# A CA's `zip`, again\n```\n# no heading\n```\n") == {"a-cas-zip-again"}
