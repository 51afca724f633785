"""The privileged step: what it writes, what it refuses to believe, and that it says what it did."""

from __future__ import annotations

import ast
import errno
import grp
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rotator import config
from rotator.bootstrap import make_setup
from rotator.core.model import Provenance
from rotator.privsep import apply as module
from rotator.privsep.apply import (
    Applied,
    Request,
    Setup,
    apply,
    copies_path,
    hup_master,
    include_path,
    is_master,
    master_pid,
    read_children,
    read_live,
    read_setup,
)
from rotator.storage.generations import Store
from tests.support.authority import CA, Issued
from tests.support.pairs import pair_of
from tests.support.powercut import StandIn, standing_in

OTHER = 65534 if os.geteuid() != 65534 else 65533
"""Some other user."""


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA.root().intermediate()


@pytest.fixture(autouse=True)
def without_real_flushes() -> Iterator[None]:
    """What a flush is for is tested with the power cuts."""
    with standing_in(StandIn()):
        yield


@dataclass
class Host:
    """A store and an include directory of our own."""

    root: Path
    ca: CA
    setup: Setup

    @property
    def etc(self) -> Path:
        return Path(self.setup.include_dir)

    @property
    def state(self) -> Path:
        return Path(self.setup.state_dir)

    def issue(self, kind: str = "ecdsa") -> Issued:
        return self.ca.issue("site.test", kind=kind)

    def store(self, site: str, *issued: Issued) -> str:
        """Stores pairs, new ones by default; the generation's name."""
        pairs = [pair_of(one) for one in issued or (self.issue(),)]
        staged = Store(self.state).stage(site, pairs, Provenance())
        staged.flush()
        return staged.commit().name

    def stored(self, site: str, generation: str) -> Path:
        return self.state / "sites" / site / "generations" / generation

    def copy(self, site: str, generation: str) -> Path:
        return Path(copies_path(str(self.etc), site, generation))

    def include(self, site: str) -> Path:
        return Path(include_path(str(self.etc), site))

    def apply(self, **generations: str) -> Applied:
        return apply(self.setup, Request(generations, hup=False))

    def apply_and_hup(self, **generations: str) -> Applied:
        return apply(self.setup, Request(generations), lambda setup: (4711, "accepted", ()))

    def live(self, site: str) -> str:
        return read_live(str(self.etc), site).generation


@pytest.fixture
def host(tmp_path: Path, ca: CA) -> Host:
    (tmp_path / "state").mkdir(mode=0o750)
    sites = frozenset({"one", "two", "a.b-c_9"})
    setup = Setup(str(tmp_path / "state"), str(tmp_path / "etc"), str(tmp_path / "nginx.pid"), "", sites)
    return Host(tmp_path, ca, setup)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class Fails(StandIn):
    """Lets those calls fail with EIO that a test picks by name and first argument."""

    def __init__(self, picks: Callable[[str, Any], bool], number: int = errno.EIO) -> None:
        self._picks, self._number = picks, number

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self._picks(name, args[0]):
            raise OSError(self._number, os.strerror(self._number))


# -- what it writes


def test_the_include_names_the_two_files_of_the_copy_and_nothing_else(host: Host) -> None:
    name = host.store("one")
    host.apply(one=name)
    where = host.etc / "pairs" / "one" / name
    assert host.include("one").read_text() == (
        "# Written by rotator, which replaces the whole file. Do not edit it: see `rotator status`.\n"
        f"ssl_certificate     {where}/fullchain.pem;\n"
        f"ssl_certificate_key {where}/privkey.pem;\n"
    )


def test_the_include_names_both_pairs_of_a_site_with_two_kinds_of_key(host: Host) -> None:
    name = host.store("one", host.issue("ecdsa"), host.issue("rsa"))
    host.apply(one=name)
    named = [line.rpartition("/")[2] for line in host.include("one").read_text().splitlines()[1:]]
    assert named == ["ecdsa-fullchain.pem;", "ecdsa-privkey.pem;", "rsa-fullchain.pem;", "rsa-privkey.pem;"]


def test_a_single_ed25519_pair_has_the_usual_file_names(host: Host) -> None:
    name = host.store("one", host.issue("ed25519"))
    host.apply(one=name)
    assert sorted(os.listdir(host.copy("one", name))) == ["fullchain.pem", "privkey.pem"]


def test_the_copies_have_the_bytes_of_the_store(host: Host) -> None:
    name = host.store("one")
    host.apply(one=name)
    for file in ("fullchain.pem", "privkey.pem"):
        assert (host.copy("one", name) / file).read_bytes() == (host.stored("one", name) / file).read_bytes()


