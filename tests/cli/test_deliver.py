"""What `rotator deliver` puts where, as whom, and what it refuses before anything is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rotator.core.errors import Exit
from rotator.core.model import MAX_FILE, SourceFile
from rotator.privsep import privilege_drop
from rotator.sources import delivery, file_reader
from rotator.sources.delivery import Drop
from tests.support.authority import CA
from tests.support.calls import SITE, Called, call, host
from tests.support.other_user import NOBODY, as_nobody, in_child


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return host(tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A renewed chain and its key, as files."""
    issued = CA.root().intermediate().issue("shop.example.org")
    chain, key = tmp_path / "full.pem", tmp_path / "key.pem"
    chain.write_bytes(issued.chain_pem)
    key.write_bytes(issued.key_pem)
    return chain, key


def deliver(config: Path, *args: str | Path) -> Called:
    return call("--config", config, "deliver", *args)


def delivered(config: Path) -> dict[str, bytes]:
    where = config.parent / "incoming" / "shop"
    return {path.name: path.read_bytes() for path in where.iterdir()} if where.exists() else {}


def test_the_files_are_in_the_drop(config: Path, pair: tuple[Path, Path]) -> None:
    deliver(config, "shop", *pair)
    assert delivered(config) == {"full.pem": pair[0].read_bytes(), "key.pem": pair[1].read_bytes()}


def test_it_is_done(config: Path, pair: tuple[Path, Path]) -> None:
    assert deliver(config, "shop", *pair).status == Exit.DONE


def test_it_tells_what_went_where(config: Path, pair: tuple[Path, Path]) -> None:
    size = pair[0].stat().st_size
    line = f"{pair[0]} delivered to {config.parent}/incoming/shop/full.pem ({size} bytes)"
    assert line in deliver(config, "shop", *pair).stdout.splitlines()


def test_a_missing_drop_is_made_for_owner_and_group(config: Path, pair: tuple[Path, Path]) -> None:
    deliver(config, "shop", *pair)
    assert stat.S_IMODE((config.parent / "incoming" / "shop").stat().st_mode) == 0o2770


def test_a_key_is_not_readable_by_others(config: Path, pair: tuple[Path, Path]) -> None:
    pair[1].chmod(0o644)
    deliver(config, "shop", *pair)
    assert stat.S_IMODE((config.parent / "incoming" / "shop" / "key.pem").stat().st_mode) == 0o600


def test_links_named_by_the_caller_are_followed(config: Path, pair: tuple[Path, Path]) -> None:
    (config.parent / "live.pem").symlink_to(pair[0])
    deliver(config, "shop", config.parent / "live.pem")
    assert delivered(config) == {"live.pem": pair[0].read_bytes()}


def test_a_second_delivery_replaces_the_first(config: Path, pair: tuple[Path, Path]) -> None:
    deliver(config, "shop", *pair)
    pair[1].write_bytes(b"new")
    deliver(config, "shop", *pair)
    assert delivered(config)["key.pem"] == b"new"


def test_what_else_lies_there_is_told(config: Path, pair: tuple[Path, Path]) -> None:
    deliver(config, "shop", pair[0])
    (config.parent / "incoming" / "shop" / "old.key").write_bytes(b"somebody's")
    (config.parent / "incoming" / "shop" / ".copying").write_bytes(b"not finished")
    told = deliver(config, "shop", *pair).stderr
    assert f"1 other file in {config.parent}/incoming/shop will be validated together with these: old.key" in told


def test_the_example_for_certbot_begins_with_a_command_that_certbot_can_find() -> None:
    """certbot looks for the first word of a hook in PATH and refuses one that the shell alone knows, such as cd."""
    assert re.findall(r"--deploy-hook[\s\\]+'(\S+)", call("deliver", "--help").stdout) == ["rotator"]


def test_the_answer_as_json_names_each_file(config: Path, pair: tuple[Path, Path]) -> None:
    drop_of_site = f"{config.parent}/incoming/shop"
    assert deliver(config, "shop", pair[1], "--json").answer["files"] == [
        {"from": str(pair[1]), "to": f"{drop_of_site}/key.pem", "bytes": pair[1].stat().st_size}
    ]


