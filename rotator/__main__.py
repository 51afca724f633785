"""The entry point of `python -m rotator`: checks Python's version and the installed packages, then runs the command.

Any Python may run this file, so its code is valid since Python 3.6.
"""

import sys

OLDEST = (3, 11)
"""The oldest Python that rotator runs on, as in pyproject.toml."""

if __name__ == "__main__":
    if sys.version_info[:2] < OLDEST:
        sys.exit(
            f"error: rotator needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and {sys.executable} is "
            f"{sys.version_info[0]}.{sys.version_info[1]}\n"
            "  hint: use a newer one, such as: python3.11 -m rotator; Debian has one since version 12"
        )
    try:
        from rotator.cli import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "rotator":
            raise
        sys.exit(
            f"error: a package that rotator needs is not installed: {error.name}\n"
            "  hint: install rotator with all packages that it needs, in a clone: "
            "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/rotator --help"
        )
    main()
