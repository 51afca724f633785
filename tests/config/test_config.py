"""What the configuration means where it is right, and how each mistake is told where it is not."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.config import Config, EvidenceFiles, Mistake, SiteConfig, check, load, schema
from rotator.config.system_roots import SYSTEM_ROOTS, system_roots
from rotator.config.toml_document import TomlSyntaxError, parse
from rotator.config.value_parsers import BadValueError, as_duration, duration
from rotator.core.errors import Exit, RotatorError
from rotator.core.model import KeyType, Policy
from rotator.validation.validate import private_ca, public
from tests.support.other_user import as_nobody

EXAMPLE = Path(__file__).parents[2] / "conf.example.toml"
FILE = Path("/etc/rotator/rotator.toml")
SITE = '[[site]]\nname = "a"\nnames = ["a.example.org"]\nlisteners = ["127.0.0.1:443"]\n'


def good(text: str) -> Config:
    config, mistakes = check(text, FILE)
    assert config is not None, mistakes
    return config


def mistakes(text: str) -> tuple[Mistake, ...]:
    config, found = check(text, FILE)
    assert config is None
    return found


def only(text: str) -> Mistake:
    """The one mistake of a text."""
    (one,) = mistakes(text)
    return one


def in_site(line: str) -> str:
    return SITE + line + "\n"


def site_with(**replaced: str) -> str:
    """A site whose lines are replaced by TOML values; the name stands in line 2, names in 3, listeners in 4."""
    lines = {"name": '"a"', "names": '["a.example.org"]', "listeners": '["127.0.0.1:443"]'} | replaced
    return "[[site]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def the_site(text: str) -> SiteConfig:
    return good(text).sites[0]


# --- defaults


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", FILE),
        ("state_dir", Path("/var/lib/rotator")),
        ("incoming", Path("/var/lib/rotator/incoming")),
        ("scan_interval", 15.0),
        ("settle", 10.0),
        ("metrics_listen", "127.0.0.1:9847"),
    ],
)
def test_a_host_has_a_default_for_everything(field: str, value: object) -> None:
    assert getattr(good(SITE), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("command", ("nginx",)),
        ("include_dir", Path("/etc/nginx/rotator")),
        ("apply", "socket"),
        ("socket_dir", Path("/run/rotator")),
        ("unit", "nginx.service"),
        ("pid_file", Path("/run/nginx.pid")),
        ("error_log", Path("/var/log/nginx/error.log")),
        ("key_group", ""),
        ("min_reload_interval", 0.0),
        ("drain_budget", 0),
        ("prove_within", None),
    ],
)
def test_nginx_has_a_default_for_everything(field: str, value: object) -> None:
    assert getattr(good(SITE).nginx, field) == value


def test_a_site_without_a_policy_has_the_models_own(tmp_path: Path) -> None:
    assert the_site(SITE).site.policy == Policy(names=("a.example.org",))


def test_a_site_keeps_five_generations() -> None:
    assert the_site(SITE).site.keep == 5


def test_a_site_reads_its_drop() -> None:
    config = good(SITE)
    assert config.drop(config.sites[0]) == Path("/var/lib/rotator/incoming/a")


def test_a_site_with_a_source_reads_that() -> None:
    config = good(in_site('source = "/etc/letsencrypt/live/a"'))
    assert config.drop(config.sites[0]) == Path("/etc/letsencrypt/live/a")


def test_incoming_lies_below_another_state_directory() -> None:
    assert good('state_dir = "/srv/r"\n' + SITE).incoming == Path("/srv/r/incoming")


def test_the_systems_roots_are_the_first_file_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "second.pem").touch()
    monkeypatch.setattr(
        "rotator.config.system_roots.SYSTEM_ROOTS", (str(tmp_path / "first"), str(tmp_path / "second.pem"))
    )
    assert system_roots() == tmp_path / "second.pem"


def test_a_system_without_roots_names_the_usual_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert system_roots() == Path(SYSTEM_ROOTS[0])


def test_roots_are_the_systems_where_none_are_written() -> None:
    assert the_site(SITE).roots == system_roots()


def test_roots_may_be_a_file() -> None:
    assert the_site(in_site('roots = "/etc/ssl/our-ca.pem"')).roots == Path("/etc/ssl/our-ca.pem")


def test_the_values_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        good(SITE).settle = 1.0  # type: ignore[misc]


# --- defaults for all sites, policies


def test_a_site_inherits_from_the_defaults() -> None:
    assert the_site("[defaults]\nkeep_generations = 9\n" + SITE).site.keep == 9


def test_a_site_overrides_the_defaults() -> None:
    assert the_site("[defaults]\nkeep_generations = 9\n" + in_site("keep_generations = 3")).site.keep == 3


@pytest.mark.parametrize("key", ["pool", "password_file"])
def test_a_pool_and_a_password_file_are_nothing_for_a_site_for_all_or_for_one(key: str) -> None:
    assert getattr(the_site(SITE), key) is None
    for text in (f'[defaults]\n{key} = "/etc/rotator/x"\n' + SITE, in_site(f'{key} = "/etc/rotator/x"')):
        assert getattr(the_site(text), key) == Path("/etc/rotator/x")


@pytest.mark.parametrize("key", ["pool", "password_file"])
def test_a_pool_and_a_password_file_have_absolute_paths(key: str) -> None:
    (mistake,) = mistakes(in_site(f'{key} = "here"'))
    assert key in mistake.key


def test_listeners_may_be_common_to_all_sites() -> None:
    text = '[defaults]\nlisteners = ["127.0.0.1:1"]\n[[site]]\nname = "a"\nnames = ["a.org"]\n'
    assert the_site(text).site.listeners == ("127.0.0.1:1",)


def test_a_private_ca_has_no_lifetime_caps() -> None:
    assert the_site(in_site('policy = "private-ca"')).site.policy.lifetime_caps is False


def test_a_policy_table_changes_what_it_names() -> None:
    assert the_site(in_site("policy = { min_rsa_bits = 3072 }")).site.policy.min_rsa_bits == 3072


def test_a_policy_table_without_a_profile_begins_with_the_defaults() -> None:
    text = '[defaults]\npolicy = "private-ca"\n' + in_site("policy = { min_rsa_bits = 3072 }")
    assert the_site(text).site.policy.profile == "private-ca"


def test_a_policy_table_with_a_profile_begins_with_that() -> None:
    text = "[defaults]\npolicy = { min_rsa_bits = 3072 }\n" + in_site('policy = { profile = "private-ca" }')
    assert the_site(text).site.policy.min_rsa_bits == 2048


def test_a_policy_by_name_replaces_the_defaults() -> None:
    text = "[defaults]\npolicy = { min_rsa_bits = 3072 }\n" + in_site('policy = "public"')
    assert the_site(text).site.policy.min_rsa_bits == 2048


def test_a_policy_may_be_a_table_below_its_site() -> None:
    assert the_site(SITE + "[site.policy]\nallow_key_reuse = false\n").site.policy.allow_key_reuse is False


def test_key_types_are_those_of_the_model() -> None:
    assert the_site(in_site('policy = { key_types = ["rsa"] }')).site.policy.key_types == {KeyType.RSA}


def test_files_that_a_verdict_is_shown_may_stand_in_the_defaults_and_in_a_site() -> None:
    text = '[defaults]\ncrls = "/var/lib/crls"\nct_logs = "/l.json"\n' + in_site(
        'ct_logs = ""\nblocklist = "/keys.txt"\nocsp = "/var/lib/ocsp/example.der"\nroot_store = "/stores"'
    )
    staple = Path("/var/lib/ocsp/example.der")
    expected = EvidenceFiles(Path("/var/lib/crls"), None, Path("/keys.txt"), staple, Path("/stores"))
    assert the_site(text).evidence == expected


def test_nothing_is_looked_up_by_default() -> None:
    assert the_site(SITE).evidence == EvidenceFiles()


def test_roots_of_this_host_alone_may_be_refused() -> None:
    assert the_site(SITE).site.policy.allow_local_roots
    assert not the_site(in_site("policy = { allow_local_roots = false }")).site.policy.allow_local_roots


def test_an_answer_can_only_be_demanded_of_lists_that_are_named() -> None:
    line = "policy = { require_crls = true }"
    assert "require_crls but no crls" in only(in_site(line)).message
    assert the_site(in_site(line + '\ncrls = "/crls"')).site.policy.require_crls


@pytest.mark.parametrize("line", ["max_lifetime = -1", "min_life_left = 96", "stapling = 1", 'max_lifetime = "90d"'])
def test_a_wrong_value_of_a_policy_is_told(line: str) -> None:
    assert only(in_site(f"policy = {{ {line} }}")).key == f"site.policy.{line.partition(' ')[0]}"


def test_every_field_of_the_policy_can_be_configured() -> None:
    fields = {field.name for field in dataclasses.fields(Policy)} - {"names"}
    assert fields == set(schema.POLICY)


def test_the_schemas_policy_is_the_models() -> None:
    meant = {name: key.read(key.default) for name, key in schema.POLICY.items()}
    assert Policy(**meant | {"key_types": frozenset(meant["key_types"])}) == Policy()


@pytest.mark.parametrize(("profile", "preset"), [("public", public), ("private-ca", private_ca)])
def test_a_profile_by_name_is_the_judges_own_preset(profile: str, preset: Callable[[tuple[str, ...]], Policy]) -> None:
    policy = the_site(in_site(f'policy = "{profile}"')).site.policy
    assert policy == preset(policy.names)


def test_an_rsa_range_that_is_empty_is_a_mistake() -> None:
    assert "larger than max_rsa_bits" in only(in_site("policy = { min_rsa_bits = 4096, max_rsa_bits = 3072 }")).message


# --- names and listeners


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("www.example.org", "www.example.org"),
        ("WWW.Example.ORG.", "www.example.org"),
        ("straße.example", "xn--strae-oqa.example"),
        ("例え.jp", "xn--r8jz45g.jp"),
        ("xn--r8jz45g.jp", "xn--r8jz45g.jp"),
        ("localhost", "localhost"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
    ],
)
def test_a_name_is_kept_as_clients_send_it(written: str, meant: str) -> None:
    assert the_site(site_with(names=f'["{written}"]')).site.names == (meant,)


@pytest.mark.parametrize(
    "written",
    [
        ".",
        "a..b",
        "-a.org",
        "a_b.org",
        "a.*.org",
        "w*.org",
        "*",
        "*.",
        "xn--a.org",
        "1.2.3.400",
        "http://a.org",
        "10.0.0.7:443",
        "fe80::1%eth0",
        "a/b",
        "",
        "a b.org",
        "a." * 130 + "org",
        "a" * 64 + ".org",
        "a\\u0000b",
    ],
)
def test_a_name_that_no_certificate_can_cover_is_a_mistake(written: str) -> None:
    assert only(site_with(names=f'["{written}"]')).key == "site.names"


def test_a_wildcard_is_proved_with_its_probe_name() -> None:
    text = site_with(names='["a.org", "*.a.org"]', probe_name='"www.a.org"')
    assert the_site(text).site.probe_names == ("a.org", "www.a.org")


def test_several_wildcards_have_several_probe_names() -> None:
    text = site_with(names='["*.b.org", "*.a.org"]', probe_name='["www.a.org", "www.b.org"]')
    assert the_site(text).site.probe_names == ("www.b.org", "www.a.org")


def test_a_wildcard_without_a_probe_name_is_a_mistake_with_an_example() -> None:
    assert 'probe_name = "www.a.org"' in only(site_with(names='["*.a.org"]')).hint


@pytest.mark.parametrize("name", ["a.org", "x.www.a.org", "www.b.org"])
def test_a_probe_name_that_the_wildcard_does_not_cover_is_a_mistake(name: str) -> None:
    found = mistakes(site_with(names='["*.a.org"]', probe_name=f'"{name}"'))
    assert "site.probe_name" in {one.key for one in found}


def test_a_probe_name_that_is_a_wildcard_is_a_mistake() -> None:
    found = mistakes(site_with(names='["*.a.org"]', probe_name='"*.a.org"'))
    assert "a handshake needs one name" in found[-1].message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:443", "127.0.0.1:443"),
        ("127.0.0.1:0443", "127.0.0.1:443"),
        ("[::0:1]:443", "[::1]:443"),
        ("unix:/run//nginx.sock", "unix:/run/nginx.sock"),
    ],
)
def test_a_listener_is_kept_in_one_spelling(written: str, meant: str) -> None:
    assert the_site(site_with(listeners=f'["{written}"]')).site.listeners == (meant,)


@pytest.mark.parametrize(
    "written",
    [
        "443",
        ":443",
        "a",
        "a:",
        "a:b",
        "a:0",
        "a:65536",
        "a:-1",
        "a:99999999",
        "a:٤٤٣",
        "::1:443",
        "[::1]",
        "[x]:443",
        "[fe80::1%lo]:443",
        "localhost:443",
        "mqtt.example.org:443",
        "0.0.0.0:443",
        "[::]:443",
        "*:443",
        "unix:nginx.sock",
        "unix:",
        "",
        "a b:443",
        "unix:/" + "x" * 107,
    ],
)
def test_a_listener_that_cannot_be_connected_to_is_a_mistake(written: str) -> None:
    assert only(site_with(listeners=f'["{written}"]')).key == "site.listeners"


def test_a_bare_ipv6_address_gets_its_brackets_suggested() -> None:
    assert 'write "[2001:db8::1]:443"' in only(site_with(listeners='["2001:db8::1:443"]')).hint


def test_a_name_written_twice_is_a_mistake() -> None:
    assert "twice" in only(site_with(names='["a.org", "A.org."]')).message


def test_two_sites_may_not_claim_one_name_at_one_listener() -> None:
    second = '[[site]]\nname = "b"\nnames = ["b.org", "a.example.org"]\nlisteners = ["127.0.0.1:443"]\n'
    assert 'site "a", line 1, already claims "a.example.org" at 127.0.0.1:443' in only(SITE + second).message


def test_two_sites_that_claim_one_name_at_many_listeners_are_one_mistake() -> None:
    listeners = '["127.0.0.1:1", "127.0.0.1:2"]'
    assert only(site_with(listeners=listeners) + site_with(listeners=listeners, name='"b"')).line == 7


def test_a_probe_name_that_another_site_serves_is_a_mistake() -> None:
    second = site_with(name='"b"', names='["*.example.org"]', probe_name='"a.example.org"')
    assert "a.example.org" in only(SITE + second).message


def test_two_sites_may_share_a_name_at_different_listeners() -> None:
    assert len(good(SITE + site_with(name='"b"', listeners='["127.0.0.1:444"]')).sites) == 2


def test_two_sites_of_one_name_are_a_mistake() -> None:
    assert "also the name of the site at line 1" in only(SITE + site_with(names='["b.org"]')).message


@pytest.mark.parametrize("key", ["names", "listeners"])
def test_a_site_without_names_or_listeners_is_a_mistake_in_words(key: str) -> None:
    lines = [line for line in SITE.splitlines() if not line.startswith(key)]
    assert only("\n".join(lines)).message == f'"a" has no {key}, so nothing could be proved'


@pytest.mark.parametrize("key", ["names", "listeners"])
def test_an_empty_array_of_names_or_listeners_is_a_mistake(key: str) -> None:
    assert f"has no {key}" in only(site_with(**{key: "[]"})).message


def test_a_site_without_a_name_is_a_mistake() -> None:
    assert only(SITE.replace('name = "a"\n', "")).message == "this site has no name"


@pytest.mark.parametrize("name", ["a", "9", "a-b_c.d", "example.cn", "x" * 64])
def test_a_site_name_of_the_grammar_is_taken(name: str) -> None:
    assert the_site(site_with(name=f'"{name}"')).site.name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".a",
        "-a",
        "_a",
        "A",
        "a b",
        "a/b",
        "../a",
        "a..b",
        "x" * 65,
        "ä",
        "a\\n",
        "a$",
        "*.a",
        "a.conf",
        "pairs",
        "a.",
    ],
)
def test_a_site_name_outside_the_grammar_is_a_mistake(name: str) -> None:
    assert only(site_with(name=f'"{name}"')).key == "site.name"


def test_a_site_name_outside_the_grammar_gets_a_near_one_suggested() -> None:
    assert 'write "example-shop"' in only(site_with(name='"Example Shop"')).hint


# --- directories and nginx


@pytest.mark.parametrize(
    "path", ["/etc/nginx/my dir", "/etc/$x", "/a;b", "/a{b", '/a\\"b', "/a#b", "/ä", "relative", "/a/../b"]
)
def test_an_include_directory_that_nginx_would_read_otherwise_is_a_mistake(path: str) -> None:
    assert only(f'[nginx]\ninclude_dir = "{path}"\n' + SITE).key == "nginx.include_dir"


@pytest.mark.parametrize("path", ["/", "/etc/nginx/conf.d", "/etc/nginx/sites-enabled/"])
def test_an_include_directory_that_nginx_reads_whole_is_a_mistake(path: str) -> None:
    assert "for rotator alone" in only(f'[nginx]\ninclude_dir = "{path}"\n' + SITE).message


@pytest.mark.parametrize("path", ["/var/lib/rotator", "/var/lib/rotator/nginx"])
def test_an_include_directory_that_the_daemon_could_write_is_a_mistake(path: str) -> None:
    assert "root's nginx must not read there" in mistakes(f'[nginx]\ninclude_dir = "{path}"\n' + SITE)[0].message


@pytest.mark.parametrize("path", ["/var/lib/rotator", "/var/lib/rotator/incoming/run"])
def test_a_directory_of_sockets_that_the_daemon_could_write_is_a_mistake(path: str) -> None:
    assert "root's sockets must not be there" in mistakes(f'[nginx]\nsocket_dir = "{path}"\n' + SITE)[0].message


def test_the_directory_of_answers_of_an_earlier_release_is_a_mistake_that_names_what_replaced_it() -> None:
    mistake = only('[nginx]\nresult_dir = "/run/rotator-apply"\n' + SITE)
    assert (mistake.key, mistake.line, mistake.message) == ("nginx.result_dir", 2, "was removed in this release")
    assert "remove this line" in mistake.hint
    assert "socket_dir" in mistake.hint


def test_the_oneshot_of_an_earlier_release_is_a_mistake_that_names_what_replaced_it() -> None:
    assert 'write apply = "socket"' in only('[nginx]\napply = "systemd"\n' + SITE).hint


@pytest.mark.parametrize("word", ["socket", "direct"])
def test_the_privileged_step_is_made_in_one_of_two_ways(word: str) -> None:
    assert good(f'[nginx]\napply = "{word}"\n' + SITE).nginx.apply == word


def test_a_third_way_to_make_it_is_a_mistake() -> None:
    assert '"socket"' in str(only('[nginx]\napply = "sudo"\n' + SITE))


def test_a_command_in_one_string_gets_the_array_suggested() -> None:
    hint = only('[nginx]\ncommand = "/opt/nginx -c /x.conf"\n' + SITE).hint
    assert hint == 'write it as an array: ["/opt/nginx", "-c", "/x.conf"]'


@pytest.mark.parametrize("command", ["[]", '[""]', "[1]", "7", '["nginx", "a\\nb"]'])
def test_a_command_that_names_no_program_is_a_mistake(command: str) -> None:
    assert only(f"[nginx]\ncommand = {command}\n" + SITE).key == "nginx.command"


def test_a_command_may_hold_the_same_argument_twice() -> None:
    assert good('[nginx]\ncommand = ["n", "-g", "a", "-g", "b"]\n' + SITE).nginx.command == ("n", "-g", "a", "-g", "b")


def test_an_empty_error_log_means_none() -> None:
    assert good('[nginx]\nerror_log = ""\n' + SITE).nginx.error_log is None


def test_a_time_to_prove_within_may_be_given() -> None:
    assert good('[nginx]\nprove_within = "30s"\n' + SITE).nginx.prove_within == 30.0


@pytest.mark.parametrize(
    "line",
    [
        'unit = "nginx"',
        'key_group = "www data"',
        "pid_file = 3",
        "min_reload_interval = true",
        "drain_budget = -1",
        'drain_budget = "none"',
    ],
)
def test_a_value_of_another_kind_is_a_mistake_at_its_key(line: str) -> None:
    assert only(f"[nginx]\n{line}\n" + SITE).key == f"nginx.{line.split()[0]}"


# --- times


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("15s", 15.0), ("2m", 120.0), ("1h", 3600.0), ("1.5s", 1.5), ("15 s", 15.0)],
)
def test_a_time_is_a_number_and_a_unit(written: str, seconds: float) -> None:
    assert duration(0, 1e9)(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written", ["", "15", "s", "-1s", "1e3s", "1d", "1m30s", "٣s", "15S", " 15s", "15s\n", 15, 1.5, True, None]
)
def test_anything_else_is_no_time(written: object) -> None:
    with pytest.raises(BadValueError):
        duration(0, 1e9)(written)


@pytest.mark.parametrize("line", ['scan_interval = "0s"', 'scan_interval = "25h"', 'settle = "999999999999h"'])
def test_a_time_out_of_all_reason_is_a_mistake(line: str) -> None:
    assert "is not between" in only(line + "\n" + SITE).message


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h"]))
def test_a_time_in_words_means_the_same_time(count: int, unit: str) -> None:
    seconds = duration(0, 1e12)(f"{count}{unit}")
    assert duration(0, 1e12)(as_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@given(st.text(max_size=30))
def test_no_text_makes_a_time_raise_anything_but_a_mistake(text: str) -> None:
    with suppress(BadValueError):
        duration(0, 10)(text)


# --- mistakes and their lines


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = 'settel = "1s"\nscan_interval = 5\n[nginx]\napply = "sudo"\n' + site_with(names='["_", "ok.org", "-"]')
    assert [one.line for one in mistakes(text)] == [1, 2, 4, 7, 7]


def test_a_misspelt_key_gets_the_right_one_suggested() -> None:
    assert only("[nginx]\ninclde_dir = 1\n" + SITE).hint == 'did you mean "include_dir"?'


def test_a_misspelt_table_gets_the_right_one_suggested() -> None:
    assert only("[ngnix]\n" + SITE).hint == 'did you mean "nginx"?'


def test_a_key_in_the_wrong_table_is_told_where_it_belongs() -> None:
    assert only('[nginx]\nsettle = "1s"\n' + SITE).hint == "it belongs at the top of the file, above the first [table]"


def test_a_sites_own_key_among_the_defaults_is_told_where_it_belongs() -> None:
    assert only('[defaults]\nsource = "/x"\n' + SITE).hint == "it belongs to each [[site]]"


def test_an_unknown_key_like_no_other_is_a_mistake_without_a_suggestion() -> None:
    assert only("[nginx]\nzzzzzz = 1\n" + SITE) == Mistake(2, "nginx.zzzzzz", "unknown key")


def test_a_single_bracket_around_site_is_explained() -> None:
    assert "with two brackets" in only(SITE.replace("[[site]]", "[site]")).hint


@pytest.mark.parametrize(
    "text", ["nginx = 1\n", 'site = "a"\n', "[[nginx]]\n", "site = [1]\n", "[defaults]\npolicy = 1\n"]
)
def test_a_value_in_place_of_a_table_is_a_mistake(text: str) -> None:
    assert mistakes(text if "site" in text else text + SITE)[0].line in (1, 2)


def test_a_configuration_without_a_site_is_a_mistake() -> None:
    assert "nothing to rotate" in only("").message


def test_a_syntax_error_tells_its_line() -> None:
    assert only(SITE + "\nx = \n").line == 6


def test_a_syntax_error_at_the_end_tells_the_last_line() -> None:
    assert only(SITE + 'x = """\nabc\n').line == 6