def test_the_description_in_the_store_is_not_copied(host: Host) -> None:
    name = host.store("one")
    host.apply(one=name)
    assert not (host.copy("one", name) / "meta.json").exists()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_are_the_contracts_whatever_the_umask(host: Host, mask: int) -> None:
    name = host.store("one")
    with umask(mask):
        host.apply(one=name)
    copy = host.copy("one", name)
    dirs = (host.etc, host.etc / "pairs", host.etc / "pairs/one", copy)
    files = (host.include("one"), copy / "fullchain.pem", copy / "privkey.pem")
    assert [mode(path) for path in dirs + files] == [0o755] * 4 + [0o644, 0o644, 0o600]


def test_a_key_group_may_read_the_copied_key(host: Host) -> None:
    group = grp.getgrgid(os.getgid())
    host.setup = replace(host.setup, key_group=group.gr_name)
    name = host.store("one")
    host.apply(one=name)
    key = host.copy("one", name) / "privkey.pem"
    assert (mode(key), key.stat().st_gid) == (0o640, group.gr_gid)


def test_a_pair_that_was_copied_before_is_opened_to_the_key_group_of_now_and_closed_again(host: Host) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    name = host.store("one")
    key = host.copy("one", name) / "privkey.pem"
    modes = []
    for setup in (host.setup, replace(host.setup, key_group=group), host.setup):
        apply(setup, Request({"one": name}, hup=False))
        modes.append(mode(key))
    assert modes == [0o600, 0o640, 0o600]


def test_a_key_group_that_does_not_exist_is_told(host: Host) -> None:
    host.setup = replace(host.setup, key_group="no-such-group")
    done = host.apply(one=host.store("one"))
    assert (done.error, done.live) == ("configuration", {"one": ""})


def test_copies_of_later_generations_have_later_whole_seconds(host: Host) -> None:
    names = [host.store("one") for _ in range(3)]
    for name in names[1:]:
        host.apply(one=name)
    seconds = [int((host.copy("one", n) / "privkey.pem").stat().st_mtime) for n in names[1:]]
    assert seconds[0] < seconds[1]


def test_a_link_beside_the_include_leads_to_the_same_pair(host: Host) -> None:
    host.apply(one=host.store("one"))
    name = host.store("one")
    host.apply(one=name)
    assert os.readlink(host.etc / "one") == f"pairs/one/{name}"
    assert (host.etc / "one" / "privkey.pem").read_bytes() == (host.stored("one", name) / "privkey.pem").read_bytes()


def test_nothing_is_left_under_a_temporary_name(host: Host) -> None:
    host.apply(one=host.store("one"), two=host.store("two"))
    assert [path for path in host.etc.rglob("*") if path.name.startswith(".")] == [host.etc / ".lock"]


def test_several_sites_change_with_one_signal(host: Host) -> None:
    wanted = {"one": host.store("one"), "two": host.store("two")}
    hups: list[Setup] = []

    def hup(setup: Setup) -> tuple[int, str, tuple[str, ...]]:
        hups.append(setup)
        return 1, "accepted", ()

    done = apply(host.setup, Request(wanted), hup)
    assert (done.live, len(hups)) == (wanted, 1)


def test_the_answer_tells_what_was_named_before_and_what_is_now(host: Host) -> None:
    first, second = host.store("one"), host.store("one")
    host.apply(one=first)
    done = host.apply(one=second)
    assert (done.before, done.live, done.error) == ({"one": first}, {"one": second}, "")


def test_the_answer_tells_pid_decision_and_words(host: Host) -> None:
    request = Request({"one": host.store("one")})
    done = apply(host.setup, request, lambda setup: (7, "refused", ("no such file",)))
    assert (done.signalled, done.decision, done.words) == (7, "refused", ("no such file",))


def test_without_hup_nobody_is_signalled(host: Host) -> None:
    done = host.apply(one=host.store("one"))
    assert (done.signalled, done.decision) == (0, "")


def test_going_back_is_the_same_call(host: Host) -> None:
    first, second = host.store("one"), host.store("one")
    for name in (first, second, first):
        host.apply(one=name)
    assert host.live("one") == first


def test_an_existing_copy_is_used_again(host: Host) -> None:
    name = host.store("one")
    host.apply(one=name)
    before = (host.copy("one", name) / "privkey.pem").stat().st_ino
    host.apply(one=name)
    assert (host.copy("one", name) / "privkey.pem").stat().st_ino == before


# -- which copies stay


def test_the_copies_named_now_and_before_stay_and_older_ones_go(host: Host) -> None:
    names = [host.store("one") for _ in range(4)]
    for name in names:
        host.apply(one=name)
    assert sorted(os.listdir(host.etc / "pairs/one")) == names[2:]


