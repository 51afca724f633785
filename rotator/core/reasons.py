"""The reasons: why an outcome or a command ended as it did, each as a stable word.

A fault of the certificate or key itself is a `Code` (`core.problems`). Everything else is here: the states of
nginx, of the host, of the store and of rotator's own processes. A word is the same in messages, in JSON, in the history
and in the labels of metrics, so a released word never changes.

`privsep.apply` is one file of the standard library and has its words as strings; a test compares them with these.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from rotator.core.problems import Code


class Reason(StrEnum):
    """Every word that says why, other than a problem's code."""

    # what has been proved
    SAME = "same"
    """The pair was live and verified already, and every listener serves it."""
    PROVED = "proved"
    """The pair was live already and is verified now."""
    ROTATED = "rotated"
    """The pair was put live and is verified."""
    VERIFIED = "verified"
    """Recovery found the live pair served by every listener."""
    RECOVERED = "recovered"
    """Recovery proved the live pair, or put the verified one back and proved it."""
    NOTHING = "nothing"
    """The site has no pair yet, so there is nothing to recover."""
    WOULD_ROTATE = "would-rotate"
    """A dry run found no obstacle to the rotation."""

    # what has not been proved
    UNPROVED = "unproved"
    """The new pair stays although not every listener was seen serving it, as the previous one is no longer valid."""
    NOT_PROVED = "not-proved"
    """Not every listener was seen serving the pair within the deadline."""
    ROLLBACK_FAILED = "rollback-failed"
    """Neither the new pair nor the previous one could be proved."""
    LISTENER = "listener"
    """A listener does not serve the live pair, before anything was changed."""
    NOT_WIRED = "not-wired"
    """nginx's configuration does not include the site's file yet."""

    # nginx
    NGINX_DOWN = "nginx-down"
    """nginx is not running."""
    NGINX_SILENT = "nginx-silent"
    """nginx's master got the signal to reload and did nothing."""
    NGINX_UPGRADE = "nginx-upgrade"
    """A binary upgrade of nginx is in flight."""
    NGINX_TEST = "nginx-test"
    """nginx could not test the pair alone, for a cause other than the pair."""
    NGINX_MISSING = "nginx-missing"
    """nginx's program is not where the configuration says."""
    REFUSED = "refused"
    """nginx refused a reload (metrics), or the daemon would refuse the delivered files (`deliver`)."""
    GONE = "gone"
    """nginx ended before it could be signalled (metrics)."""

    # waiting
    MIN_RELOAD_INTERVAL = "min-reload-interval"
    """The last reload is too recent for another one."""
    DRAIN_BUDGET = "drain-budget"
    """Too many workers of earlier reloads are still draining."""
    RELOADED_BEFORE = "reloaded-before"
    """An earlier start has just reloaded nginx for the same live pair, which did not prove it."""
    COSTLY = "costly"
    """The earlier contents of the drop took much CPU time, so the drops of other sites are decided first."""
    LOCK_BUSY = "lock-busy"
    """Another rotation on this host holds the lock."""
    BUSY = "busy"
    """Another delivery into the same drop is under way."""
    CLOCK_SUSPECT = "clock-suspect"
    """The clock stands before something that is known to have happened."""

    # the privileged step
    APPLY_UNIT = "apply-unit"
    """The unit of the privileged step cannot be reached, or gave no answer."""
    APPLY_DENIED = "apply-denied"
    """This user may not ask for the privileged step."""
    APPLY_VERSION = "apply-version"
    """rotator and root's program of the privileged step are of different releases."""
    APPLY_LOST = "apply-lost"
    """An include was changed, but the privileged step gave no answer."""
    APPLY_GONE = "apply-gone"
    """The process that keeps root's rights during a command has ended."""
    BAD_REQUEST = "bad-request"
    """The privileged step was asked for a site or a generation that it does not accept."""
    SIGNAL_PERMISSION = "signal-permission"
    """This user may not signal nginx's master."""
    PID_FILE_UNSAFE = "pid-file-unsafe"
    """Another user may have written nginx's pid file, or it names another user's process."""
    INCLUDE_DIR_UNSAFE = "include-dir-unsafe"
    """Others than the user of nginx's master may write to the include directory."""
    INCLUDE_FOREIGN = "include-foreign"
    """A file that rotator did not write stands in the place of the site's include."""
    COPY_DIFFERS = "copy-differs"
    """root's copy of a generation differs from the stored one."""
    STORE_UNSAFE = "store-unsafe"
    """A stored file has another owner, another name or another content than the store may hold."""
    NOT_A_FILE = "not-a-file"
    """Something other than a regular file stands in the place of a stored one."""

    # the store
    NO_STORE = "no-store"
    """The state directory is missing."""
    NO_GENERATION = "no-generation"
    """The generation is not in the store."""
    STORE_DAMAGED = "store-damaged"
    """A stored generation is not whole."""
    DISK_FULL = "disk-full"
    """The disk or the quota is full."""
    NOTHING_TO_DO = "nothing-to-do"
    """There is neither a new pair nor a live one."""

    # rotator's own processes and commands
    CONFIGURATION = "configuration"
    """The configuration is wrong."""
    USAGE = "usage"
    """The command line is wrong."""
    FAILURE = "failure"
    """A command failed for a cause that has no word of its own."""
    WRONG_USER = "wrong-user"
    """The command runs as another user than the store's owner."""
    DAEMON_RUNNING = "daemon-running"
    """Another daemon works on the same store."""
    NO_DAEMON = "no-daemon"
    """No daemon is running."""
    ADDRESS_IN_USE = "address-in-use"
    """Another process listens on the address of the metrics page."""
    NOT_DECIDED = "not-decided"
    """The daemon has not decided within the time that the command waits."""
    NOT_TAKEN = "not-taken"
    """The daemon took another pair of the drop than the delivered one."""
    SUPERSEDED = "superseded"
    """The drop holds something else than what was delivered."""
    HELD = "held"
    """An operator's hold keeps the drop from being installed."""
    NO_DROP = "no-drop"
    """The site's drop is missing."""
    DROP_FOREIGN = "drop-foreign"
    """The site's drop belongs to a user to whom it may not belong."""
    MISSING = "missing"
    """The directory of a drop is missing (metrics)."""
    NO_CONNECTION = "no-connection"
    """The address takes no connection."""
    NO_TLS = "no-tls"
    """The address takes connections, but no client gets a certificate."""
    NO_NGINX = "no-nginx"
    """The demo finds no nginx on this host."""
    NO_DEMO = "no-demo"
    """The demo cannot begin on this host."""
    DEMO_FAILED = "demo-failed"
    """The demo could not go on."""

    OTHER = "other"
    """A word of another version of rotator, which this one does not know."""


def reason_of(word: str) -> Reason | Code:
    """The member of a word from outside: from the privileged step, the history or `intent.json`.

    Args:
        word: as it was written.

    Returns:
        `Reason.OTHER` for an unknown word: it was written by another version.
    """
    return _MEMBERS.get(word, Reason.OTHER)


_MEMBERS: Mapping[str, Reason | Code] = {str(member): member for kind in (Code, Reason) for member in kind}
