"""One case of the family and how cases are made of parties; what the cases are stands in the modules beside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Unpack

from cryptography.hazmat.primitives import serialization

from tests.support.authority import der_pem
from tests.support.crafting import AnyKey, Party, Unusual, craft

NAME = "signal.example.test"


@dataclass(frozen=True)
class Case:
    """Files, and what a client of them trusts.

    Args:
        title: what it is, for reports; unique.
        cert: the certificate file, which nginx is given as it stands.
        key: the key file; the same bytes as `cert` for one file with both.
        roots: what the client trusts, PEM.
        host: what the client asks for.
        private: whether it is judged by the policy for a private CA.
    """

    title: str
    cert: bytes = field(repr=False)
    key: bytes = field(repr=False)
    roots: bytes = field(repr=False)
    host: str = NAME
    private: bool = False


def key_text(key: AnyKey, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def case(
    title: str, leaf: Party, *sent: bytes, key: bytes | None = None, roots: bytes | None = None, host: str = NAME
) -> Case:
    """A leaf with its chain, or with `sent` after it, and its key or another."""
    chain = der_pem(leaf.der, *sent) if sent else der_pem(*(leaf.chain or (leaf.der,)))
    return Case(title, chain, key_text(leaf.key) if key is None else key, roots or leaf.root_pem, host)


class Runtime:
    """A root and an intermediate that most cases stand on."""

    def __init__(self) -> None:
        self.root = craft(None, "Agreement Root", ca=True, days=3000)
        self.ca = craft(self.root, "Agreement CA", ca=True, pathlen=0, days=900)

    def leaf(self, issuer: Party | None = None, *, key: AnyKey | None = None, **unusual: Unpack[Unusual]) -> Party:
        """A leaf for `NAME`."""
        return craft(issuer or self.ca, NAME, key=key, names=(NAME,), **unusual)

    def authority(self, common: str, **unusual: Unpack[Unusual]) -> Party:
        """An intermediate."""
        return craft(self.root, common, ca=True, days=800, **unusual)
