"""A certificate written anew as a strict library reads it, for reading only: clients read what that library does not.

The signature of such a copy fits no longer, so nothing is ever judged, stored or sent of it.
"""

from __future__ import annotations

import re

from rotator.x509 import der

_BASIC_CONSTRAINTS = "2.5.29.19"
_UTF8, _PRINTABLE, _TELETEX = 0x0C, 0x13, 0x14
_ISSUER, _SUBJECT = 2, 4


def with_extensions(data: bytes, extensions: tuple[der.RawExtension, ...]) -> bytes:
    """The certificate with these extensions instead, each written as DER demands, and with names that can be read.

    Raises:
        DerError: the bytes begin with no certificate.
    """
    _, parts, inner, skip = der.signed_parts(data)
    written = b"".join(_extension(extension) for extension in extensions)
    kept = inner[:-1] if inner[-1].tag == 0xA3 else inner
    names = (skip + _ISSUER, skip + _SUBJECT)
    tbs = b"".join(_name(data, part) if at in names else der.whole(data, part) for at, part in enumerate(kept))
    tbs += der.encode(0xA3, der.encode(der.SEQUENCE, written)) if written else b""
    rest = b"".join(der.whole(data, part) for part in parts[1:])
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, tbs) + rest)


def _extension(extension: der.RawExtension) -> bytes:
    value = extension.value
    if extension.oid == _BASIC_CONSTRAINTS and value[:5] == b"\x30\x03\x01\x01\x00":
        value = b"\x30\x00"  # an explicit cA FALSE, the other default that is found written out
    flag = b"\x01\x01\xff" if extension.critical else b""
    return der.encode(der.SEQUENCE, der.encoded_oid(extension.oid) + flag + der.encode(der.OCTET_STRING, value))


def _name(data: bytes, name: der.Element) -> bytes:
    """A name as Go, OpenSSL and Java read it: `*` and `&` in a PrintableString, Latin-1 in a TeletexString."""
    sets = b""
    for one in der.children(data, der.expect(name, der.SEQUENCE)):
        attributes = b""
        for attribute in der.children(data, one):
            pieces = der.children(data, attribute)
            kind, value = der.nth(pieces, 0, der.OID), pieces[-1]
            text = data[value.body : value.end]
            odd = value.tag == _TELETEX or (value.tag == _PRINTABLE and re.search(rb"[*&]", text))
            string = der.encode(_UTF8, text.decode("latin-1").encode()) if odd else der.whole(data, value)
            attributes += der.encode(der.SEQUENCE, der.whole(data, kind) + string)
        sets += der.encode(one.tag, attributes)
    return der.encode(der.SEQUENCE, sets)
