"""Mozilla's PKCS#11 module as a root store: loaded in a process of its own, and only if it is root's alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.problems import Code
from rotator.sources import nss_module
from rotator.sources.nss_module import PROGRAM, read_module
from rotator.sources.trust_files import read_root_stores, read_shipped
from tests.support.other_user import as_nobody

PLACES = ("/usr/lib/x86_64-linux-gnu/libnssckbi.so", "/usr/lib/aarch64-linux-gnu/libnssckbi.so")
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"


@pytest.fixture(scope="module")
def module() -> Path:
    """Debian's own, of the package libnss3, which Firefox and Chromium need."""
    return next(place for place in map(Path, PLACES) if place.exists())


def refused(path: Path) -> RotatorError:
    with pytest.raises(RotatorError) as caught:
        read_root_stores(path)
    return caught.value


@pytest.mark.contract
def test_it_has_the_roots_of_mozilla_with_their_dates_and_without_an_age(module: Path) -> None:
    (store,) = read_root_stores(module).stores
    assert (store.client, store.written) == ("Firefox", None)
    assert len(store.roots) > 100
    assert {len(terms) for terms in store.roots.values()} == {0, 1}
    assert [terms for listed in store.roots.values() for terms in listed if terms.end]
    shipped = read_shipped(Path("/usr/share/ca-certificates/mozilla"))
    assert len(shipped & set(store.roots)) > 100


@pytest.mark.contract
def test_it_is_the_same_each_time(module: Path) -> None:
    assert read_root_stores(module).digest == read_root_stores(module).digest


@pytest.mark.contract
def test_a_library_that_others_than_root_may_change_is_not_loaded(module: Path, tmp_path: Path) -> None:
    copy = tmp_path / "libnssckbi.so"
    shutil.copyfile(module, copy)
    (tmp_path / "link.so").symlink_to(copy)
    for path in (copy, tmp_path / "link.so"):
        error = refused(path)  # /tmp is writable for all
        assert error.code == Code.PERMISSION
        assert "not loaded" in error.message
        assert "root" in error.message


def test_a_library_of_another_kind_is_no_root_store() -> None:
    error = refused(Path(LIBC))
    assert error.code == Code.PARSE_ERROR
    assert error.hint


def test_a_library_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "hangs.py"
    program.write_text("import sys, time\nsys.stdout.write('BEGINDATA')\nsys.stdout.flush()\ntime.sleep(60)\n")
    monkeypatch.setattr(nss_module, "PROGRAM", program)
    monkeypatch.setattr(nss_module, "WITHIN", 0.5)
    begin = time.monotonic()
    with pytest.raises(RotatorError, match="shows no root store"):
        read_module(Path(LIBC))
    assert time.monotonic() - begin < 30


def test_a_library_that_writes_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "writes.py"
    program.write_text("import sys\nwhile True:\n    sys.stdout.write('#' * 1000)\n")
    monkeypatch.setattr(nss_module, "PROGRAM", program)
    with pytest.raises(RotatorError, match="shows no root store"):
        read_module(Path(LIBC))


def test_what_loads_it_has_no_terminal_no_environment_and_is_not_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.environ["SECRET_OF_THE_TEST"] = "1"
    program = tmp_path / "shows.py"
    text = PROGRAM.read_text().replace("Module(sys.argv[1])", "None")
    text = text.replace("def lines_of(module: Module)", "def _unused(module: Module)")
    facts = '(os.geteuid(), os.getsid(0) == os.getpid(), "SECRET_OF_THE_TEST" in os.environ)'
    shows = f"def lines_of(_):\n    return [repr({facts})]\n\n\n"
    program.write_text(text.replace("def main()", shows + "def main()"))
    monkeypatch.setattr(nss_module, "PROGRAM", program)
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    assert read_module(Path(LIBC)).decode().strip() == repr((user, True, False))


@pytest.mark.contract
def test_a_user_without_rights_reads_it_too(module: Path, tmp_path: Path) -> None:
    program = PROGRAM.read_bytes()

    def dumped() -> bytes:
        # the interpreter of the tests may be closed to other users, and the system's is not
        command = ["/usr/bin/python3", "-I", "-S", "-", str(module)]
        return subprocess.run(command, input=program, capture_output=True, check=True).stdout

    tmp_path.chmod(0o755)
    assert as_nobody(dumped, cwd=tmp_path) == read_module(module)