def test_no_byte_of_a_key_is_said(config: Path, pair: tuple[Path, Path]) -> None:
    called = deliver(config, "-vv", "shop", *pair)
    lines = pair[1].read_text().splitlines()
    assert [line for line in lines if line in called.stdout + called.stderr] == []


# --- dry run


def test_a_dry_run_writes_nothing(config: Path, pair: tuple[Path, Path]) -> None:
    deliver(config, "shop", *pair, "--dry-run")
    assert list((config.parent / "incoming").iterdir()) == []


def test_a_dry_run_tells_what_would_be_written(config: Path, pair: tuple[Path, Path]) -> None:
    assert f"{pair[0]} would be delivered to" in deliver(config, "shop", *pair, "--dry-run").stdout


def test_a_dry_run_tells_that_the_drop_would_be_made(config: Path, pair: tuple[Path, Path]) -> None:
    assert "incoming/shop/ would be created (mode 2770" in deliver(config, "shop", *pair, "--dry-run").stdout


def test_a_dry_run_refuses_what_would_be_refused(config: Path) -> None:
    assert deliver(config, "shop", "/dev/null", "--dry-run").status == Exit.REJECTED


# --- refusals


def test_an_unknown_site_is_a_usage_error(config: Path, pair: tuple[Path, Path]) -> None:
    assert deliver(config, "shpo", *pair).status == Exit.USAGE


def test_an_unknown_site_gets_the_right_one_suggested(config: Path, pair: tuple[Path, Path]) -> None:
    assert "Did you mean shop?" in deliver(config, "shpo", *pair).stderr


