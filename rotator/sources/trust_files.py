"""The reader of trust files within bounds: roots, root stores, revocation lists, OCSP responses, logs, blocklists."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command, shell_word
from rotator.core.problems import Code
from rotator.core.text import shown
from rotator.sources.nss_module import is_module, read_module
from rotator.system.faults import code_of, message_of
from rotator.system.files import NotRegularError, open_regular, read_bounded
from rotator.system.users import user_name
from rotator.validation.blocklist import MAX_BLOCKLIST, Blocklist
from rotator.validation.root_store import RootStore, RootStores
from rotator.validation.root_store_formats import MAX_ROOT_STORE, read_store
from rotator.validation.sct import MAX_LIST, Logs
from rotator.validation.trust_anchors import MAX_STORE, Anchors
from rotator.x509.crl import MAX_CRL, Revocations
from rotator.x509.ocsp import MAX_RESPONSES, Responses

MAX_FILES = 1000
"""The most files of a directory. CAs that split their revocation lists publish a few hundred parts."""

MAX_LISTS = 32 * 1024 * 1024
"""The most bytes of all revocation lists together. They stay in memory while they are in use."""

MAX_STAPLES = 8 * 1024 * 1024
"""The most bytes of all OCSP responses together. A thousand responses have about 2 MiB."""

MAX_STORES = 3 * MAX_ROOT_STORE
"""The most bytes of all root stores together."""

MAX_SHIPPED = 8 * 1024 * 1024
"""The most bytes of the roots that a distribution ships; Debian's have 0.2 MiB, Fedora's 1 MiB."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*+)-----END CERTIFICATE-----")

Listed = TypeVar("Listed", Revocations, Responses)


def read_roots(path: str | os.PathLike[str], shipped: Path | None = None, *, whole: bool = False) -> Anchors:
    """The roots that clients trust.

    Args:
        path: the file.
        shipped: the file or directory with the roots that the distribution ships; None if there is none.
        whole: whether the file has the system's own roots, so that a root that is not shipped is one of this host.

    Raises:
        RotatorError: `io-error` or `permission`; the errors of `Anchors.from_pem`.
    """
    return open_roots(path, shipped, whole=whole)()


def open_roots(
    path: str | os.PathLike[str], shipped: Path | None = None, *, whole: bool = False
) -> Callable[[], Anchors]:
    """Reads the files of `read_roots`; the function that it returns parses the roots, and raises their errors."""
    data = _read(Path(path), MAX_STORE)
    fingerprints = read_shipped(shipped) if shipped else frozenset()

    def parse() -> Anchors:
        anchors = Anchors.from_pem(data, str(path))
        return anchors.shipped_as(fingerprints, whole=whole) if fingerprints else anchors

    return parse


def read_shipped(path: Path) -> frozenset[str]:
    """The SHA-256 (hex) of each certificate in a file, or in the files of a directory.

    Nothing if one of them cannot be read: the origin of no root is known then, and nothing is reported about any.
    """
    try:
        files = list(_each([path], "roots", MAX_SHIPPED, MAX_SHIPPED, Code.STORE_EMPTY))
        blocks = (match[1] for _, data in files for match in _PEM.finditer(data))
        return frozenset(hashlib.sha256(base64.b64decode(block)).hexdigest() for block in blocks)
    except (RotatorError, ValueError):
        return frozenset()


def read_root_stores(*paths: str | os.PathLike[str]) -> RootStores:
    """The root stores of browsers: of files, or of all files of a directory except hidden ones.

    Raises:
        RotatorError: `io-error` or `permission`; `root-store-stale` for a directory without a file; the errors of
            `read_store` and `nss_module.read_module`.
    """
    files = _each(paths, "root stores", MAX_ROOT_STORE, MAX_STORES, Code.ROOT_STORE_STALE)
    return RootStores(tuple(_root_store(Path(file), data, _written(Path(file))) for file, data in files))


def open_root_stores(*paths: str | os.PathLike[str]) -> Callable[[], RootStores]:
    """Reads the files of `read_root_stores`; the function that it returns parses them, and opens a module again."""
    files = list(_each(paths, "root stores", MAX_ROOT_STORE, MAX_STORES, Code.ROOT_STORE_STALE))
    opened = [(Path(file), data, _written(Path(file))) for file, data in files]
    return lambda: RootStores(tuple(_root_store(file, data, written) for file, data, written in opened))


def _root_store(file: Path, data: bytes, written: datetime) -> RootStore:
    if is_module(data):
        return read_store(read_module(file), str(file), None)
    return read_store(data, str(file), written)


