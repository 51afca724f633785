"""The daemon's log: one line for each event, for a person or for the journal; it never blocks, raises or waits.

Each line begins with the event: a stable word that alerts and searches may rely on. On a terminal it is as it stands;
where neither a terminal nor the journal adds a time, it has one. The journal is given fields beside the line:

    journalctl ROTATOR_EVENT=rotated     journalctl ROTATOR_SITE=example.cn -p warning

and a MESSAGE_ID for each event, the same on every host (systemd.journal-fields(7)). Where the journal's own socket
cannot be had, the line goes to stderr with its priority in front (sd-daemon(3)).
"""

from __future__ import annotations

import os
import select
import socket
import stat
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from rotator.core.model import Outcome, Result
from rotator.core.text import escaped

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities, as syslog counts them."""

LONGEST = 3500
"""Bytes of a line: below what a pipe takes in one piece, so that lines never mix."""

NATIVE = "/run/systemd/journal/socket"
"""Where the journal takes fields: datagrams of `KEY=value` lines (systemd's JOURNAL_NATIVE_PROTOCOL)."""
EVENTS = uuid.UUID("6f0d9a52-8a58-5c8e-9d1c-3f0b1f0f5a37")
"""The namespace of the events' ids."""

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
        native: the journal's own socket.
    """

    def __init__(self, fd: int = 2, environment: Mapping[str, str] = os.environ, native: str = NATIVE) -> None:
        self._fd = fd
        self._prefixed = _is_journal(fd, environment.get("JOURNAL_STREAM", ""))
        self._native = native
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
        line = escaped("; ".join(part.strip() for part in text.splitlines()))
        if self.lost:
            line += f" ({self.lost} lines before this one could not be written)"
        if self._prefixed and self._tell_journal(line, event, priority, site):
            self.lost = 0
            return
        if self._prefixed:
            line = f"<{priority}>{line}"
        elif self._dated:
            line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}"
        cut = line.encode("utf-8", "backslashreplace")[:LONGEST].decode("utf-8", "ignore")  # between two characters
        self._write(cut.encode() + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if poll.poll(0) and os.write(self._fd, data) == len(data):
                self.lost = 0
            else:
                self.lost += 1  # nobody reads: a rotation does not wait for that
        except OSError:
            self.lost += 1

    def _tell_journal(self, line: str, event: str, priority: int, site: str) -> bool:
        """Hands the line to the journal with its fields. Returns whether it was taken."""
        fields = {
            "MESSAGE": line[:LONGEST],
            "PRIORITY": str(priority),
            "SYSLOG_IDENTIFIER": "rotator",
            "MESSAGE_ID": message_id(event),
            "ROTATOR_EVENT": event,
        }
        if site:
            fields["ROTATOR_SITE"] = site
        data = "".join(f"{key}={value}\n" for key, value in fields.items()).encode("utf-8", "backslashreplace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as way:
                way.sendto(data, self._native)
        except OSError:
            return False  # full, gone, or not for this user
        return True

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


def message_id(event: str) -> str:
    """The id of an event: 32 hex digits, the same for ever."""
    return uuid.uuid5(EVENTS, event).hex


def _is_journal(fd: int, stream: str) -> bool:
    """Whether this descriptor is the one that systemd connected to the journal."""
    try:
        at = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISSOCK(at.st_mode) and stream == f"{at.st_dev}:{at.st_ino}"
