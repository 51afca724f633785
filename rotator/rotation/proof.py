"""The proof on the wire: which workers accept connections, and which chain each listener shows.

A swap is converged when, in this order:

1. no worker from before the reload is active (gone, or titled "shutting down"), and no binary upgrade is in flight;
2. the active workers are one set: started together and at the steady count, or unchanged for 200 ms; or, where they
   were not started together (one of them died since, or another reload is between its workers), for a second;
3. fresh handshakes at every listener, name and kind of key show the stored chain byte for byte;
4. the set of workers is the same after the handshakes as before them.

One good handshake proves nothing: for up to 100 ms of every reload both generations of workers accept, and a reload of
another process may be in flight (nginx, src/os/unix/ngx_process_cycle.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rotator.core.model import KeyType, Served, Site, Target, Workers
from rotator.rotation.ports import Ports

UNCHANGED_FOR = 0.2
"""Seconds for which a set of workers of unknown size has to stay the same."""
APART = 10
"""Ticks (of 10 ms) between the workers of two reloads: for 100 ms the master leaves the older ones at work."""
APART_FOR = 1.0
"""Seconds for which workers that were not started together have to stay the same: ten times what a reload takes."""
SETTLE_GRACE = APART_FOR + 2 * UNCHANGED_FOR
"""Seconds beyond a deadline for workers that are just settling, so that even a proof without time gets one look."""
WEAK_FOR = 1.0
"""Seconds for which every handshake has to show the new chain where the workers cannot be seen."""
LOOK_EVERY = 0.002
"""Seconds between two looks at the workers."""
PROBE_EVERY = 0.05
"""Seconds between two rounds of handshakes that showed something else."""
HANDSHAKE_WITHIN = 2.0
"""Seconds for one handshake."""

NO_RELOAD = Workers(master=1)
"""The previous workers for a proof that follows no reload: none of them has to go."""

Expected = Mapping[Target, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of a proof.

    Args:
        ok: whether everything expected is served everywhere.
        kind: `workers`, or `handshake-only` where the master cannot be seen.
        reasons: what was missing at the last look, in words.
        seen: targets that showed the expected chain in the last round of handshakes.
    """

    ok: bool
    kind: str = ""
    reasons: tuple[str, ...] = ()
    seen: frozenset[Target] = frozenset()


def expectation(site: Site, chains: Mapping[KeyType, tuple[bytes, ...]]) -> dict[Target, tuple[bytes, ...]]:
    """The chain that each listener of a site must show for each name, and for each kind of key if there are several.

    Args:
        site: the listeners and the names.
        chains: DER, leaf first, by kind of key.
    """
    several = len(chains) > 1
    return {
        Target(site.name, listener, name, kind if several else None): chain
        for listener in site.listeners
        for name in site.probe_names or site.names
        for kind, chain in chains.items()
    }


def deadline(prove_within: float | None, last_reload: float) -> float:
    """Seconds that a proof may take.

    Args:
        prove_within: configured seconds, or None.
        last_reload: seconds that the last proved reload took; 0 if none is known.
    """
    bind_retries = 2.5  # src/core/ngx_cycle.c: 5 tries, 500 ms apart
    return prove_within if prove_within is not None else max(5.0, 3 * last_reload) + bind_retries


def prove(expected: Expected, before: Workers | None, ports: Ports, within: float) -> Proof:
    """Waits until every target shows its expected chain, by the rule at the top of this module.

    Args:
        expected: chain by target.
        before: the workers before the reload (empty where there was no reload); None where they could not be seen.
        ports: probe, nginx's workers, clock.
        within: seconds; there is always one full round of handshakes if the workers allow it.
    """
    proof = _proof(expected, before, ports, within)
    ports.proved(proof.ok)
    return proof


def _proof(expected: Expected, before: Workers | None, ports: Ports, within: float) -> Proof:
    end = ports.clock.monotonic() + within
    old = before.active if before else frozenset()
    last: frozenset[tuple[int, int]] = frozenset()
    since = ports.clock.monotonic()
    proof = Proof(False, reasons=("nothing was seen yet",))
    reported = since
    while True:
        look = ports.nginx.workers()
        if look is None or before is None:
            return _prove_weakly(expected, ports, end)
        now = ports.clock.monotonic()
        if look.active != last:
            last, since = look.active, now
        unsettled = _unsettled(look, old, now - since)
        if unsettled:
            proof = Proof(False, "workers", (unsettled,), proof.seen)
            pause = LOOK_EVERY
        else:
            proof = _handshakes(expected, ports, "workers")
            if proof.ok:
                again = ports.nginx.workers()
                if again is not None and again.active == look.active and not again.upgrading:
                    return proof
                proof = Proof(False, "workers", ("nginx's workers changed during the handshakes",), proof.seen)
            pause = LOOK_EVERY if proof.seen >= set(expected) else PROBE_EVERY
        if now >= end and (not unsettled or now >= end + SETTLE_GRACE or look.master is None):
            return proof
        if now - reported > 1.0:
            reported = now
            ports.say(f"waiting for the proof: {proof.reasons[0] if proof.reasons else 'looking again'}")
        ports.clock.sleep(pause)


