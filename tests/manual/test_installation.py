"""The lines that root pastes on a host: no code of a package runs as root, and what is installed is removed again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.support.pages import README, ROOT, page, section, shell

INSTALL = shell(section(README.read_text(), "On a host"))
UPDATE = shell(section(page("hosts"), "Update"))
UNINSTALL = shell(section(page("hosts"), "Uninstall"))
TEXTS = pytest.mark.parametrize("text", [INSTALL, UPDATE], ids=["install", "update"])


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in shlex.split(line, comments=True):
            if word == "&&":
                yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


@TEXTS
def test_root_installs_wheels_alone_and_from_this_host_alone(text: str) -> None:
    pips = [words for words in commands(text) if any(word.endswith("/pip") for word in words)]
    of_root = [words for words in pips if words[0] != "runuser"]
    assert [words[1] for words in of_root] == ["install"]
    assert {"--no-index", "--find-links"} < set(of_root[0])
    assert of_root[0][of_root[0].index("--only-binary") + 1] == ":all:"


@TEXTS
def test_a_user_without_rights_downloads_and_builds(text: str) -> None:
    (built,) = [words for words in commands(text) if "wheel" in words]
    assert built[:5] == ["runuser", "--pty", "-u", "nobody", "--"]


@TEXTS
def test_the_code_of_packages_gets_no_descriptor_of_roots_terminal(text: str) -> None:
    """Without a terminal of its own, it could type into root's shell."""
    of_nobody = [words for words in commands(text) if words[0] == "runuser"]
    assert len(of_nobody) == 2
    assert all(words[1] == "--pty" and words[-1] == "</dev/null" for words in of_nobody)


def test_the_install_and_the_update_build_in_the_same_way() -> None:
    def building(text: str) -> list[list[str]]:
        return [words for words in commands(text) if words[0] in ("runuser", "cp", "chown") or "mktemp" in words[0]]

    assert building(INSTALL) == building(UPDATE) != []


def test_rotators_user_has_no_home_and_no_shell() -> None:
    (made,) = [words for words in commands(INSTALL) if words[0] == "useradd"]
    assert (made[made.index("--home-dir") + 1], made[made.index("--shell") + 1]) == (
        "/nonexistent",
        "/usr/sbin/nologin",
    )
    assert ["usermod", "--home", "/nonexistent", "rotator"] in list(commands(UPDATE))


def units(text: str) -> set[str]:
    return set(re.findall(r"\bsystemd/(rotator[\w@-]*\.\w+)", text))


def test_every_unit_of_the_daemon_is_installed_and_updated() -> None:
    shipped = {path.name for path in (ROOT / "systemd").glob("rotator*") if "swap" not in path.name}
    assert (units(INSTALL), units(UPDATE)) == (shipped, shipped)


@TEXTS
def test_every_socket_is_enabled(text: str) -> None:
    sockets = {path.name for path in (ROOT / "systemd").glob("*.socket")}
    assert {word for words in commands(text) if words[:2] == ["systemctl", "enable"] for word in words} >= sockets


def test_what_was_installed_is_removed() -> None:
    made = {words[-1] for words in commands(INSTALL) if words[0] in ("install", "ln")} | {"/opt/rotator"}
    removed = [word for words in commands(UNINSTALL) if words[0] == "rm" for word in words[1:]]
    prefixes = tuple(word.rstrip("*") for word in removed if word.startswith("/"))
    assert {path for path in made - {"/etc/systemd/system/"} if not path.startswith(prefixes)} == set()
    assert "/etc/systemd/system/rotator*" in removed
