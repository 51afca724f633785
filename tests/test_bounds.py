"""What an input may cost: every one is refused within a second and 64 MB, measured in a process of its own."""

from __future__ import annotations

import base64
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from rotator.pem import MAX_FILE
from tests.agreement.crafting import (
    NULL,
    OCTETS,
    Party,
    constraints,
    craft,
    integer,
    oid,
    raw_extension,
    sequence,
)
from tests.authority import der_pem, wrap

NAME = "signal.example.test"
FILES = 16
SECONDS, MEGABYTES = 1.0, 64.0

JUDGE = """
import json, pickle, re, sys, time
from datetime import UTC, datetime
from rotator.model import Candidate, Secret, SourceFile
from rotator.trust import Anchors, examine, public

def peak():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s*(\\d+)", status.read())[1])

roots, files, good = pickle.load(sys.stdin.buffer)
anchors = Anchors.from_pem(roots, "roots.pem")

def judge(files):
    candidate = Candidate(tuple(SourceFile(f"{n}.pem", data) for n, data in enumerate(files)), Secret(b"guess"))
    return examine(candidate, public(["signal.example.test"]), anchors, datetime.now(UTC))

judge(good)  # what is loaded once
memory, clock = peak(), time.process_time()
verdict = judge(files)
json.dump([verdict.accepted, time.process_time() - clock, (peak() - memory) / 1024, len(verdict.problems)], sys.stdout)
"""

ROOT = craft(None, "Root", ca=True)
AUTHORITY = craft(ROOT, "Authority", ca=True)


