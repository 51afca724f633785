"""`rotator check`: what it reads, what it prints and how it ends."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from rotator.config.system_roots import system_roots
from tests.support.authority import CA, NOW, der_pem, encrypted, key_pem, new_key, pem
from tests.support.calls import Called, call
from tests.support.root_stores import Listed, chrome, report
from tests.support.transparency import Keeper

NAME = "signal.example.cn"
ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue(NAME)
RSA = ICA.issue(NAME, kind="rsa")
AT = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
FIELDS = {
    "schema_version",
    "verdict",
    "codes",
    "warnings",
    "problems",
    "served_sha256",
    "effective_not_after",
    "missing_issuer",
    "missing_akid",
    "clients",
}


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a good pair in one file each."""
    monkeypatch.chdir(tmp_path)
    for name, data in {
        "roots.pem": pem(ROOT.cert),
        "chain.pem": GOOD.chain_pem,
        "leaf.pem": pem(GOOD.leaf),
        "ica.pem": pem(ICA.cert),
        "key.pem": GOOD.key_pem,
        "rsa.pem": RSA.chain_pem,
        "rsa.key": RSA.key_pem,
    }.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def run(*arguments: str, roots: str = "roots.pem", at: str = AT) -> Called:
    return call("check", *arguments, "--roots", roots, "--at", at)


def answer(*arguments: str, **how: str) -> dict[str, Any]:
    """The JSON answer, which has exactly the promised fields."""
    body = run(*arguments, "--json", **how).answer
    assert set(body) == FIELDS
    assert body["schema_version"] == 1
    return body


@pytest.mark.usefixtures("inside")
def test_a_good_pair_is_accepted_with_status_0() -> None:
    result = run("--cert", "chain.pem", "--key", "key.pem", "--name", NAME)
    assert result.status == 0
    assert result.stdout.startswith(f"ACCEPT ecdsa: {NAME}; 2 certificates to send")
    assert "Nothing was changed." in result.stdout


@pytest.mark.usefixtures("inside")
def test_one_certificate_is_not_called_several() -> None:
    Path("alone.pem").write_bytes(ROOT.issue(NAME).chain_pem)
    assert f"{NAME}; 1 certificate to send" in run("--cert", "alone.pem", "--name", NAME).stdout


@pytest.mark.usefixtures("inside")
def test_a_good_pair_is_accepted_in_json() -> None:
    body = answer("--cert", "chain.pem", "--key", "key.pem", "--name", NAME)
    assert (body["verdict"], body["codes"], body["warnings"], body["problems"]) == ("accept", [], [], [])
    assert body["served_sha256"] == [hashlib.sha256(raw).hexdigest() for raw in GOOD.chain_der]
    assert body["effective_not_after"] == f"{GOOD.leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    assert (body["missing_issuer"], body["missing_akid"]) == (None, None)


@pytest.mark.usefixtures("inside")
def test_the_chain_may_be_split_over_options_and_files() -> None:
    assert run("--cert", "leaf.pem", "--chain", "ica.pem", "--key", "key.pem", "--name", NAME).status == 0


@pytest.mark.usefixtures("inside")
def test_both_pairs_of_a_dual_site_are_checked_together() -> None:
    result = run("--cert", "chain.pem", "--cert", "rsa.pem", "--key", "key.pem", "--key", "rsa.key", "--name", NAME)
    assert result.status == 0
    assert "ACCEPT ecdsa" in result.stdout
    assert "ACCEPT rsa" in result.stdout


@pytest.mark.usefixtures("inside")
def test_a_key_is_not_asked_for_where_none_is_named() -> None:
    assert run("--cert", "chain.pem", "--name", NAME).status == 0


@pytest.mark.usefixtures("inside")
def test_a_refusal_ends_with_status_3_and_says_what_to_do() -> None:
    result = run("--cert", "leaf.pem", "--name", NAME)
    assert result.status == 3
    assert result.stdout.startswith(f"REJECT incomplete-chain: CN={NAME}")
    assert "Fix: Add the CA's bundle" in result.stdout


@pytest.mark.usefixtures("inside")
def test_a_refusal_in_json_names_what_is_missing_and_where() -> None:
    body = answer("--cert", "leaf.pem", "--name", "other.example.cn")
    assert body["verdict"] == "reject"
    assert set(body["codes"]) == {"incomplete-chain", "name-mismatch"}
    assert body["missing_issuer"] == "CN=Test Intermediate"
    assert len(str(body["missing_akid"])) == 40
    assert all(set(p) == {"code", "severity", "message", "hint", "file", "line"} for p in body["problems"])
    assert {(p["file"], p["line"]) for p in body["problems"]} == {("leaf.pem", 1)}


