"""A warm process that measures what the judge costs: seconds of processor and memory, each time in a fork of its own.

One interpreter imports everything once. Each measurement forks from it, does the usual work first, so that all that is
loaded once is there, and counts from then on.
"""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rotator.core.errors import RotatorError
from rotator.core.model import Candidate, Secret, SourceFile
from rotator.sources import trust_files
from rotator.validation.evidence import Evidence
from rotator.validation.validate import Anchors, Verdict, public, validate_files
from tests.support.cost import pace

NAME = "signal.example.test"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Measured:
    """One piece of work.

    Args:
        seconds: of processor, as on the machine of the bounds.
        megabytes: by which the process has grown at most.
        accepted: whether the judge accepts.
        codes: of all problems, each once, or of the refusal of what was to be read.
        problems: how many there are.
    """

    seconds: float
    megabytes: float
    accepted: bool
    codes: tuple[str, ...]
    problems: int


def drop(roots: bytes, good: Sequence[bytes], files: Sequence[bytes], password: bytes) -> tuple[Work, Work]:
    """The usual work and the one to be measured: a drop of these files is judged."""
    anchors = Anchors.from_pem(roots, "roots.pem")

    def judged(files: Sequence[bytes]) -> Verdict:
        named = tuple(SourceFile(f"{number}.pem", data) for number, data in enumerate(files))
        return validate_files(Candidate(named, Secret(password)), public([NAME]), anchors, datetime.now(UTC))

    return lambda: judged(good), lambda: judged(files)


def beside(roots: bytes, good: bytes, kind: str, few: Path, many: Path) -> tuple[Work, Work]:
    """The usual work and the one to be measured: a file beside the roots is read, and a chain is judged with it."""
    readers: dict[str, Callable[[str], Any]] = {
        "revocations": trust_files.read_revocations,
        "responses": trust_files.read_responses,
        "blocked": trust_files.read_blocklist,
        "logs": trust_files.read_logs,
        "root_stores": trust_files.read_root_stores,
    }
    usual = Anchors.from_pem(roots, "roots.pem")

    def judged(path: Path) -> Verdict:
        if kind == "roots":
            anchors = Anchors.from_pem(path.read_bytes(), "roots.pem")
        else:
            anchors = usual.beside(Evidence(**{kind: readers[kind](str(path))}))
        candidate = Candidate((SourceFile("x.pem", good),))
        return validate_files(candidate, public([NAME]), anchors, datetime.now(UTC), need_key=False)

    return lambda: judged(few), lambda: judged(many)


Work = Callable[[], Verdict]
WORKS: dict[str, Callable[..., tuple[Work, Work]]] = {"drop": drop, "beside": beside}


class Measuring:
    """The warm process; a context manager."""

    def __enter__(self) -> Self:
        """Starts it."""
        command = [sys.executable, "-m", "tests.support.measuring"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def measure(self, work: str, *arguments: object) -> Measured:
        """Has one of `WORKS` done with these arguments.

        Raises:
            AssertionError: it failed, with its traceback.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((work, arguments), self._process.stdin)
        self._process.stdin.flush()
        found = pickle.load(self._process.stdout)
        assert isinstance(found, Measured), found
        return found


def _peak() -> int:
    """The most memory that this process has had, in KiB."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def _measured(work: str, arguments: Sequence[Any]) -> Measured:
    usual, wanted = WORKS[work](*arguments)
    _answer(usual)
    slow, memory, begin = pace(), _peak(), time.process_time()
    accepted, codes, problems = _answer(wanted)
    return Measured((time.process_time() - begin) / slow, (_peak() - memory) / 1024, accepted, codes, problems)


def _answer(work: Work) -> tuple[bool, tuple[str, ...], int]:
    try:
        verdict = work()
    except RotatorError as error:
        return False, (error.code,), 1
    return verdict.accepted, tuple(map(str, (*verdict.codes, *verdict.warnings))), len(verdict.problems)


def main() -> None:
    """Answers each request on standard input with one `Measured`, or with the words of a failure."""
    while True:
        try:
            work, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            try:
                answer: object = _measured(work, arguments)
            except BaseException:
                answer = traceback.format_exc()
            pickle.dump(answer, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            pickle.dump(f"the measured process ended with {os.waitstatus_to_exitcode(status)}", sys.stdout.buffer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    from tests.support import measuring  # under its own name, as that is what is pickled

    measuring.main()
