"""The look at nginx's processes where its pid file is not what it should be; the real nginx is for `e2e`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rotator.core.model import Workers
from rotator.nginx.workers import look


@pytest.mark.timeout(10)
def test_a_fifo_in_place_of_the_pid_file_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nginx.pid")
    assert look(tmp_path / "nginx.pid") == Workers(master=None)


@pytest.mark.parametrize("text", ["9" * 31, "-1", "0", "none", "1 2", ""])
def test_a_pid_file_with_no_pid_in_it_names_no_master(tmp_path: Path, text: str) -> None:
    (tmp_path / "nginx.pid").write_text(text)
    assert look(tmp_path / "nginx.pid") == Workers(master=None)