def test_a_site_with_a_source_of_its_own_has_no_drop(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    config = host(tmp_path, SITE + 'source = "/etc/letsencrypt/live/shop"\n')
    assert "takes its renewals from /etc/letsencrypt/live/shop" in deliver(config, "shop", *pair).stderr


def test_a_call_without_files_is_a_usage_error(config: Path) -> None:
    assert deliver(config, "shop").status == Exit.USAGE


def test_a_wrong_configuration_exits_with_its_status(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (tmp_path / "r.toml").write_text("x")
    assert deliver(tmp_path / "r.toml", "shop", *pair).status == Exit.CONFIG


def bad_file(top: Path, kind: str) -> Path:
    path = top / "bad.pem"
    match kind:
        case "empty":
            path.touch()
        case "large":
            path.write_bytes(b"x" * (MAX_FILE + 1))
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "temporary":
            path = top / "key.pem~"
            path.write_bytes(b"x")
        case "hidden":
            path = top / ".key.pem"
            path.write_bytes(b"x")
        case "newline":
            path = top / "a\nb.pem"
            path.write_bytes(b"x")
    return path


BAD = ["missing", "empty", "large", "fifo", "directory", "temporary", "hidden", "newline"]


@pytest.mark.parametrize("kind", BAD)
def test_nonsense_is_rejected(config: Path, kind: str) -> None:
    assert deliver(config, "shop", bad_file(config.parent, kind)).status == Exit.REJECTED


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_file_keeps_all_others_out(config: Path, pair: tuple[Path, Path], kind: str) -> None:
    deliver(config, "shop", *pair, bad_file(config.parent, kind))
    assert delivered(config) == {}


def test_two_files_of_one_name_are_rejected(config: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(pair[0], tmp_path / "other" / "full.pem")
    assert "would have the same name" in deliver(config, "shop", pair[0], tmp_path / "other" / "full.pem").stderr


def test_more_files_than_a_drop_holds_are_rejected(config: Path, pair: tuple[Path, Path]) -> None:
    assert deliver(config, "shop", *[pair[0]] * (file_reader.MAX_FILES + 1)).status == Exit.REJECTED


def test_more_bytes_than_a_drop_holds_are_rejected(config: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.pem" for number in range(file_reader.MAX_TOTAL // MAX_FILE + 1)]
    for file in files:
        file.write_bytes(b"x" * MAX_FILE)
    assert deliver(config, "shop", *files).status == Exit.REJECTED


def test_a_missing_incoming_directory_is_told(config: Path, pair: tuple[Path, Path]) -> None:
    (config.parent / "incoming").rmdir()
    assert (
        f"mkdir -m 3770 {config.parent}/incoming && chown -h rotator:rotator" in deliver(config, "shop", *pair).stderr
    )


def test_a_file_that_the_caller_may_not_read_is_not_delivered(open_top: Path) -> None:
    config = host(open_top)
    (open_top / "incoming").chmod(0o777)
    (open_top / "key.pem").write_bytes(b"x")
    (open_top / "key.pem").chmod(0)
    assert "may not be read by this user" in as_nobody(lambda: deliver(config, "shop", "key.pem").stderr, cwd=open_top)


# --- as whom


@pytest.fixture
def open_top() -> Iterator[Path]:
    """A directory that every user can reach, which pytest's own are not for root's tests."""
    top = Path(tempfile.mkdtemp(prefix="rotator-test-", dir="/tmp"))
    top.chmod(0o755)
    yield top
    shutil.rmtree(top)


@pytest.fixture
def nobodys(open_top: Path) -> Path:
    """A configuration whose store and incoming directory belong to nobody, where root can give them away; a file."""
    config = host(open_top)
    (open_top / "state").mkdir()
    (open_top / "full.pem").write_bytes(b"x")
    (open_top / "full.pem").chmod(0o600)
    for name in ("state", "incoming") if os.geteuid() == 0 else ():
        os.chown(open_top / name, NOBODY, NOBODY)
    (open_top / "incoming").chmod(0o3770)
    return config


def test_the_drop_and_its_files_belong_to_the_owner_of_the_store(nobodys: Path) -> None:
    top = nobodys.parent
    in_child(lambda: deliver(nobodys, "shop", top / "full.pem").status)
    owners = {p.stat().st_uid for p in (top / "incoming" / "shop", top / "incoming" / "shop" / "full.pem")}
    assert owners == {(top / "incoming").stat().st_uid}


def test_nothing_of_root_is_left_while_the_drop_is_written(nobodys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = (nobodys.parent / "incoming").stat().st_uid

    def write(files: Sequence[SourceFile], drop: Drop) -> tuple[Path, ...]:
        print("written as", os.getresuid(), file=sys.stderr)
        return ()

    monkeypatch.setattr(delivery, "write_drop", write)
    said = deliver(nobodys, "shop", nobodys.parent / "full.pem").stderr
    assert f"written as {(owner, owner, owner)}" in said


def test_the_owner_is_told(nobodys: Path) -> None:
    owner = (nobodys.parent / "incoming").stat().st_uid
    told = in_child(lambda: deliver(nobodys, "shop", nobodys.parent / "full.pem", "--json").stdout)
    assert json.loads(told)["uid"] == owner


@pytest.mark.root
def test_a_drop_that_a_member_has_put_in_place_gets_no_key_of_root(nobodys: Path) -> None:
    theirs = nobodys.parent / "incoming" / "shop"
    theirs.mkdir()
    os.chown(theirs, 64001, 64001)
    refused = in_child(lambda: deliver(nobodys, "shop", nobodys.parent / "full.pem", "--json"))
    assert (refused.status, "drop-foreign" in refused.stdout + refused.stderr, os.listdir(theirs)) == (1, True, [])


@pytest.mark.root
def test_root_delivers_no_key_before_the_store_has_an_owner(nobodys: Path) -> None:
    (nobodys.parent / "state").rmdir()
    refused = in_child(lambda: deliver(nobodys, "shop", nobodys.parent / "full.pem"))
    assert (refused.status, os.listdir(nobodys.parent / "incoming")) == (Exit.FAILURE, [])


def test_an_incoming_directory_without_the_sticky_bit_is_told_with_the_command(
    config: Path, pair: tuple[Path, Path]
) -> None:
    (config.parent / "incoming").chmod(0o2770)
    assert f"chmod +t {config.parent}/incoming" in deliver(config, "shop", *pair).stderr


@pytest.mark.root
def test_root_reads_what_the_owner_of_the_store_may_not(nobodys: Path) -> None:
    secret = nobodys.parent / "closed" / "full.pem"
    secret.parent.mkdir(0o700)
    secret.write_bytes(b"x")
    assert deliver(nobodys, "shop", secret).status == 0


def test_anybody_else_becomes_no_one(config: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[tuple[int, int]] = []
    (config.parent / "incoming" / "shop").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(privilege_drop, "become", lambda uid, gid: became.append((uid, gid)))
    deliver(config, "shop", *pair)
    assert became == []
