"""The reason for which nginx refused a reload: which words are quoted to people, and which condemn a pair.

That it refused is seen in its master's own state (`privsep.apply`). Why it did stands in its log, which its workers may
write on most hosts. So nginx is asked once more, by `nginx -t` as root, while the includes still name the new pairs: a
pair is condemned only if that test refuses the content of its files. Everything else defers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rotator.core.errors import RotatorError
from rotator.nginx.pair_trial import NginxVerdict
from rotator.privsep.apply import Applied, copies_path
from rotator.rotation.ports import Ports
from rotator.rotation.site_rotation import SiteRotation


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nginx refused a reload.

    Args:
        nginx_words: for people: the messages of its test; those of its log, which are marked if others may write it, if
            the test passes or met only failed system calls.
        test: the verdict of its own test of the refused configuration.
    """

    nginx_words: tuple[str, ...]
    test: NginxVerdict = field(default_factory=lambda: NginxVerdict(ok=True))

    @property
    def message(self) -> str:
        """The refusal as a clause."""
        reason = "; ".join(self.nginx_words) or "`nginx -t` passes, and its error log was not readable or says nothing"
        return f"nginx refused the reload: {reason}"

    def blames(self, rotation: SiteRotation, ports: Ports) -> bool:
        """Whether nginx's own test refuses a file of this site's new generation."""
        return self.test.blames(f"{copies_path(ports.include_dir, rotation.site.name, rotation.new.name)}/")


def explain_refusal(applied: Applied, ports: Ports) -> Refusal:
    """Asks nginx why it refused a reload. Call it before the includes change again.

    Args:
        applied: the answer of the privileged step, with the decision `refused`.
        ports: nginx's test of its whole configuration.
    """
    try:
        test = ports.nginx.full_test()
    except RotatorError as e:
        ports.say(f"`nginx -t` could not be run: {e.message}")
        return Refusal(applied.words)
    if test.ok:
        return Refusal(applied.words, test)
    return Refusal((*applied.words, *test.messages) if test.is_hindered else test.messages, test)
