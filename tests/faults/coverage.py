"""Which lines of the readers and the judge have ever run: what guides the fuzzer; nothing is mutated here.

Each line is told of once. From Python 3.12 on that costs nothing afterwards (`sys.monitoring`); before, a function is
traced until all of its lines have been seen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import rotator

HOME = rotator.__path__[0]


class Coverage:
    """The lines that have run so far.

    Attributes:
        seen: file and line.
    """

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()
        self._left: dict[CodeType, set[int]] = {}
        self._begun = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within this block lines are noted."""
        if sys.version_info >= (3, 12):
            yield from self._monitored()
        else:
            before = sys.gettrace()
            sys.settrace(self._called)
            try:
                yield
            finally:
                sys.settrace(before)

    def _monitored(self) -> Iterator[None]:
        monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - the type checker looks at 3.11 too
        tool = next(number for number in (3, 4, 1, 2, 0) if monitoring.get_tool(number) is None)
        monitoring.use_tool_id(tool, "rotator-fuzz")
        event = monitoring.events.LINE

        def ran(code: CodeType, line: int) -> Any:
            self._note(code, line)
            return monitoring.DISABLE

        monitoring.register_callback(tool, event, ran)
        if not self._begun:  # what an earlier one has seen is switched off until now
            self._begun = True
            monitoring.restart_events()
        monitoring.set_events(tool, event)
        try:
            yield
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)

    def _note(self, code: CodeType, line: int) -> None:
        if code.co_filename.startswith(HOME):
            self.seen.add((code.co_filename, line))

    def _called(self, frame: FrameType, _event: str, _argument: object) -> Any:
        code = frame.f_code
        left = self._left.get(code)
        if left is None:
            ours = code.co_filename.startswith(HOME)
            left = {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno} if ours else set()
            self._left[code] = left
        return self._stepped if left else None

    def _stepped(self, frame: FrameType, _event: str, _argument: object) -> Any:
        self._left[frame.f_code].discard(frame.f_lineno)
        self._note(frame.f_code, frame.f_lineno)
        return self._stepped
