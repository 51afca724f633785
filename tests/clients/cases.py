"""Every way to serve a chain wrongly, as files that nginx takes: made on the spot, each with an authority of its own.

Of its own, because a browser remembers: an intermediate seen in one case must not mend the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from rotator.core.problems import Code
from tests.support.authority import CA, Issued, Tweak, der, new_key, pem

NAME = "signal.example.test"
NAMES = (NAME, "localhost")  # the MQTT client has to find its server by the system's own resolver

RENEWED = "expired intermediate, a renewed one at the CA's server"


@dataclass(frozen=True)
class Repositories:
    """Where a CA's certificates are had from.

    Args:
        reachable: `http://host:port` of a server that hands out what `publish` was given.
        refused: the same where nobody listens.
        silent: the same where nobody answers.
        publish: makes a path of the reachable server give these bytes.
    """

    reachable: str
    refused: str
    silent: str
    publish: Callable[[str, bytes], None]


@dataclass(frozen=True)
class Case:
    """One thing to serve.

    Args:
        name: what it is called in reports.
        codes: what rotator says of it.
        issued: the leaf with its key.
        sent: the certificates as they are sent.
        fetched: what a client finds at the address that the leaf names: `reachable`, `refused`, `silent`; empty
            where the leaf names none.
        host: the name that clients ask for.
    """

    name: str
    codes: frozenset[Code]
    issued: Issued
    sent: tuple[x509.Certificate, ...]
    fetched: str = ""
    host: str = NAME

    @property
    def chain_pem(self) -> bytes:
        return pem(*self.sent)


class Cases:
    """All of them, below one root that clients trust (and an old one, expired, that they still have)."""

    def __init__(self, repositories: Repositories) -> None:
        self.now = datetime.now(UTC)
        self.at = repositories
        self.root = CA.root("Trusted Root", at=self.now)
        self.old_root = CA.root("Old Root", at=self.now - timedelta(days=400), days=390)
        self.mending: dict[str, CA] = {}
        """By the name of a case, the authority whose certificate mends it where a browser has it already."""
        self.all = tuple(self._make())

    @property
    def roots_pem(self) -> bytes:
        """What every client trusts."""
        return pem(self.root.cert, self.old_root.cert)

    def _make(self) -> list[Case]:
        return [
            self._good(),
            *self._leaf_only(),
            *self._untidy(),
            *self._expired_authorities(),
            *self._ways_to_the_old_root(),
            *self._broken_authorities(),
            *self._bad_leaves(),
        ]

    def _good(self) -> Case:
        ca = self.root.intermediate("Good CA")
        issued = ca.issue(*NAMES)
        return Case("full chain", frozenset(), issued, issued.chain)

    def _leaf_only(self) -> list[Case]:
        cases = []
        for fetched in ("reachable", "refused", "silent", ""):
            ca = self.root.intermediate(f"{fetched or 'unnamed'} CA".capitalize())
            issued = ca.issue(*NAMES, tweak=self._aia(fetched, ca.cert))
            title = f"leaf only, CA's server {fetched}" if fetched else "leaf only, no CA's server named"
            self.mending |= {title: ca} if fetched == "refused" else {}
            cases.append(Case(title, frozenset({Code.INCOMPLETE_CHAIN}), issued, (issued.leaf,), fetched))
        current = self.root.intermediate("Re-keyed CA")
        issued = current.issue(*NAMES, tweak=self._aia("reachable", current.cert))
        former = self.root.intermediate("Re-keyed CA")
        title = "former intermediate of a re-keyed CA, CA's server reachable"
        sent = (issued.leaf, former.cert)
        return [*cases, Case(title, frozenset({Code.INCOMPLETE_CHAIN}), issued, sent, "reachable")]

    def _untidy(self) -> list[Case]:
        upper = self.root.intermediate("Upper CA", pathlen=1)
        lower = upper.intermediate("Lower CA")
        disordered = lower.issue(*NAMES)
        rooted = self.root.intermediate("Rooted CA").issue(*NAMES)
        stray = self.root.intermediate("Stray CA").issue(*NAMES)
        twice = self.root.intermediate("Twice CA").issue(*NAMES)
        return [
            Case(
                "wrong order",
                frozenset({Code.CHAIN_ORDER}),
                disordered,
                (disordered.leaf, upper.cert, lower.cert),
            ),
            Case("root sent", frozenset({Code.ROOT_INCLUDED}), rooted, (*rooted.chain, self.root.cert)),
            Case(
                "unneeded certificate sent",
                frozenset({Code.UNUSED_CERT}),
                stray,
                (stray.leaf, self.root.intermediate("Unneeded CA").cert, *stray.intermediates),
            ),
            Case("intermediate sent twice", frozenset({Code.DUPLICATE_CERT}), twice, (*twice.chain, twice.chain[1])),
        ]

    def _expired_authorities(self) -> list[Case]:
        long_ago, yesterday = self.now - timedelta(days=300), self.now - timedelta(days=1)
        expired = self.root.intermediate("Expired CA", not_before=long_ago, not_after=yesterday)
        over = expired.issue(*NAMES)
        key = new_key()
        renewed = self.mending[RENEWED] = self.root.intermediate("Renewed CA", key=key)
        before = self.root.intermediate("Renewed CA", key=key, not_before=long_ago, not_after=yesterday)
        mended = before.issue(*NAMES, tweak=self._aia("reachable", renewed.cert))
        key = new_key()
        crossed = self.root.intermediate("Crossed CA", key=key)
        cross = self.old_root.intermediate("Crossed CA", key=key, not_before=long_ago, not_after=yesterday)
        beside = crossed.issue(*NAMES)
        return [
            Case("expired intermediate", frozenset({Code.EXPIRED_INTERMEDIATE}), over, over.chain),
            Case(RENEWED, frozenset({Code.EXPIRED_INTERMEDIATE}), mended, mended.chain, "reachable"),
            Case(
                "expired cross-certificate beside a valid path",
                frozenset({Code.EXPIRED_EXTRA}),
                beside,
                (beside.leaf, cross.cert, crossed.cert),
            ),
        ]

    def _ways_to_the_old_root(self) -> list[Case]:
        long_ago = self.now - timedelta(days=300)
        key = new_key()
        new_way = self.root.intermediate("Two-way CA", key=key)
        old_way = self.old_root.intermediate(
            "Two-way CA", key=key, not_before=long_ago, not_after=self.root.cert.not_valid_after_utc
        )
        two_ways, turned = new_way.issue(*NAMES), new_way.issue(*NAMES)
        below = self.root.intermediate("Lower-rank CA").issue(*NAMES)
        promoted = self.old_root.intermediate(
            "Trusted Root", key=self.root.key, pathlen=None, not_before=long_ago, days=800
        )
        only_old = self.old_root.intermediate("Old-way CA", not_before=long_ago, days=800).issue(
            *NAMES, not_before=self.now
        )
        return [
            Case(
                "valid cross-certificate to an expired root beside a valid path",
                frozenset({Code.ORDER_SENSITIVE, Code.UNUSED_CERT}),
                two_ways,
                (two_ways.leaf, old_way.cert, new_way.cert),
            ),
            Case(
                "the same the other way around",
                frozenset({Code.UNUSED_CERT}),
                turned,
                (turned.leaf, new_way.cert, old_way.cert),
            ),
            Case(
                "trusted root cross-signed by an expired one, sent",
                frozenset({Code.UNUSED_CERT}),
                below,
                (*below.chain, promoted.cert),
            ),
            Case("expired root", frozenset({Code.EXPIRED_ROOT}), only_old, only_old.chain),
        ]

    def _broken_authorities(self) -> list[Case]:
        foreign = CA.root("Foreign Root", at=self.now)
        untrusted = foreign.intermediate("Foreign CA").issue(*NAMES)
        alone = _self_signed(self.now)
        narrow = self.root.intermediate("Narrow CA", pathlen=0)
        deep = narrow.intermediate("Deep CA").issue(*NAMES)
        impostor = self.root.issue("impostor.example.test")
        by_leaf = CA("impostor", impostor.key, impostor.leaf, (impostor.leaf,), self.now).issue(*NAMES)
        walled = self.root.intermediate(
            "Walled CA",
            tweak=lambda b: b.add_extension(x509.NameConstraints([x509.DNSName("other.test")], None), critical=True),
        ).issue(*NAMES)
        rekeyed = self.root.intermediate("Forged CA")
        forged = CA("Forged CA", new_key(), rekeyed.cert, rekeyed.above, self.now).issue(*NAMES, tweak=_aki_of(rekeyed))
        other = self.root.intermediate("Misnamed CA")
        misnamed = other.issue(*NAMES, tweak=_aki_of(self.root))
        return [
            Case("untrusted root", frozenset({Code.INCOMPLETE_CHAIN}), untrusted, untrusted.chain),
            Case(
                "untrusted root, sent",
                frozenset({Code.UNTRUSTED_ROOT}),
                untrusted,
                (*untrusted.chain, foreign.cert),
            ),
            Case("self-signed", frozenset({Code.SELF_SIGNED}), alone, alone.chain),
            Case("too many intermediates", frozenset({Code.PATHLEN}), deep, deep.chain),
            Case("issued by a leaf", frozenset({Code.NOT_A_CA}), by_leaf, by_leaf.chain),
            Case("name constraints broken", frozenset({Code.NAME_CONSTRAINTS}), walled, walled.chain),
            Case("signature of another key", frozenset({Code.BAD_SIGNATURE}), forged, forged.chain),
            Case("another key identifier", frozenset({Code.AKI_MISMATCH}), misnamed, misnamed.chain),
        ]

    def _bad_leaves(self) -> list[Case]:
        now, day = self.now, timedelta(days=1)

        def case(title: str, code: Code, issue: Callable[[CA], Issued], host: str = NAME) -> Case:
            issued = issue(self.root.intermediate(f"CA of one {title}"))
            return Case(title, frozenset({code}), issued, issued.chain, "", host)

        return [
            case("expired", Code.EXPIRED, lambda ca: ca.issue(*NAMES, not_before=now - 60 * day, not_after=now - day)),
            case("not yet valid", Code.NOT_YET_VALID, lambda ca: ca.issue(*NAMES, not_before=now + 2 * day)),
            case("another name", Code.NAME_MISMATCH, lambda ca: ca.issue("other.example.test")),
            case("no alternative name", Code.NO_SAN, lambda ca: ca.issue("localhost", san=False), "localhost"),
            case(
                "for clients only",
                Code.BAD_EKU,
                lambda ca: ca.issue(*NAMES, eku=[ExtendedKeyUsageOID.CLIENT_AUTH]),
            ),
            case("without authority key identifier", Code.NO_AKI, lambda ca: ca.issue(*NAMES, tweak=_without_aki)),
        ]

    def _aia(self, fetched: str, issuer: x509.Certificate) -> Tweak | None:
        if not fetched:
            return None
        path = f"/{issuer.serial_number:x}.crt"
        if fetched == "reachable":
            self.at.publish(path, *der(issuer))
        address = x509.UniformResourceIdentifier(getattr(self.at, fetched) + path)
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, address)
        return lambda builder: builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)


def _aki_of(ca: CA) -> Tweak:
    """Names this authority's key as the issuer's, whoever signs."""

    def tweak(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        identifier = ca.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        return _without_aki(builder).add_extension(aki, critical=False)

    return tweak


def _without_aki(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    kept = [e for e in builder._extensions if e.oid != x509.AuthorityKeyIdentifier.oid]
    builder._extensions = kept
    return builder


def _self_signed(now: datetime) -> Issued:
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    leaf = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in NAMES]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(key, leaf)
