"""A copy of a certificate in strict DER, so that the library can read one that only clients read.

The copy serves for reading alone: its signature is no longer valid, so it is never validated, stored or sent.
"""

from __future__ import annotations

import re

from rotator.x509 import der

_BASIC_CONSTRAINTS = "2.5.29.19"
_UTF8, _PRINTABLE, _TELETEX = 0x0C, 0x13, 0x14
_ISSUER, _SUBJECT = 2, 4


def with_extensions(data: bytes, extensions: tuple[der.RawExtension, ...]) -> bytes:
    """A copy of the certificate with these extensions in place of its own, in strict DER and with readable names.

    Raises:
        DerError: the bytes do not begin with a certificate.
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
        value = b"\x30\x00"  # drops an explicit cA FALSE, a default that DER leaves out (X.690 11.5)
    flag = b"\x01\x01\xff" if extension.critical else b""
    return der.encode(der.SEQUENCE, der.encoded_oid(extension.oid) + flag + der.encode(der.OCTET_STRING, value))


def _name(data: bytes, name: der.Element) -> bytes:
    """A name with its strings as Go, OpenSSL and Java read them, in a form that the library reads as well.

    These clients accept `*` and `&` in a PrintableString, and read a TeletexString as Latin-1.
    """
    relative_names = b""
    for relative_name in der.children(data, der.expect(name, der.SEQUENCE)):
        attributes = b""
        for attribute in der.children(data, relative_name):
            parts = der.children(data, attribute)
            attribute_type, value = der.nth(parts, 0, der.OID), parts[-1]
            text = data[value.body : value.end]
            convert = value.tag == _TELETEX or (value.tag == _PRINTABLE and re.search(rb"[*&]", text))
            string = der.encode(_UTF8, text.decode("latin-1").encode()) if convert else der.whole(data, value)
            attributes += der.encode(der.SEQUENCE, der.whole(data, attribute_type) + string)
        relative_names += der.encode(relative_name.tag, attributes)
    return der.encode(der.SEQUENCE, relative_names)
