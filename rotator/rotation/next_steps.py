"""The next steps that a person is shown after a rotation, by the reason of its end."""

from __future__ import annotations

from collections.abc import Mapping

from rotator.core.hints import command
from rotator.core.problems import Code
from rotator.core.reasons import Reason

AGAIN = "then repeat the command; a running daemon tries again automatically"
"""The end of each hint about what is deferred."""
START_NGINX = "Start nginx: systemctl start nginx"
NGINX_DOWN_HINT = f"{START_NGINX}; or correct `pid_file` under [nginx] if it runs; {AGAIN}"
REFUSAL_HINT = f"The new pair is not the cause: correct what nginx reports (`nginx -t` often shows the line), {AGAIN}"
SILENT = (
    "nginx's master got the signal to reload and did nothing: it is stopped or hangs, or its refusal cannot be read"
)
SILENT_HINT = (
    "See its state (T: stopped, D: waits for a disk): ps -o pid,stat,args -C nginx; `kill -CONT` wakes one that is "
    f"stopped, `nginx -t` shows what it would refuse; {AGAIN}"
)
ROLLED_BACK_HINT = (
    "See whether each server block of these listeners includes the site's file (another path there keeps the old "
    "pair), and nginx's error log; then repeat the swap"
)
APPLY_HINTS: Mapping[Reason | Code, str] = {
    Code.PERMISSION: "Run it as root, or as the owner of the include directory",
    Reason.INCLUDE_DIR_UNSAFE: "Let only the user of nginx's master write there: chown root: DIR && chmod go-w DIR",
    Reason.INCLUDE_FOREIGN: "Move that file away, then: rotator swap SITE --cert FILE --key FILE --first",
    Reason.PID_FILE_UNSAFE: (
        f"Set `pid_file` under [nginx] to the `pid` of nginx.conf, a file of root that no other user may write; {AGAIN}"
    ),
    Reason.SIGNAL_PERMISSION: "Run it as root, or as the user of nginx's master",
    Reason.DISK_FULL: f"Free some space, {AGAIN}",
}
"""The next step after a failure of the privileged step, by its reason."""

_STEPS: Mapping[str, str] = {
    Reason.NGINX_DOWN: NGINX_DOWN_HINT,
    Reason.NGINX_SILENT: SILENT_HINT,
    Code.NGINX_REFUSED: REFUSAL_HINT,
    Reason.NOT_PROVED: ROLLED_BACK_HINT,
    Reason.UNPROVED: ROLLED_BACK_HINT,
    Reason.DISK_FULL: f"Free some space, {AGAIN}",
}
_BY_HAND = frozenset({Reason.MIN_RELOAD_INTERVAL, Reason.DRAIN_BUDGET, Reason.COSTLY})
"""The reasons to wait that a swap by hand passes over."""
_GOOD = frozenset({Reason.SAME, Reason.PROVED, Reason.ROTATED, Reason.VERIFIED, Reason.RECOVERED, Reason.NOTHING})
"""The reasons of an end that leaves nothing to do."""
_EXPLAINED = frozenset(map(str, (*Code, *Reason))) - _GOOD


def next_step(word: str, site: str) -> str:
    """The next step after an outcome that the store has recorded, from its code or reason alone.

    The store belongs to the daemon, which reads untrusted bytes. So no hint is taken from it: a person pastes hints.

    Args:
        word: the code or reason.
        site: the name of the site.

    Returns:
        What to do, or the command that explains the word; empty if nothing is to be done, or for an unknown word.
    """
    if word in _BY_HAND:
        return f"A swap by hand does not wait: {command('rotator swap', site)}"
    return _STEPS.get(word) or (command("rotator help", word) if word in _EXPLAINED else "")
