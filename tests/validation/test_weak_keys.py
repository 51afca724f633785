"""RSA keys that anybody can factor, and keys that are known to others."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import secrets
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, SourceFile
from rotator.core.problems import Code
from rotator.validation.blocklist import MAX_BLOCKLIST, Blocklist
from rotator.validation.evidence import Evidence
from rotator.validation.validate import Anchors, Verdict, public, validate_files
from rotator.x509.weak_rsa import FERMAT_ROUNDS, SMALL_FACTORS, weakness
from tests.support.authority import CA, NOW, Issued, der_pem, pem, rewritten, rsa_key, wrap
from tests.support.cost import cost
from tests.support.judging import judge

NAME = "signal.example.cn"
ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)
RSA = ICA.issue(NAME, kind="rsa")
ANCHORS = Anchors.from_pem(pem(ROOT.cert), "roots.pem")

P = rsa_key(11).private_numbers().p
Q = rsa_key(11).private_numbers().q


def is_prime(number: int) -> bool:
    """Sure enough for a test: Fermat's test with a few bases."""
    return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7, 11, 13))


def next_prime(number: int) -> int:
    number |= 1
    while not is_prime(number):
        number += 2
    return number


def roca_prime(bits: int) -> int:
    """A prime as the broken generator made them: k·M + (65537^a mod M)."""
    product = math.prod(n for n in range(2, 168) if all(n % d for d in range(2, n)))
    while True:
        found = (secrets.randbits(bits - product.bit_length()) | 1 << (bits - product.bit_length() - 1)) * product
        found += pow(65537, secrets.randbits(60), product)
        if is_prime(found):
            return found


# --- arithmetic


def test_sound_moduli_are_sound() -> None:
    assert [weakness(rsa_key(number).public_key().public_numbers().n) for number in range(4)] == [""] * 4


@pytest.mark.parametrize("factor", [2, 3, 751, 9973])
def test_a_small_factor_is_found(factor: int) -> None:
    assert "small factor" in weakness(P * factor)


def test_a_factor_above_the_bound_is_not_looked_for() -> None:
    assert weakness(P * next_prime(SMALL_FACTORS)) == ""


def test_primes_close_together_are_found() -> None:
    assert "Fermat" in weakness(P * next_prime(P + 2))
    assert "Fermat" in weakness(P * P)


@pytest.mark.parametrize(("rounds", "found"), [(FERMAT_ROUNDS, True), (FERMAT_ROUNDS + 1, False)])
def test_the_search_for_close_primes_ends_where_it_says(rounds: int, found: bool) -> None:
    small = 3 * 5 * 7 * 11 * 13 * math.prod(n for n in range(17, SMALL_FACTORS, 2) if is_prime(n))
    a, n = 1 << 1023, 0
    while not n or math.gcd(n, small) != 1:
        a += 2
        b = math.isqrt((2 * rounds - 1) * a) | 1  # a² - b² then has its root so many steps below a
        n = a * a - b * b
    assert a - math.isqrt(n) == rounds
    assert ("Fermat" in weakness(n)) is found


def test_keys_of_the_broken_generator_are_found() -> None:
    assert "ROCA" in weakness(roca_prime(512) * roca_prime(512))


def test_random_moduli_are_not_taken_for_broken_ones() -> None:
    assert not [n for _ in range(300) if "small" not in (n := weakness(secrets.randbits(1024) | 1 | 1 << 1023)) and n]


