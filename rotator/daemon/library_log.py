"""The lines and warnings of libraries, as events of the journal and at a bounded rate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from rotator.daemon.journal import WARNING, Journal

MOST = 10
"""The most lines within `WITHIN` seconds; later ones are counted."""
WITHIN = 600.0
"""Seconds."""


class LibraryLog(logging.Handler):
    """Writes warnings and errors of libraries to the journal; may be called in any thread.

    Args:
        journal: where they are written.
        monotonic: the clock of the rate.
    """

    def __init__(self, journal: Journal, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self.journal, self._monotonic = journal, monotonic
        self._begun, self._written, self._left_out = -WITHIN, 0, 0

    def __enter__(self) -> LibraryLog:
        logging.getLogger().addHandler(self)
        logging.captureWarnings(True)
        return self

    def __exit__(self, *_: object) -> None:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line, or counts it."""
        now = self._monotonic()
        if now - self._begun >= WITHIN:
            self._begun, self._written = now, 0
        if self._written >= MOST:
            self._left_out += 1
            return
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        more = f" ({left_out} lines before this one were left out)" if left_out else ""
        self.journal.say("library", f"{record.name}: {self.format(record)}{more}", WARNING)