def test_applying_the_same_again_does_not_cost_the_copy_of_before(host: Host) -> None:
    first, second = host.store("one"), host.store("one")
    for name in (first, second, second):
        host.apply(one=name)
    assert sorted(os.listdir(host.etc / "pairs/one")) == [first, second]


def test_a_generation_whose_copy_has_gone_is_copied_again(host: Host) -> None:
    names = [host.store("one") for _ in range(4)]
    for name in (*names, names[0]):
        host.apply(one=name)
    assert host.live("one") == names[0]
    assert (host.copy("one", names[0]) / "privkey.pem").exists()


def test_a_deletion_that_was_interrupted_does_not_stand_in_the_way_of_that_generation(host: Host) -> None:
    names = [host.store("one") for _ in range(3)]
    host.apply(one=names[0])
    host.apply(one=names[1])
    seen: list[str] = []

    def second_file(name: str, first: Any) -> bool:
        if name == "unlink" and str(first).endswith(".pem"):
            seen.append(first)
        return len(seen) > 1

    with standing_in(Fails(second_file)):
        host.apply(one=names[2])
    assert host.apply(one=names[0]).error == ""


def test_what_lies_among_the_copies_without_being_one_stays(host: Host) -> None:
    for _ in range(2):
        host.apply(one=host.store("one"))
    (host.etc / "pairs/one/notes").write_text("mine")
    host.apply(one=host.store("one"))
    assert (host.etc / "pairs/one/notes").exists()


# -- reading the include


def test_without_an_include_nothing_is_live(host: Host) -> None:
    assert read_live(str(host.etc), "one") == module.Live()


def test_what_was_written_is_read_back(host: Host) -> None:
    name = host.store("one")
    host.apply(one=name)
    assert read_live(str(host.etc), "one") == module.Live(name)


def include_of(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


GOOD = "ssl_certificate ETC/pairs/one/000001-0123456789ab/fullchain.pem;"
FOREIGN = {
    "another directive": "access_log /etc/passwd;",
    "another file of the generation": "ssl_certificate ETC/pairs/one/000001-0123456789ab/other.pem;",
    "a way out of the generation": "ssl_certificate ETC/pairs/one/000001-0123456789ab/../../x/fullchain.pem;",
    "another site": "ssl_certificate ETC/pairs/two/000001-0123456789ab/fullchain.pem;",
    "a pair elsewhere": "ssl_certificate /etc/ssl/000001-0123456789ab/fullchain.pem;",
    "two directives on a line": f"{GOOD} access_log x;",
    "a name that is none": "ssl_certificate ETC/pairs/one/current/fullchain.pem;",
    "two generations": f"{GOOD}\nssl_certificate_key ETC/pairs/one/000002-0123456789ab/privkey.pem;",
    "none": "# only a comment",
    "a directive behind a separator that ends no line for nginx": f"{GOOD}\n\x0c ssl_stapling on;",
}


@pytest.mark.parametrize("line", FOREIGN.values(), ids=FOREIGN)
def test_an_include_that_is_not_as_written_here_is_a_problem_with_a_file_name(host: Host, line: str) -> None:
    host.etc.mkdir()
    host.include("one").write_text(line.replace("ETC", str(host.etc)))
    live = read_live(str(host.etc), "one")
    assert live.generation == ""
    assert str(host.include("one")) in live.problem


def test_a_line_that_is_foreign_is_named_by_its_number(host: Host) -> None:
    host.etc.mkdir()
    host.include("one").write_text("# fine\n\nssl_protocols SSLv3;\n")
    assert f"{host.include('one')}:3 " in read_live(str(host.etc), "one").problem


def test_comments_and_blanks_do_not_matter(host: Host) -> None:
    host.etc.mkdir()
    host.include("one").write_text(f"# by hand\r\n\n\t{GOOD}\n".replace("ETC", str(host.etc)))
    assert read_live(str(host.etc), "one").generation == "000001-0123456789ab"


@given(st.binary(max_size=300) | st.text(alphabet="ssl_certificate /.;#\n\t$01-abc", max_size=200).map(str.encode))
@example(b"ssl_certificate \xff;")
@example(b"\x00")
def test_reading_an_include_never_raises_whatever_stands_in_it(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp()
    (directory / "any.conf").write_bytes(data)
    live = read_live(str(directory), "any")
    assert not (live.generation and live.problem)


@pytest.mark.parametrize(
    "make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/proc/version", path)], ids=["dir", "fifo", "link"]
)
def test_an_include_that_is_no_file_is_a_problem(host: Host, make: Callable[[Path], None]) -> None:
    host.etc.mkdir()
    make(host.include("one"))
    assert "cannot be read" in read_live(str(host.etc), "one").problem


