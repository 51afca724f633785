"""Logs of certificate transparency: their lists, and leaves with SCTs signed by RFC 6962."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtensionOID

from tests.support.authority import CA, NOW, Issued, wrap

DAY = timedelta(days=1)


NAME = "signal.example.cn"


MADE = NOW - timedelta(minutes=90)
"""When the SCTs were made."""


@dataclass
class Keeper:
    """A log: signs SCTs and has an entry in a list."""

    name: str
    operator: str = "One"
    state: str = "usable"
    since: datetime = NOW - 900 * DAY
    interval: tuple[datetime, datetime] | None = None
    previous: Sequence[tuple[str, datetime]] = ()
    tiled: bool = False
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def entry(self) -> dict[str, object]:
        found: dict[str, object] = {
            "description": self.name,
            "log_id": base64.b64encode(hashlib.sha256(self.spki).digest()).decode(),
            "key": base64.b64encode(self.spki).decode(),
            "mmd": 86400,
            "state": {self.state: {"timestamp": stamp(self.since)}},
        }
        if self.interval:
            begin, end = self.interval
            found["temporal_interval"] = {"start_inclusive": stamp(begin), "end_exclusive": stamp(end)}
        if self.previous:
            found["previous_operators"] = [{"name": n, "end_time": stamp(t)} for n, t in self.previous]
        return found

    def sct(self, body: bytes, issuer: x509.Certificate, at: datetime = MADE, extensions: bytes = b"") -> bytes:
        """A SignedCertificateTimestamp of version 1 (RFC 6962 3.2)."""
        spki = issuer.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        moment = (int(at.timestamp() * 1000)).to_bytes(8, "big")
        more = len(extensions).to_bytes(2, "big") + extensions
        signed = b"\0\0" + moment + b"\0\1" + hashlib.sha256(spki).digest() + len(body).to_bytes(3, "big") + body + more
        if isinstance(self.key, rsa.RSAPrivateKey):
            kind, signature = b"\4\1", self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            kind, signature = b"\4\3", self.key.sign(signed, ec.ECDSA(hashes.SHA256()))
        log_id = hashlib.sha256(self.spki).digest()
        return b"\0" + log_id + moment + more + kind + len(signature).to_bytes(2, "big") + signature


def stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def log_list(*keepers: Keeper) -> bytes:
    """log_list.json with these logs."""
    operators = {
        name: {"name": name, "email": [], "logs": [], "tiled_logs": []} for name in {k.operator for k in keepers}
    }
    for keeper in keepers:
        kind = operators[keeper.operator]["tiled_logs" if keeper.tiled else "logs"]
        assert isinstance(kind, list)
        kind.append(keeper.entry)
    data = {"version": "88.1", "log_list_timestamp": stamp(NOW), "operators": list(operators.values())}
    return json.dumps(data).encode()


Make = Callable[[bytes, x509.Certificate], bytes]


def embedded(scts: Sequence[bytes]) -> x509.UnrecognizedExtension:
    listed = b"".join(len(one).to_bytes(2, "big") + one for one in scts)
    value = wrap(0x04, len(listed).to_bytes(2, "big") + listed)
    return x509.UnrecognizedExtension(ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS, value)


def logged(*scts: Keeper | Make, by: CA, days: float = 90) -> Issued:
    """A leaf with SCTs, each by a keeper as it should be or made by a function of what is signed."""

    def tweak(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        body = builder.sign(by.key, hashes.SHA256()).tbs_certificate_bytes
        made = [one.sct(body, by.cert) if isinstance(one, Keeper) else one(body, by.cert) for one in scts]
        return builder.add_extension(embedded(made), critical=False)

    return by.issue(NAME, days=days, tweak=tweak)
