"""The daemon's log: one line for each event, for a person or for the journal.

Writing a line never blocks and never raises. Each line begins with the event: a stable word for alerts and searches to
rely on. A line that goes neither to a terminal nor to the journal begins with the time. The journal gets fields beside
the line:

    journalctl ROTATOR_EVENT=rotated     journalctl ROTATOR_SITE=example.cn -p warning

and a MESSAGE_ID for each event, the same on every host (systemd.journal-fields(7)). If the journal's own socket is
unavailable, the line goes to stderr with its priority in front (sd-daemon(3)).
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
"""The socket for lines with fields: datagrams of `KEY=value` lines (systemd's JOURNAL_NATIVE_PROTOCOL)."""
EVENTS = uuid.UUID("6f0d9a52-8a58-5c8e-9d1c-3f0b1f0f5a37")
"""The namespace of the ids of events."""

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
        fd: the descriptor, usually 2.
        environment: may have `JOURNAL_STREAM`.
        native: the path of the journal's own socket.
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

    def say(self, event: str, message: str, priority: int = INFO, *, site: str = "") -> None:
        """Writes one event.

        Args:
            event: a stable kebab-case word.
            message: what happened; line feeds and control characters are escaped.
            priority: as syslog counts, from 0 (emergency) to 7 (debug).
            site: the site that it is about; empty if it is about none.
        """
        text = f"{event} {site}: {message}" if site else f"{event}: {message}"
        line = escaped("; ".join(part.strip() for part in text.splitlines()))
        if self.lost:
            line += f" ({self.lost} lines before this one could not be written)"
        if self._prefixed and self._send_to_journal(line, event, priority, site):
            self.lost = 0
            return
        if self._prefixed:
            line = f"<{priority}>{line}"
        elif self._dated:
            line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}"
        cut = line.encode("utf-8", "backslashreplace")[:LONGEST].decode("utf-8", "ignore")  # never within a character
        self._write(cut.encode() + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if poll.poll(0) and os.write(self._fd, data) == len(data):
                self.lost = 0
            else:
                self.lost += 1  # the reader is slow or gone: a rotation does not wait for it
        except OSError:
            self.lost += 1

    def _send_to_journal(self, line: str, event: str, priority: int, site: str) -> bool:
        """Sends the line to the journal with its fields. Returns whether the journal took it."""
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
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as journal:
                journal.sendto(data, self._native)
        except OSError:
            return False  # full, gone, or closed to this user
        return True

    def outcome(self, outcome: Outcome) -> None:
        """Writes the outcome for a site in one line."""
        message = f"{outcome.message.rstrip('.')} [{outcome.reason}]" if outcome.reason else outcome.message
        if outcome.unproved:
            message += f"; not proved: {', '.join(outcome.unproved)}"
        if outcome.hint and outcome.result is not Result.ROTATED:
            message += f"; next: {outcome.hint}"
        if outcome.stages and outcome.result is Result.ROTATED:
            message += f"; {sum(outcome.stages.values()):.3f} s"
        self.say(str(outcome.result), message, _PRIORITY[outcome.result], site=outcome.site)


def message_id(event: str) -> str:
    """The id of an event: 32 hex digits, the same in every version."""
    return uuid.uuid5(EVENTS, event).hex


def _is_journal(fd: int, stream: str) -> bool:
    """Whether this descriptor is the one that systemd connected to the journal."""
    try:
        at = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISSOCK(at.st_mode) and stream == f"{at.st_dev}:{at.st_ino}"
