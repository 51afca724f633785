"""The port for a source of renewals: what a site's input looks like now, and its content.

The daemon and the commands know sources by this protocol alone. `drop_directory` is the implementation for directories;
another kind of source, such as a secrets store, is one more module beside it and its line in
`bootstrap.make_drop_sources`.

A source is only read. The decision about its content is kept by its digest in the site's `intent.json`, so a source
needs no acknowledgement and may be read-only, as a mounted secret is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rotator.core.model import Candidate
from rotator.core.problems import Code
from rotator.core.reasons import Reason

Signature = tuple[tuple[object, ...], ...]
"""One entry for each item of a site's input, such as a file's name, inode, size and times; equal while none changes."""


@dataclass(frozen=True, slots=True)
class DropLook:
    """The state of a site's input at one look.

    Args:
        signature: empty if there is no input.
        problem: why it could not be looked at, or that it has disappeared, in words; empty if all is well.
        hint: the command that helps.
        reason: the kind of problem: `missing`, `permission` or `io-error`; None if there is none.
        young: whether it was changed so recently that a further change could be missed: it has to be read once more.
        size: bytes of all its items.
        owners: the users who own its items, by uid.
        newest: the latest change of an item, in nanoseconds since 1970; 0 if that is unknown.
    """

    signature: Signature = ()
    problem: str = ""
    hint: str = ""
    reason: Reason | Code | None = None
    young: bool = False
    size: int = 0
    owners: frozenset[int] = frozenset()
    newest: int = 0


class DropSource(Protocol):
    """A source of renewals for one or more sites."""

    @property
    def directories(self) -> Mapping[Path, tuple[int, int]]:
        """Device and inode of every existing directory of this source, as the last look found it.

        File events in these directories announce a change. A source without directories is looked at every
        `scan_interval`.
        """

    def look(self, sites: Collection[str] | None = None) -> Mapping[str, DropLook]:
        """Looks at the input of some sites, without reading it. A problem with the input is part of the answer.

        Args:
            sites: names of sites of this source; None for all of them.
        """

    def sites_at(self, path: str) -> frozenset[str]:
        """The sites whose input may have changed after a file event; empty if the path belongs to none.

        Args:
            path: of a file or directory, as the file event gives it.
        """

    def read(self, site: str, *, await_delivery: bool = False) -> Candidate | None:
        """The whole input of one site; None if there is none.

        Args:
            site: the name of a site of this source.
            await_delivery: whether a delivery that is being written at this moment is waited for, for a few seconds.

        Raises:
            RotatorError: the input cannot be read, or is refused by its form: `io-error`, `permission`, `too-large`,
                `empty-file` and the like.
        """