def test_the_same_table_twice_is_a_mistake_with_its_line() -> None:
    assert only("[nginx]\n[metrics]\n[nginx]\n" + SITE).line == 3


def test_a_table_that_stands_there_twice_is_called_as_it_is_written() -> None:
    with pytest.raises(TomlSyntaxError, match=r"^cannot declare \[nginx\] twice$"):
        parse("[nginx]\n[nginx]\n")


def test_lines_are_true_behind_strings_and_arrays_of_several_lines() -> None:
    text = 'state_dir = """\n/x"""\n[nginx]\ncommand = [\n "n", # ] [x]\n]\nzzzzzz = 1\n'
    assert [one.line for one in mistakes(text + SITE) if one.key == "nginx.zzzzzz"] == [7]


def test_a_mistake_in_an_array_tells_the_line_of_its_element() -> None:
    assert only(site_with(names='[\n"a.org",\n# comment\n"_",\n]')).line == 6


def test_lines_are_true_where_sites_stand_apart() -> None:
    text = SITE + "[metrics]\n" + site_with(name='"b"', names='["_"]') + "[site.policy]\nzzzzzz = 1\n"
    assert [one.line for one in mistakes(text)] == [8, 11]


def test_lines_are_true_for_dotted_and_quoted_keys() -> None:
    assert only("\n\"nginx\" . 'zzzzzz' = 1\n" + SITE).line == 2


