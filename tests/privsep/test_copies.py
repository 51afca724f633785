"""What the stand-alone privileged step has to know by itself is what the rest of rotator knows."""

from __future__ import annotations

import errno
import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator import bootstrap
from rotator.config import check, load, schema
from rotator.config.value_parsers import BadValueError, plain_path, site_name
from rotator.core import names
from rotator.core.model import MAX_FILE, KeyType, Policy, Site
from rotator.privsep import apply
from rotator.system.faults import CODES, code_of
from rotator.system.files import MAX_READ

LEAST = """
[[site]]
name = "example.cn"
names = ["signal.example.cn"]
listeners = ["127.0.0.1:443"]
"""
ALL = """
state_dir = "/srv//rotator/./state"
[nginx]
command = ["/opt/nginx/sbin/nginx", "-c", "/opt/nginx.conf"]
include_dir = "/opt/nginx/rotator/"
pid_file = "/opt/./nginx.pid"
error_log = ""
key_group = "certs"
[[site]]
name = "a"
names = ["a.example.cn"]
listeners = ["127.0.0.1:443"]
[[site]]
name = "b"
names = ["b.example.cn"]
listeners = ["127.0.0.1:443"]
"""


def test_the_step_takes_as_large_a_file_as_the_reader() -> None:
    assert apply.MAX_FILE == MAX_FILE


def test_the_store_reads_all_that_the_step_takes() -> None:
    assert apply.MAX_FILE < MAX_READ


@pytest.mark.parametrize(
    ("copy", "original"), [(apply.SITE, names.SITE), (apply.GENERATION, names.GENERATION)], ids=["site", "generation"]
)
def test_a_name_has_one_grammar(copy: re.Pattern[str], original: re.Pattern[str]) -> None:
    assert copy.pattern == original.pattern


@given(
    st.text("ab0.-_A/ \n\u00e9", max_size=70) | st.sampled_from(["pairs", "a.conf", "a.", "a..b", "x" * 64, "x" * 65])
)
def test_the_configuration_accepts_the_site_names_that_the_step_accepts(name: str) -> None:
    try:
        accepted = site_name(name) == name
    except BadValueError:
        accepted = False
    assert accepted == bool(apply.SITE.match(name))


@given(st.text("ab/._+@- $;\n", min_size=1, max_size=20))
def test_the_include_directory_of_a_configuration_is_one_that_the_step_takes(written: str) -> None:
    try:
        directory = str(plain_path(f"/{written}"))
    except BadValueError:
        return
    assert apply.SAFE_PATH.match(directory)


def test_the_step_knows_every_kind_of_key() -> None:
    kinds = sorted(KeyType)
    several = [tuple(map(str, some)) for n in range(2, len(kinds) + 1) for some in itertools.combinations(kinds, n)]
    assert sorted(apply._LAYOUTS) == sorted([(), *several])


@pytest.mark.parametrize("layout", apply._LAYOUTS, ids=str)
def test_the_step_reads_back_the_include_that_it_renders(tmp_path: Path, layout: tuple[str, ...]) -> None:
    generation = names.generation_name(7, "0123456789abcdef")
    (tmp_path / "a.conf").write_bytes(apply.render_include(str(tmp_path), "a", generation, apply.pair_files(layout)))
    assert apply.read_live(str(tmp_path), "a") == apply.Live(generation)


@pytest.mark.parametrize("text", [LEAST, ALL], ids=["defaults", "all"])
def test_the_step_and_the_configuration_read_one_file_alike(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rotator.toml"
    file.write_text(text)
    file.chmod(0o644)
    assert apply.read_setup(str(file)) == bootstrap.make_setup(load(file))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO, errno.EROFS])
def test_the_step_calls_an_error_of_the_system_as_all_do(number: int) -> None:
    assert apply._reason(OSError(number, "")) == code_of(OSError(number, ""))


def test_an_error_of_the_system_has_a_word_wherever_the_step_has_one() -> None:
    assert {number for number in CODES if apply._reason(OSError(number, "")) != CODES[number]} == set()


# -- defaults that are written twice


def test_a_policy_without_any_word_is_the_configured_default() -> None:
    config, _ = check(LEAST, "rotator.toml")
    assert config
    (site,) = config.sites
    assert site.site.policy == Policy(names=site.site.policy.names)


def test_a_site_keeps_as_many_generations_as_the_configured_default() -> None:
    assert Site("a", (), (), Policy()).keep == schema.DEFAULTS["keep_generations"].default
