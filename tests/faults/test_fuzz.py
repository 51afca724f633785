"""A bounded run of the fuzzer, and that it would notice."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from rotator.core.model import SourceFile
from rotator.validation import validate
from rotator.x509 import crl
from rotator.x509.pem import read_blocks
from tests.faults.beside import SAID, Beside, BrokenError
from tests.faults.coverage import Coverage
from tests.faults.fuzz import MAX_MEMORY, Fuzzer, grown, told
from tests.faults.mutation import mutated
from tests.support.authority import new_key
from tests.support.tiers import Size

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
def test_nothing_escapes_from_readers_and_judge_(size: Size) -> None:
    fuzzer = Fuzzer(size.seed)
    fuzzer.run(size.count(3, 2))
    before = grown()
    fuzzer.run(size.count(22, 4))
    assert list(told(fuzzer))[1:] == []
    assert fuzzer.tried > size.count(200, 2 * len(fuzzer.world.seeds()))
    assert len(fuzzer.corpus) > len(fuzzer.world.seeds()), "no input reached anything new"
    assert grown() - before < MAX_MEMORY


@pytest.mark.soak
@pytest.mark.parametrize("kind", SAID)
def test_nothing_escapes_from_what_stands_beside_the_roots_(kind: str, size: Size) -> None:
    fuzzer = Fuzzer(size.seed, Beside(kind))
    fuzzer.run(size.count(6, 3))
    assert list(told(fuzzer))[1:] == []
    assert fuzzer.tried > 2 * len(fuzzer.world.seeds()), "nothing but the seeds was tried"


def test_the_fuzzer_notices_a_list_that_nobody_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Beside("crls")
    world.seeds()
    forged = (world.ca.crl(world.chains[1].leaf, key=new_key()).public_bytes(serialization.Encoding.DER),)
    world.demand(forged, password=False, profile=True)
    monkeypatch.setattr(crl.Crl, "signed_by", lambda *_: True)
    with pytest.raises(BrokenError, match="no authority has signed"):
        world.demand(forged, password=False, profile=True)


def test_the_fuzzer_notices_an_entry_that_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crl.Crl, "entry", lambda *_: None)
    fuzzer = Fuzzer(4, Beside("crls"))
    fuzzer.run(0)
    assert any("does not find what it says" in finding.words for finding in fuzzer.findings)


def test_the_fuzzer_notices_what_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(*_: object) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr(validate, "_unserved", careless)
    fuzzer = Fuzzer(seed=1)
    fuzzer.run(0)
    assert [finding.words[:22] for finding in fuzzer.findings] == ["IndexError at test_fuz"]


def test_the_fuzzer_notices_a_pair_that_is_stored_otherwise_than_it_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = validate._pair

    def shortened(*arguments: object) -> object:
        pair = whole(*arguments)  # type: ignore[arg-type]
        object.__setattr__(pair, "chain", pair.chain[:1])
        return pair

    monkeypatch.setattr(validate, "_pair", shortened)
    fuzzer = Fuzzer(seed=1)
    fuzzer.run(0)
    assert any("refused when it is judged again" in finding.words for finding in fuzzer.findings)


def test_a_line_that_runs_is_seen_and_one_that_does_not_is_not() -> None:
    coverage = Coverage()
    with coverage.watching():
        read_blocks(SourceFile("x", b"# nothing"))
    few = len(coverage.seen)
    with coverage.watching():
        read_blocks(SourceFile("x", b"-----BEGIN CERTIFICATE-----\n"))
    assert 0 < few < len(coverage.seen)


def test_a_mutation_changes_something_and_is_the_same_for_the_same_seed() -> None:
    files = (b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n", b"\x30\x03\x02\x01\x01")
    made = {mutated(files, [files], random.Random(seed)) for seed in range(200)}
    assert len(made) > 100
    assert mutated(files, [files], random.Random(7)) == mutated(files, [files], random.Random(7))


def test_it_runs_by_hand() -> None:
    command = [sys.executable, "-m", "tests.faults.fuzz", "--minutes", "0.02", "--seed", "5"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "lines reached" in run.stdout
