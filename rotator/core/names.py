"""The grammars of the names that become files and directories: of sites and of generations.

`privsep.apply` is one file of the standard library and has copies of them; a test compares them with these.
"""

from __future__ import annotations

import re

SITE_CHARACTERS = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
"""The characters of a site's name, and its length."""

SITE = re.compile(r"(?!pairs\Z)(?!.*\.\.)(?!.*\.(?:conf)?\Z)" + SITE_CHARACTERS.pattern)
"""A site's name: it names a link, and with `.conf` an include, beside the directory `pairs`; none may be another's."""

GENERATION = re.compile(r"[0-9]{6,12}-[0-9a-f]{12}\Z")
"""A generation's name: its number, and the first twelve digits of the digest of its chains."""


def generation_name(number: int, digest: str) -> str:
    """The name of a generation.

    Args:
        number: from 1 upwards.
        digest: `pairs_digest` of its chains.
    """
    return f"{number:06d}-{digest[:12]}"


def generation_number(name: str) -> int:
    """The number in the name of a generation."""
    return int(name.partition("-")[0])


def generation_digest(name: str) -> str:
    """The digest in the name of a generation; empty for another text."""
    return name.partition("-")[2]