def prove_together(sites: Mapping[str, Expected], ports: Ports) -> dict[str, Proof]:
    """The proofs of those sites that are served as expected without a reload; each of the others needs its own proof.

    Each proof waits until the workers are known to be steady. A thousand, one after the other, would take minutes.

    Args:
        sites: chain by target, by name of the site.
        ports: probe, nginx's workers, clock.

    Returns:
        The proof by name of the site, of those that are proved.
    """
    for _ in range(2):  # the second time without those that showed something else
        if len(sites) < 2:
            break
        proof = prove({t: chain for expected in sites.values() for t, chain in expected.items()}, NO_RELOAD, ports, 0.0)
        if proof.ok:
            return dict.fromkeys(sites, proof)
        sites = {name: expected for name, expected in sites.items() if proof.seen.issuperset(expected)}
    return {}


def unchanged(expected: Expected, before: Workers, ports: Ports) -> Proof:
    """The proof after a reload that nginx refused and that was taken back without another one: the previous workers are
    still the active set, and every handshake shows what is expected.
    """
    look = ports.nginx.workers()
    if look is None:
        return _prove_weakly(expected, ports, ports.clock.monotonic() + WEAK_FOR)
    if look.active != before.active:
        return Proof(False, "workers", ("nginx has other workers than before",))
    proof = _handshakes(expected, ports, "workers")
    again = ports.nginx.workers()
    if proof.ok and (again is None or again.active != before.active):
        return Proof(False, "workers", ("nginx has other workers than before",), proof.seen)
    return proof


def _unsettled(look: Workers, old: frozenset[tuple[int, int]], same_for: float) -> str:
    """Why no handshake could prove anything yet; empty if one can."""
    if look.master is None:
        return "nginx is not running"
    if look.upgrading:
        return "a binary upgrade of nginx is in flight: its old master still serves"
    if still := look.active & old:
        return f"{len(still)} of nginx's workers from before the reload still accept connections"
    if not look.active:
        return "nginx has no worker yet"
    starts = [started for _, started in look.active]
    if max(starts) - min(starts) >= APART:
        return "" if same_for >= APART_FOR else "nginx's workers are of more than one reload"
    if len(look.active) != len(old) and same_for < UNCHANGED_FOR:
        return "nginx's workers are still starting"
    return ""


def _handshakes(expected: Expected, ports: Ports, kind: str) -> Proof:
    served = ports.probe(tuple(expected), HANDSHAKE_WITHIN)
    wrong = tuple(f"{s.target}: {differs(s, expected[s.target])}" for s in served if s.chain != expected[s.target])
    return Proof(not wrong, kind, wrong, frozenset(s.target for s in served if s.chain == expected[s.target]))


def _prove_weakly(expected: Expected, ports: Ports, end: float) -> Proof:
    """The proof if the workers are invisible: every handshake of one second; both pairs coexist for 100 ms only."""
    good_since: float | None = None
    while True:
        begun = ports.clock.monotonic()
        proof = _handshakes(expected, ports, "handshake-only")
        now = ports.clock.monotonic()
        good_since = None if not proof.ok else begun if good_since is None else good_since
        if good_since is not None and now - good_since >= WEAK_FOR:
            return proof
        if now >= end and (good_since is None or now >= end + WEAK_FOR):
            return Proof(False, "handshake-only", proof.reasons or ("it did not stay so for a second",), proof.seen)
        ports.clock.sleep(PROBE_EVERY)


def differs(served: Served, chain: Sequence[bytes]) -> str:
    """A clause about what a handshake showed instead of the expected chain."""
    if served.failure:
        return served.failure
    if served.chain[:1] == tuple(chain[:1]):
        return f"shows the right leaf with another chain ({len(served.chain)} certificates instead of {len(chain)})"
    return "shows another certificate"
