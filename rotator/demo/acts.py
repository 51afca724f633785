"""The demo's acts: what happens to a renewal, checked by a client that knows nothing of rotator; nothing is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rotator.demo.authority import Fresh
from rotator.demo.clients import Client, Crowd
from rotator.demo.host import NAME, SITE, Host, stages_of

APPLIED_WITHIN = 30.0
SCRAPED_WITHIN = 20.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to be so.

    Args:
        what: it, as a sentence.
        held: whether it was.
        found: what was found instead, where it was not.
    """

    what: str
    held: bool
    found: str = ""


@dataclass(slots=True)
class Act:
    """One act, as far as it has been played.

    Args:
        number: from 1.
        title: what it is about.
        checks: what was checked.
        stages: milliseconds of each stage of a rotation, where there was one.
        seconds: how long it took.
    """

    number: int
    title: str
    checks: list[Check] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether it was checked, and all of it was so."""
        return bool(self.checks) and all(one.held for one in self.checks)


class Audience(Protocol):
    """Who is told."""

    def begin(self, act: Act) -> None:
        """An act begins."""

    def command(self, words: str) -> None:
        """A command, as it would be typed."""

    def tell(self, text: str) -> None:
        """What is going on, or what somebody said."""

    def checked(self, check: Check) -> None:
        """Something was checked."""

    def timed(self, stages: Mapping[str, float]) -> None:
        """How long each stage took, in milliseconds."""

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Something takes a while."""


@dataclass
class Scene:
    """What the acts play with.

    Args:
        host: nginx, the daemon, the commands.
        client: the strict client.
        crowd: clients that come all the while.
        audience: who is told.
        current: what nginx has to serve.
        act: the one that is being played.
    """

    host: Host
    client: Client
    crowd: Crowd
    audience: Audience
    current: Fresh
    act: Act

    def check(self, what: str, held: bool, found: object = "") -> None:  # noqa: FBT001 - reads as a sentence
        """Notes what was checked."""
        one = Check(what, held, "" if held else str(found))
        self.act.checks.append(one)
        self.audience.checked(one)

    def deliver(self, fullchain: bytes, key: bytes, told: str = "fullchain.pem privkey.pem") -> dict[str, Any]:
        """Hands files to the daemon, and waits for its outcome."""
        self.audience.command(f"rotator deliver --wait {SITE} {told}")
        with self.audience.waiting("the daemon is at work"):
            answer = self.host.deliver(fullchain, key)
        self.act.stages = stages_of(answer)
        return answer

    def ends(self, answer: Mapping[str, Any], exit: int, result: str, *words: str) -> None:
        """Checks how a command ended: its exit status, the result, and that these words are told."""
        outcome = answer.get("outcome") or answer
        said = f"{outcome.get('reason', '')}: {outcome.get('message') or (answer.get('error') or {}).get('message')}"
        what = f"rotator says {result.upper().replace('-', ' ')} and exits {exit}"
        good = answer["exit"] == exit and outcome.get("result") == result and all(word in said for word in words)
        self.check(what, good, f"exit {answer['exit']}, {said}")

    def quote(self, answer: Mapping[str, Any]) -> None:
        """rotator's own words about an outcome."""
        outcome = answer.get("outcome") or answer
        self.audience.tell(str(outcome.get("message", "")))
        if outcome.get("hint"):
            self.audience.tell(f"next: {outcome['hint']}")

    def served(self, fresh: Fresh, what: str) -> None:
        """Checks what a fresh, strict handshake with each listener shows."""
        for listener in self.host.listeners:
            seen = self.client.leaf(listener)
            self.check(
                f"{listener} serves {fresh.fingerprint[:12]}, {what}", seen == fresh.fingerprint, f"it serves {seen}"
            )

    def until_rotated(self, within: float) -> float:
        """Waits until rotator says that the last thing that happened was a rotation. Returns the seconds."""
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < within:
            entries = self.host.rotator("history", SITE, "--limit", "1").get("entries") or [{}]
            if entries[-1].get("result") == "rotated":
                break
            time.sleep(0.2)
        return passed


