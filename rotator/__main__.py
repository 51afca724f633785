"""Lets `python -m rotator` be the command, and says what is missing where it cannot be; no logic lives here.

It is read by whatever Python there is, so nothing in it is newer than Python 3.6.
"""

import sys

OLDEST = (3, 11)
"""The oldest Python that rotator runs on, as in pyproject.toml."""

if __name__ == "__main__":
    if sys.version_info[:2] < OLDEST:
        sys.exit(
            f"error: rotator needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and {sys.executable} is "
            f"{sys.version_info[0]}.{sys.version_info[1]}\n"
            "  hint: call it with a newer one, such as: python3.11 -m rotator; Debian has one since 12"
        )
    try:
        from rotator.cli import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "rotator":
            raise
        sys.exit(
            f"error: a package that rotator needs is not installed: {error.name}\n"
            "  hint: install it with all that it needs, in a clone: "
            "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/rotator --help"
        )
    main()
