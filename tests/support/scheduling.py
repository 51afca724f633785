"""Which tests stay together in one worker, because they share a fixture that costs much."""

from __future__ import annotations

from typing import Literal

TOGETHER: dict[str, Literal["file", "case"]] = {
    "tests/agreement/test_agreement.py": "case",
    "tests/architecture/test_tests.py": "file",
    "tests/clients/test_real_clients.py": "file",
    "tests/e2e/test_demo_play.py": "case",
    "tests/rotation/test_error_injection.py": "case",
    "tests/storage/test_crash_safety.py": "file",
}
"""All tests of the file, or those of each case (the nginx, the kind of error) of its fixture."""


def group_of(test: str) -> str:
    """The group of a test by its whole name; most tests are a group of their own."""
    file, _, name = test.partition("::")
    match TOGETHER.get(file):
        case "file":
            return file
        case "case":
            return f"{file}[{name.partition('[')[2]}" if "[" in name else test
        case None:
            return test
