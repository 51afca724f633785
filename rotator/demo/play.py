"""The demo from its first process to its last: what is set up, which acts are played, what is left; how, is in acts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason
from rotator.demo import authority, binary
from rotator.demo.acts import ACTS, Act, Audience, Scene
from rotator.demo.clients import Client, Crowd
from rotator.demo.host import NAME, SITE, Host, write_pair


@dataclass(slots=True)
class Played:
    """What came of it.

    Args:
        nginx: which was played with.
        acts: those that were played.
        answered: requests of the clients that came all the while, and were answered.
        failed: those that were not.
        seconds: how long it took.
        last_words: the end of the daemon's log, where an act did not hold.
    """

    nginx: str
    acts: list[Act] = field(default_factory=list)
    answered: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_words: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every act was played, and held."""
        return len(self.acts) == len(ACTS) and all(act.held for act in self.acts)


def play(named: str | None, audience: Audience, keep: Callable[[Host, Played], None] | None) -> Played:
    """Plays all acts, up to the first that does not hold.

    Args:
        named: the nginx to play with; None for what there is.
        audience: who is told.
        keep: called at the end, with everything still running; None to end at once.

    Returns:
        What came of it. Nothing is left then: no process, no port, no directory.

    Raises:
        RotatorError: `no-nginx`; or `demo-failed`: it could not be set up.
    """
    begun = time.monotonic()
    played = Played(binary.find(named))
    with Host(played.nginx) as host:
        with audience.waiting("a CA, an nginx and the daemon are being made"):
            host.build()
            first = host.fresh()
            chain, key = host.write("first", first.fullchain, first.key)
            answer = host.rotator("swap", SITE, "--first", "--cert", chain, "--key", key)
            if answer.get("reason") != "not-wired":  # its include is written, and nginx has not been started yet
                why = answer.get("message") or (answer.get("error") or {}).get("message")
                raise RotatorError(Reason.DEMO_FAILED, f"rotator did not take the first pair: {why}", binary.HINT)
            host.start_nginx()
            host.start_daemon()
        audience.tell(
            f"Here are {host.version} at {' and '.join(host.listeners)}, rotator's daemon, and a CA of today."
        )
        audience.tell(f"All that belongs to them lies in {host.tree}.")
        client = Client(NAME, host.roots)
        crowd = Crowd(client, host.listeners)
        try:
            crowd.start()
            scene = Scene(host, client, crowd, audience, first, Act(0, ""))
            _play_acts(scene, played)
        finally:
            crowd.stop()
        played.answered, played.failed = crowd.answered, len(crowd.failures)
        played.seconds = time.monotonic() - begun
        if not played.held:
            played.last_words = host.last_words()
        if keep is not None:
            keep(host, played)
    return played


def _play_acts(scene: Scene, played: Played) -> None:
    with scene.client.hold(scene.host.listeners[0]) as held:
        for number, (title, does) in enumerate(ACTS, 1):
            scene.act = Act(number, title)
            played.acts.append(scene.act)
            scene.audience.begin(scene.act)
            begun = time.monotonic()
            does(scene)
            if number == len(ACTS):
                what = "a connection from before the first act is answered by the worker that took it"
                scene.check(what, scene.client.finish(held), "it was cut")
            scene.act.seconds = time.monotonic() - begun
            if not scene.act.held:  # what follows builds on it
                break


def renew(directory: Path) -> tuple[Path, Path, Path]:
    """Makes a fresh pair for a demo that is left running.

    Args:
        directory: the demo's tree.

    Returns:
        Chain and key, in a place beside the drop; and the drop.

    Raises:
        RotatorError: `no-demo`: there is none; exit status 2.
    """
    try:
        fresh = authority.load(directory / "ca").issue((NAME,))
        pair = write_pair(directory / "fresh", fresh.fullchain, fresh.key)
    except (OSError, ValueError) as e:
        words = f"{directory} is not the folder of a running demo: {getattr(e, 'strerror', None) or e}"
        raise RotatorError(
            Reason.NO_DEMO, words, "rotator demo --keep starts one, and tells its folder", Exit.USAGE
        ) from e
    return (*pair, directory / "incoming" / SITE)