def _goes_live(scene: Scene) -> None:
    renewal = scene.host.fresh()
    answer = scene.deliver(renewal.fullchain, renewal.key)
    scene.ends(answer, 0, "rotated")
    scene.audience.timed(scene.act.stages)
    scene.served(renewal, "the renewed one")
    scene.current = renewal
    dropped = (scene.host.drop / "privkey.pem").stat().st_mtime
    first = scene.crowd.first_seen.get((scene.host.listeners[0], renewal.fingerprint))
    if first is not None:
        scene.audience.tell(f"the first client got it {(first - dropped) * 1000:.0f} ms after it was dropped")


def _lacks_its_intermediate(scene: Scene) -> None:
    scene.audience.tell("The CA has begun to issue from another intermediate; somebody copies the leaf alone.")
    renewal = scene.host.next_issuer.issue((NAME,))
    chain, key = scene.host.write("leaf-alone", renewal.leaf, renewal.key)
    complaint = scene.client.complaint(chain, key)
    scene.check(f"a strict client would have refused it: {complaint}", complaint != "", "it takes it")
    answer = scene.deliver(renewal.leaf, renewal.key)
    scene.ends(answer, 3, "rejected", "incomplete-chain")
    scene.served(scene.current, "as before")
    cert, its_key = chain.relative_to(scene.host.tree), key.relative_to(scene.host.tree)
    scene.audience.command(f"rotator check --cert {cert} --key {its_key} --roots roots.pem --private-ca")
    asked = ("--cert", chain, "--key", key, "--roots", scene.host.roots_file, "--private-ca")
    diagnosis = scene.host.told("check", *asked)
    for line in diagnosis:
        scene.audience.tell(line.replace(f"{scene.host.tree}/", ""))
    missing = "the diagnosis names the certificate that is missing"
    scene.check(missing, any("[?] CN=rotator demo issuing CA 2" in line for line in diagnosis), diagnosis)


def _has_another_key(scene: Scene) -> None:
    renewal, other = scene.host.fresh(), scene.host.fresh()
    answer = scene.deliver(renewal.fullchain, other.key)
    scene.quote(answer)
    scene.ends(answer, 3, "rejected", "key-mismatch")
    scene.served(scene.current, "as before")


def _is_not_read_by_all(scene: Scene) -> None:
    host = scene.host
    scene.audience.tell("Somebody makes the second listener read copies of today's files. Nothing looks wrong, until:")
    host.files_of_second = host.write("copies", scene.current.fullchain, scene.current.key)
    host.reload_nginx()
    renewal = host.fresh()
    answer = scene.deliver(renewal.fullchain, renewal.key)
    scene.quote(answer)
    scene.ends(answer, 4, "rolled-back", host.listeners[1])
    scene.audience.timed(scene.act.stages)
    scene.served(scene.current, "the one before, again")
    host.files_of_second = None
    host.reload_nginx()
    scene.audience.tell("Mended: both include rotator's file again.")


def _is_refused_by_nginx(scene: Scene) -> None:
    host = scene.host
    scene.audience.tell("Somebody is editing nginx.conf: a memory zone has another key, which no reload can change.")
    before, host.zone_key = host.zone_key, "$server_name"
    host.write_nginx_config()
    renewal = host.fresh()
    answer = scene.deliver(renewal.fullchain, renewal.key)
    scene.quote(answer)
    scene.ends(answer, 8, "deferred", "clients")
    scene.served(scene.current, "as before")
    host.zone_key = before
    host.write_nginx_config()
    scene.audience.tell("Mended. Nobody calls rotator; the daemon tries again by itself:")
    with scene.audience.waiting("waiting for the daemon's next try"):
        seconds = scene.until_rotated(APPLIED_WITHIN)
    scene.audience.tell(f"rotated {seconds:.0f} s later")
    scene.served(renewal, "the renewed one")
    scene.current = renewal


