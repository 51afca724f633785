"""The configuration file: read once, checked whole, handed on frozen. Never: what its values do."""

from __future__ import annotations

import os
from pathlib import Path

from rotator.config.assembly import assemble
from rotator.config.shape import Config, EvidenceFiles, Mistake, NginxConfig, SiteConfig
from rotator.config.text import NotTomlError, parse
from rotator.core.errors import Exit, RotatorError

__all__ = [
    "Config",
    "EvidenceFiles",
    "Mistake",
    "NginxConfig",
    "SiteConfig",
    "check",
    "load",
    "read_text",
]

MAX_BYTES = 4 * 1024 * 1024
"""Larger than the configuration of 10,000 sites; what is larger is another file, named by mistake."""


def load(path: Path) -> Config:
    """The configuration in this file.

    Raises:
        RotatorError: `configuration`, telling all mistakes at once, each with its line; exit status 78.
    """
    config, mistakes = check(read_text(path), path)
    if config is None:
        count = f"{len(mistakes)} mistakes" if len(mistakes) > 1 else "one mistake"
        raise RotatorError(
            "configuration",
            "\n".join([f"{path} has {count}:", *(f"  {mistake.told(path)}" for mistake in mistakes)]),
            "Nothing was changed, and nginx serves what it served. Correct the file, then: rotator config check",
            Exit.CONFIG,
        )
    return config


def check(text: str, path: str | os.PathLike[str]) -> tuple[Config | None, tuple[Mistake, ...]]:
    """The configuration and no mistake, or None and all mistakes in the order of their lines.

    It depends on the text alone: whether files, users and addresses exist is not looked at, so that an unmounted disk
    does not make a good configuration bad.

    Args:
        text: the content of the file.
        path: where it came from; kept in the configuration, not opened.
    """
    try:
        document = parse(text)
    except NotTomlError as error:
        return None, (Mistake(error.line, "", error.message, "it is written in TOML: https://toml.io"),)
    return assemble(document, Path(path))


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        RotatorError: `configuration`, with the command that mends it; exit status 78.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        hint = f"Begin with a copy of conf.example.toml at {path}, or name another file: --config FILE, ROTATOR_CONFIG"
        raise _unreadable(f"{path} does not exist", hint) from None
    except PermissionError as error:
        hint = f"Open it to this user, such as: chmod a+r {path}; it holds no secret"
        raise _unreadable(f"{path} may not be read by this user", hint) from error
    except (OSError, ValueError) as error:
        raise _unreadable(
            f"{path}: {getattr(error, 'strerror', None) or error}", "Name a file: --config FILE"
        ) from error
    if len(content) > MAX_BYTES:
        raise _unreadable(f"{path} is larger than {MAX_BYTES // 1024} KiB", "Name the right file: --config FILE")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            hint = f"Convert it: iconv -f utf-16 -t utf-8 {path} -o {path}.utf-8 && mv {path}.utf-8 {path}"
            raise _unreadable(f"{path} is UTF-16, not UTF-8", hint) from None
        line = content.count(b"\n", 0, error.start) + 1
        raise _unreadable(
            f"{path}:{line}: is not UTF-8", f"Convert it, such as: iconv -f latin1 -t utf-8 {path}"
        ) from None


def _unreadable(message: str, hint: str) -> RotatorError:
    return RotatorError("configuration", message, hint, Exit.CONFIG)
