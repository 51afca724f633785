"""The daemon's log: one line for each event, for a person or for the journal; it never blocks, raises or waits.

Each line begins with the event: a stable word that alerts and searches may rely on. Under journald it has a priority in
front (sd-daemon(3)); where neither a terminal nor the journal adds a time, it has one.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Mapping
from datetime import UTC, datetime

from rotator.incoming import shown
from rotator.model import Outcome, Result

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities, as syslog counts them."""

LONGEST = 3500
"""Bytes of a line: below what a pipe takes in one piece, so that lines never mix."""

_PRIORITY = {
    Result.UNCHANGED: INFO,
    Result.ROTATED: NOTICE,
    Result.DEFERRED: WARNING,
    Result.REJECTED: ERROR,
    Result.ROLLED_BACK: ERROR,
    Result.STRANDED: 2,
}


class Journal:
    """Writes lines to a descriptor.

    Args:
        fd: usually 2.
        environment: where `JOURNAL_STREAM` may stand.
    """

    def __init__(self, fd: int = 2, environment: Mapping[str, str] = os.environ) -> None:
        self._fd = fd
        self._prefixed = _is_journal(fd, environment.get("JOURNAL_STREAM", ""))
        try:
            self._dated = not self._prefixed and not os.isatty(fd)
        except OSError:
            self._dated = False
        self.lost = 0

    def say(self, event: str, words: str, priority: int = INFO, *, site: str = "") -> None:
        """One event.

        Args:
            event: a stable kebab-case word.
            words: what happened; line feeds and control characters are escaped.
            priority: see above.
            site: which site it is about, if one.
        """
        text = f"{event} {site}: {words}" if site else f"{event}: {words}"
        line = shown("; ".join(part.strip() for part in text.splitlines()))
        if self._prefixed:
            line = f"<{priority}>{line}"
        elif self._dated:
            line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}"
        if self.lost:
            line += f" ({self.lost} lines before this one could not be written)"
        data = line.encode("utf-8", "backslashreplace")[:LONGEST] + b"\n"
        try:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if poll.poll(0) and os.write(self._fd, data) == len(data):
                self.lost = 0
            else:
                self.lost += 1  # nobody reads: a rotation does not wait for that
        except OSError:
            self.lost += 1

    def outcome(self, done: Outcome) -> None:
        """How it ended for a site, in one line."""
        words = f"{done.message.rstrip('.')} [{done.reason}]" if done.reason else done.message
        if done.unproved:
            words += f"; not proved: {', '.join(done.unproved)}"
        if done.hint and done.result is not Result.ROTATED:
            words += f"; next: {done.hint}"
        if done.stages and done.result is Result.ROTATED:
            words += f"; {sum(done.stages.values()):.3f} s"
        self.say(str(done.result), words, _PRIORITY[done.result], site=done.site)


def _is_journal(fd: int, stream: str) -> bool:
    """Whether this descriptor is the one that systemd connected to the journal."""
    try:
        at = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISSOCK(at.st_mode) and stream == f"{at.st_dev}:{at.st_ino}"