def full(block: bytes) -> list[bytes]:
    """As many files of as many blocks as are read."""
    return [block * (MAX_FILE // len(block))] * FILES


def block(data: bytes, label: str = "CERTIFICATE") -> bytes:
    return der_pem(data, label=label)


def nested(size: int) -> bytes:
    inner = b""
    while len(inner) < size:
        inner = wrap(0x30, inner)
    return inner


def spki(bits: int, exponent: int = 65537) -> bytes:
    modulus = random.Random(bits).getrandbits(bits) | 1 << (bits - 1) | 1
    return sequence(
        sequence(oid("1.2.840.113549.1.1.1"), NULL), wrap(3, b"\0" + sequence(integer(modulus), integer(exponent)))
    )


def encrypted(*derivation: bytes) -> bytes:
    scheme = sequence(oid("2.16.840.1.101.3.4.1.42"), wrap(OCTETS, b"0" * 16))
    algorithm = sequence(oid("1.2.840.113549.1.5.13"), sequence(sequence(*derivation), scheme))
    return block(sequence(algorithm, wrap(OCTETS, b"x" * 64)), "ENCRYPTED PRIVATE KEY")


def pbkdf2(rounds: int) -> bytes:
    return encrypted(oid("1.2.840.113549.1.5.12"), sequence(wrap(OCTETS, b"saltsalt"), integer(rounds)))


def scrypt(n: int, r: int) -> bytes:
    numbers = sequence(wrap(OCTETS, b"saltsalt"), integer(n), integer(r), integer(1))
    return encrypted(oid("1.3.6.1.4.1.11591.4.11"), numbers)


def below(party: Party) -> bytes:
    return der_pem(craft(party, NAME, names=(NAME,)).der) + der_pem(party.der)


def many_names(count: int) -> list[str]:
    return [NAME, *(f"host-{number}.example.test" for number in range(count))]


def product() -> list[bytes]:
    limits = [(2, f"domain-{number}.test".encode()) for number in range(4000)]
    limited = craft(ROOT, "Limited", ca=True, extensions={"limits": constraints([*limits, (2, b"example.test")])})
    return [der_pem(craft(limited, NAME, names=many_names(4000)).der), der_pem(limited.der)]


def mesh() -> list[bytes]:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(10)]
    pairs = [(a, b) for a in range(10) for b in range(10) if a != b]
    crossed = [craft(craft(ROOT, f"CA {a}", ca=True, key=keys[a]), f"CA {b}", ca=True, key=keys[b]) for a, b in pairs]
    files = [b"".join(der_pem(one.der) for one in crossed[at : at + 30]) for at in range(0, 90, 30)]
    return [der_pem(craft(crossed[0], NAME, names=(NAME,)).der), *files]


NASTY: dict[str, Callable[[], list[bytes]]] = {
    "blocks of junk": lambda: full(block(b"\x30\x03\x02\x01\x01")),
    "tiny blocks of no use": lambda: full(b"-----BEGIN X-----\n-----END X-----\n"),
    "tiny blocks that are passed over": lambda: full(b"-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n"),
    "blocks to be converted": lambda: full(b"-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n"),
    "keys of junk": lambda: full(block(b"\x30\x03\x02\x01\x01", "PRIVATE KEY")),
    "one certificate over and over": lambda: full(der_pem(AUTHORITY.der)),
    "lines of one character": lambda: full(b"-----BEGIN CERTIFICATE-----\n" + b"Q\n" * 100_000),
    "half blocks": lambda: full(b"-----BEGIN CERTIFICATE-----\n"),
    "NUL octets": lambda: [bytes(MAX_FILE)] * FILES,
    "random octets": lambda: [random.Random(n).randbytes(MAX_FILE) for n in range(FILES)],
    "structures without end": lambda: [block(nested(150_000))] * FILES,
    "structures without end in an extension": lambda: [
        craft(AUTHORITY, NAME, extensions={"more": raw_extension("2.5.29.32", nested(150_000))}).chain_pem
    ],
    "90,000 parts": lambda: [block(wrap(0x30, b"\5\0" * 90_000))] * FILES,
    "7,000 names": lambda: [craft(AUTHORITY, NAME, names=many_names(7000)).chain_pem],
    "as many in each file": lambda: [der_pem(craft(AUTHORITY, NAME, names=many_names(7000)).der) for _ in range(FILES)],
    "8,000 extensions": lambda: [
        craft(
            AUTHORITY, NAME, extensions={f"{n}": raw_extension(f"1.3.6.1.4.1.9.{n}", b"\5\0") for n in range(8000)}
        ).chain_pem
    ],
    "names times constraints": product,
    "every authority certified by every other": mesh,
    "an RSA leaf of 16,384 bits": lambda: [craft(AUTHORITY, NAME, names=(NAME,), spki=spki(16384)).chain_pem],
    "an RSA authority of 400,000 bits": lambda: [below(craft(ROOT, "Big", ca=True, spki=spki(400_000)))],
    "an RSA authority with an exponent of 8,192 bits": lambda: [
        below(craft(ROOT, "Big", ca=True, spki=spki(8192, (1 << 8191) | 1)))
    ],
    "a key of 2^31 rounds": lambda: [der_pem(AUTHORITY.der), pbkdf2(2**31 - 1)],
    "four keys of as many rounds as are spent": lambda: [pbkdf2(490_000 + n) for n in range(4)],
    "a key of much memory": lambda: [der_pem(AUTHORITY.der), scrypt(2**17, 7)],
    "keys of as much memory as is spent": lambda: [scrypt(2**14, 15 - n) for n in range(4)],
    "base64 in one line": lambda: [base64.b64encode(bytes(MAX_FILE // 2))] * FILES,
}


@pytest.mark.parametrize("what", NASTY)
def test_any_input_is_refused_within_a_second_and_64_megabytes(what: str) -> None:
    good = [craft(AUTHORITY, NAME, names=(NAME,)).chain_pem]
    files = NASTY[what]()
    assert len(files) <= FILES
    assert all(len(data) <= MAX_FILE for data in files)
    done = subprocess.run(
        [sys.executable, "-c", JUDGE],
        input=pickle.dumps((ROOT.root_pem, files, good)),
        capture_output=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parent.parent,
    )
    accepted, seconds, megabytes, problems = json.loads(done.stdout)
    assert not accepted
    assert seconds < SECONDS
    assert megabytes < MEGABYTES
    assert problems < 5000