def _written(path: Path) -> datetime:
    """The time of the last change of a file, UTC."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError) as error:
        raise _translated(error if isinstance(error, OSError) else ValueError(*error.args), path) from error


def read_revocations(*paths: str | os.PathLike[str]) -> Revocations:
    """Revocation lists: of files, or of all files of a directory except hidden ones; `faults` has the unreadable ones.

    Raises:
        RotatorError: `io-error`, `permission` or `too-large`; `crl-unusable` for a directory without a file.
    """
    files = _each(paths, "revocation lists", MAX_CRL, MAX_LISTS, Code.CRL_UNUSABLE)
    return Revocations.from_files(files, _joined(paths))


def open_revocations(*paths: str | os.PathLike[str]) -> Callable[[], Revocations]:
    """Reads the files of `read_revocations`; the function that it returns parses them."""
    files = list(_each(paths, "revocation lists", MAX_CRL, MAX_LISTS, Code.CRL_UNUSABLE))
    return lambda: Revocations.from_files(files, _joined(paths))


def read_responses(*paths: str | os.PathLike[str]) -> Responses:
    """OCSP responses: of files, or of all files of a directory except hidden ones; `faults` has the unreadable ones.

    Raises:
        RotatorError: `io-error`, `permission` or `too-large`; `revocation-unknown` for a directory without a file.
    """
    files = _each(paths, "OCSP responses", MAX_RESPONSES, MAX_STAPLES, Code.REVOCATION_UNKNOWN)
    return Responses.from_files(files, _joined(paths))


def open_responses(*paths: str | os.PathLike[str]) -> Callable[[], Responses]:
    """Reads the files of `read_responses`; the function that it returns parses them."""
    files = list(_each(paths, "OCSP responses", MAX_RESPONSES, MAX_STAPLES, Code.REVOCATION_UNKNOWN))
    return lambda: Responses.from_files(files, _joined(paths))


def demand_whole(listed: Listed) -> Listed:
    """The same lists or responses, if all of them could be read; an unreadable one may be the one that revokes.

    Raises:
        RotatorError: the first of the faults.
    """
    for fault in listed.faults:
        raise RotatorError(fault.code, fault.message, fault.hint, Exit.REJECTED)
    return listed


def read_logs(path: str | os.PathLike[str]) -> Logs:
    """The list of Certificate Transparency logs.

    Raises:
        RotatorError: `io-error` or `permission`; the errors of `Logs.from_json`.
    """
    return open_logs(path)()


def open_logs(path: str | os.PathLike[str]) -> Callable[[], Logs]:
    """Reads the file of `read_logs`; the function that it returns parses it, and raises its errors."""
    data = _read(Path(path), MAX_LIST)
    return lambda: Logs.from_json(data, str(path))


def read_blocklist(path: str | os.PathLike[str]) -> Blocklist:
    """The list of compromised keys.

    Raises:
        RotatorError: `io-error` or `permission`; the errors of `Blocklist.from_text`.
    """
    return open_blocklist(path)()


def open_blocklist(path: str | os.PathLike[str]) -> Callable[[], Blocklist]:
    """Reads the file of `read_blocklist`; the function that it returns parses it, and raises its errors."""
    data = _read(Path(path), MAX_BLOCKLIST)
    return lambda: Blocklist.from_text(data, str(path))


def _joined(paths: Iterable[str | os.PathLike[str]]) -> str:
    return ", ".join(shown(str(path)) for path in paths)


def _each(
    paths: Iterable[str | os.PathLike[str]], what: str, limit: int, together: int, missing: Code
) -> Iterator[tuple[str, bytes]]:
    """The path and the content of each file, one after the other; those of a directory in the order of their names.

    Args:
        paths: files and directories.
        what: their content in the plural, for messages.
        limit: the most bytes of one file.
        together: the most bytes of all files.
        missing: the code for a directory without files.
    """
    left = together
    for path in paths:
        for file in _files_of(Path(path), what, missing):
            data = _read(file, limit)
            left -= len(data)
            if left < 0:
                message = f"{shown(str(path))}: the {what} have more than {together >> 20} MiB together."
                hint = "Keep only those of the CAs that issue for this host."
                raise RotatorError(Code.TOO_LARGE, message, hint, Exit.REJECTED)
            yield str(file), data


def _files_of(path: Path, what: str, missing: Code) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and file.is_file())
    except (OSError, ValueError) as error:
        raise _translated(error, path) from error
    if not files:
        message = f"{shown(str(path))} is a directory without any file."
        raise RotatorError(missing, message, "Download those of the CA into it.", Exit.REJECTED)
    if len(files) > MAX_FILES:
        message = f"{shown(str(path))} holds {len(files)} files; {MAX_FILES} are allowed."
        raise RotatorError(Code.TOO_LARGE, message, "Keep only such files there.", Exit.REJECTED)
    return files


def _read(path: Path, limit: int) -> bytes:
    """The content of a regular file, up to one byte more than the limit; the parser then reports its size."""
    try:
        with open_regular(path, follow_links=True) as fd:
            return read_bounded(fd, limit)
    except NotRegularError as error:
        message = f"{shown(str(path))} is not a regular file."
        raise RotatorError(Code.IO_ERROR, message, "Name a file.", Exit.REJECTED) from error
    except (OSError, ValueError) as error:
        raise _translated(error, path) from error


def _translated(error: OSError | ValueError, path: Path) -> RotatorError:
    title = shown(str(path))
    if isinstance(error, OSError) and code_of(error) == Code.PERMISSION:
        hint = f"Let user {shell_word(user_name())} read it: {command('chmod a+r', path)}"
        return RotatorError(Code.PERMISSION, f"{title} may not be read by this user.", hint, Exit.REJECTED)
    message = f"{title} cannot be read: {message_of(error)}."
    hint = f"Create it, or name another file: {command('ls -l', path)}"
    return RotatorError(Code.IO_ERROR, message, hint, Exit.REJECTED)
