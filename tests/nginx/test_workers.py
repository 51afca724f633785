"""The look at nginx's processes where its pid file is not what it should be; the real nginx is for `e2e`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from rotator.core.model import Workers
from rotator.nginx.workers import look
from rotator.privsep.apply import master_pid


@pytest.mark.timeout(10)
def test_a_fifo_in_place_of_the_pid_file_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nginx.pid")
    assert look(tmp_path / "nginx.pid") == Workers(master=None)


@pytest.mark.parametrize("text", ["9" * 31, "-1", "0", "none", "1 2", ""])
def test_a_pid_file_with_no_pid_in_it_names_no_master(tmp_path: Path, text: str) -> None:
    (tmp_path / "nginx.pid").write_text(text)
    assert look(tmp_path / "nginx.pid") == Workers(master=None)


def test_a_link_in_place_of_the_pid_file_names_no_master_as_for_the_privileged_step(tmp_path: Path) -> None:
    with titled(os.getuid()) as process:
        (tmp_path / "pid").write_text(f"{process.pid}\n")
        (tmp_path / "nginx.pid").symlink_to("pid")
        assert look(tmp_path / "nginx.pid") == Workers(master=None)
        assert master_pid(str(tmp_path / "nginx.pid")) == 0


# -- who may name a master, and who may be one

TITLED = "import os, time; os.setuid({uid}); print(flush=True); time.sleep(60)"


@contextmanager
def titled(uid: int) -> Iterator[Popen[bytes]]:
    """A process of a user with the title of an nginx master."""
    with Popen(
        ["nginx: master process x", "-c", TITLED.format(uid=uid)], executable=sys.executable, stdout=PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_process_of_this_user_with_the_title_of_a_master_is_one(tmp_path: Path) -> None:
    with titled(os.getuid()) as process:
        (tmp_path / "nginx.pid").write_text(f"{process.pid}\n")
        assert look(tmp_path / "nginx.pid") == Workers(master=process.pid)


@pytest.mark.root
def test_a_process_of_another_user_with_the_title_of_a_master_shows_nothing(tmp_path: Path) -> None:
    with titled(65534) as process:
        (tmp_path / "nginx.pid").write_text(f"{process.pid}\n")
        assert look(tmp_path / "nginx.pid") is None


@pytest.mark.root
def test_a_process_of_another_user_is_no_master_of_an_upgrade(tmp_path: Path) -> None:
    with titled(os.getuid()) as process, titled(65534) as other:
        (tmp_path / "nginx.pid").write_text(f"{process.pid}\n")
        (tmp_path / "nginx.pid.oldbin").write_text(f"{other.pid}\n")
        assert look(tmp_path / "nginx.pid") == Workers(master=process.pid)


def test_a_pid_file_that_others_may_write_shows_nothing(tmp_path: Path) -> None:
    with titled(os.getuid()) as process:
        (tmp_path / "nginx.pid").write_text(f"{process.pid}\n")
        (tmp_path / "nginx.pid").chmod(0o666)
        assert look(tmp_path / "nginx.pid") is None


@pytest.mark.root
def test_a_pid_file_of_another_user_shows_nothing(tmp_path: Path) -> None:
    with titled(os.getuid()) as process:
        (tmp_path / "nginx.pid").write_text(f"{process.pid}\n")
        os.chown(tmp_path / "nginx.pid", 65534, -1)
        assert look(tmp_path / "nginx.pid") is None


@pytest.mark.root
def test_in_a_user_namespace_without_root_its_master_is_seen_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "nginx.pid").write_text(f"{os.getpid()}\n")
    code = (
        "import sys; from pathlib import Path; from rotator.nginx import workers; "
        "workers._title = lambda pid: b'nginx: master process'; print(workers.look(Path(sys.argv[1])).master)"
    )
    command = ["unshare", "--user", "--map-user=64811", sys.executable, "-c", code, str(tmp_path / "nginx.pid")]
    with Popen(command, stdout=PIPE, cwd=Path(__file__).parents[2]) as process:
        answer = process.communicate(timeout=30)[0]
    assert answer.decode().split() == [str(os.getpid())]
