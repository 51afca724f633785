"""What a running daemon has made of a renewal: whether it is served, what was decided, how often it rotated."""

from __future__ import annotations

import urllib.request

from tests.support.authority import Issued
from tests.support.edge import Edge
from tests.support.waiting import PATIENCE, wait_until

QUICK = 'scan_interval = "200ms"\nsettle = "700ms"\n'


def is_served(edge: Edge, new: Issued, site: str = "example") -> None:
    wait_until(lambda: edge.shown(site) == {new.chain_der}, 20, f"{site} serves the renewal")


def is_decided(edge: Edge, result: str, reason: str = "", site: str = "example") -> None:
    def seen() -> bool:
        intent = edge.store.intent(site)
        return intent.result in result.split("|") and (not reason or intent.reason == reason)

    wait_until(seen, 20, f"{site} is {result} {reason}: {edge.store.intent(site)}")


def page(edge: Edge) -> str:
    try:
        with urllib.request.urlopen(f"http://{edge.metrics}/metrics", timeout=PATIENCE) as answer:
            text: bytes = answer.read()
            return text.decode()
    except OSError:
        return ""


def rotations(edge: Edge, site: str = "example") -> int:
    """How often a pair was put live by a reload since the first one."""
    return sum(e.result == "rotated" and e.reason == "rotated" for e in edge.history.entries(site))
