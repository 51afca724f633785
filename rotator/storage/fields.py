"""The reader of JSON objects: takes each key with its type and keeps unknown keys; every record is read with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from rotator.system.files import from_json

T = TypeVar("T")


class Keys:
    """The keys of one JSON object, taken one after the other; those that are left are unknown to this version.

    Args:
        raw: the object.

    Raises:
        ValueError: it is no JSON object.
    """

    def __init__(self, raw: object) -> None:
        if not isinstance(raw, dict):
            raise ValueError("it is no JSON object")  # noqa: TRY004 - of its bytes, for readers that raise ValueError alone
        self.unknown: dict[str, object] = dict(raw)
        self.faulty: list[str] = []
        self.missing: list[str] = []

    @classmethod
    def of(cls, data: bytes) -> Keys:
        """The keys of a JSON text.

        Raises:
            ValueError: it is no JSON object.
        """
        try:
            raw = from_json(data)
        except ValueError:
            raise ValueError("it is no JSON text") from None
        return cls(raw)

    def take(self, key: str, read: Callable[[Any], T], default: T) -> T:
        """The value of a key; the default where the key is missing, or where its value is of another type."""
        if key not in self.unknown:
            self.missing.append(key)
            return default
        try:
            value = read(self.unknown[key])
        except (ValueError, TypeError, AttributeError, OverflowError):
            self.faulty.append(key)
            return default
        del self.unknown[key]
        return value

    def version(self, known: int) -> int:
        """The schema version: 0 where there is none; one that is no number counts as newer than the known one."""
        value = self.unknown.pop("schema_version", 0)
        return value if isinstance(value, int) and not isinstance(value, bool) else known + 1


# Each of these gives the value as its type and raises ValueError, TypeError or AttributeError for any other.


def text(value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError("no string")
    return value


def texts(value: object) -> tuple[str, ...]:
    """An array of strings."""
    if not isinstance(value, list):
        raise TypeError("no array")
    return tuple(map(text, value))


def text_by_text(value: Mapping[str, object]) -> dict[str, str]:
    """An object whose values are strings."""
    return {key: text(element) for key, element in value.items()}


def number(value: object) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    return float(value)


def whole(value: object) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("no whole number")
    return value


def number_by_text(value: Mapping[str, object]) -> dict[str, float]:
    """An object whose values are numbers."""
    return {key: number(element) for key, element in value.items()}


def time(value: object) -> datetime:
    """A time of RFC 3339, as UTC."""
    return datetime.fromisoformat(text(value)).astimezone(UTC)