def _is_swapped_by_hand(scene: Scene) -> None:
    host, renewal = scene.host, scene.host.fresh()
    directory = host.tree / "from-the-ca"
    directory.mkdir(mode=0o700)
    parts = {"example.cn.crt": renewal.leaf, "bundle.crt": renewal.bundle, "example.cn.key": renewal.key}
    for name, data in parts.items():
        (directory / name).touch(0o600)
        (directory / name).write_bytes(data)
    leaf, bundle, key = (directory / name for name in parts)
    scene.audience.command(f"rotator swap {SITE} --cert {leaf.name} --cert {bundle.name} --key {key.name}")
    with scene.audience.waiting("rotator is at work"):
        answer = host.rotator("swap", SITE, "--cert", leaf, "--cert", bundle, "--key", key)
    scene.act.stages = stages_of(answer)
    scene.ends(answer, 0, "rotated")
    scene.audience.timed(scene.act.stages)
    scene.served(renewal, "the renewed one")
    scene.current = renewal


def _is_seen_by_prometheus(scene: Scene) -> None:
    host = scene.host
    scene.audience.command(f"curl http://{host.metrics}/metrics")
    names = {
        'rotator_inputs_rejected_total{code="incomplete-chain"}': 1.0,
        'rotator_inputs_rejected_total{code="key-mismatch"}': 1.0,
        f'rotator_rollbacks_total{{site="{SITE}"}}': 1.0,
        f'rotator_rollback_failures_total{{site="{SITE}"}}': 0.0,
        **{
            f'rotator_served_certificate_matches_disk{{key_type="ecdsa",listener="{one}",site="{SITE}"}}': 1.0
            for one in host.listeners
        },
    }
    about = f'site="{SITE}"'

    def shows(samples: Mapping[str, float]) -> bool:
        current = any(about in series and scene.current.fingerprint in series for series in samples)
        return current and all(samples.get(series) == value for series, value in names.items())

    deadline = time.monotonic() + SCRAPED_WITHIN
    with scene.audience.waiting("the daemon looks again at what is served"):
        while not shows(samples := host.samples()) and time.monotonic() < deadline:
            time.sleep(0.1)
    for series, value in names.items():
        scene.check(f"{series} {value:g}", samples.get(series) == value, samples.get(series, "no such line"))
    scene.check(
        "the certificate that it tells of is the one that clients get",
        any("certificate_info" in series and scene.current.fingerprint in series for series in samples),
        [series for series in samples if "certificate_info" in series],
    )
    for series, value in samples.items():
        if series.startswith(("rotator_nginx_reloads_total", "rotator_nginx_worker_processes")):
            scene.audience.tell(f"{series} {value:g}")


def _loses_no_client(scene: Scene) -> None:
    scene.crowd.stop()
    failed, answered = scene.crowd.failures, scene.crowd.answered
    scene.check(f"{answered} connections, none failed", bool(answered) and not failed, "; ".join(failed[:3]) or "none")


ACTS: tuple[tuple[str, Callable[[Scene], None]], ...] = (
    ("A renewal goes live", _goes_live),
    ("A renewal without its intermediate is refused", _lacks_its_intermediate),
    ("A key that belongs to another certificate is refused", _has_another_key),
    ("A listener that goes on with its old files: rolled back, and proved", _is_not_read_by_all),
    ("nginx refuses the reload for a reason of its own: deferred, and applied later", _is_refused_by_nginx),
    ("By hand, with the files as a CA sends them", _is_swapped_by_hand),
    ("What Prometheus sees", _is_seen_by_prometheus),
    ("All the while, clients came and went", _loses_no_client),
)
"""Each act's title, and what is played. Each begins where the one before has ended."""
