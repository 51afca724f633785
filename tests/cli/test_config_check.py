"""What `rotator config check` answers, and what `rotator config reload` may not do."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from rotator import bootstrap
from rotator.config import load
from rotator.core.errors import Exit
from tests.support.calls import SITE, call, host
from tests.support.other_user import NOBODY
from tests.support.places import own_directory


def test_a_good_configuration_is_one_line(tmp_path: Path) -> None:
    file = host(tmp_path)
    assert call("--config", file, "config", "check").stdout == f"{file}: valid: 1 site, 1 name\n"


def test_a_good_configuration_exits_with_0(tmp_path: Path) -> None:
    assert call("--config", host(tmp_path), "config", "check").status == Exit.DONE


def test_the_file_may_be_named_behind_the_command(tmp_path: Path) -> None:
    assert call("config", "check", "--config", host(tmp_path)).status == Exit.DONE


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    assert call("config", "check", env={"ROTATOR_CONFIG": str(host(tmp_path))}).status == Exit.DONE


def test_the_option_wins_over_the_environment(tmp_path: Path) -> None:
    file = host(tmp_path)
    assert call("--config", file, "config", "check", env={"ROTATOR_CONFIG": "/absent"}).status == Exit.DONE


def test_every_mistake_is_a_line_that_editors_can_jump_to(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("settel = 1\n" + SITE + "zzzzzz = 1\n")
    lines = call("--config", file, "config", "check").stdout.splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"{file}:1:", f"{file}:6:"]


def test_mistakes_exit_with_configuration(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("x")
    assert call("--config", tmp_path / "r.toml", "config", "check").status == Exit.CONFIG


def test_mistakes_say_what_is_served_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("settel = 1\n" + SITE)
    assert (
        call("--config", tmp_path / "r.toml", "config", "check").stderr
        == "1 mistake; nginx serves the same certificates as before.\n"
    )


def test_a_missing_file_exits_with_configuration(tmp_path: Path) -> None:
    assert call("--config", tmp_path / "absent", "config", "check").status == Exit.CONFIG


def test_what_the_host_lacks_is_mentioned_but_no_mistake(tmp_path: Path) -> None:
    file = host(tmp_path, SITE + 'roots = "/absent/roots.pem"\n')
    note = "note: roots of site shop: /absent/roots.pem does not exist, and rotator validates nothing without it"
    assert note in call("--config", file, "config", "check").stderr


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("ct_logs", "because clients ask a private CA for no SCTs"),
        ("root_store", "because browsers do not list the root of a private CA"),
    ],
)
def test_what_has_no_effect_beside_something_else_is_mentioned_but_no_mistake(
    tmp_path: Path, key: str, why: str
) -> None:
    (tmp_path / "list").touch()
    file = host(tmp_path, SITE + f'{key} = "{tmp_path}/list"\npolicy = "private-ca"\n')
    told = f"{key} of site shop: without effect, {why}"
    result = call("--config", file, "config", "check")
    assert result.status == Exit.DONE
    assert f"note: {told}" in result.stderr
    assert call("--json", "--config", file, "config", "check").answer["without_effect"] == [told]
    file.write_text(file.read_text().replace('policy = "private-ca"\n', ""))
    assert call("--json", "--config", file, "config", "check").answer["without_effect"] == []


def test_the_answer_as_json_names_the_sites(tmp_path: Path) -> None:
    assert call("--json", "--config", host(tmp_path), "config", "check").answer["sites"] == ["shop"]


def test_the_mistakes_as_json_have_their_lines(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("settel = 1\n" + SITE)
    answer = call("config", "check", "--json", "--config", tmp_path / "r.toml").answer
    assert answer["mistakes"] == [
        {"line": 1, "key": "settel", "message": "unknown key", "hint": 'did you mean "settle"?'}
    ]


def test_the_answer_as_json_has_its_schema_version(tmp_path: Path) -> None:
    assert call("--json", "--config", host(tmp_path), "config", "check").answer["schema_version"] == 3


def test_an_incoming_directory_without_the_sticky_bit_is_told_with_the_command(tmp_path: Path) -> None:
    config = host(tmp_path)
    (tmp_path / "incoming").chmod(0o2770)
    checked = call("--json", "--config", config, "config", "check")
    assert f"chmod +t {tmp_path}/incoming" in checked.answer["unsafe"][0]
    assert f"chmod +t {tmp_path}/incoming" in checked.stderr


def test_a_group_and_a_user_that_the_host_does_not_have_are_told(tmp_path: Path) -> None:
    config = host(tmp_path, SITE + 'drop_group = "no-such-group"\ndrop_owner = "no-such-user"\n')
    checked = call("--config", config, "config", "check")
    assert checked.status == Exit.DONE
    assert "no group no-such-group: groupadd --system no-such-group" in checked.stderr
    assert "no user no-such-user" in checked.stderr


@pytest.mark.root
def test_run_as_root_no_note_in_the_store_has_a_process_of_roots_signalled() -> None:
    with own_directory() as top:
        _reload_with_a_note_about_a_process_of_root(top)


def _reload_with_a_note_about_a_process_of_root(top: Path) -> None:
    config = host(top)
    state = top / "state"
    state.mkdir()
    with subprocess.Popen(["sleep", "60"]) as victim, (state / "daemon.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(json.dumps({"pid": victim.pid}) + "\n")
            lock.flush()
            os.chown(state, NOBODY, NOBODY)
            done = call("--config", config, "config", "reload", "--within", "1")
            assert (done.status, f"pid {victim.pid}, belongs to another user" in done.stderr) == (1, True)
            assert victim.poll() is None
        finally:
            victim.kill()


def test_that_root_s_program_cannot_be_used_is_mentioned_but_no_mistake(tmp_path: Path) -> None:
    file = host(tmp_path, f'socket_dir = "{tmp_path}/run"\n' + SITE)
    result = call("--config", file, "config", "check")
    assert result.status == Exit.DONE
    assert f"note: apply: {tmp_path}/run/apply.sock: rotator-apply.socket is not installed" in result.stderr
    assert "systemctl enable --now rotator-apply.socket" in result.stderr
    file.write_text(file.read_text().replace("[nginx]\n", '[nginx]\napply = "direct"\n'))
    assert "note: apply" not in call("--config", file, "config", "check").stderr


@pytest.mark.parametrize(
    ("setting", "has_flat_files"), [("", True), ('drop_group = "certs"\n', False), ('drop_owner = "ann"\n', False)]
)
def test_a_site_with_a_group_or_an_owner_of_its_own_has_no_flat_files(
    tmp_path: Path, setting: str, has_flat_files: bool
) -> None:
    config = load(host(tmp_path, SITE + setting))
    site = config.sites[0]
    (config.incoming / f"{site.site.name}.pem").write_bytes(b"x")
    assert (bootstrap.drop_source(config, site).read(site.site.name) is not None) is has_flat_files
