"""What holds for all tests: the tiers, both nginx where they may differ, and that a run leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support import leftovers
from tests.support.places import own_directory
from tests.support.scheduling import group_of
from tests.support.tiers import CHOICES, TIERS, Size, sample, tiers_of

os.environ.pop("PYTHONUNBUFFERED", None)  # it hides what a command does when its output cannot be written

os.umask(0o022)  # Debian 13 gives its users 0002, and rotator refuses much that a group may write

WITHIN = 5.0
"""Seconds within which what a test has ended is gone."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The choice of tiers."""
    group = parser.getgroup("tiers")
    group.addoption("--tier", metavar="TIER[,TIER…]", help=f"which tests run: {', '.join(CHOICES)}")
    group.addoption("--seed", type=int, help="of the sample of soak, and of what is random in soak; chosen if left out")


def pytest_configure(config: pytest.Config) -> None:
    """Chooses the seed before any worker is started, so that all have the same one."""
    try:
        config.stash[TIERS_OF] = tiers_of(config.option.tier, config.args)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    if hasattr(config, "workerinput"):
        config.option.seed = config.workerinput["seed"]
    elif config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1_000_000)
    if not is_worker(config):
        config.stash[RUN], config.stash[MOUNTED] = leftovers.mark(), leftovers.mounts()


def pytest_configure_node(node: Any) -> None:
    """Gives each worker the seed of the run, also where it was chosen here."""
    node.workerinput["seed"] = node.config.option.seed


TIERS_OF = pytest.StashKey[frozenset[str]]()
RUN = pytest.StashKey[str]()
MOUNTED = pytest.StashKey[frozenset[str]]()
LEFT = pytest.StashKey[list[str]]()


def is_worker(config: pytest.Config) -> bool:
    """Whether this process only runs tests for another one."""
    return hasattr(config, "workerinput")


def pytest_report_header(config: pytest.Config) -> str:
    """Which tests run, and what happens before the first of them."""
    names = ", ".join(name for name in CHOICES if name in config.stash[TIERS_OF])
    return (
        f"tiers: {names}; seed: {config.option.seed}\n"
        "Each worker first imports all tests, which takes some seconds; then there is one dot for each test."
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that is marked `each_nginx` runs on both; on mainline nginx it belongs to the contract."""
    if "nginx_binary" in metafunc.fixturenames and metafunc.definition.get_closest_marker("each_nginx"):
        kinds = ["debian", pytest.param("mainline", marks=pytest.mark.contract)]
        metafunc.parametrize("nginx_binary", kinds, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the tests of other tiers out."""
    wanted = config.stash[TIERS_OF]
    sampled = set(_sample(items, config.option.seed)) if "sample" in wanted and "soak" not in wanted else set()
    kept = {item for item in items if tier_of(item) in wanted or item in sampled}
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


def tier_of(item: pytest.Item) -> str:
    """The last tier whose mark the test has."""
    return next((name for name in reversed(TIERS) if item.get_closest_marker(name)), "default")


def _sample(items: list[pytest.Item], seed: int) -> list[pytest.Item]:
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if tier_of(item) == "soak":
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return sample(cases, seed)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three workers for two processors: a worker that waits for nginx leaves its processor to another one."""
    return max(2, len(os.sched_getaffinity(0)) * 3 // 2)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Each worker takes the next test when it is done with one; what shares a costly fixture goes to one worker."""

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Together(config, log)


@pytest.fixture(scope="session")
def size(pytestconfig: pytest.Config) -> Size:
    """How much of a soak test runs."""
    return Size(pytestconfig.option.seed, whole="soak" in pytestconfig.stash[TIERS_OF])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests that only root can do for other users, and lets Ctrl-C end what a test starts.

    A background job ignores SIGINT, and the demo does so at its end; every process that a test starts would inherit it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: sudo .venv/bin/pytest -m root --tier default,contract")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """A run that leaves a process, a listener or a mount behind has failed."""
    result = yield
    config = session.config
    if is_worker(config) or config.option.collectonly:
        return result
    deadline, mounted = time.monotonic() + WITHIN, config.stash[MOUNTED]
    while found := leftovers.left(config.stash[RUN], spared=_above(), mounted=mounted):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    config.stash[LEFT] = found
    if found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


def _above() -> set[int]:
    """This process and those that have started it."""
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names what was left behind."""
    if found := config.stash.get(LEFT, []):
        terminalreporter.section("left behind", red=True)
        for line in found:
            terminalreporter.line(line)


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory of root's alone that every user can reach, for tests of root."""
    with own_directory() as made:
        yield made
