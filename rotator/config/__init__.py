"""The configuration: the TOML file, read once, checked whole, returned as frozen values. Never: what its values do."""

from __future__ import annotations

import os
from pathlib import Path

from rotator.config.builder import build_config
from rotator.config.ownership import file_mistakes, program_mistakes
from rotator.config.settings import Config, EvidenceFiles, Mistake, NginxConfig, SiteConfig
from rotator.config.toml_document import TomlSyntaxError, parse
from rotator.core.errors import Exit, RotatorError
from rotator.core.hints import command, shell_word
from rotator.core.reasons import Reason
from rotator.core.text import shown_name

__all__ = [
    "Config",
    "EvidenceFiles",
    "Mistake",
    "NginxConfig",
    "SiteConfig",
    "check",
    "check_file",
    "load",
    "read_text",
]

MAX_BYTES = 4 * 1024 * 1024
"""The largest configuration that is read, in bytes: more than 10,000 sites need. A larger file was named by mistake."""


def load(path: Path) -> Config:
    """The configuration in this file.

    Raises:
        RotatorError: `configuration`, with every mistake and its line, or with the users who can change the file;
            exit status 78.
    """
    config, mistakes = check_file(path)
    if config is None or mistakes:
        count = f"{len(mistakes)} mistakes" if len(mistakes) > 1 else "one mistake"
        raise RotatorError(
            Reason.CONFIGURATION,
            "\n".join(
                [f"{shown_name(str(path))} has {count}:", *(f"  {mistake.located(path)}" for mistake in mistakes)]
            ),
            "Nothing was changed, and nginx serves the same certificates as before. "
            f"Correct the file, then: {command('rotator --config', path)} config check",
            Exit.CONFIG,
        )
    return config


def check_file(path: Path) -> tuple[Config | None, tuple[Mistake, ...]]:
    """The configuration of a file with every mistake in it, also in who may change it and what it makes root run.

    A file that an untrusted user can change is not parsed. See `rotator.config.ownership`.

    Raises:
        RotatorError: as for `read_text`.
    """
    if mistakes := file_mistakes(path):
        return None, mistakes
    text = read_text(path)
    config, mistakes = check(text, path)
    if config is None:
        return None, mistakes
    return config, program_mistakes(config, parse(text).line(("nginx", "command")))


def check(text: str, path: str | os.PathLike[str]) -> tuple[Config | None, tuple[Mistake, ...]]:
    """The configuration and an empty tuple, or None and every mistake in the order of the lines.

    The answer depends on the text alone. Whether the files, users and addresses exist is not checked here, so that an
    unmounted disk does not make a correct configuration invalid.

    Args:
        text: the content of the file.
        path: the file that the text comes from; it is kept in the configuration and not opened.
    """
    try:
        document = parse(text)
    except TomlSyntaxError as error:
        return None, (Mistake(error.line, "", error.message, "the file is written in TOML: https://toml.io"),)
    return build_config(document, Path(path))


def read_text(path: Path) -> str:
    """The text of the file.

    Raises:
        RotatorError: `configuration`, with the command that solves it; exit status 78.
    """
    title = shown_name(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        start = f"Start with a copy of conf.example.toml at {shell_word(path)}"
        hint = f"{start}, or name another file: --config FILE, ROTATOR_CONFIG"
        raise _unreadable(f"{title} does not exist", hint) from None
    except PermissionError as error:
        hint = f"Allow this user to read it (it holds no secret): {command('chmod a+r', path)}"
        raise _unreadable(f"this user may not read {title}", hint) from error
    except IsADirectoryError:
        hint = f"Name the file in it: --config {shell_word(path / 'rotator.toml')}"
        raise _unreadable(f"{title} is a directory, not a file", hint) from None
    except (OSError, ValueError) as error:
        raise _unreadable(
            f"{title}: {getattr(error, 'strerror', None) or error}", "Name a file: --config FILE"
        ) from error
    if len(content) > MAX_BYTES:
        raise _unreadable(f"{title} is larger than {MAX_BYTES // 1024} KiB", "Name the right file: --config FILE")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            copy = f"{path}.utf-8"
            convert = f"{command('iconv -f utf-16 -t utf-8', path)} > {shell_word(copy)}"
            hint = f"Convert it: {convert} && {command('mv', copy, path)}"
            raise _unreadable(f"{title} is UTF-16, not UTF-8", hint) from None
        line = content.count(b"\n", 0, error.start) + 1
        raise _unreadable(
            f"{title}:{line}: the line is not UTF-8",
            f"Convert it, such as: {command('iconv -f latin1 -t utf-8', path)}",
        ) from None


def _unreadable(message: str, hint: str) -> RotatorError:
    return RotatorError(Reason.CONFIGURATION, message, hint, Exit.CONFIG)
