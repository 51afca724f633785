"""Cases of what certificates say, and of which of them are sent in which order; keys and files stand elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509

from tests.agreement.family import NAME, Case, Runtime, case, key_text
from tests.support.authority import der_pem, new_key, rsa_key, wrap
from tests.support.crafting import (
    ANY_PURPOSE,
    CLIENT_AUTH,
    OCTETS,
    SERVER_AUTH,
    UTF8,
    Party,
    Unusual,
    aki,
    basic,
    constraints,
    craft,
    dns_san,
    extension,
    general,
    generalized,
    integer,
    key_id,
    name,
    oid,
    pss,
    purposes,
    raw_extension,
    san,
    sequence,
    signing,
    spki_of,
    usage,
    utc,
)

V4, V6 = bytes((192, 0, 2, 1)), bytes.fromhex("20010db8" + "0" * 23 + "1")
UNKNOWN = "1.3.6.1.4.1.99999.1"


def cases(runtime: Runtime) -> Iterator[Case]:
    yield from _chains(runtime)
    yield from _leaf_extensions(runtime)
    yield from _authority_extensions(runtime)
    yield from _names(runtime)
    yield from _constraints(runtime)
    yield from _signatures(runtime)
    yield from _times_and_numbers(runtime)
    yield from _depths(runtime)


def _chains(runtime: Runtime) -> Iterator[Case]:
    leaf, root, ca = runtime.leaf(), runtime.root, runtime.ca
    yield case("leaf and intermediate", leaf)
    yield Case("leaf alone", der_pem(leaf.der), key_text(leaf.key), leaf.root_pem)
    yield Case("intermediate first", der_pem(ca.der, leaf.der), key_text(leaf.key), leaf.root_pem)
    yield case("root sent", leaf, ca.der, root.der)
    yield Case("root first", der_pem(root.der, leaf.der, ca.der), key_text(leaf.key), leaf.root_pem)
    yield case("leaf twice", leaf, leaf.der, ca.der)
    yield case("intermediate twice", leaf, ca.der, ca.der)
    yield case("another leaf behind", leaf, ca.der, runtime.leaf().der)
    yield case("wrong intermediate", leaf, runtime.authority("Other CA").der)
    yield case("re-keyed intermediate", leaf, runtime.authority("Agreement CA").der)
    yield case("re-keyed beside the right one", leaf, runtime.authority("Agreement CA").der, ca.der)
    yield case("right one beside the re-keyed", leaf, ca.der, runtime.authority("Agreement CA").der)
    yield case("issued by the root itself", runtime.leaf(root))
    lone = craft(None, NAME, names=(NAME,))
    yield Case("self-signed", lone.root_pem, key_text(lone.key), leaf.root_pem)
    yield Case("self-signed and trusted", lone.root_pem, key_text(lone.key), lone.root_pem)
    foreign = craft(None, "Foreign Root", ca=True)
    below = craft(craft(foreign, "Foreign CA", ca=True), NAME, names=(NAME,))
    yield case("root that nobody trusts", below, roots=leaf.root_pem)
    cross = craft(foreign, "Agreement Root", ca=True, key=root.key)
    yield case("cross-signed root, both trusted", leaf, ca.der, cross.der, roots=leaf.root_pem + foreign.root_pem)
    yield case("cross-signed root, its signer trusted", leaf, ca.der, cross.der, roots=foreign.root_pem)
    yield case("cross-signed root sent, ours trusted", leaf, ca.der, cross.der)
    yield case("cross-signed intermediate first", leaf, craft(foreign, "Agreement CA", ca=True, key=ca.key).der, ca.der)
    yield case("intermediate trusted as root", leaf, roots=der_pem(ca.der))
    yield case("leaf trusted as root", leaf, roots=der_pem(leaf.der))
    rolled = craft(root, "Agreement Root", ca=True)
    under = craft(rolled, "Rolled CA", ca=True)
    yield case("self-issued rollover of the root's key", craft(under, NAME, names=(NAME,)))
    unnamed = craft(craft(root, "Agreement Root", ca=True, extensions={"aki": None}), "Rolled CA", ca=True)
    yield case("self-issued rollover that does not name the old key", craft(unnamed, NAME, names=(NAME,)))
    one, two = new_key(), new_key()
    first = craft(craft(root, "Cycle B", ca=True, key=two), "Cycle A", ca=True, key=one)
    second = craft(first, "Cycle B", ca=True, key=two)
    out = craft(root, "Cycle B", ca=True, key=two)
    turn = craft(first, NAME, names=(NAME,))
    yield case("cycle with a way out", turn, first.der, second.der, out.der)
    yield case("cycle without one", turn, first.der, second.der)
    impostor = runtime.leaf()
    yield case("issued by a leaf", craft(impostor, NAME, names=(NAME,)))
    forged = Party(ca.der, new_key(), ca.subject, ca.spki, ca.above, ca.root)
    yield case("signature of another key", craft(forged, NAME, names=(NAME,)))
    expired = runtime.authority("Past CA", end=utc(datetime.now(UTC) - timedelta(days=1)))
    future = runtime.authority("Coming CA", begin=utc(datetime.now(UTC) + timedelta(days=1)))
    yield case("expired intermediate", runtime.leaf(expired))
    yield case("intermediate of tomorrow", runtime.leaf(future))
    key = new_key()
    renewed = craft(root, "Past CA", ca=True, key=key)
    former = craft(root, "Past CA", ca=True, key=key, end=utc(datetime.now(UTC) - timedelta(days=1)))
    yield case(
        "expired intermediate before the renewed one",
        craft(renewed, NAME, names=(NAME,)),
        former.der,
        renewed.der,
    )


def _leaf_extensions(runtime: Runtime) -> Iterator[Case]:
    mail = "1.3.6.1.5.5.7.3.4"
    kid, serial = key_id(runtime.ca.spki), x509.load_der_x509_certificate(runtime.ca.der).serial_number
    variants: dict[str, dict[str, bytes | None]] = {
        "no key usage": {"usage": None},
        "key usage not critical": {"usage": usage(0x80, critical=False)},
        "keyEncipherment only": {"usage": usage(0x20)},
        "digitalSignature and keyEncipherment": {"usage": usage(0xA0)},
        "keyAgreement only": {"usage": usage(0x08)},
        "no usage at all": {"usage": usage(0)},
        "keyCertSign": {"usage": usage(0x84)},
        "cRLSign": {"usage": usage(0x82)},
        "no extended key usage": {"eku": None},
        "client authentication only": {"eku": purposes(CLIENT_AUTH)},
        "server and client authentication": {"eku": purposes(SERVER_AUTH, CLIENT_AUTH)},
        "server authentication, critical": {"eku": purposes(SERVER_AUTH, critical=True)},
        "any purpose": {"eku": purposes(ANY_PURPOSE)},
        "any purpose beside server authentication": {"eku": purposes(SERVER_AUTH, ANY_PURPOSE)},
        "mail only": {"eku": purposes(mail)},
        "no purpose": {"eku": purposes()},
        "purpose twice": {"eku": purposes(SERVER_AUTH, SERVER_AUTH)},
        "no basic constraints": {"basic": None},
        "basic constraints not critical": {"basic": basic(ca=False, critical=False)},
        "basic constraints of a CA": {"basic": basic(ca=True)},
        "basic constraints with a path length and no CA": {"basic": raw_extension("2.5.29.19", sequence(integer(0)))},
        "explicit cA FALSE": {"basic": raw_extension("2.5.29.19", sequence(b"\1\1\0"), critical=True)},
        "cA TRUE written as 1": {"basic": raw_extension("2.5.29.19", sequence(b"\1\1\1"), critical=True)},
        "no subject key identifier": {"ski": None},
        "critical subject key identifier": {"ski": raw_extension("2.5.29.14", b"\4\1x", critical=True)},
        "empty subject key identifier": {"ski": raw_extension("2.5.29.14", b"\4\0")},
        "no authority key identifier": {"aki": None},
        "empty authority key identifier": {"aki": aki(None)},
        "authority key identifier of another": {"aki": aki(b"y" * 20)},
        "authority key identifier with serial and name": {"aki": aki(kid, serial=5, issuer=runtime.root.subject)},
        "authority key identifier in full": {"aki": aki(kid, serial=serial, issuer=runtime.root.subject)},
        "authority key identifier in full with a wrong name": {"aki": aki(kid, serial=serial, issuer=name("Nobody"))},
        "authority key identifier with the name only": {"aki": aki(None, issuer=runtime.root.subject)},
        "authority key identifier with a wrong name": {"aki": aki(kid, issuer=name("Nobody"))},
        "unknown extension": {"more": raw_extension(UNKNOWN, b"\5\0")},
        "unknown critical extension": {"more": raw_extension(UNKNOWN, b"\5\0", critical=True)},
        "two key usages": {"more": usage(0x80)},
        "two alternative names": {"more": dns_san("b.example.test")},
        "two unknown extensions of one kind": {"more": raw_extension(UNKNOWN, b"\5\0") * 2},
        "policies": {"more": raw_extension("2.5.29.32", sequence(sequence(oid("2.23.140.1.2.1"))))},
        "policies, critical": {"more": raw_extension("2.5.29.32", sequence(sequence(oid(UNKNOWN))), critical=True)},
        "policy constraints": {"more": raw_extension("2.5.29.36", sequence(b"\x80\1\0"), critical=True)},
        "damaged policies": {"more": raw_extension("2.5.29.32", b"\x30\5\1")},
        "must-staple": {"more": extension(x509.TLSFeature([x509.TLSFeatureType.status_request]))},
        "poison": {"more": extension(x509.PrecertPoison(), critical=True)},
        "name constraints in a leaf": {"more": constraints([(2, b"example.test")])},
        "damaged information access": {"more": raw_extension("1.3.6.1.5.5.7.1.1", b"\x30\3\1\1")},
        "damaged distribution points": {"more": raw_extension("2.5.29.31", b"\x30\3\1\1")},
        "IP address delegation": {"more": raw_extension("1.3.6.1.5.5.7.1.7", b"\x30\0", critical=True)},
        "proxy certificate": {
            "more": raw_extension("1.3.6.1.5.5.7.1.14", sequence(sequence(oid("1.3.6.1.5.5.7.21.1"))), critical=True)
        },
        "issuer's alternative name": {"more": raw_extension("2.5.29.18", general((2, b"ca.test")))},
        "no extension at all": dict.fromkeys(("basic", "usage", "ski", "aki", "eku", "san")),
    }
    for title, change in variants.items():
        yield case(f"leaf with {title}", runtime.leaf(extensions=change))
    yield case("RSA leaf with keyEncipherment only", runtime.leaf(key=rsa_key(0), extensions={"usage": usage(0x20)}))


def _authority_extensions(runtime: Runtime) -> Iterator[Case]:
    variants: dict[str, dict[str, bytes | None]] = {
        "no basic constraints": {"basic": None},
        "cA FALSE": {"basic": basic(ca=False)},
        "basic constraints not critical": {"basic": basic(ca=True, critical=False)},
        "negative path length": {
            "basic": raw_extension("2.5.29.19", sequence(b"\1\1\xff", integer(-1)), critical=True)
        },
        "no key usage": {"usage": None},
        "key usage not critical": {"usage": usage(0x06, critical=False)},
        "keyCertSign only": {"usage": usage(0x04)},
        "cRLSign only": {"usage": usage(0x02)},
        "digitalSignature only": {"usage": usage(0x80)},
        "server authentication": {"eku": purposes(SERVER_AUTH)},
        "client authentication only": {"eku": purposes(CLIENT_AUTH)},
        "any purpose": {"eku": purposes(ANY_PURPOSE)},
        "server authentication, critical": {"eku": purposes(SERVER_AUTH, critical=True)},
        "mail only": {"eku": purposes("1.3.6.1.5.5.7.3.4")},
        "no subject key identifier": {"ski": None},
        "critical subject key identifier": {"ski": raw_extension("2.5.29.14", b"\4\1x", critical=True)},
        "no authority key identifier": {"aki": None},
        "authority key identifier of another": {"aki": aki(b"y" * 20)},
        "critical authority key identifier": {
            "aki": raw_extension("2.5.29.35", sequence(wrap(0x80, key_id(runtime.root.spki))), critical=True)
        },
        "unknown critical extension": {"more": raw_extension(UNKNOWN, b"\5\0", critical=True)},
        "unknown extension": {"more": raw_extension(UNKNOWN, b"\5\0")},
        "policies": {"more": raw_extension("2.5.29.32", sequence(sequence(oid("2.5.29.32.0"))))},
        "policy constraints, critical": {"more": raw_extension("2.5.29.36", sequence(b"\x80\1\0"), critical=True)},
        "policy constraints, not critical": {"more": raw_extension("2.5.29.36", sequence(b"\x80\1\0"))},
        "empty policy constraints": {"more": raw_extension("2.5.29.36", sequence(), critical=True)},
        "inhibit any policy": {"more": raw_extension("2.5.29.54", integer(0), critical=True)},
        "policy mapping": {
            "more": raw_extension("2.5.29.33", sequence(sequence(oid(UNKNOWN), oid(UNKNOWN + ".2"))), critical=True)
        },
        "alternative name": {"more": dns_san("ca.example.test")},
        "two basic constraints": {"more": basic(ca=True)},
    }
    for title, change in variants.items():
        yield case(f"intermediate with {title}", runtime.leaf(runtime.authority(f"CA with {title}", extensions=change)))
        root = craft(None, f"Root with {title}", ca=True, extensions=change)
        yield case(f"root with {title}", runtime.leaf(craft(root, "Its CA", ca=True)))
    yield case("empty subject of an intermediate", runtime.leaf(runtime.authority("x", raw_subject=name())))
    yield case("issuer without a name", runtime.leaf(raw_issuer=name()))


def _names(runtime: Runtime) -> Iterator[Case]:
    ascii_idn = "xn--bcher-kva.example.test"
    hosts: dict[str, tuple[list[tuple[int, bytes]], str]] = {
        "the name": ([(2, NAME.encode())], NAME),
        "capitals": ([(2, NAME.upper().encode())], NAME),
        "a wildcard": ([(2, b"*.example.test")], NAME),
        "a wildcard over two labels": ([(2, b"*.example.test")], "a.b.example.test"),
        "a wildcard for its apex": ([(2, b"*.example.test")], "example.test"),
        "a wildcard of the top level": ([(2, b"*.test")], "example.test"),
        "a lone star": ([(2, b"*")], "test"),
        "a star inside": ([(2, b"sig*.example.test")], NAME),
        "a star at the end of a label": ([(2, b"*nal.example.test")], NAME),
        "a star in the second label": ([(2, b"signal.*.test")], NAME),
        "two stars": ([(2, b"*.*.test")], NAME),
        "a leading dot": ([(2, b".example.test")], NAME),
        "a trailing dot": ([(2, NAME.encode() + b".")], NAME),
        "an empty entry beside": ([(2, NAME.encode()), (2, b"")], NAME),
        "a space": ([(2, NAME.encode()), (2, b"a b.example.test")], NAME),
        "a NUL": ([(2, NAME.encode() + b"\0.evil.test")], NAME),
        "a NUL beside": ([(2, NAME.encode()), (2, b"a\0b.test")], NAME),
        "an underscore": ([(2, b"a_b.example.test")], "a_b.example.test"),
        "an underscore beside": ([(2, NAME.encode()), (2, b"_a.example.test")], NAME),
        "a hyphen first": ([(2, NAME.encode()), (2, b"-a.example.test")], NAME),
        "a label of 64": ([(2, NAME.encode()), (2, b"x" * 64 + b".test")], NAME),
        "a name of 260": ([(2, NAME.encode()), (2, b".".join([b"x" * 60] * 5))], NAME),
        "UTF-8": ([(2, NAME.encode()), (2, "bücher.example.test".encode())], NAME),
        "an A-label": ([(2, ascii_idn.encode())], ascii_idn),
        "a wildcard over an A-label": ([(2, b"*.example.test")], ascii_idn),
        "a star in an A-label": ([(2, b"xn--*-kva.example.test")], ascii_idn),
        "an IPv4 address": ([(7, V4)], "192.0.2.1"),
        "an IPv6 address": ([(7, V6)], "2001:db8::1"),
        "an IP address as DNS name": ([(2, b"192.0.2.1")], "192.0.2.1"),
        "an IP address as DNS name beside": ([(2, NAME.encode()), (2, b"192.0.2.1")], NAME),
        "an IP address of 5 octets": ([(2, NAME.encode()), (7, b"12345")], NAME),
        "an IP network": ([(2, NAME.encode()), (7, V4 + b"\xff" * 4)], NAME),
        "a mail address beside": ([(2, NAME.encode()), (1, b"a@example.test")], NAME),
        "a URI beside": ([(2, NAME.encode()), (6, b"https://example.test/")], NAME),
        "a URI only": ([(6, b"https://signal.example.test/")], NAME),
        "a directory name beside": ([(2, NAME.encode()), (4, name("x"))], NAME),
        "another kind beside": ([(2, NAME.encode()), (0, oid(UNKNOWN) + wrap(0xA0, b"\x0c\1x"))], NAME),
        "a registered ID beside": ([(2, NAME.encode()), (8, b"\x2a\3")], NAME),
        "the name twice": ([(2, NAME.encode())] * 2, NAME),
        "a single label": ([(2, b"localhost")], "localhost"),
        "a numeric top level": ([(2, NAME.encode()), (2, b"a.1")], NAME),
        "no entry": ([], NAME),
    }
    for title, (entries, host) in hosts.items():
        leaf = craft(runtime.ca, NAME, extensions={"san": san(*entries)})
        yield case(f"alternative name with {title}", leaf, host=host)
    for critical in (True, False):
        entry = dns_san(NAME, critical=critical)
        for common in ("", NAME):
            leaf = craft(runtime.ca, common, extensions={"san": entry})
            mark = "critical" if critical else "not critical"
            yield case(f"alternative name {mark}, {'a' if common else 'no'} subject", leaf)
    yield case("common name only", craft(runtime.ca, NAME))
    yield case("common name of another host", craft(runtime.ca, "other.test", names=(NAME,)))
    odd = name(NAME, ("2.5.4.6", 0x13, "Germany"))
    yield case("country of many letters", runtime.leaf(raw_subject=odd))
    yield case("common name of 100 letters", runtime.leaf(raw_subject=name("x" * 100)))
    yield case("common name in T61", runtime.leaf(raw_subject=name("", ("2.5.4.3", 0x14, "x"))))
    yield case(
        "common name in UTF-8 that is none",
        runtime.leaf(raw_subject=sequence(wrap(0x31, sequence(oid("2.5.4.3"), wrap(UTF8, b"\xff\xfe"))))),
    )
    printable = craft(runtime.root, "x", ca=True, raw_subject=name("", ("2.5.4.3", 0x13, "Same Name")))
    yield case("issuer's name in another string type", runtime.leaf(printable, raw_issuer=name("Same Name")))
    yield case(
        "issuer's name in other capitals", runtime.leaf(printable, raw_issuer=name("", ("2.5.4.3", 0x13, "same name")))
    )


def _constraints(runtime: Runtime) -> Iterator[Case]:
    example, other = (2, b"example.test"), (2, b"other.test")
    mask4, mask6 = b"\xff\xff\xff\0", b"\xff" * 8 + b"\0" * 8
    net4, net6 = (7, bytes((192, 0, 2, 0)) + mask4), (7, V6[:8] + b"\0" * 8 + mask6)
    off4, off6 = (7, bytes((198, 51, 100, 0)) + mask4), (7, b"\xfe\x80" + b"\0" * 14 + mask6)
    here, there = (4, name(NAME)), (4, name("Elsewhere"))
    variants: dict[str, tuple[bytes, str]] = {
        "permits the domain": (constraints([example]), NAME),
        "permits the domain, not critical": (constraints([example], critical=False), NAME),
        "permits another": (constraints([other]), NAME),
        "permits another and this": (constraints([other, example]), NAME),
        "permits the host": (constraints([(2, NAME.encode())]), NAME),
        "permits in capitals": (constraints([(2, b"EXAMPLE.TEST")]), NAME),
        "permits half a label": (constraints([(2, b"ample.test")]), NAME),
        "permits with a leading dot": (constraints([(2, b".example.test")]), NAME),
        "permits a wildcard": (constraints([(2, b"*.example.test")]), NAME),
        "permits everything": (constraints([(2, b"")]), NAME),
        "excludes everything": (constraints([], [(2, b"")]), NAME),
        "excludes the domain": (constraints([], [example]), NAME),
        "excludes another": (constraints([], [other]), NAME),
        "permits and excludes": (constraints([example], [(2, NAME.encode())]), NAME),
        "permits an IPv4 network": (constraints([net4]), "192.0.2.1"),
        "permits another IPv4 network": (constraints([off4]), "192.0.2.1"),
        "excludes an IPv4 network": (constraints([], [net4]), "192.0.2.1"),
        "excludes another IPv4 network": (constraints([], [off4]), "192.0.2.1"),
        "permits an IPv6 network": (constraints([net6]), "2001:db8::1"),
        "permits another IPv6 network": (constraints([off6]), "2001:db8::1"),
        "excludes an IPv6 network": (constraints([], [net6]), "2001:db8::1"),
        "permits IPv4 for an IPv6 address": (constraints([net4]), "2001:db8::1"),
        "excludes all IPv6 of an IPv4 address": (constraints([], [(7, b"\0" * 32)]), "192.0.2.1"),
        "permits an IP network without a mask": (constraints([(7, V4)]), "192.0.2.1"),
        "permits an IP network with a torn mask": (constraints([(7, V4 + b"\xff\0\xff\0")]), "192.0.2.1"),
        "permits a network for a name": (constraints([net4]), NAME),
        "excludes a network for a name": (constraints([], [net4]), NAME),
        "permits the subject": (constraints([here]), NAME),
        "permits another subject": (constraints([there]), NAME),
        "excludes the subject": (constraints([], [here]), NAME),
        "excludes another subject": (constraints([], [there]), NAME),
        "permits every subject": (constraints([(4, name())]), NAME),
        "excludes every subject": (constraints([], [(4, name())]), NAME),
        "permits mail": (constraints([(1, b"example.test")]), NAME),
        "permits URIs": (constraints([(6, b"example.test")]), NAME),
        "is empty": (constraints(), NAME),
        "has minimum 1": (
            raw_extension(
                "2.5.29.30", sequence(wrap(0xA0, sequence(wrap(0x82, b"example.test"), b"\x80\1\1"))), critical=True
            ),
            NAME,
        ),
        "is damaged": (raw_extension("2.5.29.30", b"\x30\5\1", critical=True), NAME),
        "permits UTF-8": (constraints([(2, "bücher.test".encode()), example]), NAME),
        "permits an other name": (constraints([(0, oid(UNKNOWN) + wrap(0xA0, b"\x0c\1x"))]), NAME),
        "permits a registered ID": (constraints([(8, b"\x2a\3")]), NAME),
    }
    for title, (limit, host) in variants.items():
        entry = {"192.0.2.1": (7, V4), "2001:db8::1": (7, V6)}.get(host, (2, host.encode()))
        fields: Unusual = {"extensions": {"san": san(entry)}}
        authority = runtime.authority(f"CA that {title}"[:60], extensions={"limits": limit})
        yield case(f"intermediate {title}", craft(authority, NAME, **fields), host=host)
        root = craft(None, f"Root that {title}"[:60], ca=True, extensions={"limits": limit})
        yield case(f"root {title}", craft(craft(root, "Its CA", ca=True), NAME, **fields), host=host)
    wild: Unusual = {"extensions": {"san": dns_san("*.example.test")}}
    only = runtime.authority("CA with one host", extensions={"limits": constraints([(2, NAME.encode())])})
    yield case("a wildcard wider than its constraint", craft(only, NAME, **wild))
    barred = runtime.authority("CA without one host", extensions={"limits": constraints([], [(2, b"x.example.test")])})
    yield case("a wildcard over an excluded host", craft(barred, NAME, **wild))
    upper = runtime.authority("Upper limits", extensions={"limits": constraints([example])})
    narrow = craft(upper, "Lower limits", ca=True, extensions={"limits": constraints([other])})
    yield case("constraints that leave nothing", craft(narrow, NAME, names=(NAME,)))
    more: Unusual = {"extensions": {"san": san((2, NAME.encode()), (1, b"a@else.test"))}}
    mail = runtime.authority("Mail limits", extensions={"limits": constraints([(1, b"example.test")])})
    yield case("mail outside of its constraint beside the name", craft(mail, NAME, **more))


def _signatures(runtime: Runtime) -> Iterator[Case]:
    rsa_ca = craft(runtime.root, "RSA CA", ca=True, key=rsa_key(0))
    signer = rsa_key(0)
    for digest in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512"):
        yield case(f"leaf signed with RSA and {digest}", runtime.leaf(rsa_ca, signed=signing(signer, digest)))
        if digest != "md5":
            yield case(f"leaf signed with ECDSA and {digest}", runtime.leaf(signed=signing(runtime.ca.key, digest)))
            below = runtime.authority(f"CA {digest}", signed=signing(runtime.root.key, digest))
            yield case(f"intermediate signed with ECDSA and {digest}", runtime.leaf(below))
    for digest, salt in (("sha256", 32), ("sha384", 48), ("sha256", 20), ("sha1", 20)):
        yield case(
            f"leaf signed with PSS, {digest}, salt {salt}", runtime.leaf(rsa_ca, signed=pss(signer, digest, salt))
        )
    inner, _ = signing(signer, "sha384")
    yield case("other algorithm inside than outside", runtime.leaf(rsa_ca, inner=inner))
    bare = sequence(oid("1.2.840.113549.1.1.11"))
    yield case("RSA algorithm without NULL inside", runtime.leaf(rsa_ca, inner=bare))
    yield case("RSA algorithm without NULL", runtime.leaf(rsa_ca, signed=(bare, signing(signer)[1])))
    algorithm, sign = signing(runtime.ca.key)
    with_null = sequence(oid("1.2.840.10045.4.3.2"), b"\5\0")
    yield case("ECDSA algorithm with NULL", runtime.leaf(signed=(with_null, sign)))
    yield case("signature of zeros", runtime.leaf(spoil=lambda s: bytes(len(s))))
    yield case("signature empty", runtime.leaf(spoil=lambda _: b""))
    yield case("signature with an octet more", runtime.leaf(spoil=lambda s: s + b"\0"))
    yield case("signature by the leaf's own key", runtime.leaf(key=(key := new_key()), signed=signing(key)))
    yield case("unknown signature algorithm", runtime.leaf(signed=(sequence(oid(UNKNOWN)), sign)))
    pss_key = wrap(0x30, sequence(oid("1.2.840.113549.1.1.10")) + spki_of(signer)[-275:])
    yield case("leaf with an RSA-PSS key", runtime.leaf(key=signer, spki=pss_key))
    weak_root = craft(None, "SHA-1 Root", ca=True, key=signer, signed=signing(signer, "sha1"))
    yield case("root signed with SHA-1", runtime.leaf(weak_root))
    yield case("algorithms agree", runtime.leaf(inner=algorithm))


def _times_and_numbers(runtime: Runtime) -> Iterator[Case]:
    now = datetime.now(UTC)
    day = timedelta(days=1)
    ago, soon = now - day, now + 50 * day
    times: dict[str, Unusual] = {
        "over by a minute": {"end": utc(now - timedelta(minutes=1))},
        "over by a month": {"begin": utc(now - 90 * day), "end": utc(now - 30 * day)},
        "not before an hour from now": {"begin": utc(now + timedelta(hours=1))},
        "ends before it begins": {"begin": utc(soon), "end": utc(ago)},
        "lives 201 days": {"begin": utc(ago), "end": utc(ago + 201 * day)},
        "lives 199 days": {"begin": utc(ago), "end": utc(ago + 199 * day)},
        "lives 6 days": {"begin": utc(ago), "end": utc(ago + 6 * day)},
        "GeneralizedTime before 2050": {"begin": generalized(ago), "end": generalized(soon)},
        "GeneralizedTime end only": {"end": generalized(soon)},
        "fractional seconds": {"end": generalized(soon, "%Y%m%d%H%M%S.5Z")},
        "no seconds": {"end": wrap(0x17, f"{soon:%y%m%d%H%MZ}".encode())},
        "an offset": {"end": wrap(0x17, f"{soon:%y%m%d%H%M%S}+0100".encode())},
        "no zone": {"end": wrap(0x17, f"{soon:%y%m%d%H%M%S}".encode())},
        "a 13th month": {"end": wrap(0x17, b"261331000000Z")},
        "a 60th second": {"end": wrap(0x17, f"{soon:%y%m%d%H%M}60Z".encode())},
        "the year 1970 for an end": {
            "begin": utc(datetime(1960, 1, 1, tzinfo=UTC)),
            "end": wrap(0x17, b"700101000000Z"),
        },
        "no end (99991231235959Z)": {"end": generalized(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))},
        "UTCTime of 1951 for 2051": {"end": wrap(0x17, b"510101000000Z")},
        "a string for a time": {"end": wrap(0x0C, b"270101000000Z")},
    }
    for title, change in times.items():
        yield case(f"leaf's time: {title}", runtime.leaf(**change))
    far = runtime.authority("Far CA", end=generalized(datetime(2051, 1, 1, tzinfo=UTC)))
    yield case("intermediate until 2051", runtime.leaf(far))
    early = runtime.authority("General CA", end=generalized(now + 500 * day))
    yield case("intermediate with GeneralizedTime before 2050", runtime.leaf(early))
    numbers = {
        "zero": integer(0),
        "negative": integer(-5),
        "20 octets": wrap(2, b"\x7f" + b"\1" * 19),
        "20 octets and a zero": wrap(2, b"\0\xff" + b"\1" * 19),
        "21 octets": wrap(2, b"\1" * 21),
        "40 octets": wrap(2, b"\1" * 40),
        "a leading zero too many": wrap(2, b"\0\1"),
        "one": integer(1),
        "no octet": wrap(2, b""),
    }
    for title, number in numbers.items():
        yield case(f"serial number: {title}", runtime.leaf(serial=number))
        yield case(f"serial number of the intermediate: {title}", runtime.leaf(runtime.authority("N", serial=number)))
    versions = (b"", b"\xa0\3\2\1\0", b"\xa0\3\2\1\1", b"\xa0\3\2\1\3", b"\xa0\4\2\2\0\2")
    for place, version in enumerate(versions):
        yield case(f"version written as {version.hex() or 'nothing'}", runtime.leaf(version=version))
        if place < 3:
            bare = dict.fromkeys(("basic", "usage", "ski", "aki", "eku", "san"))
            old = runtime.leaf(version=version, extensions=bare)
            yield case(f"version written as {version.hex() or 'nothing'}, no extensions", old)
            old = craft(None, f"Old Root {place}", ca=True, version=version, extensions=bare)
            yield case(
                f"root of version {version.hex() or 'nothing'}, no extensions", runtime.leaf(craft(old, "C", ca=True))
            )


def _depths(runtime: Runtime) -> Iterator[Case]:
    for depth in (2, 3, 7, 8, 9, 12, 30):
        tip = runtime.root
        for level in range(depth):
            tip = craft(tip, f"Level {level}", ca=True)
        yield case(f"{depth} intermediates", craft(tip, NAME, names=(NAME,)))
    for lengths in ((0, 0), (0, None), (1, None), (1, 0), (1, 5), (2, 1, 0), (1, 1, 1), (None, 0)):
        tip = runtime.root
        for level, length in enumerate(lengths):
            tip = craft(tip, f"Length {level}", ca=True, pathlen=length)
        yield case(f"path lengths {lengths}", craft(tip, NAME, names=(NAME,)))
    for limit in (0, 1):
        root = craft(None, f"Root with path length {limit}", ca=True, pathlen=limit)
        tip = craft(craft(root, "One", ca=True), "Two", ca=True)
        yield case(f"root with path length {limit}, two intermediates", craft(tip, NAME, names=(NAME,)))
        rolled = craft(craft(root, f"Root with path length {limit}", ca=True), "One", ca=True)
        yield case(f"root with path length {limit}, self-issued between", craft(rolled, NAME, names=(NAME,)))
    same = wrap(OCTETS, b"same")
    twins = [runtime.authority("Twin", extensions={"ski": raw_extension("2.5.29.14", same)}) for _ in range(12)]
    leaf = runtime.leaf(twins[7], extensions={"aki": aki(b"same")})
    yield case("12 authorities of one name and key identifier", leaf, *(t.der for t in twins))