@pytest.mark.usefixtures("inside")
def test_a_missing_file_is_a_problem_beside_the_others() -> None:
    body = answer("--cert", "leaf.pem", "--chain", "nowhere.pem", "--key", "nokey.pem", "--name", NAME)
    assert body["codes"] == ["io-error", "incomplete-chain"]
    assert run("--cert", "nowhere.pem").status == 3


@pytest.mark.usefixtures("inside")
def test_missing_roots_are_a_problem() -> None:
    assert answer("--cert", "chain.pem", roots="nowhere.pem")["codes"] == ["io-error"]


@pytest.mark.usefixtures("inside")
def test_roots_that_are_no_regular_file_are_not_waited_for() -> None:
    os.mkfifo("pipe")
    assert answer("--cert", "chain.pem", roots="pipe")["codes"] == ["io-error"]


@pytest.mark.usefixtures("inside")
def test_empty_roots_are_told() -> None:
    Path("empty.pem").write_text("# none\n")
    assert answer("--cert", "chain.pem", roots="empty.pem")["codes"] == ["store-empty"]
    Path("damaged.pem").write_bytes(der_pem(b"\x30\x00"))
    (problem,) = answer("--cert", "chain.pem", roots="damaged.pem")["problems"]
    assert problem["message"] == "damaged.pem holds no root certificate that can be read."


def test_a_large_store_of_roots_is_read(inside: Path) -> None:
    many = inside / "many.pem"
    many.write_bytes(pem(ROOT.cert) + b"# padding\n" * 40_000)
    assert run("--cert", "chain.pem", "--name", NAME, roots="many.pem").status == 0


@pytest.mark.usefixtures("inside")
def test_the_roots_are_named_with_their_hash_on_stderr() -> None:
    digest = hashlib.sha256(pem(ROOT.cert)).hexdigest()
    assert f"roots: roots.pem (sha256 {digest})" in run("--cert", "chain.pem").stderr


@pytest.mark.skipif(not system_roots().exists(), reason="this host has no store of roots")
@pytest.mark.usefixtures("inside")
def test_without_roots_the_system_s_are_taken_and_named() -> None:
    result = call("check", "--cert", "chain.pem", "--name", NAME, "--at", AT)
    assert result.status == 3
    assert str(system_roots()) in result.stderr


@pytest.mark.usefixtures("inside")
def test_the_system_s_roots_are_found_where_any_system_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rotator.config.system_roots.SYSTEM_ROOTS", ("absent.pem", "roots.pem"))
    result = call("check", "--cert", "chain.pem", "--name", NAME, "--at", AT)
    assert (result.status, "roots: roots.pem (sha256" in result.stderr) == (0, True)


@pytest.mark.usefixtures("inside")
def test_an_encrypted_key_is_read_with_its_password_file() -> None:
    best = serialization.BestAvailableEncryption(b"secret")
    text = GOOD.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, best)
    Path("key.pem").write_bytes(text)
    Path("password").write_bytes(b"secret\n")
    Path("wrong").write_bytes(b"wrong")
    assert answer("--cert", "chain.pem", "--key", "key.pem")["codes"] == ["key-encrypted"]
    assert answer("--cert", "chain.pem", "--key", "key.pem", "--password-file", "wrong")["codes"] == ["bad-password"]
    assert run("--cert", "chain.pem", "--key", "key.pem", "--password-file", "password").status == 0


@pytest.mark.usefixtures("inside")
def test_a_pkcs12_file_alone_is_a_certificate_with_its_key() -> None:
    best = serialization.BestAvailableEncryption(b"secret")
    Path("all.pfx").write_bytes(pkcs12.serialize_key_and_certificates(None, GOOD.key, GOOD.leaf, [ICA.cert], best))
    Path("all.pfx").chmod(0o600)
    Path("password").write_bytes(b"secret\n")
    Path("password").chmod(0o600)
    body = answer("--cert", "all.pfx", "--password-file", "password", "--name", NAME)
    assert (body["verdict"], body["warnings"]) == ("accept", [])
    assert body["served_sha256"] == [hashlib.sha256(raw).hexdigest() for raw in GOOD.chain_der]
    assert answer("--cert", "all.pfx", "--name", NAME)["codes"] == ["key-encrypted"]


@pytest.mark.usefixtures("inside")
def test_a_password_file_that_is_not_there_is_told_beside_the_key_that_needs_it() -> None:
    Path("key.pem").write_bytes(encrypted(GOOD.key, b"secret"))
    body = answer("--cert", "chain.pem", "--key", "key.pem", "--password-file", "nowhere")
    assert (body["codes"], body["warnings"]) == (["key-encrypted"], ["io-error"])


