"""Files that a verdict is shown: roots, lists, OCSP responses, logs, keys; read whole and bounded, judged elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code
from rotator.core.text import shown
from rotator.validation.blocklist import MAX_BLOCKLIST, Blocklist
from rotator.validation.sct import MAX_LIST, Logs
from rotator.validation.trust_anchors import MAX_STORE, Anchors
from rotator.x509.crl import MAX_CRL, Revocations
from rotator.x509.ocsp import MAX_RESPONSES, Responses

MAX_FILES = 1000
"""Files that a directory may hold; CAs that split their revocation lists have some hundred parts."""

MAX_LISTS = 32 * 1024 * 1024
"""Bytes that all revocation lists may hold together: as many stay in memory as long as they are in use."""

MAX_STAPLES = 8 * 1024 * 1024
"""Bytes that all OCSP responses may hold together: a thousand have two."""


Listed = TypeVar("Listed", Revocations, Responses)


def read_roots(path: str | os.PathLike[str]) -> Anchors:
    """The roots that clients trust.

    Raises:
        RotatorError: `io-error` or `permission`; what `Anchors.from_pem` says of its content.
    """
    return Anchors.from_pem(_read(Path(path), MAX_STORE), str(path))


def read_revocations(*paths: str | os.PathLike[str]) -> Revocations:
    """Revocation lists: of files, or of all files in a directory but hidden ones; what cannot be read is in `faults`.

    Raises:
        RotatorError: `io-error`, `permission` or `too-large`; `crl-unusable` for a directory without a file.
    """
    files = _each(paths, "revocation lists", MAX_CRL, MAX_LISTS, Code.CRL_UNUSABLE)
    return Revocations.from_files(files, ", ".join(shown(str(path)) for path in paths))


def read_responses(*paths: str | os.PathLike[str]) -> Responses:
    """OCSP responses: of files, or of all files in a directory but hidden ones; what cannot be read is in `faults`.

    Raises:
        RotatorError: `io-error`, `permission` or `too-large`; `revocation-unknown` for a directory without a file.
    """
    files = _each(paths, "OCSP responses", MAX_RESPONSES, MAX_STAPLES, Code.REVOCATION_UNKNOWN)
    return Responses.from_files(files, ", ".join(shown(str(path)) for path in paths))


def demand_whole(found: Listed) -> Listed:
    """The same, if all of it could be read: half of what was named would pass what the other half revokes.

    Raises:
        RotatorError: the first of its faults.
    """
    for fault in found.faults:
        raise RotatorError(fault.code, fault.message, fault.hint, Exit.REJECTED)
    return found


def read_logs(path: str | os.PathLike[str]) -> Logs:
    """A list of logs.

    Raises:
        RotatorError: `io-error` or `permission`; what `Logs.from_json` says of its content.
    """
    return Logs.from_json(_read(Path(path), MAX_LIST), str(path))


def read_blocklist(path: str | os.PathLike[str]) -> Blocklist:
    """A blocklist.

    Raises:
        RotatorError: `io-error` or `permission`; what `Blocklist.from_text` says of its content.
    """
    return Blocklist.from_text(_read(Path(path), MAX_BLOCKLIST), str(path))


def _each(
    paths: Iterable[str | os.PathLike[str]], what: str, limit: int, together: int, missing: Code
) -> Iterator[tuple[str, bytes]]:
    """The files one after the other, those of directories in the order of their names; none is held on to.

    Args:
        paths: files and directories.
        what: what they hold, in the plural.
        limit: the bytes that each may hold.
        together: the bytes that all may hold.
        missing: the code for a directory without any.
    """
    left = together
    for path in paths:
        for one in _listed(Path(path), what, missing):
            data = _read(one, limit)
            left -= len(data)
            if left < 0:
                words = f"{shown(str(path))}: the {what} have more than {together >> 20} MiB together."
                hint = "Leave those of the CAs that issue for this host there."
                raise RotatorError(Code.TOO_LARGE, words, hint, Exit.REJECTED)
            yield str(one), data


def _listed(path: Path, what: str, missing: Code) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        found = sorted(one for one in path.iterdir() if not one.name.startswith(".") and one.is_file())
    except (OSError, ValueError) as error:
        raise _translated(error, path) from error
    if not found:
        words = f"{shown(str(path))} is a directory without any file."
        raise RotatorError(missing, words, f"Fetch the CA's {what} into it.", Exit.REJECTED)
    if len(found) > MAX_FILES:
        words = f"{shown(str(path))} holds {len(found)} files; {MAX_FILES} are read."
        raise RotatorError(Code.TOO_LARGE, words, f"Leave the {what} there, and nothing else.", Exit.REJECTED)
    return found


def _read(path: Path, limit: int) -> bytes:
    """A regular file, up to one byte more than it may hold: whoever parses it says so."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                words = f"{shown(str(path))} is not a regular file."
                raise RotatorError(Code.IO_ERROR, words, "Name a file.", Exit.REJECTED)
            return file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise _translated(error, path) from error


def _at_once(path: str, flags: int) -> int:
    """Opens without waiting for whoever might write into a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _translated(error: OSError | ValueError, path: Path) -> RotatorError:
    title = shown(str(path))
    if isinstance(error, PermissionError):
        return RotatorError(
            Code.PERMISSION, f"{title} may not be read by this user.", f"chmod a+r {title}", Exit.REJECTED
        )
    words = f"{title} cannot be read: {getattr(error, 'strerror', None) or error}."
    return RotatorError(Code.IO_ERROR, words, f"Put it there, or name another: ls -l {title}", Exit.REJECTED)