def test_lines_are_true_with_the_line_ends_of_windows() -> None:
    assert only(("\nzzzzzz = 1\n" + SITE).replace("\n", "\r\n")).line == 2


def test_a_byte_order_mark_is_passed_over() -> None:
    assert good("\ufeff" + SITE).sites


def test_a_mistake_is_told_as_compilers_do() -> None:
    assert only("settel = 1\n" + SITE).located(FILE) == (
        '/etc/rotator/rotator.toml:1: settel: unknown key; did you mean "settle"?'
    )


@pytest.mark.parametrize("value", ["0x" + "f" * 5000, "9" * 5000, "[" * 2000 + "]" * 2000, '"' + "x" * 5000 + '"'])
def test_a_monstrous_value_is_a_short_mistake(value: str) -> None:
    assert max(len(one.located(FILE)) for one in mistakes(f"scan_interval = {value}\n" + SITE)) < 300


_VALUES = [
    '"a"',
    '["a.org"]',
    '"*.a.org"',
    '["*.a.org"]',
    '["127.0.0.1:1"]',
    '"15s"',
    '"system"',
    '""',
    "true",
    "1",
    "-1.5e9",
    "inf",
    "nan",
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "1979-05-27",
    "07:32:00",
    '{profile="public"}',
    "{min_rsa_bits=4096,max_rsa_bits=true}",
    '[1,"\\n"]',
    '["rsa"]',
    "0x" + "f" * 4500,
]
_WORDS = st.sampled_from(
    [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        ",",
        "=",
        "#",
        '"',
        "'",
        '"""',
        "'''",
        ".",
        "\\",
        "é",
        "\ufeff",
        "name",
        "=",
        "names",
        "=",
        "policy",
        "=",
        "listeners",
        "=",
        "settle",
        "=",
        "keep_generations",
        "probe_name",
        "roots",
        "source",
        "x",
        *_VALUES,
        " ",
        "\n",
        "\r\n",
        "[[site]]\n",
        "[nginx]\n",
        "[defaults]\n",
    ]
)
_KEYS = sorted({key for table in (schema.TOP, schema.POLICY, *schema.TABLES.values()) for key in table})
_HEADERS = st.sampled_from(["[nginx]", "[metrics]", "[defaults]", "[[site]]", "[site.policy]", "[[site.names]]"])
_LINES = _HEADERS | st.tuples(st.sampled_from(_KEYS), st.sampled_from(_VALUES)).map(" = ".join)


