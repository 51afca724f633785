"""The entry point of `rotator` and `python -m rotator`: checks Python and the origin of modules, runs a command.

Any Python may run this file, so its code is valid since Python 3.6. Before its checks, it imports only what Python
itself has loaded: as root, no module may come from a directory in which other users can put one.
"""

import sys

OLDEST = (3, 11)
"""The oldest Python that rotator runs on, as in pyproject.toml."""


def foreign_path() -> str:
    """The first directory of other users that Python would import from; empty if there is none, or if this is not root.

    `python -m` puts the working directory in front of all other directories, and PYTHONPATH adds more.
    """
    import os  # every Python has loaded it

    if os.geteuid() != 0 or sys.flags.isolated:
        return ""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = "/"  # it has been removed, so no relative path leads to a module

    def absolute(place):  # type: (str) -> str
        return os.path.normpath(os.path.join(here, place))  # as Python itself changes the entries of PYTHONPATH

    named = os.environ.get("PYTHONPATH")
    places = {absolute(place) for place in named.split(os.pathsep)} if named else set()
    if not getattr(sys.flags, "safe_path", False):
        places.add(here)
    suspects = [place for place in sys.path if absolute(place) in places]
    original = sys.path[:]
    sys.path[:] = [place for place in original if place not in suspects]
    try:
        from rotator.system.trusted_paths import faults_of

        for place in suspects:
            for fault in faults_of(place):
                return "".join(c if c.isprintable() else "?" for c in str(fault))
    except OSError as error:
        return f"{error.filename!r}: {error.strerror}"
    finally:
        sys.path[:] = original
    return ""


def open_standard_descriptors() -> None:
    """Opens /dev/null for each standard descriptor that the caller has closed, so that no file gets its number."""
    import os  # as above

    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return


def main() -> None:
    """Runs the command line, if this Python can and may run it."""
    if sys.version_info[:2] < OLDEST:
        sys.exit(
            f"error: rotator needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and {sys.executable} is "
            f"{sys.version_info[0]}.{sys.version_info[1]}\n"
            "  hint: use a newer one, such as: python3.11 -m rotator; Debian has one since version 12"
        )
    open_standard_descriptors()
    foreign = foreign_path()
    if foreign:
        sys.exit(
            f"error: as root, Python would run modules of other users: {foreign}\n"
            "  hint: run the installed rotator, or from any directory: cd / && python3 -P -m rotator; unset PYTHONPATH"
        )
    try:
        from rotator.cli import main as run_command
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "rotator":
            raise
        sys.exit(
            f"error: a package that rotator needs is not installed: {error.name}\n"
            "  hint: install rotator with all packages that it needs, in a clone: "
            "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/rotator --help"
        )
    run_command()


if __name__ == "__main__":
    main()
