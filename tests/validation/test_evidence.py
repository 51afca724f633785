"""Files named beside the roots: read at the start, renewed under a long life, told where they cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp

from rotator import bootstrap
from rotator.config import Config, check, system_roots
from rotator.core.errors import Exit, RotatorError
from rotator.core.problems import Code
from rotator.daemon.journal import Journal
from rotator.daemon.runtime import make_runtime, reload_trust
from rotator.daemon.sd_notify import Notifier
from rotator.daemon.service import Daemon
from rotator.sources import trust_files
from rotator.sources.trust_files import MAX_FILES, read_responses, read_revocations
from rotator.system.users import user_name
from rotator.validation.validate import private_ca, public, validate_chains
from rotator.x509.crl import Revocations
from rotator.x509.ocsp import Responses
from tests.support.authority import CA, NOW, der_pem, pem, wrap
from tests.support.other_user import as_nobody
from tests.support.root_stores import Listed, report

ROOT = CA.root()
ICA = ROOT.intermediate()
GOOD = ICA.issue("a.example.org")
REJECTED = wrap(0x30, wrap(0xA0, bytes.fromhex("06082b06010505070301")))
"""Trust settings that reject serverAuth."""


def der_of(one: x509.CertificateRevocationList) -> bytes:
    return one.public_bytes(serialization.Encoding.DER)


def written(root: Path, files: Mapping[str, str], sites: int) -> str:
    """The text of a configuration whose sites name these files."""
    lines = "".join(f'{key} = "{root / name}"\n' for key, name in files.items())
    text = f'state_dir = "{root}/state"\n[nginx]\ninclude_dir = "/etc/nginx/rotator"\n'
    text += f'[defaults]\nroots = "{root}/roots.pem"\nlisteners = ["127.0.0.1:443"]\n{lines}'
    for number in range(sites):
        text += f'[[site]]\nname = "s{number}"\nnames = ["s{number}.example.org"]\n'
    return text


def configured(root: Path, files: Mapping[str, str] | None = None, *, sites: int = 1) -> Config:
    """The same, read."""
    (root / "roots.pem").write_bytes(pem(ROOT.cert))
    text = written(root, files or {}, sites)
    config, mistakes = check(text, root / "rotator.toml")
    assert config is not None, mistakes
    return config


@pytest.fixture
def named(tmp_path: Path) -> dict[str, str]:
    """One file of each kind."""
    (tmp_path / "list.crl").write_bytes(der_of(ICA.crl(number=1)))
    (tmp_path / "keys.txt").write_text("# none\n")
    (tmp_path / "staple.der").write_bytes(ICA.ocsp(GOOD.leaf))
    return {"crls": "list.crl", "blocklist": "keys.txt", "ocsp": "staple.der"}


def policies(config: Config) -> list[str]:
    bootstrap.forget_anchors()
    return [bootstrap.policy_of(one.site, bootstrap.load_anchors(one)) for one in config.sites]


def test_the_policys_digest_changes_with_the_content_of_each_file(tmp_path: Path, named: dict[str, str]) -> None:
    config = configured(tmp_path, named)
    seen = {*policies(config), *policies(configured(tmp_path))}
    (tmp_path / "list.crl").write_bytes(der_of(ICA.crl(number=2)))
    seen |= set(policies(config))
    (tmp_path / "keys.txt").write_text("# still none\n")
    seen |= set(policies(config))
    (tmp_path / "staple.der").write_bytes(ICA.ocsp(GOOD.leaf, status=ocsp.OCSPCertStatus.UNKNOWN))
    seen |= set(policies(config))
    assert len(seen) == 5
    assert policies(config) == policies(config)


def test_without_such_files_the_policys_digest_is_that_of_policy_and_roots(tmp_path: Path) -> None:
    assert "+" not in policies(configured(tmp_path))[0]


@pytest.mark.parametrize("key", ["crls", "ct_logs", "blocklist", "ocsp", "root_store"])
@pytest.mark.parametrize("content", [None, b"\xffgarbage"], ids=["absent", "garbage"])
def test_a_file_that_cannot_be_read_at_the_start_is_a_mistake_of_the_configuration(
    tmp_path: Path, key: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "it").write_bytes(content)
    with pytest.raises(RotatorError) as error:
        make_runtime(configured(tmp_path, {key: "it"}))
    assert (error.value.code, error.value.exit) == ("configuration", Exit.CONFIG)
    assert error.value.message.startswith(f"{key}: {tmp_path}/it ")
    assert error.value.hint


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: None], ids=["a fifo", "a directory", "absent"])
def test_roots_that_are_no_file_are_a_mistake_of_the_configuration_and_are_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    config = configured(tmp_path)
    (tmp_path / "roots.pem").unlink()
    make(tmp_path / "roots.pem")
    with pytest.raises(RotatorError) as error:
        make_runtime(config)
    assert (error.value.code, error.value.exit) == ("configuration", Exit.CONFIG)
    assert error.value.message.startswith(f"roots: {tmp_path}/roots.pem ")


ROOTS = {
    "no block": (b"# none\n", "holds no root certificate."),
    "half a block": (pem(ROOT.cert)[:-40], "ends inside the CERTIFICATE block"),
    "a root that is rejected": (
        der_pem(ROOT.cert.public_bytes(serialization.Encoding.DER) + REJECTED, label="TRUSTED CERTIFICATE"),
        "is marked as rejected for TLS servers.",
    ),
    "a file of p11-kit": (b"[p11-kit-object-v1]\nx-distrusted: true\n" + pem(ROOT.cert), "this is a file of p11-kit"),
}


@pytest.mark.parametrize("what", ROOTS)
def test_a_file_without_a_root_for_servers_is_a_mistake_of_the_configuration(what: str, tmp_path: Path) -> None:
    content, reason = ROOTS[what]
    config = configured(tmp_path)
    (tmp_path / "roots.pem").write_bytes(content)
    with pytest.raises(RotatorError) as error:
        make_runtime(config)
    assert (error.value.code, error.value.exit) == ("configuration", Exit.CONFIG)
    assert error.value.message.startswith(f"roots: {tmp_path}/roots.pem ")
    assert reason in error.value.message
    assert error.value.hint


def test_nothing_has_changed_if_no_file_has(tmp_path: Path, named: dict[str, str]) -> None:
    config = configured(tmp_path, named, sites=2)
    assert reload_trust(make_runtime(config), config) == (None, ())


def test_a_renewed_list_is_noticed(tmp_path: Path, named: dict[str, str]) -> None:
    config = configured(tmp_path, named, sites=2)
    runtime = make_runtime(config)
    (tmp_path / "list.crl").write_bytes(der_of(ICA.crl(GOOD.leaf, number=2)))
    other, errors = reload_trust(runtime, config)
    assert other is not None
    assert errors == ()
    for name, managed in other.sites.items():
        assert managed.policy != runtime.sites[name].policy
        revocations = managed.anchors.evidence.revocations
        assert revocations is not None
        assert revocations.lists[0].number == 2


def test_a_renewed_response_is_noticed_and_one_that_is_none_leaves_the_old_one_in_force(
    tmp_path: Path, named: dict[str, str]
) -> None:
    config = configured(tmp_path, named)
    runtime = make_runtime(config)
    try_later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    (tmp_path / "staple.der").write_bytes(try_later.public_bytes(serialization.Encoding.DER))
    assert [str(e).partition(" holds ")[0] for e in reload_trust(runtime, config)[1]] == [
        f"ocsp: {tmp_path}/staple.der"
    ]
    (tmp_path / "staple.der").write_bytes(ICA.ocsp(GOOD.leaf, revoked=x509.ReasonFlags.superseded))
    other, errors = reload_trust(runtime, config)
    assert other is not None
    assert errors == ()
    codes = {
        name: [p.code for p in validate_chains([GOOD.chain_der], private_ca(), made.sites["s0"].anchors, NOW)]
        for name, made in (("before", runtime), ("now", other))
    }
    assert codes == {"before": [Code.REVOCATION_UNKNOWN], "now": [Code.REVOKED, Code.REVOCATION_UNKNOWN]}


def test_a_root_store_that_comes_to_distrust_a_root_has_the_live_pair_judged_again(tmp_path: Path) -> None:
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "mozilla.csv").write_bytes(report(Listed(ROOT)))
    config = configured(tmp_path, {"root_store": "stores"}, sites=2)
    runtime = make_runtime(config)
    assert reload_trust(runtime, config) == (None, ())
    (tmp_path / "stores" / "mozilla.csv").write_bytes(report(Listed(ROOT, end=NOW - timedelta(days=9))))
    other, errors = reload_trust(runtime, config)
    assert other is not None
    assert errors == ()
    codes = [
        {p.code for p in validate_chains([GOOD.chain_der], public(), made.sites["s1"].anchors, NOW)}
        for made in (runtime, other)
    ]
    assert [Code.DISTRUSTED_ROOT in found for found in codes] == [False, True]
    (tmp_path / "stores" / "mozilla.csv").write_bytes(b"<html>")
    unchanged, (error,) = reload_trust(other, config)
    assert unchanged is None
    assert str(error).startswith(f"root_store: {tmp_path}/stores/mozilla.csv ")


def test_a_root_that_the_distribution_no_longer_ships_is_reported_although_the_file_of_roots_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "mozilla"
    shipped.mkdir()
    (shipped / "other.crt").write_bytes(pem(CA.root("Other").cert))
    (shipped / "root.crt").write_bytes(pem(ROOT.cert))
    monkeypatch.setattr(system_roots, "SHIPPED_ROOTS", (str(tmp_path / "absent"), str(shipped)))
    monkeypatch.setattr(system_roots, "SYSTEM_ROOTS", (str(tmp_path / "roots.pem"),))
    config = configured(tmp_path)
    runtime = make_runtime(config)
    (shipped / "root.crt").unlink()
    other, _ = reload_trust(runtime, config)
    assert other is not None
    codes = [
        {p.code for p in validate_chains([GOOD.chain_der], public(), made.sites["s0"].anchors, NOW)}
        for made in (runtime, other)
    ]
    assert [Code.LOCAL_ROOT in found for found in codes] == [False, True]


def test_a_renewed_root_is_noticed(tmp_path: Path) -> None:
    config = configured(tmp_path)
    runtime = make_runtime(config)
    (tmp_path / "roots.pem").write_bytes(pem(ROOT.cert, CA.root("Another").cert))
    other, _ = reload_trust(runtime, config)
    assert other is not None
    assert len(other.sites["s0"].anchors.certificates) == 2


@pytest.mark.parametrize("content", [None, b"", b"\xffgarbage"], ids=["absent", "empty", "garbage"])
def test_what_cannot_be_read_later_is_told_once_and_stays_as_it_was(
    tmp_path: Path, named: dict[str, str], content: bytes | None
) -> None:
    config = configured(tmp_path, named, sites=3)
    runtime = make_runtime(config)
    path = tmp_path / "list.crl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    other, errors = reload_trust(runtime, config)
    assert other is None
    assert [str(e).startswith(f"crls: {path} ") for e in errors] == [True]


def test_an_unreadable_list_does_not_keep_another_sites_from_being_renewed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.crl").write_bytes(der_of(ICA.crl(number=1)))
    (tmp_path / "roots.pem").write_bytes(pem(ROOT.cert))
    text = f'state_dir = "{tmp_path}/state"\n[defaults]\nroots = "{tmp_path}/roots.pem"\n'
    for name in ("a", "b"):
        text += f'[[site]]\nname = "{name}"\nnames = ["{name}.example.org"]\nlisteners = ["127.0.0.1:443"]\n'
        text += f'crls = "{tmp_path}/{name}.crl"\n'
    config, _ = check(text, tmp_path / "rotator.toml")
    assert config is not None
    runtime = make_runtime(config)
    (tmp_path / "a.crl").unlink()
    (tmp_path / "b.crl").write_bytes(der_of(ICA.crl(number=2)))
    other, errors = reload_trust(runtime, config)
    assert other is not None
    assert len(errors) == 1
    assert other.sites["a"] is runtime.sites["a"]
    assert other.sites["b"].policy != runtime.sites["b"].policy


def test_the_daemon_reads_lists_again_every_hour_and_reports_once_what_it_cannot_read(
    tmp_path: Path, named: dict[str, str]
) -> None:
    configured(tmp_path, named)
    (tmp_path / "rotator.toml").write_text(written(tmp_path, named, 1))
    (tmp_path / "state").mkdir()
    log = tmp_path / "log"
    held = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    daemon = Daemon(tmp_path / "rotator.toml", Journal(held), Notifier({}))

    def hour(content: bytes | None) -> list[str]:
        """What it said after another hour."""
        before = len(log.read_text().splitlines())
        (tmp_path / "list.crl").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "list.crl").write_bytes(content)
        daemon.jobs._note("reload-trust")
        daemon._run_jobs()
        return log.read_text().splitlines()[before:]

    def number() -> int | None:
        revocations = daemon.loop.runtime.sites["s0"].anchors.evidence.revocations
        assert revocations is not None
        return revocations.lists[0].number

    try:
        assert hour(der_of(ICA.crl(number=2))) == []
        assert number() == 2
        assert ["not-renewed" in line and "list.crl" in line for line in hour(None)] == [True]
        assert hour(None) == []
        assert number() == 2
        assert ["renewed" in line for line in hour(der_of(ICA.crl(number=3)))] == [True]
        assert number() == 3
    finally:
        daemon.file_events.close()
        daemon.wake.close()
        os.close(held)


# --- files


def test_a_directory_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "b.crl").write_bytes(der_of(ICA.crl(number=2)))
    (tmp_path / "a.crl").write_bytes(der_of(ICA.crl(number=1)))
    (tmp_path / ".a.crl.part").write_bytes(b"half")
    (tmp_path / "old").mkdir()
    assert [one.number for one in read_revocations(tmp_path).lists] == [1, 2]


@pytest.mark.parametrize("read", [read_revocations, read_responses])
def test_an_empty_directory_is_no_answer(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(RotatorError, match="without any file"):
        read(tmp_path)


def test_responses_of_a_directory_are_read_as_those_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.der").write_bytes(ICA.ocsp(GOOD.leaf))
    (tmp_path / "b.der").write_bytes(ROOT.ocsp(ICA.cert))
    (tmp_path / ".a.der.part").write_bytes(b"half")
    found = read_responses(tmp_path)
    assert found.faults == ()
    assert set(found.by_serial) == {GOOD.leaf.serial_number, ICA.cert.serial_number}
    assert read_responses(tmp_path / "a.der", tmp_path / "b.der").digest == found.digest


def test_too_many_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.crl").touch()
    with pytest.raises(RotatorError) as error:
        read_revocations(tmp_path)
    assert error.value.code == "too-large"


LIST, STAPLE = der_of(ICA.crl()), ICA.ocsp(GOOD.leaf)


@pytest.mark.parametrize(
    ("bound", "read", "data"), [("MAX_LISTS", read_revocations, LIST), ("MAX_STAPLES", read_responses, STAPLE)]
)
def test_more_than_shall_be_held_in_memory_together_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    read: Callable[[Path], Revocations | Responses],
    data: bytes,
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.der").write_bytes(data)
    monkeypatch.setattr(trust_files, bound, 3 * len(data))
    assert read(tmp_path).faults == ()
    monkeypatch.setattr(trust_files, bound, 3 * len(data) - 1)
    with pytest.raises(RotatorError) as error:
        read(tmp_path)
    assert error.value.code == "too-large"


def test_a_closed_file_gets_the_command_that_opens_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "list.crl").write_bytes(der_of(ICA.crl()))
    (tmp_path / "list.crl").chmod(0)
    hint, user = as_nobody(lambda: (_hint(), user_name()), cwd=tmp_path)
    assert hint == f"permission Let user {user} read it: chmod a+r list.crl"


def _hint() -> str:
    try:
        read_revocations("list.crl")
    except RotatorError as error:
        return f"{error.code} {error.hint}"
    return ""