@given(st.lists(_LINES, max_size=15).map("\n".join))
def test_no_value_of_any_key_raises_anything_but_mistakes(text: str) -> None:
    config, found = check(text, FILE)
    assert (config is None) == bool(found)


@given(st.sampled_from(_KEYS), st.sampled_from(_VALUES), st.sampled_from(["", "[nginx]", "[metrics]", "[defaults]"]))
def test_no_value_of_a_key_in_any_table_raises_anything_but_mistakes(key: str, value: str, table: str) -> None:
    config, found = check(f"{table}\n{key} = {value}\n{SITE}", FILE)
    assert (config is None) == bool(found)


@given(st.sampled_from(_KEYS), st.sampled_from(_VALUES))
def test_no_value_of_a_key_of_a_site_raises_anything_but_mistakes(key: str, value: str) -> None:
    config, found = check(site_with(**{key: value}), FILE)
    assert (config is None) == bool(found)


@given(st.lists(_WORDS, max_size=40).map("".join))
def test_no_text_raises_anything_but_mistakes(text: str) -> None:
    config, found = check(text, FILE)
    assert (config is None) == bool(found)


@given(st.text(max_size=60))
def test_no_name_raises_anything_but_mistakes(text: str) -> None:
    quoted = "".join(f"\\U{ord(c):08X}" for c in text if not 0xD800 <= ord(c) < 0xE000)
    config, found = check(site_with(name=f'"{quoted}"', names=f'["{quoted}"]', listeners=f'["{quoted}:1"]'), FILE)
    assert (config is None) == bool(found)