@pytest.mark.parametrize(("bits", "limit"), [(2048, 0.001), (8192, 0.01)])
def test_the_search_is_cheap(bits: int, limit: float) -> None:
    modulus = math.prod(next_prime(secrets.randbits(64) | 1 << 63) for _ in range(bits // 64))
    weakness(modulus)
    _, seconds = cost(lambda: weakness(modulus), below=limit)
    assert seconds < limit


# --- certificates


def spki(modulus: int, exponent: int = 65537) -> bytes:
    """DER of an RSA key of any numbers."""

    def number(value: int) -> bytes:
        return wrap(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))

    algorithm = wrap(0x30, bytes.fromhex("06092a864886f70d0101010500"))
    return wrap(0x30, algorithm + wrap(0x03, b"\0" + wrap(0x30, number(modulus) + number(exponent))))


def with_key(issued: Issued, by: CA, key: bytes) -> bytes:
    """DER of a certificate with this key in the place of its own."""
    return rewritten(issued.leaf, by.key, lambda parts: [*parts[:6], key, *parts[7:]])


def of_leaf(modulus: int, exponent: int = 65537) -> Verdict:
    data = with_key(RSA, ICA, spki(modulus, exponent))
    files = (SourceFile("chain.pem", der_pem(data) + pem(ICA.cert)),)
    return validate_files(Candidate(files), public([NAME]), ANCHORS, NOW, need_key=False)


SOUND = rsa_key(11).public_key().public_numbers().n
WEAK = {
    "with a small factor": (SOUND * 3, 65537),
    "with primes close together": (P * next_prime(P + 2), 65537),
    "with the exponent one": (SOUND, 1),
    "with an even exponent": (SOUND, 65536),
}


@pytest.mark.parametrize("what", WEAK)
def test_a_leaf_with_a_weak_key_is_refused(what: str) -> None:
    verdict = of_leaf(*WEAK[what])
    assert verdict.codes == (Code.WEAK_KEY,)
    assert verdict.problems[0].hint


@pytest.mark.parametrize(("exponent", "code"), [(3, Code.SMALL_EXPONENT), (17, Code.SMALL_EXPONENT)])
def test_a_small_exponent_is_warned_about(exponent: int, code: Code) -> None:
    assert of_leaf(SOUND, exponent).warnings == (code,)


def test_an_intermediate_with_a_weak_key_is_refused() -> None:
    p, q = (n for n in (P, next_prime(P + 2)))
    numbers = rsa.RSAPublicNumbers(65537, p * q)
    private = pow(65537, -1, math.lcm(p - 1, q - 1))
    key = rsa.RSAPrivateNumbers(
        p, q, private, private % (p - 1), private % (q - 1), rsa.rsa_crt_iqmp(p, q), numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    issued = ROOT.intermediate("Weak", key=key).issue(NAME)
    assert judge(issued, anchors=ANCHORS).codes == (Code.WEAK_KEY,)


# --- keys known to others


def hash_of(issued: Issued | CA) -> str:
    public = issued.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(public).hexdigest()


def blocked(text: str, issued: Issued = GOOD) -> Verdict:
    return judge(issued, anchors=ANCHORS.beside(Evidence(blocked=Blocklist.from_text(text.encode(), "keys.txt"))))


@pytest.mark.parametrize("form", ["{}\n", "{}", "  {}\r\n", "# mine\n\n{}  lost.pem\n", "{}# lost\n"])
def test_a_key_on_the_blocklist_is_refused(form: str) -> None:
    for text in (hash_of(GOOD), hash_of(GOOD).upper()):
        verdict = blocked(form.format(text))
        assert verdict.codes == (Code.COMPROMISED_KEY,)
        assert "keys.txt" in verdict.problems[0].message


@pytest.mark.parametrize("form", ["{}", "sha256//{}", "sha256/{} # pinned", "{}\tlost.pem"])
def test_a_key_may_be_listed_as_keys_are_pinned(form: str) -> None:
    pin = base64.b64encode(bytes.fromhex(hash_of(GOOD))).decode()
    assert blocked(form.format(pin)).codes == (Code.COMPROMISED_KEY,)
    assert blocked(form.format(base64.b64encode(bytes(32)).decode())).problems == ()


@pytest.mark.parametrize("form", ["{}", "{},key compromise"])
def test_a_key_may_be_listed_with_colons_and_a_reason(form: str) -> None:
    pairs = ":".join(re.findall("..", hash_of(GOOD)))
    assert blocked(form.format(pairs)).codes == (Code.COMPROMISED_KEY,)


def test_an_intermediate_on_the_blocklist_is_refused() -> None:
    verdict = blocked(hash_of(ICA))
    assert verdict.codes == (Code.COMPROMISED_KEY,)
    assert verdict.problems[0].message.startswith("CN=Test Intermediate")


def test_other_keys_and_an_empty_blocklist_refuse_nothing() -> None:
    assert blocked(hash_of(RSA)).problems == ()
    assert blocked("").problems == ()
    assert blocked("# nobody yet\n").problems == ()


def test_a_known_key_is_told_even_if_the_chain_is_not_complete() -> None:
    lone = replace(GOOD, intermediates=())
    assert set(blocked(hash_of(GOOD), lone).codes) == {Code.INCOMPLETE_CHAIN, Code.COMPROMISED_KEY}


@pytest.mark.parametrize("line", ["abc", "0" * 63, "0" * 65, "g" * 64, "-----BEGIN PUBLIC KEY-----", "\0" * 64])
def test_a_line_that_is_no_hash_is_told_by_its_number(line: str) -> None:
    with pytest.raises(RotatorError) as error:
        Blocklist.from_text(f"# keys\n{hash_of(GOOD)}\n{line}\n".encode(), "keys.txt")
    assert error.value.code == Code.PARSE_ERROR
    assert "keys.txt line 3" in error.value.message


def test_a_blocklist_that_is_too_large_is_not_read() -> None:
    with pytest.raises(RotatorError) as error:
        Blocklist.from_text(b"\n" * (MAX_BLOCKLIST + 1), "keys.txt")
    assert error.value.code == Code.TOO_LARGE
