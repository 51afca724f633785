"""Which names a certificate covers."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.x509.hostnames import CoveredNames, ascii_form, entry_fault
from tests.support.authority import CA, NOW

COVERED = CoveredNames.of(
    ["Signal.example.cn", "*.example.org", "xn--strae-oqa.de", "*.com", "w*.example.net", "*.xn--mnchen-3ya.de"],
    [ip_address("192.0.2.7"), ip_address("2001:db8::1")],
)


@pytest.mark.parametrize(
    "name",
    [
        "signal.example.cn",
        "SIGNAL.EXAMPLE.CN.",
        "a.example.org",
        "192.0.2.7",
        "2001:DB8:0::1",
        "[2001:db8::1]",
        "straße.de",
    ],
)
def test_a_name_that_is_listed_is_covered(name: str) -> None:
    assert COVERED.covers(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("example.org", "a wildcard does not cover the domain itself"),
        ("a.b.example.org", "a wildcard covers one label"),
        ("example.com", "a wildcard needs a domain of its own behind it"),
        ("www.example.net", "a wildcard is a whole label"),
        ("strasse.de", "ß is not ss since IDNA 2008"),
        ("192.0.2.8", "another address"),
        ("a..b", "no name"),
        ("", "no name"),
    ],
)
def test_a_name_that_is_not_listed_is_not_covered(name: str, why: str) -> None:
    assert not COVERED.covers(name), why


def test_a_wildcard_is_covered_by_the_same_wildcard_only() -> None:
    assert COVERED.covers("*.example.org")
    assert not COVERED.covers("*.a.example.org")
    assert not CoveredNames.of(["www.example.org"], []).covers("*.example.org")


def test_a_wildcard_may_be_international() -> None:
    assert COVERED.covers("*.münchen.de")
    assert COVERED.covers("www.MÜNCHEN.de")


@pytest.mark.parametrize(
    "name", ["a b.example", "-a.example", "a" * 64 + ".example", "x." * 130 + "example", "1.2.3.4"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is free text
        ascii_form(name)


@pytest.mark.parametrize(
    "entry", ["*", "f*.example.org", "a.*.example.org", ".example.org", "192.0.2.1", "a_b.example.org"]
)
def test_a_malformed_entry_is_told(entry: str) -> None:
    assert entry_fault(entry, public=True)


def test_an_underscore_is_let_pass_where_it_is_allowed() -> None:
    assert not entry_fault("a_b.example.org", public=False)


ROOT = CA.root()
STORE = Store([ROOT.cert])
SANS = st.sampled_from(["example.org", "a.example.org", "*.example.org", "*.a.example.org", "b.example.net", "*.net"])


@given(
    st.lists(SANS, min_size=1, max_size=3, unique=True),
    st.sampled_from(
        [
            "example.org",
            "a.example.org",
            "b.example.org",
            "b.a.example.org",
            "c.b.a.example.org",
            "b.example.net",
            "x.net",
        ]
    ),
)
@settings(max_examples=60, deadline=None)
def test_it_never_covers_what_a_strict_verifier_does_not(sans: list[str], name: str) -> None:
    leaf = ROOT.issue(*sans).leaf
    verifier = PolicyBuilder().store(STORE).time(NOW.replace(tzinfo=None)).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(leaf, [])
        accepted = True
    except VerificationError:
        accepted = False
    ours = CoveredNames.of(sans, []).covers(name)
    # the one difference: a wildcard directly under a top-level domain, which OpenSSL and browsers refuse
    assert ours == (accepted and not (name == "x.net" and "*.net" in sans))