@given(st.lists(_WORDS, max_size=40).map("".join))
def test_every_line_told_is_a_line_of_the_text(text: str) -> None:
    _, found = check(text, FILE)
    assert all(1 <= one.line <= text.count("\n") + 1 for one in found)


def _paths(value: object, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, Mapping):
        return [where, *(path for key, inner in value.items() for path in _paths(inner, (*where, key)))]
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        return [where, *(path for number, one in enumerate(value) for path in _paths(one, (*where, number)))]
    return [where]


@given(st.lists(_WORDS, max_size=40).map("".join))
def test_every_key_outside_of_inline_tables_has_a_line_of_its_own(text: str) -> None:
    try:
        document = parse(text)
    except TomlSyntaxError:
        return
    if "{" in text:
        return
    assert set(_paths(document.values)) - {()} <= set(document._lines)


# --- finding a site


def test_a_site_is_found_by_its_name() -> None:
    assert good(SITE).site("a").site.name == "a"


def test_an_unknown_site_is_a_usage_error() -> None:
    with pytest.raises(RotatorError) as caught:
        good(SITE).site("b")
    assert caught.value.exit is Exit.USAGE


def test_a_misspelt_site_gets_the_right_one_suggested() -> None:
    with pytest.raises(RotatorError) as caught:
        good(site_with(name='"example.cn"')).site("exampel.cn")
    assert caught.value.hint == "Did you mean example.cn? Its sites: example.cn."


