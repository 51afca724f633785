"""Which chain would be served, and what is said where there is none."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL, crypto

from rotator.core.model import Candidate, Policy, SourceFile
from rotator.core.problems import Code
from rotator.validation.path_rules import MAX_SENT
from rotator.validation.report import explain
from rotator.validation.validate import Anchors, Verdict, private_ca, public, validate_files
from rotator.x509.certificate import colons
from rotator.x509.parse import MAX_ALONE
from tests.support.authority import (
    CA,
    NOW,
    Issued,
    PrivateKey,
    Tweak,
    der,
    der_pem,
    new_key,
    pem,
    rewritten,
    rsa_key,
    with_extensions,
    wrap,
)
from tests.support.cost import cost
from tests.support.extensions import FEW_USES, also, instead, rolled_over, same_ca, self_signed, with_sha1, without

NAME = "signal.example.cn"
ROOT = CA.root()
ICA = ROOT.intermediate()
ISSUED = ICA.issue(NAME)
DAY = timedelta(days=1)


def anchors(*roots: x509.Certificate) -> Anchors:
    return Anchors.from_pem(pem(*(roots or (ROOT.cert,))), "roots.pem")


ANCHORS = anchors()


def judge(
    certs: Sequence[x509.Certificate | bytes] | bytes, roots: Anchors = ANCHORS, policy: Policy | None = None
) -> Verdict:
    """The verdict on one file without a key."""
    if not isinstance(certs, bytes):
        certs = b"".join(pem(c) if isinstance(c, x509.Certificate) else der_pem(c) for c in certs)
    candidate = Candidate((SourceFile("chain.pem", certs),))
    return validate_files(candidate, policy or public([NAME]), roots, NOW, need_key=False)


def served(verdict: Verdict) -> tuple[bytes, ...]:
    assert verdict.accepted, verdict.problems
    return verdict.pairs[0].chain


def why(verdict: Verdict) -> tuple[Code, ...]:
    assert not verdict.accepted
    return verdict.codes


def test_a_good_chain_is_served_as_it_is() -> None:
    verdict = judge(ISSUED.chain)
    assert served(verdict) == ISSUED.chain_der
    assert verdict.warnings == ()


def test_a_leaf_directly_under_a_root_is_served_alone() -> None:
    issued = ROOT.issue(NAME)
    assert served(judge(issued.chain)) == issued.chain_der


def test_a_chain_in_the_wrong_order_is_put_right_with_a_warning() -> None:
    deep = ICA_2.issue(NAME)
    verdict = judge([deep.chain[2], deep.chain[0], deep.chain[1]])
    assert served(verdict) == deep.chain_der
    assert verdict.warnings == (Code.CHAIN_ORDER,)


ICA_2 = ROOT.intermediate("Upper", pathlen=1).intermediate("Lower")


def test_a_root_that_is_sent_is_left_out_with_a_warning() -> None:
    verdict = judge([*ISSUED.chain, ROOT.cert])
    assert served(verdict) == ISSUED.chain_der
    assert verdict.warnings == (Code.ROOT_INCLUDED,)


def test_a_certificate_that_does_not_belong_is_left_out_with_a_warning() -> None:
    verdict = judge([*ISSUED.chain, CA.root("Other").intermediate("Stranger").cert])
    assert served(verdict) == ISSUED.chain_der
    assert verdict.warnings == (Code.UNUSED_CERT,)


def test_an_expired_certificate_that_is_not_needed_is_left_out_with_a_warning() -> None:
    old = ROOT.intermediate(ICA.name, key=ICA.key, not_after=NOW - DAY)
    verdict = judge([ISSUED.leaf, ICA.cert, old.cert])
    assert served(verdict) == ISSUED.chain_der
    assert verdict.warnings == (Code.EXPIRED_EXTRA,)


def test_an_intermediate_in_another_file_is_found() -> None:
    files = (SourceFile("bundle.crt", pem(ICA.cert, ROOT.cert)), SourceFile("leaf.crt", pem(ISSUED.leaf)))
    verdict = validate_files(Candidate(files), public([NAME]), ANCHORS, NOW, need_key=False)
    assert served(verdict) == ISSUED.chain_der
    assert Code.CHAIN_ORDER not in verdict.warnings


def test_a_missing_intermediate_is_named_by_subject_and_key_id() -> None:
    verdict = judge([ISSUED.leaf])
    assert why(verdict) == (Code.INCOMPLETE_CHAIN,)
    assert verdict.missing_issuer == "CN=Test Intermediate"
    ski = ICA.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert verdict.missing_akid == ski.hex()
    assert f"CN=Test Intermediate, key id {colons(ski.hex())}" in verdict.problems[0].message
    assert verdict.problems[0].file == "chain.pem"
    assert verdict.problems[0].line == 1
    assert verdict.problems[0].hint == "Add the CA's bundle or chain file."


def test_the_hint_for_a_missing_intermediate_gives_the_address_that_the_leaf_names() -> None:
    url = "http://ca.example/ica.crt"
    access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
    issued = ICA.issue(NAME, tweak=lambda b: b.add_extension(x509.AuthorityInformationAccess([access]), critical=False))
    assert url in judge([issued.leaf]).problems[0].hint


def test_a_missing_intermediate_is_drawn_with_who_breaks_and_what_to_do() -> None:
    lines = explain(judge([ISSUED.leaf]))
    assert lines[0].startswith("REJECT incomplete-chain: CN=signal.example.cn stands alone")
    assert lines[0].endswith(" [chain.pem line 1]")
    assert lines[1] == "  [1] CN=signal.example.cn  (chain.pem line 1)  issued by"
    assert lines[2].startswith("  [?] CN=Test Intermediate, key id ")
    assert lines[2].endswith("← not in the drop, not in the pool, not a trusted root")
    assert lines[3].startswith("  Who breaks: Chrome, OpenSSL, curl, Python,")
    assert any(line.startswith("  Fix: Add the CA's bundle") for line in lines)


def test_a_gap_higher_up_names_the_upper_authority() -> None:
    deep = ICA_2.issue(NAME)
    verdict = judge(deep.chain[:2])
    assert why(verdict) == (Code.INCOMPLETE_CHAIN,)
    assert verdict.missing_issuer == "CN=Upper"
    assert "If it is a root, it is not among the trusted ones" in verdict.problems[0].hint


def test_an_untrusted_root_is_told_from_a_missing_intermediate() -> None:
    other = CA.root("Other Root")
    issued = other.intermediate("Other").issue(NAME)
    verdict = judge([*issued.chain, other.cert])
    assert why(verdict) == (Code.UNTRUSTED_ROOT,)
    assert verdict.missing_issuer == ""
    assert "roots.pem" in verdict.problems[0].message


def test_a_new_key_of_a_root_that_its_old_key_vouches_for_is_no_root_itself() -> None:
    old = CA.root("Other Root")
    new = rolled_over(old)
    issued = new.issue(NAME)
    verdict = judge([issued.leaf, new.cert])
    assert why(verdict) == (Code.INCOMPLETE_CHAIN,)
    assert verdict.missing_issuer == "CN=Other Root"


def test_a_self_signed_leaf_is_told_as_such() -> None:
    assert why(judge([self_signed(NAME).leaf])) == (Code.SELF_SIGNED,)


def test_a_self_signed_leaf_that_is_itself_trusted_is_accepted() -> None:
    for tweak in (None, without(x509.AuthorityKeyIdentifier)):
        issued = self_signed(NAME, tweak=tweak)
        for policy in (public([NAME]), private_ca([NAME])):
            assert served(judge([issued.leaf], anchors(issued.leaf), policy)) == der(issued.leaf)


def test_a_signature_that_is_not_the_issuers_is_told() -> None:
    forged = rewritten(ISSUED.leaf, new_key("ecdsa"), lambda parts: parts)
    assert why(judge([forged, ICA.cert])) == (Code.BAD_SIGNATURE,)


def test_a_re_keyed_authority_of_the_same_name_is_told_from_the_real_issuer() -> None:
    renewed = ROOT.intermediate(ICA.name)
    verdict = judge([ISSUED.leaf, renewed.cert])
    assert why(verdict) == (Code.INCOMPLETE_CHAIN,)
    line = len(pem(ISSUED.leaf).splitlines()) + 1
    assert f"chain.pem line {line} was re-keyed" in verdict.problems[0].message


def test_a_renamed_authority_with_the_same_key_is_told() -> None:
    renamed = ROOT.intermediate("Renamed", key=ICA.key)
    verdict = judge([ISSUED.leaf, renamed.cert])
    assert why(verdict) == (Code.INCOMPLETE_CHAIN,)
    assert "under another name" in verdict.problems[0].message


def test_the_issuer_is_the_one_who_signed_where_two_have_the_name() -> None:
    renewed = ROOT.intermediate(ICA.name)
    verdict = judge([ISSUED.leaf, renewed.cert, ICA.cert])
    assert served(verdict) == ISSUED.chain_der
    assert verdict.warnings == (Code.UNUSED_CERT,)


def test_two_authorities_that_vouch_for_each_other_end_nowhere() -> None:
    one, two = CA.root("One"), CA.root("Two")
    verdict = judge([one.issue(NAME).leaf, same_ca(one, two).cert, same_ca(two, one).cert])
    assert why(verdict) == (Code.INCOMPLETE_CHAIN,)


def test_the_shortest_way_to_a_trusted_root_is_taken() -> None:
    old = CA.root("Old Root")
    cross = same_ca(ROOT, old)
    verdict = judge([*ISSUED.chain, cross.cert, old.cert])
    assert served(verdict) == ISSUED.chain_der
    assert set(verdict.warnings) == {Code.UNUSED_CERT, Code.ROOT_INCLUDED}


def test_a_cross_certificate_is_served_where_only_the_old_root_is_trusted() -> None:
    old = CA.root("Old Root")
    cross = same_ca(ROOT, old)
    deep = Issued(ISSUED.key, ISSUED.leaf, (ICA.cert, cross.cert))
    assert served(judge(deep.chain, anchors(old.cert))) == deep.chain_der


def test_an_expired_cross_certificate_is_harmless_where_another_path_exists() -> None:
    old = CA.root("Old Root")
    cross = same_ca(ROOT, old, not_after=NOW - DAY)
    verdict = judge([*ISSUED.chain, cross.cert])
    assert served(verdict) == ISSUED.chain_der
    assert verdict.warnings == (Code.EXPIRED_EXTRA,)


def test_an_expired_root_that_shadows_the_path_is_a_matter_of_the_client() -> None:
    expired = CA.root("Test Root", days=-1, key=ROOT.key)
    old = CA.root("Old Root")
    cross = same_ca(ROOT, old)
    deep = Issued(ISSUED.key, ISSUED.leaf, (ICA.cert, cross.cert))
    verdict = judge(deep.chain, anchors(expired.cert, old.cert))
    assert served(verdict) == deep.chain_der
    assert verdict.warnings == (Code.ORDER_SENSITIVE,)


def test_a_file_whose_first_issuer_leads_nowhere_needs_a_client_that_goes_back() -> None:
    nowhere = same_ca(ICA, CA.root("Nowhere"))
    verdict = judge([ISSUED.leaf, nowhere.cert, ICA.cert])
    assert served(verdict) == ISSUED.chain_der
    assert set(verdict.warnings) == {Code.ORDER_SENSITIVE, Code.UNUSED_CERT}


def test_of_two_ways_the_one_that_lasts_longer_is_taken() -> None:
    short = ROOT.intermediate(ICA.name, key=ICA.key, days=3)
    assert served(judge([ISSUED.leaf, short.cert, ICA.cert])) == ISSUED.chain_der


def below(root: CA = ROOT, **how: object) -> Issued:
    return root.intermediate("Special", **how).issue(NAME)  # type: ignore[arg-type]


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")

ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

BAD_INTERMEDIATES: dict[str, tuple[Issued, Code]] = {
    "expired": (below(not_after=NOW - DAY), Code.EXPIRED_INTERMEDIATE),
    "of tomorrow": (below(not_before=NOW + DAY), Code.NOT_YET_VALID),
    "no CA": (below(tweak=instead(x509.BasicConstraints(ca=False, path_length=None))), Code.NOT_A_CA),
    "without basic constraints": (below(tweak=without(x509.BasicConstraints)), Code.NOT_A_CA),
    "without keyCertSign": (below(tweak=instead(FEW_USES)), Code.NOT_A_CA),
    "without key usage": (below(tweak=without(x509.KeyUsage)), Code.BAD_KEY_USAGE),
    "for clients": (below(tweak=also(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))), Code.BAD_EKU),
    "for any purpose": (below(tweak=also(x509.ExtendedKeyUsage([ANY]))), Code.BAD_EKU),
    "with an unknown critical extension": (below(tweak=also(UNKNOWN, critical=True)), Code.CRITICAL_EXTENSION),
    "without its own key id": (below(tweak=without(x509.SubjectKeyIdentifier)), Code.NO_AKI),
    "without the key id of its issuer": (below(tweak=without(x509.AuthorityKeyIdentifier)), Code.NO_AKI),
    "under a path length of 0": (
        ROOT.intermediate("Short", pathlen=0).intermediate("Special").issue(NAME),
        Code.PATHLEN,
    ),
    "with an RSA key of 1024 bits": (below(key=rsa_key(9, 1024)), Code.WEAK_KEY),
    "with a key of P-224": (below(key=ec.generate_private_key(ec.SECP224R1())), Code.KEY_TYPE),
    "with an Ed25519 key": (below(key=new_key("ed25519")), Code.KEY_TYPE),
}


@pytest.mark.parametrize("what", BAD_INTERMEDIATES)
def test_an_intermediate_is_refused(what: str) -> None:
    issued, code = BAD_INTERMEDIATES[what]
    verdict = judge(issued.chain)
    assert why(verdict) == (code,)
    assert verdict.problems[0].file == "chain.pem"


@pytest.mark.parametrize("policy", [public([NAME]), private_ca([NAME])], ids=["public", "private CA"])
def test_a_rollover_certificate_counts_towards_a_path_length_as_go_counts_it(policy: Policy) -> None:
    limited = ROOT.intermediate("Limited", pathlen=0)
    for pathlen in (None, 0):
        verdict = judge(rolled_over(limited, pathlen).issue(NAME).chain, policy=policy)
        assert why(verdict) == (Code.PATHLEN,)
        assert verdict.problems[0].message.startswith(
            "CN=Limited allows 0 intermediates below it, and there are 1 including"
        )
        assert "Go" in verdict.problems[0].message
    roomy = ROOT.intermediate("Limited", pathlen=1)
    assert judge(rolled_over(roomy, 0).issue(NAME).chain, policy=policy).accepted


def test_what_exceeds_a_path_length_even_without_rollover_certificates_is_told_in_fewer_words() -> None:
    limited = ROOT.intermediate("Limited", pathlen=0)
    verdict = judge(rolled_over(limited).intermediate("Below").issue(NAME).chain)
    assert why(verdict) == (Code.PATHLEN,)
    assert verdict.problems[0].message == "CN=Limited allows 0 intermediates below it, and there are 1."


@pytest.mark.parametrize("policy", [public([NAME]), private_ca([NAME])], ids=["public", "private CA"])
def test_a_rollover_certificate_that_does_not_name_the_old_key_is_refused_as_openssl_refuses_it(
    policy: Policy,
) -> None:
    assert judge(rolled_over(ROOT).issue(NAME).chain, policy=policy).accepted
    verdict = judge(rolled_over(ROOT, named=False).issue(NAME).chain, policy=policy)
    assert why(verdict) == (Code.NO_AKI,)
    assert "untrusted root" in verdict.problems[0].message


KEY_USAGE, UNKNOWN_USAGE = b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x7f"
"""DER of 2.5.29.15, and of what nobody knows."""


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda parts: [parts[0], b"\x02\x01\x00", *parts[2:]], Code.BAD_SERIAL),
        (lambda parts: [*parts[:7], parts[7].replace(KEY_USAGE, UNKNOWN_USAGE)], Code.CRITICAL_EXTENSION),
    ],
    ids=["serial number 0", "something critical and unknown"],
)
def test_a_fault_of_an_authority_refuses_but_for_the_serial_number_of_a_root(
    change: Callable[[list[bytes]], list[bytes]], code: Code
) -> None:
    assert code in why(judge([ISSUED.leaf, rewritten(ICA.cert, ROOT.key, change)]))
    root = Anchors.from_pem(der_pem(rewritten(ROOT.cert, ROOT.key, change)), "roots.pem")
    assert judge(ISSUED.chain, root).codes == (() if code == Code.BAD_SERIAL else (code,))


def test_an_intermediate_is_good_from_its_first_second_up_to_its_last() -> None:
    second = DAY / 86400
    for exact in (below(not_before=NOW), below(not_after=NOW)):
        assert judge(exact.chain).accepted
    assert why(judge(below(not_before=NOW + second).chain)) == (Code.NOT_YET_VALID,)
    assert why(judge(below(not_after=NOW - second).chain)) == (Code.EXPIRED_INTERMEDIATE,)


def test_sha_1_is_refused_for_an_intermediate_and_no_matter_for_a_root() -> None:
    root = CA.root("RSA Root", key=rsa_key(2))
    ica = root.intermediate("RSA Two")
    leaf = ica.issue(NAME).leaf
    old_root = anchors(with_sha1(root.cert, root.key))
    assert judge([leaf, ica.cert], old_root).accepted
    assert why(judge([leaf, with_sha1(ica.cert, root.key)], old_root)) == (Code.WEAK_SIGNATURE,)


@pytest.mark.parametrize("kind", [x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier])
def test_an_intermediate_of_a_private_ca_may_lack_key_ids_with_a_warning(kind: type[x509.ExtensionType]) -> None:
    verdict = judge(below(tweak=without(kind)).chain, policy=private_ca([NAME]))
    assert verdict.accepted
    assert verdict.warnings == (Code.NO_AKI,)


OLD_ROOTS: dict[str, tuple[Tweak, Code]] = {
    "its key id": (without(x509.SubjectKeyIdentifier), Code.NO_AKI),
    "key usage": (without(x509.KeyUsage), Code.BAD_KEY_USAGE),
    "a mark on its basic constraints": (
        instead(x509.BasicConstraints(ca=True, path_length=None), critical=False),
        Code.CRITICAL_EXTENSION,
    ),
}


@pytest.mark.parametrize("lacks", OLD_ROOTS)
def test_an_old_root_that_only_the_strictest_clients_refuse_is_warned_about(lacks: str) -> None:
    tweak, code = OLD_ROOTS[lacks]
    root = CA.root("Old Root", tweak=tweak)
    verdict = judge(below(root).chain, anchors(root.cert))
    assert verdict.accepted
    assert verdict.warnings == (code,)
    assert "Python since 3.13" in verdict.problems[0].message


@pytest.mark.parametrize("lacks", ["key usage", "a mark on its basic constraints"])
def test_an_intermediate_of_a_private_ca_that_only_the_strictest_clients_refuse_is_warned_about(lacks: str) -> None:
    tweak, code = OLD_ROOTS[lacks]
    chain = below(tweak=tweak).chain
    assert why(judge(chain)) == (code,)
    verdict = judge(chain, policy=private_ca([NAME]))
    assert verdict.accepted
    assert verdict.warnings == (code,)


def test_a_root_for_any_purpose_is_not_one_for_servers() -> None:
    root = CA.root("Any Root", tweak=also(x509.ExtendedKeyUsage([ANY])))
    assert why(judge(below(root).chain, anchors(root.cert))) == (Code.BAD_EKU,)


@pytest.mark.parametrize("extra", [b"\x80\x01\x01", b"\x81\x01\x05"])
@pytest.mark.parametrize("tag", [0xA0, 0xA1])
def test_name_constraints_with_a_minimum_or_a_maximum_are_refused(tag: int, extra: bytes) -> None:
    """They are read over by a library that takes RFC 5280 4.2.1.10 at its word that they are not there."""
    base = "example.cn" if tag == 0xA0 else "elsewhere.cn"
    subtree = wrap(0x30, wrap(0x82, base.encode()) + extra)
    value = x509.UnrecognizedExtension(x509.NameConstraints.oid, wrap(0x30, wrap(tag, subtree)))
    verdict = judge(below(tweak=also(value, critical=True)).chain)
    assert why(verdict) == (Code.NAME_CONSTRAINTS,)


def test_name_constraints_behind_more_extensions_than_are_read_singly_are_not_passed_over() -> None:
    """One damaged extension makes all of them be read singly, and clients that do not look at it read every one."""
    filling = [
        x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.9.{n}"), b"\5\0") for n in range(MAX_ALONE)
    ]
    damaged = x509.UnrecognizedExtension(x509.CertificatePolicies.oid, b"\x30\5\1")
    limits = x509.NameConstraints([x509.DNSName("elsewhere.cn")], None)

    def stuffed(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        for value in (*filling, damaged, limits):
            builder = builder.add_extension(value, critical=value is limits)
        return builder

    assert why(judge(below(tweak=stuffed).chain)) == (Code.PARSE_ERROR,)


def constrained(**how: Sequence[x509.GeneralName]) -> Issued:
    constraints = x509.NameConstraints(how.get("permitted"), how.get("excluded"))
    return below(tweak=also(constraints, critical=True))


DNS, IP, DN = x509.DNSName, x509.IPAddress, x509.DirectoryName


def named(common: str, *, printable: bool = False) -> x509.Name:
    kind = x509.name._ASN1Type.PrintableString if printable else None
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common, kind)])


HERE, ELSEWHERE = named(NAME), named("elsewhere")


@pytest.mark.parametrize(
    "issued",
    [
        constrained(permitted=[DNS("example.org")]),
        constrained(excluded=[DNS("example.cn")]),
        constrained(permitted=[DNS("example.cn")], excluded=[DNS(NAME)]),
        constrained(permitted=[DN(ELSEWHERE)]),
        constrained(excluded=[DN(HERE)]),
    ],
    ids=["not permitted", "excluded", "permitted and excluded", "subject not permitted", "subject excluded"],
)
def test_a_name_outside_of_the_constraints_is_refused(issued: Issued) -> None:
    assert why(judge(issued.chain)) == (Code.NAME_CONSTRAINTS,)


@pytest.mark.parametrize(
    "issued",
    [
        constrained(permitted=[DNS("example.cn")]),
        constrained(permitted=[DNS("")]),
        constrained(excluded=[DNS("nal.example.cn")]),
        constrained(permitted=[IP(ipaddress.ip_network("192.0.2.0/24"))]),
        constrained(permitted=[x509.UniformResourceIdentifier(".example.org")]),
    ],
    ids=["permitted", "all permitted", "excluded is another label", "addresses", "URIs"],
)
def test_a_name_inside_of_the_constraints_is_accepted(issued: Issued) -> None:
    assert served(judge(issued.chain)) == issued.chain_der


@pytest.mark.parametrize("limit", [x509.Name([]), HERE, named(f"  {NAME.upper()} "), named(NAME, printable=True)])
def test_a_subject_inside_of_the_constraints_is_accepted_with_a_warning_for_go(limit: x509.Name) -> None:
    verdict = judge(constrained(permitted=[DN(limit)]).chain)
    assert verdict.accepted
    assert verdict.warnings == (Code.CRITICAL_EXTENSION,)
    assert "Go does not support" in verdict.problems[0].message


@pytest.mark.parametrize("limit", [x509.Name([]), named(NAME.upper()), named(NAME, printable=True)])
def test_a_subject_is_excluded_however_it_is_written(limit: x509.Name) -> None:
    assert why(judge(constrained(excluded=[DN(limit)]).chain)) == (Code.NAME_CONSTRAINTS,)


MAIL, URI = x509.RFC822Name, x509.UniformResourceIdentifier
OTHERS: dict[str, tuple[x509.GeneralName, x509.GeneralName, bool]] = {
    "a mailbox": (MAIL("a@example.cn"), MAIL("a@Example.cn"), True),
    "another mailbox": (MAIL("a@example.cn"), MAIL("A@example.cn"), False),
    "a mailbox of a host": (MAIL("a@example.cn"), MAIL("example.cn"), True),
    "a mailbox of a host below": (MAIL("a@mx.example.cn"), MAIL("example.cn"), False),
    "a mailbox of a domain": (MAIL("a@mx.example.cn"), MAIL(".example.cn"), True),
    "a URI of a host": (URI("https://Example.cn:8443/x?y"), URI("example.cn"), True),
    "a URI of a host below": (URI("https://u@www.example.cn"), URI("example.cn"), False),
    "a URI of a domain": (URI("https://www.example.cn#x"), URI(".example.cn"), True),
    "a URI of a domain with its likes": (URI("https://badexample.cn"), URI(".example.cn"), False),
}


@pytest.mark.parametrize("what", OTHERS)
def test_an_alternative_name_of_another_kind_is_compared_with_its_constraints(what: str) -> None:
    name, limit, inside = OTHERS[what]
    for constraints, accepted in (
        (x509.NameConstraints([limit], None), inside),
        (x509.NameConstraints(None, [limit]), not inside),
    ):
        names = x509.SubjectAlternativeName([x509.DNSName(NAME), name])
        issued = ROOT.intermediate("C", tweak=also(constraints, critical=True)).issue(
            NAME, tweak=instead(names, critical=False)
        )
        assert judge(issued.chain).codes == (() if accepted else (Code.NAME_CONSTRAINTS,))


@pytest.mark.parametrize("name", ["urn:x", "https://192.0.2.1/", "https://[2001:db8::1]/", "https:///x"])
def test_a_uri_without_a_host_keeps_no_constraint(name: str) -> None:
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), URI(name)])
    for constraints in (x509.NameConstraints([URI(".cn")], None), x509.NameConstraints(None, [URI(".cn")])):
        ica = ROOT.intermediate("C", tweak=also(constraints, critical=True))
        issued = ica.issue(NAME, tweak=instead(names, critical=False))
        assert why(judge(issued.chain)) == (Code.NAME_CONSTRAINTS,)


def test_a_wildcard_that_could_stand_for_an_excluded_name_is_refused() -> None:
    constraints = x509.NameConstraints(None, [DNS("bad.example.cn")])
    issued = ROOT.intermediate("C", tweak=also(constraints, critical=True)).issue("*.example.cn")
    assert why(judge(issued.chain)) == (Code.NAME_CONSTRAINTS,)


def test_an_address_outside_of_the_constraints_is_refused() -> None:
    constraints = x509.NameConstraints([IP(ipaddress.ip_network("192.0.2.0/24"))], None)
    ica = ROOT.intermediate("C", tweak=also(constraints, critical=True))
    assert why(judge(ica.issue(NAME, "198.51.100.1").chain)) == (Code.NAME_CONSTRAINTS,)
    assert judge(ica.issue(NAME, "192.0.2.1").chain).accepted


def test_thousands_of_names_and_constraints_are_refused_in_time() -> None:
    here_at_last = [*(DNS(f"n{i}.example.org") for i in range(1500)), DNS("example.cn")]
    constraints = x509.NameConstraints(here_at_last, None)
    issued = ROOT.intermediate("C", tweak=also(constraints, critical=True)).issue(
        NAME, *(f"h{i}.example.cn" for i in range(1500))
    )
    verdict, seconds = cost(lambda: judge(issued.chain), below=1.0)
    assert why(verdict) == (Code.NAME_CONSTRAINTS,)
    assert "there are too many names and constraints to compare" in verdict.problems[0].message
    assert seconds < 1


def test_an_expired_root_is_told() -> None:
    root = CA.root("Old", days=-1)
    assert why(judge(root.issue(NAME).chain, anchors(root.cert))) == (Code.EXPIRED_ROOT,)


def test_a_key_identifier_that_names_another_key_is_told() -> None:
    wrong = x509.AuthorityKeyIdentifier(b"\1" * 20, None, None)
    issued = ICA.issue(NAME, tweak=instead(wrong, critical=False))
    verdict = judge(issued.chain)
    assert why(verdict) == (Code.AKI_MISMATCH,)
    assert f"names another key as its issuer's: {colons('01' * 20)}, not " in verdict.problems[0].message


def identified(*issuer: x509.GeneralName, serial: int = ICA.cert.serial_number) -> Issued:
    """A leaf that names its issuer by key, by number and by these names."""
    key_id = ICA.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    return ICA.issue(NAME, tweak=instead(x509.AuthorityKeyIdentifier(key_id, issuer, serial), critical=False))


@pytest.mark.parametrize(
    "issued",
    [
        identified(DN(ROOT.cert.subject), serial=12345),
        identified(DN(ELSEWHERE)),
        identified(DNS("a.example"), DN(ELSEWHERE), DN(ROOT.cert.subject)),
    ],
    ids=["another number", "another issuer", "another issuer first"],
)
def test_a_key_identifier_that_names_another_certificate_of_the_issuer_is_told(issued: Issued) -> None:
    verdict = judge(issued.chain)
    assert why(verdict) == (Code.AKI_MISMATCH,)
    assert "names another certificate as its issuer's" in verdict.problems[0].message


def test_a_key_identifier_may_name_the_certificate_of_the_issuer_in_full() -> None:
    issued = identified(DN(ROOT.cert.subject), DN(ELSEWHERE))
    assert served(judge(issued.chain)) == issued.chain_der


def test_a_root_may_lack_what_only_intermediates_need() -> None:
    """Roots made by `openssl req -x509` have no key usage, and old public ones no critical basic constraints."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Plain")])
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + 999 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, ISSUED.leaf.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    issued = CA("Plain", key, cert).issue(NAME)
    assert served(judge(issued.chain, anchors(cert))) == issued.chain_der