@pytest.mark.parametrize(
    "make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/proc/version", path)], ids=["dir", "fifo", "link"]
)
def test_an_include_that_is_no_file_is_not_replaced(host: Host, make: Callable[[Path], None]) -> None:
    host.etc.mkdir()
    make(host.include("one"))
    assert host.apply(one=host.store("one")).error == "include-foreign"


def test_a_foreign_include_is_not_replaced(host: Host) -> None:
    host.etc.mkdir()
    host.include("one").write_text("ssl_protocols TLSv1.3;\n")
    done = host.apply(one=host.store("one"))
    assert (done.error, host.include("one").read_text()) == ("include-foreign", "ssl_protocols TLSv1.3;\n")


def test_a_directory_in_place_of_the_link_is_not_replaced(host: Host) -> None:
    (host.etc / "one").mkdir(parents=True)
    assert host.apply(one=host.store("one")).error == "include-foreign"


# -- the include directory


@pytest.mark.parametrize("unsafe", [0o775, 0o757, 0o777])
def test_an_include_directory_that_others_can_write_is_refused(host: Host, unsafe: int) -> None:
    host.etc.mkdir()
    host.etc.chmod(unsafe)
    done = host.apply(one=host.store("one"))
    assert (done.error, f"{unsafe:04o}" in done.message) == ("include-dir-unsafe", True)


class Owned(StandIn):
    """Shows one file, whatever descriptor or name it is reached by, as another user's."""

    def __init__(self, path: Path, uid: int) -> None:
        self._inode, self._uid = path.stat().st_ino, uid

    def __getattr__(self, name: str) -> Any:
        real = super().__getattr__(name)
        if name not in ("fstat", "stat"):
            return real

        def shown(*args: Any, **named: Any) -> os.stat_result:
            found: os.stat_result = real(*args, **named)
            return os.stat_result((*found[:4], self._uid, *found[5:10])) if found.st_ino == self._inode else found

        return shown


def belonging_to_another(path: Path) -> StandIn:
    """Root gives the file away; an ordinary user, who cannot, is shown it as if."""
    if os.geteuid() == 0:
        os.chown(path, OTHER, -1)
        return StandIn()
    return Owned(path, OTHER)


def test_an_include_directory_of_another_user_is_refused(host: Host) -> None:
    host.etc.mkdir()
    with standing_in(belonging_to_another(host.etc)):
        done = host.apply(one=host.store("one"))
    assert (done.error, str(OTHER) in done.message) == ("include-dir-unsafe", True)


def test_an_include_directory_that_is_a_link_is_refused(host: Host) -> None:
    (host.root / "elsewhere").mkdir()
    host.etc.symlink_to(host.root / "elsewhere")
    assert host.apply(one=host.store("one")).error != ""
    assert os.listdir(host.root / "elsewhere") == []


def test_a_missing_parent_of_the_include_directory_is_told_and_not_made(host: Host) -> None:
    host.setup = replace(host.setup, include_dir=str(host.root / "no" / "etc"))
    done = host.apply(one=host.store("one"))
    assert (done.error, (host.root / "no").exists()) == ("io-error", False)


@pytest.mark.parametrize("path", ["relative", "/with space", "/with$variable", "/semi;colon", "/new\nline", "/nul\0"])
def test_a_path_that_nginx_would_read_otherwise_is_refused(host: Host, path: str) -> None:
    host.setup = replace(host.setup, include_dir=path)
    assert host.apply(one="000001-0123456789ab").error == "configuration"


# -- what it takes from its caller