@pytest.mark.usefixtures("inside")
def test_a_password_is_printed_nowhere() -> None:
    Path("key.pem").write_bytes(encrypted(GOOD.key, b"open sesame"))
    Path("password").write_bytes(b"close sesame")
    result = run("--cert", "chain.pem", "--key", "key.pem", "--password-file", "password")
    assert result.status == 3
    assert "sesame" not in result.stdout + result.stderr


@pytest.mark.parametrize("pool", ["ica.pem", "pool"])
@pytest.mark.usefixtures("inside")
def test_a_missing_intermediate_is_taken_from_the_pool_with_a_line_that_says_so(pool: str) -> None:
    Path("pool").mkdir()
    Path("pool/x.crt").write_bytes(pem(ICA.cert))
    result = run("--cert", "leaf.pem", "--name", NAME, "--pool", pool)
    assert result.status == 0
    assert result.stdout.startswith("WARN incomplete-chain: CN=Test Intermediate was not in these files; it is taken")
    assert answer("--cert", "leaf.pem", "--pool", pool)["warnings"] == ["incomplete-chain"]


@pytest.mark.usefixtures("inside")
def test_a_pool_that_is_not_there_is_a_problem() -> None:
    assert "io-error" in answer("--cert", "leaf.pem", "--pool", "nowhere")["codes"]


@pytest.mark.usefixtures("inside")
def test_what_is_live_is_compared_with() -> None:
    newer = ICA.issue(NAME, not_before=NOW, days=99)
    Path("live.pem").write_bytes(newer.chain_pem)
    assert answer("--cert", "chain.pem", "--name", NAME, "--current", "live.pem")["codes"] == ["downgrade"]


@pytest.mark.parametrize("form", [serialization.Encoding.DER, serialization.Encoding.PEM])
@pytest.mark.usefixtures("inside")
def test_what_is_live_may_have_the_form_that_any_certificate_may_have(form: serialization.Encoding) -> None:
    newer = ICA.issue(NAME, not_before=NOW, days=99)
    Path("live.p7b").write_bytes(pkcs7.serialize_certificates(list(newer.chain), form))
    assert answer("--cert", "chain.pem", "--name", NAME, "--current", "live.p7b")["codes"] == ["downgrade"]


@pytest.mark.usefixtures("inside")
def test_the_key_beside_what_is_live_is_not_asked_for() -> None:
    Path("live.pem").write_bytes(GOOD.chain_pem + encrypted(GOOD.key, b"secret"))
    assert answer("--cert", "chain.pem", "--name", NAME, "--current", "live.pem")["problems"] == []


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"# nothing\n", "cert-missing"), (GOOD.key_pem, "cert-missing"), (GOOD.chain_pem[:-40], "parse-error")],
    ids=["a comment", "a key", "cut off"],
)
@pytest.mark.usefixtures("inside")
def test_a_file_that_is_not_what_is_live_is_no_acceptance(content: bytes, code: str) -> None:
    Path("live.pem").write_bytes(content)
    body = answer("--cert", "chain.pem", "--name", NAME, "--current", "live.pem")
    assert (body["verdict"], body["codes"]) == ("reject", [code])
    assert "live.pem" in body["problems"][0]["message"]


@pytest.mark.usefixtures("inside")
def test_a_private_ca_is_judged_by_its_own_policy() -> None:
    Path("long.pem").write_bytes(ICA.issue(NAME, days=1500).chain_pem)
    assert answer("--cert", "long.pem", "--name", NAME)["codes"] == ["too-long"]
    assert run("--cert", "long.pem", "--name", NAME, "--private-ca").status == 0


@pytest.mark.usefixtures("inside")
def test_another_time_gives_another_verdict() -> None:
    assert answer("--cert", "chain.pem", at="2031-01-01T00:00:00+08:00")["codes"][:1] == ["expired"]


@pytest.mark.parametrize("at", ["yesterday", "2026-11-22", "2026-11-22T12:00:00"])
@pytest.mark.usefixtures("inside")
def test_a_time_that_is_none_is_a_matter_of_usage(at: str) -> None:
    result = run("--cert", "chain.pem", at=at)
    assert result.status == 2
    assert "--at" in result.stderr


@pytest.mark.usefixtures("inside")
def test_a_certificate_must_be_named() -> None:
    assert run("--key", "key.pem").status == 2


# -- what else it is shown


