"""How often one renewal reads what is live: once for the decision, and once more under the lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rotator.privsep.apply import Live
from rotator.rotation import validate_candidate
from rotator.validation.validate import Verdict, validate_files
from tests.support.authority import Issued
from tests.support.looping import Looping


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Looping]:
    looping = Looping(tmp_path)
    yield looping
    looping.close()


def reads_of(daemon: Looping, monkeypatch: pytest.MonkeyPatch, *renewals: Issued) -> Counter[str]:
    """What is read until the outcome of a delivery is written down, by name: `live`, `pairs`, or the generation."""
    reads: Counter[str] = Counter()
    until_outcome: list[Counter[str]] = []
    ports, load, pairs_of = daemon.loop.runtime.ports, daemon.store.load, daemon.store.pairs_of
    record = daemon.history.record

    def live(site: str) -> Live:
        reads["live"] += 1
        return ports.live(site)

    def counted(name: str, read: Any) -> Any:
        def call(*arguments: Any) -> Any:
            reads[name or arguments[-1]] += 1
            return read(*arguments)

        return call

    def recorded(*arguments: Any, **more: Any) -> None:
        until_outcome.append(reads.copy())
        record(*arguments, **more)

    daemon.loop.runtime = replace(daemon.loop.runtime, ports=replace(ports, live=live))
    monkeypatch.setattr(daemon.store, "load", counted("", load))
    monkeypatch.setattr(daemon.store, "pairs_of", counted("pairs", pairs_of))
    monkeypatch.setattr(daemon.history, "record", recorded)
    for number, issued in enumerate(renewals):
        daemon.drop(issued, prefix=f"{number}-")
    daemon.run_for(12)
    assert daemon.decided() == ("rotated", "rotated")
    return until_outcome[-1]


def test_a_renewal_reads_the_include_and_the_live_generation_twice(
    daemon: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = daemon.world.live("example")
    reads = reads_of(daemon, monkeypatch, daemon.issue())
    new = daemon.world.live("example")
    assert reads == {"live": 2, before: 2, new: 2}  # the new one is read back when it is named, and for the history


def test_a_renewal_of_one_kind_of_a_dual_site_is_validated_once_for_each_decision(
    daemon: Looping, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.host.swap(daemon.site(), daemon.issue(kind="ecdsa"), daemon.issue(kind="rsa"))
    daemon.run_for(5)
    calls: list[bool] = []

    def counting(*arguments: Any, **more: Any) -> Verdict:
        verdict = validate_files(*arguments, **more)
        calls.append(verdict.kept == ("rsa",))
        return verdict

    monkeypatch.setattr(validate_candidate, "validate_files", counting)
    reads = reads_of(daemon, monkeypatch, daemon.issue(kind="ecdsa", later=0.5))
    # It is looked at when it arrives, settles for the other kind, and is looked at once more after the grace time.
    assert calls == [True, True]
    assert (reads["live"], reads["pairs"]) == (3, 2)
