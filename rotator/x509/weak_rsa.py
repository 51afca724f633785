"""Checks for RSA moduli that are easy to factor: small factors, primes close together, a broken generator.

Checks that cost more than a millisecond are left out: whether a modulus is itself a prime, or a power of one. The keys
of Debian's generator of 2006 to 2008 need a blocklist, as only tables of some megabytes recognise them.
"""

from __future__ import annotations

import math
from functools import cache

FERMAT_ROUNDS = 100
"""The rounds of Fermat's factorization (CA/B BR 6.1.1.3 (4) demands at least 100)."""

SMALL_FACTORS = 10_000
"""Primes below this number are tried as factors; CA/B BR 6.1.6 demands those below 752."""

_SQUARES = frozenset(i * i % 64 for i in range(64))
"""The remainders of squares modulo 64: a quick test before a square root is computed."""

_ROCA_GENERATOR = 65537
_ROCA_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
"""The primes of the published fingerprint of the broken generator (github.com/crocs-muni/roca)."""


def weakness(modulus: int) -> str:
    """The weakness of an RSA modulus, as a clause after "has an RSA key"; empty if none is found.

    Args:
        modulus: any positive number, of at most 8192 bits.
    """
    if modulus.bit_length() < 64 or math.gcd(modulus, _primorial()) != 1:
        return "whose modulus has a small factor"
    if _looks_like_roca(modulus):
        return "of a broken generator (ROCA, CVE-2017-15361)"
    if _close_primes(modulus):
        return "whose primes are so close together that it can be factored (Fermat)"
    return ""


@cache
def _primorial() -> int:
    """The product of all primes below `SMALL_FACTORS`."""
    sieve = bytearray([1]) * SMALL_FACTORS
    for number in range(2, math.isqrt(SMALL_FACTORS) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, SMALL_FACTORS, number)))
    return math.prod(number for number in range(2, SMALL_FACTORS) if sieve[number])


@cache
def _powers() -> tuple[tuple[int, frozenset[int]], ...]:
    """For each prime of the fingerprint, the remainders of the powers of 65537."""
    return tuple((prime, frozenset(pow(_ROCA_GENERATOR, i, prime) for i in range(prime))) for prime in _ROCA_PRIMES)


def _looks_like_roca(modulus: int) -> bool:
    """Whether a modulus is a power of 65537 modulo each of these primes (Nemec et al., 2017).

    Each single condition holds for many numbers; all of them together hold for one sound modulus in about 2^28.
    """
    return all(modulus % prime in remainders for prime, remainders in _powers())


def _close_primes(modulus: int) -> bool:
    """Whether Fermat's method factors the modulus: n = a² - b² with a close to the square root of n."""
    a = math.isqrt(modulus)
    if a * a == modulus:
        return True
    for _ in range(FERMAT_ROUNDS):
        a += 1
        square = a * a - modulus
        if square & 63 in _SQUARES and math.isqrt(square) ** 2 == square:
            return True
    return False