def listed(*revoked: x509.Certificate) -> bytes:
    """A revocation list of the intermediate and one of the root."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (ICA.crl(*revoked), ROOT.crl()))


@pytest.mark.usefixtures("inside")
def test_a_revoked_certificate_is_rejected() -> None:
    Path("crls.pem").write_bytes(listed(GOOD.leaf))
    body = answer("--cert", "chain.pem", "--crls", "crls.pem")
    assert (body["verdict"], body["codes"]) == ("reject", ["revoked"])


@pytest.mark.usefixtures("inside")
def test_revocation_lists_may_lie_in_a_directory_and_in_several_places() -> None:
    Path("crls").mkdir()
    Path("crls/ica.crl").write_bytes(ICA.crl().public_bytes(serialization.Encoding.DER))
    Path("crls/.tmp").write_bytes(b"half")
    Path("root.pem").write_bytes(ROOT.crl().public_bytes(serialization.Encoding.PEM))
    assert answer("--cert", "chain.pem", "--crls", "crls", "--crls", "root.pem")["warnings"] == []
    assert answer("--cert", "chain.pem", "--crls", "crls")["warnings"] == ["revocation-unknown"]


@pytest.mark.usefixtures("inside")
def test_a_revocation_list_that_cannot_be_read_warns_and_refuses_where_an_answer_is_demanded() -> None:
    Path("crls.pem").write_bytes(listed()[:-40])
    assert answer("--cert", "chain.pem", "--crls", "crls.pem")["warnings"] == ["crl-unusable", "revocation-unknown"]
    body = answer("--cert", "chain.pem", "--crls", "crls.pem", "--require-crls")
    assert (body["verdict"], body["codes"]) == ("reject", ["crl-unusable", "revocation-unknown"])


@pytest.mark.usefixtures("inside")
def test_where_an_answer_is_demanded_of_lists_and_none_are_named_it_is_rejected() -> None:
    body = answer("--cert", "chain.pem", "--require-crls")
    assert (body["verdict"], body["codes"]) == ("reject", ["revocation-unknown"])
    assert [p["message"].partition(" was ")[0] for p in body["problems"]] == [
        f"CN={NAME}",
        "CN=Test Intermediate",
    ]
    assert all("none were named" in p["message"] and "--crls" in p["hint"] for p in body["problems"])


@pytest.mark.usefixtures("inside")
def test_logs_that_are_not_asked_under_a_private_ca_are_told() -> None:
    Path("logs.json").write_text(json.dumps({"operators": [{"name": "One", "logs": [Keeper("log").entry]}]}))
    command = ("--cert", "chain.pem", "--name", NAME, "--ct-logs", "logs.json")
    assert (
        "note: logs.json was not used, because clients ask a private CA for no SCTs"
        in run(*command, "--private-ca").stderr
    )
    assert "note:" not in run(*command).stderr


@pytest.mark.parametrize("option", ["--crls", "--ct-logs", "--blocklist", "--ocsp", "--root-store"])
@pytest.mark.usefixtures("inside")
def test_a_file_that_was_named_and_is_not_there_is_no_acceptance(option: str) -> None:
    body = answer("--cert", "chain.pem", option, "absent")
    assert (body["verdict"], body["codes"]) == ("reject", ["io-error"])
    assert "absent" in body["problems"][0]["message"]


@pytest.mark.parametrize("option", ["--ct-logs", "--blocklist", "--root-store"])
@pytest.mark.usefixtures("inside")
def test_a_file_that_holds_something_else_is_no_acceptance(option: str) -> None:
    assert answer("--cert", "chain.pem", option, "chain.pem")["codes"] == ["parse-error"]


@pytest.mark.usefixtures("inside")
def test_a_fifo_in_the_place_of_a_list_blocks_nothing() -> None:
    os.mkfifo("fifo")
    assert answer("--cert", "chain.pem", "--crls", "fifo")["codes"] == ["io-error"]


@pytest.mark.usefixtures("inside")
def test_a_certificate_without_scts_is_rejected_where_logs_are_named() -> None:
    Path("logs.json").write_text(json.dumps({"operators": [{"name": "One", "logs": [Keeper("log").entry]}]}))
    assert answer("--cert", "chain.pem", "--ct-logs", "logs.json")["codes"] == ["sct-missing"]
    assert answer("--cert", "chain.pem", "--ct-logs", "logs.json", "--private-ca")["codes"] == []


@pytest.mark.usefixtures("inside")
def test_a_certificate_that_browsers_distrust_by_its_date_is_rejected_and_they_are_named() -> None:
    Path("mozilla.csv").write_bytes(report(Listed(ROOT, end=NOW - timedelta(days=9))))
    Path("chrome.textproto").write_bytes(chrome((ROOT, [])))
    body = answer("--cert", "chain.pem", "--root-store", "mozilla.csv", "--root-store", "chrome.textproto")
    assert body["codes"] == ["distrusted-root"]
    assert [body["clients"][name]["on"] for name in ("chrome", "firefox", "curl")] == ["store", "store", None]
    shown = run("--cert", "chain.pem", "--name", NAME, "--root-store", "mozilla.csv").stdout
    assert "Who breaks: Chrome, Firefox: only if its own root store distrusts the root." in shown
    assert answer("--cert", "chain.pem", "--root-store", "mozilla.csv", "--private-ca")["codes"] == []


@pytest.mark.usefixtures("inside")
def test_a_key_on_the_blocklist_is_rejected() -> None:
    spki = GOOD.leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    Path("keys.txt").write_text(f"{hashlib.sha256(spki).hexdigest()}  found.pem\n")
    assert answer("--cert", "chain.pem", "--blocklist", "keys.txt")["codes"] == ["compromised-key"]


@pytest.mark.usefixtures("inside")
def test_must_staple_is_accepted_where_nginx_is_said_to_staple() -> None:
    feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
    issued = ICA.issue(NAME, tweak=lambda builder: builder.add_extension(feature, critical=False))
    Path("staple.pem").write_bytes(issued.chain_pem)
    assert answer("--cert", "staple.pem")["codes"] == ["must-staple"]
    assert answer("--cert", "staple.pem", "--stapling")["codes"] == []


@pytest.mark.usefixtures("inside")
def test_must_staple_is_accepted_with_a_response_that_nginx_staples_and_refused_once_that_is_over() -> None:
    feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
    issued = ICA.issue(NAME, tweak=lambda builder: builder.add_extension(feature, critical=False))
    Path("staple.pem").write_bytes(issued.chain_pem)
    Path("staple.der").write_bytes(ICA.ocsp(issued.leaf))
    assert answer("--cert", "staple.pem", "--ocsp", "staple.der")["codes"] == []
    Path("staple.der").write_bytes(ICA.ocsp(issued.leaf, begin=ICA.at - timedelta(days=9)))
    assert answer("--cert", "staple.pem", "--ocsp", "staple.der")["codes"] == ["must-staple"]
    Path("gone.der").write_bytes(ICA.ocsp(issued.leaf, revoked=x509.ReasonFlags.superseded))
    assert answer("--cert", "staple.pem", "--ocsp", "staple.der", "--ocsp", "gone.der")["codes"] == ["revoked"]


@pytest.mark.usefixtures("inside")
def test_a_response_that_cannot_be_read_warns() -> None:
    Path("staple.der").write_bytes(ICA.ocsp(GOOD.leaf)[:-1])
    body = answer("--cert", "chain.pem", "--ocsp", "staple.der")
    assert (body["verdict"], body["warnings"]) == ("accept", ["revocation-unknown"])
    assert "staple.der holds something that is no OCSP response" in body["problems"][0]["message"]


@pytest.mark.usefixtures("inside")
def test_without_roots_those_of_the_name_s_site_are_taken_and_told() -> None:
    site = f'[[site]]\nname = "a"\nnames = ["{NAME}"]\nlisteners = ["127.0.0.1:443"]\n'
    Path("rotator.toml").write_text(f'{site}roots = "{Path("roots.pem").absolute()}"\n')
    words = ("--config", "rotator.toml", "check", "--cert", "chain.pem", "--at", AT)
    for spelling in (NAME, f"{NAME.upper()}."):
        told = call(*words, "--name", "no name", "--name", spelling)
        assert "roots.pem (sha256" in told.stderr
    assert call(*words, "--name", NAME).status == 0
    assert "roots.pem" not in call(*words, "--name", "elsewhere.example").stderr
    Path("rotator.toml").write_text("nonsense")
    assert "roots.pem" not in call(*words, "--name", NAME).stderr


@pytest.mark.usefixtures("inside")
def test_no_key_byte_is_printed() -> None:
    other = key_pem(new_key())
    Path("key.pem").write_bytes(other[:-20])
    result = run("--cert", "chain.pem", "--key", "key.pem", "--name", NAME)
    assert result.status == 3
    for line in other.splitlines()[1:-1]:
        assert line.decode() not in result.stdout + result.stderr


@pytest.mark.usefixtures("inside")
def test_a_file_name_cannot_write_to_the_terminal() -> None:
    name = "a\x1b[2J\n.pem"
    Path(name).write_bytes(pem(GOOD.leaf))
    result = run("--cert", name)
    assert "\x1b" not in result.stdout + result.stderr