def test_an_intermediate_may_be_the_trusted_root() -> None:
    verdict = judge([*ISSUED.chain, ROOT.cert], anchors(ICA.cert))
    assert served(verdict) == der(ISSUED.leaf)


def test_more_intermediates_than_clients_follow_are_refused() -> None:
    ca = ROOT
    for number in range(9):
        ca = ca.intermediate(f"Level {number}", pathlen=None)
    assert why(judge(ca.issue(NAME).chain)) == (Code.CHAIN_TOO_LONG,)


def test_more_bytes_than_clients_take_are_refused() -> None:
    issued = ICA.issue(NAME, *(f"{'x' * 50}{i}.example.cn" for i in range(1800)))
    assert why(judge(issued.chain)) == (Code.TOO_LARGE,)


@pytest.mark.parametrize("more", [0, 1], ids=["as many", "one more"])
def test_the_bytes_that_clients_take_are_those_of_the_message_with_its_framing(more: int) -> None:
    ca = ROOT.intermediate("RSA", key=rsa_key(1))  # whose signatures all have one length

    def filled(size: int) -> Issued:
        filling = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.9.1"), wrap(0x04, bytes(size)))
        issued = ca.issue(NAME, tweak=also(filling))
        return (
            issued if issued.leaf.serial_number.bit_length() >= 152 else filled(size)
        )  # in DER: 20 bytes, like the rest

    lacking = MAX_SENT - 4 - sum(len(raw) + 5 for raw in filled(90_000).chain_der)
    issued = filled(90_000 + lacking + more)
    assert judge(issued.chain).codes == ((Code.TOO_LARGE,) if more else ())
    assert handshake(issued, ROOT.cert) is not bool(more)


