"""The cheap look at drops: what shows as a change, what as a loss, and what a look costs; real directories."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rotator.core.errors import RotatorError
from rotator.core.names import SITE
from rotator.sources import drop_directory
from rotator.sources.drop_directory import DropDirectories, DropLocation
from rotator.sources.drop_source import DropLook
from rotator.sources.file_reader import LONGEST_SITE, MAX_FILES, flat_site, read_flat
from tests.support.other_user import as_nobody

AGO_NS = 10_000_000_000


class Incoming:
    """An incoming directory whose files are all old, so that nothing is young."""

    def __init__(self, root: Path, *sites: str, sources: Sequence[str] = ()) -> None:
        self.root = root / "incoming"
        self.root.mkdir()
        locations = [DropLocation(s, self.root / s) for s in sites] + [
            DropLocation(s, root / s, is_source=True) for s in sources
        ]
        self.later = AGO_NS
        self.drops = DropDirectories(self.root, locations, lambda: time.time_ns() + self.later)

    def look(self, site: str = "a") -> DropLook:
        return self.drops.look()[site]

    def write(self, name: str, data: bytes = b"x") -> Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path


@pytest.fixture
def incoming(tmp_path: Path) -> Incoming:
    return Incoming(tmp_path, "a", "b", "a-b")


# -- changes


def test_nothing_that_lies_there_has_no_signature(incoming: Incoming) -> None:
    assert incoming.look() == DropLook()


def test_an_empty_directory_has_no_signature(incoming: Incoming) -> None:
    (incoming.root / "a").mkdir()
    assert incoming.look() == DropLook()


def test_what_is_unchanged_looks_the_same(incoming: Incoming) -> None:
    incoming.write("a/chain.pem")
    assert incoming.look() == incoming.look()
    assert incoming.look().signature


@pytest.mark.parametrize("name", ["a/chain.pem", "a.crt", "a-chain.pem"])
def test_a_new_file_shows(incoming: Incoming, name: str) -> None:
    before = incoming.look(), incoming.look("b")
    incoming.write(name)
    assert incoming.look() != before[0]
    assert incoming.look("b") == before[1]


def test_a_file_that_grows_shows(incoming: Incoming) -> None:
    path = incoming.write("a/chain.pem")
    before = incoming.look()
    with path.open("ab") as f:
        f.write(b"y")
    assert incoming.look() != before


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_shows(incoming: Incoming) -> None:
    path = incoming.write("a/chain.pem", b"old")
    at = path.stat()
    before = incoming.look()
    other = incoming.write("a/.new", b"new")
    os.utime(other, ns=(at.st_atime_ns, at.st_mtime_ns))
    other.rename(path)
    assert incoming.look() != before


def test_a_flat_file_beside_an_unchanged_directory_shows_and_so_does_that_it_goes(incoming: Incoming) -> None:
    incoming.write("a/chain.pem")
    alone = incoming.look()
    flat = incoming.write("a.crt")
    both = incoming.look()
    assert {name for name, *_ in both.signature} == {"chain.pem", "a.crt"}
    flat.unlink()
    assert incoming.look() == alone == incoming.look()


def test_a_clock_that_is_set_back_to_the_last_change_makes_it_young_again(incoming: Incoming) -> None:
    incoming.write("a/chain.pem")
    assert not incoming.look().young
    incoming.later = 0
    assert incoming.look().young


def test_other_rights_show(incoming: Incoming) -> None:
    path = incoming.write("a/chain.pem")
    before = incoming.look()
    path.chmod(0o600)
    assert incoming.look() != before


def test_a_file_that_goes_shows(incoming: Incoming) -> None:
    path = incoming.write("a/chain.pem")
    assert incoming.look().signature
    path.unlink()
    assert not incoming.look().signature


def test_temporary_names_do_not_show(incoming: Incoming) -> None:
    for name in ("a/.chain.pem.Xy12", "a/chain.pem~", "a/chain.tmp", "a/chain.part", "a/README", ".a.pem"):
        incoming.write(name)
    assert not incoming.look().signature


def test_what_was_changed_a_moment_ago_is_young(incoming: Incoming) -> None:
    incoming.later = 0
    incoming.write("a/chain.pem")
    assert incoming.look().young
    incoming.later = AGO_NS
    assert not incoming.look().young


def test_a_file_whose_own_date_lies_ahead_is_young_all_the_same(incoming: Incoming) -> None:
    incoming.later = 0
    path = incoming.write("a/chain.pem")
    os.utime(path, (time.time() + 86400, time.time() + 86400))
    assert incoming.look().young


def test_a_second_file_within_one_tick_of_the_clock_shows(incoming: Incoming) -> None:
    incoming.later = 0
    incoming.write("a/chain.pem")
    at = (incoming.root / "a").stat()
    before = incoming.look()
    incoming.write("a/key.pem")
    os.utime(incoming.root / "a", ns=(at.st_atime_ns, at.st_mtime_ns))
    assert incoming.look() != before


# -- links


def test_a_source_that_is_flipped_behind_a_link_shows(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path, sources=["secret"])
    mount = tmp_path / "secret"
    for version in ("v1", "v2"):
        (mount / version).mkdir(parents=True)
        (mount / version / "tls.crt").write_bytes(version.encode())
    (mount / "..data").symlink_to("v1")
    (mount / "tls.crt").symlink_to("..data/tls.crt")
    before = incoming.look("secret")
    (mount / "..new").symlink_to("v2")
    (mount / "..new").rename(mount / "..data")
    assert incoming.look("secret").signature != before.signature


def test_a_source_whose_link_leads_nowhere_is_something(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path, sources=["live"])
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "privkey.pem").symlink_to("../archive/privkey2.pem")
    before = incoming.look("live")
    assert before.signature
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "privkey2.pem").write_bytes(b"key")
    assert incoming.look("live").signature != before.signature


# -- losses


def test_a_missing_incoming_directory_is_told(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path, "a")
    incoming.root.rmdir()
    assert "No such file" in incoming.look().problem
    incoming.root.mkdir()
    assert incoming.look() == DropLook()


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path, sources=["live"])
    assert "does not exist" in incoming.look("live").problem
    (tmp_path / "live").mkdir()
    assert incoming.look("live") == DropLook()


def test_a_drop_that_has_gone_is_told_until_it_is_back(incoming: Incoming) -> None:
    incoming.write("a/chain.pem")
    incoming.look()
    shutil.rmtree(incoming.root / "a")
    for _ in range(3):
        assert "has disappeared" in incoming.look().problem
    incoming.write("a/chain.pem")
    assert incoming.look().problem == ""
    assert incoming.look().signature


# -- a look at some


def test_a_look_at_some_sites_shows_these_alone(incoming: Incoming) -> None:
    incoming.write("a/chain.pem")
    incoming.write("b/chain.pem")
    assert incoming.drops.look({"a"}) == {"a": incoming.look()}


def test_a_look_at_some_sites_knows_the_directories_of_the_others(incoming: Incoming) -> None:
    incoming.write("a/chain.pem")
    incoming.write("b/chain.pem")
    incoming.look()
    before = incoming.drops.directories
    shutil.rmtree(incoming.root / "a")
    incoming.drops.look({"a"})
    assert incoming.drops.directories == {path: at for path, at in before.items() if path != incoming.root / "a"}


@pytest.mark.parametrize("name", ["a", "a/chain.pem", "a/.chain.pem.tmp", "a.crt", "a-chain.pem"])
def test_a_path_leads_to_the_site_whose_drop_it_is(incoming: Incoming, name: str) -> None:
    assert incoming.drops.sites_at(f"{incoming.root}/{name}") == frozenset("a")


def test_a_path_in_a_source_leads_to_every_site_that_has_it(tmp_path: Path) -> None:
    locations = [DropLocation(site, tmp_path / "live", is_source=True) for site in ("a", "b")]
    drops = DropDirectories(tmp_path / "incoming", locations)
    assert drops.sites_at(f"{tmp_path}/live/..data") == frozenset("ab")


@pytest.mark.parametrize("name", ["", "/c", "/readme.txt", "/a/deeper/chain.pem"])
def test_a_path_outside_of_every_drop_leads_to_no_site(incoming: Incoming, name: str) -> None:
    assert incoming.drops.sites_at(f"{incoming.root}{name}") == frozenset()


def test_a_drop_that_became_another_directory_has_another_identity(incoming: Incoming) -> None:
    incoming.write("a/chain.pem")
    before = incoming.look()
    identity = incoming.drops.directories[incoming.root / "a"]
    (incoming.root / "a").rename(incoming.root / "elsewhere")
    incoming.write("a/chain.pem")
    assert incoming.look() != before
    assert incoming.drops.directories[incoming.root / "a"] != identity


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_told(incoming: Incoming, kind: str) -> None:
    if kind == "file":
        incoming.write("a")
    else:
        (incoming.root / "a").symlink_to(incoming.root / "b")
    assert ("no directory" if kind == "file" else "a link") in incoming.look().problem


def test_a_closed_directory_is_told_with_the_command_that_opens_it(
    incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming.write("a/chain.pem")

    def closed(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", closed)
        look = incoming.look()
    assert "Permission denied" in look.problem
    # root changes nothing by name in a directory of another user, who could replace it
    assert ("setfacl -m" if os.geteuid() == 0 else "See its owner, who can open it") in look.hint
    assert incoming.look().problem == ""


# -- reading


def test_directory_and_flat_files_are_one_candidate(incoming: Incoming) -> None:
    incoming.write("a/chain.pem", b"1")
    incoming.write("a.key", b"2")
    candidate = incoming.drops.read("a")
    assert candidate is not None
    assert [f.name for f in candidate.files] == ["chain.pem", "a.key"]


def test_nothing_is_no_candidate(incoming: Incoming) -> None:
    assert incoming.drops.read("a") is None


def test_what_the_reader_refuses_is_raised(incoming: Incoming) -> None:
    incoming.write("a/chain.pem", b"")
    with pytest.raises(RotatorError) as e:
        incoming.drops.read("a")
    assert e.value.code == "empty-file"


def _outcome_of_reading(location: DropLocation, incoming: Path) -> str:
    try:
        return "something" if DropDirectories(incoming, [location]).read("a") else "nothing"
    except RotatorError as error:
        return error.code


@pytest.mark.root
@pytest.mark.parametrize("source", [False, True])
def test_a_drop_behind_a_closed_directory_is_a_matter_of_permission_and_not_empty(
    tmp_path: Path, *, source: bool
) -> None:
    closed = tmp_path / "closed"
    (closed / "incoming" / "a").mkdir(parents=True)
    closed.chmod(0o700)
    location = DropLocation("a", closed / "incoming" / "a", source)
    assert as_nobody(lambda: _outcome_of_reading(location, closed / "incoming"), cwd=tmp_path) == "permission"


def test_where_no_drop_was_made_yet_nothing_lies(tmp_path: Path) -> None:
    assert _outcome_of_reading(DropLocation("a", tmp_path / "incoming" / "a"), tmp_path / "incoming") == "nothing"


def test_a_source_has_to_be_there(tmp_path: Path) -> None:
    assert (
        _outcome_of_reading(DropLocation("a", tmp_path / "gone", is_source=True), tmp_path / "incoming") == "io-error"
    )


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("a.pem", "a"),
        ("a-chain.pem", "a"),
        ("a-b.pem", "a-b"),
        ("a-b-c.PEM", "a-b"),
        ("ab.pem", ""),
        ("a.txt", ""),
        ("a", ""),
        (".a.pem", ""),
        ("-a.pem", ""),
    ],
)
def test_flat_files_belong_to_whom_the_reader_gives_them(tmp_path: Path, name: str, site: str) -> None:
    sites = frozenset({"a", "b", "a-b"})
    assert flat_site(name, sites) == site
    (tmp_path / name).write_bytes(b"x")
    takers = {s for s in sites if read_flat(tmp_path, s, others=sites).files}
    assert takers == ({site} if site else set())


def test_a_flat_file_of_the_longest_site_name_is_found_behind_any_number_of_dashes() -> None:
    site = "-".join("a" * 32)[: LONGEST_SITE - 1] + "b"
    assert len(site) == LONGEST_SITE
    assert SITE.fullmatch(site)
    assert not SITE.fullmatch(site + "b")
    sites = {site, "a"}
    assert [flat_site(f"{name}.pem", sites) for name in (site, f"{site}-{'-' * 100}", f"{site}b-x")] == [
        site,
        site,
        "a",
    ]


def test_a_site_whose_writers_are_configured_has_no_flat_files_and_none_of_them_counts_for_another(
    tmp_path: Path,
) -> None:
    for name in ("a-b.pem", "a-b-more.pem", "a.pem"):
        (tmp_path / name).write_bytes(b"x")
    drops = DropDirectories(
        tmp_path, [DropLocation("a", tmp_path / "a"), DropLocation("a-b", tmp_path / "a-b", is_private=True)]
    )
    looks = drops.look()
    assert {site: [entry[0] for entry in look.signature] for site, look in looks.items()} == {"a": ["a.pem"], "a-b": []}
    candidate = drops.read("a")
    assert candidate is not None
    assert [file.name for file in candidate.files] == ["a.pem"]
    assert drops.read("a-b") is None
    assert drops.sites_at(str(tmp_path / "a-b-more.pem")) == frozenset()


def test_the_incoming_directory_is_watched_for_new_drops_also_where_no_site_has_flat_files(tmp_path: Path) -> None:
    drops = DropDirectories(tmp_path, [DropLocation("a", tmp_path / "a", is_private=True)])
    drops.look()
    assert tmp_path in drops.directories


class Asked(frozenset[str]):
    """Names of sites that count how often one is looked for."""

    count = 0

    def __contains__(self, name: object) -> bool:
        Asked.count += 1
        return super().__contains__(name)


def test_the_site_of_a_flat_file_takes_no_longer_for_many_sites_or_dashes() -> None:
    Asked.count = 0
    assert flat_site("-" * 240 + ".pem", Asked(f"site{number}" for number in range(1000))) == ""
    assert Asked.count <= LONGEST_SITE + 1


# -- what it costs


def test_a_thousand_unchanged_sites_are_looked_at_without_listing_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"site{n:04d}" for n in range(1000)]
    incoming = Incoming(tmp_path, *names)
    for name in names:
        incoming.write(f"{name}/fullchain.pem")
        incoming.write(f"{name}/privkey.pem")
    before = incoming.drops.look()
    stats = [0]
    real = os.stat

    def counting(path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        stats[0] += 1
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", counting)
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"{path} was listed"))
    assert incoming.drops.look() == before
    assert stats[0] <= 3 * len(names) + 2


# -- directories of many names


def test_of_a_drop_with_too_many_files_one_more_than_allowed_is_looked_at(incoming: Incoming) -> None:
    for number in range(300):
        incoming.write(f"a/{number}.pem")
    assert len(incoming.look().signature) == MAX_FILES + 1


def test_of_very_many_flat_files_of_a_site_one_more_than_allowed_is_looked_at(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path, "a", "b")
    for number in range(300):
        incoming.write(f"a-{number}.pem")
    incoming.write("b.pem")
    looks = incoming.drops.look()
    assert [len(looks[site].signature) for site in ("a", "b")] == [MAX_FILES + 1, 1]


def test_a_directory_of_very_many_names_is_a_problem_and_is_listed_in_part(
    incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_directory, "MAX_LISTED", 50)
    for number in range(60):
        incoming.write(f"a/.{number}")
    first, second = incoming.look(), incoming.look()
    assert "holds more than 50 names" in first.problem
    assert second.problem == first.problem


def test_a_look_says_who_owns_the_files_and_how_large_they_are(incoming: Incoming) -> None:
    incoming.write("a/chain.pem")
    look = incoming.look()
    assert (look.owners, look.size) == (frozenset({os.geteuid()}), (incoming.root / "a/chain.pem").stat().st_size)
