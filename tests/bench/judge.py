"""What judging costs: one ordinary renewal, and everything that a store holds judged again.

python -m tests.bench.judge [--generations 10000]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from rotator.core.model import Candidate, Secret, SourceFile
from rotator.validation.validate import Anchors, public, validate_chains, validate_files
from tests.support.authority import CA, NOW, Issued, encrypted, pem

NAME = "signal.example.cn"
PASSWORD = Secret(b"open sesame")


def milliseconds(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Median and 99th percentile of so many runs, one after the other."""
    seen = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        seen.append((time.perf_counter() - begin) * 1000)
    return statistics.median(seen), statistics.quantiles(seen, n=100)[-1]


def candidates(ca: CA) -> dict[str, Candidate]:
    """Renewals as they are delivered."""
    ecdsa, rsa = ca.issue(NAME), ca.issue(NAME, kind="rsa")
    best = serialization.BestAvailableEncryption(PASSWORD.reveal())
    sealed = pkcs12.serialize_key_and_certificates(b"x", ecdsa.key, ecdsa.leaf, ecdsa.intermediates, best)

    def of(*files: bytes) -> Candidate:
        return Candidate(tuple(SourceFile(str(n), data) for n, data in enumerate(files)), PASSWORD)

    def both(issued: Issued) -> tuple[bytes, bytes]:
        return issued.chain_pem, issued.key_pem

    return {
        "one ECDSA chain and key": of(*both(ecdsa)),
        "one RSA-2048 chain and key": of(*both(rsa)),
        "both together": of(*both(ecdsa), *both(rsa)),
        "an encrypted key (PKCS#8)": of(ecdsa.chain_pem, encrypted(ecdsa.key, PASSWORD.reveal())),
        "a PKCS#12 file": of(sealed),
    }


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judge")
    parser.add_argument("--generations", type=int, default=10_000)
    given = parser.parse_args()
    root = CA.root()
    ca = root.intermediate()
    anchors, policy = Anchors.from_pem(pem(root.cert), "roots"), public([NAME])
    for title, candidate in candidates(ca).items():
        assert validate_files(candidate, policy, anchors, NOW).accepted
        median, worst = milliseconds(lambda one=candidate: validate_files(one, policy, anchors, NOW), 500)  # type: ignore[misc]
        print(f"{title:28} {median:7.2f} ms median {worst:7.2f} ms p99")
    chains = [ca.issue(NAME).chain_der for _ in range(min(given.generations, 500))]
    begin, spent = time.perf_counter(), time.process_time()
    for number in range(given.generations):
        assert not validate_chains([chains[number % len(chains)]], policy, anchors, NOW)
    wall, cpu = time.perf_counter() - begin, time.process_time() - spent
    print(f"{given.generations} stored generations judged again in {wall:.2f} s ({cpu:.2f} s of CPU)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