def handshake(issued: Issued, root: x509.Certificate) -> bool:
    """Whether OpenSSL's client takes the chain, at the tests' time."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(issued.leaf)
    for cert in issued.intermediates:
        context.add_extra_chain_cert(cert)
    context.use_privatekey(issued.key)
    trusting = SSL.Context(SSL.TLS_METHOD)
    store = trusting.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(root))
    store.set_time(NOW.replace(tzinfo=None))
    trusting.set_verify(SSL.VERIFY_PEER)
    server, client = SSL.Connection(context), SSL.Connection(trusting)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(50):
        for this, other in ((client, server), (server, client)):
            try:
                this.do_handshake()
                if this is client:
                    return True
            except SSL.WantReadError:
                pass
            except SSL.Error:
                return False
            with contextlib.suppress(SSL.WantReadError):
                while True:
                    other.bio_write(this.bio_read(1 << 16))
    raise AssertionError("the handshake does not end")


def test_an_intermediate_that_ends_before_the_leaf_is_warned_about_and_bounds_the_expiry() -> None:
    issued = below(days=40)
    verdict = judge(issued.chain)
    assert served(verdict) == issued.chain_der
    assert verdict.warnings == (Code.INTERMEDIATE_EXPIRES_FIRST,)
    assert verdict.effective_not_after == issued.intermediates[0].not_valid_after_utc


def test_a_certificate_whose_defaults_are_written_out_is_read_as_clients_read_it() -> None:
    """An explicit `critical FALSE` is not DER, and real CAs have issued such leaves."""
    assert isinstance(ICA.key, ec.EllipticCurvePrivateKey)

    def spelled_out(extensions: list[bytes]) -> list[bytes]:
        return [_with_default(e) for e in extensions]

    odd = with_extensions(ISSUED.leaf, ICA.key, spelled_out)
    verdict = judge([odd, ICA.cert])
    assert served(verdict) == (odd, der(ICA.cert)[0])
    assert judge([odd]).codes == (Code.INCOMPLETE_CHAIN,)
    assert judge([odd, ICA.cert], policy=public(["other.example.cn"])).codes == (Code.NAME_MISMATCH,)


def _with_default(extension: bytes) -> bytes:
    end = 4 + extension[3]
    if extension[end] == 0x01:
        return extension
    body = extension[2:end] + b"\x01\x01\x00" + extension[end:]
    return bytes((0x30, len(body))) + body


def test_a_private_ca_may_mark_the_purposes_as_critical_as_rfc_5280_lets_it() -> None:
    servers = instead(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))
    issued = ROOT.intermediate("Critical", tweak=servers).issue(NAME, tweak=servers)
    assert why(judge(issued.chain)) == (Code.BAD_EKU,)
    assert served(judge(issued.chain, policy=private_ca([NAME]))) == issued.chain_der
    for purpose in (ExtendedKeyUsageOID.CLIENT_AUTH, ANY):
        other = instead(x509.ExtendedKeyUsage([purpose]))
        leaf = ICA.issue(NAME, tweak=other)
        assert why(judge(leaf.chain, policy=private_ca([NAME]))) == (Code.BAD_EKU,)
        assert why(judge(below(tweak=other).chain, policy=private_ca([NAME]))) == (Code.BAD_EKU,)


def test_a_private_ca_may_use_ed25519_throughout() -> None:
    root = CA.root("Ed", key=new_key("ed25519"))
    issued = root.intermediate("Ed Two", key=new_key("ed25519")).issue(NAME, kind="ed25519", days=800)
    assert served(judge(issued.chain, anchors(root.cert), private_ca([NAME]))) == issued.chain_der


def test_a_private_ca_may_leave_out_the_key_identifier_with_a_warning() -> None:
    issued = ICA.issue(NAME, tweak=without(x509.AuthorityKeyIdentifier))
    assert why(judge(issued.chain)) == (Code.NO_AKI,)
    verdict = judge(issued.chain, policy=private_ca([NAME]))
    assert verdict.accepted
    assert verdict.warnings == (Code.NO_AKI,)


DEEP = ROOT.intermediate("A", pathlen=2).intermediate("B", pathlen=1).intermediate("C").issue(NAME)


@given(st.permutations([*DEEP.chain, ROOT.cert, *DEEP.chain]), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_any_order_with_doubles_and_the_root_gives_the_same_chain(certs: list[x509.Certificate], cut: int) -> None:
    kept = [*certs[cut:], *(c for c in DEEP.chain if c not in certs[cut:])]
    assert served(judge(kept)) == DEEP.chain_der


@given(st.integers(min_value=0, max_value=len(ISSUED.chain_pem)))
@settings(max_examples=150, deadline=None)
def test_a_chain_cut_off_anywhere_is_never_taken_for_another_pair(at: int) -> None:
    files = (SourceFile("chain.pem", ISSUED.chain_pem[:at]), SourceFile("key.pem", ISSUED.key_pem))
    verdict = validate_files(Candidate(files), public([NAME]), ANCHORS, NOW)
    if verdict.accepted:
        assert verdict.pairs[0].chain == ISSUED.chain_der
        assert at >= len(ISSUED.chain_pem) - 1


@given(st.integers(min_value=0, max_value=len(ISSUED.key_pem)))
@settings(max_examples=80, deadline=None)
def test_a_key_cut_off_anywhere_is_never_taken(at: int) -> None:
    files = (SourceFile("chain.pem", ISSUED.chain_pem), SourceFile("key.pem", ISSUED.key_pem[:at]))
    assert validate_files(Candidate(files), public([NAME]), ANCHORS, NOW).accepted == (at >= len(ISSUED.key_pem) - 1)


@given(st.lists(st.binary(max_size=200), max_size=3))
@settings(deadline=None)
def test_random_files_give_a_refusal_and_never_raise(files: list[bytes]) -> None:
    candidate = Candidate(tuple(SourceFile(f"{i}.pem", data) for i, data in enumerate(files)))
    verdict = validate_files(candidate, public([NAME]), ANCHORS, NOW)
    assert not verdict.accepted
    assert verdict.codes


def test_a_mesh_of_cross_signed_authorities_is_answered_in_time() -> None:
    keys: list[PrivateKey] = [new_key() for _ in range(5)]
    cas = [CA.root(f"Mesh {i}", key=key) for i, key in enumerate(keys)]
    mesh = [same_ca(a, b).cert for a in cas for b in cas if a is not b]
    verdict, seconds = cost(lambda: judge([cas[0].issue(NAME).leaf, *mesh]), below=1.0)
    assert why(verdict) == (Code.INCOMPLETE_CHAIN,)
    assert seconds < 1


def test_everything_that_a_bridge_of_authorities_offers_may_be_sent_along() -> None:
    """Four roots that vouch for each other through a bridge, each with authorities of its own: 38 certificates."""
    bridge = CA.root("Bridge")
    mesh = [CA.root(f"Root {number}") for number in range(4)]
    extra = [same_ca(one, bridge).cert for one in mesh] + [same_ca(bridge, one).cert for one in mesh]
    below_them = [one.intermediate(f"{one.name} {number}", pathlen=None) for one in mesh for number in range(6)]
    extra += [ca.cert for ca in below_them]
    last = below_them[-1].intermediate("Last").issue(NAME)
    extra += [CA.root("Apart").intermediate(f"Apart {number}").cert for number in range(4)]
    verdict = judge([last.leaf, *extra, last.intermediates[0]], anchors(mesh[0].cert))
    assert verdict.accepted
    assert len(served(verdict)) == 5


@pytest.mark.parametrize("one_name", [True, False])
def test_a_short_way_out_of_a_mesh_of_authorities_is_found(one_name: bool) -> None:
    mesh = [CA.root("Mesh" if one_name else f"Mesh {number}") for number in range(8)]
    cross = [same_ca(one, by).cert for one in mesh for by in mesh if one is not by]
    issued = mesh[0].issue(NAME)
    assert Code.INCOMPLETE_CHAIN in why(judge([issued.leaf, *cross]))
    way_out = same_ca(mesh[0], ROOT).cert
    for at in (0, 20, len(cross)):
        assert served(judge([issued.leaf, *cross[:at], way_out, *cross[at:]])) == der(issued.leaf, way_out)
