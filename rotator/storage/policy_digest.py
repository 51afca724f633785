"""The digest of the inputs of a decision other than the candidate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass


def policy_digest(parts: Sequence[object]) -> str:
    """The SHA-256 (hex) of the inputs of a decision other than the candidate; it is the same in every process."""
    return hashlib.sha256(json.dumps(parts, default=_in_order, sort_keys=True).encode()).hexdigest()


def _in_order(value: object) -> object:
    """A value that JSON cannot represent; a set is sorted, because its order differs from process to process."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    return repr(value)
