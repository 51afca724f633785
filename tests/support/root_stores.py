"""Root stores of browsers, made of own roots in the syntax of the real files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.support.authority import CA, der, pem, wrap

HEAD = "\n".join(
    [
        "# a comment",
        "BEGINDATA",
        "CKA_CLASS CK_OBJECT_CLASS CKO_NSS_BUILTIN_ROOT_LIST",
        "CKA_TOKEN CK_BBOOL CK_TRUE",
        'CKA_LABEL UTF8 "Own Builtin Roots"',
        "",
    ]
)
COLUMNS = (
    "Owner",
    "Common Name or Certificate Name",
    "SHA-256 Fingerprint",
    "Trust Bits",
    "Distrust for TLS After Date",
    "Mozilla Applied Constraints",
    "PEM Info",
)


@dataclass(frozen=True)
class Listed:
    """One root of a root store.

    Args:
        ca: the root.
        server: whether it is trusted for TLS servers.
        end: the time after which its certificates are distrusted.
        on_trust: whether certdata.txt has that time in the trust object, as it has for one real root.
        names: the domains that it is limited to.
    """

    ca: CA
    server: bool = True
    end: datetime | None = None
    on_trust: bool = False
    names: tuple[str, ...] = ()


def fingerprint(cert: x509.Certificate) -> str:
    return cert.fingerprint(hashes.SHA256()).hex()


def octal(name: str, data: bytes) -> str:
    lines = ["".join(f"\\{octet:03o}" for octet in data[at : at + 16]) for at in range(0, len(data), 16)]
    return "\n".join([f"{name} MULTILINE_OCTAL", *lines, "END"])


def certdata(*listed: Listed, by_hash: bool = True) -> bytes:
    """certdata.txt with these roots; `by_hash` has the trust objects name their certificates by SHA-1, too."""
    objects = [HEAD]
    for one in listed:
        (data,) = der(one.ca.cert)
        issuer = octal("CKA_ISSUER", one.ca.cert.issuer.public_bytes())
        number = one.ca.cert.serial_number
        serial = octal("CKA_SERIAL_NUMBER", wrap(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big")))
        none = "CKA_NSS_SERVER_DISTRUST_AFTER CK_BBOOL CK_FALSE"
        after = octal("CKA_NSS_SERVER_DISTRUST_AFTER", f"{one.end:%y%m%d%H%M%SZ}".encode()) if one.end else none
        trust = "CKT_NSS_TRUSTED_DELEGATOR" if one.server else "CKT_NSS_MUST_VERIFY_TRUST"
        sha1 = octal("CKA_CERT_SHA1_HASH", hashlib.sha1(data, usedforsecurity=False).digest())
        objects += [
            f"# Certificate {one.ca.name}",
            "CKA_CLASS CK_OBJECT_CLASS CKO_CERTIFICATE",
            "CKA_TOKEN CK_BBOOL CK_TRUE",
            f'CKA_LABEL UTF8 "{one.ca.name}"',
            octal("CKA_SUBJECT", one.ca.cert.subject.public_bytes()),
            'CKA_ID UTF8 "0"',
            issuer,
            serial,
            octal("CKA_VALUE", data),
            "CKA_NSS_MOZILLA_CA_POLICY CK_BBOOL CK_TRUE",
            none if one.on_trust else after,
            "",
            f"# Trust for {one.ca.name}",
            "CKA_CLASS CK_OBJECT_CLASS CKO_NSS_TRUST",
            *([sha1] if by_hash else []),
            issuer,
            serial,
            *([after] if one.on_trust else []),
            f"CKA_TRUST_SERVER_AUTH CK_TRUST {trust}",
            "CKA_TRUST_EMAIL_PROTECTION CK_TRUST CKT_NSS_TRUSTED_DELEGATOR",
            "",
        ]
    return "\n".join(objects).encode()


def row(one: Listed) -> Mapping[str, str]:
    return {
        "Owner": "Own, Ltd.",
        "Common Name or Certificate Name": one.ca.name,
        "SHA-256 Fingerprint": fingerprint(one.ca.cert).upper(),
        "Trust Bits": "Email;Websites" if one.server else "Email",
        "Distrust for TLS After Date": f"{one.end:%Y.%m.%d}" if one.end else "",
        "Mozilla Applied Constraints": ",".join(f"*{name}" for name in one.names),
        "PEM Info": f"'{pem(one.ca.cert).decode()}'",
    }


def report(*listed: Listed, columns: Sequence[str] = COLUMNS) -> bytes:
    """The report of the CCADB with these roots, its PEM in several lines."""
    rows = [",".join(f'"{name}"' for name in columns)]
    rows += [",".join(f'"{row(one)[name]}"' for name in columns) for one in listed]
    return ("\n".join(rows) + "\n").encode()


def chrome(*listed: tuple[CA, Sequence[str]]) -> bytes:
    """root_store.textproto with these roots and the fields of each set of constraints."""
    parts = ["# Own Root Store\n\nversion_major: 36\n"]
    for ca, sets in listed:
        fields = "".join(f"  constraints: {{\n    {one}\n  }}\n" for one in sets)
        begin = f'trust_anchors {{\n  sha256_hex: "{fingerprint(ca.cert)}"\n  crs_root_id: 3\n'
        more = '  ev_policy_oids: "2.23.140.1.1"  # a comment\n  trust_anchor_id: "\\x83\\x9a{"\n'
        parts.append(f"# {ca.name}\n{begin}{more}{fields}}}\n")
    return "\n".join(parts).encode()
