"""The users who may change the configuration, and what it makes root run.

A user who changes the configuration chooses the program that is run as nginx, so as root it must be root's alone, like
the program itself, with every directory on the way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rotator.config.settings import Config, Mistake
from rotator.core.hints import shell_word
from rotator.system.trusted_paths import Fault, faults_of, is_root


def file_mistakes(path: Path) -> tuple[Mistake, ...]:
    """The mistake of a configuration that an untrusted user can change; empty for a missing one.

    As root, the file and every directory on the way must be root's alone. For another user, the file must belong to
    that user or to root.

    Args:
        path: the file.
    """
    try:
        if os.geteuid() == 0:
            return _mistakes(1, "", "users other than root can change the configuration", faults_of(str(path)))
        uid = path.stat().st_uid
    except OSError:
        return ()  # the reader of the file reports it
    if is_root(uid) or uid == os.geteuid():
        return ()
    quoted = shell_word(str(path))
    message = f"the file belongs to uid {uid}, who is neither root nor the calling user (uid {os.geteuid()})"
    return (Mistake(1, "", message, f"chown root: {quoted}"),)


def program_mistakes(config: Config, line: int = 1) -> tuple[Mistake, ...]:
    """The mistake of an nginx program that root runs and another user can change; empty for a user other than root.

    Args:
        config: the configuration.
        line: the line of the key in its file.
    """
    program = shutil.which(config.nginx.command[0]) if os.geteuid() == 0 else None
    if program is None:
        return ()  # what is missing is reported when it is run
    try:
        faults = faults_of(program)
    except OSError:
        return ()  # as above
    return _mistakes(line, "nginx.command", f"users other than root can change {program}, which root runs", faults)


def open_inputs(config: Config) -> tuple[str, ...]:
    """Notes about the roots and password files that root reads and users other than root can change.

    Args:
        config: the configuration.
    """
    if os.geteuid() != 0:
        return ()
    inputs = {f"roots of site {c.site.name}": c.roots for c in config.sites}
    inputs |= {f"password_file of site {c.site.name}": c.password_file for c in config.sites if c.password_file}
    notes = []
    for key, path in inputs.items():
        try:
            faults = faults_of(str(path))
        except OSError:
            continue
        if faults:
            notes.append(f"{key}: users other than root can change {path}: {_listed(faults)}; {_mending(faults)}")
    return tuple(notes)


def _mistakes(line: int, key: str, message: str, faults: Sequence[Fault]) -> tuple[Mistake, ...]:
    return (Mistake(line, key, f"{message}: {_listed(faults)}", _mending(faults)),) if faults else ()


def _listed(faults: Sequence[Fault]) -> str:
    return ", ".join(map(str, faults))


def _mending(faults: Sequence[Fault]) -> str:
    """The commands that leave the paths to root alone; a sticky directory such as /tmp stays as it is."""
    commands = []
    for fault in faults:
        quoted = shell_word(fault.path)
        if not fault.foreign and Path(fault.path).stat().st_mode & 0o1000:
            commands.append(f"move it out of {quoted}, to which every user can write")
        else:
            commands.append(f"chown root: {quoted}" if fault.foreign else f"chmod go-w {quoted}")
    return "; ".join(commands)
