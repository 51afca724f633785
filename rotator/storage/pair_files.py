"""The files of a generation: their names, modes and content."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rotator.core.model import (
    GenerationRecord,
    KeyType,
    Pair,
    PairRecord,
    Provenance,
)
from rotator.storage.records import generation_object
from rotator.system.files import NotRegularError, json_bytes, read_file
from rotator.x509.pem import encode_chain

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\n(.+?)-----END CERTIFICATE-----\n", re.DOTALL)


def pair_files(kind: KeyType, how_many: int) -> tuple[str, str]:
    """The names of the chain and the key file of a pair.

    Args:
        kind: the kind of key; the names have it only where a site has several.
        how_many: the number of pairs of the site.
    """
    prefix = f"{kind}-" if how_many > 1 else ""
    return f"{prefix}fullchain.pem", f"{prefix}privkey.pem"


def generation_contents(pairs: Sequence[Pair], provenance: Provenance, digest: str) -> dict[str, tuple[bytes, int]]:
    """The files of a generation: content and mode by name."""
    contents: dict[str, tuple[bytes, int]] = {}
    ordered = sorted(pairs, key=lambda p: p.key_type)
    for pair in ordered:
        assert pair.key is not None, "a pair without its key cannot be stored"  # noqa: S101 - a bug, not an input
        chain, key = pair_files(pair.key_type, len(pairs))
        contents[chain] = (encode_chain(pair.chain), 0o644)
        contents[key] = (pair.key.reveal(), 0o600)
    record = GenerationRecord(tuple(map(PairRecord.of, ordered)), digest, provenance)
    contents["meta.json"] = (json_bytes(generation_object(record), indent=1), 0o644)
    return contents


def has_contents(path: Path, contents: Mapping[str, tuple[bytes, int]]) -> bool:
    """Whether a stored generation has the same pairs; its provenance may differ."""
    pems = {name: data for name, (data, _) in contents.items() if name.endswith(".pem")}
    try:
        names = {p.name for p in path.iterdir() if p.suffix == ".pem"}
        return names == set(pems) and all(read_file(path / name) == data for name, data in pems.items())
    except (OSError, NotRegularError):
        return False


def read_chain(data: bytes) -> tuple[bytes, ...]:
    """The certificates of a file that `encode_chain` wrote."""
    return tuple(base64.b64decode(body.replace(b"\n", b""), validate=True) for body in _BLOCK.findall(data))
