"""The reader of Mozilla's PKCS#11 module (libnssckbi.so), which Debian installs with Firefox and with NSS.

It has the same roots as certdata.txt, with the dates of distrust, but as a program that runs in the process that loads
it. So `nss_dump` loads it in a short process of its own without rights, and this module takes nothing but its output,
which is read like any other file. Only a library that root alone may change is loaded.
"""

from __future__ import annotations

import os
import select
import stat
import subprocess
import sys
import time
from pathlib import Path

from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code
from rotator.core.text import shown
from rotator.system.trusted_paths import is_root
from rotator.validation.root_store_formats import MAX_ROOT_STORE

PROGRAM = Path(__file__).with_name("nss_dump.py")
"""The program that loads the module; it is not imported here, so that nothing of it runs in this process."""


WITHIN = 10.0
"""The most seconds that the module may take; 0.2 are usual."""

_HINT = "Name a file of the root store in its place: rotator help root-stores-of-browsers"


def is_module(data: bytes) -> bool:
    """Whether a file is a shared library (ELF)."""
    return data[:4] == b"\x7fELF"


def read_module(path: Path) -> bytes:
    """The roots of a module in the syntax of certdata.txt.

    Args:
        path: the shared library.

    Raises:
        RotatorError: `permission` if others than root may change it; `parse-error` if it shows no roots within bounds.
    """
    real = Path(os.path.realpath(path))
    for part in (real, *real.parents):
        if not _only_roots(part):
            message = f"{shown(str(path))} is a library that others than root may change, so it is not loaded"
            message += f": {shown(str(part))} is not root's alone."
            raise RotatorError(Code.PERMISSION, message, _HINT, Exit.REJECTED)
    try:
        output = _output([sys.executable, "-I", "-S", str(PROGRAM), str(real)])
    except OSError as error:
        message = f"{shown(str(path))} cannot be loaded: {error.strerror or error}."
        raise RotatorError(Code.IO_ERROR, message, _HINT, Exit.REJECTED) from error
    if not output:
        message = f"{shown(str(path))} is a library that shows no root store within {WITHIN:.0f} s."
        raise RotatorError(Code.PARSE_ERROR, message, _HINT, Exit.REJECTED)
    return output


def _only_roots(path: Path) -> bool:
    """Whether root alone may write a file or directory."""
    try:
        status = path.stat()
    except OSError:
        return False
    return is_root(status.st_uid) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _output(command: list[str]) -> bytes:
    """The output of a program; empty if it fails, writes too much or takes too long.

    The program has no terminal, no environment and a session of its own.
    """
    process = subprocess.Popen(  # noqa: S603 - this interpreter with a program of this package
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for above
    end, output = time.monotonic() + WITHIN, bytearray()
    poll = select.poll()  # select(2) takes no descriptor above 1023
    poll.register(process.stdout, select.POLLIN)
    try:
        while len(output) <= MAX_ROOT_STORE and (left := end - time.monotonic()) > 0:
            if poll.poll(1000 * left):
                part = os.read(process.stdout.fileno(), 1 << 16)
                output += part
                if not part and process.wait(left) == 0:
                    return bytes(output)
                if not part:
                    break
    except subprocess.TimeoutExpired:
        pass  # it closed its output and went on
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return b""
