"""The wait of the loop, which threads and signal handlers may end."""

from __future__ import annotations

import os
import select


class Wake:
    """A flag to wait for. Setting it takes no lock, so a signal handler may; many settings end one wait."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def set(self) -> None:
        """Ends the wait, or the next one."""
        try:
            os.eventfd_write(self._fd, 1)
        except (OSError, ValueError):
            return  # its counter is full, so it is set; or it is closed, and there is no wait to end

    def wait(self, seconds: float) -> bool:
        """Waits until the flag is set, and clears it.

        Args:
            seconds: how long at most.

        Returns:
            Whether it was set.
        """
        if not self._poll.poll(max(0.0, seconds) * 1000):
            return False
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return False
        return True

    def is_set(self) -> bool:
        """Whether the next wait would end at once."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Closes the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
