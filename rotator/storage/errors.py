"""The errors of the disk under the state directory, as errors with a hint for the person on call."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from rotator.core.errors import RotatorError
from rotator.core.hints import command, shell_word
from rotator.system.faults import code_of, message_of


@contextlib.contextmanager
def translated(root: Path, path: Path) -> Iterator[None]:
    """Turns an error of the system within the block into a `RotatorError`.

    Args:
        root: the state directory.
        path: the file or directory below it that the block works on.

    Raises:
        RotatorError: `disk-full`, `permission` or `io-error`.
    """
    try:
        yield
    except OSError as e:
        owner = f"Run it as root or as the owner of {shell_word(root)}"
        hints = {
            errno.ENOSPC: "Free some space; the swap can then be repeated as it was",
            errno.EDQUOT: "Raise the quota; the swap can then be repeated as it was",
            errno.EACCES: owner,
            errno.EPERM: owner,
            errno.EROFS: "The file system is mounted read-only; see `dmesg`",
            errno.ENOENT: f"Create it first: {command('install -d -o rotator -g rotator -m 0750', root)}",
            errno.EMFILE: "Too many files are open; see LimitNOFILE= of the unit",
            errno.ENOMEM: "The host is out of memory; see `dmesg`",
        }
        hint = hints.get(e.errno or 0, "See `dmesg`; nothing that nginx reads was changed")
        raise RotatorError(code_of(e), f"{path}: {message_of(e)}", hint) from e
