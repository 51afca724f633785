"""A simulated nginx that several processes share: what it serves stands in a file, a reload takes no time; no tests.

The other simulator lives in one process with its clock. This one is for races between processes over the real store,
the real lock and the real includes.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rotator.apply import Setup
from rotator.model import KeyType, Served, Target, Workers
from rotator.nginx.candidate import Verdict
from tests.simulator import SimNginx, SimTest

MASTER = 1000
Chains = Mapping[KeyType, tuple[bytes, ...]]


@dataclass(frozen=True)
class Shown:
    """What is served since the last reload.

    Args:
        hups: how many reloads there were; it makes the workers' identity.
        chains: by site.
    """

    hups: int
    chains: Mapping[str, Chains]


class SharedNginx:
    """nginx for several processes.

    Args:
        reader: reads the includes and the copies, as nginx does.
        path: where what is served stands.
        pause: seconds that the next reload takes, so that others come in between.
    """

    def __init__(self, reader: SimNginx, path: Path, pause: Callable[[], float]) -> None:
        self._reader, self._path, self._pause = reader, path, pause
        self._write(Shown(0, reader.snapshot()))

    @property
    def shown(self) -> Shown:
        found: Shown = pickle.loads(self._path.read_bytes())
        return found

    def _write(self, shown: Shown) -> None:
        new = self._path.with_suffix(".new")
        new.write_bytes(pickle.dumps(shown))
        new.rename(self._path)

    def hup(self, _: Setup) -> tuple[int, str, tuple[str, ...]]:
        time.sleep(self._pause())
        self._write(Shown(self.shown.hups + 1, self._reader.snapshot()))
        return MASTER, "accepted", ()

    # -- the hand

    def workers(self) -> Workers:
        hups = self.shown.hups
        return Workers(MASTER, frozenset({(MASTER + 1 + hups, hups * 100)}))

    def test_candidate(self, directory: Path, files: Sequence[tuple[str, str]]) -> SimTest:
        assert all((directory / name).is_file() for pair in files for name in pair)
        return SimTest(Verdict(ok=True))

    def full_test(self) -> Verdict:
        return Verdict(ok=True)

    def probe(self, targets: Sequence[Target], within: float) -> tuple[Served, ...]:
        chains = self.shown.chains
        return tuple(Served(t, next(iter(chains.get(t.site, {}).values()), ())) for t in targets)
