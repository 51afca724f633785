"""The judge: rules for the leaf, comparison with what is live, presets, and what it says of everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rotator.core.errors import RotatorError
from rotator.core.model import KeyType, SourceFile
from rotator.core.problems import Code, Severity
from rotator.validation.leaf_rules import lifetime_cap
from rotator.validation.validate import (
    Anchors,
    Verdict,
    private_ca,
    public,
    validate_chains,
    validate_files,
    validate_served,
)
from rotator.x509 import der as tlv
from rotator.x509.parse import read_certificate
from tests.support.authority import (
    CA,
    NOW,
    Issued,
    der,
    der_pem,
    key_pem,
    new_key,
    pem,
    rewritten,
    rsa_key,
    with_extensions,
    wrap,
)
from tests.support.cost import cost
from tests.support.extensions import also, instead
from tests.support.faulty_leaves import ODD, REFUSED, WARNED, alternative, parts, sha1_leaf, twice
from tests.support.judging import ANCHORS, GOOD, ICA, NAME, ROOT, files, judge, odd

DAY = timedelta(days=1)


def test_a_good_pair_is_accepted_with_everything_that_is_stored_of_it() -> None:
    verdict = judge(GOOD)
    assert verdict.accepted
    assert verdict.problems == ()
    (pair,) = verdict.pairs
    assert pair.chain == GOOD.chain_der
    assert pair.key is not None
    assert pair.key.reveal() == GOOD.key_pem
    assert (pair.key_type, pair.subject, pair.issuer) == (KeyType.ECDSA, f"CN={NAME}", "CN=Test Intermediate")
    assert pair.serial == f"{GOOD.leaf.serial_number:x}"
    assert pair.names == (NAME,)
    assert (pair.not_before, pair.not_after) == (GOOD.leaf.not_valid_before_utc, GOOD.leaf.not_valid_after_utc)
    assert verdict.effective_not_after == pair.effective_not_after == GOOD.leaf.not_valid_after_utc


def test_both_pairs_of_a_dual_site_are_judged_and_sorted_by_kind_of_key() -> None:
    other = ICA.issue(NAME, kind="rsa")
    candidate = files(("r", other.chain_pem), ("rk", other.key_pem), ("e", GOOD.chain_pem), ("ek", GOOD.key_pem))
    verdict = validate_files(candidate, public([NAME]), ANCHORS, NOW)
    assert verdict.accepted
    assert [(p.key_type, p.chain) for p in verdict.pairs] == [
        (KeyType.ECDSA, GOOD.chain_der),
        (KeyType.RSA, other.chain_der),
    ]


def test_one_bad_half_refuses_a_dual_pair() -> None:
    other = ICA.issue(NAME, kind="rsa", not_after=NOW - DAY, not_before=NOW - 9 * DAY)
    candidate = files(("r", other.chain_pem), ("rk", other.key_pem), ("e", GOOD.chain_pem), ("ek", GOOD.key_pem))
    assert validate_files(candidate, public([NAME]), ANCHORS, NOW).codes == (Code.EXPIRED,)


def test_all_problems_are_told_at_once_refusals_first() -> None:
    issued = (
        CA.root("Other")
        .intermediate("Other Two")
        .issue("else.example.cn", not_before=NOW - 900 * DAY, not_after=NOW - DAY, eku=None)
    )
    candidate = files(("chain.pem", pem(issued.leaf)), SourceFile("key.pem", key_pem(new_key()), 0o644))
    verdict = validate_files(candidate, public([NAME]), ANCHORS, NOW)
    refused = {Code.EXPIRED, Code.TOO_LONG, Code.NAME_MISMATCH, Code.INCOMPLETE_CHAIN, Code.KEY_MISMATCH}
    assert set(verdict.codes) == refused
    assert set(verdict.warnings) == {Code.NO_EKU, Code.KEY_PERMISSIONS}
    severities = [p.severity for p in verdict.problems]
    assert severities == sorted(severities, key=lambda s: s is not Severity.REJECT)


def test_every_problem_of_a_certificate_has_its_place() -> None:
    verdict = judge(ICA.issue(NAME, eku=None, key_usage=False))
    assert [(p.file, p.line) for p in verdict.problems] == [("chain.pem", 1)] * 2


# --- dates


def test_a_certificate_is_good_up_to_its_last_second() -> None:
    end = GOOD.leaf.not_valid_after_utc
    assert judge(GOOD, now=end).accepted
    assert judge(GOOD, now=end + timedelta(seconds=1)).codes == (Code.EXPIRED,)


def test_a_certificate_is_good_from_its_first_second() -> None:
    begin = GOOD.leaf.not_valid_before_utc
    assert judge(GOOD, now=begin).accepted
    assert judge(GOOD, now=begin - timedelta(seconds=1)).codes == (Code.NOT_YET_VALID,)


def test_another_time_zone_is_the_same_moment() -> None:
    now = GOOD.leaf.not_valid_after_utc.astimezone(timezone(timedelta(hours=9)))
    assert judge(GOOD, now=now).accepted


@pytest.mark.parametrize(("days", "left", "soon"), [(90, 29, True), (90, 31, False), (6, 3, False), (6, 1, True)])
def test_what_expires_soon_is_a_matter_of_its_lifetime(days: int, left: int, soon: bool) -> None:
    issued = ICA.issue(NAME, not_before=NOW - (days - left) * DAY, not_after=NOW + left * DAY)
    assert (Code.EXPIRES_SOON in judge(issued).warnings) == soon


def dated(begin: datetime, lifetime: timedelta) -> Verdict:
    root = CA.root(at=begin, days=9999)
    issued = root.issue(NAME, not_before=begin, not_after=begin + lifetime)
    anchors = Anchors.from_pem(pem(root.cert), "roots.pem")
    return judge(issued, anchors=anchors, now=begin + timedelta(hours=1))


@pytest.mark.parametrize(
    ("issued", "days"),
    [
        (datetime(2018, 3, 1, tzinfo=UTC), 825),
        (datetime(2020, 8, 31, tzinfo=UTC), 825),
        (datetime(2020, 9, 1, tzinfo=UTC), 398),
        (datetime(2026, 3, 14, tzinfo=UTC), 398),
        (datetime(2026, 3, 15, tzinfo=UTC), 200),
        (datetime(2027, 3, 15, tzinfo=UTC), 100),
        (datetime(2029, 3, 15, tzinfo=UTC), 47),
    ],
)
def test_the_cap_on_lifetime_goes_by_the_day_of_issue(issued: datetime, days: int) -> None:
    assert lifetime_cap(issued) == timedelta(days=days)
    assert dated(issued, timedelta(days=days, seconds=-1)).accepted
    assert dated(issued, timedelta(days=days)).codes == (Code.TOO_LONG,)


def test_there_was_no_cap_before_there_were_rules() -> None:
    assert lifetime_cap(datetime(2012, 6, 30, tzinfo=UTC)) is None


def test_a_private_ca_has_no_cap_on_lifetime() -> None:
    assert judge(ICA.issue(NAME, days=1700), policy=private_ca([NAME])).accepted


# --- names


def test_every_missing_name_is_listed() -> None:
    verdict = judge(GOOD, names=[NAME, "www.example.cn", "192.0.2.1", "*.example.cn"])
    assert verdict.codes == (Code.NAME_MISMATCH,)
    assert "does not cover www.example.cn, 192.0.2.1, *.example.cn;" in verdict.problems[0].message


@pytest.mark.parametrize(("count", "more"), [(5, ""), (7, " and 2 more")])
def test_of_many_names_that_are_covered_five_are_listed(count: int, more: str) -> None:
    names = [f"{letter}.example.cn" for letter in "abcdefg"[:count]]
    message = judge(ICA.issue(*names)).problems[0].message
    assert message.endswith(f"does not cover {NAME}; it covers {', '.join(names[:5])}{more}.")


@pytest.mark.parametrize(("count", "more"), [(3, ""), (5, " and 2 more")])
def test_of_many_malformed_names_three_are_listed(count: int, more: str) -> None:
    bad = [f"f{letter}*.example.cn" for letter in "abcde"[:count]]
    message = judge(ICA.issue(NAME, *bad)).problems[0].message
    assert message.count("(a wildcard must") == 3
    assert message.endswith(f"with a domain after it){more}.")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a b", "'a b' is no host name; correct the configuration."),
        ("www.example.cn", "Order the certificate with these names, or remove them from the configuration."),
        ("192.0.2.1", "Order the certificate with these names, or remove them from the configuration."),
    ],
)
def test_the_hint_tells_a_name_that_is_none_from_one_to_be_ordered(name: str, hint: str) -> None:
    assert judge(GOOD, names=[name]).problems[0].hint == hint


def test_an_international_name_is_asked_for_as_people_write_it() -> None:
    assert judge(ICA.issue("xn--mnchen-3ya.example.cn"), names=["München.example.cn."]).accepted


def test_an_address_is_covered_by_an_address() -> None:
    assert judge(ICA.issue("192.0.2.7", cn=None), names=["192.0.2.7"]).accepted


def test_a_wildcard_covers_one_label() -> None:
    issued = ICA.issue("*.example.cn")
    assert judge(issued, names=["a.example.cn"]).accepted
    assert judge(issued, names=["a.b.example.cn"]).codes == (Code.NAME_MISMATCH,)


def test_critical_names_beside_a_subject_are_a_matter_of_the_profile() -> None:
    issued = ICA.issue(NAME, tweak=instead(alternative(NAME)))
    assert judge(issued).codes == (Code.BAD_SAN,)
    assert judge(issued, policy=private_ca([NAME])).accepted


def test_a_short_lived_certificate_without_a_common_name_is_good() -> None:
    assert judge(ICA.issue(NAME, cn=None, days=6)).problems == ()


def test_a_common_name_does_not_count() -> None:
    verdict = judge(ICA.issue("other.example.cn", cn=NAME))
    assert verdict.codes == (Code.NAME_MISMATCH,)
    assert verdict.warnings == (Code.CN_NOT_IN_SAN,)


@pytest.mark.parametrize("cn", ["Signal Server", "signal", NAME.upper(), "*.example.cn", "192.0.2.7"])
def test_a_common_name_that_is_covered_or_no_host_s_is_no_matter(cn: str) -> None:
    issued = ICA.issue(NAME, "*.example.cn", "192.0.2.7", cn=cn)
    assert judge(issued).problems == ()


@pytest.mark.parametrize("cn", ["*.elsewhere.cn", "192.0.2.8"])
def test_a_common_name_of_another_host_is_told(cn: str) -> None:
    assert judge(ICA.issue(NAME, "192.0.2.7", cn=cn)).warnings == (Code.CN_NOT_IN_SAN,)


def test_a_wildcard_for_a_whole_domain_of_the_top_covers_nothing() -> None:
    issued = ICA.issue("*.cn", NAME, cn=None)
    assert judge(issued).codes == (Code.BAD_SAN,)
    assert judge(issued, policy=private_ca([NAME])).accepted
    assert judge(issued, policy=private_ca(["example.cn"])).codes == (Code.NAME_MISMATCH,)


def test_what_counts_for_no_name_is_not_told_as_covered() -> None:
    names = alternative("192.0.2.1", "www.example.cn")
    verdict = judge(ICA.issue(NAME, tweak=instead(names, critical=False)), names=["192.0.2.1"])
    assert verdict.codes == (Code.BAD_SAN, Code.NAME_MISMATCH)
    assert "does not cover 192.0.2.1; it covers www.example.cn." in verdict.problems[1].message


def test_an_underscore_is_a_matter_of_the_profile() -> None:
    issued = ICA.issue(NAME, "a_b.example.cn")
    assert judge(issued).codes == (Code.BAD_SAN,)
    assert judge(issued, policy=private_ca([NAME])).accepted


# --- leaves of every kind


def test_rsassa_pss_without_its_parameters_is_refused() -> None:
    """The library does not say its digest, but raises what nobody expects of the question."""
    bare = wrap(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a")
    data = rewritten(GOOD.leaf, ICA.key, lambda parts: [*parts[:2], bare, *parts[3:]])
    body, _, signature = (tlv.whole(data, part) for part in tlv.children(data, tlv.element(data, 0, len(data))))
    leaf = wrap(0x30, body + bare + signature)
    problems = validate_chains([(leaf, *der(ICA.cert))], public([NAME]), ANCHORS, NOW)
    (weak,) = (p for p in problems if p.code is Code.WEAK_SIGNATURE)
    assert "parameters are missing" in weak.message


FEATURE = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.24")


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        (b"\x30\x03\x02\x01\x10", ()),
        (b"\x30\x06\x02\x01\x10\x02\x01\x05", (Code.MUST_STAPLE,)),
        (b"\x30\x03\x02\x01", (Code.PARSE_ERROR,)),
    ],
    ids=["alone", "beside must-staple", "damaged"],
)
def test_a_tls_feature_that_is_not_known_demands_nothing_and_hides_nothing(
    value: bytes, codes: tuple[Code, ...]
) -> None:
    """The library looks such a number up in a table, and raises what nobody expects of it."""
    issued = ICA.issue(NAME, tweak=also(x509.UnrecognizedExtension(FEATURE, value)))
    assert judge(issued).codes == codes
    above = ROOT.intermediate("Featured", tweak=also(x509.UnrecognizedExtension(FEATURE, value)))
    assert judge(above.issue(NAME)).codes == tuple(code for code in codes if code is Code.PARSE_ERROR)


P256 = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
POINT = new_key().public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
RSA_BITS = rsa_key().public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
FIRST = 2 + (POINT[-1] & 1)
WRITINGS: dict[str, tuple[bytes, Code]] = {
    "a compressed point": (wrap(0x30, P256 + wrap(0x03, bytes((0, FIRST)) + POINT[1:33])), Code.KEY_TYPE),
    "a hybrid point": (wrap(0x30, P256 + wrap(0x03, bytes((0, FIRST + 4)) + POINT[1:])), Code.KEY_TYPE),
    "a point beside its curve": (wrap(0x30, P256 + wrap(0x03, b"\0\4" + POINT[1:33] * 2)), Code.KEY_INVALID),
    "half a point": (wrap(0x30, P256 + wrap(0x03, b"\0" + POINT[:33])), Code.KEY_INVALID),
    "no point": (wrap(0x30, P256 + wrap(0x03, b"\0")), Code.KEY_INVALID),
    "an RSA key without its NULL": (
        wrap(0x30, wrap(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01") + wrap(0x03, b"\0" + RSA_BITS)),
        Code.KEY_TYPE,
    ),
}
"""Public keys that OpenSSL takes and Go does not, or that nobody can use."""


@pytest.mark.parametrize("what", WRITINGS)
def test_a_public_key_that_strict_clients_cannot_read_is_refused_without_its_private_half(what: str) -> None:
    spki, code = WRITINGS[what]
    leaf = rewritten(GOOD.leaf, ICA.key, lambda parts: [*parts[:6], spki, *parts[7:]])
    policy = public([NAME])
    for problems in (
        validate_chains([(leaf, *der(ICA.cert))], policy, ANCHORS, NOW),
        validate_served([leaf, *der(ICA.cert)], policy, ANCHORS, NOW).problems,
    ):
        assert [p.code for p in problems if p.severity is Severity.REJECT] == [code]


@pytest.mark.parametrize("what", ["a compressed point", "a hybrid point"])
def test_an_authority_whose_key_strict_clients_cannot_read_is_refused(what: str) -> None:
    odd = ec.generate_private_key(ec.SECP256R1())
    plain = odd.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    first = 2 + (plain[-1] & 1)
    point = bytes((0, first)) + plain[1:33] if "compressed" in what else bytes((0, first + 4)) + plain[1:]
    authority = ROOT.intermediate("Odd", key=odd)
    issued = authority.issue(NAME)
    cert = rewritten(
        authority.cert, ROOT.key, lambda parts: [*parts[:6], wrap(0x30, P256 + wrap(0x03, point)), *parts[7:]]
    )
    problems = validate_chains([(*der(issued.leaf), cert)], public([NAME]), ANCHORS, NOW)
    assert [p.code for p in problems if p.severity is Severity.REJECT] == [Code.KEY_TYPE]


@pytest.mark.parametrize("what", REFUSED)
def test_a_leaf_is_refused(what: str) -> None:
    make, code = REFUSED[what]
    verdict = judge(make())
    assert verdict.codes == (code,)
    assert all(p.hint for p in verdict.problems if p.severity is Severity.REJECT)


@pytest.mark.parametrize("what", WARNED)
def test_a_leaf_is_accepted_with_a_warning(what: str) -> None:
    make, code = WARNED[what]
    verdict = judge(make())
    assert verdict.accepted
    assert verdict.warnings == (code,)


def unreadable_names(extensions: list[bytes]) -> list[bytes]:
    kept = [e for e in extensions if b"\x06\x03\x55\x1d\x11" not in e]
    return [*kept, wrap(0x30, b"\x06\x03\x55\x1d\x11" + wrap(0x04, NAME.encode()))]


@pytest.mark.parametrize("what", ODD)
def test_an_odd_leaf_is_refused(what: str) -> None:
    change, code = ODD[what]
    assert code in odd(rewritten(GOOD.leaf, ICA.key, change)).codes


def test_a_serial_number_of_20_octets_may_begin_with_a_bit() -> None:
    assert odd(rewritten(GOOD.leaf, ICA.key, parts(1, wrap(0x02, b"\0\xff" + b"\1" * 19)))).accepted


@pytest.mark.parametrize(
    ("features", "codes"),
    [(b"\2\1\x63", ()), (b"\2\1\5\2\1\x63", (Code.MUST_STAPLE,)), (b"\2\1\x63\2\1\x11", (Code.MUST_STAPLE,))],
    ids=["alone", "beside stapling", "before stapling of version 2"],
)
def test_a_tls_feature_that_nobody_knows_is_passed_over(features: bytes, codes: tuple[Code, ...]) -> None:
    oid = bytes.fromhex("06082b06010505070118")
    added = wrap(0x30, oid + wrap(0x04, wrap(0x30, features)))
    assert odd(with_extensions(GOOD.leaf, ICA.key, lambda listed: [*listed, added])).codes == codes


@pytest.mark.parametrize(("bits", "accepted"), [(0x40, True), (0xC0, True), (0x80, False), (0x04, False)])
def test_a_type_of_the_nineties_counts_as_openssl_counts_it(bits: int, accepted: bool) -> None:
    oid = bytes.fromhex("06096086480186f8420101")
    added = wrap(0x30, oid + wrap(0x04, wrap(0x03, bytes((0, bits)))))
    verdict = odd(with_extensions(GOOD.leaf, ICA.key, lambda listed: [*listed, added]))
    assert verdict.codes == (() if accepted else (Code.BAD_EKU,))


def test_policies_may_be_critical() -> None:
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), None)])
    issued = ROOT.intermediate("C", tweak=also(policies, critical=True)).issue(
        NAME, tweak=also(policies, critical=True)
    )
    assert judge(issued).accepted


def test_a_length_in_more_octets_than_it_needs_is_refused() -> None:
    """OpenSSL takes it for what it means and sends it as DER, so what is served would not be what is stored."""
    (data,) = GOOD.chain_der[:1]
    outer = b"\x30\x83" + len(data[4:]).to_bytes(3, "big") + data[4:]
    inner = with_extensions(GOOD.leaf, ICA.key, lambda listed: [*listed[:-1], b"\x30\x81" + listed[-1][1:]])
    assert odd(outer).codes == odd(inner).codes == (Code.PARSE_ERROR,)


PRINTABLE, TELETEX = 0x13, 0x14


@pytest.mark.parametrize(
    ("kind", "name", "read"),
    [(PRINTABLE, b"AT&T", "AT&T"), (PRINTABLE, b"*.example.cn", "*.example.cn"), (TELETEX, b"caf\xe9", "café")],
)
def test_a_name_that_only_a_strict_library_does_not_read_is_read_as_clients_do(
    kind: int, name: bytes, read: str
) -> None:
    subject = wrap(0x30, wrap(0x31, wrap(0x30, bytes.fromhex("060355040a") + wrap(kind, name))))
    verdict = odd(rewritten(GOOD.leaf, ICA.key, parts(5, subject)))
    assert verdict.accepted
    assert verdict.pairs[0].subject == f"O={read}"


def test_two_signature_algorithms_are_not_told_as_a_forged_signature() -> None:
    verdict = odd(rewritten(GOOD.leaf, ICA.key, ODD["with two signature algorithms"][0]))
    assert [p.message for p in verdict.problems if p.severity is Severity.REJECT] == [
        f"CN={NAME} names two different signature algorithms."
    ]


def test_a_curve_that_clients_do_not_know_is_told_by_its_name() -> None:
    issued = ICA.issue(NAME, key=ec.generate_private_key(ec.SECP224R1()))
    assert any("(secp224r1)" in p.message for p in judge(issued).problems)


def test_a_leaf_that_holds_an_extension_twice_is_refused() -> None:
    assert Code.DUPLICATE_EXTENSION in odd(with_extensions(GOOD.leaf, ICA.key, twice)).codes


def test_a_leaf_whose_names_cannot_be_read_is_refused_for_that() -> None:
    verdict = odd(with_extensions(GOOD.leaf, ICA.key, unreadable_names))
    assert Code.BAD_SAN in verdict.codes
    assert Code.NO_SAN not in verdict.codes


def test_a_leaf_signed_with_sha_1_is_refused_for_that_alone() -> None:
    assert judge(sha1_leaf()).codes == (Code.WEAK_SIGNATURE,)


def pieces(data: bytes) -> list[bytes]:
    return [tlv.whole(data, part) for part in tlv.children(data, tlv.element(data, 0, len(data)))]


def test_an_intermediate_signed_with_rsassa_pss_without_its_parameters_is_known_as_weak() -> None:
    (data,) = der(CA.root("RSA Root", key=rsa_key(0)).intermediate("x").cert)
    sha256, pss = bytes.fromhex("300d06092a864886f70d01010b0500"), bytes.fromhex("300b06092a864886f70d01010a")
    tbs, algorithm, signature = pieces(data)
    assert algorithm == sha256
    body = wrap(0x30, b"".join(pss if part == sha256 else part for part in pieces(tbs)))
    cert, _ = read_certificate(wrap(0x30, body + pss + signature))
    assert cert is not None
    assert cert.weak_signature == "an algorithm whose parameters are missing or damaged"


def test_an_intermediate_signed_with_md5_is_known_as_weak() -> None:
    key = rsa_key(0)
    ca = CA.root("RSA Root", key=key)
    cert, _ = read_certificate(der(ca.intermediate("x").cert)[0])
    assert cert is not None
    assert cert.weak_signature == ""
    sha256, md5 = bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d010104")
    weak, _ = read_certificate(cert.raw.replace(sha256, md5))
    assert weak is not None
    assert weak.weak_signature == "MD5"


# --- compared with what is live

OLD = ICA.issue(NAME, not_before=NOW - 60 * DAY)


def test_a_renewal_in_its_time_needs_no_comment() -> None:
    assert judge(GOOD, live=[OLD]).problems == ()


def test_the_live_pair_again_needs_no_comment() -> None:
    assert judge(GOOD, live=[GOOD]).problems == ()


def test_a_pair_that_is_older_in_both_dates_is_a_downgrade() -> None:
    verdict = judge(OLD, live=[GOOD])
    assert verdict.codes == (Code.DOWNGRADE,)
    assert "--force" in verdict.problems[0].hint


def test_a_downgrade_can_be_forced() -> None:
    verdict = judge(OLD, live=[GOOD], force=True)
    assert verdict.accepted
    assert Code.DOWNGRADE in verdict.warnings


def test_a_policy_may_let_downgrades_pass() -> None:
    assert judge(OLD, live=[GOOD], policy=replace(public([NAME]), forbid_downgrade=False)).accepted


def test_a_change_to_short_lived_certificates_is_no_downgrade() -> None:
    verdict = judge(ICA.issue(NAME, days=6), live=[ICA.issue(NAME, not_before=NOW - 2 * DAY)])
    assert verdict.accepted
    assert verdict.warnings == (Code.EXPIRES_EARLIER,)


def test_a_backdated_certificate_is_no_downgrade() -> None:
    verdict = judge(ICA.issue(NAME, not_before=NOW - 3 * DAY, days=99), live=[GOOD])
    assert verdict.accepted
    assert verdict.warnings == (Code.ISSUED_EARLIER,)


@pytest.mark.parametrize(
    ("later", "longer", "warnings"),
    [
        (0, 0, ()),
        (0, -1, (Code.EXPIRES_EARLIER,)),
        (-1, 0, (Code.ISSUED_EARLIER,)),
        (0, 1, ()),
        (1, 0, ()),
    ],
)
def test_a_pair_with_one_date_of_the_live_one_is_no_downgrade(
    later: int, longer: int, warnings: tuple[Code, ...]
) -> None:
    begin, end = NOW - 9 * DAY, NOW + 70 * DAY
    live = ICA.issue(NAME, not_before=begin, not_after=end)
    renewed = ICA.issue(NAME, not_before=begin + later * DAY, not_after=end + longer * DAY)
    verdict = judge(renewed, live=[live])
    assert (verdict.codes, verdict.warnings) == ((), warnings)


def test_a_lost_name_is_refused_unless_it_goes_on_purpose() -> None:
    live = ICA.issue(NAME, "www.example.cn", not_before=NOW - DAY)
    verdict = judge(GOOD, live=[live])
    assert verdict.codes == (Code.SAN_LOST,)
    assert "www.example.cn" in verdict.problems[0].message
    assert judge(GOOD, live=[live], force=True).warnings == (Code.SAN_LOST,)
    lenient = replace(public([NAME]), allow_san_loss=True)
    assert judge(GOOD, live=[live], policy=lenient).warnings == (Code.SAN_LOST,)


def test_a_name_that_a_wildcard_covers_is_not_lost() -> None:
    live = ICA.issue(NAME, "www.example.cn", not_before=NOW - DAY)
    assert judge(ICA.issue("*.example.cn"), live=[live]).problems == ()


def test_a_configured_name_that_is_missing_is_told_once() -> None:
    live = ICA.issue(NAME, "www.example.cn", not_before=NOW - DAY)
    verdict = judge(GOOD, live=[live], names=[NAME, "www.example.cn"])
    assert [p.code for p in verdict.problems] == [Code.NAME_MISMATCH]


@pytest.mark.parametrize(("count", "more"), [(10, ""), (12, " and 2 more")])
def test_of_many_lost_names_ten_are_listed(count: int, more: str) -> None:
    lost = [f"{letter}.example.cn" for letter in "abcdefghijklm"[:count]]
    live = ICA.issue(NAME, *lost, not_before=NOW - DAY)
    (problem,) = judge(GOOD, live=[live]).problems
    assert f"no longer covers {', '.join(lost[:10])}{more}, as the live certificate does" in problem.message


def test_a_kept_key_is_a_matter_of_the_policy() -> None:
    live = ICA.issue(NAME, key=GOOD.key, not_before=NOW - DAY)
    assert judge(GOOD, live=[live]).warnings == (Code.KEY_REUSED,)
    assert judge(GOOD, live=[live], policy=replace(public([NAME]), allow_key_reuse=False)).codes == (Code.KEY_REUSE,)


def test_another_kind_of_key_is_warned_about() -> None:
    live = ICA.issue(NAME, kind="rsa", not_before=NOW - DAY)
    verdict = judge(GOOD, live=[live])
    assert verdict.accepted
    assert verdict.warnings == (Code.KEY_TYPE_CHANGE,)
    assert "served: ecdsa is added; rsa is removed." in verdict.problems[0].message
    assert "can no longer connect" in verdict.problems[0].hint


def test_a_second_kind_of_key_is_told_and_locks_nobody_out() -> None:
    other = ICA.issue(NAME, kind="rsa")
    both = files(("r", other.chain_pem), ("rk", other.key_pem), ("e", GOOD.chain_pem), ("ek", GOOD.key_pem))
    verdict = validate_files(both, public([NAME]), ANCHORS, NOW, live=[OLD.chain_der])
    assert verdict.accepted
    (problem,) = verdict.problems
    assert (problem.code, problem.hint) == (Code.KEY_TYPE_CHANGE, "")
    assert "served: rsa is added." in problem.message


def test_another_kind_of_key_does_not_hide_a_downgrade() -> None:
    live = ICA.issue(NAME, kind="rsa")
    assert judge(OLD, live=[live]).codes == (Code.DOWNGRADE,)


def test_pairs_are_compared_by_kind_of_key() -> None:
    live = [ICA.issue(NAME, not_before=NOW - 60 * DAY), ICA.issue(NAME, kind="rsa")]
    verdict = judge(GOOD, live=live)
    assert verdict.accepted
    assert verdict.warnings == (Code.KEY_TYPE_CHANGE,)


def organised(name: str, organisation: str) -> CA:
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    return ROOT.intermediate(name, tweak=lambda builder: _renamed(builder, subject))


def _renamed(builder: x509.CertificateBuilder, subject: x509.Name) -> x509.CertificateBuilder:
    builder._subject_name = subject
    return builder


def test_another_organisation_is_warned_about_and_another_intermediate_is_not() -> None:
    live = organised("R10", "One Inc").issue(NAME, not_before=NOW - DAY)
    assert judge(organised("R11", "One Inc").issue(NAME), live=[live]).warnings == ()
    for other in ("Two Inc", "One Inc, of another country"):
        assert judge(organised("R10", other).issue(NAME), live=[live]).warnings == (Code.ISSUER_CHANGE,)


def test_a_live_chain_that_cannot_be_read_is_passed_over() -> None:
    candidate = files(("chain.pem", GOOD.chain_pem), ("key.pem", GOOD.key_pem))
    assert validate_files(candidate, public([NAME]), ANCHORS, NOW, live=[(b"junk",), ()]).problems == ()


# --- stored chains


def test_a_good_stored_chain_has_no_problem() -> None:
    assert validate_chains([GOOD.chain_der], public([NAME]), ANCHORS, NOW) == ()


def test_a_stored_chain_is_judged_without_its_key_and_without_what_is_live() -> None:
    assert validate_chains([OLD.chain_der], public([NAME]), ANCHORS, NOW) == ()


@pytest.mark.parametrize(
    ("chain", "names", "now", "code"),
    [
        (GOOD.chain_der, [NAME], NOW + 99 * DAY, Code.EXPIRED),
        (GOOD.chain_der, ["new.example.cn"], NOW, Code.NAME_MISMATCH),
        (GOOD.chain_der[:1], [NAME], NOW, Code.INCOMPLETE_CHAIN),
        ((b"junk",), [NAME], NOW, Code.PARSE_ERROR),
        ((), [NAME], NOW, Code.CERT_MISSING),
    ],
)
def test_a_stored_chain_that_is_no_longer_good_is_told(
    chain: tuple[bytes, ...], names: list[str], now: datetime, code: Code
) -> None:
    problems = validate_chains([chain], public(names), ANCHORS, now)
    assert [p.code for p in problems if p.severity is Severity.REJECT] == [code]


# --- roots and presets


def test_roots_have_the_digest_of_their_file() -> None:
    data = b"# my roots\n" + pem(ROOT.cert, ROOT.cert)
    anchors = Anchors.from_pem(data, "my roots")
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    assert (anchors.name, anchors.digest) == ("my roots", digest.finalize().hex())
    assert len(anchors.certificates) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.STORE_EMPTY),
        (b"hello", Code.STORE_EMPTY),
        (GOOD.key_pem, Code.STORE_EMPTY),
        (der_pem(b"0\0"), Code.STORE_EMPTY),
        (pem(ROOT.cert)[:-30], Code.PARSE_ERROR),
        (b"x" * (16 << 20) + b"x", Code.TOO_LARGE),
    ],
    ids=["nothing", "garbage", "a key", "no certificate", "cut off", "too large"],
)
def test_roots_that_are_none_are_refused(data: bytes, code: Code) -> None:
    with pytest.raises(RotatorError) as caught:
        Anchors.from_pem(data, "roots.pem")
    assert caught.value.code == code
    assert "roots.pem" in caught.value.message


def test_a_root_with_a_serial_number_of_zero_is_a_root() -> None:
    data = rewritten(ROOT.cert, ROOT.key, parts(1, b"\x02\x01\x00"))
    assert judge(GOOD, anchors=Anchors.from_pem(der_pem(data), "roots.pem")).accepted


def test_the_presets_differ_in_what_only_public_cas_are_bound_to() -> None:
    web, own = public(["a.example"]), private_ca(["a.example"])
    assert (web.profile, web.lifetime_caps, web.names) == ("public", True, ("a.example",))
    assert (own.profile, own.lifetime_caps, own.names) == ("private-ca", False, ("a.example",))
    assert KeyType.ED25519 in own.key_types - web.key_types


# --- what a site's own policy may ask beside the rules


def asked(issued: Issued, live: Sequence[Issued] = (), now: datetime = NOW, **values: object) -> Verdict:
    """The verdict under a policy with these values."""
    policy = replace(public([NAME]), **values)  # type: ignore[arg-type]  # names of its fields
    return judge(issued, policy=policy, live=live, now=now)


def test_the_longest_lifetime_may_be_ones_own() -> None:
    exact = ICA.issue(NAME, days=30, not_after=NOW + 30 * DAY - timedelta(hours=1, seconds=1))
    assert asked(exact, max_lifetime=30).accepted
    assert asked(exact, max_lifetime=29).codes == (Code.TOO_LONG,)
    assert asked(ICA.issue(NAME, days=201), max_lifetime=300).codes == (Code.TOO_LONG,)


def test_the_largest_rsa_key_may_be_ones_own() -> None:
    issued = ICA.issue(NAME, kind="rsa")
    assert asked(issued, max_rsa_bits=2048).accepted
    verdict = asked(issued, max_rsa_bits=2047)
    assert verdict.codes == (Code.KEY_LARGE,)
    assert "2048 bits; the maximum is 2047" in verdict.problems[0].message


def test_a_renewal_with_little_of_its_life_left_may_be_refused() -> None:
    half = ICA.issue(NAME, not_before=NOW - 50 * DAY, not_after=NOW + 50 * DAY)
    assert asked(half, min_life_left=50).accepted
    verdict = asked(half, min_life_left=51)
    assert verdict.codes == (Code.EXPIRES_SOON,)
    assert "50 % of its lifetime left" in verdict.problems[0].message
    hardly_less = asked(half, min_life_left=50, now=NOW + timedelta(seconds=1))
    assert "49 % of its lifetime left" in hardly_less.problems[0].message


def test_what_is_live_already_may_have_little_of_its_life_left() -> None:
    half = ICA.issue(NAME, not_before=NOW - 50 * DAY, not_after=NOW + 50 * DAY)
    assert asked(half, live=[half], min_life_left=90).accepted
    policy = replace(public([NAME]), min_life_left=90)
    assert validate_chains([half.chain_der], policy, ANCHORS, NOW) == ()


def test_what_has_expired_is_told_once() -> None:
    old = ICA.issue(NAME, not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    assert asked(old, min_life_left=50).codes == (Code.EXPIRED,)


@pytest.mark.parametrize("kind", list(x509.TLSFeatureType))
def test_must_staple_is_accepted_where_nginx_staples(kind: x509.TLSFeatureType) -> None:
    issued = ICA.issue(NAME, tweak=also(x509.TLSFeature([kind])))
    assert asked(issued).codes == (Code.MUST_STAPLE,)
    assert asked(issued, stapling=True).problems == ()


def test_a_version_of_thousands_of_digits_is_a_bad_version_like_any_other() -> None:
    huge = rewritten(GOOD.leaf, ICA.key, lambda tbs: [wrap(0xA0, wrap(0x02, b"\x7f" * 4000)), *tbs[1:]])
    verdict = odd(huge)
    assert Code.BAD_VERSION in verdict.codes
    assert all(len(p.message) < 200 for p in verdict.problems)


# --- time


def test_one_ecdsa_chain_is_judged_in_a_few_milliseconds() -> None:
    judge(GOOD)
    _, seconds = cost(lambda: judge(GOOD), below=0.01)
    assert seconds < 0.01


def test_a_large_rsa_key_costs_no_primality_check() -> None:
    issued = ICA.issue(NAME, key=rsa_key(5, 4104))
    _, seconds = cost(lambda: judge(issued), below=0.2)
    assert seconds < 0.2