BAD_NAMES = {
    "empty": "",
    "parent": "..",
    "hidden": ".one",
    "slash": "one/two",
    "way out": "../../etc/cron.d/x",
    "newline at the end": "one\n",
    "newline": "one\nssl_stapling",
    "upper case": "One",
    "space": "one two",
    "semicolon": "one;",
    "two dots": "a..b",
    "dot at the end": "one.",
    "too long": "a" * 65,
    "not ASCII": "önе",
    "NUL": "one\0",
    "the directory of the copies": "pairs",
    "the include of another": "one.conf",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_site_outside_the_grammar_is_refused_even_if_configured(host: Host, name: str) -> None:
    host.setup = replace(host.setup, sites=host.setup.sites | {name})
    done = apply(host.setup, Request({name: "000001-0123456789ab"}, hup=False))
    assert (done.error, done.live, host.etc.exists()) == ("bad-request", {}, False)


@pytest.mark.parametrize("name", ["one", "a.b-c_9", "0", "a" * 64])
def test_a_site_of_the_grammar_is_taken(host: Host, name: str) -> None:
    host.setup = replace(host.setup, sites=frozenset({name}))
    assert apply(host.setup, Request({name: host.store(name)}, hup=False)).error == ""


def test_a_site_that_root_has_not_configured_is_refused(host: Host) -> None:
    host.store("three")
    assert host.apply(three="000001-0123456789ab").error == "bad-request"


@pytest.mark.parametrize(
    "name",
    ["", "..", "current", "000001-0123456789AB", "000001-0123456789ab\n", "1-0123456789ab", "000001-0123456789ab/..",
     "0000000000001-0123456789ab", "000001-0123456789abc", "\0"],
)  # fmt: skip
def test_a_generation_outside_the_grammar_is_refused(host: Host, name: str) -> None:
    assert host.apply(one=name).error == "bad-request"


def test_a_request_that_names_no_site_is_refused(host: Host) -> None:
    assert host.apply_and_hup().error == "bad-request"


def test_a_generation_that_is_not_stored_is_told_and_changes_nothing(host: Host) -> None:
    name = host.store("one")
    host.apply(one=name)
    done = host.apply(one="000009-0123456789ab")
    assert (done.error, done.live) == ("io-error", {"one": name})


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        before = os.getcwd()  # the name alone fits into an address, the whole path may not
        os.chdir(path.parent)
        try:
            sock.bind(path.name)
        finally:
            os.chdir(before)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a directory": os.mkdir,
    "a socket": socket_at,
    "a link": lambda path: path.symlink_to("/proc/version"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


# -- a store that is hostile


@pytest.mark.parametrize("part", ["sites", "sites/one", "sites/one/generations", "sites/one/generations/NAME"])
def test_a_directory_of_the_store_that_is_a_link_is_refused(host: Host, part: str) -> None:
    name = host.store("one")
    path = host.state / part.replace("NAME", name)
    path.rename(host.root / "moved")
    path.symlink_to(host.root / "moved")
    done = host.apply(one=name)
    assert (done.error != "", host.live("one")) == (True, "")


@pytest.mark.parametrize("file", ["fullchain.pem", "privkey.pem"])
@pytest.mark.parametrize("make", SPECIAL.values(), ids=SPECIAL)
def test_a_file_of_the_store_that_is_no_file_is_refused_at_once(
    host: Host, file: str, make: Callable[[Path], None]
) -> None:
    name = host.store("one")
    (host.stored("one", name) / file).unlink()
    make(host.stored("one", name) / file)
    assert host.apply(one=name).error == "not-a-file"


def test_a_device_in_the_store_is_refused(host: Host) -> None:
    name = host.store("one")
    key = host.stored("one", name) / "privkey.pem"
    stand_in: StandIn = StandIn()
    if os.geteuid() == 0:
        key.unlink()
        os.mknod(key, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    else:  # who cannot make one is shown one
        stand_in = Shown(key, stat.S_IFCHR | 0o600)
    with standing_in(stand_in):
        refused = host.apply(one=name).error
    assert refused in ("not-a-file", "permission")  # the kernel's own refusal, where devices cannot be opened (nodev)


class Shown(Owned):
    """Shows one file with another mode."""

    def __init__(self, path: Path, mode: int) -> None:
        super().__init__(path, os.geteuid())
        self._mode = mode

    def __getattr__(self, name: str) -> Any:
        real = super().__getattr__(name)
        if name != "fstat":
            return real

        def shown(fd: int) -> os.stat_result:
            found: os.stat_result = real(fd)
            return os.stat_result((self._mode, *found[1:10])) if found.st_ino == self._inode else found

        return shown


def test_a_file_of_the_store_with_a_second_name_is_refused(host: Host) -> None:
    name = host.store("one")
    os.link(host.stored("one", name) / "privkey.pem", host.root / "second")
    assert host.apply(one=name).error == "store-unsafe"


@pytest.mark.parametrize("part", ["sites", "one", "generations", "NAME", "NAME/fullchain.pem", "NAME/privkey.pem"])
def test_what_does_not_belong_to_the_owner_of_the_store_is_refused(host: Host, part: str) -> None:
    name = host.store("one")
    places = {"sites": "sites", "one": "sites/one", "generations": "sites/one/generations"}
    path = host.state / places.get(part, f"sites/one/generations/{part}").replace("NAME", name)
    with standing_in(belonging_to_another(path)):
        assert host.apply(one=name).error == "store-unsafe"


def test_a_store_that_belongs_to_another_user_as_a_whole_is_fine(host: Host) -> None:
    name = host.store("one")
    if os.geteuid() == 0:
        for path in [host.state, *host.state.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
    assert host.apply(one=name).error == ""


def test_a_copy_belongs_to_who_applies(host: Host) -> None:
    name = host.store("one")
    if os.geteuid() == 0:
        for path in [host.state, *host.state.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
    host.apply(one=name)
    assert {path.lstat().st_uid for path in host.etc.rglob("*")} == {os.geteuid()}


def test_an_oversized_file_of_the_store_is_refused(host: Host) -> None:
    name = host.store("one")
    with (host.stored("one", name) / "fullchain.pem").open("ab") as f:
        f.truncate(64 * 1024 * 1024)
    assert host.apply(one=name).error == "too-large"


@pytest.mark.parametrize("text", ["-----BEGIN PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----"])
def test_a_key_in_a_file_that_everybody_may_read_is_refused(host: Host, text: str) -> None:
    name = host.store("one")
    with (host.stored("one", name) / "fullchain.pem").open("a") as f:
        f.write(text)
    assert host.apply(one=name).error == "store-unsafe"


def test_a_chain_that_does_not_begin_with_a_certificate_is_refused(host: Host) -> None:
    name = host.store("one")
    (host.stored("one", name) / "fullchain.pem").write_text("root:x:0:0:")
    assert host.apply(one=name).error == "store-unsafe"


@pytest.mark.parametrize("more", ["third.pem", "ecdsa-privkey.pem"])
def test_a_generation_with_other_files_than_pairs_is_refused(host: Host, more: str) -> None:
    name = host.store("one")
    (host.stored("one", name) / more).touch()
    assert host.apply(one=name).error == "store-unsafe"


def test_a_generation_in_which_its_owner_puts_any_number_of_files_is_refused(host: Host) -> None:
    name = host.store("one")
    for number in range(module.MAX_NAMES):
        (host.stored("one", name) / f"file{number}").touch()
    assert host.apply(one=name).error == "store-unsafe"


def test_a_generation_without_its_key_is_refused(host: Host) -> None:
    name = host.store("one")
    (host.stored("one", name) / "privkey.pem").unlink()
    assert host.apply(one=name).error == "store-unsafe"


class Swaps(StandIn):
    """Does something once the store has been opened, and then a file or directory of that name."""

    def __init__(self, state: Path, when: str, what: Callable[[], None]) -> None:
        self._steps, self._what = [str(state), when], what

    def after(self, name: str, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        if name == "open" and args[0] == self._steps[0]:
            del self._steps[0]
            if not self._steps:
                self._steps = [""]
                self._what()


@pytest.mark.parametrize("part", ["sites", "one", "generations"])
def test_a_directory_that_is_swapped_for_a_link_while_it_is_read_leads_nowhere(host: Host, part: str) -> None:
    name, other = host.store("one"), host.store("two")
    key = (host.stored("one", name) / "privkey.pem").read_bytes()
    path = {"sites": host.state / "sites", "one": host.state / "sites/one"}.get(part, host.stored("one", name).parent)

    def swap() -> None:
        path.rename(host.root / "moved")
        path.symlink_to(host.stored("two", other).parents[{"sites": 2, "one": 1}.get(part, 0)])

    with standing_in(Swaps(host.state, part, swap)):
        host.apply(one=name)
    assert (host.copy("one", name) / "privkey.pem").read_bytes() == key


def test_a_file_that_is_swapped_for_a_link_just_before_it_is_opened_is_refused(host: Host) -> None:
    name = host.store("one")
    key = host.stored("one", name) / "privkey.pem"

    def swap() -> None:
        key.unlink()
        key.symlink_to("/proc/version")

    with standing_in(Swaps(host.state, "fullchain.pem", swap)):
        assert host.apply(one=name).error == "not-a-file"


def make_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("privkey.pem")


HOSTILE: dict[str, Callable[[Path], object]] = {
    "fullchain.pem is not a regular file": lambda path: make_a_link(path / "fullchain.pem"),
    "fullchain.pem has more than 262144 bytes": lambda path: os.truncate(path / "fullchain.pem", 1 << 20),
    "these are not the files of a generation": lambda path: (path / "privkey.pem").unlink(),
    "No such file or directory": lambda path: path.rename(path.with_name("moved")),
}


@pytest.mark.parametrize(("words", "make"), HOSTILE.items(), ids=HOSTILE)
def test_what_is_wrong_in_the_store_is_told_with_the_path_of_the_generation(
    host: Host, words: str, make: Callable[[Path], object]
) -> None:
    name = host.store("one")
    make(host.stored("one", name))
    assert host.apply(one=name).message.startswith(f"{host.stored('one', name)}: {words}")


# -- copies that are there already


@pytest.mark.parametrize("file", ["fullchain.pem", "privkey.pem"])
def test_a_copy_that_differs_from_the_store_is_refused(host: Host, file: str) -> None:
    first, second = host.store("one"), host.store("one")
    host.apply(one=first)
    host.apply(one=second)
    with (host.copy("one", first) / file).open("ab") as f:
        f.write(b"\n")
    done = host.apply(one=first)
    assert (done.error, done.live) == ("copy-differs", {"one": second})


def test_a_copy_with_one_more_file_is_refused(host: Host) -> None:
    name = host.store("one")
    host.apply(one=name)
    (host.copy("one", name) / "more.pem").touch()
    assert host.apply(one=name).error == "copy-differs"


# -- when something goes wrong half-way


def test_a_failure_in_the_second_sites_copy_commits_nothing(host: Host) -> None:
    before = {"one": host.store("one"), "two": host.store("two")}
    host.apply(**before)
    done = host.apply(one=host.store("one"), two="000009-0123456789ab")
    assert (done.error, done.live) == ("io-error", before)


def test_a_failure_in_the_second_sites_copy_leaves_nothing_under_a_temporary_name(host: Host) -> None:
    host.apply(one=host.store("one"), two="000009-0123456789ab")
    assert [path for path in host.etc.rglob("*") if ".new" in path.name] == []


def test_after_an_error_nobody_is_signalled(host: Host) -> None:
    done = host.apply_and_hup(one="000009-0123456789ab")
    assert (done.signalled, done.decision) == (0, "")


def test_a_full_disk_is_told_in_one_word(host: Host) -> None:
    name = host.store("one")
    with standing_in(Fails(lambda call, _: call == "write", errno.ENOSPC)):
        done = host.apply(one=name)
    assert (done.error, done.message) == ("disk-full", f"{host.etc}: No space left on device")


def test_an_error_names_the_file_that_it_is_about(host: Host) -> None:
    host.apply(one=host.store("one"))
    (host.etc / ".one.conf.new").mkdir()
    done = host.apply(one=host.store("one"))
    assert (done.error, done.message) == ("io-error", f"{host.etc}: File exists (.one.conf.new)")


def test_an_error_of_the_flush_after_the_commit_is_uncertain_and_nginx_is_told(host: Host) -> None:
    name, committed = host.store("one"), []

    def after_commit(call: str, first: Any) -> bool:
        if call == "rename" and first == ".one.link.new":
            committed.append(first)
        return call == "fsync" and bool(committed)

    with standing_in(Fails(after_commit)):
        done = host.apply_and_hup(one=name)
    assert (done.uncertain, done.error, done.live, done.signalled) == (True, "", {"one": name}, 4711)


def test_an_error_between_two_commits_tells_which_site_changed(host: Host) -> None:
    before = {"one": host.store("one"), "two": host.store("two")}
    host.apply(**before)
    one = host.store("one")
    with standing_in(Fails(lambda call, first: call == "rename" and first == ".two.conf.new")):
        done = host.apply_and_hup(one=one, two=host.store("two"))
    assert (done.uncertain, done.error, done.live) == (True, "io-error", before | {"one": one})


def test_an_error_that_keeps_the_signal_from_being_sent_is_told(host: Host) -> None:
    def hup(setup: Setup) -> tuple[int, str, tuple[str, ...]]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    name = host.store("one")
    done = apply(host.setup, Request({"one": name}), hup)
    assert (done.error, done.live, done.signalled) == ("io-error", {"one": name}, 0)


def test_no_key_byte_stands_in_an_answer(host: Host) -> None:
    issued = host.issue()
    name = host.store("one", issued)
    secret = issued.key_pem.splitlines()[1].decode()
    answers = [host.apply_and_hup(one=name)]
    (host.copy("one", name) / "privkey.pem").write_bytes(b"x")
    answers.append(host.apply(one=name))
    assert [answer.error for answer in answers] == ["", "copy-differs"]
    assert secret not in repr(answers)


# -- the signal


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no nginx and would die of a HUP."""
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_pid_file_that_names_a_process_which_is_no_nginx_signals_nobody(
    host: Host, bystander: subprocess.Popen[bytes]
) -> None:
    Path(host.setup.pid_file).write_text(f"{bystander.pid}\n")
    assert hup_master(host.setup) == (0, "gone", ())
    assert bystander.stdin is not None
    bystander.stdin.write(b"\n")
    bystander.stdin.close()
    assert bystander.wait(10) == 0


PID_FILES = {
    "empty, as nginx -t leaves it": b"",
    "a word": b"nginx",
    "zero": b"0",
    "negative": b"-1",
    "too large": b"9999999999",
    "two": b"1 2",
    "not ASCII": "²".encode(),
    "too long": b"1" * 100,
}


@pytest.mark.parametrize("data", PID_FILES.values(), ids=PID_FILES)
def test_a_pid_file_without_a_pid_signals_nobody(host: Host, data: bytes) -> None:
    Path(host.setup.pid_file).write_bytes(data)
    assert (master_pid(host.setup.pid_file), hup_master(host.setup)) == (0, (0, "gone", ()))


def test_a_missing_pid_file_signals_nobody(host: Host) -> None:
    assert hup_master(host.setup) == (0, "gone", ())


def test_a_pid_file_of_a_process_that_has_ended_signals_nobody(host: Host) -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
    Path(host.setup.pid_file).write_text(str(ended.pid))
    assert hup_master(host.setup) == (0, "gone", ())


def test_a_process_is_no_master_without_its_title(bystander: subprocess.Popen[bytes]) -> None:
    assert not is_master(bystander.pid)


def test_the_children_of_a_process_are_found(bystander: subprocess.Popen[bytes]) -> None:
    assert bystander.pid in read_children(os.getpid())


def test_a_process_that_is_gone_has_no_children() -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
    assert read_children(ended.pid) == frozenset()


TITLED = """
import os, signal, sys
signal.signal(signal.SIGHUP, lambda *_: {on_hup})
print(flush=True)
while True:
    signal.pause()
"""


@contextmanager
def false_master(on_hup: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the title of a master; what it does on a HUP is Python."""
    code = TITLED.format(on_hup=on_hup)
    with subprocess.Popen(["nginx: master process x", "-c", code], executable=sys.executable, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_a_master_that_ends_of_the_signal_is_gone(host: Host) -> None:
    with false_master("sys.exit()") as process:
        Path(host.setup.pid_file).write_text(str(process.pid))
        assert hup_master(host.setup)[1] == "gone"


def test_a_master_of_which_nothing_can_be_seen_is_unknown_when_the_time_is_over(host: Host) -> None:
    with false_master("None") as process:
        Path(host.setup.pid_file).write_text(str(process.pid))
        assert hup_master(replace(host.setup, watch_for=0.02))[1] == "unknown"


def test_a_signal_without_permission_is_told_with_the_next_step(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with false_master("None") as process:
        Path(host.setup.pid_file).write_text(str(process.pid))
        done = apply(host.setup, Request({"one": host.store("one")}))
    assert (done.error, str(process.pid) in done.message) == ("signal-permission", True)


# -- root's configuration


@pytest.mark.parametrize("text", ["nginx = 1", "site = 1", "[[site]]", "state_dir = 1", "= 1", 'site = ["one"]'])
def test_a_configuration_that_is_none_is_told_and_no_bug(tmp_path: Path, text: str) -> None:
    (tmp_path / "c").write_text(text)
    (tmp_path / "c").chmod(0o600)
    with pytest.raises(ValueError, match=r"rotator config check|line 1"):
        read_setup(str(tmp_path / "c"))


def test_a_configuration_that_says_nothing_means_the_usual_places(tmp_path: Path) -> None:
    (tmp_path / "c").touch(0o600)
    (tmp_path / "c").chmod(0o600)
    setup = read_setup(str(tmp_path / "c"))
    assert (setup.state_dir, setup.include_dir) == ("/var/lib/rotator", "/etc/nginx/rotator")
    assert (setup.pid_file, setup.error_log) == ("/run/nginx.pid", "/var/log/nginx/error.log")


def test_root_understands_the_configuration_as_the_rest_of_rotator_does(tmp_path: Path) -> None:
    text = (
        '\ufeffstate_dir = "//srv//state/"\n[nginx]\ninclude_dir = "//etc/nginx/./rotator/"\nkey_group = "tls"\n'
        'pid_file = "///run/nginx.pid"\nerror_log = "//var/log//nginx.log"\n'
        'command = ["/opt/nginx", "-c", "/x.conf"]\n'
        '[[site]]\nname = "one"\nnames = ["one.test"]\nlisteners = ["127.0.0.1:443"]\n'
    )
    (tmp_path / "c").write_text(text)
    (tmp_path / "c").chmod(0o600)
    told = read_setup(str(tmp_path / "c"))
    assert told == replace(make_setup(config.load(tmp_path / "c")), watch_for=told.watch_for)


def test_it_imports_the_standard_library_only() -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == set()