# --- loading the file


def load_error(path: Path) -> RotatorError:
    with pytest.raises(RotatorError) as caught:
        load(path)
    return caught.value


def test_a_good_file_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(SITE)
    assert load(tmp_path / "r.toml").path == tmp_path / "r.toml"


def test_a_file_with_mistakes_is_told_with_every_line(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("settel = 1\nscan = 2\n" + SITE)
    message = load_error(tmp_path / "r.toml").message
    assert [int(n) for n in re.findall(r"r\.toml:(\d+):", message)] == [1, 2]


def test_a_file_with_mistakes_exits_with_configuration(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("x")
    assert load_error(tmp_path / "r.toml").exit is Exit.CONFIG


def test_the_hint_tells_what_is_served_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("x")
    assert "nginx serves the same certificates as before" in load_error(tmp_path / "r.toml").hint


def test_a_missing_file_is_told_how_to_begin(tmp_path: Path) -> None:
    assert "conf.example.toml" in load_error(tmp_path / "absent.toml").hint


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    assert load_error(tmp_path).code == "configuration"


def test_a_file_that_is_not_utf8_tells_the_line(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"# fine\n# caf\xe9\n")
    assert "r.toml:2: the line is not UTF-8" in load_error(tmp_path / "r.toml").message


def test_a_file_without_an_end_is_refused() -> None:
    assert "larger than" in load_error(Path("/dev/zero")).message


def test_a_closed_file_gets_the_command_that_opens_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "r.toml").write_text(SITE)
    (tmp_path / "r.toml").chmod(0)
    assert "chmod a+r r.toml" in as_nobody(lambda: load_error(Path("r.toml")).hint, cwd=tmp_path)


# --- the example


def test_the_example_loads_as_it_is() -> None:
    assert load(EXAMPLE).sites


def test_the_example_loads_with_its_two_lines_changed() -> None:
    text = EXAMPLE.read_text()
    for key, value in (("names", "shop.example.org"), ("listeners", "127.0.0.1:443")):
        text, count = re.subn(rf"^{key} = .*$", f'{key} = ["{value}"]', text, flags=re.MULTILINE)
        assert count == 1
    assert good(text).sites[0].site.names == ("shop.example.org",)


def _uncommented() -> str:
    """The example with every option written out."""
    return re.sub(r"^#(?=[a-z])", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def _example_tables() -> dict[str, tuple[Mapping[str, schema.Key], Mapping[str, object]]]:
    written = tomllib.loads(_uncommented())
    (site,) = written["site"]
    return {
        "top": (schema.TOP, {k: v for k, v in written.items() if k not in schema.TABLES}),
        "policy": (schema.POLICY, site["policy"]),
        "site": ({k: v for k, v in schema.SITE.items() if k not in schema.DEFAULTS}, site),
        **{name: (keys, written[name]) for name, keys in schema.TABLES.items() if name != "site"},
    }


@pytest.mark.parametrize("table", ["top", "nginx", "metrics", "defaults", "site", "policy"])
def test_the_example_shows_every_key(table: str) -> None:
    keys, written = _example_tables()[table]
    assert set(keys) - set(written) == set()


@pytest.mark.parametrize("table", ["top", "nginx", "metrics", "defaults", "site", "policy"])
def test_the_example_shows_the_true_defaults(table: str) -> None:
    keys, written = _example_tables()[table]
    must_be_written = {"name", "names", "listeners"} if table == "site" else set()
    wrong = {k: written[k] for k, key in keys.items() if k not in must_be_written and written[k] != key.default}
    assert wrong == {}


def test_the_example_means_the_same_with_every_option_written_out() -> None:
    def without_lines(config: Config) -> Config:
        return dataclasses.replace(config, sites=tuple(dataclasses.replace(one, line=0) for one in config.sites))

    assert without_lines(good(_uncommented())) == without_lines(good(EXAMPLE.read_text()))


def test_the_example_names_no_key_that_does_not_exist() -> None:
    assert check(_uncommented(), EXAMPLE)[1] == ()
